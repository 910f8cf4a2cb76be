"""L-BFGS: functions whose minima are known, and a comparison with SciPy's if it is installed."""

import importlib.util

import numpy as np
import pytest

from cmlp.training import lbfgs


def rosenbrock(x):
    a, b = x[:-1], x[1:]
    slope = np.zeros_like(x)
    slope[:-1] = -400 * a * (b - a * a) - 2 * (1 - a)
    slope[1:] += 200 * (b - a * a)
    return float((100 * (b - a * a) ** 2 + (1 - a) ** 2).sum()), slope


def bowl(x):
    scale = np.logspace(0, 4, len(x))
    return float(0.5 * (scale * x * x).sum()), scale * x


@pytest.mark.parametrize("f, n, minimum", [(rosenbrock, 2, 1), (rosenbrock, 10, 1), (bowl, 30, 0)])
def test_it_finds_the_minimum(f, n, minimum):
    found = lbfgs.minimise(f, np.full(n, -1.2), 1e-6, 1000, 5000)
    assert found.status == 0
    np.testing.assert_allclose(found.x, minimum, atol=1e-3)
    assert found.value == f(found.x)[0]


def test_limits():
    start = np.full(10, -1.2)
    few = lbfgs.minimise(rosenbrock, start, 1e-6, 3, 5000)
    assert (few.status, few.n_iter) == (1, 3) and "ITERATIONS" in few.message
    calls = []

    def counted(x):
        calls.append(x)
        return rosenbrock(x)

    few = lbfgs.minimise(counted, start, 1e-6, 1000, 7)
    assert few.status == 1 and "EVALUATIONS" in few.message and len(calls) <= 7
    done = lbfgs.minimise(rosenbrock, np.ones(4), 1e-6, 10, 10)
    assert (done.status, done.n_iter) == (0, 0)


def test_a_value_that_is_not_finite_is_stepped_back_from():
    def walled(x):
        if x[0] > 2:
            return np.nan, np.full_like(x, np.nan)
        return float(((x - 1.9) ** 2).sum()), 2 * (x - 1.9)

    found = lbfgs.minimise(walled, np.full(3, -50.0), 1e-8, 100, 500)
    np.testing.assert_allclose(found.x, 1.9, atol=1e-6)


def test_no_way_down():
    found = lbfgs.minimise(lambda x: (abs(x).sum(), -np.ones_like(x)), np.zeros(2), 1e-6, 9, 99)
    assert found.status == 2 and (found.x == 0).all()


@pytest.mark.skipif(importlib.util.find_spec("scipy") is None, reason="needs SciPy")
@pytest.mark.parametrize("f, n", [(rosenbrock, 2), (rosenbrock, 20), (bowl, 50)])
def test_as_good_as_scipys(f, n):
    start = np.linspace(-1.5, 1, n)
    ours = lbfgs.minimise(f, start, 1e-5, 1000, 5000)
    theirs = lbfgs.minimise_by_best(f, start, 1e-5, 1000, 5000)
    assert ours.status == theirs.status == 0
    assert ours.value <= theirs.value + 1e-6
    assert ours.n_iter <= 1.5 * theirs.n_iter + 5
