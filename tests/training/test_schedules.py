"""Learning rates over time."""

import math

import numpy as np
import pytest
from helpers import blobs, refused
from hypothesis import given
from hypothesis import strategies as st

from cmlp import Network, schedules

X, Y = blobs(12)


def rates(schedule, epochs=10, n_steps=4, learning_rate=1.0, losses=()):
    """The rate of every step of a training, (epochs, n_steps)."""
    plan = schedules.resolve(schedule)
    return np.array(
        [
            plan.rates(learning_rate, epoch, epochs, n_steps, losses[:epoch])
            for epoch in range(epochs)
        ]
    )


@pytest.mark.parametrize("name", [None, *schedules.NAMES])
def test_every_name(name):
    found = rates(name, learning_rate=0.3)
    assert found.shape == (10, 4) and found.dtype == np.float64
    assert (found >= 0).all() and (found > 0).mean() > 0.9 and (found <= 0.3).all()
    history = Network([3, 3], seed=0).fit(X, Y, epochs=3, schedule=name, learning_rate=0.3)
    assert all(0 <= rate <= 0.3 for rate in history["learning_rate"])
    assert history["learning_rate"][1] > 0


def test_coslog4():
    """Four cycles that end at 1/15, 3/15, 7/15 and 1; 0 at the first step, and at each end."""
    found = rates("coslog4", epochs=15, n_steps=8).ravel()
    t = np.arange(120) / 120
    np.testing.assert_allclose(found, (1 - np.cos(2 * math.pi * np.log2(1 + 15 * t))) / 2)
    assert found[0] == 0 and np.allclose(found[[8, 24, 56]], 0, atol=1e-12)
    peaks = [(2 ** (cycle + 0.5) - 1) / 15 for cycle in range(4)]
    at_peaks = schedules.CosLog().factor(np.array(peaks), np.array(peaks))
    np.testing.assert_allclose(at_peaks, 1)
    assert np.flatnonzero((found[1:-1] > found[:-2]) & (found[1:-1] >= found[2:])).size == 4
    one = rates(schedules.CosLog(cycles=1)).ravel()
    assert one[0] == 0 and one.argmax() == pytest.approx((2**0.5 - 1) * 40, abs=1)


def test_flat_cos():
    found = rates("flat_cos", epochs=10).ravel()
    t = np.arange(40) / 40
    assert (found[:20] == 1).all() and found[20] == 1 and (np.diff(found[20:]) < 0).all()
    np.testing.assert_allclose(found[20:], (1 + np.cos(math.pi * (2 * t[20:] - 1))) / 2)
    assert (rates(schedules.FlatCos(flat=0.9)).ravel()[:36] == 1).all()


def test_constant():
    assert (rates(None) == 1).all() and (rates("constant", learning_rate=0.2) == 0.2).all()


def test_cosine():
    found = rates("cosine").ravel()
    np.testing.assert_allclose(found, 0.5 * (1 + np.cos(math.pi * np.arange(40) / 40)))
    assert found[0] == 1 and (np.diff(found) < 0).all() and found[-1] < 0.01
    assert rates(schedules.Cosine(final=0.5)).min() > 0.5


def test_one_cycle():
    found = rates("one_cycle", epochs=100).ravel()
    top = int(found.argmax())
    assert top == pytest.approx(0.3 * 400, abs=1) and found[top] == pytest.approx(1)
    assert found[0] == pytest.approx(0.04)
    assert (np.diff(found[: top + 1]) > 0).all() and (np.diff(found[top:]) < 0).all()
    assert 0 < found[-1] < 1e-3
    assert rates(schedules.OneCycle(peak=0.0))[0, 0] == 1


def test_step():
    found = rates(schedules.Step(every=3, multiplier=0.5))
    np.testing.assert_allclose(found[:, 0], [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125])
    assert (found == found[:, :1]).all()  # the same all through an epoch


def test_exponential():
    np.testing.assert_allclose(
        rates(schedules.Exponential(multiplier=0.9))[:, 0], 0.9 ** np.arange(10)
    )


def test_inverse_scaling():
    found = rates(schedules.InverseScaling(power=0.5))[:, 0]
    np.testing.assert_allclose(found, 1 / np.sqrt(np.arange(1, 11)))


