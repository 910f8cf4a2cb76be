"""The driver of rounds: it keeps a ring of the workers that are there, and starts one round more.

A round is one task in each worker. When any of them ends badly, the others end, too, within
moments or `timeout`; then a ring of those that are left, and of new ones, begins at the furthest
position that one of them, or the driver, has. A worker that was lost is no special case: it is
claimed again as soon as it answers, and has a thread for it.
"""

from __future__ import annotations

import contextlib
import math
import random
import secrets
import threading
import time
import uuid
from typing import Any

import cloudpickle

import cmlp
from cmlp.core.errors import warn
from cmlp.dask import worker
from cmlp.dask.cluster import ANSWER, Cluster, Task, TrainingFailed
from cmlp.dask.partitions import UNEVEN, partitions_in
from cmlp.dask.worker import BUSY, EVICTION, Outcome
from cmlp.data.rows import Data
from cmlp.data.source import Source
from cmlp.distributed.rank import MEASURED, QUIET, Rank, Round, Settings

SILENT = "does not answer, as if it were stopped"

POOR, GOOD = 0.7, 0.85
"""Shares of computing in the time, below which a warning names how to come to the other."""

FETCHED = 10.0
"""Seconds from which the state in this process is old: all that is lost if all workers are."""

SETTLE = 0.3
"""Seconds in which a broken ring ends by itself, and one who was killed leaves the cluster."""


