"""The names that cmlp knows: activations, losses, optimizers, initialisers.

One row per name. The compiled core (``_core.pyx``) and its NumPy twin (``_reference.py``) know
only the integer codes; everything a user types is resolved here, by :func:`lookup`, and an unknown
name is answered with the nearest known one. A new activation or loss is one row here and one
formula in each twin; the tests find it by themselves.

This module is the leaf of the package: it imports nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray


class Activation(NamedTuple):
    """A function applied to every weighted sum of a layer (``softmax``: to a whole row)."""

    name: str
    code: int
    formula: str
    slope: str
    range: tuple[float, float]
    """Smallest and largest output, which decides the losses that the activation can feed."""
    gain: float
    """Variance correction for the 'auto' initialiser: 2 where half of the inputs are cut off."""
    aliases: tuple[str, ...] = ()
    output_only: bool = False


INF = float("inf")
LEAKY_SLOPE = 0.01
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017, eq. 14

ACTIVATIONS = (
    Activation("identity", 0, "z", "1", (-INF, INF), 1.0, ("linear",)),
    Activation("logistic", 1, "1 / (1 + exp(-z))", "a (1 - a)", (0.0, 1.0), 1.0, ("sigmoid",)),
    Activation("tanh", 2, "tanh(z)", "1 - a^2", (-1.0, 1.0), 1.0),
    Activation("relu", 3, "max(z, 0)", "1 if a > 0 else 0", (0.0, INF), 2.0),
    Activation("leaky_relu", 4, "z if z > 0 else 0.01 z", "1 if a > 0 else 0.01", (-INF, INF), 2.0),
    Activation("elu", 5, "z if z > 0 else exp(z) - 1", "1 if a > 0 else a + 1", (-1.0, INF), 2.0),
    Activation(
        "selu",
        6,
        "1.0507 (z if z > 0 else 1.6733 (exp(z) - 1))",
        "1.0507 if a > 0 else a + 1.7581",
        (-SELU_ALPHA * SELU_SCALE, INF),
        1.0,
    ),
    Activation("gelu", 7, "z Phi(z)", "Phi(z) + z phi(z)", (-0.17, INF), 2.0),
    Activation("silu", 8, "z logistic(z)", "s (1 + z (1 - s))", (-0.28, INF), 2.0, ("swish",)),
    Activation("mish", 9, "z tanh(softplus(z))", "t + z s (1 - t^2)", (-0.31, INF), 2.0),
    Activation("softplus", 10, "log(1 + exp(z))", "logistic(z)", (0.0, INF), 2.0),
    Activation(
        "hard_sigmoid", 11, "clip(z / 6 + 1/2, 0, 1)", "1/6 if 0 < a < 1 else 0", (0.0, 1.0), 1.0
    ),
    Activation("exp", 12, "exp(z)", "a", (0.0, INF), 1.0, ("exponential",)),
    Activation(
        "softmax",
        13,
        "exp(z_j) / sum_k exp(z_k)",
        "a_j (1[j = k] - a_k)",
        (0.0, 1.0),
        1.0,
        (),
        True,
    ),
)


class Loss(NamedTuple):
    """A cost: summed over a row's outputs, averaged over the rows (by their weights)."""

    name: str
    code: int
    formula: str
    out_activation: str
    """The output activation that belongs to the loss; together their delta is ``a - y``."""
    domain: tuple[float, float]
    """Outputs that the loss is defined for."""
    targets: tuple[float, float]
    """Targets that the loss is defined for."""
    aliases: tuple[str, ...] = ()
    classifies: bool = False


LOSSES = (
    Loss(
        "squared_error", 0, "(a - y)^2 / 2", "identity", (-INF, INF), (-INF, INF),
        ("mse", "squared_difference", "mean_squared_error"),
    ),
    Loss("absolute_error", 1, "|a - y|", "identity", (-INF, INF), (-INF, INF), ("mae",)),
    Loss(
        "huber", 2, "(a - y)^2 / 2 if |a - y| <= h else h |a - y| - h^2 / 2", "identity",
        (-INF, INF), (-INF, INF),
    ),
    Loss(
        "binary_crossentropy", 3, "-(y log a + (1 - y) log(1 - a))", "logistic", (0.0, 1.0),
        (0.0, 1.0), ("bce", "binary_cross_entropy"), True,
    ),
    Loss(
        "categorical_crossentropy", 4, "-sum_j y_j log a_j", "softmax", (0.0, 1.0), (0.0, 1.0),
        ("categorical_cross_entropy", "cross_entropy", "crossentropy", "log_loss"), True,
    ),
    Loss("poisson", 5, "a - y + y log(y / a)", "exp", (0.0, INF), (0.0, INF)),
    Loss("quantile", 6, "max(q (y - a), (q - 1) (y - a))", "identity", (-INF, INF), (-INF, INF),
         ("pinball",)),
)  # fmt: skip

