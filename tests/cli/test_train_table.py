"""The command on tables as people have them: text, gaps, dates, and what goes wrong in them."""

from __future__ import annotations

import csv
import datetime
import gzip
import importlib.util
import io
import os
import signal
import sys
import time

import numpy as np
import pytest
from test_cli import CMLP, start

import cmlp
from cmlp.cli import train_table
from cmlp.cli.output import check_output
from cmlp.files import csv_columns
from cmlp.files.csv_layout import Selection
from cmlp.files.raw_table import Reading, read_raw

HAS_ARROW = importlib.util.find_spec("pyarrow") is not None
HAS_PANDAS = importlib.util.find_spec("pandas") is not None
LEFT_OUT = "left out: 240 different values on 240 rows"
FAST = ["--hidden", "8", "--epochs", "8", "--learning-rate", "0.03"]


def write(path, columns, delimiter=",", header=True):
    """Write a CSV file of named columns."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        if header:
            writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def people(n=240, seed=0):
    """A table like that of the Titanic: text, gaps, names, a date; `lived` follows from it."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(["male", "female"], n)
    age = rng.integers(1, 80, n)
    lived = np.where((sex == "female") ^ (rng.random(n) < 0.05), "yes", "no")
    day = datetime.date(2012, 4, 10)
    return {
        "id": range(1, n + 1),
        "name": [f"Person {i}, {'Mr' if s == 'male' else 'Mrs'}" for i, s in enumerate(sex)],
        "sex": sex,
        "age": ["" if i % 5 == 0 else a for i, a in enumerate(age)],
        "cabin": [f"C{i % 3}" if i % 4 == 0 else "" for i in range(n)],
        "boarded": [(day + datetime.timedelta(days=int(d))).isoformat() for d in age],
        "paid": [str(bool(i % 3)) for i in range(n)],
        "ship": ["Titanic"] * n,
        "lived": lived,
    }


def columns_in(out):
    """Return the printed table of columns: name to the other words."""
    lines = out.splitlines()
    first = next(i for i, line in enumerate(lines) if line.split()[:2] == ["column", "kind"])
    found = {}
    for line in lines[first + 1 :]:
        if not line.startswith("  "):
            break
        name, *rest = line.split()
        found[name] = rest
    return found


# Round trips --------------------------------------------------------------------------------------


def test_a_table_with_text_gaps_and_dates(run, engine, in_folder):
    data = people()
    write("people.csv", data)
    code, out, err = run("train", "people.csv", "--target", "lived", *FAST)
    assert (code, err) == (0, "")
    assert "data    240 rows, 6 features" in out and f"  {engine.name}" in out
    assert columns_in(out) == {
        "id": ["number", "240", "0", "scaled"],
        "name": [
            "text",
            "240",
            "0",
            *LEFT_OUT.split(),
        ],
        "sex": ["category", "2", "0", "levels"],
        "age": ["number", str(len({*data["age"]} - {""})), "48", "scaled"],
        "cabin": ["category", "3", "180", "levels"],
        "boarded": ["date", str(len({*data["boarded"]})), "0", *["seconds", "and", "parts"]],
        "paid": ["bool", "2", "0", "levels"],
        "ship": ["constant", "1", "0", *["left", "out:", "one", "value"]],
    }
    assert "'name' is text that is nearly unique per row" in out and "'id' counts the rows" in out
    assert "on the 120 validation rows:" in out and "read as" in out
    assert float(out.split("accuracy")[-1].split()[0]) > 0.8

    code, out, err = run("evaluate", "model.cmlp", "people.csv")
    assert (code, err) == (0, "") and "240 rows" in out
    accuracy = float(out.split("accuracy")[1].split()[0])
    assert accuracy > 0.8
    code, out, err = run("predict", "model.cmlp", "people.csv")
    predicted = out.split()
    assert (code, err) == (0, "")
    assert np.mean(np.array(predicted) == data["lived"]) == pytest.approx(accuracy, abs=1e-4)
    code, out, _ = run("predict", "model.cmlp", "people.csv", "--proba", "--out", "p.csv")
    header, *values = csv.reader(io.StringIO((in_folder / "p.csv").read_text()))
    values = np.array(values, float)
    assert (code, out, header) == (0, "", ["no", "yes"])
    assert values.sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert [header[i] for i in values.argmax(axis=1)] == predicted

    code, out, _ = run("info", "model.cmlp")
    assert code == 0 and "classifier of tables: 4 networks" in out
    shown = columns_in(out)
    assert [*shown] == ["id", "sex", "age", "cabin", "boarded", "paid"]
    assert [words[0] for words in shown.values()] == [
        "number", "category", "number", "category", "date", "bool"
    ]  # fmt: skip
    for text in ("labels    no, yes", "target    lived", "8 epochs", "neg_loss"):
        assert text in out, text


