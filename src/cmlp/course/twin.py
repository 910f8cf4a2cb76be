"""The NumPy twin's source, for the reader of a lesson."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

PLACES = {
    "logistic": ("activations._logistic", "return np.where"),
    "relu": ("activations._FUNCTIONS", '"relu"'),
    "softmax": ("activations._softmax", "return e"),
    "forward": ("forward.propagate", "z = product + b"),
    "product": ("forward.propagate", "product = a @ W"),
    "squared": ("losses._costs_of_outputs", "0.5 * r * r"),
    "cross-entropies": ("losses._costs_of_sums", "np.maximum(z, 0) - y * z"),
    "update": ("updates.update", "params -= eta * g"),
    "delta": ("losses.output_delta", "return da * slope"),
    "cross-entropy delta": ("losses.output_delta", "a - y"),
    "backward": ("backward.add_gradient", "delta = operand @ W.T"),
    "share": ("step.row_shares", "weight / total"),
    "epoch": ("step.train_epoch", "batch = order"),
}
"""Name for readers: the function of ``cmlp.core.reference``, and its line to look at."""


def source(name: str, whole: bool = False) -> str:
    """Return a function of the NumPy twin with its line numbers; a > marks the line that matters.

    Parameters
    ----------
    name : str
        One of 'logistic', 'relu', 'softmax', 'product', 'forward', 'squared', 'cross-entropies',
        'delta', 'cross-entropy delta', 'backward', 'share', 'epoch' and 'update'.
    whole : bool
        False returns the lines around the one that matters.

    Returns
    -------
    str
        To be printed; its first line is the file.

    Raises
    ------
    ValueError
        If there is no such name.

    Examples
    --------
    >>> from cmlp import course
    >>> print(course.source("softmax").splitlines()[0])
    cmlp/core/reference/activations.py
    """
    if name not in PLACES:
        raise ValueError(f"name is {name!r}; it must be one of: {', '.join(PLACES)}")
    place, marked = PLACES[name]
    module_name, function_name = place.split(".")
    module = importlib.import_module(f"cmlp.core.reference.{module_name}")
    found = getattr(module, function_name)
    if inspect.isfunction(found):
        lines, first = inspect.getsourcelines(found)
    else:  # a table
        lines, first = Path(inspect.getfile(module)).read_text(encoding="utf-8").splitlines(), 1
    at = next(n for n, line in enumerate(lines) if marked in line)
    start, stop = 0, len(lines)
    if not inspect.isfunction(found) or (len(lines) > 12 and not whole):
        start, stop = max(0, at - 5), min(len(lines), at + 6)
    shown = [
        f"{first + n:5d} {'>' if n == at else ' '} {lines[n].rstrip()}".rstrip()
        for n in range(start, stop)
    ]
    return "\n".join([f"cmlp/core/reference/{module_name}.py", *shown])
