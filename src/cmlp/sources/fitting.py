"""The fit of a network to a source: in memory if the rows fit, else in windows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from cmlp.data.rows import Data
from cmlp.data.source import Source, streamed
from cmlp.model.history import History
from cmlp.model.precision import check_columns
from cmlp.model.state import State
from cmlp.sources.encode import RowEncoder, check_names, network_encoder
from cmlp.sources.plan import in_words
from cmlp.sources.training import in_memory, windowed
from cmlp.sources.windows import WindowFeed, row_bytes
from cmlp.training import fit as training
from cmlp.training.recipe import Recipe

if TYPE_CHECKING:
    from cmlp.training.fit import Options


def fit_source(
    net: State,
    source: Source,
    recipe: Recipe,
    options: Options,
    validation: tuple[Any, Any],
    memory: int,
    checkpoint: Any = None,
    resume: bool = False,
) -> History:
    """Train on a source; see :meth:`cmlp.Network.fit`.

    Parameters
    ----------
    validation : pair
        X_val, which may be a source, and y_val.
    checkpoint : cmlp.formats.checkpoint.Checkpoint, optional
        What writes checkpoints, and restores the network if it is to `resume`.
    """
    classes, rows = net.classes, None
    feed: WindowFeed | None = None
    try:
        if checkpoint is not None and resume and checkpoint.resume(options.epochs):
            history: History = checkpoint.history
            return history
        check_names(net, source)
        held_out = validation_rows(net, *validation, memory)
        given = checkpoint.windows if checkpoint is not None and checkpoint.restored else None
        rows = None if given else rows_in_memory(net, source, memory)
        if rows is None:
            encoder = network_encoder(net, source)
            made = windowed(
                source, encoder, net.rng,
                memory=memory - _bytes_of(held_out),
                batch_size=options.batch_size, shuffle=options.shuffle,
                validation_fraction=options.validation_fraction, n_epochs=options.epochs,
                given=given,
            )  # fmt: skip
            feed, held_out = made.feed, made.held_out or held_out
            if checkpoint is not None:
                checkpoint.windows = feed.layout.kept()
        check_columns(net, (rows or made.feed.latest).X)
    except (TypeError, ValueError):
        net.classes = classes  # a failed call keeps no labels
        raise
    if source.feature_names and not net.feature_names:
        net.feature_names, net.target_name = list(source.feature_names), source.target_name
    data = rows or feed
    assert data is not None
    try:
        return training.fit(net, data, recipe, options, held_out, checkpoint)
    finally:
        if feed is not None:
            feed.close()


def _bytes_of(data: Data | None) -> int:
    return data.X.nbytes if data is not None and isinstance(data.X, np.ndarray) else 0


def rows_in_memory(net: State, source: Source, memory: int) -> Data | None:
    """Return all rows, encoded, if they fit."""
    found = in_memory(source, memory, net.dtype)
    if found is None:
        return None
    try:
        return net.encode_rows(*found)
    except (TypeError, ValueError):
        if source.resident() is None:
            for _ in blocks_of(source, network_encoder(net, source)):
                pass  # what is wrong is found again, with its file and line
        raise


def validation_rows(net: State, X_val: Any, y_val: Any, memory: int) -> Data | None:
    """Return rows to validate on, which have to fit into a quarter of the memory."""
    if X_val is None:
        return None
    if not isinstance(X_val, Source):
        return net.encode_rows(X_val, y_val, suffix="_val")
    found = in_memory(X_val, memory // 4, net.dtype)
    if found is None:
        need = 4 * (X_val.n_rows or 0) * row_bytes(X_val, net.dtype)
        raise ValueError(
            f"the rows of X_val do not fit into a quarter of memory={in_words(memory)!r}; give "
            f"{in_words(need)!r}, or fewer rows"
        )
    return net.encode_rows(*found, suffix="_val")


def run_epoch(
    net: State,
    source: Source,
    recipe: Recipe,
    memory: int,
    batch_size: int | None,
    shuffle: bool,
    n_threads: int | None,
) -> float:
    """Use every row once, and return the mean loss."""
    data = rows_in_memory(net, source, memory)
    if data is not None:
        return training.run_epoch(net, data, recipe, batch_size, shuffle, n_threads)
    made = windowed(
        source, network_encoder(net, source), net.rng, memory=memory, batch_size=batch_size,
        shuffle=shuffle, validation_fraction=0.0, n_epochs=1,
    )  # fmt: skip
    try:
        return training.run_epoch(net, made.feed, recipe, batch_size, shuffle, n_threads)
    finally:
        made.feed.close()


# Answers -----------------------------------------------------------------------------------------


def blocks_of(source: Source, encoder: RowEncoder | None = None) -> Iterator[Data]:
    """Yield all rows in order, in pieces; with targets encoded, or without any."""
    block = start = 0
    for found in streamed(source):
        while source.blocks is not None and start == source.blocks[block]:
            block, start = block + 1, 0

        def where(row: int, block: int = block, start: int = start) -> str:
            return source.place(block, start + row)

        start += len(found.X)
        yield Data(found.X, found.y, None) if encoder is None else Data(*encoder(found, where))
