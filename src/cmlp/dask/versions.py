"""Whether the workers have the same cmlp, and which core all of them can run."""

from __future__ import annotations

from typing import Any

import cmlp
from cmlp.core.dispatch import COMPILED
from cmlp.dask.cluster import Cluster

LIMIT = 60.0
"""Seconds for the first import of cmlp in a worker."""


def found_in_worker() -> Any:
    """Return a function that tells what a worker has; it is pickled whole: cmlp may be missing."""

    def found() -> tuple[str, str]:
        import cmlp

        return cmlp.__version__, cmlp.core_info().core

    return found


def common_core(cluster: Cluster, timeout: float) -> str:
    """Return the slowest core of the workers, which all can run.

    Ranks that round in other ways would drift apart. Workers that do not answer within `timeout`
    seconds are left out: ranks compare their versions once more.

    Raises
    ------
    RuntimeError
        If cmlp is missing in a worker, or is of another version.
    """
    addresses = list(cluster.members())
    answers = cluster.tell(addresses, found_in_worker(), limit=min(timeout, LIMIT))
    missing = [each for each, told in answers.items() if isinstance(told, ModuleNotFoundError)]
    if missing:
        raise RuntimeError(
            f"cmlp is missing in {len(missing)} of {len(addresses)} workers: {', '.join(missing)}. "
            "Install it there as here, or: from distributed import PipInstall; "
            f'client.register_plugin(PipInstall(["cmlp=={cmlp.__version__}"], restart=True))'
        )
    for address, told in answers.items():
        if isinstance(told, Exception):
            told.add_note(f"This is of the worker {address}.")
            raise told
    others = [f"{at} has {told[0]}" for at, told in answers.items() if told[0] != cmlp.__version__]
    if others:
        raise RuntimeError(
            f"workers have other versions of cmlp than this process, {cmlp.__version__}: "
            f"{', '.join(others)}. Install the same one"
        )
    order = [*COMPILED, "python"]
    cores = [told[1] for told in answers.values()]
    return max(cores, key=order.index) if cores else cmlp.core_info().core
