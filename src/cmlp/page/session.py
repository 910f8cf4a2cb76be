"""A session: what one open page does with the engine, from message to frame, in one thread.

It knows no transport: a channel gives it messages and takes events (JSON) and frames (bytes). It
trains in pieces of some milliseconds; between them it answers messages, and builds a frame if one
is due and the page has drawn the last ones (it sends credit back).
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from cmlp.core import dispatch
from cmlp.core.vocabulary import INITIALISERS, LOSSES, SOLVERS
from cmlp.formats.safetensors import parse_json
from cmlp.page import frames, limits, set_up
from cmlp.page.ahead import Ahead
from cmlp.page.build import Own, Rows, described, is_plain, new_run, rows_of
from cmlp.page.drawing import Drawing
from cmlp.page.exports import Exports
from cmlp.page.frames import Painter, data_frame
from cmlp.page.host import Channel, Closed
from cmlp.page.lesson import Lesson
from cmlp.page.run import Run
from cmlp.page.set_up import CHANGEABLE, DIGITS, HYPER, PLANE, SetUp, SetUpError, first_set_up
from cmlp.page.tables import TableStory
from cmlp.training.divergence import DivergenceError

PIECE_SECONDS = 0.008
IDLE_SECONDS = 0.25
CREDIT = 2


class Session:
    """Answers one page.

    Parameters
    ----------
    channel : Channel
    own : Own, optional
        A model and rows that a program passed.
    setup : SetUp, optional
        What the page begins with.
    ahead : Ahead, optional
        The run of that set-up, for the first page.
    """

    def __init__(
        self,
        channel: Channel,
        own: Own | None = None,
        setup: SetUp | None = None,
        ahead: Ahead | None = None,
    ) -> None:
        self.channel, self.own, self.ahead = channel, own, ahead
        self.setup = first_set_up(setup, own is not None)
        self.credit = self.most_credit = CREDIT
        self.shown_at = 0.0
        self.seconds_between_frames = 1 / 31
        self.playing = self.dirty = self.wholly = False
        self.hello: str | None = None
        self.counts: Counter[str] = Counter()
        self.window = 0.0
        self.kept: dict[str, tuple[SetUp, Rows, Run, Painter]] = {}
        self.drawing, self.lesson, self.table = Drawing(self), Lesson(self), TableStory(self)
        self.handlers: dict[str, Callable[[dict[str, Any]], None]] = {
            "setup": self.on_setup,
            "use": self.on_use,
            "change": self.on_change,
            "run": self.on_run,
            "pause": self.on_pause,
            "step": self.on_step,
            "back": self.on_back,
            "seek": self.on_seek,
            "reset": self.on_reset,
            "look": self.on_look,
            "more": self.on_more,
            **Exports(self).handlers(),
            **self.drawing.handlers(),
            **self.lesson.handlers(),
            **self.table.handlers(),
        }

    # The loop ------------------------------------------------------------------------------------

    def start(self, first: Any = None) -> None:
        """Welcome the page, with the set-up that it brings, if there is one."""
        self.event(
            "welcome",
            core=dispatch.describe(dispatch.core.name),
            limits=limits.told(),
            credit=self.most_credit,
            by_hand=set_up.BY_HAND,
            vocabulary={
                "activation": set_up.HIDDEN_ACTIVATIONS,
                "out_activation": ["", *set_up.OUT_ACTIVATIONS],
                "weight_init": ["auto", *(row.name for row in INITIALISERS)],
                "loss": [row.name for row in LOSSES],
                "solver": [row.name for row in SOLVERS],
                "data": [name for name in set_up.DATA if name != "own" or self.own is not None],
            },
        )
        try:
            if first is not None:
                self.setup = SetUp.from_dict(first)
            self.begin(self.setup)
        except (SetUpError, DivergenceError) as error:
            self.fail(error)
            self.begin(SetUp())

    def serve(self) -> str:
        """Answer messages, train and show; return the hello of a page that takes this one's place.

        Raises
        ------
        Closed
            When the page is gone.
        """
        while self.hello is None:
            self.turn(self.wait())
        return self.hello

    def turn(self, timeout: float) -> None:
        """Answer the messages that have come, train for a moment, and show what changed."""
        message = self.channel.receive(timeout)
        while message is not None:
            if isinstance(message, str) and message.startswith('{"type":"hello"'):
                self.hello = message
                return
            self.answer(message)
            message = self.channel.receive(0)
        self.play()
        self.show()

    def wait(self) -> float:
        """Return for how long there is nothing to do but to wait for a message."""
        now, times = time.perf_counter(), [IDLE_SECONDS]
        if self.playing:
            pace = self.setup.speed
            times.append(self.since + (self.done + 1) / pace - now if pace else 0.0)
        if self.dirty and self.credit > 0:
            times.append(self.shown_at + self.seconds_between_frames - now)
        return max(0.0, min(times))

    def answer(self, message: str | bytes) -> None:
        """Carry out one message; what is wrong with it is an event, never an exception."""
        try:
            if isinstance(message, bytes):
                self.table.part(message)
                return
            found = parse_json(message, max_digits=19, constants=False, surrogates=False)
            kind = found.get("type") if isinstance(found, dict) else None
            if kind not in self.handlers:
                raise SetUpError("type", "there is no such message")
            if self.admits(kind):
                self.handlers[kind](found)
        except Closed:
            raise
        except RecursionError:
            self.fail(SetUpError("message", "is nested too deeply"))
        except Exception as error:  # of a message alone: the page stays open, and shows it
            self.fail(error)
            self.changed(wholly=True)

    def admits(self, kind: str) -> bool:
        """Whether a message of this kind is still within what a page may send in a second."""
        now = time.perf_counter()
        if now - self.window > 1:
            self.window = now
            self.counts.clear()
        self.counts[kind] += 1
        most = 4 * limits.MESSAGES_PER_SECOND if kind == "more" else 2 * limits.MESSAGES_PER_SECOND
        if self.counts[kind] == most + 1:
            self.fail(SetUpError(kind, "too many of these in a second; the others are dropped"))
        return self.counts[kind] <= most

    # To the page ---------------------------------------------------------------------------------

    def event(self, kind: str, /, **values: Any) -> None:
        """Send something other than a frame."""
        self.channel.send(json.dumps(finite({"type": kind, **values})))

    def note(self, code: str, /, **values: Any) -> None:
        """Send one of the page's own sentences, by its name."""
        self.event("note", code=code, **values)

    def fail(self, error: Exception) -> None:
        """Send an error, with the field that it is about."""
        field = error.field if isinstance(error, SetUpError) else ""
        text = error.text if isinstance(error, SetUpError) else " ".join(str(error).split())
        self.event("error", field=field, text=text[:1000], kind=type(error).__name__)

    def changed(self, wholly: bool = False) -> None:
        """Make sure that a frame follows; `wholly` with every panel."""
        self.dirty = True
        self.wholly = self.wholly or wholly

    def show(self) -> None:
        """Send a frame if something changed, the page has room, and the last was not just now."""
        now = time.perf_counter()
        if not self.dirty or self.credit <= 0 or now - self.shown_at < self.seconds_between_frames:
            return
        about = {"playing": self.playing, "rate": self.rate if self.playing else 0.0}
        frame = self.painter.frame(about, self.wholly or not self.playing)
        self.credit -= 1
        due = self.shown_at + self.seconds_between_frames
        self.shown_at = max(due, now - self.seconds_between_frames / 2)  # catch up, a little
        self.dirty = self.wholly = False
        self.channel.send(frame)
        if self.painter.sent < len(self.run.curve):
            self.dirty = True

    def tell_state(self) -> None:
        """Send the set-up, and what follows from it."""
        net = self.run.net
        self.event(
            "state",
            setup=self.setup.to_dict(),
            family=family(self.setup),
            sizes=net.sizes,
            activations=net.activations,
            parameters=net.n_params,
            rows=self.run.n_rows,
            held_out=0 if self.run.held_out is None else len(self.run.held_out.X),
            classes=self.rows.classes,
            kind=self.rows.kind,
            loss=net.loss_name,
            formula=frames.loss_formula(net.loss_name),
            batch_size=self.run.batch_size,
            plain=is_plain(net),
        )

    # Set-ups -------------------------------------------------------------------------------------

    @property
    def classifies(self) -> bool:
        """Whether the cost takes labels, not numbers."""
        row = self.run.net.loss_row
        return (
            row is not None
            and row.classifies
            and self.run.net.sizes[-1] > 1
            and (row.name == "categorical_crossentropy")
        )

    def begin(self, setup: SetUp) -> None:
        """Begin a run anew."""
        made = self.ahead.take(setup) if self.ahead else None
        rows = made[0] if made else rows_of(setup, self.own)
        run = made[1] if made else new_run(setup, rows, self.own)
        setup = described(setup, run.net)
        painter = Painter(run, rows)
        if hasattr(self, "painter"):
            painter.panels = self.painter.panels
        self._take(setup, rows, run, painter)
        X, y = rows.held_out_or_all()
        painter.row, painter.target = np.asarray(X[0], run.net.dtype), y[0]
        self.reset_pace()

    def _take(self, setup: SetUp, rows: Rows, run: Run, painter: Painter) -> None:
        self.setup, self.rows, self.run, self.painter = setup, rows, run, painter
        self.kept[family(setup)] = setup, rows, run, painter
        self.changes = 0
        self.best = math.inf, 0
        self.playing = False
        painter.forget_curve()
        self.tell_state()
        self.channel.send(data_frame(rows))
        self.changed(wholly=True)

    def on_setup(self, message: dict[str, Any]) -> None:
        """Begin anew with some fields changed; with ``new`` all others are at their defaults."""
        given = message.get("fields")
        if not isinstance(given, dict):
            raise SetUpError("fields", "must be an object of named fields")
        base = SetUp() if message.get("new") else self.setup
        self.begin(base.changed(given))

    def on_use(self, message: dict[str, Any]) -> None:
        """Show another kind of data: the run that was left there, or a new one."""
        wanted, story = message.get("family"), message.get("story", self.setup.story)
        story = set_up.one_of(set_up.STORIES)(story)
        self.playing = False
        if wanted in self.kept:
            setup, rows, run, painter = self.kept[wanted]
            painter.panels = self.painter.panels
            self._take(setup.changed({"story": story}), rows, run, painter)
        elif wanted == "plane":
            self.begin(PLANE.changed({"story": story}))
        elif wanted == "digits":
            self.begin(DIGITS.changed({"story": story}))
        else:
            raise SetUpError("family", "must be digits, plane or own")

    def on_change(self, message: dict[str, Any]) -> None:
        """Change what the next batch depends on, or how the page presents it."""
        given = message.get("fields")
        if not isinstance(given, dict):
            raise SetUpError("fields", "must be an object of named fields")
        for name in given:
            if name not in (*CHANGEABLE, *set_up.PRESENTATION):
                raise SetUpError(str(name)[:40], "another value begins a new run")
        setup = self.setup.changed(given)
        if any(name in given for name in (*HYPER, "batch_size")):
            self.run.change(setup.recipe(), setup.batch_size)
            self.changes += self.run.step > 0
        self.setup = setup
        self.kept[family(setup)] = setup, self.rows, self.run, self.painter
        self.reset_pace()
        self.event("changed", fields={name: getattr(setup, name) for name in given})
        self.changed()

    # Playing -------------------------------------------------------------------------------------

    def reset_pace(self) -> None:
        """Count batches from now."""
        self.since, self.done, self.piece = time.perf_counter(), 0, 1
        self.rate, self.rated_at, self.rated_rows = 0.0, time.perf_counter(), 0

    def elapsed(self) -> float:
        """Return the seconds since the pace was set."""
        return time.perf_counter() - self.since

    def on_run(self, message: dict[str, Any]) -> None:
        """Train until paused, ``speed`` batches a second; 0 is as fast as it goes."""
        if "speed" in message:
            self.setup = self.setup.changed({"speed": message["speed"]})
        self.playing = True
        self.best = math.inf, self.run.epoch
        self.reset_pace()
        self.changed()

    def on_pause(self, message: dict[str, Any]) -> None:
        """Stop between two batches."""
        self.playing = False
        self.changed(wholly=True)

    def play(self) -> None:
        """Train for some milliseconds, or the batches that are due."""
        if not self.playing:
            return
        n = self.piece
        if self.setup.speed:
            due = int(self.elapsed() * self.setup.speed) - self.done
            if due > max(4 * self.piece, self.setup.speed):  # it cannot keep up: forget the rest
                self.since, self.done, due = time.perf_counter(), 0, 1
            n = min(n, due)
        if n <= 0:
            return
        began, seen = time.perf_counter(), len(self.run.curve)
        try:
            used = self.run.advance(n)
        except DivergenceError as error:
            self.playing = False
            self.fail(error)
            self.tell_state_after_back()
            return
        spent = time.perf_counter() - began
        self.done += n
        if spent < PIECE_SECONDS / 2:
            self.piece = min(2 * self.piece, 1 << 16)
        elif spent > PIECE_SECONDS * 1.25:
            self.piece = max(1, self.piece // 2)
        self._measure(used)
        self._judge(seen)
        self.changed()

    def _measure(self, used: int) -> None:
        """Count rows per second, of the last half second."""
        self.rated_rows += used
        spent = time.perf_counter() - self.rated_at
        if spent > 0.5:
            self.rate = self.rated_rows / spent
            self.rated_at, self.rated_rows = time.perf_counter(), 0

    def _judge(self, seen: int) -> None:
        """Pause where patience or the limit of epochs ends a training."""
        for epoch, _, loss, held_out, _ in self.run.curve[seen:]:
            judged = loss if math.isnan(held_out) else held_out
            if judged < self.best[0]:
                self.best = judged, int(epoch)
        if self.setup.patience and self.run.epoch - self.best[1] >= self.setup.patience:
            self.playing = False
            self.note("patience", epochs=self.setup.patience, best=self.best[1])
        if self.run.epoch >= limits.EPOCHS:
            self.playing = False
            self.note("limit", epochs=limits.EPOCHS)
        if not self.playing:
            self.changed(wholly=True)

    def on_step(self, message: dict[str, Any]) -> None:
        """Take single batches, or with ``epochs`` go to the end of the epoch."""
        self.playing = False
        n = set_up.whole(1, 1_000_000)(message.get("n", 1))
        if message.get("epochs"):
            n = self.run.batches_left + (n - 1) * -(-self.run.n_rows // self.run.batch_size)
        self.travel(self.run.step + n)

    def on_back(self, message: dict[str, Any]) -> None:
        """Go back by batches, or with ``epochs`` to the beginning of the epoch."""
        self.playing = False
        n = set_up.whole(1, 1_000_000_000)(message.get("n", 1))
        if message.get("epochs"):
            inside = -(-self.run.cursor // self.run.batch_size)
            whole_epoch = -(-self.run.n_rows // self.run.batch_size)
            n = (inside or whole_epoch) + (n - 1) * whole_epoch
        self.travel(max(0, self.run.step - n))

    def on_seek(self, message: dict[str, Any]) -> None:
        """Go to any batch."""
        self.playing = False
        self.travel(set_up.whole(0, 1_000_000_000)(message.get("step")))

    def travel(self, step: int) -> None:
        """Go to a batch: back exactly; forward as far as a second's training leads."""
        if step < self.run.step:
            self.run.seek(step)
            self.tell_state_after_back()
        end = time.perf_counter() + SECONDS_AHEAD
        while self.run.step < step and time.perf_counter() < end:
            self.run.advance(min(step - self.run.step, BATCHES_AT_ONCE))
        self.changed(wholly=True)

    def tell_state_after_back(self) -> None:
        """Tell the recipe of a checkpoint, which may be another than the last one."""
        recipe = self.run.recipe
        values = {name: getattr(recipe, name) for name in HYPER}
        values["clip_norm"] = values["clip_norm"] or 0.0
        values["batch_size"] = self.setup.batch_size
        if self.run.batch_size != min(self.setup.batch_size, self.run.n_rows):
            values["batch_size"] = self.run.batch_size
        before = self.setup
        self.setup = self.setup.changed(values)
        if self.setup != before:
            self.event("changed", fields=values)
        self.changed(wholly=True)

    def on_reset(self, message: dict[str, Any]) -> None:
        """Begin again: with the same seed the same run, or with another one."""
        fields: dict[str, Any] = {"epochs": 0}
        if message.get("seed") is not None:
            if self.setup.data == "own":
                raise SetUpError("seed", "this model was passed with its weights")
            fields["seed"] = message["seed"]
        self.begin(self.setup.changed(fields))

    # What is shown -------------------------------------------------------------------------------

    def on_look(self, message: dict[str, Any]) -> None:
        """Choose the panels of the frames, and the unit whose sum is shown."""
        if "panels" in message:
            self.painter.panels = set(frames.names_of(message["panels"]))
        if "unit" in message:
            layer = set_up.whole(1, len(self.run.net.weights))(message.get("layer"))
            unit = set_up.whole(0, self.run.net.sizes[layer] - 1)(message["unit"])
            self.painter.unit = layer, unit
        self.changed(wholly=True)

    def on_more(self, message: dict[str, Any]) -> None:
        """Take credit for one more frame: the page has drawn one."""
        given = set_up.whole(1, self.most_credit)(message.get("credit", 1))
        self.credit = min(self.most_credit, self.credit + given)


SECONDS_AHEAD, BATCHES_AT_ONCE = 1.0, 64
"""How long one command may train, and after how many batches the clock is read."""


def family(setup: SetUp) -> str:
    """Return which of the runs a set-up belongs to: those of different data are kept apart.

    Rows to step through are a lesson, which leaves the points of the plane as they are.
    """
    if setup.rows:
        return "lesson"
    return setup.data if setup.data in ("digits", "own") else "plane"


def finite(value: Any) -> Any:
    """Return JSON-able values, with None for numbers that are not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        return finite(value.item())
    return value
