"""Run by test_memory.py: every function of a core on arrays that lie against forbidden pages.

``python guarded.py CORE`` names each case before it begins, so that the last line is the case that
touched a forbidden page; the operating system then ends the process.
"""

import copy
import ctypes
import itertools
import mmap
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from oracle import QUIET, Problem, problems_at_odd_sizes

import cmlp
from cmlp.core import dispatch, groups, layout, seam, vocabulary

PAGE = mmap.PAGESIZE
SIDES = ("after", "before")
TURNS = itertools.count()
KINDS = ("f4", "f8", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "?")


class Pages:
    """Memory with a forbidden page at both ends; arrays lie against one of them."""

    def __init__(self, side):
        self.side, self.protect = side, ctypes.CDLL(None, use_errno=True).mprotect
        self.protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        self.held = []

    def put(self, array):
        """Copy an array to memory of its own, its last number before a page, or its first after."""
        size = -(-array.nbytes // PAGE) * PAGE
        memory = mmap.mmap(-1, size + 2 * PAGE)
        begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for page in (begin, begin + PAGE + size):
            if self.protect(page, PAGE, 0):
                raise OSError(ctypes.get_errno(), "mprotect")
        at = PAGE if self.side == "before" else PAGE + size - array.nbytes
        copy = np.frombuffer(memory, array.dtype, array.size, at).reshape(array.shape)
        copy[...] = array
        self.held.append(memory)
        return copy

    def put_all(self, value):
        """The same for whatever crosses the seam."""
        if isinstance(value, np.ndarray):
            return self.put(value)
        if isinstance(value, seam.SparseRows):
            parts = map(self.put, (value.data, value.indices, value.indptr))
            return seam.SparseRows(*parts, value.shape[1])
        if isinstance(value, seam.Optimizer):
            return value._replace(factors=self.put(value.factors)) if len(value.factors) else value
        if isinstance(value, seam.Noise):
            return value._replace(dropout=self.put(value.dropout))
        return value


def sparse(X, dtype=np.int32):
    """Every third number of some rows; the last row, and the last column of another, have one."""
    mask = np.arange(X.size).reshape(X.shape) % 3 == (X.size - 1) % 3
    indptr = np.concatenate([[0], np.cumsum(mask.sum(axis=1))]).astype(dtype)
    return seam.SparseRows(X[mask], np.nonzero(mask)[1].astype(dtype), indptr, X.shape[1])


def normalised(problem, kind, parametric=False):
    """The same with a normalised hidden layer, or one with alphas."""
    other = copy.copy(problem)
    other.plan = layout.make_plan(
        problem.sizes, problem.activations, problem.dtype, kind, parametric
    )
    other.params = np.full(layout.params_size(other.plan), 0.1, problem.dtype)
    return other


def fronted(problem, parametric=False):
    """The same with columns of every kind before the first layer, and positions outside tables."""
    other, n = copy.copy(problem), problem.sizes[0]
    inputs = cmlp.Inputs(
        periodic=range(0, n, 4), levels={i: (3, i) for i in range(1, n, 4)},
        summed={i: i for i in range(2, n, 4)}, scaled=True, frequencies=5,
    )  # fmt: skip
    net = cmlp.Network(
        problem.sizes, list(problem.activations[:-1]), inputs=inputs, dtype=problem.dtype, seed=0,
        parametric_activation=parametric,
    )  # fmt: skip
    other.plan, other.params = net.plan, net.params
    other.plan[: len(problem.plan), layout.ACTIVATION] = problem.plan[:, layout.ACTIVATION]
    other.X = problem.X * n
    other.X.flat[::5] = np.resize([np.nan, np.inf, -np.inf, 3e38, -3e38], other.X.flat[::5].shape)
    return other


def rounded(problem, code):
    """The same with products of bfloat16, of every layer: in software, or as words."""
    other = copy.copy(problem)
    other.plan = problem.plan.copy()
    layout.layers_of(other.plan)[:, layout.PRECISION] = code
    return other


def optimizers(plan):
    adam = next(row.code for row in vocabulary.SOLVERS if row.name == "adam")
    return (
        seam.Optimizer(momentum=0.9),
        seam.Optimizer(adam, weight_decay=0.1, ema=0.9),
        seam.Optimizer(adam, clip_norm=0.01),
        seam.Optimizer(adam, weight_decay=0.1, factors=groups.default_factors(plan) + 0.5),
    )


def run(core, problem, X, side, noise=QUIET):
    """Call everything once, all arrays guarded."""
    pages, n, (n_in, *_, n_out) = Pages(side), problem.n, problem.sizes
    put, dtype = pages.put_all, problem.dtype
    plan, params, X = put(problem.plan), put(problem.params), put(X)
    targets, weights = put(problem.targets), put(np.ones(n))
    rows, noise = put(np.arange(n)[::-1].copy()), put(noise)
    workspace, out = put(problem.scratch(core)), put(np.zeros((n, n_out), dtype))
    z, a, deltas = (put(problem.record()) for _ in range(3))
    costs, dX = put(np.zeros(n, dtype)), put(np.zeros((n, n_in), dtype))
    grads, objective = put(np.zeros_like(params)), problem.objective
    core.predict(plan, params, X, None, out, workspace, 0.5)
    core.predict(plan, params, X, rows, out, workspace)
    core.forward(plan, params, X, z, a, workspace)
    core.evaluate(plan, params, X, targets, rows, objective, noise, 0, out, costs, workspace)
    core.gradient(plan, params, X, targets, weights, rows, objective, noise, 0, grads, deltas, dX,
                  workspace)  # fmt: skip
    if not isinstance(X, seam.SparseRows):
        predictor = core.Predictor(plan, params)
        predictor.outputs(X)
        predictor(X, out)
        predictor(X[-1], out[-1])
    sizes = (1, min(7, n), n)
    for number, optimizer in enumerate(map(put, optimizers(plan)), next(TURNS)):
        state = put(np.ones((3, len(params)), dtype))
        core.blend(params, grads, 0.5)
        core.update(plan, params, grads, state, optimizer, 1, 0.01)
        if not (isinstance(X, seam.SparseRows) or optimizer.ema or objective.per_batch):
            limits = seam.Limits(True, -1e30, 1e30, 1024, 1 << 26)
            trainer = core.BoundTrainer(plan, params, state[:2], objective, optimizer, noise, 0.5,
                                        limits)  # fmt: skip
            random = np.random.default_rng(0)
            trainer.take(X, targets, weights, 0.01, random, True, False)
            trainer.take(X, targets, None, 0.01, random, True, True)  # if it is surely finite
        batch_size = sizes[number % 3]  # each with each optimizer, in three turns
        rates = put(np.full(-(-n // batch_size), 0.01))
        core.train_epoch(
            plan, params, state, X, targets, weights, rows, batch_size, rates, 0, objective,
            optimizer, noise, grads, workspace, dropout_factors=rates, decay_factors=rates,
        )  # fmt: skip


def run_lanes(core, dtype, side):
    """Nets side by side, of odd sizes, with every loss and rule."""
    pages, n, n_lanes = Pages(side), 37, core.vector_bytes // 4
    for loss, rule in itertools.product(range(3), range(3)):
        net = cmlp.Network((9, 13, 5, 2), ["gelu", "relu"], seed=0)
        size, batch = 9 * 13 + 13 + 13 * 5 + 5 + 5 * 2 + 2, (1, 3, 37)[(loss + rule) % 3]
        steps = -(-n // batch)
        table = np.zeros((n_lanes, len(seam.LANE)), np.int64)
        table[:, :3] = n, batch, steps
        table[:, 5:9] = np.arange(n_lanes)[:, None] * (n, steps, 0, 0)
        table[:, 7:9] = steps * n_lanes, steps * n_lanes + 1
        arrays = [
            net.plan, np.zeros(seam.lane_memory(net.plan, 1 + rule // 2, batch, n_lanes), dtype),
            np.ones(n * (9 + 2), dtype), np.ones(n), np.tile(np.arange(n), n_lanes),
            np.full(steps * n_lanes + 10, 0.01), table.ravel(),
        ]  # fmt: skip
        arrays[1][: size * n_lanes] = 0.1
        taken = core.train_lanes(*map(pages.put, arrays), loss, rule, 99)
        assert taken == steps


def run_team(core, problem, side):
    """Three threads on the same guarded arrays."""
    pages, n = Pages(side), problem.n
    put = pages.put_all
    arrays = [problem.plan, problem.params, np.ones((2, len(problem.params)), problem.dtype),
              problem.X, problem.targets, None, np.arange(n)]  # fmt: skip
    arrays = list(map(put, arrays))
    optimizer, rates = optimizers(problem.plan)[2], put(np.full(2, 0.01))
    team = put(np.zeros(16, np.int64))
    grads, workspace = put(np.zeros_like(problem.params)), put(problem.scratch(core, 3))

    def rank(number):
        return core.train_epoch(
            *arrays, -(-n // 2), rates, 0, problem.objective, optimizer, QUIET, grads, workspace,
            number, 3, team,
        )  # fmt: skip

    with ThreadPoolExecutor(3) as pool:
        assert len(set(pool.map(rank, range(3)))) == 1


def run_parts(core, dtype, side):
    """What is there for measurements and tests."""
    pages = Pages(side)
    for code in range(len(vocabulary.ACTIVATIONS) - 1):
        core.activate(code, pages.put(np.linspace(-9, 9, 128, dtype=dtype).reshape(2, 64)))
    core.product(13, 7, 48, pages.put(np.ones(13 * 7 + 7 * 48 + 13 * 48 + 7 * 64, dtype)))


def say(*case):
    print(*case, flush=True)


def main(name):
    cmlp.use_core(name)
    core = dispatch.core
    for at, side in enumerate(SIDES):
        for turn, dtype in enumerate((np.dtype("f4"), np.dtype("f8"))):
            say(name, dtype, "parts", side)
            run_parts(core, dtype, side)
            if dtype == np.float32:
                say(name, "lanes", side)
                run_lanes(core, dtype, side)
            noise = seam.Noise(1, 0.1, np.array([0.3]))
            for problem in problems_at_odd_sizes(dtype, l2=0.01):
                say(name, dtype, problem.sizes, problem.n, side)
                run(core, problem, problem.X, side, noise)
            problem = Problem((131, 97, 70), ("gelu", "softmax"), "squared_error", 61, dtype)
            run_team(core, problem, side)
            for code in (1, 2) if dtype == "f4" and core.bfloat16 else (2,) * (dtype == "f4"):
                run_team(core, rounded(problem, code), side)
                for odd in problems_at_odd_sizes(dtype):
                    say(name, dtype, odd.sizes, odd.n, "bfloat16", code, side)
                    run(core, rounded(odd, code), odd.X, side, noise)
                others = normalised(problem, "batch"), normalised(problem, "layer", True)
                for other in (*others, fronted(problem, True)):
                    say(name, dtype, "bfloat16", code, other.plan.shape, side)
                    run(core, rounded(other, code), other.X, side, noise)
                    run_team(core, rounded(other, code), side)
                run(core, rounded(problem, code), sparse(problem.X), side)
            problem = Problem((33, 17, 2), ("relu", "softmax"), "categorical_crossentropy", 15,
                              dtype, labels=True)  # fmt: skip
            for normalization in ("batch", "layer"):
                say(name, dtype, normalization, side)
                run(core, normalised(problem, normalization), problem.X, side, noise)
            for normalization in (None, "batch", "layer"):
                say(name, dtype, normalization, "alphas", side)
                run(core, normalised(problem, normalization, True), problem.X, side, noise)
            for odd in problems_at_odd_sizes(dtype):
                say(name, dtype, odd.sizes, odd.n, "alphas", side)
                run(core, normalised(odd, None, True), odd.X, side, noise)
            wide = Problem((131, 97, 70), ("gelu", "softmax"), "squared_error", 61, dtype)
            run_team(core, normalised(wide, "layer", True), side)
            wide = Problem((130, 70, 40, 3), ("relu", "relu", "softmax"),
                            "categorical_crossentropy", 61, dtype, labels=True)  # fmt: skip
            for each in (problem, wide):
                for parametric in (False, True):
                    say(name, dtype, "front", parametric, side)
                    other = fronted(each, parametric)
                    run(core, other, other.X, side, noise)
                    run_team(core, other, side)
            for kind in KINDS[(at + turn) % 2 :: 2]:  # each with both sides, and both dtypes
                say(name, dtype, "X of", kind, side)
                run(core, problem, (problem.X * 9).astype(kind), side)
            for index in (np.int32, np.int64):
                say(name, dtype, "sparse", index, side)
                run(core, problem, sparse(problem.X, index), side)
    say("done")


def touch(side):
    """Read the first number that is forbidden: this must end the process."""
    array = Pages(side).put(np.ones(5))
    beyond = array.nbytes if side == "after" else -1
    print(ctypes.string_at(array.ctypes.data + beyond, 1))


if __name__ == "__main__":
    if sys.argv[1] == "touch":
        touch(sys.argv[2])
    else:
        main(sys.argv[1])
