"""Dask arrays and frames as sources: their partitions are blocks, and stay in the workers."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cmlp.core.arrays import array_of
from cmlp.data.cells import DataError
from cmlp.data.labels import label_array
from cmlp.data.numbers import REAL, readable, readable_dtype
from cmlp.data.source import Block, Source, no_targets
from cmlp.data.summary import Labels, Summary
from cmlp.sources.arrays import arrays

PIECE = 64
"""Partitions that one task describes."""

UNEVEN = 1.15
"""Rows of a worker, as a multiple of the mean, from which there is a warning."""

Held = tuple[Any, Any, Any]
"""The parts of X, y and weights of a partition, as they lie in a worker; y is None in a frame."""


@dataclass(eq=False, repr=False, kw_only=True)
class Partitions(Source):
    """Partitions of a Dask collection, of which a worker holds those that it carries.

    On the driver other partitions are fetched one at a time.

    Attributes
    ----------
    numbers : list of int
        What the collection counts the partitions by: those of a worker follow each other here.
    columns, target : list of str, str, or None
        Of a frame: those of X, and the one with the targets, if it has them.
    futures : list of tuples
        Of the driver: X, y and weights of each partition.
    arrays : Source or None
        Of the driver: where the rows come from, if they were sent from there.
    held : dict of int to tuple
        Partitions in this process, which are used where they are.
    """

    blocks: tuple[int, ...]
    numbers: list[int]
    n_features: int
    dtype: np.dtype[Any]
    futures: list[Held]
    _summary: Summary
    columns: list[Any] | None = None
    target: Any = None
    arrays: Source | None = None
    held: dict[int, Held] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = self.columns or []
        self.feature_names = names if all(isinstance(name, str) for name in names) else []
        self.target_name = None if self.target is None else str(self.target)

    def read_table(self, block: int, start: int = 0, stop: int | None = None) -> Block:
        """Return rows of a partition with X as it is: an array, or a frame."""
        if block not in self.held:
            if not self.futures:
                raise DataError(f"partition {self.numbers[block]} is not in this worker")
            x, y, w = (None if each is None else each.result() for each in self.futures[block])
            self.held = {block: (x, y, w)}
        X, y, weight = (_sliced(part, slice(start, stop)) for part in self.held[block])
        if self.columns is not None:
            X, y = X[self.columns], X[self.target] if y is None else y
        weight = None if weight is None else np.asarray(weight, np.float64)
        return Block(X, label_array("y", y), weight)

    def read(self, block: int, start: int = 0, stop: int | None = None) -> Block:
        """Return rows of a partition, with X as a matrix."""
        found = self.read_table(block, start, stop)
        X = found.X
        self._check_types(X, block)
        if self.columns is not None:
            X = X.to_numpy(dtype=self.dtype, na_value=np.nan)
        elif hasattr(X, "tocsr"):
            X = X.tocsr().toarray()
        return found._replace(X=readable(np.asarray(array_of("X", X), self.dtype)))

    def _check_types(self, X: Any, block: int) -> None:
        """Check the types of numbers by those of the collection: others would be rounded."""
        casting: Any = "same_kind" if self.dtype.kind == "f" else "safe"
        for name, given in [("X", X.dtype)] if self.columns is None else X.dtypes.items():
            dtype = getattr(given, "numpy_dtype", given)
            if not isinstance(dtype, np.dtype) or not (
                dtype.kind == "O" or np.can_cast(dtype, self.dtype, casting)
            ):
                raise DataError(
                    f"{self.place(block, 0)}: {name} holds {given}, and its collection declares "
                    f"{self.dtype}: convert it by astype, or correct the meta of map_partitions"
                )

    @property
    def near(self) -> Iterable[int]:
        """Partitions in this process."""
        return self.held

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
            lost = {part.status for part in parts if part is not None} & {"cancelled", "error"}
            if not lost:  # or being computed again
                continue
            if self.arrays is None:
                raise DataError(
                    f"partition {self.numbers[block]} was lost with its worker, and Dask cannot "
                    f"compute it again ({', '.join(sorted(lost))}): it was scattered, or the "
                    "client restarted. Take a source of cmlp.data, or a collection that reads files"
                )
            self.futures[block] = _sent(client, self.arrays, block)
        return self.futures


def partitions_in(source: Any) -> Partitions | None:
    """Return the partitions that a source consists of, also if it encodes their rows."""
    while not isinstance(source, Partitions) and hasattr(source, "source"):
        source = source.source
    return source if isinstance(source, Partitions) else None


def _sliced(part: Any, rows: slice) -> Any:
    """Return rows of an array or a frame: these alone are copied."""
    return None if part is None else getattr(part, "iloc", part)[rows]


# From collections and arrays ----------------------------------------------------------------------


def is_collection(data: Any) -> bool:
    """Whether this is a Dask array or frame."""
    return hasattr(data, "__dask_graph__") and hasattr(data, "npartitions")


def source_of(
    cluster: Any, X: Any, y: Any = None, weight: Any = None, *, tables: bool = False
) -> Source:
    """Return rows of any kind as a source; collections are computed where they are.

    Parameters
    ----------
    cluster : Cluster
    X : Source, dask Array, (n, n_features), or DataFrame, or array
        Of an array of this process each row is sent to one worker.
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
    if isinstance(X, Source):
        no_targets(y, weight)
        return X
    if is_collection(X):
        return partitions_of(cluster, X, y, weight, tables)
    if hasattr(X, "columns"):
        raise TypeError("X is not of Dask: dask.dataframe.from_pandas(X, npartitions=8)")
    return scattered(cluster, X, y, weight)


