"""Exercise: a question whose answer is computed, and whose usual slips are computed like it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

SLIPS = {
    "bias": "the bias is forgotten, or is subtracted",
    "linear": "layers without an activation are thought to do more when stacked",
    "shape": "a matrix is transposed, or the bias belongs to the wrong side",
    "factor": "a sum for a mean, or a factor of 1/2 or 2",
    "sign": "a difference the wrong way round, a step uphill, a logarithm without its minus",
    "rate": "the learning rate and the curvature do not fit",
    "slope": "the derivative of the activation: of a instead of z, twice, or never",
    "output": "the derivative of the output's activation: where it cancels, and where not",
    "early": "the weights are stepped before they carry delta back",
    "kept": "something of the last step, or of another row, is kept",
    "mean": "averaging hides what a single row contributes",
    "one-plus-y": "1 + y for 1 - y, or the logarithm of 0",
    "labels": "a label, a place or a sureness is taken for the number that is meant",
    "dead": "the consequence is taken for the cause, or the cause for the consequence",
}
"""What beginners are known to get wrong; each slip of an exercise is of one of these kinds."""


@dataclass(frozen=True)
class Slip:
    """A wrong answer that has a reason."""

    kind: str
    value: Callable[[], Any]
    hint: str


@dataclass(frozen=True)
class Exercise:
    """A question, its answer, and what the usual wrong answers come from.

    Attributes
    ----------
    key : str
        Lesson and number, such as "5.2".
    question : str
        Markdown, with formulas between dollars.
    right : callable
        Computes the answer: a number, an array or a word.
    digits : int
        Digits after the point that the answer needs; 0 for whole numbers and words.
    slips : tuple of Slip
    hints : tuple of str
        From the vaguest to the plainest.
    solution : str
        The way to the answer, in words and formulas.
    """

    key: str
    question: str
    right: Callable[[], Any]
    digits: int
    slips: tuple[Slip, ...]
    hints: tuple[str, str, str]
    solution: str

    def agrees(self, answer: Any, value: Any, digits: int | None = None) -> bool:
        """Return whether an answer is a value, to the digits after the point."""
        if isinstance(answer, str) or isinstance(value, str):
            return isinstance(answer, str) and isinstance(value, str) and answer == value
        answer, value = np.squeeze(answer), np.squeeze(value)
        if answer.shape != value.shape:
            return False
        tolerance = 0.5 * 10.0 ** -(self.digits if digits is None else digits)
        return bool(np.allclose(answer, value, rtol=0, atol=tolerance * (1 + 1e-6), equal_nan=True))

    def check(self, answer: Any) -> Verdict:
        """Compare an answer with the right one, and then with the slips."""
        if answer is ... or answer is None:
            return Verdict(False, "Nothing yet: write your answer in place of the three dots.")
        right = self.right()
        try:
            given = _as_given(answer, right)
        except (TypeError, ValueError, OverflowError) as error:
            return Verdict(False, f"Not yet: {error}.")
        counts = isinstance(given, str) or self.digits > 0 or bool(np.all(given == np.rint(given)))
        if counts and self.agrees(given, right):
            return Verdict(True, "Right.")
        for slip in self.slips:
            if self.agrees(given, slip.value()):
                return Verdict(False, f"Not yet: {slip.hint}")
        if not isinstance(right, str):
            if np.squeeze(given).shape != np.squeeze(right).shape:
                came, meant = np.shape(given), np.shape(right)
                return Verdict(False, f"Not yet: shape {came} came, {meant} is meant.")
            if not counts:
                return Verdict(False, f"Not yet: a whole number is meant. {self.hints[0]}")
            for digits in range(self.digits - 1, 0, -1):
                if self.agrees(given, right, digits):
                    places = f"{digits} digit{'s' if digits > 1 else ''} after the point"
                    return Verdict(False, f"Nearly: right to {places}, {self.digits} are needed.")
        return Verdict(False, f"Not yet. {self.hints[0]}")


@dataclass(frozen=True)
class Verdict:
    """What :func:`check` found; true if the answer is right. Print it."""

    right: bool
    text: str

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return self.text


def _as_given(answer: Any, right: Any) -> Any:
    """Return an answer as text or as an array of numbers, as the right one is."""
    if isinstance(right, str):
        if not isinstance(answer, str):
            raise TypeError(f"a word between quotes is expected, {answer!r} came")
        return answer.strip().strip("'\"`").lower()
    try:
        given = np.asarray(answer)
    except ValueError:
        raise ValueError("rows of equal length are expected") from None
    if given.dtype.kind not in "biuf":
        raise TypeError(f"a number or numbers are expected, {answer!r} came")
    return given.astype(np.float64)
