"""The address of the page: a port of the loopback interface, and the token that opens it.

It imports little, so that a browser starts while the server is still being imported: until then
connections wait in the queue of the port.
"""

from __future__ import annotations

import secrets
import socket
from importlib.util import find_spec


class Door:
    """A port that listens, and its token.

    Parameters
    ----------
    port : int
        0 takes one that is free.

    Attributes
    ----------
    url : str
        The address with the token in its fragment, which no request contains.

    Raises
    ------
    ImportError
        Without websockets.
    OSError
        If the port is taken.
    """

    def __init__(self, port: int = 0) -> None:
        if find_spec("websockets") is None:
            raise ImportError("cmlp play needs websockets: pip install 'cmlp[play]'")
        self.token = secrets.token_urlsafe(32)
        self.socket = socket.create_server(("127.0.0.1", port))
        self.port = self.socket.getsockname()[1]
        self.hosts = {f"127.0.0.1:{self.port}", f"localhost:{self.port}"}
        self.url = f"http://127.0.0.1:{self.port}/#token={self.token}"
