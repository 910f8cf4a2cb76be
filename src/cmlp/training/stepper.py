"""One step, and the next, and the next: what they share is prepared once."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from cmlp.core import dispatch
from cmlp.core.errstate import undisturbed
from cmlp.core.layout import Array
from cmlp.core.seam import Limits, Objective
from cmlp.core.vocabulary import EXTERNAL_LOSS
from cmlp.model import passes
from cmlp.model.state import State
from cmlp.training import fit
from cmlp.training.recipe import Recipe, make_recipe

PLAIN = frozenset((int, float, bool, str, type(None)))
"""Types of parameters that cannot change after they were compared."""

LONGEST_LABELS = 1 << 16
"""Classes up to which it is examined whether labels are class numbers."""


class Stepper:
    """Takes the steps of a network, call after call; it holds no network.

    Where the network, its optimizer's state and the core are those of the step before, and X and y
    are plain arrays of plain numbers, a step is one call of the core. Anything else goes the way of
    :func:`cmlp.training.fit.run_epoch`, with the same result.

    Parameters
    ----------
    recipe : Recipe
        Its learning rate is that of the steps that give none.
    most_bytes : int
        Bytes that are kept from step to step; a step that needs more makes them anew.
    batch_size : int
        Rows for which there is room from the beginning.
    given : dict, optional
        Keyword arguments that the recipe was made of, to be recognised.
    external : bool
        Whether targets are dC/da instead, the derivatives by the outputs.
    """

    def __init__(
        self,
        recipe: Recipe,
        most_bytes: int,
        batch_size: int = 0,
        given: dict[str, Any] | None = None,
        external: bool = False,
    ) -> None:
        self.recipe, self.most_bytes, self.batch_size = recipe, most_bytes, batch_size
        self.given, self.external, self.solver = given, external, recipe.rule.name
        self.bound: Any = None
        self.core: Any = None
        self.version: object = None
        self.moments: Array | None = None

    def serves(self, given: dict[str, Any]) -> bool:
        """Whether its recipe was made of the same keyword arguments."""
        return PLAIN.issuperset(map(type, given.values())) and given == self.given

    def step(
        self,
        net: State,
        X: Any,
        y: Any,
        weights: Any,
        rate: float,
    ) -> float | None:
        """Take one step in a network that no other thread trains; return the loss before it.

        None is returned where X, y or the weights need a closer look; nothing has changed then.

        Raises
        ------
        DivergenceError
            If the loss is not finite; no step is taken.
        """
        bound = self.ready(net)
        if bound is None:
            return None
        total = self.take(bound, net, X, y, weights, rate, False)
        if total is None:
            return None
        if not math.isfinite(total):
            raise fit.not_finite()
        if weights is None:
            return total / len(X)
        return total / float(np.ascontiguousarray(weights, np.float64).sum())

    def take(
        self,
        bound: Any,
        net: State,
        X: Any,
        y: Any,
        weights: Any,
        rate: float,
        encoded: bool,
        surely: bool = False,
    ) -> float | None:
        """Return what :meth:`BoundTrainer.take` of the core does, and count the step."""
        memory = net.optimizer_state
        bound.steps = memory.steps
        try:
            total: float | None = bound.take(X, y, weights, rate, net.rng, encoded, surely)
        finally:  # a Ctrl-C may replace what the core returns, but the step is taken
            memory.steps = bound.steps
        return total

    @undisturbed
    def step_of_any(self, net: State, X: Any, y: Any, weights: Any, rate: float) -> float:
        """Do the same with anything that :meth:`cmlp.Network.fit` takes."""
        data = net.encode_rows(X, y, weights)
        bound = self.ready(net)  # labels may be known now
        if bound is not None:
            total = self.take(bound, net, data.X, data.targets, data.weights, rate, True)
            if total is not None:
                if not math.isfinite(total):
                    raise fit.not_finite()
                return total / data.weight(np.arange(len(data.X)))
        recipe = self.recipe
        if rate != recipe.learning_rate:
            recipe = dataclasses.replace(recipe, learning_rate=rate)
        return fit.run_epoch(net, data, recipe, None, shuffle=False, n_threads=1)

    # Preparations --------------------------------------------------------------------------------

    def ready(self, net: State) -> Any:
        """Return what takes steps in the present network by the present core, or None.

        None: it has no state of this optimizer yet, or its steps need more than one call.
        """
        memory = net.optimizer_state
        if (
            memory.moments is self.moments
            and net._version is self.version
            and dispatch.core is self.core
            and memory.solver == self.solver
            and not memory.average_steps
        ):
            return self.bound
        self.bound = None
        if memory.solver != self.solver or len(memory.moments) != self.recipe.rule.n_moments:
            return None
        if memory.average_steps:
            return None
        self.core, self.version = dispatch.core, net._version
        self.moments = memory.moments
        if self._suits(net):
            self.bound = self._bind(net)
        return self.bound

    def _suits(self, net: State) -> bool:
        """Whether the steps of a network can be single calls."""
        about, recipe = net.architecture, self.recipe
        if recipe.ema or type(net).encode_rows is not State.encode_rows:
            return False
        return self.external or (about.loss is not None and not about.unsuited)

    def _bind(self, net: State) -> Any:
        about, recipe = net.architecture, self.recipe
        low, high = self._bounds(net)
        rows = int(passes.CALL_FLOPS / passes.flops_of(net))
        limits = Limits(self._reads_columns(net), low, high, rows, self.most_bytes, self.batch_size)
        return self.core.BoundTrainer(
            net.plan, net.params, self.moments, objective_of(net, recipe, self.external),
            recipe.optimizer(about), passes.PLAIN if self.external else recipe.noise(about, 0),
            net.input_scale, limits,
        )  # fmt: skip

    def _bounds(self, net: State) -> tuple[float, float]:
        """Return the least and the largest target that needs no closer look."""
        most = float(np.finfo(net.dtype).max) / 2
        loss = net.loss_row
        if self.external or loss is None:
            return -most, most
        low, high = loss.targets
        return max(low, -most), min(high, most)

    def _reads_columns(self, net: State) -> bool:
        """Whether a column of targets is numbers for one output, or labels 0, 1 and so on."""
        loss, n_out, classes = net.loss_row, net.sizes[-1], net.classes
        if self.external or loss is None or (n_out == 1 and not loss.classifies):
            return n_out == 1
        n_classes = max(n_out, 2)
        return (
            classes is not None
            and len(classes) == n_classes <= LONGEST_LABELS
            and classes.dtype.kind in "iuf"
            and bool((classes == np.arange(n_classes)).all())
        )


def objective_of(net: State, recipe: Recipe, external: bool) -> Objective:
    """Return what the steps of a recipe minimise; `external`: what the caller has derived."""
    objective = recipe.objective(net.architecture)
    if not external:
        return objective
    return objective._replace(loss=EXTERNAL_LOSS, label_smoothing=0.0, missing=False)


def stepper_of(parameters: dict[str, Any], rate: Any) -> Stepper:
    """Return a stepper for the keyword arguments of :meth:`cmlp.Network.step`."""
    recipe = make_recipe({**parameters, "learning_rate": rate})
    plain = PLAIN.issuperset(map(type, parameters.values()))
    return Stepper(recipe, passes.LARGEST_WORKSPACE, given=parameters if plain else None)
