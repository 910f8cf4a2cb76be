"""Checkpoints of a training: a model file with the optimizer, and where the training stood.

The entry ``resume`` has the epoch, the rows of it that were used, sums over these, the state of the
random generator at the beginning of the fit and before this epoch, and what has to be the same for
a training to continue. The lowest loss's weights, where patience keeps them, are arrays
``best.layers.0.weight`` and so on.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmlp.core.checks import check_number
from cmlp.core.errors import warn
from cmlp.core.vocabulary import SOLVERS, lookup
from cmlp.data.numbers import is_finite
from cmlp.data.source import Source
from cmlp.formats import cmlp_file, safetensors
from cmlp.formats.cmlp_file import BAD_CONTENT, HEAD, Saved, parsed, parts_of, plain_number
from cmlp.formats.safetensors import ModelFileError
from cmlp.formats.training_records import generator, read_resume
from cmlp.model.history import History
from cmlp.model.parameters import Parameters
from cmlp.model.state import State
from cmlp.training.callbacks import TrainingState
from cmlp.training.feed import Progressed
from cmlp.training.fit import Options, RestorableRules
from cmlp.training.recipe import Recipe
from cmlp.training.trainer import Trainer

FINISHED = ("epochs", "patience", "callback")
"""Ends of a training after which there is nothing to continue."""

NAMES = {
    "fingerprint": "the data", "batch_size": "batch_size", "solver": "solver", "ema": "ema",
    "shuffle": "shuffle", "validation": "validation_fraction",
}  # fmt: skip


@dataclass
class Stored:
    """A checkpoint that was read."""

    saved: Saved
    record: dict[str, Any]


def read_checkpoint(path: str | os.PathLike[str]) -> Stored | None:
    """Read a checkpoint; None if there is no such file.

    Raises
    ------
    ModelFileError
        If the file is none.
    """
    if not os.path.exists(path):
        return None
    found: list[tuple[Saved, dict[str, Any]]] = []

    def validate(metadata: dict[str, str], infos: dict[str, safetensors.ArrayInfo]) -> None:
        cmlp_file.check_head(os.fsdecode(path), metadata)
        if "resume" not in metadata:
            raise ModelFileError(
                f"{os.fsdecode(path)} is a model without a training to resume; name another file "
                "as checkpoint"
            )
        try:
            saved = cmlp_file.content(metadata, infos)
            found.append((saved, read_resume(parsed(metadata, "resume"))))
        except BAD_CONTENT as error:
            raise ModelFileError(f"{os.fsdecode(path)} is no checkpoint: {error}") from None

    arrays, _ = safetensors.read(path, validate)
    return Stored(found[0][0]._replace(arrays=arrays), found[0][1])


def shards_of(path: str | os.PathLike[str]) -> int:
    """Return into how many shards the rows of a checkpoint's training are cut; 0 without ranks."""
    stored = read_checkpoint(path)
    return int(stored.record["windows"].get("shards", 0)) if stored else 0


