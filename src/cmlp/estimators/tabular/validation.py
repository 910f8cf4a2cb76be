"""Answers of a tabular estimator about the rows that its members did not train on."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.data.source import Source
from cmlp.estimators.tabular.estimator import Tabular
from cmlp.estimators.tabular.tables import take_rows
from cmlp.sources.tables import pieces_of, whole_table


def held_out_answers(estimator: Tabular, X: Any) -> tuple[NDArray[np.int64], Array] | None:
    """Return the rows that were held out in the last fit, and the answers about them.

    A row is answered by the members of the fold that did not train on it. It decided which of their
    epochs is the best one.

    Parameters
    ----------
    X : table, (n_samples, n_columns)
        That of the fit.

    Returns
    -------
    rows : ndarray of int64, (n,)
    answers : ndarray, (n, n_classes) or (n,) or (n, n_outputs)
        Probabilities of a classifier, numbers of a regressor.
    """
    rows, answers = [], []
    for fold, held in enumerate(getattr(estimator, "_held_rows", ())):
        members = [member for member in estimator._members if member.fold == fold]
        if held is None or not members:
            continue
        some: Any = type(estimator).__new__(type(estimator))
        vars(some).update(vars(estimator))
        used = sorted({member.encoder for member in members})
        some.encoders_ = [estimator.encoders_[number] for number in used]
        some._members = [
            dataclasses.replace(member, encoder=used.index(member.encoder)) for member in members
        ]
        classifies = estimator._estimator_type == "classifier"
        predict = some.predict_proba if classifies else some.predict
        rows.append(held)
        answers.append(predict(take_rows(X, held)))
    return (np.concatenate(rows), np.concatenate(answers)) if rows else None


def held_out_of(estimator: Tabular, source: Source) -> tuple[Array, Array] | None:
    """Return answers about the rows of a source that were held out in the fit to it, and targets.

    Parameters
    ----------
    source : Source
        That of the fit, without the rows that have no target.
    """
    found = getattr(estimator, "_held_rows", None)
    if found:
        X, y, _ = whole_table(source, type(estimator).__name__)
        held_out = held_out_answers(estimator, X)
        return None if held_out is None else (held_out[1], y[held_out[0]])
    held = getattr(estimator, "_held_of_source", None)
    if held is None or not held.fraction:
        return None
    classifies = estimator._estimator_type == "classifier"
    predict = estimator.predict_proba if classifies else estimator.predict
    answers, targets = [], []
    for piece in pieces_of(source):
        rows = np.flatnonzero(held.mask(piece.block, piece.start, piece.start + len(piece.y)))
        if len(rows):
            answers.append(predict(take_rows(piece.X, rows)))
            targets.append(piece.y[rows])
    return (np.concatenate(answers), np.concatenate(targets)) if answers else None
