"""Predictions by the fast path: the same numbers and the same errors as by the general one."""

import copy
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cores import CORES
from helpers import alternating, blobs, python_output, refused
from oracle import check_same

import cmlp
from cmlp import Network
from cmlp.core import dispatch
from cmlp.core.vocabulary import ACTIVATIONS
from cmlp.data.checks import check_X
from cmlp.data.numbers import READABLE
from cmlp.model import passes

NETS = {
    "tiny": ([1, 1], "relu"),
    "small": ([4, 32, 32, 2], "relu"),
    "odd": ([7, 17, 33, 3], "tanh"),
    "wide": ([33, 300, 270, 10], "gelu"),
    "flat": ([2100, 5], "relu"),
}

SCALED = [*((name, (1.0, 0.125)[number % 2]) for number, name in enumerate(NETS)), ("odd", 0.125)]


def net_of(name, dtype, **more):
    sizes, activation = NETS[name]
    net = Network(sizes, activation, dtype=dtype, seed=0, **more)
    for b in net.biases:
        b[...] = np.linspace(-1, 1, len(b))
    return net


def rows_of(net, n, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, net.sizes[0])).astype(net.dtype)


def the_long_way(net, X):
    """What predict did before it had a short way."""
    X = check_X(X, net.sizes[0], net.dtype)
    out = np.empty((len(X), net.sizes[-1]), net.dtype)
    with passes.workspace_for(net) as workspace:
        dispatch.core.predict(net.plan, net.params, X, None, out, workspace, net.input_scale)
    return out


def takes_the_short_way(net, X):
    return net._bind()(X) is not None


def tolerance(net):
    return 30 * max(net.sizes) * np.finfo(net.dtype).eps


# Network.predict ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "core, dtype, case", alternating(CORES, SCALED), indirect=["core", "dtype"]
)
def test_both_ways_give_the_same(core, dtype, case):
    name, input_scale = case
    net = net_of(name, dtype, input_scale=input_scale)
    for n in (1, 2, 3, 16, 127, 128, 129, 300, 1):
        X = rows_of(net, n)
        out = net.predict(X)
        assert out.dtype == dtype and out.shape == (n, net.sizes[-1])
        assert out.flags.owndata and out.flags.writeable and out.flags.c_contiguous
        check_same(core, out, the_long_way(net, X))
        assert takes_the_short_way(net, X) == (core.vector_bytes > 0)
    with cmlp.use_core("python"):
        expected = net.predict(X)
    np.testing.assert_allclose(out, expected, rtol=tolerance(net), atol=tolerance(net))


def test_every_activation(core, dtype):
    for row in ACTIVATIONS:
        hidden = "tanh" if row.output_only else row.name
        net = Network([5, 9, 4], hidden, row.name, "squared_error", dtype=dtype, seed=0)
        for n in (1, 5):
            X = rows_of(net, n)
            check_same(core, net.predict(X), the_long_way(net, X))


def in_format(X, letter):
    """X as numbers of another kind; C defines no unsigned one for -1.0, but one for -1."""
    return X.astype(np.int64).astype(letter) if letter in "BHILQ" else X.astype(letter)


@pytest.mark.parametrize(
    "core, dtype, letter", alternating(CORES, READABLE), indirect=["core", "dtype"]
)
def test_every_number_format(core, dtype, letter):
    net = net_of("odd", dtype)
    for n in (1, 5, 130):
        X = in_format(3 * rows_of(net, n), letter)
        assert takes_the_short_way(net, X) == (core.vector_bytes > 0)
        check_same(core, net.predict(X), the_long_way(net, X))


def unaligned(X):
    raw = np.zeros(X.nbytes + 1, np.uint8)[1:]
    raw[:] = np.frombuffer(X.tobytes(), np.uint8)
    return raw.view(X.dtype).reshape(X.shape)