def partitions_of(
    cluster: Any, X: Any, y: Any, weight: Any = None, tables: bool = False
) -> Partitions:
    """Return the partitions of collections as a source."""
    columns = target = None
    check_rows(X)
    if hasattr(X, "columns"):
        columns = list(X.columns)
        if twice := [name for name, n in Counter(columns).items() if n > 1]:
            raise ValueError(f"columns of X have the same name: {twice}; rename or drop them")
        if not is_collection(y):
            check_name(y, columns)
            columns.remove(y)
            y, target = None, y
        dtype = np.result_type(*(_type_of(name, X.dtypes[name], tables) for name in columns))
    else:
        check_array("X", X)
        dtype = X.dtype
        if dtype.kind not in (*REAL, "O"):
            raise TypeError(f"X must hold real numbers, but its dtype is {dtype}")
    for name, part, needed in (("y", y, target is None), ("sample_weight", weight, False)):
        if needed or part is not None:
            check_alike(name, part, X)
    futures = _futures(cluster.client, [X, y, weight])
    rows, summary = _described(cluster, futures, target)
    return Partitions(
        blocks=tuple(rows.values()), numbers=list(rows), _summary=summary,
        n_features=int(X.shape[1]) if columns is None else len(columns), columns=columns,
        dtype=readable_dtype(dtype), target=target, futures=[futures[number] for number in rows],
    )  # fmt: skip


