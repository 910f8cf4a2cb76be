"""Memory: no access outside the arrays, no leaks, and an error where there is too little."""

import contextlib
import gc
import os
import signal
import sys
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from cores import COMPILED, CORES, ENGINES
from helpers import blobs, python_output

from cmlp import MLPClassifier, Network

GUARDED = Path(__file__).parents[1] / "support" / "guarded.py"
ENDED = {-getattr(signal, name) for name in ("SIGSEGV", "SIGBUS") if hasattr(signal, name)}

pages = pytest.mark.skipif(os.name != "posix", reason="pages are forbidden with mprotect")
sanitized = "libasan" in os.environ.get("LD_PRELOAD", "")


@pages
@pytest.mark.skipif(sanitized, reason="AddressSanitizer answers a forbidden page itself")
@pytest.mark.parametrize("side", ["after", "before"])
def test_a_forbidden_page_ends_the_process(side):
    code, text = python_output(GUARDED, "touch", side)
    assert code in ENDED, text


@pages
@pytest.mark.parametrize("name", COMPILED)
def test_no_core_leaves_its_arrays(name):
    code, text = python_output(GUARDED, name)
    assert code == 0, f"the last case is the one: {text[-1000:]}"
    assert text.splitlines()[-1] == "done"


# Growth ------------------------------------------------------------------------------------------


def blocks_left_by(task, rounds):
    """How many blocks of memory a task leaks: the least of three times, as caches fill once."""
    counts = []
    for repeats in (20, rounds, rounds, rounds):
        for _ in range(repeats):
            task()
        gc.collect()
        counts.append(sys.getallocatedblocks())
    return min(after - before for before, after in pairwise(counts))


@pytest.fixture
def untraced_threads():
    """Coverage keeps some blocks of every thread that it traces."""
    before = threading.gettrace()
    threading.settrace(None)
    yield
    threading.settrace(before)


@pytest.mark.skipif(not sys.getallocatedblocks(), reason="this Python does not count its blocks")
@pytest.mark.parametrize(
    "engine, n_threads",
    [(name, n) for name in ENGINES for n in ((1,) if name == "python" else (1, 2))],
    indirect=["engine"],
)  # the NumPy core has one thread
def test_nothing_stays_behind(engine, threads_at_any_size, untraced_threads, n_threads):
    """A reference that is not given back would be one block a round."""
    X, y = blobs()
    net = Network([3, 8, 3], seed=0)

    def task():
        net.fit(X, y, epochs=1, batch_size=20, solver="adam", n_threads=n_threads)
        net.history.clear()
        net.predict(X)
        net.predict(X[:1])
        net.predictor()(X[0])
        net.gradients(X, y)

    assert blocks_left_by(task, 40) < 30


def test_an_error_leaves_nothing_behind(core):
    net = Network([3, 8, 3], seed=0)
    wrong = np.full((2, 3), np.nan)

    def task():
        for X in (wrong, wrong[:, :2], "text"):
            with contextlib.suppress(TypeError, ValueError):
                net.predict(X)
                raise AssertionError(f"{X} was taken")
        with contextlib.suppress(ValueError):
            net.predictor()(np.ones(2))
            raise AssertionError("2 numbers were taken")

    assert blocks_left_by(task, 200) < 100  # what words of errors leave is 2, and 44 at times


def test_estimators_leave_nothing_behind():
    X, y = blobs()
    model = MLPClassifier((8,), random_state=0)

    def task():
        model.partial_fit(X, y, classes=[0, 1, 2])
        model.loss_curve_.clear()
        model.network_.history.clear()
        model.predict_proba(X)

    assert blocks_left_by(task, 200) < 100  # caches that fill are 30 to 70, of 40 rounds or 400


# Too little --------------------------------------------------------------------------------------

TOO_LITTLE = """
import resource, sys
import numpy as np
import cmlp

cmlp.use_core(sys.argv[1])
net = cmlp.Network([2, 60], seed=0)
wide = cmlp.Network([3000, 3000, 2], seed=0)
predictor = wide.predictor(3)
X = np.broadcast_to(np.float32(1), (1_000_000, 2))
wide_X = np.broadcast_to(np.float32(1), (20_000, 3000))
y = np.arange(len(wide_X)) % 2
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
before = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (now + (60 << 20), before[1]))

def asks():
    yield "Network", lambda: cmlp.Network([30_000, 30_000])
    yield "predict", lambda: net.predict(X)
    yield "predictor", lambda: wide.predictor(10_000_000)
    yield "forward", lambda: wide.forward(wide_X, return_all=True)
    yield "gradients", lambda: wide.gradients(wide_X, y)
    yield "fit", lambda: wide.fit(wide_X, y, solver="adam", batch_size=None)

for name, ask in asks():
    try:
        ask()
        print(name, "was given its memory")
    except MemoryError as error:
        print(name, "MemoryError")
resource.setrlimit(resource.RLIMIT_AS, before)
print(net.fit(np.eye(2), [0, 1], epochs=1)["epoch"], predictor(wide_X[:3]).shape)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits memory as Linux does")
@pytest.mark.skipif(sanitized, reason="AddressSanitizer reserves more than any limit")
@pytest.mark.parametrize("name", dict.fromkeys([CORES[0], CORES[-1]]))
def test_too_little_memory_is_a_memory_error(name):
    code, text = python_output("-c", TOO_LITTLE, name)
    names = ("Network", "predict", "predictor", "forward", "gradients", "fit")
    assert text.splitlines() == [*(f"{name} MemoryError" for name in names), "[1.0] (3, 2)"], text
    assert code == 0
