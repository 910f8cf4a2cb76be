"""Files of tabular estimators: parameters, encoders, labels, scales and networks in one file.

The layout is that of :mod:`cmlp.formats.cmlp_file`: each network has the same JSON and the same
arrays as in a file of its own, under ``networks.0.``; encoders have theirs under ``encoders.0.``,
and ``scales.0`` are the centre, spread and limits of a regressor's outputs. No file is trusted.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from reprlib import repr as short
from typing import Any, NamedTuple

import numpy as np

from cmlp.core.layout import Array
from cmlp.data.records import entries
from cmlp.estimators.labels import Labels
from cmlp.estimators.tabular.members import Member
from cmlp.estimators.tabular.targets import Scale
from cmlp.formats import cmlp_file, safetensors
from cmlp.formats.cmlp_file import BAD_CONTENT, TABULAR, Saved
from cmlp.formats.entries import check_name
from cmlp.formats.label_records import label_record, read_classes
from cmlp.formats.safetensors import ArrayInfo, ModelFileError
from cmlp.network import Network
from cmlp.tables.encode import TableEncoder

CLASSIFIER, REGRESSOR = KINDS = ("TabularClassifier", "TabularRegressor")
"""What a file may hold."""

_ABOUT: dict[str, tuple[type, ...]] = {
    "kind": (str,),
    "parameters": (dict,),
    "labels": (dict, type(None)),
    "multilabel": (bool,),
    "sparse": (bool,),
    "encoders": (list,),
    "networks": (list,),
    "resolved": (dict,),
    "table": (dict,),
}

_OLDER: dict[str, Any] = {"table": {}}
"""Entries that files had none of at first."""

_TABLE: dict[str, tuple[type, ...]] = {"target": (str, type(None)), "gaps": (dict,)}
"""What the command knows of the table: the target's name, and words that stand for gaps."""

SCALE_ROWS = 4
"""Centre, spread, lowest and highest number."""


# Writing -----------------------------------------------------------------------------------------


def save(estimator: Any, file: safetensors.File) -> None:
    """Write a fitted estimator; see :meth:`TabularClassifier.save`."""
    arrays: dict[str, Array] = {}
    encoders, networks = [], []
    for number, encoder in enumerate(estimator.encoders_):
        described, parts = encoder.to_entries()
        encoders.append(described)
        arrays |= {f"encoders.{number}.{name}": array for name, array in parts.items()}
    for number, member in enumerate(estimator._members):
        texts, parts = cmlp_file.parts_of(member.network, optimizer=False)
        networks.append({"encoder": member.encoder, "texts": texts})
        arrays |= {f"networks.{number}.{name}": array for name, array in parts.items()}
        if member.scale is not None:
            scale = member.scale
            arrays[f"scales.{number}"] = np.stack(
                [scale.centre, scale.spread, scale.low, scale.high]
            )
    labels = estimator._labels
    about = {
        "kind": CLASSIFIER if labels is not None else REGRESSOR,
        "parameters": _kept(estimator.get_params(deep=False)),
        "labels": None if labels is None else label_record(labels.classes),
        "multilabel": labels is not None and labels.multilabel,
        "sparse": labels is not None and labels.sparse,
        "encoders": encoders,
        "networks": networks,
        "resolved": _kept(estimator.parameters_),
        "table": getattr(estimator, "table_", {}),
    }
    metadata = cmlp_file.HEAD | {TABULAR: json.dumps(about)}
    infos = {
        name: ArrayInfo(array.dtype.newbyteorder("="), array.shape)
        for name, array in arrays.items()
    }
    try:
        _content(metadata, infos)
    except BAD_CONTENT as error:
        raise ValueError(f"this estimator cannot be saved: {error}") from error
    safetensors.write(file, arrays, metadata)


