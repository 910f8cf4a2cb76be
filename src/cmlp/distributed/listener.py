"""How ranks find and recognise each other, before a byte of theirs is read as anything else."""

from __future__ import annotations

import hashlib
import hmac
import os
import queue
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from cmlp.distributed.communicator import RingBroken
from cmlp.distributed.sockets import SLICE, SocketRing

NONCE = DIGEST = 32
"""Bytes of a challenge, and of its answer."""

GREETING = 5.0
"""Seconds that a stranger has to identify itself."""

MOST_STRANGERS = 32
"""Connections that may do so at a time."""

HAS_NAMES = sys.platform == "linux"
"""Whether sockets of one host can have names that are not of files."""

ROOM = 1 << 22
"""Bytes that such a socket takes before the other side reads, if the system allows it."""

RANKS = struct.Struct("<QQQQ")
"""Attempt, number of ranks, who connects, and to whom."""


def name_of(address: str) -> str:
    """Return the name, within its host, of what listens on an address."""
    return f"\0cmlp-ring-{address}"


def _answer(token: bytes, role: bytes, ranks: bytes, challenge: bytes, own: bytes) -> bytes:
    return hmac.new(token, role + ranks + challenge + own, hashlib.sha256).digest()


def _received(connection: socket.socket, n: int) -> bytes:
    data, deadline = b"", time.monotonic() + (connection.gettimeout() or GREETING)
    while len(data) < n:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        part = connection.recv(n - len(data))
        if not part:
            raise ConnectionError("closed its connection instead of identifying itself")
        data += part
    return data


def identify(connection: socket.socket, token: bytes, ranks: bytes, connects: bool) -> None:
    """Show that this side knows the token, and find out whether the other one does.

    Raises
    ------
    OSError
        If it does not, or is another rank, of another ring, or silent.
    """
    role, theirs_role = (b"connects", b"accepts") if connects else (b"accepts", b"connects")
    own = os.urandom(NONCE)
    connection.sendall(own)
    theirs = _received(connection, NONCE)
    connection.sendall(_answer(token, role, ranks, theirs, own))
    wanted = _answer(token, theirs_role, ranks, own, theirs)
    if not hmac.compare_digest(_received(connection, DIGEST), wanted):
        raise ConnectionError("does not know the token, or is of another ring")


