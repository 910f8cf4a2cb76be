"""The page as a widget of a notebook, by anywidget: the same front end, the kernel for a server."""

from __future__ import annotations

import queue
import threading
from typing import Any

from cmlp.formats.safetensors import parse_json
from cmlp.page import bundle
from cmlp.page.build import Own
from cmlp.page.host import Closed
from cmlp.page.session import Session
from cmlp.page.set_up import SetUp

SECONDS_BETWEEN_FRAMES = 1 / 20
"""Jupyter stops output above 1,000,000 bytes a second: 20 frames of 24 kB are half of that."""

CREDIT = 20
"""Frames on their way: to each message that a kernel takes it answers twice with its status, after
which JupyterLab draws its toolbar anew, so the page sends credit for ten drawings at a time."""


class WidgetChannel:
    """A notebook's page: messages arrive in the kernel's thread, a session has its own."""

    def __init__(self, widget: Any) -> None:
        self.widget = widget
        self.messages: queue.Queue[str | bytes | None] = queue.Queue()

    def take(self, _: Any, content: Any, buffers: Any) -> None:
        """Receive a message of the front end."""
        if isinstance(content, dict) and content.get("binary") and buffers:
            self.messages.put(bytes(buffers[0]))
        elif isinstance(content, dict) and isinstance(content.get("text"), str):
            self.messages.put(content["text"])

    def close(self) -> None:
        """End the session."""
        self.messages.put(None)

    def receive(self, timeout: float) -> str | bytes | None:
        """Return the next message, or None after some seconds."""
        try:
            found = self.messages.get(timeout=timeout) if timeout else self.messages.get_nowait()
        except queue.Empty:
            return None
        if found is None:
            raise Closed
        return found

    def send(self, message: str | bytes) -> None:
        """Send text or bytes."""
        if isinstance(message, str):
            self.widget.send({"text": message})
        else:
            self.widget.send({"binary": True}, buffers=[message])


def serve(channel: WidgetChannel, own: Own | None, setup: SetUp | None) -> None:
    """Answer one page after the other: each display of the widget begins with a hello."""
    first: str | bytes | None = None
    try:
        while True:
            first = first or channel.receive(3600.0)
            if not isinstance(first, str):
                continue
            try:
                hello = parse_json(first, max_digits=19, constants=False, surrogates=False)
            except (ValueError, RecursionError):
                hello = None
            first = None
            if isinstance(hello, dict) and hello.get("type") == "hello":
                session = Session(channel, own, setup)
                session.seconds_between_frames = SECONDS_BETWEEN_FRAMES
                session.credit = session.most_credit = CREDIT
                session.start(hello.get("setup"))
                first = session.serve()
    except Closed:
        pass


def widget_of(own: Own | None, setup: SetUp | None) -> Any:
    """Return the widget, whose session has begun."""
    import anywidget

    class Play(anywidget.AnyWidget):  # type: ignore[misc]
        _esm = bundle.single_module("widget") + "export default m_widget;\n"
        _css = bundle.style()

    widget = Play()
    channel = WidgetChannel(widget)
    widget.on_msg(channel.take)
    widget.observe(lambda change: channel.close(), names="comm")
    threading.Thread(target=serve, args=(channel, own, setup), daemon=True).start()
    return widget
