"""The operators of ONNX that have a counterpart, and what each makes of its inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.core.vocabulary import SELU_ALPHA, SELU_SCALE
from cmlp.formats.onnx import values as ov
from cmlp.formats.onnx.messages import Node, Tensor
from cmlp.formats.onnx.values import AFFINE, NORM, STEPS, Operand, Value

Inputs = Sequence[Operand | None]
Operator = Callable[[Node, Inputs, int], Operand | None]
"""Of a node, its inputs and the opset; None: there is no counterpart."""

SMALL = 64
"""Numbers of a constant that may be converted: shapes, axes, scalars."""

FLOATS = (1, 10, 11, 16)


def operand_at(inputs: Inputs, place: int) -> Operand | None:
    """Return an input, or None if it is left out."""
    return inputs[place] if place < len(inputs) else None


def attribute(node: Node, name: str, default: Any) -> Any:
    """Return an attribute of the default's type, or the default.

    Another type gives NaN, which equals nothing.
    """
    value = node.attributes.get(name, default)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    return value if type(value) is type(default) else math.nan


def _value(inputs: Inputs, place: int = 0) -> Value | None:
    """Return an input that is a step of a chain."""
    x = operand_at(inputs, place)
    return x if isinstance(x, Value) and x.kind in STEPS else None


def _constant(inputs: Inputs, place: int) -> Array | None:
    x = operand_at(inputs, place)
    return None if x is None or isinstance(x, Value) else x


def _axes(node: Node, inputs: Inputs) -> list[int] | None:
    """Return the axes that are an attribute, or the second input."""
    axes = _constant(inputs, 1)
    if axes is not None:
        small = axes.dtype.kind in "iu" and axes.size <= SMALL
        return [int(n) for n in axes.reshape(-1)] if small else None
    found = node.attributes.get("axes")
    return found if isinstance(found, list) else None


def columns(constant: Array) -> Array | None:
    """Return a constant that is one number, or one per column, as a vector; else None."""
    n = constant.shape[-1] if constant.ndim else 1
    if constant.dtype.kind not in "fiu" or constant.size != n:
        return None
    return constant.reshape(-1)


def _arithmetic(f: Callable[[Operand, Operand, str], Value | None]) -> Operator:
    def operator(node: Node, inputs: Inputs, opset: int) -> Operand | None:
        if len(inputs) != 2:
            return None
        both = [columns(x) if isinstance(x, np.ndarray) else x for x in inputs]
        a, b = both
        return None if a is None or b is None else f(a, b, str(node))

    return operator


def _unary(f: Callable[[Operand, str], Value | None]) -> Operator:
    def operator(node: Node, inputs: Inputs, opset: int) -> Operand | None:
        x = operand_at(inputs, 0)
        return None if x is None else f(x, str(node))

    return operator


def _named(name: str, **expected: float) -> Operator:
    """Return the operator of an activation whose attributes must have these values."""

    def operator(node: Node, inputs: Inputs, opset: int) -> Operand | None:
        x = _value(inputs)
        for key, value in expected.items():
            if not math.isclose(attribute(node, key, float(value)), value, rel_tol=1e-6):
                return None
        return None if x is None else ov.activation(x, name, str(node))

    return operator


# Layers ------------------------------------------------------------------------------------------


def _gemm(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    x, W, C = _value(inputs), _constant(inputs, 1), operand_at(inputs, 2)
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    if x is None or W is None or W.ndim != 2 or W.dtype.kind != "f" or isinstance(C, Value):
        return None
    if attribute(node, "transA", 0) != 0 or attribute(node, "transB", 0) not in (0, 1):
        return None
    W = W.T if attribute(node, "transB", 0) == 1 else W
    W = W if alpha == 1 else W * alpha
    bias = None
    if C is not None:
        vector = columns(C)
        if vector is None or vector.size not in (1, W.shape[1]) or vector.dtype.kind != "f":
            return None
        vector = vector if beta == 1 else vector * beta
        bias = np.broadcast_to(vector, W.shape[1])
    return Value(AFFINE, (x,), (W, bias), str(node))


def _matmul(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    x, W = _value(inputs), _constant(inputs, 1)
    if x is None or W is None or W.ndim != 2 or W.dtype.kind != "f":
        return None
    return Value(AFFINE, (x,), (W, None), str(node))


def _batch_norm(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    x = _value(inputs)
    vectors = [_constant(inputs, place) for place in range(1, 5)]
    epsilon = attribute(node, "epsilon", 1e-5)
    if x is None or attribute(node, "training_mode", 0) != 0 or len(node.outputs) > 1:
        return None
    if any(v is None or v.dtype.kind != "f" or v.ndim != 1 for v in vectors):
        return None
    gamma, beta, mean, variance = (np.asarray(v, np.float64) for v in vectors)
    if len({gamma.size, beta.size, mean.size, variance.size}) > 1:
        return None
    if not (variance + epsilon > 0).all():
        return None
    factor = gamma / np.sqrt(variance + epsilon)
    return ov.scale(x, factor, beta - mean * factor, str(node))


def _layer_norm(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    x, gamma, beta = _value(inputs), _constant(inputs, 1), _constant(inputs, 2)
    if x is None or attribute(node, "axis", -1) not in (-1, 1) or len(node.outputs) > 1:
        return None
    if gamma is None or gamma.dtype.kind != "f" or gamma.ndim != 1:
        return None
    if beta is not None and (beta.dtype.kind != "f" or beta.shape != gamma.shape):
        return None
    return Value(NORM, (x,), (gamma, beta, attribute(node, "epsilon", 1e-5)), str(node))


def _scaler(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    """(x - offset) scale, of ai.onnx.ml."""
    x = _value(inputs)
    offset, factor = (node.attributes.get(name) for name in ("offset", "scale"))
    if x is None or not isinstance(offset, list) or not isinstance(factor, list):
        return None
    if not all(isinstance(n, float) for n in (*offset, *factor)):
        return None
    shifted = ov.scale(x, 1.0, -np.array(offset), str(node))
    return ov.scale(shifted, np.array(factor), 0.0, str(node))


# Activations -------------------------------------------------------------------------------------


def _softmax(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    x = _value(inputs)
    if x is None or attribute(node, "axis", 1 if opset < 13 else -1) not in (-1, 1):
        return None
    return ov.activation(x, "softmax", str(node))


def _log_softmax(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    found = _softmax(node, inputs, opset)
    return Value("log softmax", (found,), (), str(node)) if isinstance(found, Value) else None


def _leaky_relu(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    x = _value(inputs)
    return None if x is None else ov.leaky(x, attribute(node, "alpha", 0.01), str(node))


def _elu(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    x = _value(inputs)
    return None if x is None else ov.elu(x, attribute(node, "alpha", 1.0), str(node))


def _celu(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    x = _value(inputs)
    return None if x is None else ov.celu(x, attribute(node, "alpha", 1.0), str(node))


def _prelu(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    x, slope = _value(inputs), _constant(inputs, 1)
    vector = None if slope is None else columns(slope)
    if x is None or vector is None or vector.dtype.kind != "f":
        return None
    return ov.rectified(x, vector, str(node))


def _hard_sigmoid(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    x = _value(inputs)
    alpha, beta = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
    return None if x is None else ov.hard_sigmoid(x, alpha, beta, str(node))


def _gelu(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    x = _value(inputs)
    exact = attribute(node, "approximate", "none") == "none"
    return ov.activation(x, "gelu", str(node)) if x is not None and exact else None


def _clip(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    x = _value(inputs)
    limits = []
    for place, name, default in ((1, "min", -math.inf), (2, "max", math.inf)):
        given = operand_at(inputs, place)
        limit = attribute(node, name, default) if given is None else ov.number_of(given)
        limits.append(math.nan if limit is None else limit)
    return None if x is None else ov.bounded(x, limits[0], limits[1], str(node))


def _reduce_mean(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    x = operand_at(inputs, 0)
    if x is None or _axes(node, inputs) not in ([-1], [1]) or attribute(node, "keepdims", 1) != 1:
        return None
    return ov.mean(x, str(node))


def _total(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    values = [x for x in inputs if x is not None]
    share = 1 / max(len(values), 1) if node.kind == "Mean" else 1.0
    return ov.total(values, str(node), share)


def _absolute(x: Operand, where: str) -> Value | None:
    return Value("|z|", (x,), (), where) if isinstance(x, Value) and x.kind in STEPS else None


# Shapes and types --------------------------------------------------------------------------------


def _same(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    return operand_at(inputs, 0)


def _dropout(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    training = operand_at(inputs, 2)
    if isinstance(training, Value) or (training is not None and training.any()):
        return None
    return operand_at(inputs, 0)


def _cast(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    x, to = operand_at(inputs, 0), attribute(node, "to", 0)
    if isinstance(x, Value):
        return x if to in FLOATS or x.kind not in STEPS else None
    if x is None or to not in FLOATS:
        return x if x is not None and to in (6, 7) and x.dtype.kind in "iu" else None
    if x.dtype.kind == "f":
        return x
    return x.astype(np.float64) if x.dtype.kind in "iu" and x.size <= SMALL else None


def _flatten(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    return _value(inputs) if attribute(node, "axis", 1) in (1, -1) else None


def _reshape(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    x, shape = operand_at(inputs, 0), _constant(inputs, 1)
    if x is None or shape is None or shape.dtype.kind not in "iu" or shape.size > SMALL:
        return None
    sizes = [int(n) for n in shape.reshape(-1)]
    if not isinstance(x, Value):
        if sizes.count(-1) > 1 or min(sizes, default=1) < -1 or 0 in sizes:
            return None
        fits = math.prod(abs(n) for n in sizes) == x.size or (-1 in sizes and x.size > 0)
        return x.reshape(sizes) if fits and _divides(x.size, sizes) else None
    rows = len(sizes) == 2 and sizes[0] in (-1, 0)
    return x if rows or (x.kind in LABELS and sizes == [-1]) else None


def _divides(size: int, sizes: list[int]) -> bool:
    known = math.prod(n for n in sizes if n != -1)
    return size % known == 0 if -1 in sizes else size == known


def _transpose(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    x = _constant(inputs, 0)
    turned = x is not None and x.ndim == 2 and node.attributes.get("perm", [1, 0]) == [1, 0]
    return x.T if turned and x is not None else None


def _squeeze(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    x = operand_at(inputs, 0)
    if isinstance(x, Value):
        return x if x.kind in LABELS else None
    return None if x is None or x.size != 1 else x.reshape(())


def _constant_node(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    value = node.attributes.get("value")
    if isinstance(value, Tensor):
        return value.array()
    for key in ("value_float", "value_int"):
        number = node.attributes.get(key)
        if type(number) in (float, int):
            return np.array(number, np.float32 if type(number) is float else np.int64)
    for key in ("value_floats", "value_ints"):
        numbers = node.attributes.get(key)
        if isinstance(numbers, list) and numbers:
            return np.array(numbers, np.float32 if type(numbers[0]) is float else np.int64)
    return None


# Labels ------------------------------------------------------------------------------------------

LABELS = ("argmax", "label", "above")


def _two(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    """Concat(1 - p, p): the probabilities of two classes."""
    if len(inputs) != 2 or attribute(node, "axis", 0) not in (1, -1):
        return None
    other, p = inputs
    both = isinstance(other, Value) and other.kind == "1 - p" and other.parent is p
    return Value("two", other.parents, (), str(node)) if both and isinstance(other, Value) else None


def _argmax(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    x = operand_at(inputs, 0)
    if not isinstance(x, Value) or attribute(node, "axis", 0) not in (1, -1):
        return None
    known = x.kind in STEPS or x.kind in ("two", "log softmax")
    first = attribute(node, "select_last_index", 0) == 0
    return Value("argmax", (x,), (), str(node)) if known and first else None


def _lookup(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    """Gather and ArrayFeatureExtractor: a row of labels, and the place of the largest."""
    labels, place = _constant(inputs, 0), operand_at(inputs, 1)
    if labels is None or not isinstance(place, Value) or place.kind != "argmax":
        return None
    if attribute(node, "axis", 0) != 0 or labels.ndim < 1 or labels.size != labels.shape[-1]:
        return None
    return Value("label", place.parents, (labels.reshape(-1),), str(node))


def _zipmap(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    x = operand_at(inputs, 0)
    names = ("classlabels_strings", "classlabels_int64s")
    lists = [labels for key in names if isinstance(labels := node.attributes.get(key), list)]
    if not isinstance(x, Value) or len(lists) != 1 or (x.kind not in STEPS and x.kind != "two"):
        return None
    labels = np.empty(len(lists[0]), object)
    labels[:] = lists[0]
    return Value("map", (x,), (labels,), str(node))


def _binarizer(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    x = _value(inputs)
    half = attribute(node, "threshold", 0.0) == 0.5
    return Value("above", (x,), (), str(node)) if x is not None and half else None


def _greater(node: Node, inputs: Inputs, opset: int) -> Operand | None:
    x, limit = _value(inputs), _constant(inputs, 1)
    half = limit is not None and ov.number_of(limit) == 0.5
    return Value("above", (x,), (), str(node)) if x is not None and half else None


# The table ---------------------------------------------------------------------------------------

OPERATORS: dict[str, Operator] = {
    "Abs": _unary(_absolute),
    "Add": _arithmetic(ov.add),
    "ArgMax": _argmax,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Celu": _celu,
    "Clip": _clip,
    "Concat": _two,
    "Constant": _constant_node,
    "Div": _arithmetic(ov.divide),
    "Dropout": _dropout,
    "Elu": _elu,
    "Erf": _unary(ov.erf),
    "Exp": _unary(ov.exp),
    "Flatten": _flatten,
    "Gather": _lookup,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "Greater": _greater,
    "HardSigmoid": _hard_sigmoid,
    "Identity": _same,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": _leaky_relu,
    "Log": _unary(ov.log),
    "LogSoftmax": _log_softmax,
    "MatMul": _matmul,
    "Max": _arithmetic(ov.larger),
    "Mean": _total,
    "Min": _arithmetic(ov.smaller),
    "Mish": _named("mish"),
    "Mul": _arithmetic(ov.times),
    "Neg": _unary(lambda x, where: ov.times(x, np.array(-1.0), where)),
    "PRelu": _prelu,
    "Pow": _arithmetic(ov.power),
    "Reciprocal": _unary(lambda x, where: ov.divide(np.array(1.0), x, where)),
    "ReduceMean": _reduce_mean,
    "Relu": _named("relu"),
    "Reshape": _reshape,
    "Selu": _named("selu", alpha=SELU_ALPHA, gamma=SELU_SCALE),
    "Sigmoid": _named("logistic"),
    "Softmax": _softmax,
    "Softplus": _named("softplus"),
    "Sqrt": _unary(ov.root),
    "Squeeze": _squeeze,
    "Sub": _arithmetic(ov.subtract),
    "Sum": _total,
    "Swish": _named("silu", alpha=1.0),
    "Tanh": _named("tanh"),
    "Transpose": _transpose,
}
"""Of ai.onnx."""

ML_OPERATORS: dict[str, Operator] = {
    "ArrayFeatureExtractor": _lookup,
    "Binarizer": _binarizer,
    "Scaler": _scaler,
    "ZipMap": _zipmap,
}
"""Of ai.onnx.ml."""
