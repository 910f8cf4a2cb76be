"""The oracle: the NumPy twin in float64, and the largest error that a core may have against it.

The bounds are a running error analysis (Higham, Accuracy and Stability of Numerical Algorithms,
2nd ed., section 3.3): the error of each quantity is the error of its inputs, times the slope
of the operation, and the rounding of the operation itself. Every number follows from eps and the
length of the sums; none was tuned to what happens to pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from cmlp.core import groups, layout, seam, vocabulary
from cmlp.core.reference.forward import propagate
from cmlp.core.reference.gather import gather_targets
from cmlp.core.reference.losses import cost_slope, row_costs
from cmlp.core.reference.step import row_shares
from cmlp.core.reference.updates import nadam_rates, update

WITH_PARAMETER = ("leaky_relu:0.3", "elu:0.5")
ACTIVATIONS = {row.name: row for row in vocabulary.ACTIVATIONS}
ACTIVATIONS |= {name: vocabulary.activation_of(name) for name in WITH_PARAMETER}
LOSSES = {row.name: row for row in vocabulary.LOSSES}
SOLVERS = {row.name: row for row in vocabulary.SOLVERS}
HIDDEN = [name for name, row in ACTIVATIONS.items() if not row.output_only]
PAIRS = [
    (loss.name, out.name)
    for loss in vocabulary.LOSSES
    for out in vocabulary.ACTIVATIONS
    if loss.domain[0] <= out.range[0] and out.range[1] <= loss.domain[1]
]
"""Every loss with every output activation that the network allows for it."""

WIDTHS = (1, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65)
"""Sizes around the widths of vectors and tiles."""

QUIET = seam.Noise(0, 0.0, np.empty(0))
KINKS = {"relu": (0,), "leaky_relu": (0,), "selu": (0,), "hard_sigmoid": (-3, 3)}
KINKS |= dict.fromkeys(WITH_PARAMETER, (0,))
"""Where the slope of an activation jumps."""

SMOOTH = 2.0
"""Above every second derivative of the activations, but that of exp (selu's is 1.76)."""


def layers(plan, flat):
    """Each layer's W and b, as views into a flat vector."""
    return layout.layer_views(plan, flat)


def padding(plan, flat):
    """The numbers between the rows, which mean nothing and have to be zero."""
    used = np.zeros(len(flat), bool)
    for W, b in layers(plan, used):
        W[...] = b[...] = True
    return flat[~used]


def check_same(core, came, expected):
    """The same bits from a compiled core; NumPy's products sum in an order that strides decide."""
    if core.vector_bytes:
        np.testing.assert_array_equal(came, expected)
    else:
        room = 1000 * np.finfo(expected.dtype).eps * max(1, np.abs(expected).max(initial=0))
        np.testing.assert_allclose(came, expected, rtol=0, atol=room)


@dataclass
class Problem:
    """A network with rows, targets and an objective, as they cross the seam."""

    sizes: tuple[int, ...]
    activations: tuple[str, ...]
    loss: str
    n: int
    dtype: np.dtype
    seed: int = 0
    smoothing: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    weighted: bool = False
    labels: bool = False
    input_scale: float = 1.0
    plan: np.ndarray = field(init=False)
    params: np.ndarray = field(init=False)
    X: np.ndarray = field(init=False)
    targets: np.ndarray = field(init=False)
    weights: np.ndarray | None = field(init=False, default=None)
    objective: seam.Objective = field(init=False)

    def __post_init__(self):
        rng = np.random.default_rng(self.seed)
        self.plan = layout.make_plan(self.sizes, self.activations, self.dtype)
        self.params = self.like_params(0)
        for W, b in layers(self.plan, self.params):
            W[...] = rng.uniform(-1, 1, W.shape) / math.sqrt(len(W))
            b[...] = rng.uniform(-0.5, 0.5, b.shape)
        # Outputs between 0.3 and 2: off the edges of logarithms and of hard_sigmoid.
        W *= 0.5 / max(1.0, float(np.abs(W).sum(axis=0).max()))
        b[...] = rng.uniform(0.9, 1.3, b.shape)
        self.X = rng.uniform(-1, 1, (self.n, self.sizes[0])).astype(self.dtype)
        n_out = self.sizes[-1]
        if self.labels:
            self.targets = rng.integers(0, n_out, self.n)
        else:
            y = rng.uniform(0.1, 0.9, (self.n, n_out)).astype(np.float32)
            if self.loss == "categorical_crossentropy":
                y /= y.sum(axis=1, keepdims=True)
            self.targets = y.astype(self.dtype)
        if self.weighted:
            self.weights = rng.integers(0, 5, self.n) / 4
            self.weights[0] = 1
        parameter = {"quantile": 0.3, "huber": 0.4}.get(self.loss, 0.0)
        self.objective = seam.Objective(
            LOSSES[self.loss].code, parameter, self.smoothing, self.l1, self.l2
        )

    def like_params(self, value):
        """A flat vector laid out as the parameters, filled but for its padding."""
        flat = np.zeros(layout.params_size(self.plan), self.dtype)
        for W, b in layers(self.plan, flat):
            W[...] = b[...] = value
        return flat

    def scratch(self, core, n_threads=1, n=None):
        """A workspace of the size that the core requires, full of NaN."""
        size = core.workspace_size(self.plan, self.n if n is None else n, n_threads)
        return np.full(size, np.nan, self.dtype)

    def record(self, n=None, value=0):
        """Room for one number per row and unit."""
        last = layout.layers_of(self.plan)[-1]
        width = last[layout.UNITS] + last[layout.STRIDE]
        return np.full((self.n if n is None else n, width), value, self.dtype)

    def units(self, record):
        """Each layer's columns of a record."""
        return [record[:, p[layout.UNITS] : p[layout.UNITS] + p[layout.N_OUT]] for p in self.plan]

    def gradient(self, core, params=None, rows=None, noise=QUIET, step=0, **changes):
        """Call ``core.gradient``; returns loss, grads, deltas and dX. Everything begins as NaN."""
        n = self.n if rows is None else len(rows)
        grads, deltas = self.like_params(np.nan), self.record(n, np.nan)
        dX = np.full((n, self.sizes[0]), np.nan, self.dtype)
        given = {"X": self.X, "targets": self.targets, "weights": self.weights} | changes
        loss = core.gradient(
            self.plan, self.params if params is None else params, given["X"], given["targets"],
            given["weights"], rows, self.objective, noise, step, grads, deltas, dX,
            self.scratch(core, n=n), self.input_scale,
        )  # fmt: skip
        return loss, grads, deltas, dX

    def evaluate(self, core, rows=None, noise=QUIET, step=0):
        """Call ``core.evaluate``; returns the outputs and the cost of each row."""
        n = self.n if rows is None else len(rows)
        out = np.full((n, self.sizes[-1]), np.nan, self.dtype)
        costs = np.full(n, np.nan, self.dtype)
        core.evaluate(
            self.plan, self.params, self.X, self.targets, rows, self.objective, noise, step, out,
            costs, self.scratch(core), self.input_scale,
        )  # fmt: skip
        return out, costs

    def predict(self, core, X=None, rows=None):
        """Call ``core.predict``."""
        X = self.X if X is None else X
        n = len(X) if rows is None else len(rows)
        out = np.full((n, self.sizes[-1]), np.nan, self.dtype)
        scratch = self.scratch(core)
        core.predict(self.plan, self.params, X, rows, out, scratch, self.input_scale)
        return out

    @cached_property
    def exact(self):
        """The same problem in float64, number for number."""
        other = replace(self, dtype=np.dtype(np.float64))
        for mine, theirs in zip(
            layers(self.plan, self.params), layers(other.plan, other.params), strict=True
        ):
            for source, target in zip(mine, theirs, strict=True):
                target[...] = source
        other.X, other.weights = self.X.astype(np.float64), self.weights
        other.targets = self.targets if self.labels else self.targets.astype(np.float64)
        return other


def problems_at_odd_sizes(dtype, **options):
    """Nets in which every odd width is once the inputs, the hidden units, the outputs, the rows."""
    for i in range(len(WIDTHS)):
        n_in, hidden, n_out, n = (WIDTHS[(i * k + j) % 11] for j, k in enumerate((1, 3, 5, 7)))
        yield Problem((n_in, hidden, n_out), ("tanh", "softmax"), "squared_error", n, dtype, i,
                      **options)  # fmt: skip


# Bounds ------------------------------------------------------------------------------------------


def chain(length, eps):
    """Largest error of a sum of `length` products, relative to the sum of their sizes.

    Every rounding is u = eps / 2 at most, so ``length u`` is the worst case; roundings have mixed
    signs, and ``6 sqrt(length) u`` is exceeded with a probability below 4e-8 (Higham & Mary 2019,
    theorem 2.4, lambda = 6). The order of the sum, and fused multiply-adds, do not matter.
    """
    return min(length + 1, 6 * math.sqrt(length + 1)) * eps / 2


@dataclass
class Bounded:
    """A value in float64, and the largest error that it may have in another dtype."""

    value: np.ndarray
    error: np.ndarray

    def check(self, came, what):
        """Fail unless every number is within its bound; the message names the worst."""
        came = np.asarray(came, np.float64)
        assert came.shape == np.shape(self.value), what
        excess = np.abs(came - self.value) / np.maximum(self.error, np.finfo(np.float64).tiny)
        assert not np.isnan(came).any(), f"{what} holds NaN"
        if excess.size and excess.max() > 1:
            at = np.unravel_index(excess.argmax(), excess.shape)
            raise AssertionError(
                f"{what} at {[int(i) for i in at]}: {came[at]!r}, expected {self.value[at]!r} "
                f"within {self.error[at]:.3g} (off by {excess.max():.3g} times that)"
            )

    def times(self, factor):
        return Bounded(self.value * factor, self.error * np.abs(factor))


def slope_error(name, z, dz, a, slope, eps):
    """Error of da/dz: its bend times the error of z, a jump where a kink is that near, rounding."""
    bend = np.abs(a) if name == "exp" else SMOOTH
    jump = sum((np.abs(z - kink) <= dz + 8 * eps) * 1.0 for kink in KINKS.get(name, ()))
    return bend * dz + jump + 4 * eps * (1 + np.abs(slope))


def softmax_error(z, dz, a, eps):
    """exp(z - top): the subtraction rounds z - top, the division the sum."""
    spread = z.max(axis=1, keepdims=True) - z
    total = (a * dz).sum(axis=1, keepdims=True)
    return a * (1.1 * (dz + total) + (8 + spread) * eps + chain(a.shape[1], eps))


def cost_terms(loss, z, a, y, matched):
    """Sizes of the terms that a cost is a sum of: what its rounding is relative to."""
    r = np.abs(a - y)
    if loss == "binary_crossentropy":
        if matched:
            return np.logaddexp(0, z) + np.abs(y * z)
        return 1 - np.log(a) - np.log(1 - a) + 1 / a + 1 / (1 - a)
    if loss == "categorical_crossentropy":
        log_sum = np.log(np.exp(z).sum(axis=1, keepdims=True))
        return y * (np.abs(log_sum) + np.abs(z) + 1) if matched else y * (1 - np.log(a))
    if loss == "poisson":
        return a + y + np.abs(y * np.log(y)) + np.abs(y * (z if matched else np.log(a))) + y
    return r + r * r


def bend_of_cost(loss, a, y):
    """Second derivative of a cost by the output, and how far its first derivative can jump."""
    if loss == "binary_crossentropy":
        return y / a**2 + (1 - y) / (1 - a) ** 2, 0
    if loss in ("categorical_crossentropy", "poisson"):
        return y / a**2, 0
    return (1, 0) if loss in ("squared_error", "huber") else (0, 2)


class Oracle:
    """What a problem's forward and backward pass give, with bounds for the problem's dtype."""

    def __init__(self, problem, noise=QUIET, step=0, rows=None):
        self.problem, self.noise = problem, noise
        self.eps = float(np.finfo(problem.dtype).eps)
        if problem.dtype == np.float64:
            self.eps *= 2  # the oracle rounds as well
        exact = self.exact = problem.exact
        dtype = np.dtype(np.float64)
        self.rows = np.arange(problem.n) if rows is None else rows
        X = exact.X[self.rows] * problem.input_scale
        self.y = gather_targets(
            exact.targets, self.rows, problem.objective, problem.sizes[-1], dtype
        )
        x, zs, activations, slopes = propagate(exact.plan, exact.params, X, noise, step)
        rounds = noise.input_noise or problem.input_scale != 1
        dx = 2 * self.eps * (np.abs(X) + np.abs(x - X)) if rounds else 0 * x
        self.inputs = [Bounded(x, dx)]
        self.z, self.slopes = [], []
        for number, (z, a, slope) in enumerate(zip(zs, activations, slopes, strict=True)):
            self._propagate(number, z, a, slope)
        self.a = self.inputs[1:]

    def _propagate(self, number, z, a, slope):
        """One layer: z = a W + b, then the activation."""
        eps, before = self.eps, self.inputs[-1]
        W, b = layers(self.exact.plan, self.exact.params)[number]
        size = np.abs(before.value) @ np.abs(W) + np.abs(b)
        dz = chain(len(W), eps) * size + before.error @ np.abs(W)
        name = self.problem.activations[number]
        rates = self.noise.dropout
        scale = 1 / (1 - rates[number]) if number < len(rates) else 1.0
        if name == "softmax":
            da, slope, dslope = softmax_error(z, dz, a, eps), 0 * z, 0 * z
        else:
            dslope = scale * slope_error(name, z, dz, a, slope / scale, eps)
            da = 4 * eps * (scale + np.abs(a)) + (np.abs(slope) + dslope) * dz
        self.z.append(Bounded(z, dz))
        self.inputs.append(Bounded(a, da))
        self.slopes.append(Bounded(slope, dslope))

    @cached_property
    def matched(self):
        problem = self.problem
        return LOSSES[problem.loss].code in (3, 4, 5) and (
            LOSSES[problem.loss].out_activation == problem.activations[-1]
        )

    @cached_property
    def costs(self):
        """Cost of each row."""
        problem, eps, y = self.problem, self.eps, self.y
        z, a, code = self.z[-1], self.a[-1], ACTIVATIONS[problem.activations[-1]].code
        value = row_costs(problem.objective, code, z.value, a.value, y)
        if self.matched:
            carried = (np.abs(a.value - y) + z.error) * z.error
        else:
            bend, jump = bend_of_cost(problem.loss, a.value, y)
            da = np.abs(cost_slope(problem.objective, a.value, y))
            carried = (da + jump + bend * a.error) * a.error
        terms = cost_terms(problem.loss, z.value, a.value, y, self.matched)
        rounding = (8 * eps + chain(y.shape[1], eps)) * terms
        return Bounded(value, (carried + rounding).sum(axis=1))

    @cached_property
    def share(self):
        problem = self.problem
        return row_shares(problem.weights, self.rows, len(self.rows), problem.objective)[1]

    @cached_property
    def loss(self):
        """Weighted mean of the costs, with penalties."""
        objective = self.problem.objective
        value, error = (self.costs.value @ self.share, self.costs.error @ self.share)
        for W, _ in layers(self.exact.plan, self.exact.params):
            penalty = objective.l1 * np.abs(W).sum() + 0.5 * objective.l2 * np.square(W).sum()
            value, error = value + penalty, error + 16 * self.eps * penalty  # see size_of in C
        return Bounded(np.asarray(value), np.asarray(error + 4 * self.eps * abs(value)))

    @cached_property
    def output_delta(self):
        problem, eps, y, a = self.problem, self.eps, self.y, self.a[-1]
        share = self.share[:, None]
        if self.matched:
            return Bounded(a.value - y, a.error + 4 * eps * (a.value + y)).times(share)
        da = cost_slope(problem.objective, a.value, y)
        bend, jump = bend_of_cost(problem.loss, a.value, y)
        near = np.abs(a.value - y) <= a.error
        carried = bend * (a.error + 4 * eps * (np.abs(a.value) + np.abs(y)))
        rest = 1 / (1 - a.value) if problem.loss == "binary_crossentropy" else 1
        dda = carried + jump * near + 4 * eps * np.abs(da) * (1 + rest)
        if problem.activations[-1] == "softmax":
            p, size = a.value, np.abs(da)
            along = (da * p).sum(axis=1, keepdims=True)
            spread = (dda * p + size * a.error).sum(axis=1, keepdims=True)
            spread = spread + chain(p.shape[1], eps) * (size * p).sum(axis=1, keepdims=True)
            error = a.error * np.abs(da - along) + (p + a.error) * (dda + spread)
            value = p * (da - along)
            return Bounded(value, error + 4 * eps * p * (size + np.abs(along))).times(share)
        slope = self.slopes[-1]
        error = dda * (np.abs(slope.value) + slope.error) + np.abs(da) * slope.error
        value = da * slope.value
        return Bounded(value, error + 4 * eps * np.abs(value)).times(share)

    @cached_property
    def backward(self):
        """Per layer delta, dW and db, from the first; and dX."""
        objective, eps, n = self.problem.objective, self.eps, len(self.rows)
        delta, found = self.output_delta, []
        weights = [W for W, _ in layers(self.exact.plan, self.exact.params)]
        for number in reversed(range(len(weights))):
            W, before = weights[number], self.inputs[number]
            size, D = np.abs(before.value), np.abs(delta.value)
            penalty = objective.l1 * np.sign(W) + objective.l2 * W
            dW = Bounded(
                before.value.T @ delta.value + penalty,
                chain(n, eps) * (size.T @ D) + before.error.T @ D
                + (size + before.error).T @ delta.error + 4 * eps * np.abs(penalty),
            )  # fmt: skip
            dW.error = dW.error + eps * np.abs(dW.value)
            db = Bounded(
                delta.value.sum(axis=0), chain(n, eps) * D.sum(axis=0) + delta.error.sum(axis=0)
            )
            found.append((delta, dW, db))
            back = Bounded(
                delta.value @ W.T,
                (chain(W.shape[1], eps) * D + delta.error) @ np.abs(W.T),
            )
            if number:
                slope = self.slopes[number - 1]
                delta = Bounded(
                    back.value * slope.value,
                    (np.abs(slope.value) + slope.error) * back.error
                    + np.abs(back.value) * (slope.error + 2 * eps * np.abs(slope.value)),
                )
        dX = back.times(self.problem.input_scale)
        return found[::-1], Bounded(dX.value, dX.error + 2 * eps * np.abs(dX.value))

    def check_gradient(self, came):
        """Compare what ``core.gradient`` gave: loss, grads, deltas and dX."""
        loss, grads, deltas, dX = came
        self.loss.check(loss, "loss")
        expected, expected_dX = self.backward
        parts = zip(
            expected, layers(self.problem.plan, grads), self.problem.units(deltas), strict=True
        )
        for number, ((delta, dW, db), (W, b), d) in enumerate(parts, 1):
            delta.check(d, f"delta of layer {number}")
            dW.check(W, f"dW of layer {number}")
            db.check(b, f"db of layer {number}")
        expected_dX.check(dX, "dX")
        assert not padding(self.problem.plan, grads).any()


# One step ----------------------------------------------------------------------------------------


def compact(plan, flat):
    """The numbers of a flat vector without its padding, the same in both dtypes."""
    return np.concatenate([part.ravel() for pair in layers(plan, flat) for part in pair])


def stepped(problem, optimizer, grads, state, step, rate):
    """Where one step leads from ``problem.params``: Bounded parameters, and Bounded moments.

    `grads` is Bounded, without padding; `state` is laid out like the core's.
    """
    exact, o = problem.exact, optimizer
    eps = float(np.finfo(problem.dtype).eps) * (2 if problem.dtype == np.float64 else 1)
    params, moments = exact.params.copy(), np.zeros((len(state), len(exact.params)))
    flat, decays, phi = exact.like_params(0), exact.like_params(0), exact.like_params(0)
    start = 0
    for W, b in layers(exact.plan, flat):
        for part in (W, b):
            part[...] = grads.value[start : start + part.size].reshape(part.shape)
            start += part.size
    factors = o.factors if len(o.factors) else groups.default_factors(exact.plan)
    for column, of_column in enumerate((phi, decays)):
        for row, part in groups.group_views(exact.plan, of_column):
            part[...] = factors[row, column]
    for mine, theirs in zip(state, moments, strict=True):
        for source, target in zip(
            layers(problem.plan, mine), layers(exact.plan, theirs), strict=True
        ):
            target[0][...], target[1][...] = source

    signed, dg = grads.value, grads.error
    if o.clip_norm:
        norm = float(np.linalg.norm(grads.value))
        assert norm > 1.01 * o.clip_norm, "the case is about clipping"
        spread = float(np.linalg.norm(dg)) / norm + 4 * eps
        dg = o.clip_norm / norm * (dg + np.abs(signed) * spread)
        signed = signed * o.clip_norm / norm
    g = np.abs(signed)
    W = np.abs(compact(exact.plan, params))
    before = [compact(exact.plan, row) for row in moments]
    old = list(map(np.abs, before))
    update(exact.plan, params, flat, moments, o, step, rate)
    new = [compact(exact.plan, row) for row in moments]
    old_mean, new_mean = (old.pop(), new.pop()) if o.ema else (None, None)

    rate = rate * compact(exact.plan, phi)
    if o.solver == SOLVERS["sgd"].code:
        dv = rate * dg + 4 * eps * (o.momentum * old[0] + rate * g)
        errors = [dv if o.momentum else 0 * dv]
        move = o.momentum * dv + rate * dg if o.nesterov else dv
        size = np.abs(new[0]) + rate * g
    elif o.solver == SOLVERS["lion"].code:
        c = before[0] + (1 - o.beta_1) * (signed - before[0])
        rounding = 4 * eps * (old[0] + g)
        errors = [(1 - o.beta_2) * dg + rounding]
        near_zero = np.abs(c) <= (1 - o.beta_1) * dg + rounding  # where c may have either sign
        move, size = 2 * rate * near_zero, rate
    else:
        rest, adam = 1 - o.beta_2, o.solver == SOLVERS["adam"].code
        v = new[-1]
        dv = rest * (2 * g + dg) * dg + 4 * eps * (old[-1] + rest * g * g)
        errors = [dv]
        m, dm = g, dg
        t = step + 1
        if adam or o.solver == SOLVERS["nadam"].code:
            m, dm = np.abs(new[0]), (1 - o.beta_1) * dg + 4 * eps * (old[0] + g)
            errors = [dm, dv]
        if adam:
            rate = rate * math.sqrt(1 - o.beta_2**t) / (1 - o.beta_1**t)
        elif o.solver == SOLVERS["nadam"].code:
            of_mean, of_gradient = nadam_rates(o, t)
            rate = rate * math.sqrt(1 - o.beta_2**t)
            m, dm = of_mean * m + of_gradient * g, of_mean * dm + of_gradient * dg
            dm = dm + 4 * eps * m
        root = np.sqrt(v) + o.epsilon
        size = rate * m / root
        move = rate * (dm + m * dv / np.sqrt(v) / root) / root
    decay = 2 * eps * W * (compact(exact.plan, decays) > 0) * bool(o.weight_decay)
    error = move + decay + 8 * eps * (W + size)
    if o.ema:
        part = (1 - o.ema) / (1 - o.ema ** (step - o.ema_start + 1))
        new.append(new_mean)
        errors.append(part * error + 4 * eps * (old_mean + part * (W + size)))
    return Bounded(compact(exact.plan, params), error), list(map(Bounded, new, errors))
