"""Rows for sources, in every form that a source takes."""

import csv

import numpy as np

import cmlp
from cmlp.sources import csv as csv_file
from cmlp.sources import tables, windows

N, D = 1600, 6


def rows(seed=0):
    """Return X that CSV writes exactly, class names and numbers."""
    rng = np.random.default_rng(seed)
    X = rng.integers(-800, 800, (N, D)) / 256  # eight binary digits: exact in CSV
    y = X[:, :2].sum(axis=1)
    return X, np.array(["low", "mid, or so", "high"])[(y > -1).astype(int) + (y > 1)], y


def small_pieces(monkeypatch):
    """Read in pieces, and blocks, that are small enough for small tests."""
    monkeypatch.setattr(windows, "PIECE", 1 << 12)
    monkeypatch.setattr(tables, "PIECE", 1 << 13)
    monkeypatch.setattr(csv_file, "BLOCK_BYTES", 1 << 12)


def write_npy(folder, X, y, cuts=(700, 713)):
    for number, part in enumerate(np.split(np.arange(len(X)), cuts)):
        np.save(folder / f"X{number}.npy", X[part])
        np.save(folder / f"y{number}.npy", y[part])
    return cmlp.data.npy(str(folder / "X*.npy"), str(folder / "y*.npy"))


def write_csv(folder, X, y, cuts=(700,), names=None):
    names = names or [f"c{i}" for i in range(X.shape[1])]
    for number, part in enumerate(np.split(np.arange(len(X)), cuts)):
        order = list(range(X.shape[1]))[:: -1 if number else 1]  # by name, not by place
        with open(folder / f"t{number}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([names[i] for i in order] + ["target"])
            for row, label in zip(X[part].tolist(), y[part].tolist(), strict=True):
                writer.writerow([row[i] for i in order] + [label])
    return cmlp.data.csv(str(folder / "t*.csv"), "target", names)


def write_parquet(folder, X, y, cuts=(700,), group=250):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for number, part in enumerate(np.split(np.arange(len(X)), cuts)):
        columns = {f"c{i}": X[part, i] for i in range(X.shape[1])} | {"target": y[part]}
        pq.write_table(pa.table(columns), folder / f"t{number}.parquet", row_group_size=group)
    return cmlp.data.parquet(str(folder / "t*.parquet"), "target")


def stream_of(X, y, size=77):
    return cmlp.data.batches(
        lambda: ((X[i : i + size], y[i : i + size]) for i in range(0, len(X), size))
    )


def arrow_of(X, y):
    import pyarrow as pa

    table = pa.table({f"c{i}": X[:, i] for i in range(X.shape[1])} | {"target": y})
    return cmlp.data.arrow(lambda: table, "target")
