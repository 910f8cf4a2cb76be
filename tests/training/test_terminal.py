"""Progress: a bar in terminals and notebooks, lines elsewhere; numbers of any size."""

import math
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from helpers import blobs, fit_quietly, python_output, waves

import cmlp
from cmlp.cli import report
from cmlp.core import formatting
from cmlp.training import progress
from cmlp.training.progress import Progress, cut, printable

VALUES = {"epoch": 3.0, "loss": 0.5, "val_loss": 0.25, "val_score": 0.9, "rows_per_second": 12345.0}
SHOWN = "loss 0.5000  val_loss 0.2500  val_accuracy 0.9000  12.3k rows/s  avx2"

TRAINING = """
import sys
for name in {absent!r}:
    sys.modules[name] = None
import numpy as np, cmlp
X = np.zeros((20, 2)); y = np.arange(20) % 2
cmlp.Network([2, 3, 2], seed=0).fit(X, y, epochs=3, verbose=1)
"""
BARS = ("tqdm", "tqdm.auto", "rich")


@pytest.fixture
def watched(monkeypatch):
    """A standard output that is taken for a terminal."""
    monkeypatch.setattr(progress, "_in_terminal", lambda: True)


@pytest.fixture
def none_installed(monkeypatch):
    for name in BARS:
        monkeypatch.setitem(sys.modules, name, None)


class Calls(list):
    """Whatever is called on it is written down."""

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.append((name, args, kwargs))


@pytest.fixture
def fake_tqdm(monkeypatch, none_installed):
    calls = Calls()

    def tqdm(**kwargs):
        calls.append(("tqdm", (), kwargs))
        return calls

    monkeypatch.setitem(sys.modules, "tqdm.auto", types.SimpleNamespace(tqdm=tqdm))
    monkeypatch.setitem(sys.modules, "tqdm", types.ModuleType("tqdm"))
    return calls


