"""Ten training losses as PyTorch and scikit-learn have them, from the same first weights."""

import json

import numpy as np
import pytest
from witnesses import make_witnesses as witnesses

import cmlp

STORED = json.loads((witnesses.HERE / "witnesses.json").read_text())
CASES = {case["name"]: case for case in witnesses.cases()}


def losses_of(case, dtype):
    """Train with cmlp; returns the loss of each epoch."""
    net = cmlp.Network(case["sizes"], case["hidden"], loss=case["loss"], dtype=dtype,
                       normalization=case["normalization"])  # fmt: skip
    for mine, given in zip((net.weights, net.biases), witnesses.weights(case), strict=True):
        for target, source in zip(mine, given, strict=True):
            target[...] = source
    recipe = {"batch_size": None} | case["recipe"]
    history = net.fit(*witnesses.data(case), epochs=witnesses.STEPS, shuffle=False, **recipe)
    return history["loss"]


def tolerance(case, dtype):
    """Rounding adds up: each step is off by eps times the square root of the longest sum.

    The nets are small and smooth enough not to multiply that on the way (ten steps, no chaos); the
    factor 2 is for the libraries' own rounding, or for that of a loss added to the gradient's.
    """
    eps = float(np.finfo(dtype).eps)
    length = case["rows"] + max(case["sizes"])
    steps = witnesses.STEPS * len(witnesses.batches(case))
    return eps * np.sqrt(length) * 2 * steps


@pytest.mark.parametrize("name", CASES)
def test_stored_losses(core, dtype, name):
    limit = tolerance(CASES[name], dtype)
    np.testing.assert_allclose(losses_of(CASES[name], dtype), STORED[name], rtol=limit)


def test_the_stored_losses_are_those_of_the_recipe():
    assert set(STORED) == {"made by", *CASES}
    for name in CASES:
        assert len(STORED[name]) == witnesses.STEPS
        assert STORED[name][-1] < STORED[name][0], "it learns"


@pytest.mark.parametrize("name", CASES)
def test_live(name):
    """The libraries still say so, where they are installed."""
    case = CASES[name]
    pytest.importorskip(case["library"])
    live = witnesses.LIVE[case["library"]](case)
    np.testing.assert_allclose(live, STORED[name], rtol=1e-9)
    np.testing.assert_allclose(losses_of(case, "float64"), live, rtol=tolerance(case, "float64"))