LAYOUTS = {
    "by columns": (np.asfortranarray, True),
    "every other row": (lambda X: np.repeat(X, 2, axis=0)[::2], True),
    "every other column": (lambda X: np.repeat(X, 2, axis=1)[:, ::2], True),
    "backwards": (lambda X: np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1], True),
    "one row for all": (lambda X: np.broadcast_to(X[:1], X.shape), True),
    "read-only": (lambda X: pickle.loads(pickle.dumps(X)), True),
    "unpickled": (lambda X: pickle.loads(pickle.dumps(X)), True),
    "unaligned": (unaligned, False),
    "byte-swapped": (lambda X: X.astype(X.dtype.newbyteorder()), False),
    "half": (lambda X: X.astype(np.float16), False),
    "long": (lambda X: X.astype(np.longdouble), False),
    "objects": (lambda X: X.astype(object), False),
    "a matrix": (lambda X: X.view(np.matrix), False),
    "masked": (np.ma.masked_invalid, False),
    "a list": (np.ndarray.tolist, False),
}


@pytest.mark.parametrize(
    "core, dtype, layout", alternating(CORES, LAYOUTS), indirect=["core", "dtype"]
)
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_every_memory_layout(core, dtype, layout):
    change, short = LAYOUTS[layout]
    net = net_of("odd", dtype)
    for n in (1, 5, 130):
        X = change(rows_of(net, n))
        if layout == "read-only":
            X.flags.writeable = False
        assert takes_the_short_way(net, X) == (short and core.vector_bytes > 0)
        check_same(core, net.predict(X), the_long_way(net, X))


def put(X, where, value):
    X = X.copy()
    X[where] = value
    return X


BAD = {
    "one row": lambda X: X[0],
    "a column too few": lambda X: X[:, :-1],
    "a column too many": lambda X: np.repeat(X, 2, axis=1),
    "a number": lambda X: X[0, 0],
    "deep": lambda X: X[None],
    "NaN": lambda X: put(X, (-1, -1), np.nan),
    "infinity": lambda X: put(X, (0, 1), np.inf),
    "minus infinity": lambda X: put(X, (-1, 3), -np.inf),
    "another NaN": lambda X: put(X.astype(np.float64), (-1, -1), np.nan),
    "too large": lambda X: put(X.astype(np.longdouble), (0, 0), np.longdouble("1e400")),
    "text": lambda X: X.astype(str),
    "complex": lambda X: X.astype(complex),
    "None": lambda X: None,
}


@pytest.mark.parametrize("core, dtype, bad", alternating(CORES, BAD), indirect=["core", "dtype"])
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_complaints_are_the_same(core, dtype, bad):
    net = net_of("odd", dtype)
    for n in (1, 5, 300):
        X = rows_of(net, n)
        net.predict(X)
        X = BAD[bad](X)
        with pytest.raises(ValueError) as expected:
            check_X(X, 7, dtype)
        with refused(ValueError, str(expected.value)):
            net.predict(X)


@pytest.mark.parametrize("given", [np.float32, np.float64])
def test_a_nan_is_found_anywhere(core, dtype, given):
    net = Network([70, 2], dtype=dtype, seed=0)
    for at in (*range(0, 70, 3), 69):
        for value in (np.nan, np.inf, -np.inf):
            X = rows_of(net, 3).astype(given)
            X[1, at] = value
            with refused(ValueError, f"row 1, column {at}"):
                net.predict(X)
            with refused(ValueError, f"row 0, column {at}"):
                net.predict(X[1:2])


@pytest.mark.parametrize("input_scale", [1.0, 1e-30, 1e30])
def test_the_largest_numbers(core, input_scale):
    """At the edge of float32 the general path decides, by the exact value."""
    net = Network([3, 2], dtype="float32", weight_init="zeros", input_scale=input_scale)
    largest = np.finfo(np.float32).max
    for value in (largest, -largest, np.float32(0.5) * largest, np.float32(0.499) * largest):
        for given in (np.float32, np.float64):
            X = np.full((2, 3), value, given)
            np.testing.assert_array_equal(net.predict(X), the_long_way(net, X))
    for value in (1e39, float(largest) * (1 + 2**-26)):  # that one rounds down to the largest
        with refused(ValueError, "row 1, column 2", "too large for float32"):
            net.predict(put(np.zeros((2, 3)), (1, 2), value))


