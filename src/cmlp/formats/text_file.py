"""Text files, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Mapping


def write_texts(texts: Mapping[str, str]) -> None:
    """Write files, each of them whole, in UTF-8 with `\\n`; older ones stay if anything fails.

    Parameters
    ----------
    texts : mapping of str to str
        Contents by path; symbolic links are followed.

    Raises
    ------
    OSError
        If one cannot be written.
    """
    finished: dict[str, str] = {}
    path = ""
    try:
        for path, text in texts.items():
            target = os.path.realpath(path)
            temporary = os.path.join(os.path.dirname(target), f".cmlp-{secrets.token_hex(8)}.tmp")
            finished[temporary] = target
            with open(temporary, "x", encoding="utf-8", newline="\n") as opened:
                with contextlib.suppress(FileNotFoundError):
                    shutil.copymode(target, temporary)
                opened.write(text)
                opened.flush()
                os.fsync(opened.fileno())
        for temporary, target in finished.items():
            os.replace(temporary, target)
    except OSError as error:  # with the name that the user knows
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        for temporary in finished:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
