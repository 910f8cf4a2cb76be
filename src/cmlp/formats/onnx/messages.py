"""ONNX's messages: nodes, tensors and graphs as bytes, and back from the bytes of a file.

The numbers of the fields are those of ``onnx.proto``. A file's tensors stay views of its bytes
until :meth:`Tensor.array` has compared their shape with the number of bytes that are there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.formats.chain import ConversionError
from cmlp.formats.onnx import protobuf as pb

FLOAT, UINT8, INT8, INT32, INT64, STRING, BOOL, FLOAT16, DOUBLE = 1, 2, 3, 6, 7, 8, 9, 10, 11
BFLOAT16 = 16

TYPES = {FLOAT: "<f4", UINT8: "u1", INT8: "i1", INT32: "<i4", INT64: "<i8", BOOL: "u1",
         FLOAT16: "<f2", DOUBLE: "<f8", BFLOAT16: "<u2"}  # fmt: skip
"""NumPy's types of tensors that are numbers."""

CODES = {"float32": FLOAT, "float64": DOUBLE, "uint8": UINT8, "int64": INT64}

AttributeValue = int | float | str | Sequence[int] | Sequence[str]

MAX_BYTES = 2**31 - 1
"""Of a file: protocol buffers hold no more."""

MAX_DIMS = 8


# Writing -----------------------------------------------------------------------------------------


def node(
    kind: str, inputs: Sequence[str], outputs: Sequence[str], attributes: Mapping[str, Any],
    domain: str = "",
) -> bytes:  # fmt: skip
    """Return a NodeProto, whose name is that of its first output."""
    parts = [pb.text(1, name) for name in inputs]
    parts += [pb.text(2, name) for name in outputs]
    parts += [pb.text(3, outputs[0]), pb.text(4, kind)]
    parts += [pb.chunk(5, attribute(name, value)) for name, value in attributes.items()]
    parts += [pb.text(7, domain)] if domain else []
    return b"".join(parts)


def attribute(name: str, value: AttributeValue) -> bytes:
    """Return an AttributeProto; a list holds whole numbers or texts."""
    parts = [pb.text(1, name)]
    if isinstance(value, float):
        parts += [pb.float32(2, value), pb.integer(20, 1)]
    elif isinstance(value, int):
        parts += [pb.integer(3, value), pb.integer(20, 2)]
    elif isinstance(value, str):
        parts += [pb.text(4, value), pb.integer(20, 3)]
    elif value and isinstance(value[0], str):
        parts += [*(pb.text(9, str(each)) for each in value), pb.integer(20, 8)]
    else:
        parts += [*(pb.integer(8, int(each)) for each in value), pb.integer(20, 7)]
    return b"".join(parts)


def tensor(name: str, array: Array) -> bytes:
    """Return a TensorProto of numbers, or of text."""
    dims = b"".join(pb.integer(1, n) for n in array.shape)
    if array.dtype.kind in "UO":
        strings = b"".join(pb.text(6, str(each)) for each in array.ravel().tolist())
        return dims + pb.integer(2, STRING) + strings + pb.text(8, name)
    code = CODES[array.dtype.name]
    raw = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    return dims + pb.integer(2, code) + pb.text(8, name) + pb.chunk(9, raw)


def tensor_value(name: str, code: int, shape: Sequence[int | str]) -> bytes:
    """Return a ValueInfoProto of a tensor; a size that is a name is any number."""
    dims = b"".join(
        pb.chunk(1, pb.text(2, n) if isinstance(n, str) else pb.integer(1, n)) for n in shape
    )
    return pb.text(1, name) + pb.chunk(2, pb.chunk(1, pb.integer(1, code) + pb.chunk(2, dims)))


def maps_value(name: str, key: int) -> bytes:
    """Return a ValueInfoProto of a sequence of maps from labels to numbers."""
    of_map = pb.integer(1, key) + pb.chunk(2, pb.chunk(1, pb.integer(1, FLOAT)))
    return pb.text(1, name) + pb.chunk(2, pb.chunk(4, pb.chunk(1, pb.chunk(5, of_map))))


# Reading -----------------------------------------------------------------------------------------


