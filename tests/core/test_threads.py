"""Many threads, processes and interpreters; how many threads are used by default."""

import copy
import importlib.util
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cores import CORES
from helpers import blobs, python_output, refused

import cmlp
from cmlp import MLPClassifier, Network
from cmlp.core import dispatch
from cmlp.core import processors as limits
from cmlp.core.processors import OPENMP, quota, read_bound, usable_cpus
from cmlp.training import recipe
from cmlp.training.trainer import Trainer

TOGETHER = 8  # threads; more than most machines have processors

# One network -------------------------------------------------------------------------------------


@pytest.fixture
def in_training(core):
    """A network that another thread is training, until the test ends."""
    net, X, y = Network([3, 8, 3], seed=0), *blobs()
    begun, enough = threading.Event(), threading.Event()

    def hold(state):
        begun.set()
        return enough.wait(60)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(net.fit, X, y, epochs=5, callbacks=[hold])
        try:
            assert begun.wait(60)
            yield net
        finally:
            enough.set()
            assert done.result().stopped == "callback"


def test_one_network_is_trained_by_one_thread(in_training):
    X, y = blobs()
    before = in_training.params.copy()
    for train in (in_training.fit, in_training.train_epoch, in_training.step,
                  in_training.trace_step):  # fmt: skip
        with refused(RuntimeError, "another thread is training this network", "deepcopy"):
            train(X, y)
    np.testing.assert_array_equal(in_training.params, before)
    assert in_training.predict(X).shape == (60, 3)


def test_copies_of_a_network_in_training_can_be_trained(in_training):
    X, y = blobs()
    for other in (copy.deepcopy(in_training), pickle.loads(pickle.dumps(in_training))):
        assert other.fit(X, y, epochs=1)["epoch"]


def test_an_estimator_is_trained_by_one_thread(in_training):
    X, y = blobs()
    for solver in ("sgd", "lbfgs"):
        model = MLPClassifier((8,), solver=solver, warm_start=True, max_iter=1)
        with pytest.warns(match="terat"):
            model.fit(X, y)
        model.network_._lock = in_training._lock
        with refused(RuntimeError, "another thread is training this network"):
            model.fit(X, y)


