"""Errors in one line, output that survives a closed pipe, and a check of --out."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, TextIO


def fail(message: object, code: int) -> int:
    """Print an error in one line, and return the exit code."""
    print("cmlp: error:", " ".join(str(message).splitlines()), file=sys.stderr)
    return code


class PipeSafeStream:
    """Standard output that its reader may close: ``| head`` does not stop a training."""

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
    """Reject a file that cannot be written, before any work is done."""
    folder = os.path.dirname(os.path.realpath(path))
    if os.path.isdir(path or "."):
        raise ValueError(f"--out {path}: this is a folder; name a file in it")
    if not os.path.isdir(folder):
        raise ValueError(f"--out {path}: there is no folder {folder}; make it first")
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise ValueError(f"--out {path}: this place cannot be written to")
    if not os.path.exists(path):  # names that are too long, and file systems of the kernel
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            os.remove(path)
        except OSError as error:
            raise ValueError(f"--out {path}: cannot be written: {error.strerror}") from None
    for other in inputs:
        if os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other):
            raise ValueError(f"--out {path}: this would replace the file that is read")