@dataclass
class Tensor:
    """A tensor of a file: its shape, and where its numbers are."""

    name: str = ""
    dims: tuple[int, ...] = ()
    code: int = 0
    raw: memoryview | None = None
    body: memoryview = field(default_factory=lambda: memoryview(b""))
    """The whole message, for numbers that are fields of their type."""
    external: bool = False

    def array(self) -> Array:
        """Return its numbers, or its texts.

        Raises
        ------
        ConversionError
            If it is in another file, of a type that weights do not have, or not whole.
        """
        what = f"tensor {self.name[:80]!r}"
        if self.external:
            raise ConversionError(
                f"{what} is in another file, which is never opened; save the model as one file"
            )
        count = math.prod(self.dims)
        if self.code == STRING:
            strings = [pb.as_text(value) for n, _, value in pb.fields(self.body) if n == 6]
            if len(strings) != count:
                raise ConversionError(f"{what} has {len(strings)} texts, its shape {count}")
            texts: Array = np.empty(count, object)  # NumPy's own type would drop zeros at the end
            texts[:] = strings
            return texts.reshape(self.dims)
        if self.code not in TYPES:
            raise ConversionError(f"{what} is of ONNX's type {self.code}, which has no counterpart")
        dtype = np.dtype(TYPES[self.code])
        if self.raw is not None:
            if len(self.raw) != count * dtype.itemsize:
                raise ConversionError(
                    f"{what} has {len(self.raw)} bytes, its shape {count * dtype.itemsize}"
                )
            values: Array = np.frombuffer(self.raw, dtype)
        else:
            values = self._typed(dtype)
            if values.size != count:
                raise ConversionError(f"{what} has {values.size} numbers, its shape {count}")
        if self.code == BFLOAT16:
            values = (values.astype("<u4") << np.uint32(16)).view("<f4")
        return values.reshape(self.dims).astype(values.dtype.newbyteorder("="), copy=False)

    def _typed(self, dtype: np.dtype[Any]) -> Array:
        """Return the numbers of a field of their type, packed or one by one."""
        number = {FLOAT: 4, DOUBLE: 10, INT64: 7}.get(self.code, 5)
        values = ((wire, value) for n, wire, value in pb.fields(self.body) if n == number)
        if number in (4, 10):
            wires, raw = (pb.BYTES, pb.NARROW if number == 4 else pb.WIDE), bytearray()
            for wire, value in values:
                if wire not in wires:
                    raise ConversionError(f"tensor {self.name[:80]!r} has numbers of another type")
                raw += pb.as_bytes(value)
            if len(raw) % dtype.itemsize:
                raise ConversionError(f"tensor {self.name[:80]!r} is cut off within a number")
            return np.frombuffer(raw, dtype)
        whole = np.fromiter((n for _, value in values for n in pb.integers(value)), np.int64)
        return whole.astype(dtype)


Attributes = dict[str, Any]


@dataclass
class Node:
    """A node of a file."""

    kind: str = ""
    name: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: Attributes = field(default_factory=dict)
    domain: str = ""

    def __str__(self) -> str:
        """Describe it in a message: what a stranger's file calls it, quoted and cut."""
        name = self.name or (self.outputs[0] if self.outputs else "")
        return f"node {name[:80]!r} ({self.kind[:80]!r})" if name else f"a node {self.kind[:80]!r}"


@dataclass
class Graph:
    """A graph of a file."""

    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[str, list[int]] = field(default_factory=dict)
    """Names and sizes; a size of -1 is not told."""
    outputs: list[str] = field(default_factory=list)
    opset: int = 0
    producer: str = ""
    metadata: dict[str, str] = field(default_factory=dict)


def parse(data: bytes) -> Graph:
    """Read a file.

    Raises
    ------
    ConversionError
        If it is no ONNX model, or damaged.
    """
    if len(data) > MAX_BYTES:
        raise ConversionError(f"an ONNX file has at most 2 GB, this one {len(data):,} bytes")
    graph, found = Graph(), False
    try:
        for number, _, value in pb.fields(memoryview(data)):
            if number == 7:
                if found:
                    raise ConversionError("the file holds two graphs")
                found = True
                _parse_graph(pb.as_bytes(value), graph)
            elif number == 8:
                domain, version = _opset(pb.as_bytes(value))
                if domain in ("", "ai.onnx"):
                    graph.opset = version
            elif number == 2:
                graph.producer = pb.as_text(value)
            elif number == 14:
                key, text = pair(pb.as_bytes(value))
                graph.metadata[key] = text
    except pb.WireError as error:
        raise ConversionError(f"this is no ONNX file, or it is damaged: {error}") from error
    if not found:
        raise ConversionError("this is no ONNX file: it holds no graph")
    if not 1 <= graph.opset < 2**31:
        raise ConversionError("the file does not tell the version of its operators (opset_import)")
    return graph


def _opset(data: memoryview) -> tuple[str, int]:
    domain, version = "", 0
    for number, _, value in pb.fields(data):
        if number == 1:
            domain = pb.as_text(value)
        elif number == 2:
            version = pb.as_int(value)
    return domain, version


def pair(data: memoryview) -> tuple[str, str]:
    """Return the key and the text of a StringStringEntryProto."""
    texts = {1: "", 2: ""}
    for number, _, value in pb.fields(data):
        if number in texts:
            texts[number] = pb.as_text(value)
    return texts[1], texts[2]


