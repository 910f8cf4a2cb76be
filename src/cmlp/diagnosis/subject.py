"""What :func:`cmlp.diagnose` looks at: some of the rows, and a copy of the model."""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmlp.core.arrays import array_of, label_array, places, refuse_masked
from cmlp.core.layout import Array
from cmlp.data.checks import check_weights
from cmlp.data.rows import Data
from cmlp.model.history import History
from cmlp.model.scoring import evaluate
from cmlp.training.recipe import Recipe

if TYPE_CHECKING:
    from cmlp.network import Network

SAMPLE_ROWS, FEWEST_ROWS = 4096, 256
"""Rows that are looked at: a share of 1 % is then known to within 0.3 %."""


SAMPLE_NUMBERS = 1 << 22
"""Inputs or activations kept at a time (32 MB in float64): fewer rows where they are very wide."""


REHEARSAL_EPOCHS, REHEARSAL_STEPS, REHEARSAL_SECONDS = 5, 200, 2.0
"""What a model that is not fitted is tried for, on a copy and the rows that are looked at: so many
epochs, more of them if they have few steps, and no longer than a user waits."""


MIN_EPOCHS = 5
"""Epochs that a curve needs to be read."""

USUAL_EPOCHS = 10
"""Epochs that a network is taken to train for before it is fitted: the default of ``fit``."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    code : str
        What kind it is, such as 'unscaled-inputs'; stays the same from version to version.
    severity : {'error', 'warning', 'note'}
        Nothing can be learned; learning suffers; worth knowing, and harmless as a rule.
    value : float
        The number that was measured; `meaning` says which.
    meaning : str
        What was measured, and what it does to the training.
    advice : str
        What to change, and to what.
    parameter : str or None
        The parameter that the advice is about, if it is one of the model's.
    suggestion : object
        A value for it.
    names : tuple of str
        The columns, layers or classes concerned.
    """

    code: str
    severity: str
    value: float
    meaning: str
    advice: str
    parameter: str | None = None
    suggestion: Any = None
    names: tuple[str, ...] = ()


@dataclass
class Case:
    """A model and its data, as the examinations want them."""

    estimator: bool
    fitted: bool
    n_rows: int
    X: Array
    """Some rows as the first layer sees them, float64."""
    names: list[str]
    """Of the columns; their numbers where nobody named them."""
    raw_bytes: bool
    """Whether X is unscaled uint8."""
    targets: Array | None = None
    """Numbers that outputs without bounds are to meet, float64, (rows, n_out)."""
    missing: dict[str, int] = field(default_factory=dict)
    """NaN and infinities, by where they are; if there are any, nothing else is known."""
    classes: Array | None = None
    counts: NDArray[np.float64] | None = None
    """Weight of each class in all rows; None for numbers and several labels per row."""
    balanced: bool = False
    """Whether the model weighs classes itself."""
    net: Network | None = None
    """A copy, fitted or after a rehearsal."""
    data: Data | None = None
    state: State | None = None
    """What the copy does on the rows."""
    validation: Data | None = None
    history: dict[str, list[float]] = field(default_factory=dict)
    """The curves, thinned as a file has them."""
    epochs: int = 0
    """Epochs of training, of which a long curve does not have all."""
    stopped: str = ""
    restored: bool = False
    """Whether the weights are the best of the training, not its last."""
    diverged: bool = False
    solver: str = ""
    rate: float = math.nan
    """The largest learning rate so far, or the one that a trial begins with."""
    planned: int = USUAL_EPOCHS
    """Epochs that a model is to train for."""
    patience: float = math.inf
    """Epochs without an improvement that it waits for one."""

    @property
    def network(self) -> tuple[Network, Data, State]:
        """The copy, the rows as it takes them, and what it does on them."""
        assert self.net is not None and self.data is not None and self.state is not None
        return self.net, self.data, self.state

    def word(self, name: str) -> str:
        """Return what this kind of model calls a parameter of ``Network.fit``."""
        return ESTIMATOR_WORDS.get(name, name) if self.estimator else name

    def looked_at(self) -> str:
        """Say what the findings rest on."""
        rows = f"{len(self.X):,} of {self.n_rows:,}" if len(self.X) < self.n_rows else (
            f"all {self.n_rows:,}")  # fmt: skip
        text = f"{rows} rows, {len(self.names):,} columns"
        if self.net is None:
            return text
        epochs = self.epochs
        layers = "-".join(map(str, self.net.sizes))
        if not self.fitted:
            return f"{text} and a trial of {epochs} epochs with {layers}"
        return f"{text}, the network {layers} and {epochs} epochs of training"

    def read(self, history: History) -> None:
        """Take over what a training record says."""
        self.history, self.epochs = history.thinned(), history.epochs
        self.stopped = history.stopped
        self.restored = history.restored or history.stopped == "patience"


