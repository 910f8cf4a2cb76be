"""Kill a training at random moments, and continue it: the bits are those of one that was not.

    PYTHONPATH=src python tools/checkpoint_kills.py --kills 30

Half of the kills are of a training in memory, half of one in windows. After each kill the file must
be readable. With --disk FOLDER on a small file system, checkpoints are also written to a full disk.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

import cmlp

PROGRAM = """
import sys, numpy as np, cmlp
memory, path, out = sys.argv[1:]
net = cmlp.Network([20, 64, 3], seed=1, normalization="batch")
history = net.fit(
    cmlp.data.npy("X*.npy", "y*.npy"), epochs=6, batch_size=32, solver="adam", dropout=0.1,
    schedule="cosine", ema=0.9, validation_fraction=0.1, patience=50, memory=memory,
    checkpoint=path or None, checkpoint_every=0, resume=bool(path),
)
np.save(out, np.concatenate([net.params, net.moments.ravel(), history["loss"]]))
"""


def program(folder: Path, memory: str, path: str, out: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, memory, path, out]
    return subprocess.Popen(command, cwd=folder)


def write_rows(folder: Path, n: int = 120_000) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 20)).astype(np.float32)
    y = (X[:, 0] > -0.5).astype(int) + (X[:, 1] > 0.5)
    for number, part in enumerate(np.array_split(np.arange(n), 7)):
        np.save(folder / f"X{number}.npy", X[part])
        np.save(folder / f"y{number}.npy", y[part])


def kill(folder: Path, memory: str, kills: int) -> None:
    began = time.perf_counter()
    assert program(folder, memory, "", "whole.npy").wait() == 0
    seconds, killed, ended = time.perf_counter() - began, 0, 0
    whole, file = np.load(folder / "whole.npy"), folder / "run.cmlp"
    while killed < kills:
        process = program(folder, memory, "run.cmlp", "resumed.npy")
        try:
            process.wait(random.uniform(0.3, 0.9) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            ended += 1
            assert (np.load(folder / "resumed.npy") == whole).all(), "other bits"
            file.unlink()
        else:
            killed += 1
            if file.exists():
                cmlp.load(file)
    assert program(folder, memory, "run.cmlp", "resumed.npy").wait() == 0
    assert (np.load(folder / "resumed.npy") == whole).all(), "other bits"
    print(f"memory={memory!r}: {killed} kills, {ended + 1} trainings ended, all with the same bits")


def fill(disk: str) -> None:
    """Write checkpoints to a disk that becomes full."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(5000, 20)), rng.integers(0, 3, 5000)
    path = Path(disk) / "run.cmlp"
    nets = [cmlp.Network([20, 400, 400, 3], seed=1) for _ in range(3)]
    nets[0].fit(X, y, epochs=6)
    full = Path(disk) / "full"

    def use_up(state: cmlp.TrainingState) -> None:
        if state.epoch == 2:
            with open(full, "wb") as file:
                try:
                    while True:
                        file.write(bytes(1 << 16))
                        file.flush()
                except OSError:
                    pass

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            history = nets[1].fit(
                X, y, epochs=6, checkpoint=path, checkpoint_every=0, callbacks=[use_up]
            )
        finally:
            full.unlink()
    kept = cmlp.load(path)
    nets[2].fit(X, y, epochs=6, checkpoint=path, resume=True)
    assert (nets[2].params == nets[0].params).all() and (nets[1].params == nets[0].params).all()
    print(
        f"full disk: {history.checkpoint_errors} errors, {len(caught)} warning, the older file has "
        f"{kept.history.epochs} epochs; continued from it: the same bits"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--disk", help="a folder on a file system of a few MB")
    args = parser.parse_args()
    source = os.path.dirname(os.path.dirname(cmlp.__file__))
    os.environ["PYTHONPATH"] = os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])
    if args.disk:
        fill(args.disk)
    for memory in ("1 GB", "3 MB"):
        with tempfile.TemporaryDirectory() as folder:
            write_rows(Path(folder))
            kill(Path(folder), memory, args.kills // 2)


if __name__ == "__main__":
    main()
