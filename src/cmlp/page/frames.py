"""Frames: what a page draws, as bytes in the safetensors layout.

A frame has what is on view, and no more often than it is worth: weights and activations with every
frame, regions of a plane 15 times a second, single units 10 times, histograms 4 times.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Collection
from typing import Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.core.vocabulary import LOSSES
from cmlp.data.rows import Data
from cmlp.formats import safetensors
from cmlp.model import passes
from cmlp.model.parameters import Parameters
from cmlp.page import limits
from cmlp.page.build import Rows, is_plain
from cmlp.page.run import Run

RATES = {
    "weights": 30.0,
    "row": 30.0,
    "regions": 15.0,
    "units": 10.0,
    "stats": 4.0,
    "wrong": 2.0,
    "unit": 8.0,
}
"""Times a second that each panel is renewed, at most."""

GRID, SMALL_GRID = 64, 24
"""Cells along a side of the plane, and of a unit's picture of it."""

EXTENT = 1.25
"""The plane that is drawn: from -EXTENT to EXTENT on both axes."""

BINS = 41
SAMPLE = 256
"""Rows that gradients and dead units are judged by."""

MOST_UNITS, MOST_INPUTS, MOST_WRONG, MOST_TERMS = 32, 64, 12, 8

CURVE_ROWS = 2000
"""Epochs in one frame: the rest follows in the next."""


def to_bytes(arrays: dict[str, Array], about: dict[str, Any]) -> bytes:
    """Return arrays and what they are, as a safetensors file in memory."""
    file = io.BytesIO()
    text = {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()
    }
    safetensors.write(file, arrays, text)
    return file.getvalue()


def plane(n: int) -> Array:
    """Return the middles of n x n cells, row by row from the top left, (n * n, 2)."""
    ticks = (np.arange(n) + 0.5) / n * 2 * EXTENT - EXTENT
    x, y = np.meshgrid(ticks, -ticks)
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


BIG_PLANE, SMALL_PLANE = plane(GRID), plane(SMALL_GRID)