def test_training_ends_for_other_threads_too(engine):
    net, (X, y) = Network([3, 8, 3], seed=0), blobs()
    with pytest.raises(ZeroDivisionError):
        net.fit(X, y, callbacks=[lambda state: 1 // 0])
    with refused(ValueError, "X has no rows"):
        net.fit(X[:0], y[:0])
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(net.fit, X, y, epochs=1).result()["epoch"] == [2]


def test_a_callback_may_train_the_network_it_sees(engine):
    net, (X, y) = Network([3, 8, 3], seed=0), blobs()
    history = net.fit(X, y, epochs=2, callbacks=[lambda state: state.network.step(X, y) and None])
    assert len(history["loss"]) == 2


@pytest.mark.parametrize("n_threads", [1, 2])
def test_predictions_while_a_network_is_trained(core, threads_at_any_size, n_threads):
    """They see weights between two steps, and leave the training as it would have been."""
    X, y = blobs(300)
    options = {"epochs": 5, "batch_size": 50, "solver": "adam", "n_threads": n_threads}
    alone = Network([3, 32, 3], seed=0)
    alone.fit(X, y, **options)
    net, over = Network([3, 32, 3], seed=0), threading.Event()
    net.classes = alone.classes

    def ask(number):
        asked, x = 0, X[number : number + 200]
        while not (over.is_set() and asked):
            out = net.predict(x)
            np.testing.assert_allclose(out.sum(axis=1), 1, rtol=1e-5)
            np.testing.assert_allclose(net.predictor()(x[0]).sum(), 1, rtol=1e-5)
            assert np.isfinite(net.loss(x, y[number : number + 200]))
            asked += 1

    with ThreadPoolExecutor(TOGETHER) as pool:
        asking = [pool.submit(ask, number) for number in range(TOGETHER)]
        try:
            net.fit(X, y, **options)
        finally:
            over.set()
        for future in asking:
            future.result()
    np.testing.assert_array_equal(net.params, alone.params)


# Many --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_threads", [1, 2])
def test_every_thread_may_train_a_network_of_its_own(core, threads_at_any_size, n_threads):
    """On the same rows; with the result that each has alone."""
    X, y = blobs(200)

    def train(seed):
        net = Network([3, 16, 3], seed=seed)
        net.fit(X, y, epochs=3, batch_size=20, dropout=0.2, n_threads=n_threads)
        return net.params, net.predict(X), net.gradients(X, y).loss

    with ThreadPoolExecutor(TOGETHER) as pool:
        together = list(pool.map(train, range(TOGETHER)))
    for seed, came in enumerate(together):
        for mine, expected in zip(came, train(seed), strict=True):
            np.testing.assert_array_equal(mine, expected)


def test_estimators_in_threads(engine):
    X, y = blobs(200)

    def train(seed):
        model = MLPClassifier((16,), random_state=seed)
        for _ in range(3):
            model.partial_fit(X, y, classes=[0, 1, 2])
        return model.predict_proba(X)

    with ThreadPoolExecutor(TOGETHER) as pool:
        together = list(pool.map(train, range(TOGETHER)))
    for seed, came in enumerate(together):
        np.testing.assert_array_equal(came, train(seed))


# Processes and interpreters ----------------------------------------------------------------------

FORK = """
import os, sys, warnings
import numpy as np
import cmlp
from cmlp.training import trainer

warnings.simplefilter("ignore")  # Python's own, that a process with threads forks
trainer.THREAD_FLOPS = 0
cmlp.use_core(sys.argv[1])
rng = np.random.default_rng(0)
X, y = rng.normal(size=(200, 5)), rng.integers(0, 3, 200)

def train():
    net = cmlp.Network([5, 32, 3], seed=0)
    net.fit(X, y, epochs=3, batch_size=20, n_threads=2)
    return net.predict(X)

before = train()
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(train(), before) else 3)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), np.array_equal(train(), before))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("name", dict.fromkeys([CORES[0], CORES[-1]]))
def test_fork_after_a_fit_on_threads(name):
    assert python_output("-c", FORK, name) == (0, "0 True\n")


FORK_IN_TRAINING = """
import os, signal, sys, threading, warnings
import numpy as np
import cmlp
from cmlp.training import trainer

warnings.simplefilter("ignore")  # Python's own, that a process with threads forks
trainer.THREAD_FLOPS = 0
cmlp.use_core(sys.argv[1])
rng = np.random.default_rng(0)
X, y = rng.normal(size=(200, 5)), rng.integers(0, 3, 200)

def train():
    net = cmlp.Network([5, 32, 3], seed=0)
    net.fit(X, y, epochs=3, batch_size=20, n_threads=2)
    return net.predict(X)

def child():
    signal.alarm(30)  # ends a child that hangs
    import cmlp.cli.demo
    if not np.array_equal(train(), before):
        return 2
    if not np.isfinite(training.predict(X)).all():
        return 3
    try:
        training.fit(X, y, epochs=1)
    except RuntimeError:
        return 0
    return 4

before = train()
training, begun, enough = cmlp.Network([5, 32, 3], seed=0), threading.Event(), threading.Event()
training.fit(X, y, epochs=1)

def watch(state):
    begun.set()
    return enough.is_set()

thread = threading.Thread(
    target=training.fit, args=(X, y),
    kwargs=dict(epochs=10**6, batch_size=20, n_threads=2, callbacks=[watch]),
)
thread.start()
begun.wait()
codes = set()
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        os._exit(child())
    codes.add(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
enough.set()
thread.join()
print(codes, training.history.stopped)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("name", dict.fromkeys([CORES[0], CORES[-1]]))
def test_fork_while_another_thread_trains(name):
    """The child imports, trains and predicts; what was in training stays refused there."""
    assert python_output("-c", FORK_IN_TRAINING, name) == (0, "{0} callback\n")


INTERPRETERS = """
import sys
try:
    import _interpreters as interpreters
    kinds = "legacy", "isolated"
except ImportError:
    import _xxsubinterpreters as interpreters
    kinds = None, None
inside = '''
import sys, warnings
sys.path[:] = %r
warnings.simplefilter("ignore")
try:
    import numpy
    numpy.eye(2).min()  # some import it and fail then
except Exception as error:
    print("NumPy refuses:", *str(error).split(), flush=True)
else:
    import cmlp
    net = cmlp.Network([2, 3, 2], seed=0)
    net.fit(numpy.eye(2), [0, 1], epochs=1)
    print(net.predict(numpy.eye(2)).shape, flush=True)
''' % sys.path
if sys.argv[1] == "main first":
    import cmlp
for kind in kinds:
    which = interpreters.create(kind) if kind else interpreters.create()
    failed = interpreters.run_string(which, inside)
    if failed:
        print(failed)
    interpreters.destroy(which)
"""


@pytest.mark.skipif(
    not any(map(importlib.util.find_spec, ("_interpreters", "_xxsubinterpreters"))),
    reason="this Python has no module for sub-interpreters",
)
@pytest.mark.parametrize("order", ["main first", "never in main"])
def test_cmlp_works_in_sub_interpreters_that_have_numpy(order):
    """NumPy decides: one interpreter of a process can import it, or none but the main one."""
    code, text = python_output("-c", INTERPRETERS, order)
    if code < 0 and "NumPy refuses: " in text:
        pytest.skip(f"NumPy does not survive its own refusal: {text}")
    answers = [  # among what NumPy prints of its own
        line for line in text.splitlines() if line.startswith(("(2, 2)", "NumPy refuses: "))
    ]
    assert (code, len(answers)) == (0, 2), text


# How many ----------------------------------------------------------------------------------------

SHOW = "import cmlp; info = cmlp.core_info(); print(info.cpus, info.threads)"


def test_the_environment_bounds_the_threads():
    assert python_output("-c", SHOW, CMLP_NUM_THREADS="1")[1].split()[1] == "1"
    cpus, threads = python_output("-c", SHOW, CMLP_NUM_THREADS="9999")[1].split()
    assert cpus == threads


@pytest.mark.parametrize(("text", "bound"), [(None, None), ("", None), ("1", 1), ("12", 12)])
def test_bounds(text, bound):
    assert read_bound(text) == bound


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "two", " ", "1e3", "²"])
def test_bounds_that_are_none(text):
    with refused(ValueError, "CMLP_NUM_THREADS must be a whole number from 1 on", repr(text)):
        read_bound(text)


def test_a_bound_that_is_none_is_said_when_a_core_is_needed():
    code, text = python_output("-m", "cmlp", "info", CMLP_NUM_THREADS="many")
    expected = "cmlp: error: CMLP_NUM_THREADS must be a whole number from 1 on, not 'many'\n"
    assert (code, text) == (2, expected)


def test_the_bound_is_for_those_who_do_not_ask(core, monkeypatch, threads_at_any_size):
    monkeypatch.setattr(dispatch, "usable_cpus", lambda: 4)
    net, (X, y) = Network([3, 3], seed=0), blobs()
    for bound, asked, expected in [(None, None, 4), (3, None, 3), (9, None, 4), (1, 3, 3),
                                   (3, 9, 4)]:  # fmt: skip
        monkeypatch.setattr(dispatch, "_bound", bound)
        trainer = Trainer(net, net.encode_rows(X, y), recipe.Recipe(), 32, asked)
        trainer.close()
        assert trainer.n_threads == (1 if core.name == "python" else expected)


def test_the_bound_holds_for_the_members_of_an_ensemble(monkeypatch):
    monkeypatch.setattr(dispatch, "usable_cpus", lambda: 4)
    monkeypatch.setattr(dispatch, "_bound", 1)
    X, y = blobs()
    seen = set()
    model = MLPClassifier(
        (4,), max_iter=2, tol=0, n_ensemble=3, random_state=0,
        callbacks=[lambda state: seen.add(threading.get_ident()) and None],
    )  # fmt: skip
    with pytest.warns(match="Maximum iterations"):
        model.fit(X, y)
    assert len(seen) == 1


def threads_of(environment, monkeypatch, wanted=None, cpus=4):
    """How many threads are used in an environment that comes into being after the import."""
    monkeypatch.setattr(dispatch, "usable_cpus", lambda: cpus)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return dispatch.threads_for(wanted)


@pytest.mark.parametrize(
    ("text", "threads"),
    [
        ("1", 1), ("3", 3), ("4", 4), ("9", 4), (" 2 ", 2), ("+2", 2), ("02", 2), ("2\n", 2),
        ("3,2,1", 3), (" 3 , 1", 3), ("9,1", 4), ("2,", 2), ("2,many", 2),
        ("", 4), (" ", 4), ("0", 4), ("-1", 4), ("-2,3", 4), (",2", 4), ("many", 4), ("2.0", 4),
        ("1e0", 4), ("2 3", 4), ("²", 4), ("٢", 4), ("1_0", 4), ("true", 4), ("1" * 5000, 4),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", OPENMP)
def test_openmp_bounds_the_threads_that_were_not_requested(monkeypatch, name, text, threads):
    """A value that is not valid is ignored: it is OpenMP's, not ours."""
    assert threads_of({name: text}, monkeypatch) == threads
    assert threads_of({}, monkeypatch, wanted=3) == 3
    assert threads_of({}, monkeypatch, wanted=9) == 4


def test_the_smaller_of_the_bounds_of_openmp_counts(monkeypatch):
    names = {"OMP_NUM_THREADS": "3", "OMP_THREAD_LIMIT": "2"}
    assert threads_of(names, monkeypatch) == 2
    assert cmlp.core_info().threads_by == "OMP_THREAD_LIMIT"
    assert threads_of({"OMP_THREAD_LIMIT": "5"}, monkeypatch) == 3
    assert cmlp.core_info().threads_by == "OMP_NUM_THREADS"


@pytest.mark.parametrize(("bound", "threads"), [(1, 1), (3, 3), (9, 4)])
def test_our_own_variable_comes_before_openmps(monkeypatch, bound, threads):
    monkeypatch.setattr(dispatch, "_bound", bound)
    assert threads_of({"OMP_NUM_THREADS": "2"}, monkeypatch) == threads
    by = "CMLP_NUM_THREADS" if threads < 4 else ""
    assert cmlp.core_info().threads_by == by


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({}, "4"),
        ({"OMP_NUM_THREADS": "9"}, "4"),
        ({"OMP_NUM_THREADS": "none"}, "4"),
        ({"OMP_NUM_THREADS": "3,1"}, "3 (by OMP_NUM_THREADS)"),
    ],
)
def test_what_bounds_the_threads_is_shown(monkeypatch, environment, threads):
    threads_of(environment, monkeypatch)
    assert str(cmlp.core_info()).splitlines()[-2:] == [
        "cpus       4",
        f"threads    {threads}",
    ]


def test_the_command_shows_what_bounds_the_threads():
    both = {"CMLP_NUM_THREADS": "", "OMP_NUM_THREADS": "1"}
    cpus = int(python_output("-c", SHOW, CMLP_NUM_THREADS="")[1].split()[0])
    by = " (by OMP_NUM_THREADS)" if cpus > 1 else ""
    code, text = python_output("-m", "cmlp", "info", **both)
    assert (code, text.splitlines()[-1]) == (0, f"threads    1{by}")


@pytest.mark.parametrize("kind", [Network, MLPClassifier])
@pytest.mark.parametrize("wanted", [None, -1, 1, 3, 9])
def test_a_training_keeps_to_the_bound_of_openmp(monkeypatch, threads_at_any_size, kind, wanted):
    """-1 is the estimators' word for "not given"."""
    X, y = blobs()
    threads_of({"OMP_NUM_THREADS": "2"}, monkeypatch)
    taken = []
    choose = Trainer._choose_threads
    monkeypatch.setattr(
        Trainer, "_choose_threads",
        lambda self, n_threads: taken.append(choose(self, n_threads)) or taken[-1],
    )  # fmt: skip
    if kind is Network:
        wanted = None if wanted == -1 else wanted
        Network([3, 8, 3], seed=0).fit(X, y, epochs=1, n_threads=wanted)
    else:
        with pytest.warns(match="Maximum iterations"):
            MLPClassifier((8,), max_iter=1, n_jobs=wanted).fit(X, y)
    compiled = dispatch.core.name != "python"
    assert taken == [{None: 2, -1: 2, 1: 1, 3: 3, 9: 4}[wanted] if compiled else 1]


@pytest.mark.parametrize(("n_jobs", "threads"), [(None, 1), (-1, 1), (2, 2)])
def test_the_members_of_an_ensemble_keep_to_the_bound_of_openmp(monkeypatch, n_jobs, threads):
    threads_of({"OMP_NUM_THREADS": "1"}, monkeypatch)
    X, y = blobs()
    seen = set()
    model = MLPClassifier(
        (4,), max_iter=2, tol=0, n_ensemble=6, n_jobs=n_jobs,
        callbacks=[lambda state: seen.add(threading.get_ident()) and None],
    )  # fmt: skip
    with pytest.warns(match="Maximum iterations"):
        model.fit(X, y)
    assert 1 <= len(seen) <= threads


def test_workers_of_joblib_share_the_processors():
    """Each is told its part by OMP_NUM_THREADS."""
    pytest.importorskip("joblib")
    code = (
        "import joblib, os, cmlp\n"
        "cpus = cmlp.core_info().cpus\n"
        "told = joblib.Parallel(n_jobs=cpus)(\n"
        "    joblib.delayed(cmlp.core_info)() for _ in range(2 * cpus)\n"
        ")\n"
        "print(max(info.threads for info in told) * cpus <= cpus)\n"
    )
    assert python_output("-c", code, CMLP_NUM_THREADS="")[1].splitlines()[-1] == "True"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity_is_respected():
    one = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    assert python_output("-c", one + SHOW) == (0, "1 1\n")


def processors(monkeypatch, n, limit):
    """Pretend so many processors and such a quota."""
    monkeypatch.setattr(os, "process_cpu_count", lambda: n, raising=False)
    monkeypatch.setattr(limits, "quota", lambda: limit)
    return cmlp.core_info().cpus


@pytest.mark.parametrize(("n", "limit", "expected"), [(8, 99, 8), (8, 2, 2), (None, 5, 1)])
def test_a_quota_bounds_the_processors(monkeypatch, n, limit, expected):
    assert processors(monkeypatch, n, limit) == expected


def test_systems_without_affinity(monkeypatch):
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(limits, "quota", lambda: 99)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert usable_cpus() == 7


NO_LIMIT = 1 << 20
V1 = "4:memory:/x\n3:cpu,cpuacct:/docker/12\n1:name=systemd:/\n"
GROUPS = {
    "no Linux": (None, {}, NO_LIMIT),
    "none": ("0::/\n", {}, NO_LIMIT),
    "no limit": ("0::/\n", {"cpu.max": "max 100000\n"}, NO_LIMIT),
    "whole": ("0::/\n", {"cpu.max": "300000 100000\n"}, 3),
    "a part counts": ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
    "very little": ("0::/\n", {"cpu.max": "1000 100000\n"}, 1),
    "nested": ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"}, 2),
    "the smallest": ("0::/a/b\n", {"a/b/cpu.max": "1 1\n", "a/cpu.max": "2 1\n"}, 1),
    "seen from a container": ("0::/host/12\n", {"cpu.max": "400000 100000\n"}, 4),
    "a period alone": ("0::/\n", {"cpu.max": "5\n"}, NO_LIMIT),
    "nonsense": ("0::/\n", {"cpu.max": "many few\n"}, NO_LIMIT),
    "nothing per nothing": ("0::/\n", {"cpu.max": "0 0\n"}, NO_LIMIT),
    "version 1": (
        V1,
        {"cpu/docker/12/cpu.cfs_quota_us": "250000\n", "cpu/docker/12/cpu.cfs_period_us": "50000"},
        5,
    ),
    "version 1, no limit": (
        V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, NO_LIMIT,
    ),
    "version 1 in a container": (
        V1, {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2,
    ),
    "both versions": (
        V1 + "0::/\n", {"cpu/cpu.cfs_quota_us": "100", "cpu/cpu.cfs_period_us": "100"}, 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", GROUPS)
def test_quotas_of_control_groups(tmp_path, case):
    groups, files, expected = GROUPS[case]
    if groups is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        file = tmp_path / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert quota(str(tmp_path)) == expected