class Rounds(Rank):
    """The rank of the driver, whose steps are those of the workers.

    It has callbacks, output and checkpoints, and the state that is continued where all workers are
    lost.

    Attributes
    ----------
    ring : list of str
        Addresses by rank.
    claimed : dict of str to bool
        Workers that are claimed, and whether they have a rank.
    refused : dict of str to (str, float)
        Others: why they are not, and when to ask again.
    name : str
        Of this training, in the workers.
    ticket : int
        Of the latest tasks.
    story : list of str
        What was lost.
    fetched : float
        When the state was fetched from the workers.
    computed, waited : float
        Seconds of rank 0 of the ring: for steps, and for the other ranks.
    """

    def __init__(
        self, cluster: Cluster, net: Any, source: Source, settings: Settings, held_out: Data | None
    ) -> None:
        super().__init__(net, source, settings, held_out)
        self.cluster, self.limits, self.partitions = cluster, cluster.limits, partitions_in(source)
        self.place = cloudpickle.dumps((net, source, settings.changed(**QUIET), held_out))
        self.name, self.ticket, self.failures = uuid.uuid4().hex[:12], 0, 0
        self.ring: list[str] = []
        self.claimed: dict[str, bool] = {}
        self.refused: dict[str, tuple[str, float]] = {}
        self.story: list[str] = []
        self.fetched, self.warned, self.advised = time.monotonic(), False, False
        self.computed = self.waited = 0.0
        self.closed = threading.Event()

    def run(self) -> str:
        """Train in rounds, and return why training ended.

        Raises
        ------
        TrainingFailed, ClusterLost
            If there are too few workers, or rounds fail one after another.
        Exception
            What a rank has raised, with the worker's name and its traceback as notes.
        """
        threading.Thread(target=self.keep_alive, name="cmlp keeper", daemon=True).start()
        try:
            return super().run()
        finally:
            self.closed.set()
            self.cluster.tell({*self.claimed, *self.refused}, worker.leave, self.name, True)

    def _epochs(self) -> str:
        """Wait for a round, and show epochs that are new: several, if the end of one was lost."""
        known, keeper, now = self.state.epoch, self.keeper, time.perf_counter()
        due = keeper is not None and now - keeper.last >= keeper.every
        shows = bool(self.callbacks or self.settings.options.verbose)
        found, state = self._next(self.deadline.end - now, shows or due), self.state
        for epoch in range(known, state.epoch):
            state.epoch = epoch + 1
            self.rules.progress.epoch({key: each[epoch] for key, each in state.history.items()})
            self._call_back("on_epoch_end")
        reason = found.ended or ("callback" if state.stop else self.deadline.reason)
        if due or (keeper is not None and reason == "max_time"):
            keeper.save(now=True)
        self._heed_interrupt()
        return reason

    def _next(self, left: float, wanted: bool) -> Round:
        """Return the next round that rank 0 of a ring has finished.

        Parameters
        ----------
        left : float
            Seconds until training ends.
        wanted : bool
            Whether the state is wanted here; it is fetched at times in any case.
        """
        while True:
            self._heed_interrupt()
            if not self.ring or set(self.ring) != set(self._ready()):
                self._assemble()
                if not self._form():
                    continue
            seconds, old = self.limits.round_seconds, time.monotonic() - self.fetched > FETCHED
            fetches = wanted or old or left < 2 * seconds
            arguments = [(min(seconds, max(0.0, left)), fetches)] * len(self.ring)
            told = self._each("work", arguments, self.limits.timeout)[0]
            if told is not None:
                found: Round = told[0]
                if told[1] is not None:
                    self.restore(told[1])
                    self.fetched = time.monotonic()
                self._advise(found)
                return found

    def _advise(self, found: Round) -> None:
        """Warn once, after some steps, if workers wait for each other more than they compute."""
        feed = self.feed
        step = found.position.step or -(-feed.n_rows // feed.batch_size)
        self.computed, self.waited = self.computed + found.computed, self.waited + found.waited
        share = self.computed / max(1e-9, self.computed + self.waited)
        if self.advised or len(self.ring) < 2 or step < MEASURED:
            return
        self.advised = True
        if share < POOR:
            k = math.ceil(self.waited / max(1e-9, self.computed) * GOOD / (1 - GOOD))
            warn(
                f"workers compute {100 * share:.0f} % of the time, and wait for each other else; "
                f"batch_size={k * feed.batch_size} or sync_every={k * (self.k or 1)} would make it "
                f"about {100 * GOOD:.0f} %, or one machine is enough"
            )

    def keep_alive(self) -> None:
        """Renew the claims several times in each `timeout`, also while a callback takes long."""
        every = max(0.2, self.limits.timeout / 4)
        while not self.closed.wait(every):
            with contextlib.suppress(Exception):  # as of a dict that has changed just now
                limit = min(ANSWER, every)  # one that is stopped delays no others
                self.cluster.tell(list(self.claimed), worker.renew, self.name, limit=limit)

    # Who takes part

    def _ready(self) -> list[str]:
        """Claim the workers that may take part, and return those that are."""
        members, now = self.cluster.members(), time.monotonic()
        self.claimed = {at: has for at, has in self.claimed.items() if at in members}
        self.refused = {at: why for at, why in self.refused.items() if at in members}
        active = self.cluster.active(members)
        mine = sorted(active, key=lambda each: (each not in self.claimed, each in self.refused))
        found = [each for each in active if each in mine[: self.cluster.most]]
        new = [
            address for address in found
            if address not in self.claimed and self.refused.get(address, ("", 0.0))[1] <= now
        ]  # fmt: skip
        told = self.cluster.tell(
            new, worker.claim, self.name, self.limits.timeout, cmlp.__version__
        )
        for address in new:
            why = str(told.get(address, SILENT))
            if why:
                self.refused[address] = why, now + (2 * ANSWER if why == SILENT else 1.0)
            else:
                self.claimed[address] = False
                self.refused.pop(address, None)
        return [address for address in found if address in self.claimed]

    def _assemble(self) -> None:
        """Wait for workers; a training that begins waits for all, while others have some.

        Of two that begin at once one gives back what it has, and so waits for the other.
        """
        began = time.monotonic()
        while True:
            ready, waited = self._ready(), time.monotonic() - began
            self._heed_interrupt()
            busy = {why for why, _ in self.refused.values()} - {SILENT}
            patience = 0.0
            if busy and not self.ticket and len(ready) != self.cluster.most:
                patience = self.limits.timeout if busy == {BUSY} else self.limits.wait
            if len(ready) >= self.limits.min_workers and waited >= patience:
                self.ring = ready
                return
            if waited >= self.limits.wait:
                raise TrainingFailed(
                    f"{len(ready)} workers can take part, and at least {self.limits.min_workers} "
                    f"must; waited {self.limits.wait:g} s",
                    self.story
                    + [f"{address}: {why}" for address, (why, _) in self.refused.items()]
                    + [
                        f"{address}: is {about['status']}, as one is whose memory is nearly full"
                        for address, about in self.cluster.members().items()
                        if about["status"] != "running"
                    ],
                )
            if busy - {BUSY} and not self.ticket:
                self.cluster.tell(self.claimed, worker.leave, self.name, False)
                self.claimed.clear()
                self.refused.clear()
            time.sleep(random.uniform(0.05, 0.3))

    def _heed_interrupt(self) -> None:
        if self.halt.is_set():
            raise KeyboardInterrupt

    # A ring

    def _form(self) -> bool:
        """Connect the members of a ring; return whether all of them are ready for a round."""
        patience = self.limits.timeout if self.partitions is None else self.limits.wait
        arguments: list[Any] = [
            (None if self.claimed[address] else self.place, self.limits.port, held)
            for address, held in zip(self.ring, self._held(), strict=True)
        ]
        told = self._each("listen", arguments, patience)
        if None in told:
            return False
        self.claimed.update(dict.fromkeys(self.ring, True))
        addresses, positions = zip(*told, strict=True)
        first = self.position >= max(positions)  # also of ranks that have not begun
        state, token = self.saved() if first else None, secrets.token_bytes(32)
        arguments = [
            (addresses, number, token, None if number else state)
            for number in range(len(self.ring))
        ]
        return None not in self._each("connect", arguments, self.limits.timeout)

    def _held(self) -> list[dict[int, Any]]:
        """Return the partitions that each rank carries: futures, which Dask brings there."""
        feed, size = self.feed, len(self.ring)
        carried = [feed.carried_by(number, size)[1] for number in range(size)]
        rows = [sum(stop - start for _, start, stop in spans) for spans in carried]
        if self.settings.options.verbose:
            shown = zip(self.ring, rows, strict=True)
            print("rows: " + ", ".join(f"{n:,} in {address}" for address, n in shown))
        most = max(rows) * size / max(1, sum(rows))
        if most > UNEVEN and not self.warned:
            self.warned = True
            warn(
                f"a worker has {most:.2f} times as many rows as the mean: {max(rows):,}; the "
                f"others wait for it. The rows are cut into {feed.n_shards} shards, four "
                "for each worker at the beginning"
            )
        if self.partitions is None:
            return [{}] * size
        futures, some = self.partitions.living(self.cluster.client), [(0, 0, 1)]
        return [{block: futures[block] for block, _, _ in spans or some} for spans in carried]

    def _each(self, what: str, arguments: list[Any], patience: float) -> list[Any]:
        """Call a method of all ranks, in tasks; return the results, None of those that failed."""
        self.ticket += 1
        tasks = [
            self.cluster.submit(address, worker.perform, self.name, self.ticket, what, *its_own)
            for address, its_own in zip(self.ring, arguments, strict=True)
        ]
        outcomes = self._outcomes(tasks, patience)
        told = [outcomes[address] for address in self.ring]
        found = [one.value if one.kind == "done" else None for one in told]
        finished = what == "work" and any(found)
        self.failures = 0 if finished else self.failures + (None in found)
        if None in found:
            self._lost(outcomes)
        return found

    def _outcomes(self, tasks: list[Task], patience: float) -> dict[str, Outcome]:
        """Wait for the end of all tasks, which are told to end once one has failed."""
        found: dict[str, Outcome] = {}
        end, told, pause = math.inf, False, min(2.0, self.limits.timeout / 4)
        while pending := [task for task in tasks if task.address not in found]:
            self._heed_interrupt()
            for task, seen in self.cluster.ended(pending, pause, patience).items():
                outcome = Outcome("lost", seen=seen) if seen else task.outcome(self.limits.timeout)
                found[task.address] = outcome
                if outcome.kind != "done" and end == math.inf:
                    end, pause, patience = time.monotonic() + SETTLE, SETTLE, math.inf
            if time.monotonic() < end:
                continue
            late, seen = {task.address for task in pending} - found.keys(), "does not end its task"
            if not told:
                told, end, seen = True, time.monotonic() + EVICTION, SILENT
                late -= self.cluster.tell(late, worker.renew, self.name, self.ticket).keys()
            found |= dict.fromkeys(late, Outcome("lost", seen=seen))
        return found

    def _lost(self, outcomes: dict[str, Outcome]) -> None:
        """Note who was lost; raise a rank's own error, or give up after too many failures."""
        for address, one in outcomes.items():
            if one.kind == "error":
                one.value.add_note(f"This is of the worker {address}:\n{one.seen}")
                raise one.value
        clock, ring, self.ring = time.strftime("%H:%M:%S"), self.ring, []
        lost = {address: one.seen for address, one in outcomes.items() if one.kind == "lost"}
        for address, seen in lost.items():
            self.claimed.pop(address, None)
            self.refused[address] = seen, time.monotonic() + 2 * ANSWER * (seen == SILENT)
        for address, one in outcomes.items():
            if one.kind == ("lost" if lost else "broken"):
                whom = "" if one.waited_for is None else f" waited for {ring[one.waited_for]}"
                self.story.append(f"{clock} {address}{whom}: {one.seen} (after {self.position})")
        if self.failures > self.limits.retries:
            raise TrainingFailed(
                f"{self.failures} rounds failed one after another (retries="
                f"{self.limits.retries}); the network holds the last state that was seen whole",
                self.story,
            )
        if lost:
            warn(f"a worker was lost, and the training continues: {self.story[-1]}")
