"""The examinations of :func:`cmlp.diagnose`: each measures one thing, and reports it if it is odd.

A false alarm is worse than silence: every threshold lies well outside of what healthy trainings
show, and its reason stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from cmlp.diagnosis.of_curve import curve, diverged
from cmlp.diagnosis.of_data import DATA_EXAMINATIONS, UNSCALED, missing_values
from cmlp.diagnosis.of_fit import over_fitting, skill
from cmlp.diagnosis.of_units import gradients, units
from cmlp.diagnosis.subject import Case, Finding


def examine(case: Case) -> Iterator[Finding]:
    """Run every examination that the case allows."""
    if case.missing:
        yield from missing_values(case)
        return
    codes = set()
    for examination in DATA_EXAMINATIONS:
        for finding in examination(case):
            codes.add(finding.code)
            yield finding
    if case.diverged and not codes & UNSCALED:
        yield diverged(case)  # otherwise that is why
    if case.state is None:
        return
    if not case.state.finite:
        yield Finding(
            "not-finite-outputs", "error", math.nan,
            "The network's outputs are NaN or infinite on these rows.",
            f"Train it again from the start, with a smaller {case.word('learning_rate')} and "
            "scaled inputs.",
        )  # fmt: skip
        return
    for examination in NETWORK_EXAMINATIONS:
        for finding in examination(case):
            if finding.code != "learning-rate-too-low" or not codes & UNSCALED:
                yield finding  # otherwise that is why


NETWORK_EXAMINATIONS: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    units,
    gradients,
    curve,
    skill,
    over_fitting,
)
