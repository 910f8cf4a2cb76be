"""What the parts of a session need of it, and of the page at the other end."""

from __future__ import annotations

from typing import Any, Protocol

from cmlp.page.build import Rows
from cmlp.page.frames import Painter
from cmlp.page.run import Run
from cmlp.page.set_up import SetUp


class Closed(Exception):
    """The page is gone."""


class Channel(Protocol):
    """A page, as a session sees it."""

    def receive(self, timeout: float) -> str | bytes | None:
        """Return the next message, or None after `timeout` seconds; raise :class:`Closed`."""

    def send(self, message: str | bytes) -> None:
        """Send an event or a frame; raise :class:`Closed`."""


class Host(Protocol):
    """A session, as its parts see it; see :class:`cmlp.page.session.Session`."""

    channel: Channel
    setup: SetUp
    rows: Rows
    run: Run
    painter: Painter
    changes: int
    hello: str | None

    @property
    def classifies(self) -> bool:
        """Whether the cost takes labels, not numbers."""

    def turn(self, timeout: float) -> None:
        """Answer the messages that have come, train for a moment, and show what changed."""

    def event(self, kind: str, /, **values: Any) -> None:
        """Send something other than a frame."""

    def note(self, code: str, /, **values: Any) -> None:
        """Send one of the page's own sentences, by its name."""

    def changed(self, wholly: bool = False) -> None:
        """Make sure that a frame follows."""
