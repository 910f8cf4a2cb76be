"""Step through backpropagation, on a copy of the network: training is not disturbed."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.model import passes
from cmlp.model.parameters import Parameters
from cmlp.network import Network
from cmlp.page.build import is_plain, targets_of
from cmlp.page.host import Host
from cmlp.page.run import snapshot
from cmlp.page.set_up import SetUpError, real, whole
from cmlp.training.snapshot import Snapshot

MOST_ROWS = 8
VALLEY = 41
"""Points of the cost over one weight."""

DIFFERENCE = 1e-5
"""Half the distance of the two points of a finite difference, in float64."""


class Lesson:
    """A copy of the network, the rows that are traced, and what was done to it."""

    def __init__(self, session: Host) -> None:
        self.session = session
        self.net: Network | None = None
        self.undo_stack: list[Snapshot] = []
        self.X: Array = np.empty((0, 0), np.float32)
        self.y: Array = np.empty(0)
        self.row, self.viewed = 0, False
        self.units: dict[int, int] = {}
        self.inputs: dict[int, int] = {}
        self.chosen: tuple[int, int, int] = (1, 0, 0)

    def handlers(self) -> dict[str, Any]:
        """Return what answers which message."""
        return {
            "trace": self.trace,
            "weight": self.weight,
            "nudge": self.nudge,
            "apply": self.apply,
            "undo": self.undo,
        }

    # Rows ----------------------------------------------------------------------------------------

    def trace(self, message: dict[str, Any]) -> None:
        """Trace some rows; ``fresh`` takes a new copy of the network.

        ``rows`` is "view" (the row on view; without a target the first row), "batch" (the next
        batch, at most eight of it), "setup" (those of the set-up), or a list of numbers of rows
        that train.
        """
        if not is_plain(self.session.run.net):
            raise SetUpError(
                "trace",
                "the formulas here are those of z = a W + b; this network's inputs, normalization "
                "or activations are others. net.trace_step(X, y) prints its step",
            )
        if self.net is None or message.get("fresh"):
            self.net = copy.deepcopy(self.session.run.net)
            self.net.classes = None  # targets are numbers here
            self.undo_stack = []
        if "rows" in message:
            self.X, self.y = self._rows(message["rows"])
            self.row = 0
        if "row" in message:
            self.row = whole(0, max(0, len(self.X) - 1))(message["row"])
        sizes = self.net.sizes
        for name, chosen in (("unit", self.units), ("input", self.inputs)):
            if name in message:
                layer = whole(1, len(sizes) - 1)(message.get("layer"))
                most = sizes[layer] if name == "unit" else sizes[layer - 1]
                chosen[layer] = whole(0, most - 1)(message[name])
        self.tell()

    def _rows(self, wanted: Any) -> tuple[Array, Array]:
        session = self.session
        run, setup, painter = session.run, session.setup, session.painter
        self.viewed = wanted == "view" and painter.target is not None
        if self.viewed:
            return painter.row[None], self._targets(np.array([painter.target]))
        if wanted == "setup" and setup.rows:
            n_in = run.net.sizes[0]
            if any(len(x) != n_in for x, _ in setup.rows):
                raise SetUpError("rows", f"a row must have {n_in} inputs")
            X = np.array([x for x, _ in setup.rows], np.float32)
            return X, self._targets(np.array([int(y) for _, y in setup.rows]))
        if isinstance(wanted, list):
            if not 1 <= len(wanted) <= MOST_ROWS:
                raise SetUpError("rows", f"must be 1 to {MOST_ROWS} rows")
            chosen = np.array([whole(0, run.n_rows - 1)(row) for row in wanted])
        elif wanted == "batch":
            order = (
                run.order
                if run.order is not None
                else copy.deepcopy(run.net.rng).permutation(np.arange(run.n_rows))
            )
            n = min(run.batch_size, MOST_ROWS)
            chosen = order[run.cursor : run.cursor + n]
        else:
            chosen = np.arange(1)
        return np.asarray(run.data.X, np.float32)[chosen], run.data.targets[chosen]

    def _targets(self, labels: Array) -> Array:
        if labels.ndim > 1 or not self.session.rows.classes:
            return labels
        return targets_of(self.session.setup, labels, self.session.run.net.sizes[-1])

    def _recipe(self) -> Any:
        """Return the recipe of one plain step."""
        recipe = self.session.run.recipe
        return replace(recipe, dropout=0.0, input_noise=0.0)

    def _ready(self) -> Network:
        if self.net is None:
            raise SetUpError("trace", "choose rows first")
        return self.net

    # What is shown -------------------------------------------------------------------------------

    def tell(self) -> None:
        """Send the stations, and the numbers of the whole network."""
        from cmlp.explain.trace import trace_step  # the NumPy twin: slow to import
        from cmlp.page.cards import Cards, shown

        net, recipe = self._ready(), self._recipe()
        net.optimizer_state.moments_for(recipe.rule)
        data = net.encode_rows(self.X, self.y)
        found = trace_step(net, data, recipe, apply=False)
        cards = Cards(found, net.loss_name, self.row, self.units, self.inputs)
        plain = recipe == self.session.run.recipe
        self.session.event(
            "cards",
            stations=cards.stations(),
            row=self.row,
            rows=len(self.X),
            viewed=self.viewed,
            plain=plain,
            undo=len(self.undo_stack),
            sizes=net.sizes,
            cost=shown(found.loss),
            weights=[W.tolist() for W in net.weights] if net.n_params <= 2000 else [],
            biases=[b.tolist() for b in net.biases] if net.n_params <= 2000 else [],
            slopes=[layer.dweights.tolist() for layer in found.layers]
            if net.n_params <= 2000
            else [],
        )

    # One weight ----------------------------------------------------------------------------------

    def weight(self, message: dict[str, Any]) -> None:
        """Show what the slope of a weight is made of, and the cost over it.

        ``i`` is -1 for the bias of unit ``j``; without it, the largest input of the first rows.
        """
        net = self._ready()
        layer = whole(1, len(net.sizes) - 1)(message.get("layer"))
        largest = int(np.abs(self.X).sum(axis=0).argmax()) if layer == 1 else 0
        i = whole(-1, net.sizes[layer - 1] - 1)(message.get("i", largest))
        j = whole(0, net.sizes[layer] - 1)(message.get("j"))
        self.chosen = layer, i, j
        self.units[layer] = j
        if i >= 0:
            self.inputs[layer] = i
        self.tell_weight()

    def tell_weight(self) -> None:
        """Send the terms of a slope, the valley, and the finite difference."""
        from cmlp.explain.trace import trace_step
        from cmlp.page.cards import shown

        net, (layer, i, j) = self._ready(), self.chosen
        objective = self._recipe().objective(net.architecture)
        exact = net.astype("float64")
        data = exact.encode_rows(np.asarray(self.X, np.float64), self.y)

        def cost(params: Array) -> float:
            kept = exact.params.copy()
            exact.params[:] = params
            found = passes.backpropagate(exact, data, objective).loss
            exact.params[:] = kept
            return found

        def moved(value: float) -> Array:
            params = exact.params.copy()
            self._place(Parameters(exact.plan, params))[...] = value
            return params

        here = float(self._place(exact.parameter_views))
        found = passes.backpropagate(exact, data, objective, deltas=True)
        slope = float(self._place(Parameters(exact.plan, found.gradient)))
        width = max(1.0, abs(here))
        w = np.linspace(here - width, here + width, VALLEY)
        step = DIFFERENCE * max(1.0, abs(here))
        difference = (cost(moved(here + step)) - cost(moved(here - step))) / (2 * step)
        trace = trace_step(net, net.encode_rows(self.X, self.y), self._recipe(), apply=False)
        delta = trace.layers[layer - 1].delta[:, j]
        before = trace.X if layer == 1 else trace.layers[layer - 2].a
        a = np.ones(len(delta)) if i < 0 else before[:, i]
        self.session.event(
            "valley",
            layer=layer,
            i=i,
            j=j,
            value=here,
            w=w.tolist(),
            C=[cost(moved(float(value))) for value in w],
            cost=found.loss,
            slope=slope,
            difference=difference,
            text={
                "value": shown(here),
                "cost": shown(found.loss),
                "slope": shown(slope),
                "difference": shown(difference),
            },
            terms=[
                [shown(one), shown(other), shown(one * other)]
                for one, other in zip(a.tolist(), delta.tolist(), strict=True)
            ],
        )

    def _place(self, parameters: Parameters) -> Array:
        """Return a view of the chosen weight or bias."""
        layer, i, j = self.chosen
        if i < 0:
            return parameters.biases[layer - 1][j : j + 1].reshape(())
        return parameters.weights[layer - 1][i : i + 1, j : j + 1].reshape(())

    def nudge(self, message: dict[str, Any]) -> None:
        """Set the chosen weight, and show what the cost does."""
        net = self._ready()
        value = real(-1e6, 1e6)(message.get("value"))
        if message.get("first"):
            self._remember()
        self._place(net.parameter_views)[...] = value
        self.tell_weight()
        self.tell()

    # Steps ---------------------------------------------------------------------------------------

    def _remember(self) -> None:
        self.undo_stack.append(snapshot(self._ready()))
        del self.undo_stack[:-100]

    def apply(self, message: dict[str, Any]) -> None:
        """Take the step, on the copy."""
        from cmlp.explain.trace import trace_step

        net = self._ready()
        net.optimizer_state.moments_for(self._recipe().rule)
        self._remember()
        trace_step(net, net.encode_rows(self.X, self.y), self._recipe(), apply=True)
        self.tell()

    def undo(self, message: dict[str, Any]) -> None:
        """Take back the last step or nudge."""
        if self.undo_stack:
            self.undo_stack.pop().put_back()
        self.tell()
