"""Formula cards: a step of backpropagation, station by station, with every number filled in.

A formula is MathML as lists, ``["msub", ["mi", "z"], ["mn", "1"]]``, which the page makes elements
of. Numbers are written here, so that the page shows what the engine computed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from cmlp.core.formatting import significant
from cmlp.core.layout import Array
from cmlp.core.vocabulary import activation_of
from cmlp.explain.trace import Trace, TracedLayer

Node = list[Any]

TERMS = 8
"""Terms of a sum that are shown; the others are one number."""

VALUES = 64
"""Numbers of a layer that are shown."""


def shown(value: float) -> str:
    """Write a number with four digits."""
    return significant(float(value) + 0.0, 4)


def mi(name: str) -> Node:
    """Return a symbol."""
    return ["mi", name]


def mo(sign: str) -> Node:
    """Return an operator."""
    return ["mo", sign]


def mn(value: float) -> Node:
    """Return a number, in brackets where it is negative."""
    text = shown(value)
    return ["mrow", mo("("), ["mn", text], mo(")")] if text[0] == "-" else ["mn", text]


def sub(name: str, *places: object) -> Node:
    """Return a symbol with its places below it."""
    return ["msub", mi(name), ["mtext", ",".join(map(str, places))]]


def text(words: str) -> Node:
    """Return words in a formula."""
    return ["mtext", words]


def total(over: str) -> Node:
    """Return a sum sign."""
    return ["munder", mo("∑"), mi(over)]


def sum_of(terms: Sequence[tuple[float, float]], last: float | None = None) -> list[Node]:
    """Write the eight largest products of a sum, the rest as one number, and a last term."""
    order = sorted(range(len(terms)), key=lambda i: -abs(terms[i][0] * terms[i][1]))
    largest = sorted(order[:TERMS])
    nodes: list[Node] = []
    for at in largest:
        if nodes:
            nodes.append(mo("+"))
        left, right = terms[at]
        nodes += [mn(left), mo("·"), mn(right)]
    if rest := order[TERMS:]:
        value = sum(terms[i][0] * terms[i][1] for i in rest)
        nodes += [mo("+"), text(f"{len(rest)} more: {shown(value)}")]
    if last is not None:
        nodes += [mo("+"), mn(last)]
    return nodes


def filled(formula: str, **numbers: float) -> Node:
    """Return a formula of the vocabulary with numbers for its letters."""
    for letter, value in numbers.items():
        number = shown(value)
        number = f"({number})" if number.startswith("-") else number
        formula = re.sub(rf"\b{letter}\b", number, formula)
    return text(formula)


def values(row: Array) -> list[str]:
    """Write the numbers of a layer."""
    return [shown(value) for value in row[:VALUES].tolist()]


def squared(a: float, y: float) -> tuple[str, float]:
    """Return an output's part of the squared error: with its numbers, and the result."""
    return f"({shown(a)} - {shown(y)})² / 2", (a - y) ** 2 / 2


def categorical(a: float, y: float) -> tuple[str, float]:
    """Return an output's part of categorical cross-entropy."""
    return f"-{shown(y)} · log {shown(a)}", -y * math.log(max(a, TINY)) if y else 0.0


def binary(a: float, y: float) -> tuple[str, float]:
    """Return an output's part of binary cross-entropy."""
    right, wrong = f"{shown(y)} · log {shown(a)}", f"(1 - {shown(y)}) · log(1 - {shown(a)})"
    value = y * math.log(max(a, TINY)) + (1 - y) * math.log(max(1 - a, TINY))
    return f"-({right} + {wrong})", -value


COSTS: dict[str, Callable[[float, float], tuple[str, float]]] = {
    "squared_error": squared,
    "categorical_crossentropy": categorical,
    "binary_crossentropy": binary,
}
TINY = 1e-45


