"""Keras' model files: the description and the arrays, read without Keras.

Keras' own loader runs code that a file's description names. Here the description is JSON that is
compared with a table, and arrays are read by h5py, which is imported when a file is read. Links to
other files, arrays that are stored in other files, and compressed ones are refused: so memory is
bounded by the size of the file.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from reprlib import repr as short
from typing import Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.formats.safetensors import MAX_HEADER, File, ModelFileError, name_of, parse_json

Arrays = Callable[[tuple[str, ...], tuple[str, ...]], list[Array]]
"""Returns the arrays of a layer: by its place in a ``.keras`` file, and by the names that lead to
it, of the models that it is in and its own."""

CONFIG, VERSION, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"

HEAP = b"GCOL"
"""The mark of a heap of HDF5."""

MAX_DEPTH = 8
"""Models within models."""

LIBRARY_ERRORS = (
    OSError, RuntimeError, KeyError, ValueError, TypeError, EOFError, MemoryError, OverflowError,
    struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
"""What zipfile and h5py raise for damaged files; without a number, if it is an OSError."""


def read(file: File, layers_of: Callable[[Any, str, Arrays], Any]) -> Any:
    """Read a ``.keras`` or ``.h5`` file of Keras 3.

    Parameters
    ----------
    file : str, path-like or binary file
    layers_of : callable
        Called with the description, Keras' version and what reads a layer's arrays, while the file
        is open; what it returns is returned.

    Raises
    ------
    ModelFileError
        If it is damaged, or refers to other files.
    OSError
        If it cannot be opened or read.
    """
    name = name_of(file)
    opened: Any = file if hasattr(file, "seek") else open(file, "rb")  # noqa: SIM115
    try:
        head = opened.read(8)
        opened.seek(0)
        if head.startswith(b"PK"):
            return _read_zip(opened, name, layers_of)
        if head == b"\x89HDF\r\n\x1a\n":
            return _read_h5(opened, name, layers_of)
    except LIBRARY_ERRORS as error:
        if isinstance(error, OSError) and error.errno:
            raise  # of the file, not of what is in it
        theirs = type(error) is ValueError or isinstance(error, UnicodeError)
        if isinstance(error, ValueError) and not theirs:
            raise
        raise _damaged(name, str(error)) from error
    finally:
        if opened is not file:
            opened.close()
    raise ModelFileError(f"{name} is neither a .keras nor a .h5 file of Keras")


def _damaged(name: str, what: str) -> ModelFileError:
    return ModelFileError(f"{name} is damaged or no model of Keras: {what}")


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError("files of Keras are read with h5py: pip install 'cmlp[keras]'") from error
    return h5py


# .keras ------------------------------------------------------------------------------------------


def _read_zip(opened: Any, name: str, layers_of: Any) -> Any:
    size = opened.seek(0, io.SEEK_END)
    with zipfile.ZipFile(opened) as archive:
        members = {info.filename: info for info in archive.infolist()}
        missing = [each for each in (CONFIG, WEIGHTS) if each not in members]
        if missing:
            raise _damaged(name, f"it has no {missing[0]}")

        def content(key: str, most: int) -> bytes:
            info = members[key]
            if info.file_size > most or info.compress_type not in (0, zipfile.ZIP_DEFLATED):
                raise _damaged(name, f"{key} has {info.file_size:,} bytes, {most:,} is the limit")
            with archive.open(info) as member:
                return member.read(most)

        config = _json(name, content(CONFIG, MAX_HEADER))
        version = ""
        if VERSION in members:
            about = _json(name, content(VERSION, 1 << 16))
            version = str(about.get("keras_version", "")) if isinstance(about, dict) else ""
        weights = io.BytesIO(content(WEIGHTS, 4 * size))
    h5py = _h5py()
    with h5py.File(weights, "r") as root:

        def arrays(place: tuple[str, ...], names: tuple[str, ...]) -> list[Array]:
            path = "/".join(f"layers/{each}" for each in place)
            group = _follow(h5py, root, f"{path}/vars", name)
            return [
                _dataset(h5py, group, str(number), name)
                for number in range(min(len(group), 16) if group is not None else 0)
            ]

        return layers_of(config, version, arrays)


def _json(name: str, raw: bytes) -> Any:
    try:
        return parse_json(raw.decode(), max_digits=19, constants=True, surrogates=False)
    except (ValueError, RecursionError) as error:
        raise _damaged(name, f"its JSON ({error})") from error


# .h5 ---------------------------------------------------------------------------------------------


def _read_h5(opened: Any, name: str, layers_of: Any) -> Any:
    h5py = _h5py()
    raw = opened.read()
    if len(raw) < 16:
        raise _damaged(name, "it is cut off")
    _check_heaps(raw, name)
    opened.seek(0)
    with h5py.File(opened, "r") as root:
        text = _attribute(root, "model_config")
        if text is None:
            raise _damaged(
                name,
                "it has no model_config; save the model, not its weights alone, or give the live "
                "model to from_keras",
            )
        config = _json(name, text.encode("utf-8", "replace"))
        version = _attribute(root, "keras_version") or ""
        whole = _follow(h5py, root, "model_weights", name)

        def arrays(place: tuple[str, ...], names: tuple[str, ...]) -> list[Array]:
            group = None if whole is None else _follow(h5py, whole, names[0], name)
            if group is None:
                return []
            listed = np.asarray(group.attrs.get("weight_names", [])).reshape(-1)[:4096].tolist()
            paths = [each.decode() if isinstance(each, bytes) else str(each) for each in listed]
            if len(names) > 1:
                paths = [each for each in paths if names[-1] in each.split("/")[:-1]]
            return [_dataset(h5py, group, each, name) for each in paths[:16]]

        return layers_of(config, version, arrays)


def _check_heaps(raw: bytes, name: str) -> None:
    """Check the heaps that hold text, whose objects HDF5 follows without an end if one has size 0.

    A heap is its mark, its size, and objects: index (2 bytes), 6 others, size (8), and the data,
    padded to 8 bytes; the size of object 0, which is free space, is that of all of it.
    """
    if (raw[13:15] if raw[8] < 2 else raw[9:11]) != b"\x08\x08":
        raise _damaged(name, "its addresses and sizes have not 8 bytes")
    steps, heap = len(raw), raw.find(HEAP)
    while heap >= 0:
        end = heap + int.from_bytes(raw[heap + 8 : heap + 16], "little")
        at = heap + 16
        while at + 16 <= min(end, len(raw)):
            size = int.from_bytes(raw[at + 8 : at + 16], "little")
            step = 16 + -(-size // 8) * 8 if any(raw[at : at + 2]) else size
            steps -= 16
            if step < 16 or at + step > end or steps < 0:
                raise _damaged(name, "an object of a heap does not fit into it")
            at += step
        heap = raw.find(HEAP, heap + 4)


def _attribute(root: Any, key: str) -> str | None:
    value = root.attrs.get(key)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) and len(value) <= MAX_HEADER else None


def _follow(h5py: Any, group: Any, path: str, name: str) -> Any:
    """Return what is at a path, through hard links only; None if there is nothing."""
    here = group
    for part in filter(None, path.split("/")):
        if not isinstance(here, h5py.Group) or part in (".", ".."):
            return None
        link = here.get(part, getlink=True)
        if link is None or part not in here:
            return None
        if not isinstance(link, h5py.HardLink):
            raise ModelFileError(
                f"{name} has a link to elsewhere, {short(part)}, which is not followed"
            )
        here = here[part]
    return here


def _dataset(h5py: Any, group: Any, path: str, name: str) -> Array:
    """Return an array that is stored here, in one piece."""
    found = _follow(h5py, group, path, name)
    if not isinstance(found, h5py.Dataset):
        raise _damaged(name, f"it has no array {short(path)}")
    stored = found.id.get_storage_size()
    outside = bool(found.external) or found.is_virtual
    if outside or found.chunks is not None or found.dtype.kind not in "fiu":
        raise ModelFileError(
            f"{name} has an array {short(path)} that is stored in another file or in pieces, or "
            "not of numbers; it is not read"
        )
    if found.nbytes != stored:
        raise _damaged(name, f"array {short(path)} has {stored:,} of {found.nbytes:,} bytes")
    return np.asarray(found[()])


def snake_case(name: str) -> str:
    """Return a class name as Keras names groups in its files: LeakyReLU is leaky_re_lu."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
