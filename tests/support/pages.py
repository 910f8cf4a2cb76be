"""A page without a browser: a channel that tests write to, and frames read again."""

import io
import json

from cmlp.formats import safetensors
from cmlp.page.host import Closed
from cmlp.page.session import Session


class Page:
    """A session, and what it sent."""

    def __init__(self, setup=None, own=None, first=None):
        self.queue, self.sent = [], []
        self.session = Session(self, own, first)
        self.session.start(setup)

    def receive(self, timeout):
        if self.queue:
            return self.queue.pop(0)
        if timeout:
            raise Closed  # nothing will ever come: the test is at its end
        return None

    def send(self, message):
        self.sent.append(message)

    def do(self, *messages):
        """Carry out messages, and return what was sent: events as dicts, frames as arrays."""
        before = len(self.sent)
        for message in messages:
            self.session.counts.clear()  # a person is slower
            self.session.answer(
                message if isinstance(message, bytes | str) else json.dumps(message)
            )
        self.session.credit, self.session.shown_at = 2, 0.0
        self.session.show()
        return [read(message) for message in self.sent[before:]]

    def events(self, kind, *messages):
        """Carry out messages, and return the events of a kind."""
        return [each for each in self.do(*messages) if each.get("type") == kind]

    def frame(self, *messages):
        """Carry out messages, and return the last frame: its arrays and its metadata."""
        return [each for each in self.do(*messages) if "arrays" in each][-1]


def read(message):
    """Return an event, or a frame's arrays and metadata."""
    if isinstance(message, str):
        return json.loads(message)
    arrays, about = safetensors.read(io.BytesIO(message))
    arrays = {name: array.astype(array.dtype.newbyteorder("=")) for name, array in arrays.items()}
    return {"arrays": arrays, **{key: value_of(value) for key, value in about.items()}}


def value_of(text):
    try:
        return json.loads(text)
    except ValueError:
        return text