class Cards:
    """The stations of a trace, for one of its rows and one unit of each layer.

    Parameters
    ----------
    trace : Trace
    loss : str
    row : int
        Which row is shown.
    units : dict of int to int
        The unit of each layer (counted from 1) that is shown.
    inputs : dict of int to int
        The weight of this unit that is shown, by its input.
    """

    def __init__(
        self, trace: Trace, loss: str, row: int, units: dict[int, int], inputs: dict[int, int]
    ) -> None:
        self.trace, self.loss, self.row = trace, loss, row
        self.units, self.inputs = units, inputs
        self.n = len(trace.X)

    def stations(self) -> list[dict[str, Any]]:
        """Return every station, in the order of the computation."""
        n_layers = len(self.trace.layers)
        found = [self._inputs()]
        for number in range(1, n_layers + 1):
            found += [self._sum(number), self._activation(number)]
        found.append(self._cost())
        for number in range(n_layers, 0, -1):
            found += [self._delta(number), self._slopes(number)]
        return [*found, self._update(), self._new_cost()]

    def _layer(self, number: int) -> tuple[TracedLayer, int, Array]:
        """Return a layer, the unit of it that is shown, and what comes into it, (rows, n_in)."""
        layer = self.trace.layers[number - 1]
        unit = min(self.units.get(number, 0), layer.z.shape[1] - 1)
        before = self.trace.X if number == 1 else self.trace.layers[number - 2].a
        return layer, unit, before

    def _inputs(self) -> dict[str, Any]:
        x = self.trace.X[self.row]
        return {
            "key": "x",
            "layer": 0,
            "way": "forward",
            "title": "Inputs",
            "symbols": [sub("a", "0"), mo("="), mi("x")],
            "numbers": [],
            "values": values(x),
            "shapes": [["x", [self.n, len(x)]]],
            "target": values(self.trace.y[self.row]),
        }

    def _sum(self, number: int) -> dict[str, Any]:
        layer, unit, before = self._layer(number)
        terms = list(zip(before[self.row].tolist(), layer.weights[:, unit].tolist(), strict=True))
        z = layer.z[self.row, unit]
        return {
            "key": f"z{number}",
            "layer": number,
            "way": "forward",
            "unit": unit,
            "title": f"Layer {number}: weighted sum",
            "symbols": [
                sub("z", "j"),
                mo("="),
                total("i"),
                sub("a", f"{number - 1}", "i"),
                sub("w", "ij"),
                mo("+"),
                sub("b", "j"),
            ],
            "numbers": [
                sub("z", unit),
                mo("="),
                *sum_of(terms, float(layer.biases[unit])),
                mo("="),
                mn(z),
            ],
            "result": shown(z),
            "values": values(layer.z[self.row]),
            "shapes": [
                [f"a{number - 1}", list(before.shape)],
                [f"W{number}", list(layer.weights.shape)],
                [f"b{number}", [len(layer.biases)]],
                [f"z{number}", list(layer.z.shape)],
            ],
        }

    def _activation(self, number: int) -> dict[str, Any]:
        layer, unit, _ = self._layer(number)
        z, a = layer.z[self.row, unit], layer.a[self.row, unit]
        name = layer.name.partition("(")[2].rstrip(")")
        numbers = [sub("a", unit), mo("="), filled(layer.formula, z=z), mo("="), mn(a)]
        if name == "softmax":
            numbers = [
                sub("a", unit),
                mo("="),
                text(f"exp({shown(z)}) / sum of exp(z)"),
                mo("="),
                mn(a),
            ]
        return {
            "key": f"a{number}",
            "layer": number,
            "way": "forward",
            "unit": unit,
            "title": f"Layer {number}: {name}",
            "symbols": [sub("a", "j"), mo("="), text(layer.formula)],
            "numbers": numbers,
            "result": shown(a),
            "values": values(layer.a[self.row]),
            "shapes": [[f"a{number}", list(layer.a.shape)]],
        }

    def _cost(self) -> dict[str, Any]:
        a, y = self.trace.layers[-1].a[self.row], self.trace.y[self.row]
        cost = self.trace.costs[self.row]
        return {
            "key": "cost",
            "layer": len(self.trace.layers),
            "way": "forward",
            "title": "Cost: how wrong is it",
            "symbols": [mi("C"), mo("="), text(self.trace.loss_formula)],
            "numbers": [mi("C"), mo("="), *self._cost_terms(a, y), mo("="), mn(cost)],
            "result": shown(cost),
            "values": values(a),
            "target": values(y),
            "shapes": [["a", list(self.trace.layers[-1].a.shape)], ["y", list(self.trace.y.shape)]],
            "mean": shown(self.trace.loss),
            "rows": self.n,
            "costs": values(self.trace.costs),
        }

    def _cost_terms(self, a: Array, y: Array) -> list[Node]:
        """Write the largest terms of the cost of a row."""
        formula = COSTS.get(self.loss)
        if formula is None:
            return [text("the sum over the outputs")]
        parts = [formula(float(one), float(other)) for one, other in zip(a, y, strict=True)]
        order = sorted(range(len(parts)), key=lambda i: -abs(parts[i][1]))
        chosen = sorted(order[: TERMS // 2])
        nodes: list[Node] = []
        for at in chosen:
            if parts[at][1] or not nodes:
                nodes += [*([mo("+")] if nodes else []), text(parts[at][0])]
        if rest := order[TERMS // 2 :]:
            value = sum(parts[i][1] for i in rest)
            if value:
                nodes += [mo("+"), text(f"{len(rest)} more: {shown(value)}")]
        return nodes

    def _delta(self, number: int) -> dict[str, Any]:
        layer, unit, _ = self._layer(number)
        delta = layer.delta[self.row, unit]
        last = number == len(self.trace.layers)
        symbols, numbers = self._last_delta(layer, unit) if last else self._hidden_delta(number)
        if self.n > 1 and last:
            symbols += [mo("·"), text("1/rows")]
            numbers += [mo("·"), text(f"1/{self.n}")]
        return {
            "key": f"delta{number}",
            "layer": number,
            "way": "backward",
            "unit": unit,
            "title": f"Layer {number}: how the cost depends on z",
            "symbols": [sub("δ", "j"), mo("="), text("∂C/∂z"), mo("="), *symbols],
            "numbers": [sub("δ", unit), mo("="), *numbers, mo("="), mn(delta)],
            "result": shown(delta),
            "values": values(layer.delta[self.row]),
            "rows": [shown(value) for value in layer.delta[:, unit].tolist()],
            "shapes": [[f"delta{number}", list(layer.delta.shape)]],
        }

    def _last_delta(self, layer: TracedLayer, unit: int) -> tuple[list[Node], list[Node]]:
        """Return the output's delta in symbols and in numbers."""
        a, y = float(layer.a[self.row, unit]), float(self.trace.y[self.row, unit])
        z, delta = float(layer.z[self.row, unit]), float(layer.delta[self.row, unit]) * self.n
        name = layer.name.partition("(")[2].rstrip(")")
        natural = {
            "softmax": "categorical_crossentropy",
            "logistic": "binary_crossentropy",
            "identity": "squared_error",
            "exp": "poisson",
        }.get(name) == self.loss
        if natural:  # the slope of the activation cancels
            return [mi("a"), mo("-"), mi("y")], [mn(a), mo("-"), mn(y)]
        slope = activation_of(name).slope
        symbols = [text("∂C/∂a"), mo("·"), text("f'(z)")]
        if self.loss == "squared_error" and name != "softmax":
            numbers = [
                mo("("),
                mn(a),
                mo("-"),
                mn(y),
                mo(")"),
                mo("·"),
                mo("("),
                filled(slope, a=a, z=z),
                mo(")"),
            ]
            return [
                mo("("),
                mi("a"),
                mo("-"),
                mi("y"),
                mo(")"),
                mo("·"),
                mo("("),
                text(slope),
                mo(")"),
            ], numbers
        return symbols, [mn(delta)]

    def _hidden_delta(self, number: int) -> tuple[list[Node], list[Node]]:
        layer, unit, _ = self._layer(number)
        after = self.trace.layers[number]
        terms = list(zip(after.delta[self.row].tolist(), after.weights[unit].tolist(), strict=True))
        name = layer.name.partition("(")[2].rstrip(")")
        slope = activation_of(name).slope
        a, z = float(layer.a[self.row, unit]), float(layer.z[self.row, unit])
        symbols = [
            total("k"),
            sub("δ", f"{number + 1}", "k"),
            sub("w", "jk"),
            mo("·"),
            mo("("),
            text(slope),
            mo(")"),
        ]
        numbers = [
            mo("("),
            *sum_of(terms),
            mo(")"),
            mo("·"),
            mo("("),
            filled(slope, a=a, z=z),
            mo(")"),
        ]
        return symbols, numbers

    def _slopes(self, number: int) -> dict[str, Any]:
        layer, unit, before = self._layer(number)
        place = min(self.inputs.get(number, 0), before.shape[1] - 1)
        terms = list(zip(before[:, place].tolist(), layer.delta[:, unit].tolist(), strict=True))
        dw, db = layer.dweights[place, unit], layer.dbiases[unit]
        return {
            "key": f"dW{number}",
            "layer": number,
            "way": "backward",
            "unit": unit,
            "input": place,
            "title": f"Layer {number}: how the cost depends on weights and biases",
            "symbols": [
                text("∂C/∂w"),
                mo("="),
                total("rows"),
                sub("a", f"{number - 1}", "i"),
                sub("δ", "j"),
                mo(","),
                text("∂C/∂b"),
                mo("="),
                total("rows"),
                sub("δ", "j"),
            ],
            "numbers": [
                text(f"∂C/∂w {place},{unit}"),
                mo("="),
                *sum_of(terms),
                mo("="),
                mn(dw),
                mo(","),
                text(f"∂C/∂b {unit}"),
                mo("="),
                mn(db),
            ],
            "result": shown(dw),
            "bias": shown(db),
            "values": values(layer.dweights[:, unit]),
            "shapes": [
                [f"dW{number}", list(layer.dweights.shape)],
                [f"db{number}", [len(layer.dbiases)]],
            ],
        }

    def _update(self) -> dict[str, Any]:
        layer, unit, before = self._layer(1)
        place = min(self.inputs.get(1, 0), before.shape[1] - 1)
        old, new = layer.weights[place, unit], layer.new_weights[place, unit]
        return {
            "key": "update",
            "layer": 1,
            "way": "backward",
            "unit": unit,
            "input": place,
            "title": "Update: a step downhill",
            "symbols": [text(self.trace.rule)],
            "numbers": [
                sub("w", place, unit),
                mo("="),
                mn(old),
                mo("→"),
                mn(new),
                mo(","),
                sub("b", unit),
                mo("="),
                mn(layer.biases[unit]),
                mo("→"),
                mn(layer.new_biases[unit]),
            ],
            "result": shown(new),
            "values": values(layer.new_weights[:, unit]),
            "shapes": [],
        }

    def _new_cost(self) -> dict[str, Any]:
        before, after = self.trace.loss, self.trace.new_loss
        return {
            "key": "new",
            "layer": len(self.trace.layers),
            "way": "forward",
            "title": "The cost after the step",
            "symbols": [mi("C"), mo("→"), text("C after the step")],
            "numbers": [
                mn(before),
                mo("→"),
                mn(after),
                text(f"  ({after - before:+.3g})"),
            ],
            "result": shown(after),
            "values": [],
            "shapes": [],
        }
