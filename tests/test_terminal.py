"""Progress: a bar where someone looks on (tqdm's or rich's, if installed), lines elsewhere."""

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
from helpers import blobs, python_output

import cmlp
from cmlp import _terminal

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
    monkeypatch.setattr(_terminal, "_in_terminal", lambda: True)


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
    progress = _terminal.Progress(1, 20, "accuracy", "avx2")
    progress.epoch(VALUES)
    progress.close()
    assert capsys.readouterr().out == f"epoch  3  {SHOWN}\n" and not fake_tqdm


@pytest.mark.parametrize("verbose", [0, 2])
def test_only_verbose_1_makes_a_bar(verbose, watched, fake_tqdm, capsys):
    progress = _terminal.Progress(verbose, 20, "accuracy", "avx2")
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
    progress = _terminal.Progress(1, 20, "accuracy", "avx2")
    progress.epoch(VALUES)
    progress.close()
    progress.close()
    assert [call[0] for call in calls] == ["add_task", "start", "update", "stop"]
    assert calls[0][2]["total"] == 20 and calls[2][2] == {"advance": 1, "numbers": SHOWN}


def test_a_notebook_is_looked_at(fake_tqdm, monkeypatch):
    shell = types.SimpleNamespace(kernel=object())
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    progress = _terminal.Progress(1, 20, "accuracy", "avx2")
    progress.epoch(VALUES)
    assert [call[0] for call in fake_tqdm] == ["tqdm", "set_postfix_str", "update"]
    del shell.kernel  # IPython in a terminal whose output goes into a file
    fake_tqdm.clear()
    _terminal.Progress(1, 20, "accuracy", "avx2")
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
