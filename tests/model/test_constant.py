"""The loss of the best constant prediction, against a network that has nothing but a bias."""

import numpy as np
import pytest
from helpers import squared_error

import cmlp
from cmlp.model.constant import constant_loss

N = 200
LOSSES = {
    "squared_error": {},
    "absolute_error": {},
    "huber": {"huber_delta": 0.7},
    "quantile": {"quantile": 0.2},
    "binary_crossentropy": {},
    "categorical_crossentropy": {},
    "poisson": {},
}


def targets_for(loss, n_out):
    """Skewed targets: of one output all are 0, and of two classes there are no rows."""
    rng = np.random.default_rng(0)
    if loss == "categorical_crossentropy":
        return rng.choice(n_out, N, p=[0.7, 0.3] + [0.0] * (n_out - 2))
    if loss == "binary_crossentropy":
        return (rng.random((N, n_out)) < np.linspace(0.0, 0.9, n_out)).astype(float)
    if loss == "poisson":
        return rng.poisson(np.linspace(0.0, 5, n_out), (N, n_out)).astype(float)
    return rng.exponential(size=(N, n_out)) * 3 - 1


def loss_of_biases(net, biases, data):
    """The loss of a network whose outputs are the same for all rows."""
    flat = cmlp.Network(
        [1, net.sizes[-1]], loss=net.loss_name, weight_init="zeros", dtype="float64",
        missing_targets=net.missing_targets, **LOSSES[net.loss_name],
    )  # fmt: skip
    flat.biases[0] = biases
    return flat.loss(np.zeros((N, 1)), data.targets, data.weights)


def biases_of(net, y, weights):
    """Candidates: what the mean, or a quantile, takes before the output's activation."""
    known = np.isfinite(y) * weights[:, None]
    mean = np.nan_to_num(y * known).sum(axis=0) / known.sum(axis=0)
    quantile = np.nanquantile(y, LOSSES[net.loss_name].get("quantile", 0.5), axis=0)
    low = np.clip(mean, 1e-9, 1 - 1e-9)
    return {
        "logistic": [np.log(low / (1 - low))],
        "softmax": [np.log(np.maximum(mean, 1e-9))],
        "exp": [np.log(np.maximum(mean, 1e-9))],
    }.get(net.activations[-1], [mean, quantile])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_constant_loss_is_that_of_a_bias(engine, dtype, loss, weighted):
    missing = loss != "categorical_crossentropy"
    net = cmlp.Network(
        [2, 4, 3], loss=loss, dtype=dtype, missing_targets=missing, **LOSSES[loss], seed=0
    )
    y = targets_for(loss, 3)
    if missing:
        y[::7, 1] = np.nan
    weights = np.arange(N) % 4.0 if weighted else None
    data = net.encode_rows(np.zeros((N, 2)), y, weights)
    numbers = (y[:, None] == np.arange(3)).astype(float) if y.ndim == 1 else y
    candidates = biases_of(net, numbers, np.ones(N) if weights is None else weights)
    expected = min(loss_of_biases(net, biases, data) for biases in candidates)
    assert constant_loss(net, data) == pytest.approx(expected, rel=1e-12)


def test_outputs_without_any_target(engine):
    net = cmlp.Network([2, 2], loss="absolute_error", missing_targets=True)
    y = np.stack([np.arange(5.0), np.full(5, np.nan)], axis=1)
    assert constant_loss(net, net.encode_rows(np.zeros((5, 2)), y)) == pytest.approx(6 / 5)


def test_a_custom_loss_has_none():
    net = cmlp.Network([2, 1], loss=squared_error)
    assert constant_loss(net, net.encode_rows(np.zeros((2, 2)), [1.0, 2.0])) is None
