"""The compiled core and the NumPy twin face each other: file by file, and code by code."""

import ast
import re
from pathlib import Path

import pytest
from cores import CORES
from helpers import python_output

from cmlp.core import dispatch

CORE = Path(__file__).parents[2] / "src" / "cmlp" / "core"
pytestmark = pytest.mark.skipif(not CORE.is_dir(), reason="an installation has no .pyx")

WITHOUT_TWIN = {
    "bounds": "NumPy undoes a step that has overflowed, and proves nothing beforehand",
    "guards": "NumPy checks every index",
    "lanes_step": "one file has all of lanes in NumPy",
    "ndarray": "NumPy knows its own arrays",
    "rows": "NumPy reads any number type",
    "run": "Python passes the arguments on",
    "vectors": "the C of simd.h",
}
"""Kernels without a module in the twin, and why."""


def test_every_kernel_has_a_twin():
    kernels = {path.stem for path in (CORE / "kernels").glob("*.pxi")}
    modules = {path.stem for path in (CORE / "reference").glob("*.py")} - {"__init__"}
    assert kernels >= WITHOUT_TWIN.keys()
    assert modules == kernels - WITHOUT_TWIN.keys()


def test_every_kernel_is_included_once():
    included = re.findall(r'^include "kernels/(\w+)\.pxi"$', (CORE / "_core.pyx").read_text(), re.M)
    assert sorted(included) == sorted(path.stem for path in (CORE / "kernels").glob("*.pxi"))


def test_the_levels_are_the_same_everywhere():
    """Those that are built, those that a processor is tested for, and those that are loaded."""
    tree = ast.parse((CORE.parents[2] / "setup.py").read_text())
    (levels,) = (
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "levels"
    )
    tables = [node for node in ast.walk(levels) if isinstance(node, ast.Dict)]
    built = {key.value for table in tables for key in table.keys}
    answers = re.findall(r"return (\(.+\))$", (CORE / "_cpu.pyx").read_text(), re.M)
    tested = [ast.literal_eval(answer) for answer in answers]
    assert max(tested, key=len) == dispatch.COMPILED[::-1]
    assert set().union(*tested) == built == set(dispatch.COMPILED)


OTHER_CODES = """
import cmlp
from cmlp.core import seam, vocabulary
{change}
try:
    cmlp.use_core({core!r})
except RuntimeError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "change",
    [
        "seam.MAX_BATCH = 512",
        "seam.TEAM_STOP = 12",
        "vocabulary.ACTIVATIONS = vocabulary.ACTIVATIONS[:-1]",
        "vocabulary.SOLVERS = (vocabulary.SOLVERS[0]._replace(code=9), *vocabulary.SOLVERS[1:])",
        "vocabulary.NORMALIZATIONS = (None, 'layer', 'batch')",
    ],
)
def test_codes_that_differ_are_refused(change):
    """A core that was compiled for another vocabulary does not import."""
    if CORES[0] == "python":
        pytest.skip("no compiled core")
    code = OTHER_CODES.format(change=change, core=CORES[0])
    status, text = python_output("-c", code, CMLP_CORE="python")
    assert status == 0 and "it failed to import: the codes of the compiled core differ" in text
