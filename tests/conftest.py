"""The fixtures that every test is written against.

A test with `core` runs once on each core of this machine, or on the one that CMLP_CORE forces; one
with `engine` runs on the fastest and the NumPy core, enough for what is Python above the seam; one
with `compiled` runs on the compiled cores; one with `dtype` runs in both number types. Test bodies
name none of them. Which of many cases run on which core and number type is chosen in `helpers`.
"""

import os
import signal
from collections import Counter

# Before NumPy is imported: its products are small here, and the threads of OpenBLAS wait for each
# other in a busy loop, which multiplies the processor time wherever other programs run.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
from cores import COMPILED, CORES, ENGINES

import cmlp
from cmlp.core import dispatch, processors
from cmlp.training import trainer

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it


def in_use(request):
    """Use the core that a fixture's parameter names, and count the test for it."""
    request.node.user_properties.append(("core", request.param))
    with cmlp.use_core(request.param):
        yield dispatch.core


@pytest.fixture(params=CORES)
def core(request):
    """The functions of one core, which is in use for the time of the test."""
    yield from in_use(request)


@pytest.fixture(params=ENGINES)
def engine(request):
    """The same for the fastest core and the NumPy core: for what does not differ below the seam."""
    yield from in_use(request)


@pytest.fixture(params=COMPILED)
def compiled(request):
    """The same for each compiled core: for what NumPy checks by itself."""
    yield from in_use(request)


@pytest.fixture(autouse=True)
def no_bound_by_openmp(monkeypatch):
    """Every processor for every test, whatever the shell allows to threads."""
    for name in processors.OPENMP:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def threads_at_any_size(monkeypatch):
    """Threads also where a step is too small to gain from them."""
    monkeypatch.setattr(trainer, "THREAD_FLOPS", 0)


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    """A number type of the cores."""
    return np.dtype(request.param)


def pytest_terminal_summary(terminalreporter):
    """Say how many tests ran on each core."""
    ran = Counter(
        name
        for outcome in ("passed", "failed", "xfailed", "xpassed")
        for report in terminalreporter.getreports(outcome)
        for kind, name in getattr(report, "user_properties", ())
        if kind == "core" and report.when == "call"
    )
    terminalreporter.section("cores")
    for name in CORES:
        terminalreporter.line(f"{name:9s} {ran[name]:5d} tests")
    for name, reason in cmlp.core_info().missing.items():
        terminalreporter.line(f"{name:9s}     - ({reason})")


# The command ------------------------------------------------------------------------------------


@pytest.fixture
def run(capsys):
    """Run the command in this process; return its exit code and what it printed."""

    from cmlp import cli

    def run(*args):
        try:
            code = cli.main([str(arg) for arg in args])
        except SystemExit as stop:  # argparse
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def complaint(run):
    """Run a command that must fail; return its one line."""

    def complaint(*args, code=2):
        came, out, err = run(*args)
        assert came == code and "epoch" not in out.replace("epochs", ""), (came, out, err)
        assert err.startswith("cmlp: error: ") and err.count("\n") == 1 and err.endswith("\n")
        return err

    return complaint


@pytest.fixture
def time_limit():
    """A test that waits for other processes ends in five minutes, wherever it is."""

    def end(number, frame):
        raise TimeoutError("the test has not ended within five minutes")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
