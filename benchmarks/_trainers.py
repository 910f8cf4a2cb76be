"""The same training in every library, each in its best form.

A trainer runs in a worker process (``_workers``). It receives a net and its data, trains some
epochs from the same first weights as all others, and takes timed turns. Every trainer does the same
in an epoch: a new random order of the rows; for each batch, gather it, forward, mean softmax
cross-entropy, backward, and a step of SGD with momentum or of Adam. float32 throughout, but for
products of bfloat16 in the trainers of that name.
"""

from __future__ import annotations

import importlib
import time
import warnings
from typing import Any

import numpy as np

from ._work import Layers, Work, data, first_weights, mean_loss

RATES = {"sgd": 0.01, "adam": 0.001}
"""Learning rates. Single rows use a tenth: with momentum a step is ten times as long."""

MOMENTUM, BETA_1, BETA_2, EPSILON = 0.9, 0.9, 0.999, 1e-8

CHECK_EPOCHS, CHECK_ROWS = 3, 4096
"""Epochs after which losses are compared, and rows of their mean."""


class Trainer:
    """Base class of the libraries' trainers.

    Parameters
    ----------
    solver : {'sgd', 'adam'}
    threads : int
    """

    library = "cmlp"
    """The module to import, after the process has been set up for it."""

    def __init__(self, solver: str, threads: int) -> None:
        self.solver, self.threads = solver, threads
        importlib.import_module(self.library)

    def set_up(self, work: Work, least: float) -> tuple[float, float]:
        """Prepare a net: train a few epochs from the first weights, and time an epoch.

        Parameters
        ----------
        least : float
            Seconds that a turn should take, in whole epochs.

        Returns
        -------
        before, after : float
            The mean loss before and after CHECK_EPOCHS epochs.
        """
        self.work = work
        self.rate = RATES[self.solver] * (0.1 if work.batch == 1 else 1)
        self.X, self.y = data(work.sizes, work.rows)
        self.layers = first_weights(work.sizes)
        self.prepare()
        seen = self.X[:CHECK_ROWS], self.y[:CHECK_ROWS]
        before = mean_loss(self.layers, *seen)
        self.reset()
        self.train(CHECK_EPOCHS)
        after = mean_loss(self.weights(), *seen)
        self.epochs = 1
        spent = self.turn()
        self.epochs = max(1, round(least / spent))
        return before, after

    def turn(self) -> float:
        """Train from the first weights, and return the seconds of an epoch."""
        self.reset()
        start = time.perf_counter()
        self.train(self.epochs)
        return (time.perf_counter() - start) / self.epochs

    def prepare(self) -> None:
        """Convert the data to the library's form; compile."""

    def reset(self) -> None:
        """Start again from `layers`, with fresh optimizer state."""
        raise NotImplementedError

    def train(self, epochs: int) -> None:
        """Train, and wait until the training has ended."""
        raise NotImplementedError

    def weights(self) -> Layers:
        """Return the present weights."""
        raise NotImplementedError


class Cmlp(Trainer):
    """``Network.fit``. Within its limit it chooses the number of threads, as all others do."""

    precision: str | None = None
    """Of products."""

    def reset(self) -> None:
        import cmlp

        self.net = cmlp.Network(self.work.sizes, "relu", seed=0, precision=self.precision)
        for number, (W, b) in enumerate(self.layers):
            self.net.weights[number][...] = W
            self.net.biases[number][...] = b

    def train(self, epochs: int) -> None:
        self.net.fit(
            self.X,
            self.y,
            epochs=epochs,
            batch_size=self.work.batch,
            solver=self.solver,
            learning_rate=self.rate,
            momentum=MOMENTUM,
            n_threads=1 if self.threads == 1 else None,
        )

    def weights(self) -> Layers:
        return list(zip(self.net.weights, self.net.biases, strict=True))


class CmlpBfloat16(Cmlp):
    """The same with products of bfloat16, where the processor has them."""

    precision = "bfloat16"

    def __init__(self, solver: str, threads: int) -> None:
        super().__init__(solver, threads)
        from cmlp.core import dispatch

        if not dispatch.core.bfloat16:
            raise ModuleNotFoundError("this processor has no AVX512_BF16", name="AVX512_BF16")


