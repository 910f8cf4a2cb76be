"""Answers of a tabular estimator about the rows that its members did not train on."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.estimators.tabular.estimator import Tabular
from cmlp.estimators.tabular.tables import take_rows


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
