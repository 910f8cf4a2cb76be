"""TabularRegressor."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cmlp.core.errstate import undisturbed
from cmlp.core.layout import Array
from cmlp.core.public import set_module
from cmlp.core.vocabulary import LOSSES
from cmlp.estimators.inputs import check_lengths, read_numbers, read_weights
from cmlp.estimators.parameters import check_choice, check_real
from cmlp.estimators.storage import targets_of
from cmlp.estimators.tabular.estimator import Tabular
from cmlp.estimators.tabular.members import Member
from cmlp.estimators.tabular.presets import Facts
from cmlp.estimators.tabular.targets import Rows, encode_numbers
from cmlp.estimators.targets import Targets
from cmlp.model.scoring import r2_score

LOSS_NAMES = tuple(row.name for row in LOSSES if not row.classifies)


@set_module("cmlp")
class TabularRegressor(Tabular):
    """Predicts numbers, one or several per row, from tables as people have them.

    What is not listed here is as in :class:`TabularClassifier`. Targets are standardised with the
    mean and the standard deviation of the rows that are trained on (not for 'poisson'), and
    predictions stay between the smallest and the largest of these targets (not for 'quantile').

    Parameters
    ----------
    loss : str
        'squared_error', 'absolute_error', 'huber', 'poisson' or 'quantile'.
    quantile : float
        Of the loss 'quantile', between 0 and 1.
    huber_delta : float
        The size of error from which the loss 'huber' is linear, in standard deviations of y.
    scoring : str or callable
        'loss'; 'r2'; the name of one of scikit-learn's scorers; or a function
        ``scorer(estimator, X, y)``, which gets encoded rows, and an estimator that predicts these.
    missing_targets : bool
        Leave out rows whose targets are all missing; of several targets, those that are missing
        have no loss. With False a missing one is an error.

    Examples
    --------
    >>> import numpy as np, cmlp
    >>> X = np.linspace(-3, 3, 400)[:, None]
    >>> y = np.sin(X[:, 0])
    >>> model = cmlp.TabularRegressor(random_state=0).fit(X, y)
    >>> bool(model.score(X, y) > 0.99)
    True
    """

    _estimator_type = "regressor"

    def __init__(
        self,
        hidden_layer_sizes: Any = "auto",
        activation: Any = "auto",
        *,
        loss: str = "squared_error",
        quantile: float = 0.5,
        huber_delta: float = 1.0,
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
        scoring: str | Callable[..., float] = "loss",
        early_stopping: bool = True,
        validation_fraction: float = 0.2,
        n_iter_no_change: float | str = "auto",
        cv: int | str | None = "auto",
        n_ensemble: int | str = "auto",
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

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice(self, "loss", LOSS_NAMES)
        check_real(self, "quantile", "(0, 1)")
        check_real(self, "huber_delta", "(0, inf)")

    def _own_score(self) -> str:
        return "r2"

    def _loss_options(self) -> dict[str, float]:
        return {"quantile": float(self.quantile), "huber_delta": float(self.huber_delta)}

    def _standardises(self) -> bool:
        return bool(self.loss != "poisson")

    def _read_targets(self, rows: Rows, known: Targets | None = None) -> Targets:
        return encode_numbers(rows, self.loss, known)

    def _facts(self, targets: Targets, n_rows: int, n_columns: int) -> Facts:
        return Facts("numbers", n_rows, n_columns, targets.outputs.n, self.scoring, self.loss)

    @undisturbed
    def predict(self, X: Any) -> Array:
        """Return the predicted numbers, (n_samples,) or (n_samples, n_outputs), float64.

        Parameters
        ----------
        X : table, (n_samples, n_columns)
            A table with the columns of `fit`.
        """

        def numbers(member: Member, rows: Any) -> Array:
            assert member.scale is not None
            return member.scale.to_numbers(member.network.predict(rows))

        found: Array = self._answers(numbers, X)
        return found[:, 0] if found.shape[1] == 1 else found

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

    def _decoder(self) -> Callable[[Array], Any]:
        if self.n_outputs_ == 1:
            return lambda outputs: float(outputs[0])
        return lambda outputs: np.asarray(outputs).tolist()
