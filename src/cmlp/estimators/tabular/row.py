"""One row at a time: from raw values to an answer, without a data frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cmlp.core.layout import Array
from cmlp.estimators.tabular.members import Member


def row_predictor(
    encoders: Sequence[Any], members: Sequence[Member], decode: Callable[[Array], Any]
) -> Callable[[Any], Any]:
    """Return a function from a row, a dict or a tuple, to its answer.

    Parameters
    ----------
    decode : callable
        Turns the mean of the members' outputs, (n_outputs,), into the answer.
    """
    rows = [encoder.row() for encoder in encoders]
    runs = [(member.encoder, member.network.predictor(), member.scale) for member in members]
    if len(runs) == 1:
        encode, (_, run, scale) = rows[0], runs[0]
        if scale is None:
            return lambda row: decode(run(encode(row)))
        return lambda row: decode(scale.to_numbers(run(encode(row))))

    n = len(runs)

    def answer(row: Any) -> Any:
        inputs = [encode(row) for encode in rows]
        parts = [
            run(inputs[number]) if scale is None else scale.to_numbers(run(inputs[number]))
            for number, run, scale in runs
        ]
        total = parts[0] + parts[1]  # a new array: the next call overwrites the parts
        for part in parts[2:]:
            total += part
        total /= n
        return decode(total)

    return answer
