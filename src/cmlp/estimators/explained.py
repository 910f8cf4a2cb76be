"""What attributions take from a model: its networks, rows as these take them, answers and names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.core.seam import SparseRows
from cmlp.data.checks import check_X
from cmlp.data.frames import column_names, first_names, listed
from cmlp.estimators.inputs import read_X
from cmlp.estimators.mlp import MLP
from cmlp.estimators.tabular.estimator import Tabular
from cmlp.explain.pairs import Explained
from cmlp.explain.unrolled import Answers
from cmlp.model.precision import unrounded
from cmlp.network import Network
from cmlp.tables.containers import columns_of, matched
from cmlp.tables.encode import TableEncoder


@dataclass(frozen=True)
class Subject:
    """A model and its rows, ready to be explained.

    Attributes
    ----------
    members : list of Explained
    data : ndarray, (n, n_features)
        The rows as they were passed.
    feature_names : list of str
    labels : ndarray or list
        Of the answers.
    """

    members: list[Explained]
    data: Array
    feature_names: list[str]
    labels: list[Any]

    def with_classes(self, classes: Any) -> tuple[Subject, bool]:
        """Return the same with some of the answers, and whether it is a single one."""
        if classes is None:
            return self, len(self.labels) == 1
        single = np.ndim(classes) == 0
        wanted = [classes] if single else list(classes)
        unknown = [label for label in wanted if label not in self.labels]
        if unknown or not wanted:
            known = listed(self.labels, 10, repr)
            raise ValueError(
                f"classes must be among the model's answers, {known}"
                + (f"; {unknown[0]!r} is not" if unknown else "; it is empty")
            )
        places = [self.labels.index(label) for label in wanted]
        members = []
        for member in self.members:
            answers = member.answers
            some = replace(answers, matrix=answers.matrix[:, places], offset=answers.offset[places])
            members.append(replace(member, answers=some))
        return replace(self, members=members, labels=wanted), single


def subject_of(model: Any, X: Any, background: Any, activated: bool) -> Subject:
    """Read a model and rows.

    Parameters
    ----------
    activated : bool
        Whether answers are the outputs after the last activation.

    Raises
    ------
    TypeError
        For a model of another kind.
    """
    if isinstance(model, Network):
        return _of_network(model, X, background, activated)
    if isinstance(model, MLP):
        return _of_estimator(model, X, background, activated)
    if isinstance(model, Tabular):
        return _of_tabular(model, X, background, activated)
    if hasattr(model, "steps"):
        return _of_pipeline(model, X, background, activated)
    raise TypeError(
        "attributions need a Network, an estimator of cmlp, or a scikit-learn Pipeline that ends "
        f"in one of these, not {type(model).__name__}"
    )


def _all_of(n: int, activated: bool) -> Answers:
    """Return the outputs themselves as answers."""
    return Answers(np.eye(n), np.zeros(n), activated)


def _dense(X: Array | SparseRows) -> Array:
    return X.dense(np.float64) if isinstance(X, SparseRows) else X


def _numeric(
    networks: list[Network], rows: tuple[Any, Any], names: list[str], labels: list[Any],
    activated: bool,
) -> Subject:  # fmt: skip
    """Return networks that take numbers, on rows that are checked."""
    X, background = rows
    n = networks[0].sizes[0]
    answers = _all_of(networks[0].sizes[-1], activated)
    members = [
        Explained(unrounded(net), answers, X, background, np.arange(n), n) for net in networks
    ]
    names = names if len(names) == n else [f"x{number}" for number in range(n)]
    return Subject(members, _dense(X), names, labels)


# Networks and estimators --------------------------------------------------------------------------


def _of_network(net: Network, X: Any, background: Any, activated: bool) -> Subject:
    n_in, n_out = net.sizes[0], net.sizes[-1]
    rows = (
        check_X(X, n_in, net.dtype),
        check_X(background, n_in, net.dtype, "background"),
    )
    names = first_names(column_names(X), net.feature_names)
    labels: list[Any] = list(range(n_out))
    if net.classes is not None and len(net.classes) == n_out:
        labels = net.classes.tolist()
    elif net.classes is not None and len(net.classes) == 2 and n_out == 1:
        labels = net.classes.tolist()[1:]
    elif n_out == 1 and net.target_name:
        labels = [net.target_name]
    return _numeric([net], rows, names, labels, activated)


def _of_estimator(model: MLP, X: Any, background: Any, activated: bool) -> Subject:
    who, estimator = type(model).__name__, _fitted(model)
    columns = estimator._columns
    rows, _ = read_X(X, who, columns, text=False)
    with _about_background():
        others, _ = read_X(background, who, columns, text=False)
    networks = estimator._networks()
    names = first_names(columns.names, column_names(X))
    labels: list[Any] = list(range(networks[0].sizes[-1]))
    classes = getattr(estimator, "classes_", None)
    if classes is not None:
        labels = classes.tolist()[-len(labels) :]
    elif len(labels) == 1:
        labels = [networks[0].target_name or "y"]
    return _numeric(networks, (rows, others), names, labels, activated)


@contextlib.contextmanager
def _about_background() -> Iterator[None]:
    """Note in errors which rows they are about."""
    try:
        yield
    except (TypeError, ValueError) as error:
        error.add_note("This is about background.")
        raise


def _fitted(estimator: Any) -> Any:
    """Return an estimator that is fitted, without its type."""
    estimator._check_is_fitted()
    return estimator


# Pipelines ----------------------------------------------------------------------------------------


def _of_pipeline(model: Any, X: Any, background: Any, activated: bool) -> Subject:
    """Explain the last step, on rows that have passed the others."""
    final = model.steps[-1][1]
    if len(model.steps) == 1:
        return subject_of(final, X, background, activated)
    before = model[:-1]
    names = first_names(getattr(before, "feature_names_in_", None), column_names(X))
    rows = before.transform(X)
    with _about_background():
        others = before.transform(background)
    subject = subject_of(final, rows, others, activated)
    names = names if len(names) == len(subject.feature_names) else subject.feature_names
    if hasattr(before, "get_feature_names_out"):
        names_in = names if getattr(before, "feature_names_in_", None) is not None else None
        made = before.get_feature_names_out(names_in)
        if len(made) == len(subject.feature_names):
            kept = list(made) == (names_in or [f"x{number}" for number in range(len(made))])
            subject = replace(subject, feature_names=[str(name) for name in made])
            data = np.asarray(X.toarray() if hasattr(X, "toarray") else X)
            if kept and data.shape == subject.data.shape:  # each column of it is one of X
                subject = replace(subject, data=data)
    return subject


# Tables -------------------------------------------------------------------------------------------


def _of_tabular(model: Tabular, X: Any, background: Any, activated: bool) -> Subject:
    """Explain the answers by the columns of a table, whatever they become."""
    who, estimator = type(model).__name__, _fitted(model)
    encoded: dict[int, tuple[Any, Any]] = {}
    members = []
    for member in estimator._members:
        net, encoder = member.network, estimator.encoders_[member.encoder]
        if member.encoder not in encoded:
            rows = check_X(encoder.transform(X), net.sizes[0], net.dtype)
            with _about_background():
                others = check_X(encoder.transform(background), net.sizes[0], net.dtype)
            encoded[member.encoder] = rows, others
        answers = _answers_of(estimator, member, activated)
        members.append(
            Explained(
                unrounded(net),
                answers,
                *encoded[member.encoder],
                _sources(encoder),
                encoder.n_features_in_,
            )
        )
    encoder = estimator.encoders_[0]
    names = [column.name for column in encoder.columns_]
    labels: list[Any] = list(range(members[0].answers.n))
    if estimator._estimator_type == "classifier":
        classes = estimator.classes_.tolist()
        labels = classes[-len(labels) :]
    elif len(labels) == 1:
        labels = ["y"]
    return Subject(members, _cells(X, encoder, who), names, labels)


def _answers_of(estimator: Any, member: Any, activated: bool) -> Answers:
    """Return what a member answers: log-odds or logits, probabilities, or numbers."""
    n = member.network.sizes[-1]
    if member.scale is not None:
        scale = member.scale
        return Answers(np.diag(scale.spread), np.asarray(scale.centre, np.float64), activated)
    labels = estimator._labels
    answers = _all_of(n, activated)
    if labels.multilabel or len(labels.classes) > 2:
        return answers
    matrix = np.eye(n)[:, :1]
    if len(labels.classes) == 2:
        matrix = np.array([[0.0], [1.0]] if activated else [[-1.0], [1.0]])
    return Answers(matrix, np.zeros(1), activated)


def _sources(encoder: TableEncoder) -> NDArray[np.int64]:
    """Return the number of the table's column that each encoded one belongs to."""
    place = {column.name: number for number, column in enumerate(encoder.columns_)}
    return np.array([place.get(column.source, 0) for column in encoder.outputs_], np.int64)


def _cells(X: Any, encoder: TableEncoder, who: str) -> Array:
    """Return the cells of a table in the order of the fit; None in columns that it lacks."""
    if hasattr(X, "toarray"):
        return np.asarray(X.toarray())
    columns = columns_of(X, who)
    names = getattr(encoder, "feature_names_in_", None)
    made = {column.source for column in encoder.outputs_}
    needed = [column.name in made for column in encoder.columns_]
    places = matched(columns, None if names is None else list(names), needed, who)
    cells = np.empty((columns.n_rows, len(places)), object)
    for number, place in enumerate(places):
        if place is not None:
            raw = columns.raw[place]
            cells[:, number] = raw.to_pylist() if hasattr(raw, "to_pylist") else list(raw)
    return cells
