"""All calls of the core but the trainer's epoch: predictions, losses, gradients, single updates.

Rows, targets and weights come checked (:meth:`cmlp.model.state.State.encode_rows`). Long calls are
divided into portions between which Python handles Ctrl-C, or take a `team` that another thread can
end; see :mod:`cmlp.core.team`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmlp.core import dispatch
from cmlp.core.errstate import undisturbed
from cmlp.core.layout import (
    ACTIVATION,
    ALPHA,
    N_IN,
    N_OUT,
    NORMALIZATION,
    PARAMETER,
    Array,
    aligned,
    folded,
    layers_of,
)
from cmlp.core.seam import Noise, Objective, Optimizer, Places, SparseRows
from cmlp.core.vocabulary import EXTERNAL_LOSS, activation_of
from cmlp.data.rows import Data
from cmlp.model.parameters import Parameters, cut_record, new_record
from cmlp.model.state import State

CALL_FLOPS = 2e9
"""Work of one call of the core, a fraction of a second; after it Python handles Ctrl-C."""

PASS_ROWS = 1024
"""Rows that the cores take through a network together."""

LARGEST_WORKSPACE = 1 << 22
"""Bytes of a workspace that is kept for the next call."""

PLAIN = Noise()


def flops_of(state: State) -> float:
    """Return the floating-point operations of a training step, for one row."""
    layers = layers_of(state.plan)
    return 6.0 * int(layers[:, N_IN] @ layers[:, N_OUT])


def portions(
    X: Array | SparseRows, flops: float
) -> Iterator[tuple[slice, Array | SparseRows, NDArray[np.int64] | None]]:
    """Divide rows between calls of the core that are short enough for Ctrl-C.

    Yields
    ------
    part : slice
        Some of the rows, a multiple of those of a pass.
    X, rows
        What the core takes for them: a part of the array, or all of it and the rows' numbers.
    """
    size = max(1, int(CALL_FLOPS / flops / PASS_ROWS)) * PASS_ROWS
    if len(X) <= size:
        yield slice(None), X, None
        return
    for start in range(0, len(X), size):
        part = slice(start, min(start + size, len(X)))
        if isinstance(X, SparseRows):
            yield part, X, np.arange(part.start, part.stop)
        else:
            yield part, X[part], None


@contextlib.contextmanager
def workspace_for(state: State, batch_size: int = 1) -> Iterator[Array]:
    """Lend a workspace for the core; one is kept, so that small calls do not allocate."""
    size = dispatch.core.workspace_size(state.plan, batch_size)
    workspace = np.empty(0, state.dtype)
    with contextlib.suppress(IndexError):  # another thread may have it
        workspace = state.workspaces.pop()
    if len(workspace) < size:
        workspace = aligned((size,), state.dtype)
    try:
        yield workspace
    finally:
        if workspace.nbytes <= LARGEST_WORKSPACE:
            state.workspaces[:] = [workspace]


# Predictions -------------------------------------------------------------------------------------


@undisturbed
def prediction_parameters(state: State) -> Parameters:
    """Return the plan and parameters that predict, with 'batch' folded into the weights."""
    return Parameters(*folded(state.plan, state.params))


def predict(state: State, X: Array | SparseRows) -> Array:
    """Return the output activations of checked rows, (n, n_out)."""
    out = np.empty((len(X), state.sizes[-1]), state.dtype)
    with workspace_for(state) as workspace:
        for part, some, rows in portions(X, flops_of(state)):
            dispatch.core.predict(
                state.plan, state.params, some, rows, out[part], workspace, state.input_scale
            )
    return out


def predict_layer(
    state: State, X: Array | SparseRows, n_layers: int | None = None, linear: bool = False
) -> Array:
    """Return the activations after some layers; `linear` leaves out the last activation."""
    every = layers_of(state.plan)
    layers = every[:n_layers].copy()
    if layers[-1, [NORMALIZATION, ALPHA]].any():  # a core's last layer has neither
        return _hidden_layer(state, X, len(layers) - 1, linear)
    if linear:
        layers[-1, [ACTIVATION, PARAMETER]] = activation_of("identity").code, 0
    plan = np.concatenate([layers, state.plan[len(every) :]])
    out = np.empty((len(X), int(layers[-1, N_OUT])), state.dtype)
    workspace = aligned((dispatch.core.workspace_size(plan, 1),), state.dtype)
    for part, some, rows in portions(X, flops_of(state)):
        dispatch.core.predict(
            plan, state.params, some, rows, out[part], workspace, state.input_scale
        )
    return out


def _hidden_layer(state: State, X: Array | SparseRows, number: int, linear: bool) -> Array:
    """Return the sums or activations of a hidden layer, from a pass through all layers."""
    out = np.empty((len(X), state.sizes[number + 1]), state.dtype)
    for part, some, rows in portions(X, flops_of(state)):
        z, a = forward(state, some if rows is None else some[rows])
        out[part] = (z if linear else a)[number]
    return out


def fast_outputs(state: State) -> Callable[[Any], Array | None]:
    """Return the outputs of rows that need no check; it returns None for any others."""
    core = dispatch.core
    outputs: Callable[[Any], Array | None]
    outputs = core.Predictor(state.plan, state.params, state.input_scale).outputs
    return outputs


def predictor(state: State, batch_size: int) -> Any:
    """Return a predictor; see :meth:`cmlp.Network.predictor`."""
    return dispatch.core.Predictor(*prediction_parameters(state), state.input_scale, batch_size)


def forward(state: State, X: Array | SparseRows) -> tuple[list[Array], list[Array]]:
    """Return every layer's weighted sums and activations, (n, n_out) each."""
    z, a = (new_record(state.plan, len(X), state.dtype) for _ in range(2))
    with workspace_for(state) as workspace:
        dispatch.core.forward(state.plan, state.params, X, z, a, workspace, state.input_scale)
    return cut_record(state.plan, z), cut_record(state.plan, a)