def test_an_answer_is_nobody_elses(core):
    net = net_of("odd", "float32")
    assert net.predict(np.empty((0, 7), np.float32)).shape == (0, 3)
    first = net.predict(rows_of(net, 2))
    kept = first.copy()
    net.predict(rows_of(net, 2, seed=5))
    np.testing.assert_array_equal(first, kept)


def test_changes_are_seen(core, dtype):
    net = net_of("small", dtype)
    X = rows_of(net, 2)
    seen = [net.predict(X)]

    def changed():
        out = net.predict(X)
        check_same(core, out, the_long_way(net, X))
        assert not any(np.array_equal(out, before) for before in seen)
        seen.append(out)

    net.weights[0][:] *= 2
    changed()
    net.biases[-1] = [1, 2]
    changed()
    net.params = net.params * net.dtype.type(0.5)
    changed()
    net.input_scale = 0.5
    changed()
    net.plan = cmlp.core.layout.make_plan(net.sizes, ("tanh", "tanh", "softmax"), dtype)
    changed()
    net.fit(rows_of(net, 20), np.arange(20) % 2, epochs=1)
    changed()


def test_another_core_takes_over(dtype):
    net = net_of("small", dtype)
    X = rows_of(net, 1)
    for name in cmlp.core_info().available:
        with cmlp.use_core(name):
            net.predict(X)
            assert net._bound[0].name == name
    assert net.predict(X) is not None and net._bound[0] is dispatch.core


def test_parameters_that_do_not_fit(core):
    net = net_of("small", "float32")
    X = rows_of(net, 1)
    net.predict(X)
    for wrong in (net.params[:-16], net.params.astype(np.float64)[::2], net.params.astype(int)):
        with pytest.raises((ValueError, TypeError)):
            net.params = wrong
        net.predict(X)


def test_copies_and_files_leave_it_behind(core, tmp_path):
    net = net_of("small", "float32")
    X = rows_of(net, 3)
    expected = net.predict(X)
    data = pickle.dumps(net)
    assert b"cmlp.core._core" not in data and b"redictor" not in data
    for other in (pickle.loads(data), copy.copy(net), copy.deepcopy(net), net.astype("float32")):
        assert other._bound[0] is None
        np.testing.assert_array_equal(other.predict(X), expected)
        other.weights[0][:] = 0
        assert not np.array_equal(other.predict(X), expected)
    np.testing.assert_array_equal(net.predict(X), expected)
    net.save(tmp_path / "net")
    np.testing.assert_array_equal(cmlp.load(tmp_path / "net").predict(X), expected)


@pytest.mark.parametrize("sizes, n", [([8, 16, 4], 1), ([300, 400, 30], 1), ([30, 200, 3], 500)])
def test_threads(core, sizes, n):
    """The middle one is large enough to let other threads run meanwhile."""
    net = Network(sizes, "tanh", seed=0)
    many = [rows_of(net, n, seed) for seed in range(8)]
    expected = [net.predict(X) for X in many]

    def ask(turn):
        return turn % 8, net.predict(many[turn % 8])

    with ThreadPoolExecutor(4) as pool:
        for which, out in pool.map(ask, range(100)):
            check_same(core, out, expected[which])


def test_nothing_leaks(core, dtype):
    net = net_of("small", dtype)
    X, p, out = rows_of(net, 2), net.predictor(2), np.empty((2, 2), dtype)
    short = net._bind()

    def ask():
        net.predict(X), p(X), p(X[0]), p(X, out), short(X), short(X * np.nan), short(X[0])
        with pytest.raises(ValueError):
            p(X[:, :3])
        with pytest.raises(ValueError):
            p(X, out[:1])

    def counts():
        kept = (net, X, out, p, net.params, net.plan, X.dtype, np.dtype(dtype), None, short)
        return np.array([sys.getrefcount(value) for value in kept])

    ask()
    before = counts()
    for _ in range(200):
        ask()
    assert np.abs(counts() - before).max() < 50
    answer, new = net.predict(X), np.empty(1)
    assert sys.getrefcount(answer) == sys.getrefcount(new)


