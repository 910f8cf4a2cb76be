"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file: the whole of it, or nothing; an older one stays until then.

    Symbolic links are followed; a new file gets the permissions of the one that it replaces.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    target = os.path.realpath(os.fspath(path))
    temporary = os.path.join(os.path.dirname(target), f".cmlp-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as opened:
            with contextlib.suppress(FileNotFoundError):
                shutil.copymode(target, temporary)
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(temporary, target)
    except OSError as error:  # with the name that the user knows
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
