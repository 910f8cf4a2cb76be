"""The counts of a classifier's answers as a table of text."""

from __future__ import annotations

import numpy as np

from cmlp.core.layout import Array
from cmlp.data.labels import places
from cmlp.training.progress import cut, printable


def confusion_table(truth: Array, read: Array, labels: Array) -> str:
    """Return a table of how labels were read: a row per true label, a column per label read.

    `labels` are in the order of the outputs. Beyond 20 of them, the ten pairs that were confused
    most often.
    """
    counts = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(counts, (places(labels, truth), places(labels, read)), 1)
    names = [printable(str(label)) for label in labels]
    if len(labels) > 20:
        wrong = counts * (1 - np.eye(len(labels), dtype=np.int64))
        worst = [divmod(int(i), len(labels)) for i in np.argsort(-wrong, axis=None)[:10]]
        pairs = [f"  {names[i]}: {names[j]}, {wrong[i, j]}" for i, j in worst if wrong[i, j]]
        head = f"{len(labels)} classes; most often confused (true: read as, times):"
        return "\n".join([head, *pairs])
    short = [cut(name, 12) for name in names]
    if labels.dtype.kind == "U" and len({*short}) == len(short):  # a number keeps its digits
        names = short
    first = max(map(len, [*names, "true"]))
    width = max(len(text) for text in [*names, str(counts.max())])
    lines = [f"{'true':>{first}} | read as", " " * first + " |"]
    lines[1] += "".join(f" {name:>{width}}" for name in names)
    for name, row in zip(names, counts.tolist(), strict=True):
        lines.append(f"{name:>{first}} |" + "".join(f" {n or '.':>{width}}" for n in row))
    return "\n".join(lines)
