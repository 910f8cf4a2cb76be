"""What a model file means: the step between arrays with text (``io``) and a network.

A file holds the arrays ``layers.0.weight`` (n_in, n_out), ``layers.0.bias`` (n_out,) and so on, of
a normalised layer also ``scale`` (and ``mean`` and ``variance``), with the optimizer's state the
same under ``moment0.`` and ``moment1.`` (where weights are averaged, the last of these holds those
that training goes on from), and as text the architecture, the labels and the training record, each
as JSON.

Every file is taken for a stranger's. Its text goes to ``json`` and to nothing else that parses:
names, dtypes and random generators are looked up in tables, numbers have exactly the type and the
range that they should have. :func:`write` checks what it is about to write by the same functions,
so that a file that was written can be read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from reprlib import repr as short
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import io
from ._checks import check_input_scale, check_number
from ._history import MAX_EPOCHS, History
from ._spec import (
    ACTIVATIONS,
    INITIALISERS,
    LOSSES,
    NORMALIZATION_PARTS,
    NORMALIZATIONS,
    SOLVERS,
)
from .io import ModelFileError as ModelFileError

Array = NDArray[Any]

FORMAT_VERSION = "1"

MAX_DIGITS = 39
"""Of the longest integer in the text: a generator's state of 128 bits."""

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
    file: io.File,
    architecture: dict[str, Any],
    arrays: Mapping[str, Array],
    classes: ArrayLike | None,
    history: History,
    solver: str,
    state: dict[str, Any] | None,
) -> None:
    """Write a network's description and arrays.

    Raises
    ------
    ValueError
        If a file cannot hold them; nothing is written then.
    """
    try:
        metadata = {
            "format": "cmlp",
            "format_version": FORMAT_VERSION,
            "network": json.dumps(architecture),
            "history": json.dumps(_record(history, solver)),
        }
        if classes is not None:
            metadata["classes"] = json.dumps(_label_record(classes))
        if state is not None:
            metadata["optimizer"] = json.dumps(state, default=_plain)
        infos = {
            name: io.ArrayInfo(array.dtype.newbyteorder("="), array.shape)
            for name, array in arrays.items()
        }
        _content(metadata, infos)
    except BAD_CONTENT as error:
        raise ValueError(f"this network cannot be saved: {error}") from error
    io.write(file, arrays, metadata)


def _plain(value: Any) -> Any:
    """Return what NumPy has in a generator's state as Python's numbers and lists."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"a random generator whose state holds a {type(value).__name__}")


def read(file: io.File) -> Saved:
    """Read what :func:`write` wrote.

    Raises
    ------
    ModelFileError
        Before any array is allocated, if a part is missing, of a wrong type, or an array's shape is
        not what the architecture says.
    """
    found: list[Saved] = []

    def validate(metadata: dict[str, str], infos: dict[str, io.ArrayInfo]) -> None:
        found.append(_described(io.name_of(file), metadata, infos))

    arrays, _ = io.read(file, validate)
    return found[0]._replace(arrays=arrays)


def _described(path: str, metadata: dict[str, str], infos: dict[str, io.ArrayInfo]) -> Saved:
    if metadata.get("format") != "cmlp":
        raise ModelFileError(f"{path} is a safetensors file, but not one that cmlp wrote")
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise ModelFileError(
            f"{path} has format version {short(version)}, this cmlp reads {FORMAT_VERSION!r}; "
            "update it"
        )
    try:
        return _content(metadata, infos)
    except BAD_CONTENT as error:
        raise ModelFileError(f"{path} does not describe a network: {error}") from None


def _content(metadata: dict[str, str], infos: dict[str, io.ArrayInfo]) -> Saved:
    """Check all text against itself and the arrays' shapes; raises one of BAD_CONTENT."""
    for key in ("network", "history"):
        if key not in metadata:
            raise ValueError(f"the entry {key!r} is missing")
    about = _architecture(_parsed(metadata, "network"))
    state = _state(_parsed(metadata, "optimizer")) if "optimizer" in metadata else None
    _check_arrays(about, state, infos)
    classes = None
    if "classes" in metadata:
        classes = _classes(_parsed(metadata, "classes"), max(about["sizes"][-1], 2))
    return Saved(about, {}, classes, _history(_parsed(metadata, "history")), state)