ESTIMATOR_WORDS = {
    "learning_rate": "learning_rate_init",
    "epochs": "max_iter",
    "l2": "alpha",
    "patience": "early_stopping",
}


def admit(
    model: Any,
    X: Any,
    y: Any,
    sample_weight: ArrayLike | None = None,
    X_val: Any = None,
    y_val: Any = None,
) -> Case:
    """Draw the rows, and make the copy that is examined."""
    estimator = not hasattr(model, "plan")
    fitted = not estimator or hasattr(model, "network_") or hasattr(model, "estimators_")
    net = network_of(model) if fitted else None
    names = _column_names(model, net, X)
    X, y = _table(X), label_array("y", y)
    if X.ndim != 2 or X.shape[0] == 0 or len(y) != X.shape[0]:
        raise ValueError(
            f"X must be (rows, features) and y have as many rows; they are {X.shape} and {y.shape}"
        )
    rows = _sample(X)
    weights = check_weights(sample_weight, X.shape[0])
    scale = 1.0 if net is None else net.input_scale
    case = Case(
        estimator=estimator,
        fitted=net is not None and (estimator or bool(net.history.get("loss") or net.last_solver)),
        n_rows=X.shape[0],
        X=_dense(X, rows).astype(np.float64) * scale,
        names=names or [str(number) for number in range(X.shape[1])],
        raw_bytes=X.dtype == np.uint8 and scale == 1,
        missing=_missing(X, y, may_miss=_masks(net, y)),
        balanced=getattr(model, "class_weight", None) is not None,
        solver=str(getattr(model, "solver", "")),
        rate=float(getattr(model, "learning_rate_init", Recipe().learning_rate)),
        planned=int(getattr(model, "max_iter", USUAL_EPOCHS)),
        patience=float(getattr(model, "n_iter_no_change", math.inf)),
    )
    if case.missing:
        return case
    case.classes, case.counts = _count_classes(model, net, y, weights)
    if case.classes is None and y.dtype.kind in "iuf" and _unbounded(model, net):
        case.targets = y[rows].reshape(len(rows), -1).astype(np.float64)
    sample = _dense(X, rows), y[rows], None if weights is None else weights[rows]
    if case.fitted and net is not None:
        case.net = copy.deepcopy(net)
        case.read(net.history)
    else:
        model = _rehearse(case, model, *sample)
    case.rate = max(case.history.get("learning_rate", [case.rate]))
    if case.net is not None:
        case.data = _encoded(model, case.net, *sample)
        case.state = State.of(case.net, case.data)
        if X_val is not None:
            X_val, y_val = _table(X_val, "X_val"), label_array("y_val", y_val)
            rows = _sample(X_val)
            held_out = _dense(X_val, rows), y_val[rows], None
            case.validation = _encoded(model, case.net, *held_out)
    return case


def networks_of(model: Any) -> list[Network]:
    """Return a model's networks: itself, or those of a fitted estimator's members."""
    if hasattr(model, "plan"):
        return [model]
    members = getattr(model, "estimators_", [model])
    if not all(hasattr(member, "network_") for member in members):
        raise ValueError(f"this {type(model).__name__} is not fitted yet: call fit first")
    return [member.network_ for member in members]


def network_of(model: Any) -> Network:
    """Return the one network that a model has."""
    networks = networks_of(model)
    if len(networks) > 1:
        raise ValueError(
            "an ensemble has several networks: ask for one member's, as in model.estimators_[0]"
        )
    return networks[0]


def rows_of(
    model: Any, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None
) -> tuple[Network, Data]:
    """Return a copy of a model's network, and some of the rows as it takes them."""
    net = copy.deepcopy(network_of(model))
    X, y = _table(X), label_array("y", y)
    rows = _sample(X)
    weights = check_weights(sample_weight, X.shape[0])
    return net, _encoded(
        model, net, _dense(X, rows), y[rows], None if weights is None else weights[rows]
    )


