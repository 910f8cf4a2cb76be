"""Many networks trained in one call: grids, folds, random trials, ensembles."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmlp.core.errors import ConvergenceWarning, warn
from cmlp.core.errstate import undisturbed
from cmlp.core.vocabulary import unknown
from cmlp.data.checks import RowsLike
from cmlp.data.rows import Data, check_pair
from cmlp.model.history import History
from cmlp.model.precision import check_columns
from cmlp.model.state import State
from cmlp.training.divergence import DivergenceError
from cmlp.training.fit import NetworkRules, Options, rules_of, run
from cmlp.training.lanes import Job, Kind, kind_of, train_side_by_side
from cmlp.training.recipe import PARAMETERS, Recipe, chosen
from cmlp.training.trainer import check_batch_size

DEFAULTS: dict[str, Any] = {
    "epochs": 10, "batch_size": 32, "shuffle": True, "validation_fraction": 0.0, "patience": None,
    "schedule": None, "dropout_schedule": None, "weight_decay_schedule": None, "callbacks": (),
    "max_time": None, "n_threads": None, "verbose": 0,
}  # fmt: skip
"""Of the parameters of :meth:`cmlp.Network.fit` that are not of its steps."""


SEQUENCES = ("dropout", "rate_factors", "decay_factors", "callbacks")
"""Parameters that are sequences by themselves; networks differ in them by `settings` only."""


class NetworkJob(Job):
    """The fit of a network by the parameters of :meth:`cmlp.Network.fit`."""

    rules: NetworkRules

    def __init__(self, rules: NetworkRules, options: Options) -> None:
        super().__init__(rules)
        self.options = options

    @property
    def kind(self) -> Kind | None:
        """Which networks this one can be trained with side by side; None for none."""
        rules, options = self.rules, self.options
        if options.callbacks or options.max_time is not None or options.verbose:
            return None
        if options.epochs == 0 or rules.n_rates > 1:
            return None
        return kind_of(self.net, rules.recipe, rules.data, rules.batch_size)

    def end(self, stopped: str) -> None:
        best = self.rules.patience.params
        if best is not None and stopped not in ("error", "diverged"):
            self.net.params[:] = best
        super().end(stopped)

    def continue_alone(self) -> None:
        try:
            run(self.rules, self.options)
        except DivergenceError as error:
            self.error = error


@undisturbed
def fit_many(
    networks: Iterable[Any],
    X: RowsLike,
    y: ArrayLike,
    *,
    rows: Sequence[Any] | None = None,
    val_rows: Sequence[Any] | None = None,
    settings: Iterable[Mapping[str, Any]] | None = None,
    sample_weight: ArrayLike | None = None,
    X_val: RowsLike | None = None,
    y_val: ArrayLike | None = None,
    **parameters: Any,
) -> list[History]:
    """Train many networks on rows of the same data: a grid of settings, folds, random trials.

    Every network learns what ``network.fit(X[rows], y[rows], ...)`` would teach it, up to rounding:
    its own generator draws its orders and its held-out rows. Small networks of one architecture are
    trained side by side, one in each lane of a vector (8 with AVX2, 16 with AVX-512, 4 without),
    which takes 0.5 to 0.8 of the time; the others one after another. The result does not depend on
    which networks are trained together, only its last digits on whether they are.

    Parameters
    ----------
    networks : iterable of Network
        All different objects; they are trained in place.
    X, y : array-like
        The rows of all networks, as in :meth:`Network.fit`. Labels are those in the whole of y.
    rows : sequence, optional
        For each network its rows of X: numbers, a mask or a slice; None: all.
    val_rows : sequence, optional
        For each network the rows of X to validate on after every epoch.
    settings : iterable of dict, optional
        For each network parameters of its own, such as scikit-learn's ParameterGrid.
    sample_weight : array-like, (n,), optional
        How much each row counts; by default all alike.
    X_val, y_val : array-like, optional
        Rows to validate on, for all networks.
    **parameters
        Those of :meth:`Network.fit`, with the same defaults. Instead of a number, a list, a tuple
        or an array has one value for each network: ``learning_rate=[0.1, 0.01]``.

    Returns
    -------
    list of History
        One for each network. A network that has diverged keeps its last finite weights, and its
        record's `stopped` is 'diverged'; a warning names it when all others have ended.

    Raises
    ------
    ValueError, TypeError
        For data or parameters that do not fit; no network has been trained then.
    RuntimeError
        If another thread is training one of the networks.

    Notes
    -----
    Side by side are trained: float32 networks of up to 256 inputs and 16,384 parameters (half as
    many with AVX-512, twice as many without AVX2), of any hidden activation, with 'sgd' or 'adam'
    ('adamw'), squared error or a cross-entropy with its own output activation, L1, L2, weight
    decay, label smoothing, schedules, sample weights, validation and patience. They share
    architecture, solver, `nesterov`, label smoothing and input scale, and differ in everything
    else. The rest is trained one after another: what has dropout, noise, normalisation, clipping,
    callbacks, `max_time`, a precision or sparse rows, and where too few of the lanes would be in
    use: fewer than 5 to 8 of 8, by the size of networks and batches. Ctrl-C ends all of them with
    the weights of their last recorded epochs. Threads share blocks of four times as many networks
    as there are lanes: the result is the same for any number.

    Examples
    --------
    >>> import numpy as np, cmlp
    >>> X = np.linspace(-3, 3, 100)[:, None]
    >>> nets = [cmlp.Network([1, 8, 1], "tanh", seed=seed) for seed in range(8)]
    >>> rates = np.geomspace(0.1, 1e-4, 8)
    >>> histories = cmlp.fit_many(nets, X, np.sin(X), learning_rate=rates, epochs=20)
    >>> losses = [history["loss"][-1] for history in histories]
    >>> losses[0] < losses[-1]
    True
    """
    nets = _networks(networks)
    each = _each(len(nets), settings, parameters)
    check_pair(X_val, y_val)
    n_ways = (X_val is not None) + (val_rows is not None)
    recipes = [Recipe(**chosen(Recipe, own)) for own in each]
    options = [Options(**{**chosen(Options, own), "verbose": own["verbose"]}) for own in each]
    for net, recipe, option in zip(nets, recipes, options, strict=True):
        recipe.check(net.architecture)
        check_batch_size(net, option.batch_size)
        if n_ways + bool(option.validation_fraction) > 1:
            raise ValueError("give one of X_val with y_val, val_rows and validation_fraction")
    with contextlib.ExitStack() as stack:
        for net in nets:
            stack.enter_context(net.exclusive_training())
        before = [net.classes for net in nets]
        try:
            jobs = _jobs(nets, recipes, options, X, y, sample_weight, rows, val_rows, X_val, y_val)
        except (TypeError, ValueError, IndexError):
            for net, classes in zip(nets, before, strict=True):
                net.classes = classes  # a failed call keeps no labels
            raise
        return _train(jobs)


def _networks(networks: Iterable[Any]) -> list[State]:
    """Return the networks, each of them once."""
    nets = list(networks)
    seen: dict[int, int] = {}
    for number, net in enumerate(nets):
        if not isinstance(net, State):
            raise TypeError(f"networks[{number}] must be a cmlp.Network, not {net!r}")
        if id(net) in seen:
            raise ValueError(
                f"networks[{number}] is networks[{seen[id(net)]}]: train a copy "
                "(copy.deepcopy(net))"
            )
        seen[id(net)] = number
    return nets


def _each(
    n: int, settings: Iterable[Mapping[str, Any]] | None, parameters: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return the parameters of each network."""
    known = (*DEFAULTS, *PARAMETERS)
    defaults = DEFAULTS | {name: Recipe.__dataclass_fields__[name].default for name in PARAMETERS}
    own = [{} for _ in range(n)] if settings is None else [dict(each) for each in settings]
    if len(own) != n:
        raise ValueError(
            f"settings must have one entry for each of the {n} networks, not {len(own)}"
        )
    for name in dict.fromkeys((*parameters, *(name for each in own for name in each))):
        if name not in known:
            raise TypeError(str(unknown("parameter", name, known, known)))
    shared: dict[str, Any] = {}
    for name, value in parameters.items():
        if name in SEQUENCES or not isinstance(value, (list, tuple, np.ndarray)):
            shared[name] = value
            continue
        values = value.tolist() if isinstance(value, np.ndarray) else list(value)
        if len(values) != n:
            raise ValueError(
                f"{name} must have one value for each of the {n} networks, not {values!r}"
            )
        for each, one in zip(own, values, strict=True):
            each.setdefault(name, one)
    return [defaults | shared | each for each in own]


