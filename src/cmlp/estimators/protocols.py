"""scikit-learn's protocols, without importing it.

The estimators work without scikit-learn. What only scikit-learn calls (tags, metadata routing,
``set_output``, the HTML picture) is imported inside the method; and their errors and warnings are
instances of scikit-learn's classes too, once a program has imported it.
"""

from __future__ import annotations

import functools
import html
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from cmlp.core.layout import Array

# Methods that exist for some parameters only -----------------------------------------------------


class available_if:
    """Make a method that exists only where `check` does not raise: ``hasattr`` is false else.

    Parameters
    ----------
    check : callable
        Takes the object, and raises AttributeError with the reason.
    """

    def __init__(self, check: Callable[[Any], None]) -> None:
        self.check = check

    def __call__(self, method: Callable[..., Any]) -> available_if:
        self.method = method
        functools.update_wrapper(self, method)
        return self

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self.method
        self.check(instance)
        return self.method.__get__(instance, owner)


# Protocols ---------------------------------------------------------------------------------------


class Protocols:
    """What scikit-learn needs of an estimator, in addition to its public methods."""

    _estimator_type = ""
    _sklearn_auto_wrap_output_keys = frozenset({"transform"})

    def __sklearn_tags__(self) -> Any:
        """Return what the estimator is and takes (scikit-learn 1.6 and newer)."""
        from sklearn import utils

        classifies = self._estimator_type == "classifier"
        return utils.Tags(
            estimator_type=self._estimator_type,
            target_tags=utils.TargetTags(required=True, multi_output=not classifies),
            transformer_tags=utils.TransformerTags(preserves_dtype=[]),
            classifier_tags=utils.ClassifierTags(multi_label=True) if classifies else None,
            regressor_tags=None if classifies else utils.RegressorTags(),
            input_tags=utils.InputTags(sparse=True),
        )

    def _get_tags(self) -> dict[str, Any]:
        """Return the same for scikit-learn 1.5 and older."""
        from sklearn.utils import _tags

        return {
            **_tags._DEFAULT_TAGS,
            "requires_y": True,
            "multilabel": self._estimator_type == "classifier",
            "multioutput": self._estimator_type == "regressor",
            "preserves_dtype": [],
        }

    # Metadata routing

    def _requester(self) -> Any:
        """Return one of scikit-learn's own objects with our signatures and our requests."""
        kind: Any = type(self)
        requester = _requester_of(kind)()
        if "_metadata_request" in self.__dict__:
            requester._metadata_request = self.__dict__["_metadata_request"]
        return requester

    def _request(self, method: str, metadata: dict[str, Any]) -> Any:
        requester = self._requester()
        getattr(requester, method)(**metadata)
        self._metadata_request = requester._metadata_request
        return self

    def get_metadata_routing(self) -> Any:
        """Return which metadata the methods request, for scikit-learn's routing."""
        return self._requester().get_metadata_routing()

    def set_fit_request(self, **metadata: Any) -> Any:
        """Set which metadata ``fit`` requests, as in scikit-learn."""
        return self._request("set_fit_request", metadata)

    def set_partial_fit_request(self, **metadata: Any) -> Any:
        """Set which metadata ``partial_fit`` requests, as in scikit-learn."""
        return self._request("set_partial_fit_request", metadata)

    def set_score_request(self, **metadata: Any) -> Any:
        """Set which metadata ``score`` requests, as in scikit-learn."""
        return self._request("set_score_request", metadata)

    def set_transform_request(self, **metadata: Any) -> Any:
        """Set which metadata ``transform`` requests, as in scikit-learn."""
        return self._request("set_transform_request", metadata)

    # Containers of outputs

    def set_output(self, *, transform: str | None = None) -> Any:
        """Choose the container that ``transform`` returns: 'default', 'pandas' or 'polars'.

        This needs scikit-learn.
        """
        from sklearn.utils._set_output import _SetOutputMixin

        _SetOutputMixin.set_output(self, transform=transform)
        return self

    # Pictures

    def _repr_html_(self) -> str:
        """Return scikit-learn's picture of the estimator; without it, a table of the parameters."""
        try:
            from sklearn.utils import estimator_html_repr
        except ImportError:
            return _table_of(self)
        picture: str = estimator_html_repr(self)
        return picture

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        """Return what a notebook shows."""
        return {"text/plain": repr(self), "text/html": self._repr_html_()}


def scorer_named(name: str) -> Callable[..., float]:
    """Return one of scikit-learn's scorers.

    Raises
    ------
    ImportError
        Without scikit-learn, where 'loss' and functions are what can score.
    """
    try:
        from sklearn.metrics import get_scorer
    except ImportError as error:
        raise ImportError(
            f"scoring={name!r} is one of scikit-learn's scorers, which is not installed: "
            "pip install 'cmlp[sklearn]', or use scoring='loss' or a function"
        ) from error
    scorer: Callable[..., float] = get_scorer(name)
    return scorer


def label_binarizer(labels: Array, *, multilabel: bool) -> Any:
    """Return scikit-learn's object that turns these labels into targets, and back."""
    from sklearn.preprocessing import LabelBinarizer

    binarizer = LabelBinarizer().fit(np.eye(len(labels), dtype=int) if multilabel else labels)
    binarizer.classes_ = labels
    return binarizer


def wrapped(estimator: Any, data: Array, X: Any, names: Array) -> Any:
    """Return the rows of ``transform`` in the container that ``set_output`` has chosen."""
    if "sklearn" not in sys.modules:
        return data
    from sklearn.utils._set_output import _wrap_data_with_container

    class Named:
        _sklearn_auto_wrap_output_keys = estimator._sklearn_auto_wrap_output_keys
        _sklearn_output_config = getattr(estimator, "_sklearn_output_config", {})

        def get_feature_names_out(self) -> Array:
            return names

    return _wrap_data_with_container("transform", data, X, Named())


@functools.cache
def _requester_of(estimator: Any) -> Any:
    """Return a class of scikit-learn's with the signatures of an estimator's methods."""
    from sklearn.utils._metadata_requests import _MetadataRequester

    methods = ("fit", "partial_fit", "predict", "predict_proba", "score", "transform")
    return type(
        estimator.__name__,
        (_MetadataRequester,),
        {name: getattr(estimator, name) for name in methods if hasattr(estimator, name)},
    )


def _table_of(estimator: Any) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(repr(value))}</td></tr>"
        for name, value in estimator.get_params().items()
    )
    return f"<table><caption>{html.escape(type(estimator).__name__)}</caption>{rows}</table>"
