"""The names of cmlp: activations, losses, solvers, initialisers, normalisations.

One row per name. The cores use the integer codes; names that users pass are resolved here, by
:func:`lookup` and :func:`activation_of`, whose errors suggest the nearest known name. A new
activation or loss is one row here and one formula in each twin; the tests run over the tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, TypeVar


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
    parameter: float = 0.0
    """The number of a function that has one; see :func:`activation_of`."""


INF = float("inf")


LEAKY_SLOPE = 0.01


SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017, eq. 14


ACTIVATIONS = (
    Activation("identity", 0, "z", "1", (-INF, INF), 1.0, ("linear",)),
    Activation("logistic", 1, "1 / (1 + exp(-z))", "a (1 - a)", (0.0, 1.0), 1.0, ("sigmoid",)),
    Activation("tanh", 2, "tanh(z)", "1 - a^2", (-1.0, 1.0), 1.0),
    Activation("relu", 3, "max(z, 0)", "1 if a > 0 else 0", (0.0, INF), 2.0),
    Activation(
        "leaky_relu",
        4,
        "z if z > 0 else 0.01 z",
        "1 if a > 0 else 0.01",
        (-INF, INF),
        2.0,
        parameter=LEAKY_SLOPE,
    ),
    Activation(
        "elu",
        5,
        "z if z > 0 else exp(z) - 1",
        "1 if a > 0 else a + 1",
        (-1.0, INF),
        2.0,
        parameter=1.0,
    ),
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


ACTIVATION_PARAMETERS = {"leaky_relu": "slope", "elu": "alpha"}
"""Activations with a parameter, and what it is called: 'leaky_relu:0.3' has the slope 0.3."""


LARGEST_PARAMETER = 1e30
"""A bound that leaves room for products in float32."""


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
"""Code of a loss that is computed outside of the core: the targets are dC/da, the value is zero."""


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


def activation_of(name: object, kind: str = "activation") -> Activation:
    """Return the row of an activation, whose parameter may follow its name, as in 'elu:0.5'.

    The row's name is the shortest for this function: without the parameter if that is the default.

    Raises
    ------
    ValueError
        If there is no such activation, or it has no parameter, or not this one.
    """
    text, colon, given = name.partition(":") if isinstance(name, str) else (name, "", "")
    row = lookup(kind, ACTIVATIONS, text)
    if not colon:
        return row
    called = ACTIVATION_PARAMETERS.get(row.name)
    if called is None:
        takers = ", ".join(f"{key} ({what})" for key, what in ACTIVATION_PARAMETERS.items())
        raise ValueError(
            f"{kind} {name!r}: {row.name} takes no parameter; these do: {takers}, as in "
            "'leaky_relu:0.3'"
        )
    try:
        parameter = float(given)
    except ValueError:
        parameter = math.nan
    if not 0 <= parameter <= LARGEST_PARAMETER:
        raise ValueError(
            f"{kind} {name!r}: the {called} of {row.name} must be a number from 0 to "
            f"{LARGEST_PARAMETER:g}, as in '{row.name}:0.3', not {given!r}"
        )
    return with_parameter(row, parameter)


def with_parameter(row: Activation, parameter: float) -> Activation:
    """Return the row of an activation with another parameter than the default."""
    parameter += 0.0  # -0.0 becomes 0.0
    if parameter == row.parameter:
        return row
    text = number_text(parameter)
    changed = row._replace(name=f"{row.name}:{text}", parameter=parameter)
    if row.name == "elu":
        formula, slope = f"z if z > 0 else {text} (exp(z) - 1)", f"1 if a > 0 else a + {text}"
        return changed._replace(formula=formula, slope=slope, range=(0.0 - parameter, INF))
    return changed._replace(
        formula=f"z if z > 0 else {text} z",
        slope=f"1 if a > 0 else {text}",
        range=(-INF if parameter else 0.0, INF),
        gain=2.0 / (1.0 + parameter * parameter),
    )


def number_text(number: float) -> str:
    """Return the shortest text that is read as the same number: 0.3, 2, 1e-5."""
    return repr(float(number)).removesuffix(".0").replace("e-0", "e-").replace("e+", "e")


def unknown(kind: str, name: object, known: Iterable[str], shown: Iterable[str]) -> ValueError:
    """Return the error for a name that is none of `known`; it suggests the nearest one."""
    import difflib  # slow to import

    near = difflib.get_close_matches(str(name).lower().replace("-", "_"), known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ValueError(f"Unknown {kind} {name!r}.{hint} Known: {', '.join(shown)}.")


PRECISIONS = (None, "bfloat16", "bfloat16-emulated")
"""What operands of products are rounded to, each at the place of its code: nothing, bfloat16 for
the processor's instructions, or the same computed in software."""

NARROW_LAYER = 16
"""Outputs up to which a layer's products stay float32: there bfloat16 gains nothing."""


NORMALIZATIONS = (None, "batch", "layer")
"""What hidden layers' weighted sums are normalised by, each at the place of its code: nothing, a
unit's mean and variance over the rows of a batch, or a row's over the units of its layer."""


NORMALIZATION_VECTORS: dict[str | None, tuple[str, ...]] = {
    None: (),
    "batch": ("scale", "mean", "variance"),
    "layer": ("scale",),
}
"""What a layer has in addition to its weights and bias, in the order of the codes: gamma, and with
'batch' the running mean and variance."""


NORMALIZATION_EPS = 1e-5
"""Added to a variance before its root is taken, unless a network has another epsilon."""


NORMALIZATION_MOMENTUM = 0.1
"""Part of a batch in the running mean and variance, as in PyTorch."""


LOSS_PARAMETERS = {"quantile": "quantile", "huber": "huber_delta"}
"""Losses with a parameter, and what it is called."""
