"""Diagnosis: what is wrong with a training, in plain words, and which parameter to change.

A model passes what is examined (:mod:`cmlp.diagnosis.model`); each examination measures one
thing, and yields a :class:`Finding` if it is unusual.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from numpy.typing import ArrayLike

from cmlp.core.errstate import silent
from cmlp.core.public import set_module
from cmlp.data.rows import check_pair
from cmlp.diagnosis.examinations import examine
from cmlp.diagnosis.finding import SEVERITIES, Finding
from cmlp.diagnosis.model import Model
from cmlp.diagnosis.subject import collect


@set_module("cmlp")
@dataclass(frozen=True)
class Diagnosis:
    """What :func:`cmlp.diagnose` found; true if there is nothing but notes.

    Attributes
    ----------
    findings : list of Finding
        The gravest first.
    looked_at : str
        How many rows, and what else, the findings rest on.
    """

    findings: list[Finding]
    looked_at: str

    @property
    def ok(self) -> bool:
        """Whether there are neither errors nor warnings."""
        return all(finding.severity == "note" for finding in self.findings)

    @property
    def codes(self) -> list[str]:
        """The findings' codes."""
        return [finding.code for finding in self.findings]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain dicts, lists, text and numbers, ready for JSON."""
        return {
            "ok": self.ok,
            "looked_at": self.looked_at,
            "findings": [
                {**asdict(finding), "names": list(finding.names)} for finding in self.findings
            ],
        }

    def __bool__(self) -> bool:
        return self.ok

    def __len__(self) -> int:
        return len(self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __getitem__(self, code: str) -> Finding:
        for finding in self.findings:
            if finding.code == code:
                return finding
        raise KeyError(f"{code!r} was not found; found: {', '.join(self.codes) or 'nothing'}")

    def __str__(self) -> str:
        lines = [f"{self._verdict()} Looked at {self.looked_at}."]
        for finding in self.findings:
            lines += [
                "",
                f"{finding.severity}: {finding.code}",
                *_wrapped(finding.meaning),
                *_wrapped(f"-> {finding.advice}"),
            ]
        return "\n".join(lines)

    def _verdict(self) -> str:
        if not self.findings:
            return "Nothing is wrong that can be seen."
        counts = [(sum(f.severity == s for f in self.findings), s) for s in SEVERITIES]
        found = ", ".join(f"{n} {name}{'s' * (n > 1)}" for n, name in counts if n)
        return found + "."

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{f.severity}</td><td><code>{html.escape(f.code)}</code></td>"
            f"<td style='text-align:left'>{html.escape(f.meaning)}<br><b>"
            f"{html.escape(f.advice)}</b></td></tr>"
            for f in self.findings
        )
        head = html.escape(f"{self._verdict()} Looked at {self.looked_at}.")
        return f"<p>{head}</p>" + (f"<table>{rows}</table>" if rows else "")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 96, initial_indent="  ", subsequent_indent="  ")


def diagnose(
    model: Any,
    X: ArrayLike,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    X_val: ArrayLike | None = None,
    y_val: ArrayLike | None = None,
) -> Diagnosis:
    """Report in plain words what is wrong with a training, and which parameter to change.

    The model is left as it is. After fitting, its weights and its curve are examined; before
    fitting, a copy trains for a few short epochs with the model's parameters (a
    :class:`~cmlp.Network` has none before it is fitted: with the defaults of ``fit``).

    Silence is the rule: a finding means that something measured lies well outside of what healthy
    trainings show.

    Parameters
    ----------
    model : Network, MLPClassifier or MLPRegressor
        Fitted or not. Of a fitted ensemble every member is examined.
    X, y : array-like
        The training data. At most 4,096 rows, drawn evenly, are examined (all of them for
        missing values and the number of each class), so that memory is bounded.
    sample_weight : array-like, (n,), optional
        How much each row counts; by default all alike.
    X_val, y_val : array-like, optional
        Rows that the model was not trained on, which show over-fitting; without them the
        validation curve of the training does, if there is one.

    Returns
    -------
    Diagnosis
        ``print`` it; true if nothing is wrong.

    Examples
    --------
    >>> import numpy as np, cmlp
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(500, 3)) * [1, 1, 5000]
    >>> y = (X[:, 0] > 0).astype(int)
    >>> cmlp.diagnose(cmlp.Network([3, 8, 2], seed=0), X, y).codes
    ['unscaled-inputs']
    """
    found: Diagnosis = model.diagnose(X, y, sample_weight=sample_weight, X_val=X_val, y_val=y_val)
    return found


@silent
def diagnose_models(
    models: Sequence[Model],
    X: ArrayLike,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    X_val: ArrayLike | None = None,
    y_val: ArrayLike | None = None,
) -> Diagnosis:
    """Diagnose a network, or the members of an ensemble; see :func:`diagnose`."""
    check_pair(X_val, y_val)
    each = []
    for model in models:
        subject = collect(model, X, y, sample_weight, X_val, y_val)
        each.append(Diagnosis(sorted(examine(subject), key=_gravity), subject.looked_at()))
    return each[0] if len(each) == 1 else _joined(each)


def _gravity(finding: Finding) -> int:
    return SEVERITIES.index(finding.severity)


def _joined(each: Sequence[Diagnosis]) -> Diagnosis:
    """Report what was found in the members of an ensemble: each code once, where it is gravest."""
    by_code: dict[str, list[Finding]] = {}
    for diagnosis in each:
        for finding in diagnosis:
            by_code.setdefault(finding.code, []).append(finding)
    findings = []
    for found in by_code.values():
        gravest = min(found, key=_gravity)
        if len(found) < len(each):
            meaning = f"In {len(found)} of {len(each)} members: {gravest.meaning}"
            gravest = replace(gravest, meaning=meaning)
        findings.append(gravest)
    looked_at = f"{len(each)} members; for the first at {each[0].looked_at}"
    return Diagnosis(sorted(findings, key=_gravity), looked_at)
