"""The example for Spark, where Spark is installed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "spark.py"


@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java")
def test_the_tasks_of_a_stage_train_one_network():
    for name in ("pyspark", "pandas", "pyarrow"):
        pytest.importorskip(name)
    paths = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)], capture_output=True, text=True, check=False, timeout=900,
        env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    losses = re.search(r"losses (.*)", done.stdout)[1].split()
    assert len(losses) == 3 and float(losses[-1]) < float(losses[0])
    assert float(re.search(r"accuracy (.*)", done.stdout)[1]) > 0.95