class ScikitLearn(Trainer):
    """``MLPClassifier.fit`` with `max_iter` epochs, without early stopping."""

    library = "sklearn"

    def prepare(self) -> None:
        import sklearn
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier

        sklearn.set_config(assume_finite=True)
        warnings.simplefilter("ignore", ConvergenceWarning)
        self.classifier = MLPClassifier(
            self.work.sizes[1:-1],
            solver=self.solver,
            alpha=0,
            batch_size=self.work.batch,
            learning_rate_init=self.rate,
            momentum=MOMENTUM,
            nesterovs_momentum=False,
            beta_1=BETA_1,
            beta_2=BETA_2,
            epsilon=EPSILON,
            n_iter_no_change=1_000_000,
            warm_start=True,  # from coefs_, with a new optimizer
            random_state=0,
        )
        few = self.work.sizes[-1] * self.work.batch  # any rows with all labels create the arrays
        labels = np.arange(few) % self.work.sizes[-1]
        X = np.zeros((few, self.work.sizes[0]), np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.classifier.set_params(max_iter=1).fit(X, labels)
        # Two classes have one output in scikit-learn: the logistic of the difference of the two.
        self.binary = self.work.sizes[-1] == 2

    def reset(self) -> None:
        layers = [(W.copy(), b.copy()) for W, b in self.layers]
        if self.binary:
            W, b = layers[-1]
            layers[-1] = W[:, 1:] - W[:, :1], b[1:] - b[:1]
        self.classifier.coefs_ = [W for W, _ in layers]
        self.classifier.intercepts_ = [b for _, b in layers]

    def train(self, epochs: int) -> None:
        self.classifier.set_params(max_iter=epochs).fit(self.X, self.y)

    def weights(self) -> Layers:
        layers = list(zip(self.classifier.coefs_, self.classifier.intercepts_, strict=True))
        if self.binary:
            W, b = layers[-1]
            layers[-1] = np.hstack([0 * W, W]), np.hstack([0 * b, b])
        return layers


class PyTorch(Trainer):
    """Eager, with autograd: the loop of the manual, on tensors in memory, with a fused optimizer.

    The fused optimizer is as fast as one per tensor, and faster than a step per parameter.
    """

    library = "torch"

    def prepare(self) -> None:
        import torch

        self.torch = torch
        torch.set_num_threads(self.threads)
        self.tensors = torch.from_numpy(self.X), torch.from_numpy(self.y)

    def reset(self) -> None:
        torch = self.torch
        parts: list[Any] = []
        for W, b in self.layers:
            linear = torch.nn.Linear(*W.shape)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(W.T))
                linear.bias.copy_(torch.from_numpy(b))
            parts += [linear, torch.nn.ReLU()]
        self.model = torch.nn.Sequential(*parts[:-1])
        parameters = list(self.model.parameters())
        if self.solver == "sgd":
            self.optimizer = torch.optim.SGD(
                parameters, lr=self.rate, momentum=MOMENTUM, fused=True
            )
        else:
            self.optimizer = torch.optim.Adam(
                parameters, lr=self.rate, betas=(BETA_1, BETA_2), eps=EPSILON, fused=True
            )

    def train(self, epochs: int) -> None:
        torch, model, optimizer = self.torch, self.model, self.optimizer
        X, y = self.tensors
        for _ in range(epochs):
            for rows in torch.randperm(len(X)).split(self.work.batch):
                loss = self.loss(model, X.index_select(0, rows), y.index_select(0, rows))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()

    def loss(self, model: Any, x: Any, y: Any) -> Any:
        """Return the mean loss of a batch."""
        return self.torch.nn.functional.cross_entropy(model(x), y)

    def weights(self) -> Layers:
        linears = list(self.model)[::2]
        return [(part.weight.detach().numpy().T, part.bias.detach().numpy()) for part in linears]


class PyTorchBfloat16(PyTorch):
    """Eager, with products of bfloat16 by autocast; float32 weights, and a loss in float32."""

    def loss(self, model: Any, x: Any, y: Any) -> Any:
        torch = self.torch
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return torch.nn.functional.cross_entropy(model(x).float(), y)


class PyTorchCompiled(PyTorch):
    """``torch.compile`` of a whole step (gather, gradient, optimizer) as one graph.

    Compiling the model or the loss alone, or the optimizer in addition, is no faster than eager for
    these nets: the cost is the transition into and out of autograd.
    """

    def prepare(self) -> None:
        super().prepare()
        torch = self.torch
        torch.compiler.reset()  # or the nets before count as recompilations of this one
        momentum, rate, solver = MOMENTUM, self.rate, self.solver

        def loss_of(params: Any, x: Any, y: Any) -> Any:
            for W, b in params[:-1]:
                x = torch.relu(torch.addmm(b, x, W))
            W, b = params[-1]
            return torch.nn.functional.cross_entropy(torch.addmm(b, x, W), y)

        def step(params: Any, moments: Any, rates: Any, X: Any, y: Any, rows: Any) -> None:
            grads = torch.func.grad(loss_of)(
                params, X.index_select(0, rows), y.index_select(0, rows)
            )
            flat = [part for layer in params for part in layer]
            grads = [part for layer in grads for part in layer]
            first, second = moments
            if solver == "sgd":
                torch._foreach_mul_(first, momentum)
                torch._foreach_add_(first, grads)
                torch._foreach_add_(flat, first, alpha=-rate)
                return
            for p, m, v, g in zip(flat, first, second, grads, strict=True):
                m.mul_(BETA_1).add_(g, alpha=1 - BETA_1)
                v.mul_(BETA_2).addcmul_(g, g, value=1 - BETA_2)
                p.sub_(rates[0] * m / ((v * rates[1]).sqrt() + EPSILON))

        self.step = torch.compile(
            step, fullgraph=True, dynamic=False, options={"cpp_wrapper": True}
        )

    def reset(self) -> None:
        torch = self.torch
        self.params = [
            tuple(torch.from_numpy(part.copy()) for part in layer) for layer in self.layers
        ]
        flat = [part for layer in self.params for part in layer]
        self.moments = [[torch.zeros_like(part) for part in flat] for _ in range(2)]
        self.steps = 0

    def train(self, epochs: int) -> None:
        torch, step = self.torch, self.step
        X, y = self.tensors
        rates = torch.zeros(2)
        with torch.no_grad():
            for _ in range(epochs):
                for rows in torch.randperm(len(X)).split(self.work.batch):
                    if self.solver == "adam":
                        self.steps += 1
                        rates[0] = self.rate / (1 - BETA_1**self.steps)
                        rates[1] = 1 / (1 - BETA_2**self.steps)
                    step(self.params, self.moments, rates, X, y, rows)

    def weights(self) -> Layers:
        return [(W.numpy(), b.numpy()) for W, b in self.params]


