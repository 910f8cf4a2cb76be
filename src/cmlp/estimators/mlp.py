"""What MLPClassifier and MLPRegressor share: parameters, network, fit and the ways to ask it.

What a fit does step by step is in ``_fitting``, what it takes as X and y in ``_rows`` and
``_labels``, what only scikit-learn asks for in ``_sklearn``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from cmlp.core.checks import check_dtype, plain
from cmlp.core.errors import InvalidParameterError, warn
from cmlp.core.errstate import undisturbed
from cmlp.core.layout import Array
from cmlp.data.rows import Data, HeldOut, check_pair
from cmlp.data.split import split_like_sklearn
from cmlp.estimators import ensemble, lbfgs
from cmlp.estimators.answers import propagate, slopes
from cmlp.estimators.assigned_weights import Assigned
from cmlp.estimators.fit import STOCHASTIC, EstimatorRecipe, StochasticFit, penalties
from cmlp.estimators.inputs import read_X
from cmlp.estimators.parameters import (
    check_bools,
    check_choice,
    check_count,
    check_real,
    is_count,
    parameters_at_fault,
    refuse,
)
from cmlp.estimators.protocols import wrapped
from cmlp.estimators.rates import Pace
from cmlp.model.architecture import loss_parameters, resolve_hidden, resolve_loss
from cmlp.model.assignment import write
from cmlp.network import Network

if TYPE_CHECKING:
    import threading

    from cmlp.diagnosis.report import Diagnosis

HELD_OUT = ("validation_scores_", "validation_loss_curve_")
"""What is written after every epoch about the rows held out."""


NEVER_CALLED = (
    "_backprop", "_compute_loss_grad", "_fit_lbfgs", "_fit_stochastic", "_forward_pass",
    "_init_coef", "_initialize", "_update_no_improvement_count", "_validate_input",
)  # fmt: skip
"""Methods of scikit-learn's classes that their ``fit`` calls, and ours does not."""


def takes_steps(estimator: Any) -> None:
    if estimator.solver not in STOCHASTIC:
        raise AttributeError(
            "partial_fit is only available for stochastic optimizers. "
            f"{estimator.solver} is not stochastic."
        )


