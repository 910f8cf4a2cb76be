"""MLPRegressor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cmlp.core.errstate import undisturbed
from cmlp.core.public import set_module
from cmlp.core.vocabulary import LOSSES, lookup
from cmlp.estimators.inputs import (
    check_finite,
    check_lengths,
    numbers_of,
    read_numbers,
    read_weights,
)
from cmlp.estimators.mlp import MLP, is_stochastic
from cmlp.estimators.parameters import parameters_at_fault
from cmlp.estimators.protocols import available_if
from cmlp.estimators.storage import Storage, targets_of
from cmlp.estimators.targets import Outputs, Targets
from cmlp.model.custom_loss import refuse_weights, weights_argument
from cmlp.model.scoring import r2_score


@set_module("cmlp")
class MLPRegressor(MLP):
    """A multilayer perceptron that predicts numbers, one or several per row.

    ``sklearn.neural_network.MLPRegressor`` with the same parameters, defaults and results, and
    more. What is not listed here is as in :class:`MLPClassifier`.

    Parameters
    ----------
    loss : str or callable
        'squared_error', 'absolute_error', 'huber', 'poisson', 'quantile', or a function as
        :class:`cmlp.Network` takes it. The reported loss is half the squared error, averaged over
        the outputs; of 'poisson' half the deviance, summed over them.
    quantile : float
        Of the loss 'quantile', between 0 and 1.
    huber_delta : float
        The size of error from which the loss 'huber' is linear.
    scoring : str, callable or None
        None is the coefficient of determination, R^2. Fewer than two rows held out have none:
        their score is NaN, and the loss decides.

    Examples
    --------
    >>> import numpy as np, cmlp
    >>> X = np.linspace(-3, 3, 200)[:, None]
    >>> y = np.sin(X[:, 0])
    >>> model = cmlp.MLPRegressor("squared_error", (30,), "tanh", solver="lbfgs", random_state=0)
    >>> bool(model.fit(X, y).score(X, y) > 0.99)
    True
    """

    _estimator_type = "regressor"

    def __init__(
        self,
        loss: Any = "squared_error",
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
        out_activation: str | None = None,
        quantile: float = 0.5,
        huber_delta: float = 1.0,
        l1_ratio: float = 0.0,
        weight_decay: float = 0.0,
        warmup_fraction: float = 0.0,
        dropout: float | Sequence[float] = 0.0,
        input_noise: float = 0.0,
        weight_init: str = "auto",
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

    @parameters_at_fault()
    def _outputs_of(self, n: int) -> Outputs:
        if callable(self.loss):
            return Outputs(n, self.loss)
        if not isinstance(self.loss, str):
            raise ValueError(
                f"loss must be a name or a function, not {self.loss!r}; it comes first, as in "
                "scikit-learn since 1.7: write hidden_layer_sizes=..."
            )
        row = lookup("loss", [row for row in LOSSES if not row.classifies], self.loss)
        return Outputs(n, row.name, masks=n > 1)

    def _encode(
        self, y: Any, sample_weight: Any, n_rows: int, known: Targets | None = None, **more: Any
    ) -> Targets:
        y = read_numbers(y, learns=known is None)
        check_lengths(n_rows, y)
        encoded = y if y.ndim == 2 else y[:, None]
        outputs = self._outputs_of(encoded.shape[1])
        if outputs.loss == "poisson" and (y < 0).any():
            raise ValueError(
                f"the loss 'poisson' needs y of at least 0, but y holds {np.nanmin(y):g}"
            )
        weights = read_weights(sample_weight, len(y))
        if callable(self.loss):
            if weights is not None and weights_argument(self.loss) == "no":
                raise refuse_weights()
            check_finite("y", y)
        return Targets(y, encoded, weights, outputs)

    @available_if(is_stochastic)
    def partial_fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: ArrayLike | None = None,
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
        y : array-like, (n_samples,) or (n_samples, n_outputs)
            Their targets.
        sample_weight : array-like, (n_samples,), optional
            How much each row counts; by default all alike.
        X_val, y_val, sample_weight_val : optional
            Rows to validate on; ``should_stop_`` then goes by their score.
        memory : int or str
            Of a source in place of X, as in ``fit``.

        Returns
        -------
        self
        """
        validation, how = (X_val, y_val, sample_weight_val), Storage(memory)
        return self._fit_to(X, y, sample_weight, validation, how, once=True)

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Return the predicted numbers, (n_samples,) or (n_samples, n_outputs).

        They are float64, unless X is float32.

        Parameters
        ----------
        X : array-like or sparse matrix, (n_samples, n_features)
            Rows of the features of `fit`.
        return_std : bool
            Also return the standard deviation over the members of an ensemble, of the same shape.
        """
        if not return_std:
            return numbers_of(self._outputs(X), X)
        mean, std = self._run_with_std(X)
        return numbers_of(mean, X), numbers_of(std, X)

    def set_predict_request(self, **metadata: Any) -> Any:
        """Set which metadata ``predict`` requests, as in scikit-learn."""
        return self._request("set_predict_request", metadata)

    @undisturbed
    def score(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> float:
        """Return the coefficient of determination R^2, averaged over the outputs.

        A NaN among several outputs is left out. R^2 of fewer than two rows is NaN, with an
        UndefinedMetricWarning.
        """
        y, sample_weight = targets_of(X, y, sample_weight)
        predicted, y = self.predict(X), read_numbers(y, learns=False)
        check_lengths(len(predicted), y)
        if predicted.shape != y.shape:
            raise ValueError(
                f"y has the shape {y.shape}, the predictions {predicted.shape}: both need one "
                "column per output"
            )
        weights = read_weights(sample_weight, len(y))
        shape = (len(y), -1)
        return r2_score(y.reshape(shape), predicted.reshape(shape), weights)
