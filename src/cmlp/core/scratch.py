"""Memory that one training leaves to the next one, whatever network that is of.

The workspace and the snapshot of a wide network are megabytes, and to map them anew takes as long
as a step. So a process keeps a few such blocks from training to training. A block that is lent is
no longer among them: two threads never share one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cmlp.core.layout import Array, aligned

LEAST_BYTES, MOST_BYTES = 1 << 16, 1 << 26
"""Bytes of a block that is kept: smaller ones are quickly made, larger ones go to the system."""

MOST_BLOCKS = 2
"""Blocks that are kept: enough for one training, which has a workspace and a snapshot."""

_kept: dict[int, Array] = {}
"""The blocks by their size, the latest last."""


class Scratch:
    """An array for some time, aligned as the cores read it, whose numbers may be anything.

    Attributes
    ----------
    array : ndarray
        Not to be used after :meth:`close`.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        size = math.prod(shape) * dtype.itemsize
        self._block = _taken(size) if size >= LEAST_BYTES else aligned((size,), np.uint8)
        self.array: Array = self._block[:size].view(dtype).reshape(shape)

    def close(self) -> None:
        """Leave the memory to the next one; a second call does nothing."""
        block, self._block = self._block, self._block[:0]
        if LEAST_BYTES <= len(block) <= MOST_BYTES:
            _kept[len(block)] = block
            for size in list(_kept)[:-MOST_BLOCKS]:
                _kept.pop(size, None)


def _taken(size: int) -> Array:
    """Return a block of at least so many bytes, a kept one if it fits."""
    for found in sorted(_kept):
        if size <= found <= 4 * size:  # no large block for a small array
            block = _kept.pop(found, None)  # another thread may have it by now
            if block is not None:
                return block
    return aligned((size,), np.uint8)
