"""Single training steps in every library, a call each, as reinforcement learning takes them.

A caller runs in a worker process (``_workers``). It takes steps of SGD with momentum on one batch
that is there already, in the library's own arrays; each call returns the loss, which is read.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ._timing import timed
from ._trainers import MOMENTUM
from ._work import Layers, Work, data, first_weights

RATE = 1e-3

CHECK_STEPS = 20
"""Steps after which losses are compared."""


class Caller:
    """Base class of the libraries' callers."""

    library = "cmlp"
    """The module to import, after the process has been set up for it."""

    def __init__(self) -> None:
        importlib.import_module(self.library)

    def set_up(self, work: Work, least: float) -> float:
        """Prepare a net, and return its loss after a few steps from the first weights.

        Parameters
        ----------
        least : float
            Seconds that a turn should take, in whole calls.
        """
        self.work = work
        self.X, self.y = data(work.sizes, work.batch)
        step = self.step_of(first_weights(work.sizes))
        losses = [float(step()) for _ in range(CHECK_STEPS)]
        self.timed = timed(step, least)
        return losses[-1]

    def turn(self) -> float:
        """Return the seconds of a call."""
        return self.timed()

    def step_of(self, layers: Layers) -> Callable[[], Any]:
        """Return a function that takes one step, and returns its loss."""
        raise NotImplementedError


def _network(layers: Layers) -> Any:
    import cmlp

    net = cmlp.Network([len(layers[0][0]), *(len(b) for _, b in layers)], "relu", seed=0)
    for number, (W, b) in enumerate(layers):
        net.weights[number], net.biases[number] = W, b
    return net


class BareStep(Caller):
    """Many steps in one call of the core: what a step takes without the call."""

    def step_of(self, layers: Layers) -> Callable[[], Any]:
        from cmlp.training.recipe import Recipe
        from cmlp.training.trainer import Trainer

        net = _network(layers)
        recipe = Recipe(learning_rate=RATE, momentum=MOMENTUM)
        trainer = Trainer(net, net.encode_rows(self.X, self.y), recipe, self.work.batch, 1)
        self.steps = max(1, min(200, int(1e9 / self.work.step_flops)))
        one = np.arange(self.work.batch)
        rows, rates = np.tile(one, self.steps), np.full(self.steps, RATE)

        def steps() -> float:
            return trainer.run(rows, rates)[0] / len(rows)

        def step() -> float:
            return trainer.run(one, rates[:1])[0] / len(one)

        self.many = steps
        return step

    def set_up(self, work: Work, least: float) -> float:
        loss = super().set_up(work, least)
        self.timed = timed(self.many, least)
        return loss

    def turn(self) -> float:
        return super().turn() / self.steps


class TrainerStep(Caller):
    """``trainer.step``, of ``net.trainer()``."""

    def step_of(self, layers: Layers) -> Callable[[], Any]:
        net = _network(layers)
        trainer = net.trainer(batch_size=self.work.batch, learning_rate=RATE, momentum=MOMENTUM)
        return lambda: trainer.step(self.X, self.y)


class NetworkStep(Caller):
    """``net.step``, with its parameters at each call."""

    def step_of(self, layers: Layers) -> Callable[[], Any]:
        net = _network(layers)
        return lambda: net.step(self.X, self.y, learning_rate=RATE, momentum=MOMENTUM)


class OneEpoch(Caller):
    """``net.fit`` of one epoch on one batch."""

    def step_of(self, layers: Layers) -> Callable[[], Any]:
        net, batch = _network(layers), self.work.batch

        def fit() -> Any:
            history = net.fit(
                self.X, self.y, epochs=1, batch_size=batch, learning_rate=RATE, n_threads=1
            )
            return history["loss"][0]

        return fit


class PyTorch(Caller):
    """Eager, with autograd and a fused optimizer."""

    library = "torch"

    def step_of(self, layers: Layers) -> Callable[[], Any]:
        import torch

        torch.set_num_threads(1)
        X, y = torch.from_numpy(self.X), torch.from_numpy(self.y)
        parts: list[Any] = []
        for W, b in layers:
            linear = torch.nn.Linear(*W.shape)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(W.T))
                linear.bias.copy_(torch.from_numpy(b))
            parts += [linear, torch.nn.ReLU()]
        model = torch.nn.Sequential(*parts[:-1])
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, fused=True)

        def step() -> float:
            loss = torch.nn.functional.cross_entropy(model(X), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            return float(loss.item())

        return step


class Jax(Caller):
    """A jitted step whose parameters and moments are donated."""

    library = "jax"

    def step_of(self, layers: Layers) -> Callable[[], Any]:
        import jax

        np_, classes = jax.numpy, self.work.sizes[-1]
        X, y = np_.asarray(self.X), np_.asarray(self.y, np.int32)

        def loss_of(params: Any, x: Any, y: Any) -> Any:
            for W, b in params[:-1]:
                x = jax.nn.relu(x @ W + b)
            W, b = params[-1]
            log_p = jax.nn.log_softmax(x @ W + b)
            return -(log_p * jax.nn.one_hot(y, classes)).sum(axis=1).mean()

        def update(params: Any, moments: Any, x: Any, y: Any) -> Any:
            loss, grads = jax.value_and_grad(loss_of)(params, x, y)
            moments = jax.tree.map(lambda v, g: MOMENTUM * v - RATE * g, moments, grads)
            return jax.tree.map(np_.add, params, moments), moments, loss

        jitted = jax.jit(update, donate_argnums=(0, 1))
        self.state = jax.tree.map(np_.array, layers), jax.tree.map(np_.zeros_like, layers)

        def step() -> float:
            *self.state, loss = jitted(*self.state, X, y)
            return float(loss)

        return step


CALLERS: dict[str, type[Caller]] = {
    "bare step": BareStep,
    "trainer.step": TrainerStep,
    "net.step": NetworkStep,
    "fit(epochs=1)": OneEpoch,
    "JAX": Jax,
    "PyTorch": PyTorch,
}
"""By the names in the table; times are divided by the trainer's."""
