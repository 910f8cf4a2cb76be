"""The seam between Python and the cores: the same functions, guarded."""

import inspect
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import python_output
from oracle import QUIET, Problem

import cmlp
from cmlp.core import dispatch, layout, reference, seam

FUNCTIONS = (
    "workspace_size", "activate", "product", "multiply_adds", "largest", "predict", "forward",
    "evaluate", "gradient", "update", "train_epoch", "train_lanes", "blend",
)  # fmt: skip

CLASSES = ("Predictor", "BoundTrainer")

# Signatures --------------------------------------------------------------------------------------


def test_signatures_are_the_same(compiled):
    for function in (*FUNCTIONS, *CLASSES):
        mine, theirs = (inspect.signature(getattr(c, function)) for c in (compiled, reference))
        assert list(mine.parameters) == list(theirs.parameters)
        for name, parameter in mine.parameters.items():
            assert parameter.default == theirs.parameters[name].default, (function, name)
            assert parameter.kind == theirs.parameters[name].kind, (function, name)


def test_the_seam_is_complete(core):
    """Whatever a core offers, the twin offers, and the list above is all of it."""
    offered = {n for n in dir(core) if not n.startswith("_") and callable(getattr(core, n))}
    twin = {
        name
        for name, value in vars(reference).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    assert set(FUNCTIONS) == twin
    assert {*FUNCTIONS, *CLASSES} <= offered


@pytest.mark.parametrize("name", CLASSES)
def test_the_methods_of_the_classes_are_the_same(core, name):
    mine, theirs = getattr(core, name), getattr(reference, name)
    public = {n for n in vars(theirs) if not n.startswith("_")}
    assert public == {n for n, value in vars(mine).items() if n[0] != "_" and callable(value)}
    for name in public:
        method, twin = getattr(mine, name), getattr(theirs, name)
        assert inspect.getdoc(method) == inspect.getdoc(twin)


def test_docstrings_are_the_same(compiled):
    for function in (*FUNCTIONS, *CLASSES):
        mine, theirs = (inspect.getdoc(getattr(c, function)) for c in (compiled, reference))
        assert mine.splitlines()[1:] == theirs.splitlines()[1:], function  # the first may differ


def test_name_and_width(core):
    assert dispatch._cores[core.name] is core
    assert cmlp.core_info().core == core.name
    assert core.vector_bytes == cmlp.core_info().vector_bytes
    assert core.vector_bytes in (0, 16, 32, 64)
    assert (core.vector_bytes == 0) == (core is reference)


def test_rows_are_padded_to_whole_vectors(dtype):
    plan = layout.make_plan((1, 17, 33, 5), ("tanh", "relu", "identity"), dtype)
    lanes = layout.ALIGNMENT // dtype.itemsize
    for before, row in zip([None, *plan], plan, strict=False):
        assert row[layout.STRIDE] % lanes == 0
        assert 0 <= row[layout.STRIDE] - row[layout.N_OUT] < lanes
        assert row[layout.BIAS] == row[layout.WEIGHTS] + row[layout.N_IN] * row[layout.STRIDE]
        if before is not None:
            assert row[layout.WEIGHTS] == before[layout.BIAS] + before[layout.STRIDE]
            assert row[layout.UNITS] == before[layout.UNITS] + before[layout.STRIDE]


# Guards ------------------------------------------------------------------------------------------

REFUSALS = (ValueError, IndexError, TypeError)

LIMITS = seam.Limits(True, -1.0, 1.0, 20, 1 << 20, 20)


@pytest.fixture
def calls(compiled, dtype):
    """Right arguments for every function, by name."""
    problem = Problem((5, 9, 3), ("tanh", "softmax"), "categorical_crossentropy", 20, dtype)
    n = len(problem.params)
    common = {
        "plan": problem.plan,
        "params": problem.params,
        "X": problem.X,
        "rows": np.arange(20),
        "workspace": problem.scratch(compiled),
        "input_scale": 0.5,
    }
    training = common | {
        "targets": problem.targets,
        "weights": np.ones(20),
        "objective": problem.objective,
        "noise": QUIET,
        "step": 0,
        "grads": np.zeros(n, dtype),
    }
    out = {"out": np.zeros((20, 3), dtype)}
    state = {"state": np.zeros((2, n), dtype), "optimizer": seam.Optimizer(1)}
    record = {name: problem.record() for name in ("z", "a")}
    everything = {
        "activate": {"code": 2, "values": np.zeros((2, 64), dtype)},
        "workspace_size": {"plan": problem.plan, "batch_size": 20},
        "product": {"n": 3, "depth": 5, "width": 16, "repeats": 2, "arrays": np.zeros(463, dtype)},
        "multiply_adds": {"rounds": 10},
        "largest": {"array": np.ones(20, dtype)},
        "predict": common | out,
        "forward": common | record,
        "evaluate": training | out | {"row_loss": np.zeros(20, dtype)},
        "gradient": training | {"deltas": problem.record(), "dX": np.zeros((20, 5), dtype)},
        "update": training | state | {"learning_rate": 0.1},
        "Predictor": common,
        "BoundTrainer": training | state | {"limits": LIMITS},
        "blend": {"params": problem.params, "others": problem.params.copy(), "part": 0.5},
        "train_epoch": training | state | {"batch_size": 7, "learning_rates": np.full(3, 0.1)},
    }
    for function, arguments in everything.items():
        wanted = inspect.signature(getattr(compiled, function)).parameters
        everything[function] = {k: v for k, v in arguments.items() if k in wanted}
    return everything


def other(dtype):
    return np.float32 if dtype == np.float64 else np.float64


def changed(plan, column, value, row=0):
    plan = plan.copy()
    plan[row, column] = value
    return plan


NUMBERS = ("params", "out", "workspace", "z", "a", "row_loss", "grads", "deltas", "dX", "state")

INVALID_ARGUMENTS = {
    "other dtype": (NUMBERS, lambda a: a.astype(other(a.dtype))),
    "integers": ((*NUMBERS, "values", "arrays"), lambda a: np.nan_to_num(a).astype(np.int64)),
    "too short": (
        ("params", "row_loss", "grads", "learning_rates", "weights", "targets"),
        lambda a: a[:-1].copy(),
    ),
    "too little": (("workspace",), lambda a: a[:128].copy()),
    "one too few": (("arrays",), lambda a: a[:-1].copy()),
    "empty": (
        ("params", "workspace", "row_loss", "grads", "state", "learning_rates"),
        lambda a: a[:0].copy(),
    ),
    "too few rows": (("out", "z", "a", "deltas", "dX", "state"), lambda a: a[:1].copy()),
    "too narrow": (
        ("out", "z", "a", "deltas", "dX", "state", "X", "targets"),
        lambda a: a[:, :-1].copy(),
    ),
    "too wide": (("X", "targets", "out", "dX"), lambda a: np.repeat(a, 2, axis=1)),
    "flat": (("X", "out", "z", "state"), np.ravel),
    "deep": (("X", "targets"), lambda a: a[None]),
    "strided": (
        ("params", "workspace", "rows", "weights", "grads"),
        lambda a: np.repeat(a, 2)[::2],
    ),
    "row beyond": (("rows",), lambda a: np.append(a, 20)),
    "row far beyond": (("rows",), lambda a: np.append(a, 2**62)),
    "row below": (("rows",), lambda a: np.append(a, -1)),
    "row far below": (("rows",), lambda a: np.append(a, -(2**63))),
    "narrow rows": (("rows",), lambda a: a.astype(np.int32)),
    "text": (("X", "targets"), lambda a: a.astype(str)),
    "complex": (("X", "targets"), lambda a: a.astype(complex)),
    "objects": (("X", "targets"), lambda a: a.astype(object)),
    "half": (("X", "targets"), lambda a: a.astype(np.float16)),
    "byte-swapped": (("X", "targets"), lambda a: a.astype(a.dtype.newbyteorder())),
    "a list": (
        (*NUMBERS, "values", "arrays", "X", "targets", "plan", "weights"),
        np.ndarray.tolist,
    ),
    "narrow labels": (("targets",), lambda a: a.argmax(axis=1).astype(np.int32)),
    "plan of int32": (("plan",), lambda a: a.astype(np.int32)),
    "plan without rows": (("plan",), lambda a: a[:0].copy()),
    "plan without columns": (("plan",), lambda a: a[:, :5].copy()),
    "plan with more inputs": (("plan",), lambda a: changed(a, layout.N_IN, 50)),
    "plan with no inputs": (("plan",), lambda a: changed(a, layout.N_IN, 0)),
    "plan with more outputs": (("plan",), lambda a: changed(a, layout.N_OUT, 33)),
    "plan with another stride": (("plan",), lambda a: changed(a, layout.STRIDE, 64)),
    "plan below its parameters": (("plan",), lambda a: changed(a, layout.WEIGHTS, -16)),
    "plan beyond its parameters": (("plan",), lambda a: changed(a, layout.BIAS, 10_000, 1)),
    "plan with another record": (("plan",), lambda a: changed(a, layout.UNITS, 4096, 1)),
    "plan of layers that do not meet": (("plan",), lambda a: changed(a, layout.N_IN, 8, 1)),
    "plan with normalised outputs": (("plan",), lambda a: changed(a, layout.NORMALIZATION, 2, 1)),
    "plan with an unknown normalisation": (
        ("plan",),
        lambda a: changed(a, layout.NORMALIZATION, 3),
    ),
    "plan with scales beyond its parameters": (
        ("plan",),
        lambda a: changed(changed(a, layout.NORMALIZATION, 2), layout.SCALE, 10_000),
    ),
    "plan with scales below its parameters": (
        ("plan",),
        lambda a: changed(changed(a, layout.NORMALIZATION, 2), layout.SCALE, -16),
    ),
    "plan with scales far beyond": (
        ("plan",),
        lambda a: changed(changed(a, layout.NORMALIZATION, 1), layout.SCALE, 2**63 - 1),
    ),
    "plan with an unknown activation": (("plan",), lambda a: changed(a, layout.ACTIVATION, 99)),
}


@pytest.mark.parametrize("what", INVALID_ARGUMENTS)
def test_guards(compiled, calls, what):
    names, spoil = INVALID_ARGUMENTS[what]
    tried = 0
    for function, arguments in calls.items():
        if function == "workspace_size":
            continue
        for name in names:
            unused = (function, name) == ("train_epoch", "grads")  # only with clipping
            if name not in arguments or (unused and what in ("too short", "empty")):
                continue
            bad = arguments | {name: spoil(arguments[name])}
            with pytest.raises(REFUSALS):
                getattr(compiled, function)(**bad)
                pytest.fail(f"{function} took {name}: {what}")  # pragma: no cover
            tried += 1
    assert tried


def test_the_right_arguments_are_taken(compiled, calls):
    for function, arguments in calls.items():
        getattr(compiled, function)(**arguments)


def test_guards_of_plain_numbers(compiled, calls, dtype):
    epoch = calls["train_epoch"]
    for wrong in (
        {"batch_size": 0}, {"batch_size": -3}, {"rank": 1}, {"rank": -1}, {"n_threads": 0},
        {"n_threads": 2}, {"n_threads": 2, "team": np.zeros(3, np.int64)}, {"rows": None},
        {"n_threads": 2, "team": np.zeros(16, dtype)}, {"losses": np.zeros(2, np.float32)},
        {"losses": np.zeros(3)}, {"losses": np.zeros(0)}, {"losses": np.zeros(20)},
        {"optimizer": None}, {"objective": None},
        {"optimizer": seam.Optimizer(clip_norm=1.0), "grads": np.zeros(3, dtype)},
        {"noise": seam.Noise(dropout=np.zeros(1, np.float32))},
    ):  # fmt: skip
        with pytest.raises((*REFUSALS, AttributeError)):
            compiled.train_epoch(**epoch | wrong)
            pytest.fail(f"train_epoch took {wrong}")  # pragma: no cover
    for code, shape in ((-1, (2, 64)), (13, (2, 64)), (99, (2, 64)), (2, (2, 63)), (2, (1, 64)),
                        (2, (3, 64)), (2, (2, 0))):  # fmt: skip
        with pytest.raises(REFUSALS):
            compiled.activate(code, np.zeros(shape, dtype))


def test_what_is_written_must_be_writable(compiled, calls):
    for function, names in {
        "predict": ("out", "workspace"), "train_epoch": ("params", "state"),
        "gradient": ("grads",), "update": ("params",),
    }.items():  # fmt: skip
        for name in names:
            locked = calls[function][name].copy()
            locked.flags.writeable = False
            with pytest.raises(REFUSALS):
                getattr(compiled, function)(**calls[function] | {name: locked})


def test_a_huge_batch_size_is_one_batch(core, dtype):
    problem = Problem((5, 9, 3), ("tanh", "softmax"), "categorical_crossentropy", 20, dtype)
    results = []
    for batch_size in (20, 2**40, sys.maxsize):
        params, state = problem.params.copy(), np.zeros((1, len(problem.params)), dtype)
        took = core.train_epoch(
            problem.plan, params, state, problem.X, problem.targets, None, np.arange(20),
            batch_size, np.array([0.1]), 0, problem.objective, seam.Optimizer(), QUIET,
            problem.like_params(0), problem.scratch(core, n=5000),
        )  # fmt: skip
        results.append((took, params))
    for took, params in results[1:]:
        assert took[1] == results[0][0][1] == 1
        np.testing.assert_allclose(params, results[0][1], rtol=64 * np.finfo(dtype).eps)


SOURCE = Path(__file__).parents[2] / "src" / "cmlp"
needs_source = pytest.mark.skipif(not SOURCE.is_dir(), reason="an installation has no .pyx")

# What `import cmlp` costs ------------------------------------------------------------------------

HEAVY = {
    "asyncio", "multiprocessing", "unittest", "email", "http", "ssl", "socket", "sqlite3", "xml",
    "tkinter", "pydoc", "ctypes", "argparse", "inspect", "csv", "gzip", "zipfile", "pickle",
    "decimal", "statistics", "sysconfig", "distutils", "xmlrpc", "urllib.request", "tokenize",
    "concurrent.futures.process", "importlib.metadata", "subprocess", "doctest", "optparse",
}  # fmt: skip


def test_import_brings_numpy_and_nothing_heavy():
    """On top of the imports of NumPy and dataclasses come we, and small parts of the library."""
    code = (
        "import numpy, dataclasses, sys; before = set(sys.modules); import cmlp; "
        "print(*sorted(set(sys.modules) - before))"
    )
    status, text = python_output("-c", code, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    assert status == 0, text
    came = set(text.split())
    known = sys.stdlib_module_names | {"cmlp", "numpy", "cython_runtime"}
    foreign = {n for n in came if n.split(".")[0] not in known and not n.startswith("_cython_")}
    assert not foreign, foreign
    assert not came & HEAVY, came & HEAVY
    assert len(came) < 90, sorted(came)


@pytest.mark.parametrize("plan", [
    [[2**60, 16, 16]],
    [[1, 16, 16, 0, 2**63 - 16]],
    [[1, 2**62, 2**62, 0, 2**62]],
    [[1, 16, 16, 2**62, 2**62]],
    [[1, 16, 16, 0, 16, 0, 0, 1, 16], [16, 16, 16, 32, 288, 0, 16, 0, 0]],
])  # fmt: skip
def test_plans_whose_sizes_would_overflow(compiled, plan):
    params = np.zeros(64, np.float32)
    plan = np.pad(np.array(plan, np.int64), ((0, 0), (0, layout.PRECISION + 1 - len(plan[0]))))
    with pytest.raises(ValueError, match="does not fit 64 parameters"):
        compiled.update(
            plan, params, params.copy(), np.zeros((2, 64), np.float32), seam.Optimizer(), 0, 0.1
        )


@pytest.mark.parametrize("shape", [
    (2, 1, 16), (13, 8, 16), (25, 100, 48), (64, 33, 80), (65, 2100, 64), (31, 40, 400),
], ids=str)  # fmt: skip
def test_the_product_for_measurements(core, dtype, shape):
    n, depth, width = shape
    rng = np.random.default_rng(0)
    arrays = rng.standard_normal(n * depth + depth * width + n * width + min(depth, 2048) * 64)
    arrays = arrays.astype(dtype)
    core.product(n, depth, width, arrays, repeats=2)
    a, b, out = np.split(arrays.astype(np.float64), np.cumsum(
        [n * depth, depth * width, n * width]))[:3]  # fmt: skip
    a, b, out = a.reshape(n, depth), b.reshape(depth, width), out.reshape(n, width)
    bound = (depth + 1) * np.finfo(dtype).eps * (np.abs(a) @ np.abs(b))
    assert (np.abs(out - a @ b) <= bound).all()


def test_products_that_are_refused(compiled):
    arrays = np.zeros(5000, np.float32)
    for n, depth, width in ((1, 5, 16), (0, 5, 16), (3, 0, 16), (3, 5, 0), (3, 5, 17), (3, -5, 16),
                            (2**40, 5, 16), (3, 2**62, 16), (3, 5, 2**40)):  # fmt: skip
        with pytest.raises(ValueError, match=r"must be at least|at most"):
            compiled.product(n, depth, width, arrays)


def test_multiply_adds_are_counted(core):
    assert core.multiply_adds(5000, double_precision=True) > 0
    assert core.multiply_adds(200_000) > core.multiply_adds(100)


@pytest.mark.parametrize("n", [0, 1, 7, 100, 4099])
def test_the_largest_number(core, dtype, n):
    array = np.random.default_rng(n).standard_normal(n).astype(dtype)
    assert core.largest(array) == np.abs(array).max(initial=0)
    for at in {0, n // 2, n - 1} if n else ():
        for number in (-np.inf, np.inf, np.nan, -np.nan, -np.finfo(dtype).max, 5.0):
            other = array.copy()
            other[at] = number
            assert np.array_equal(core.largest(other), np.abs(other).max(), equal_nan=True)


def test_a_workspace_needs_a_plan(compiled):
    width = layout.EPSILON + 1
    for plan in (np.zeros((0, width), np.int64), np.zeros((1, 1), np.int64)):
        with pytest.raises(ValueError, match="plan"):
            compiled.workspace_size(plan, 1)
    with pytest.raises(TypeError):
        compiled.workspace_size(None, 1)
    with pytest.raises(ValueError, match="n_threads"):
        compiled.workspace_size(layout.make_plan((1, 1), ["relu"], np.float32), 1, 10**9)
