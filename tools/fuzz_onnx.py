"""Changes ONNX files at random, reads them, and reports every violation of what from_onnx promises.

``PYTHONPATH=src python tools/fuzz_onnx.py --executions 10000000 --processes 2``; returns 1 if a
fault was found. A file must be refused with a ConversionError, or give a network that predicts; one
in SECOND_FILES of these is written again and must predict the same. The limits of time and memory,
and the options, are those of fuzz_files.py, next to this file.
"""

from __future__ import annotations

import dataclasses
import sys
import tracemalloc
import zlib
from pathlib import Path
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import fuzz_files

import cmlp
from cmlp import to_onnx
from cmlp.core.vocabulary import ACTIVATIONS
from cmlp.exchange.networks import network_of
from cmlp.formats.chain import ConversionError
from cmlp.formats.chain import run as run_chain
from cmlp.formats.onnx import messages, reader
from cmlp.formats.onnx import protobuf as pb
from cmlp.formats.onnx.operators import ML_OPERATORS, OPERATORS

run_files = fuzz_files.run

MESSAGES = {
    "model": {7: "graph", 8: "leaf", 14: "leaf"},
    "graph": {1: "node", 5: "leaf", 11: "value", 12: "value"},
    "node": {5: "attribute"},
    "attribute": {5: "leaf"},
    "value": {2: "type"},
    "type": {1: "tensor type"},
    "tensor type": {2: "shape"},
    "shape": {1: "leaf"},
    "leaf": {},
}
"""Which fields of a message are messages."""


# Seed files --------------------------------------------------------------------------------------


def models():
    """Return models with every operator that is written, and options."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(12, 3)), np.arange(12) % 3
    names = [row.name for row in ACTIVATIONS if not row.output_only]
    for number, name in enumerate([*names, "leaky_relu:0.3", "leaky_relu:2", "elu:0.5"]):
        net = cmlp.Network(
            [3, 2, 3], name, ("softmax", "identity", "logistic")[number % 3], seed=number,
            normalization=(None, "layer")[number % 2], parametric_activation=number % 4 > 1,
        )  # fmt: skip
        net.feature_names, net.target_name = ["a", "größe", "c"], "y"
        for dtype in ("float32", "float64")[: 1 if name == "gelu" else 2]:
            yield net, {"dtype": dtype, "opset": (13, 17, 18, 24)[number % 4]}
    for labels in (y, np.array(["ape", "ä\n", "<b>"])[y], y > 0, y + 1.0):
        n, loss = (1, "binary_crossentropy") if labels.dtype == bool else (3, "cross_entropy")
        net = cmlp.Network([3, 2, n], "tanh", loss=loss, seed=1)
        net.fit(X, labels, epochs=1)
        yield net, {"input_dtype": "uint8", "batch": 2}
        if labels.dtype != float:
            yield net, {"zipmap": True}
    yield (
        cmlp.MLPRegressor(hidden_layer_sizes=(2,), max_iter=1, n_ensemble=2, random_state=0).fit(
            X, X[:, 0]
        ),
        {},
    )


NUMBER, WIRE, VALUE, RAW = range(4)
"""Of a field of a message, a tuple that never changes: what stays the same is encoded once."""


def field(number, wire, value):
    """Return a field, with its bytes, whose lengths are right."""
    if isinstance(value, tuple):
        raw = pb.chunk(number, encoded(value))
    elif isinstance(value, int):
        raw = pb.integer(number, value)
    elif wire == pb.BYTES:
        raw = pb.chunk(number, value)
    else:
        raw = pb.varint(number << 3 | wire) + value
    return number, wire, value, raw


def encoded(tree):
    """Return the bytes of a message."""
    return b"".join([each[RAW] for each in tree])


def parsed(data, kind):
    """Return the fields of a message; those of messages in it are tuples, too."""
    tree = []
    for number, wire, value in pb.fields(data):
        if number in MESSAGES[kind] and not isinstance(value, int):
            value = parsed(value, MESSAGES[kind][number])
        elif not isinstance(value, int):
            value = bytes(value)
        tree.append(field(number, wire, value))
    return tuple(tree)


def places(tree, at=()):
    """List the places in a tree: the way to each, by the numbers of fields."""
    found = []
    for number, each in enumerate(tree):
        found.append((*at, number))
        if isinstance(each[VALUE], tuple):
            found += places(each[VALUE], (*at, number))
    return found


def found_at(tree, place):
    """Return the field at a place, or None if a change has removed it."""
    each = None
    for number in place:
        if not isinstance(tree, tuple) or number >= len(tree):
            return None
        each = tree[number]
        tree = each[VALUE]
    return each


def with_fields(tree, place, fields):
    """Return a tree that has these fields at a place, instead of the one there."""
    at, *rest = place
    if rest:
        number, wire, value, _ = tree[at]
        fields = (field(number, wire, with_fields(value, rest, fields)),)
    return (*tree[:at], *fields, *tree[at + 1 :])


class Seed:
    """A valid file, its fields as a tree, the places in it and its texts and numbers."""

    def __init__(self, raw):
        self.raw = raw
        self.tree = parsed(memoryview(raw), "model")
        self.places = places(self.tree)
        values = [found_at(self.tree, place)[VALUE] for place in self.places]
        self.bytes = [value for value in values if isinstance(value, bytes)]


def seeds():
    """Return a file of each model."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [Seed(to_onnx(model, **options)) for model, options in models()]


