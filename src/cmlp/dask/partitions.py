"""Dask arrays and frames as sources: their partitions are blocks, and stay in the workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from cmlp.core.layout import Array
from cmlp.data.cells import DataError
from cmlp.data.labels import label_array
from cmlp.data.numbers import READABLE, float_for
from cmlp.data.source import Block, Source
from cmlp.data.summary import Labels, Summary
from cmlp.sources.arrays import arrays

PIECE = 64
"""Partitions that one task describes."""

Held = tuple[Any, Any, Any]
"""The parts of X, y and weights of a partition, as they lie in a worker; y is None in a frame."""


class Described(NamedTuple):
    """What is known of partitions without a copy of them."""

    rows: list[int]
    targets: str
    labels: Array | None
    counts: Array | None
    many: bool


class Partitions(Source):
    """Partitions of a Dask collection, of which a worker holds those that it carries.

    On the driver other partitions are fetched one at a time.

    Parameters
    ----------
    blocks : sequence of int
        Rows of each partition.
    columns : list of str or None
        Of a frame those of X.
    target : str or None
        Of a frame the column with the targets, if it has them.

    Attributes
    ----------
    held : dict of int to tuple
        Partitions in this process, which are used where they are.
    futures : list of tuples
        Of the driver: X, y and weights of each partition.
    arrays : Source or None
        Of the driver: where the rows come from, if they were sent from there.
    numbers : list of int
        What the collection counts the partitions by: those of a worker follow each other here.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        n_features: int,
        dtype: np.dtype[Any],
        columns: list[Any] | None,
        target: Any,
        summary: Summary,
        futures: list[Held],
        numbers: Sequence[int] | None = None,
        arrays: Source | None = None,
    ) -> None:
        self.blocks, self.n_features, self.dtype = tuple(blocks), n_features, dtype
        self.columns, self.target = columns, target
        self.feature_names = [] if columns is None else [str(name) for name in columns]
        self.target_name = None if target is None else str(target)
        self._summary, self.futures, self.arrays = summary, futures, arrays
        self.numbers = list(range(len(blocks)) if numbers is None else numbers)
        self.held: dict[int, Held] = {}

    def _parts(self, block: int) -> Held:
        found = self.held.get(block)
        if found is None:
            if not self.futures:
                raise DataError(f"partition {block} is not in this worker")
            x, y, w = (None if f is None else f.result() for f in self.futures[block])
            self.held = {block: (x, y, w)}  # on the driver one at a time
            found = self.held[block]
        return found

    def read_table(self, block: int, start: int = 0, stop: int | None = None) -> Block:
        """Return rows of a partition with X as it is: an array, or a frame."""
        X, y, weight = self._parts(block)
        rows = slice(start, stop)
        if self.columns is not None:
            y = X[self.target] if y is None else y
            X = X.iloc[rows][self.columns]  # these rows alone are copied
        else:
            X = X[rows]
        y = (y.iloc if hasattr(y, "iloc") else y)[rows]
        targets = y if isinstance(y, np.ndarray) else label_array("y", y)
        if weight is not None:
            weight = np.asarray((weight.iloc if hasattr(weight, "iloc") else weight)[rows])
        return Block(X, targets, None if weight is None else weight.astype(np.float64))

    def read(self, block: int, start: int = 0, stop: int | None = None) -> Block:
        """Return rows of a partition, with X as a matrix."""
        found = self.read_table(block, start, stop)
        X = found.X
        if self.columns is not None:
            X = X.to_numpy(dtype=self.dtype, na_value=np.nan)
        elif hasattr(X, "tocsr"):
            X = X.toarray()
        return found._replace(X=np.asarray(X, self.dtype))

    def read_targets(self, block: int, start: int = 0, stop: int | None = None) -> Block:
        """Return targets of a partition."""
        found = self.read_table(block, start, stop)
        return found._replace(X=np.empty((len(found.y), 0), self.dtype))

    def first(self, n: int = 256, *, targets_only: bool = False) -> Block:
        """Return some of the first rows of a partition that is here."""
        for block in self.held or ():
            if self.blocks is not None and self.blocks[block]:
                return (self.read_targets if targets_only else self.read)(block, 0, n)
        return super().first(n, targets_only=targets_only)

    def place(self, block: int, row: int) -> str:
        """Return where a row is."""
        return f"partition {self.numbers[block]}, row {row}"

    def reopened(self) -> Partitions:
        """Return this: there are no files."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"held": {}, "futures": [], "arrays": None}

    def living(self, client: Any) -> list[Held]:
        """Return the futures, after parts that were lost for good have been sent again.

        Raises
        ------
        DataError
            If a part was lost that Dask cannot compute again.
        """
        for block, parts in enumerate(self.futures):
            states = {part.status for part in parts if part is not None}
            if not states & {"cancelled", "error"}:  # 'lost' ones are being computed again
                continue
            if self.arrays is None:
                raise DataError(
                    f"partition {self.numbers[block]} was lost with its worker, and Dask cannot "
                    f"compute it again ({', '.join(sorted(states))}): it was scattered. Take a "
                    "source of cmlp.data, or a collection that reads files"
                )
            self.futures[block] = _sent(client, self.arrays, block)
        return self.futures


# From collections ---------------------------------------------------------------------------------


def is_collection(data: Any) -> bool:
    """Whether this is a Dask array or frame."""
    return hasattr(data, "__dask_graph__") and hasattr(data, "npartitions")


def partitions_of(
    client: Any, X: Any, y: Any, weight: Any = None, tables: bool = False
) -> Partitions:
    """Compute the partitions of collections where they are, and return them as a source.

    Parameters
    ----------
    X : dask Array, (n, n_features), or DataFrame
    y : Array, Series, or name of a column
    weight : Array or Series, optional
    tables : bool
        Whether a frame may have columns of any kind, and categories that are not known.

    Raises
    ------
    TypeError, ValueError
        For collections that are cut in another way, or of unknown size; the message has the line
        that repairs them.
    """
    columns = target = None
    if hasattr(X, "columns"):
        columns, target = list(X.columns), None if is_collection(y) else y
        if target is not None:
            if not isinstance(target, str) or target not in columns:
                raise TypeError(f"y must be a Series of Dask, or a column of X: {columns}")
            columns.remove(target)
        if not tables:
            _check_frame(X, columns)
    else:
        check_array("X", X, 2)
    parts = [X, *(part for part in (None if target is not None else y, weight) if part is not None)]
    for name, part in zip(("y", "sample_weight"), parts[1:], strict=False):
        _check_alike(name, part, X)
    futures = _futures(client, parts)
    nothing: list[Any] = [None] * len(futures[0])
    xs, rest = futures[0], futures[1:]
    ys = nothing if target is not None else rest.pop(0)
    whole: list[Held] = list(zip(xs, ys, rest[0] if rest else nothing, strict=True))
    dtype = X.dtype if columns is None else _dtype_of(X, columns)
    rows, summary, numbers = _described(client, whole, target)
    dtype = np.dtype(dtype.char if dtype.char in READABLE and dtype.isnative else float_for(dtype))
    n_features = int(X.shape[1]) if columns is None else len(columns)
    return Partitions(
        [rows[i] for i in numbers], n_features, dtype, columns, target, summary,
        [whole[i] for i in numbers], numbers,
    )  # fmt: skip


def scattered(client: Any, X: Any, y: Any, weight: Any) -> Partitions:
    """Send arrays to the workers, each row to one of them, and return them as a source."""
    members = client.scheduler_info()["workers"]
    rows = max(1, -(-len(X) // (4 * max(1, len(members)))))
    whole = arrays(X, y, weight)
    whole = arrays(X, y, weight, block_rows=min(rows, max(whole.blocks or (1,))))
    n, seen = len(whole.blocks or ()), whole.summary(features=False)
    summary = Summary(seen.n_rows, seen.labels, seen.counts, None, None)
    order = sorted(members)
    futures = [_sent(client, whole, i, order[i * len(order) // n]) for i in range(n)]
    return Partitions(
        whole.blocks or (), whole.n_features, whole.dtype, None, None, summary, futures,
        arrays=whole,
    )  # fmt: skip


def _sent(client: Any, source: Source, block: int, address: str | None = None) -> Held:
    """Send a block of arrays to a worker."""
    found = source.read(block)
    parts = [part for part in found if part is not None]
    sent = client.scatter(parts, workers=address and [address], hash=False)
    return sent[0], sent[1], sent[2] if len(sent) > 2 else None


def check_array(name: str, array: Any, n: int | None = None, sizes: bool = True) -> None:
    """Check that an array is cut by rows only, and at known ones."""
    if n is not None and array.ndim != n:
        raise ValueError(f"{name} must be (rows, features), but its shape is {array.shape}")
    if array.ndim == 2 and array.numblocks[1] > 1:
        raise ValueError(
            f"{name} is cut by columns into {array.numblocks[1]} chunks; make rows whole: "
            f"{name} = {name}.rechunk({{1: -1}})"
        )
    if sizes and any(np.isnan(rows) for rows in array.chunks[0]):
        raise ValueError(
            f"the rows of {name}'s chunks are not known; count them: "
            f"{name} = {name}.compute_chunk_sizes()"
        )


def _check_frame(X: Any, columns: list[Any]) -> None:
    for name in columns:
        column, dtype = X[name], X.dtypes[name]
        if str(dtype) == "category" and not column.cat.known:
            raise ValueError(
                f"the categories of column {name!r} are not known, and partitions may differ in "
                f"them; collect them: X = X.categorize(columns=[{name!r}])"
            )
        kind = getattr(dtype, "numpy_dtype", dtype)
        if getattr(kind, "kind", "O") not in "fiub":
            raise TypeError(
                f"column {name!r} holds {dtype}, and a network reads numbers: take "
                "indicators, X = dask.dataframe.get_dummies(X.categorize()), or leave it out: "
                f"X = X.drop(columns=[{name!r}])"
            )


def _dtype_of(X: Any, columns: list[Any]) -> np.dtype[Any]:
    dtypes = [getattr(X.dtypes[name], "numpy_dtype", X.dtypes[name]) for name in columns]
    plain = [dtype for dtype in dtypes if isinstance(dtype, np.dtype) and dtype.kind in "fiub"]
    nullable = any(not isinstance(X.dtypes[name], np.dtype) for name in columns)
    return np.result_type(*plain, *([np.float64] if nullable or not plain else []))


def _check_alike(name: str, part: Any, X: Any) -> None:
    """Check that y or weights are cut where X is."""
    if not is_collection(part):
        raise TypeError(
            f"{name} is {type(part).__name__}, and X is of Dask: give both alike, as with "
            f"{name} = dask.array.from_array({name}, chunks=X.chunks[0])"
        )
    if hasattr(part, "chunks") and hasattr(X, "columns"):
        raise TypeError(
            f"X is a frame and {name} an array; their rows cannot be matched: "
            "X = X.to_dask_array(lengths=True)"
        )
    if hasattr(part, "chunks"):
        check_array(name, part)
        if part.chunks[0] != X.chunks[0]:
            raise ValueError(
                f"{name} is cut at other rows than X: {name} = {name}.rechunk({{0: X.chunks[0]}})"
            )
    elif part.npartitions != X.npartitions:
        raise ValueError(
            f"X has {X.npartitions} partitions and {name} {part.npartitions}: "
            f"{name} = {name}.repartition(divisions=X.divisions)"
        )


def _futures(client: Any, parts: list[Any]) -> list[list[Any]]:
    """Persist collections, and return the futures of each one's partitions in order."""
    from distributed import futures_of

    found = []
    for kept in client.persist(parts):
        futures = {future.key[1:]: future for future in futures_of(kept)}
        found.append([futures[key] for key in sorted(futures)])
    return found


