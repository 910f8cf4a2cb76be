"""Training on files larger than memory: rows per second, peak memory, shuffling, overhead.

    PYTHONPATH=src python benchmarks/sources.py speed --folder FOLDER --gb 4
    PYTHONPATH=src python benchmarks/sources.py memory --folder FOLDER
    PYTHONPATH=src python benchmarks/sources.py shuffle --data letter.npz
    PYTHONPATH=src python benchmarks/sources.py overhead

``speed`` and ``memory`` run each measurement in a process of its own, in a memory cgroup where the
system allows one, on files that were dropped from the page cache. Files are deleted at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

import cmlp
from cmlp.core.layout import Array
from cmlp.datasets import load_digits
from cmlp.sources.encode import network_encoder
from cmlp.sources.training import windowed

D, MEMORY = 784, "512 MB"


# Files -------------------------------------------------------------------------------------------


def write_npy(folder: Path, gb: float, dtype: Any) -> int:
    """Write shards of random rows, 64 MB each, and return their number of rows."""
    rng, size = np.random.default_rng(0), np.dtype(dtype).itemsize * D
    per_shard = (64 << 20) // size
    n = int(gb * 1e9 / size) // int(per_shard)
    for number in range(n):
        X = rng.integers(0, 256, (per_shard, D), dtype=np.uint8)
        np.save(folder / f"X_{number:04}.npy", X.astype(dtype))
        np.save(folder / f"y_{number:04}.npy", rng.integers(0, 10, per_shard))
    return int(n * per_shard)


def write_parquet(folder: Path, gb: float, columns: int, rows: int, compression: str) -> int:
    """Write row groups of float32, and return their number of rows."""
    pa, pq = import_module("pyarrow"), import_module("pyarrow.parquet")

    rng, n = np.random.default_rng(0), max(1, round(gb * 1e9 / (4 * columns * rows)))
    names = [f"c{i}" for i in range(columns)]
    schema = pa.schema([(name, pa.float32()) for name in names] + [("y", pa.int64())])
    with pq.ParquetWriter(folder / "rows.parquet", schema, compression=compression) as writer:
        for _ in range(n):
            X = [rng.integers(0, 256, rows).astype(np.float32) for _ in names]
            writer.write_table(pa.table([*X, rng.integers(0, 10, rows)], schema), rows)
    return n * rows


def drop_from_cache(folder: Path) -> None:
    """Let the system forget the files, so that they are read from the disk."""
    os.sync()
    for path in folder.iterdir():
        with open(path, "rb") as file, contextlib.suppress(AttributeError):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def source_in(folder: Path) -> Any:
    if (folder / "rows.parquet").exists():
        return cmlp.data.parquet(folder / "rows.parquet", "y")
    return cmlp.data.npy(str(folder / "X_*.npy"), str(folder / "y_*.npy"))


# One measurement, in a process of its own --------------------------------------------------------


def network(source: Any) -> cmlp.Network:
    return cmlp.Network([source.n_features, 128, 10], input_scale=1 / 255, seed=0)


def resident(key: str) -> int:
    """Return a number of kilobytes of this process: VmRSS, or VmHWM, its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return 0


def measure(what: str, folder: Path, memory: str, epochs: int) -> None:
    """Print rows per second, bytes, and seconds of waiting, as JSON."""
    source = source_in(folder)
    net, before = network(source), resident("VmRSS")
    net.classes = np.arange(10)
    found: dict[str, Any] = {}
    if what == "memory":
        block = source.first(4096)
        X, y = (np.concatenate([part] * 4) for part in (block.X, block.y))
        net.fit(X, y, epochs=1, batch_size=128, n_threads=1)
        began = time.perf_counter()
        net.fit(X, y, epochs=2, batch_size=128, n_threads=1)
        found["rows_per_second"] = 2 * len(X) / (time.perf_counter() - began)
    elif what == "reader":
        made = windowed(
            source, network_encoder(net, source), net.rng, memory=int(5.12e8), batch_size=128,
            shuffle=True, validation_fraction=0.0, n_epochs=1,
        )  # fmt: skip
        began = time.perf_counter()
        n = sum(len(window.order) for window in made.feed.windows(0, 0, lambda: False))
        found["rows_per_second"] = n / (time.perf_counter() - began)
        made.feed.close()
    else:
        seen: list[int] = []
        began = time.perf_counter()
        history = net.fit(
            source, epochs=epochs, batch_size=128, n_threads=1, memory=memory,
            callbacks=[lambda state: seen.append(resident("VmRSS"))],
        )  # fmt: skip
        seconds = time.perf_counter() - began
        found["rows_per_second"] = epochs * source.n_rows / seconds
        found["waited"] = sum(history.get("waited", [0.0])) / seconds
        found["by_epoch"] = [rss - before for rss in seen]
    found["peak"] = resident("VmHWM") - before
    print(json.dumps(found))


