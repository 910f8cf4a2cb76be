"""The neutral form: its float64 oracle computes what the networks themselves predict."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import covering

import cmlp
from cmlp.core.vocabulary import ACTIVATIONS
from cmlp.exchange.networks import network_of
from cmlp.formats.chain import (
    Activation,
    Affine,
    Chain,
    ConversionError,
    Member,
    check,
    check_names,
    member_of,
    named,
    run,
    with_narrow_mean,
    with_scaler,
)

rng = np.random.default_rng(0)
X = rng.normal(size=(40, 7))
HIDDEN = [row.name for row in ACTIVATIONS if not row.output_only]


@pytest.mark.parametrize(
    ("activation", "parametric", "normalization"),
    covering(HIDDEN, (False, True), (None, "batch", "layer")),
)
def test_a_network(activation, parametric, normalization):
    net = cmlp.Network(
        [7, 12, 9, 3], activation, seed=1, dtype="float64", normalization=normalization,
        parametric_activation=parametric, input_scale=0.5,
    )  # fmt: skip
    net.fit(X, rng.integers(0, 3, 40), epochs=2, ema=0.9)
    chain = check(Chain(7, (member_of(net),)))
    np.testing.assert_allclose(run(chain, X), net.predict(X), rtol=1e-12, atol=1e-14)


def test_a_front():
    inputs = cmlp.Inputs(
        periodic=[0], levels={2: (5, 4)}, summed={3: 9}, scaled=True, cumulative=(3,)
    )
    rows = np.c_[X[:, :2], rng.integers(0, 5, 40), rng.uniform(-1, 10, 40)]
    net = cmlp.Network([4, 16, 1], "silu", inputs=inputs, dtype="float64", seed=0)
    net.fit(rows, X[:, :1], epochs=5)
    chain = Chain(4, (member_of(net),))
    np.testing.assert_allclose(run(chain, rows), net.predict(rows), rtol=1e-12, atol=1e-14)
    with pytest.raises(ConversionError, match="scaler before"):
        with_scaler(chain, np.zeros(4), np.ones(4))


def test_means_are_subtracted_not_folded():
    """float32 weights keep a mean of 1e5 deviations exact, since x - mean is computed first."""
    net = cmlp.Network([7, 12, 3], "tanh", seed=1)
    plain = Chain(7, (member_of(net),))
    mean, factor = np.full(7, 1e5), np.full(7, 2.0)
    twice = with_scaler(with_scaler(plain, mean, factor), np.ones(7), np.full(7, 0.5))
    z = ((X * 3 + 1e5 - 1) * 0.5 - mean) * factor
    np.testing.assert_allclose(run(twice, X * 3 + 1e5), run(plain, z), rtol=1e-6, atol=1e-6)


def test_means_of_few_digits_lose_nothing():
    """Rows of float32 hold 12345678 exactly, but not their mean."""
    net = cmlp.Network([7, 12, 3], "tanh", seed=1)
    rows = np.round(X * 100) + 12345678
    chain = with_scaler(Chain(7, (member_of(net),)), rows.mean(axis=0), np.full(7, 0.01))
    narrow = with_narrow_mean(chain)
    assert (narrow.mean.astype("f4") == narrow.mean).all() and (narrow.mean != chain.mean).any()
    np.testing.assert_allclose(run(narrow, rows), run(chain, rows), atol=1e-7)
    without = replace(chain, mean=narrow.mean)
    assert np.abs(run(without, rows) - run(chain, rows)).max() > 1e-4
    assert with_narrow_mean(Chain(7, chain.members)).mean is None


def test_the_largest_slope_may_be_one_of_float32():
    assert named("leaky_relu", float(np.float32(1e30)), "here") == "leaky_relu:1e30"


def test_what_does_not_fit():
    net = cmlp.Network([7, 12, 3], "tanh", seed=1, normalization="layer")
    net.scales[0][2] = np.inf
    with pytest.raises(ConversionError, match="layer 1 has weights that are not finite"):
        check(Chain(7, (member_of(net),)))
    net = cmlp.Network([7, 12, 3], "tanh", seed=1)
    net.weights[0][0, 0] = np.nan
    with pytest.raises(ConversionError, match="layer 1 has weights that are not finite"):
        check(Chain(7, (member_of(net),)))
    wave = Chain(7, (Member((Affine(np.ones((7, 1)), None), Activation("sine"))),))
    with pytest.raises(ConversionError, match="activation 'sine' cannot leave; these"):
        check_names(wave)


@pytest.mark.parametrize(
    ("activation", "normalization"),
    covering(("leaky_relu:0.3", "elu:0.5", "tanh"), ("layer", "batch")),
)
def test_parameters_of_a_network(activation, normalization):
    net = cmlp.Network(
        [7, 12, 3], activation, seed=1, dtype="float64", normalization=normalization,
        normalization_epsilon=0.1,
    )  # fmt: skip
    net.train_epoch(X, rng.integers(0, 3, 40))
    chain = check(Chain(7, (member_of(net),)))
    np.testing.assert_allclose(run(chain, X), net.predict(X), rtol=1e-12, atol=1e-14)
    again = network_of(chain)
    np.testing.assert_allclose(again.predict(X), net.predict(X), rtol=1e-12, atol=1e-14)
    assert again.activations == net.activations
    if normalization == "layer":
        assert again.normalization_epsilon == 0.1
        with pytest.raises(ConversionError, match=r"normalization_epsilon=0\.1"):
            cmlp.to_safetensors(net, "never")
