"""Chooses the core, once, when cmlp is imported, and bounds the threads.

``CMLP_CORE`` (auto, avx512, avx2, baseline, python) overrides the choice. ``CMLP_NUM_THREADS``, or
else ``OMP_NUM_THREADS``, bounds the threads where `n_threads` is not given. ``model.passes`` and
``training.trainer`` call ``dispatch.core.<function>``, whichever core it is.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import NoReturn

from cmlp.core.processors import openmp_bound, read_bound, usable_cpus
from cmlp.core.public import set_module

COMPILED = ("avx512", "avx2", "baseline")
"""The compiled cores, the fastest first."""


@set_module("cmlp")
@dataclass(frozen=True)
class CoreInfo:
    """What runs the arithmetic here.

    Attributes
    ----------
    core : str
        The core in use: 'avx512', 'avx2', 'baseline' or 'python'.
    vector_bytes : int
        Width of its vectors; 0 for the NumPy path.
    available : tuple of str
        Cores that this installation and this processor can run, the fastest first.
    missing : dict of str to str
        The others, each with the reason.
    cpus : int
        Processors that this process may use: by its affinity, and by the quota of its container.
    threads : int
        Threads that are used at most where `n_threads` is not given: all processors, or what
        ``CMLP_NUM_THREADS`` allows; where that is not set, ``OMP_NUM_THREADS`` and
        ``OMP_THREAD_LIMIT``.
    threads_by : str
        The variable that makes `threads` less than `cpus`; empty if they are equal.
    """

    core: str
    vector_bytes: int
    available: tuple[str, ...]
    missing: dict[str, str]
    cpus: int
    threads: int
    threads_by: str = ""

    def __str__(self) -> str:
        lines = [f"core       {describe(self.core)}", f"available  {', '.join(self.available)}"]
        lines += [f"missing    {name}: {reason}" for name, reason in self.missing.items()]
        by = f" (by {self.threads_by})" if self.threads_by else ""
        lines += [f"cpus       {self.cpus}", f"threads    {self.threads}{by}"]
        return "\n".join(lines)


def describe(name: str) -> str:
    """Describe a core in a few words; for the NumPy path, with how to get a compiled one."""
    if name != "python":
        return f"{name} (compiled, {8 * _load(name).vector_bytes}-bit vectors)"
    if len(_cores) > 1:
        return "python (NumPy)"
    return "python (NumPy; no compiled core is installed: reinstall with a C compiler for speed)"


def threads_for(wanted: int | None) -> int:
    """Return how many threads to use: at most as many as requested, and as there are processors.

    More of them would wait for each other. None is what the environment allows.
    """
    most = _allowed()[0] if wanted is None else wanted
    return usable_cpus() if most is None else min(most, usable_cpus())


def _allowed() -> tuple[int | None, str]:
    """Return the most threads to use where `n_threads` is not given, and which variable sets it.

    OpenMP's variables are read each time: a process that was forked may have set them since.
    """
    return openmp_bound() if _bound is None else (_bound, "CMLP_NUM_THREADS")


def _find_cores() -> tuple[dict[str, ModuleType | None], dict[str, str]]:
    """List the cores that can run here, and why the others cannot; imports none of them yet."""
    cores: dict[str, ModuleType | None] = {}
    missing: dict[str, str] = {}
    try:
        levels = importlib.import_module("cmlp.core._cpu").levels()
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "cmlp.core._cpu":
            reason = "not in this installation (built without a C compiler, or CMLP_BUILD=none)"
            if not os.path.isdir(os.path.dirname(__file__)):
                reason = "no compiled module can be imported from a zip file; unpack or install it"
        else:
            reason = f"cmlp.core._cpu failed to import: {error}"
            _warn_of("modules are", error)
        return {"python": None}, dict.fromkeys(COMPILED, reason)
    for name in COMPILED:
        if name not in levels:
            missing[name] = "this processor or operating system does not run it"
        elif importlib.util.find_spec(f"cmlp.core._core_{name}") is None:
            missing[name] = "not built for this platform"
        else:
            cores[name] = None
    return {**cores, "python": None}, missing


def _load(name: str) -> ModuleType:
    """Import a core that was found, once."""
    module = _cores[name]
    if module is None:
        path = "cmlp.core.reference" if name == "python" else f"cmlp.core._core_{name}"
        module = _cores[name] = importlib.import_module(path)
    return module


def _choose(name: str) -> ModuleType:
    """Return the core of that name; 'auto' is the fastest that can be imported."""
    if name in _missing:
        raise RuntimeError(f"core {name!r} cannot run here: {_missing[name]}")
    if name != "auto" and name not in _cores:
        known = ", ".join(("auto", *COMPILED, "python"))
        raise ValueError(f"unknown core {name!r}; known: {known}")
    for candidate in tuple(_cores) if name == "auto" else (name,):
        try:
            return _load(candidate)
        except ImportError as error:
            del _cores[candidate]
            _missing[candidate] = f"it failed to import: {error}"
            if name != "auto":
                raise RuntimeError(f"core {name!r} cannot run here: {_missing[name]}") from error
            _warn_of(f"core {candidate!r} is", error)
    raise AssertionError("the NumPy path is always there")


def _warn_of(what: str, error: ImportError) -> None:
    warnings.warn(
        f"cmlp's compiled {what} installed but failed to import ({error}); a slower core is used. "
        "Reinstall cmlp.",
        RuntimeWarning,
        stacklevel=3,
    )


class _Refusal(ModuleType):
    """Placeholder for a core that the environment does not choose validly: first use raises.

    ``import cmlp`` succeeds, and the command reports the error in one line.
    """

    def __getattr__(self, name: str) -> NoReturn:
        raise ImportError(self.__doc__)


_cores, _missing = _find_cores()


core: ModuleType


try:
    core = _choose(os.environ.get("CMLP_CORE") or "auto")
except (RuntimeError, ValueError) as error:
    core = _Refusal("core", f"CMLP_CORE: {error}")


_bound: int | None = None


try:
    _bound = read_bound(os.environ.get("CMLP_NUM_THREADS"))
except ValueError as error:
    core = _Refusal("core", str(error))


def core_info() -> CoreInfo:
    """Return which core is in use, which others there are, and why the rest is not."""
    cpus, threads = usable_cpus(), threads_for(None)
    by = _allowed()[1] if threads < cpus else ""
    return CoreInfo(
        core.name, core.vector_bytes, tuple(_cores), dict(_missing), cpus, threads, by
    )  # fmt: skip


@set_module("cmlp")
class use_core:
    """Use another core, from now on or in a block: ``with cmlp.use_core("python"): ...``.

    Networks can be used with any core: they hold arrays only. The choice is one for the whole
    process, so do not change it while another thread is inside cmlp.

    Parameters
    ----------
    name : {'auto', 'avx512', 'avx2', 'baseline', 'python'}

    Raises
    ------
    RuntimeError
        If the core cannot run on this machine; the message gives the reason.
    ValueError
        If there is no such core.
    """

    def __init__(self, name: str) -> None:
        global core
        chosen = _choose(name)
        self.before, core = core, chosen

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        global core
        core = self.before