def _parsed(metadata: dict[str, str], key: str) -> Any:
    try:
        return io.parse_json(metadata[key], max_digits=MAX_DIGITS, constants=True, surrogates=True)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the entry {key!r} is not valid JSON: {error}") from None


def _entries(
    record: object, what: str, kinds: Mapping[str, tuple[type, ...]], older: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the entries of a JSON object that are known, each of exactly one of its types.

    Parameters
    ----------
    older : mapping
        What files lack that were written before there was such an entry.
    """
    if type(record) is not dict:
        raise TypeError(f"{what} must be a JSON object, not {short(record)}")
    found = {**older, **record}
    for key, types in kinds.items():
        if key not in found:
            raise ValueError(f"{what} lacks {key!r}")
        if type(found[key]) not in types:
            expected = " or ".join(kind.__name__ for kind in types)
            raise TypeError(f"{key} of {what} must be {expected}, not {short(found[key])}")
    return {key: found[key] for key in kinds}


def _check_name(what: str, name: str, names: Sequence[Any]) -> None:
    if name not in names:
        raise ValueError(f"unknown {what} {short(name)}")


# The architecture --------------------------------------------------------------------------------

NUMBER = (int, float)  # exactly: True is no number

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
    "out_activation_given": (bool,),
}

_OLDER = {
    "input_scale": 1.0, "missing_targets": False, "normalization": None,
    "out_activation_given": False,
}  # fmt: skip

DTYPES = {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}

_ACTIVATIONS = [row.name for row in ACTIVATIONS]
_LOSSES = [*(row.name for row in LOSSES), "custom"]
_SOLVERS = ["", *(row.name for row in SOLVERS)]
_WEIGHT_INITS = {"auto"}.union(*((row.name, *row.aliases) for row in INITIALISERS))


def _architecture(record: object) -> dict[str, Any]:
    about = _entries(record, "the network", _ARCHITECTURE, _OLDER)
    sizes, activations = about["sizes"], about["activations"]
    if len(sizes) < 2 or not all(type(size) is int and size >= 1 for size in sizes):
        raise ValueError("sizes must be two or more whole numbers of at least 1")
    if len(activations) != len(sizes) - 1:
        raise ValueError("there must be one activation per layer")
    for name in activations:
        _check_name("activation", name, _ACTIVATIONS)
    _check_name("loss", about["loss"], _LOSSES)
    most = 1.0 if about["loss"] == "quantile" else math.inf
    about["loss_parameter"] = check_number("loss_parameter", about["loss_parameter"], 0, most)
    about["input_scale"] = check_input_scale(about["input_scale"])
    plain = about["weight_init"].lower().replace("-", "_")
    if plain not in _WEIGHT_INITS:
        raise ValueError(f"unknown weight_init {short(about['weight_init'])}")
    _check_name("dtype", about["dtype"], list(DTYPES))
    _check_name("normalization", about["normalization"], NORMALIZATIONS)
    names = about["feature_names"]
    if names and len(names) != sizes[0]:
        raise ValueError(
            f"there must be one feature name per input: {len(names)} names, {sizes[0]} inputs"
        )
    if not all(type(name) is str for name in names):
        raise TypeError("feature names must be text")
    return about


def _check_arrays(
    about: dict[str, Any], state: dict[str, Any] | None, infos: dict[str, io.ArrayInfo]
) -> None:
    """Compare every array's shape and dtype with the architecture."""
    n_moments = 0
    if state is not None and state["solver"]:
        n_moments = {row.name: row.n_moments for row in SOLVERS}[state["solver"]]
        n_moments += state["averaged"] > 0
    if len(about["sizes"]) > len(infos) + 1:
        raise ValueError(f"{len(infos)} arrays do not make {len(about['sizes']) - 1} layers")
    kinds = {None: 0, "batch": 3, "layer": 1}[about["normalization"]]
    expected = dict(_expected_shapes(about["sizes"], n_moments, NORMALIZATION_PARTS[:kinds]))
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
    sizes: list[int], n_moments: int, kinds: Sequence[str]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    for prefix in ("", *(f"moment{number}." for number in range(n_moments))):
        for number, (n_in, n_out) in enumerate(pairwise(sizes)):
            yield f"{prefix}layers.{number}.weight", (n_in, n_out)
            yield f"{prefix}layers.{number}.bias", (n_out,)
            for kind in kinds if number < len(sizes) - 2 else ():
                yield f"{prefix}layers.{number}.{kind}", (n_out,)


# The labels --------------------------------------------------------------------------------------

_LABEL_DTYPES = {
    dtype.str: dtype
    for code in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
    for dtype in (np.dtype(f"<{code}"), np.dtype(f">{code}"))
}
"""Of labels that are numbers, by their names in a file."""

_TEXT_DTYPE = re.compile(r"(?:[<>]U|\|S)([1-9][0-9]{0,8})", re.ASCII)
"""Of labels that are text or bytes: the kind, and the length of the longest."""

MAX_LABELS, MAX_WASTE = 2**24, 64
"""NumPy gives every label the room of the longest: so many bytes, or so many times what is in the
file, if that is more."""


def _label_record(classes: ArrayLike) -> dict[str, Any]:
    """Describe labels so that :func:`_classes` makes the same of it."""
    if np.ma.is_masked(classes):
        raise ValueError("classes has masked entries, which are no labels")
    array = np.asarray(classes)
    if array.ndim != 1:
        raise ValueError(f"classes must be (n,), one label per output; its shape is {array.shape}")
    if array.dtype.kind not in "iubfUS" or array.dtype.char == "g":
        array = _of_one_type(array)
    labels = array.tolist()
    if array.dtype.kind in "US":
        array = np.array(labels)  # no longer than its longest label
    if array.dtype.kind == "S":
        labels = [label.decode("latin-1") for label in labels]
    return {"dtype": array.dtype.str, "labels": labels}


def _of_one_type(array: Array) -> Array:
    """Turn objects into text, bytes, truth values or numbers, whichever they all are."""
    kinds: set[type] = set()
    if array.dtype.kind in "OT":  # T: NumPy's text of variable length
        labels = [each.item() if isinstance(each, np.generic) else each for each in array.tolist()]
        kinds = {type(label) for label in labels}
        for kind in (str, bytes, bool, float):
            if all(issubclass(each, kind) for each in kinds):
                # by the base: str(label) of an enumeration's member is another text
                plain = [kind.__str__(each) if kind is str else kind(each) for each in labels]
                made: Array = np.array(plain)
                if kind is not float and made.tolist() != plain:
                    raise ValueError("labels of text cannot end with a null character")
                return made
        if all(issubclass(each, int) for each in kinds):
            for limits in (np.iinfo(np.int64), np.iinfo(np.uint64)):
                if limits.min <= min(labels) and max(labels) <= limits.max:
                    return np.array([int(label) for label in labels], limits.dtype)
        elif kinds == {int, float} and all(float(label) == label for label in labels):
            return np.array(labels, np.float64)
    names = ", ".join(sorted(kind.__name__ for kind in kinds)) or str(array.dtype)
    raise ValueError(
        f"classes holds labels of type {names}; a file keeps text, bytes, True and False, whole "
        "numbers of 64 bits and floats, all of one type"
    )


def _classes(record: object, n: int) -> Array:
    """Labels in the order of the outputs: `n` of them, each once."""
    about = _entries(record, "the labels", {"dtype": (str,), "labels": (list,)}, {})
    name, labels = about["dtype"], about["labels"]
    if len(labels) != n:
        raise ValueError(f"{n} labels expected, {len(labels)} came")
    text = _TEXT_DTYPE.fullmatch(name)
    if text:
        classes = _text_labels(labels, bytes if name[1] == "S" else str, int(text[1]))
    elif name in _LABEL_DTYPES:
        classes = _number_labels(labels, _LABEL_DTYPES[name])
    else:
        raise ValueError(f"labels cannot be of the dtype {short(name)}")
    if len(set(classes.tolist())) < n:
        raise ValueError("labels must differ from each other, and NaN is none")
    return classes


def _number_labels(labels: list[Any], dtype: np.dtype[Any]) -> Array:
    """Make labels of a number's dtype, exactly those that came."""
    kinds = {"b": (bool,), "f": NUMBER}.get(dtype.kind, (int,))
    if not all(type(label) in kinds for label in labels):
        raise TypeError(f"labels of {dtype} expected, {short(labels)} came")
    if dtype.kind in "iu":
        range_ = np.iinfo(dtype)
        if not (range_.min <= min(labels) and max(labels) <= range_.max):
            raise ValueError(f"labels out of the range of {dtype}")
    with np.errstate(all="ignore"):
        classes = np.array(labels if dtype.kind != "f" else list(map(float, labels)), dtype)
    if classes.tolist() != labels or (classes != classes).any():
        raise ValueError(f"labels that are no numbers of {dtype}, or NaN")
    return classes


def _text_labels(labels: list[Any], kind: type, length: int) -> Array:
    """Make labels of text or bytes, whose longest has this length."""
    if not all(type(label) is str for label in labels):
        raise TypeError(f"labels of text expected, {short(labels)} came")
    longest = max(map(len, labels))
    if longest != length:
        raise ValueError(f"labels of up to {length} letters expected, {longest} came")
    room = longest * len(labels) * (4 if kind is str else 1)
    if room > max(MAX_LABELS, MAX_WASTE * sum(map(len, labels))):
        raise ValueError(
            f"{len(labels):,} labels as long as the longest, of {longest:,} letters, take "
            f"{room:,} bytes; shorten it"
        )
    values = labels if kind is str else [label.encode("latin-1") for label in labels]
    classes = np.array(values)
    if classes.tolist() != values:
        raise ValueError("labels of text cannot end with a null character")
    return classes


# The training record -----------------------------------------------------------------------------

_HISTORY: dict[str, tuple[type, ...]] = {
    "metric": (str,),
    "values": (dict,),
    "stopped": (str,),
    "best_epoch": (int, type(None)),
    "restored": (bool,),
    "solver": (str,),
    "lengths": (dict,),
}


def _record(history: History, solver: str) -> dict[str, Any]:
    """Describe a training record so that :func:`_history` makes the same of it, if it is short."""
    kept = history.thinned()
    n = max(map(len, kept.values()), default=0)
    values = {}
    for key, column in kept.items():
        try:
            values[str(key)] = [float(value) for value in column]
        except (TypeError, ValueError) as error:
            raise ValueError(f"history[{key!r}] must hold numbers: {error}") from None
    record = {
        "metric": str(history.metric),
        "values": {key: column + [math.nan] * (n - len(column)) for key, column in values.items()},
        "stopped": str(history.stopped),
        "best_epoch": None if history.best_epoch is None else int(history.best_epoch),
        "restored": bool(history.restored),
        "solver": solver,
    }
    shorter = {key: len(column) for key, column in values.items() if len(column) < n}
    return {**record, "lengths": shorter} if shorter else record


def _history(record: object) -> History:
    older: dict[str, Any] = {
        "stopped": "epochs", "best_epoch": None, "restored": False, "solver": "", "lengths": {},
    }  # fmt: skip
    about = _entries(record, "the history", _HISTORY, older)
    values, lengths, best = about["values"], about["lengths"], about["best_epoch"]
    n = max((len(column) for column in values.values() if type(column) is list), default=0)
    if n > MAX_EPOCHS:
        raise ValueError(f"the history has {n:,} epochs, {MAX_EPOCHS:,} is the limit")
    for key, column in values.items():
        if type(column) is not list or not all(type(value) in NUMBER for value in column):
            raise TypeError(f"the history of {short(key)} must be a list of numbers")
        if len(column) != n:
            raise ValueError("the lists of the history must be of one length")
    for key, length in lengths.items():
        if key not in values or type(length) is not int or not 0 <= length < n:
            raise ValueError(f"the length of the history of {short(key)} is not right")
    if best is not None and not 1 <= best < 1 << 53:
        raise ValueError("the best epoch must be a number of at least 1")
    if about["solver"] != "lbfgs":
        _check_name("solver", about["solver"], _SOLVERS)
    history = History(
        {key: [float(value) for value in column[: lengths.get(key, n)]]
         for key, column in values.items()},
        about["metric"],
    )  # fmt: skip
    history.stopped, history.best_epoch = about["stopped"], best
    history.restored, history.solver = about["restored"], about["solver"]
    return history


# The optimizer -----------------------------------------------------------------------------------

_STATE: dict[str, tuple[type, ...]] = {
    "solver": (str,),
    "steps": (int,),
    "generator": (dict,),
    "averaged": (int,),
    "shown_average": (int, type(None)),
}

_BIT, _WORD32, _WORD64, _WORD128 = ((1 << bits) - 1 for bits in (1, 32, 64, 128))
_HALF = {"has_uint32": _BIT, "uinteger": _WORD32}  # a word of which one half is still to come
_PCG = {"state": {"state": _WORD128, "inc": _WORD128}, **_HALF}
GENERATORS: dict[str, dict[str, Any]] = {
    "PCG64": _PCG,
    "PCG64DXSM": _PCG,
    "MT19937": {"state": {"key": (_WORD32, 624), "pos": 624}},
    "Philox": {
        "state": {"counter": (_WORD64, 4), "key": (_WORD64, 2)},
        "buffer": (_WORD64, 4), "buffer_pos": 4, **_HALF,
    },
    "SFC64": {"state": {"state": (_WORD64, 4)}, **_HALF},
}  # fmt: skip
"""NumPy's bit generators and what their states hold: the largest number, or that of so many. NumPy
itself takes any place in a buffer, and reads there."""


def _state(record: object) -> dict[str, Any]:
    """The optimizer's state, without its arrays."""
    older = {"averaged": 0, "shown_average": None}
    state = _entries(record, "the optimizer", _STATE, older)
    _check_name("solver", state["solver"], _SOLVERS)
    if not 0 <= state["steps"] < 1 << 62:
        raise ValueError("steps must be at least 0, and below 2^62")
    if not 0 <= state["averaged"] <= state["steps"] or (state["averaged"] and not state["solver"]):
        raise ValueError("a mean is of steps that were taken")
    if state["shown_average"] is not None and not 0 <= state["shown_average"] <= _WORD32:
        raise ValueError("shown_average must be a number of 32 bits")
    kind = state["generator"].get("bit_generator")
    if type(kind) is not str or kind not in GENERATORS:
        raise ValueError(
            f"unknown random generator {short(kind)}; known: {', '.join(GENERATORS)}. Another "
            "seed, as in net.rng = 0, makes one of these"
        )
    if not _fits(state["generator"], {"bit_generator": str, **GENERATORS[kind]}):
        raise ValueError(f"the random generator's state is none of {kind}")
    return state


def _fits(value: object, expected: Any) -> bool:
    """Whether a generator's state has the parts that it should have, each in its range."""
    if isinstance(expected, dict):
        return (
            type(value) is dict
            and value.keys() == expected.keys()
            and all(_fits(value[key], part) for key, part in expected.items())
        )
    if isinstance(expected, tuple):
        most, n = expected
        return (
            type(value) is list
            and len(value) == n
            and set(map(type, value)) == {int}
            and min(value) >= 0
            and max(value) <= most
        )
    if expected is str:
        return type(value) is str
    return type(value) is int and 0 <= value <= expected


def generator(state: dict[str, Any]) -> np.random.Generator:
    """Rebuild a random generator from a state that was checked."""
    bits = getattr(np.random, state["bit_generator"])(0)
    bits.state = state
    return np.random.Generator(bits)
