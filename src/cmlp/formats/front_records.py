"""What happens before the first layer, in a model file: its description, and its arrays' shapes."""

from __future__ import annotations

from typing import Any

from cmlp.data.records import entries
from cmlp.model.architecture import widths
from cmlp.model.inputs import Inputs

_INPUTS: dict[str, tuple[type, ...]] = {
    "periodic": (list,),
    "levels": (list,),
    "summed": (list,),
    "scaled": (bool,),
    "frequencies": (int,),
    "width": (int,),
    "cumulative": (list,),
}


def front_shapes(about: dict[str, Any]) -> tuple[tuple[int, ...], dict[str, tuple[int, ...]]]:
    """Check the description of the front in that of a network.

    Returns
    -------
    widths : tuple of int
        Fan-in of every layer, and the outputs.
    shapes : dict
        Of the front's arrays, by name.

    Raises
    ------
    TypeError, ValueError
        If it does not fit the network, before anything is allocated.
    """
    sizes = tuple(about["sizes"])
    if about["inputs"] is None:
        return sizes, {}
    record = entries(about["inputs"], "inputs", _INPUTS, {})
    for name, length in (("levels", 3), ("summed", 2)):
        if not all(type(item) is list and len(item) == length for item in record[name]):
            raise TypeError(f"{name} of inputs must be lists of {length} numbers")
    inputs = Inputs.from_dict(record)
    for name, items in (("levels", inputs.levels), ("summed", inputs.summed)):
        if len(items) != len(record[name]):
            raise ValueError(f"{name} of inputs names a column twice")
    return widths(sizes, inputs), inputs.shapes(*sizes[:2])
