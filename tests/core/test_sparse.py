"""Sparse rows: the numbers of dense ones, and never a read or write outside."""

import tracemalloc

import numpy as np
import pytest
from cores import ENGINES
from helpers import DTYPES, alternating, covering, refused
from oracle import QUIET, Problem, check_same

import cmlp
from cmlp import Network
from cmlp.core import seam

try:
    import scipy.sparse as scipy
except ImportError:
    scipy = None


class Csr:
    """What cmlp sees of a SciPy matrix."""

    format = "csr"

    def __init__(self, data, indices, indptr, shape):
        self.data, self.indices, self.indptr, self.shape = data, indices, indptr, shape

    def tocsr(self):
        return self


class Other(Csr):
    """A matrix of another format, which knows how to become CSR."""

    format = "coo"
    data = indices = indptr = None

    def __init__(self, csr):
        self.csr, self.shape = csr, csr.shape

    def tocsr(self):
        return self.csr


def csr_of(X, dtype=np.float64, places=np.int32):
    rows, columns = np.nonzero(X)
    indptr = np.searchsorted(rows, np.arange(len(X) + 1))
    return Csr(X[rows, columns].astype(dtype), columns.astype(places), indptr.astype(places),
               X.shape)  # fmt: skip


def doubled(X, places=np.int64):
    """Every number in two halves, columns in no order: legal, though not canonical."""
    plain = csr_of(X, places=places)
    parts = [np.split(part, plain.indptr[1:-1]) for part in (plain.data / 2, plain.indices)]
    data, columns = ([np.concatenate([p[::-1], p]) for p in part] for part in parts)
    return Csr(np.concatenate(data), np.concatenate(columns), 2 * plain.indptr, X.shape)


def rows_with_zeros(n, n_in, seed=0):
    """Most numbers are zero; some rows are all zero, the last among them."""
    rng = np.random.default_rng(seed)
    X = rng.integers(-8, 8, (n, n_in)) * (rng.random((n, n_in)) < 0.3) / 8.0
    X[::7], X[-1] = 0, 0
    return X


FORMS = {
    "float32": lambda X: csr_of(X, np.float32),
    "float64": csr_of,
    "int64 places": lambda X: csr_of(X, places=np.int64),
    "float32, int64 places": lambda X: csr_of(X, np.float32, np.int64),
    "doubled": doubled,
    "another format": lambda X: Other(csr_of(X)),
    "mixed places": lambda X: Csr(
        csr_of(X).data, csr_of(X).indices, csr_of(X, places=np.int64).indptr, X.shape
    ),
    "unsigned places": lambda X: csr_of(X, places=np.uint16),
    "big-endian": lambda X: csr_of(X, ">f8", ">i4"),
    "strided": lambda X: Csr(
        np.repeat(csr_of(X).data, 2)[::2], np.repeat(csr_of(X).indices, 2)[::2],
        csr_of(X).indptr, X.shape,
    ),
    "room at the end": lambda X: Csr(
        np.append(csr_of(X).data, np.nan), np.append(csr_of(X).indices, [999, -1]),
        csr_of(X).indptr, X.shape,
    ),
}  # fmt: skip
if scipy:
    for form in ("csr", "csc", "coo", "lil", "dok", "bsr", "dia"):
        for kind in ("matrix", "array"):
            FORMS[f"{form}_{kind}"] = getattr(scipy, f"{form}_{kind}")


def check_as_dense(core, dtype, form, scale):
    """Eighths and their sums are exact, so the same bits must come out."""
    X = rows_with_zeros(150, 19)
    y = np.random.default_rng(1).integers(0, 3, 150)
    nets = [Network([19, 17, 3], "tanh", dtype=dtype, seed=0, input_scale=scale) for _ in range(2)]
    for net, rows in zip(nets, (X, FORMS[form](X)), strict=True):
        net.fit(rows, y, epochs=2, batch_size=32, validation_fraction=0.2, input_noise=0.1)
        net.step(rows, y)
    dense, sparse = nets
    check_same(core, sparse.params, dense.params)
    S = FORMS[form](X)
    check_same(core, sparse.predict(S), dense.predict(X))
    assert sparse.score(S, y) == dense.score(X, y)
    for mine, theirs in zip(sparse.forward(S, True).z, dense.forward(X, True).z, strict=True):
        check_same(core, mine, theirs)
    mine, theirs = sparse.gradients(S, y), dense.gradients(X, y)
    for a, b in zip((*mine.weights, mine.inputs), (*theirs.weights, theirs.inputs), strict=True):
        check_same(core, a, b)
    assert sparse.history.keys() == dense.history.keys()


@pytest.mark.parametrize(
    "dtype, form, scale", covering(DTYPES, list(FORMS)[:5], [1, 0.25]), indirect=["dtype"]
)
def test_the_numbers_of_dense_rows(core, dtype, form, scale):
    """In the forms that the cores read, and with numbers in two parts."""
    check_as_dense(core, dtype, form, scale)