@contextlib.contextmanager
def cgroup(limit: int) -> Iterator[Path | None]:
    """Yield the file that a process writes itself to, of a group with so much memory; or None."""
    folder = Path("/sys/fs/cgroup/memory") / f"cmlp-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(limit))
    except OSError:
        print("no memory cgroup here: the page cache is not limited")
        yield None
        return
    try:
        yield folder / "tasks"
    finally:
        time.sleep(0.5)
        with contextlib.suppress(OSError):
            folder.rmdir()


def measured(
    what: str, folder: Path, limit: int, memory: str = MEMORY, epochs: int = 1
) -> dict[str, Any]:
    """Run :func:`measure` in a process of its own."""
    drop_from_cache(folder)
    command = [sys.executable, __file__, "--measure", what, str(folder), memory, str(epochs)]
    with cgroup(limit) as tasks:

        def join() -> None:
            if tasks is not None:
                tasks.write_text(str(os.getpid()))

        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, preexec_fn=join)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# The measurements --------------------------------------------------------------------------------


def speed(args: argparse.Namespace) -> None:
    """Compare with training in memory on one thread, and with the reader alone."""
    kinds: dict[str, Callable[[Path], int]] = {
        "npy float32": lambda folder: write_npy(folder, args.gb, np.float32),
        "npy uint8": lambda folder: write_npy(folder, args.gb / 4, np.uint8),
        "parquet snappy": lambda folder: write_parquet(folder, args.gb, D, 1 << 17, "snappy"),
        "parquet zstd": lambda folder: write_parquet(folder, args.gb, D, 1 << 17, "zstd"),
    }
    for name, write in kinds.items():
        if args.kind and args.kind not in name:
            continue
        with files(args.folder) as folder:
            n, ratios = write(folder), []
            for _ in range(args.rounds):
                a, b, c = (
                    measured(what, folder, 15 * 10**8) for what in ("memory", "reader", "fit")
                )
                bound = min(a["rows_per_second"], b["rows_per_second"])
                ratios.append(c["rows_per_second"] / bound)
                print(
                    f"{name}: {n:,} rows; in memory {a['rows_per_second']:,.0f} rows/s, reader "
                    f"{b['rows_per_second']:,.0f}, source {c['rows_per_second']:,.0f}; waited "
                    f"{c['waited']:.0%}; peak {c['peak'] / 1e6:,.0f} MB; ratio {ratios[-1]:.2f}",
                    flush=True,
                )
            print(f"{name}: median ratio {statistics.median(ratios):.2f} (bar 0.9)", flush=True)


def memory(args: argparse.Namespace) -> None:
    """Measure the peak without page cache, and growth over epochs."""
    with files(args.folder) as folder:
        n = write_parquet(folder, args.gb, 100, 1 << 20, "snappy")
        found = measured("fit", folder, 3 * 10**9, MEMORY, 5)
        grown = (found["by_epoch"][-1] - found["by_epoch"][1]) / 1e6
        print(
            f"row groups of 1 Mi x 100, {n:,} rows, memory={MEMORY}: peak "
            f"{found['peak'] / 1e6:,.0f} MB (bar 662), from epoch 2 to 5 {grown:+,.1f} MB; "
            f"{found['rows_per_second']:,.0f} rows/s, waited {found['waited']:.0%}"
        )


