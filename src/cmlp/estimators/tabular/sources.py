"""The fit of a tabular estimator to a source: one reading to learn the columns, then training."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from cmlp.core.checks import check_dtype
from cmlp.core.errors import InvalidParameterError
from cmlp.core.layout import Array
from cmlp.data.cells import DataError
from cmlp.data.labels import places
from cmlp.data.rows import HeldOut
from cmlp.data.source import Source, number_of_rows
from cmlp.estimators.labels import Labels, class_weights, read_labels
from cmlp.estimators.parameters import parameters_at_fault
from cmlp.estimators.sources import FitOfSource
from cmlp.estimators.storage import Storage
from cmlp.estimators.tabular.members import Member
from cmlp.estimators.tabular.network import build_network
from cmlp.estimators.tabular.parameters import is_auto, resolved, threads_of
from cmlp.estimators.tabular.presets import Preset
from cmlp.estimators.tabular.tables import missing_in
from cmlp.estimators.tabular.targets import Rows, Scale
from cmlp.estimators.tabular.training import Job, train_member
from cmlp.estimators.targets import Targets
from cmlp.network import Network
from cmlp.sources.columns import NO_TARGET
from cmlp.sources.encode import RowEncoder
from cmlp.sources.plan import HeldRows
from cmlp.sources.skipping import Skipping, has_one_target
from cmlp.sources.survey import Learned, Seen, Survey, groups_of
from cmlp.sources.tables import EncodedSource, dated, whole_table
from cmlp.training.stopping import Deadline

CELL = 24
"""Bytes of a cell in memory, about: as it was read, and encoded."""

MOST_SAMPLED = 500_000
"""Rows of the sample that columns are learned from, at most."""


def refuse_gaps(source: Source, y: Array) -> None:
    """Raise DataError with the place of the first of all rows that has no target."""
    rows = np.flatnonzero(missing_in(y))
    if len(rows):
        block, row = 0, int(rows[0])
        while source.blocks is not None and row >= source.blocks[block]:
            block, row = block + 1, row - source.blocks[block]
        raise DataError(f"{source.place(block, row)}: the target is missing; {NO_TARGET}")


class StreamedFit(FitOfSource):
    """One fit to a source whose rows are encoded as they are read.

    The members are trained one after the other; without `n_ensemble` there is one. All validate on
    the same rows, a part of `validation_fraction` that is chosen by a hash.
    """

    def __init__(self, estimator: Any, source: Source, how: Storage) -> None:
        estimator._check_parameters()
        self.began = time.perf_counter()
        if estimator.missing_targets and source.blocks is not None and has_one_target(source):
            source = Skipping(source, "targets")
        super().__init__(estimator, source, how)

    def rows(self) -> tuple[Any, Array, Array | None] | None:
        """Return a table of all rows with targets and weights, if they fit; else None."""
        if self.how.is_plain and (
            number_of_rows(self.source) * self.source.n_features * CELL <= self.memory
        ):
            est, source = self.estimator, self.source
            X, y, weights = whole_table(source, type(est).__name__)
            if y.ndim == 1 and not est.missing_targets:
                refuse_gaps(source, y)
            if y.ndim == 2 and not y.shape[1]:
                source.first(1, targets_only=True)  # raises: it has no target
            return dated(source, X, est.categorical_features), y, weights
        return None

    def fit(self, validation: tuple[Any, Any, Any]) -> Any:
        """Fit in memory, if the rows fit, else in windows."""
        found = self.rows()
        if found is not None:
            return self.estimator._fit(*found, validation)
        if validation[0] is not None:
            raise ValueError(
                "rows to validate on are held out of a source by validation_fraction; leave X_val "
                "out"
            )
        return self.run()

    def run(self) -> Any:
        """Train, and write what was learned into the estimator."""
        est, how = self.estimator, self.how
        if not (is_auto(est.cv) or est.cv is None):
            raise InvalidParameterError(
                "cv needs all rows in memory; a source is validated by validation_fraction"
            )
        if callable(est.scoring) or est.scoring not in ("loss", est._own_score()):
            raise InvalidParameterError(
                f"scoring must be 'loss' or {est._own_score()!r} where rows are read in windows"
            )
        random = self.random(est)
        self.start = random.get_state(legacy=False)
        rng = np.random.default_rng(random.randint(2**31 - 1))
        seed, sample_seed = (int(seed) for seed in rng.integers(2**62, size=2))
        self.held = HeldRows(seed, self.fraction)
        learned = self._learned(sample_seed)
        targets = self._targets(learned)
        n_columns = self.source.n_features
        preset = resolved(est, est._facts(targets, learned.n_rows, n_columns), folds=False)
        if is_auto(est.n_ensemble):
            preset = replace(preset, n_ensemble=1)
        if how.checkpoint is not None and preset.n_ensemble > 1:
            raise InvalidParameterError("checkpoints need n_ensemble=1")
        encoder = est._make_encoder(preset).fit(
            dated(self.source, learned.sample, est.categorical_features)
        )
        scale = self._scale(targets, learned, preset)
        self.encoded = EncodedSource(self.source, encoder, check_dtype(est.dtype))
        self.row_encoder = self._row_encoder(targets, scale, learned)
        members: list[Member] = []
        for number, seed in enumerate(random.randint(2**31 - 1, size=preset.n_ensemble)):
            net = build_network(
                encoder.outputs_, preset, targets.outputs, int(seed), dtype=est.dtype,
                **est._loss_options(),
            )  # fmt: skip
            its_own = preset if preset.n_ensemble == 1 else preset.of_member(number)
            self._train(net, its_own, preset.n_ensemble - number)
            members.append(Member(net, 0, scale))
            if net.history.stopped == "interrupted":
                break
        est._restore(members, [encoder], targets.outputs.labels, dict(vars(preset)))
        est._held_rows, est._held_of_source = [], self.held
        return est

    def _learned(self, seed: int) -> Learned:
        most = self.memory // 4 // (CELL * max(1, self.source.n_features))
        most = int(min(max(most, 1000), MOST_SAMPLED))
        survey = Survey(self.source, type(self.estimator).__name__, self.held, most, 10, seed)
        return survey.learned(self._parts(survey))

    def _parts(self, survey: Survey) -> Iterable[Seen]:
        """Return what the parts of the source hold."""
        return (survey.of(self.source, blocks) for blocks in groups_of(self.source))

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

    def _row_encoder(self, targets: Targets, scale: Scale | None, learned: Learned) -> RowEncoder:
        rows = self.encoded
        est, labels = copy.copy(self.estimator), targets.outputs.labels
        est.callbacks = ()  # the rest may be sent to other processes
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
            with parameters_at_fault():
                factors: Any = class_weights(est.class_weight, labels.classes, labels, learned)

            def weights(y: Array) -> Array:
                return np.asarray(factors[places(of_classes.classes, y)])

        return RowEncoder(rows, rows.dtype, classes, weights)

    def _train(self, net: Network, preset: Preset, n_left: int) -> None:
        """Train a network, and leave the weights of its best epoch in it."""
        est, seconds = self.estimator, None
        if est.max_time is not None:  # the networks that are left share what is left
            seconds = max(0.0, self.began + est.max_time - time.perf_counter()) / n_left
        ended = self.resumes(
            net, preset.max_iter, batch_size=preset.batch_size, solver=preset.solver,
            scoring=est.scoring,
        )  # fmt: skip
        feed, held_out = self._rows(net, preset)
        job = Job(
            net=net,
            data=feed,
            rows=np.empty(0, np.int64),
            held_out=held_out,
            preset=preset,
            scoring=est.scoring,
            name="neg_loss" if est.scoring == "loss" else est.scoring,
            deadline=Deadline(seconds),
            callbacks=est.callbacks,
            n_threads=threads_of(est),
            verbose=int(est.verbose),
            checkpoint=self.keeper,
            start=self.start,
            ended=self.keeper.finished if self.keeper is not None and ended else "",
        )
        try:
            self._run(job)
        finally:
            feed.close()

    def _run(self, job: Job) -> None:
        """Train a network here."""
        train_member(job)

    def _rows(self, net: Any, preset: Preset) -> tuple[Any, HeldOut | None]:
        """Return the windows to train on, and the rows that are held out."""
        made = self.windowed(
            self.encoded, self.row_encoder, net.rng, batch_size=preset.batch_size, shuffle=True,
            n_epochs=preset.max_iter, held_seed=self.held.seed,
        )  # fmt: skip
        self.held = made.feed.layout.held
        if made.held_out is None:
            return made.feed, None
        data = made.held_out
        return made.feed, HeldOut(data, None, data.X, data.targets)


def _check_known(y: Array) -> None:
    if missing_in(y).any():
        raise ValueError(f"the target is missing; {NO_TARGET}")