@pytest.mark.filterwarnings("ignore:Constructing a DIA")
@pytest.mark.parametrize(
    "engine, dtype, form", alternating(ENGINES, list(FORMS)[5:]), indirect=["engine", "dtype"]
)
def test_other_forms_become_those(engine, dtype, form):
    check_as_dense(engine, dtype, form, 0.25)


def test_whole_numbers(core):
    X = (rows_with_zeros(40, 9) * 8).astype(np.int64)
    net = Network([9, 4, 2], seed=0)
    for kind in (np.int64, np.int8, bool):
        S = csr_of(X, kind)
        np.testing.assert_array_equal(net.predict(S), net.predict(X.astype(kind)))


@pytest.mark.parametrize("n", [1, 300, 1030])
def test_threads_batches_and_losses(core, n):
    X, y = rows_with_zeros(n, 33), rows_with_zeros(n, 2, 1)
    nets = []
    for rows, n_threads in ((X, 1), (csr_of(X), 1), (csr_of(X), 2)):
        net = Network([33, 80, 2], loss="huber", seed=0)
        net.fit(rows, y, epochs=2, batch_size=None, n_threads=n_threads, clip_norm=0.1)
        net.fit(rows, y, epochs=1, batch_size=40, n_threads=n_threads)
        nets.append(net.params)
    check_same(core, nets[1], nets[0])
    np.testing.assert_array_equal(nets[1], nets[2])


def test_a_loss_of_ones_own_and_a_trace(core):
    X, y = rows_with_zeros(30, 5), rows_with_zeros(30, 2, 1)

    def loss(outputs, targets):
        error = outputs - targets
        return 0.5 * (error**2).sum(axis=1).mean(), error / len(error)

    nets = [Network([5, 4, 2], "tanh", loss=loss, seed=0) for _ in range(2)]
    for net, rows in zip(nets, (X, csr_of(X)), strict=True):
        net.fit(rows, y, epochs=3, batch_size=7)
        assert net.check_gradients(rows, y)
        assert "Inputs" in str(net.trace_step(rows, y))
    check_same(core, nets[1].params, nets[0].params)


def test_no_rows_and_no_numbers(core):
    net = Network([5, 4, 2], seed=0)
    assert net.predict(csr_of(np.zeros((0, 5)))).shape == (0, 2)
    np.testing.assert_array_equal(
        net.predict(csr_of(np.zeros((3, 5)))), net.predict(np.zeros((3, 5)))
    )
    with refused(ValueError, "X has no rows"):
        net.fit(csr_of(np.zeros((0, 5))), [])


def test_divergence_is_explained(engine):
    X, y = rows_with_zeros(50, 5) * 1e6, rows_with_zeros(50, 2, 1) * 1e6
    net = Network([5, 4, 2], loss="squared_error", seed=0)
    with refused(cmlp.DivergenceError, "X is not scaled", "values up to"):
        net.fit(csr_of(X), y, learning_rate=10, epochs=50)


def test_a_matrix_is_never_dense_as_a_whole(engine):
    n, n_in = 100_000, 500  # 200 MB of zeros
    X = np.zeros((100, n_in))
    X[:, ::50] = 1
    S = csr_of(X, np.float32)
    S.shape, S.indptr = (n, n_in), np.append(S.indptr, np.full(n - 100, S.indptr[-1], np.int32))
    net = Network([n_in, 2], seed=0)
    tracemalloc.start()
    try:
        out = net.predict(S)
        net.fit(S, np.arange(n) % 2, epochs=1, batch_size=500)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(out) == n and peak < 20e6


# What is refused ---------------------------------------------------------------------------------


def changed(name, at, value):
    def spoil(S):
        part = getattr(S, name).copy()
        part[at] = value
        setattr(S, name, part)

    return spoil


def shortened(name):
    return lambda S: setattr(S, name, getattr(S, name)[:-1])


def reshaped(*shape):
    return lambda S: setattr(S, "shape", shape)


