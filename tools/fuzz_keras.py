"""Changes Keras' files at random, reads them, and reports violations of what from_keras promises.

``PYTHONPATH=src python tools/fuzz_keras.py --executions 100000 --processes 2``, with Keras (which
makes the files) and h5py; returns 1 if a fault was found. A file must be refused with a
ConversionError or a ModelFileError, or give a network that predicts. The limits of time and memory,
and the options, are those of fuzz_files.py, next to this file.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import fuzz_files

from cmlp import ModelFileError, from_keras
from cmlp.formats.chain import ConversionError

run_files = fuzz_files.run


def models():
    """Return a Sequential model and a functional one, of layers with constants and arrays."""
    import keras

    layers = keras.layers
    inner = keras.Sequential([layers.Dense(3, "hard_sigmoid"), layers.BatchNormalization()])
    yield keras.Sequential(
        [
            keras.Input((3,)), layers.Rescaling(0.5, 0.25), layers.BatchNormalization(),
            layers.Dense(4, use_bias=False), layers.LayerNormalization(), layers.Activation("elu"),
            inner, layers.Dense(3), layers.LeakyReLU(), layers.Dense(3), layers.ELU(alpha=0.5),
            layers.Dense(3, layers.ReLU(negative_slope=0.1)), layers.Dense(3), layers.Softmax(),
        ]
    )  # fmt: skip
    x = inputs = keras.Input((3,))
    for layer in (layers.Dense(4, "leaky_relu"), layers.Dropout(0.5), layers.Dense(1, "sigmoid")):
        x = layer(x)
    yield keras.Model(inputs, x)
    ends = [layers.Dense(2, "softmax")(layers.Dense(4, "relu")(inputs)) for _ in range(3)]
    yield keras.Model(inputs, layers.Average()(ends))


class Seed:
    """A valid file; of a .keras file also its members."""

    def __init__(self, raw):
        self.raw, self.members = raw, {}
        if raw.startswith(b"PK"):
            with zipfile.ZipFile(io.BytesIO(raw)) as archive:
                self.members = {name: archive.read(name) for name in archive.namelist()}


def seeds():
    """Return both kinds of files of each model."""
    os.environ.setdefault("KERAS_BACKEND", "numpy")
    files = []
    with tempfile.TemporaryDirectory() as folder:
        for model in models():
            for kind in ("keras", "h5"):
                path = Path(folder) / f"m.{kind}"
                model.save(path)
                files.append(Seed(path.read_bytes()))
    return files


# Changes -----------------------------------------------------------------------------------------


def change_raw(rng, raw):
    """Flip bits, write bytes, move, remove and repeat some."""
    raw = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, n, kind = rng.randrange(len(raw) or 1), rng.choice((1, 1, 2, 8, 64)), rng.randrange(6)
        if kind < 2 and at < len(raw):
            raw[at] ^= 1 << rng.randrange(8)
        elif kind == 2 and at < len(raw):
            raw[at] = rng.choice(b"\0\x01\x08\x7f\x80\xff0129")
        elif kind == 3:
            raw[at : at + n] = rng.randbytes(n)
        elif kind == 4:
            del raw[at : at + n]
        else:
            raw[at:at] = raw[at : at + n]
    return bytes(raw)


def packed(members):
    """Return the bytes of a .keras file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def change_description(rng, members):
    """Change what config.json describes."""
    tree = json.loads(members["config.json"])
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        fuzz_files.edit(rng, tree)
    text = fuzz_files.dumped(rng, tree)
    return {**members, "config.json": text.encode("utf-8", "surrogatepass")}


def changed(rng, files):
    """Generate a file from scratch."""
    seed, way = rng.choice(files), rng.random()
    if not seed.members or way < 0.1:
        return change_raw(rng, seed.raw)
    if way < 0.8:
        return packed(change_description(rng, seed.members))
    name = rng.choice([*seed.members, "model.weights.h5"])
    return packed({**seed.members, name: change_raw(rng, seed.members[name])})


# Invariants --------------------------------------------------------------------------------------


def check(raw):
    """Read a file and check the network; return the outcome."""
    try:
        net = from_keras(io.BytesIO(raw))
        if hasattr(net, "estimators_"):
            net = net.estimators_[-1].network_
    except (ConversionError, ModelFileError):
        return "refused"
    out = net.predict(np.linspace(-1, 1, 3 * net.sizes[0]).reshape(3, -1))
    if out.shape != (3, net.sizes[-1]):
        raise fuzz_files.Wrong("its outputs have another shape")
    return "accepted"


def run(chunk):
    """Try the files of one chunk."""
    with mock.patch.multiple(fuzz_files, changed=changed, check=check):
        return run_files(chunk)


def main(arguments=None):
    """Do what fuzz_files does, with Keras' files."""
    with mock.patch.multiple(fuzz_files, seeds=seeds, run=run):
        return fuzz_files.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
