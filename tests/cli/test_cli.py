"""The command with networks on numbers (`train --plain`), bad input, Ctrl-C, pipes."""

from __future__ import annotations

import csv
import importlib.util
import io
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers import refused

import cmlp
from cmlp import cli
from cmlp.cli import bench, demo, report, train
from cmlp.core import dispatch
from cmlp.data import scaling
from cmlp.data.scaling import Scaling, target_scaling
from cmlp.files import csv_file
from cmlp.model import scoring
from cmlp.model.folding import fold

HAS_PANDAS = importlib.util.find_spec("pandas") is not None
NAMES = ["length", "width", "mass", "always"]
PLAIN = ["train", "--plain"]
FAST = ["--hidden", "8", "--epochs", "40", "--patience", "0"]


def rows(n=150, seed=0):
    """Three well separated kinds; features far from mean 0 and deviation 1, and a constant one."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 3
    X = rng.standard_normal((n, 3)) * 0.3 + np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]])[kind]
    return np.column_stack([X * [5, 1e-3, 400] + [100, 0, -2000], np.full(n, 7.0)]), kind


def write_csv(path, X, y=None, names=NAMES, target="kind"):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        if names:
            writer.writerow([*names, *([target] if y is not None else [])])
        for i, row in enumerate(X.tolist()):
            writer.writerow([*row, *([y[i]] if y is not None else [])])
    return path


@pytest.fixture
def flowers(tmp_path):
    """A CSV file with a text target, one without the target, and the labels."""
    X, kind = rows()
    labels = np.array(["iris setosa", "iris, other", "virginica"])[kind]
    write_csv(tmp_path / "flowers.csv", X, labels)
    write_csv(tmp_path / "new.csv", X)
    return labels


# Round trips -------------------------------------------------------------------------------------


@pytest.mark.parametrize("pandas", [False, pytest.param(True, marks=pytest.mark.skipif(
    not HAS_PANDAS, reason="pandas is not installed"))])  # fmt: skip
def test_text_labels(run, engine, in_folder, flowers, pandas, monkeypatch):
    monkeypatch.setattr(csv_file, "_PANDAS_PAYS", 0)
    if not pandas:
        monkeypatch.setitem(sys.modules, "pandas", None)
    code, out, err = run(*PLAIN, "flowers.csv", "--target", "kind", *FAST)
    assert (code, err) == (0, "")
    assert "classification, because the target is text" in out
    assert f"  {engine.name}" in out and "epoch 40" in out and "saved   model.cmlp" in out
    assert "135 rows to train, 15 to validate" in out and "read as" in out

    code, out, err = run("evaluate", "model.cmlp", "flowers.csv", "--target", "kind")
    assert (code, err) == (0, "") and "150 rows" in out
    accuracy = float(out.split("accuracy")[1].split()[0])
    assert accuracy > 0.9

    code, out, err = run("predict", "model.cmlp", "new.csv")
    assert (code, err) == (0, "")
    read = [row[0] for row in csv.reader(io.StringIO(out))]
    assert len(read) == 150 and np.mean(np.array(read) == flowers) == pytest.approx(
        accuracy, abs=1e-4
    )

    code, out, _ = run("predict", "model.cmlp", "new.csv", "--proba", "--out", "p.csv")
    assert (code, out) == (0, "")
    header, *values = csv.reader(io.StringIO((in_folder / "p.csv").read_text()))
    assert header == ["iris setosa", "iris, other", "virginica"]
    values = np.array(values, float)
    assert values.shape == (150, 3) and values.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert [header[i] for i in values.argmax(axis=1)] == read

    code, out, _ = run("info", "model.cmlp")
    assert code == 0
    for text in ("4 ->     8", "softmax", "format 1", "iris setosa, iris, other", "40 epochs",
                 "val_loss", f"{(in_folder / 'model.cmlp').stat().st_size:,} bytes"):  # fmt: skip
        assert text in out, text


@pytest.mark.parametrize("labels", [[0, 1], [-1, 1], ["no", "yes"]])
def test_binary(run, in_folder, labels):
    X, kind = rows()
    y = np.array(labels)[(kind == 2).astype(int)]
    write_csv("data.csv", X, y)
    assert run(*PLAIN, "data.csv", "--target", "kind", *FAST, "--out", "m")[0] == 0
    assert cmlp.load("m").sizes == (4, 8, 1)
    _, out, _ = run("predict", "m", "data.csv", "--target", "kind")
    assert np.mean(np.array(out.split()) == y.astype(str)) > 0.9
    _, out, _ = run("predict", "m", "data.csv", "--target", "kind", "--proba")
    header, *values = csv.reader(io.StringIO(out))
    assert header == [str(label) for label in labels]
    assert np.array(values, float).sum(axis=1) == pytest.approx(1)
    assert "accuracy" in run("evaluate", "m", "data.csv", "--target", "kind")[1]


@pytest.mark.parametrize("loss", [None, "huber", "absolute_error", "quantile"])
def test_regression(run, in_folder, loss):
    X, _ = rows()
    y = 1e4 + 300 * X[:, 0] + X[:, 2]
    write_csv("data.csv", X, y)
    options = ["--loss", loss] if loss else []
    code, out, _ = run(*PLAIN, "data.csv", "--target", "kind", *FAST, *options, "--patience", 0)
    assert code == 0 and "regression" in out and "standardised" in out
    assert float(out.split("R2")[1].split()[0]) > 0.9
    # The record is in the units of the raw target, as the validation report is.
    reported = float(out.split("validation rows:\nloss")[1].split()[0])
    assert cmlp.load("model.cmlp").history["val_loss"][-1] == pytest.approx(reported, rel=1e-3)
    code, out, _ = run("predict", "model.cmlp", "data.csv", "--target", "kind", "--out", "p.csv")
    header, *values = csv.reader(io.StringIO((in_folder / "p.csv").read_text()))
    predicted = np.array(values, float).ravel()
    assert (code, out, len(header)) == (0, "", 1)
    code, out, _ = run("evaluate", "model.cmlp", "data.csv", "--target", "kind")
    rmse = float(np.sqrt(np.mean((predicted - y) ** 2)))
    assert code == 0 and float(out.split("RMSE")[1].split()[0]) == pytest.approx(rmse, rel=1e-4)


def test_csv_without_header(run, in_folder):
    X, kind = rows()
    write_csv("data.csv", X, kind, names=None)
    assert run(*PLAIN, "data.csv", "--target", "-1", *FAST)[0] == 0
    _, out, _ = run("predict", "model.cmlp", "data.csv", "--target", "4")
    assert np.mean(np.array(out.split(), int) == kind) > 0.9


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_numpy_files(run, in_folder, suffix):
    X, kind = rows()
    if suffix == "npz":
        np.savez("data.npz", X=X.astype(np.float32), y=kind)
        np.save("new.npy", X)
        target = []
    else:
        np.save("data.npy", np.column_stack([X, kind]))
        np.save("new.npy", X)
        target = ["--target", "-1"]
    assert run(*PLAIN, f"data.{suffix}", *target, *FAST, "--quiet") == (0, "", "")
    _, out, _ = run("evaluate", "model.cmlp", f"data.{suffix}", *target)
    assert float(out.split("accuracy")[1].split()[0]) > 0.9
    code, out, _ = run("predict", "model.cmlp", "new.npy")
    assert code == 0 and len(out.split()) == 150


@pytest.mark.parametrize("labels", ["one-hot", "several"])
def test_label_matrices(run, in_folder, labels):
    X, kind = rows()
    y = np.eye(3, dtype=np.int64)[kind]
    if labels == "several":
        y[:, 0] |= y[:, 1]
    np.savez("data.npz", X=X, y=y)
    code, out, _ = run(*PLAIN, "data.npz", *FAST)
    assert code == 0 and "matrix of 0 and 1" in out
    assert (labels == "several") == ("binary_crossentropy" in out) == ("if all its labels" in out)
    _, out, _ = run("predict", "model.cmlp", "data.npz")
    width = 3 if labels == "several" else 1
    assert {len(line.split(",")) for line in out.split()} == {width}
    assert run("predict", "model.cmlp", "data.npz", "--proba")[1].startswith("0,1,2\n")


def test_several_numbers_at_once(run, in_folder):
    X, _ = rows()
    np.savez("data.npz", X=X, y=np.column_stack([X[:, 0] * 1e3, X[:, 2] + 5e4]))
    code, out, _ = run(*PLAIN, "data.npz", *FAST, "--epochs", 100)
    assert code == 0 and float(out.split("R2")[1].split()[0]) > 0.9
    code, out, _ = run("predict", "model.cmlp", "data.npz", "--out", "p.csv")
    assert (in_folder / "p.csv").read_text().startswith("y_0,y_1\n")


def test_many_classes_give_no_table(run, in_folder):
    X = np.arange(120.0)[:, None]
    np.savez("data.npz", X=X, y=np.repeat(np.arange(30), 4))
    _, out, _ = run(*PLAIN, "data.npz", "--epochs", 1)
    assert "30 classes; most often confused" in out and "read as |" not in out


def test_columns_are_known_by_name(run, complaint, in_folder, flowers):
    run(*PLAIN, "flowers.csv", "--target", "kind", *FAST)
    _, plain, _ = run("predict", "model.cmlp", "new.csv")
    assert run("predict", "model.cmlp", "flowers.csv")[1] == plain  # the target is left out
    X, _ = rows()
    write_csv("turned.csv", X[:, ::-1], X[:, 0], names=NAMES[::-1], target="another")
    assert run("predict", "model.cmlp", "turned.csv")[1] == plain
    write_csv("bare.csv", X, names=None)
    assert run("predict", "model.cmlp", "bare.csv")[1] == plain
    assert run("evaluate", "model.cmlp", "flowers.csv")[0] == 0
    assert "kind" in run("info", "model.cmlp")[1]
    write_csv("other.csv", X, names=["length", "width", "weight", "always"])
    assert "no column 'mass'" in complaint("predict", "model.cmlp", "other.csv")


@pytest.fixture
def table(in_folder):
    """Write a CSV file of named columns; an index of names or numbers comes first."""

    def table(name, columns, index=None, header=True):
        with open(name, "w", newline="") as file:
            writer = csv.writer(file)
            if header:
                writer.writerow([*([""] if index else []), *columns])
            rows = zip(*columns.values(), strict=True)
            writer.writerows([*([i] if index else []), *row] for i, row in enumerate(rows))
        return name

    return table


@pytest.mark.parametrize("pandas", [False, pytest.param(True, marks=pytest.mark.skipif(
    not HAS_PANDAS, reason="pandas is not installed"))])  # fmt: skip
@pytest.mark.parametrize("names", [
    ("x0", "x1", "speed"), ("0", "1", "2"), ("1990", "1995", "2000"), ("7", "3", "5"),
    ("length", "width", "x0"),
], ids="-".join)  # fmt: skip
def test_a_column_is_never_taken_for_another(run, complaint, table, names, pandas, monkeypatch):
    monkeypatch.setattr(csv_file, "_PANDAS_PAYS", 0)
    if not pandas:
        monkeypatch.setitem(sys.modules, "pandas", None)
    rng = np.random.default_rng(3)
    X = dict(zip(names, rng.normal(size=(3, 60)).round(3), strict=True))
    y = np.where(X[names[0]] > X[names[1]], "oak", "elm")
    table("data.csv", {**X, "kind": y}, index=True)
    code, out, err = run(*PLAIN, "data.csv", "--target", "kind", *FAST)
    assert (code, err) == (0, "") and "data    60 rows, 3 features" in out
    assert out.count("note ") == 1 and "columns without a name are left out: 0" in out
    assert cmlp.load("model.cmlp").feature_names == list(names)
    expected = run("predict", "model.cmlp", table("plain.csv", X))
    assert expected[0] == 0 and expected[2] == "" and len(expected[1].split()) == 60

    gaps = ["", *y[1:]]
    turned = dict(reversed(X.items()))
    for columns, options in [
        (turned, {}), (X, {"index": True}), (turned, {"index": True}), (X, {"header": False}),
        ({"kind": gaps, **turned}, {}), ({"id": y, **X, "note": gaps, "Unnamed: 3": gaps}, {}),
        ({**X, " kind ": [5] * 60, "kind": y}, {}),
    ]:  # fmt: skip
        assert run("predict", "model.cmlp", table("new.csv", columns, **options)) == expected
    code, out, _ = run("evaluate", "model.cmlp", table("new.csv", {"kind": y, "z": y, **turned}))
    assert code == 0 and out == run("evaluate", "model.cmlp", "data.csv")[1].replace("data", "new")
    assert run("evaluate", "model.cmlp", "new.csv", "--target", "z")[1] == out

    del turned[names[1]]
    for columns, part in [
        (turned, f"no column '{names[1]}', which"),
        ({**turned, f"{names[1]}th": y}, f"no column '{names[1]}', which"),
        ({"u": y, "v": y, "w": y}, f"no column '{names[0]}' (and 2 more), which"),
        ({**turned, names[1] + " ": y, names[1]: y}, f"2 columns are called '{names[1]}'"),
    ]:
        assert part in complaint("predict", "model.cmlp", table("new.csv", columns))
    for option in ("--target", "--ignore"):
        said = complaint("predict", "model.cmlp", "plain.csv", option, names[0])
        assert f"needs the column '{names[0]}'" in said


def test_a_model_without_names(run, complaint, table):
    """Columns are read in their order, and that is said; an index is left out."""
    cmlp.Network([2, 1], seed=0).save("model.cmlp")
    a, b = np.random.default_rng(0).normal(size=(2, 5)).round(3)
    np.save("data.npy", np.column_stack([a, b]))
    expected = run("predict", "model.cmlp", "data.npy")
    assert expected[0] == 0 and expected[2] == ""
    bare = table("bare.csv", {"a": a, "b": b}, header=False)
    assert run("predict", "model.cmlp", bare) == expected
    for index in (False, True):
        code, out, err = run("predict", "model.cmlp", table("new.csv", {"a": a, "b": b}, index))
        assert (code, out) == expected[:2]
        assert "cmlp: note: model.cmlp knows no names; columns are read in their order: a, b" in err
        assert ("columns without a name are left out: 0 (" in err) == index
    more = table("more.csv", {"a": a, "b": b, "c": b})
    assert "more.csv has 3 features, but model.cmlp expects 2" in complaint(
        "predict", "model.cmlp", more
    )
    assert run("predict", "model.cmlp", more, "--ignore", "c")[1] == expected[1]
    code, out, err = run("evaluate", "model.cmlp", more, "--target", "c")
    assert (code, err) == (0, "") and "note      model.cmlp knows no names" in out

    table("train.csv", {"a": a, "b": b, "y": a}, header=False)
    assert run(*PLAIN, "train.csv", "--target", 2, "--epochs", 1, "--quiet") == (
        0,
        "",
        "",
    )
    assert cmlp.load("model.cmlp").feature_names == []
    assert run("predict", "model.cmlp", "new.csv")[0] == 0


def test_features_of_one_name_are_refused(run, complaint, in_folder):
    (in_folder / "data.csv").write_text("a,a,y\n1,2,3\n4,5,6\n7,8,10\n")
    line = complaint(*PLAIN, "data.csv", "--target", "y")
    assert "2 columns are called 'a'" in line and "--ignore" in line
    run(*PLAIN, "data.csv", "--target", "y", "--ignore", 1, "--epochs", 1)
    assert "2 columns are called 'a'" in complaint("predict", "model.cmlp", "data.csv")
    assert run("predict", "model.cmlp", "data.csv", "--ignore", 1)[0] == 0


def test_the_user_says_whether_there_is_a_header(run, complaint, table):
    rng = np.random.default_rng(0)
    X = dict(zip("012", rng.normal(size=(3, 60)).round(4), strict=True))
    table("data.csv", {**X, "3": X["0"] > 0}, header=False)
    for header, n, features in [((), 60, 3), (["--no-header"], 60, 3), (["--header"], 59, 3)]:
        code, out, _ = run(*PLAIN, "data.csv", "--target", "-1", "--epochs", 1, *header)
        assert code == 0 and f"data    {n} rows, {features} features" in out and "note" not in out
    table("data.csv", {**X, "3": X["1"]})
    code, out, _ = run(*PLAIN, "data.csv", "--target", "-1", "--epochs", 1)
    assert code == 0 and "note    line 1 ('0', '1', '2', '3') is taken for the names" in out
    assert run(*PLAIN, "data.csv", "--target", "3", "--header", "--epochs", 1)[0] == 0
    assert (
        run("predict", "model.cmlp", "data.csv")[1:]
        == run("predict", "model.cmlp", "data.csv", "--header")[1:]
    )
    assert (
        len(run("predict", "model.cmlp", "data.csv", "--ignore", 3, "--no-header")[1].split()) == 61
    )
    np.savez("data.npz", X=np.eye(2), y=[0, 1])
    assert "are for CSV" in complaint(*PLAIN, "data.npz", "--header")
    table("data.csv", {"5": [1, 4], "x": [2, 5], "7": [3, 6]})
    line = complaint(*PLAIN, "data.csv", "--target", 0, "--no-header")
    assert "line 1, column 1 (counted from 0): 'x' is text" in line and "--header" not in line


def test_same_seed_same_file(run, in_folder, flowers):
    weights = []
    for seed in (1, 1, 2):
        run(*PLAIN, "flowers.csv", "--target", "kind", *FAST, "--seed", seed, "--quiet")
        weights.append(cmlp.load("model.cmlp").params)
    assert np.array_equal(weights[0], weights[1]) and not np.array_equal(weights[0], weights[2])


def test_every_option_arrives(run, in_folder, flowers, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        cmlp.Network, "fit", lambda net, X, y, **options: seen.update(options) or cmlp.History()
    )
    code, _, err = run(
        *PLAIN, "flowers.csv", "--target", "kind", "--hidden", "9,8", "--activation", "tanh,relu",
        "--loss", "cross_entropy", "--solver", "adamw", "--epochs", 3, "--batch-size", "all",
        "--momentum", 0.5, "--schedule", "cosine", "--l1", 1e-5, "--l2", 1e-4, "--weight-decay",
        1e-3, "--dropout", 0.1, "--input-noise", 0.2, "--label-smoothing", 0.05, "--clip-norm", 2,
        "--patience", 0, "--max-time", 9, "--threads", 1, "--validation", 0,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert seen == {
        "solver": "adamw", "epochs": 3, "batch_size": None, "learning_rate": 0.001,
        "momentum": 0.5, "schedule": "cosine", "l1": 1e-5, "l2": 1e-4, "weight_decay": 1e-3,
        "dropout": 0.1, "input_noise": 0.2, "label_smoothing": 0.05, "clip_norm": 2,
        "patience": None, "max_time": 9, "n_threads": 1, "verbose": True,
    }  # fmt: skip
    net = cmlp.load("model.cmlp")
    assert net.sizes == (4, 9, 8, 3) and net.activations == ("tanh", "relu", "softmax")


def test_no_hidden_layer_and_few_rows(run, in_folder):
    np.savez("data.npz", X=np.array([[0.0], [1.0], [2.0], [3.0]]), y=[0, 0, 1, 1])
    code, out, _ = run(*PLAIN, "data.npz", "--hidden", "none")
    assert code == 0 and "on the training rows" in out
    assert cmlp.load("model.cmlp").sizes == (1, 1)


def test_early_ends(run, in_folder, flowers):
    options = [*PLAIN, "flowers.csv", "--target", "kind", "--epochs", 10**9]
    assert "stopped by --max-time" in run(*options, "--max-time", 0.01, "--patience", 0)[1]
    assert "stopped by --patience" in run(*options, "--patience", 1, "--learning-rate", 0.3)[1]


# What follows from the target --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "wanted", "loss", "classifies"),
    [
        (["a", "b", "a"], "auto", None, True),
        ([0, 1, 0, 1], "auto", None, True),
        ([1, 2, 3, 4], "auto", None, False),  # each value once
        (list(range(31)) * 9, "auto", None, False),
        (list(range(30)) * 9, "auto", None, True),
        ([0.0, 1.0, 0.0, 1.0], "auto", None, False),
        ([0.0, 1.0, 0.0, 1.0], "classification", None, True),
        ([0, 1, 0, 1], "regression", None, False),
        ([0, 1, 0, 1], "auto", "poisson", False),
        ([0, 1, 0, 1], "auto", "mse", True),
        ([0.0, 1.0], "auto", "bce", True),
        ([[0, 1], [1, 0]], "auto", None, True),
        ([[0.5, 1], [1, 0]], "auto", None, False),
    ],
)
def test_task(y, wanted, loss, classifies):
    assert train.choose_task(np.array(y), wanted, loss)[0] is classifies


@pytest.mark.parametrize(
    ("y", "wanted", "message"),
    [(["a", "b"], "regression", "text, such as 'a'"), ([0.5, 1.0], "classification", "fractions")],
)
def test_impossible_task(y, wanted, message):
    with pytest.raises(ValueError, match=message):
        train.choose_task(np.array(y), wanted, None)


@pytest.mark.parametrize("labels", [
    ["007", "012"], ["+1", "-1"], ["1", "2", "x"], ["none", "mild"], ["NA", "EU", "1"],
    [2**62 + 1, 2**62 + 2, 2**62 + 3], [5, 2**63, 2**64 - 1], [-(2**62) - 1, 7],
    [2**64 + 1, 2**64 + 2], ["long names that", "long names that differ"],
], ids=str)  # fmt: skip
def test_labels_are_what_was_written(run, complaint, table, labels):
    """In training, predicting and evaluating, whichever of them occur in a file."""
    kind = np.arange(90) % len(labels)
    X = {"a": kind * 3.0 + np.random.default_rng(0).normal(size=90).round(3) / 9}
    y = [str(labels[k]) for k in kind]
    code, out, err = run(*PLAIN, table("data.csv", {**X, "y": y}), "--target", "y", *FAST,
                         "--epochs", 90)  # fmt: skip
    assert (code, err) == (0, "") and "classification" in out
    read = run("predict", "model.cmlp", "data.csv")[1].splitlines()
    assert set(read) <= set(y) and np.mean(np.array(read) == y) > 0.9
    header = run("predict", "model.cmlp", "data.csv", "--proba")[1].splitlines()[0]
    assert sorted(header.split(",")) == sorted(set(y))
    told = run("info", "model.cmlp")[1]
    for label in labels:
        one = [i for i in range(90) if y[i] == str(label)]
        part = {"a": X["a"][one], "y": [label] * len(one)}
        code, out, err = run("evaluate", "model.cmlp", table("part.csv", part))
        assert (code, err) == (0, "") and str(label) in told
        assert all(f"{text} |" in out for text in map(str, labels))  # no digit is cut off
    table("part.csv", {"a": [1, 2], "y": [labels[0], "yew"]})
    line = complaint("evaluate", "model.cmlp", "part.csv")
    assert "part.csv: line 3, column 'y': the label 'yew' is not one of the model's" in line


def test_whole_number_labels_in_a_file_of_decimals(run, complaint, table):
    a = np.arange(60.0)
    table("data.csv", {"a": a, "y": (a > 30).astype(int) + 1})
    run(*PLAIN, "data.csv", "--target", "y", *FAST)
    _, out, _ = run("evaluate", "model.cmlp", "data.csv")
    table("data.csv", {"a": a, "y": [f"{value}.0" for value in (a > 30).astype(int) + 1]})
    assert run("evaluate", "model.cmlp", "data.csv") == (0, out, "")
    table("data.csv", {"a": a, "y": a})
    assert "the label '0.0' is not one" in complaint("evaluate", "model.cmlp", "data.csv")


def test_text_among_numbers_is_refused(run, complaint, table):
    a = np.random.default_rng(0).normal(size=60).round(4)
    y = [f"{value}" for value in a * 2 + 5]
    table("data.csv", {"a": a, "y": [*y[:37], "<0.5", *y[38:]]})
    for more in ([], ["--task", "regression"], ["--loss", "huber"]):
        line = complaint(*PLAIN, "data.csv", "--target", "y", *more)
        assert "data.csv: line 39, column 'y': the target is" in line and "'<0.5'" in line
    options = ("--target", "y", "--epochs", 1, "--validation", 0)
    code, out, _ = run(*PLAIN, "data.csv", *options, "--task", "classification")
    assert code == 0 and "60 classes" in out
    table("data.csv", {"a": a, "y": y})
    assert run(*PLAIN, "data.csv", *options)[0] == 0
    table("data.csv", {"a": a, "y": [*y[:37], "5,5", *y[38:]]})
    assert "line 39" in complaint("evaluate", "model.cmlp", "data.csv")
    assert run("predict", "model.cmlp", "data.csv")[0] == 0  # the target is not looked at
    assert run("predict", "model.cmlp", "data.csv", "--target", "y")[0] == 0


def test_true_and_false(run, in_folder):
    a = np.arange(60.0)
    np.savez("data.npz", X=a[:, None], y=a > 30)
    _, out, _ = run(*PLAIN, "data.npz", *FAST)
    assert "classification, because the target is true or false" in out
    assert set(run("predict", "model.cmlp", "data.npz")[1].split()) == {"True", "False"}
    assert run("evaluate", "model.cmlp", "data.npz")[0] == 0
    assert run(*PLAIN, "data.npz", "--task", "regression", "--no-scale", "--epochs", 1)[0] == 0


def test_a_report_of_one_row_and_of_small_numbers(run, table):
    a = np.arange(60.0)
    table("data.csv", {"a": a, "y": a * 1e-9})
    run(*PLAIN, "data.csv", "--target", "y", *FAST)
    table("data.csv", {"a": [3], "y": [4e-9]})
    code, out, err = run("evaluate", "model.cmlp", "data.csv")
    assert (code, err) == (0, "")
    values = dict(line.split()[:2] for line in out.splitlines()[1:])
    assert 0 < float(values["RMSE"]) < 1e-8 and float(values["MAE"]) > 0
    assert 0 < float(values["loss"]) < 1e-16 and "R2" in values


# Scaling -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1, 0.3])
@pytest.mark.parametrize("loss", ["categorical_crossentropy", "squared_error"])
def test_folded_network_predicts_the_same(engine, loss, scale):
    X, kind = rows()
    inputs, outputs = Scaling.of(X, NAMES), None
    y = kind
    net = cmlp.Network([4, 6, 3 if loss != "squared_error" else 1], "tanh", loss=loss, seed=1,
                       input_scale=scale)  # fmt: skip
    if loss == "squared_error":
        y = 5e3 + 1e3 * X[:, 0]
        outputs = target_scaling(y, "target")
    net.fit(inputs(X), outputs(y) if outputs else y, epochs=5)
    folded = fold(net, X, inputs, outputs)
    expected = net.predict(inputs(X)).astype(np.float64)
    if outputs:
        expected = expected / outputs.factor + outputs.mean
    assert folded.dtype == np.float32
    assert folded.predict(X) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert folded.loss(X, y) == pytest.approx(
        net.loss(inputs(X), outputs(y) if outputs else y)
        * (1 / outputs.factor[0] ** 2 if outputs else 1),
        rel=1e-4,
    )
    X[:, 3] = 8  # constant in training: nothing was learned from it
    assert folded.predict(X) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("offset", [1.7e9, 1e39])
def test_folded_network_is_float64_where_it_must_be(offset):
    X, kind = rows()
    X[:, 0] = offset * (1 + 1e-7 * X[:, 0])
    inputs = Scaling.of(X, NAMES)
    net = cmlp.Network([4, 6, 3], seed=1)
    net.fit(inputs(X), kind, epochs=5)
    folded = fold(net, X, inputs, None)
    assert folded.dtype == np.float64
    assert folded.predict(X) == pytest.approx(net.predict(inputs(X)), abs=1e-5)


def test_folded_normalisation(engine):
    X, kind = rows()
    inputs = Scaling.of(X, NAMES)
    net = cmlp.Network([4, 6, 5, 3], "tanh", seed=1, input_scale=0.3, normalization="batch")
    net.fit(inputs(X), kind, epochs=5)
    folded = fold(net, X, inputs, None)
    assert folded.predict(X) == pytest.approx(net.predict(inputs(X)), rel=1e-5, abs=1e-5)
    layered = cmlp.Network([4, 6, 3], normalization="layer")
    with refused(ValueError, "normalization='layer'", "scale X yourself, or use 'batch'"):
        fold(layered, X, inputs, None)


def test_scaled_columns():
    X = np.column_stack([np.arange(10_000.0), np.full(10_000, 0.1), np.arange(10_000) % 2])
    scaled = Scaling.of(X, ["a", "b", "c"])(X)
    assert scaled.mean(axis=0) == pytest.approx(0, abs=1e-6)
    assert scaled.std(axis=0) == pytest.approx([1, 0, 1], abs=1e-5)
    with pytest.raises(ValueError, match="'b' holds numbers too large"):
        Scaling.of(np.array([[0, 1e200], [1, -1e200]]), ["a", "b"])


def test_validation_rows_are_not_measured(run, in_folder, flowers, monkeypatch):
    measured = []
    of = Scaling.of
    monkeypatch.setattr(
        scaling.Scaling,
        "of",
        lambda values, names: measured.append(len(values)) or of(values, names),
    )
    run(*PLAIN, "flowers.csv", "--target", "kind", *FAST, "--validation", 0.2)
    assert measured == [120]
    run(*PLAIN, "flowers.csv", "--target", "kind", *FAST, "--no-scale")
    assert measured == [120]


# What goes wrong ---------------------------------------------------------------------------------

TRAIN = [*PLAIN, "flowers.csv", "--target", "kind"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "COMMAND"),
        (["trian"], "invalid choice"),
        ([*PLAIN, "flowers.csv", "--hidden", "a"], "--hidden"),
        ([*PLAIN, "no.csv", "--target", "kind"], "no.csv: cannot be read: No such file"),
        ([*PLAIN, "flowers.csv"], "which column is the target? --target NAME"),
        ([*PLAIN, "flowers.csv", "--target", "kidn"], "no column 'kidn'; there are 'kind'"),
        ([*PLAIN, "flowers.csv", "--target", "mass"], "line 2, column 'kind': 'iris setosa' is"),
        ([*PLAIN, "empty.csv", "--target", "kind"], "empty.csv: the file is empty"),
        ([*PLAIN, "one.csv", "--target", "kind"], "the target is a on every row"),
        ([*TRAIN, "--activation", "rleu"], "Did you mean 'relu'?"),
        ([*TRAIN, "--activation", "relu,relu,relu"], "3 names, but there are 2 hidden"),
        ([*TRAIN, "--solver", "adma"], "Did you mean 'adam'?"),
        ([*TRAIN, "--loss", "hubre"], "Did you mean 'huber'?"),
        ([*TRAIN, "--loss", "huber"], "the target is text"),
        ([*TRAIN, "--task", "regression"], "the target is text"),
        ([*TRAIN, "--schedule", "cosin"], "Did you mean 'cosine'?"),
        ([*TRAIN, "--dropout", "1"], "dropout must be at least 0 and below 1"),
        ([*TRAIN, "--epochs", "-1"], "epochs must be at least 0"),
        ([*TRAIN, "--hidden", "0"], "every size must be at least 1"),
        ([*TRAIN, "--validation", "1"], "--validation must be at least 0 and below 1"),
        ([*TRAIN, "--seed", "-1"], "--seed must be at least 0"),
        ([*TRAIN, "--core", "sse9"], "unknown core 'sse9'"),
        ([*TRAIN, "--out", "nowhere/model.cmlp"], "there is no folder"),
        ([*TRAIN, "--out", "."], "this is a folder"),
        ([*TRAIN, "--out", "flowers.csv"], "would replace the file that is read"),
        ([*TRAIN, "--ignore", "length,width,mass,always"], "no feature column is left"),
        (["predict", "no.cmlp", "new.csv"], "no.cmlp: No such file"),
        (["predict", "cut.cmlp", "new.csv"], "cut.cmlp"),
        (["predict", "flowers.csv", "model.cmlp"], "flowers.csv"),
        (["predict", "model.cmlp", "three.csv"], "three.csv has 3 features, but model.cmlp"),
        (["predict", "model.cmlp", "new.csv", "--out", "no/p.csv"], "there is no folder"),
        (["evaluate", "model.cmlp", "wrong.csv", "--target", "kind"], "label"),
        (["info", "cut.cmlp"], "cut.cmlp"),
        (["info", "no.cmlp"], "no.cmlp: No such file"),
    ],
)  # fmt: skip
def test_bad_input(run, complaint, in_folder, flowers, args, message):
    X, _ = rows()
    (in_folder / "empty.csv").write_text("")
    (in_folder / "one.csv").write_text("x,kind\n1,a\n2,a\n")
    (in_folder / "three.csv").write_text("1,2,3\n")
    write_csv("wrong.csv", X[:2], ["iris setosa", "rose"])
    cmlp_file = in_folder / "model.cmlp"
    net = cmlp.Network([4, 3])
    net.classes = np.unique(flowers)
    net.save(cmlp_file)
    (in_folder / "cut.cmlp").write_bytes(cmlp_file.read_bytes()[:-7])
    before = cmlp_file.read_bytes()
    line = complaint(*args)
    assert message in line
    assert cmlp_file.read_bytes() == before


def test_unwritable_folder_is_found_before_training(complaint, in_folder, flowers, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written to" in complaint(*TRAIN)


def test_core_that_cannot_run(complaint, in_folder, flowers, monkeypatch):
    monkeypatch.setitem(dispatch._missing, "avx512", "no such luck")
    cores = {name: core for name, core in dispatch._cores.items() if name != "avx512"}
    monkeypatch.setattr(dispatch, "_cores", cores)
    assert "'avx512' cannot run here: no such luck" in complaint(*TRAIN, "--core", "avx512")


def test_divergence(run, in_folder, flowers):
    X, _ = rows()
    write_csv("data.csv", X, X[:, 2] * 1e3)
    code, _, err = run(*PLAIN, "data.csv", "--target", "kind", "--no-scale", "--learning-rate", 9)
    assert code == 1 and err.count("\n") == 1
    assert (
        err.startswith("cmlp: error: training diverged in epoch 1") and "Nothing was saved" in err
    )
    assert not (in_folder / "model.cmlp").exists()


def test_disk_full_and_no_memory(run, in_folder, flowers, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device", "model.cmlp")

    monkeypatch.setattr(cmlp.Network, "save", full)
    code, _, err = run(*TRAIN, *FAST)
    assert (code, err) == (
        1,
        "cmlp: error: model.cmlp: cannot be written: No space left on device\n",
    )

    def large(*args, **kwargs):
        raise MemoryError("8 EiB")

    monkeypatch.setattr(cmlp.Network, "fit", large)
    code, _, err = run(*TRAIN, *FAST)
    assert (code, err) == (1, "cmlp: error: not enough memory. 8 EiB\n")


def test_proba_of_numbers(run, complaint, in_folder):
    np.savez("data.npz", X=np.arange(9.0)[:, None], y=np.arange(9.0))
    run(*PLAIN, "data.npz", *FAST)
    assert "loss is squared_error" in complaint("predict", "model.cmlp", "data.npz", "--proba")
    np.save("data.npy", np.arange(9.0)[:, None])
    assert "column" in complaint("evaluate", "model.cmlp", "data.npy")
    assert "for classification" in complaint(
        *PLAIN, "data.npz", "--task", "regression", "--loss", "bce"
    )


def test_one_row_has_no_r2(run, in_folder):
    np.savez("data.npz", X=np.arange(9.0)[:, None], y=np.arange(9.0))
    assert "R2        nan (it needs two rows)" in run(*PLAIN, "data.npz", *FAST)[1]
    np.savez("one.npz", X=np.arange(1.0)[:, None], y=np.arange(1.0))
    code, out, err = run("evaluate", "model.cmlp", "one.npz")
    assert (code, err) == (0, "") and "R2        nan (it needs two rows)" in out


def test_labels_that_stdout_cannot_encode(run, capsys, in_folder, monkeypatch):
    X, kind = rows()
    np.savez("data.npz", X=X, y=np.array(["blau", "gr\xfcn", "rot"])[kind])

    def ascii_run(*args):
        stdout = io.TextIOWrapper(io.BytesIO(), "ascii")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stdout)
            code = cli.main(args)
        return code, stdout.buffer.getvalue().decode(), capsys.readouterr().err

    code, out, err = ascii_run(*PLAIN, "data.npz", *FAST)
    assert (code, err) == (0, "") and "gr\\xfcn" in out
    code, _, err = ascii_run("predict", "model.cmlp", "data.npz")
    assert code == 2 and "--out FILE helps" in err  # a wrong label is worse than none
    assert run("predict", "model.cmlp", "data.npz", "--out", "p.csv")[0] == 0
    assert "gr\xfcn" in (in_folder / "p.csv").read_text(encoding="utf-8")


def test_ctrl_c_while_reading(run, in_folder, flowers, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("cmlp.cli.tables.read_table", interrupt)
    assert run(*TRAIN) == (130, "", "cmlp: error: interrupted\n")


# A process of its own ----------------------------------------------------------------------------


def start(*args):
    source = os.path.dirname(os.path.dirname(cmlp.__file__))  # it may be given as a relative path
    return subprocess.Popen(
        [sys.executable, *args],
        env={**os.environ, "PYTHONPATH": source},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


CMLP = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background may ignore it
sys.argv[0] = "cmlp"
runpy.run_module("cmlp", run_name="__main__")
"""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_ctrl_c_saves_what_was_learned(in_folder, flowers):
    with start("-c", CMLP, *TRAIN, "--epochs", "1000000000", "--patience", "0") as process:
        for line in process.stdout:
            if line.startswith("epoch") and int(line.split()[1]) >= 3:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == "cmlp: interrupted; what was learned is in model.cmlp\n"
    assert "saved   model.cmlp" in out
    net = cmlp.load("model.cmlp")
    assert len(net.history["epoch"]) >= 3 and np.isfinite(net.params).all()
    assert net.classes.tolist() == np.unique(flowers).tolist()


