"""Model files: how a network becomes arrays with text, and arrays with text a network.

A file holds the arrays ``layers.0.weight`` (n_in, n_out), ``layers.0.bias`` (n_out,) and so on, of
a normalised layer also ``scale`` (and ``mean`` and ``variance``), of one with a parametric
activation also ``alpha``, with the optimizer's state the same under ``moment0.`` and ``moment1.``
(with weight averaging the last of these holds the weights from which training continues), what is
learned before the first layer as ``front.`` and its names, and as JSON the architecture, the labels
and the training record; a checkpoint also has where its training stood (``checkpoint``).

No file is trusted. Its text is parsed by ``json`` and by nothing else: names, dtypes and random
generators are looked up in tables, numbers have exactly the expected type and range. :func:`save`
checks its output by the same functions, so that a file that was written can be read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from reprlib import repr as short
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from cmlp.core.checks import check_input_scale, check_number
from cmlp.core.layout import Array
from cmlp.core.vocabulary import (
    ACTIVATIONS,
    INITIALISERS,
    LOSSES,
    NORMALIZATION_VECTORS,
    NORMALIZATIONS,
    PRECISIONS,
    SOLVERS,
    activation_of,
)
from cmlp.data.records import NUMBER, entries
from cmlp.formats import safetensors
from cmlp.formats.entries import check_name, in_order
from cmlp.formats.front_records import front_shapes
from cmlp.formats.label_records import label_record, read_classes
from cmlp.formats.safetensors import ModelFileError
from cmlp.formats.training_records import (
    STATE,
    generator,
    history_record,
    read_history,
    read_resume,
    read_state,
)
from cmlp.model.architecture import Architecture, read_normalization
from cmlp.model.custom_loss import CustomLoss
from cmlp.model.history import History
from cmlp.model.optimizer_state import OptimizerState
from cmlp.model.parameters import Parameters
from cmlp.model.state import State

Loaded = TypeVar("Loaded", bound=State)

FORMAT_VERSION = "1"


HEAD = {"format": "cmlp", "format_version": FORMAT_VERSION}
"""What every file begins with."""


TABULAR = "tabular"
"""The entry of a file that holds an estimator for tables, with all its networks."""


MAX_DIGITS = 39
"""Digits of the longest integer in the text: a generator's state of 128 bits."""


MAX_NAME = 60
"""Characters of a name with a parameter, at most."""


BAD_CONTENT = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""Errors that text of an unexpected form raises."""


class Saved(NamedTuple):
    """A file's content, checked against itself."""

    architecture: dict[str, Any]
    arrays: dict[str, Array]
    classes: Array | None
    history: History
    state: dict[str, Any] | None


def _described_as_text(
    architecture: dict[str, Any],
    arrays: Mapping[str, Array],
    classes: ArrayLike | None,
    history: History,
    solver: str,
    state: dict[str, Any] | None,
) -> dict[str, str]:
    """Return all of a network but its arrays: each part as JSON, checked as a reader does.

    Raises
    ------
    ValueError
        If a file cannot hold them.
    """
    try:
        metadata = {
            "network": json.dumps(in_order(architecture, _ARCHITECTURE)),
            "history": json.dumps(history_record(history, solver)),
        }
        if classes is not None:
            metadata["classes"] = json.dumps(label_record(classes))
        if state is not None:
            metadata["optimizer"] = json.dumps(in_order(state, STATE), default=plain_number)
        infos = {
            name: safetensors.ArrayInfo(array.dtype.newbyteorder("="), array.shape)
            for name, array in arrays.items()
        }
        content(metadata, infos)
    except BAD_CONTENT as error:
        raise ValueError(f"this network cannot be saved: {error}") from error
    return metadata


