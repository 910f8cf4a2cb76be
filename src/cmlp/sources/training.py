"""From a source to what a training takes: rows in memory if they fit, else windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmlp.core.errors import warn
from cmlp.data.rows import Data
from cmlp.data.source import Block, Source, joined, number_of_rows, streamed, taken
from cmlp.sources.encode import RowEncoder
from cmlp.sources.plan import HeldRows, in_words
from cmlp.sources.windows import (
    Layout,
    WindowFeed,
    kept_dtype,
    lanes_in,
    piece_bytes,
    row_bytes,
    window_rows,
)

HELD_SHARE = 4
"""One part in so many of the memory is for rows that are held out."""


def in_memory(source: Source, memory: int, dtype: np.dtype[Any]) -> Block | None:
    """Return all rows, if they are in memory already or fit; None if they do not."""
    found = source.resident()
    if found is not None:
        return found
    n = number_of_rows(source)
    targets = source.first(1, targets_only=True).y.nbytes
    if n * row_bytes(source, dtype, targets) > memory:
        return None
    return read_all(source, n, kept_dtype(source, dtype))


def read_all(source: Source, n: int, dtype: np.dtype[Any]) -> Block:
    """Return all rows, `n` of them."""
    X = np.empty((n, source.n_features), dtype)
    at, targets, weights = 0, [], []
    for found in streamed(source):
        start, at = at, at + len(found.X)
        if at > n:
            break
        X[start:at] = found.X
        targets.append(found.y)
        weights += [] if found.weight is None else [found.weight]
    if at != n:
        raise ValueError(f"the source has other rows than at first: {n:,} then, now {at:,}"
                         f"{' or more' * (at > n)}")  # fmt: skip
    return Block(X, np.concatenate(targets), np.concatenate(weights) if weights else None)


@dataclass
class Windowed:
    """Rows that do not fit into memory, as windows.

    Attributes
    ----------
    feed : WindowFeed
    held_out : Data or None
        Rows to validate on.
    """

    feed: WindowFeed
    held_out: Data | None


def windowed(
    source: Source,
    encoder: RowEncoder,
    rng: np.random.Generator,
    *,
    memory: int,
    batch_size: int | None,
    shuffle: bool,
    validation_fraction: float,
    n_epochs: int,
    given: Mapping[str, Any] | None = None,
    held_seed: int | None = None,
) -> Windowed:
    """Return the windows of a source.

    Parameters
    ----------
    rng : Generator
        What seeds are drawn from: of the held-out rows, and of the order, if there are such.
    given : dict, optional
        What the windows of a training that is resumed were like.
    held_seed : int, optional
        Seed of the held-out rows, where they have been chosen before.

    Raises
    ------
    ValueError
        If `memory` is too small for windows.
    """
    if given == {}:
        raise ValueError(
            "the checkpoint's training had all rows in memory, which do not fit into memory="
            f"{in_words(memory)!r}; give as much as before"
        )
    if given is not None and given.get("shards"):
        raise ValueError(
            "the checkpoint is of a training on several ranks: continue it with Network.fit"
        )
    if batch_size is None:
        raise ValueError(
            "batch_size=None makes one batch of all rows, which do not fit into the memory given; "
            "give a number"
        )
    if held_seed is None:
        held_seed = int(rng.integers(2**63)) if validation_fraction else 0
    seed = int(rng.integers(2**63)) if shuffle else 0
    blocks = source.blocks or (number_of_rows(source),)
    some = Data(*encoder(source.first(), lambda row: source.place(0, row)))
    size = row_bytes(source, encoder.dtype, some.targets[:1].nbytes)
    whole = memory
    held = HeldRows(held_seed, validation_fraction if given is None else given["held"])
    if validation_fraction:
        held = held if given is not None else that_fit(held, sum(blocks), memory, size)
        memory -= memory // HELD_SHARE
    counts = held.n_kept(blocks)
    lanes = lanes_in(memory, source) if given is None else given["lanes"]
    most = window_rows(memory, source, size, batch_size, whole, lanes)
    n_rows = most if given is None else given["rows"]
    if n_rows > most:
        raise ValueError(
            f"the checkpoint's training has windows of {n_rows:,} rows, but memory="
            f"{in_words(memory)!r} has room for {most:,}; give as much memory as before"
        )
    layout = Layout(counts, n_rows, batch_size, shuffle, seed, held, lanes, piece_bytes(memory))
    if shuffle and source.blocks is None:
        warn(
            "a stream is shuffled in windows that follow each other: rows that are near each other "
            "stay near. Where their order matters, cmlp.data.shuffled writes them in random order"
        )
    held_out = _held_out(source, encoder, held) if validation_fraction else None
    return Windowed(WindowFeed(source, encoder, layout, n_epochs, some), held_out)


def that_fit(held: HeldRows, n: int, memory: int, size: int) -> HeldRows:
    """Return fewer held-out rows of n, each of some bytes, where they would not fit into memory."""
    fraction, most = held.fraction, memory // HELD_SHARE // size
    if n * fraction <= most:
        return held
    less = 0.95 * most / n
    warn(
        f"validation_fraction={fraction:g} of {n:,} rows does not fit into a quarter of the "
        f"memory; {less:.2g} of them are held out"
    )
    return HeldRows(held.seed, less)


def _held_out(source: Source, encoder: RowEncoder, held: HeldRows) -> Data:
    """Return the rows that are held out, read once."""
    parts, block, start = [], 0, 0
    for found in streamed(source):
        while source.blocks is not None and start == source.blocks[block]:
            block, start = block + 1, 0
        rows = held.mask(block, start, start + len(found.X))

        def where(row: int, block: int = block, start: int = start) -> str:
            return source.place(block, start + row)

        start += len(found.X)
        if rows.any():
            parts.append(taken(encoder(found, where), rows))
    return held_data(parts, held)


def held_data(parts: list[Block], held: HeldRows) -> Data:
    """Return encoded rows that are held out as one."""
    if not parts:
        raise ValueError(
            f"validation_fraction={held.fraction:g} of the rows leaves none to validate on"
        )
    return Data(*joined(parts))