# Network.predictor -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "core, dtype, case", alternating(CORES, SCALED), indirect=["core", "dtype"]
)
def test_a_predictor_predicts(core, dtype, case):
    name, input_scale = case
    net = net_of(name, dtype, input_scale=input_scale)
    p = net.predictor(300)
    for n in (1, 2, 129, 300, 0, 5):
        X = rows_of(net, n)
        out = p(X)
        assert out.dtype == dtype and out.shape == (n, net.sizes[-1])
        check_same(core, out, the_long_way(net, X))
    row = p(X[3])
    assert row.shape == (net.sizes[-1],)
    check_same(core, row, the_long_way(net, X[3:4])[0])


def test_one_array_that_the_next_call_overwrites(core, dtype):
    net = net_of("odd", dtype)
    X = rows_of(net, 5)
    p = net.predictor(5)
    first, row = p(X), p(X[4])
    assert np.shares_memory(first, row)
    check_same(core, row, the_long_way(net, X[4:])[0])
    np.testing.assert_array_equal(first[0], row)
    assert p(X) is not None
    np.testing.assert_array_equal(first, p(X))
    assert not np.shares_memory(net.predictor()(X[0]), row)


def test_an_array_of_ones_own(core, dtype):
    net = net_of("odd", dtype)
    X = rows_of(net, 200)
    p = net.predictor()
    for n in (1, 2, 200):  # more rows than its own array has
        out = np.full((n + 2, 3), 7, dtype)
        assert p(X[:n], out=out[1:-1]) is not None
        check_same(core, out[1:-1], the_long_way(net, X[:n]))
        assert (out[[0, -1]] == 7).all()
    row = np.empty(3, dtype)
    assert p(X[0], row) is row
    check_same(core, row, the_long_way(net, X[:1])[0])
    for wrong in (
        np.empty(2, dtype), np.empty((1, 3), dtype), np.empty(3, np.int32),
        np.empty(3, np.float64 if dtype == np.float32 else np.float32),
    ):  # fmt: skip
        with refused(ValueError, "out must be (3,)", dtype.name):
            p(X[0], wrong)
    with refused(ValueError, "out must be (2, 3)", dtype.name):
        p(X[:2], np.empty((3, 3), dtype))


def test_an_array_that_is_locked(core):
    net = net_of("odd", "float32")
    p, X = net.predictor(), rows_of(net, 1)
    locked = np.zeros((1, 3), np.float32)
    locked.flags.writeable = False
    with pytest.raises(ValueError):
        p(X, locked)
    if core.vector_bytes:
        with pytest.raises(ValueError):
            p(X, np.zeros((3, 1), np.float32).T[:, ::-1])
        with pytest.raises(TypeError):
            p(X, [0.0, 0.0, 0.0])


@pytest.mark.parametrize(
    "core, dtype, layout", alternating(CORES, LAYOUTS), indirect=["core", "dtype"]
)
def test_whatever_holds_numbers_is_taken(core, dtype, layout):
    net = net_of("odd", dtype)
    p = net.predictor(4)
    X = LAYOUTS[layout][0](rows_of(net, 4))
    if layout == "objects":
        with refused(TypeError, "x must hold real numbers", "object"):
            p(X)
        return
    check_same(core, p(X), the_long_way(net, X))
    if layout != "a matrix":  # whose rows are matrices
        check_same(core, p(X[2]), the_long_way(net, X[2:3])[0])


@pytest.mark.parametrize(
    "core, dtype, letter", alternating(CORES, READABLE), indirect=["core", "dtype"]
)
def test_whatever_the_cores_read_is_taken(core, dtype, letter):
    net = net_of("odd", dtype)
    p = net.predictor(4)
    X = in_format(3 * rows_of(net, 4), letter)
    check_same(core, p(X), the_long_way(net, X))
    check_same(core, p(X[2]), the_long_way(net, X[2:3])[0])


