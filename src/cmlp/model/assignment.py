"""What programs write into a network by hand.

It keeps only what it can predict with, and what a file can hold: anything else is refused
when it is assigned.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from cmlp.core.arrays import refuse_masked
from cmlp.core.checks import check_input_scale, check_integer, check_number
from cmlp.core.layout import ACTIVATION, Array, aligned, make_plan
from cmlp.core.vocabulary import ACTIVATIONS, SOLVERS, Loss, lookup
from cmlp.data.checks import as_numbers
from cmlp.data.labels import check_classes
from cmlp.model.history import History

if TYPE_CHECKING:
    from cmlp.network import Network

# Attributes of a network -------------------------------------------------------------------------


def put(net: Network, **values: Any) -> None:
    """Write attributes that fit each other, and end the short way to a prediction with the old.

    Not by way of ``vars(net)``: to read an attribute takes CPython longer from then on.
    """
    for name, value in values.items():
        object.__setattr__(net, name, value)
    object.__setattr__(net, "_version", object())  # last: see Network._bind


def _activations(net: Network, names: Any) -> tuple[str, ...]:
    """Every layer's activation; the plan has them, too, and is what predicts."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"activations must be a list of names, one per layer, not {names!r}")
    listed = list(names)
    if len(listed) != len(net.sizes) - 1:
        raise ValueError(
            f"activations must have {len(net.sizes) - 1} names, one per layer, not {len(listed)}"
        )
    last = lookup("activation", ACTIVATIONS, listed.pop()).name
    rows = [*net._resolve_hidden(listed), last]
    if last == "softmax" and net.sizes[-1] == 1:
        raise ValueError("softmax needs an output per class, but this network has 1 output")
    unsuited = ""
    try:
        net._resolve_loss(net._custom_loss or net.loss_name, last)
    except ValueError as error:
        unsuited = str(error)
    plan = make_plan(net.sizes, rows, net.dtype, net.normalization)
    put(net, plan=plan, _unsuited=unsuited)
    return tuple(rows)


def _plan(net: Network, plan: Any) -> Array:
    """A layout that differs from that of now in the activations only."""
    codes = {row.code: row.name for row in ACTIVATIONS}
    wanted = np.asarray(plan)
    if wanted.shape == net.plan.shape and set(wanted[:, ACTIVATION].tolist()) <= codes.keys():
        names = [codes[code] for code in wanted[:, ACTIVATION].tolist()]
        if np.array_equal(wanted, make_plan(net.sizes, names, net.dtype, net.normalization)):
            net.activations = tuple(names)
            return net.plan
    raise ValueError(
        "plan must be the layout of this network's layers, which only another activation changes: "
        "assign net.activations"
    )


def _params(net: Network, params: Any) -> Array:
    """All parameters, as the cores read them; the same array if it is fit for them."""
    refuse_masked("params", params)
    flat = np.asarray(params)
    shape = net.params.shape
    if flat.dtype.kind != "f" or flat.shape != shape:
        raise ValueError(
            f"params must be {shape} numbers of {net.dtype}, laid out as they are in net.params; "
            f"they are {flat.shape} of {flat.dtype}. Write single layers by net.weights[0] = W"
        )
    parts = net._parts(flat).values()
    padded = sum(map(np.count_nonzero, parts)) < np.count_nonzero(flat)
    if padded or flat.dtype != net.dtype or not (flat.flags.c_contiguous and flat.flags.aligned):
        clean = aligned(shape, net.dtype)
        for target, part in zip(net._parts(clean).values(), parts, strict=True):
            target[...] = narrowed("params", part, net.dtype)
        return clean
    return flat


def narrowed(name: str, values: Array, dtype: np.dtype[Any]) -> Array:
    """Return numbers in another type; refuse those that it has not room for."""
    with np.errstate(all="ignore"):
        narrow = values.astype(dtype)
    if np.isinf(narrow).sum() > np.isinf(values).sum():
        raise ValueError(f"{name} holds numbers that are too large for {dtype}")
    return narrow


