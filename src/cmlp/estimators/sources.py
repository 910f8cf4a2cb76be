"""The fit of an estimator to a source: in memory if the rows fit, else in windows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from cmlp.core.checks import check_dtype, check_number
from cmlp.core.errors import InvalidParameterError
from cmlp.core.layout import Array
from cmlp.data.rows import Data, HeldOut
from cmlp.data.source import Source, number_of_rows
from cmlp.estimators import ensemble
from cmlp.estimators.inputs import Columns
from cmlp.estimators.labels import class_weights
from cmlp.estimators.parameters import STOCHASTIC, parameters_at_fault, random_state
from cmlp.estimators.storage import Storage
from cmlp.estimators.targets import Targets, Task
from cmlp.estimators.train import train
from cmlp.formats.checkpoint import Checkpoint, read_checkpoint
from cmlp.sources.encode import RowEncoder
from cmlp.sources.fitting import blocks_of
from cmlp.sources.plan import bytes_of, in_words
from cmlp.sources.training import Windowed, in_memory, windowed
from cmlp.sources.windows import WindowFeed


class FitOfSource:
    """What fits of estimators to a source have in common: windows and checkpoints.

    Parameters
    ----------
    source : Source
    how : Storage

    Attributes
    ----------
    fraction : float
        Of the rows, to validate on.
    keeper : Checkpoint or None
        What writes checkpoints, once a training has begun.
    stored : Stored or None
        The checkpoint that is continued.
    """

    def __init__(self, estimator: Any, source: Source, how: Storage) -> None:
        self.estimator, self.source, self.how = estimator, source, how
        self.memory = bytes_of(how.memory)
        self.fraction = estimator.validation_fraction if estimator.early_stopping else 0.0
        self.keeper: Checkpoint | None = None
        self.stored = None
        if how.checkpoint is not None and how.resume:
            self.stored = read_checkpoint(how.checkpoint)

    @property
    def given(self) -> Any:
        """The windows of the checkpoint, empty if all rows were in memory; None without one."""
        return None if self.stored is None else self.stored.record["windows"]

    def random(self, estimator: Any) -> np.random.RandomState:
        """Return a training's generator; of one that is resumed the one that it began with."""
        random: np.random.RandomState = random_state(estimator.random_state)
        if self.stored is not None:
            random.set_state(restored_random_state(self.stored.record["rules"].get("random")))
        return random

    def resumes(self, net: Any, epochs: int, **same: Any) -> bool:
        """Restore the network of a resumed training; return whether nothing is left to train.

        `same` is what has to be as it was, in addition to the rows.
        """
        how = self.how
        if how.checkpoint is None:
            return False
        every = check_number("checkpoint_every", how.checkpoint_every, 0)
        same |= {"fingerprint": self.source.fingerprint(), "validation": self.fraction}
        self.keeper = Checkpoint(net, how.checkpoint, every, same)
        return how.resume and self.keeper.resume(epochs)

    def windowed(self, source: Source, encoder: RowEncoder, rng: Any, **how: Any) -> Windowed:
        """Return the windows of a source."""
        made = windowed(
            source, encoder, rng, memory=self.memory, validation_fraction=self.fraction,
            given=self.given, **how,
        )  # fmt: skip
        if self.keeper is not None:
            self.keeper.windows = made.feed.layout.kept()
        return made


