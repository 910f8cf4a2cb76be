"""The examinations of a diagnosis, in order: each measures one thing, and yields what is unusual.

A false alarm is worse than silence: every threshold lies well outside of what healthy trainings
show, and its reason stands next to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from cmlp.diagnosis.finding import Finding
from cmlp.diagnosis.of_curve import curve, diverged
from cmlp.diagnosis.of_data import DATA_EXAMINATIONS, UNSCALED, missing_values
from cmlp.diagnosis.of_fit import over_fitting, skill
from cmlp.diagnosis.of_units import gradients, units
from cmlp.diagnosis.subject import Subject, Trained

NETWORK_EXAMINATIONS: tuple[Callable[[Subject, Trained], Iterator[Finding]], ...] = (
    units,
    gradients,
    curve,
    skill,
    over_fitting,
)


def examine(subject: Subject) -> Iterator[Finding]:
    """Run every examination that the subject allows."""
    if subject.sample.missing:
        yield from missing_values(subject)
        return
    codes = set()
    for examination in DATA_EXAMINATIONS:
        for finding in examination(subject):
            codes.add(finding.code)
            yield finding
    unscaled = bool(codes & UNSCALED)
    trained = subject.trained
    if trained is None:
        if not unscaled:  # otherwise that is why
            yield diverged(subject)
        return
    if not trained.finite:
        yield _not_finite_outputs(subject)
        return
    for network_examination in NETWORK_EXAMINATIONS:
        for finding in network_examination(subject, trained):
            if finding.code != "learning-rate-too-low" or not unscaled:
                yield finding  # otherwise that is why


def _not_finite_outputs(subject: Subject) -> Finding:
    return Finding(
        "not-finite-outputs", "error", math.nan,
        "The network's outputs are NaN or infinite on these rows.",
        f"Train it again from the start, with a smaller {subject.model.word('learning_rate')} and "
        "scaled inputs.",
    )  # fmt: skip
