"""One line for an error; output that a closed pipe does not stop."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, TextIO


def fail(message: object, code: int) -> int:
    print("cmlp: error:", " ".join(str(message).splitlines()), file=sys.stderr)
    return code


class Forgiving:
    """Standard output that may be closed by its reader: a model is not lost to ``| head``."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(BrokenPipeError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.stream.flush()


def check_output(path: str, *inputs: str) -> None:
    """Refuse a file that could not be written, before there is anything to lose."""
    folder = os.path.dirname(os.path.realpath(path))
    if os.path.isdir(path or "."):
        raise ValueError(f"--out {path}: this is a folder; name a file in it")
    if not os.path.isdir(folder):
        raise ValueError(f"--out {path}: there is no folder {folder}; make it first")
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise ValueError(f"--out {path}: this place cannot be written to")
    for other in inputs:
        if os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other):
            raise ValueError(f"--out {path}: this would replace the file that is read")
