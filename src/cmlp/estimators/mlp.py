"""What MLPClassifier and MLPRegressor share: from X and y to a training, and predictions.

``train`` trains one network and ``ensemble`` several; ``inputs`` and ``labels`` check X and y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from cmlp.core.errors import warn
from cmlp.core.errstate import undisturbed
from cmlp.core.layout import Array
from cmlp.data.rows import Data, HeldOut, check_pair
from cmlp.data.source import Source, no_targets
from cmlp.estimators import answers, ensemble
from cmlp.estimators.assigned_weights import Assigned, SingleNetworkAttribute
from cmlp.estimators.inputs import Columns, check_names, read_X
from cmlp.estimators.labels import Labels
from cmlp.estimators.parameters import STOCHASTIC, check_parameters
from cmlp.estimators.protocols import wrapped
from cmlp.estimators.storage import Storage, answers_of
from cmlp.estimators.targets import Targets, Task
from cmlp.estimators.train import train
from cmlp.network import Network
from cmlp.training.rates import LearningRate

if TYPE_CHECKING:
    from cmlp.diagnosis.report import Diagnosis
    from cmlp.estimators.sources import SourceFit

NEVER_CALLED = (
    "_backprop", "_compute_loss_grad", "_fit_lbfgs", "_fit_stochastic", "_forward_pass",
    "_init_coef", "_initialize", "_update_no_improvement_count", "_validate_input",
)  # fmt: skip
"""Methods of scikit-learn's classes that their ``fit`` calls, and ours does not."""


PRIVATE_OBJECTS: dict[str, Any] = {"_known_labels": Labels, "_optimizer": LearningRate}
"""Attributes that a pickle keeps as a dict of their fields."""


def is_stochastic(estimator: Any) -> None:
    """Check that the solver takes a step per batch."""
    if estimator.solver not in STOCHASTIC:
        raise AttributeError(
            "partial_fit is only available for stochastic optimizers. "
            f"{estimator.solver} is not stochastic."
        )


