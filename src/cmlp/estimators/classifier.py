"""MLPClassifier."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cmlp.core.arrays import refuse_masked
from cmlp.core.errstate import undisturbed
from cmlp.core.layout import Array
from cmlp.core.public import set_module
from cmlp.data.frames import is_sparse
from cmlp.data.labels import check_classes, places
from cmlp.data.source import Source
from cmlp.estimators.answers import log_odds, log_probabilities, propagate
from cmlp.estimators.assigned_weights import missing
from cmlp.estimators.curves import forget_best
from cmlp.estimators.inputs import FLOAT64, Columns, check_lengths, is_single, read_weights
from cmlp.estimators.labels import Labels, class_weights, extended, read_labels
from cmlp.estimators.mlp import MLP, is_stochastic
from cmlp.estimators.networks import check_described, keep, new_network
from cmlp.estimators.parameters import check_choice, check_real, parameters_at_fault
from cmlp.estimators.protocols import available_if, label_binarizer
from cmlp.estimators.storage import Storage, targets_of
from cmlp.estimators.targets import Outputs, Targets
from cmlp.model.new_outputs import add_outputs
from cmlp.network import Network

LOG_LOSSES = (
    "log_loss", "bce", "binary_crossentropy", "categorical_crossentropy", "cross_entropy",
)  # fmt: skip


@set_module("cmlp")
class MLPClassifier(MLP):
    """A multilayer perceptron that predicts classes, or several labels per row.

    ``sklearn.neural_network.MLPClassifier`` with the same parameters, defaults and results, and
    more. With the same `random_state` it starts from the same weights and uses the rows in the
    same order.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
        Units of each hidden layer.
    activation : str or sequence of str
        Of the hidden layers, one for all or one each: 'identity', 'logistic', 'tanh', 'relu',
        'leaky_relu', 'elu', 'selu', 'gelu', 'silu', 'mish', 'softplus', 'hard_sigmoid'; with a
        slope below 0 as in 'leaky_relu:0.3', with an alpha as in 'elu:0.5'. Another one acts on a
        fitted estimator at once, as in scikit-learn.
    solver : {'adam', 'sgd', 'lbfgs', 'adamw', 'rmsprop', 'nadam', 'lion'}
        'lbfgs' uses all rows at once, in float64: for small data. 'lion' needs a tenth of Adam's
        learning rate.
    alpha : float
        Strength of the penalty on the weights, divided by the weight of the batch (without sample
        weights its rows): ``alpha * (l1_ratio |W| + (1 - l1_ratio) / 2 W^2) / rows``.
    batch_size : int or 'auto'
        Rows per step; 'auto' is ``min(200, n_samples)``.
    learning_rate : str, Schedule or callable
        'constant', 'invscaling' and 'adaptive' are scikit-learn's: the last two change the rate of
        every solver but 'adam'. 'cosine', 'one_cycle', 'step', 'exponential', one of
        :mod:`cmlp.schedules` or a callable of the epoch act with every solver.
    learning_rate_init : float
        The rate that the schedule starts from.
    power_t : float
        Exponent of 'invscaling'.
    max_iter : int
        Most epochs (of 'lbfgs': iterations).
    shuffle : bool
        Draw a new order of the rows for each epoch.
    random_state : int, RandomState, Generator or None
        Source of first weights, order of rows, split and dropout. None uses NumPy's global
        generator, as scikit-learn does.
    tol : float
        Change of loss or score that counts as an improvement; of 'lbfgs', the largest derivative
        at which it has converged.
    verbose : bool or int
        Print the loss of every epoch; 1 or True shows a progress bar instead on a terminal or in a
        notebook (tqdm's or rich's where one is installed).
    warm_start : bool
        ``fit`` continues where it stopped, with the optimizer's state. Parameters that describe
        another network than the fitted one are refused: layers, `out_activation`, `loss`,
        `input_scale`, `normalization`, `dtype`.
    momentum, nesterovs_momentum : float, bool
        Of 'sgd'; at the momentum 1 no step is forgotten.
    early_stopping : bool
        Stop by the score on rows that are held out, and restore the best weights.
    validation_fraction : float
        Part of the rows that is held out for it, unless ``fit`` gets ``X_val``.
    beta_1, beta_2, epsilon : float
        Of 'adam', 'adamw', 'nadam', of 'rmsprop' (not `beta_1`) and of 'lion' (not `epsilon`).
    n_iter_no_change : int or inf
        Training stops after more epochs than that without an improvement.
    max_fun : int
        Most evaluations of 'lbfgs'.
    loss : str
        'log_loss': binary cross-entropy for two classes and for several labels per row,
        categorical for more classes.
    out_activation : str, optional
        Of the output layer; by default 'logistic' or 'softmax', as belongs to the loss.
    l1_ratio : float
        Part of `alpha` that weighs ``|W|``.
    weight_decay : float
        Subtracted from the weights in addition to the gradient (AdamW's decay, for every solver).
    warmup_fraction : float
        Part of the training over which the learning rate rises from zero.
    dropout : float or sequence of float
        Probability that a hidden unit is switched off; one for all or one per layer.
    input_noise : float
        Standard deviation of noise added to the inputs.
    weight_init : str
        'auto' is scikit-learn's: weights and biases uniform within
        ``sqrt(6 / (n_in + n_out))`` (2 in place of 6 for 'logistic'). Others: see
        :class:`cmlp.Network`.
    class_weight : dict, 'balanced' or None
        Weight of each class, multiplied with the sample weights.
    label_smoothing : float
        Moves targets this far towards equal probabilities.
    clip_norm : float or None
        Largest norm of a gradient.
    input_scale : float
        Factor of every input, applied as rows are gathered: 1/255 for bytes of pixels.
    scoring : str, callable or None
        What decides on the rows held out: None is the accuracy, 'loss' the (negative) loss, a name
        one of scikit-learn's scorers, a callable ``scorer(estimator, X, y)``.
    callbacks : iterable
        Functions of a :class:`cmlp.TrainingState`, called after each epoch; one that returns
        anything true ends the training. Not for 'lbfgs', which has no epochs.
    max_time : float or None
        Seconds after which training stops, within a step if need be.
    n_threads, n_jobs : int or None
        Threads; None (or -1) uses every processor, or as many as ``CMLP_NUM_THREADS`` or
        ``OMP_NUM_THREADS`` allow, where a step is large enough to gain.
    dtype : {'float32', 'float64'}
        What is computed in, whatever the dtype of X is.
    normalization : {None, 'batch', 'layer'}
        Of the hidden layers' weighted sums, as :class:`cmlp.Network` describes it; 'batch' is not
        for 'lbfgs', and needs batches of at least two rows.
    ema : float
        Average the weights over the steps, [0, 1): each step leaves this much of the old mean; 0
        averages nothing. The mean is what is validated, shown to callbacks and left in the network;
        ``partial_fit`` and ``warm_start`` continue from the weights that it is of. Not of 'lbfgs'.
    n_ensemble : int
        Above 1, train so many networks that differ in all that `random_state` draws (first weights,
        order of rows, rows held out), one per thread at a time, and predict their mean. Callbacks
        are called by each member, from its thread, with its state; `max_time` is that of all; with
        `verbose` there is a line per member.
    normalization_epsilon : float
        What is added to the variance of a normalisation.
    precision : {None, 'bfloat16', 'bfloat16-emulated'}
        What operands of products are rounded to, as :class:`cmlp.Network` describes it. 'lbfgs'
        trains without, in float64.

    Attributes
    ----------
    classes_ : ndarray
        The labels, in the order of the outputs. Others may be assigned, in any order, each once:
        they are what is predicted, and what ``fit`` with `warm_start` and ``partial_fit`` learn.
    coefs_, intercepts_ : list of ndarray
        Weights (n_in, n_out) and biases (n_out,) per layer: views, to be written to as well. Lists
        of any shapes that fit each other may be assigned, also to an estimator that was never
        fitted: it predicts with them, and its labels are ``classes_`` or, without that, 0, 1, ...
    loss_, best_loss_, loss_curve_
        Training loss with the penalty: of the last epoch, the lowest, of every epoch.
    validation_scores_, best_validation_score_, validation_loss_curve_
        The same of the rows held out; None where there are none.
    best_iteration_ : int
        The epoch with the best score (without early stopping: the lowest training loss), from 1.
    should_stop_ : bool
        Whether there were more than `n_iter_no_change` epochs without an improvement, or a callback
        requested the end: what ends ``fit``, and may end a loop around ``partial_fit``.
    history_ : History
        Everything about every epoch, a dict of lists.
    n_iter_, t_ : int
        Epochs of the last fit; rows seen.
    n_layers_, n_outputs_, out_activation_, n_features_in_, feature_names_in_
        The network's shape, and its inputs. An ``out_activation_`` that is assigned is what
        predicts from then on: 'identity' makes logits of probabilities.
    network_ : Network
        The network itself.
    estimators_ : list
        Of an ensemble: its members, fitted estimators with a network each. The ensemble itself has
        no ``network_``, ``coefs_``, ``intercepts_`` and ``best_iteration_``; its losses, scores,
        curves and ``history_`` are means over the members (that have the epoch), ``n_iter_`` and
        ``t_`` the largest.

    Examples
    --------
    >>> import cmlp
    >>> digits = cmlp.load_digits()
    >>> clf = cmlp.MLPClassifier((32,), max_iter=20, tol=0, random_state=0, input_scale=1 / 16)
    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", cmlp.ConvergenceWarning)
    ...     clf = clf.fit(digits.X_train, digits.y_train)
    >>> bool(clf.score(digits.X_test, digits.y_test) > 0.9)
    True
    """

    _estimator_type = "classifier"

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str | Sequence[str] = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: Any = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        loss: str = "log_loss",
        out_activation: str | None = None,
        l1_ratio: float = 0.0,
        weight_decay: float = 0.0,
        warmup_fraction: float = 0.0,
        dropout: float | Sequence[float] = 0.0,
        input_noise: float = 0.0,
        weight_init: str = "auto",
        class_weight: dict[Any, float] | str | None = None,
        label_smoothing: float = 0.0,
        clip_norm: float | None = None,
        input_scale: float = 1.0,
        scoring: str | Callable[..., float] | None = None,
        callbacks: Iterable[Any] = (),
        max_time: float | None = None,
        n_threads: int | None = None,
        n_jobs: int | None = None,
        dtype: Any = "float32",
        normalization: str | None = None,
        ema: float = 0.0,
        n_ensemble: int = 1,
        normalization_epsilon: float = 1e-5,
        precision: str | None = None,
    ) -> None:
        self._store(locals())

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice(self, "loss", LOG_LOSSES)
        check_real(self, "label_smoothing", "[0, 1)")

    @property
    def _labels(self) -> Labels:
        """The labels; those that a program has assigned to the network since replace them."""
        labels = self._known_labels
        if labels is None:
            raise missing(self, "_labels")
        net = self.__dict__.get("network_")  # faster than its descriptor's error
        if net is None or net.classes is None or net.classes is labels.classes:
            return labels
        return self._rename(net.classes, labels.multilabel)

    @property
    def classes_(self) -> Array:
        """The labels in the order of the outputs; others may be written here."""
        if self._known_labels is None or self._known_labels.assumed:
            raise missing(self, "classes_")
        return self._labels.classes

    @classes_.setter
    def classes_(self, labels: ArrayLike) -> None:
        known = self._known_labels
        self._rename(labels, known is not None and known.multilabel)

    @property
    def _label_binarizer(self) -> Any:
        """What scikit-learn has under this name: programs read it, and move it between models."""
        labels = self.classes_
        return label_binarizer(labels, multilabel=self._labels.multilabel)

    @_label_binarizer.setter
    def _label_binarizer(self, binarizer: Any) -> None:
        if hasattr(binarizer, "classes_"):
            multilabel = binarizer.y_type_.startswith("multilabel")
            self._rename(binarizer.classes_, multilabel)

    def _rename(self, classes: ArrayLike, multilabel: bool) -> Labels:
        """Take labels for the outputs; estimator and networks have one array of them."""
        known = self._known_labels
        networks = self._networks() if self._has_networks() else []
        n = len(known.classes) if networks and known is not None else None
        classes = np.array(check_classes("classes_", classes, n))
        if classes.dtype.kind == "S":
            raise TypeError("classes_ must be text or numbers, not bytes: decode them first")
        labels = Labels(classes, multilabel, known is not None and known.sparse)
        for each in (self, *getattr(self, "estimators_", ())):
            each._known_labels = labels
        for net in networks:
            net.classes = labels.of_network
        return labels

    def _outputs_of(self, n: int) -> Outputs:
        known = self._known_labels
        named = known is not None and not known.assumed
        labels = self._labels if named else Labels(np.arange(max(n, 2)), assumed=True)
        if n not in (len(labels.classes), labels.n_outputs):
            raise ValueError(
                f"the last layer of coefs_ has {n} outputs, but classes_ has "
                f"{len(labels.classes)} labels"
            )
        return _outputs(labels, n)

    def _encode(
        self, y: Any, sample_weight: Any, n_rows: int, known: Targets | None = None, *,
        once: bool = False, named: Labels | None = None,
    ) -> Targets:  # fmt: skip
        sparse, y = is_sparse(y), read_labels(y, learns=known is None)
        check_lengths(n_rows, y)
        if known is None:
            outputs = _outputs(self._labels_in(y, sparse, once, named))
        else:
            outputs = known.outputs
        labels = outputs.labels
        assert labels is not None
        encoded = labels.encode(y)
        weights = read_weights(sample_weight, len(y))
        with parameters_at_fault():
            by_class = class_weights(self.class_weight, y, labels)
        if by_class is not None:
            weights = by_class if weights is None else weights * by_class
        return Targets(y, encoded, weights, outputs)

    def _labels_in(self, y: Array, sparse: bool, once: bool, named: Labels | None) -> Labels:
        """Return the labels of y, or the earlier ones, which y must have."""
        known = named or (self._labels if hasattr(self, "classes_") else None)
        if known is None or not (self.warm_start or once):
            return Labels.of(y, sparse)
        if self.warm_start:
            labels = Labels.of(y)
            both = labels.multilabel and known.multilabel  # their number is compared later
            if not (both or labels.are(known.classes)):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous "
                    f"call to fit. Previously got {known.classes}, `y` has {labels.classes}"
                )
        return known

    @available_if(is_stochastic)
    def partial_fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: ArrayLike | None = None,
        classes: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: ArrayLike | None = None,
        memory: int | str = "1 GB",
    ) -> Any:
        """Use every row once, and continue where the last call stopped.

        Parameters
        ----------
        X : array-like or sparse matrix, (n_samples, n_features)
            Rows of the batch.
        y : array-like, (n_samples,) or (n_samples, n_labels)
            Their labels.
        sample_weight : array-like, (n_samples,), optional
            How much each row counts; by default all alike.
        classes : array-like
            All labels that will come (see :meth:`add_classes`); needed at the first call.
        X_val, y_val, sample_weight_val : optional
            Rows to validate on; ``should_stop_`` then goes by their score.
        memory : int or str
            Of a source in place of X, as in ``fit``.

        Returns
        -------
        self
        """
        known, named = getattr(self, "classes_", None), None
        if isinstance(X, Source) and classes is None and known is None:
            classes = X.summary(features=False).labels
        if classes is None and known is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if classes is not None:
            refuse_masked("y", y)
            given = Labels(np.unique(read_labels(classes, name="classes")))
            if known is None:
                several = is_sparse(y) or (np.ndim(y) == 2 and np.shape(y)[1] > 1)
                named = Labels.of(read_labels(y), is_sparse(y)) if several else given
            elif not given.are(known):
                raise ValueError(
                    f"`classes={classes!r}` is not the same as on last call to partial_fit, was: "
                    f"{known!r}"
                )
        validation, how = (X_val, y_val, sample_weight_val), Storage(memory)
        return self._fit_to(X, y, sample_weight, validation, how, once=True, named=named)

    @undisturbed
    def add_classes(self, labels: ArrayLike) -> Any:
        """Add outputs for new labels, which ``partial_fit`` can then learn.

        The network gets an output for each, and keeps all others with their optimizer state. The
        new outputs begin with the mean of the old weights: no prediction changes, and the
        probabilities of the old classes stay in proportion. Two classes, which had one output
        between them, get one each.

        Parameters
        ----------
        labels : array-like or label
            Those that are known already are left alone. ``classes_`` stays sorted.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For several labels per row, labels of another type, and a network of one class.
        """
        self._check_is_fitted()
        if len(self.classes_) == 2 and self.out_activation is not None:
            raise ValueError(
                "add_classes makes softmax of the one output of two classes, but out_activation is "
                f"{self.out_activation!r}; leave it None"
            )
        known = extended(self._labels, labels)
        before = self._outputs_of(self.n_outputs_)
        for each in getattr(self, "estimators_", [self]):
            check_described(each, each.network_, before)
        if len(known.classes) > len(self.classes_):
            for member in getattr(self, "estimators_", ()):
                _grow(member, known)
            _grow(self, known)
        return self

    def predict(self, X: Any) -> Any:
        """Return the likeliest label of each row; for several labels per row a 0/1 matrix."""
        outputs = self._outputs(X)
        return self._labels.decode(outputs)

    def predict_proba(self, X: Any, return_std: bool = False) -> Any:
        """Return the probability of each class, (n_samples, n_classes).

        They are float64, unless X is float32.

        Parameters
        ----------
        X : array-like or sparse matrix, (n_samples, n_features)
            Rows of the features of `fit`.
        return_std : bool
            Also return the standard deviation over the members of an ensemble, of the same shape.
        """
        if not return_std:
            return self._for_each_class(self._outputs(X), X)
        return self._proba_with_std(X)

    @undisturbed
    def _proba_with_std(self, X: Any) -> tuple[Array, Array]:
        mean, std = self._run_with_std(X)
        proba = self._for_each_class(mean, X)
        return proba, np.broadcast_to(std, proba.shape).astype(proba.dtype)

    def _for_each_class(self, outputs: Array, X: Any) -> Array:
        """Return a column per class, also of one output for two classes."""
        dtype = outputs.dtype if is_single(X) else FLOAT64
        if outputs.shape[1] == 1 and not self._labels.multilabel:
            both = np.empty((len(outputs), 2), dtype)
            both[:, 1] = outputs[:, 0]
            np.subtract(1, both[:, 1], out=both[:, 0])
            return both
        if outputs.dtype == dtype:
            return outputs
        proba = outputs.astype(dtype)
        if self.out_activation_ == "softmax":  # drawing by them needs a sum of 1 in their dtype
            proba /= np.add.reduce(proba, axis=1, keepdims=True)
        return proba

    def set_predict_proba_request(self, **metadata: Any) -> Any:
        """Set which metadata ``predict_proba`` requests, as in scikit-learn."""
        return self._request("set_predict_proba_request", metadata)

    @undisturbed
    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of the probabilities."""
        probabilities: Array = self.predict_proba(X)
        return np.log(probabilities, out=probabilities)

    def decision_function(self, X: Any) -> Array:
        """Return the outputs before their activation: (n_samples,) for two classes, else a matrix.

        Above 0 the second of two classes, or a label, is the likelier; else the largest wins. Of an
        ensemble they are those of the mean probabilities: log(p / (1 - p)) or log(p).
        """

        def linear(net: Network, rows: Any) -> Array:
            return propagate(net, rows, linear=True)

        self._check_is_fitted()
        single = self._labels.multilabel or self.n_outputs_ == 1
        sums: Array = self._answer(linear, X, log_odds if single else log_probabilities)
        return sums[:, 0] if sums.shape[1] == 1 and not self._labels.multilabel else sums

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


def _outputs(labels: Labels, n: int | None = None) -> Outputs:
    """Return what the outputs stand for, `n` of them or as many as the labels need."""
    n = labels.n_outputs if n is None else n
    single = labels.multilabel or n == 1
    loss = "binary_crossentropy" if single else "categorical_crossentropy"
    return Outputs(n, loss, labels.multilabel, labels)


def _grow(classifier: Any, labels: Labels) -> None:
    """Give a classifier outputs for all these labels."""
    outputs, more = _outputs(labels), {}
    columns = Columns(classifier.n_features_in_, getattr(classifier, "feature_names_in_", None))
    if hasattr(classifier, "network_"):
        at = places(labels.classes, classifier.classes_)
        larger = new_network(classifier, columns, outputs)
        add_outputs(classifier.network_, larger, at)
        forget_best(classifier)
        more = {"network_": larger}
    keep(classifier, columns, outputs, classifier.n_layers_, **more)
