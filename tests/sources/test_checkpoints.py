"""Checkpoints: a training that was killed, stopped or interrupted ends with the same bits."""

import errno
import os
import signal
import subprocess
import sys
import time
import warnings

import made
import numpy as np
import pytest

import cmlp
from cmlp.formats import checkpoint, safetensors

PROGRAM = """
import sys, numpy as np, cmlp
from cmlp.sources import windows
windows.PIECE = 1 << 12
memory, path, out = sys.argv[1:]
net = cmlp.Network([6, 8, 3], seed=1, normalization="batch")
source = cmlp.data.npy("X*.npy", "y*.npy")
history = net.fit(
    source, epochs=12, batch_size=32, solver="adam", dropout=0.1, schedule="cosine", ema=0.9,
    validation_fraction=0.2, patience=200, memory=memory, checkpoint=path or None,
    checkpoint_every=0, resume=bool(path), callbacks=[lambda state: None],
)
np.save(out, np.concatenate([net.params, net.moments.ravel(), history["loss"]]))
"""


def test_kill_9_costs_nothing(tmp_path):
    """At any moment there is a whole file, and what is continued from it has the same bits.

    ``tools/checkpoint_kills.py`` does this at 30 moments, also in memory and on a full disk.
    """
    memory = "60 KB"
    X, labels, _ = made.rows()
    made.write_npy(tmp_path, X, labels)
    source = os.path.dirname(os.path.dirname(cmlp.__file__))
    path = os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])

    def program(file, out):
        command = [sys.executable, "-W", "ignore", "-c", PROGRAM, memory, file, out]
        return subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path})

    assert program("", "whole.npy").wait() == 0
    file, rng, n_killed = tmp_path / "run.cmlp", np.random.default_rng(0), 0
    for _ in range(5):  # until one is killed before its end
        if n_killed:
            break
        process = program("run.cmlp", "resumed.npy")
        size = file.stat().st_mtime_ns if file.exists() else 0
        while process.poll() is None:
            if file.exists() and file.stat().st_mtime_ns != size:
                time.sleep(0.05 * rng.random())
                process.send_signal(signal.SIGKILL)
                n_killed += process.wait() == -signal.SIGKILL
        assert cmlp.load(file).history.epochs >= 0
    assert n_killed and program("run.cmlp", "resumed.npy").wait() == 0
    assert (np.load(tmp_path / "whole.npy") == np.load(tmp_path / "resumed.npy")).all()


