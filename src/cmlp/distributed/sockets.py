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
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from contextlib import suppress
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
        room = memoryview(b"") if wanted is None else memoryview(wanted).cast("B")
        waits_for = (self.rank + (1 if wanted is None else -1)) % self.size
        received, heard = 0, time.monotonic()
        try:
            while received < len(room) or (wanted is None and self.queue):
                sent = self._send_some()
                n = self._receive_some(room[received:]) if received < len(room) else 0
                received += n
                if sent or n:
                    heard = time.monotonic()
                elif time.monotonic() - heard > self.timeout:
                    raise RingBroken(f"no byte for {self.timeout:g} s", waits_for)
                elif self.abort.is_set():
                    raise RingBroken("the training was aborted")
                elif received < len(room) or self.queue:
                    with Selector() as waiting:
                        if received < len(room):
                            waiting.register(self.into, selectors.EVENT_READ)
                        if self.queue:
                            waiting.register(self.out, selectors.EVENT_WRITE)
                        waiting.select(min(SLICE, self.timeout))
        except BaseException as error:
            seen = "the ring is closed" if self.closed else f"the connection failed: {error}"
            self.close()
            if isinstance(error, (OSError, ValueError)) and not isinstance(error, RingBroken):
                raise RingBroken(seen, waits_for) from error
            raise

    def _send_some(self) -> bool:
        """Send what the connection takes of the queue; return whether it took any."""
        sent = False
        with suppress(*NOT_NOW):
            while self.queue:
                data = self.queue[0]
                self.queue[0] = data[self.out.send(data) :]
                sent = True
                if not len(self.queue[0]):
                    self.queue.popleft()
        return sent

    def _receive_some(self, room: memoryview) -> int:
        """Receive what has arrived; return how many bytes."""
        with suppress(*NOT_NOW):
            n: int = self.into.recv_into(room)
            if not n:
                raise RingBroken("closed its connection", (self.rank - 1) % self.size)
            return n
        return 0

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
        found: dict[int, Any] = {self.rank: message, **self._gathered([message])}
        return [bytes(found[rank]) for rank in range(self.size)]

    def broadcast(self, array: Array, root: int = 0) -> None:
        """Replace an array by that of a rank; it is unchanged until all has arrived."""
        lengths = [array.nbytes if rank == root else 0 for rank in range(self.size)]
        found = self._gathered([array.tobytes()] if self.rank == root else [], lengths)
        if self.rank != root:
            array[...] = np.frombuffer(found[root], array.dtype).reshape(array.shape)

    def _gathered(
        self, parts: Sequence[Any], lengths: Sequence[int] | None = None
    ) -> dict[int, memoryview]:
        """Send some bytes to all ranks, and return theirs: in memory that the next call reuses.

        What arrives for others is sent to them in pieces, before all of it is here.
        """
        found: dict[int, memoryview] = {}
        self.step += 1
        if self.size > 1:
            self._send(self._header(sum(memoryview(part).nbytes for part in parts)), *parts)
        for distance in range(1, self.size):
            source = (self.rank - distance) % self.size
            n = self._announced(None if lengths is None else lengths[source])
            if len(self.rooms[distance]) != n:
                self.rooms[distance] = bytearray(n)
            room = found[source] = memoryview(self.rooms[distance])
            passes = distance < self.size - 1
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
        if self.size == 1 and self.abort.is_set():
            raise RingBroken("the training was aborted")
        if self.size == 1:
            return
        flat, tail = np.ravel(array), np.empty(0) if tail is None else tail
        if self.size == 2 or flat.nbytes <= SHORT:
            n, parts, tails = tail.nbytes, {self.rank: flat}, {self.rank: tail}
            lengths = [n + flat.nbytes] * self.size
            for rank, room in self._gathered([tail, flat], lengths).items():
                tails[rank] = np.frombuffer(room[:n], tail.dtype)
                parts[rank] = np.frombuffer(room[n:], flat.dtype)
            add_in_order([parts[rank] for rank in range(self.size)], flat)
        else:
            tails = self._reduced(flat, tail)
        add_in_order([tails[rank] for rank in range(self.size)], tail)
        if not array.flags.c_contiguous:
            array[...] = flat.reshape(array.shape)

    def _reduced(self, array: Array, tail: Array) -> dict[int, Array]:
        """Sum a long array, in segments; return the tails of all ranks."""
        self.step += 1
        size, n = self.size, len(array)
        length = max(1, CHUNK // array.itemsize)
        tails = {self.rank: tail.copy()}

        def chunks(rank: int) -> list[Array]:
            rank %= size
            first, last = n * rank // size, n * (rank + 1) // size
            return [array[at : min(at + length, last)] for at in range(first, last, length)]

        self._send(self._header(array.nbytes), tails[self.rank], *chunks(self.rank))
        self._announced(array.nbytes)
        for distance in range(1, size):  # each segment collects all ranks' parts
            source = (self.rank - distance) % size
            tails[source] = np.empty_like(tail)
            self._transfer(tails[source])
            if distance < size - 1:
                self._send(tails[source])
            for chunk in chunks(source):
                arrived = memoryview(self.scratch)[: chunk.nbytes]
                self._transfer(arrived)
                chunk += np.frombuffer(arrived, chunk.dtype)
                self._send(chunk)
        for distance in range(size - 1):  # and goes to all of them
            for chunk in chunks(self.rank - distance):
                self._transfer(chunk)
                if distance < size - 2:
                    self._send(chunk)
        self._transfer()
        return tails


def add_in_order(parts: list[Array], out: Array) -> None:
    """Write the sum of some arrays, added from the first to the last; `out` may be one of them."""
    if len(parts) == 2:
        np.add(parts[0], parts[1], out=out)
    else:
        out[...] = functools.reduce(np.add, parts)


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