def test_pipe_that_closes_early(in_folder):
    net = cmlp.Network([1, 1], seed=0)
    net.save("model.cmlp")
    np.save("data.npy", np.arange(50_000.0)[:, None])
    with start("-m", "cmlp", "predict", "model.cmlp", "data.npy") as process:
        assert process.stdout.readline() == "0.0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(20) == 1


def test_module_ends_with_the_exit_code(in_folder):
    with start("-m", "cmlp", "info", "no.cmlp") as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (2, "")
    assert err == "cmlp: error: no.cmlp: No such file or directory\n"


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom cmlp import cli\ntry:\n    cli.main(['--help'])\n"
        "except SystemExit:\n    heavy = {'pandas', 'cmlp.cli.demo', 'cmlp.cli.bench'}\n"
        "    print(heavy & {*sys.modules})"
    )
    with start("-c", code) as process:
        out, err = process.communicate(timeout=20)
    assert err == "" and out.endswith("set()\n") and "exit codes:" in out


# info, bench, demo -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    ["train", "predict", "evaluate", "explain", "info", "export", "import", "bench", "demo"],
)
def test_help_has_examples(run, command):
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "") and f"examples:\n  cmlp {command}" in out and "130 Ctrl-C" in out


def test_info_of_the_machine(run, engine, in_folder):
    code, out, _ = run("info")
    assert code == 0 and cmlp.__version__ in out and f"core       {engine.name}" in out
    cmlp.Network([2, 1]).save("new.cmlp")
    assert "trained   never" in run("info", "new.cmlp")[1]


