"""SocketRing: ranks of other processes, each connected with the next one and the one before.

Two connections of one direction each, also between two ranks, which one thread of the caller serves
without blocking: it sends what is queued while it waits for what it needs. A sum goes round in
segments that are added as they arrive (reduce-scatter), then round again (all-gather). A short one
goes round whole, and every rank adds all parts in the same order; so does one of two ranks, which
is as many bytes, and one message to wait for in place of two.
"""

from __future__ import annotations

import functools
import selectors
import socket
import ssl
import struct
import threading
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.distributed.communicator import Communicator, RingBroken

CHUNK, SHORT = 1 << 20, 1 << 16
"""Bytes that are added while the next ones arrive; and of sums that always go round whole."""

LONGEST = 1 << 26
"""Bytes of a message of any length, at most: what was announced is allocated."""

HEADER, MAGIC = struct.Struct("<8sQQQ"), b"cmlpring"
"""32 bytes before each message: magic, attempt, step, bytes."""

SLICE = 1.0
"""Seconds between two checks of the abort flag."""

Selector: Any = getattr(selectors, "PollSelector", selectors.SelectSelector)
"""What waits for connections: of any number where it can, and without a call of the system more."""

NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""What a connection raises that takes or has nothing at the moment."""


class SocketRing(Communicator):
    """A communicator over two sockets; :class:`cmlp.distributed.Listener` makes it.

    Parameters
    ----------
    rank, size : int
        The number of this rank, from 0, and how many there are.
    out, into : socket
        To the next rank, and from the one before; None if there is one rank only.
    attempt : int
        Of this ring, among those of a training.
    timeout : float
        Seconds without a byte after which a rank counts as lost.
    abort : threading.Event, optional
        Ends the ring from another thread, within a second.
    """

    def __init__(
        self, rank: int, size: int, out: Any = None, into: Any = None, *, attempt: int = 0,
        timeout: float = 60.0, abort: threading.Event | None = None,
    ) -> None:  # fmt: skip
        self.rank, self.size, self.attempt, self.timeout = rank, size, attempt, timeout
        self.out, self.into, self.abort = out, into, abort or threading.Event()
        self.step, self.closed = 0, False
        self.queue: deque[memoryview] = deque()
        self.scratch = bytearray(CHUNK)
        self.rooms: defaultdict[int, bytearray] = defaultdict(bytearray)
        for each in (out, into) if size > 1 else ():
            each.setblocking(False)

    def close(self, error: BaseException | None = None) -> None:
        """Close the connections: the ranks on both sides notice it at once, and close theirs."""
        self.closed = True
        for each in (self.out, self.into) if self.size > 1 else ():
            each.close()

    __del__ = close

    # Bytes ---------------------------------------------------------------------------------------

    def _transfer(self, wanted: Any = None) -> None:
        """Receive `wanted`, and send what is queued meanwhile; without it, send all."""
        room = memoryview(b"" if wanted is None else wanted).cast("B")
        waits_for = (self.rank + (1 if wanted is None else -1)) % self.size
        silent = 0.0  # seconds that this process has waited: it may have been stopped itself
        try:
            while len(room) or (wanted is None and self.queue):
                moved = 0
                while self.queue and (n := at_once(self.out.send, self.queue[0])):
                    moved, self.queue[0] = n, self.queue[0][n:]
                    if not len(self.queue[0]):
                        self.queue.popleft()
                if len(room) and (n := at_once(self.into.recv_into, room)) is not None:
                    if not n:
                        raise RingBroken("closed its connection", waits_for)
                    moved, room = n, room[n:]
                if moved:
                    silent = 0.0
                elif silent >= self.timeout:
                    raise RingBroken(f"no byte for {self.timeout:g} s", waits_for)
                elif self.abort.is_set():
                    raise RingBroken("the training was aborted")
                else:
                    with Selector() as waiting:
                        if len(room):
                            waiting.register(self.into, selectors.EVENT_READ)
                        if self.queue:
                            waiting.register(self.out, selectors.EVENT_WRITE)
                        waits = min(SLICE, self.timeout - silent)
                        if not waiting.select(waits):
                            silent += waits
        except BaseException as error:
            seen = "the ring is closed" if self.closed else f"the connection failed: {error}"
            self.close()
            if isinstance(error, (OSError, ValueError)) and not isinstance(error, RingBroken):
                raise RingBroken(seen, waits_for) from error
            raise

    def _send(self, *parts: Any) -> None:
        self.queue.extend(memoryview(part).cast("B") for part in parts if len(part))

    def _header(self, n: int) -> bytes:
        return HEADER.pack(MAGIC, self.attempt, self.step, n)

    def _announced(self, expected: int | None = None) -> int:
        """Receive a header, and return the length of what follows.

        Raises
        ------
        RingBroken
            If it is not that of this call: the ranks are out of step.
        """
        header = bytearray(HEADER.size)
        self._transfer(header)
        magic, attempt, step, n = HEADER.unpack(header)
        known = (magic, attempt, step) == (MAGIC, self.attempt, self.step)
        if not known or (n > LONGEST if expected is None else n != expected):
            self.close()
            raise RingBroken(
                f"sent step {step} of attempt {attempt} with {n:,} bytes, not step {self.step} of "
                f"attempt {self.attempt}" + ("" if expected is None else f" with {expected:,}"),
                (self.rank - 1) % self.size,
            )
        return int(n)

    # Messages ------------------------------------------------------------------------------------

    def gather(self, message: bytes) -> list[bytes]:
        """Return the messages of all ranks, to every rank."""
        found = self._gathered([message])
        return [message if room is None else bytes(room) for room in found]

    def broadcast(self, array: Array, root: int = 0) -> None:
        """Replace an array by that of a rank; it is unchanged until all has arrived."""
        mine = [array.tobytes()] if self.rank == root else []
        lengths = [array.nbytes if rank == root else 0 for rank in range(self.size)]
        found = self._gathered(mine, lengths)[root]
        if found is not None:
            array[...] = np.frombuffer(found, array.dtype).reshape(array.shape)

    def _gathered(
        self, parts: Sequence[Any], lengths: Sequence[int] | None = None
    ) -> list[memoryview | None]:
        """Send some bytes to all ranks, and return theirs: in memory that the next call reuses.

        What arrives for others is sent to them in pieces, before all of it is here.
        """
        if self.abort.is_set():
            self.close()
            raise RingBroken("the training was aborted")
        found: list[memoryview | None] = [None] * self.size
        self.step += 1
        if self.size > 1:
            self._send(self._header(sum(memoryview(part).nbytes for part in parts)), *parts)
        for distance in range(1, self.size):
            source, passes = (self.rank - distance) % self.size, distance < self.size - 1
            n = self._announced(None if lengths is None else lengths[source])
            if len(self.rooms[distance]) != n:
                self.rooms[distance] = bytearray(n)
            room = found[source] = memoryview(self.rooms[distance])
            if passes:
                self._send(self._header(n))
            for start in range(0, n, CHUNK):
                self._transfer(room[start : start + CHUNK])
                if passes:
                    self._send(room[start : start + CHUNK])
        self._transfer()
        return found

    def allreduce(self, array: Array, tail: Array | None = None) -> None:
        """Replace an array by the sum of all ranks', the same bits on every rank."""
        flat, tail = np.ravel(array), np.empty(0) if tail is None else tail
        whole = self.size <= 2 or flat.nbytes <= SHORT
        places = [slice(None)] * self.size if whole else self._scatter(flat)
        mine, n = flat[places[self.rank]], tail.nbytes
        found = self._gathered([tail, mine], [n + flat[place].nbytes for place in places])
        add_up([tail if each is None else np.frombuffer(each[:n]) for each in found], tail)
        parts = [mine if each is None else np.frombuffer(each[n:], mine.dtype) for each in found]
        if whole:
            add_up(parts, flat)
        else:
            for place, part in zip(places, parts, strict=True):
                flat[place] = part
        if not array.flags.c_contiguous:
            array[...] = flat.reshape(array.shape)

    def _scatter(self, array: Array) -> list[slice]:
        """Sum a long array in segments, each on one rank; return which segment each rank has.

        A segment collects all ranks' parts on its way round.
        """
        size, n = self.size, len(array)
        cuts = [n * rank // size for rank in range(size + 1)]
        length = max(1, CHUNK // array.itemsize)

        def chunks(rank: int) -> list[Array]:
            first, last = cuts[rank % size], cuts[rank % size + 1]
            return [array[at : min(at + length, last)] for at in range(first, last, length)]

        self.step += 1
        self._send(self._header(array.nbytes), *chunks(self.rank))
        self._announced(array.nbytes)
        for distance in range(1, size):
            for chunk in chunks(self.rank - distance):
                arrived = memoryview(self.scratch)[: chunk.nbytes]
                self._transfer(arrived)
                chunk += np.frombuffer(arrived, chunk.dtype)
                if distance < size - 1:
                    self._send(chunk)
        self._transfer()
        owned = [(rank + 1) % size for rank in range(size)]
        return [slice(cuts[segment], cuts[segment + 1]) for segment in owned]


def at_once(call: Any, data: Any) -> int | None:
    """Return how many bytes a connection takes or has at the moment; None if none."""
    try:
        n: int = call(data)
    except NOT_NOW:
        return None
    return n


def add_up(parts: list[Array], out: Array) -> None:
    """Write the sum of some arrays, added from the first to the last; `out` may be one of them."""
    if len(parts) > 1:
        np.add(functools.reduce(np.add, parts[:-1]), parts[-1], out=out)


class ThreadRing(SocketRing):
    """A communicator of threads of one process, for tests and measurements.

    Parameters
    ----------
    rank, size, out, into, attempt, timeout, abort : object
        As of :class:`SocketRing`; :meth:`make` passes them.
    """

    @classmethod
    def make(cls, n: int, timeout: float = 60.0) -> list[ThreadRing]:
        """Return n communicators, one for each thread."""
        pairs = [socket.socketpair() if n > 1 else (None, None) for _ in range(n)]
        return [
            cls(rank, n, pairs[rank][0], pairs[rank - 1][1], timeout=timeout) for rank in range(n)
        ]
