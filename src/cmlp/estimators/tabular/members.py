"""The members of a tabular estimator: folds, networks side by side on threads, shares of time."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmlp.core import dispatch, formatting
from cmlp.core.errors import ConvergenceWarning, held_warnings, warn
from cmlp.core.errstate import undisturbed
from cmlp.core.layout import Array
from cmlp.data.checks import check_X
from cmlp.data.rows import Data, HeldOut
from cmlp.data.split import split
from cmlp.estimators.ensemble import repeat_warnings, report_divergence
from cmlp.estimators.parameters import is_count
from cmlp.estimators.pool import Pool
from cmlp.estimators.side_by_side import Trained
from cmlp.estimators.tabular.network import build_network
from cmlp.estimators.tabular.presets import Preset
from cmlp.estimators.tabular.tables import take_rows
from cmlp.estimators.tabular.targets import Rows, Scale
from cmlp.estimators.tabular.training import Job, name_of_score, train_member
from cmlp.estimators.targets import Targets
from cmlp.network import Network
from cmlp.training.divergence import DivergenceError
from cmlp.training.stopping import Deadline


@dataclass
class Member:
    """A trained network, what encodes its rows, and what its outputs mean.

    Attributes
    ----------
    encoder : int
        Which of the estimator's encoders.
    scale : Scale or None
        Of numbers.
    fold : int
        Which part of the rows it was trained on.
    """

    network: Network
    encoder: int
    scale: Scale | None
    fold: int = 0


class Part(NamedTuple):
    """Row numbers of a fold: to train on, and to validate on."""

    rows: NDArray[np.int64]
    held: NDArray[np.int64] | None


@dataclass
class Fold:
    """Encoded rows of one part, which all members of the fold use."""

    encoder: int
    data: Data
    rows: NDArray[np.int64]
    held_out: HeldOut | None
    scale: Scale | None


def parts_of(
    targets: Targets, preset: Preset, fraction: float, rng: np.random.Generator, *, validates: bool
) -> list[Part]:
    """Divide the rows: into folds, or once into rows to train on and rows to validate on.

    Classes keep their proportions.

    Parameters
    ----------
    fraction : float
        Part of the rows to validate on, without folds.
    validates : bool
        Whether rows are held out; without it every row is used, or every row of the other folds.
    """
    encoded, n = targets.encoded, len(targets.encoded)
    if is_count(preset.cv):
        return _folds(encoded, preset.cv, rng, validates)[: preset.folds_used]
    if preset.cv is not None:
        return _given_folds(preset.cv, n, validates)
    if not validates or not 0 < round(n * fraction) < n:  # of one row, or of none left
        return [Part(np.arange(n), None)]
    rows, held = split(encoded, fraction, rng)
    return [Part(rows, held)]


def _folds(encoded: Array, k: int, rng: np.random.Generator, validates: bool) -> list[Part]:
    n = len(encoded)
    if not 2 <= k <= n:
        raise ValueError(f"cv={k} needs at least as many rows, and 2 folds; there are {n} rows")
    order = rng.permutation(n)
    if encoded.ndim == 1:  # the classes in turn: each fold gets its share of every one
        order = order[np.argsort(encoded[order], kind="stable")]
    number = np.empty(n, np.int64)
    number[order] = np.arange(n) % k
    return [
        Part(np.flatnonzero(number != fold), np.flatnonzero(number == fold) if validates else None)
        for fold in range(k)
    ]


def _given_folds(cv: Any, n: int, validates: bool) -> list[Part]:
    """Return folds that were passed as pairs of row numbers, to train on and to validate on."""
    parts = []
    for number, pair in enumerate(cv):
        rows, held = (np.asarray(part, np.int64) for part in pair)
        for part in (rows, held):
            if part.ndim != 1 or not len(part) or part.min() < 0 or part.max() >= n:
                raise ValueError(
                    f"fold {number} of cv must be two lists of row numbers, each between 0 and "
                    f"{n - 1}, to train on and to validate on"
                )
        parts.append(Part(rows, held if validates else None))
    if not parts:
        raise ValueError("cv holds no folds; give pairs of row numbers, or a number of folds")
    return parts


# Encoding ----------------------------------------------------------------------------------------


class Encoded:
    """Encodes the parts of the rows.

    Folds share one encoder of all rows: medians, quantiles and levels tell nothing about the
    targets of the rows that are held out, and one encoder predicts faster than one per fold.
    Without folds it is of the rows to train on.

    Attributes
    ----------
    encoders : list of TableEncoder
    """

    def __init__(self, make: Callable[[], Any], rows: Rows, targets: Targets, dtype: Any) -> None:
        self.make, self.rows, self.targets = make, rows, targets
        self.dtype = np.dtype(dtype)
        self.encoders: list[Any] = []
        self._shared: Any = None

    def folds(self, parts: Sequence[Part], standardises: bool, clamps: bool) -> list[Fold]:
        """Return every part, encoded."""
        return [self._fold(part, len(parts), standardises, clamps) for part in parts]

    def _fold(self, part: Part, n_parts: int, standardises: bool, clamps: bool) -> Fold:
        targets, scale = self.targets, None
        encoded = targets.encoded
        if targets.outputs.labels is None:
            weights = None if targets.weights is None else targets.weights[part.rows]
            scale = Scale.of(encoded[part.rows], weights, standardises=standardises, clamps=clamps)
            encoded = scale.to_network(encoded)
        if n_parts > 1:
            E = self._encode_all()
            data = Data(E, encoded, targets.weights)
            held = None if part.held is None else HeldOut(data, part.held, E, targets.y)
            return Fold(0, data, part.rows, held, scale)
        return self._encode_part(part, encoded, scale)

    def _encode_all(self) -> Any:
        """Return all rows by one encoder."""
        if self._shared is None:
            encoder = self.make()
            self._shared = self.checked(encoder, encoder.fit_transform(self.rows.X))
            self.encoders = [encoder]
        return self._shared

    def _encode_part(self, part: Part, encoded: Array, scale: Scale | None) -> Fold:
        encoder, y, weights = self.make(), self.targets.y, self.targets.weights
        whole = part.held is None and len(part.rows) == len(y)
        X = self.rows.X if whole else take_rows(self.rows.X, part.rows)

        def some(values: Array) -> Array:
            return values if whole else np.asarray(values[part.rows])

        its_weights = None if weights is None else some(weights)
        E = self.checked(encoder, encoder.fit_transform(X))
        data = Data(E, some(encoded), its_weights)
        held_out = None
        if part.held is not None:
            E_held = self.checked(encoder, encoder.transform(take_rows(self.rows.X, part.held)))
            held_weights = None if weights is None else weights[part.held]
            held_out = HeldOut(
                Data(E_held, encoded[part.held], held_weights), None, E_held, y[part.held]
            )
        self.encoders.append(encoder)
        rows = np.arange(len(part.rows), dtype=np.int64)
        return Fold(len(self.encoders) - 1, data, rows, held_out, scale)

    def checked(self, encoder: Any, E: Any) -> Any:
        """Return encoded rows as the core takes them; refuse what is not finite."""
        return check_X(E, len(encoder.outputs_), self.dtype)

    def held_out(self, fold: Fold, rows: Rows, targets: Targets) -> HeldOut:
        """Encode rows to validate on that were passed in addition to those to train on."""
        encoder = self.encoders[fold.encoder]
        E = self.checked(encoder, encoder.transform(rows.X))
        encoded = targets.encoded if fold.scale is None else fold.scale.to_network(targets.encoded)
        return HeldOut(Data(E, encoded, targets.weights), None, E, targets.y)


# Training ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What the members have in common.

    Attributes
    ----------
    began : float
        When the fit began, of the clock that `max_time` counts by.
    n_members : int
        Of all folds together.
    """

    estimator: Any
    preset: Preset
    targets: Targets
    scoring: Any
    began: float
    n_threads: int | None
    n_members: int