def in_terminal(code):
    """Run code in another interpreter whose output is a terminal; returns what it shows."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(cmlp.__file__).parents[1]),
        "COLUMNS": "120",
    }
    environment["TERM"] = "xterm"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait(60) == 0
    return shown.decode()


def test_lines_in_a_pipe_though_bars_are_installed(fake_tqdm, capsys):
    progress = Progress(1, 20, "accuracy", "avx2")
    progress.epoch(VALUES)
    progress.close()
    assert capsys.readouterr().out == f"epoch  3  {SHOWN}\n" and not fake_tqdm


@pytest.mark.parametrize("verbose", [0, 2])
def test_only_verbose_1_makes_a_bar(verbose, watched, fake_tqdm, capsys):
    progress = Progress(verbose, 20, "accuracy", "avx2")
    progress.epoch(VALUES)
    progress.close()
    assert capsys.readouterr().out == ("" if verbose == 0 else f"epoch  3  {SHOWN}\n")
    assert not fake_tqdm


def test_tqdm(watched, fake_tqdm):
    X, y = blobs(30)
    cmlp.Network([3, 4, 3], seed=0).fit(
        X, y, epochs=5, verbose=1, callbacks=[lambda s: s.epoch == 2]
    )
    assert [call[0] for call in fake_tqdm] == [
        "tqdm", *["set_postfix_str", "update"] * 2, "close",
    ]  # fmt: skip
    assert fake_tqdm[0][2]["total"] == 5
    assert fake_tqdm[1][1][0].startswith("loss 0.") or "loss 1." in fake_tqdm[1][1][0]


def test_estimators_have_the_bar_too(watched, fake_tqdm, capsys):
    X, y = blobs(30)
    how = {"tol": 1e3, "n_iter_no_change": 2, "random_state": 0, "early_stopping": True}
    cmlp.MLPClassifier((4,), verbose=True, **how).fit(X, y)
    names = [call[0] for call in fake_tqdm]
    assert names == ["tqdm", *["set_postfix_str", "update"] * 4, "close"]
    assert "val_score" in fake_tqdm[1][1][0] and fake_tqdm[0][2]["total"] == 200
    (said,) = capsys.readouterr().out.splitlines()
    assert said.endswith("consecutive epochs. Stopping.")  # why it ended, below the bar
    cmlp.MLPClassifier((4,), verbose=2, **how).fit(X, y)
    assert "Iteration 3, loss" in capsys.readouterr().out and len(fake_tqdm) == len(names)


def test_the_bar_is_closed_when_training_fails(watched, fake_tqdm):
    X, y = blobs(30)

    def fails(state):
        raise RuntimeError("from a callback")

    with pytest.raises(RuntimeError, match="from a callback"):
        cmlp.Network([3, 4, 3], seed=0).fit(X, y, verbose=1, callbacks=[fails])
    assert fake_tqdm[-1][0] == "close"


def test_rich_where_there_is_no_tqdm(watched, none_installed, monkeypatch):
    calls = Calls()
    columns = {
        name: lambda *args: args
        for name in ("TextColumn", "MofNCompleteColumn", "BarColumn", "TimeRemainingColumn")
    }
    fake = types.ModuleType("rich")
    fake.progress = types.SimpleNamespace(Progress=lambda *columns: calls, **columns)
    monkeypatch.setitem(sys.modules, "rich", fake)
    progress = Progress(1, 20, "accuracy", "avx2")
    progress.epoch(VALUES)
    progress.close()
    progress.close()
    assert [call[0] for call in calls] == ["add_task", "start", "update", "stop"]
    assert calls[0][2]["total"] == 20 and calls[2][2] == {"advance": 1, "numbers": SHOWN}


def test_a_notebook_is_looked_at(fake_tqdm, monkeypatch):
    shell = types.SimpleNamespace(kernel=object())
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    progress = Progress(1, 20, "accuracy", "avx2")
    progress.epoch(VALUES)
    assert [call[0] for call in fake_tqdm] == ["tqdm", "set_postfix_str", "update"]
    del shell.kernel  # IPython in a terminal whose output goes into a file
    fake_tqdm.clear()
    Progress(1, 20, "accuracy", "avx2")
    assert not fake_tqdm


def test_one_line_is_written_over_in_a_terminal():
    shown = in_terminal(TRAINING.format(absent=BARS))
    assert shown.count("\r") >= 3 and shown.endswith("\n") and shown.count("\n") == 1
    assert "epoch 1" in shown and "epoch 3" in shown


@pytest.mark.parametrize("package", ["tqdm", "rich"])
def test_the_packages_themselves(package):
    pytest.importorskip(package)
    absent = [name for name in BARS if name.split(".")[0] != package]
    shown = in_terminal(TRAINING.format(absent=absent))
    assert "3/3" in shown and "rows/s" in shown and "loss 0." in shown


def test_bars_are_not_imported_for_nothing():
    code = TRAINING.format(absent=()) + "print(*sorted({'tqdm', 'rich'} & set(sys.modules)))"
    status, text = python_output("-c", code)
    assert status == 0 and text.splitlines()[3:] == [""]


# Numbers of any size ------------------------------------------------------------------------------

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("value", "four", "six", "eight"),
    [
        (0.5, "0.5000", "0.500000", "0.50000000"),
        (-12.34567, "-12.3457", "-12.345670", "-12.34567000"),
        (1234567.8, "1234567.8000", "1234567.800000", "1234567.80000000"),
        (0.0012, "0.0012", "0.001200", "0.00120000"),
        (0.00095, "9.500e-04", "0.000950", "0.00095000"),
        (1e-4, "0.0001", "0.000100", "0.00010000"),
        (1e-6, "1.000e-06", "0.000001", "0.00000100"),
        (2e-7, "2.000e-07", "2.00000e-07", "0.00000020"),
        (-2.34567891e-12, "-2.346e-12", "-2.34568e-12", "-2.3456789e-12"),
        (5e-324, "4.941e-324", "4.94066e-324", "4.9406565e-324"),
        (np.float32(1e-45), "1.401e-45", "1.40130e-45", "1.4012985e-45"),
        (1e30, "1.000e+30", "1.00000e+30", "1.0000000e+30"),
        (0, "0.0000", "0.000000", "0.00000000"),
        (-0.0, "0.0000", "0.000000", "0.00000000"),
        (INF, "inf", "inf", "inf"),
        (-INF, "-inf", "-inf", "-inf"),
        (NAN, "nan", "nan", "nan"),
    ],
)
def test_decimals_or_an_exponent(value, four, six, eight):
    assert formatting.number(value) == four
    assert [formatting.number(value, decimals) for decimals in (6, 8)] == [six, eight]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1.0000"), (0.99997, "0.99997"), (0.9999, "0.9999"), (1 - 2e-9, "0.999999998"),
        (np.nextafter(1, 0), "0.9999999999999999"), (0.5, "0.5000"), (0.0, "0.0000"),
        (3e-5, "3.000e-05"), (-1e12, "-1.000e+12"), (-0.99999, "-1.0000"), (NAN, "nan"),
        (1.00001, "1.00001"),
    ],
)  # fmt: skip
def test_a_score_is_not_rounded_to_1(value, text):
    assert formatting.score(value) == text


@pytest.mark.parametrize(
    ("share", "whole", "tenths"),
    [
        (0, "0", "0.0"), (1, "100", "100.0"), (0.5, "50", "50.0"), (0.974999, "97", "97.5"),
        (0.003, "0.3", "0.3"), (4e-6, "0.0004", "0.0004"), (1e-30, "1e-28", "1e-28"),
        (0.9997, "99.97", "99.97"), (1 - 1e-9, "99.9999999", "99.9999999"),
        (1.003, "100.3", "100.3"), (12.5, "1250", "1250.0"), (1e12, "1e+14", "1e+14"),
        (NAN, "nan", "nan"), (INF, "inf", "inf"),
    ],
)  # fmt: skip
def test_a_share_is_not_rounded_to_nothing_or_to_all(share, whole, tenths):
    assert (formatting.percent(share), formatting.percent(share, 1)) == (whole, tenths)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (1e-9, "1e-09"), (0.03456, "0.0346"), (31.24, "31.2"), (999.7, "1000"),
        (12345.6, "12346"), (9876543210, "9876543210"), (1e10, "1e+10"), (-4567.8, "-4568"),
        (NAN, "nan"), (INF, "inf"),
    ],
)  # fmt: skip
def test_significant_digits(value, text):
    assert formatting.significant(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (0.0123, "0.0123"), (950, "950"), (999.96, "1k"), (12_345, "12.3k"),
        (999_999, "1M"), (4.56e6, "4.56M"), (2.5e9, "2.5G"), (1e12, "1e+12"), (INF, "inf"),
    ],
)  # fmt: skip
def test_counts_are_short(value, text):
    assert formatting.count(value) == text


def lines(text):
    """An array's numbers as they are written, row by row; every row is equally long."""
    rows = text.replace("]]", "]").splitlines()
    assert len({len(row) for row in rows}) == 1, text
    return [row.strip(" []").split() for row in rows]