def scattered(cluster: Any, X: Any, y: Any, weight: Any) -> Partitions:
    """Send arrays to the workers, each row to one of them, and return them as a source."""
    members = cluster.active() or [None]
    whole = arrays(X, y, weight)
    rows = -(-(whole.n_rows or 0) // (4 * len(members)))
    whole = arrays(X, y, weight, block_rows=min(rows, max(whole.blocks or (1,))))
    n = len(whole.blocks or ())
    return Partitions(
        blocks=whole.blocks or (), numbers=list(range(n)), n_features=whole.n_features,
        dtype=whole.dtype, _summary=whole.summary(features=False), arrays=whole,
        futures=[_sent(cluster.client, whole, i, members[i * len(members) // n]) for i in range(n)],
    )  # fmt: skip


def _sent(client: Any, source: Source, block: int, address: str | None = None) -> Held:
    """Send a block of arrays to a worker."""
    parts = [part for part in source.read(block) if part is not None]
    x, y, *weight = client.scatter(parts, workers=address and [address], hash=False)
    return x, y, weight[0] if weight else None


def check_rows(X: Any) -> None:
    """Check that this is a frame of Dask's, or an array of two dimensions."""
    found = getattr(X, "ndim", None) if is_collection(X) else None
    if not isinstance(found, int):  # that of a delayed object is one more
        raise TypeError(f"X must be an array or a frame of Dask, not {type(X).__name__}")
    if found != 2:
        raise ValueError(f"X must be (rows, features), but its shape is {X.shape}")


def check_array(name: str, array: Any, sizes: bool = True) -> None:
    """Check that an array is cut by rows only, and at known ones."""
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


def _type_of(name: Any, dtype: Any, tables: bool) -> np.dtype[Any]:
    """Return what a column is read as: numbers with gaps, and whatever is encoded, as float64."""
    if dtype.kind not in REAL and not tables:
        raise TypeError(
            f"column {name!r} holds {dtype}, and a network reads numbers: take indicators, "
            "X = dask.dataframe.get_dummies(X.categorize()), or leave it out: "
            f"X = X.drop(columns=[{name!r}]); DaskTabularClassifier and DaskTabularRegressor "
            "read it"
        )
    return dtype if isinstance(dtype, np.dtype) and dtype.kind in REAL else np.dtype(np.float64)


def check_name(target: Any, columns: list[Any]) -> None:
    """Check that the targets of a frame are one of its columns."""
    if not isinstance(target, Hashable) or target not in columns:
        raise TypeError(f"y must be a Series of Dask, or a column of X: {columns}")


def check_alike(name: str, part: Any, X: Any, sizes: bool = True) -> None:
    """Check that y or weights are cut where X is."""
    if not is_collection(part):
        how = f"{name} = dask.array.from_array({name}, chunks=X.chunks[0])"
        raise TypeError(
            f"{name} is {type(part).__name__}, and X is of Dask: give both alike, as with "
            + (how if hasattr(X, "chunks") else f"{name} = X['a column']")
        )
    if hasattr(part, "chunks") and hasattr(X, "columns"):
        raise TypeError(
            f"X is a frame and {name} an array; their rows cannot be matched: "
            "X = X.to_dask_array(lengths=True)"
        )
    if hasattr(part, "chunks"):
        check_array(name, part, sizes=sizes)
        known = sizes or not np.isnan([*part.chunks[0], *X.chunks[0]]).any()
        alike = part.chunks[0] == X.chunks[0] if known else part.numblocks[0] == X.numblocks[0]
        repair = "rechunk({0: X.chunks[0]})"
    else:
        alike = part.npartitions == X.npartitions
        repair = "repartition(divisions=X.divisions)"
    if not alike:
        raise ValueError(f"{name} is cut at other rows than X: {name} = {name}.{repair}")


def _futures(client: Any, parts: list[Any]) -> list[Held]:
    """Persist collections, and return the futures of their partitions in order."""
    from distributed import futures_of

    kept = iter(client.persist([part for part in parts if part is not None]))
    found = [[] if part is None else futures_of(next(kept)) for part in parts]
    for futures in found:
        futures.sort(key=lambda future: future.key[1:])
    return list(itertools.zip_longest(*found))


def _described(cluster: Any, futures: list[Held], target: Any) -> tuple[dict[int, int], Summary]:
    """Return rows of all partitions by number, and all labels, counted where they are.

    The partitions of a worker follow each other, and workers as ranks do: then hardly any moves.
    """
    from distributed import wait

    for part in wait([part for parts in futures for part in parts if part is not None]).done:
        if part.status != "finished":
            part.result()  # raises what computing it has raised
    client = cluster.client
    pieces = [
        numbers[start : start + PIECE]
        for numbers in by_worker(cluster, [x for x, _, _ in futures]).values()
        for start in range(0, len(numbers), PIECE)
    ]
    tasks = [
        client.submit(describe, [futures[i] for i in numbers], target, pure=False)
        for numbers in pieces
    ]
    lengths, labels = zip(*client.gather(tasks), strict=True)
    rows = dict(zip(itertools.chain(*pieces), itertools.chain(*lengths), strict=True))
    if not sum(rows.values()):
        raise DataError("X has no rows")
    seen = Labels()
    for each in labels:
        seen.merge(each)
    return rows, Summary(sum(rows.values()), seen.labels, seen.counts, None, None)


def by_worker(cluster: Any, futures: list[Any]) -> dict[str, list[int]]:
    """Return for each worker, in the order of ranks, the numbers of the futures that it holds."""
    places = cluster.client.who_has(futures)
    found: dict[str, list[int]] = {address: [] for address in cluster.members()}
    for number, future in enumerate(futures):
        found.setdefault(min(places.get(future.key, ()), default=""), []).append(number)
    return found


def describe(parts: list[Held], target: Any) -> tuple[list[int], Labels]:
    """Return rows and labels of partitions; runs in the worker that has them."""
    rows, seen = [], Labels()
    for X, y, weight in parts:
        y = label_array("y", X[target] if y is None else y)
        for name, part in (("y", y), ("sample_weight", weight)):
            if part is not None and len(part) != X.shape[0]:
                raise ValueError(
                    f"a partition of X has {X.shape[0]} rows, and its {name} {len(part)}"
                )
        rows.append(X.shape[0])
        seen.see(y)
    return rows, seen
