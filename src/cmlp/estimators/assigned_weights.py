"""What programs write into an estimator: weights of any shapes, activations, names.

What is written is what predicts, and what is saved, from then on.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from cmlp.core.arrays import refuse_masked
from cmlp.core.errors import InvalidParameterError, NotFittedError, shared
from cmlp.core.layout import Array, aligned
from cmlp.estimators import ensemble
from cmlp.estimators.parameters import Estimator
from cmlp.model.architecture import resolve_hidden
from cmlp.model.assignment import predict_with, sizes_of, text_list, write

if TYPE_CHECKING:
    from cmlp.network import Network


class Assigned(Estimator):
    """Attributes that may be assigned, before a fit and after it."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Parameters, which :meth:`_keep` sets, and what a fit adds to them."""

    @property
    def activation(self) -> Any:
        """The hidden layers' activation; another one acts on a fitted network at once."""
        return vars(self)["activation"]

    @activation.setter
    def activation(self, names: Any) -> None:
        state = vars(self)
        before, state["activation"] = state.get("activation"), names
        same = isinstance(names, (str, list, tuple)) and names == before
        if same or not self._has_networks():
            return
        state.pop("_misfit", None)
        for member in state.get("estimators_", ()):
            member.activation = names
        try:  # what does not suit this network may be meant for the next fit
            for net in self._networks():
                net.activations = (*resolve_hidden(names, len(net.sizes) - 2), net.activations[-1])
        except (TypeError, ValueError) as error:
            state["_misfit"] = str(error)

    @property
    def feature_names_in_(self) -> Array:
        """What the columns of X are called, if they have names."""
        state = vars(self)
        if "feature_names_in_" not in state:
            raise AttributeError(f"this {type(self).__name__} has no names of features")
        names: Array = state["feature_names_in_"]
        return names

    @feature_names_in_.setter
    def feature_names_in_(self, names: Any) -> None:
        networks = self._networks() if self._has_networks() else []
        n = networks[0].sizes[0] if networks else None
        texts = text_list("feature_names_in_", names, n)
        for each in (self, *vars(self).get("estimators_", ())):
            if texts:
                vars(each)["feature_names_in_"] = np.array(texts, dtype=object)
            else:
                del each.feature_names_in_
        for net in networks:
            net.feature_names = texts

    @feature_names_in_.deleter
    def feature_names_in_(self) -> None:
        vars(self).pop("feature_names_in_", None)

    @property
    def coefs_(self) -> list[Array]:
        """The weights of each layer, as views: writing into them changes the network."""
        return self._weights_of("coefs_")

    @coefs_.setter
    def coefs_(self, values: Any) -> None:
        self._give_weights("coefs_", values)

    @property
    def intercepts_(self) -> list[Array]:
        """The biases of each layer, as views: writing into them changes the network."""
        return self._weights_of("intercepts_")

    @intercepts_.setter
    def intercepts_(self, values: Any) -> None:
        layers = list(values)
        refuse_masked("intercepts_", layers)
        self._give_weights("intercepts_", [np.ravel(layer) for layer in layers])

    def _weights_of(self, name: str) -> list[Array]:
        state = self.__dict__
        if "network_" in state:
            net: Network = state["network_"]
            return net.weights if name == "coefs_" else net.biases
        given: dict[str, list[Array]] = state.get("_given", {})
        return given[name] if name in given else ensemble.absent(self, name)

    def _give_weights(self, name: str, values: Any) -> None:
        """Write weights to the network, or keep them until there is one that they fit.

        The arrays that were there before stay as they are: a program may bring them back.
        """
        state, values = vars(self), list(values)
        refuse_masked(name, values)
        if "network_" in state:
            net, before = self.network_, self._weights_of(name)
            if [np.shape(each) for each in values] == [each.shape for each in before]:
                params = aligned(net.params.shape, net.dtype)
                params[:] = net.params
                net.params = params
                write(net, *((values, None) if name == "coefs_" else (None, values)))
                return
            self._given = {"coefs_": net.weights, "intercepts_": net.biases}
            del self.network_
            state.pop("_misfit", None)
        elif self.n_ensemble > 1:
            raise AttributeError(
                f"an ensemble has {name} per member, as in estimators_[0].{name}; to begin from "
                f"weights, call fit(..., {name.rstrip('_')}_init=...)"
            )
        state.setdefault("_given", {})[name] = values

    @property
    def out_activation_(self) -> str:
        """The output layer's activation; what is written here is what predicts from then on."""
        if self._has_networks():
            name: str = self._networks()[0].activations[-1]
            return name
        given: dict[str, str] = vars(self).get("_given", {})
        return given.get("out_activation_") or ensemble.absent(self, "out_activation_")

    @out_activation_.setter
    def out_activation_(self, name: str) -> None:
        if self._has_networks():
            for net in self._networks():
                predict_with(net, name)
        else:
            self.__dict__.setdefault("_given", {})["out_activation_"] = name

    def _networks(self) -> list[Network]:
        """Return the network, or one per member of the ensemble."""
        members = vars(self).get("estimators_")
        return [self.network_] if members is None else [each.network_ for each in members]

    def __sklearn_is_fitted__(self) -> bool:
        """Whether it was fitted, or was given the weights of a network that was."""
        given = vars(self).get("_given", {}).keys()
        return self._has_networks() or given >= {"coefs_", "intercepts_"}

    def _has_networks(self) -> bool:
        return not vars(self).keys().isdisjoint(("network_", "estimators_"))

    def _check_is_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise shared(
                NotFittedError,
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with "
                "appropriate arguments before using this estimator.",
            )
        if "_misfit" in vars(self):
            raise InvalidParameterError(
                f"activation={self.activation!r} does not describe the fitted network: "
                f"{vars(self)['_misfit']}; fit it again, or set the activation that it has"
            )
        given: Any = vars(self).get("_given")  # another thread may be making the network of it
        if not self._has_networks():
            self._adopt(**given)

    def _adopt(self, coefs_: Any, intercepts_: Any, out_activation_: str | None = None) -> None:
        """Make a network of the weights that were given."""
        sizes = sizes_of(coefs_, intercepts_)
        self.n_features_in_ = sizes[0]
        self._expect_outputs(sizes[-1])
        net = self._new_network(sizes, "zeros", 0)
        write(net, coefs_, intercepts_)
        if out_activation_ is not None:
            predict_with(net, out_activation_)
        for name in ("n_iter_", "t_"):
            vars(self).setdefault(name, 0)
        self.network_, self.history_ = net, net.history
        self.__dict__.pop("_given", None)

    def _expect_outputs(self, n_outputs: int) -> None:
        """Check that weights that were given have the outputs that they need."""

    def __copy__(self) -> Any:
        """Copy it with a network of its own, so that weights given to one are not the other's."""
        other = type(self).__new__(type(self))
        vars(other).update(vars(self))
        if "network_" in vars(self):
            together: Any = ("network_", "_labels")  # they have one array of labels
            own = {name: vars(self)[name] for name in together if name in vars(self)}
            vars(other).update(copy.deepcopy(own))
            other.history_ = other.network_.history
        return other