@pytest.mark.skipif(not HAS_PANDAS, reason="pandas is not installed")
def test_a_data_frame_is_the_same_table(run, in_folder):
    """A model of the command takes data frames, and the command takes a model of data frames."""
    import pandas as pd

    write("people.csv", people())
    run("train", "people.csv", "--target", "lived", *FAST, "--quiet")
    frame = pd.read_csv("people.csv", parse_dates=["boarded"])
    model = cmlp.load("model.cmlp")
    predicted = run("predict", "model.cmlp", "people.csv")[1].split()
    assert model.predict(frame).tolist() == predicted
    X = frame.drop(columns=["lived", "name"])
    cmlp.TabularClassifier([8], max_iter=4, random_state=0).fit(X, frame["lived"]).save("own.cmlp")
    predicted = cmlp.load("own.cmlp").predict(frame).tolist()
    assert run("predict", "own.cmlp", "people.csv")[1].split() == predicted
    assert columns_in(run("info", "own.cmlp")[1])["ship"][0] == "constant"
    del frame["ship"]  # of one value: no prediction depends on it
    frame.to_csv("less.csv", index=False)
    assert run("predict", "own.cmlp", "less.csv")[1].split() == predicted


def test_numbers_are_predicted_as_numbers(run, in_folder):
    data = people(400)
    age = np.array([float(a or 40) for a in data["age"]])
    data["price"] = 1e4 + 50 * age + 900 * (data["sex"] == "male")
    data["price"] = ["" if i in (3, 9) else price for i, price in enumerate(data["price"])]
    write("data.csv", data)
    words = ["train", "data.csv", "--target", "price", "--ignore", "lived,id", *FAST]
    code, out, err = run(*words, "--epochs", 40)
    assert (code, err) == (0, "") and "regression, because the target is decimal numbers" in out
    assert "2 rows without a target are left out; the first one: line 5, column 'price'" in out
    assert float(out.split("R2")[1].split()[0]) > 0.7
    code, out, _ = run("predict", "model.cmlp", "data.csv", "--out", "p.csv")
    header, *values = (in_folder / "p.csv").read_text().split()
    predicted = np.array(values, float)
    assert (code, out, header) == (0, "", "price") and len(predicted) == 400
    code, out, _ = run("evaluate", "model.cmlp", "data.csv")
    known = [i for i in range(400) if i not in (3, 9)]
    error = predicted[known] - np.array([data["price"][i] for i in known])
    assert "398 rows of data.csv\nnote      2 rows without a target" in out
    assert float(out.split("RMSE")[1].split()[0]) == pytest.approx(
        np.sqrt(np.mean(error**2)), rel=1e-4
    )
    assert "predicts numbers" in run("predict", "model.cmlp", "data.csv", "--proba")[2]
    assert run(*words, "--loss", "absolute_error")[0] == 0
    assert cmlp.load("model.cmlp").get_params()["loss"] == "absolute_error"


def test_members_and_folds(run, in_folder):
    write("people.csv", people(90))
    words = ["train", "people.csv", "--target", "lived", *FAST, "--cv", 3, "--ensemble", 2]
    words += ["--metric", "accuracy"]
    code, out, err = run(*words)
    assert (code, err) == (0, "") and "model   6 networks of" in out
    assert "on the 90 validation rows:" in out  # each row by the members that it did not train
    validated = float(out.split("accuracy")[-1].split()[0])
    model = cmlp.load("model.cmlp")
    assert len(model.networks_) == 6
    scores = [net.history["val_score"][net.history.best_epoch - 1] for net in model.networks_]
    assert abs(validated - np.mean(scores)) < 0.15
    assert "6 networks" in run("info", "model.cmlp")[1]
    assert run("evaluate", "model.cmlp", "people.csv")[0] == 0


