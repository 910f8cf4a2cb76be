"""Draw a digit: ink from the page, other rows to read, and training on what was drawn."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.page import digits
from cmlp.page.host import Host
from cmlp.page.run import snapshot
from cmlp.page.set_up import SetUpError, whole
from cmlp.training.snapshot import Snapshot

MOST_COLLECTED = 200
OWN_EPOCHS, OWN_RATE = 30, 0.02


class Drawing:
    """The row on view, and the digits that the user collected."""

    def __init__(self, session: Host) -> None:
        self.session = session
        self.collected: list[tuple[Array, int]] = []
        self.before: Snapshot | None = None
        self.next_row = -1
        self.generation = 0

    def handlers(self) -> dict[str, Any]:
        """Return what answers which message."""
        return {
            "ink": self.ink,
            "pixels": self.pixels,
            "sample": self.sample,
            "off": self.off,
            "collect": self.collect,
            "mine": self.mine,
            "forget": self.forget,
            "place": self.place,
        }

    # Rows ----------------------------------------------------------------------------------------

    def ink(self, message: dict[str, Any]) -> None:
        """Read a drawing: 32 rows of 32 bits, as 256 hexadecimal digits."""
        self._check_digits()
        text = message.get("bits")
        if not isinstance(text, str) or len(text) != 256:
            raise SetUpError(
                "ink", "must be 256 hexadecimal digits, a bit for each of 32 x 32 cells"
            )
        try:
            raw = np.frombuffer(bytes.fromhex(text), np.uint8)
        except ValueError:
            raise SetUpError("ink", "must be 256 hexadecimal digits") from None
        if len(raw) != 128:
            raise SetUpError("ink", "must be 256 hexadecimal digits")
        picture, counts = digits.prepared(np.unpackbits(raw).reshape(32, 32).astype(bool))
        self._show_ink(counts.ravel())
        self.session.event(
            "prepared", bits=np.packbits(picture).tobytes().hex(), counts=counts.ravel().tolist()
        )

    def pixels(self, message: dict[str, Any]) -> None:
        """Read 64 numbers of 0 to 16, as they are."""
        self._check_digits()
        values = message.get("values")
        if not isinstance(values, list) or len(values) != 64:
            raise SetUpError("pixels", "must be a list of 64 whole numbers from 0 to 16")
        try:
            counts = np.array([whole(0, 16)(value) for value in values], np.uint8)
        except ValueError as error:
            raise SetUpError("pixels", str(error)) from None
        self._show_ink(counts)

    def sample(self, message: dict[str, Any]) -> None:
        """Take a row that is held out: the next, one that is read wrongly, or one by number."""
        rows, painter = self.session.rows, self.session.painter
        X, y = rows.held_out_or_all()
        which = message.get("which")
        row = (self.next_row + 1) % len(X)
        if which == "wrong":
            out = self.session.run.net.predict(X)
            read = out.argmax(axis=1) if out.shape[1] > 1 else (out[:, 0] > 0.5).astype(int)
            wrong = np.flatnonzero(read != y) if rows.classes else np.arange(len(X))
            if not len(wrong):
                self.session.note("all-right")
                return
            later = wrong[wrong > self.next_row]
            row = int(later[0] if len(later) else wrong[0])
        elif which != "next":
            try:
                row = whole(0, len(X) - 1)(which)
            except ValueError as error:
                raise SetUpError("sample", str(error)) from None
        self.next_row = row
        painter.row, painter.target = np.asarray(X[row], self.session.run.net.dtype), y[row]
        truth = rows.classes[int(y[row])] if rows.classes else str(y[row])
        self.session.event(
            "sample",
            row=row,
            truth=truth,
            held_out=rows.X_val is not None,
            counts=np.rint(X[row] * (16 / rows.black)).astype(int).tolist()
            if rows.kind == "digits"
            else [],
        )
        self.session.changed()

    def place(self, message: dict[str, Any]) -> None:
        """Take a point of the plane as the row on view."""
        values = message.get("values")
        n_in = self.session.run.net.sizes[0]
        if (
            not isinstance(values, list)
            or len(values) != n_in
            or not all(isinstance(value, (int, float)) and abs(value) < 1e6 for value in values)
        ):
            raise SetUpError("place", f"must be a list of {n_in} numbers")
        self._show(np.array(values, self.session.run.net.dtype))

    def off(self, message: dict[str, Any]) -> None:
        """Switch a hidden unit off or on for the row on view."""
        sizes = self.session.run.net.sizes
        try:
            layer = whole(1, len(sizes) - 2)(message.get("layer"))
            unit = whole(0, sizes[layer] - 1)(message.get("unit"))
        except ValueError as error:
            raise SetUpError("off", str(error)) from None
        self.session.painter.off ^= {(layer, unit)}
        self.session.event("off", units=sorted(self.session.painter.off))
        self.session.changed()

    def _check_digits(self) -> None:
        if self.session.run.net.sizes[0] != 64:
            raise SetUpError("ink", "this network does not read 8 x 8 pictures; choose the digits")

    def _show_ink(self, counts: Array) -> None:
        """Take counts of 0 to 16 as a row of the data's own range."""
        self._show(counts * np.float32(self.session.rows.black / 16))

    def _show(self, row: Array) -> None:
        """Take a row without a target."""
        painter = self.session.painter
        painter.row, painter.target = row.astype(self.session.run.net.dtype), None
        self.session.changed()

    # Own digits ----------------------------------------------------------------------------------

    def collect(self, message: dict[str, Any]) -> None:
        """Keep the row on view with its label."""
        n = len(self.session.rows.classes)
        try:
            label = whole(0, n - 1)(message.get("label"))
        except ValueError as error:
            raise SetUpError("label", str(error)) from None
        if len(self.collected) >= MOST_COLLECTED:
            raise SetUpError("collect", f"at most {MOST_COLLECTED} digits are kept")
        self.session.painter.target = label
        self.collected.append((self.session.painter.row.copy(), label))
        self.session.event(
            "collected", n=len(self.collected), labels=[label for _, label in self.collected]
        )

    def mine(self, message: dict[str, Any]) -> None:
        """Train on the digits that were collected, and report what the test writers get."""
        session = self.session
        if not self.collected:
            raise SetUpError(
                "collect", "there are no digits of yours yet: draw one and give it a label"
            )
        run, rows = session.run, session.rows
        net = run.net
        y = np.array([label for _, label in self.collected])
        X = np.array([row for row, _ in self.collected], np.float32)
        n_out = net.sizes[-1]
        targets: Array = (
            y if session.classifies else (y[:, None] == np.arange(n_out)).astype(np.float32)
        )
        before = self._shares(rows, X, y)
        if self.before is None or self.generation != id(run):
            self.before, self.generation = snapshot(net), id(run)
        trained = copy.deepcopy(net)
        trained.fit(
            X,
            targets,
            epochs=OWN_EPOCHS,
            batch_size=8,
            learning_rate=OWN_RATE,
            momentum=0.0,
            n_threads=1,
        )
        net.params[:] = trained.params
        run.change(run.recipe, run.batch_size)
        session.event("mine", n=len(y), before=before, after=self._shares(rows, X, y))
        session.changed()

    def forget(self, message: dict[str, Any]) -> None:
        """Undo the training on one's own digits."""
        if self.before is not None and self.generation == id(self.session.run):
            self.before.put_back()
            self.session.run.change(self.session.run.recipe, self.session.run.batch_size)
            self.before = None
        self.collected.clear()
        self.session.event("collected", n=0, labels=[])
        self.session.changed()

    def _shares(self, rows: Any, X: Array, y: Array) -> list[float]:
        """Return the shares that are read right: of the rows held out, and of one's own."""
        net = self.session.run.net
        X_val, y_val = rows.held_out_or_all()
        return [
            float(np.mean(net.predict(some).argmax(axis=1) == truth))
            for some, truth in ((X_val, y_val), (X, y))
        ]