class Checkpoint:
    """Writes checkpoints of a training, and continues one.

    Parameters
    ----------
    path : str or path-like
    every : float
        Seconds between two of them.
    same : dict
        What has to be the same for a training to continue, by the names in the file.

    Attributes
    ----------
    windows : dict
        What a training in windows has to continue with; empty where all rows are in memory.
    """

    def __init__(
        self, net: State, path: str | os.PathLike[str], every: float, same: dict[str, Any]
    ) -> None:
        self.net, self.path, self.same = net, path, same
        self.every = check_number("checkpoint_every", every, 0)
        self.windows: dict[str, Any] = {}
        self.stored: Stored | None = None
        self.start = self.before = net.rng.bit_generator.state
        self.older = len(net.history.get("loss", []))
        self.last = time.perf_counter()
        self.warned = False
        self.errors = 0
        self.finished = ""

    # Reading

    def resume(self, epochs: int) -> bool:
        """Restore the network from the file, if there is one.

        Returns
        -------
        bool
            Whether there is nothing left to train: that training had ended, and not by the number
            of epochs, or by one that is not below `epochs`.

        Raises
        ------
        ModelFileError
            If the file is damaged, or no checkpoint.
        ValueError
            If it is of another network, other data or another training; the message has what
            differs.
        """
        stored = read_checkpoint(self.path)
        if stored is None:
            return False
        record, net = stored.record, self.net
        self._compare(stored)
        made = cmlp_file.made(
            State, stored.saved, os.fsdecode(self.path), net.architecture.custom_loss
        )
        net.params[:] = made.params
        net.rebind_attributes(
            optimizer_state=made.optimizer_state, classes=made.classes, history=made.history
        )
        self.stored, self.windows, self.older = stored, record["windows"], record["older"]
        self.start, self.finished = record["start"], record["finished"]
        finished = self.finished
        net.rng = generator(record["start"])
        ended = bool(finished) and (finished != "epochs" or record["epoch"] >= epochs)
        if ended:
            net.rng = generator(record["generator"])
        return ended

    @property
    def restored(self) -> bool:
        """Whether a file was read, from which training is to continue."""
        return self.stored is not None

    def _compare(self, stored: Stored) -> None:
        """Refuse a checkpoint of another training."""
        present = json.loads(json.dumps(self.net.architecture.to_dict()))
        older = {name: stored.saved.architecture.get(name) for name in present}
        path = os.fsdecode(self.path)
        for name, value in self.same.items():
            if stored.record["same"].get(name) != value:
                before = stored.record["same"].get(name)
                what = NAMES.get(name, name)
                shown = "" if name == "fingerprint" else f" ({before!r} then, {value!r} now)"
                raise ValueError(
                    f"{path} is a checkpoint of another training: {what} is not the same{shown}; "
                    "give another file, or resume=False to begin anew"
                )
        for name, value in present.items():
            if older[name] != value:
                raise ValueError(
                    f"{path} is a checkpoint of a network with {name}={older[name]!r}, not "
                    f"{value!r}; give another file, or resume=False to begin anew"
                )

    @property
    def history(self) -> History:
        """The epochs of this fit in the restored network's record."""
        record = self.net.history
        found = History({key: column[self.older :] for key, column in record.items()})
        found.metric = record.metric
        found.end(record.stopped, record.best_epoch, record.restored)
        return found

    # During the training; see `training.fit.Resumed` and `training.feed.Keeper`

    def begin(self, trainer: Trainer, state: TrainingState, rules: RestorableRules) -> Checkpoint:
        """Restore where a training stood, or write the first checkpoint of a new one."""
        self.trainer, self.state, self.rules = trainer, state, rules
        trainer.pause = self._pause
        if self.stored is None:
            self.mark()
            self._write("", Progressed(first_step=self.net.steps), fails=True)
            return self
        record, net, best = self.stored.record, self.net, None
        state.epoch = record["epoch"]
        if state.history is not net.history:
            state.history.update(self.history)
        trainer.progressed = Progressed(
            record["epoch"], record["rows"], record["loss"], record["weight"],
            net.steps - -(-record["rows"] // trainer.batch_size),
        )  # fmt: skip
        if record["best"]:
            best = np.zeros_like(net.params)
            for key, view in Parameters(net.plan, best).parts("best.").items():
                view[...] = self.stored.saved.arrays[key]
        try:
            rules.restore(record["rules"], best, record["epoch"])
        except BAD_CONTENT as error:
            path = os.fsdecode(self.path)
            raise ModelFileError(f"{path} is no checkpoint of this training: {error}") from None
        net.rng = generator(record["generator"])
        self.mark()
        self.stored = None
        return self

    def mark(self) -> None:
        """Remember the state of the random generator, from which an epoch is to be drawn."""
        self.before = self.net.rng.bit_generator.state

    def _pause(self, ends: bool) -> None:
        self.save(now=ends)

    def save(self, *, now: bool = False) -> None:
        """Write a checkpoint, if it is time for one or is to be written `now`."""
        if not now and time.perf_counter() - self.last < self.every:
            return
        done, state, net = self.trainer.progressed, self.state, self.net
        if not is_finite(net.params):
            return  # it is about to diverge: the older file is of use
        older = self.older if state.history is net.history else 0
        if len(state.history.get("loss", [])) - older != state.epoch:
            return  # Ctrl-C, in the middle of recording an epoch: the older file is whole
        if done.epoch < state.epoch:
            self.mark()
            done = Progressed(state.epoch, first_step=net.steps)
        rows = min((net.steps - done.first_step) * self.trainer.batch_size, self.rules.n_rows)
        self._write("", Progressed(done.epoch, rows, done.loss, done.weight, done.first_step))

    def end(self, stopped: str) -> None:
        """Write the last checkpoint, of a training that was not stopped in the middle."""
        if stopped in FINISHED:
            self.mark()
            self._write(stopped, Progressed(self.state.epoch, first_step=self.net.steps))

    def _write(self, finished: str, done: Progressed, fails: bool = False) -> None:
        """Write the file; where it cannot be written, warn once and keep the older one."""
        net = self.net
        rules, best = self.rules.kept()
        record = {
            "finished": finished,
            "epoch": done.epoch,
            "rows": done.rows,
            "loss": float(done.loss),
            "weight": float(done.weight),
            "windows": self.windows,
            "older": self.older,
            "rules": rules,
            "best": best is not None,
            "start": self.start,
            "generator": self.before,
            "same": self.same,
        }
        metadata, arrays = self._network_parts()
        if best is not None:
            arrays |= Parameters(net.plan, best).parts("best.")
        metadata["resume"] = json.dumps(record, default=plain_number)
        try:
            safetensors.write(self.path, arrays, HEAD | metadata)
        except OSError as error:
            if fails:
                raise
            self.errors += 1
            self.state.history.checkpoint_errors = self.errors
            if not self.warned:
                self.warned = True
                warn(
                    f"the checkpoint {os.fsdecode(self.path)} could not be written "
                    f"({error.strerror or error}); the older one is whole, and training continues"
                )
        self.last = time.perf_counter()

    def _network_parts(self) -> tuple[dict[str, str], dict[str, Any]]:
        """Return the network as text and arrays; room for a mean that is of no step is left out."""
        memory = self.net.optimizer_state
        moments, rule = memory.moments, lookup("solver", SOLVERS, memory.solver)
        try:
            if not memory.average_steps:
                memory.moments = moments[: rule.n_moments]
            return parts_of(self.net, optimizer=True)
        finally:
            memory.moments = moments


def checkpoint_of(
    net: State,
    path: str | os.PathLike[str] | None,
    every: float,
    source: Source,
    recipe: Recipe,
    options: Options,
) -> Checkpoint | None:
    """Return what writes the checkpoints of a fit to a source; None without a path."""
    if path is None:
        return None
    same = {
        "fingerprint": source.fingerprint(),
        "batch_size": options.batch_size,
        "shuffle": bool(options.shuffle),
        "solver": recipe.rule.name,
        "ema": recipe.ema > 0,
        "validation": float(options.validation_fraction),
    }
    return Checkpoint(net, path, every, same)
