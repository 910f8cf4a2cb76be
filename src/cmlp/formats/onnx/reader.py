"""An ONNX file as a chain: one input, layers one after the other, perhaps the mean of several.

Nothing in a file is executed, and no other file is opened. Memory and time are bounded by the
file's size: every number that is computed with is paid from a budget that the file's own numbers
set.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.data.labels import check_classes
from cmlp.formats.building import COUNTERPARTS, Builder, joined
from cmlp.formats.chain import (
    LAYER_NORM_EPSILON,
    Activation,
    Affine,
    Chain,
    ConversionError,
    LayerNorm,
    Member,
)  # fmt: skip
from cmlp.formats.onnx import messages as om
from cmlp.formats.onnx import protobuf as pb
from cmlp.formats.onnx.operators import ML_OPERATORS, OPERATORS
from cmlp.formats.onnx.values import (
    ACTIVATION,
    AFFINE,
    INPUT,
    NORM,
    SCALE,
    STEPS,
    SUM,
    Operand,
    Value,
)  # fmt: skip

SHARED, PER_NODE, ROOM = 8, 64, 100_000
"""The budget: uses of each number of the file, numbers per node, and a constant."""

OF_TABLES = ("Slice", "Where", "LabelEncoder")
"""Operators that cmlp writes of tabular models, and of networks with inputs=..., only."""

MAX_JSON = 2**24
"""Characters of labels or names that are parsed."""


def read(data: bytes) -> Chain:
    """Return the chain that an ONNX file describes.

    Raises
    ------
    ConversionError
        If the file is damaged, or has a part that cmlp does not have; the message names the first.
    """
    graph = om.parse(data)
    with np.errstate(all="ignore"):
        try:
            return _Reader(graph).chain()
        except pb.WireError as error:
            raise ConversionError(f"the file is damaged: {error}") from error
        except ConversionError as error:
            if not _own_table(graph):
                raise
            raise ConversionError(
                "cmlp wrote this file from a tabular model, or a network with inputs=..., which "
                "cannot return from ONNX: keep the model by its save(path), and read that file by "
                "cmlp.load"
            ) from error


def _own_table(graph: om.Graph) -> bool:
    """Whether `to_onnx` wrote it of a model that takes the columns of a table apart."""
    kinds = {node.kind for node in graph.nodes}
    return graph.producer == "cmlp" and not kinds.isdisjoint(OF_TABLES)


@dataclass
class _Head:
    """What the outputs of a graph are."""

    source: Value
    labels: Array | None = None
    multilabel: bool = False
    binary: bool = False


class _Reader:
    """Reads the nodes of a graph, from the first to the last."""

    def __init__(self, graph: om.Graph) -> None:
        self.graph = graph
        self.values: dict[str, Operand | ConversionError] = {}
        self.budget = ROOM + PER_NODE * len(graph.nodes)
        names = [name for name in graph.inputs if name not in graph.tensors]
        if len(names) != 1:
            raise ConversionError(
                f"the graph has {len(names)} inputs; one input of rows has a counterpart"
            )
        self.values[names[0]] = Value(INPUT)
        sizes = graph.inputs[names[0]]
        if len(sizes) not in (0, 2):
            raise ConversionError(
                f"the input {names[0][:80]!r} has {len(sizes)} dimensions; rows of numbers, "
                "(N, n_features), have a counterpart"
            )
        self.n_in = sizes[1] if sizes and sizes[1] > 0 else None

    # Nodes ---------------------------------------------------------------------------------------

    def spend(self, count: int) -> None:
        """Take numbers from the budget."""
        self.budget -= count
        if self.budget < 0:
            raise ConversionError(
                "the graph computes with its constants more often than it has any"
            )

    def operand(self, name: str) -> Operand | ConversionError | None:
        """Return what a name stands for."""
        if name not in self.values and name in self.graph.tensors:
            try:
                found: Array = self.graph.tensors[name].array()
            except ConversionError as error:
                self.values[name] = error
            else:
                self.budget += SHARED * found.size
                self.values[name] = found
        return self.values.get(name)

    def node(self, node: om.Node) -> Operand | ConversionError:
        """Return what a node computes, or the error if it has no counterpart."""
        inputs: list[Operand | None] = []
        for name in node.inputs:
            value = self.operand(name) if name else None
            if isinstance(value, ConversionError):
                return value
            if value is None and name:
                return ConversionError(f"{node} takes {name[:80]!r}, which nothing before it makes")
            inputs.append(value)
        table = {"": OPERATORS, "ai.onnx": OPERATORS, "ai.onnx.ml": ML_OPERATORS}
        operator = table.get(node.domain, {}).get(node.kind)
        if operator is None:
            return ConversionError(f"{node} has no counterpart in cmlp; these have: {COUNTERPARTS}")
        self.spend(sum(x.size for x in inputs if isinstance(x, np.ndarray)))
        try:
            found = operator(node, inputs, self.graph.opset)
        except ConversionError as error:
            return error
        if found is None:
            return ConversionError(
                f"{node} is used in a way that has no counterpart in cmlp; these have: "
                f"{COUNTERPARTS}"
            )
        if isinstance(found, Value) and found.kind == SUM:
            self.spend(len(found.parents))
        if node.kind == "Constant" and isinstance(found, np.ndarray):
            self.budget += SHARED * found.size
        return found

    def run(self) -> None:
        """Read all nodes."""
        for node in self.graph.nodes:
            for name in node.outputs:
                if name and (name in self.values or name in self.graph.tensors):
                    raise ConversionError(f"{node} makes {name[:80]!r}, which exists")
            self.values[node.outputs[0]] = self.node(node)

    # Outputs -------------------------------------------------------------------------------------

    def outputs(self) -> list[Value]:
        """Return what the graph's outputs are, the steps of a chain last."""
        found: list[Value] = []
        for name in self.graph.outputs:
            value = self.operand(name)
            if isinstance(value, ConversionError):
                raise value
            if not isinstance(value, Value):
                raise ConversionError(f"the output {name[:80]!r} does not depend on the input")
            found.append(value)
        return found

    def head(self) -> _Head:
        """Return what the outputs mean.

        Raises
        ------
        ConversionError
            If they are not those of one network.
        """
        head: _Head | None = None
        for value in self.outputs():
            one = _head_of(value)
            if one is None:
                raise ConversionError(
                    f"the output of {value.where or 'the graph'} is no output of a network"
                )
            head = one if head is None else _joined(head, one)
        if head is None:
            raise ConversionError("the graph has no output")
        return head

    # The chain -----------------------------------------------------------------------------------

    def chain(self) -> Chain:
        """Return the chain."""
        self.run()
        head = self.head()
        source, share = head.source, 1.0
        parts: tuple[Value, ...] = (source,)
        if source.kind == SUM:
            parts, (share,) = source.parents, source.data
            if abs(share * len(parts) - 1) > 1e-6:
                raise ConversionError(
                    f"{source.where} adds {len(parts)} values and multiplies by {share:.6g}; only "
                    "their mean has a counterpart in cmlp"
                )
        whole = joined([self.member(part) for part in parts])
        if self.n_in is not None and self.n_in != whole.n_in:
            raise ConversionError(
                f"the input has {self.n_in} columns, the first layer takes {whole.n_in}"
            )
        return self.named(whole, head)

    def steps(self, value: Value) -> list[Value]:
        """Return the values from the first step to this one."""
        found: list[Value] = []
        while value.kind != INPUT:
            if value.kind not in STEPS or value.kind == SUM:
                raise ConversionError(
                    f"{value.where} has no counterpart in cmlp as it is used; these have: "
                    f"{COUNTERPARTS}"
                )
            self.spend(1)
            found.append(value)
            value = value.parent
        return found[::-1]

    def member(self, value: Value) -> Chain:
        """Return the chain of one network."""
        steps = self.steps(value)
        widths = [len(step.data[0]) for step in steps if step.kind == AFFINE]
        if not widths:
            raise ConversionError(f"there is no linear layer; expected are {COUNTERPARTS}")
        builder = Builder(widths[0])
        for step in steps:
            self.spend(2 * (builder.width or 1))
            if step.kind == AFFINE:
                W, bias = step.data
                self.spend(W.size)
                if _keeps(builder, W):
                    builder.steps.append(Activation("identity"))
                builder.affine(step.where, W, bias)
            elif step.kind == SCALE:
                builder.scale(step.where, *step.data)
            elif step.kind == NORM:
                gamma, beta, epsilon = step.data
                near = math.isclose(epsilon, LAYER_NORM_EPSILON, rel_tol=1e-6)  # of 32 bits
                epsilon = LAYER_NORM_EPSILON if near else epsilon
                builder.layer_norm(step.where, gamma, beta, epsilon)
            else:
                builder.activation(step.where, *step.data)
        return builder.chain()

    # Labels --------------------------------------------------------------------------------------

    def named(self, chain: Chain, head: _Head) -> Chain:
        """Return the chain with labels and names."""
        last = chain.members[0].steps[-1]
        assert isinstance(last, Activation)
        if head.multilabel and last.name != "logistic":
            raise ConversionError(
                f"the graph has labels for outputs above 1/2, but the outputs are {last.name}; "
                "expected is logistic (Sigmoid)"
            )
        several = head.multilabel or (last.name == "logistic" and chain.n_out > 1)
        labels = None if several else self.labels(chain, head, last.name)
        if labels is not None and last.name == "identity":  # the largest score is the label
            members = tuple(
                Member((*member.steps[:-1], Activation("softmax"))) for member in chain.members
            )
            if len(members) > 1:
                raise ConversionError("the mean of several networks' scores has no counterpart")
            chain = Chain(chain.n_in, members, chain.mean)
        names = self.json("feature_names")
        target = self.json("target_name")
        fits = isinstance(names, list) and len(names) == chain.n_in
        return Chain(
            chain.n_in,
            chain.members,
            chain.mean,
            np.arange(chain.n_out) if several else labels,
            several,
            tuple(map(str, names)) if fits and isinstance(names, list) else None,
            target if isinstance(target, str) else None,
        )

    def labels(self, chain: Chain, head: _Head, last: str) -> Array | None:
        """Return the labels of the classes; those that cmlp wrote if the graph has the same."""
        n = 2 if chain.n_out == 1 and last == "logistic" else chain.n_out
        given = head.labels
        noted = self.json("classes")
        if given is not None:
            if n < 2 or len(given) != n:
                raise ConversionError(f"the graph has {len(given)} labels for {n} classes")
            if not isinstance(noted, list) or noted != given.tolist():
                noted = given.tolist()
        if not isinstance(noted, list) or len(noted) != n or n < 2:
            return None
        if last not in ("softmax", "logistic", "identity") or (
            given is None and last == "identity"
        ):
            return None
        try:
            return check_classes("the labels of the graph", noted, n)
        except (TypeError, ValueError, OverflowError) as error:
            raise ConversionError(str(error)) from error

    def json(self, key: str) -> Any:
        """Return metadata that cmlp wrote; None if there is none, or it is not JSON."""
        text = self.graph.metadata.get(f"cmlp.{key}")
        if text is None or len(text) > MAX_JSON:
            return None
        try:
            found = json.loads(text)
            json.dumps(found, ensure_ascii=False).encode()  # no lone surrogates
            return found
        except (ValueError, RecursionError):
            return None