def _parse_graph(data: memoryview, graph: Graph) -> None:
    for number, _, value in pb.fields(data):
        if number == 1:
            graph.nodes.append(parse_node(pb.as_bytes(value)))
        elif number == 5:
            each = parse_tensor(pb.as_bytes(value))
            if each.name in graph.tensors:
                raise ConversionError(f"there are two tensors {each.name[:80]!r}")
            graph.tensors[each.name] = each
        elif number == 11:
            name, sizes = value_info(pb.as_bytes(value))
            graph.inputs[name] = sizes
        elif number == 12:
            graph.outputs.append(value_info(pb.as_bytes(value))[0])
        elif number == 15:
            raise ConversionError("the graph has a sparse tensor, which has no counterpart")


def parse_node(data: memoryview) -> Node:
    """Read a NodeProto."""
    found = Node()
    for number, _, value in pb.fields(data):
        if number == 1:
            found.inputs.append(pb.as_text(value))
        elif number == 2:
            found.outputs.append(pb.as_text(value))
        elif number == 3:
            found.name = pb.as_text(value)
        elif number == 4:
            found.kind = pb.as_text(value)
        elif number == 5:
            name, content = _parse_attribute(pb.as_bytes(value))
            found.attributes[name] = content
        elif number == 7:
            found.domain = pb.as_text(value)
    if not found.outputs:
        raise ConversionError(f"{found} has no output")
    return found


def _parse_attribute(data: memoryview) -> tuple[str, Any]:
    """Return an attribute's name and its value: a number, bytes as text, a tensor, or a list."""
    name: str = ""
    content: Any = None
    floats: list[float] = []
    ints: list[int] = []
    strings: list[str] = []
    for number, wire, value in pb.fields(data):
        if number == 1:
            name = pb.as_text(value)
        elif number == 2:
            content = pb.as_float32(wire, value)
        elif number == 3:
            content = pb.as_int(value)
        elif number == 4:
            content = pb.as_text(value)
        elif number == 5:
            content = parse_tensor(pb.as_bytes(value))
        elif number == 7:
            floats += _floats(wire, value)
        elif number == 8:
            ints += pb.integers(value)
        elif number == 9:
            strings.append(pb.as_text(value))
        elif number in (6, 10, 11, 14, 15, 22, 23):
            raise ConversionError(f"attribute {name[:80]!r} is a graph, or of a sparse type")
    return name, floats or ints or strings or content


def _floats(wire: int, value: pb.Value) -> list[float]:
    if wire == pb.NARROW:
        return [pb.as_float32(wire, value)]
    packed = pb.as_bytes(value)
    if len(packed) % 4:
        raise pb.WireError("it is cut off within a number")
    return [float(each) for each in np.frombuffer(packed, "<f4")]


def parse_tensor(data: memoryview) -> Tensor:
    """Read a TensorProto, without its numbers."""
    found = Tensor(body=data)
    for number, _, value in pb.fields(data):
        if number == 1:
            found.dims = (*found.dims, *_dims(value, MAX_DIMS - len(found.dims)))
        elif number == 2:
            found.code = pb.as_int(value)
        elif number == 8:
            found.name = pb.as_text(value)
        elif number == 9:
            found.raw = pb.as_bytes(value)
        elif number == 13 or (number == 14 and value != 0):
            found.external = True
    return found


def _dims(value: pb.Value, most: int) -> list[int]:
    dims: list[int] = []
    for n in pb.integers(value):
        if len(dims) == most:
            raise ConversionError(f"a tensor has more than {MAX_DIMS} dimensions")
        if not 0 <= n <= MAX_BYTES:
            raise ConversionError(f"a tensor has {n} for a dimension")
        dims.append(n)
    return dims


def value_info(data: memoryview) -> tuple[str, list[int]]:
    """Return the name of an input or output, and its sizes, -1 where none is told."""
    name, sizes = "", []
    for number, _, value in pb.fields(data):
        if number == 1:
            name = pb.as_text(value)
        elif number == 2:
            sizes = _sizes(pb.as_bytes(value))
    return name, sizes


def _sizes(data: memoryview) -> list[int]:
    sizes = []
    for of_tensor in _messages(data, 1):
        for shape in _messages(of_tensor, 2):
            for dim in _messages(shape, 1):
                values = [pb.as_int(value) for number, _, value in pb.fields(dim) if number == 1]
                sizes.append(values[0] if values else -1)
    return sizes


def _messages(data: memoryview, field_number: int) -> Iterator[memoryview]:
    for number, _, value in pb.fields(data):
        if number == field_number:
            yield pb.as_bytes(value)
