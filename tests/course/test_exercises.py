"""Exercises: right answers pass, each slip gets its own hint, and nothing breaks the checker."""

import itertools

import numpy as np
import pytest

import cmlp
from cmlp import course
from cmlp.course.exercise import SLIPS
from cmlp.course.lessons import EXERCISES, NAMES

every = pytest.mark.parametrize("key", EXERCISES)


def as_written(exercise, value):
    """A value as a learner writes it: a word, or numbers with the digits that are needed."""
    return value if isinstance(value, str) else np.round(value, exercise.digits)


@every
def test_the_right_answer_passes(key):
    exercise = EXERCISES[key]
    verdict = course.check(key, as_written(exercise, exercise.right()))
    assert verdict and str(verdict) == "Right."


@every
def test_each_slip_gets_its_own_hint(key):
    exercise = EXERCISES[key]
    hints = set()
    for slip in exercise.slips:
        verdict = course.check(key, as_written(exercise, slip.value()))
        assert not verdict and str(verdict) == f"Not yet: {slip.hint}"
        hints.add(slip.hint)
    assert len(hints) == len(exercise.slips) > 0


@every
def test_no_answer_fits_two_of_them(key):
    """Two values lie more than two tolerances apart in some place: no number is near both."""
    exercise = EXERCISES[key]
    values = [exercise.right(), *(slip.value() for slip in exercise.slips)]
    for one, other in itertools.combinations(values, 2):
        one, other = np.squeeze(one), np.squeeze(other)
        if one.dtype.kind != "U" and one.shape == other.shape and np.isfinite(one + other).all():
            assert np.abs(one - other).max() > 0.999 * 10.0**-exercise.digits, (one, other)


def test_slips_are_of_the_kinds_that_are_known():
    kinds = {slip.kind for exercise in EXERCISES.values() for slip in exercise.slips}
    assert kinds == SLIPS.keys()


def test_three_exercises_a_lesson():
    assert [*EXERCISES] == [f"{n}.{k}" for n in range(1, len(NAMES) + 1) for k in (1, 2, 3)]


ANSWERS = {
    "1.1": 0.562, "1.2": 0, "1.3": [[7, 2], [3, 1]], "2.1": (64, 16), "2.2": 1482, "2.3": 13002,
    "3.1": 0.07, "3.3": 0.45, "4.1": (1.9, 0.5), "4.2": 0.2, "4.3": 7, "5.1": -0.1010,
    "5.2": (-0.0237, 0.0397), "5.3": 0.0691, "6.1": 0.0041, "6.2": 120, "6.3": 0.0041,
    "7.1": 0.2231, "7.2": (-0.341, 0.242, 0.099), "7.3": 40, "8.1": "shuffled", "8.2": 1.0,
    "8.3": "dead-units",
}  # fmt: skip
"""Worked out by hand from the questions, on paper and with a pocket calculator."""


@pytest.mark.parametrize("key", ANSWERS)
def test_answers_that_were_worked_out_by_hand(key, engine):
    assert course.check(key, ANSWERS[key])


def test_what_a_trained_network_answers_is_the_same_on_every_core(core):
    """The networks of 3.2 and 8.3 are trained: rounding must not decide about the answer."""
    digits = cmlp.load_digits()
    costs = course.digits_net().predict(digits.X_test) - np.eye(10)[digits.y_test]
    assert course.check("3.2", np.square(costs).sum(axis=1).argmax())
    assert course.raw_reader().diagnose(digits.X_train, digits.y_train).codes[0] == "dead-units"


def test_an_answer_with_more_digits_passes_too():
    assert course.check("1.1", 1 / (1 + np.exp(-0.25)))
    assert course.check("5.2", np.array([[-0.02374268, 0.03972784]]))
    assert course.check("8.3", " 'Dead-Units' ")


@pytest.mark.parametrize(
    ("key", "answer", "text"),
    [
        ("1.1", ..., "Nothing yet: write your answer in place of the three dots."),
        ("1.1", 0.56, "Nearly: right to 2 digits after the point, 3 are needed."),
        ("1.1", 7, "Not yet. First the weighted sum with the bias, then the sigmoid of it."),
        ("1.1", "0.562", "Not yet: a number or numbers are expected, '0.562' came."),
        ("1.1", 0.562j, "Not yet: a number or numbers are expected, 0.562j came."),
        ("1.1", [0.562, 0.562], "Not yet: shape (2,) came, () is meant."),
        ("1.3", [[7, 2], [3]], "Not yet: rows of equal length are expected."),
        (
            "4.3",
            6.64,
            "Not yet: a whole number is meant. Each step multiplies w2 by the same number.",
        ),
        ("4.1", 1.9, "Not yet: shape () came, (2,) is meant."),
        ("8.1", 0.97, "Not yet: a word between quotes is expected, 0.97 came."),
        ("7.2", [np.nan] * 3, "Not yet. First softmax, then delta = a - y."),
    ],
)
def test_other_answers(key, answer, text):
    assert str(course.check(key, answer)) == text


@pytest.mark.parametrize(
    "answer", [object(), {}, {1: 2}, [], [[]], b"x", [None], np.array(["x"]), 10**400, (1, "x")]
)
def test_nothing_breaks_the_checker(answer):
    for key in ("1.1", "4.1", "8.1"):
        assert str(course.check(key, answer)).startswith("Not yet")


def test_help_in_three_levels_and_the_answer():
    assert course.hint("5.1").startswith("The chain rule")
    assert course.hint("5.1", 3) == "(0.5841 - 1) * 0.5841 * (1 - 0.5841)"
    assert "-0.1010" in course.solution("5.1") and "delta" in course.question("5.1")
    with pytest.raises(ValueError, match="there are 1 to 3"):
        course.hint("5.1", 4)
    with pytest.raises(ValueError, match=r"exercise is '9\.1'; there are 1\.1, 1\.2"):
        course.check("9.1", 0)


@every
def test_the_plainest_hint_leads_to_the_answer(key):
    """Where it is an expression of numbers alone, it is the answer."""
    exercise = EXERCISES[key]
    try:
        value = eval(exercise.hints[2], {"np": np})
    except (SyntaxError, NameError):
        return
    if isinstance(value, bool) or np.shape(value) != np.shape(exercise.right()):
        return
    assert course.check(key, value), value
