"""Attributions of any model: what its features add to its answers, on rows as users have them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmlp.core import dispatch
from cmlp.core.checks import check_integer
from cmlp.core.errstate import undisturbed
from cmlp.data.checks import check_weights
from cmlp.data.frames import listed
from cmlp.estimators.explained import Subject, subject_of
from cmlp.estimators.pool import Pool
from cmlp.estimators.tabular.tables import n_rows_of, take_rows
from cmlp.explain.attributions import Attributions
from cmlp.explain.pairs import attribute
from cmlp.explain.shapley import MOST_EXACT, Game, exact, sampled

METHODS = ("deeplift", "integrated_gradients", "shapley")
OUTPUTS = ("raw", "probability")


@undisturbed
def attributions(
    model: Any,
    X: Any,
    *,
    background: Any = None,
    method: str = "deeplift",
    output: str = "raw",
    classes: Any = None,
    background_weight: ArrayLike | None = None,
    max_background: int | None = 100,
    n_steps: int = 32,
    n_permutations: int | None = None,
    random_state: int = 0,
    n_threads: int | None = None,
) -> Attributions:
    """Compute how much each feature of each row adds to a model's answer.

    A row's attributions sum to the difference between the answer about it and the mean answer about
    the background: exactly by 'deeplift' and 'shapley', up to the error of a quadrature by
    'integrated_gradients' (:attr:`Attributions.error` has the largest difference).

    Parameters
    ----------
    model : Network, MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor or Pipeline
        Fitted. Of an ensemble, the mean of the members' attributions. Of scikit-learn's pipelines,
        the last step is explained, on rows that have passed the others.
    X : array-like, data frame, sparse matrix or table, (n, n_features)
        Rows to explain, as `predict` takes them.
    background : the same, or one row, optional
        Rows that stand for "nothing is known": some of the training data. By default rows of X.
    method : {'deeplift', 'integrated_gradients', 'shapley'}
        'deeplift': the rescale rule of each activation, averaged over the background, as SHAP's
        DeepExplainer computes it; the fastest. 'integrated_gradients': the mean gradient along the
        line from each row of the background. 'shapley': Shapley values of the model itself, exact
        for up to 10 features (2^features coalitions), else estimated from random orders.
    output : {'raw', 'probability'}
        What is explained: the sums before the last activation (logits; log-odds of two classes;
        numbers of a regressor, without the limits that a tabular one keeps its predictions in), or
        what follows it (probabilities; the counts of 'poisson').
    classes : label or list of labels, optional
        Which answers: labels of a classifier, else numbers of outputs. By default all; of two
        classes the second, if the model has one output for both, or is a tabular classifier.
    background_weight : array-like, (n_background,), optional
        Weights of the rows of the background.
    max_background : int or None
        So many rows of the background are used at most, drawn evenly; None uses all. The time of a
        call is proportional to it.
    n_steps : int
        Gauss-Legendre nodes on each line of 'integrated_gradients'.
    n_permutations : int, optional
        Pairs of a random order and its opposite for 'shapley', rounded up to a multiple of the
        background's rows. By default 100, or none where all coalitions are computed.
    random_state : int
        Seed of what is drawn.
    n_threads : int, optional
        The most to use; the result is the same for any number. None takes every processor, as in
        :meth:`Network.fit`.

    Returns
    -------
    Attributions
        `values`, `base_values`, `data` and names as in ``shap.Explanation``.

    Raises
    ------
    ValueError, TypeError
        For rows or options that do not fit.

    Notes
    -----
    Columns that a network makes of a column (``inputs=...``: rows of tables, periodic features),
    and those that a tabular estimator makes of it (its number, its place among quantiles, the
    indicator of a gap, levels), count together, as one feature. Lines of integrated gradients run
    between these numbers.

    Examples
    --------
    >>> import numpy as np, cmlp
    >>> net = cmlp.Network([2, 1], seed=0)
    >>> net.weights[0], net.biases[0] = [[2.0], [-1.0]], [5.0]
    >>> found = cmlp.attributions(net, [[1.0, 3.0]], background=[[0.0, 0.0]])
    >>> found.values.tolist(), found.base_values.tolist()
    ([[2.0, -3.0]], [5.0])
    """
    _check(method, output, n_steps, n_permutations, max_background, random_state, n_threads)
    background, weights = _background(
        X, background, background_weight, max_background, random_state
    )
    whole = subject_of(model, X, background, output == "probability")
    weights = _weights(weights, len(whole.members[0].background))
    subject, single = whole.with_classes(classes)
    pool = Pool(dispatch.threads_for(n_threads))

    def run(tasks: Iterable[Callable[[], None]]) -> None:
        pool.run(tasks)
        if pool.interrupted:
            raise KeyboardInterrupt

    members, errors = subject.members, None
    n, n_members = len(members[0].X), len(members)
    if method == "shapley":
        game = Game(members)
        if n_permutations is None and game.n_players <= MOST_EXACT:
            values = exact(game, weights, n, run)
        else:
            values, errors = sampled(game, weights, n, n_permutations or 100, random_state, run)
    else:
        steps = n_steps if method == "integrated_gradients" else None
        values = attribute(members[0], weights, steps, run)
        for member in members[1:]:
            values += attribute(member, weights, steps, run)
        values /= n_members
    return _result(subject, weights, (values, errors), single, method, output)


def _check(
    method: object, output: object, n_steps: Any, n_permutations: Any, max_background: Any,
    random_state: Any, n_threads: Any,
) -> None:  # fmt: skip
    """Check the options."""
    for name, value, known in (("method", method, METHODS), ("output", output, OUTPUTS)):
        if value not in known:
            raise ValueError(f"{name} must be {listed(known, 5, repr)}, not {value!r}")
    check_integer("n_steps", n_steps, 1)
    check_integer("random_state", random_state, 0)
    for name, value in (
        ("n_permutations", n_permutations),
        ("max_background", max_background),
        ("n_threads", n_threads),
    ):
        if value is not None:
            check_integer(name, value, 1)


def _background(
    X: Any, background: Any, weights: Any, most: int | None, seed: int
) -> tuple[Any, NDArray[np.float64] | None]:
    """Return the rows of the background that are used, and their weights as they were passed."""
    if background is None:
        if weights is not None:
            raise ValueError("background_weight is for rows of a background: pass them, too")
        if n_rows_of(X) < 2:
            raise ValueError(
                "one row has nothing to be compared with: pass background, some rows of the "
                "training data"
            )
        background = X
    if _is_row(background):
        background = np.reshape(background, (1, -1))
    n = n_rows_of(background)
    if n == 0:
        raise ValueError("background has no rows")
    weights = check_weights(weights, n, "background_weight", "background")
    if most is not None and n > most:
        rows = np.sort(np.random.default_rng(seed).choice(n, most, replace=False))
        background = take_rows(background, rows)
        weights = None if weights is None else weights[rows]
        if weights is not None and not weights.any():
            raise ValueError(
                f"the weights of the {most} rows that were drawn are all 0: leave rows without "
                "weight out, or set max_background=None"
            )
    return background, weights


def _is_row(background: Any) -> bool:
    """Whether a background is one row of numbers, and not a matrix or a table."""
    row = isinstance(background, (list, tuple, np.ndarray)) and len(background) > 0
    return row and all(isinstance(each, (int, float, np.number)) for each in background)


def _weights(weights: NDArray[np.float64] | None, n: int) -> NDArray[np.float64]:
    """Return weights whose sum is 1."""
    if weights is None:
        return np.full(n, 1 / n)
    shares = weights / weights.max()  # their sum is finite, whatever the weights are
    return np.asarray(shares / shares.sum())


def _result(
    subject: Subject,
    weights: NDArray[np.float64],
    found: tuple[NDArray[np.float64], NDArray[np.float64] | None],
    single: bool,
    method: str,
    output: str,
) -> Attributions:
    """Put values, answers and names together; a single answer has no axis of its own."""
    values, errors = found
    answers = np.mean([m.answers.of(m.net, m.X) for m in subject.members], axis=0)
    means = [weights @ m.answers.of(m.net, m.background) for m in subject.members]
    base = np.broadcast_to(np.mean(means, axis=0), answers.shape)
    if single:
        values, answers, base = values[..., 0], answers[:, 0], base[:, 0]
        errors = None if errors is None else errors[..., 0]
    return Attributions(
        values=values,
        base_values=base,
        answers=answers,
        data=subject.data,
        feature_names=subject.feature_names,
        output_names=[str(label) for label in subject.labels],
        method=method,
        output=output,
        standard_errors=errors,
    )
