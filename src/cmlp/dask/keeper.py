"""A thread of the driver that tells its workers that it is alive."""

from __future__ import annotations

import contextlib
import threading

from cmlp.dask import worker
from cmlp.dask.cluster import ANSWER, Cluster


class Keeper:
    """Renews claims several times in each `timeout`, also while a callback takes long."""

    def __init__(self, cluster: Cluster, run: str, timeout: float, members: set[str]) -> None:
        self.cluster, self.run, self.members = cluster, run, members
        self.every, self.ended = max(0.2, timeout / 4), threading.Event()
        self.thread = threading.Thread(target=self._renew, name="cmlp keeper", daemon=True)
        self.thread.start()

    def _renew(self) -> None:
        while not self.ended.wait(self.every):
            with contextlib.suppress(Exception):  # as of a set that has changed just now
                limit = min(ANSWER, self.every)  # one that is stopped delays no others
                self.cluster.tell(list(self.members), worker.renew, self.run, limit=limit)

    def close(self) -> None:
        """End the thread."""
        self.ended.set()