def test_every_option_arrives(run, in_folder, monkeypatch):
    seen = {}

    def fit(model, X, y):
        seen.update(model.get_params(deep=False))
        raise KeyboardInterrupt

    monkeypatch.setattr(cmlp.TabularClassifier, "fit", fit)
    write("people.csv", people(60))
    words = ["train", "people.csv", "--target", "lived"]
    assert run(*words)[0] == 130
    defaults = cmlp.TabularClassifier(random_state=0, verbose=True).get_params()
    assert seen == defaults
    assert run(
        *words, "--hidden", "9,8", "--activation", "tanh,relu", "--solver", "adam", "--epochs", 3,
        "--batch-size", "all", "--learning-rate", 0.1, "--schedule", "cosine", "--weight-decay",
        1e-3, "--dropout", 0.1, "--label-smoothing", 0.05, "--patience", 0, "--max-time", 9,
        "--seed", 5, "--threads", 1, "--ensemble", 2, "--cv", 4, "--metric",
        "log_loss", "--quiet",
    )[0] == 130  # fmt: skip
    assert seen == defaults | {
        "hidden_layer_sizes": [9, 8], "activation": ["tanh", "relu"], "solver": "adam",
        "max_iter": 3, "batch_size": 60, "learning_rate_init": 0.1, "learning_rate": "cosine",
        "weight_decay": 1e-3, "dropout": 0.1, "label_smoothing": 0.05, "n_iter_no_change": np.inf,
        "max_time": 9, "random_state": 5, "n_threads": 1,
        "n_ensemble": 2, "cv": 4, "scoring": "loss", "verbose": False,
    }  # fmt: skip
    run(*words, "--validation", 0)
    assert seen["early_stopping"] is False
    run(*words, "--validation", 0.3)  # once, not in folds
    assert (seen["validation_fraction"], seen["cv"], seen["n_ensemble"]) == (0.3, None, 4)
    run(*words, "--validation", 0.3, "--ensemble", 2)
    assert (seen["validation_fraction"], seen["cv"], seen["n_ensemble"]) == (0.3, None, 2)


# Columns ------------------------------------------------------------------------------------------


def test_the_user_decides_what_a_column_is(run, complaint, in_folder):
    n = 120
    i = np.arange(n)
    data = {
        "zip": [f"{v % 7:05}" for v in i], "grade": i % 3 + 1,
        "day": [20240101 + v % 28 for v in i],
        "note": [f"n{v}" for v in i], "size": i % 11, "y": i % 2,
    }  # fmt: skip
    write("data.csv", data)
    words = ["train", "data.csv", "--target", "y", *FAST, "--epochs", 1]
    found = columns_in(run(*words)[1])
    assert [words[0] for words in found.values()] == [
        "category", "number", "number", "text", "number"
    ]  # fmt: skip
    more = ["--categories", "1,note", "--dates", "day", "--ignore", "size"]
    code, out, err = run(*words, *more)
    found = columns_in(out)
    assert (code, err) == (0, "") and [words[0] for words in found.values()] == [
        "category", "category", "date", "category"
    ]  # fmt: skip
    model = cmlp.load("model.cmlp")
    assert model.categories_[1].tolist() == [1, 2, 3] and model.categories_[0][1] == "00001"
    once = run("predict", "model.cmlp", "data.csv")
    data["grade"] = [f"{v}.0" for v in data["grade"]]  # the same numbers
    write("data.csv", data)
    assert run("predict", "model.cmlp", "data.csv") == once
    assert run(*words, "--numbers", "zip")[0] == 0
    assert "line 2, column 'note': a number expected, 'n0' came" in complaint(
        *words, "--numbers", "note"
    )
    assert "no column 'zap'" in complaint(*words, "--numbers", "zap")
    assert "is the target or left out" in complaint(*words, "--dates", "y")
    assert "named twice" in complaint(*words, "--dates", "day", "--categories", "day")
    assert "line 2, column 'size': a date in ISO's form" in complaint(*words, "--dates", "size")


GAPS = ["", "NA", "?", "null", "-", "nan", "#N/A"]