def _solver(net: Network, name: Any) -> str:
    return "" if isinstance(name, str) and not name else lookup("solver", SOLVERS, name).name


def _moments(net: Network, moments: Any) -> Array:
    fits = isinstance(moments, np.ndarray) and moments.shape[1:] == net.params.shape
    if not (fits and moments.dtype == net.dtype):
        raise ValueError(f"moments must be (n_moments, {len(net.params)}) numbers of {net.dtype}")
    found: Array = moments
    return found


def _classes(net: Network, labels: Any) -> Array | None:
    return None if labels is None else check_classes("classes", labels, max(net.sizes[-1], 2))


def text_list(name: str, names: Any, n: int | None) -> list[str]:
    """Return the names of `n` columns as text, or of none."""
    if isinstance(names, (str, bytes)) or not isinstance(names, Iterable | None):
        raise TypeError(f"{name} must be a list of names, not {names!r}")
    refuse_masked(name, names)
    texts = [] if names is None else [str(each) for each in names]
    if texts and n is not None and len(texts) != n:
        raise ValueError(f"{name} must have {n} names, one per input, not {len(texts)}")
    return texts


def _feature_names(net: Network, names: Any) -> list[str]:
    return text_list("feature_names", names, net.sizes[0])


def _target_name(net: Network, name: Any) -> str | None:
    refuse_masked("target_name", name)
    return None if name is None else str(name)


def _loss_parameter(net: Network, value: Any) -> float:
    bounds = {"quantile": (0, 1), "huber": (0, np.inf)}.get(net.loss_name)
    if bounds is None:
        raise AttributeError(f"the loss {net.loss_name} has no parameter to assign")
    return check_number("loss_parameter", value, *bounds)


def _loss_row(net: Network, row: Any) -> Loss:
    if not isinstance(row, Loss):
        raise AttributeError("this cannot be assigned: make another network, with loss=...")
    return row


def _history(net: Network, record: Any) -> History:
    if isinstance(record, History):
        return record
    if not isinstance(record, dict):
        raise TypeError(f"history must be a History or a dict of lists, not {record!r}")
    return History({str(key): [float(value) for value in record[key]] for key in record})


def _fixed(name: str, advice: str) -> Callable[[Network, Any], Any]:
    def refuse(net: Network, value: Any) -> Any:
        raise AttributeError(f"{name} cannot be assigned after the network was made; {advice}")

    return refuse


ASSIGNED: dict[str, Callable[[Network, Any], Any]] = {
    "activations": _activations,
    "plan": _plan,
    "params": _params,
    "input_scale": lambda net, value: check_input_scale(value),
    "missing_targets": lambda net, value: net._resolve_missing(value),
    "loss_parameter": _loss_parameter,
    "classes": _classes,
    "feature_names": _feature_names,
    "target_name": _target_name,
    "history": _history,
    "solver": _solver,
    "moments": _moments,
    "rng": lambda net, seed: np.random.default_rng(seed),
    "sizes": _fixed("sizes", "make another one: cmlp.Network(sizes)"),
    "dtype": _fixed("dtype", "net.astype(dtype) returns a copy in another one"),
    "normalization": _fixed("normalization", "net.folded() returns a copy without 'batch'"),
    "weight_init": _fixed("weight_init", "the first weights are drawn"),
    "activation": _fixed("activation", "assign net.activations, one name per layer"),
    "out_activation": _fixed("out_activation", "assign net.activations, one name per layer"),
    "loss": _fixed(
        "loss", "make another one, cmlp.Network(sizes, loss=...), and assign its params"
    ),
    "quantile": _fixed("quantile", "assign net.loss_parameter"),
    "huber_delta": _fixed("huber_delta", "assign net.loss_parameter"),
    "seed": _fixed("seed", "assign net.rng"),
    "loss_row": _loss_row,
}
"""What an attribute becomes when a program assigns it: what the network can keep, or an error."""


STATE = {"steps", "averaged", "shown_average"}
"""Numbers that training writes, and :func:`check_optimizer` examines before they are saved."""


