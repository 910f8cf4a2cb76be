"""The rows of a source in random order, written once."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Any

import numpy as np

from cmlp.core.checks import check_integer
from cmlp.core.layout import Array
from cmlp.data.source import Block, Source, streamed
from cmlp.sources.npy import npy
from cmlp.sources.plan import bytes_of, in_words

MOST_PILES = 200
"""Files that are written at the same time, at most, a third of what most systems allow."""

INTEGERS = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32)


def shuffled(
    source: Source, folder: str | os.PathLike[str], memory: int | str = "1 GB", seed: int = 0
) -> Source:
    """Write the rows of a source to .npy files in random order, and return a source of these.

    Each order is equally likely. Every row goes to one of several piles at random, and each pile is
    permuted in memory: all is read once, and written and read once more. It is for rows that are
    sorted, and for streams; and reading these files is faster than decoding.

    Parameters
    ----------
    source : Source
        Of numbers; its text is in the targets alone.
    folder : path
        Is made; it must be empty. While it is written it takes the room of the numbers twice.
    memory : int or str
        Bytes of a pile, and a file, about twice.
    seed : int

    Returns
    -------
    Source
        Of ``X_*.npy`` and ``y_*.npy`` (and ``weight_*.npy``), in the narrowest number type that
        holds all numbers exactly, such as uint8 for pixels.

    Raises
    ------
    ValueError
        If the folder is not empty, or `memory` too small.
    """
    target, limit = Path(folder), bytes_of(memory)
    if target.exists() and any(target.iterdir()):
        parts = "; .part files are of a shuffling that was killed" * any(target.glob("*.part"))
        raise ValueError(f"{target} is not empty; name a new folder{parts}")
    rng = np.random.default_rng(check_integer("seed", seed, 0))
    target.mkdir(parents=True, exist_ok=True)
    n, y_dtype, y_shape, weighted = _about(source)
    row = source.n_features * source.dtype.itemsize + y_dtype.itemsize * int(np.prod(y_shape)) + 8
    n_piles = max(1, -(-2 * n * row // limit))
    if n_piles > MOST_PILES:
        need = in_words(2 * n * row / MOST_PILES)
        raise ValueError(f"shuffling {n:,} rows needs memory={need!r}; it is {in_words(limit)!r}")
    piles = [target / f"pile_{number}" for number in range(n_piles)]
    types = {"X": (source.dtype, (source.n_features,)), "y": (y_dtype, y_shape)}
    if weighted:
        types["weight"] = np.dtype(np.float64), ()
    narrow = _Narrow(source.dtype)
    try:
        _to_piles(source, piles, types, narrow, rng)
        digits = len(str(n_piles - 1))
        for number, pile in enumerate(piles):
            _write(target, f"{number:0{digits}d}", pile, types, narrow.dtype(), rng)
        for path in list(target.iterdir()):
            path.rename(path.with_suffix(".npy"))  # from now on a pattern finds them: all or none
    except BaseException as error:
        for path in list(target.iterdir()):
            path.unlink()
        is_numpy_s = "requested and" in str(error)  # without a number
        if isinstance(error, OSError) and (error.errno == errno.ENOSPC or is_numpy_s):
            what = f"{os.strerror(errno.ENOSPC)}; shuffling takes the room of the numbers twice"
            raise OSError(errno.ENOSPC, what, os.fspath(folder)) from error
        raise
    weights = str(target / "weight_*.npy") if weighted else None
    return npy(str(target / "X_*.npy"), str(target / "y_*.npy"), weights)


def _about(source: Source) -> tuple[int, np.dtype[Any], tuple[int, ...], bool]:
    """Return the number of rows, the type and shape of a target, and whether there are weights."""
    n, dtypes, shape, weighted = 0, [], (), False
    for piece in streamed(source, targets_only=True):
        n += len(piece.y)
        y = piece.y.astype(str) if piece.y.dtype == object else piece.y
        dtypes.append(y.dtype)
        shape, weighted = y.shape[1:], piece.weight is not None
        if len(dtypes) > 64:
            dtypes = [np.result_type(*dtypes)]
    if not n:
        raise ValueError("the source has no rows")
    return n, np.result_type(*dtypes), shape, weighted


class _Narrow:
    """Finds the narrowest type that holds all numbers it has seen."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.given = dtype
        self.low, self.high, self.whole = np.inf, -np.inf, True
        self.floats = [np.dtype(kind) for kind in (np.float16, np.float32)
                       if np.dtype(kind).itemsize < dtype.itemsize]  # fmt: skip

    def see(self, X: Array) -> None:
        """Add rows."""
        if not X.size:
            return
        self.low, self.high = min(self.low, X.min()), max(self.high, X.max())
        if X.dtype.kind != "f":
            return
        self.whole = self.whole and bool((np.rint(X) == X).all())
        with np.errstate(over="ignore"):
            self.floats = [kind for kind in self.floats
                           if np.array_equal(X.astype(kind), X, equal_nan=True)]  # fmt: skip

    def dtype(self) -> np.dtype[Any]:
        """Return the type."""
        if self.whole and np.isfinite(self.low) and self.given.kind != "b":
            for kind in INTEGERS:
                about = np.iinfo(kind)
                if about.min <= self.low and self.high <= about.max:
                    if np.dtype(kind).itemsize < self.given.itemsize:
                        return np.dtype(kind)
                    break
        if self.given.kind == "f" and self.floats:
            return self.floats[0]
        return self.given


def _to_piles(
    source: Source, piles: list[Path], types: dict[str, Any], narrow: _Narrow, rng: Any
) -> None:
    """Write each row to a pile that is drawn."""
    with contextlib.ExitStack() as stack:
        opened = [
            {name: stack.enter_context(open(f"{pile}.{name}", "wb")) for name in types}
            for pile in piles
        ]
        for piece in streamed(source):
            narrow.see(piece.X)
            number = rng.integers(len(piles), size=len(piece.X))
            order = np.argsort(number, kind="stable")
            ends = np.cumsum(np.bincount(number, minlength=len(piles)))
            for pile, rows in enumerate(np.split(order, ends[:-1])):
                for name, values in _parts(piece, types):
                    opened[pile][name].write(
                        np.ascontiguousarray(values[rows], types[name][0]).tobytes()
                    )


def _parts(piece: Block, types: dict[str, Any]) -> list[tuple[str, Array]]:
    found = [("X", piece.X), ("y", piece.y)]
    return [*found, ("weight", piece.weight)] if piece.weight is not None else found


def _write(
    target: Path, number: str, pile: Path, types: dict[str, Any], dtype: np.dtype[Any], rng: Any
) -> None:
    """Permute the rows of a pile, and write them."""
    order = None
    for name, (kind, shape) in types.items():
        values = np.fromfile(f"{pile}.{name}", kind).reshape(-1, *shape)
        os.unlink(f"{pile}.{name}")
        order = rng.permutation(len(values)) if order is None else order
        with np.errstate(over="ignore"):
            values = values[order].astype(dtype if name == "X" else kind, copy=False)
        with open(target / f"{name}_{number}.part", "wb") as file:
            np.save(file, values)
