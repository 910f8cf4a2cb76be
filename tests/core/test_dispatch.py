"""Which core runs, and the messages where it is another one than expected."""

import importlib.util
import sys
import types

import numpy as np
import pytest
from cores import CORES
from helpers import python_output, refused

import cmlp
from cmlp.core import dispatch, reference

SHOW = "import cmlp; print(cmlp.core_info().core)"


@pytest.mark.parametrize("name", [*CORES, "auto", ""])
def test_the_environment_chooses(name):
    code, text = python_output("-c", SHOW, CMLP_CORE=name)
    expected = name if name in CORES else python_output("-c", SHOW, CMLP_CORE="auto")[1].strip()
    assert (code, text.strip()) == (0, expected)


def test_the_environment_asks_for_nonsense():
    code, text = python_output("-c", SHOW, CMLP_CORE="avx1024")
    assert code == 1
    assert text.splitlines()[-1].startswith("ImportError: CMLP_CORE: unknown core 'avx1024'")
    assert "avx512" in text.splitlines()[-1] and "python" in text.splitlines()[-1]


def test_the_environment_asks_for_what_cannot_run():
    code, text = python_output("-c", FAKE_PROCESSOR + SHOW, CMLP_CORE="avx512")
    last = text.splitlines()[-1]
    assert code == 1 and last.startswith("ImportError: CMLP_CORE: core 'avx512' cannot run here")


FAKE_PROCESSOR = """
import sys, types
sys.modules["cmlp.core._cpu"] = types.SimpleNamespace(levels=lambda: ("baseline",))
"""


def test_the_best_core_is_the_default():
    _, text = python_output("-c", SHOW, CMLP_CORE="auto")
    assert text.strip() == next(iter(dispatch._cores))


# Finding them -------------------------------------------------------------------------------------


@pytest.fixture
def installation(monkeypatch):
    """Pretend another one: the levels, and what importing each core gives (None: no file)."""

    def pretend(levels, **outcomes):
        def outcome(name):
            if name == "cmlp.core.reference":
                return reference
            short = name.removeprefix("cmlp.core._").removeprefix("core_")
            if short == "cpu":
                return levels and types.SimpleNamespace(levels=lambda: levels)
            return outcomes.get(short, types.SimpleNamespace(name=short, vector_bytes=1))

        def import_module(name):
            found = outcome(name)
            if found is None:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(importlib, "import_module", import_module)
        monkeypatch.setattr(importlib.util, "find_spec", outcome)
        cores, missing = dispatch._find_cores()
        monkeypatch.setattr(dispatch, "_cores", cores)
        monkeypatch.setattr(dispatch, "_missing", missing)
        monkeypatch.setattr(dispatch, "core", dispatch._choose("auto"))
        return cmlp.core_info()

    return pretend


def test_the_processor_is_asked_before_the_import(installation):
    info = installation(("avx2", "baseline"), avx512=AssertionError("must not be imported"))
    assert info.core == "avx2" and info.available == ("avx2", "baseline", "python")
    assert "processor" in info.missing["avx512"]
    with refused(RuntimeError, "core 'avx512' cannot run here", "processor"):
        cmlp.use_core("avx512").__enter__()


def test_without_a_compiler_there_is_python(installation):
    info = installation(None)
    assert info.core == "python" and info.available == ("python",)
    assert set(info.missing) == set(dispatch.COMPILED)
    assert all("without a C compiler" in reason for reason in info.missing.values())
    assert "with a C compiler" in dispatch.describe("python")
    assert cmlp.Network([2, 1]).predict([[1, 2]]).shape == (1, 1)


def test_a_platform_with_one_level(installation):
    info = installation(("baseline",), avx2=None, avx512=None)
    assert info.available == ("baseline", "python") and set(info.missing) == {"avx2", "avx512"}


def test_a_core_that_was_not_built(installation):
    info = installation(("avx2", "baseline"), avx2=None)
    assert info.core == "baseline" and "not built" in info.missing["avx2"]


def test_a_core_that_fails_to_import_warns(installation):
    with pytest.warns(RuntimeWarning, match="'avx2'.*failed to import.*undefined.*Reinstall"):
        info = installation(("avx2", "baseline"), avx2=ImportError("undefined symbol: x"))
    assert info.core == "baseline" and info.available == ("baseline", "python")
    assert "undefined symbol: x" in info.missing["avx2"]


def test_a_core_that_fails_when_it_is_asked_for(installation):
    info = installation(("avx2", "baseline"), baseline=ImportError("undefined symbol: x"))
    assert info.core == "avx2"
    with refused(RuntimeError, "core 'baseline' cannot run here", "undefined symbol: x"):
        cmlp.use_core("baseline").__enter__()
    assert cmlp.core_info().core == "avx2"


# Choosing -----------------------------------------------------------------------------------------


def test_use_core_nests_and_comes_back():
    before = dispatch.core
    with cmlp.use_core("python"):
        with cmlp.use_core("auto"):
            assert dispatch.core is next(iter(dispatch._cores.values()))
        assert cmlp.core_info().core == "python"
        with pytest.raises(LookupError), cmlp.use_core("auto"):
            raise LookupError
        assert cmlp.core_info().core == "python"
    assert dispatch.core is before


def test_use_core_works_as_a_plain_call():
    before = dispatch.core
    try:
        cmlp.use_core("python")
        assert cmlp.core_info().core == "python"
    finally:
        dispatch.core = before


def test_use_core_refuses(monkeypatch):
    with refused(ValueError, "unknown core 'avx'", "auto, avx512, avx2, baseline, python"):
        cmlp.use_core("avx")
    monkeypatch.setattr(dispatch, "_missing", {"sse9": "this processor does not run it"})
    with refused(RuntimeError, "core 'sse9' cannot run here: this processor does not run it"):
        cmlp.use_core("sse9")


def test_use_core_changes_what_runs(core, monkeypatch):
    called = []
    forward = core.forward
    monkeypatch.setattr(core, "forward", lambda *args: called.append(core.name) or forward(*args))
    cmlp.Network([2, 1]).forward(np.ones((1, 2)), return_all=True)
    assert called == [cmlp.core_info().core]


def test_core_info(core, monkeypatch):
    info = cmlp.core_info()
    assert info.core == core.name and info.vector_bytes == core.vector_bytes
    assert info.available[-1] == "python" and info.cpus >= 1
    assert (info.vector_bytes == 0) == (info.core == "python")
    monkeypatch.setattr(dispatch, "_missing", {"sse9": "too new"})
    lines = str(cmlp.core_info()).splitlines()
    assert lines[0].startswith(f"core       {core.name} (")
    assert lines[1] == f"available  {', '.join(info.available)}"
    assert lines[2] == "missing    sse9: too new" and lines[3] == f"cpus       {info.cpus}"
    assert lines[4] == f"threads    {info.threads}" and 1 <= info.threads <= info.cpus


def test_importing_cmlp_imports_nothing_heavy():
    code, text = python_output("-c", "import sys, cmlp; print(*sys.modules)")
    assert code == 0
    assert not {"pandas", "scipy", "sklearn", "torch", "hypothesis", "pytest"} & set(text.split())
    assert not {"cmlp.exchange", "cmlp.formats", "cmlp.estimators"} & set(text.split())
    assert sys.modules["cmlp"] is cmlp
