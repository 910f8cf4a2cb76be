"""What a model file means: the step between arrays with text (``io``) and a network.

A file holds the arrays ``layers.0.weight`` (n_in, n_out), ``layers.0.bias`` (n_out,) and so on, of
a normalised layer also ``scale`` (and ``mean`` and ``variance``), with the optimizer's state the
same under ``moment0.`` and ``moment1.`` (where weights are averaged, the last of these holds those
that training goes on from), and as text the architecture, the labels and the training record, each
as JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import io
from ._checks import check_input_scale, check_integer
from ._spec import NORMALIZATION_PARTS, SOLVERS, lookup
from .io import ModelFileError as ModelFileError
from .training import History

Array = NDArray[Any]

FORMAT_VERSION = "1"

MAX_EPOCHS = 10_000
"""Epochs of the training record that a file keeps."""

BAD_CONTENT = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""What text of another form than expected raises when it is taken apart."""


class Saved(NamedTuple):
    """A file's content, checked against itself."""

    architecture: dict[str, Any]
    arrays: dict[str, Array]
    classes: Array | None
    history: History
    state: dict[str, Any] | None


def write(
    path: str | os.PathLike[str],
    architecture: dict[str, Any],
    arrays: Mapping[str, Array],
    classes: Array | None,
    history: History,
    state: dict[str, Any] | None,
) -> None:
    """Write a network's description and arrays."""
    record = {"metric": history.metric, "values": _thinned(history)}
    metadata = {
        "format": "cmlp",
        "format_version": FORMAT_VERSION,
        "network": json.dumps(architecture),
        "history": json.dumps(record),
    }
    if classes is not None:
        if classes.dtype.kind in "US":
            classes = np.array(classes.tolist())  # no longer than its longest label
        plain = np.char.decode(classes, "latin-1") if classes.dtype.kind == "S" else classes
        labels = {"dtype": classes.dtype.str, "labels": plain.tolist()}
        metadata["classes"] = json.dumps(labels)
    if state is not None:
        metadata["optimizer"] = json.dumps(state, default=np.ndarray.tolist)
    io.write(path, dict(arrays), metadata)


def _thinned(history: History) -> dict[str, list[float]]:
    """Leave so many epochs, evenly spread, that a long record fits a header; the last is one."""
    n = max(map(len, history.values()), default=0)
    kept = np.unique(np.linspace(0, max(n - 1, 0), min(n, MAX_EPOCHS)).astype(np.int64))
    return {key: [column[i] for i in kept] for key, column in history.items()}


def read(path: str | os.PathLike[str]) -> Saved:
    """Read what :func:`write` wrote.

    Raises
    ------
    ModelFileError
        Before any array is allocated, if a part is missing, of a wrong type, or an array's shape is
        not what the architecture says.
    """
    found: list[Saved] = []

    def validate(metadata: dict[str, str], infos: dict[str, io.ArrayInfo]) -> None:
        found.append(_described(os.fspath(path), metadata, infos))

    arrays, _ = io.read(path, validate)
    return found[0]._replace(arrays=arrays)


def describe(path: str | os.PathLike[str]) -> Saved:
    """Read and check everything but the arrays."""
    return _described(os.fspath(path), *io.read_header(path))


def _described(path: str, metadata: dict[str, str], infos: dict[str, io.ArrayInfo]) -> Saved:
    if metadata.get("format") != "cmlp":
        raise ModelFileError(f"{path} is a safetensors file, but not one that cmlp wrote")
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise ModelFileError(
            f"{path} has format version {version!r}, this cmlp reads {FORMAT_VERSION!r}; update it"
        )
    try:
        about = _architecture(json.loads(metadata["network"]))
        state = _state(json.loads(metadata["optimizer"])) if "optimizer" in metadata else None
        _check_arrays(about, state, infos)
        classes = None
        if "classes" in metadata:
            classes = _classes(json.loads(metadata["classes"]), max(about["sizes"][-1], 2))
        record = json.loads(metadata["history"])
        values = {
            str(key): [float(value) for value in column] for key, column in record["values"].items()
        }
        return Saved(about, {}, classes, History(values, str(record["metric"])), state)
    except BAD_CONTENT as error:
        message = f"{path} does not describe a network: {type(error).__name__}: {error}"
        raise ModelFileError(message) from None


def _architecture(about: dict[str, Any]) -> dict[str, Any]:
    older = {"input_scale": 1.0, "missing_targets": False, "normalization": None}
    about = {**older, **about}
    about = {key: about[key] for key in _TYPES}
    for key, kind in _TYPES.items():
        if not isinstance(about[key], kind):
            raise TypeError(f"{key} is a {type(about[key]).__name__}")
    if about["feature_names"] and len(about["feature_names"]) != about["sizes"][0]:
        raise ValueError("there must be one feature name per input")
    if not all(isinstance(name, str) for name in about["feature_names"]):
        raise TypeError("feature names must be text")
    for size in about["sizes"]:
        check_integer("size", size, 1)
    check_input_scale(about["input_scale"])
    if len(about["activations"]) != len(about["sizes"]) - 1 or not about["activations"]:
        raise ValueError("there must be one activation per layer")
    return about