@pytest.mark.parametrize("unit", [1e-12, 1, 1e12])
def test_reports_show_digits_of_any_size(run, in_folder, unit):
    """A score just below 1 is not shown as 1."""
    X = np.linspace(-1, 1, 200)[:, None]
    y = unit * (X[:, 0] + 0.004 * (-1) ** np.arange(200))
    write_csv("data.csv", X, y, names=["x"], target="y")
    net = cmlp.Network([1, 1], dtype="float64")
    net.weights[0][...], net.feature_names, net.target_name = unit, ["x"], "y"
    net.history.update(epoch=[1.0], loss=[1e-9 * unit], seconds=[2e-6])
    net.history.update(val_loss=[3e-9 * unit], val_score=[0.99998])
    net.save("model.cmlp")
    code, out, _ = run("evaluate", "model.cmlp", "data.csv")
    said = dict(line.split()[:2] for line in out.splitlines()[1:])
    assert code == 0 and 0.9999 < float(said["R2"]) < 1
    assert float(said["RMSE"]) == pytest.approx(0.004 * unit, rel=1e-4)
    out = run("info", "model.cmlp")[1]
    assert "score 0.99998 in the best epoch" in out and "1 epochs in 2e-06 s" in out
    assert f"loss      {1e-9 * unit:g} in the last epoch" in out
    assert f"val_loss  {3e-9 * unit:g}," in out