def _keeps(builder: Builder, W: Array) -> bool:
    """Whether a layer follows that is not multiplied with the one before."""
    last = builder.steps[-1] if builder.steps else None
    if isinstance(last, LayerNorm):
        return True
    larger = (
        isinstance(last, Affine) and len(last.weights) * W.shape[1] > last.weights.size + W.size
    )
    return larger  # their product than both: memory is bounded by the file


def _head_of(value: Value) -> _Head | None:
    """Return what one output means."""
    if value.kind == "log softmax":
        return _Head(value.parent)
    if value.kind in STEPS and value.kind != INPUT:
        return _Head(value)
    if value.kind == "two":
        return _Head(value.parent, binary=True)
    if value.kind == "above":
        return _Head(value.parent, multilabel=True)
    if value.kind not in ("argmax", "label", "map"):
        return None
    inner = _head_of(value.parent)
    if inner is not None and value.kind != "argmax":
        inner.labels = value.data[0]
    if inner is not None and value.kind == "argmax":
        inner.labels = None
    return inner


def _joined(a: _Head, b: _Head) -> _Head:
    """Return what two outputs mean together.

    Raises
    ------
    ConversionError
        If they are not of the same network.
    """
    source = a.source
    if b.source is not a.source:
        last, before = (a.source, b.source) if a.source.kind == ACTIVATION else (b.source, a.source)
        if last.kind != ACTIVATION or last.parent is not before or last.data[0] != "softmax":
            raise ConversionError(
                f"{a.source.where} and {b.source.where} are both outputs; one network's outputs, "
                "and the labels from them, have a counterpart"
            )
        source = last
    labels = a.labels if a.labels is not None else b.labels
    return _Head(source, labels, a.multilabel or b.multilabel, a.binary or b.binary)
