"""Trace: one step of backpropagation with every number in it."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cmlp.core import formatting
from cmlp.core.errstate import undisturbed
from cmlp.core.layout import Array, layers_of
from cmlp.core.public import set_module
from cmlp.core.reference.bfloat16 import operands
from cmlp.core.reference.forward import propagate
from cmlp.core.reference.front import Expanded
from cmlp.core.seam import SparseRows
from cmlp.core.vocabulary import activation_of, number_text
from cmlp.model import passes
from cmlp.model.parameters import Parameters, cut_record
from cmlp.model.state import State
from cmlp.training.snapshot import Snapshot

if TYPE_CHECKING:
    from cmlp.data.rows import Data
    from cmlp.training.recipe import Recipe


class TracedNormalization(NamedTuple):
    """What lies between a layer's z and its activation, which is then applied to y."""

    formula: str
    """Of zhat."""
    zhat: Array
    y: Array
    gamma: Array
    dgamma: Array
    new_gamma: Array


class TracedAlpha(NamedTuple):
    """Of a parametric activation, a = z + alpha (f(z) - z): alpha, dC/dalpha, and alpha after."""

    alpha: Array
    dalpha: Array
    new_alpha: Array


class TracedLayer(NamedTuple):
    """One layer's part of a step; z, a and delta have a row per row of X.

    The biases of a normalised layer are its beta.
    """

    name: str
    formula: str
    weights: Array
    biases: Array
    z: Array
    a: Array
    delta: Array
    dweights: Array
    dbiases: Array
    new_weights: Array
    new_biases: Array
    normalization: TracedNormalization | None = None
    parametric: TracedAlpha | None = None

    def forward(self) -> list[tuple[str, Any]]:
        """Return labels and numbers of the way to the activations."""
        normalised = self.normalization
        formula, alpha = self.formula, []
        if self.parametric is not None:
            formula, alpha = f"z + alpha ({formula} - z)", [("alpha", self.parametric.alpha)]
        if normalised is None:
            return [
                ("W", self.weights),
                ("b", self.biases),
                *alpha,
                ("z = a_before W + b", self.z),
                (f"a = {formula}", self.a),
            ]
        return [
            ("W", self.weights),
            ("gamma", normalised.gamma),
            ("beta", self.biases),
            *alpha,
            ("z = a_before W", self.z),
            (f"zhat = {normalised.formula}", normalised.zhat),
            ("y = gamma zhat + beta", normalised.y),
            (f"a = {formula}, of y for z", self.a),
        ]

    def backward(self, chain: str) -> list[tuple[str, Any]]:
        """Return labels and numbers of the gradients."""
        normalised = self.normalization
        alpha = []
        if self.parametric is not None:
            alpha = [("dC/dalpha = sum of dC/da (f - z) over the rows", self.parametric.dalpha)]
        if normalised is None:
            return [
                *alpha,
                (f"delta = dC/dz = {chain}", self.delta),
                ("dC/dW = a_before^T delta", self.dweights),
                ("dC/db = sum of delta over the rows", self.dbiases),
            ]
        return [
            *alpha,
            (f"dC/dbeta = sum over the rows of dC/dy = {chain}", self.dbiases),
            ("dC/dgamma = sum of dC/dy * zhat over the rows", normalised.dgamma),
            ("delta = dC/dz = dC/dy gamma * dzhat/dz", self.delta),
            ("dC/dW = a_before^T delta", self.dweights),
        ]

    def update(self) -> list[tuple[str, Any]]:
        """Return labels and numbers of the step."""
        alpha = []
        if self.parametric is not None:
            alpha = [("new alpha", self.parametric.new_alpha)]
        if self.normalization is None:
            return [("new W", self.new_weights), ("new b", self.new_biases), *alpha]
        return [
            ("new W", self.new_weights),
            ("new gamma", self.normalization.new_gamma),
            ("new beta", self.new_biases),
            *alpha,
        ]


class TracedFront(NamedTuple):
    """What happens before the first layer; the arrays are by the names of ``net.front``."""

    arrays: dict[str, Array]
    inputs: Array
    """What the first layer gets, (rows, n_in)."""
    sums: Array | None
    """What is added to its weighted sums, (rows, units)."""
    gradients: dict[str, Array]
    new_arrays: dict[str, Array]

    def forward(self) -> list[tuple[str, Any]]:
        """Return labels and numbers of the way to the first layer."""
        made = [("x, the inputs of layer 1", self.inputs)]
        if self.sums is not None:
            made.append(("added to z of layer 1, of summed tables", self.sums))
        return [*self.arrays.items(), *made]


