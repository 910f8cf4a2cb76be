"""What programs assign to an estimator: weights of any shapes, activations, names of columns.

What is assigned is what predicts, and what is saved, from then on.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from cmlp.core.arrays import refuse_masked
from cmlp.core.errors import InvalidParameterError, NotFittedError, sklearn_instance
from cmlp.core.layout import Array, aligned
from cmlp.estimators.inputs import Columns
from cmlp.estimators.labels import Labels
from cmlp.estimators.networks import keep, new_network
from cmlp.estimators.parameters import Estimator
from cmlp.estimators.targets import Outputs
from cmlp.model.architecture import resolve_hidden
from cmlp.model.assignment import predict_with, sizes_of, text_list, write
from cmlp.network import Network


class SingleNetworkAttribute:
    """Fallback for attributes of a fitted single network; instance attributes shadow it.

    Raises AttributeError that points to ``estimators_[i]`` for ensembles.
    """

    def __set_name__(self, owner: Any, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        raise missing(instance, self.name)


def missing(estimator: Any, name: str) -> AttributeError:
    """Return the error for an attribute of one network that an estimator does not have."""
    who = f"{type(estimator).__name__!r} object has no attribute {name!r}: "
    if hasattr(estimator, "estimators_"):
        return AttributeError(f"{who}an ensemble has one per member, as in estimators_[0].{name}")
    return AttributeError(f"{who}it is not fitted")


class Assigned(Estimator):
    """Attributes that may be assigned, before a fit and after it."""

    network_: Any = SingleNetworkAttribute()

    _misfit = ""
    """Why an activation that was assigned does not suit the fitted network."""
    _names: Array | None = None
    """The names of the columns of X."""
    _known_labels: Labels | None = None
    """A classifier's labels, of its last fit or assigned."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Parameters, which :meth:`_store` sets, and what a fit adds to them."""

    @property
    def activation(self) -> Any:
        """The hidden layers' activation; another one acts on a fitted network at once."""
        return vars(self)["activation"]

    @activation.setter
    def activation(self, names: Any) -> None:
        state = vars(self)  # where the property keeps its value
        before, state["activation"] = state.get("activation"), names
        same = isinstance(names, (str, list, tuple)) and names == before
        if same or not self._has_networks():
            return
        self._misfit = ""
        for member in getattr(self, "estimators_", ()):
            member.activation = names
        try:  # what does not suit this network may be meant for the next fit
            for net in self._networks():
                net.activations = (*resolve_hidden(names, len(net.sizes) - 2), net.activations[-1])
        except (TypeError, ValueError) as error:
            self._misfit = str(error)

    @property
    def feature_names_in_(self) -> Array:
        """What the columns of X are called, if they have names."""
        if self._names is None:
            raise AttributeError(f"this {type(self).__name__} has no names of features")
        return self._names

    @feature_names_in_.setter
    def feature_names_in_(self, names: Any) -> None:
        networks = self._networks() if self._has_networks() else []
        n = networks[0].sizes[0] if networks else None
        texts = text_list("feature_names_in_", names, n)
        for each in (self, *getattr(self, "estimators_", ())):
            each._names = np.array(texts, dtype=object) if texts else None
        for net in networks:
            net.feature_names = texts

    @feature_names_in_.deleter
    def feature_names_in_(self) -> None:
        self._names = None

    @property
    def _columns(self) -> Columns:
        return Columns(self.n_features_in_, self._names)

    @property
    def coefs_(self) -> list[Array]:
        """The weights of each layer, as views: writing into them changes the network."""
        return self._weights_of("coefs_")

    @coefs_.setter
    def coefs_(self, values: Any) -> None:
        self._assign("coefs_", values)

    @property
    def intercepts_(self) -> list[Array]:
        """The biases of each layer, as views: writing into them changes the network."""
        return self._weights_of("intercepts_")

    @intercepts_.setter
    def intercepts_(self, values: Any) -> None:
        layers = list(values)
        refuse_masked("intercepts_", layers)
        self._assign("intercepts_", [np.ravel(layer) for layer in layers])

    def _weights_of(self, name: str) -> list[Array]:
        if hasattr(self, "network_"):
            net: Network = self.network_
            return net.weights if name == "coefs_" else net.biases
        if name not in self._assigned_parts:
            raise missing(self, name)
        weights: list[Array] = self._assigned_parts[name]
        return weights

    @property
    def _assigned_parts(self) -> dict[str, Any]:
        """What was assigned without a network that it fits."""
        parts: dict[str, Any] = vars(self).get("_assigned", {})
        return parts

    def _assign(self, name: str, values: Any) -> None:
        """Write weights to the network, or keep them until there is one that they fit.

        The arrays that were there before stay as they are: a program may assign them again.
        """
        values = list(values)
        refuse_masked(name, values)
        if hasattr(self, "network_"):
            net, before = self.network_, self._weights_of(name)
            if [np.shape(each) for each in values] == [each.shape for each in before]:
                params = aligned(net.params.shape, net.dtype)
                params[:] = net.params
                net.params = params
                write(net, *((values, None) if name == "coefs_" else (None, values)))
                return
            self._assigned = {"coefs_": net.weights, "intercepts_": net.biases}
            del self.network_
            self._misfit = ""
        elif self.n_ensemble > 1:
            raise AttributeError(
                f"an ensemble has {name} per member, as in estimators_[0].{name}; to begin from "
                f"weights, call fit(..., {name.rstrip('_')}_init=...)"
            )
        self._assigned = {**self._assigned_parts, name: values}

    @property
    def out_activation_(self) -> str:
        """The output layer's activation; what is written here is what predicts from then on."""
        if self._has_networks():
            name: str = self._networks()[0].activations[-1]
            return name
        if "out_activation_" not in self._assigned_parts:
            raise missing(self, "out_activation_")
        assigned: str = self._assigned_parts["out_activation_"]
        return assigned

    @out_activation_.setter
    def out_activation_(self, name: str) -> None:
        if self._has_networks():
            for net in self._networks():
                predict_with(net, name)
        else:
            self._assigned = {**self._assigned_parts, "out_activation_": name}

    def _networks(self) -> list[Network]:
        """Return the network, or one per member of the ensemble."""
        members = getattr(self, "estimators_", None)
        return [self.network_] if members is None else [each.network_ for each in members]

    def __sklearn_is_fitted__(self) -> bool:
        """Whether it was fitted, or was given the weights of a network that was."""
        return self._has_networks() or self._assigned_parts.keys() >= {"coefs_", "intercepts_"}

    def _has_networks(self) -> bool:
        return hasattr(self, "network_") or hasattr(self, "estimators_")

    def _check_is_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise sklearn_instance(
                NotFittedError,
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with "
                "appropriate arguments before using this estimator.",
            )
        if self._misfit:
            raise InvalidParameterError(
                f"activation={self.activation!r} does not describe the fitted network: "
                f"{self._misfit}; fit it again, or set the activation that it has"
            )
        assigned = self._assigned_parts  # first: another thread may be making the network of it
        if not self._has_networks():
            self._adopt(**assigned)

    def _adopt(self, coefs_: Any, intercepts_: Any, out_activation_: str | None = None) -> None:
        """Make a network of the weights that were assigned."""
        n_inputs, *hidden, n_outputs = sizes_of(coefs_, intercepts_)
        columns, outputs = Columns(n_inputs, self._names), self._outputs_of(n_outputs)
        net = new_network(self, columns, outputs, hidden=hidden)
        write(net, coefs_, intercepts_)
        if out_activation_ is not None:
            predict_with(net, out_activation_)
        counts = {name: getattr(self, name, 0) for name in ("n_iter_", "t_")}
        keep(self, columns, outputs, len(net.sizes), network_=net, history_=net.history, **counts)
        vars(self).pop("_assigned", None)

    def _outputs_of(self, n: int) -> Outputs:
        """Return what `n` outputs of a network stand for, by parameters and labels."""
        raise NotImplementedError

    def __copy__(self) -> Any:
        """Copy it with a network of its own, so that weights given to one are not the other's."""
        other: Any = type(self).__new__(type(self))
        vars(other).update(vars(self))
        if hasattr(self, "network_"):  # together: they have one array of labels
            other.network_, other._known_labels = copy.deepcopy((self.network_, self._known_labels))
            other.history_ = other.network_.history
        return other