class Jax(Trainer):
    """An epoch is one compiled ``lax.scan`` over the batches; parameters and moments are donated.

    The update is written out, because optax adds to its time. Steps unrolled by four are faster
    for some nets and slower for others: both are compiled, and the faster one is kept.
    """

    library = "jax"

    def prepare(self) -> None:
        import jax

        self.jax = jax
        self.arrays = jax.numpy.asarray(self.X), jax.numpy.asarray(self.y, np.int32)
        self.rng = np.random.default_rng(0)
        best = float("inf")
        for unroll in (1, 4):
            candidate = self._epoch(unroll)
            self.epoch, spent = candidate, []
            for _ in range(3):
                self.reset()
                start = time.perf_counter()
                self.train(1)
                spent.append(time.perf_counter() - start)
            if min(spent) < best:
                best, chosen = min(spent), candidate
        self.epoch = chosen

    def _epoch(self, unroll: int) -> Any:
        jax, np_ = self.jax, self.jax.numpy
        classes, rate, solver = self.work.sizes[-1], self.rate, self.solver

        def loss_of(params: Any, x: Any, y: Any) -> Any:
            for W, b in params[:-1]:
                x = jax.nn.relu(x @ W + b)
            W, b = params[-1]
            log_p = jax.nn.log_softmax(x @ W + b)
            return -(log_p * jax.nn.one_hot(y, classes)).sum(axis=1).mean()

        def update(params: Any, moments: Any, steps: Any, grads: Any) -> tuple[Any, Any]:
            each = jax.tree.map
            if solver == "sgd":
                v = each(lambda v, g: MOMENTUM * v - rate * g, moments[0], grads)
                return each(np_.add, params, v), (v,)
            m = each(lambda m, g: BETA_1 * m + (1 - BETA_1) * g, moments[0], grads)
            v = each(lambda v, g: BETA_2 * v + (1 - BETA_2) * g * g, moments[1], grads)
            t = steps.astype(np_.float32)
            first, second = rate / (1 - BETA_1**t), 1 / (1 - BETA_2**t)
            new = each(
                lambda p, m, v: p - first * m / (np_.sqrt(v * second) + EPSILON), params, m, v
            )
            return new, (m, v)

        def epoch(params: Any, moments: Any, steps: Any, X: Any, y: Any, order: Any) -> Any:
            def step(state: Any, rows: Any) -> Any:
                params, moments, steps = state
                grads = jax.grad(loss_of)(params, X[rows], y[rows])
                return (*update(params, moments, steps + 1, grads), steps + 1), None

            batches = order.reshape(-1, self.work.batch)
            return jax.lax.scan(step, (params, moments, steps), batches, unroll=unroll)[0]

        return jax.jit(epoch, donate_argnums=(0, 1))

    def reset(self) -> None:
        jax = self.jax
        params = jax.tree.map(jax.numpy.array, self.layers)
        n_moments = 1 if self.solver == "sgd" else 2
        moments = tuple(jax.tree.map(jax.numpy.zeros_like, params) for _ in range(n_moments))
        self.state = params, moments, jax.numpy.zeros((), np.int32)
        jax.block_until_ready(self.state)

    def train(self, epochs: int) -> None:
        for _ in range(epochs):
            order = self.rng.permutation(self.work.rows).astype(np.int32)
            self.state = self.epoch(*self.state, *self.arrays, order)
        self.jax.block_until_ready(self.state)

    def weights(self) -> Layers:
        return [(np.asarray(W), np.asarray(b)) for W, b in self.state[0]]


TRAINERS: dict[str, type[Trainer]] = {
    "cmlp": Cmlp,
    "JAX": Jax,
    "PyTorch": PyTorch,
    "torch.compile": PyTorchCompiled,
    "scikit-learn": ScikitLearn,
}
"""By the names in the table; times are divided by cmlp's."""

BFLOAT16: dict[str, type[Trainer]] = {
    "cmlp bfloat16": CmlpBfloat16,
    "PyTorch bfloat16": PyTorchBfloat16,
}
"""Trainings with products of bfloat16."""