def test_signs_of_a_gap_are_gaps_in_every_kind(run, in_folder):
    n = 70
    i = np.arange(n)
    gap = [GAPS[v % 7] for v in i]
    data = {
        "a": [gap[v] if v % 2 else v for v in i],
        "c": [gap[v] if v % 2 else "xy"[v % 4 // 2] for v in i],
        "d": [gap[v] if v % 2 else f"2024-01-{v % 28 + 1:02}" for v in i],
        "b": [gap[v] if v % 2 else "TRUE" if v % 4 else "False" for v in i],
        "w": ["unknown" if v % 20 == 0 else v * 0.5 for v in i],
        "e": gap,
        "y": i % 2,
    }
    write("data.csv", data)
    code, out, err = run("train", "data.csv", "--target", "y", *FAST)
    found = columns_in(out)
    assert (code, err) == (0, "")
    kinds = {name: (words[0], words[2]) for name, words in found.items()}
    assert kinds == {
        "a": ("number", "35"), "c": ("category", "35"), "d": ("date", "35"), "b": ("bool", "35"),
        "w": ("number", "4"), "e": ("empty", "70"),
    }  # fmt: skip
    assert "a gap where it is 'unknown'" in out
    once = run("predict", "model.cmlp", "data.csv")
    assert once[0] == 0 and once[2] == ""
    for name in "acdb":
        data[name] = ["" if value in GAPS else value for value in data[name]]
    data["w"] = ["" if value == "unknown" else value for value in data["w"]]
    assert run("predict", "model.cmlp", write("data.csv", data)) == once


@pytest.mark.parametrize(("cells", "bad", "message"), [
    ([f"{v}.5" for v in range(60)], "12 kg", "'12 kg' in a column of numbers"),
    ([f"{v},5" for v in range(60)], None, "line 2, column 'a': '0,5' in a column of numbers; "
     "write a decimal point"),
    ([f"${v}" for v in range(60)], None, "line 2, column 'a': '$0' in a column of numbers"),
    ([f"2024-01-{v % 28 + 1:02}" for v in range(60)], "soon", "'soon' in a column of dates"),
    ([f"2024-01-{v % 28 + 1:02}" for v in range(60)], "2024-02-30", "'2024-02-30' came"),
    ([f"2024-01-{v % 28 + 1:02}" for v in range(60)], "2024-01-01T10:00Z", "time zone"),
    ([f"{v}.5" for v in range(60)], "1e999", "inf is not a finite number"),
], ids=str)  # fmt: skip
def test_bad_cells_are_refused_with_their_line(run, complaint, in_folder, cells, bad, message):
    if bad:
        cells[37] = bad
    write("data.csv", {"a": cells, "b": range(60), "y": [v % 2 for v in range(60)]}, ";")
    words = ["train", "data.csv", "--target", "y", *FAST, "--epochs", 1]
    line = complaint(*words)
    assert line.startswith("cmlp: error: data.csv: ") and message in line
    if bad and "zone" not in message:
        assert "line 39, column 'a'" in line
    assert run(*words, "--ignore", "a")[0] == 0
    assert run(*words, "--categories", "a")[0] == 0


def test_three_words_among_numbers_are_refused(run, complaint, in_folder):
    cells = [f"{v}.5" for v in range(60)]
    cells[10], cells[20], cells[30] = "few", "some", "many"
    write("data.csv", {"a": cells, "y": [v % 2 for v in range(60)]})
    line = complaint("train", "data.csv", "--target", "y")
    assert "line 12, column 'a': 'few' in a column of numbers" in line and "--categories" in line


def test_dates_in_another_form_are_text_and_that_is_said(run, in_folder):
    days = [f"{v % 28 + 1}/{v % 12 + 1}/2023" for v in range(90)]
    write("data.csv", {"a": range(90), "day": days, "y": [v % 2 for v in range(90)]})
    code, out, _ = run("train", "data.csv", "--target", "y", *FAST, "--epochs", 1)
    assert (
        code == 0 and "'day' holds dates or times such as '1/1/2023', which are read as text" in out
    )


def test_a_column_that_becomes_text_far_below(run, in_folder, monkeypatch):
    """Blocks of numbers above it are read once more, as they were written."""
    monkeypatch.setattr(csv_columns, "BLOCK", 16)
    a = [f"{v % 9}.0" for v in range(200)]
    a[150] = "ten"
    a[151] = "1_000"
    big = [*range(199), 2**60 + 1]
    write("data.csv", {"a": a, "b": big, "y": [v % 2 for v in range(200)]})
    table = read_raw("data.csv", Selection("y"), Reading())
    levels = table.forms[0]
    assert [levels.values[code] for code in levels.codes] == a
    assert table.forms[1].values.tolist() == [float(v) for v in big]
    (note,) = table.notes
    assert "line 201, column 'b'" in note and str(2**60 + 1) in note


# Prediction ---------------------------------------------------------------------------------------


def test_what_the_model_does_not_know(run, complaint, in_folder):
    data = people(100)
    write("people.csv", data)
    run("train", "people.csv", "--target", "lived", *FAST, "--quiet")
    once = run("predict", "model.cmlp", "people.csv")
    more = dict(reversed(data.items())) | {"new": ["x"] * 100}
    del more["name"], more["ship"], more["lived"]
    assert run("predict", "model.cmlp", write("new.csv", more)) == once

    def spoilt(name, row, value):
        cells = list(data[name])
        cells[row] = value
        return write("new.csv", data | {name: cells})

    code, out, err = run("predict", "model.cmlp", spoilt("cabin", 4, "Z9"))
    assert code == 0 and len(out.split()) == 100
    assert err == ("cmlp: note: column 'cabin': 'Z9' did not occur in training, and count as "
                   "missing (1 row)\n")  # fmt: skip
    missing = run("predict", "model.cmlp", spoilt("cabin", 4, ""))[1]
    assert out == missing
    line = complaint("predict", "model.cmlp", spoilt("age", 6, "old"))
    assert "new.csv: line 8, column 'age': a number expected, 'old' came" in line
    line = complaint("evaluate", "model.cmlp", spoilt("age", 6, "1,5"))
    assert "line 8, column 'age'" in line and "write a decimal point" in line
    line = complaint("predict", "model.cmlp", spoilt("boarded", 0, "10 April 1912"))
    assert "line 2, column 'boarded': a date in ISO's form" in line
    assert "label 'maybe' is not one of the model's: 'yes', 'no'" in complaint(
        "evaluate", "model.cmlp", spoilt("lived", 6, "maybe")
    )
    del more["sex"]
    line = complaint("predict", "model.cmlp", write("new.csv", more))
    assert "no column 'sex', which the model was trained with" in line
    line = complaint("predict", "model.cmlp", "people.csv", "--ignore", "sex")
    assert "needs the column 'sex'" in line


@pytest.mark.parametrize("names", [
    ("x0", "x1", "speed"), ("0", "1", "2"), ("1990", "1995", "2000"), ("length", "width", "x0"),
], ids="-".join)  # fmt: skip
def test_a_column_is_never_taken_for_another(run, in_folder, names):
    """Whatever it is called, with an index of numbers in front, and in another order."""
    X = dict(zip(names, np.random.default_rng(3).normal(size=(3, 60)).round(3), strict=True))
    y = np.where(X[names[0]] > X[names[1]], "oak", "elm")
    write("data.csv", {"": range(60), **X, "kind": y})
    code, out, err = run("train", "data.csv", "--target", "kind", *FAST)
    assert (code, err) == (0, "") and "data    60 rows, 3 features" in out
    assert "columns without a name are left out: 0" in out
    assert cmlp.load("model.cmlp").feature_names_in_.tolist() == list(names)
    expected = run("predict", "model.cmlp", write("plain.csv", X))
    assert expected[0] == 0 and expected[2] == "" and len(expected[1].split()) == 60
    turned = dict(reversed(X.items()))
    for columns in (turned, {"": range(60), **turned}, {"kind": y, "z": y, **turned}):
        assert run("predict", "model.cmlp", write("new.csv", columns)) == expected
    assert run("predict", "model.cmlp", write("new.csv", X, header=False)) == expected


def test_a_table_without_a_header(run, complaint, in_folder):
    n = 80
    i = np.arange(n)
    data = {
        "a": i % 7 + 0.5, "b": np.array(["oak", "elm"])[i % 2], "c": [f"t{v}" for v in i],
        "d": [f"{v % 28 + 1:02}" for v in i], "y": i % 2,
    }  # fmt: skip
    write("data.csv", data, header=False)
    code, out, err = run("train", "data.csv", "--target", "-1", "--no-header", *FAST)
    assert (code, err) == (0, "")
    kinds = {name: words[0] for name, words in columns_in(out).items()}
    assert kinds == {"x0": "number", "x1": "category", "x2": "text", "x3": "category"}
    predicted = run("predict", "model.cmlp", "data.csv", "--target", "4", "--no-header")
    assert predicted[0] == 0 and np.mean(np.array(predicted[1].split(), int) == i % 2) > 0.9
    assert "accuracy  1" in run("evaluate", "model.cmlp", "data.csv", "--target", 4)[1]
    line = complaint("predict", "model.cmlp", "data.csv", "--no-header")
    assert "data.csv has 5 features, but model.cmlp expects 4; --target or --ignore" in line
    code, _, err = run("predict", "model.cmlp", write("named.csv", data), "--target", "y")
    assert code == 0 and "model.cmlp knows no names; columns are read in their order" in err
    data["a"] = ["x", *data["a"][1:]]
    line = complaint(
        "predict", "model.cmlp", write("data.csv", data, header=False), "--target", 4, "--no-header"
    )
    assert "line 1, column 0 (counted from 0): a number expected, 'x' came" in line


# Targets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [
    ["007", "012"], ["+1", "-1"], ["1", "2", "x"], ["NA", "EU", "1"], [2**62 + 1, 2**62 + 2],
    [5, 2**63, 2**64 - 1], [2**64 + 1, 2**64 + 2],
], ids=str)  # fmt: skip
def test_labels_are_what_was_written(run, in_folder, labels):
    kind = np.arange(90) % len(labels)
    a = kind * 3.0 + np.random.default_rng(0).normal(size=90).round(3) / 9
    y = [str(labels[k]) for k in kind]
    write("data.csv", {"a": a, "y": y})
    code, out, err = run("train", "data.csv", "--target", "y", *FAST, "--epochs", 30)
    assert (code, err) == (0, "") and "classification" in out
    read = run("predict", "model.cmlp", "data.csv")[1].splitlines()
    assert set(read) <= set(y) and np.mean(np.array(read) == y) > 0.9
    header = run("predict", "model.cmlp", "data.csv", "--proba")[1].splitlines()[0]
    assert sorted(header.split(",")) == sorted(set(y))
    code, out, err = run("evaluate", "model.cmlp", "data.csv")
    assert (code, err) == (0, "") and all(f"{label} |" in out for label in set(y))


