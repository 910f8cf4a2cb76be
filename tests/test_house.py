"""The layout of the package: imports run downward, files and functions stay short."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from helpers import python_output

import cmlp

SOURCE = Path(__file__).parents[1] / "src" / "cmlp"
pytestmark = pytest.mark.skipif(not SOURCE.is_dir(), reason="an installation has no .pyx")

RANKS = {
    "core": 0, "datasets": 0,
    "data": 1, "schedules": 1,
    "model": 2, "tables": 2,
    "training": 3, "files": 3,
    "explain": 4, "formats": 4, "diagnosis": 4, "sources": 4,
    "distributed": 5,
    "network": 6,
    "estimators": 7, "plot": 7,
    "exchange": 8, "page": 8, "course": 8,
    "__init__": 9,
    "cli": 10, "dask": 10,
    "__main__": 11,
}  # fmt: skip
"""Each package or module of the top level: it imports from lower ranks, and from itself."""


def files(*suffixes):
    return sorted(path for path in SOURCE.rglob("*") if path.suffix in suffixes)


def part_of(path):
    """Return the package, or the module of the top level, that a file belongs to."""
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def module_of(path):
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in files(".py", ".pyx")}


@cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path):
    """Return the modules of cmlp that a file imports: at the top, in functions, for types."""
    if path.suffix == ".pyx":
        text = path.read_text(encoding="utf-8")
        pattern = r"^\s*from (cmlp[\w.]*) c?import (.+)$"
        found = [
            (name, re.findall(r"\w+", names)) for name, names in re.findall(pattern, text, re.M)
        ]
    else:
        nodes = list(ast.walk(tree_of(path)))
        froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
        assert not any(node.level for node in froms), f"{path} has a relative import"
        found = [(node.module, [alias.name for alias in node.names]) for node in froms]
        plain = [node for node in nodes if isinstance(node, ast.Import)]
        found += [(alias.name, []) for node in plain for alias in node.names]
    modules = []
    for module, names in found:
        if module.split(".")[0] == "cmlp":
            inside = [f"{module}.{name}" for name in names if f"{module}.{name}" in MODULES]
            modules += inside or [module]
    return modules


def test_imports_run_downward():
    """Also those under TYPE_CHECKING."""
    upward = []
    for name, path in MODULES.items():
        here = part_of(path)
        for module in imports(path):
            there = [*module.split("."), "__init__"][1]
            if there != here and RANKS[there] >= RANKS[here]:
                upward.append(f"{name} imports {module}")
    assert not upward


def test_there_is_no_circle():
    """Not within a package either."""
    below = {name: {m for m in imports(path) if m != name} for name, path in MODULES.items()}
    while below:
        leaves = {name for name, needed in below.items() if not needed & below.keys()}
        assert leaves, f"these import each other: {sorted(below)}"
        below = {name: needed for name, needed in below.items() if name not in leaves}


def test_public_classes_say_so():
    """In reprs and pickles: files below may move."""
    public = {name: getattr(cmlp, name) for name in cmlp.__all__}
    classes = {name: thing.__module__ for name, thing in public.items() if isinstance(thing, type)}
    assert len(classes) > 15 and set(classes.values()) == {"cmlp"}, classes


def test_no_module_hides_a_function():
    """``cmlp.diagnose`` stays a function when every module has been imported."""
    modules = [name for name in MODULES if not name.endswith(("__main__", "_core", "_cpu"))]
    code = f"import importlib, cmlp; [*map(importlib.import_module, {modules})]; " + (
        "print(callable(cmlp.diagnose), callable(cmlp.load), cmlp.plot.loss_curve.__name__)"
    )
    assert python_output("-W", "ignore", "-c", code) == (0, "True True loss_curve\n")


def test_an_installation_has_every_module():
    """A package that the build forgets can be imported in a clone."""
    installed = Path(cmlp.__file__).parent
    for path in files(".py"):
        assert (installed / path.relative_to(SOURCE)).exists(), path


LONG_FILES = {"network.py": "half of it is the documentation that users read"}
"""Files above the budget, and why they may be."""

LONG_FUNCTIONS = {}
"""Functions above the budget, without their docstrings, and why they may be."""


def test_a_file_can_be_read_in_one_sitting():
    above = {}
    for path in files(".py", ".pyx", ".pxi", ".h"):
        most = 560 if path.suffix in (".py", ".pyx") else 400
        n = len(path.read_text(encoding="utf-8").splitlines())
        if n > most:
            above[path.relative_to(SOURCE).as_posix()] = n
    assert above.keys() == LONG_FILES.keys(), above


def n_lines_of_docstring(function):
    first = function.body[0]
    return first.end_lineno - first.lineno + 1 if ast.get_docstring(function) else 0


def test_functions_are_short():
    above = {}
    for path in files(".py"):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef):
                n = node.end_lineno - node.lineno + 1 - n_lines_of_docstring(node)
                if n > 60:
                    above[f"{path.relative_to(SOURCE).as_posix()}:{node.name}"] = n
    assert above.keys() == LONG_FUNCTIONS.keys(), above