EXTERNAL_LOSS = 7
"""Code of a loss that the core does not know: the targets are dC/da itself, the value is zero."""


class Solver(NamedTuple):
    """A rule that turns a gradient into a step."""

    name: str
    code: int
    n_moments: int
    """Arrays as long as the parameters that the rule carries from step to step."""
    formula: str
    aliases: tuple[str, ...] = ()


SOLVERS = (
    Solver("sgd", 0, 1, "v = mu v - eta g;  W += v  (Nesterov: W += mu v - eta g)"),
    Solver("adam", 1, 2, "m, v = means of g, g^2;  W -= eta sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps)"),  # noqa: E501
    Solver("rmsprop", 2, 1, "v = rho v + (1 - rho) g^2;  W -= eta g / (sqrt(v) + eps)"),
    Solver("adamw", 1, 2, "adam, and W -= eta lambda W"),
    Solver("nadam", 3, 2, "adam with W -= eta sqrt(1 - b2^t) (c1 m + c0 g) / (sqrt(v) + eps), c of mu_t"),  # noqa: E501
    Solver("lion", 4, 1, "W -= eta sign(b1 m + (1 - b1) g);  m = b2 m + (1 - b2) g"),
)  # fmt: skip


class Initialiser(NamedTuple):
    """A distribution that the first weights of a layer are drawn from."""

    name: str
    scale: float
    """The variance is ``scale`` divided by the fan."""
    fan: str
    """'in', or 'average' of the layer's inputs and outputs."""
    distribution: str
    """'uniform', 'normal', 'orthogonal' or 'zeros'."""
    aliases: tuple[str, ...] = ()


INITIALISERS = (
    Initialiser("glorot_uniform", 1.0, "average", "uniform", ("xavier_uniform", "glorot")),
    Initialiser("glorot_normal", 1.0, "average", "normal", ("xavier_normal",)),
    Initialiser("he_uniform", 2.0, "in", "uniform", ("kaiming_uniform",)),
    Initialiser("he_normal", 2.0, "in", "normal", ("kaiming_normal", "he")),
    Initialiser("lecun_uniform", 1.0, "in", "uniform"),
    Initialiser("lecun_normal", 1.0, "in", "normal", ("lecun",)),
    Initialiser("orthogonal", 1.0, "in", "orthogonal"),
    Initialiser("zeros", 0.0, "in", "zeros"),
)

Row = TypeVar("Row", Activation, Loss, Solver, Initialiser)


NADAM_DECAY, NADAM_STEPS = 0.96**0.004, 100
"""Nadam's momentum at step t is ``b1 (1 - NADAM_DECAY**t / 2)``; the product of so many is 0."""


def lookup(kind: str, table: Iterable[Row], name: object) -> Row:
    """Return the row of `table` called `name` (or an alias of it).

    Raises
    ------
    ValueError
        If there is none; the message names the nearest known name.
    """
    rows = list(table)
    for entry in rows:
        if entry.name == name:
            return entry
    known = {entry.name: entry for entry in rows}
    for entry in rows:
        known.update(dict.fromkeys(entry.aliases, entry))
    plain = name.lower().replace("-", "_") if isinstance(name, str) else ""
    if plain in known:
        return known[plain]
    raise unknown(kind, name, known, [row.name for row in rows])