def rows_of(path: str) -> tuple[Array, Array, Array, Array]:
    """Return X, y, X_test, y_test of an .npz file, numbers standardised; or of the digits."""
    if not path:
        digits = load_digits()
        X, y = np.repeat(digits.X_train, 10, axis=0), np.repeat(digits.y_train, 10)
        X = X + np.random.default_rng(0).normal(0, 1, X.shape)
        return X, y, digits.X_test.astype(np.float64), digits.y_test
    with np.load(path) as file:
        if "X" in file.files:  # a fifth of the rows is for the test
            n, order = len(file["X"]), np.random.default_rng(0).permutation(len(file["X"]))
            halves = order[n // 5 :], order[: n // 5]
            parts = [file[name][rows] for rows in halves for name in ("X", "y")]
        else:
            parts = [file[name] for name in ("X_train", "y_train", "X_test", "y_test")]
    X, y, X_test, y_test = (
        part.reshape(len(part), -1) if i % 2 == 0 else part.reshape(-1)
        for i, part in enumerate(parts)
    )
    return X.astype(np.float64), y, X_test.astype(np.float64), y_test


def shuffle(args: argparse.Namespace) -> None:
    """Compare accuracies: a full shuffle, windows of a tenth, sorted rows, and shuffled ones."""
    X, y, X_test, y_test = rows_of(args.data)
    mean, deviation = X.mean(axis=0), np.maximum(X.std(axis=0), 1e-3 * X.std() + 1e-9)
    X, X_test = ((part - mean) / deviation for part in (X, X_test))
    labels, y = np.unique(y, return_inverse=True)
    y_test = np.searchsorted(labels, y_test)
    found: dict[str, list[float]] = {"full": [], "windows": [], "sorted": [], "after shuffled": []}
    warned, d = 0, X.shape[1]
    for seed in range(args.seeds):
        mixed = np.random.default_rng(seed).permutation(len(X))
        X, y = X[mixed].astype(np.float32), y[mixed]
        by_label = np.argsort(y, kind="stable")

        def score(*data: Any, seed: int = seed, **more: Any) -> float:
            net = cmlp.Network([d, 64, len(labels)], seed=seed)
            net.fit(*data, epochs=10, batch_size=32, solver="adam", learning_rate=1e-3, **more)
            return net.score(X_test, y_test)

        def windows(X: Array, y: Array) -> Any:
            return cmlp.data.arrays(Unseen(X), y, block_rows=-(-len(X) // 200))

        limit = 2 * (d * 4 + 32) * (len(X) // 10) * 8 // 7  # windows of a tenth of the rows
        found["full"].append(score(X, y))
        found["windows"].append(score(windows(X, y), memory=limit))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found["sorted"].append(score(windows(X[by_label], y[by_label]), memory=limit))
            warned += any("sorted" in str(warning.message) for warning in caught)
        with files(args.folder) as folder:
            source = cmlp.data.shuffled(windows(X[by_label], y[by_label]), folder / "out", limit)
            found["after shuffled"].append(score(source, memory=limit))
    name = Path(args.data).stem or "digits, 10 copies with noise"
    print(f"{name}: {len(X):,} rows, 200 blocks, windows of a tenth, {args.seeds} seeds")
    for name, scores in found.items():
        gap = 100 * (np.mean(scores) - np.mean(found["full"]))
        error = 100 * np.std(np.subtract(scores, found["full"]), ddof=1) / np.sqrt(len(scores))
        print(f"  {name:15} {100 * np.mean(scores):6.2f} %  {gap:+.2f} +- {error:.2f} points")
    print(f"  warned of sorted rows: {warned} of {args.seeds}")


class Unseen:
    """An array that is not in memory, as far as a source can see."""

    def __init__(self, array: Array) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, rows: Any) -> Any:
        return self.array[rows]


def overhead(args: argparse.Namespace) -> None:
    """Compare a source of small data with arrays: the bar is 5 ms and 2 % of the fit."""
    digits = load_digits()
    X, y = digits.X_train, digits.y_train
    for epochs in (1, 200):
        pairs = []
        for seed in range(3 * args.rounds):
            times = []
            for source in (False, True):
                net = cmlp.Network([64, 32, 10], input_scale=1 / 16, seed=seed)
                began = time.perf_counter()
                data = (cmlp.data.arrays(X, y),) if source else (X, y)
                net.fit(*data, epochs=epochs, n_threads=1)
                times.append(time.perf_counter() - began)
            pairs.append(times)
        arrays, source = np.median(pairs, axis=0)
        difference = float(np.median([b - a for a, b in pairs]))
        print(
            f"{epochs} epochs: arrays {arrays * 1e3:.2f} ms, source {source * 1e3:.2f} ms; median "
            f"difference {difference * 1e3:+.2f} ms (bar {5 + 20 * arrays:.1f} ms)"
        )


@contextlib.contextmanager
def files(folder: str) -> Iterator[Path]:
    path = Path(folder) / f"cmlp-sources-{os.getpid()}"
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path)


PROGRAMS = {"speed": speed, "memory": memory, "shuffle": shuffle, "overhead": overhead}


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        what, folder, limit, epochs = sys.argv[2:]
        measure(what, Path(folder), limit, int(epochs))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=PROGRAMS)
    parser.add_argument("--folder", default="/tmp")
    parser.add_argument("--gb", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--kind", default="")
    parser.add_argument("--data", default="", help="an .npz file with X_train, y_train, X_test ...")
    args = parser.parse_args()
    PROGRAMS[args.what](args)


if __name__ == "__main__":
    main()
