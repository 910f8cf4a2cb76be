"""How ranks find and recognise each other, before a byte of theirs is read as anything else."""

from __future__ import annotations

import hmac
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from cmlp.distributed.communicator import RingBroken
from cmlp.distributed.sockets import SocketRing

NONCE = 32
"""Bytes of a challenge, and of its answer."""

GREETING = 5.0
"""Seconds that a stranger has to identify itself."""

MOST_STRANGERS = 32
"""Connections that may do so at a time."""

POLL, PAUSE = 0.005, 0.05
"""Seconds between two moments of seeing who has come, and after a connection that was in vain."""

HAS_NAMES = sys.platform == "linux"
"""Whether sockets of one host can have names that are not of files."""

ROOM = 1 << 22
"""Bytes that such a socket takes before the other side reads, if the system allows it."""


def name_of(address: str) -> str:
    """Return the name, within its host, of what listens on an address."""
    return f"\0cmlp-ring-{address}"


def identify(connection: socket.socket, token: bytes, ranks: str, connects: bool) -> None:
    """Show that this side knows the token, and find out whether the other one does.

    Raises
    ------
    OSError
        If it does not, or is another rank, of another ring, or silent.
    """
    deadline = time.monotonic() + (connection.gettimeout() or GREETING)

    def received() -> bytes:
        data = b""
        while len(data) < NONCE:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            part = connection.recv(NONCE - len(data))
            if not part:
                raise ConnectionError("closed its connection instead of identifying itself")
            data += part
        return data

    def proof(connects: bool, challenge: bytes, own: bytes) -> bytes:
        return hmac.digest(token, f"{connects} {ranks} ".encode() + challenge + own, "sha256")

    own = os.urandom(NONCE)
    connection.sendall(own)
    theirs = received()
    if not connects:
        connection.sendall(proof(False, theirs, own))
    if not hmac.compare_digest(received(), proof(not connects, own, theirs)):
        raise ConnectionError("does not know the token, or is of another ring")
    if connects:  # last: who has accepted then knows that this side did not give up
        connection.sendall(proof(True, theirs, own))


class End:
    """One of the two connections of a rank, for which threads look.

    Parameters
    ----------
    ranks : str
        Attempt, number of ranks, who connects, and to whom.
    most : int
        Threads that look at a time.

    Attributes
    ----------
    found : socket or None
    seen : str
        Of the last one that was turned away.
    """

    def __init__(self, token: bytes, ranks: str, tls: ssl.SSLContext | None, most: int) -> None:
        self.known_by, self.slots = (token, ranks, tls), threading.Semaphore(most)
        self.found: socket.socket | None = None
        self.seen, self.closed, self.lock = "it did not answer", False, threading.Lock()

    def look(self, connect: Callable[..., socket.socket], *given: Any) -> bool:
        """Look for it in a thread; return whether there is one left."""
        if not self.slots.acquire(blocking=False):
            return False
        threading.Thread(target=self._look, args=(connect, *given), daemon=True).start()
        return True

    def _look(self, connect: Callable[..., socket.socket], *given: Any) -> None:
        try:
            connection = connect(*given, *self.known_by)
            with self.lock:
                late = self.closed or self.found is not None
                self.found = self.found or connection
            if late:
                connection.close()
        except (OSError, ValueError) as error:  # a stranger, or garbage: it is turned away
            self.seen = str(error) or type(error).__name__
            time.sleep(PAUSE)
        self.slots.release()

    def close(self) -> None:
        """Close it, and what comes later."""
        with self.lock:
            self.closed = True
        if self.found is not None:
            self.found.close()


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
        for each in self.sockets:
            each.setblocking(False)

    def close(self) -> None:
        """Close the port; a ring that stands is not touched."""
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
            Number of the ring among those of one token: a rank of an earlier one is turned away.
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
        size, abort, left = len(addresses), abort or threading.Event(), timeout
        after, before = (rank + 1) % size, (rank - 1) % size
        out = End(token, f"{attempt} {size} {rank} {after}", client, 1)
        into = End(token, f"{attempt} {size} {before} {rank}", server, MOST_STRANGERS)
        try:
            while size > 1 and (out.found is None or into.found is None):
                if abort.is_set():
                    raise RingBroken("the training was aborted")
                if left <= 0 and out.found is None:
                    raise RingBroken(f"no connection to {addresses[after]}: {out.seen}", after)
                if left <= 0:
                    raise RingBroken(f"it did not connect within {timeout:g} s", before)
                if out.found is None:
                    out.look(connected, addresses[after], left)
                for visitor in self._visitors():
                    if not into.look(known, visitor, None, GREETING):
                        visitor.close()
                time.sleep(POLL)
                left -= POLL  # not by the clock: this process may be stopped itself
            return SocketRing(rank, size, out.found, into.found, timeout=timeout, abort=abort)
        except BaseException:
            out.close()
            into.close()
            raise
        finally:
            self.close()

    def _visitors(self) -> Iterator[socket.socket]:
        """Yield who has come."""
        for port in self.sockets:
            with suppress(OSError):  # as when no one has
                for _ in range(MOST_STRANGERS):
                    yield port.accept()[0]


def connected(
    address: str, left: float, token: bytes, ranks: str, tls: ssl.SSLContext | None
) -> socket.socket:
    """Return a connection to a rank, after both sides have identified themselves.

    Within a host without TCP, which takes longer.
    """
    host, _, port = address.rpartition(":")
    left = max(0.1, min(GREETING, left))
    if HAS_NAMES:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(left)
        with suppress(OSError):
            if not connection.connect_ex(name_of(address)):
                return known(connection, host, left, token, ranks, tls)
        connection.close()
    connection = socket.create_connection((host.strip("[]"), int(port)), timeout=left)
    return known(connection, host, left, token, ranks, tls)


def known(
    connection: socket.socket, host: str | None, seconds: float, token: bytes, ranks: str,
    tls: ssl.SSLContext | None,
) -> socket.socket:  # fmt: skip
    """Return a connection whose other side has identified itself, encrypted if there is a context.

    Any other one is closed. The side that connects knows the host.
    """
    try:
        connection.settimeout(seconds)
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
        if tls is not None:
            connection = tls.wrap_socket(connection, host is None, server_hostname=host)
        identify(connection, token, ranks, connects=host is not None)
    except BaseException:
        connection.close()
        raise
    return connection