def _kept(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that JSON holds; a dict becomes a list of pairs."""
    found = {name: _as_json(value) for name, value in parameters.items() if name != "callbacks"}
    return {name: value for name, value in found.items() if value is not NotImplemented}


def _as_json(value: Any) -> Any:
    """Return a value of text, numbers, truth values and lists of them; or NotImplemented."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if value is None or type(value) in (str, bool, int, float):
        return value
    if (isinstance(value, type) and issubclass(value, np.floating)) or isinstance(value, np.dtype):
        return np.dtype(value).name
    if isinstance(value, dict):
        items = [[_as_json(key), _as_json(item)] for key, item in value.items()]
        return NotImplemented if any(map(_lacks, items)) else {"items": items}
    if isinstance(value, (list, tuple)):
        listed = [_as_json(item) for item in value]
        return NotImplemented if _lacks(listed) else listed
    return NotImplemented


def _lacks(values: list[Any]) -> bool:
    return any(value is NotImplemented for value in values)


# Reading -----------------------------------------------------------------------------------------


class _Content(NamedTuple):
    """What a file describes, without its arrays."""

    about: dict[str, Any]
    networks: list[Saved]
    labels: Labels | None


def load(file: safetensors.File, kinds: Mapping[str, Any]) -> Any:
    """Read an estimator; see :func:`cmlp.load`.

    Parameters
    ----------
    kinds : mapping of str
        The class of each of `KINDS`.
    """
    path, found = safetensors.name_of(file), list[_Content]()

    def validate(metadata: dict[str, str], infos: dict[str, ArrayInfo]) -> None:
        cmlp_file.check_head(path, metadata)
        try:
            found.append(_content(metadata, infos))
        except BAD_CONTENT as error:
            raise ModelFileError(f"{path} does not describe an estimator: {error}") from None

    arrays, _ = safetensors.read(file, validate)
    try:
        return _made(found[0], arrays, path, kinds[found[0].about["kind"]])
    except ModelFileError:
        raise
    except BAD_CONTENT as error:
        raise ModelFileError(f"{path} does not describe an estimator: {error}") from None
    except MemoryError as error:
        raise ModelFileError(f"{path} cannot be read: {error}") from error


def _part(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Return the entries under a prefix, without it."""
    return {key[len(prefix) :]: value for key, value in values.items() if key.startswith(prefix)}


def _content(metadata: dict[str, str], infos: dict[str, ArrayInfo]) -> _Content:
    """Check all text against itself and the arrays' shapes; raises one of BAD_CONTENT."""
    about = entries(cmlp_file.parsed(metadata, TABULAR), "the estimator", _ABOUT, _OLDER)
    check_name("estimator", about["kind"], KINDS)
    _check_table(about["table"])
    classifies, record = about["kind"] == CLASSIFIER, about["labels"]
    if classifies != (record is not None):
        raise ValueError("a classifier has labels, and a regressor has none")
    labels = None
    if record is not None:
        if type(record.get("labels")) is not list or not record["labels"]:
            raise ValueError("a classifier has one label or more")
        classes = read_classes(record, len(record["labels"]))
        labels = Labels(classes, about["multilabel"], about["sparse"])
    if not about["networks"] or not about["encoders"]:
        raise ValueError("there must be a network and an encoder at least")
    known: set[str] = set()
    networks = []
    for number, each in enumerate(about["networks"]):
        networks.append(_network(each, number, about, labels, infos))
        known |= {key for key in infos if key.startswith((f"networks.{number}.",))}
        known.add(f"scales.{number}")
    for number in range(len(about["encoders"])):
        known |= {key for key in infos if key.startswith(f"encoders.{number}.")}
    unknown = sorted(set(infos) - known)
    if unknown:
        raise ValueError(f"array {short(unknown[0])} belongs to nothing")
    return _Content(about, networks, labels)


def _check_table(record: dict[str, Any]) -> None:
    """Check what is known of the table that an estimator was trained on."""
    if record:
        gaps = entries(record, "the table", _TABLE, {})["gaps"]
        if not all(
            type(words) is list and set(map(type, words)) == {str} for words in gaps.values()
        ):
            raise TypeError("gaps must be lists of words, by column")


def _network(
    record: Any, number: int, about: dict[str, Any], labels: Labels | None, infos: dict[str, Any]
) -> Saved:
    """Check a network, its number of outputs, and its scale."""
    each = entries(record, "a network", {"encoder": (int,), "texts": (dict,)}, {})
    if not 0 <= each["encoder"] < len(about["encoders"]):
        raise ValueError(f"network {number} has an encoder that is not there")
    if not all(type(text) is str for text in each["texts"].values()):
        raise TypeError(f"the entries of network {number} must be text")
    saved = cmlp_file.content(each["texts"], _part(infos, f"networks.{number}."))
    n_outputs = saved.architecture["sizes"][-1]
    if labels is not None:
        n = len(labels.classes)
        if n_outputs != (n if labels.multilabel else max(n, 2)):
            raise ValueError(f"network {number} has {n_outputs} outputs for {n} labels")
    expected = None if labels is not None else ArrayInfo(np.dtype("f8"), (SCALE_ROWS, n_outputs))
    found = infos.get(f"scales.{number}")
    if found != expected:
        raise ValueError(f"the scale of network {number} is {found}, expected {expected}")
    return saved


def _made(content: _Content, arrays: dict[str, Array], path: str, kind: Any) -> Any:
    """Make an estimator of checked content and its arrays."""
    about = content.about
    estimator = kind(**_parameters(about["parameters"], kind))
    encoders = [
        TableEncoder.from_entries(each, _part(arrays, f"encoders.{number}."), about["kind"])
        for number, each in enumerate(about["encoders"])
    ]
    members = []
    for number, saved in enumerate(content.networks):
        parts = _part(arrays, f"networks.{number}.")
        net = cmlp_file.made(Network, saved._replace(arrays=parts), path)
        encoder = about["networks"][number]["encoder"]
        if net.sizes[0] != len(encoders[encoder].outputs_):
            raise ValueError(
                f"network {number} has {net.sizes[0]} inputs, its encoder another "
                f"number: {len(encoders[encoder].outputs_)}"
            )
        rows = arrays.get(f"scales.{number}")
        members.append(Member(net, encoder, None if rows is None else Scale(*rows)))
    if any(member.network.sizes[-1] != members[0].network.sizes[-1] for member in members):
        raise ValueError("networks with different numbers of outputs")
    estimator._restore(members, encoders, content.labels, _read_value(about["resolved"]))
    if about["table"]:
        estimator.table_ = about["table"]
    return estimator


def _parameters(stored: dict[str, Any], kind: Any) -> dict[str, Any]:
    """Return the constructor's arguments, of those names that it has."""
    names = set(inspect.signature(kind.__init__).parameters) - {"self"}
    unknown = sorted(set(stored) - names)
    if unknown:
        raise ValueError(f"unknown parameter {short(unknown[0])}")
    return {name: _read_value(value) for name, value in stored.items()}


def _read_value(value: Any) -> Any:
    """Return a value of :func:`_as_json`; raises one of BAD_CONTENT."""
    if type(value) is dict and set(value) == {"items"}:
        return {_read_value(key): _read_value(item) for key, item in value["items"]}
    if type(value) is dict:
        return {key: _read_value(item) for key, item in value.items()}
    return [_read_value(item) for item in value] if type(value) is list else value