# Losses ------------------------------------------------------------------------------------------


def evaluate(
    state: State,
    data: Data,
    objective: Objective,
    rows: NDArray[np.int64] | None = None,
    *,
    noise: Noise = PLAIN,
    step: int = 0,
    parameters: Parameters | None = None,
    workspace: Array | None = None,
    team: Places | None = None,
    first_row: int = 0,
) -> tuple[Array, Array]:
    """Return the outputs, (n, n_out), and the cost of each row, (n,), of a loss of the core.

    Parameters
    ----------
    rows : (n,) array, optional
        Which rows; all by default.
    parameters : Parameters, optional
        Others than the state's, such as those that predict.
    workspace : array, optional
        Scratch for as many rows; by default one is lent, and the rows are divided into portions.
    first_row : int
        Place of the first row in a batch, of which other machines have the rest; for the noise.
    """
    n = len(data.X) if rows is None else len(rows)
    plan, params = state.parameter_views if parameters is None else parameters
    out, costs = np.empty((n, state.sizes[-1]), state.dtype), np.empty(n, state.dtype)

    def call(part: slice, some: NDArray[np.int64] | None, workspace: Array) -> None:
        dispatch.core.evaluate(
            plan, params, data.X, data.targets, some, objective, noise, step, out[part],
            costs[part], workspace, state.input_scale, team, first_row,
        )  # fmt: skip

    if workspace is not None:
        call(slice(None), rows, workspace)
        return out, costs
    numbers = np.arange(n) if rows is None else rows
    with workspace_for(state, n if state.normalization == "batch" else 1) as lent:
        for part, _, _ in portions(numbers, flops_of(state)):
            call(part, numbers[part], lent)
    return out, costs


def shared_penalties(objective: Objective, weights: NDArray[np.float64] | None) -> Objective:
    """Return an objective for a custom loss, whose weights the core does not see.

    With ``per_batch`` the core divides the penalties by the number of rows, and scikit-learn by
    their weight.
    """
    if weights is None or not objective.per_batch:
        return objective
    factor = len(weights) / float(weights.sum()) if weights.any() else 0.0
    return objective._replace(l1=objective.l1 * factor, l2=objective.l2 * factor)


# Gradients ---------------------------------------------------------------------------------------


