"""The fit of a tabular estimator to a source: one reading to learn the columns, then training."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from cmlp.core.checks import check_dtype, check_number
from cmlp.core.errors import InvalidParameterError
from cmlp.core.layout import Array
from cmlp.data.labels import places
from cmlp.data.rows import HeldOut
from cmlp.data.source import Source, number_of_rows
from cmlp.estimators.labels import Labels, class_weights, read_labels
from cmlp.estimators.parameters import parameters_at_fault, random_state
from cmlp.estimators.sources import restored_random_state
from cmlp.estimators.storage import Storage
from cmlp.estimators.tabular.members import Member
from cmlp.estimators.tabular.network import build_network
from cmlp.estimators.tabular.parameters import is_auto, resolved, threads_of
from cmlp.estimators.tabular.presets import Preset
from cmlp.estimators.tabular.tables import missing_in
from cmlp.estimators.tabular.targets import Rows, Scale
from cmlp.estimators.tabular.training import Job, name_of_score, train_member
from cmlp.estimators.targets import Targets
from cmlp.formats.checkpoint import Checkpoint, read_checkpoint
from cmlp.network import Network
from cmlp.sources.columns import NO_TARGET
from cmlp.sources.encode import RowEncoder
from cmlp.sources.plan import HeldRows, bytes_of
from cmlp.sources.skipping import Skipping, has_one_target
from cmlp.sources.survey import Learned, Seen, Survey
from cmlp.sources.tables import EncodedSource, whole_table
from cmlp.sources.training import windowed
from cmlp.training.stopping import Deadline

CELL = 24
"""Bytes of a cell in memory, about: as it was read, and encoded."""

MOST_SAMPLED = 500_000
"""Rows of the sample that columns are learned from, at most."""


def fit_source(
    estimator: Any, source: Source, how: Storage, validation: tuple[Any, Any, Any]
) -> Any:
    """Fit to a source; see :meth:`cmlp.TabularClassifier.fit`."""
    memory = bytes_of(how.memory)
    estimator._check_parameters()
    who = type(estimator).__name__
    source = without_gaps(estimator, source)
    if how.is_plain and number_of_rows(source) * source.n_features * CELL <= memory:
        X, y, weights = whole_table(source, who)
        return estimator._fit(X, y, weights, validation)
    if validation[0] is not None:
        raise ValueError(
            "rows to validate on are held out of a source by validation_fraction; leave X_val out"
        )
    return StreamedFit(estimator, source, how, memory).run()


def without_gaps(estimator: Any, source: Source) -> Source:
    """Return the rows with a target, where an estimator leaves out the others."""
    if estimator.missing_targets and source.blocks is not None and has_one_target(source):
        return Skipping(source, "targets")
    return source


class StreamedFit:
    """One fit to a source whose rows are encoded as they are read.

    The members are trained one after the other; without `n_ensemble` there is one. All validate on
    the same rows, a part of `validation_fraction` that is chosen by a hash.
    """

    def __init__(self, estimator: Any, source: Source, how: Storage, memory: int) -> None:
        self.estimator, self.source, self.how, self.memory = estimator, source, how, memory
        self.began = time.perf_counter()
        if not (is_auto(estimator.cv) or estimator.cv is None):
            raise InvalidParameterError(
                "cv needs all rows in memory; a source is validated by validation_fraction"
            )
        if callable(estimator.scoring) or estimator.scoring not in (
            "loss", estimator._own_score(),
        ):  # fmt: skip
            raise InvalidParameterError(
                f"scoring must be 'loss' or {estimator._own_score()!r} where rows are read in "
                "windows"
            )
        self.stored, self.held = None, HeldRows(0, 0.0)
        if how.checkpoint is not None and how.resume:
            self.stored = read_checkpoint(how.checkpoint)

    def run(self) -> Any:
        """Train, and write what was learned into the estimator."""
        est = self.estimator
        random = random_state(est.random_state)
        if self.stored is not None:
            random.set_state(restored_random_state(self.stored.record["rules"].get("random")))
        self.start = random.get_state(legacy=False)
        rng = np.random.default_rng(random.randint(2**31 - 1))
        seeds = [int(seed) for seed in rng.integers(2**62, size=2)]
        fraction = est.validation_fraction if est.early_stopping else 0.0
        learned = self._learned(HeldRows(seeds[0], fraction), seeds[1])
        targets = self._targets(learned)
        n_columns = self.source.n_features
        preset = resolved(est, est._facts(targets, learned.n_rows, n_columns), folds=False)
        if is_auto(est.n_ensemble):
            preset = replace(preset, n_ensemble=1)
        if self.how.checkpoint is not None and preset.n_ensemble > 1:
            raise InvalidParameterError("checkpoints need n_ensemble=1")
        encoder = est._make_encoder(preset).fit(learned.sample)
        scale = self._scale(targets, learned, preset)
        rows = EncodedSource(self.source, encoder, check_dtype(est.dtype))
        row_encoder = self._row_encoder(rows, targets, scale, learned)
        members: list[Member] = []
        for number, seed in enumerate(random.randint(2**31 - 1, size=preset.n_ensemble)):
            given = rows, row_encoder, targets, preset, scale, seeds[0], int(seed), number
            members.append(self._member(*given))
            if members[-1].network.history.stopped == "interrupted":
                break
        est._restore(members, [encoder], targets.outputs.labels, dict(vars(preset)))
        est._held_rows, est._held_of_source = [], self.held
        return est

    def _learned(self, held: HeldRows, seed: int) -> Learned:
        most = self.memory // 4 // (CELL * max(1, self.source.n_features))
        most = int(min(max(most, 1000), MOST_SAMPLED))
        survey = Survey(self.source, type(self.estimator).__name__, held, most, 10, seed)
        return survey.learned(self._parts(survey))

    def _parts(self, survey: Survey) -> Iterable[Seen]:
        """Return what the parts of the source hold."""
        return (survey.of(self.source, blocks) for blocks in survey.groups())

    def _targets(self, learned: Learned) -> Targets:
        """Return what the outputs stand for."""
        est, y = self.estimator, learned.labels
        if est._estimator_type == "classifier":
            if y is None:
                raise ValueError(
                    "a classifier needs one label per row, of at most 100,000 different ones, all "
                    "numbers or all text, without gaps: X.dropna(subset=[y])"
                )
            y = y[~missing_in(y)]  # a row without one is refused where it is encoded
        else:
            y = self.source.first(targets_only=True).y
            known = np.isfinite(y.reshape(len(y), -1)).all(axis=1) if y.dtype.kind == "f" else None
            y = y if known is None else y[known]
        found: Targets = est._read_targets(Rows(y, y, None))
        return found

    def _scale(self, targets: Targets, learned: Learned, preset: Preset) -> Scale | None:
        """Return the scale of numbers, of all rows to train on."""
        if targets.outputs.labels is not None:
            return None
        found = learned.moments.statistics()
        n = len(found.mean)
        centre, spread = np.zeros(n), np.ones(n)
        if self.estimator._standardises():
            centre = found.mean
            spread = np.where(found.deviation > 0, found.deviation, 1.0)
        unlimited = np.full(n, np.inf)
        if not preset.clamps:
            return Scale(centre, spread, -unlimited, unlimited)
        return Scale(centre, spread, found.low, found.high)

    def _row_encoder(
        self, rows: EncodedSource, targets: Targets, scale: Scale | None, learned: Learned
    ) -> RowEncoder:
        est, labels = self.estimator, targets.outputs.labels
        if labels is None:
            assert scale is not None

            def numbers(y: Array) -> Array:
                _check_known(y)
                encoded = est._read_targets(Rows(y, y, None), targets).encoded
                return scale.to_network(encoded)

            return RowEncoder(rows, rows.dtype, numbers)
        of_classes: Labels = labels

        def classes(y: Array) -> Array:
            _check_known(y)
            place = of_classes.encode(read_labels(y))
            return place[:, 0] if place.ndim == 2 and not of_classes.multilabel else place

        weights = None
        if est.class_weight is not None:
            factors = self._class_factors(labels, learned)

            def weights(y: Array) -> Array:
                return np.asarray(factors[places(of_classes.classes, y)])

        return RowEncoder(rows, rows.dtype, classes, weights)

    def _class_factors(self, labels: Labels, learned: Learned) -> Array:
        """Return the weight of each class, of which 'balanced' counts all rows."""
        by_class = self.estimator.class_weight
        with parameters_at_fault():
            found = class_weights(by_class, labels.classes, labels)
        if isinstance(by_class, str) and learned.counts is not None:
            return np.asarray(learned.n_rows / (len(learned.counts) * learned.counts))
        return np.ones(len(labels.classes)) if found is None else found

    def _member(
        self,
        rows: EncodedSource,
        row_encoder: RowEncoder,
        targets: Targets,
        preset: Preset,
        scale: Scale | None,
        held_seed: int,
        seed: int,
        number: int,
    ) -> Member:
        """Train a member."""
        est = self.estimator
        net = build_network(
            rows.encoder.outputs_, preset, targets.outputs, seed, dtype=est.dtype,
            **est._loss_options(),
        )  # fmt: skip
        seconds = None
        if est.max_time is not None:
            left = self.began + est.max_time - time.perf_counter()
            seconds = max(0.0, left / max(1, preset.n_ensemble - number))
        its_own = preset if preset.n_ensemble == 1 else preset.of_member(number)
        self._train(net, rows, row_encoder, its_own, held_seed, seconds)
        return Member(net, 0, scale)

    def _train(
        self,
        net: Network,
        rows: EncodedSource,
        row_encoder: RowEncoder,
        preset: Preset,
        held_seed: int,
        seconds: float | None,
    ) -> None:
        """Train a network, and leave the weights of its best epoch in it."""
        est = self.estimator
        keeper, ended = self._keeper(net, preset)
        feed, held_out = self._rows(rows, row_encoder, preset, net, held_seed, keeper)
        job = Job(
            net=net,
            data=feed,
            rows=np.empty(0, np.int64),
            held_out=held_out,
            preset=preset,
            scoring=est.scoring,
            name=name_of_score(est.scoring, net, feed.latest.targets),
            deadline=Deadline(seconds),
            callbacks=est.callbacks,
            n_threads=threads_of(est),
            verbose=int(est.verbose),
            checkpoint=keeper,
            start=self.start,
            ended=keeper.finished if keeper is not None and ended else "",
        )
        try:
            train_member(job)
        finally:
            feed.close()

    def _keeper(self, net: Any, preset: Preset) -> tuple[Checkpoint | None, bool]:
        """Return what writes checkpoints, and whether there is nothing left to train."""
        est, how = self.estimator, self.how
        if how.checkpoint is None:
            return None, False
        every = check_number("checkpoint_every", how.checkpoint_every, 0)
        same = {
            "fingerprint": self.source.fingerprint(),
            "batch_size": preset.batch_size,
            "solver": preset.solver,
            "scoring": est.scoring,
            "validation": est.validation_fraction if est.early_stopping else 0.0,
        }
        keeper = Checkpoint(net, how.checkpoint, every, same)
        return keeper, how.resume and keeper.resume(preset.max_iter)

    def _rows(
        self,
        rows: EncodedSource,
        row_encoder: RowEncoder,
        preset: Preset,
        net: Any,
        held_seed: int,
        keeper: Checkpoint | None,
    ) -> tuple[Any, HeldOut | None]:
        """Return the windows to train on, and the rows that are held out."""
        est = self.estimator
        given = None
        if keeper is not None and keeper.restored:
            given = keeper.windows
        made = windowed(
            rows, row_encoder, net.rng, memory=self.memory,
            batch_size=preset.batch_size, shuffle=True,
            validation_fraction=est.validation_fraction if est.early_stopping else 0.0,
            n_epochs=preset.max_iter, given=given, held_seed=held_seed,
        )  # fmt: skip
        if keeper is not None:
            keeper.windows = made.feed.layout.kept()
        self.held = made.feed.layout.held
        if made.held_out is None:
            return made.feed, None
        data = made.held_out
        return made.feed, HeldOut(data, None, data.X, data.targets)


def _check_known(y: Array) -> None:
    if missing_in(y).any():
        raise ValueError(f"the target is missing; {NO_TARGET}")
