"""What a release promises: no instruction above a level's, and the versions that are tested."""

import importlib.util
import platform
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

import cmlp
from cmlp.core import dispatch

ROOT = Path(__file__).parents[1]
if not (ROOT / "tools" / "wheels.py").exists():
    pytest.skip("the tests run without their repository", allow_module_level=True)
spec = importlib.util.spec_from_file_location("wheels", ROOT / "tools" / "wheels.py")
wheels = importlib.util.module_from_spec(spec)
spec.loader.exec_module(wheels)

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SSE = "    10f0:\tmulps  %xmm1,%xmm0\n    10f3:\tverr   %ax\n"
AVX = "    10f4:\tvmulps %xmm1,%xmm2,%xmm0\n"
AVX2 = "    10f8:\tvfmadd231ps (%rax,%rdx,4),%ymm15,%ymm8\n"
AVX512VL = "    1101:\tvmulps %ymm17,%ymm2,%ymm3\n"
MASKED = "    1107:\tvmovups (%rax),%ymm3{%k1}{z}\n"
AVX512 = "    110d:\tvmulps (%rax){1to16},%zmm31,%zmm0\n"


# Machine code -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "listing", "found"),
    [
        ("baseline", SSE, 0),
        ("baseline", SSE + AVX + SSE, 1),
        ("baseline", AVX2 + AVX512, 2),
        ("avx2", SSE + AVX + AVX2, 0),
        ("avx2", AVX512VL + AVX2 + MASKED, 2),
        ("avx2", AVX512, 1),
        ("avx512", SSE + AVX + AVX2 + AVX512VL + MASKED + AVX512, 0),
    ],
)
def test_foreign_instructions_are_found(level, listing, found):
    lines = list(wheels.foreign_instructions(level, listing))
    assert len(lines) == found and all(line in listing for line in lines)


def test_every_level_but_the_highest_has_foreign_instructions():
    assert set(wheels.FOREIGN) == set(dispatch.COMPILED[1:])


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64" or not shutil.which("objdump"),
    reason="reads the machine code of x86-64 in ELF files, with objdump",
)
def test_no_library_is_above_its_level():
    installed = [level for level in dispatch.COMPILED if level in cmlp.core_info().available]
    if not installed:
        pytest.skip("no compiled core is installed")
    for level in installed:
        listing = wheels.disassembly(Path(dispatch._load(level).__file__))
        assert not list(wheels.foreign_instructions(level, listing))
        if level != "baseline":  # and the checker is not blind
            assert any(wheels.foreign_instructions("baseline", listing))
        if level == "avx512":
            assert any(wheels.foreign_instructions("avx2", listing))
    cpu = Path(importlib.util.find_spec("cmlp.core._cpu").origin)
    assert not list(wheels.foreign_instructions("baseline", wheels.disassembly(cpu)))


# Versions -----------------------------------------------------------------------------------------


def test_the_supported_versions_are_the_tested_ones():
    """docs/install.md states them; metadata, wheel builds and the tests' two ends agree."""
    ((first, last, first_free, numpy),) = re.findall(
        r"CPython (\S+) to (\S+), without the GIL from (\S+) on, and NumPy (\S+) or newer",
        (ROOT / "docs" / "install.md").read_text(encoding="utf-8"),
    )
    supported = [f"3.{n}" for n in range(int(first[2:]), int(last[2:]) + 1)]
    prefix = "Programming Language :: Python :: "
    classifiers = PROJECT["project"]["classifiers"]
    assert [v for v in supported if prefix + v in classifiers] == supported
    assert sum(name.startswith(prefix + "3.") for name in classifiers) == len(supported)
    assert PROJECT["project"]["requires-python"] == f">={first}"
    assert PROJECT["project"]["dependencies"] == [f"numpy>={numpy}"]
    free = supported[supported.index(first_free) :]
    builds = [f"cp{v.replace('.', '')}-*" for v in supported]
    builds += [f"cp{v.replace('.', '')}t-*" for v in free]
    assert PROJECT["tool"]["cibuildwheel"]["build"].split() == builds
    workflow = ROOT / ".github" / "workflows" / "tests.yml"
    if workflow.exists():  # an sdist has none
        ends = re.findall(r'python: "([\d.]+)", numpy: (\S+) ', workflow.read_text())
        assert ends == [(first, f"numpy=={numpy}.0"), (last, "numpy")]