def test_text_among_the_numbers_of_a_target_is_refused(run, complaint, in_folder):
    a = np.random.default_rng(0).normal(size=60).round(4)
    y = [f"{value}" for value in a * 2 + 5]
    write("data.csv", {"a": a, "y": [*y[:37], "<0.5", *y[38:]]})
    for more in ([], ["--task", "regression"], ["--loss", "huber"]):
        line = complaint("train", "data.csv", "--target", "y", *more)
        assert "data.csv: line 39, column 'y': the target is" in line and "'<0.5'" in line
    write("data.csv", {"a": a, "y": [*y[:37], "NA", *y[38:]]})
    assert (
        "1 row without a target is left out; the first one: line 39"
        in run("train", "data.csv", "--target", "y", *FAST)[1]
    )
    write("data.csv", {"a": a, "y": [""] * 60})
    assert "the target is missing on every row" in complaint("train", "data.csv", "--target", "y")


# Other files --------------------------------------------------------------------------------------


def test_gzip_and_zstd(run, complaint, in_folder, monkeypatch):
    write("people.csv", people(100))
    text = (in_folder / "people.csv").read_bytes()
    (in_folder / "people.csv.gz").write_bytes(gzip.compress(text))
    run("train", "people.csv", "--target", "lived", *FAST, "--quiet", "--out", "a.cmlp")
    run("train", "people.csv.gz", "--target", "lived", *FAST, "--quiet", "--out", "b.cmlp")
    a, b = (cmlp.load(name).network_.params for name in ("a.cmlp", "b.cmlp"))
    assert np.array_equal(a, b)
    for package in ("compression.zstd", "zstandard", "pyarrow"):
        monkeypatch.setitem(sys.modules, package, None)
    (in_folder / "people.csv.zst").write_bytes(b"(\xb5/\xfd" + text)
    line = complaint("train", "people.csv.zst", "--target", "lived")
    assert "compressed with zstd" in line and "pip install zstandard" in line


