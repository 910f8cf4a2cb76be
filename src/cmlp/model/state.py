"""State: all that a network is, for everything below the façade that users see.

Training, scoring, files, traces and diagnoses take a State. :class:`cmlp.Network` is one that has
methods for users.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmlp.core.layout import ALIGNMENT, Array, address, aligned, params_size
from cmlp.core.vocabulary import Loss
from cmlp.data.checks import RowsLike, check_weights, check_X
from cmlp.data.rows import Data
from cmlp.data.targets import check_targets
from cmlp.model.architecture import Architecture
from cmlp.model.custom_loss import refuse_weights
from cmlp.model.history import History
from cmlp.model.inputs import Inputs
from cmlp.model.optimizer_state import OptimizerState
from cmlp.model.parameters import NamedViews, Parameters

Self = TypeVar("Self", bound="State")

NOT_PICKLED = ("_bound", "_lock", "_short_fit", "_stepper", "_version", "plan", "workspaces")
"""Attributes of this process, and the plan, which the architecture gives."""


class State:
    """A network as data: architecture, parameters, optimizer state, labels, record.

    Attributes
    ----------
    architecture : Architecture
    plan : (n_layers, 13) array of int64
        The architecture's layout, which the cores read; rows of a front follow the layers'.
    params : (n,) array
        All parameters; see :class:`cmlp.model.parameters.Parameters`.
    optimizer_state : OptimizerState
    classes : array or None
    feature_names, target_name : list of str, str or None
    history : History
    rng : numpy Generator
    workspaces : list of array
        Scratch of the core, at most one, that calls lend each other.
    """

    architecture: Architecture
    plan: NDArray[np.int64]
    params: Array
    optimizer_state: OptimizerState
    classes: Array | None
    feature_names: list[str]
    target_name: str | None
    history: History
    rng: np.random.Generator
    workspaces: list[Array]

    _lock: Any
    _version: object

    def __init__(self, architecture: Architecture, rng: np.random.Generator) -> None:
        plan = architecture.plan()
        size = params_size(plan)
        self.rebind_attributes(
            architecture=architecture,
            plan=plan,
            params=aligned((size,), architecture.dtype),
            optimizer_state=OptimizerState(size, architecture.dtype),
            classes=None,
            feature_names=[],
            target_name=None,
            history=History(),
            rng=rng,
            workspaces=[],
            _lock=threading.RLock(),  # a callback may train the network that it sees
        )

    def rebind_attributes(self, **attributes: Any) -> None:
        """Write attributes that fit each other; fast paths that were bound to the old ones end.

        Not by way of ``vars(self)``: reading an attribute takes CPython longer from then on.

        Parameters
        ----------
        **attributes
            Names and values.
        """
        for name, value in attributes.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "_version", object())  # last: another thread may be binding

    def replace_architecture(self, architecture: Architecture, params: Array | None = None) -> None:
        """Take another architecture, and the parameters that belong to it.

        Parameters
        ----------
        architecture : Architecture
            With the same sizes, unless `params` is given.
        params : (n_params,) array, optional
            By default the present ones.
        """
        params = self.params if params is None else params
        self.rebind_attributes(architecture=architecture, plan=architecture.plan(), params=params)

    # What it is ----------------------------------------------------------------------------------

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units of every layer, from the inputs to the outputs."""
        return self.architecture.sizes

    @property
    def activations(self) -> tuple[str, ...]:
        """Each layer's activation, the output's last."""
        return self.architecture.activations

    @property
    def dtype(self) -> np.dtype[Any]:
        """The number type, float32 or float64."""
        return self.architecture.dtype

    @property
    def normalization(self) -> str | None:
        """What normalises the hidden layers: 'batch', 'layer' or None."""
        return self.architecture.normalization

    @property
    def normalization_epsilon(self) -> float:
        """What the normalisation adds to a variance."""
        return self.architecture.normalization_epsilon

    @property
    def precision(self) -> str | None:
        """What operands of products are rounded to; None for float32."""
        return self.architecture.precision

    @property
    def parametric_activation(self) -> bool:
        """Whether the hidden activations have an alpha per unit."""
        return self.architecture.parametric_activation

    @property
    def input_scale(self) -> float:
        """What every input is multiplied by."""
        return self.architecture.input_scale

    @property
    def missing_targets(self) -> bool:
        """Whether NaN targets are treated as missing."""
        return self.architecture.missing_targets

    @property
    def weight_init(self) -> str:
        """What the first weights were drawn from."""
        return self.architecture.weight_init

    @property
    def loss_row(self) -> Loss | None:
        """The loss in the vocabulary; None for one of the user's own."""
        return self.architecture.loss

    @property
    def loss_name(self) -> str:
        """The loss; 'custom' for a callable."""
        return self.architecture.loss_name

    @property
    def loss_parameter(self) -> float:
        """The quantile of 'quantile', the threshold of 'huber'."""
        return self.architecture.loss_parameter

    @property
    def n_params(self) -> int:
        """Number of weights, biases, scales and alphas, without the padding."""
        return self.architecture.n_params

    # Its numbers ---------------------------------------------------------------------------------

    @property
    def parameter_views(self) -> Parameters:
        """The parameters with their plan."""
        return Parameters(self.plan, self.params)

    @property
    def weights(self) -> list[Array]:
        """Each layer's weights, (n_in, n_out), as views into `params`."""
        return self.parameter_views.weights

    @property
    def biases(self) -> list[Array]:
        """Each layer's biases, (n_out,), as views into `params`."""
        return self.parameter_views.biases

    @property
    def scales(self) -> list[Array]:
        """Each normalised layer's gamma, (n_out,), as views into `params`."""
        return self.parameter_views.scales

    @property
    def alphas(self) -> list[Array]:
        """Each hidden layer's alpha, (n_out,), if it has one, as views into `params`."""
        return self.parameter_views.alphas

    @property
    def inputs(self) -> Inputs | None:
        """What happens to the columns of X before the first layer; None for nothing."""
        return self.architecture.inputs

    @property
    def front(self) -> NamedViews:
        """What is learned before the first layer, by name, as views into `params`."""
        return self.parameter_views.front

    @property
    def running(self) -> list[tuple[Array, Array]]:
        """Running mean and variance of each layer normalised by 'batch', as views."""
        return self.parameter_views.running

    @property
    def solver(self) -> str:
        """The rule of the last steps; empty before the first."""
        return self.optimizer_state.solver

    @property
    def moments(self) -> Array:
        """The optimizer's memory, (n_moments, len(params))."""
        return self.optimizer_state.moments

    @property
    def steps(self) -> int:
        """Steps taken with these moments."""
        return self.optimizer_state.steps

    @property
    def averaged(self) -> int:
        """Steps that the weights are averaged over; 0 without averaging."""
        return self.optimizer_state.average_steps

    @property
    def last_solver(self) -> str:
        """The rule that trained it last, from the record if the state has none; or nothing."""
        trained = self.steps or self.history.get("loss")
        return (self.solver if trained else "") or self.history.solver

    # Rows ----------------------------------------------------------------------------------------

    def encode_rows(
        self, X: RowsLike, y: ArrayLike, sample_weight: ArrayLike | None = None, suffix: str = ""
    ) -> Data:
        """Check rows, targets and weights; the labels of the first targets seen are kept.

        Parameters
        ----------
        suffix : str
            What errors append to the names X and y, such as '_val'.
        """
        rows = check_X(X, self.sizes[0], self.dtype, f"X{suffix}")
        n, about = len(rows), self.architecture
        if n == 0:
            raise ValueError(f"X{suffix} has no rows")
        weights = check_weights(sample_weight, n)
        if weights is not None and about.weights_argument == "no":
            raise refuse_weights()
        if about.unsuited:
            raise ValueError(about.unsuited)
        targets, classes = check_targets(
            y, n, self.sizes[-1], about.loss, self.classes, self.dtype, f"y{suffix}",
            about.missing_targets,
        )  # fmt: skip
        if classes is not self.classes:
            self.classes = classes
        return Data(rows, targets, weights)

    def target_matrix(self, targets: Array) -> Array:
        """Return encoded targets as numbers, (n, n_out): class numbers become one-hot rows.

        Parameters
        ----------
        targets : (n,) or (n, n_out) array
            Those of :meth:`encode_rows`.
        """
        if targets.ndim == 1:
            targets = targets[:, None] == np.arange(self.sizes[-1])
        return np.array(targets, self.dtype)  # a copy: what a custom loss does to it stays there

    @contextlib.contextmanager
    def exclusive_training(self) -> Iterator[None]:
        """Train in this block, and refuse other threads that train the same network.

        Two trainings at once would take steps from each other's weights with moments of their own,
        and no result could be reproduced. Predictions are allowed: they use the weights of the
        moment.
        """
        self.begin_training()
        try:
            yield
        finally:
            self.end_training()

    def begin_training(self) -> None:
        """Refuse other threads until :meth:`end_training`; see :meth:`exclusive_training`."""
        if not self._lock.acquire(blocking=False):
            raise RuntimeError(
                "another thread is training this network: wait for it, or train a copy "
                "(copy.deepcopy(net))"
            )

    def end_training(self) -> None:
        """Let other threads train."""
        self._lock.release()

    # Copies --------------------------------------------------------------------------------------

    def __copy__(self: Self) -> Self:
        """Copy everything: two networks that share their weights would surprise."""
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds: numbers, arrays, text and public classes."""
        kept = {name: value for name, value in vars(self).items() if name not in NOT_PICKLED}
        optimizer = self.optimizer_state
        kept["architecture"] = self.architecture.to_dict(), self.architecture.custom_loss
        kept["optimizer_state"] = optimizer.to_dict() | {"moments": optimizer.moments}
        return kept

    def __setstate__(self, kept: dict[str, Any]) -> None:
        kept = dict(kept)
        optimizer = kept.pop("optimizer_state")
        architecture = Architecture.from_dict(*kept.pop("architecture"))
        params = _at_cache_line(kept.pop("params"))
        state = OptimizerState(len(params), params.dtype)
        state.moments = _at_cache_line(optimizer["moments"])
        state.set_counts(optimizer)
        self.rebind_attributes(
            architecture=architecture,
            plan=architecture.plan(),
            params=params,
            optimizer_state=state,
            workspaces=[],
            _lock=threading.RLock(),
            **kept,
        )

    def astype(self: Self, dtype: Any) -> Self:
        """Return a copy in another dtype, without optimizer state."""
        other = copy.deepcopy(self)
        architecture = other.architecture.astype(dtype)
        plan = architecture.plan()
        params = aligned((params_size(plan),), architecture.dtype)
        theirs = Parameters(plan, params).parts()
        for name, part in self.parameter_views.parts().items():
            theirs[name][...] = part
        other.replace_architecture(architecture, params)
        other.forget_optimizer()
        return other

    def forget_optimizer(self) -> None:
        """Drop the optimizer's state; the record keeps the name of its rule."""
        self.history.solver = self.last_solver
        self.rebind_attributes(optimizer_state=OptimizerState(len(self.params), self.dtype))


def followed(state: State, other: State) -> Array:
    """Return the parameters of another network, which this one takes over or moves towards.

    Raises
    ------
    ValueError
        If they are laid out in another way, or mean something else.
    """
    if not isinstance(other, State):
        raise TypeError(f"another network was expected, not {other!r}")
    mine, theirs = state.architecture, other.architecture
    if state.dtype != other.dtype or not np.array_equal(state.plan, other.plan):
        raise ValueError(
            f"the other network must have the same architecture: this one is Network({mine}), the "
            f"other one Network({theirs})"
        )
    return other.params


def _at_cache_line(array: Array) -> Array:
    """Return an array that begins at a cache line: a pickle does not know where one began."""
    if not array.flags.writeable or address(array) % ALIGNMENT == 0:  # a mapped file stays one
        return array
    copied = aligned(array.shape, array.dtype)
    copied[...] = array
    return copied