def pieces(futures: Sequence[Held], places: dict[Any, Any]) -> Iterator[list[int]]:
    """Yield numbers of partitions that lie in one worker, some at a time."""
    by_worker: dict[Any, list[int]] = {}
    for number, (x, _, _) in enumerate(futures):
        by_worker.setdefault(next(iter(places.get(x.key, ())), None), []).append(number)
    for _, numbers in sorted(by_worker.items(), key=str):
        for start in range(0, len(numbers), PIECE):
            yield numbers[start : start + PIECE]


def located(client: Any, futures: Sequence[Held]) -> dict[Any, Any]:
    """Return in which workers each part of X is, by its key, once all of them are computed."""
    from distributed import wait

    parts = [part for whole in futures for part in whole if part is not None]
    wait(parts)
    failed = [part for part in parts if part.status != "finished"]
    if failed:
        failed[0].result()  # raises what computing it has raised
    found: dict[Any, Any] = client.who_has([x for x, _, _ in futures])
    return found


def _described(
    client: Any, futures: list[Held], target: Any
) -> tuple[list[int], Summary, list[int]]:
    """Return rows and labels of all partitions, counted where they are, and an order by place."""
    places = located(client, futures)
    numbers = list(pieces(futures, places))
    tasks = [
        client.submit(describe, [futures[i][0] for i in some], [futures[i][1] for i in some],
                      target, pure=False)
        for some in numbers
    ]  # fmt: skip
    found: list[Described] = client.gather(tasks)
    rows = [0] * len(futures)
    for some, about in zip(numbers, found, strict=True):
        for number, n in zip(some, about.rows, strict=True):
            rows[number] = n
    if not sum(rows):
        raise DataError("X has no rows")
    labels, counts = merged(found)
    order = [number for some in numbers for number in some]
    return rows, Summary(sum(rows), labels, counts, None, None), order


