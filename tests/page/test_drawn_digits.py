"""A drawing becomes what the data's authors would have made of it."""

from itertools import pairwise

import numpy as np
import pytest

import cmlp
from cmlp.page.digits import blocks, prepared


def arc(x, y, rx, ry, start, end):
    angle = np.radians(np.linspace(start, end, 60))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def line(*corners):
    parts = [np.linspace(a, b, 40) for a, b in pairwise(corners)]
    return np.concatenate(parts)


STROKES = {
    0: [arc(0, 0, 0.6, 1, 0, 360)],
    3: [arc(0, -0.5, 0.5, 0.5, -150, 90), arc(0, 0.5, 0.55, 0.5, -90, 150)],
    5: [line((0.5, -1), (-0.45, -1), (-0.5, -0.1)), arc(-0.05, 0.4, 0.55, 0.6, -130, 140)],
    8: [arc(0, -0.5, 0.45, 0.5, 0, 360), arc(0, 0.5, 0.55, 0.5, 0, 360)],
}


def drawn(digit, size=9.0, place=(16, 16), slant=0.0, brush=1.6):
    """32 x 32 cells with a digit of a few strokes."""
    ink = np.zeros((32, 32), bool)
    y, x = np.mgrid[:32, :32]
    for stroke in STROKES[digit]:
        for px, py in stroke * [1, 1] - np.outer(stroke[:, 1], [slant, 0]):
            ink |= (x - px * size - place[0]) ** 2 + (y - py * size - place[1]) ** 2 <= brush**2
    return ink


@pytest.fixture(scope="module")
def net():
    digits = cmlp.load_digits()
    net = cmlp.Network([64, 64, 10], seed=0)
    net.fit(digits.X_train / np.float32(16), digits.y_train, epochs=15, learning_rate=0.05)
    return net


@pytest.mark.parametrize("digit", STROKES)
def test_place_size_and_slant_do_not_matter(net, digit):
    cases = [
        drawn(digit),
        drawn(digit, size=7.5),
        drawn(digit, place=(12, 19), size=7.5),
        drawn(digit, slant=0.25),
        drawn(digit, size=12, brush=2),
    ]
    rows = np.array([prepared(ink)[1].ravel() for ink in cases]) / np.float32(16)
    assert (net.predict_classes(rows) == digit).all()


def test_as_much_ink_as_in_the_data():
    """The training digits fill the height, have 315 +- 36 black pixels, and stand in the middle."""
    for digit in STROKES:
        picture, counts = prepared(drawn(digit, size=7))
        assert 240 <= picture.sum() <= 400 and counts.max() <= 16
        assert picture[0].any() and picture[31].any()
        columns = np.flatnonzero(picture.any(axis=0))
        assert columns[0] >= 5 and columns[-1] <= 26
        assert np.array_equal(counts, blocks(picture))


def test_odd_drawings():
    empty, counts = prepared(np.zeros((32, 32), bool))
    assert not empty.any() and not counts.any()
    for cells in ([(0, 0)], [(31, 31), (0, 0)], [(5, x) for x in range(32)]):
        ink = np.zeros((32, 32), bool)
        ink[tuple(zip(*cells, strict=True))] = True
        picture, counts = prepared(ink)
        assert picture.any() and counts.dtype == np.uint8
    _, counts = prepared(np.ones((32, 32), bool))
    assert counts.max() == 16


def test_blocks_are_counted():
    picture = np.zeros((32, 32), bool)
    picture[:4, 4:8] = True
    picture[31, 31] = True
    counts = blocks(picture)
    assert counts[0, 1] == 16 and counts[7, 7] == 1 and counts.sum() == 17