def unknown(kind: str, name: object, known: Iterable[str], shown: Iterable[str]) -> ValueError:
    """Return the complaint about a name that is none of `known`, with the nearest one."""
    import difflib  # only ever needed here

    near = difflib.get_close_matches(str(name).lower().replace("-", "_"), known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ValueError(f"Unknown {kind} {name!r}.{hint} Known: {', '.join(shown)}.")


# What crosses the seam ---------------------------------------------------------------------------

ALIGNMENT = 64
"""Bytes that each row of numbers is padded to: one cache line, one AVX-512 vector."""


def address(array: NDArray[Any]) -> int:
    """Return where the first number lies, without ``array.ctypes``: that imports ctypes."""
    where: int = array.__array_interface__["data"][0]
    return where


def aligned(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return zeros from a multiple of ALIGNMENT on: no vector lies across two cache lines."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    start = -address(raw) % ALIGNMENT
    zeros: NDArray[Any] = raw[start : start + size].view(dtype)
    return zeros.reshape(shape)


class SparseRows:
    """Rows of which only some numbers are stored (CSR, as in SciPy), read-only.

    Row i has ``data[indptr[i]:indptr[i + 1]]`` in the columns ``indices[indptr[i]:indptr[i + 1]]``,
    zeros elsewhere; numbers in the same column add up. The cores make one batch of rows dense at a
    time, in their workspace.
    """

    def __init__(
        self, data: NDArray[Any], indices: NDArray[Any], indptr: NDArray[Any], width: int
    ) -> None:
        self.data, self.indices, self.indptr = data, indices, indptr
        self.shape, self.dtype = (len(indptr) - 1, width), data.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> SparseRows:
        """Copy some rows: a slice, or an array of their numbers."""
        numbers = np.arange(len(self))[rows]
        first = self.indptr[numbers].astype(np.int64)
        lengths = self.indptr[numbers + 1] - first
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        at = np.arange(indptr[-1]) + np.repeat(first - indptr[:-1], lengths)
        indptr = indptr.astype(self.indptr.dtype)
        return SparseRows(self.data[at], self.indices[at], indptr, self.shape[1])

    def dense(self, dtype: Any) -> NDArray[Any]:
        """Return all rows with their zeros."""
        rows = np.zeros(self.shape, dtype)
        numbers = np.repeat(np.arange(len(self)), np.diff(self.indptr))
        np.add.at(rows, (numbers, self.indices), self.data.astype(dtype))
        return rows

    def min(self) -> float:
        """Return the smallest number stored, 0 at most."""
        return float(self.data.min(initial=0))

    def max(self) -> float:
        """Return the largest number stored, 0 at least."""
        return float(self.data.max(initial=0))


(N_IN, N_OUT, STRIDE, WEIGHTS, BIAS, ACTIVATION, UNITS, NORMALIZATION, SCALE) = range(9)
"""Columns of the plan: fan-in, fan-out, padded fan-out, offsets of W and b in the parameters,
activation code, offset of the layer's units in a record of one row; code of the normalisation and,
if there is one, offset of gamma, behind which 'batch' has its running mean and variance. A
normalised layer's b is beta, which is added behind the normalisation."""

NORMALIZATIONS = (None, "batch", "layer")
"""What hidden layers' weighted sums are normalised by, at the place of its code: nothing, a unit's
mean and variance over the rows of a batch, or a row's over the units of its layer."""

NORMALIZATION_PARTS = ("scale", "mean", "variance")
"""What a normalised layer has beside its weights and bias: gamma, with 'batch' all three."""

NORMALIZATION_EPS = 1e-5
"""Added to a variance before its root is taken."""

NORMALIZATION_MOMENTUM = 0.1
"""Part of a batch in the running mean and variance, as in PyTorch."""


class Objective(NamedTuple):
    """What is minimised: the rows' mean loss + ``l1 sum|W| + l2/2 sum W^2`` (biases are free)."""

    loss: int
    parameter: float = 0.0
    """The quantile of 'quantile', the threshold of 'huber'."""
    label_smoothing: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    missing: bool = False
    """Whether NaN stands for a target that nobody knows: it has no cost, and no gradient."""
    per_batch: bool = False
    """Penalties are divided by the weight of the batch; an epoch's loss is the mean of its batches'
    losses by their numbers of rows."""
    cost_scale: float = 1.0
    """Factor of the rows' loss where a loss is reported; gradients do not see it."""


class Optimizer(NamedTuple):
    """How a gradient becomes a step."""

    solver: int = 0
    momentum: float = 0.0
    nesterov: bool = False
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    """Largest Euclidean norm of the whole gradient; 0 leaves it alone."""
    ema: float = 0.0
    """What a step leaves of the old mean of the parameters, the last row of the state; 0: none."""
    ema_start: int = 0
    """Steps before the mean began: it is free of bias, the plain mean of a start's few steps."""


class Noise(NamedTuple):
    """What is random inside an epoch: a hash of (seed, step, row, unit), the same in both twins."""

    seed: int = 0
    input_noise: float = 0.0
    """Standard deviation of the noise added to the inputs."""
    dropout: NDArray[np.float64] = np.zeros(0)
    """Probability, one per hidden layer, that a unit is switched off; empty for none."""


def make_plan(
    sizes: Iterable[int],
    activations: Iterable[str],
    dtype: Any,
    normalization: str | None = None,
) -> NDArray[np.int64]:
    """Lay a network out: one row per layer, the columns named above.

    Returns
    -------
    ndarray of int64, shape (n_layers, 9)
    """
    sizes = tuple(sizes)
    lanes = ALIGNMENT // int(np.dtype(dtype).itemsize)

    def padded(n: int) -> int:
        return -(-n // lanes) * lanes

    plan = np.zeros((len(sizes) - 1, 9), np.int64)
    offset = units = 0
    for layer, ((n_in, n_out), name) in enumerate(zip(pairwise(sizes), activations, strict=True)):
        stride = padded(n_out)
        code = lookup("activation", ACTIVATIONS, name).code
        bias = offset + n_in * stride
        plan[layer] = n_in, n_out, stride, offset, bias, code, units, 0, 0
        offset = bias + stride
        units += stride
    if normalization is not None:  # behind the weights and biases, where it is in nobody's way
        for hidden in plan[:-1]:
            hidden[NORMALIZATION], hidden[SCALE] = NORMALIZATIONS.index(normalization), offset
            offset += _normalization_rows(hidden) * hidden[STRIDE]
    return plan


def _normalization_rows(layer: NDArray[np.int64]) -> int:
    """How many vectors a layer's normalisation has: gamma, and the running mean and variance."""
    return (0, 3, 1)[layer[NORMALIZATION]]


def params_size(plan: NDArray[np.int64]) -> int:
    """Return how many numbers the parameters of a plan are, with the padding."""
    extra = sum(_normalization_rows(layer) * int(layer[STRIDE]) for layer in plan)
    return int(plan[-1, BIAS] + plan[-1, STRIDE]) + extra


def normalization_views(
    plan: NDArray[np.int64], flat: NDArray[Any]
) -> list[tuple[NDArray[Any], ...]]:
    """Cut gamma, and with 'batch' the running mean and variance, of each normalised layer."""
    return [
        tuple(
            flat[at : at + layer[N_OUT]]
            for at in layer[SCALE] + layer[STRIDE] * np.arange(_normalization_rows(layer))
        )
        for layer in plan
        if layer[NORMALIZATION]
    ]


def folded(plan: NDArray[np.int64], params: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return a plan and parameters that predict the same without 'batch' normalisation.

    gamma (a W - mean) / sqrt(variance + eps) + beta is a sum with other weights and another bias.
    Anything else comes back as it is.
    """
    if plan[0, NORMALIZATION] != NORMALIZATIONS.index("batch"):
        return plan, params
    plain = plan.copy()
    plain[:, [NORMALIZATION, SCALE]] = 0
    size = params_size(plain)
    flat = aligned((size,), params.dtype)
    flat[:] = params[:size]
    for layer, (gamma, mean, variance) in zip(
        plan, normalization_views(plan, params), strict=False
    ):
        n_in, n_out, stride, at, bias = (
            int(layer[column]) for column in (N_IN, N_OUT, STRIDE, WEIGHTS, BIAS)
        )
        factor = gamma / np.sqrt(variance.astype(np.float64) + NORMALIZATION_EPS)
        W, b = flat[at : at + n_in * stride].reshape(n_in, stride)[:, :n_out], flat[bias:][:n_out]
        np.multiply(W, factor, out=W, casting="same_kind")
        np.subtract(b, mean * factor, out=b, casting="same_kind")
    return plain, flat