def train_members(
    plan: Plan, encoders: list[Any], folds: list[Fold], seeds: Sequence[int]
) -> list[Member]:
    """Train `n_ensemble` members per fold, as many at once as there are threads.

    Ctrl-C ends all of them; those that have begun are kept. Those that diverge are left out.

    Raises
    ------
    DivergenceError
        If all of them diverge.
    """
    n = plan.n_members
    members = [
        dataclasses.replace(
            _untrained(plan, encoders, folds, number, int(seeds[number])),
            fold=number % len(folds),
        )
        for number in range(n)
    ]
    if n == 1:
        train_member(_job(plan, folds, members[0].network, 0, 1, lambda: False))
        return members
    pool = Pool(min(n, dispatch.threads_for(plan.n_threads)))
    trained = pool.run(
        functools.partial(_train, plan, folds, members[number], number, pool) for number in range(n)
    )
    ended = [each or Trained([]) for each in trained]
    repeat_warnings([each.warnings for each in ended if not each.divergence], n)
    diverged = [each.divergence for each in ended]
    kept = [
        member
        for member, error in zip(members, diverged, strict=True)
        if error is None and member.network.history.epochs
    ]
    if not kept:
        report_divergence(diverged, n, "networks_")
        if pool.interrupted:
            raise KeyboardInterrupt
    if any(diverged):
        warn(
            f"{sum(map(bool, diverged))} of {n} members diverged and are left out: "
            f"{next(filter(None, diverged))}",
            ConvergenceWarning,
        )
    if pool.interrupted:
        warn(f"Training interrupted by user. {len(kept)} of {n} members are kept.")
    return kept or members