def _jobs(
    nets: list[State],
    recipes: list[Recipe],
    options: list[Options],
    X: RowsLike,
    y: ArrayLike,
    sample_weight: ArrayLike | None,
    rows: Sequence[Any] | None,
    val_rows: Sequence[Any] | None,
    X_val: RowsLike | None,
    y_val: ArrayLike | None,
) -> list[NetworkJob]:
    """Check the data for each network, and draw what is held out."""
    jobs, encoded = [], _Encoded(X, y, sample_weight)
    validating = None if X_val is None or y_val is None else _Encoded(X_val, y_val, None, "_val")
    for number, (net, recipe, option) in enumerate(zip(nets, recipes, options, strict=True)):
        data = encoded.of(net)
        check_columns(net, data.X)
        n = len(data.X)
        mine = _numbers("rows", rows, number, len(nets), n)
        held_out = _numbers("val_rows", val_rows, number, len(nets), n)
        validation = None if held_out is None else data
        if validating is not None:
            validation = validating.of(net)
        jobs.append(
            NetworkJob(rules_of(net, data, recipe, option, validation, mine, held_out), option)
        )
    return jobs


class _Encoded:
    """Rows as networks read them, once for all that read them alike."""

    def __init__(
        self, X: RowsLike, y: ArrayLike, sample_weight: ArrayLike | None, suffix: str = ""
    ) -> None:
        self.given, self.suffix = (X, y, sample_weight), suffix
        self.known: dict[Any, tuple[Data, Any]] = {}

    def of(self, net: State) -> Data:
        labels = None if net.classes is None else (net.classes.dtype, *net.classes.tolist())
        about = net.sizes[0], net.sizes[-1], net.dtype, net.loss_name, net.missing_targets
        key = (*about, labels, None if net.loss_row is not None else id(net))
        if key not in self.known:
            data = net.encode_rows(*self.given, suffix=self.suffix)
            self.known[key] = data, net.classes
        data, net.classes = self.known[key]
        return data


