"""What the page of ``cmlp play`` costs: training with frames against ``Network.fit``, and a stroke.

    python -m benchmarks.page [--seconds 4] [--json FILE]

A session trains 64-16-16-10 on the digits at full speed, as in the story "Train", for a reader that
draws every frame at once; ``fit`` trains the same network with the same rows held out. They take
turns. Times are the processor's: what a browser takes besides is not in them. A stroke is read
while nothing trains: from its message to the frame with every activation.
"""

from __future__ import annotations

import gzip
import json
import sys
import time
from typing import Any

import numpy as np

from cmlp.page import build, bundle
from cmlp.page.session import Session
from cmlp.page.set_up import SetUp

from . import _report

TRAIN = ["weights", "row", "unit", "stats", "wrong"]
"""What a frame of that story has."""


class Reader:
    """A page that draws at once, and sends nothing but credit."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.frames = self.bytes = 0

    def receive(self, timeout: float) -> str | None:
        """Return the next message; there is always work to do, so it never waits."""
        return self.messages.pop() if self.messages else None

    def send(self, message: str | bytes) -> None:
        """Take what the engine sends."""
        if isinstance(message, bytes):
            self.frames += 1
            self.bytes += len(message)
            self.messages.append('{"type": "more", "credit": 1}')


def opened(story: str) -> Session:
    """Return a session that shows the panels of "Train"."""
    session = Session(Reader(), setup=SetUp(story=story, speed=0))
    session.start()
    session.answer(json.dumps({"type": "look", "panels": TRAIN}))
    return session


def with_frames(session: Session, seconds: float) -> dict[str, float]:
    """Train for some seconds of the processor; returns rows a second, and what was sent."""
    reader, step = session.channel, session.run.step
    assert isinstance(reader, Reader)
    frames, size = reader.frames, reader.bytes
    session.answer('{"type": "run", "speed": 0}')
    began, start = time.perf_counter(), time.process_time()
    while (spent := time.process_time() - start) < seconds:
        session.turn(0)
    took, frames = time.perf_counter() - began, reader.frames - frames
    batches = session.run.step - step
    return {
        "rows": batches * session.run.n_rows / -(-session.run.n_rows // 32) / spent,
        "batches": batches / spent,
        "frames": frames / took,
        "bytes": (reader.bytes - size) / frames,
        "piece": session.piece,
    }


def plain(setup: SetUp, epochs: int) -> float:
    """Train by ``fit``; returns rows a second."""
    rows = build.rows_of(setup, None)
    net = build.network_of(setup, rows)
    start = time.process_time()
    net.fit(
        rows.X, rows.y, X_val=rows.X_val, y_val=rows.y_val, epochs=epochs, learning_rate=0.05,
        n_threads=1,
    )  # fmt: skip
    return len(rows.X) * epochs / (time.process_time() - start)


def strokes(n: int) -> list[float]:
    """Return the milliseconds from a stroke's message to its frame."""
    session, found = opened("draw"), []
    reader = session.channel
    assert isinstance(reader, Reader)
    for i in range(n):
        ink = np.zeros((32, 32), np.uint8)
        ink[6:26, 14 + i % 3 : 18] = 1
        reader.messages.append(
            json.dumps({"type": "ink", "bits": np.packbits(ink).tobytes().hex()})
        )
        session.shown_at, session.window = 0.0, 0.0  # a person's strokes are further apart
        start, frames = time.process_time(), reader.frames
        session.turn(0)
        assert reader.frames == frames + 1
        found.append(1e3 * (time.process_time() - start))
    return found


def main() -> int:
    """Run the benchmark."""
    parser = _report.parser("page", __doc__, seconds=4)
    args = parser.parse_args()
    _report.with_one_thread("page")
    about = _report.machine([])
    print(_report.headline(about), end="\n\n")
    seconds = _report.seconds_of(args)
    session, rounds = opened("train"), []
    speed = plain(session.setup, 2)
    for _ in range(3 if args.quick else 5):
        turn = with_frames(session, seconds / 4)
        speed = plain(session.setup, max(2, int(seconds / 4 * speed / session.run.n_rows)))
        rounds.append({**turn, "of_fit": turn["rows"] / speed})
    result: dict[str, Any] = {key: float(np.median([r[key] for r in rounds])) for key in rounds[0]}
    result["stroke"] = float(np.median(strokes(20 if args.quick else 200)))
    result["zipped"] = len(gzip.compress(bundle.page().encode()))
    print(
        f"with frames: {result['rows']:,.0f} rows/s, {result['of_fit']:.2f} of fit; "
        f"{result['batches']:,.0f} batches/s in pieces of {result['piece']:.0f}\n"
        f"{result['frames']:.1f} frames/s of {result['bytes'] / 1e3:.1f} kB\n"
        f"a stroke is read in {result['stroke']:.2f} ms; the page is {result['zipped'] / 1e3:.1f} "
        "kB zipped"
    )
    _report.write_json(args.json, about, [result])
    return 0


if __name__ == "__main__":
    sys.exit(main())