def test_adaptive():
    flat = [1.0] * 10
    found = rates(schedules.Adaptive(patience=2, multiplier=0.1), losses=flat)[:, 0]
    np.testing.assert_allclose(found, [1, 1, 1, 0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-4])
    falling = list(np.linspace(1, 0, 10))
    assert (rates("adaptive", losses=falling) == 1).all()


def test_adaptive_watches_the_validation_loss(engine):
    net = Network([3, 3], seed=0)
    history = net.fit(
        X, Y, X_val=X, y_val=np.roll(Y, 1), epochs=30, learning_rate=0.1,
        schedule=schedules.Adaptive(patience=2, multiplier=0.5),
    )  # fmt: skip
    assert (
        history["loss"][-1] < history["loss"][0]
        and history["val_loss"][-1] > history["val_loss"][0]
    )
    assert history["learning_rate"][-1] < 0.1 * 0.5**5


def test_warm_up():
    found = rates(schedules.Constant(warmup_fraction=0.5)).ravel()
    np.testing.assert_allclose(found[:20], np.arange(1, 21) / 20)
    assert (found[19:] == 1).all()
    assert (rates(schedules.Cosine(warmup_fraction=0.2)) <= rates("cosine")).all()


def test_a_function_gives_the_rate_itself(engine):
    asked = []

    def rate(epoch):
        asked.append(epoch)
        return 0.5 / (epoch + 1)

    history = Network([3, 3], seed=0).fit(X, Y, epochs=3, schedule=rate, learning_rate=99)
    assert asked == [0, 1, 2] and history["learning_rate"] == [0.5, 0.25, 0.5 / 3]


def test_every_step_has_its_rate(engine):
    """A fit is its steps, each with the rate of the schedule."""
    net, other = (Network([3, 3], dtype="float64", seed=0) for _ in range(2))
    net.fit(X, Y, epochs=2, batch_size=5, shuffle=False, schedule="cosine", learning_rate=0.3)
    for number, rate in enumerate(rates("cosine", 2, 3, 0.3).ravel()):
        at = 5 * (number % 3)
        other.step(X[at : at + 5], Y[at : at + 5], learning_rate=float(rate))
    np.testing.assert_array_equal(net.params, other.params)


@pytest.mark.parametrize(
    "make, parts",
    [
        (lambda: schedules.Constant(warmup_fraction=1.0), ("warmup_fraction", "below 1")),
        (lambda: schedules.OneCycle(peak=-0.1), ("peak", "at least 0")),
        (lambda: schedules.Step(every=0), ("every", "at least 1")),
        (lambda: schedules.Adaptive(patience=0), ("patience", "at least 1")),
        (lambda: schedules.Cosine(final=-1), ("final",)),
        (lambda: schedules.CosLog(cycles=0), ("cycles", "at least 1")),
        (lambda: schedules.FlatCos(flat=1.0), ("flat", "below 1")),
        (lambda: schedules.Exponential(multiplier=-1), ("multiplier",)),
        (lambda: rates("cosin"), ("Unknown schedule 'cosin'", "'cosine'?", "one_cycle")),
        (lambda: rates(["cosine"]), ("Unknown schedule",)),
        (lambda: rates(lambda epoch: -1.0), ("schedule(0)", "at least 0")),
        (lambda: rates(lambda epoch: math.nan), ("schedule(0)", "nan")),
    ],
)
def test_wrong_parameters(make, parts):
    with refused(ValueError, *parts):
        make()


@pytest.mark.parametrize("wrong", [lambda epoch: None, lambda epoch: "fast"])
def test_what_is_no_rate(wrong):
    with refused(TypeError, "schedule"):
        rates(wrong)


@given(
    name=st.sampled_from(sorted(schedules.NAMES)),
    epochs=st.integers(1, 40),
    n_steps=st.integers(1, 20),
    learning_rate=st.floats(0, 10),
    warmup=st.floats(0, 0.99, allow_subnormal=False),
)
def test_rates_stay_between_zero_and_the_rate(name, epochs, n_steps, learning_rate, warmup):
    schedule = schedules.NAMES[name](warmup_fraction=warmup)
    found = rates(schedule, epochs, n_steps, learning_rate)
    assert found.shape == (epochs, n_steps)
    assert (found >= 0).all() and (found <= learning_rate * (1 + 1e-12)).all()
