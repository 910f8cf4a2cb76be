"""The driver of rounds: it keeps a ring of the workers that are there, and starts one round more.

A round is one task in each worker. When any of them ends badly, the others end, too, within
moments or `timeout`; then a ring of those that are left, and of new ones, begins at the furthest
position that one of them, or the driver, has. A worker that was lost is no special case: while it
is among the members, a task to admit it waits there until it can run.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, cast

from cmlp.core.checks import check_integer, check_number
from cmlp.core.errors import warn
from cmlp.dask import worker
from cmlp.dask.cluster import ANSWER, Cluster, Task, Waiting
from cmlp.dask.errors import TrainingFailed
from cmlp.dask.shares import Shares
from cmlp.dask.worker import EVICTION, Outcome, Place, Ring
from cmlp.distributed.rank import Round

SILENT = "does not answer"

SETTLE = 0.3
"""Seconds in which a broken ring ends by itself."""


@dataclass
class Limits:
    """How long to wait for what; see :func:`cmlp.dask.train`. Checked when made."""

    min_workers: int
    wait: float
    timeout: float
    retries: int
    round_seconds: float

    def __post_init__(self) -> None:
        check_integer("min_workers", self.min_workers, 1)
        check_integer("retries", self.retries, 0)
        for name, least in (("wait", 0), ("timeout", 0.001), ("round_seconds", 0.001)):
            check_number(name, getattr(self, name), least)


@dataclass
class Ended:
    """How the tasks of all ranks have ended.

    Attributes
    ----------
    outcomes : dict of str to Outcome
        By address.
    lost : dict of str to str
        What was seen of workers without an outcome.
    """

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)

    @property
    def is_bad(self) -> bool:
        """Whether any has not done what it should."""
        return bool(self.lost) or any(one.kind != "done" for one in self.outcomes.values())


class Rounds:
    """The workers of one training.

    Parameters
    ----------
    place : Place
        What a rank is made of.
    shares : Shares
        What each rank carries.
    port : int or callable

    Attributes
    ----------
    state, position : object
        The latest that the driver has, of which it can begin anew if all workers are lost.
    ring : list of str
        Addresses by rank.
    story : list of str
        What was lost.
    """

    def __init__(
        self, cluster: Cluster, limits: Limits, place: Place, shares: Shares, port: Any
    ) -> None:
        self.cluster, self.limits, self.place = cluster, limits, place
        self.shares, self.port = shares, port
        self.run = uuid.uuid4().hex[:12]
        self.state: Any = None
        self.position: Any = None
        self.attempt = self.failures = self.number = 0
        self.refused: dict[str, str] = {}
        self.ring: list[str] = []
        self.first: list[Ring] | None = None
        self.asked: set[str] = set()
        self.claimed: set[str] = set()
        self.admitted: set[str] = set()
        self.admitting: dict[str, Task] = {}
        self.later: dict[str, float] = {}
        self.story: list[str] = []
        self.keeper = Keeper(cluster, self.run, limits.timeout, self.admitted)

    # What a training calls

    def next(self, seconds: float, fetches: bool) -> Round:
        """Return the next round that rank 0 has finished; its state is here, if it is wanted.

        Raises
        ------
        TrainingFailed, ClusterLost
            If there are too few workers, or rounds fail one after another.
        Exception
            What a rank has raised, with the worker's name and its traceback as notes.
        """
        while True:
            if not (self.ring and self._is_current()):
                self._assemble()
                if not self._form():
                    continue
            self.number += 1
            tasks = [
                self.cluster.submit(
                    address, worker.work, self.run, self.attempt, self.number,
                    self.first and self.first[rank], seconds, fetches,
                )
                for rank, address in enumerate(self.ring)
            ]  # fmt: skip
            ended = self._ended(tasks, seconds + 2 * self.limits.timeout + EVICTION)
            self.first = None
            done = {at: one.value for at, one in ended.outcomes.items() if one.kind == "done"}
            found, state = done.get(self.ring[0], (None, None))
            if ended.is_bad:
                self._lost(ended, "round", finished=bool(done))
            self.failures = 0 if done else self.failures
            if state is not None:
                self.position, self.state = found.position, state
            if found is not None:
                return cast(Round, found)

    def interrupt(self) -> None:
        """End the running round."""
        self.cluster.tell(self.ring, worker.renew, self.run, self.attempt)

    def close(self, lost: bool = False) -> None:
        """Free the workers, unless the cluster was lost."""
        self.keeper.close()
        if lost:
            return
        self.cluster.forget(self.admitting.values())
        self.cluster.tell(self.asked, worker.leave, self.run, True)

    # Who takes part

    def _eligible(self) -> list[str]:
        """Return the workers that may take part."""
        members = self.cluster.members()
        self.asked.intersection_update(members)
        self.claimed.intersection_update(members)  # in place: the keeper has them, too
        self.admitted.intersection_update(members)
        for address in self.admitting.keys() - members.keys():
            del self.admitting[address]
        found = [address for address, about in members.items() if about["status"] == "running"]
        if self.cluster.most is not None:
            mine = sorted(found, key=self._rank_of)  # stable
            found = [each for each in found if each in mine[: self.cluster.most]]
        return found

    def _rank_of(self, address: str) -> int:
        """Whose place is first: those who take part, then others, then those who do not answer."""
        silent = self.refused.get(address) == SILENT
        return 0 if address in self.claimed else 2 if silent else 1

    def _is_current(self) -> bool:
        """Whether the ring has those who are ready, and no others; admit new workers."""
        eligible = self._eligible()
        self._admit(eligible)
        ready = [address for address in eligible if address in self.admitted]
        return set(self.ring) == set(ready)

    def _admit(self, eligible: list[str]) -> None:
        """Begin to admit workers, and see who is."""
        for address in eligible:
            if address not in self.claimed and self.later.get(address, 0.0) < time.monotonic():
                self._claim(address)
        for address, task in list(self.admitting.items()):
            if task.ended:
                del self.admitting[address]
                outcome = task.outcome(self.limits.timeout)
                if outcome is not None and outcome.kind == "done":
                    self.admitted.add(address)
                elif outcome is not None and outcome.kind == "error":
                    self._raise(address, outcome)
                else:  # its claim has ended
                    self.claimed.discard(address)
        for address in eligible:
            new = address not in self.admitted and address not in self.admitting
            if new and address in self.claimed:
                arguments = self.run, self.attempt, self.place
                self.admitting[address] = self.cluster.submit(address, worker.admit, *arguments)

    def _claim(self, address: str) -> str:
        """Claim a worker; return what refuses, or nothing."""
        self.asked.add(address)
        arguments = worker.claim, self.run, self.limits.timeout
        refused = str(self.cluster.tell([address], *arguments).get(address, SILENT))
        if refused:
            self.refused[address], self.later[address] = refused, time.monotonic() + 2 * ANSWER
        else:
            self.claimed.add(address)
            self.refused.pop(address, None)
        return refused

    def _claim_all(self) -> None:
        """Claim all workers or none, so that of two trainings one waits for the other."""
        end, delay, last = time.monotonic() + self.limits.wait, 0.1, False
        while True:
            for address in sorted(self._eligible()):
                if self._claim(address) not in ("", SILENT) and not last:
                    break
            busy = set(self.refused.values()) - {SILENT}
            if len(self.claimed) >= self.limits.min_workers and (last or not busy):
                return
            if last:
                raise self._too_few(len(self.claimed))
            if busy:
                self.cluster.tell(self.claimed, worker.leave, self.run, False)
                self.claimed.clear()
                self.refused.clear()
            time.sleep(delay)
            delay, last = min(1.0, 1.5 * delay), time.monotonic() > end

    def _too_few(self, n: int) -> TrainingFailed:
        told = self.refused | dict.fromkeys(self.admitting, "busy: no task starts there")
        least = self.limits.min_workers
        return TrainingFailed(
            f"{n} workers can take part, and at least {least} must; waited {self.limits.wait:g} s",
            self.story + [f"{address}: {why}" for address, why in told.items()],
        )

    def _assemble(self) -> None:
        """Wait for workers that take part; at the beginning for all of them, if they are quick."""
        began, first = time.monotonic(), not self.claimed and not self.ring
        if first:
            self._claim_all()
        while True:
            eligible = self._eligible()
            self._admit(eligible)
            ready = [address for address in eligible if address in self.admitted]
            waited = time.monotonic() - began
            complete = not self.admitting or not first or waited > self.limits.timeout
            if ready and len(ready) >= self.limits.min_workers and complete:
                self.ring = ready
                return
            if waited > self.limits.wait:
                raise self._too_few(len(ready))
            if self.admitting:
                Waiting(self.admitting.values()).wait(0.2)
            else:
                time.sleep(0.1)

    # A ring

    def _form(self) -> bool:
        """Prepare the members of a ring; return whether all of them are ready for a round."""
        self.attempt += 1
        tasks = []
        for address, held in zip(
            self.ring, self.shares.held(self.cluster.client, self.ring), strict=True
        ):
            arguments = self.run, self.attempt, self.port, held
            tasks.append(self.cluster.submit(address, worker.listen, *arguments))
        limit = self.limits.wait if self.shares.partitions else self.limits.timeout
        ended = self._ended(tasks, limit)
        if ended.is_bad:
            self._lost(ended, "a new ring")
            return False
        told = [ended.outcomes[address].value for address in self.ring]
        positions = [position for _, position in told]
        first = self.position >= max(positions)  # also of ranks that have not begun
        addresses, token = [address for address, _ in told], secrets.token_bytes(32)
        self.first = [
            Ring(addresses, rank, token, self.state if first and rank == 0 else None)
            for rank in range(len(self.ring))
        ]
        return True

    def _ended(self, tasks: list[Task], limit: float) -> Ended:
        """Wait for the end of all tasks; who is lost or does not answer has none."""
        ended, waiting, pending = Ended(), Waiting(tasks), list(tasks)
        began = looked = time.monotonic()
        bad_since, told = 0.0, False
        while True:
            for task in [task for task in pending if task.ended]:
                pending.remove(task)
                outcome = task.outcome(self.limits.timeout)
                if outcome is None:
                    ended.lost[task.address] = task.why() or "its answer was lost"
                else:
                    ended.outcomes[task.address] = outcome
            if not pending:
                return ended
            now = time.monotonic()
            if ended.is_bad and not bad_since:
                bad_since, looked = now, 0.0
            if now - looked > 1:
                looked = now
                members = self.cluster.members()
                left = [task for task in pending if task.address not in members]
                self.cluster.forget(left)
                for task in left:
                    pending.remove(task)
                    ended.lost[task.address] = "has left the cluster"
            if not told and ((bad_since and now - bad_since > SETTLE) or now - began > limit):
                told = self._tell_to_end(pending, ended, bool(bad_since))
                began, bad_since = time.monotonic(), bad_since and time.monotonic()
            elif told and now - began > EVICTION:
                self.cluster.forget(pending)
                for task in pending:
                    ended.lost[task.address] = "does not end its round, or did not start it"
                return ended
            if pending:
                waiting.wait(0.1 if bad_since else 0.3)

    def _tell_to_end(self, pending: list[Task], ended: Ended, bad: bool) -> bool:
        """Tell ranks to end, if any has failed; return whether they were told.

        If none has, and all are running, they get more time: a step or a reading is just long.
        """
        addresses = [task.address for task in pending]
        if not bad:
            running = self.cluster.tell(addresses, worker.renew, self.run)
            if len(running) == len(pending) and all(each is True for each in running.values()):
                return False
        answers = self.cluster.tell(addresses, worker.renew, self.run, self.attempt)
        silent = [task for task in pending if task.address not in answers]
        self.cluster.forget(silent)
        for task in silent:
            pending.remove(task)
            ended.lost[task.address] = f"does not answer for {ANSWER:g} s, as if it were stopped"
        return True

    def _lost(self, ended: Ended, what: str, finished: bool = False) -> None:
        """Note who was lost; raise a rank's own error, or give up after too many failures."""
        for address, outcome in ended.outcomes.items():
            if outcome.kind == "error":
                self._raise(address, outcome)
        clock = time.strftime("%H:%M:%S")
        for address, seen in ended.lost.items():
            self.story.append(f"{clock} {address}: {seen} ({what} after {self.position})")
        for address, outcome in ended.outcomes.items():
            if outcome.kind == "gone":
                self.claimed.discard(address)
                self.story.append(f"{clock} {address}: does not know this training any more")
            elif outcome.kind == "broken" and not ended.lost:
                whom = "" if outcome.waited_for is None else self.ring[outcome.waited_for]
                self.story.append(f"{clock} {address} waited for {whom or '?'}: {outcome.seen}")
        self.admitted -= ended.lost.keys() | {
            address for address, one in ended.outcomes.items() if one.kind == "gone"
        }
        self.ring, self.first = [], None
        self.failures += 1
        if self.failures > self.limits.retries and not finished:
            raise TrainingFailed(
                f"{self.failures} rounds failed one after another (retries="
                f"{self.limits.retries}); the network holds the last state that was seen whole",
                self.story,
            )
        if ended.lost:
            warn(f"a worker was lost, and the training continues: {self.story[-1]}")

    def _raise(self, address: str, outcome: Outcome) -> None:
        """Raise what a rank has raised."""
        error: BaseException = outcome.value
        error.add_note(f"This is of the worker {address}:\n{outcome.seen}")
        raise error


class Keeper:
    """A thread of the driver that tells its workers that it is alive.

    It renews claims several times in each `timeout`, also while a callback takes long.
    """

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
