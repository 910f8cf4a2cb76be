"""``net.fit(..., comm=comm)``: a rank in the ordinary fit, with Ctrl-C and a checkpoint of all."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from cmlp.core.errors import warn
from cmlp.data.rows import Data
from cmlp.data.source import Source
from cmlp.distributed.communicator import Communicator
from cmlp.distributed.rank import QUIET, Rank, Settings
from cmlp.formats.checkpoint import Checkpoint
from cmlp.model.history import History
from cmlp.model.state import State
from cmlp.training.divergence import DivergenceError
from cmlp.training.fit import run_loop
from cmlp.training.trainer import in_main_thread


def fit(
    net: State, rows: Data | Source, settings: Settings, validation: Data | None,
    comm: Communicator, checkpoint: Checkpoint | None = None, resume: bool = False,
    made: Callable[..., Rank] = Rank,
) -> History:  # fmt: skip
    """Train with the other ranks; see :meth:`cmlp.Network.fit`.

    Callbacks, output and checkpoints are rank 0's, and so is the file that it resumes from: the
    others get its state.
    """
    if comm.rank:
        settings, checkpoint = settings.changed(**QUIET), None
    ended = checkpoint and resume and checkpoint.resume(settings.options.epochs)
    rank = made(net, rows, settings, validation)
    rank.comm = comm

    def halt(number: int, frame: Any) -> None:
        """End all ranks after the same step; at a second Ctrl-C, this one at once."""
        if rank.halt.is_set():
            comm.close(error := KeyboardInterrupt())
            raise error
        rank.halt.set()

    handler = signal.signal(signal.SIGINT, halt) if in_main_thread() else None
    try:
        if checkpoint is not None:
            rank.stop = checkpoint.finished if ended else ""
            begin(checkpoint, rank)
        return run_loop(rank, rank.rules, checkpoint)
    except BaseException as error:
        if not isinstance(error, DivergenceError):  # which all ranks raise alike
            comm.close(error)
        raise
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
        rank.close()


def begin(checkpoint: Checkpoint, rank: Rank) -> None:
    """Continue where a checkpoint stood, or begin to write one."""
    other = checkpoint.restored and checkpoint.windows.get("shards") != rank.settings.n_shards
    checkpoint.windows = {"rows": 0, "lanes": 0, "held": 0.0, "shards": rank.settings.n_shards}
    rank.keeper = checkpoint.begin(rank.trainer, rank.state, rank.rules)
    if other and rank.position.step:
        warn(
            "the checkpoint is from the middle of an epoch with another order of the rows: of this "
            "epoch, some rows are used twice and some not at all"
        )
