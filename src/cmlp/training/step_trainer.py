"""The trainer of programs that train step by step: reinforcement learning, control, streams."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmlp.core import dispatch
from cmlp.core.checks import check_number
from cmlp.core.errstate import undisturbed
from cmlp.core.layout import Array, aligned
from cmlp.core.seam import SparseRows
from cmlp.data.checks import RowsLike, check_X
from cmlp.data.numbers import as_numbers, check_finite
from cmlp.model import passes
from cmlp.model.parameters import Gradients, Parameters
from cmlp.model.precision import check_first_columns
from cmlp.model.state import State
from cmlp.training.fit import not_finite
from cmlp.training.recipe import Recipe
from cmlp.training.stepper import Stepper, objective_of

ANY_SIZE = 1 << 60
"""Bytes that a trainer may keep: what its largest batch needs."""


class StepTrainer:
    """Takes single steps on a network, with the preparations made once; made by ``net.trainer``.

    A step trains as ``net.step`` with the same parameters does, to the bit; both, and ``fit``, may
    take turns. The trainer follows what happens to its network: weights that are written in place
    or assigned, other activations, other cores, steps by another optimizer. It keeps the memory
    that its largest batch needs.

    It is for one thread at a time: the network's lock refuses a second one. It cannot be pickled or
    copied; do so with its network.

    Attributes
    ----------
    network : Network
        The network that it trains.
    learning_rate : float
        Of the next steps; another one may be assigned.
    """

    def __init__(self, network: State, recipe: Recipe, batch_size: int) -> None:
        recipe.check(network.architecture)
        if recipe.ema:
            raise ValueError(
                "a trainer takes no mean of the weights (ema): let a copy of the network follow, "
                "slow.polyak(net, tau), or train by net.step"
            )
        self.network, self.recipe = network, recipe
        self._rate = float(recipe.learning_rate)
        self._stepper = Stepper(recipe, ANY_SIZE, batch_size)
        self._external = Stepper(recipe, ANY_SIZE, batch_size, external=True)
        self._plan: NDArray[np.int64] | None = None  # of the arrays below
        self._flat = self._inputs = self._workspace = np.empty(0, network.dtype)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a trainer cannot be pickled or copied: do so with its network")

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next steps."""
        return self._rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self._rate = check_number("learning_rate", rate, 0)

    def step(self, X: RowsLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Take one step on these rows as one batch, and return their loss before it.

        Plain arrays take the least time: X of real numbers, y of whole numbers from 0 on (classes)
        or of real numbers, weights of floats. Anything else that ``fit`` takes is converted.

        Parameters
        ----------
        X : array-like, (n, n_in)
        y : array-like
            Class labels, (n,), or numbers, (n,) or (n, n_out).
        sample_weight : array-like, (n,), optional

        Returns
        -------
        float
            The mean loss of the rows, with penalties.

        Raises
        ------
        DivergenceError
            If the loss is not finite; the step is not taken.
        ValueError, TypeError
            For data that do not fit; the message names what is expected.
        RuntimeError
            If another thread is training this network.
        """
        net, stepper = self.network, self._stepper
        net.begin_training()
        try:
            loss = stepper.step(net, X, y, sample_weight, self._rate)
            if loss is None:
                loss = stepper.step_of_any(net, X, y, sample_weight, self._rate)
            return loss
        finally:
            net.end_training()

    @undisturbed
    def gradients(
        self,
        X: RowsLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        inputs: bool = False,
    ) -> Gradients:
        """Return the derivatives of what :meth:`step` minimises, and take no step.

        They are without dropout, noise of the inputs, and clipping.

        Parameters
        ----------
        X, y, sample_weight
            As for :meth:`step`.
        inputs : bool
            Whether dC/dX is required.

        Returns
        -------
        Gradients
            As of ``net.gradients``, in **arrays that the next call of the trainer overwrites**;
            copy what you keep. Changed in place, they are what :meth:`apply` takes a step against.
        """
        net = self.network
        with net.exclusive_training():
            data = net.encode_rows(X, y, sample_weight)
            check_first_columns(net, data.X)
            objective = objective_of(net, self.recipe, False)
            if net.loss_row is None:
                found = passes.backpropagate(net, data, objective, inputs=inputs)
                self._make_room(0, False)
                self._flat[:] = found.gradient
                return self._gradients(found.loss, found.inputs)
            return self._backpropagate(data.X, data.targets, data.weights, objective, inputs)

    def backward(
        self, X: RowsLike, dC_da: ArrayLike, *, apply: bool = True, inputs: bool = False
    ) -> Gradients | None:
        """Take one step from derivatives of your own: dC/da, by the outputs of the network.

        C is any cost to be made smaller, such as minus the advantage times the logarithm of a
        policy's probability, or minus the critic's value of an actor's action. `dC_da` is that of
        the whole batch: for a mean over n rows it has the factor 1/n already. It is by the outputs
        that ``net.predict(X)`` returns, after the last activation: with ``out_activation=
        "identity"`` they are logits, whose derivatives keep their digits. The penalties `l1` and
        `l2` are added, and clipping acts; dropout and noise of the inputs do not.

        Parameters
        ----------
        X : array-like, (n, n_in)
        dC_da : array-like, (n, n_out); of one output also (n,)
        apply : bool
            False takes no step and returns the gradients.
        inputs : bool
            Whether dC/dX is required as well, with ``apply=False``: the derivative of the cost by
            these inputs, such as by the actions that a critic values.

        Returns
        -------
        Gradients or None
            With ``apply=False`` those of C, as of :meth:`gradients`; `loss` is the penalties.

        Raises
        ------
        ValueError, TypeError
            For data that do not fit; the message names what is expected.
        RuntimeError
            If another thread is training this network.
        """
        net = self.network
        net.begin_training()
        try:
            if not apply:
                return self._gradients_from(X, dC_da, inputs)
            if inputs:
                raise ValueError("inputs=True is for apply=False: a step returns no gradients")
            if self._external.step(net, X, dC_da, None, self._rate) is None:
                self._step_from(X, dC_da)
            return None
        finally:
            net.end_training()

    @undisturbed
    def apply(self) -> None:
        """Take one step against the gradients of the last call, which you may have changed.

        The arrays of :meth:`gradients`, or of :meth:`backward` with ``apply=False``, are used up.

        Raises
        ------
        ValueError
            If there are none, or the network has become another one meanwhile.
        """
        net = self.network
        with net.exclusive_training():
            if self._plan is not net.plan:
                raise ValueError(
                    "there are no gradients of this network to apply: call gradients(X, y) or "
                    "backward(X, dC_da, apply=False) first"
                )
            self._update()

    # From dC/da ----------------------------------------------------------------------------------

    @undisturbed
    def _gradients_from(self, X: RowsLike, dC_da: ArrayLike, inputs: bool) -> Gradients:
        rows, slopes = check_slopes(self.network, X, dC_da)
        objective = objective_of(self.network, self.recipe, True)
        return self._backpropagate(rows, slopes, None, objective, inputs)

    @undisturbed
    def _step_from(self, X: RowsLike, dC_da: ArrayLike) -> None:
        """Take the step that needs a closer look at X and dC/da."""
        net = self.network
        rows, slopes = check_slopes(net, X, dC_da)
        if self._external.step(net, rows, slopes, None, self._rate) is None:
            objective = objective_of(net, self.recipe, True)
            self._backpropagate(rows, slopes, None, objective, False, learns=True)
            self._update()

    # The gradient, written out -------------------------------------------------------------------

    def _backpropagate(
        self,
        X: Array | SparseRows,
        targets: Array,
        weights: NDArray[np.float64] | None,
        objective: Any,
        inputs: bool,
        learns: bool = False,
    ) -> Gradients:
        """Write a gradient to the arrays of this trainer."""
        net, n = self.network, len(X)
        self._make_room(n, inputs)
        dX = self._inputs[:n] if inputs else self._inputs[:0]
        self._flat[:] = 0  # a batch adds to the tables of a front
        loss = dispatch.core.gradient(
            net.plan, net.params, X, targets, weights, None, objective, passes.PLAIN, 0,
            self._flat, np.empty((0, 0), net.dtype), dX, self._workspace, net.input_scale, learns,
        )  # fmt: skip
        if not math.isfinite(loss):
            self._plan = None  # nothing to apply
            raise not_finite()
        return self._gradients(loss, dX)

    def _make_room(self, n: int, inputs: bool) -> None:
        """Make the arrays that hold a gradient, and scratch for n rows."""
        net = self.network
        if self._plan is not net.plan or self._flat.dtype != net.dtype:
            self._plan = net.plan
            self._flat = aligned((len(net.params),), net.dtype)
            self._inputs = np.empty((0, net.sizes[0]), net.dtype)
            self._workspace = np.empty(0, net.dtype)
            parts = Parameters(net.plan, self._flat)
            self._parts = parts.weights, parts.biases, parts.scales, parts.alphas, parts.front
        size = dispatch.core.workspace_size(net.plan, n)
        if len(self._workspace) < size:
            self._workspace = aligned((size,), net.dtype)
        if inputs and len(self._inputs) < n:
            self._inputs = np.empty((n, net.sizes[0]), net.dtype)

    def _gradients(self, loss: float, dX: Array) -> Gradients:
        weights, biases, scales, alphas, front = self._parts
        return Gradients(weights, biases, dX, loss, scales, alphas, front)

    def _update(self) -> None:
        net, recipe = self.network, self.recipe
        net.optimizer_state.moments_for(recipe.rule)
        passes.update(net, self._flat, recipe.optimizer(net.architecture), self._rate)


def check_slopes(net: State, X: Any, dC_da: Any) -> tuple[Array | SparseRows, Array]:
    """Return rows and the derivatives by their outputs, as the core reads them.

    Raises
    ------
    ValueError
        For a wrong shape, and for NaN and infinity.
    """
    rows = check_X(X, net.sizes[0], net.dtype)
    n, n_out = len(rows), net.sizes[-1]
    if n == 0:
        raise ValueError("X has no rows")
    slopes = as_numbers("dC_da", dC_da)
    if slopes.shape == (n,) and n_out == 1:
        slopes = slopes[:, None]
    if slopes.shape != (n, n_out):
        raise ValueError(
            f"dC_da must be ({n}, {n_out}), a derivative for each output of each row of X; its "
            f"shape is {slopes.shape}"
        )
    check_finite("dC_da", slopes, net.dtype)
    check_first_columns(net, rows)
    if net.normalization == "batch" and n == 1:
        from cmlp.training.trainer import check_batch_size

        check_batch_size(net, n)
    return rows, slopes
