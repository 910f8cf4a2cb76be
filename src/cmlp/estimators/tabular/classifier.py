"""TabularClassifier."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cmlp.core.errstate import undisturbed
from cmlp.core.layout import Array
from cmlp.core.public import set_module
from cmlp.data.frames import is_sparse
from cmlp.estimators import answers
from cmlp.estimators.inputs import check_lengths, read_weights
from cmlp.estimators.labels import Labels, read_labels
from cmlp.estimators.storage import targets_of
from cmlp.estimators.tabular.estimator import Tabular
from cmlp.estimators.tabular.members import Member
from cmlp.estimators.tabular.presets import Facts
from cmlp.estimators.tabular.targets import Rows, encode_labels, outputs_for, probabilities
from cmlp.estimators.targets import Targets


@set_module("cmlp")
class TabularClassifier(Tabular):
    """A classifier of tables as people have them: text, categories, missing values, dates.

    It encodes the columns, trains multilayer perceptrons on the folds of a cross-validation, and
    predicts the mean of their probabilities. Parameters that are 'auto' follow from the table.

    Parameters
    ----------
    hidden_layer_sizes : int, sequence of int or 'auto'
        Units of each hidden layer.
    activation : str, sequence of str or 'auto'
        Of the hidden layers, as :class:`cmlp.MLPClassifier` has them.
    categorical_features : 'from_dtype', list of names, of numbers or of bool, or None
        Which columns are categories. 'from_dtype': text, objects, categories, enumerations and
        truth values are; numbers are not.
    max_one_hot : int or 'auto'
        Levels up to which a categorical column has an input per level (two levels: one input of 1
        and -1); one of more levels has a table. 'auto' is 2.
    embedding_size : int or 'auto'
        Inputs that a row of such a table is. 0, which 'auto' is: it is added to the sums of the
        first layer, as the weights of an input per level would be.
    max_categories : int or None
        Levels of a column, of which those that are rare share one; None sets no limit.
    numeric_embedding : 'piecewise', 'periodic', None or 'auto'
        What a number becomes in addition to its scaled value: a function of it that is linear
        between quantiles, for each unit of the first layer ('piecewise', which 'auto' is); learned
        sums of cosines ('periodic'); or nothing.
    solver : str
        'auto' or one of :class:`cmlp.MLPClassifier`'s that takes a step per batch.
    learning_rate_init, learning_rate : float, str or Schedule
        The rate, and its schedule, as in :class:`cmlp.MLPClassifier`.
    batch_size, max_iter : int or 'auto'
        Rows per step; epochs.
    weight_decay, dropout, label_smoothing : float or 'auto'
        As in :class:`cmlp.MLPClassifier`. Where dropout is 'auto', members have less and more of it
        in turn.
    scoring : str or callable
        What decides which epoch is the best, the latest of equals: 'loss', the log-loss at the best
        temperature (see Notes); 'accuracy'; the name of one of scikit-learn's scorers; or a
        function ``scorer(estimator, X, y)``, which gets encoded rows, and an estimator that
        predicts these.
    early_stopping : bool
        Hold rows out, and keep the epoch that predicts them best. With False all rows are trained
        on for all epochs.
    validation_fraction : float
        Part of the rows that is held out, unless ``fit`` gets ``X_val`` or there are folds; classes
        keep their proportions.
    n_iter_no_change : int, inf or 'auto'
        Epochs since the best one after which a training ends. 'auto' is 5, and half of the best
        epoch's number.
    cv : int, pairs of row numbers, None or 'auto'
        Folds: the members of each train on the others, and are validated on it. Folds of your own,
        such as of groups or of times, are pairs: rows to train on, rows to validate on. 'auto' is
        4 out of 8 folds, 4 for less than 200 rows, and None if `n_ensemble` is set, or nothing is
        held out.
    n_ensemble : int or 'auto'
        Members, per fold if there are folds: networks that differ in their first weights and in
        their order of rows. 'auto' makes 4 members in all, and 1 per fold if `cv` is set.
    class_weight : dict, 'balanced' or None
        Weight of each class, multiplied with the sample weights.
    missing_targets : bool
        Leave out rows whose target is missing; with False these are an error.
    dtype : {'float32', 'float64'}
        What is computed in.
    random_state : int, RandomState, Generator or None
        Source of everything random.
    n_threads : int or None
        Threads; None uses every processor. Members train side by side. The result is the same for
        any number.
    max_time : float or None
        Seconds after which ``fit`` ends, of all members together.
    verbose : bool or int
        Show each epoch; of several members one line each.
    callbacks : iterable
        Called after each epoch with a :class:`cmlp.TrainingState`, by each member from its thread.
    precision : {None, 'bfloat16', 'bfloat16-emulated'}
        What operands of products are rounded to, as :class:`cmlp.Network` describes it.

    Attributes
    ----------
    classes_ : ndarray
        The labels, in the order of the probabilities.
    feature_names_in_, n_features_in_ : ndarray, int
        The columns of the table.
    is_categorical_, column_kinds_, categories_
        Which columns are categories, what each was found to be, and their levels.
    networks_, network_ : list of Network, Network
        The members' networks; the first of them. They take encoded rows,
        ``encoder_.transform(X)``.
    encoders_, encoder_ : list of TableEncoder, TableEncoder
        What encodes tables.
    history_ : History
        Every epoch; of several members, their mean.
    n_iter_, best_iteration_ : int, int or list of int
        Epochs (of the longest training), and the best epoch (of each member).
    validation_score_ : float or None
        The score of the best epoch on the rows that were held out; the members' mean.
    parameters_ : dict
        The numbers that 'auto' stood for. `by_member` has those that differ from member to member.

    Notes
    -----
    What becomes of a column, with statistics of the rows that are trained on:

    - numbers: the median is subtracted and the distance between the quartiles is the unit; large
      values are bent towards 3. In addition it has a place among quantiles (up to 48; a frequent
      value is one of them). A missing one is the median, and if there were any in training, it has
      no place, and an input of its own tells that it is missing.
    - categories (text, objects, truth values): levels are matched by value, however they are
      ordered or stored. A level that training has not seen, or in fewer than 10 rows (less in
      tables of less than 800 rows), is as a missing one.
    - dates and times: seconds since an epoch, month, day, weekday and hour. Durations: seconds.
    - text that is different in nearly every row is left out, with a warning that names the column.
    - constant and empty columns are left out.

    Each member's sums before the softmax are divided by the temperature at which the log-loss of
    the rows held out is least (Guo et al. 2017), so that probabilities are neither too sure nor too
    unsure. It is part of the last layer's weights.

    A member sees at most 2.5 million rows in all its epochs together, each at least 4 times: the
    time of a fit grows in proportion to the rows of a large table.

    Examples
    --------
    >>> import cmlp
    >>> rows = [{"city": "Bern", "size": 3.0}, {"city": "Oslo", "size": None}] * 20
    >>> model = cmlp.TabularClassifier(random_state=0, max_iter=10)
    >>> model = model.fit(rows, ["small", "large"] * 20)
    >>> model.predict([{"city": "Oslo", "size": 2.5}]).tolist()
    ['large']
    """

    _estimator_type = "classifier"
    _labels: Labels

    def __init__(
        self,
        hidden_layer_sizes: Any = "auto",
        activation: Any = "auto",
        *,
        categorical_features: Any = "from_dtype",
        max_one_hot: int | str = "auto",
        embedding_size: int | str = "auto",
        max_categories: int | None = None,
        numeric_embedding: str | None = "auto",
        solver: str = "auto",
        learning_rate_init: float | str = "auto",
        learning_rate: Any = "auto",
        batch_size: int | str = "auto",
        max_iter: int | str = "auto",
        weight_decay: float | str = "auto",
        dropout: Any = "auto",
        label_smoothing: float | str = "auto",
        scoring: str | Callable[..., float] = "loss",
        early_stopping: bool = True,
        validation_fraction: float = 0.2,
        n_iter_no_change: float | str = "auto",
        cv: int | str | None = "auto",
        n_ensemble: int | str = "auto",
        class_weight: dict[Any, float] | str | None = None,
        missing_targets: bool = False,
        dtype: Any = "float32",
        random_state: Any = None,
        n_threads: int | None = None,
        max_time: float | None = None,
        verbose: bool | int = False,
        callbacks: Iterable[Any] = (),
        precision: str | None = None,
    ) -> None:
        self._store(locals())

    def _own_score(self) -> str:
        return "accuracy"

    def _read_targets(self, rows: Rows, known: Targets | None = None) -> Targets:
        return encode_labels(rows, self.class_weight, known)

    def _known_targets(self) -> Targets:
        outputs = outputs_for(self._labels)
        return Targets(self._labels.classes, self._labels.classes, None, outputs)

    def _facts(self, targets: Targets, n_rows: int, n_columns: int) -> Facts:
        labels = targets.outputs.labels
        assert labels is not None
        task = "labels" if labels.multilabel else "classes"
        return Facts(task, n_rows, n_columns, len(labels.classes), self.scoring)

    @property
    def classes_(self) -> Array:
        """The labels in the order of the probabilities."""
        self._check_is_fitted()
        return self._labels.classes

    def _labels_fitted(self) -> Labels:
        self._check_is_fitted()
        return self._labels

    @undisturbed
    def _probabilities(self, X: Any) -> Array:
        labels = self._labels_fitted()

        def outputs(member: Member, rows: Any) -> Array:
            if labels.multilabel:  # in float64 a probability is not 1 where float32 rounds it
                z = answers.propagate(member.network, rows, linear=True).astype(np.float64)
                return 1 / (1 + np.exp(-z))
            return probabilities(member.network.predict(rows), labels)

        mean: Array = self._answers(outputs, X)
        return mean

    def predict(self, X: Any) -> Any:
        """Return the likeliest label of each row; for several labels per row a 0/1 matrix.

        Parameters
        ----------
        X : table, (n_samples, n_columns)
            A table with the columns of `fit`.
        """
        return self._labels_of(self._probabilities(X))

    def _labels_of(self, proba: Array) -> Any:
        labels = self._labels
        if labels.multilabel or len(labels.classes) == 1:
            return labels.decode(proba)
        return labels.classes[proba.argmax(axis=1)]

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class, (n_samples, n_classes), float64.

        Parameters
        ----------
        X : table, (n_samples, n_columns)
            A table with the columns of `fit`.
        """
        return self._probabilities(X)

    @undisturbed
    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of the probabilities."""
        proba = self._probabilities(X)
        return np.log(proba, out=proba)

    @undisturbed
    def decision_function(self, X: Any) -> Array:
        """Return log(p / (1 - p)) of the second of two classes, (n_samples,), or of each label.

        Of more classes: log(p), (n_samples, n_classes).
        """
        self._check_is_fitted()
        labels = self._labels

        def sums(member: Member, rows: Any) -> Array:
            z = answers.propagate(member.network, rows, linear=True).astype(np.float64)
            if labels.multilabel:
                return z
            if len(labels.classes) == 2:
                return z[:, 1:] - z[:, :1]
            z -= np.logaddexp.reduce(z, axis=1, keepdims=True)
            return z[:, : len(labels.classes)]

        odds = labels.multilabel or len(labels.classes) == 2
        join = answers.log_odds if odds else answers.log_probabilities
        found: Array = self._answers(sums, X, join)
        return found[:, 0] if len(labels.classes) == 2 and not labels.multilabel else found

    @undisturbed
    def score(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> float:
        """Return the accuracy: the share of rows with the right label, or all labels right."""
        y, sample_weight = targets_of(X, y, sample_weight)
        predicted, y = self.predict(X), read_labels(y)
        predicted = predicted.toarray() if is_sparse(predicted) else predicted
        check_lengths(len(predicted), y)
        self._labels.check_comparable(y)
        right = self._labels.right(np.asarray(predicted), y)
        return float(np.average(right, weights=read_weights(sample_weight, len(y))))

    def _decoder(self) -> Callable[[Array], Any]:
        labels = self._labels
        if labels.multilabel:
            return lambda outputs: (outputs > 0.5).astype(int).tolist()
        classes = labels.classes.tolist()
        if len(classes) == 1:
            return lambda outputs: classes[0]
        if len(classes) == 2:
            return lambda outputs: classes[int(outputs[1] > outputs[0])]
        return lambda outputs: classes[outputs.argmax()]

    def set_predict_proba_request(self, **metadata: Any) -> Any:
        """Set which metadata ``predict_proba`` requests, as in scikit-learn."""
        return self._request("set_predict_proba_request", metadata)