MIXED = [[1e-8, 1e3], [0, -5]]
ARRAYS = {
    "as ever": ([[0.5, -0.25], [0, 12]], [["0.5", "-0.25"], ["0.", "12."]]),
    "pixels": ([[0.0, 51, 255]], [["0.", "51.", "255."]]),
    "two digits": ([0.00123, 0.5], [["0.0012", "0.5"]]),
    "small": ([1.23456e-6, -7e-7], [["1.235e-06", "-7e-07"]]),
    "large": ([1.23456e12, -7], [["1.235e+12", "-7"]]),
    "mixed": (MIXED, [["1e-08", "1000"], ["0", "-5"]]),
    "the smallest and the largest": (
        [5e-324, 1.7e308, -1.7e308], [["4.941e-324", "1.7e+308", "-1.7e+308"]],
    ),
    "zeros": ([[0, -0.0], [0, 0]], [["0.", "0."], ["0.", "0."]]),
    "zeros and small ones": ([0, -0.0, 1e-9], [["0", "0", "1e-09"]]),
    "not finite": ([NAN, INF, -INF, 0.5], [["nan", "inf", "-inf", "0.5"]]),
    "not finite, small": ([NAN, INF, -INF, 1e-5], [["nan", "inf", "-inf", "1e-05"]]),
    "all NaN": ([NAN, NAN], [["nan", "nan"]]),
    "nearly the same": ([1000.12345, 1000.12347], [["1000.12345", "1000.12347"]]),
    "time stamps": ([1.7e9, 1.7e9 + 1], [["1700000000", "1700000001"]]),
    "identifiers and a small one": ([12341, 12342, 1e-5], [["12341", "12342", "1e-05"]]),
    "the same but for rounding": ([1 / 3, 1 / 3 + 1e-16], [["0.3333", "0.3333"]]),
    "one": ([1e-30], [["1e-30"]]),
}  # fmt: skip


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_show_every_number(name):
    values, expected = ARRAYS[name]
    text = formatting.array(np.array(values))
    assert lines(text) == expected
    with np.printoptions(precision=1, suppress=True, sign="+", floatmode="fixed",
                         formatter={"float": "{:.0f}".format}):  # fmt: skip
        assert formatting.array(np.array(values)) == text


def test_arrays_of_other_dtypes_and_shapes():
    assert formatting.array(np.array([[1, 2]])) == "[[1 2]]"
    assert formatting.array(np.array(1e-9)) == "1e-09"
    assert formatting.array(np.zeros((0, 3))) == "[]"
    assert lines(formatting.array(np.array([1e-45, 0], np.float32))) == [["1.401e-45", "0"]]
    assert lines(formatting.array(np.array([1 / 3, 0.3333333], np.float32))) == [["0.3333"] * 2]


