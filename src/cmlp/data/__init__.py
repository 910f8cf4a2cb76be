"""X, y and weights of a network, validated once; and sources, which take the place of X.

A source is rows in blocks that need not fit into memory: ``net.fit(cmlp.data.parquet("trips/*",
target="fare"))``.

- :func:`arrays`: anything with a shape and slices of rows: arrays, memory maps, HDF5, Zarr
- :func:`npy`: shards of NumPy's files
- :func:`parquet`, :func:`csv`: tables in files
- :func:`arrow`, :func:`batches`: streams that a function makes
- :func:`shuffled`: the rows of a source in a random order, written once
- :class:`Source`: the base of all of them
"""

from typing import Any as _Any

_LAZY = {
    "DataError": "data.cells",
    "Source": "data.source",
    "Block": "data.source",
    "arrays": "sources.arrays",
    "arrow": "sources.arrow",
    "batches": "sources.batches",
    "csv": "sources.csv",
    "npy": "sources.npy",
    "parquet": "sources.parquet",
    "shuffled": "sources.shuffled",
}

__all__ = [
    "Block", "DataError", "Source", "arrays", "arrow", "batches", "csv", "npy", "parquet",
    "shuffled",
]  # fmt: skip


def __getattr__(name: str) -> _Any:
    """Import at its first use what few programs need."""
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(f"cmlp.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'cmlp.data' has no attribute {name!r}")
