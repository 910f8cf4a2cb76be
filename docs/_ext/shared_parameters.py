"""Parameters on pages that docstrings lack: those of another estimator, or of many methods."""

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

METHODS = {
    "X": ("array-like, (n, n_in)", "Rows, as `fit` takes them."),
    "y": ("array-like, (n,) or (n, n_out)", "Labels or numbers, as `fit` takes them."),
    "sample_weight": ("array-like, (n,), optional", "How much each row counts."),
    "X_val": ("array-like, optional", "Rows that are held out."),
    "y_val": ("array-like, optional", "Labels or numbers of those rows."),
    "l1": ("float", "Factor of the sum of the absolute weights that is added to the loss."),
    "l2": ("float", "Half of it is the factor of the sum of the squared weights."),
    "batch_size": ("int or None", "Rows for each step; None takes all."),
    "shuffle": ("bool", "Whether rows are drawn in random order."),
    "n_threads": ("int or None", "Threads that compute; None chooses."),
    "path": ("str or path", "The file; one that is there is replaced."),
    "source": ("Source", "Rows with their targets; see :mod:`cmlp.data`."),
    "n_columns": ("int", "Columns of X."),
    "n_units": ("int", "Units of the first layer."),
    "fit_params": ("", "What else `fit` takes."),
    "metadata": ("", "Names of arguments, each True, False, None or another name to take it from."),
    "params": ("", "Names and values, those of the constructor."),
    "input_features": ("array-like, optional", "Not used: scikit-learn passes it."),
    "transform": ("{'default', 'pandas', 'polars'}, optional", "None changes nothing."),
}
"""Parameters of methods, and what they are wherever a docstring leaves them out."""


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


def with_parameters(thing, docstring: str) -> str:
    """Return a method's docstring with the parameters of `METHODS` that it leaves out."""
    own = entries_of(docstring) if "\nParameters\n---" in docstring else {}
    taken = {name for names in own for name in names}
    entries = {names[0]: "\n".join(lines).rstrip() for names, lines in own.items()}
    signature = inspect.signature(thing).parameters.values()
    for parameter in signature:
        if parameter.name in METHODS and parameter.name not in taken:
            kind, text = METHODS[parameter.name]
            stars = {parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
            entries[parameter.name] = f"{stars}{parameter.name}{kind and ' : '}{kind}\n    {text}"
    if len(entries) == len(own):
        return docstring
    order = [parameter.name for parameter in signature]
    listed = "\n".join(entries[name] for name in sorted(entries, key=order.index))
    about, *sections = re.split(r"\n\n(?=[A-Z]\w+\n---)", docstring)
    others = [section for section in sections if not section.startswith("Parameters\n")]
    return "\n\n".join([about, f"Parameters\n----------\n{listed}", *others])


def complete(app, what, name, obj, options, lines):
    """Complete the lines of a docstring, before numpydoc reads them."""
    if what == "method":
        lines[:] = with_parameters(obj, inspect.cleandoc("\n".join(lines))).splitlines()
    if name in SIBLINGS and what == "class":
        lines[:] = whole(name, "\n".join(lines)).splitlines()


def setup(app):
    """Register with Sphinx."""
    app.connect("autodoc-process-docstring", complete, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