# Changes -----------------------------------------------------------------------------------------

SMALL = 500
"""Bytes of a file that is never passed over."""

NUMBERS = (
    0, 1, 2, 3, 7, 8, 11, 13, 16, 127, 128, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1,
)  # fmt: skip
OPERATOR_NAMES = [name.encode() for name in (*OPERATORS, *ML_OPERATORS, "Conv", "Loop", "If")]


def change_tree(rng, seed):
    """Change fields, and leave the lengths right."""
    tree = seed.tree
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        place = rng.choice(seed.places)
        old = found_at(tree, place)
        if old is not None:
            tree = changed_at(rng, tree, place, old, seed)
    return encoded(tree)


def changed_at(rng, tree, place, old, seed):
    """Return a tree with another field, or other fields, at a place."""
    number, wire, value, _ = old
    kind = rng.randrange(12)
    if kind == 0:
        return with_fields(tree, place, ())
    if kind == 1:
        return with_fields(tree, place, (old, old))
    if kind == 2:
        elsewhere = rng.choice(seed.places)
        other = found_at(tree, elsewhere)
        if other is None:
            return tree
        tree = with_fields(tree, elsewhere, (field(other[NUMBER], other[WIRE], value),))
        if found_at(tree, place) is None:
            return tree
        return with_fields(tree, place, (field(number, wire, other[VALUE]),))
    if kind == 3:
        number = rng.choice((*range(1, 24), 2**29, 0))
    elif isinstance(value, int):
        value = rng.choice((*NUMBERS, value + 1, max(value - 1, 0)))
    elif isinstance(value, bytes):
        value = other_bytes(rng, value, seed)
    else:
        value = tuple(rng.sample(value, len(value)))
    return with_fields(tree, place, (field(number, wire, value),))