class Backpropagation(NamedTuple):
    """What the chain rule gives for a batch."""

    loss: float
    """With penalties; NaN if another thread ended the call."""
    gradient: Array
    """Flat, laid out like the parameters."""
    deltas: Array
    """dC/dz, a record; without rows unless requested."""
    inputs: Array
    """dC/dX, (n, n_in); without rows unless requested."""


def backpropagate(
    state: State,
    data: Data,
    objective: Objective,
    *,
    deltas: bool = False,
    inputs: bool = False,
    learns: bool = False,
    team: Places | None = None,
    noise: Noise = PLAIN,
    first_row: int = 0,
) -> Backpropagation:
    """Return the loss of the rows and its derivatives.

    Parameters
    ----------
    deltas, inputs : bool
        Whether dC/dz and dC/dX are required.
    learns : bool
        Whether running statistics follow those of the rows.
    team : array, optional
        Lets another thread end the call early.
    noise, first_row
        As of :func:`evaluate`, for the network's next step.
    """
    n, targets, weights, value = len(data.X), data.targets, data.weights, 0.0
    random: dict[str, Any] = {"noise": noise, "step": state.steps, "first_row": first_row}
    if state.loss_row is None:
        with workspace_for(state, n) as workspace:
            out, _ = evaluate(state, data, objective, workspace=workspace, team=team, **random)
        y = state.target_matrix(targets)
        value, targets = state.architecture.call_loss(out, y, weights) if n else (0.0, out)
        objective = shared_penalties(objective, weights)
        weights = None  # they are in dC/da
    grads = np.zeros_like(state.params)
    record = new_record(state.plan, n if deltas else 0, state.dtype)
    dX = np.empty((n if inputs else 0, state.sizes[0]), state.dtype)
    with workspace_for(state, n) as workspace:
        value += dispatch.core.gradient(
            state.plan, state.params, data.X, targets, weights, None, objective, noise, state.steps,
            grads, record, dX, workspace, state.input_scale, learns, team, first_row,
        )  # fmt: skip
    return Backpropagation(value, grads, record, dX)


def backpropagate_slope(
    state: State,
    X: Array | SparseRows,
    slope: Array,
    objective: Objective,
    grads: Array,
    workspace: Array,
    *,
    noise: Noise = PLAIN,
    step: int = 0,
    team: Places | None = None,
) -> float:
    """Write the gradient of a batch to `grads`, from dC/da of a custom loss, (n, n_out).

    Returns
    -------
    float
        The penalties.
    """
    nothing = np.empty((0, 0), state.dtype)
    penalty: float = dispatch.core.gradient(
        state.plan, state.params, X, slope, None, None, objective, noise, step, grads, nothing,
        nothing, workspace, state.input_scale, True, team,
    )  # fmt: skip
    return penalty


def output_slopes(state: State, X: Array | SparseRows) -> Array:
    """Return the derivatives of the outputs by the inputs, (n, n_out, n_in)."""
    n, n_outputs = len(X), state.sizes[-1]
    gradients = np.empty((n, n_outputs, state.sizes[0]), state.dtype)
    objective = Objective(EXTERNAL_LOSS, state.loss_parameter)
    plan, params = prediction_parameters(state)
    scrap, nothing = np.empty_like(params), np.empty((0, 0), state.dtype)
    with workspace_for(state, n) as workspace:
        for output in range(n_outputs):
            slope = np.zeros((n, n_outputs), state.dtype)
            slope[:, output] = 1
            dX = np.empty((n, state.sizes[0]), state.dtype)
            dispatch.core.gradient(
                plan, params, X, slope, None, None, objective, PLAIN, 0, scrap, nothing, dX,
                workspace, state.input_scale,
            )  # fmt: skip
            gradients[:, output] = dX
    return gradients


def update(state: State, grads: Array, optimizer: Optimizer, learning_rate: float) -> None:
    """Take one step against a gradient, which may be used up."""
    memory = state.optimizer_state
    dispatch.core.update(
        state.plan, state.params, grads, memory.moments, optimizer, memory.steps,
        float(learning_rate),
    )  # fmt: skip
    memory.steps += 1