class Painter:
    """Builds the frames of one run.

    Attributes
    ----------
    panels : set of str
        What is on view: keys of :data:`RATES`.
    row : (n_in,) array
        The row whose activations are shown.
    target : number of a class, array of numbers, or None
        Of that row; None for a drawing without a label.
    off : set of (layer, unit)
        Units that are switched off for this row.
    unit : (layer, unit)
        The unit whose sum is shown.
    sent : int
        Epochs of the curve that the page has.
    """

    def __init__(self, run: Run, rows: Rows) -> None:
        self.run, self.rows = run, rows
        self.panels: set[str] = set()
        self.row: Array = np.zeros(run.net.sizes[0], run.net.dtype)
        self.target: Any = None
        self.off: set[tuple[int, int]] = set()
        self.unit = (1, 0)
        self.sent = self.seq = 0
        self.shown_at: dict[str, float] = {}
        self.first = [W.copy().ravel() for W in run.net.weights]
        step = max(1, run.n_rows // SAMPLE)
        X, targets = run.data.X, run.data.targets
        weights = run.data.weights
        self.sample = Data(
            X[::step][:SAMPLE],
            targets[::step][:SAMPLE],
            None if weights is None else weights[::step][:SAMPLE],
        )

    def frame(self, about: dict[str, Any], all_panels: bool = False) -> bytes:
        """Return the next frame; `about` is added to its metadata."""
        run, now = self.run, time.perf_counter()
        self.seq += 1
        arrays: dict[str, Array] = {}
        start = min(self.sent, run.lowest)
        part = run.curve[start : start + CURVE_ROWS]
        self.sent, run.lowest = start + len(part), len(run.curve)
        arrays["curve"] = np.array(part, np.float64).reshape(len(part), 5)
        for name, rate in RATES.items():
            if name not in self.panels:
                continue
            if all_panels or now - self.shown_at.get(name, 0.0) >= 0.9 / rate:
                self.shown_at[name] = now
                arrays |= getattr(self, f"_{name}")()
        meta = {
            "kind": "frame",
            "seq": self.seq,
            "step": run.step,
            "epoch": run.epoch,
            "batch": run.cursor // run.batch_size,
            "batches": -(-run.n_rows // run.batch_size),
            "furthest": run.furthest,
            "earliest": run.earliest,
            "curve_from": start,
        }
        return to_bytes(arrays, meta | about)

    def forget_curve(self) -> None:
        """Send the whole curve with the next frame."""
        self.sent = 0

    # Panels --------------------------------------------------------------------------------------

    def _weights(self) -> dict[str, Array]:
        net, found = self.run.net, {}
        cut = net.n_params > limits.FRAME_PARAMETERS
        for number, (W, b) in enumerate(zip(net.weights, net.biases, strict=True), 1):
            if cut:
                W, b = W[:MOST_INPUTS, :MOST_UNITS], b[:MOST_UNITS]
            found[f"W{number}"], found[f"b{number}"] = W.copy(), b.copy()
        if net.inputs is not None:
            del found["W1"]  # its rows are not the columns
        return found

    def _row(self) -> dict[str, Array]:
        net = self.run.net
        z, a = self.propagated()
        found = {"x": self.row.astype(np.float32)}
        for number in range(len(z)):
            found[f"z{number + 1}"], found[f"a{number + 1}"] = z[number][0], a[number][0]
        if net.n_params > limits.FRAME_PARAMETERS:
            last = len(z)
            found = {
                key: part if key in (f"z{last}", f"a{last}", "x") else part[:MOST_UNITS]
                for key, part in found.items()
            }
        return found

    def _unit(self) -> dict[str, Array]:
        """Return the largest terms of a unit's sum: place, a, w, a w; then the rest, b, z, a."""
        net = self.run.net
        if not is_plain(net):
            return {}
        layer = min(self.unit[0], len(net.weights))
        unit = min(self.unit[1], net.sizes[layer] - 1)
        z, a = self.propagated()
        before = self.row * net.input_scale if layer == 1 else a[layer - 2][0]
        w = net.weights[layer - 1][:, unit]
        terms = before * w
        order = np.argsort(-np.abs(terms), kind="stable")
        first, rest = order[:MOST_TERMS], order[MOST_TERMS:]
        table = np.stack([first, before[first], w[first], terms[first]], axis=1)
        about = [
            layer,
            unit,
            len(rest),
            terms[rest].sum(),
            net.biases[layer - 1][unit],
            z[layer - 1][0, unit],
            a[layer - 1][0, unit],
        ]
        return {
            "unit_terms": table.astype(np.float32),
            "unit_about": np.array(about, np.float32),
            "unit_w": w[:MOST_INPUTS].astype(np.float32),
        }

    def propagated(self) -> tuple[list[Array], list[Array]]:
        """Return z and a of every layer for the row on view, without the units that are off."""
        net = self.run.net
        if not self.off:
            return passes.forward(net, self.row[None])
        kept = net.params.copy()
        weights = Parameters(net.plan, net.params).weights
        try:
            for layer, unit in self.off:
                weights[layer][unit] = 0  # nothing reaches the next layer from it
            z, a = passes.forward(net, self.row[None])
        finally:
            net.params[:] = kept
        for layer, unit in self.off:
            a[layer - 1][:, unit] = 0
        return z, a

    def _regions(self) -> dict[str, Array]:
        if self.run.net.sizes[0] != 2:
            return {}
        out = passes.predict(self.run.net, BIG_PLANE)
        if out.shape[1] == 1:
            classes, sure = out[:, 0] > 0.5, np.abs(out[:, 0] - 0.5) * 2
        else:
            ordered = np.sort(out, axis=1)
            classes, sure = out.argmax(axis=1), ordered[:, -1] - ordered[:, -2]
        sure = np.nan_to_num(np.clip(sure, 0, 1))
        return {
            "classes": classes.astype(np.uint8).reshape(GRID, GRID),
            "sure": (sure * 255).astype(np.uint8).reshape(GRID, GRID),
        }

    def _units(self) -> dict[str, Array]:
        """Return each hidden unit's activation over the plane, from its least to its most."""
        if self.run.net.sizes[0] != 2:
            return {}
        _, activations = passes.forward(self.run.net, SMALL_PLANE)
        found = {}
        for number, a in enumerate(activations[:-1], 1):
            a = np.nan_to_num(a[:, :MOST_UNITS])
            low, high = a.min(axis=0), a.max(axis=0)
            shown = (a - low) / np.where(high > low, high - low, 1) * 255
            found[f"unit{number}"] = shown.T.astype(np.uint8).reshape(-1, SMALL_GRID, SMALL_GRID)
        return found

    def _stats(self) -> dict[str, Array]:
        """Return histograms of the weights, norms of the gradient, and shares of dead units."""
        net, found = self.run.net, {}
        for number, (W, first) in enumerate(zip(net.weights, self.first, strict=True), 1):
            edge = max(float(np.abs(W).max(initial=0)), float(np.abs(first).max(initial=0)), 1e-6)
            edge = edge if np.isfinite(edge) else 1.0
            for name, values in (("hist", W.ravel()), ("hist_first", first)):
                counts = np.histogram(values, BINS, (-edge, edge))[0]
                found[f"{name}{number}"] = counts.astype(np.float32)
            found[f"edge{number}"] = np.array([edge], np.float32)
        objective = self.run.recipe.objective(net.architecture)
        gradient = passes.backpropagate(net, self.sample, objective).gradient
        parts = Parameters(net.plan, gradient)
        norms = [
            np.sqrt(float((W * W).sum() + (b * b).sum()))
            for W, b in zip(parts.weights, parts.biases, strict=True)
        ]
        found["gradient"] = np.array(norms, np.float32)
        _, a = passes.forward(net, self.sample.X)
        found["dead"] = np.array(
            [float((layer == 0).all(axis=0).mean()) for layer in a[:-1]], np.float32
        )
        return found

    def _wrong(self) -> dict[str, Array]:
        """Return rows that are held out and read wrongly: number, true class, class read."""
        rows = self.rows
        if rows.X_val is None or rows.y_val is None or not rows.classes:
            return {}
        out = passes.predict(self.run.net, rows.X_val)
        read = out.argmax(axis=1) if out.shape[1] > 1 else (out[:, 0] > 0.5).astype(np.int64)
        wrong = np.flatnonzero(read != rows.y_val)
        some = wrong[:MOST_WRONG]
        n = max(2, len(rows.classes))
        counts = np.zeros((n, n), np.float32)
        np.add.at(counts, (rows.y_val, read), 1)
        found = {
            "wrong": np.stack([some, rows.y_val[some], read[some]], axis=1).astype(np.float32),
            "confusion": counts,
        }
        if rows.kind == "digits":
            found["wrong_x"] = (rows.X_val[some] / rows.black).astype(np.float32)
        return found


def data_frame(rows: Rows) -> bytes:
    """Return the rows that a page draws: points of a plane, or some digits."""
    if rows.kind == "plane":
        arrays = {"X": rows.X.astype(np.float32), "y": rows.y.astype(np.float32)}
        if rows.X_val is not None and rows.y_val is not None:
            arrays |= {
                "X_val": rows.X_val.astype(np.float32),
                "y_val": rows.y_val.astype(np.float32),
            }
    else:
        arrays = {"X": rows.X[:8].astype(np.float32)}
    return to_bytes(arrays, {"kind": "data", "rows": rows.kind, "extent": EXTENT})


def loss_formula(name: str) -> str:
    """Return the formula of a cost."""
    return next((row.formula for row in LOSSES if row.name == name), "custom")


def names_of(panels: Any) -> Collection[str]:
    """Return the known names among those of a message."""
    return {str(name) for name in panels if name in RATES} if isinstance(panels, list) else set()