def _numbers(
    name: str, rows: Sequence[Any] | None, number: int, n_nets: int, n: int
) -> NDArray[np.int64] | None:
    """Return the numbers of a network's rows; None for no such rows."""
    if rows is None:
        return None
    if len(rows) != n_nets:
        raise ValueError(
            f"{name} must have an entry for each of the {n_nets} networks, not {len(rows)}"
        )
    if rows[number] is None:
        return np.arange(n, dtype=np.int64) if name == "rows" else None
    try:
        numbers: NDArray[np.int64] = np.arange(n, dtype=np.int64)[rows[number]]
    except IndexError as error:
        raise IndexError(
            f"{name}[{number}] must be numbers from 0 to {n - 1}, a mask of {n} rows or a slice: "
            f"{error}"
        ) from None
    if numbers.ndim != 1 or len(numbers) == 0:
        raise ValueError(f"{name}[{number}] must be one row number or more, not {rows[number]!r}")
    return numbers


def _train(jobs: list[NetworkJob]) -> list[History]:
    """Train all of them: kind by kind side by side, and the rest one after another."""
    kinds: dict[Kind, list[Job]] = {}
    alone: list[Job] = []
    for job in jobs:
        kind = job.kind
        if kind is None:
            alone.append(job)
        else:
            kinds.setdefault(kind, []).append(job)
    try:
        if kinds:
            alone += train_side_by_side(kinds, jobs[0].options.n_threads)
        for left in alone:
            left.continue_alone()
            if left.rules.state.history.stopped == "interrupted":
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        done = sum(bool(job.rules.state.history.get("loss")) for job in jobs)
        warn(f"training was interrupted: {done} of {len(jobs)} networks have learned")
    _report([job.error for job in jobs])
    return [job.rules.state.history for job in jobs]


def _report(errors: list[Any]) -> None:
    """Warn of networks that have diverged."""
    numbers = [number for number, error in enumerate(errors) if error is not None]
    if numbers:
        warn(
            f"{len(numbers)} of {len(errors)} networks diverged, {numbers}. The first: "
            f"{errors[numbers[0]]}",
            ConvergenceWarning,
        )
