"""The learning rate from epoch to epoch: scikit-learn's rules, and schedules."""

import numpy as np
import pytest
from helpers import refused

from cmlp import schedules
from cmlp.training.rates import RULES, SMALLEST, LearningRate


@pytest.mark.parametrize("rule", RULES)
def test_the_first_rates_are_the_initial_one(rule):
    rate = LearningRate(rule, 0.1, 10)
    np.testing.assert_array_equal(rate.rates(3, []), [0.1] * 3)
    assert rate.foreseeable == (rule != "invscaling")


def test_inverse_scaling_goes_by_the_rows_that_were_used():
    rate = LearningRate("invscaling", 0.1, 10, power_t=0.25)
    rate.end_epoch(99)
    assert rate.learning_rate == 0.1 / 100**0.25
    np.testing.assert_array_equal(rate.rates(2, []), [rate.learning_rate] * 2)
    assert rate.end_at_stall() == "Stopping."


def test_an_adaptive_rate_is_lowered_at_every_stall_until_it_is_too_small():
    rate, n = LearningRate("adaptive", 0.1, 10), 0
    while not (reason := rate.end_at_stall()):
        n += 1
        assert rate.learning_rate == pytest.approx(0.1 / 5**n)
    assert reason == "Learning rate too small. Stopping." and rate.learning_rate <= SMALLEST
    assert 0.1 / 5 ** (n - 1) > SMALLEST


def test_a_schedule_sets_every_rate():
    rate, schedule = LearningRate("cosine", 0.1, 4), schedules.resolve("cosine")
    for epoch in range(4):
        expected = schedule.rates(0.1, epoch, 4, 5, [])
        np.testing.assert_array_equal(rate.rates(5, []), expected)
        assert rate.learning_rate == expected[-1]
    np.testing.assert_array_equal(rate.rates(5, []), expected)  # longer than the schedule
    assert rate.end_at_stall() == "Stopping."


def test_warming_up():
    rates = LearningRate("constant", 0.1, 4, warmup_fraction=0.5)
    first, second, third = (rates.rates(10, []) for _ in range(3))
    assert 0 <= first[0] < first[-1] < second[-1] <= 0.1 and (third == 0.1).all()


def test_a_name_that_is_none():
    with refused(ValueError, "cosin"):
        LearningRate("cosin", 0.1, 4)
