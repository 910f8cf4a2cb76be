"""First weights from rows: what they make of the rows' sums."""

import numpy as np
import pytest
from helpers import refused

from cmlp import Network
from cmlp.core.seam import SparseRows
from cmlp.model.data_initialise import MOST_ROWS, initialise_from

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(500, 7)) * RNG.uniform(0.1, 30, 7) + RNG.normal(size=7)).astype(np.float32)


def sums(net, rows):
    return net.forward(rows, return_all=True).z


@pytest.mark.parametrize("options", [
    {}, {"input_scale": 0.1}, {"normalization": "layer"}, {"parametric_activation": True},
    {"dtype": "float64"},
], ids=str)  # fmt: skip
def test_every_unit_begins_with_deviation_1(engine, options):
    net = Network([7, 40, 30, 3], "selu", seed=0, **options)
    initialise_from(net, X.astype(net.dtype), np.random.default_rng(1))
    a = X.astype(np.float64) * net.input_scale
    for number, (W, b) in enumerate(zip(net.weights, net.biases, strict=True)):
        z = a @ W.astype(np.float64)
        np.testing.assert_allclose(z.std(axis=0), 1, rtol=1e-4)
        if net.normalization is not None and number < 2:
            assert not b.any()
        else:  # minus a mean of some sums lies among them
            assert (-b >= z.min(axis=0) - 1e-4).all() and (-b <= z.max(axis=0) + 1e-4).all()
            assert len(np.unique(b)) == len(b)
        a = net.forward(X, return_all=True).a[number].astype(np.float64)


def test_weights_are_normal_and_biases_means_of_five(engine):
    net = Network([1, 4000], "identity", "identity", "squared_error", dtype="float64", seed=0)
    rows = RNG.normal(size=(300, 1))
    initialise_from(net, rows)
    signs = np.sign(net.weights[0][0])
    np.testing.assert_allclose(np.abs(net.weights[0][0]), 1 / rows.std(), rtol=1e-3)
    assert abs(signs.mean()) < 6 / np.sqrt(4000)
    # flat Dirichlet weights of 5: the squares add up to 2 / 6 in the mean
    around = net.biases[0] + signs * rows.mean() / rows.std()
    assert np.square(around).mean() == pytest.approx(1 / 3, rel=0.15)
    assert abs(around.mean()) < 6 * np.sqrt(1 / 3 / 4000)


def test_a_seed_gives_the_same_weights(engine):
    nets = [Network([7, 5, 2], seed=3) for _ in range(3)]
    initialise_from(nets[0], X)
    initialise_from(nets[1], X)
    initialise_from(nets[2], X, np.random.default_rng(9))
    np.testing.assert_array_equal(nets[0].params, nets[1].params)
    assert (nets[0].weights[0] != nets[2].weights[0]).any()


def test_constant_and_single_rows(engine):
    """No deviation to divide by: weights stay moderate."""
    for rows in (np.zeros((30, 7)), np.full((30, 7), 1e4), X[:1]):
        net = Network([7, 20, 2], "mish", seed=0)
        initialise_from(net, rows.astype(np.float32))
        assert np.isfinite(net.params).all()
        assert max(np.abs(W).max() for W in net.weights) < 10


def test_sparse_and_many_rows(engine):
    dense = np.where(RNG.random((50, 7)) < 0.3, 1.5, 0).astype(np.float32)
    at = np.nonzero(dense)
    indptr = np.r_[0, np.cumsum((dense != 0).sum(axis=1))].astype(np.int32)
    sparse = SparseRows(dense[at], at[1].astype(np.int32), indptr, 7)
    nets = [Network([7, 5, 2], seed=3) for _ in range(2)]
    initialise_from(nets[0], dense)
    initialise_from(nets[1], sparse)
    np.testing.assert_array_equal(nets[0].params, nets[1].params)
    many = Network([1, 3], seed=0)
    initialise_from(many, RNG.normal(size=(MOST_ROWS + 100, 1)).astype(np.float32))
    assert np.isfinite(many.params).all()


def test_no_rows():
    with refused(ValueError, "need rows of X"):
        initialise_from(Network([7, 2], seed=0), X[:0])
