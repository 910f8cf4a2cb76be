"""A drawn digit becomes 8 x 8 numbers, as the digits that cmlp ships were made.

Their authors (Garris et al., NIST Form-Based Handprint Recognition System, 1994) cut each digit
out, scaled it to 20 x 32, straightened slanted ones, made strokes thicker or thinner until enough
pixels were black, and counted each 4 x 4 block of the 32 x 32 picture (Alpaydin & Kaynak 1998).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.bool_]

SIDE = 32
WIDTH = 20
"""Columns of a digit that was scaled."""

STRETCH = 3.0
"""A one is not widened more than this, compared with its height."""

FEWEST, MOST = 255, 380
"""Black pixels between which strokes are neither thickened nor thinned: the data's 315 +- 36."""


def prepared(ink: Picture) -> tuple[Picture, NDArray[np.uint8]]:
    """Cut out, straighten, scale and count a drawing.

    Parameters
    ----------
    ink : (32, 32) array of bool

    Returns
    -------
    picture : (32, 32) array of bool
        The digit as it was scaled.
    counts : (8, 8) array of uint8
        Black pixels of each 4 x 4 block, 0 to 16.
    """
    picture = np.zeros((SIDE, SIDE), bool)
    if ink.any():
        box = _cut(_upright(_cut(ink)))
        height, width = box.shape
        wide = int(min(WIDTH, max(1, round(width * SIDE / height * STRETCH))))
        rows = np.arange(SIDE) * height // SIDE
        columns = np.arange(wide) * width // wide
        left = (SIDE - wide) // 2
        picture[:, left : left + wide] = box[np.ix_(rows, columns)]
        picture = _with_usual_strokes(picture)
    return picture, blocks(picture)


def blocks(picture: Picture) -> NDArray[np.uint8]:
    """Count the black pixels of each 4 x 4 block."""
    counts: NDArray[np.uint8] = picture.reshape(8, 4, 8, 4).sum(axis=(1, 3)).astype(np.uint8)
    return counts


def _cut(ink: Picture) -> Picture:
    """Return the part that has ink."""
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _upright(ink: Picture) -> Picture:
    """Shift the rows of a slanted digit, so that its main axis stands; at most half of its height.

    The axis is the regression of the columns on the rows of all its pixels.
    """
    rows, columns = np.nonzero(ink)
    centred = rows - rows.mean()
    spread = float(centred @ centred)
    slope = float(centred @ columns) / spread if spread else 0.0
    shifts = np.rint(np.clip(-slope, -0.5, 0.5) * (np.arange(len(ink)) - rows.mean())).astype(int)
    most = int(abs(shifts).max(initial=0))
    shifted = np.zeros((ink.shape[0], ink.shape[1] + 2 * most), bool)
    for row, shift in enumerate(shifts):
        shifted[row, most + shift : most + shift + ink.shape[1]] = ink[row]
    return shifted


def _with_usual_strokes(picture: Picture) -> Picture:
    """Thicken or thin strokes, a pixel at a time, until the digit has a usual number of them."""
    for _ in range(4):
        n = int(picture.sum())
        if n < FEWEST:
            picture = _grown(picture)
        elif n > MOST and (thinner := ~_grown(~picture)).sum() >= FEWEST - 60:
            picture = thinner
        else:
            break
    return picture


def _grown(picture: Picture) -> Picture:
    """Blacken the neighbours to the left, the right, above and below."""
    grown = picture.copy()
    grown[1:] |= picture[:-1]
    grown[:-1] |= picture[1:]
    grown[:, 1:] |= picture[:, :-1]
    grown[:, :-1] |= picture[:, 1:]
    return grown
