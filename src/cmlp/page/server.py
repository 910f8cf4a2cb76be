"""The server of ``cmlp play``: fixed files, and one WebSocket whose first message is the token.

It listens on the loopback interface alone. Before anything else it checks Host (against DNS
rebinding) and the method; a WebSocket also needs an Origin that is this page. No path of a request
is ever joined to a folder: files come from a table.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http
import json
import logging
import re
import threading
import time
from typing import Any

from cmlp.formats.safetensors import parse_json
from cmlp.page import bundle, limits
from cmlp.page.ahead import Ahead
from cmlp.page.build import Own
from cmlp.page.door import Door
from cmlp.page.host import Closed
from cmlp.page.session import Session
from cmlp.page.set_up import SetUp

SECONDS_FOR_HELLO = 5.0
WRONG_TOKENS = 20
"""Wrong tokens after which each costs a second."""


def static_files() -> dict[str, tuple[str, bytes]]:
    """Return the page's files by their paths: type and content."""
    return {"/": ("text/html; charset=utf-8", bundle.page().encode())}


def _digest(tag: bytes, html: bytes) -> str:
    """Return the hash of an element's text, by which a browser knows that it is the page's own."""
    found = re.search(b"<" + tag + b"[^>]*>(.*?)</" + tag + b">", html, re.DOTALL)
    assert found is not None
    return "sha256-" + base64.b64encode(hashlib.sha256(found[1]).digest()).decode()


class PageServer:
    """Serves the page to the browsers of this machine.

    Parameters
    ----------
    own : Own, optional
        A model and rows that a program passed.
    setup : SetUp, optional
        What each page begins with.
    door : Door, optional
        Where it listens; by default at a port that is free.
    ahead : Ahead, optional
        The run that the first page begins with.
    """

    def __init__(
        self,
        own: Own | None = None,
        setup: SetUp | None = None,
        door: Door | None = None,
        ahead: Ahead | None = None,
    ) -> None:
        from websockets.sync.server import serve

        self.own, self.setup, self.ahead = own, setup, ahead
        self.door = door or Door()
        self.wrong, self.sessions = 0, 0
        self.lock, self.ending = threading.Lock(), threading.Event()
        self.files = static_files()
        self.headers = self._headers()
        logger = logging.getLogger("cmlp.page")
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        self.server = serve(
            self._page,
            sock=self.door.socket,
            origins=[f"http://{host}" for host in self.door.hosts],
            process_request=self._answer,
            compression=None,
            server_header=None,
            max_size=limits.MESSAGE_BYTES,
            open_timeout=SECONDS_FOR_HELLO,
            close_timeout=1,
            logger=logger,
        )

    def serve(self) -> None:
        """Serve until :meth:`close` or Ctrl-C."""
        self.server.serve_forever()

    def close(self) -> None:
        """End; pages that are open are closed."""
        self.ending.set()  # before websockets 17 a server left its connections open
        self.server.shutdown()

    # Requests ------------------------------------------------------------------------------------

    def _headers(self) -> dict[str, str]:
        html = self.files["/"][1]
        style, script = (_digest(tag, html) for tag in (b"style", b"script"))
        sockets = " ".join(f"ws://{host}" for host in sorted(self.door.hosts))
        policy = (
            f"default-src 'none'; script-src '{script}'; style-src 'self' '{style}'; "
            f"img-src 'self' blob: data:; connect-src 'self' {sockets}; frame-ancestors 'none'; "
            "base-uri 'none'; form-action 'none'"
        )
        return {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store",
        }

    def _answer(self, connection: Any, request: Any) -> Any:
        """Return a file or a refusal; None lets a WebSocket begin."""
        hosts = request.headers.get_all("Host")
        if len(hosts) != 1 or hosts[0].lower() not in self.door.hosts:
            return self._refuse(connection, http.HTTPStatus.MISDIRECTED_REQUEST)
        if getattr(request, "method", "GET") != "GET":
            return self._refuse(connection, http.HTTPStatus.METHOD_NOT_ALLOWED)
        if request.path == "/socket":
            if len(request.headers.get_all("Origin")) != 1:
                return self._refuse(connection, http.HTTPStatus.FORBIDDEN)
            return None
        if request.path not in self.files:
            return self._refuse(connection, http.HTTPStatus.NOT_FOUND)
        kind, body = self.files[request.path]
        response = connection.respond(http.HTTPStatus.OK, "")
        response.body = body
        for name in ("Content-Type", "Content-Length"):
            del response.headers[name]
        response.headers["Content-Type"] = kind
        response.headers["Content-Length"] = str(len(body))
        for name, value in self.headers.items():
            response.headers[name] = value
        return response

    def _refuse(self, connection: Any, status: http.HTTPStatus) -> Any:
        response = connection.respond(status, f"{status.value} {status.phrase}\n")
        for name, value in self.headers.items():
            response.headers[name] = value
        return response

    # The socket ----------------------------------------------------------------------------------

    def _page(self, connection: Any) -> None:
        """Serve one page, in the thread of its connection."""
        channel = WebSocketChannel(connection, self.ending)
        try:
            hello = self._hello(channel)
            if hello is None:
                connection.close(1008, "the token is missing or wrong")
                return
            with self.lock:
                full = self.sessions >= limits.SESSIONS
                self.sessions += not full
            if full:
                text = f"{limits.SESSIONS} pages are open; close one of them"
                channel.send(json.dumps({"type": "error", "field": "session", "text": text}))
                connection.close(1013, "too many pages")
                return
            try:
                session = Session(channel, self.own, self.setup, self.ahead)
                session.start(hello.get("setup"))
                session.serve()
            finally:
                with self.lock:
                    self.sessions -= 1
        except Closed:
            pass

    def _hello(self, channel: WebSocketChannel) -> dict[str, Any] | None:
        """Return the first message, if it has the token."""
        first = channel.receive(SECONDS_FOR_HELLO)
        try:
            found = (
                parse_json(first, max_digits=19, constants=False, surrogates=False)
                if (isinstance(first, str))
                else None
            )
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and found.get("type") == "hello":
            token, own = found.get("token"), self.door.token
            if isinstance(token, str) and hmac.compare_digest(token.encode(), own.encode()):
                return found
        with self.lock:
            self.wrong += 1
            late = self.wrong > WRONG_TOKENS
        if late:
            time.sleep(1)
        return None


class WebSocketChannel:
    """A page at the other end of a WebSocket."""

    def __init__(self, connection: Any, ending: threading.Event) -> None:
        from websockets.exceptions import ConnectionClosed

        self.connection, self.ending, self.closed = connection, ending, ConnectionClosed

    def receive(self, timeout: float) -> str | bytes | None:
        """Return the next message, or None after some seconds."""
        if self.ending.is_set():
            raise Closed
        try:
            found: str | bytes = self.connection.recv(timeout)
        except TimeoutError:
            return None
        except self.closed:
            raise Closed from None
        return found

    def send(self, message: str | bytes) -> None:
        """Send text or bytes."""
        try:
            self.connection.send(message)
        except self.closed:
            raise Closed from None
