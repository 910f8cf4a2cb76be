"""Parameters that are documented with another estimator: the pages of both have them."""

import importlib
import inspect
import re

import cmlp

SIBLINGS = {
    "cmlp.MLPRegressor": (cmlp.MLPClassifier,),
    "cmlp.TabularRegressor": (cmlp.TabularClassifier,),
    "cmlp.dask.DaskMLPClassifier": (cmlp.MLPClassifier, cmlp.dask.train),
    "cmlp.dask.DaskMLPRegressor": (cmlp.MLPClassifier, cmlp.MLPRegressor, cmlp.dask.train),
    "cmlp.dask.DaskTabularClassifier": (cmlp.TabularClassifier, cmlp.dask.train),
    "cmlp.dask.DaskTabularRegressor": (
        cmlp.TabularRegressor,
        cmlp.TabularClassifier,
        cmlp.dask.train,
    ),
}


def entries_of(docstring: str) -> dict[tuple[str, ...], list[str]]:
    """Return the entries of the section Parameters: names, and the lines of each."""
    lines = docstring.splitlines()
    start = lines.index("Parameters") + 2
    found: dict[tuple[str, ...], list[str]] = {}
    for line, following in zip(lines[start:], [*lines[start + 1 :], ""], strict=True):
        if following.startswith("---"):  # the title of the next section
            break
        if line and not line.startswith(" "):
            names = tuple(re.findall(r"\w+", line.partition(":")[0]))
            found[names] = []
        found[names].append(line)
    return found


def whole(name: str, docstring: str) -> str:
    """Return the docstring of a class with the entries that only its sibling's has."""
    if name not in SIBLINGS:
        return docstring
    own = {parameter for names in entries_of(docstring) for parameter in names}
    path, _, last = name.rpartition(".")
    thing = getattr(importlib.import_module(path), last)
    needed, shared = set(inspect.signature(thing).parameters) - own, []
    for sibling in SIBLINGS[name]:
        for names, lines in entries_of(inspect.getdoc(sibling)).items():
            if needed.intersection(names):
                shared.append("\n".join(lines).rstrip())
                needed -= set(names)
    before, title, after = docstring.partition("\n\nExamples\n")
    return before + "\n" + "\n".join(shared) + title + after


def complete(app, what, name, obj, options, lines):
    """Complete the lines of a docstring, before numpydoc reads them."""
    if name in SIBLINGS and what == "class":
        lines[:] = whole(name, "\n".join(lines)).splitlines()


def setup(app):
    """Register with Sphinx."""
    app.connect("autodoc-process-docstring", complete, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
