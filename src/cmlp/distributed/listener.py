"""How ranks find and recognise each other, before a byte of theirs is read as anything else."""

from __future__ import annotations

import hashlib
import hmac
import os
import queue
import socket
import ssl
import struct
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

RANKS = struct.Struct("<QQQQ")
"""Attempt, number of ranks, who connects, and to whom."""


def _answer(token: bytes, role: bytes, ranks: bytes, challenge: bytes, own: bytes) -> bytes:
    return hmac.new(token, role + ranks + challenge + own, hashlib.sha256).digest()


def _received(connection: socket.socket, n: int) -> bytes:
    data, deadline = b"", time.monotonic() + GREETING
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
        self.socket = socket.create_server((host, port), family=family, backlog=MOST_STRANGERS)
        self.address = f"{host}:{self.socket.getsockname()[1]}"
        self.door: threading.Thread | None = None

    def close(self) -> None:
        """Close the port; a ring that stands is not touched."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # ends the wait of the other thread
        if self.door is not None:
            self.door.join()
        self.socket.close()

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
        size, abort = len(addresses), abort or threading.Event()
        deadline = time.monotonic() + timeout
        after, before = (rank + 1) % size, (rank - 1) % size
        out: socket.socket | None = None
        into: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        done = threading.Event()
        try:
            if size == 1:
                return SocketRing(rank, size, timeout=timeout, abort=abort)
            ranks = RANKS.pack(attempt, size, before, rank)
            self.door = threading.Thread(
                target=self._accept, args=(token, ranks, server, into, done), daemon=True
            )
            self.door.start()
            ranks = RANKS.pack(attempt, size, rank, after)
            seen = "it did not answer"
            while time.monotonic() < deadline and not abort.is_set():
                if out is not None:
                    with suppress(queue.Empty):
                        found = into.get(timeout=SLICE / 4)
                        return SocketRing(
                            rank, size, out, found, attempt=attempt, timeout=timeout, abort=abort
                        )
                    continue
                try:
                    out = _connected(addresses[after], token, ranks, client, deadline)
                except OSError as error:
                    seen = str(error) or type(error).__name__
                    time.sleep(0.05)
            if abort.is_set():
                raise RingBroken("the training was aborted")
            if out is None:
                raise RingBroken(f"no connection to {addresses[after]}: {seen}", after)
            raise RingBroken(f"it did not connect within {timeout:g} s", before)
        except BaseException:
            if out is not None:
                out.close()
            with suppress(queue.Empty):
                into.get_nowait().close()
            raise
        finally:
            done.set()
            self.close()

    def _accept(
        self,
        token: bytes,
        ranks: bytes,
        context: ssl.SSLContext | None,
        into: queue.SimpleQueue[socket.socket],
        done: threading.Event,
    ) -> None:
        """Let strangers identify themselves, each in a thread, until the port is closed."""
        busy = threading.BoundedSemaphore(MOST_STRANGERS)

        def meet(connection: socket.socket) -> None:
            try:
                connection = _prepared(
                    connection, context and context.wrap_socket, server_side=True
                )
                identify(connection, token, ranks, connects=False)
                into.put(connection)
            except (OSError, ValueError):  # a stranger, or garbage: it is turned away
                connection.close()
            finally:
                busy.release()

        self.socket.settimeout(SLICE / 4)
        while not done.is_set():
            try:
                connection, _ = self.socket.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            if busy.acquire(blocking=False):
                threading.Thread(target=meet, args=(connection,), daemon=True).start()
            else:
                connection.close()


def _connected(
    address: str, token: bytes, ranks: bytes, context: ssl.SSLContext | None, deadline: float
) -> socket.socket:
    """Return a connection to a rank, after both sides have identified themselves."""
    host, _, port = address.rpartition(":")
    left = max(0.1, min(GREETING, deadline - time.monotonic()))
    connection = socket.create_connection((host.strip("[]"), int(port)), timeout=left)
    try:
        connection = _prepared(connection, context and context.wrap_socket, server_hostname=host)
        identify(connection, token, ranks, connects=True)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepared(connection: socket.socket, wrap: Any, **side: Any) -> socket.socket:
    """Return a connection without delays, encrypted if there is a context."""
    connection.settimeout(GREETING)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection if wrap is None else wrap(connection, **side)
