"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from typing import BinaryIO

Path = str | os.PathLike[str]

Content = bytes | Callable[[BinaryIO], object]
"""The bytes of a file, or what writes them."""


def write_files(contents: Mapping[Path, Content]) -> None:
    """Write files: all of them whole, or none; older ones stay until then.

    Each is written under another name in its directory, and replaces an older file when all are
    complete and on the disk. Symbolic links are followed; a new file gets the permissions of the
    one that it replaces.

    Parameters
    ----------
    contents : mapping of str or path-like to bytes or callable

    Raises
    ------
    OSError
        If one cannot be written; it has the name that the caller gave.
    """
    finished: dict[str, str] = {}
    path = ""
    try:
        for given, content in contents.items():
            path = os.fsdecode(given)
            target = _target(path)
            temporary = os.path.join(os.path.dirname(target), f".cmlp-{secrets.token_hex(8)}.tmp")
            finished[temporary] = target
            with open(temporary, "xb") as opened:
                with contextlib.suppress(FileNotFoundError):
                    shutil.copymode(target, temporary)
                if isinstance(content, bytes):
                    opened.write(content)
                else:
                    content(opened)
                opened.flush()
                os.fsync(opened.fileno())
        for given, (temporary, target) in zip(contents, finished.items(), strict=True):
            path = os.fsdecode(given)
            os.replace(temporary, target)
    except OSError as error:  # with the name of the temporary file, which the user does not know
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        for temporary in finished:
            with contextlib.suppress(OSError):  # where it is not there, or never could be
                os.unlink(temporary)


def _target(path: str) -> str:
    """Return the file at the end of all links.

    Raises
    ------
    OSError
        If `open` would not write to it, and if it is a device.
    """
    target = os.path.realpath(path)
    is_file = os.path.isfile(target)
    if os.path.exists(target) and not (is_file and os.access(target, os.W_OK)):
        is_dir = os.path.isdir(target)
        code = errno.EACCES if is_file else errno.EISDIR if is_dir else errno.EINVAL
        raise OSError(code, os.strerror(code), path)
    return target