def test_an_accuracy_just_below_1_is_not_shown_as_1(run, in_folder):
    X = np.linspace(-1, 1, 50_000)[:, None]
    kind = (X[:, 0] > 0).astype(int)
    kind[0] = 1
    write_csv("data.csv", X, kind, names=["x"])
    net = cmlp.Network([1, 1], loss="bce")
    net.weights[0][...], net.classes, net.target_name = 5, np.array([0, 1]), "kind"
    net.save("model.cmlp")
    assert "accuracy  0.99998\n" in run("evaluate", "model.cmlp", "data.csv")[1]


@pytest.fixture
def one_thread(monkeypatch):
    """The environment in which the benchmark stays in this process."""
    for name, value in bench.ONE_THREAD.items():
        monkeypatch.setenv(name, value)


def test_bench_makes_its_own_environment(run, monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    calls = []

    def call(command, env):
        calls.append(command)
        assert env.items() >= bench.ONE_THREAD.items()
        return 0

    monkeypatch.setattr(subprocess, "call", call)
    assert run("bench", "--quick")[0] == 0
    assert calls == [[sys.executable, "-m", "cmlp", "bench", "--quick"]]


def test_bench(run, monkeypatch, one_thread):
    cases = (bench.Case((4, 8, 2), 1, 5, True), bench.Case((4, 8, 2), 3, 2, False))
    monkeypatch.setattr(bench, "CASES", cases)
    monkeypatch.setattr(bench, "SECONDS", (0.0, 0.0))
    code, out, err = run("bench", "--quick")
    assert (
        (code, err) == (0, "") and "step  4-8-2, 1 row " in out and "predict  4-8-2, 3 rows" in out
    )
    assert all(name in out for name in cmlp.core_info().available)
    if len(cmlp.core_info().available) > 1:
        assert "losses and outputs agree" in out
        monkeypatch.setattr(bench, "TOLERANCE", -1.0)
        code, out, _ = run("bench")
        assert code == 1 and "DISAGREE" in out


def test_bench_without_a_compiled_core(run, monkeypatch, one_thread):
    monkeypatch.setattr(bench, "CASES", (bench.Case((4, 8, 2), 1, 5, True),))
    monkeypatch.setattr(dispatch, "_cores", {"python": dispatch._cores["python"]})
    code, out, _ = run("bench", "--quick")
    assert code == 0 and "no compiled core is installed" in out


def test_demo_gets_its_options(run, monkeypatch):
    seen = {}
    monkeypatch.setattr(demo, "run", lambda **options: seen.update(options) or 0)
    assert run("demo", "--seed", 3, "--epochs", 1, "--out", "x")[0] == 0
    assert seen == {"seed": 3, "epochs": 1, "out": "x"}


@pytest.mark.skipif(os.name != "posix", reason="a pipe that is closed")
def test_a_closed_pipe_does_not_cost_the_model(in_folder, flowers):
    process = start("-m", "cmlp", *TRAIN, "--epochs", "40", "--patience", "0")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 0, process.stderr.read()
    process.stderr.close()
    assert cmlp.load(in_folder / "model.cmlp").history["epoch"]


def test_unknown_columns_to_ignore(run, in_folder, flowers):
    code, _, err = run(*TRAIN, "--ignore", "no such")
    assert code == 2 and "no such" in err


def test_names_with_a_comma_are_left_out_in_quotes(run, in_folder):
    rows = "".join(f"{i},{i % 7}.5,{i % 5},{i % 2}\n" for i in range(60))
    (in_folder / "named.csv").write_text(f'"mass, kg",a,"b ""x""",y\n{rows}')
    words = (*PLAIN, "named.csv", "--target", "y", "--epochs", 1, "--ignore")
    for ignored, left in (('"mass, kg"', ["a", 'b "x"']), ('a , "mass, kg"', ['b "x"'])):
        assert run(*words, ignored)[0] == 0
        assert cmlp.load("model.cmlp").feature_names == left
    assert run(*words, 'b "x",0')[0] == 0
    assert cmlp.load("model.cmlp").feature_names == ["a"]


@pytest.mark.parametrize("other", ["Oak", "oak  tree", "\uff4fak tree", "02"])
def test_labels_that_are_nearly_alike_are_noted(run, in_folder, other):
    label = {"Oak": "oak", "02": "2"}.get(other, "oak tree")
    kinds = (label, other, "elm")
    rows = "".join(f"{i % 7}.5,{kinds[i % 3]}\n" for i in range(60))
    (in_folder / "trees.csv").write_text(f"a,kind\n{rows}", encoding="utf-8")
    code, out, _ = run(*PLAIN, "trees.csv", "--target", "kind", "--epochs", 1)
    (note,) = [line for line in out.splitlines() if line.startswith("note")]
    assert code == 0 and "are two classes" in note and repr(label) in note and repr(other) in note


def test_labels_with_a_point_are_numbers_with_a_word(run, in_folder):
    rows = "".join(f"{i % 7}.5,{i % 2}.0\n" for i in range(60))
    (in_folder / "points.csv").write_text(f"a,y\n{rows}")
    words = (*PLAIN, "points.csv", "--target", "y", "--epochs", 1)
    code, out, _ = run(*words)
    (task,) = [line for line in out.splitlines() if line.startswith("task")]
    assert code == 0 and "regression" in task and "--task classification if" in task
    assert run(*words, "--task", "classification")[0] == 0
    (in_folder / "test.csv").write_text("a,y\n1.5,1\n2.5,0\n")
    assert "accuracy" in run("evaluate", "model.cmlp", "test.csv")[1]


@pytest.mark.parametrize("classifies", [True, False])
def test_a_report_evaluates_its_rows_once(monkeypatch, classifies):
    X = np.random.default_rng(0).normal(size=(50, 2))
    y = (X[:, 0] > 0).astype(int) if classifies else X.sum(axis=1)
    name = "binary_crossentropy" if classifies else "squared_error"
    net = cmlp.Network([2, 4, 1], loss=name, seed=0)
    loss, score = net.loss(X, y), net.score(X, y)
    calls, evaluate = [], scoring.evaluate
    monkeypatch.setattr(scoring, "evaluate", lambda *rows: calls.append(1) or evaluate(*rows))
    lines = report.report(net, X, y).splitlines()
    assert len(calls) == 1
    assert float(lines[0].split()[1]) == pytest.approx(loss, rel=1e-5)
    assert lines[1].split() == ["accuracy" if classifies else "R2", f"{score:.4f}"]