@pytest.mark.parametrize("memory", ["1 GB", "26 KB"])
def test_time_and_ctrl_c_write_one_too(memory, tmp_path, monkeypatch):
    made.small_pieces(monkeypatch)
    X, labels, _ = made.rows()
    source, file = made.write_npy(tmp_path, X, labels), tmp_path / "run.cmlp"

    def fit(path=None, **more):
        net = cmlp.Network([made.D, 8, 3], seed=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return net, net.fit(source, epochs=6, memory=memory, checkpoint=path, **more)

    def interrupt(state):
        if state.epoch == 2:
            raise KeyboardInterrupt

    whole, history = fit()
    _, stopped = fit(file, callbacks=[interrupt])
    assert stopped.stopped == "interrupted" and stopped.epochs == 2
    _, timed = fit(file, resume=True, max_time=0)
    assert timed.stopped == "max_time"
    resumed, read = fit(file, resume=True)
    assert (resumed.params == whole.params).all() and read["loss"] == history["loss"]
    net, again = fit(file, resume=True)  # nothing is left
    assert (net.params == whole.params).all() and again["loss"] == history["loss"]
    assert net.rng.bit_generator.state == whole.rng.bit_generator.state
    loaded = cmlp.load(file)
    assert (loaded.predict(X) == whole.predict(X)).all()
    longer = cmlp.Network([made.D, 8, 3], seed=1)
    assert longer.fit(source, epochs=8, memory=memory, checkpoint=file, resume=True).epochs == 8


def test_another_training_is_refused_by_what_differs(tmp_path, monkeypatch):
    made.small_pieces(monkeypatch)
    X, labels, _ = made.rows()
    file = tmp_path / "run.cmlp"
    net = cmlp.Network([made.D, 8, 3], seed=1)
    net.fit(X, labels, epochs=1, checkpoint=file)

    def refused(match, X=X, y=labels, sizes=(made.D, 8, 3), error=ValueError, **more):
        with pytest.raises(error, match=match):
            cmlp.Network(sizes, seed=1).fit(X, y, checkpoint=file, resume=True, **more)

    refused(r"sizes=\[6, 8, 3\], not \[6, 9, 3\]", sizes=(made.D, 9, 3))
    refused(r"batch_size is not the same \(32 then, 16 now\)", batch_size=16)
    refused("the data is not the same", X=X + 1)
    refused(r"solver is not the same \('sgd' then, 'adam' now\)", solver="adam")
    refused(r"validation_fraction is not the same", validation_fraction=0.1)
    source = cmlp.data.batches(lambda: iter([(X, labels)]))
    other = tmp_path / "other.cmlp"
    cmlp.Network([made.D, 8, 3]).fit(source, epochs=1, checkpoint=other)
    with pytest.raises(ValueError, match="had all rows in memory"):
        cmlp.Network([made.D, 8, 3]).fit(
            source, epochs=2, checkpoint=other, resume=True, memory="26 KB"
        )
    net.save(file)
    refused("a model without a training to resume", error=cmlp.ModelFileError)
    file.write_bytes(b"nothing")
    refused("run.cmlp", error=cmlp.ModelFileError)
    with pytest.raises(ValueError, match="resume=True needs the file"):
        net.fit(X, labels, resume=True)
    with pytest.raises(OSError):
        net.fit(X, labels, checkpoint=tmp_path / "no folder" / "run.cmlp")


def test_damaged_records_are_refused(tmp_path):
    """Each entry of the record, with a wrong type or out of range."""
    X, labels, _ = made.rows()
    file = tmp_path / "run.cmlp"
    cmlp.Network([made.D, 4, 3], seed=1).fit(X, labels, epochs=1, checkpoint=file)
    arrays, metadata = safetensors.read(file)
    damage = [
        ('"epoch": 1', '"epoch": -1'), ('"weight": 0.0', '"weight": Infinity'),
        ('"best": false', '"best": true'), ('"rules": {', '"rules": 3, "x": {'),
        ('"start": {"bit', '"start": {"tib'),
        ('"windows": {}', '"windows": {"rows": 0, "lanes": 1, "held": 0.0}'),
        ('{"lowest"', '{"highest"'),
    ]  # fmt: skip
    for old, new in damage:
        assert old in metadata["resume"], old
        text = metadata | {"resume": metadata["resume"].replace(old, new)}
        safetensors.write(file, arrays, text)
        with pytest.raises(cmlp.ModelFileError):
            cmlp.Network([made.D, 4, 3], seed=1).fit(
                X, labels, epochs=3, checkpoint=file, resume=True
            )


def test_a_moved_copy_and_more_memory_continue(tmp_path, monkeypatch):
    """Times of change do not count, and windows and held-out rows stay as they were."""
    made.small_pieces(monkeypatch)
    X, labels, _ = made.rows()
    monkeypatch.chdir(tmp_path)
    for name, rows in (("X.npy", X), ("y.npy", labels)):
        np.save(name, rows)
    nets = [cmlp.Network([made.D, 8, 3], seed=1) for _ in range(3)]
    more = {"epochs": 4, "validation_fraction": 0.1, "memory": "60 KB"}
    nets[0].fit(cmlp.data.npy("X.npy", "y.npy"), **more)

    def interrupt(state):
        if state.epoch == 2:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted"):
        nets[1].fit(
            cmlp.data.npy("X.npy", "y.npy"), checkpoint="run", callbacks=[interrupt], **more
        )
    for name in ("X.npy", "y.npy"):
        os.utime(name, (1, 1))
    source = cmlp.data.npy("X.npy", "y.npy")
    nets[2].fit(source, checkpoint="run", resume=True, **more | {"memory": "90 KB"})
    assert (nets[2].params == nets[0].params).all()
    with pytest.raises(ValueError, match=r"has windows of .* rows, but memory="):
        cmlp.Network([made.D, 8, 3], seed=1).fit(
            source, checkpoint="run", resume=True, **more | {"memory": "40 KB", "epochs": 5}
        )
    np.save("X.npy", X[:, ::-1])
    other = cmlp.data.npy("X.npy", "y.npy")
    with pytest.raises(ValueError, match="the data is not the same"):
        nets[2].fit(other, checkpoint="run", resume=True, **more)


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    X, _, numbers = made.rows()
    file = tmp_path / "run.cmlp"
    net = cmlp.Network([made.D, 8, 1], seed=1)
    source = made.write_npy(tmp_path, X, numbers)
    with pytest.raises(cmlp.DivergenceError):
        net.fit(source, learning_rate=1e30, memory="60 KB", checkpoint=file, checkpoint_every=0)
    assert np.isfinite(cmlp.load(file).params).all()


def test_a_full_disk_leaves_the_older_file_whole(tmp_path, monkeypatch):
    X, labels, _ = made.rows()
    file, write, n_left = tmp_path / "run.cmlp", safetensors.write, [2]

    def full(*arguments):
        n_left[0] -= 1
        if n_left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        write(*arguments)

    monkeypatch.setattr(checkpoint.safetensors, "write", full)
    net = cmlp.Network([made.D, 8, 3], seed=1)
    with pytest.warns(UserWarning, match="could not be written") as caught:
        history = net.fit(X, labels, epochs=4, checkpoint=file, checkpoint_every=0)
    assert len(caught) == 1 and history.checkpoint_errors >= 3 and history.epochs == 4
    monkeypatch.undo()
    assert cmlp.load(file).history.epochs <= 1  # the second file, whole
    resumed = cmlp.Network([made.D, 8, 3], seed=1)
    resumed.fit(X, labels, epochs=4, checkpoint=file, resume=True)
    assert (resumed.params == net.params).all()


@pytest.mark.parametrize(("kind", "memory"), [("classifier", "26 KB"), ("regressor", "1 GB")])
def test_estimators_continue_with_all_their_curves(kind, memory, tmp_path, monkeypatch):
    made.small_pieces(monkeypatch)
    X, labels, numbers = made.rows()
    make = cmlp.MLPClassifier if kind == "classifier" else cmlp.MLPRegressor
    source = made.write_npy(tmp_path, X, labels if kind == "classifier" else numbers)
    more = {"hidden_layer_sizes": (8,), "max_iter": 5, "batch_size": 32, "random_state": 3}
    more |= {"early_stopping": kind == "classifier", "learning_rate": "adaptive", "solver": "sgd"}

    def fitted(**given):
        names = ("callbacks", "n_ensemble", "random_state", "warm_start")
        parameters = {name: given.pop(name) for name in names if name in given}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return make(**more | parameters).fit(source, memory=memory, **given)

    def interrupt(state):
        if state.epoch == 3:
            raise KeyboardInterrupt

    whole, file = fitted(), tmp_path / "run.cmlp"
    stopped = fitted(checkpoint=file, callbacks=[interrupt])
    assert stopped.n_iter_ == 3
    for _ in range(2):  # the second time nothing is left
        resumed = fitted(checkpoint=file, resume=True)
        assert (resumed.network_.params == whole.network_.params).all()
        for name in ("loss_curve_", "validation_scores_", "n_iter_", "t_", "best_loss_"):
            assert getattr(resumed, name) == getattr(whole, name), name
    assert resumed.score(source) == whole.score(source)
    with pytest.raises(ValueError, match="checkpoints need n_ensemble=1"):
        make(n_ensemble=2).fit(source, checkpoint=file)
    if kind == "classifier":  # in windows: one member after the other
        members = fitted(n_ensemble=2).estimators_
        alone = fitted(random_state=members[1].random_state)
        assert (members[1].network_.params == alone.network_.params).all()
        with pytest.raises(ValueError, match="nor with warm_start"):
            fitted(n_ensemble=2, warm_start=True)