def plain_number(value: Any) -> Any:
    """Return NumPy's numbers and arrays in a generator's state as Python's."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"a random generator whose state holds a {type(value).__name__}")


def read(file: safetensors.File) -> Saved:
    """Read what :func:`save` wrote.

    Raises
    ------
    ModelFileError
        If a part is missing or of a wrong type, or an array has another shape than the architecture
        gives it; before any array is allocated.
    """
    found: list[Saved] = []

    def validate(metadata: dict[str, str], infos: dict[str, safetensors.ArrayInfo]) -> None:
        found.append(_described(safetensors.name_of(file), metadata, infos))

    arrays, _ = safetensors.read(file, validate)
    return found[0]._replace(arrays=arrays)


def _described(
    path: str, metadata: dict[str, str], infos: dict[str, safetensors.ArrayInfo]
) -> Saved:
    check_head(path, metadata)
    if TABULAR in metadata:
        raise ModelFileError(
            f"{path} holds an estimator for tables, not a single network; read it with cmlp.load"
        )
    try:
        return content(metadata, infos)
    except BAD_CONTENT as error:
        raise ModelFileError(f"{path} does not describe a network: {error}") from None


def check_head(path: str, metadata: Mapping[str, str]) -> None:
    """Check that cmlp has written a file, in a version that this one reads."""
    if metadata.get("format") != "cmlp":
        raise ModelFileError(f"{path} is a safetensors file, but not one that cmlp wrote")
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise ModelFileError(
            f"{path} has format version {short(version)}, this cmlp reads {FORMAT_VERSION!r}; "
            "update it"
        )


def content(metadata: dict[str, str], infos: dict[str, safetensors.ArrayInfo]) -> Saved:
    """Check all text against itself and the arrays' shapes; raises one of BAD_CONTENT."""
    for key in ("network", "history"):
        if key not in metadata:
            raise ValueError(f"the entry {key!r} is missing")
    about = _architecture(parsed(metadata, "network"))
    state = read_state(parsed(metadata, "optimizer")) if "optimizer" in metadata else None
    resume = read_resume(parsed(metadata, "resume")) if "resume" in metadata else None
    _check_arrays(about, state, infos, keeps_best=resume is not None and resume["best"])
    classes = None
    if "classes" in metadata:
        classes = read_classes(parsed(metadata, "classes"), max(about["sizes"][-1], 2))
    return Saved(about, {}, classes, read_history(parsed(metadata, "history")), state)


