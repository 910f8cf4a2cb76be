"""Train one network in the tasks of a Spark job: a barrier stage, whose tasks make a ring.

    pip install cmlp pyspark pandas pyarrow
    python examples/spark.py          # here two tasks of this machine are the cluster

Each task writes the rows of its partition to a folder that all tasks see, since Spark yields them
once only, and training reads them in every epoch. If a task is lost, Spark starts the stage anew,
which continues from the checkpoint.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import cmlp
from cmlp.distributed import Listener


def task(frames: Iterator[Any], folder: str, epochs: int) -> Iterator[Any]:
    """Train as one rank; the last column has the targets. Yield the losses, from rank 0."""
    import pandas as pd
    from pyspark import BarrierTaskContext

    context = BarrierTaskContext.get()
    rank = context.partitionId()
    for i, frame in enumerate(frames):
        np.save(f"{folder}/X_{rank:04}_{i:04}.npy", frame.iloc[:, :-1].to_numpy(np.float32))
        np.save(f"{folder}/y_{rank:04}_{i:04}.npy", frame.iloc[:, -1].to_numpy())
    listener = Listener(context.getTaskInfos()[rank].address.split(":")[0])
    told = context.allGather(f"{listener.address} {secrets.token_hex(32)}")  # all have written
    addresses, token = [each.split()[0] for each in told], told[0].split()[1].encode()
    source = cmlp.data.npy(f"{folder}/X_*.npy", f"{folder}/y_*.npy")
    net = cmlp.Network([source.n_features, 32, 2], seed=0)
    with listener.ring(addresses, rank, token) as comm:
        history = net.fit(source, epochs=epochs, batch_size=256, comm=comm,
                          checkpoint=f"{folder}/run.cmlp", resume=True)  # fmt: skip
    if rank == 0:
        net.save(f"{folder}/net.cmlp")
        yield pd.DataFrame({"loss": history["loss"]})


def main() -> None:
    """Train on a frame of two partitions, and print the losses and the accuracy."""
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    spark = (
        SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    )
    frame = spark.range(20_000).selectExpr("rand(1) a", "rand(2) b", "rand(3) c")
    frame = frame.selectExpr("a", "b", "c", "int(a + b > 2 * c) y").repartition(2)
    with tempfile.TemporaryDirectory() as folder:
        found = frame.mapInPandas(
            lambda frames: task(frames, folder, 3), "loss double", barrier=True
        ).collect()
        net = cmlp.load(Path(folder) / "net.cmlp")
    rows = frame.toPandas().to_numpy()
    print("losses", *(f"{row.loss:.4f}" for row in found))
    print(f"accuracy {net.score(rows[:, :-1], rows[:, -1].astype(int)):.3f}")
    spark.stop()


if __name__ == "__main__":
    sys.exit(main())