def test_what_a_predictor_refuses(core, dtype):
    net = net_of("odd", dtype)
    p = net.predictor(2)
    for wrong in (np.zeros(6), np.zeros((2, 8)), np.zeros((3, 7)), np.zeros((1, 1, 7)), 1.0,
                  np.zeros((0, 6)), [[1.0] * 6]):  # fmt: skip
        for x in (wrong, np.asarray(wrong, dtype)):
            with refused(ValueError, "x must be (7,) or (n, 7) with n up to 2", str(np.shape(x))):
                p(x)
    for x in (["a"] * 7, None, np.zeros(7, complex), np.zeros(7, "M8[s]")):
        with refused(TypeError, "x must hold real numbers"):
            p(x)
    for n, kind in ((0, ValueError), (-1, ValueError), (1.5, TypeError), ("3", TypeError)):
        with refused(kind, "batch_size"):
            net.predictor(n)
    for made in (p, net.predictor()):
        for copies in (copy.copy, copy.deepcopy, pickle.dumps):
            with refused(TypeError, "with its network"):
                copies(made)


def test_a_predictor_looks_for_no_nan(core, dtype):
    net = net_of("small", dtype)
    assert np.isnan(net.predictor()(np.full(4, np.nan))).all()


def test_outputs_may_become_inputs(core, dtype):
    net = Network([5, 9, 5], "tanh", "tanh", "squared_error", dtype=dtype, seed=0)
    p = net.predictor(3)
    state = expected = rows_of(net, 3)
    for _ in range(4):
        state, expected = p(state), net.predict(expected)
        check_same(core, state, expected)


def test_what_a_predictor_is_bound_to(core, dtype):
    net = net_of("small", dtype)
    p, X = net.predictor(), rows_of(net, 1)
    before = p(X).copy()
    net.weights[0][:] *= 2
    check_same(core, p(X), net.predict(X))  # changes in place are seen
    assert not np.array_equal(p(X), before)
    bound = p(X).copy()
    net.params = np.zeros_like(net.params)
    net.input_scale = 3.0
    with cmlp.use_core("python"):
        np.testing.assert_array_equal(p(X), bound)  # nothing else is
    del net
    np.testing.assert_array_equal(p(X), bound)


def test_a_plan_is_checked_once_and_kept(core):
    net = net_of("small", "float32")
    p, X = net.predictor(), rows_of(net, 1)
    expected = p(X).copy()
    if core.vector_bytes:
        net.plan[:] = 2**40
    np.testing.assert_array_equal(p(X), expected)


def test_a_predictor_is_for_one_thread(core):
    """Each call is right or refused, whichever thread comes first."""
    net = Network([200, 300, 50], "tanh", seed=0)
    X = rows_of(net, 100)
    p, expected = net.predictor(100), net.predict(X)

    def ask(_):
        try:
            p(X, np.empty((100, 50), np.float32))
        except RuntimeError as error:
            assert "give each thread one of its own" in str(error)
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert any(list(pool.map(ask, range(200))))
    check_same(core, p(X), expected)


def test_an_unknown_numpy_is_no_obstacle():
    """Arrays of another layout than that in `ndarray.h` are read by the buffer protocol."""
    code = """
import numpy as np, numpy.random
umath = (np._core if hasattr(np, "_core") else np.core)._multiarray_umath
table = umath._ARRAY_API
del umath._ARRAY_API
import cmlp
umath._ARRAY_API = table
net = cmlp.Network([4, 9, 2], seed=0)
X = np.random.default_rng(0).normal(size=(3, 4))
short = net._bind()
assert short(X) is None, "the fast path was taken"
p = net.predictor(3)
for x in (X, X.astype("f4"), X.astype("u1"), X.tolist(), X[:1]):
    assert np.array_equal(p(x), net.predict(x))
assert np.allclose(p(X[1]), net.predict(X)[1])
for wrong in (X[:, :3], np.zeros((4, 4)), 5):
    try:
        p(wrong)
    except ValueError as error:
        assert "x must be (4,)" in str(error)
    else:
        raise AssertionError("taken")
print("all right")
"""
    status, text = python_output("-c", code)
    assert status == 0 and "all right" in text, text


def test_classes_come_the_short_way_too(core):
    X, y = blobs()
    net = Network([3, 5, 3], seed=0)
    net.fit(X, np.array(["a", "b", "c"])[y], epochs=20)
    assert net.predict_classes(X[:1])[0] == net.predict_classes(X)[0]