class MLP(Assigned):
    """What classifier and regressor share."""

    network_: Any = ensemble.OfOneNetwork()
    best_iteration_: Any = ensemble.OfOneNetwork()

    _halt: threading.Event | None = None
    """What stops the training of an ensemble's member."""

    def __init_subclass__(cls, **more: Any) -> None:
        """Warn of a subclass that means to change the training by scikit-learn's methods."""
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

    def _keep(self, parameters: dict[str, Any]) -> None:
        """Store the constructor's arguments as they came."""
        for name, value in parameters.items():
            if name not in ("self", "__class__"):
                setattr(self, name, value)

    def _network_loss(self) -> Any:
        """Return the loss as the network knows it."""
        raise NotImplementedError

    def _masks(self) -> bool:
        """Whether a NaN among the targets is one that is not known."""
        raise NotImplementedError

    def _classes(self) -> Array | None:
        """Return the labels in the order of the outputs, if there is one per row."""
        return None

    def _n_outputs(self, targets: Array) -> int:
        """Return how many outputs the targets need."""
        raise NotImplementedError

    def _stratifies(self, targets: Array) -> bool:
        """Whether rows that are held out keep the proportions of the classes."""
        raise NotImplementedError

    def _read(
        self, X: Any, y: Any, sample_weight: Any, *, learns: bool = True, reset: bool = False,
        incremental: bool = False,
    ) -> tuple[Data, Any]:  # fmt: skip
        """Check rows, and encode their targets; `learns`: they are to train on."""
        raise NotImplementedError

    # Parameters ----------------------------------------------------------------------------------

    def _check_parameters(self) -> None:
        """Refuse parameters that are out of range; the network looks at the others."""
        reals = {
            "alpha": "[0, inf)", "learning_rate_init": "(0, inf)", "power_t": "[0, inf)",
            "tol": "[0, inf)", "momentum": "[0, 1]", "validation_fraction": "[0, 1)",
            "beta_1": "[0, 1)", "beta_2": "[0, 1)", "epsilon": "(0, inf)", "l1_ratio": "[0, 1]",
            "weight_decay": "[0, inf)", "warmup_fraction": "[0, 1)", "input_noise": "[0, inf)",
            "ema": "[0, 1)",
        }  # fmt: skip
        for name, bounds in reals.items():
            check_real(self, name, bounds)
        for name in ("max_iter", "max_fun", "n_ensemble"):
            check_count(self, name)
        check_count(self, "batch_size", "auto")
        check_count(self, "n_iter_no_change", np.inf)
        check_bools(self, "shuffle", "warm_start", "nesterovs_momentum", "early_stopping")
        check_choice(self, "solver", ("lbfgs", *STOCHASTIC))
        if not (isinstance(self.verbose, (bool, np.bool_)) or is_count(self.verbose, 0)):
            raise refuse(self, "verbose", "an int in the range [0, inf) or an instance of 'bool'")
        for name in ("n_threads", "n_jobs"):
            if getattr(self, name) is not None:
                check_count(self, name, -1)
        if self.max_time is not None:
            check_real(self, "max_time", "[0, inf)")
        if not (self.scoring is None or isinstance(self.scoring, str) or callable(self.scoring)):
            raise refuse(self, "scoring", "a str, a callable or None")
        if self.normalization == "batch" and self.solver == "lbfgs":
            raise InvalidParameterError(
                "normalization='batch' keeps running means of its batches, and 'lbfgs' has none; "
                "use normalization='layer' or another solver"
            )

    def _hidden(self) -> list[int]:
        given = self.hidden_layer_sizes
        sizes = [plain(size) for size in (given if np.iterable(given) else [given])]
        if not all(type(size) is int for size in sizes):
            expected = "an array-like or an int in the range [1, inf)"
            raise refuse(self, "hidden_layer_sizes", expected)
        if min(sizes, default=1) < 1:
            raise InvalidParameterError(f"hidden_layer_sizes must be > 0, got {sizes}.")
        return sizes

    def _threads(self) -> int | None:
        wanted = self.n_jobs if self.n_threads is None else self.n_threads
        return None if wanted in (None, -1) else int(wanted)

    @parameters_at_fault()
    def _recipe(self) -> EstimatorRecipe:
        solver = self.solver if self.solver in STOCHASTIC else "sgd"
        mean_over_outputs = self.network_.loss_name not in (
            "poisson", "binary_crossentropy", "categorical_crossentropy", "custom",
        )  # fmt: skip
        return EstimatorRecipe(
            solver=solver,
            learning_rate=self.learning_rate_init,
            momentum=self.momentum,
            nesterov=self.nesterovs_momentum,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
            **penalties(self.alpha, self.l1_ratio),
            weight_decay=self.weight_decay,
            dropout=self.dropout,
            input_noise=self.input_noise,
            label_smoothing=getattr(self, "label_smoothing", 0.0),
            clip_norm=self.clip_norm,
            ema=self.ema,
            cost_scale=1 / self.n_outputs_ if mean_over_outputs else 1.0,
        )

    # The network ---------------------------------------------------------------------------------

    @parameters_at_fault()
    def _new_network(self, sizes: list[int], weight_init: str, seed: int) -> Network:
        """Make a network with these layers, all else as the parameters describe it."""
        self.n_outputs_ = sizes[-1]
        net = Network(
            sizes,
            self.activation,
            self.out_activation,
            self._network_loss(),
            weight_init,
            self.dtype,
            seed,
            quantile=getattr(self, "quantile", 0.5),
            huber_delta=getattr(self, "huber_delta", 1.0),
            input_scale=self.input_scale,
            missing_targets=self._masks(),
            normalization=self.normalization,
        )
        net.classes = self._classes()
        net.feature_names = [str(name) for name in getattr(self, "feature_names_in_", ())]
        self.n_layers_ = len(net.sizes)
        return net

    def _sizes(self, n_outputs: int) -> list[int]:
        """Return the units of all layers as the parameters describe them."""
        return [self.n_features_in_, *self._hidden(), n_outputs]

    def _build(self, n_outputs: int) -> None:
        """Begin anew, with scikit-learn's first weights unless others are asked for."""
        random = self._random_state
        auto = self.weight_init == "auto"
        needs_seed = not auto or self.input_noise or np.any(self.dropout)
        seed = int(random.randint(2**31 - 1)) if needs_seed else 0
        weight_init = "zeros" if auto else self.weight_init
        net = self._new_network(self._sizes(n_outputs), weight_init, seed)
        if auto:
            hidden = net.activations[:-1]
            for W, b, name in zip(
                net.weights, net.biases, (*hidden, *hidden[-1:], "identity"), strict=False
            ):
                bound = np.sqrt((2 if name == "logistic" else 6) / (W.shape[0] + W.shape[1]))
                W[...] = random.uniform(-bound, bound, W.shape)
                b[...] = random.uniform(-bound, bound, b.shape)
        for name in ("estimators_", "_misfit"):
            self.__dict__.pop(name, None)
        self.network_, self.history_ = net, net.history
        self.n_iter_ = self.t_ = 0
        self.__dict__.pop("loss_curve_", None)

    def _begin_curves(self, validates: bool, by_score: bool) -> None:
        """Begin what is written about every epoch, or go on with it."""
        state = vars(self)
        best, worst = ("best_validation_score_", -np.inf) if by_score else ("best_loss_", np.inf)
        none = ("best_iteration_", "best_loss_", "best_validation_score_", *HELD_OUT)
        start: dict[str, Any] = {"loss_curve_": [], "_no_improvement_count": 0}
        goes_on = "loss_curve_" in state
        for name, value in (dict.fromkeys(none) | start).items():
            if not (goes_on and name in state):
                state[name] = value
        if validates:
            state.update((name, []) for name in HELD_OUT if state[name] is None)
        if state[best] is None:
            state[best] = worst

    def _forget_the_best(self) -> None:
        """Count improvements anew: what is learned from now on has other losses and scores."""
        self._no_improvement_count = 0
        for name, worst in (("best_loss_", np.inf), ("best_validation_score_", -np.inf)):
            if vars(self).get(name) is not None:
                setattr(self, name, worst)

    # Fitting -------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: ArrayLike | None = None,
        coefs_init: Any = None,
        intercepts_init: Any = None,
        eval_set: Any = None,
        validation_data: Any = None,
    ) -> Any:
        """Fit the network to X and y.

        Parameters
        ----------
        X : array-like or sparse matrix, (n_samples, n_features)
        y : array-like, (n_samples,) or (n_samples, n_outputs)
            Labels, or a 0/1 matrix for several labels per row; numbers for the regressor.
        sample_weight : array-like, (n_samples,), optional
        X_val, y_val, sample_weight_val : optional
            Rows to validate on after every epoch; with ``early_stopping`` they decide when to
            stop, in place of rows taken from X. Also as ``eval_set=[(X, y)]`` or
            ``validation_data=(X, y)``.
        coefs_init, intercepts_init : list of array-like, optional
            First weights and biases, one array per layer.

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
        return self._fit(X, y, sample_weight, validation, (coefs_init, intercepts_init))

    @undisturbed
    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        validation: tuple[Any, Any, Any],
        init: Any = (None, None),
        *,
        incremental: bool = False,
        named: Any = None,
    ) -> Any:
        self._check_parameters()
        first = not self._has_networks() or not (self.warm_start or incremental)
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y "
                "is None."
            )
        if not first:
            self._check_ensemble()
        before = dict(vars(self))
        try:
            if named is not None:
                vars(self)["_labels"] = named
            data, labels = self._read(X, y, sample_weight, reset=first, incremental=incremental)
            held_out = self._read_held_out(labels, *validation)
        except BaseException:
            self.__dict__ = before  # what is refused leaves no trace
            raise
        if self.n_ensemble > 1:
            generator = _random_state(self.random_state)
            ensemble.fit(
                self, data, labels, held_out, init, generator=generator, first=first,
                incremental=incremental,
            )  # fmt: skip
            vars(self).pop("_misfit", None)
        else:
            self._train(data, labels, held_out, init, incremental=incremental)
        return self

    def _read_held_out(self, labels: Any, X_val: Any, y_val: Any, weights: Any) -> HeldOut | None:
        """Check rows to validate on, if there are any, against the targets to train on."""
        check_pair(X_val, y_val)
        if X_val is None:
            return None
        try:
            data, y = self._read(X_val, y_val, weights, learns=False)
        except (TypeError, ValueError) as error:
            error.add_note("This is about the rows held out: X_val, y_val, sample_weight_val.")
            raise
        if y.shape[1:] != labels.shape[1:]:
            raise ValueError(
                f"y_val has the shape {y.shape}, y has {labels.shape}: both need one column per "
                "output"
            )
        return HeldOut(data, None, X_val, y)

    def _check_ensemble(self) -> None:
        """Check that an estimator that goes on learning has as many members as before."""
        n = len(vars(self).get("estimators_", [self]))
        if n > self.n_ensemble or (n < self.n_ensemble and "network_" in vars(self)):
            raise ValueError(
                f"n_ensemble={self.n_ensemble}, but {n} were fitted: an ensemble that goes on "
                "learning can get more members, a single network cannot; set warm_start=False to "
                "begin anew"
            )

    def _train(
        self, data: Data, labels: Any, held_out: HeldOut | None, init: Any, *, incremental: bool
    ) -> None:
        """Train the network on rows that were read."""
        n_outputs = self._n_outputs(data.targets)
        first = "network_" not in vars(self) or not (self.warm_start or incremental)
        if first or not incremental or "_random_state" not in vars(self):
            self._random_state = _random_state(self.random_state)
        if first:
            given = self.__dict__.pop("_given", {})
            self._build(n_outputs)
            if incremental or self.warm_start:
                write(self.network_, given.get("coefs_"), given.get("intercepts_"))
        self._check_shape(n_outputs)
        if self.network_.classes is None:  # weights that were given came without labels
            self.network_.classes = self._classes()
        with self.network_.exclusive():
            self._learn(data, labels, held_out, init, incremental=incremental)

    def _learn(
        self, data: Data, labels: Any, held_out: HeldOut | None, init: Any, *, incremental: bool
    ) -> None:
        """Move the weights of the network that is there."""
        write(self.network_, *init)
        if self.solver == "lbfgs":
            lbfgs.fit_lbfgs(self, data)
            return
        if not incremental or not hasattr(self, "_optimizer"):
            self._optimizer = Pace(self)
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        rows = np.arange(data.X.shape[0], dtype=np.int64)
        if held_out is None and self.early_stopping:
            stratify = self._stratifies(data.targets)
            rows, held = split_like_sklearn(
                data.targets, self.validation_fraction, stratify, self._random_state
            )
            held_out = HeldOut(data, held, data.X[held], labels[held])
        fit = StochasticFit(self, data, rows, held_out, once=incremental)
        self._begin_curves(held_out is not None, fit.by_score)
        fit.run()

    def _is_halted(self) -> bool:
        """Whether the ensemble that this is a member of ends all trainings."""
        return self._halt is not None and self._halt.is_set()

    def _check_shape(self, n_outputs: int) -> None:
        """Check that a network that goes on learning is the one that the parameters describe."""
        net, wanted = self.network_, tuple(self._sizes(n_outputs))
        if net.sizes != wanted:
            raise ValueError(
                f"the fitted network has the layers {net.sizes}, but the parameters and y ask for "
                f"{wanted}; set warm_start=False to begin anew"
            )
        self._check_described()

    @parameters_at_fault()
    def _check_described(self) -> None:
        """Check that a network has what the parameters, which may have changed, ask for."""
        net = self.network_
        if net.architecture.unsuited:
            raise ValueError(net.architecture.unsuited)
        loss = self._network_loss()
        row, out = resolve_loss(loss, self.out_activation, net.sizes[-1])
        both = {
            "activation": (
                net.activations[:-1],
                tuple(resolve_hidden(self.activation, len(net.sizes) - 2)),
            ),
            "loss": (net.loss_name, "custom" if row is None else row.name),
            "out_activation": (net.activations[-1], out),
            "quantile or huber_delta": (net.loss_parameter, self._loss_parameter(net)),
            "input_scale": (net.input_scale, float(self.input_scale)),
            "dtype": (net.dtype.name, check_dtype(self.dtype).name),
            "normalization": (net.normalization, self.normalization),
        }
        for name, (has, wanted) in both.items():
            if has != wanted:
                raise ValueError(
                    f"the fitted network has {name}={has!r}, but the parameters ask for {wanted!r};"
                    " set that parameter to what the network has, or fit anew (warm_start=False)"
                )
        if row is None and loss is not net.architecture.custom_loss:
            net.replace(replace(net.architecture, custom_loss=loss))

    def _loss_parameter(self, net: Network) -> float:
        """Return what the network's loss depends on, as the parameters have it."""
        quantile, delta = getattr(self, "quantile", 0.5), getattr(self, "huber_delta", 1.0)
        return loss_parameters(quantile, delta).get(net.loss_name, 0.0)

    # Answers -------------------------------------------------------------------------------------

    def _outputs(self, X: Any) -> Array:
        """Return the output activations of rows, (n, n_outputs)."""
        state = self.__dict__
        if (
            type(X) is np.ndarray
            and "network_" in state
            and "feature_names_in_" not in state
            and "_misfit" not in state
        ):
            net: Network = state["network_"]
            ready = net.bound_outputs()(X)
            if ready is not None:
                return ready
        return self._run(X)

    @undisturbed
    def _ask(self, ask: Callable[[Network, Any], Array], X: Any, join: Any = ensemble.mean) -> Any:
        """Ask every network about the rows, and join what they say if there are several."""
        self._check_is_fitted()
        X = read_X(self, X, text=False)
        networks = self._networks()
        answers = (ask(net, X) for net in networks)
        return next(answers) if len(networks) == 1 else join(answers)

    def _run(self, X: Any) -> Array:
        """Return the output activations of any rows."""
        outputs: Array = self._ask(propagate, X)
        return outputs

    def _run_with_std(self, X: Any) -> tuple[Array, Array]:
        """Return the mean of the members' outputs, and their standard deviation."""
        self._check_is_fitted()
        if len(self._networks()) == 1:
            raise ValueError("return_std compares the members of an ensemble: set n_ensemble=5")
        mean, std = self._ask(propagate, X, ensemble.mean_and_std)
        return mean, std

    @undisturbed
    def _forward_pass(self, activations: list[Any]) -> list[Any]:
        """Put each layer's activations behind the rows that the list begins with.

        It has scikit-learn's name, as programs call it to see hidden layers.
        """
        self._check_is_fitted()
        net, X = self.network_, read_X(self, activations[0])
        for n_layers in range(1, len(net.sizes)):
            activations[n_layers] = propagate(net, X, n_layers)
        return activations

    def _forward_pass_fast(self, X: Any, check_input: bool = True) -> Array:
        """Return the output activations; programs ask scikit-learn for them by this name."""
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
            return propagate(net, rows, 1 + number)

        units: Array = self._ask(hidden, X, ensemble.side_by_side)
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
        gradients: Array = self._ask(slopes, X)
        return gradients[:, 0] if self.n_outputs_ == 1 else gradients


@parameters_at_fault()
def _random_state(seed: Any) -> np.random.RandomState:
    """Return the generator that scikit-learn would use: the same numbers for the same seed."""
    if seed is None or seed is np.random:
        return np.random.mtrand._rand
    if isinstance(seed, np.random.RandomState):
        return seed
    if isinstance(seed, np.random.Generator):
        return np.random.RandomState(seed.integers(2**32 - 1, dtype=np.uint32))
    if is_count(seed, 0):
        return np.random.RandomState(int(seed))
    raise ValueError(f"{seed!r} cannot be used to seed a numpy.random.RandomState instance")
