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
from itertools import pairwise
from typing import Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.distributed.communicator import Communicator, RingBroken

CHUNK, SHORT = 1 << 20, 1 << 16
"""Bytes that are added while the next ones arrive; and of sums that always go round whole."""

LONGEST = 1 << 26
"""Bytes of a message of any length, at most: what was announced is allocated."""

HEADER, MAGIC = struct.Struct("<8sQQ"), b"cmlpring"
"""24 bytes before each message: magic, step, bytes; of which ring it is was proved before."""

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
    timeout : float
        Seconds without a byte after which a rank counts as lost.
    abort : threading.Event, optional
        Ends the ring from another thread, within a second.
    """

    def __init__(
        self, rank: int, size: int, out: Any = None, into: Any = None, *, timeout: float = 60.0,
        abort: threading.Event | None = None,
    ) -> None:  # fmt: skip
        self.rank, self.size, self.timeout = rank, size, timeout
        self.out, self.into, self.abort = out, into, abort or threading.Event()
        self.step, self.closed = 0, False
        self.queue: deque[memoryview] = deque()
        self.scratch = memoryview(bytearray(CHUNK))
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
        return HEADER.pack(MAGIC, self.step, n)

    def _announced(self, expected: int | None = None) -> int:
        """Receive a header, and return the length of what follows.

        Raises
        ------
        RingBroken
            If it is not that of this call: the ranks are out of step.
        """
        header = bytearray(HEADER.size)
        self._transfer(header)
        magic, step, n = HEADER.unpack(header)
        known = (magic, step) == (MAGIC, self.step)
        if not known or (n > LONGEST if expected is None else n != expected):
            self.close()
            raise RingBroken(
                f"sent step {step} with {n:,} bytes, not step {self.step}"
                + ("" if expected is None else f" with {expected:,}"),
                (self.rank - 1) % self.size,
            )
        return int(n)

    # Messages ------------------------------------------------------------------------------------

    def gather(self, message: bytes) -> list[bytes]:
        """Return the messages of all ranks, to every rank."""
        found = self._around([message])
        return [message if room is None else bytes(room) for room in found]

    def broadcast(self, array: Array, root: int = 0) -> None:
        """Replace an array by that of a rank; it is unchanged until all has arrived."""
        mine = [array.tobytes()] if self.rank == root else []
        lengths = [array.nbytes if rank == root else 0 for rank in range(self.size)]
        found = self._around(mine, lengths)[root]
        if found is not None:
            array[...] = np.frombuffer(found, array.dtype).reshape(array.shape)

    def _around(
        self, parts: Sequence[Any], lengths: Sequence[int] | None = None,
        sums: Sequence[Array] | None = None,
    ) -> list[Any]:  # fmt: skip
        """Send some bytes to all ranks, and return theirs: in memory that the next call reuses.

        What arrives for others is sent to them in pieces, before all of it is here; if there are
        `sums`, an array for each rank, it is added to that one, and the sum is sent.
        """
        if self.abort.is_set():
            self.close()
            raise RingBroken("the training was aborted")
        found: list[Any] = [None] * self.size
        self.step += 1
        if self.size > 1:
            self._send(self._header(sum(memoryview(part).nbytes for part in parts)), *parts)
        for distance in range(1, self.size):
            source, passes = (self.rank - distance) % self.size, distance < self.size - 1
            n = self._announced(None if lengths is None else lengths[source])
            if len(self.rooms[distance]) != n and sums is None:
                self.rooms[distance] = bytearray(n)
            memory: Any = self.rooms[distance] if sums is None else sums[source]
            room = found[source] = memoryview(memory).cast("B")
            if passes:
                self._send(self._header(n))
            for start in range(0, n, CHUNK):
                piece = room[start : start + CHUNK]
                self._transfer(piece if sums is None else self.scratch[: len(piece)])
                if sums is not None:
                    total = np.frombuffer(piece, sums[source].dtype)
                    total += np.frombuffer(self.scratch[: len(piece)], total.dtype)
                if passes:
                    self._send(piece)
        self._transfer()
        return found

    def allreduce(self, array: Array, tail: Array | None = None) -> None:
        """Replace an array by the sum of all ranks', the same bits on every rank."""
        flat, tail, size = np.ravel(array), np.empty(0) if tail is None else tail, self.size
        whole, owned = size <= 2 or flat.nbytes <= SHORT, [flat] * size
        if not whole:  # a segment collects all ranks' parts on its way round to who owns it
            cuts = [len(flat) * rank // size for rank in range(size + 1)]
            first, *others = segments = [flat[start:stop] for start, stop in pairwise(cuts)]
            self._around([segments[self.rank]], [each.nbytes for each in segments], segments)
            owned = [*others, first]
        mine, n = owned[self.rank], tail.nbytes
        found = self._around([tail, mine], [n + each.nbytes for each in owned])
        add_up([tail if each is None else np.frombuffer(each[:n]) for each in found], tail)
        parts = [mine if each is None else np.frombuffer(each[n:], mine.dtype) for each in found]
        if whole:
            add_up(parts, flat)
        else:
            for segment, part in zip(owned, parts, strict=True):
                segment[:] = part
        if not array.flags.c_contiguous:
            array[...] = flat.reshape(array.shape)


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
    rank, size, out, into, timeout, abort : object
        As of :class:`SocketRing`; :meth:`make` passes them.
    """

    @classmethod
    def make(cls, n: int, timeout: float = 60.0) -> list[ThreadRing]:
        """Return n communicators, one for each thread."""
        pairs = [socket.socketpair() if n > 1 else (None, None) for _ in range(n)]
        return [
            cls(rank, n, pairs[rank][0], pairs[rank - 1][1], timeout=timeout) for rank in range(n)
        ]