def _table(X: Any, name: str = "X") -> Any:
    """Return an array, or a sparse matrix that rows can be taken from."""
    if hasattr(X, "tocsr"):
        X = X.tocsr()
        refuse_masked(name, X.data)
        return X
    array = array_of(name, X.to_numpy() if hasattr(X, "to_numpy") else X)
    if array.dtype == object:
        array = array.astype(np.float64)
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"{name} must hold numbers, but its dtype is {array.dtype}; encode it first"
        )
    return array


def _dense(X: Any, rows: NDArray[np.int64]) -> Array:
    part = X[rows]
    return np.asarray(part.toarray() if hasattr(part, "toarray") else part)


def _sample(X: Any) -> NDArray[np.int64]:
    """Draw rows evenly: the same ones at every call."""
    n = X.shape[0]
    most = rows_within(X.shape[1])
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).choice(n, most, replace=False))


def rows_within(width: int) -> int:
    return max(FEWEST_ROWS, min(SAMPLE_ROWS, SAMPLE_NUMBERS // max(width, 1)))


def _column_names(model: Any, net: Network | None, X: Any) -> list[str]:
    """Find what the columns are called; nothing where nobody said."""
    for names in (
        getattr(X, "columns", None),
        getattr(model, "feature_names_in_", None),
        None if net is None else net.feature_names,
    ):
        if names is not None and not callable(names) and len(names):
            return [str(name) for name in names]
    return []


def _missing(X: Any, y: Array, may_miss: bool) -> dict[str, int]:
    """Count NaN and infinities in each column of X and in y, a block at a time."""
    found: dict[str, int] = {}
    values = X.data if hasattr(X, "tocsr") else X
    if values.size and values.dtype.kind == "f" and not _finite(values):
        per_column = np.zeros(X.shape[1], np.int64)
        if values is X:
            for start in range(0, len(X), SAMPLE_ROWS):
                per_column += (~np.isfinite(X[start : start + SAMPLE_ROWS])).sum(axis=0)
        else:
            np.add.at(per_column, X.indices[~np.isfinite(values)], 1)
        found = {f"X{column}": int(per_column[column]) for column in np.flatnonzero(per_column)}
    if y.dtype.kind == "f" and not _finite(y):
        bad = int((np.isinf(y) if may_miss else ~np.isfinite(y)).sum())
        found |= {"y": bad} if bad else {}
    return found


def _masks(net: Network | None, y: Array) -> bool:
    """Whether a NaN in y is a target that nobody knows, as estimators take it among several."""
    return y.ndim == 2 and y.shape[1] > 1 if net is None else net.missing_targets


def _finite(values: Array) -> bool:
    """Whether there is no NaN or infinity, without a temporary."""
    with np.errstate(invalid="ignore"):
        return bool(np.isfinite(values.min()) and np.isfinite(values.max()))


def _count_classes(
    model: Any, net: Network | None, y: Array, weights: Array | None
) -> tuple[Array | None, Array | None]:
    """Weigh each class over all rows; nothing for numbers and for several labels per row."""
    if net is None:
        classifies = getattr(model, "_estimator_type", None) == "classifier"
    else:
        classifies = net.loss_row is not None and net.loss_row.classifies
    several = y.ndim == 2 and y.shape[1] > 1
    if not classifies or (several and (net is None or net.activations[-1] != "softmax")):
        return None, None
    if several:
        counts = y.sum(axis=0) if weights is None else weights @ y
        return np.arange(y.shape[1]), np.asarray(counts, np.float64)
    classes, place = np.unique(y.ravel(), return_inverse=True)
    return classes, np.bincount(place.ravel(), weights).astype(np.float64)


def _unbounded(model: Any, net: Network | None) -> bool:
    """Whether the outputs may be any number, as in a regression."""
    if net is not None:
        return net.activations[-1] == "identity"
    regressor = getattr(model, "_estimator_type", None) != "classifier"
    return regressor and getattr(model, "loss", "") != "poisson"


def _encoded(model: Any, net: Network, X: Array, y: Array, weights: Array | None) -> Data:
    """Turn labels into what the core takes, as the model did."""
    labels = getattr(model, "classes_", None)
    if labels is not None and y.ndim == 1:
        place = places(labels, y)
        if (place < 0).any():
            raise ValueError(f"y holds {y[place < 0][0]!r}, which is not in classes_: {labels}")
        net.classes, y = None, place
    if net.loss_row is None:
        weights = None
    return net.encode(X, y, weights)


def _rehearse(case: Case, model: Any, X: Array, y: Array, weights: Array | None) -> Any:
    """Train a copy for a short while; returns it."""
    size = getattr(model, "batch_size", 32)
    n_steps = -(-len(X) // (min(200, len(X)) if size == "auto" else min(size or len(X), len(X))))
    epochs = max(REHEARSAL_EPOCHS, -(-REHEARSAL_STEPS // n_steps))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            if case.estimator:
                trial = type(model)(**model.get_params(deep=False))
                quiet = {
                    "max_iter": min(epochs, case.planned),
                    "max_time": REHEARSAL_SECONDS,
                    "early_stopping": False,
                    "callbacks": (),
                    "verbose": 0,
                    "n_ensemble": 1,
                }
                trial.set_params(**{k: v for k, v in quiet.items() if k in trial.get_params()})
                trial.fit(X, y, sample_weight=weights)
                case.net = copy.deepcopy(trial.network_)
            else:
                trial = case.net = untrained(model)
                trial.fit(X, y, sample_weight=weights, epochs=epochs, max_time=REHEARSAL_SECONDS)
        except ArithmeticError:  # DivergenceError
            case.diverged, case.net = True, None
            return model
    case.read(case.net.history)
    return trial


def untrained(net: Any) -> Any:
    """Return a copy that begins to train in the same way whatever was done before.

    Neither the optimizer's state nor the random generator is in every file.
    """
    copied = net.astype(net.dtype)
    copied.rng = np.random.default_rng(0)
    return copied


@dataclass
class State:
    """What a network does on the rows."""

    finite: bool
    loss: float = math.nan
    score: float = math.nan
    constant: float | None = None
    """Loss of the best constant prediction; None for a custom loss."""

    @classmethod
    def of(cls, net: Network, data: Data) -> State:
        with np.errstate(all="ignore"):
            loss, score, out = evaluate(net, data, None)
        if not (np.isfinite(out).all() and math.isfinite(loss)):
            return cls(False)
        return cls(True, loss, score, constant_loss(net, data))

    @property
    def level(self) -> float | None:
        """Loss relative to that of a constant prediction."""
        return self.loss / self.constant if self.constant else None


def constant_loss(net: Network, data: Data) -> float | None:
    """Return the smallest loss of a prediction that is the same for all rows."""
    if net.loss_row is None:
        return None
    y = net.target_matrix(data.targets).astype(np.float64)
    weights = np.ones(len(y)) if data.weights is None else data.weights
    known = np.isfinite(y) * weights[:, None]
    mean = np.nan_to_num(y * known).sum(axis=0) / np.maximum(known.sum(axis=0), 1e-300)
    tiny = 1e-9
    outputs = {
        "logistic": [np.log(np.clip(mean, tiny, 1)) - np.log(np.clip(1 - mean, tiny, 1))],
        "softmax": [np.log(np.clip(mean, tiny, 1))],
        "exp": [np.log(np.maximum(mean, tiny))],
    }
    quantile = net.loss_parameter if net.loss_name == "quantile" else 0.5
    candidates = outputs.get(
        net.loss_row.out_activation, [mean, np.nanquantile(y, quantile, axis=0)]
    )
    parameter: dict[str, Any] = {}
    if net.loss_name in ("quantile", "huber"):
        name = "quantile" if net.loss_name == "quantile" else "huber_delta"
        parameter[name] = net.loss_parameter
    flat = type(net)(
        [1, net.sizes[-1]],
        loss=net.loss_name,
        weight_init="zeros",
        dtype="float64",
        missing_targets=net.missing_targets,
        **parameter,
    )
    losses = []
    for output in candidates:
        flat.biases[0] = output
        zeros = np.zeros((len(y), 1))
        losses.append(evaluate(flat, Data(zeros, data.targets, data.weights), None)[0])
    return min(losses)