def describe(xs: list[Any], ys: list[Any], target: Any) -> Described:
    """Return rows and labels of partitions; runs in the worker that has them."""
    rows, seen, kind = [], Labels(), ""
    for X, y in zip(xs, ys, strict=True):
        y = X[target] if y is None else y
        if len(y) != len(X):
            raise ValueError(f"a partition of X has {len(X)} rows, and its y {len(y)}")
        rows.append(len(X))
        array = y if isinstance(y, np.ndarray) else label_array("y", y)
        kind = kind or array.dtype.str
        if array.ndim == 1 or array.shape[1] == 1:
            seen.see(array.reshape(-1))
        else:
            seen.gave_up = True
    return Described(rows, kind, seen.labels, seen.counts, seen.gave_up)


def merged(found: Iterable[Described]) -> tuple[Array | None, Array | None]:
    """Return the labels of all partitions and their counts, also those that only some have."""
    labels: Array | None = None
    counts: Array | None = None
    for about in found:
        if about.many:
            return None, None
        if about.labels is None or about.counts is None:
            continue
        if labels is None or counts is None:
            labels, counts = about.labels, about.counts
            continue
        both, place = np.unique(np.concatenate([labels, about.labels]), return_inverse=True)
        sums = np.bincount(place, np.concatenate([counts, about.counts]), len(both))
        labels, counts = both, sums.astype(np.int64)
    return labels, counts