@pytest.mark.skipif(not HAS_ARROW, reason="pyarrow is not installed")
def test_zstd_by_pyarrow(run, complaint, in_folder):
    import pyarrow as pa

    write("people.csv", people(100))
    packed = pa.Codec("zstd").compress((in_folder / "people.csv").read_bytes()).to_pybytes()
    (in_folder / "people.csv.zst").write_bytes(packed)
    (in_folder / "cut.csv.zst").write_bytes(packed[:-9])
    run("train", "people.csv", "--target", "lived", *FAST, "--quiet")
    once = run("predict", "model.cmlp", "people.csv")
    assert run("predict", "model.cmlp", "people.csv.zst") == once and once[0] == 0
    assert "zstd file is cut off" in complaint("predict", "model.cmlp", "cut.csv.zst")


@pytest.mark.skipif(not HAS_ARROW, reason="pyarrow is not installed")
@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_parquet_and_feather(run, complaint, in_folder, kind, monkeypatch):
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet

    data = people(160)
    write("people.csv", data)
    age = [None if value == "" else int(value) for value in data["age"]]
    day = [datetime.date.fromisoformat(value) for value in data["boarded"]]
    cabin = pa.array([value or None for value in data["cabin"]]).dictionary_encode()
    table = pa.table(
        {name: list(values) for name, values in data.items()}
        | {"age": age, "boarded": day, "cabin": cabin, "paid": [v == "True" for v in data["paid"]]}
    )
    name = f"people.{kind}"
    save = pa.parquet.write_table if kind == "parquet" else pa.feather.write_feather
    save(table, name)
    code, out, err = run("train", name, "--target", "lived", *FAST)
    assert (code, err) == (0, "")
    kinds = {name: (words[0], words[1], words[2]) for name, words in columns_in(out).items()}
    _, text, _ = run("train", "people.csv", "--target", "lived", *FAST, "--out", "csv.cmlp")
    assert kinds == {n: (w[0], w[1], w[2]) for n, w in columns_in(text).items()}
    assert run("predict", "model.cmlp", name)[1] == run("predict", "csv.cmlp", "people.csv")[1]
    assert run("predict", "csv.cmlp", name) == run("predict", "csv.cmlp", "people.csv")
    assert run("evaluate", "model.cmlp", name)[0] == 0

    code, out, _ = run("train", name, "--target", "age", *FAST, "--epochs", 2)
    assert code == 0 and "32 rows without a target are left out; the first one: row 0" in out
    assert "are for CSV" in complaint("train", name, "--target", "lived", "--header")
    assert "no column 'alive'" in complaint("train", name, "--target", "alive")
    (in_folder / f"cut.{kind}").write_bytes((in_folder / name).read_bytes()[:-20])
    assert f"the {kind.capitalize()} file is cut off" in complaint(
        "train", f"cut.{kind}", "--target", "lived"
    )
    for module in ("pyarrow", "pyarrow.parquet", "pyarrow.feather"):
        monkeypatch.setitem(sys.modules, module, None)
    line = complaint("train", name, "--target", "lived")
    assert f"{kind.capitalize()} files need pyarrow: pip install pyarrow" in line


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_numpy_files_with_gaps(run, complaint, in_folder, suffix):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 3))
    y = (X[:, 0] > 0).astype(int)
    X[::7, 1] = np.nan
    target = [] if suffix == "npz" else ["--target", "-1"]
    if suffix == "npz":
        np.savez("data.npz", X=X.astype(np.float32), y=y)
    else:
        np.save("data.npy", np.column_stack([X, y]))
    code, out, err = run("train", f"data.{suffix}", *target, *FAST, "--epochs", 30)
    assert (code, err) == (0, "") and "data    120 rows, 3 features" in out
    assert columns_in(out)["x1"] == ["number", "102", "18", "scaled"]
    _, out, _ = run("evaluate", "model.cmlp", f"data.{suffix}", *target)
    assert float(out.split("accuracy")[1].split()[0]) > 0.85
    np.save("new.npy", X)
    assert len(run("predict", "model.cmlp", "new.npy")[1].split()) == 120
    X[5, 2] = np.inf
    np.save("new.npy", X)
    assert "row 5, column 2 (counted from 0): inf is not a finite number" in complaint(
        "predict", "model.cmlp", "new.npy"
    )


