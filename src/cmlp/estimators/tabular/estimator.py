"""What TabularClassifier and TabularRegressor share: from a table to members, and their answers.

``tabular_tables`` and ``tabular_targets`` read rows, ``presets`` has the defaults,
``tabular_members`` divides rows and trains side by side, ``tabular_training`` trains one network,
``tabular_network`` makes it, ``tabular_file`` writes all of it to a file.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmlp.core.errors import NotFittedError, sklearn_instance
from cmlp.core.errstate import undisturbed
from cmlp.core.layout import Array
from cmlp.data.checks import check_X
from cmlp.data.rows import HeldOut, check_pair
from cmlp.data.source import Source, no_targets
from cmlp.estimators import answers
from cmlp.estimators.ensemble import mean_history
from cmlp.estimators.parameters import Estimator, is_count, random_state
from cmlp.estimators.protocols import scorer_named, wrapped
from cmlp.estimators.storage import Storage
from cmlp.estimators.tabular.members import (
    Encoded,
    Member,
    Plan,
    parts_of,
    train_members,
    with_held_out,
)
from cmlp.estimators.tabular.network import encoder_settings
from cmlp.estimators.tabular.parameters import (
    check_parameters,
    resolved,
    threads_of,
)
from cmlp.estimators.tabular.presets import Facts, Preset
from cmlp.estimators.tabular.tables import check_table, n_columns_of, n_rows_of
from cmlp.estimators.tabular.targets import Rows, Scale, read_rows
from cmlp.estimators.targets import Targets
from cmlp.network import Network
from cmlp.tables.encode import TableEncoder

if TYPE_CHECKING:
    from cmlp.diagnosis.report import Diagnosis


class Tabular(Estimator):
    """What classifier and regressor share."""

    _members: list[Member]
    encoders_: list[TableEncoder]
    table_: dict[str, Any]
    """What the command knows of the table: its target, and words that stand for gaps."""

    _encoded = False
    """Whether X is encoded rows, as scorers pass them during training."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Parameters, which :meth:`_store` sets, and what a fit adds to them."""

    def _store(self, parameters: dict[str, Any]) -> None:
        """Store the constructor's arguments as they are."""
        for name, value in parameters.items():
            if name not in ("self", "__class__"):
                setattr(self, name, value)

    def __sklearn_tags__(self) -> Any:
        """Return what the estimator is and takes (scikit-learn 1.6 and newer)."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.categorical = tags.input_tags.string = True
        return tags

    def _get_tags(self) -> dict[str, Any]:
        """Return the same for scikit-learn 1.5 and older."""
        kinds = ["2darray", "categorical", "string", "sparse"]
        return super()._get_tags() | {"allow_nan": True, "X_types": kinds}

    # What the two do differently

    def _check_parameters(self) -> None:
        """Check parameters."""
        check_parameters(self)

    def _read_targets(self, rows: Rows, known: Targets | None = None) -> Targets:
        """Check targets and encode them; `known` are those to train on, for held-out rows."""
        raise NotImplementedError

    def _facts(self, targets: Targets, n_rows: int, n_columns: int) -> Facts:
        """Describe the problem, to find its preset."""
        raise NotImplementedError

    def _loss_options(self) -> dict[str, float]:
        """Return the parameters of the loss."""
        return {}

    # Fitting -------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: ArrayLike | None = None,
        memory: int | str = "1 GB",
        checkpoint: Any = None,
        checkpoint_every: float = 300,
        resume: bool = False,
    ) -> Any:
        """Fit the networks to a table and its targets.

        Ctrl-C ends the training, and what was learned is kept.

        Parameters
        ----------
        X : table, (n_samples, n_columns)
            A data frame (pandas, polars, Arrow), a structured or plain array, an array of objects,
            a list of dicts, or a sparse matrix. Columns are matched by their names. Or a source
            (:mod:`cmlp.data`), which has its own y and weights. One that does not fit into
            memory is read once to learn its columns, from up to 500,000 rows drawn at random, and
            every level; then in windows, by one network unless `n_ensemble` is set.
        y : array-like, (n_samples,) or (n_samples, n_outputs)
            Labels, or a 0/1 matrix for several labels per row; numbers for the regressor.
        sample_weight : array-like, (n_samples,), optional
            How much each row counts; by default all alike.
        X_val, y_val, sample_weight_val : optional
            Rows that decide which epoch is the best, in place of rows taken from X.
        memory, checkpoint, checkpoint_every, resume : optional
            Of a source, as in :meth:`cmlp.Network.fit`. With a checkpoint there is one network, and
            rows are read in windows in any case; the file is of a network for encoded rows.

        Returns
        -------
        self

        Raises
        ------
        InvalidParameterError
            For a parameter that is out of range; it is a ValueError and a TypeError.
        ValueError, TypeError
            For rows, targets and weights that cannot be learned from; the message has the row or
            the column.
        DivergenceError
            If numbers became infinite or NaN in every member.
        """
        validation = (X_val, y_val, sample_weight_val)
        if isinstance(X, Source):
            no_targets(y, sample_weight)
            how = Storage(memory, checkpoint, checkpoint_every, resume)
            return undisturbed(self._fit_of(X, how).fit)(validation)
        if checkpoint is not None or resume:
            raise ValueError("checkpoints are for sources: cmlp.data.parquet(...) in place of X")
        return self._fit(X, y, sample_weight, validation)

    def _fit_of(self, source: Source, how: Storage) -> Any:
        """Return what trains on a source."""
        from cmlp.estimators.tabular.sources import StreamedFit

        return StreamedFit(self, source, how)

    @undisturbed
    def _fit(self, X: Any, y: Any, sample_weight: Any, validation: tuple[Any, Any, Any]) -> Any:
        began, who = time.perf_counter(), type(self).__name__
        self._check_parameters()
        if y is None:
            raise ValueError(
                f"This {who} estimator requires y to be passed, but the target y is None."
            )
        check_pair(*validation[:2])
        check_table(X, who)
        rows = self._rows(X, y, sample_weight)
        targets = self._read_targets(rows)
        held_out = self._read_held_out(validation, targets)
        random = random_state(self.random_state)
        preset = self._preset(targets, rows, held_out is not None)
        rng = np.random.default_rng(random.randint(2**31 - 1))
        preset = _of_rows_kept(preset, rows.numbers, n_rows_of(X))
        parts = parts_of(
            targets, preset, self.validation_fraction, rng,
            validates=self.early_stopping and held_out is None,
        )  # fmt: skip
        encoded = Encoded(lambda: self._make_encoder(preset), rows, targets, self.dtype)
        folds = encoded.folds(parts, self._standardises(), preset.clamps)
        if held_out is not None:
            folds = with_held_out(folds, encoded, *held_out)
        n_members = len(folds) * preset.n_ensemble
        plan = Plan(
            self, preset, targets, self._scoring(targets), began, threads_of(self), n_members
        )
        seeds = random.randint(2**31 - 1, size=n_members).tolist()
        members = train_members(plan, encoded.encoders, folds, seeds)
        labels = targets.outputs.labels
        self._restore(members, encoded.encoders, labels, dict(vars(preset)))
        self._held_rows = [
            part.held if rows.numbers is None or part.held is None else rows.numbers[part.held]
            for part in parts
        ]
        return self

    def _standardises(self) -> bool:
        """Whether numbers are standardised."""
        return True

    def _rows(self, X: Any, y: Any, weights: Any, known: bool = False) -> Rows:
        return read_rows(
            X, y, weights,
            leaves_out=self.missing_targets, several=self._estimator_type == "regressor",
        )  # fmt: skip

    def _preset(self, targets: Targets, rows: Rows, has_held_out: bool) -> Preset:
        n_columns = n_columns_of(rows.X, type(self).__name__)
        facts = self._facts(targets, len(targets.encoded), n_columns)
        preset = resolved(self, facts, folds=self.early_stopping and not has_held_out)
        if has_held_out and preset.cv is not None:
            raise ValueError("give rows to validate on (X_val, y_val) or cv, not both")
        return preset

    def _make_encoder(self, preset: Preset) -> TableEncoder:
        return TableEncoder(
            categorical_features=self.categorical_features,
            dtype=self.dtype,
            who=type(self).__name__,
            **encoder_settings(preset, self.max_categories),
        )

    def _read_held_out(
        self, validation: tuple[Any, Any, Any], targets: Targets
    ) -> tuple[Rows, Targets] | None:
        X, y, weights = validation
        if X is None:
            return None
        try:
            check_table(X, type(self).__name__)
            rows = self._rows(X, y, weights)
            held = self._read_targets(rows, targets)
            if held.encoded.shape[1:] != targets.encoded.shape[1:]:
                raise ValueError(
                    f"y_val has the shape {held.y.shape}, y has {targets.y.shape}: both need one "
                    "column per output"
                )
        except (TypeError, ValueError) as error:
            error.add_note("This is about the rows held out: X_val, y_val, sample_weight_val.")
            raise
        return rows, held

    def _scoring(self, targets: Targets) -> Any:
        """Return what scores a member on held-out rows: a name, or a function."""
        scoring = self.scoring
        if scoring in ("loss", self._own_score()):
            return scoring
        scorer = scorer_named(scoring) if isinstance(scoring, str) else scoring

        def score(net: Network, held_out: HeldOut, scale: Scale | None) -> float:
            shown = self._candidate(Member(net, 0, scale), targets)
            weights = {}
            if isinstance(scoring, str) and held_out.data.weights is not None:
                weights = {"sample_weight": held_out.of(held_out.data.weights)}
            X = held_out.X if held_out.rows is None else held_out.X[held_out.rows]
            y = held_out.y if held_out.rows is None else held_out.y[held_out.rows]
            try:
                return float(scorer(shown, X, y, **weights))
            except (AttributeError, TypeError, ValueError) as error:
                if not isinstance(scoring, str):
                    raise
                raise ValueError(
                    f"scoring={scoring!r} is not for these targets: {error}"
                ) from error

        return score

    def _own_score(self) -> str:
        """Return the score that a network computes itself."""
        raise NotImplementedError

    def _candidate(self, member: Member, targets: Targets) -> Any:
        """Return an estimator with one network, which predicts encoded rows, for a scorer."""
        other: Any = type(self).__new__(type(self))
        vars(other).update(vars(self))
        other._encoded, other._members = True, [dataclasses.replace(member, encoder=0)]
        other.encoders_, other._labels = [None], targets.outputs.labels
        return other

    def _restore(
        self,
        members: list[Member],
        encoders: list[TableEncoder],
        labels: Any,
        parameters: dict[str, Any],
    ) -> None:
        """Write what was learned into the estimator, in one step: other threads may predict."""
        used = sorted({member.encoder for member in members})
        histories = [member.network.history for member in members]
        best = [history.best_epoch or history.epochs for history in histories]
        scores = [
            history["val_score"][epoch - 1]
            if len(history.get("val_score", ())) >= epoch > 0
            else None
            for history, epoch in zip(histories, best, strict=True)
        ]
        known = [score for score in scores if score is not None]
        encoder = encoders[used[0]]
        state: dict[str, Any] = {
            "encoders_": [encoders[number] for number in used],
            "_members": [
                dataclasses.replace(member, encoder=used.index(member.encoder))
                for member in members
            ],
            "_labels": labels,
            "n_outputs_": members[0].network.sizes[-1],
            "n_features_in_": encoder.n_features_in_,
            "n_iter_": max(history.epochs for history in histories),
            "best_iteration_": best[0] if len(best) == 1 else best,
            "validation_score_": float(np.mean(known)) if known else None,
            "history_": histories[0] if len(histories) == 1 else mean_history(histories),
            "parameters_": parameters,
        }
        names = getattr(encoder, "feature_names_in_", None)
        for name in ("feature_names_in_", "table_"):  # the latter is the command's
            vars(self).pop(name, None)
        if names is not None:
            state["feature_names_in_"] = names
        vars(self).update(state)

    # What was learned ----------------------------------------------------------------------------

    @property
    def networks_(self) -> list[Network]:
        """The members' networks."""
        self._check_is_fitted()
        return [member.network for member in self._members]

    @property
    def network_(self) -> Network:
        """The first member's network."""
        return self.networks_[0]

    @property
    def encoder_(self) -> TableEncoder:
        """What turns a table into the first member's inputs."""
        self._check_is_fitted()
        return self.encoders_[0]

    @property
    def is_categorical_(self) -> Array:
        """Whether each column is categorical."""
        return np.asarray(self.encoder_.is_categorical_)

    @property
    def column_kinds_(self) -> Any:
        """What each column was found to be."""
        return self.encoder_.column_kinds_

    @property
    def categories_(self) -> Any:
        """The levels of each categorical column."""
        return self.encoder_.categories_

    def __sklearn_is_fitted__(self) -> bool:
        """Whether it was fitted."""
        return "_members" in vars(self)

    def _check_is_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise sklearn_instance(
                NotFittedError,
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with "
                "appropriate arguments before using this estimator.",
            )

    # Answers -------------------------------------------------------------------------------------

    def _answers(
        self, answer: Callable[[Member, Any], Array], X: Any, join: Any = answers.mean
    ) -> Any:
        """Return the members' answers about a table, joined."""
        self._check_is_fitted()
        if isinstance(X, Source):
            from cmlp.sources.tables import about_pieces

            return np.concatenate(about_pieces(X, lambda rows: self._answers(answer, rows, join)))
        rows: dict[int, Any] = {}
        if self._encoded:
            rows = dict.fromkeys(range(len(self.encoders_)), X)
        else:
            for number, encoder in enumerate(self.encoders_):
                net = next(m.network for m in self._members if m.encoder == number)
                rows[number] = check_X(encoder.transform(X), net.sizes[0], net.dtype)
        parts = (answer(member, rows[member.encoder]) for member in self._members)
        return next(parts) if len(self._members) == 1 else join(parts)

    def transform(self, X: Any, layer: int = -1) -> Any:
        """Return the activations of a hidden layer, (n_samples, units).

        Those of several members side by side.

        Parameters
        ----------
        layer : int
            Which hidden layer, counted from 0 or, below zero, from the end: -1 is the last.
        """
        self._check_is_fitted()
        n_hidden = len(self.network_.sizes) - 2
        if not -n_hidden <= layer < n_hidden:
            raise ValueError(f"layer={layer} is none of this network's {n_hidden} hidden layers")

        def hidden(member: Member, rows: Any) -> Array:
            return answers.propagate(member.network, rows, 1 + layer % n_hidden)

        units: Array = undisturbed(self._answers)(hidden, X, answers.side_by_side)
        return wrapped(self, units, X, self._unit_names(units.shape[1]))

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """Fit, and return the activations of the last hidden layer."""
        return self.fit(X, y, **fit_params).transform(X)

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Return names for the columns of ``transform``: the class and the unit's number."""
        return self._unit_names(sum(net.sizes[-2] for net in self.networks_))

    def _unit_names(self, n: int) -> Array:
        prefix = type(self).__name__.lower()
        return np.asarray([f"{prefix}{i}" for i in range(n)], dtype=object)

    def predictor(self) -> Callable[[Any], Any]:
        """Return a callable that answers one row in microseconds, without a data frame.

        Returns
        -------
        callable
            ``p(row)``, for a row as a dict of the columns, or as a tuple or list in the order of
            the columns: what ``predict`` returns for it, as a Python object. It belongs to the
            present fit. Create one for each thread.
        """
        from cmlp.estimators.tabular.row import row_predictor

        self._check_is_fitted()
        return row_predictor(self.encoders_, self._members, self._decoder())

    def _decoder(self) -> Callable[[Array], Any]:
        """Return what turns the mean of the members' outputs of one row into its answer."""
        raise NotImplementedError

    @undisturbed
    def diagnose(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
    ) -> Diagnosis:
        """Report in plain words what is wrong with a training; see :func:`cmlp.diagnose`.

        The networks are examined, on encoded rows; the first fold's, if there are folds with
        encoders of their own.
        """
        from cmlp.estimators.tabular.diagnosis import diagnose

        self._check_is_fitted()
        check_pair(X_val, y_val)
        rows = self._rows(X, y, sample_weight)
        targets = self._read_targets(rows, self._known_targets())
        held_out = self._read_held_out((X_val, y_val, None), targets)
        return diagnose(self, rows, targets, held_out)

    def _known_targets(self) -> Targets | None:
        """Return what is known of the targets after a fit."""
        return None

    # Files and copies ----------------------------------------------------------------------------

    @undisturbed
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write columns, levels, scales and networks to one file in the safetensors layout.

        :func:`cmlp.load` returns an estimator that takes raw rows, and predicts the same bits.
        Parameters that are no text, numbers or lists of them (callbacks, functions) are not kept.

        Raises
        ------
        ValueError
            If a file cannot hold something of it, such as labels of dates; nothing is written.
        OSError
            If the file cannot be written.
        """
        from cmlp.estimators.tabular.file import save

        self._check_is_fitted()
        save(self, path)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with private objects by their fields: pickles name public classes."""
        state = dict(vars(self))
        if "_members" in state:
            state["_members"] = [
                (member.network, member.encoder, _fields(member.scale))
                for member in state["_members"]
            ]
            state["encoders_"] = [encoder.to_entries() for encoder in state["encoders_"]]
            state["_labels"] = _fields(state["_labels"])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if "_members" in state:
            from cmlp.estimators.labels import Labels

            self._members = [
                Member(network, encoder, scale and Scale(**scale))
                for network, encoder, scale in state["_members"]
            ]
            self.encoders_ = [
                TableEncoder.from_entries(record, arrays, type(self).__name__)
                for record, arrays in state["encoders_"]
            ]
            self._labels = state["_labels"] and Labels(**state["_labels"])


def _of_rows_kept(preset: Preset, kept: NDArray[np.int64] | None, n: int) -> Preset:
    """Return a preset whose pairs of row numbers, if it has any, count the rows that are kept.

    Parameters
    ----------
    kept : ndarray of int64 or None
        Numbers of the rows that have a target, of `n`; None for all of them.
    """
    if kept is None or preset.cv is None or is_count(preset.cv):
        return preset
    number = np.full(n, -1)
    number[kept] = np.arange(len(kept))

    def counted(part: Any) -> NDArray[np.int64]:
        rows = np.asarray(part, np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < n:
            raise ValueError(f"cv must hold row numbers between 0 and {n - 1}")
        found = number[rows]
        return np.asarray(found[found >= 0])

    pairs = [tuple(counted(part) for part in pair) for pair in preset.cv]
    return dataclasses.replace(preset, cv=pairs)


def _fields(record: Any) -> dict[str, Any] | None:
    """Return the fields of a dataclass, without copies."""
    return None if record is None else dict(vars(record))
