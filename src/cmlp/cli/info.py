"""``cmlp info``: this machine's cores, or what a model file holds."""

from __future__ import annotations

import os
import platform

import numpy as np

from cmlp import __version__
from cmlp.cli.tables import MOST_NAMES
from cmlp.core import dispatch
from cmlp.core.formatting import score, significant
from cmlp.data.frames import listed
from cmlp.estimators.loading import load
from cmlp.formats import cmlp_file
from cmlp.network import Network
from cmlp.training.progress import printable


def run(model: str | None) -> int:
    """Print about a model file, or about the cores without one; return the exit code."""
    if model is None:
        python, core = platform.python_version(), dispatch.core_info()
        print(f"cmlp       {__version__} (Python {python}, NumPy {np.__version__})\n{core}")
        return 0
    net = load(model)
    print(f"{model}: {os.path.getsize(model):,} bytes, format {cmlp_file.FORMAT_VERSION}")
    if not isinstance(net, Network):
        from cmlp.cli import model_table

        print(model_table.description(net))
        return 0
    print(net.summary())
    if net.classes is not None:
        print(f"labels    {printable(listed(net.classes, MOST_NAMES))}")
    if net.target_name:
        print(f"target    {printable(net.target_name)}")
    if net.feature_names:
        print(f"features  {printable(listed(net.feature_names, MOST_NAMES))}")
    history = net.history
    if not history.get("epoch"):
        print("trained   never")
        return 0
    print(f"trained   {len(history['epoch'])} epochs in {significant(sum(history['seconds']))} s")
    print(f"loss      {history['loss'][-1]:.6g} in the last epoch")
    if "val_loss" in history:
        best = int(np.argmin(history["val_loss"]))
        shown = f"{printable(history.metric) or 'score'} {score(history['val_score'][best])}"
        print(f"val_loss  {history['val_loss'][best]:.6g}, {shown} in the best epoch, {best + 1}")
    return 0
