"""The mean of the weights over the steps, and the weights that move, in turns."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from cmlp.core.layout import Array

if TYPE_CHECKING:
    from cmlp.network import Network


def digest(params: Array) -> int:
    """Recognise parameters again."""
    return zlib.crc32(params.data)


def _exchange(net: Network) -> None:
    """Put the mean of the parameters in their place, and them in the place of the mean."""
    kept = net.params.copy()
    net.params[:] = net.moments[-1]
    net.moments[-1] = kept


def show_average(net: Network) -> None:
    """Put the mean of the parameters into the network, if it takes one and does not have it."""
    if net.averaged and net.shown_average is None:
        _exchange(net)
        net.shown_average = digest(net.params)


def resume_from_average(net: Network) -> None:
    """Bring back the parameters that the mean is of, so that training goes on.

    If the network has others than the mean that was left in it, someone has written them:
    training goes on from there, and a new mean begins.
    """
    if net.averaged and net.shown_average is not None:
        if net.shown_average == digest(net.params):
            _exchange(net)
        else:
            net.averaged = 0
    if not net.averaged:
        net.moments[-1] = 0
    net.shown_average = None
