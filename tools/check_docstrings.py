"""Checks the docstrings of every public name with numpydoc: ``python tools/check_docstrings.py``.

Left out, of numpydoc's checks:

- ES01, EX01, SA01: an extended summary, examples and "See Also" for each name. One line is enough
  for most; examples are in the guide, and pages of the reference link to them.
- RT01, RT03, YD01: sections for what is returned, where the first line states it.
- PR08: descriptions begin with a capital letter; that of ``**recipe`` begins with a name.
- PR01 of parameters of methods that mean the same everywhere, such as X and y: their pages get them
  from ``METHODS`` of ``docs/_ext/shared_parameters.py``.
- PR01 of classes that the package makes and hands out: their attributes are described instead.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from pathlib import Path
from typing import Any

from numpydoc.validate import validate

import cmlp

sys.path.insert(0, str(Path(__file__).parents[1] / "docs" / "_ext"))
from shared_parameters import METHODS

LEFT_OUT = {"ES01", "EX01", "SA01", "RT01", "RT03", "YD01", "PR08"}
SHARED = {"cmlp.MLPRegressor", "cmlp.TabularRegressor"}
"""Their pages get the parameters of the classifiers: see ``docs/_ext/shared_parameters.py``."""


def members(path: str, thing: Any) -> list[str]:
    """Return the public functions and classes of a module, or methods of a class."""
    if inspect.ismodule(thing):
        found = [(n, v) for n, v in inspect.getmembers(thing) if not n.startswith("_")]
        own = getattr(thing, "__all__", None)
        if own is None:
            own = [n for n, v in found if getattr(v, "__module__", "") == thing.__name__]
        return [f"{path}.{n}" for n, v in found if n in own and not inspect.ismodule(v)]
    if not isinstance(thing, type):
        return [path]
    wanted = (inspect.isfunction, inspect.ismethod, lambda v: isinstance(v, property))
    found = inspect.getmembers(thing, lambda v: any(is_(v) for is_ in wanted))
    return [path, *(f"{path}.{n}" for n, _ in found if not n.startswith("_"))]


def names() -> list[str]:
    """Return every public name with what it contains."""
    found = [f for name in cmlp.__all__ for f in members(f"cmlp.{name}", getattr(cmlp, name))]
    return [*found, *members("cmlp.course.pictures", cmlp.course.pictures)]


def is_handed_out(thing: Any) -> bool:
    """Whether users get objects of a class and make none: results, errors, what a fit records."""
    return isinstance(thing, type) and (
        dataclasses.is_dataclass(thing)
        or issubclass(thing, BaseException)
        or getattr(thing, "_is_protocol", False)
        or thing.__name__ in ("Gradients", "History", "Propagation")
    )


def is_shared(text: str) -> bool:
    """Whether all parameters that a message of PR01 names are described in one place."""
    return set(re.findall(r"'\**(\w+)'", text)) <= METHODS.keys()


def faults() -> list[str]:
    """Return what is wrong, a line for each fault."""
    found = []
    for name in names():
        thing: Any = cmlp
        for part in name.split(".")[1:]:
            thing = getattr(thing, part)
        method = isinstance(getattr(cmlp, name.split(".")[1]), type) and name.count(".") > 1
        for code, text in validate(name)["errors"]:
            if code in LEFT_OUT or (code == "PR01" and is_handed_out(thing)):
                continue
            if code == "PR01" and (name in SHARED or (method and is_shared(text))):
                continue
            found.append(f"{name}: {code} {text}")
    return found


def main() -> None:
    """Print the faults; exit with 1 if there are any."""
    found = faults()
    print(*found, f"{len(names())} names, {len(found)} faults", sep="\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