def parsed(metadata: dict[str, str], key: str) -> Any:
    """Return the JSON of an entry; raises ValueError."""
    try:
        return safetensors.parse_json(
            metadata[key], max_digits=MAX_DIGITS, constants=True, surrogates=True
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the entry {key!r} is not valid JSON: {error}") from None


# The architecture --------------------------------------------------------------------------------

_ARCHITECTURE: dict[str, tuple[type, ...]] = {
    "sizes": (list,),
    "activations": (list,),
    "loss": (str,),
    "loss_parameter": NUMBER,
    "weight_init": (str,),
    "dtype": (str,),
    "feature_names": (list,),
    "target_name": (str, type(None)),
    "input_scale": NUMBER,
    "missing_targets": (bool,),
    "normalization": (str, type(None)),
    "parametric_activation": (bool,),
    "out_activation_given": (bool,),
    "inputs": (dict, type(None)),
    "precision": (str, type(None)),
}


_OLDER = {
    "input_scale": 1.0, "missing_targets": False, "normalization": None,
    "parametric_activation": False, "out_activation_given": False, "inputs": None,
    "precision": None,
}  # fmt: skip


DTYPES = {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}


_ACTIVATIONS = [row.name for row in ACTIVATIONS]


_LOSSES = [*(row.name for row in LOSSES), "custom"]


_WEIGHT_INITS = {"auto"}.union(*((row.name, *row.aliases) for row in INITIALISERS))


def _architecture(record: object) -> dict[str, Any]:
    about = entries(record, "the network", _ARCHITECTURE, _OLDER)
    sizes, activations = about["sizes"], about["activations"]
    if len(sizes) < 2 or not all(type(size) is int and size >= 1 for size in sizes):
        raise ValueError("sizes must be two or more whole numbers of at least 1")
    if len(activations) != len(sizes) - 1:
        raise ValueError("there must be one activation per layer")
    for name in activations:
        _check_activation(name)
    check_name("loss", about["loss"], _LOSSES)
    most = 1.0 if about["loss"] == "quantile" else math.inf
    about["loss_parameter"] = check_number("loss_parameter", about["loss_parameter"], 0, most)
    about["input_scale"] = check_input_scale(about["input_scale"])
    plain = about["weight_init"].lower().replace("-", "_")
    if plain not in _WEIGHT_INITS:
        raise ValueError(f"unknown weight_init {short(about['weight_init'])}")
    check_name("dtype", about["dtype"], list(DTYPES))
    if about["precision"] not in PRECISIONS:
        raise ValueError(f"unknown precision {short(about['precision'])}")
    if _normalization(about) not in NORMALIZATIONS:
        raise ValueError(f"unknown normalization {short(about['normalization'])}")
    front_shapes(about)
    names = about["feature_names"]
    if names and len(names) != sizes[0]:
        raise ValueError(
            f"there must be one feature name per input: {len(names)} names, {sizes[0]} inputs"
        )
    if not all(type(name) is str for name in names):
        raise TypeError("feature names must be text")
    return about


def _check_activation(name: object) -> None:
    """Check that a name, with its parameter, is one that a network has."""
    is_short = type(name) is str and len(name) <= MAX_NAME
    if not is_short or (name not in _ACTIVATIONS and activation_of(name).name != name):
        raise ValueError(f"unknown activation {short(name)}")


def _normalization(about: dict[str, Any]) -> str | None:
    """Return the normalisation without its epsilon; text that is neither comes as it is."""
    text: str | None = about["normalization"]
    return text if len(text or "") > MAX_NAME else read_normalization(text)[0]


def _check_arrays(
    about: dict[str, Any],
    state: dict[str, Any] | None,
    infos: dict[str, safetensors.ArrayInfo],
    keeps_best: bool = False,
) -> None:
    """Compare every array's shape and dtype with the architecture."""
    n_moments = 0
    if state is not None and state["solver"]:
        n_moments = {row.name: row.n_moments for row in SOLVERS}[state["solver"]]
        n_moments += state["averaged"] > 0
    if len(about["sizes"]) > len(infos) + 1:
        raise ValueError(f"{len(infos)} arrays do not make {len(about['sizes']) - 1} layers")
    vectors = NORMALIZATION_VECTORS[_normalization(about)]
    vectors += ("alpha",) * about["parametric_activation"]
    prefixes = ["", *(f"moment{number}." for number in range(n_moments))]
    prefixes += ["best."] if keeps_best else []
    expected = dict(_expected_shapes(about, prefixes, vectors))
    shapes = {key: info.shape for key, info in infos.items()}
    for key in sorted(expected.keys() | shapes.keys()):
        if expected.get(key) != shapes.get(key):
            raise ValueError(
                f"array {short(key)} is {shapes.get(key)}, expected {expected.get(key)}"
            )
    dtype = DTYPES[about["dtype"]]
    for key, info in infos.items():
        if info.dtype != dtype:
            raise ValueError(f"array {key!r} is {info.dtype}, expected {dtype}")


def _expected_shapes(
    about: dict[str, Any], prefixes: Sequence[str], kinds: Sequence[str]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    sizes, front = front_shapes(about)
    for prefix in prefixes:
        for number, (n_in, n_out) in enumerate(pairwise(sizes)):
            yield f"{prefix}layers.{number}.weight", (n_in, n_out)
            yield f"{prefix}layers.{number}.bias", (n_out,)
            for kind in kinds if number < len(sizes) - 2 else ():
                yield f"{prefix}layers.{number}.{kind}", (n_out,)
        for name, shape in front.items():
            yield f"{prefix}front.{name}", shape


# Networks ----------------------------------------------------------------------------------------


def save(state: State, file: safetensors.File, *, optimizer: bool) -> None:
    """Write a network; see :meth:`cmlp.Network.save`."""
    metadata, arrays = parts_of(state, optimizer=optimizer)
    safetensors.write(file, arrays, HEAD | metadata)


def parts_of(state: State, *, optimizer: bool) -> tuple[dict[str, str], dict[str, Array]]:
    """Return a network as JSON and arrays, for a file that may hold several."""
    described = state.architecture.to_dict() | {
        "feature_names": [str(name) for name in state.feature_names],
        "target_name": state.target_name,
    }
    arrays, memory = state.parameter_views.parts(), None
    if optimizer:
        state.optimizer_state.check()
        for number, moment in enumerate(state.moments):
            arrays |= Parameters(state.plan, moment).parts(f"moment{number}.")
        memory = state.optimizer_state.to_dict() | {"generator": state.rng.bit_generator.state}
    metadata = _described_as_text(
        described, arrays, state.classes, state.history, state.last_solver, memory
    )
    return metadata, arrays


def load(kind: type[Loaded], file: safetensors.File, loss: CustomLoss | None) -> Loaded:
    """Read a network of some class of State; see :func:`cmlp.load`."""
    saved = read(file)
    return made(kind, saved, safetensors.name_of(file), loss)


def made(kind: type[Loaded], saved: Saved, path: str, loss: CustomLoss | None = None) -> Loaded:
    """Make a network of checked content.

    Raises
    ------
    ModelFileError
        If it describes none; `path` is the file's name.
    """
    try:
        net = _from_saved(kind, saved, loss)
    except BAD_CONTENT as error:
        raise ModelFileError(f"{path} does not describe a network: {error}") from None
    except MemoryError as error:
        raise ModelFileError(f"{path} cannot be read: {error}") from error
    views = net.parameter_views.parts()
    for number, moment in enumerate(net.moments):
        views |= Parameters(net.plan, moment).parts(f"moment{number}.")
    for key, view in views.items():
        view[...] = saved.arrays[key]
    return net


def _from_saved(kind: type[Loaded], saved: Saved, loss: CustomLoss | None) -> Loaded:
    """Make a network without its numbers."""
    about, memory = saved.architecture, saved.state
    net = kind.__new__(kind)
    State.__init__(net, Architecture.from_dict(about, loss), np.random.default_rng())
    if memory is not None:
        optimizer = OptimizerState.from_dict(memory, len(net.params), net.dtype)
        net.rebind_attributes(optimizer_state=optimizer)
        net.rng = generator(memory["generator"])
    net.feature_names, net.target_name = about["feature_names"], about["target_name"]
    net.classes, net.history = saved.classes, saved.history
    return net