@pytest.mark.parametrize("labels", ["one-hot", "several", "numbers"])
def test_matrices_of_targets(run, in_folder, labels):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 3))
    kind = X.argmax(axis=1)
    y = {
        "one-hot": np.eye(3, dtype=np.int64)[kind],
        "several": (X > 0.2).astype(np.int64),
        "numbers": X[:, :2] * 1e3,
    }[labels]
    np.savez("data.npz", X=X, y=y)
    code, out, err = run("train", "data.npz", *FAST, "--epochs", 30)
    assert (code, err) == (0, "") and (labels == "several") == ("if all its labels" in out)
    code, out, _ = run("predict", "model.cmlp", "data.npz")
    n = {"one-hot": 1, "several": 3, "numbers": 2}[labels]
    assert code == 0 and {len(line.split(",")) for line in out.split()} == {n}
    code, again, _ = run("evaluate", "model.cmlp", "data.npz")
    assert code == 0
    if labels == "one-hot":
        right = np.mean(np.array(out.split(), int) == kind)
        assert float(again.split("accuracy")[1].split()[0]) == pytest.approx(right, abs=1e-4)
        assert right > 0.8


# What goes wrong ----------------------------------------------------------------------------------

TRAIN = ["train", "people.csv", "--target", "lived"]


@pytest.mark.parametrize(("args", "message"), [
    ([*TRAIN, "--momentum", 0.5], "--momentum needs --plain"),
    ([*TRAIN, "--no-scale"], "--no-scale needs --plain"),
    ([*TRAIN, "--clip-norm", 1], "--clip-norm needs --plain"),
    ([*TRAIN, "--plain", "--cv", 3], "--cv does not go with --plain"),
    ([*TRAIN, "--plain", "--categories", "sex"], "--categories does not go with --plain"),
    ([*TRAIN, "--plain"], "'Person 0, Mr"),
    ([*TRAIN, "--cv", 3, "--validation", 0.2], "give one"),
    ([*TRAIN, "--loss", "mse"], "--loss mse is for numbers, but the target is labels"),
    ([*TRAIN, "--out", "m" * 300], "File name too long"),
    ([*TRAIN, "--loss", "hinge"], "Unknown loss 'hinge'"),
    ([*TRAIN, "--loss", "huber"], "the target is text"),
    ([*TRAIN, "--task", "regression"], "the target is text"),
    ([*TRAIN, "--quantile", 0.5], "--quantile is not for classification"),
    ([*TRAIN, "--epochs", 0], "--epochs"),
    ([*TRAIN, "--cv", 1], "--cv"),
    ([*TRAIN, "--ensemble", 0], "--ensemble"),
    ([*TRAIN, "--solver", "adma"], "--solver"),
    ([*TRAIN, "--activation", "rleu"], "rleu"),
    ([*TRAIN, "--hidden", 0], "hidden"),
    ([*TRAIN, "--schedule", "cosin"], "cosin"),
    ([*TRAIN, "--dropout", 1], "dropout"),
    ([*TRAIN, "--validation", 1], "--validation must be at least 0 and below 1"),
    ([*TRAIN, "--seed", -1], "--seed must be at least 0"),
    ([*TRAIN, "--metric", "acuracy"], "acuracy"),
    ([*TRAIN, "--out", "people.csv"], "would replace the file that is read"),
    ([*TRAIN, "--ignore", "id,sex,age,cabin,boarded,paid"], "no feature column is left"),
    ([*TRAIN, "--ignore", "nothing"], "nothing"),
    (["train", "people.csv"], "which column is the target? --target NAME"),
    (["train", "people.csv", "--target", "survived"], "no column 'survived'"),
    (["train", "people.csv", "--target", "ship"], "the target is Titanic on every row"),
    (["train", "people.csv", "--target", "name"], "labels have to repeat"),
    (["train", "no.csv", "--target", "lived"], "no.csv: cannot be read: No such file"),
    (["train", ".", "--target", "lived"], "this is a directory"),
    (["train", "wide.csv", "--target", "y"], "line 3 has 3 cells, but the first row has 2"),
    (["train", "twice.csv", "--target", "y"], "2 columns are called 'a'"),
    (["train", "empty.csv", "--target", "y"], "empty.csv: the file is empty"),
], ids=str)  # fmt: skip
def test_bad_input(complaint, in_folder, args, message):
    write("people.csv", people(60))
    (in_folder / "wide.csv").write_text("a,y\n1,2\n1,2,3\n3,4\n")
    (in_folder / "twice.csv").write_text("a,a,y\n1,2,3\n4,5,6\n7,8,10\n")
    (in_folder / "empty.csv").write_text("")
    assert message in complaint(*args)
    assert not (in_folder / "model.cmlp").exists()


