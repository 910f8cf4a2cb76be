"""The seam's class of training steps, and the mean of two networks' parameters."""

from __future__ import annotations

import numpy as np


class BoundTrainer:
    """Take training steps, one batch a call, with the preparations made once.

    What :func:`train_epoch` takes at every call is read here once: a step writes to `params` and
    `state`, always these arrays and on this core. `limits` are those of what needs no closer look,
    see :class:`cmlp.core.seam.Limits`. A trainer is for one thread at a time, and cannot be pickled
    or copied.

    Attributes
    ----------
    steps : int
        Steps taken with this state; the caller writes it before a step, and reads it after one.
    """

    def __init__(self, plan, params, state, objective, optimizer, noise, input_scale, limits):
        self.steps = 0

    def __reduce__(self):
        raise TypeError("a trainer cannot be pickled or copied: do so with its network")

    def take(self, X, y, weights, rate, rng, encoded, surely):
        """Take one step on rows X, (n, n_in), with targets y; return their loss times its weight.

        `weights` are those of the rows, (n,), or None. `rng` draws the seed of noise. Targets that
        are `encoded` for the core are read as they are. If the loss is not finite, no step is
        taken.

        None is returned, and nothing has changed, where something needs a closer look: arrays
        of another kind or shape, a number that may not be finite, a target out of range, too many
        rows; or another thread is in a call. The caller then checks X and y itself. None is also
        returned if the weights have to be finite `surely` after the step, and bounds on the numbers
        in it do not prove that they are.
        """
        return None  # the caller's checks cost little next to NumPy's time for a step


@np.errstate(all="ignore")
def blend(params, others, part):
    """Move numbers a part of the way to others: ``params += part * (others - params)``.

    Both are vectors of one length and number type.
    """
    if params.shape != others.shape:
        raise ValueError(f"{others.nbytes} bytes cannot be blended into {params.nbytes}")
    params += params.dtype.type(part) * (others - params)