def test_large_arrays_are_written_as_their_edges():
    """What is not shown does not decide how the rest is written."""
    values = np.full((300, 300), 0.5)
    values[150, 150] = 1e-9
    assert formatting.array(values).startswith("[[0.5 0.5 0.5 0.5 ... 0.5")
    values[0, 0] = 1e-9
    text = formatting.array(values)
    assert text.count("1e-09") == 1 and text.count("...") >= 9


# Where they are shown -----------------------------------------------------------------------------


def shown(text, name):
    return [float(number) for number in re.findall(rf"{name} ([-+.0-9e]+)", text)]


@pytest.mark.parametrize("verbose", [1, 2])
@pytest.mark.parametrize("unit", [1e-12, 1e-4, 1, 1e4, 1e12])
def test_lines_show_losses_of_any_size(engine, capsys, verbose, unit):
    X, y = waves()
    net = cmlp.Network([3, 1], dtype="float64", weight_init="zeros")
    how = {"epochs": 5, "learning_rate": 0.003, "verbose": verbose, "validation_fraction": 0.2}
    history = net.fit(X, y * unit, **how)
    text = capsys.readouterr().out
    for name, key in (("loss", "loss"), ("val_loss", "val_loss"), ("val_r2", "val_score")):
        read = shown(text, rf"(?<!_){name}")
        np.testing.assert_allclose(read, history[key], rtol=0.05)
    assert len(set(shown(text, "(?<!_)loss"))) == 5


@pytest.mark.parametrize("unit", [1e-7, 1, 1e10])
def test_lines_of_estimators_show_losses_of_any_size(capsys, unit):
    X, y = waves()
    how = {"max_iter": 4, "tol": 1e-9, "alpha": 0.0, "verbose": 2, "random_state": 0}
    model = cmlp.MLPRegressor(hidden_layer_sizes=(), learning_rate_init=1e-4, solver="sgd", **how)
    fit_quietly(model, X, y[:, 0] * unit, coefs_init=[np.zeros((3, 1))])
    text = capsys.readouterr().out
    read = shown(text, "Iteration \\d, loss =")
    np.testing.assert_allclose(read, model.loss_curve_, rtol=1e-6)
    if unit == 1:  # scikit-learn's own text
        expected = enumerate(model.loss_curve_, 1)
        assert text.splitlines() == [f"Iteration {n}, loss = {loss:.8f}" for n, loss in expected]


def test_a_small_tolerance_and_a_small_rate_are_shown(capsys):
    X, y = waves()
    for tol, rate, tol_shown, rate_shown in [
        (1e-4, 1e-3, "0.000100", "0.000200"),
        (0.5, 4e-5, "0.500000", "8.00000e-06"),
        (3e-9, 2e-6, "3.00000e-09", "4.00000e-07"),
    ]:
        how = {"learning_rate": "adaptive", "n_iter_no_change": 1, "max_iter": 9, "verbose": 2}
        model = cmlp.MLPRegressor(solver="sgd", learning_rate_init=rate, tol=tol, **how)
        model.callbacks = [lambda state: state.network.params.fill(0) and None]  # no improvement
        fit_quietly(model, X, np.zeros(len(y)))
        text = capsys.readouterr().out
        assert f"more than tol={tol_shown} for 1 consecutive" in text
        assert f"Setting learning rate to {rate_shown}\n" in text


def test_a_line_that_does_not_fit_is_marked(watched, fake_tqdm, monkeypatch):
    """1e-1 must not be read where 1e-12 was too long."""
    assert cut("loss 1e-12", 10) == "loss 1e-12"
    assert cut("loss 1e-12", 9) == "loss 1e-~"
    monkeypatch.setenv("COLUMNS", "60")
    progress = Progress(1, 20, "accuracy", "avx2")
    progress.epoch(VALUES)
    (room,) = (call[1][0] for call in fake_tqdm if call[0] == "set_postfix_str")
    assert room.startswith("loss 0.5000") and room.endswith("~") and len(room) <= 25


def test_control_characters_of_a_file_are_written_out():
    assert printable("grün 日本") == "grün 日本"
    assert printable("a\x1b[2J\u202eb\n") == r"a\x1b[2J\u202eb\n"
    labels = np.array(["\x1b[31m", "ok"])
    assert "\x1b" not in report.confusion_table(labels, labels, labels)