_TYPES: dict[str, Any] = {
    "sizes": list,
    "activations": list,
    "loss": str,
    "loss_parameter": (int, float),
    "weight_init": str,
    "dtype": str,
    "feature_names": list,
    "target_name": (str, type(None)),
    "input_scale": (int, float),
    "missing_targets": bool,
    "normalization": (str, type(None)),
}


def _classes(about: dict[str, Any], n: int) -> Array:
    """Labels in the order of the outputs: `n` of them, sorted, each once."""
    dtype, labels = np.dtype(about["dtype"]), about["labels"]
    if dtype.kind not in "iubfUS" or not isinstance(labels, list) or len(labels) != n:
        raise ValueError(f"{n} labels expected, of text or numbers")
    kinds = {"U": str, "S": str, "b": bool}.get(dtype.kind, (int, float))
    if not all(isinstance(label, kinds) for label in labels):
        raise TypeError(f"labels of {dtype} expected")
    if dtype.kind in "US":  # as long as the labels are, whatever the file claims
        classes = np.array(labels)
        classes = np.char.encode(classes, "latin-1") if dtype.kind == "S" else classes
    else:
        classes = np.array(labels, dtype=dtype)
    if not np.array_equal(np.unique(classes), classes):
        raise ValueError("labels must be sorted, each once")
    if classes.dtype != dtype:
        raise ValueError(f"labels of {dtype} expected, {classes.dtype} came")
    return classes


def _state(state: dict[str, Any]) -> dict[str, Any]:
    """The optimizer's state, without its arrays."""
    state = {"averaged": 0, "shown_average": None, **state}  # which older files lack
    check_integer("steps", state["steps"], 0)
    check_integer("averaged", state["averaged"], 0)
    if state["shown_average"] is not None:
        check_integer("shown_average", state["shown_average"], 0)
    if state["averaged"] > state["steps"] or (state["averaged"] and not state["solver"]):
        raise ValueError("a mean is of steps that were taken")
    if state["steps"] >= 1 << 62 or not isinstance(state["solver"], str):
        raise ValueError("steps and solver are not those of an optimizer")
    generator(state["generator"])
    return state


GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


def generator(state: dict[str, Any]) -> np.random.Generator:
    """Rebuild a random generator; only NumPy's own kinds are made, by their names."""
    name = state["bit_generator"]
    if name not in GENERATORS:
        raise ValueError(f"unknown random generator {name!r}")
    parts: list[Any] = [state]
    for part in parts:  # NumPy 1 takes a negative word, with a warning
        if isinstance(part, (dict, list)):
            parts += part.values() if isinstance(part, dict) else part
        elif isinstance(part, int) and part < 0:
            raise ValueError(f"a random generator's state has no {part}")
    bits = getattr(np.random, name)(0)
    bits.state = state
    return np.random.Generator(bits)


def _check_arrays(
    about: dict[str, Any], state: dict[str, Any] | None, infos: dict[str, io.ArrayInfo]
) -> None:
    """Compare every array's shape and dtype with the architecture."""
    solver = state["solver"] if state else ""
    n_moments = lookup("solver", SOLVERS, solver).n_moments if solver else 0
    n_moments += bool(state and state["averaged"])
    if len(about["sizes"]) > len(infos) + 1:
        raise ValueError(f"{len(infos)} arrays do not make {len(about['sizes']) - 1} layers")
    kinds = {None: 0, "batch": 3, "layer": 1}[about["normalization"]]
    expected = dict(_expected_shapes(about["sizes"], n_moments, NORMALIZATION_PARTS[:kinds]))
    shapes = {key: info.shape for key, info in infos.items()}
    for key in sorted(expected.keys() | shapes.keys()):
        if expected.get(key) != shapes.get(key):
            raise ValueError(f"array {key!r} is {shapes.get(key)}, expected {expected.get(key)}")
    for key, info in infos.items():
        if info.dtype != about["dtype"]:
            raise ValueError(f"array {key!r} is {info.dtype}, expected {about['dtype']}")


def _expected_shapes(
    sizes: list[int], n_moments: int, kinds: Sequence[str]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    for prefix in ("", *(f"moment{number}." for number in range(n_moments))):
        for number, (n_in, n_out) in enumerate(pairwise(sizes)):
            yield f"{prefix}layers.{number}.weight", (n_in, n_out)
            yield f"{prefix}layers.{number}.bias", (n_out,)
            for kind in kinds if number < len(sizes) - 2 else ():
                yield f"{prefix}layers.{number}.{kind}", (n_out,)
