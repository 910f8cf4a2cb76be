"""``net.fit(..., comm=comm)``: rounds, until a rule, a clock or Ctrl-C ends them."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from cmlp.core.errors import warn
from cmlp.data.rows import Data
from cmlp.data.source import Source
from cmlp.distributed.communicator import Communicator
from cmlp.distributed.rank import Rank, Settings
from cmlp.formats.checkpoint import Checkpoint
from cmlp.model.history import History
from cmlp.model.state import State
from cmlp.training.callbacks import call_back
from cmlp.training.divergence import DivergenceError
from cmlp.training.fit import warn_of_interrupt
from cmlp.training.stopping import Deadline
from cmlp.training.trainer import in_main_thread


def fit(
    net: State,
    rows: Data | Source,
    settings: Settings,
    validation: Data | None,
    comm: Communicator,
    checkpoint: Checkpoint | None = None,
    resume: bool = False,
) -> History:
    """Train with the other ranks; see :meth:`cmlp.Network.fit`.

    Callbacks, output and checkpoints are rank 0's, and so is the file that it resumes from: the
    others get its state.
    """
    leads, ended = comm.rank == 0, ""
    if not leads:
        quiet = replace(settings.options, verbose=0, callbacks=())
        settings, checkpoint = replace(settings, options=quiet), None
    options = settings.options
    if checkpoint is not None and resume and checkpoint.resume(options.epochs):
        ended = checkpoint.finished
    rank = Rank(net, rows, settings, validation)
    state, deadline = rank.state_of_fit, Deadline(options.max_time)
    callbacks, stopped = tuple(options.callbacks), "error"
    try:
        keeper = kept(checkpoint, rank)
        with halting(rank.halt):
            call_back(callbacks, "on_train_begin", state)
            while True:
                why = "interrupted" if rank.halt.is_set() else "callback" if state.stop else ""
                why = ended or why or deadline.reason
                found = rank.round(comm, deadline.end - time.perf_counter(), why)
                for _ in found.records:
                    call_back(callbacks, "on_epoch_end", state)
                if keeper is not None:
                    keeper.trainer = rank.trainer
                    keeper.save(now=found.ended in ("max_time", "interrupted"))
                if found.ended:
                    stopped = found.ended
                    break
        rank.close()
        if rank.rules.patience.params is not None:
            net.params[:] = rank.rules.patience.params
    except DivergenceError:
        stopped = "diverged"  # on every rank alike
        raise
    except BaseException as error:
        comm.close(error)
        raise
    finally:
        rank.rules.progress.close()
        rank.close()
        rank.rules.end(stopped)
    if stopped == "interrupted" and leads:
        warn_of_interrupt(state.epoch, options.epochs)
    if keeper is not None:
        keeper.end(stopped)
    call_back(callbacks, "on_train_end", state)
    return state.history


def kept(checkpoint: Checkpoint | None, rank: Rank) -> Checkpoint | None:
    """Continue where a checkpoint stood, or begin to write one."""
    if checkpoint is None:
        return None
    other = checkpoint.restored and checkpoint.windows.get("shards") != rank.settings.n_shards
    checkpoint.windows = {"rows": 0, "lanes": 0, "held": 0.0, "shards": rank.settings.n_shards}
    keeper = checkpoint.begin(rank.trainer, rank.state_of_fit, rank.rules)
    if other and rank.position.step:
        warn(
            "the checkpoint is from the middle of an epoch with another order of the rows: of this "
            "epoch, some rows are used twice and some not at all"
        )
    return keeper


@contextlib.contextmanager
def halting(event: threading.Event) -> Iterator[None]:
    """Set an event at the first Ctrl-C, which ends all ranks after the same step."""
    if not in_main_thread():
        yield
        return

    def handler(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
