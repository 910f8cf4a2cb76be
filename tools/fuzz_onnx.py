"""Changes ONNX files at random, reads them, and reports every violation of what from_onnx promises.

``PYTHONPATH=src python tools/fuzz_onnx.py --executions 10000000 --processes 2``; returns 1 if a
fault was found. A file must be refused with a ConversionError, or give a network that predicts; one
in SECOND_FILES of these is written again and must predict the same. The limits of time and memory,
and the options, are those of fuzz_files.py, next to this file.
"""

from __future__ import annotations

import copy
import sys
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
from cmlp.formats.onnx import protobuf as pb
from cmlp.formats.onnx import reader
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


class Seed:
    """A valid file, and its fields as a tree."""

    def __init__(self, raw):
        self.raw = raw
        self.tree = parsed(memoryview(raw), "model")


def parsed(data, kind):
    """Return a message as lists: number, wire type, and bytes, a number or a list."""
    tree = []
    for number, wire, value in pb.fields(data):
        if number in MESSAGES[kind] and not isinstance(value, int):
            value = parsed(value, MESSAGES[kind][number])
        elif not isinstance(value, int):
            value = bytes(value)
        tree.append([number, wire, value])
    return tree


def encoded(tree):
    """Return the bytes of a tree, whose lengths are right."""
    parts = []
    for number, wire, value in tree:
        if isinstance(value, list):
            parts.append(pb.chunk(number, encoded(value)))
        elif isinstance(value, int):
            parts.append(pb.integer(number, value))
        elif wire == pb.BYTES:
            parts.append(pb.chunk(number, value))
        else:
            parts.append(pb.varint(number << 3 | wire) + value)
    return b"".join(parts)


def seeds():
    """Return a file of each model."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [Seed(to_onnx(model, **options)) for model, options in models()]


# Changes -----------------------------------------------------------------------------------------

NUMBERS = (
    0, 1, 2, 3, 7, 8, 11, 13, 16, 127, 128, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1,
)  # fmt: skip
OPERATOR_NAMES = [name.encode() for name in (*OPERATORS, *ML_OPERATORS, "Conv", "Loop", "If")]


def places(tree):
    """List the places in a tree: (list, index)."""
    found, todo = [], [tree]
    for node in todo:
        found += [(node, at) for at in range(len(node))]
        todo += [field[2] for field in node if isinstance(field[2], list)]
    return found


def change_tree(rng, seed):
    """Change fields, and leave the lengths right."""
    tree = copy.deepcopy(seed.tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        found = places(tree)
        if not found:
            break
        node, at = rng.choice(found)
        field, kind = node[at], rng.randrange(12)
        if kind == 0:
            del node[at]
        elif kind == 1:
            node.insert(at, copy.deepcopy(field))
        elif kind == 2:
            other, place = rng.choice(found)
            field[2], other[place][2] = copy.deepcopy(other[place][2]), copy.deepcopy(field[2])
        elif kind == 3:
            field[0] = rng.choice((*range(1, 24), 2**29, 0))
        elif isinstance(field[2], int):
            field[2] = rng.choice((*NUMBERS, field[2] + 1, max(field[2] - 1, 0)))
        elif isinstance(field[2], bytes):
            field[2] = other_bytes(rng, field[2], found)
        else:
            rng.shuffle(field[2])
    return encoded(tree)


def other_bytes(rng, old, found):
    """Return a replacement for text or numbers: often something that stands elsewhere."""
    kind = rng.randrange(7)
    if kind < 2:
        texts = [node[at][2] for node, at in found if isinstance(node[at][2], bytes)]
        return rng.choice(texts)
    if kind == 2:
        return rng.choice(OPERATOR_NAMES)
    if kind == 3:
        return rng.choice(fuzz_files.TEXTS).encode("utf-8", "surrogatepass")
    if kind == 4:
        return rng.choice((old[: len(old) // 2], old + old, old[:-1], b"", old * 40))
    if kind == 5:
        return np.full(len(old) // 4, rng.choice((0, np.nan, np.inf, 1e38, -1.0)), "<f4").tobytes()
    return fuzz_files.change_bytes(rng, old) if old else b"\0"


def changed(rng, files):
    """Generate a file from scratch."""
    seed, other = rng.choices(files, [1 / len(file.raw) for file in files], k=2)
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


def check(raw):
    """Read a file and check the model; return the outcome."""
    try:
        chain = reader.read(raw)
    except ConversionError:
        return "refused"
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


def run(chunk):
    """Try the files of one chunk."""
    with mock.patch.multiple(fuzz_files, changed=changed, check=check):
        return run_files(chunk)


def main(arguments=None):
    """Do what fuzz_files does, with ONNX files."""
    with mock.patch.multiple(fuzz_files, seeds=seeds, run=run):
        return fuzz_files.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