BAD = {
    "a column beyond": (changed("indices", 5, 7), "columns", "7 columns"),
    "a column far beyond": (changed("indices", 5, 2**31 - 1), "columns"),
    "a column below": (changed("indices", 5, -1), "columns -1"),
    "a beginning that falls": (changed("indptr", 12, 1), "indptr"),
    "a beginning beyond": (changed("indptr", -1, 10**6), "indptr"),
    "a beginning below": (changed("indptr", 0, -1), "indptr"),
    "a late beginning": (changed("indptr", 0, 1), "indptr"),
    "a beginning too few": (shortened("indptr"), "indptr"),
    "a number too few": (shortened("data"), "indptr"),
    "a column too few": (shortened("indices"), "indptr"),
    "too narrow": (reshaped(20, 6), "6 features", "expects 7"),
    "too wide": (reshaped(20, 8), "8 features", "expects 7"),
    "one dimension": (reshaped(140), "(rows, features)"),
    "NaN": (changed("data", 5, np.nan), "X holds nan at row"),
    "infinity": (changed("data", 5, np.inf), "X holds inf at row"),
    "too large for float32": (changed("data", 5, 1e39), "X holds 1e+39 at row", "too large"),
    "floats as columns": (lambda S: setattr(S, "indices", S.indices * 1.0), "CSR"),
    "columns in a table": (lambda S: setattr(S, "indices", S.indices[:, None]), "CSR"),
    "complex numbers": (lambda S: setattr(S, "data", S.data * 1j), "real numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_makes_no_sense_is_refused(case):
    spoil, *parts = BAD[case]
    S = csr_of(rows_with_zeros(20, 7))
    spoil(S)
    net = Network([7, 4, 2], seed=0)
    for ask in (net.predict, lambda X: net.fit(X, np.arange(20) % 2)):
        with refused(ValueError, *parts):
            ask(S)


def test_the_place_of_a_bad_number_is_its_own():
    X = rows_with_zeros(20, 7)
    X[9, 4] = np.nan
    with refused(ValueError, "X holds nan at row 9, column 4"):
        Network([7, 2], seed=0).predict(csr_of(X))


def test_sparse_targets_are_refused():
    with refused(TypeError, "y is a sparse matrix", "y.toarray()"):
        Y = Csr(None, None, None, (20, 2))
        Y.toarray = None
        Network([7, 2], seed=0).fit(np.zeros((20, 7)), Y)


# Below the boundary ------------------------------------------------------------------------------

HOSTILE = {
    "columns": lambda S: S.indices.__setitem__(slice(None), 10**6),
    "columns below": lambda S: S.indices.__setitem__(slice(None), -(10**6)),
    "beginnings": lambda S: S.indptr.__setitem__(slice(None), 10**6),
    "beginnings below": lambda S: S.indptr.__setitem__(slice(None), -(10**6)),
    "falling beginnings": lambda S: S.indptr.__setitem__(slice(None), S.indptr[::-1].copy()),
    "any beginnings": lambda S: S.indptr.__setitem__(slice(None), np.arange(len(S.indptr)) * 7),
}


@pytest.mark.parametrize("places", [np.int32, np.int64])
@pytest.mark.parametrize("case", HOSTILE)
def test_the_core_stays_inside_whatever_the_places_are(compiled, dtype, case, places):
    """As they may change after they were checked, in another thread."""
    core = compiled
    problem = Problem((7, 9, 3), ("tanh", "softmax"), "categorical_crossentropy", 20, dtype)
    S = csr_of(problem.X, problem.dtype, places)
    rows = seam.SparseRows(S.data, S.indices.copy(), S.indptr.copy(), 7)
    HOSTILE[case](rows)
    big = np.full(problem.scratch(core).size + 256, 123, dtype)
    workspace, out = big[128:-128], np.full((20, 3), np.nan, dtype)
    workspace[:] = np.nan
    core.predict(problem.plan, problem.params, rows, None, out, workspace)
    assert np.isfinite(out).all()
    core.train_epoch(
        problem.plan, problem.params.copy(), np.zeros((1, len(problem.params)), dtype), rows,
        problem.targets, None, np.arange(20), 6, np.full(4, 0.1), 0, problem.objective,
        seam.Optimizer(), QUIET, problem.like_params(0), workspace,
    )  # fmt: skip
    assert (big[:128] == 123).all() and (big[-128:] == 123).all()


GUARDS = {
    "fewer columns": {"indices": lambda a: a[:-1]},
    "no beginnings": {"indptr": lambda a: a[:0]},
    "narrow beginnings": {"indptr": lambda a: a.astype(np.int16)},
    "other beginnings": {"indptr": lambda a: a.astype(np.int64)},
    "whole numbers": {"data": lambda a: a.astype(np.int32)},
    "other byte order": {"data": lambda a: a.astype(">f8")},
    "strided": {"data": lambda a: a[::2], "indices": lambda a: a[::2]},
    "a table": {"data": lambda a: a[:, None]},
    "no arrays": {"indices": list},
}


@pytest.mark.parametrize("case", GUARDS)
def test_guards(compiled, case):
    problem = Problem((7, 3), ("softmax",), "categorical_crossentropy", 20, np.dtype("f4"))
    S = csr_of(problem.X)
    parts = {"data": S.data, "indices": S.indices, "indptr": S.indptr}
    parts |= {name: spoil(parts[name]) for name, spoil in GUARDS[case].items()}
    width = 7
    rows = seam.SparseRows(**parts, width=width)
    with pytest.raises((ValueError, TypeError, BufferError, AttributeError)):
        compiled.predict(
            problem.plan, problem.params, rows, None, np.zeros((len(rows), 3), "f4"),
            problem.scratch(compiled),
        )  # fmt: skip


def test_another_width_is_refused(compiled):
    problem = Problem((7, 3), ("softmax",), "categorical_crossentropy", 20, np.dtype("f4"))
    S = csr_of(problem.X)
    with pytest.raises(ValueError, match="rows of 7 numbers"):
        problem.predict(compiled, seam.SparseRows(S.data, S.indices, S.indptr, 6))
    with pytest.raises((ValueError, TypeError, BufferError)):
        problem.gradient(compiled, targets=seam.SparseRows(S.data, S.indices, S.indptr, 3))