@set_module("cmlp")
@dataclass(frozen=True)
class Trace:
    """One step of gradient descent, layer by layer; ``print`` it to read along.

    Attributes
    ----------
    X, y : ndarray
        The rows, and their targets as numbers, (rows, n_out).
    layers : list of TracedLayer
    costs : ndarray
        Loss of each row before the step.
    loss, new_loss : float
        Their mean plus penalties, before and after the step.
    rule : str
        The update's formula.
    input_scale : float
        Of the network: X is what its first layer sees, multiplied by it.
    front : TracedFront or None
        What happens to X before the first layer.
    precision : str or None
        Of the network: what the operands of its products are rounded to, here shown unrounded.
    """

    X: Array
    y: Array
    layers: list[TracedLayer]
    costs: Array
    loss: float
    new_loss: float
    loss_formula: str
    rule: str
    input_scale: float = 1.0
    front: TracedFront | None = None
    precision: str | None = None

    def _sections(self) -> list[tuple[str, list[tuple[str, Any]]]]:
        """Return headings, each with (label, array or text), in the order of the computation."""
        scaled = "X" if self.input_scale == 1 else f"X, multiplied by {self.input_scale:g}"
        sections: list[tuple[str, list[tuple[str, Any]]]] = [("Inputs", [(scaled, self.X)])]
        if self.precision is not None:
            text = f"operands are rounded to {self.precision.partition('-')[0]} just before"
            sections[0][1].append(("products of layers of more than 16 units", text))
        if self.front is not None:
            sections.append(("Forward, front", self.front.forward()))
        for layer in self.layers:
            sections.append((f"Forward, {layer.name}", layer.forward()))
        sections.append(
            (
                "Cost",
                [
                    ("y", self.y),
                    (f"cost of each row, C = {self.loss_formula}", self.costs),
                    ("loss", f"{self.loss:.6g}"),
                ],
            )
        )
        for number in reversed(range(len(self.layers))):
            layer = self.layers[number]
            last = number == len(self.layers) - 1
            chain = "dC/da * da/dz, over the rows" if last else "(delta_after W_after^T) * da/dz"
            sections.append((f"Backward, {layer.name}", layer.backward(chain)))
        if self.front is not None:
            slopes = [(f"dC/d {name}", d) for name, d in self.front.gradients.items()]
            sections.append(("Backward, front", slopes))
            new = [(f"new {name}", after) for name, after in self.front.new_arrays.items()]
            sections.append((f"Update, front: {self.rule}", new))
        for layer in self.layers:
            sections.append((f"Update, {layer.name}: {self.rule}", layer.update()))
        change = f"{self.new_loss:.6g} ({self.new_loss - self.loss:+.3g})"
        sections.append(("After the step", [("loss", change)]))
        return sections

    @undisturbed
    def __str__(self) -> str:
        lines = []
        for heading, entries in self._sections():
            lines.append(f"{heading}\n{'-' * len(heading)}")
            for label, value in entries:
                if isinstance(value, str):
                    lines.append(f"  {label}: {value}")
                else:
                    lines.append(f"  {label}  {value.shape}")
                    lines.append(_indented(formatting.array(value)))
            lines.append("")
        return "\n".join(lines)

    @undisturbed
    def _repr_html_(self) -> str:
        parts = ['<div style="font-family: sans-serif">']
        for heading, entries in self._sections():
            parts.append(f"<h4>{html.escape(heading)}</h4><table>")
            for label, value in entries:
                text = value if isinstance(value, str) else formatting.array(value)
                parts.append(
                    "<tr><td style='text-align:left; vertical-align:top'>"
                    f"<code>{html.escape(label)}</code></td>"
                    f"<td style='text-align:left'><pre>{html.escape(text)}</pre></td></tr>"
                )
            parts.append("</table>")
        return "".join([*parts, "</div>"])


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def trace_step(net: State, data: Data, recipe: Recipe, apply: bool) -> Trace:
    """Take one step, and return every number in it; see :meth:`Network.trace_step`."""
    if np.any(np.asarray(recipe.dropout)) or recipe.input_noise or recipe.ema:
        raise ValueError("a trace shows one plain step: leave dropout, input_noise and ema at 0")
    snapshot = Snapshot(net)
    before = snapshot.params
    X = data.X.dense(net.dtype) if isinstance(data.X, SparseRows) else data.X
    X = np.asarray(X, net.dtype) * net.dtype.type(net.input_scale)
    passed, expanded = _propagated(net, X)
    costs = _row_costs(net, data, recipe)
    objective = recipe.objective(net.architecture)
    found = passes.backpropagate(net, data, objective, deltas=True, learns=True)
    gradient = found.gradient.copy()  # the update may use it up
    net.optimizer_state.moments_for(recipe.rule)
    optimizer = recipe.optimizer(net.architecture)
    passes.update(net, found.gradient, optimizer, recipe.learning_rate)
    after = net.params.copy()
    new_loss = passes.backpropagate(net, data, objective).loss
    if not apply:
        snapshot.put_back()
    formula = "custom" if net.loss_row is None else net.loss_row.formula
    return Trace(
        X=X,
        y=net.target_matrix(data.targets),
        layers=_layers(net, passed, cut_record(net.plan, found.deltas), (before, gradient, after)),
        front=_front(net, expanded, (before, gradient, after)),
        precision=net.precision,
        costs=costs,
        loss=found.loss,
        new_loss=new_loss,
        loss_formula=formula,
        rule=recipe.rule.formula + (", with factors" if len(optimizer.factors) else ""),
        input_scale=net.input_scale,
    )