def _preset(plan: Plan, n_folds: int, number: int) -> Preset:
    """Return a member's preset: those of a fold differ, and so do those of neighbouring folds."""
    if plan.n_members == 1:
        return plan.preset
    return plan.preset.of_member(number % n_folds + number // n_folds)


def _untrained(
    plan: Plan, encoders: list[Any], folds: list[Fold], number: int, seed: int
) -> Member:
    fold, preset = folds[number % len(folds)], _preset(plan, len(folds), number)
    net = build_network(
        encoders[fold.encoder].outputs_, preset, plan.targets.outputs, seed,
        dtype=plan.estimator.dtype, precision=plan.estimator.precision,
        **plan.estimator._loss_options(),
    )  # fmt: skip
    return Member(net, fold.encoder, fold.scale)


def _job(
    plan: Plan,
    folds: list[Fold],
    net: Network,
    number: int,
    n_workers: int,
    halted: Callable[[], bool],
) -> Job:
    """Describe a training, with its share of the time: rounds of `n_workers` share what is left."""
    est, seconds = plan.estimator, None
    n, fold = plan.n_members, folds[number % len(folds)]
    if est.max_time is not None:
        rounds = -(-n // n_workers)
        left = plan.began + est.max_time - time.perf_counter()
        seconds = max(0.0, left / max(1, rounds - number // n_workers))
    return Job(
        net=net,
        data=fold.data,
        rows=fold.rows,
        held_out=fold.held_out,
        preset=_preset(plan, len(folds), number),
        scoring=(
            functools.partial(plan.scoring, scale=fold.scale)
            if callable(plan.scoring)
            else plan.scoring
        ),
        name=name_of_score(est.scoring, net, fold.data.targets),
        deadline=Deadline(seconds, halted),
        callbacks=est.callbacks,
        n_threads=plan.n_threads if n == 1 else 1,
        verbose=int(est.verbose) if n == 1 else 0,
    )


@undisturbed
def _train(plan: Plan, folds: list[Fold], member: Member, number: int, pool: Pool) -> Trained:
    """Train a member, in a thread of its own."""
    job = _job(plan, folds, member.network, number, pool.n_workers, pool.stopped)
    with held_warnings() as held:
        try:
            history = train_member(job)
        except DivergenceError as error:
            return Trained(held, error)
    if plan.estimator.verbose:
        best = history.best_epoch or history.epochs
        scores = history.get("val_score", [])
        score = f", val_{job.name} {formatting.score(scores[best - 1])}" if scores else ""
        print(f"networks_[{number}]: {history.epochs} epochs, the best {best}{score}", flush=True)
    return Trained(held)


def with_held_out(folds: list[Fold], encoded: Encoded, rows: Rows, targets: Targets) -> list[Fold]:
    """Return folds that validate on these rows."""
    return [
        dataclasses.replace(fold, held_out=encoded.held_out(fold, rows, targets)) for fold in folds
    ]
