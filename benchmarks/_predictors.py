"""The same prediction in every library, called from Python as a service would call it.

A predictor runs in a worker process (``_workers``). Everything that can be prepared is prepared:
weights set, functions compiled, the input in the library's own form. A call turns rows into class
probabilities that Python can read.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from ._timing import Turn, timed
from ._work import Array, Layers, outputs


class Predictor:
    """Base class of the predictors.

    A subclass defines `call`, which returns a function without arguments: the prediction.
    """

    library = "cmlp"
    """The module to import, after the process has been set up for it."""

    def __init__(self) -> None:
        importlib.import_module(self.library)
        self._turn: Turn

    def set_up(self, layers: Layers, X: Array, least: float) -> Array | None:
        """Prepare a net and its input; return the outputs, or None if unsupported."""
        predict = self.call(layers, X)
        if predict is None:
            return None
        out = np.array(predict())
        self._turn = timed(predict, least)
        return out

    def turn(self) -> float:
        """Predict many times, and return the seconds of a call."""
        return self._turn()

    def call(self, layers: Layers, X: Array) -> Callable[[], Any] | None:
        """Return the prediction as a function, with everything bound."""
        raise NotImplementedError


def _network(layers: Layers) -> Any:
    """Make a network of cmlp with these weights."""
    import cmlp

    net = cmlp.Network([len(layers[0][0]), *(len(b) for _, b in layers)], "relu", seed=0)
    for number, (W, b) in enumerate(layers):
        net.weights[number][...] = W
        net.biases[number][...] = b
    return net


class CmlpPredict(Predictor):
    """``Network.predict``, which checks its input."""

    def call(self, layers: Layers, X: Array) -> Callable[[], Any]:
        net = _network(layers)
        return lambda: net.predict(X)


class CmlpPredictor(Predictor):
    """``Network.predictor()``, which has everything prepared."""

    def call(self, layers: Layers, X: Array) -> Callable[[], Any]:
        net = _network(layers)
        predictor = net.predictor(len(X))
        return lambda: predictor(X)


class Numpy(Predictor):
    """The net as a plain expression, the softmax included."""

    library = "numpy"

    def call(self, layers: Layers, X: Array) -> Callable[[], Any]:
        return lambda: outputs(layers, X)


class OnnxRuntime(Predictor):
    """A session on one thread, the net as Gemm, Relu and Softmax."""

    library = "onnxruntime"

    def call(self, layers: Layers, X: Array) -> Callable[[], Any]:
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper

        nodes, constants, name = [], [], "X"
        for number, (W, b) in enumerate(layers):
            constants.append(numpy_helper.from_array(np.ascontiguousarray(W), f"W{number}"))
            constants.append(numpy_helper.from_array(b, f"b{number}"))
            inputs = [name, f"W{number}", f"b{number}"]
            nodes.append(helper.make_node("Gemm", inputs, [f"z{number}"]))
            last = number == len(layers) - 1
            kind, name = ("Softmax", "Y") if last else ("Relu", f"a{number}")
            nodes.append(helper.make_node(kind, [f"z{number}"], [name]))
        shapes = ([None, X.shape[1]], [None, len(layers[-1][1])])
        first, last_ = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in zip("XY", shapes, strict=True)
        )
        graph = helper.make_graph(nodes, "net", [first], [last_], constants)
        opsets = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        feed = {"X": X}
        return lambda: session.run(None, feed)[0]


class PyTorch(Predictor):
    """Linear and ReLU modules in inference mode."""

    library = "torch"

    def call(self, layers: Layers, X: Array) -> Callable[[], Any]:
        import torch

        torch.set_num_threads(1)
        parts: list[Any] = []
        for W, b in layers:
            linear = torch.nn.Linear(*W.shape)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(W.T))
                linear.bias.copy_(torch.from_numpy(b))
            parts += [linear, torch.nn.ReLU()]
        model = torch.nn.Sequential(*parts[:-1], torch.nn.Softmax(1)).eval()
        rows = torch.from_numpy(X)

        def predict() -> Any:
            with torch.inference_mode():
                return model(rows)

        return predict


class ScikitLearn(Predictor):
    """``MLPClassifier.predict_proba``."""

    library = "sklearn"

    def call(self, layers: Layers, X: Array) -> Callable[[], Any]:
        import sklearn
        from sklearn.neural_network import MLPClassifier
        from sklearn.preprocessing import LabelBinarizer

        sklearn.set_config(assume_finite=True)
        sizes = [len(layers[0][0]), *(len(b) for _, b in layers)]
        model = MLPClassifier(sizes[1:-1])
        layers = [(W.copy(), b.copy()) for W, b in layers]
        if sizes[-1] == 2:  # one output: the logistic of the difference of the two
            W, b = layers[-1]
            layers[-1] = W[:, 1:] - W[:, :1], b[1:] - b[:1]
        model.coefs_, model.intercepts_ = [W for W, _ in layers], [b for _, b in layers]
        model.n_features_in_, model.n_layers_ = sizes[0], len(sizes)
        model.n_outputs_ = len(layers[-1][1])
        model.out_activation_ = "logistic" if sizes[-1] == 2 else "softmax"
        model._label_binarizer = LabelBinarizer().fit(np.arange(sizes[-1]))
        model.classes_ = model._label_binarizer.classes_
        return lambda: model.predict_proba(X)


class Jax(Predictor):
    """A compiled function of an array on the device; the call waits for its result."""

    library = "jax"

    def call(self, layers: Layers, X: Array) -> Callable[[], Any]:
        import jax

        params = jax.tree.map(jax.numpy.asarray, layers)
        rows = jax.numpy.asarray(X)

        def predict(rows: Any) -> Any:
            for W, b in params[:-1]:
                rows = jax.nn.relu(rows @ W + b)
            W, b = params[-1]
            return jax.nn.softmax(rows @ W + b)

        compiled = jax.jit(predict)
        return lambda: compiled(rows).block_until_ready()


PREDICTORS: dict[str, type[Predictor]] = {
    "cmlp predictor": CmlpPredictor,
    "cmlp predict": CmlpPredict,
    "NumPy": Numpy,
    "ONNX Runtime": OnnxRuntime,
    "JAX": Jax,
    "PyTorch": PyTorch,
    "scikit-learn": ScikitLearn,
}
"""By the names in the table; times are divided by that of the first one that is installed."""


def row_flops(sizes: tuple[int, ...]) -> int:
    """Return the operations of a row's products."""
    return 2 * sum(n_in * n_out for n_in, n_out in pairwise(sizes))