class Passed(NamedTuple):
    """A layer's numbers on the way to the outputs; zhat and y where it is normalised."""

    z: Array
    a: Array
    zhat: Array | None = None
    y: Array | None = None


def _propagated(net: State, X: Array) -> tuple[list[Passed], list[Expanded]]:
    """Return every layer's numbers as the step sees them, and those of a front."""
    kept: list[Any] = []
    fronts: list[Expanded] = []
    passed = []
    with np.errstate(all="ignore"):
        a_before, sums, activations, _ = propagate(
            net.plan, net.params, X, kept=kept, fronts=fronts
        )
        layers = zip(layers_of(net.plan), net.weights, sums, activations, kept, strict=True)
        for layer, W, y, a, normalised in layers:
            if normalised is None:
                passed.append(Passed(y, a))
            else:
                a_before, W = operands(layer, a_before, W)
                z = a_before @ W
                if not passed and fronts and fronts[0].sums is not None:
                    z = z + fronts[0].sums
                passed.append(Passed(z, a, normalised[0], y))
            a_before = a
    return passed, fronts


def _front(
    net: State, expanded: list[Expanded], flats: tuple[Array, Array, Array]
) -> TracedFront | None:
    """Put the front's numbers together; `flats` are those of :func:`_layers`."""
    if not expanded:
        return None
    arrays, gradients, new_arrays = (Parameters(net.plan, flat).front for flat in flats)
    return TracedFront(arrays, expanded[0].inputs, expanded[0].sums, gradients, new_arrays)


def _layers(
    net: State, passed: list[Passed], deltas: list[Array], flats: tuple[Array, Array, Array]
) -> list[TracedLayer]:
    """Put the layers' numbers together.

    Parameters
    ----------
    flats
        Flat parameters before the step, gradients, and parameters after it.
    """
    epsilon = number_text(net.normalization_epsilon)
    over = "the rows" if net.normalization == "batch" else "the layer's units"
    parts = [Parameters(net.plan, flat).parts() for flat in flats]
    layers = []
    for number, (activation, numbers) in enumerate(zip(net.activations, passed, strict=True)):
        weights, dweights, new_weights = (each[f"layers.{number}.weight"] for each in parts)
        biases, dbiases, new_biases = (each[f"layers.{number}.bias"] for each in parts)
        normalization = None
        if numbers.zhat is not None and numbers.y is not None:
            gamma, dgamma, new_gamma = (each[f"layers.{number}.scale"] for each in parts)
            formula = f"(z - mean) / sqrt(variance + {epsilon}), over {over}"
            normalization = TracedNormalization(
                formula, numbers.zhat, numbers.y, gamma, dgamma, new_gamma
            )
        key, parametric = f"layers.{number}.alpha", None
        if key in parts[0]:
            parametric = TracedAlpha(*(each[key] for each in parts))
        layers.append(
            TracedLayer(
                name=f"layer {number + 1} ({activation})",
                formula=activation_of(activation).formula,
                weights=weights,
                biases=biases,
                z=numbers.z,
                a=numbers.a,
                delta=deltas[number],
                dweights=dweights,
                dbiases=dbiases,
                new_weights=new_weights,
                new_biases=new_biases,
                normalization=normalization,
                parametric=parametric,
            )
        )
    return layers


def _row_costs(net: State, data: Data, recipe: Recipe) -> Array:
    """Return the loss of each row; a custom loss gives one number for all."""
    out, costs = passes.evaluate(net, data, recipe.objective(net.architecture))
    if net.loss_row is None:
        costs[:] = net.architecture.call_loss(out, net.target_matrix(data.targets))[0]
    return costs