def other_bytes(rng, old, seed):
    """Return a replacement for text or numbers: often something that stands elsewhere."""
    kind = rng.randrange(7)
    if kind < 2:
        return rng.choice(seed.bytes)
    if kind == 2:
        return rng.choice(OPERATOR_NAMES)
    if kind == 3:
        return rng.choice(fuzz_files.TEXTS).encode("utf-8", "surrogatepass")
    if kind == 4:
        return rng.choice((old[: len(old) // 2], old + old, old[:-1], b"", old * 40))
    if kind == 5:
        return np.full(len(old) // 4, rng.choice((0, np.nan, np.inf, 1e38, -1.0)), "<f4").tobytes()
    return fuzz_files.change_bytes(rng, old) if old else b"\0"


def one_of(rng, files):
    """Return a file: the smaller, the more often, since it takes less time."""
    while True:
        seed = rng.choice(files)
        if rng.random() * len(seed.raw) < SMALL:
            return seed


def changed(rng, files):
    """Generate a file from scratch."""
    seed, other = one_of(rng, files), one_of(rng, files)
    way = rng.random()
    if way < 0.75:
        return change_tree(rng, seed)
    if way < 0.9:
        return change_raw(rng, seed.raw)
    if way < 0.95:
        return fuzz_files.splice(rng, seed, other)
    if way < 0.97:
        return fuzz_files.truncate(rng, seed)
    return change_raw(rng, change_tree(rng, seed))


def change_raw(rng, raw):
    """Flip bits, write bytes, move, remove and repeat some."""
    raw = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at, n, kind = rng.randrange(len(raw) or 1), rng.choice((1, 1, 2, 8, 64)), rng.randrange(5)
        if kind == 0 and at < len(raw):
            raw[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(raw):
            raw[at] = rng.choice(b"\0\x01\x08\x0a\x12\x7f\x80\xff")
        elif kind == 2:
            raw[at : at + n] = rng.randbytes(n)
        elif kind == 3:
            del raw[at : at + n]
        else:
            raw[at:at] = raw[at : at + n]
    return bytes(raw)


# Invariants --------------------------------------------------------------------------------------

CHECKED = set()
"""Chains whose networks have predicted: another file that is read as the same needs no other."""


def contents(value):
    """Return all that a chain holds, as tuples."""
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, np.ndarray):
        return tuple(value.tolist())
    if isinstance(value, tuple):
        return tuple(map(contents, value))
    if dataclasses.is_dataclass(value):
        return type(value).__name__, *map(contents, vars(value).values())
    return value


def check(raw):
    """Read a file and check the model; return the outcome."""
    try:
        chain = reader.read(raw)
    except ConversionError:
        return "refused"
    if not tracemalloc.is_tracing():
        same = hash(contents(chain))
        if same in CHECKED:
            return "accepted as before"
        CHECKED.add(same)
    X = np.linspace(-1, 1, 3 * chain.n_in).reshape(3, -1)
    expected = run_chain(chain, X)
    if expected.shape != (3, chain.n_out):
        raise fuzz_files.Wrong("its outputs have another shape")
    try:
        net = network_of(chain)
    except ConversionError:
        return "no network"
    predicted = net.predict(X)
    if zlib.crc32(raw) % fuzz_files.SECOND_FILES or not np.isfinite(predicted).all():
        return "accepted"
    if net.classes is not None:
        net.predict_classes(X)
    try:
        second = to_onnx(net, dtype=net.dtype.name)
    except ConversionError as error:
        if "float64" in str(error):
            return "accepted"  # gelu
        raise
    again = network_of(reader.read(second)).predict(X)
    if not np.allclose(again, predicted, rtol=1e-4, atol=1e-5):
        raise fuzz_files.Wrong("its second file predicts differently")
    return "accepted"


PARTS = ("parse_node", "parse_tensor", "value_info", "pair")
"""Functions of :mod:`messages` that read a part of a file."""


def remembered(function):
    """Return a function of bytes that reads none twice; memory is measured without it."""
    known = {}

    def call(data):
        if tracemalloc.is_tracing():
            return function(data)
        key = bytes(data)
        if key not in known:
            known[key] = function(data)
        return known[key]

    return call


def run(chunk):
    """Try the files of one chunk."""
    CHECKED.clear()  # the same seed checks the same networks
    once = {name: remembered(getattr(messages, name)) for name in PARTS}
    with (
        mock.patch.multiple(fuzz_files, changed=changed, check=check),
        mock.patch.multiple(messages, **once),
    ):
        return run_files(chunk)


def main(arguments=None):
    """Do what fuzz_files does, with ONNX files."""
    with mock.patch.multiple(fuzz_files, seeds=seeds, run=run):
        return fuzz_files.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