class Listener:
    """Listens for the rank before this one, until a ring stands.

    Parameters
    ----------
    host : str
        Address to listen on: one that the other ranks reach.
    port : int
        0 takes any free one.

    Attributes
    ----------
    address : str
        'host:port', for the other ranks.
    """

    def __init__(self, host: str, port: int = 0) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sockets = [socket.create_server((host, port), family=family, backlog=MOST_STRANGERS)]
        self.address = f"{host}:{self.sockets[0].getsockname()[1]}"
        if HAS_NAMES:
            with suppress(OSError):
                name, backlog = name_of(self.address), MOST_STRANGERS
                local = socket.create_server(name, family=socket.AF_UNIX, backlog=backlog)
                self.sockets.append(local)
        self.doors: list[threading.Thread] = []

    def close(self) -> None:
        """Close the port; a ring that stands is not touched."""
        for each in self.sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # ends the wait of its thread
        for door in self.doors:
            door.join()
        for each in self.sockets:
            each.close()

    def ring(
        self,
        addresses: Sequence[str],
        rank: int,
        token: bytes,
        *,
        timeout: float = 60.0,
        attempt: int = 0,
        abort: threading.Event | None = None,
        client: ssl.SSLContext | None = None,
        server: ssl.SSLContext | None = None,
    ) -> SocketRing:
        """Connect with the ranks on both sides; the port is closed then.

        Parameters
        ----------
        addresses : sequence of str
            'host:port' of all ranks, in their order.
        rank : int
            Which of them this is.
        token : bytes
            A secret of the ring, which all ranks know; 32 random bytes.
        timeout : float
            Seconds within which all ranks have to be here; later, without a byte of another one.
        attempt : int
            Number of the ring among those of a training: a rank of an earlier one is turned away.
        abort : threading.Event, optional
            Ends the ring from another thread.
        client, server : ssl.SSLContext, optional
            Encrypt the connections: contexts of the side that connects, and of the other one.

        Raises
        ------
        RingBroken
            If they are not; it names the rank that is missing.
        ValueError
            If the token is empty.
        """
        if not token:
            raise ValueError("the token of a ring must be secret; it is empty")
        if (client is None) != (server is None):
            raise ValueError("give both contexts, client and server, or none")
        size, abort, done = len(addresses), abort or threading.Event(), threading.Event()
        deadline, seen = time.monotonic() + timeout, "it did not answer"
        after, before = (rank + 1) % size, (rank - 1) % size
        out: socket.socket | None = None
        into: socket.socket | None = None
        met: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        given = token, RANKS.pack(attempt, size, before, rank), server, met, done
        for each in self.sockets if size > 1 else ():
            self.doors.append(threading.Thread(target=accept, args=(each, *given), daemon=True))
            self.doors[-1].start()
        try:
            while size > 1 and into is None:
                if abort.is_set():
                    raise RingBroken("the training was aborted")
                if time.monotonic() >= deadline and out is None:
                    raise RingBroken(f"no connection to {addresses[after]}: {seen}", after)
                if time.monotonic() >= deadline:
                    raise RingBroken(f"it did not connect within {timeout:g} s", before)
                try:
                    if out is None:
                        ranks = RANKS.pack(attempt, size, rank, after)
                        out = connected(addresses[after], token, ranks, client, deadline)
                    with suppress(queue.Empty):
                        into = met.get(timeout=SLICE / 4)
                except OSError as error:
                    seen = str(error) or type(error).__name__
                    time.sleep(0.05)
            return SocketRing(rank, size, out, into, attempt=attempt, timeout=timeout, abort=abort)
        except BaseException:
            if out is not None:
                out.close()
            raise
        finally:
            done.set()
            self.close()
            with suppress(queue.Empty):
                while True:
                    met.get_nowait().close()  # who came too late, or twice


def accept(
    port: socket.socket, token: bytes, ranks: bytes, context: ssl.SSLContext | None,
    into: queue.SimpleQueue[socket.socket], done: threading.Event,
) -> None:  # fmt: skip
    """Let strangers identify themselves, each in a thread, until the port is closed."""
    busy = threading.BoundedSemaphore(MOST_STRANGERS)

    def meet(connection: socket.socket) -> None:
        try:
            connection = prepared(
                connection, GREETING, context and context.wrap_socket, server_side=True
            )
            identify(connection, token, ranks, connects=False)
            into.put(connection)
        except (OSError, ValueError):  # a stranger, or garbage: it is turned away
            connection.close()
        finally:
            busy.release()

    port.settimeout(SLICE / 4)
    while not done.is_set():
        try:
            connection, _ = port.accept()
        except TimeoutError:
            continue
        except OSError:
            return
        if busy.acquire(blocking=False):
            threading.Thread(target=meet, args=(connection,), daemon=True).start()
        else:
            connection.close()


def connected(
    address: str, token: bytes, ranks: bytes, context: ssl.SSLContext | None, deadline: float
) -> socket.socket:
    """Return a connection to a rank, after both sides have identified themselves.

    Within a host without TCP, which takes longer.
    """
    host, _, port = address.rpartition(":")
    left = max(0.1, min(GREETING, deadline - time.monotonic()))

    def met(connection: socket.socket) -> socket.socket:
        try:
            wrap = context and context.wrap_socket
            connection = prepared(connection, left, wrap, server_hostname=host)
            identify(connection, token, ranks, connects=True)
        except BaseException:
            connection.close()
            raise
        return connection

    if HAS_NAMES:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(left)
        with suppress(OSError):
            if not connection.connect_ex(name_of(address)):
                return met(connection)
        connection.close()
    return met(socket.create_connection((host.strip("[]"), int(port)), timeout=left))


def prepared(connection: socket.socket, seconds: float, wrap: Any, **side: Any) -> socket.socket:
    """Return a connection without delays, encrypted if there is a context."""
    connection.settimeout(seconds)
    if connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    else:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
    return connection if wrap is None else wrap(connection, **side)