class SourceFit(FitOfSource):
    """One fit of MLPClassifier or MLPRegressor to a source."""

    def __init__(self, estimator: Any, source: Source, how: Storage) -> None:
        super().__init__(estimator, source, how)
        if not how.is_plain and (estimator.n_ensemble > 1 or estimator.solver not in STOCHASTIC):
            raise ValueError("checkpoints need n_ensemble=1 and a solver that takes steps")

    @property
    def names(self) -> Array | None:
        """The names of the columns."""
        names = self.source.feature_names
        return np.array(names, dtype=object) if names else None

    def rows(self) -> Any:
        """Return all rows, if they fit; None where they are to be read in windows."""
        found = None
        if not self.given:
            found = in_memory(self.source, self.memory, check_dtype(self.estimator.dtype))
        if found is None and self.estimator.solver not in STOCHASTIC:
            raise ValueError(
                "solver='lbfgs' needs all rows in memory, and they do not fit into memory="
                f"{in_words(self.memory)!r}; give more, or choose another one"
            )
        return found

    def train(self, task: Task) -> None:
        """Train without the rows in memory: the members of an ensemble one after the other."""
        est = self.estimator
        if est.n_ensemble == 1:
            self.train_one(est, task)
            return
        if task.once or est.warm_start:
            raise InvalidParameterError(
                f"n_ensemble={est.n_ensemble} is not for partial_fit, nor with warm_start, where "
                "rows are not in memory"
            )
        members = ensemble.members_of(est, [], 1)
        for member in members:
            member.set_params(n_threads=est.n_threads, verbose=est.verbose)
            self.train_one(member, replace(task, first=True))
            if member.history_.stopped == "interrupted":
                break
        vars(est).pop("_random_state", None)
        ensemble.keep_members(est, members, task)

    def train_one(self, est: Any, task: Task) -> None:
        """Train a network in windows."""
        train(est, task, self)

    def targets(self, named: Any, once: bool) -> Targets:
        """Return what the outputs stand for, and a few encoded targets."""
        y = self.source.first(targets_only=True).y
        if self.estimator._estimator_type == "classifier" and (y.ndim == 1 or y.shape[1] == 1):
            labels = self.source.summary(features=False).labels
            if labels is None:
                raise ValueError(
                    "y holds too many different labels to be those of a classifier, or labels that "
                    "have no order: of different types, or with gaps"
                )
            y = labels[labels == labels]  # a row with NaN is refused where it is read
        found: Targets = self.estimator._encode(
            _column(y), None, len(y), **({"once": once, "named": named} if named or once else {})
        )
        return found

    def task(self, targets: Targets, init: Any, first: bool, once: bool) -> Task:
        """Return the problem, whose rows are read in windows."""
        encoder = self.encoder(targets)
        data = Data(*encoder(self.source.first(), lambda row: self.source.place(0, row)))
        columns = Columns(self.source.n_features, self.names)
        return Task(data, targets, columns, None, init, first, once, windows=self._windows)

    def locate(self, named: Any, once: bool) -> None:
        """Raise the error about a value of the rows again, with its file and line, if it is one."""
        if self.source.resident() is None:
            for _ in blocks_of(self.source, self.encoder(self.targets(named, once))):
                pass

    def encoder(self, targets: Targets) -> RowEncoder:
        """Return what encodes rows, and weights them by their classes."""
        est, outputs = self.estimator, targets.outputs

        def encoded(y: Array) -> Array:
            found: Array = est._encode(_column(y), None, len(y), targets).encoded
            return found

        weights = None
        labels, by_class = outputs.labels, getattr(est, "class_weight", None)
        if labels is not None and by_class is not None:
            with parameters_at_fault():
                summary = self.source.summary(features=False)
                factors: Any = class_weights(by_class, labels.classes, labels, summary)

            def weights(y: Array) -> Array:
                place = labels.encode(_column(y))
                found: Array = factors[place[:, 0] if place.ndim == 2 else place]
                return found

        return RowEncoder(self.source, check_dtype(est.dtype), encoded, weights)

    def _windows(
        self, task: Task, random: np.random.RandomState
    ) -> tuple[WindowFeed, HeldOut | None]:
        """Return the windows of the rows, and those that are held out."""
        est, n = self.estimator, number_of_rows(self.source)
        size = min(200, n) if isinstance(est.batch_size, str) else min(int(est.batch_size), n)
        made = self.windowed(
            self.source, self.encoder(task.targets),
            np.random.default_rng(int(random.randint(2**31 - 1))), batch_size=size,
            shuffle=est.shuffle, n_epochs=1 if task.once else est.max_iter,
        )  # fmt: skip
        return made.feed, _held_out_of(task, made)

    def begin(self, net: Any) -> bool:
        """Restore the network of a resumed training; return whether nothing is left to train."""
        est = self.estimator
        return self.resumes(
            net, est.max_iter, batch_size=est.batch_size, shuffle=bool(est.shuffle),
            solver=est.solver, ema=est.ema > 0,
        )  # fmt: skip


def restored_random_state(record: Any) -> dict[str, Any]:
    """Return a checked state of RandomState."""
    from cmlp.formats.training_records import check_generator

    if type(record) is not dict:
        raise ValueError("the checkpoint is not one of an estimator")
    check_generator({"bit_generator": "MT19937", "state": record.get("state")})
    gauss = record.get("gauss", 0.0)
    has = record.get("has_gauss", 0)
    if type(gauss) is not float or has not in (0, 1):
        raise ValueError("the checkpoint's random generator is damaged")
    key = np.array(record["state"]["key"], np.uint32)
    state = {"key": key, "pos": record["state"]["pos"]}
    return {"bit_generator": "MT19937", "state": state, "has_gauss": has, "gauss": gauss}


def _column(y: Array) -> Array:
    """Return targets of one column as a vector."""
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def _held_out_of(task: Task, made: Windowed) -> HeldOut | None:
    """Return rows that are held out, with labels as a scorer takes them."""
    if made.held_out is None:
        return None
    data, labels = made.held_out, task.targets.outputs.labels
    y = data.targets
    if labels is not None and not labels.multilabel:
        place = y[:, 0] if y.ndim == 2 else y
        y = labels.classes[place.astype(np.int64)]
    elif labels is None and task.targets.y.ndim == 1:
        y = y[:, 0]
    return HeldOut(data, None, data.X, y)