@pytest.mark.parametrize(("target", "metric"), [("lived", "r2"), ("age", "roc_auc")])
def test_a_metric_that_does_not_go_with_the_target(complaint, in_folder, target, metric):
    pytest.importorskip("sklearn")
    write("people.csv", people(60))
    words = ["train", "people.csv", "--target", target, "--task",
             "classification" if target == "lived" else "regression", *FAST, "--quiet"]  # fmt: skip
    assert f"--metric='{metric}' is not for these targets" in complaint(*words, "--metric", metric)


def test_a_check_of_the_output_leaves_no_file(in_folder):
    check_output("new.cmlp")
    assert not list(in_folder.iterdir())


def test_signs_of_a_gap_among_labels_are_labels_and_noted(run, in_folder):
    data = people(60)
    data["lived"] = ["NA" if i < 6 else each for i, each in enumerate(data["lived"])]
    write("people.csv", data)
    code, out, _ = run(*TRAIN, *FAST)
    assert code == 0 and "note    the target has the label 'NA', like any other; leave" in out
    data["lived"] = ["" if i < 6 else each for i, each in enumerate(data["lived"])]
    write("people.csv", data)
    assert "has the label" not in run(*TRAIN, *FAST)[1]


def test_max_time_and_disk_full(run, in_folder, monkeypatch):
    write("people.csv", people(60))
    code, out, _ = run(*TRAIN, "--epochs", 10**9, "--max-time", 0.2)
    assert code == 0 and "epoch" in out

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device", "model.cmlp")

    monkeypatch.setattr(cmlp.TabularClassifier, "save", full)
    code, _, err = run(*TRAIN, *FAST)
    line = "cmlp: error: model.cmlp: cannot be written: No space left on device\n"
    assert (code, err) == (1, line)


def test_a_wrong_record_of_the_table_is_refused(run, complaint, in_folder):
    write("people.csv", people(60))
    run(*TRAIN, *FAST, "--epochs", 1, "--quiet")
    model = cmlp.load("model.cmlp")
    assert model.table_ == {"target": "lived", "gaps": {}}
    for record in ({"target": 3, "gaps": {}}, {"gaps": {}}, {"target": "a", "gaps": {"a": [3]}}):
        model.table_ = record
        with pytest.raises(ValueError, match="cannot be saved"):
            model.save("model.cmlp")


def test_options_of_tables_are_parameters_of_the_estimators():
    from cmlp.cli.arguments import PARAMETERS

    both = {*cmlp.TabularClassifier().get_params(), *cmlp.TabularRegressor().get_params()}
    assert {*PARAMETERS.values()} <= both
    assert train_table._in_options("The 'max_iter' parameter of TabularClassifier must") == (
        "--epochs must"
    )


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_ctrl_c_saves_what_was_learned(in_folder):
    write("people.csv", people(60))
    with start("-c", CMLP, *TRAIN, "--epochs", "1000000000") as process:
        for line in process.stdout:
            if line.startswith("core"):  # the line before the training of the networks
                break
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "cmlp: interrupted; what was learned is in model.cmlp\n"
    assert "saved   model.cmlp" in out
    assert cmlp.load("model.cmlp").n_iter_ >= 1
