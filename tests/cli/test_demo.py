"""The demo: from the data to a saved network, and what it prints."""

import re

import numpy as np
import pytest

import cmlp
from cmlp.cli import demo
from cmlp.core import dispatch


def test_the_digits():
    digits = cmlp.load_digits()
    assert digits.X_train.shape == (3823, 64) and digits.X_test.shape == (1797, 64)
    for X, y in ((digits.X_train, digits.y_train), (digits.X_test, digits.y_test)):
        assert X.dtype == np.uint8 and X.max() == 16 and y.dtype == np.int64
        assert np.bincount(y).min() > 0.09 * len(y) and y.max() == 9


def test_the_story(engine, capsys):
    assert demo.run(epochs=2) == 0
    text = capsys.readouterr().out
    for part in (
        f"Core: {engine.name}",
        "3,823 handwritten digits",
        "64 ->   300  relu",
        "50,610 parameters",
        "true | read as",
        "Read wrongly",
        "loaded again: the copy predicts the same",
    ):
        assert part in text, part
    lines = re.findall(
        rf"^epoch +(\d+)  loss [\d.]+  val_loss [\d.]+  val_accuracy ([\d.]+)  "
        rf"[\d.]+[kM]? rows/s  {engine.name}$", text, re.MULTILINE,
    )  # fmt: skip
    assert [number for number, _ in lines] == ["1", "2"] and float(lines[-1][1]) > 0.5
    (right,) = re.findall(r"Test: ([\d.]+)% of 1,797 digits", text)
    table = [
        [0 if cell == "." else int(cell) for cell in line.split("|")[1].split()]
        for line in text.split("true | read as")[1].splitlines()[2:12]
    ]
    assert np.sum(table) == 1797
    assert np.trace(table) / 1797 == pytest.approx(float(right) / 100, abs=1e-4)
    pictures = text.split("Read wrongly, for example:\n\n")[1].split("\n\n")[0].splitlines()
    assert len(pictures) == 9 and re.match(r"a \d, read as \d", pictures[0])
    assert set("".join(pictures[1:])) <= set(demo.SHADES)


def test_the_model_stays_where_it_is_told_to(tmp_path, capsys):
    path = tmp_path / "digits.cmlp"
    assert demo.run(epochs=1, out=path) == 0
    assert str(path) in capsys.readouterr().out
    assert cmlp.load(path).sizes == (64, 300, 100, 10)


def test_another_prediction_is_a_failure(monkeypatch, capsys):
    monkeypatch.setattr(demo, "load", lambda path: demo.network(99))
    assert demo.run(epochs=1) == 1
    assert "PREDICTS SOMETHING ELSE" in capsys.readouterr().out


@pytest.mark.skipif(dispatch.core.name == "python", reason="takes long on the NumPy path")
def test_the_recipe_reads_the_digits():
    digits = cmlp.load_digits()
    net = demo.network(0)
    demo.train(net, digits)
    assert net.score(demo.pixels(digits.X_test), digits.y_test) >= 0.975
