"""Folds: an estimator, or settings of it, fitted to parts of the rows and scored on the others."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmlp.core import dispatch
from cmlp.core.checks import check_integer
from cmlp.core.errors import ConvergenceWarning, warn
from cmlp.core.errstate import callers_state
from cmlp.core.layout import Array
from cmlp.data.checks import check_weights
from cmlp.data.source import Source
from cmlp.estimators.ensemble import repeat_warnings
from cmlp.estimators.fit import threads_of
from cmlp.estimators.mlp import MLP
from cmlp.estimators.parameters import STOCHASTIC
from cmlp.estimators.pool import Pool
from cmlp.estimators.protocols import scorer_named
from cmlp.estimators.side_by_side import Trained, Work, train_all
from cmlp.estimators.tabular.estimator import Tabular
from cmlp.estimators.tabular.tables import n_rows_of, take_rows
from cmlp.estimators.targets import Task
from cmlp.training.divergence import DivergenceError

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]
"""The numbers of the rows to train on, and of those to score."""


def cross_validate(
    estimator: Any,
    X: Any,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    cv: Any = 5,
    scoring: str | Callable[..., float] | None = None,
    settings: Iterable[Mapping[str, Any]] | None = None,
    n_threads: int | None = None,
) -> dict[str, Any]:
    """Fit an estimator to each fold of the rows, and score it on the others.

    Each fit learns what ``estimator.fit(X[train], y[train])`` would learn. Those of small networks
    of one architecture are trained side by side, one in each lane of a vector, where a thread has
    enough of them (half as many as a vector has lanes): then up to rounding, else to the bit.

    Parameters
    ----------
    estimator : MLPClassifier, MLPRegressor, TabularClassifier or TabularRegressor
        It stays as it is: copies are fitted.
    X, y : array-like
        As its ``fit`` takes them, in memory.
    sample_weight : array-like, (n,), optional
        Weights of the rows, for fits and for scores.
    groups : array-like, (n,), optional
        Which rows belong together, for a `cv` that divides by them, as GroupKFold.
    cv : int, iterable, object with a method ``split``, or None
        Number of folds, as in scikit-learn (None: 5): without shuffling, and of a classifier with
        the proportions of the classes in each. Or pairs of row numbers, to train on and to score.
        Or what has ``split(X, y)``, such as scikit-learn's ``KFold(5, shuffle=True)``.
    scoring : str or callable, optional
        One of scikit-learn's scorers, or a function of estimator, X and y, and of `sample_weight`
        if that is given; default: its ``score``.
    settings : iterable of dict, optional
        Parameters to try instead of the estimator's, such as scikit-learn's ParameterGrid.
    n_threads : int, optional
        At most; default: the estimator's.

    Returns
    -------
    dict
        'test_score', (n_folds,), and 'estimator', a list of the fitted ones. With `settings`, each
        is for every setting: (n_settings, n_folds), and a list of lists. The score of a fit that
        has diverged is NaN; a warning names it.

    Raises
    ------
    TypeError, ValueError
        For data, folds or parameters that do not fit.

    Examples
    --------
    >>> import cmlp
    >>> digits = cmlp.load_digits()
    >>> clf = cmlp.MLPClassifier((16,), tol=0.1, random_state=0, input_scale=1 / 16)
    >>> grid = [{"alpha": alpha, "batch_size": 32} for alpha in (1e-4, 1e-2)]
    >>> found = cmlp.cross_validate(clf, digits.X_train, digits.y_train, settings=grid, cv=3)
    >>> found["test_score"].shape
    (2, 3)
    """
    if not isinstance(estimator, (MLP, Tabular)):
        raise TypeError(
            f"estimator must be one of cmlp's, not {estimator!r}; scikit-learn's cross_validate "
            "takes any"
        )
    if isinstance(X, Source):
        raise TypeError("folds need rows in memory, not a source: pass arrays or a table")
    if isinstance(scoring, str):
        scoring = scorer_named(scoring)
    elif not (scoring is None or callable(scoring)):
        raise TypeError(
            f"scoring must be the name of one scorer, a function, or None, not {scoring!r}"
        )
    folds = _folds(5 if cv is None else cv, X, y, groups, estimator)
    weights = check_weights(sample_weight, n_rows_of(X))
    each = _settings(settings)
    fits = [[_copy(estimator, own) for _ in folds] for own in each]
    pairs = [(member, fold) for row in fits for member, fold in zip(row, folds, strict=True)]
    if n_threads is not None:
        n_threads = check_integer("n_threads", n_threads, 1)
    elif isinstance(estimator, MLP):
        n_threads = threads_of(estimator)
    diverged = _fit_all(pairs, X, y, weights, n_threads)
    scores = np.array([
        math.nan if number in diverged else _score(member, scoring, X, y, weights, test)
        for number, (member, (_, test)) in enumerate(pairs)
    ])  # fmt: skip
    if diverged:
        first = next(iter(diverged.values()))
        warn(
            f"{len(diverged)} of {len(pairs)} fits diverged, {list(diverged)}; their score is NaN. "
            f"The first: {first}",
            ConvergenceWarning,
        )
    if settings is None:
        return {"test_score": scores, "estimator": fits[0]}
    return {"test_score": scores.reshape(len(each), len(folds)), "estimator": fits}


def _settings(settings: Any) -> list[dict[str, Any]]:
    """Return what each setting changes, checked."""
    if settings is None:
        return [{}]
    each = [] if isinstance(settings, (Mapping, str)) else list(settings)
    if not each or not all(isinstance(own, Mapping) for own in each):
        raise TypeError(
            "settings must be one dict of parameters or more, such as [{'alpha': 0.1}, "
            f"{{'alpha': 1.0}}], not {settings!r}; scikit-learn's ParameterGrid makes them of lists"
        )
    return [dict(own) for own in each]


def _copy(estimator: Any, own: Mapping[str, Any]) -> Any:
    """Return an estimator with the same parameters, not fitted, but for some of its own."""
    parameters = copy.deepcopy(estimator.get_params(deep=False))
    return type(estimator)(**parameters).set_params(**own)


def _weighted(weights: Array | None, rows: NDArray[np.int64]) -> dict[str, Array]:
    """Return the argument with the weights of some rows; none without weights."""
    return {} if weights is None else {"sample_weight": weights[rows]}


def _score(
    member: Any, scoring: Any, X: Any, y: Any, weights: Array | None, test: NDArray[np.int64]
) -> float:
    rows, targets, its = take_rows(X, test), take_rows(y, test), _weighted(weights, test)
    if scoring is None:
        return float(member.score(rows, targets, **its))
    with callers_state():
        score = scoring(member, rows, targets, **its)
    try:
        return float(score)
    except (TypeError, ValueError):
        raise TypeError(f"scoring must return a number, not {score!r}") from None


# Fits --------------------------------------------------------------------------------------------


def _fit_all(
    pairs: Sequence[tuple[Any, Fold]], X: Any, y: Any, weights: Array | None, n_threads: int | None
) -> dict[int, DivergenceError]:
    """Fit every estimator to its fold; return the errors of those that diverged."""
    tasks = _Tasks(X, y, weights)
    works: dict[int, Work] = {}
    for number, (member, (train, _)) in enumerate(pairs):
        task = tasks.of(member, train)
        if task is not None:
            works[number] = member, task
    diverged: dict[int, DivergenceError] = {}
    for number, result in zip(works, _train(works, n_threads), strict=True):
        if result.divergence is not None:
            diverged[number] = result.divergence
    for number, (member, (train, _)) in enumerate(pairs):
        if number not in works:
            try:
                member.fit(take_rows(X, train), take_rows(y, train), **_weighted(weights, train))
            except DivergenceError as error:
                diverged[number] = error
    return dict(sorted(diverged.items()))


def _train(works: Mapping[int, Work], n_threads: int | None) -> list[Trained]:
    """Train in as many threads as there are; each fit has one of them."""
    if not works:
        return []
    pool = Pool(min(len(works), dispatch.threads_for(n_threads)))
    given = [member.n_threads for member, _ in works.values()]
    if pool.n_workers > 1:
        for member, _ in works.values():
            member.n_threads = 1
    try:
        tasks = [
            (member, dataclasses.replace(task, halted=pool.stopped))
            for member, task in works.values()
        ]
        trained = train_all(tasks, pool)
    finally:
        for (member, _), n in zip(works.values(), given, strict=True):
            member.n_threads = n
    if pool.interrupted:
        raise KeyboardInterrupt
    found = [each for each in trained if each is not None]
    repeat_warnings([each.warnings for each in found if not each.divergence], len(works), "fits")
    return found


class _Tasks:
    """Parts of the rows as tasks of estimators that read them alike: the whole is encoded once."""

    def __init__(self, X: Any, y: Any, weights: Array | None) -> None:
        self.X, self.y, self.weights, self.known = X, y, weights, dict[Any, Task]()

    def of(self, member: Any, rows: NDArray[np.int64]) -> Task | None:
        """Return the task of an estimator; None where only its own ``fit`` can divide the rows."""
        if (
            not isinstance(member, MLP)
            or type(member).fit is not MLP.fit
            or member.n_ensemble != 1
            or member.solver not in STOCHASTIC
            or getattr(member, "class_weight", None) is not None
        ):
            return None
        member._check_parameters()
        loss = getattr(member, "loss", None)
        if callable(loss):
            return None
        if loss not in self.known:
            self.known[loss] = member._task(self.X, self.y, self.weights)
        task = self.known[loss]
        labels = task.targets.outputs.labels
        if labels is not None and not _has_all(task.targets.encoded, rows):
            return None
        return dataclasses.replace(task, rows=rows)


def _has_all(encoded: NDArray[Any], rows: NDArray[np.int64]) -> bool:
    """Whether some rows have every class that there is."""
    if encoded.ndim == 2:  # two classes, or several labels per row
        whole, part = encoded.astype(bool), encoded[rows].astype(bool)
        return bool(
            (whole.any(axis=0) == part.any(axis=0)).all()
            and (whole.all(axis=0) == part.all(axis=0)).all()
        )
    return len(np.unique(encoded[rows])) == len(np.unique(encoded))


# Folds -------------------------------------------------------------------------------------------


def _folds(cv: Any, X: Any, y: Any, groups: Any, estimator: Any) -> list[Fold]:
    """Return the folds as row numbers, checked."""
    n, given = n_rows_of(X), cv
    if y is not None and n_rows_of(y) != n:
        raise ValueError(f"X and y must have as many rows: X has {n}, and y {n_rows_of(y)}")
    if isinstance(cv, str):
        cv = None  # its letters are no folds
    elif hasattr(cv, "split"):
        cv = cv.split(X, y) if groups is None else cv.split(X, y, groups)
    elif isinstance(cv, (int, np.integer)) and not isinstance(cv, (bool, np.bool_)):
        column = np.ndim(y) == 1 or np.shape(y)[1:] == (1,)
        labels = np.ravel(y) if estimator._estimator_type == "classifier" and column else None
        return _numbered(_numbers_of_folds(check_integer("cv", cv, 2), n, labels))
    if not isinstance(cv, Iterable):
        raise TypeError(
            "cv must be a number of folds, pairs of row numbers, or have a method split, not "
            f"{given!r}"
        )
    folds = []
    for number, pair in enumerate(cv):
        try:
            train, test = (np.arange(n, dtype=np.int64)[np.asarray(part)] for part in pair)
        except (IndexError, TypeError, ValueError) as error:
            raise ValueError(
                f"fold {number} of cv must be the numbers of rows to train on and to score, from 0 "
                f"to {n - 1}: {error}"
            ) from None
        if train.ndim != 1 or test.ndim != 1 or not (len(train) and len(test)):
            raise ValueError(f"fold {number} of cv must have rows to train on, and rows to score")
        folds.append((train, test))
    if not folds:
        raise ValueError("cv holds no folds; give pairs of row numbers, or a number of folds")
    return folds


def _numbered(number: NDArray[np.int64]) -> list[Fold]:
    """Return the folds of rows that have the number of the one that they are scored in."""
    return [
        (np.flatnonzero(number != fold), np.flatnonzero(number == fold))
        for fold in range(int(number.max()) + 1)
    ]


def _numbers_of_folds(k: int, n: int, labels: Any) -> NDArray[np.int64]:
    """Return for each row which of k folds scores it, as scikit-learn divides them.

    Without labels these are blocks of rows; with them, each fold has its part of every class.
    """
    if n < k:
        raise ValueError(f"cv={k} needs at least as many rows; there are {n}")
    if labels is None:
        return np.repeat(np.arange(k), np.full(k, n // k) + (np.arange(k) < n % k))
    _, first, codes = np.unique(np.asarray(labels), return_index=True, return_inverse=True)
    codes = np.argsort(np.argsort(first))[codes]  # classes in the order in which they appear
    counts = np.bincount(codes)
    if counts.max() < k:
        raise ValueError(
            f"cv={k} needs a class of {k} rows or more; the largest has {counts.max()}"
        )
    if counts.min() < k:
        warn(f"a class has {counts.min()} rows, fewer than the {k} folds: some score none of it")
    in_order, number = np.sort(codes), np.empty(n, np.int64)
    shares = [np.bincount(in_order[fold::k], minlength=len(counts)) for fold in range(k)]
    for code in range(len(counts)):
        number[codes == code] = np.repeat(np.arange(k), [share[code] for share in shares])
    return number
