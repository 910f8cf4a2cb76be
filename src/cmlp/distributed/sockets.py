"""SocketRing: ranks of other processes, each connected with the next one and the one before.

Two connections of one direction each, also between two ranks, which one thread of the caller serves
without blocking: it sends what is queued while it waits for what it needs. A sum goes round in
segments that are added as they arrive (reduce-scatter), then round again (all-gather); a short one
goes round whole, and every rank adds all parts in the same order.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
import time
import zlib
from collections import deque
from contextlib import suppress
from typing import Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.distributed.communicator import RingBroken
from cmlp.distributed.threads import sum_in_order

CHUNK, SHORT = 1 << 18, 1 << 16
"""Bytes that are added while the next ones arrive; and of sums that go round whole."""

LONGEST = 1 << 36
"""Bytes of a message, at most: what was announced is allocated."""

HEADER, MAGIC = struct.Struct("<8sQQQ"), b"cmlpring"
"""32 bytes before each message: magic, attempt, step, bytes."""

SLICE = 1.0
"""Seconds between two checks of the abort flag."""


class SocketRing:
    """A communicator over two sockets; :class:`cmlp.distributed.Listener` makes it.

    Parameters
    ----------
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
        self,
        rank: int,
        size: int,
        out: socket.socket | None = None,
        into: socket.socket | None = None,
        *,
        attempt: int = 0,
        timeout: float = 60.0,
        abort: threading.Event | None = None,
    ) -> None:
        self.rank, self.size, self.attempt, self.timeout = rank, size, attempt, timeout
        self.abort, self.step, self.closed = abort or threading.Event(), 0, False
        self.sockets = [each for each in (out, into) if each is not None]
        for each in self.sockets:
            each.setblocking(False)
        if out is not None and into is not None:
            self.out, self.into = out, into
        self.queue: deque[memoryview] = deque()
        self.scratch = bytearray(CHUNK)

    def __enter__(self) -> SocketRing:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.close(error)

    def close(self, error: BaseException | None = None) -> None:
        """Close the connections: the ranks on both sides notice it at once, and close theirs."""
        self.closed = True
        for each in self.sockets:
            with suppress(OSError):
                each.close()

    # Bytes ---------------------------------------------------------------------------------------

    def _lost(self, seen: str, rank: int) -> RingBroken:
        self.close()
        return RingBroken(seen, rank % self.size)

    def _transfer(self, wanted: memoryview | None) -> None:
        """Receive `wanted`, and send what is queued meanwhile; without it, send all."""
        received, heard = 0, time.monotonic()
        before = self.rank - 1 if wanted is not None else self.rank + 1
        try:
            if self.closed:
                raise RingBroken("the connections were closed after an earlier error")
            while wanted is None or received < len(wanted):
                moved = self._send_some()
                if wanted is not None and (n := self._receive_some(wanted[received:])):
                    received, moved = received + n, True
                if wanted is None and not self.queue:
                    return
                if moved:
                    heard = time.monotonic()
                elif time.monotonic() - heard > self.timeout:
                    raise self._lost(f"no byte for {self.timeout:g} s", before)
                elif self.abort.is_set():
                    raise RingBroken("the training was aborted")
                else:
                    reads = [] if wanted is None else [self.into]
                    select.select(
                        reads, [self.out] if self.queue else [], [], min(SLICE, self.timeout)
                    )
        except (OSError, ValueError) as error:  # ValueError: closed by another thread
            self.close()
            if isinstance(error, RingBroken):
                raise
            raise RingBroken(f"the connection failed: {error}", before % self.size) from error
        except BaseException:
            self.close()
            raise

    def _send_some(self) -> bool:
        """Send as much of the queue as the connection takes; return whether it took any."""
        moved = False
        with suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while self.queue:
                n = self.out.send(self.queue[0])
                moved = True
                if n == len(self.queue[0]):
                    self.queue.popleft()
                else:
                    self.queue[0] = self.queue[0][n:]
        return moved

    def _receive_some(self, room: memoryview) -> int:
        """Receive what has arrived; return how much."""
        with suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            n = self.into.recv_into(room)
            if not n:
                raise self._lost("closed its connection", self.rank - 1)
            return n
        return 0

    def _send(self, data: Any) -> None:
        self.queue.append(memoryview(data).cast("B"))
        self._send_some_now()

    def _send_some_now(self) -> None:
        """Begin to send; an error shows in the next transfer."""
        with suppress(OSError):
            self._send_some()

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
        self._transfer(memoryview(header))
        magic, attempt, step, n = HEADER.unpack(header)
        known = (magic, attempt, step) == (MAGIC, self.attempt, self.step)
        if not known or n > LONGEST or (expected is not None and n != expected):
            raise self._lost(
                f"sent step {step} of attempt {attempt} with {n:,} bytes, not step {self.step} of "
                f"attempt {self.attempt}" + (f" with {expected:,}" if expected is not None else ""),
                self.rank - 1,
            )
        return int(n)

    # Messages ------------------------------------------------------------------------------------

    def gather(self, message: bytes) -> list[bytes]:
        """Return the messages of all ranks, to every rank."""
        return self._gathered(message, None)

    def _gathered(self, message: bytes, expected: int | None) -> list[Any]:
        found: dict[int, Any] = {self.rank: message}
        if self.size > 1:
            self.step += 1
            self._send(self._header(len(message)) + message)
            for distance in range(1, self.size):
                n = self._announced(expected)
                received = bytearray(n)
                self._transfer(memoryview(received))
                found[(self.rank - distance) % self.size] = received
                if distance < self.size - 1:
                    self._send(self._header(n) + received)
            self._transfer(None)
        return [bytes(found[rank]) for rank in range(self.size)]

    def broadcast(self, array: Array, root: int = 0) -> None:
        """Replace an array by that of a rank; it is unchanged until all has arrived, unharmed."""
        if self.size == 1:
            return
        self.step += 1
        n, last = array.nbytes + 4, self.rank == (root - 1) % self.size
        if self.rank == root:
            data = bytearray(array.tobytes())
            data += zlib.crc32(data).to_bytes(4, "little")
            self._send(self._header(n))
            self._send(data)
        else:
            self._announced(n)
            data = bytearray(n)
            if not last:
                self._send(self._header(n))
            for start in range(0, n, CHUNK):
                part = memoryview(data)[start : start + CHUNK]
                self._transfer(part)
                if not last:
                    self._send(part)
        self._transfer(None)
        if zlib.crc32(memoryview(data)[:-4]) != int.from_bytes(data[-4:], "little"):
            raise self._lost("sent an array that is damaged", self.rank - 1)
        array.view(np.uint8)[...] = np.frombuffer(data, np.uint8, n - 4)

    def allreduce(self, array: Array, tail: Array | None = None) -> None:
        """Replace an array by the sum of all ranks', the same bits on every rank."""
        tail = np.empty(0) if tail is None else tail
        if self.size == 1:
            return
        if array.nbytes <= SHORT:
            n = array.nbytes
            parts = self._gathered(array.tobytes() + tail.tobytes(), n + tail.nbytes)
            array[...] = sum_in_order([np.frombuffer(part[:n], array.dtype) for part in parts])
            tails = [np.frombuffer(part[n:]) for part in parts]
        else:
            tails = self._reduced(array, tail)
        tail[...] = sum_in_order(tails)

    def _reduced(self, array: Array, tail: Array) -> list[Array]:
        """Sum a long array, in segments; return the tails of all ranks."""
        self.step += 1
        size, n = self.size, len(array)
        length = max(1, CHUNK // array.itemsize)
        tails = {self.rank: tail.copy()}

        def chunks(rank: int) -> list[Array]:
            rank %= size
            first, last = n * rank // size, n * (rank + 1) // size
            return [array[at : min(at + length, last)] for at in range(first, last, length)]

        self._send(self._header(array.nbytes))
        self._send(tails[self.rank])
        for chunk in chunks(self.rank):
            self._send(chunk)
        self._announced(array.nbytes)
        for distance in range(1, size):  # each segment collects all ranks' parts
            source = (self.rank - distance) % size
            tails[source] = np.empty_like(tail)
            self._transfer(tails[source].data.cast("B"))
            if distance < size - 1:
                self._send(tails[source])
            for chunk in chunks(source):
                arrived = memoryview(self.scratch)[: chunk.nbytes]
                self._transfer(arrived)
                chunk += np.frombuffer(arrived, chunk.dtype)
                self._send(chunk)
        for distance in range(size - 1):  # and goes to all of them
            for chunk in chunks(self.rank - distance):
                self._transfer(chunk.data.cast("B"))
                if distance < size - 2:
                    self._send(chunk)
        self._transfer(None)
        return [tails[rank] for rank in range(size)]