class MLP(Assigned):
    """What classifier and regressor share."""

    best_iteration_: Any = SingleNetworkAttribute()

    def __init_subclass__(cls, **more: Any) -> None:
        """Warn of a subclass that overrides methods which only scikit-learn's training calls."""
        super().__init_subclass__(**more)
        own = [name for name in NEVER_CALLED if hasattr(cls, name)]
        if cls._forward_pass is MLP._forward_pass:
            own.remove("_forward_pass")
        if own:
            warn(
                f"{cls.__name__} has {', '.join(own)}, but training never calls it: for first "
                "weights there are fit(..., coefs_init=..., intercepts_init=...), for what is to "
                "happen after each epoch callbacks=[...], for other losses and weights of rows "
                "loss, class_weight and sample_weight; else use scikit-learn's class"
            )

    def _store(self, parameters: dict[str, Any]) -> None:
        """Store the constructor's arguments as they are."""
        for name, value in parameters.items():
            if name not in ("self", "__class__"):
                setattr(self, name, value)

    def _check_parameters(self) -> None:
        """Check parameters; those of the network are checked when it is made."""
        check_parameters(self)

    def _encode(
        self, y: Any, sample_weight: Any, n_rows: int, known: Targets | None = None, *,
        once: bool = False, named: Labels | None = None,
    ) -> Targets:  # fmt: skip
        """Check targets and weights of `n_rows`, and encode them.

        Parameters
        ----------
        known : Targets, optional
            Those to train on, where these are of held-out rows.
        once : bool
            Whether they are of a ``partial_fit``.
        named : Labels, optional
            Those of its first call.
        """
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with private objects by their fields: pickles name public classes."""
        state = dict(vars(self))
        for name in PRIVATE_OBJECTS.keys() & state.keys():
            state[name] = state[name] and dict(vars(state[name]))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        for name, kind in PRIVATE_OBJECTS.items():
            if state.get(name):
                restored = kind.__new__(kind)
                vars(restored).update(state[name])
                setattr(self, name, restored)

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
        coefs_init: Any = None,
        intercepts_init: Any = None,
        eval_set: Any = None,
        validation_data: Any = None,
        memory: int | str = "1 GB",
        checkpoint: Any = None,
        checkpoint_every: float = 300,
        resume: bool = False,
    ) -> Any:
        """Fit the network to X and y.

        Parameters
        ----------
        X : array-like or sparse matrix, (n_samples, n_features), or Source
            A source (:mod:`cmlp.data`) has its own y and weights, and need not fit into memory.
        y : array-like, (n_samples,) or (n_samples, n_outputs)
            Labels, or a 0/1 matrix for several labels per row; numbers for the regressor.
        sample_weight : array-like, (n_samples,), optional
            How much each row counts; by default all alike.
        X_val, y_val, sample_weight_val : optional
            Rows to validate on after every epoch; with ``early_stopping`` they decide when to
            stop, in place of rows taken from X.
        coefs_init, intercepts_init : list of array-like, optional
            First weights and biases, one array per layer.
        eval_set, validation_data : optional
            The same rows in the words of others: ``[(X, y)]``, and ``(X, y)``.
        memory, checkpoint, checkpoint_every, resume : optional
            As in :meth:`cmlp.Network.fit`. Checkpoints are for a single network and a solver that
            takes steps.

        Returns
        -------
        self

        Raises
        ------
        InvalidParameterError
            For a parameter that is out of range; it is a ValueError and a TypeError.
        ValueError, TypeError
            For X, y and weights that cannot be learned from.
        DivergenceError
            If numbers became infinite or NaN; the last finite weights are kept.
        """
        if eval_set is not None:
            if len(eval_set) != 1:
                raise ValueError(f"eval_set must hold one pair (X, y); it holds {len(eval_set)}")
            validation_data = eval_set[0]
        if validation_data is not None:
            X_val, y_val, *rest = validation_data
            sample_weight_val = rest[0] if rest else sample_weight_val
        validation = (X_val, y_val, sample_weight_val)
        init = coefs_init, intercepts_init
        storage = Storage(memory, checkpoint, checkpoint_every, resume)
        return self._fit_to(X, y, sample_weight, validation, storage, init)

    def _fit_to(
        self, X: Any, y: Any, weight: Any, validation: Any, storage: Storage,
        init: tuple[Any, Any] = (None, None), **how: Any,
    ) -> Any:  # fmt: skip
        if isinstance(X, Source) or not storage.is_plain:
            return self._fit_source(X, (y, weight), validation, init, storage=storage, **how)
        return self._fit(X, y, weight, validation, init, **how)

    @undisturbed
    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        validation: tuple[Any, Any, Any],
        init: tuple[Any, Any] = (None, None),
        *,
        once: bool = False,
        named: Labels | None = None,
        of_source: SourceFit | None = None,
    ) -> Any:
        """Read the problem, and train the network or the members; `once` for ``partial_fit``."""
        task = self._task(X, y, sample_weight, init, once=once, named=named, of_source=of_source)
        task = replace(task, held_out=self._read_held_out(task, *validation))
        if once and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        if self.n_ensemble > 1:
            ensemble.fit(self, task)
        else:
            train(self, task, of_source)
        return self

    def _task(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        init: tuple[Any, Any] = (None, None),
        *,
        once: bool = False,
        named: Labels | None = None,
        of_source: SourceFit | None = None,
    ) -> Task:
        """Check the parameters, read the problem, and return it."""
        self._check_parameters()
        first = not (self.warm_start or once) or not self._has_networks()
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y "
                "is None."
            )
        if not first:
            self._check_number_of_networks()
        who = type(self).__name__
        rows, columns = read_X(X, who, None if first else self._columns)
        if of_source is not None and columns.names is None:
            columns = columns._replace(names=of_source.names)
        targets = self._encode(y, sample_weight, rows.shape[0], once=once, named=named)
        data = Data(rows, targets.encoded, targets.weights)
        return Task(data, targets, columns, None, init, first, once)

    @undisturbed
    def _fit_source(
        self,
        X: Any,
        targets: tuple[Any, Any],
        validation: tuple[Any, Any, Any],
        init: tuple[Any, Any] = (None, None),
        *,
        storage: Storage,
        once: bool = False,
        named: Labels | None = None,
    ) -> Any:
        """Train on a source, or on arrays with checkpoints."""
        from cmlp.sources.arrays import arrays

        self._check_parameters()
        if isinstance(X, Source):
            no_targets(*targets)
        else:
            X = arrays(X, *targets)
        of_source = self._fit_of(X, storage)
        found = of_source.rows()
        how: dict[str, Any] = {"once": once, "named": named}
        if found is not None:
            rows, y, weight = found
            try:
                return self._fit(rows, y, weight, validation, init, **how, of_source=of_source)
            except (TypeError, ValueError):
                of_source.locate(named, once)
                raise
        first = not (self.warm_start or once) or not self._has_networks()
        task = of_source.task(of_source.targets(named, once), init, first, once)
        if not first:
            check_names(of_source.names, self._columns.names, type(self).__name__)
        if once and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        of_source.train(replace(task, held_out=self._read_held_out(task, *validation)))
        return self

    def _fit_of(self, source: Source, storage: Storage) -> SourceFit:
        """Return what trains on a source."""
        from cmlp.estimators.sources import SourceFit

        return SourceFit(self, source, storage)

    def _read_held_out(self, task: Task, X_val: Any, y_val: Any, weights: Any) -> HeldOut | None:
        """Check rows to validate on, if there are any, against those to train on."""
        check_pair(X_val, y_val)
        if X_val is None:
            return None
        try:
            rows, _ = read_X(X_val, type(self).__name__, task.columns)
            targets = self._encode(y_val, weights, rows.shape[0], task.targets)
        except (TypeError, ValueError) as error:
            error.add_note("This is about the rows held out: X_val, y_val, sample_weight_val.")
            raise
        y, y_val = task.targets.y, targets.y
        if y_val.shape[1:] != y.shape[1:]:
            raise ValueError(
                f"y_val has the shape {y_val.shape}, y has {y.shape}: both need one column per "
                "output"
            )
        return HeldOut(Data(rows, targets.encoded, targets.weights), None, X_val, y_val)

    def _check_number_of_networks(self) -> None:
        """Check that an estimator whose training continues has as many members as before."""
        n = len(getattr(self, "estimators_", [self]))
        if n > self.n_ensemble or (n < self.n_ensemble and hasattr(self, "network_")):
            raise ValueError(
                f"n_ensemble={self.n_ensemble}, but {n} were fitted: an ensemble whose training "
                "continues can get more members, a single network cannot; set warm_start=False to "
                "begin anew"
            )

    # Answers -------------------------------------------------------------------------------------

    def _outputs(self, X: Any) -> Array:
        """Return the output activations of rows, (n, n_outputs)."""
        net: Network | None = self.__dict__.get("network_")  # faster than its descriptor's error
        if net is not None and type(X) is np.ndarray and self._names is None and not self._misfit:
            ready = net.bound_outputs()(X)
            if ready is not None:
                return ready
        return self._run(X)

    @undisturbed
    def _answer(
        self, answer: Callable[[Network, Any], Array], X: Any, join: Any = answers.mean
    ) -> Any:
        """Return the answer of the network about the rows, or the members' answers, joined."""
        self._check_is_fitted()
        if isinstance(X, Source):
            columns = Columns(self._columns.n)
            given = np.array(X.feature_names, object) if X.feature_names else None
            check_names(given, self._columns.names, type(self).__name__)
            return answers_of(X, lambda rows: self._of_rows(answer, rows, join, columns))
        return self._of_rows(answer, X, join, self._columns)

    def _of_rows(
        self, answer: Callable[[Network, Any], Array], X: Any, join: Any, columns: Columns
    ) -> Any:
        rows, _ = read_X(X, type(self).__name__, columns, text=False)
        networks = self._networks()
        parts = (answer(net, rows) for net in networks)
        return next(parts) if len(networks) == 1 else join(parts)

    def _run(self, X: Any) -> Array:
        """Return the output activations of any rows."""
        outputs: Array = self._answer(answers.propagate, X)
        return outputs

    def _run_with_std(self, X: Any) -> tuple[Array, Array]:
        """Return the mean of the members' outputs, and their standard deviation."""
        self._check_is_fitted()
        if len(self._networks()) == 1:
            raise ValueError("return_std compares the members of an ensemble: set n_ensemble=5")
        mean, std = self._answer(answers.propagate, X, answers.mean_and_std)
        return mean, std

    @undisturbed
    def _forward_pass(self, activations: list[Any]) -> list[Any]:
        """Write each layer's activations into the list, after the rows that it begins with.

        It has scikit-learn's name, as programs call it to see hidden layers.
        """
        self._check_is_fitted()
        net = self.network_
        X, _ = read_X(activations[0], type(self).__name__, self._columns)
        for n_layers in range(1, len(net.sizes)):
            activations[n_layers] = answers.propagate(net, X, n_layers)
        return activations

    def _forward_pass_fast(self, X: Any, check_input: bool = True) -> Array:
        """Return the output activations; programs call this method of scikit-learn's."""
        return self._run(X)

    def transform(self, X: Any, layer: int = -1) -> Any:
        """Return the activations of a hidden layer, (n_samples, units).

        Of an ensemble: those of all members side by side, (n_samples, n_ensemble * units).

        Parameters
        ----------
        layer : int
            Which hidden layer, counted from 0 or, below zero, from the end: -1 is the last.
        """
        self._check_is_fitted()
        n_hidden = self.n_layers_ - 2
        if not -n_hidden <= layer < n_hidden:
            raise ValueError(f"layer={layer} is none of this network's {n_hidden} hidden layers")
        number = layer % n_hidden

        def hidden(net: Network, rows: Any) -> Array:
            return answers.propagate(net, rows, 1 + number)

        units: Array = self._answer(hidden, X, answers.side_by_side)
        return wrapped(self, units, X, self._unit_names(units.shape[1]))

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """Fit, and return the activations of the last hidden layer."""
        return self.fit(X, y, **fit_params).transform(X)

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Return names for the columns of ``transform``: the class and the unit's number."""
        self._check_is_fitted()
        networks = self._networks()
        return self._unit_names(len(networks) * networks[0].sizes[-2])

    def _unit_names(self, n: int) -> Array:
        prefix = type(self).__name__.lower()
        return np.asarray([f"{prefix}{i}" for i in range(n)], dtype=object)

    def diagnose(
        self, X: Any, y: Any, sample_weight: ArrayLike | None = None, **held_out: Any
    ) -> Diagnosis:
        """Report in plain words what is wrong with a training; see :func:`cmlp.diagnose`.

        Parameters
        ----------
        **held_out
            X_val and y_val.
        """
        from cmlp.diagnosis.report import diagnose_models
        from cmlp.estimators.diagnosis import model_of_estimator

        members = getattr(self, "estimators_", [self])
        models = [model_of_estimator(member) for member in members]
        return diagnose_models(models, X, y, sample_weight=sample_weight, **held_out)

    def input_gradient(self, X: Any) -> Array:
        """Return the derivatives of the outputs by the inputs.

        For the classifier these are the probabilities' (with two classes, the second one's); for
        an ensemble, the mean prediction's.

        Returns
        -------
        ndarray, (n_samples, n_features), or (n_samples, n_outputs, n_features)
        """
        gradients: Array = self._answer(answers.slopes, X)
        return gradients[:, 0] if self.n_outputs_ == 1 else gradients