TRAINING = {
    "batch_size", "callbacks", "clip_norm", "dropout", "ema", "epochs", "l1", "l2", "learning_rate",
    "max_time", "momentum", "n_threads", "optimizer", "patience", "schedule", "shuffle",
    "validation_fraction", "verbose", "weight_decay",
}  # fmt: skip
"""Settings of a training, which a network does not keep."""


def refuse_unknown(net: Network, name: str) -> None:
    """Refuse a name that looks like one that acts, and one that hides a method.

    A program may have attributes of its own; names that begin with an underscore are internal.
    """
    defined = getattr(type(net), name, None)
    if name.startswith("_") or name in STATE or isinstance(defined, property):
        return  # a property says itself that it cannot be assigned
    if callable(defined):
        raise AttributeError(f"{name} is a method of a network, which cannot be assigned")
    if name in TRAINING:
        raise AttributeError(f"{name} is a parameter of fit: net.fit(X, y, {name}=...)")
    near = difflib.get_close_matches(name, ASSIGNED, 1, 0.8) if name not in vars(net) else []
    if near:
        raise AttributeError(f"a network has no attribute {name!r} to assign; it has {near[0]!r}")


def check_kept(net: Network) -> None:
    """Check that the plan, which may have been changed in place, is that of the description."""
    if not np.array_equal(
        net.plan, make_plan(net.sizes, net.activations, net.dtype, net.normalization)
    ):
        raise ValueError("plan was changed in place; assign net.activations instead")


def check_optimizer(net: Network) -> None:
    """Check that the optimizer's state is one that training could go on from."""
    n_moments = lookup("solver", SOLVERS, net.solver).n_moments if net.solver else 0
    shape = n_moments + (net.averaged > 0), len(net.params)
    if net.moments.shape != shape:
        raise ValueError(
            f"moments must be {shape} for solver={net.solver!r} and averaged={net.averaged}; they "
            f"are {net.moments.shape}"
        )
    if not check_integer("averaged", net.averaged, 0) <= check_integer("steps", net.steps, 0):
        raise ValueError(f"averaged={net.averaged} is more than the steps={net.steps}")


# Weights -----------------------------------------------------------------------------------------


def sizes_of(coefs: Any, intercepts: Any) -> list[int]:
    """Return the units of the layers that these weights belong to.

    Raises
    ------
    ValueError
        If they do not fit each other.
    """
    weights, biases = [np.shape(W) for W in coefs], [np.shape(b) for b in intercepts]
    fits = len(weights) == len(biases) > 0 and all(len(shape) == 2 for shape in weights)
    if not (
        fits
        and all(before[1] == after[0] for before, after in pairwise(weights))
        and all(b == W[1:] for W, b in zip(weights, biases, strict=True))
    ):
        raise ValueError(
            "coefs_ needs an array (n_in, n_out) per layer, intercepts_ one of (n_out,), and n_out "
            f"is the next layer's n_in; the shapes are {weights} and {biases}"
        )
    return [weights[0][0], *(shape[1] for shape in weights)]


def write(net: Network, coefs: Any, intercepts: Any) -> None:
    """Write weights and biases into a network; None leaves them.

    Raises
    ------
    ValueError
        If they do not fit the network.
    """
    for name, given, views in (
        ("coefs_init", coefs, net.weights),
        ("intercepts_init", intercepts, net.biases),
    ):
        if given is None:
            continue
        shapes = [view.shape for view in views]
        if [np.shape(values) for values in given] != shapes:
            raise ValueError(
                f"{name} must have arrays of the shapes {shapes}, one per layer; the shapes "
                f"are {[np.shape(values) for values in given]}"
            )
        arrays = [narrowed(name, as_numbers(name, values), net.dtype) for values in given]
        for view, values in zip(views, arrays, strict=True):
            view[...] = values


def predict_with(net: Network, out_activation: str) -> None:
    """Give a network another activation of its outputs, which it need not be able to train with."""
    row = lookup("out_activation_", ACTIVATIONS, out_activation)
    net.activations = (*net.activations[:-1], row.name)
