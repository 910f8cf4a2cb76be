"""The benchmark programs: their helpers, and that they run. No test compares times."""

import argparse
import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import python_output

import cmlp
from cmlp.core import dispatch

ROOT = Path(__file__).parents[1]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("the tests run without their repository", allow_module_level=True)
sys.path.insert(0, str(ROOT))
try:
    from benchmarks import (
        _data,
        _report,
        _timing,
        _work,
        _workers,
        clusters,
        estimators,
        kernels,
        ring,
        training,
    )
finally:
    sys.path.remove(str(ROOT))

HAS_MATPLOTLIB = importlib.util.find_spec("matplotlib") is not None
PATH = os.pathsep.join([str(Path(cmlp.__file__).parents[1]), str(ROOT)])


def run(program, *arguments, tmp_path):
    """Run a program to its end, its output shown if it fails; returns text and results."""
    file = tmp_path / "results.json"
    code, text = python_output(
        "-m", f"benchmarks.{program}", "--quick", "--json", file, *arguments, PYTHONPATH=PATH
    )
    assert code == 0, text
    return text, json.loads(file.read_text())


# Works --------------------------------------------------------------------------------------------


def test_operations_by_hand():
    work = _work.Work((3, 4, 2), batch=5, rows=10)
    forward, to_inputs, to_weights = 3 * 4 + 4 * 2, 4 * 2, 3 * 4 + 4 * 2
    assert work.row_flops == 2 * (forward + to_inputs + to_weights)
    assert work.step_flops == 5 * work.row_flops and work.steps == 2
    assert str(work) == "3-4-2, batch 5"


def test_epochs_are_whole_batches():
    for work in _work.WORKS:
        assert work.rows % work.batch == 0
        smaller = work.smaller(50)
        assert smaller.rows % work.batch == 0 and 0 < smaller.rows <= work.rows


def test_the_teacher_uses_every_label():
    for sizes in {work.sizes for work in _work.WORKS}:
        X, y = _work.data(sizes, 2000)
        assert X.dtype == np.float32 and X.shape == (2000, sizes[0])
        assert set(y) == set(range(sizes[-1]))


def test_the_expression_is_the_network(dtype):
    layers = [(W.astype(dtype), b.astype(dtype)) for W, b in _work.first_weights((5, 7, 6, 3))]
    net = cmlp.Network([5, 7, 6, 3], dtype=dtype)
    for number, (W, b) in enumerate(layers):
        net.weights[number], net.biases[number] = W, b
    X, y = _work.data((5, 3), 20)
    np.testing.assert_allclose(_work.outputs(layers, X), net.predict(X), rtol=1e-4, atol=1e-6)
    net.classes = np.arange(3)
    assert _work.mean_loss(layers, X, y) == pytest.approx(net.loss(X, y), rel=1e-4)


# Timing -------------------------------------------------------------------------------------------


def test_the_fastest_turn_counts_and_all_take_turns():
    order, times = [], {"a": iter([3.0, 1.0, 2.0]), "b": iter([5.0, 6.0, 4.0])}

    def turn(name):
        def take():
            order.append(name)
            return next(times[name])

        return take

    assert _timing.fastest({name: turn(name) for name in times}, 1e-9) == {"a": 1.0, "b": 4.0}
    assert order == list("ababab")


def test_a_timed_function_is_called_often_enough():
    calls = []
    seconds = _timing.timed(lambda: calls.append(1), least=0.001)()
    assert len(calls) > 2 and 0 < seconds < 0.001


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="processors have no names here")
def test_pinning_comes_to_an_end():
    before = os.sched_getaffinity(0)
    with _timing.pinned(1):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before
    assert _timing.processors(10**6) == before


def test_the_peak_is_a_rate_or_unknown():
    single = _timing.Peak().turn()
    assert single > 0 and (single < 1e-8 or not hasattr(dispatch.core, "multiply_adds"))
    assert _timing.Peak(2).pinned_turn() > 0


# Workers ------------------------------------------------------------------------------------------


class Subject:
    """What a worker of the tests holds."""

    def __init__(self, missing=""):
        if missing:
            raise ModuleNotFoundError(name=missing)
        self.calls = 0

    def turn(self):
        self.calls += 1
        return float(self.calls)

    def variable(self, name):
        return os.environ.get(name)

    def fail(self):
        raise ArithmeticError("on purpose")

    def leave(self):
        os._exit(3)


@pytest.fixture
def importable(monkeypatch):
    """Let other processes find the modules that this one has found."""
    monkeypatch.setattr(sys, "path", [str(ROOT), str(Path(__file__).parent), *sys.path])
    monkeypatch.setenv("CMLP_CORE", os.environ.get("CMLP_CORE", ""))


def test_a_worker(importable):
    with _workers.Worker(Subject, variables={"CMLP_TEST": "yes"}) as worker:
        assert [worker.turn(), worker.turn()] == [1.0, 2.0]
        assert worker.call("variable", "OPENBLAS_NUM_THREADS") == "1"
        assert worker.call("variable", "CMLP_TEST") == "yes"
        with pytest.raises(_workers.WorkerError, match="ArithmeticError: on purpose"):
            worker.call("fail")
        assert worker.turn() == 3.0
        with pytest.raises(_workers.WorkerError, match="ended with 3"):
            worker.call("leave")
    assert "CMLP_TEST" not in os.environ and worker.idle < 1


def test_a_library_that_is_not_installed(importable):
    with _workers.Worker(Subject, "nolib") as worker:
        assert worker.missing == "nolib"


# Reports ------------------------------------------------------------------------------------------


def test_rates():
    rates = _report.rates(step_flops=2e6, rows=10, seconds=1e-3, flop=1e-10)
    assert rates == pytest.approx(
        {
            "us_per_step": 1000,
            "rows_per_second": 10_000,
            "gflops": 2,
            "peak_gflops": 10,
            "of_peak": 0.2,
        }
    )
    unknown = _report.rates(2e6, 10, 1e-3, np.inf)
    assert unknown["peak_gflops"] is None and unknown["of_peak"] is None
    assert _report.rate_cells(unknown) == ("1,000", "10,000", "2.00", "-")


# Programs -----------------------------------------------------------------------------------------


def test_functions_are_within_their_oracles(core):
    """Not the tests' bounds, which are in test_activations: that the benchmark measures right."""
    if core.name == "python":
        pytest.skip("the benchmark is of compiled cores")
    for name in ("exp", "tanh", "mish"):
        error = kernels.largest_error(core.name, name, "float32")
        assert 0 < error < 10


def test_training_runs_without_rivals(tmp_path):
    text, data = run(
        "training", "--libraries", "cmlp", "--seconds", "0", "--threads", "1,2", tmp_path=tmp_path
    )
    assert "losses agree" in text and "784-16-16-10, batch 32, 2 threads" in text
    assert {row["library"] for row in data["results"]} == {"cmlp"} and len(data["results"]) == 4
    assert all(row["relative"] == 1 and row["agrees"] for row in data["results"])


def test_a_loss_that_differs_is_seen(monkeypatch, capsys):
    """Two trainers as stand-ins for workers, one of which does not learn."""

    def trainer(after):
        return argparse.Namespace(
            missing="", idle=0.5, turn=lambda: 1.0, call=lambda *_: (3.0, after)
        )

    workers = {"cmlp": trainer(1.0), "JAX": trainer(1.15), "PyTorch": trainer(2.9)}
    peak = argparse.Namespace(turn=lambda: 1e-11)
    work = _work.WORKS[0]
    rows = training.measure(work, 1, workers, peak, seconds=0, least=0)
    assert [row["agrees"] for row in rows] == [True, True, False]
    training.show(work, 1, rows)
    text = capsys.readouterr().out
    assert "3.000 to 2.900  DIFFERS" in text and "JAX used 50% of a processor" in text


def test_paths_run(tmp_path):
    text, data = run("paths", "--seconds", "0", tmp_path=tmp_path)
    assert "losses and outputs agree" in text
    assert set(data["results"][0]["us"]) == set(cmlp.core_info().available)


def test_kernels_run(tmp_path):
    _, data = run("kernels", "--seconds", "0", tmp_path=tmp_path)
    measured = {key for row in data["results"] for key in row}
    compiled = len(cmlp.core_info().available) > 1
    assert ("function" in measured) == compiled
    assert ("product" in measured) == (compiled and hasattr(dispatch.core, "product"))


def test_scaling_and_variants_run(tmp_path):
    _, data = run("scaling", "--seconds", "0", "--sweep", "width,threads,processes",
                  tmp_path=tmp_path)  # fmt: skip
    *points, alone, two = data["results"]
    assert {row["sweep"].split(",")[0] for row in points} == {"width", "threads"}
    assert (alone["processes"], two["processes"]) == (1, 2) and two["us"] > 0
    _, data = run("variants", "--seconds", "0", "--net", "16-64-64-2", tmp_path=tmp_path)
    assert {"plain", "adam", "float64", "tanh"} < {row["variant"] for row in data["results"]}


def test_page_runs(tmp_path):
    _, data = run("page", "--seconds", "0.5", tmp_path=tmp_path)
    (found,) = data["results"]
    assert found["of_fit"] > 0 and found["bytes"] > 5928  # all 1,482 parameters in float32


def test_lanes_run(tmp_path):
    _, data = run("lanes", "--seconds", "0", "--part", "nets", tmp_path=tmp_path)
    assert [row["part"] for row in data["results"]] == ["nets", "nets"]
    assert data["results"][0]["gain"] > 0


def test_members_run(tmp_path):
    _, data = run("members", "--seconds", "0", tmp_path=tmp_path)
    found = {(row["part"], row["way"]): row for row in data["results"]}
    for part, way in (("ensembles", "n_ensemble"), ("folds", "cross_validate")):
        other = found[part, "one by one"]["score"]
        assert found[part, way]["score"] == pytest.approx(other, abs=0.02)
    assert found["grid", "cross_validate"]["relative"] == 1


def test_inference_runs_without_rivals(tmp_path):
    libraries = "cmlp predictor,cmlp predict,NumPy"
    text, data = run("inference", "--seconds", "0", "--libraries", libraries, tmp_path=tmp_path)
    assert "outputs agree" in text and "10,000 rows of uint8" in text
    assert {"cmlp predict", "NumPy"} <= {row["library"] for row in data["results"]}


def test_calls_run_without_rivals(tmp_path):
    libraries = "bare step,trainer.step,net.step,fit(epochs=1)"
    text, data = run("calls", "--seconds", "0", "--libraries", libraries, tmp_path=tmp_path)
    assert "losses agree" in text and "above bare step" in text
    assert [row["library"] for row in data["results"]] == libraries.split(",")
    assert all(row["us_per_call"] > 0 for row in data["results"])


def test_attributions_run(tmp_path):
    text, data = run("attributions", "--seconds", "0", "--rows", "40", tmp_path=tmp_path)
    assert "sums and values agree" in text
    assert [row["rows"] for row in data["results"]][:4] == [40, 4, 2, 2]


def test_tables_run(tmp_path):
    text, data = run(
        "tables", "--seconds", "0", "--containers", "dict,matrix", "--rows", "500",
        tmp_path=tmp_path,
    )  # fmt: skip
    assert [row["container"] for row in data["results"]] == ["dict", "matrix", "one row"]
    assert "one row:" in text and data["results"][1]["matrix"] == 500 * 20 * 4 / 1e6


def test_fit_runs_on_a_folder(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3000, 28, 28), np.uint8)
    labels = np.arange(3000, dtype=np.uint8) % 10
    np.savez(
        tmp_path / "mnist.npz",
        X_train=images, y_train=labels, X_test=images[:100], y_test=labels[:100],
    )  # fmt: skip
    _, data = run("fit", "--seconds", "0", "--data", tmp_path, tmp_path=tmp_path)
    (row,) = data["results"]
    assert row["rows"] == 300 and row["epochs"] == 2 and row["rows_per_second"] > 0


def write_tables(folder):
    """Make up files of all tables: of 400 rows, or a little more than their first part."""
    rng = np.random.default_rng(0)
    lengths = {"adult.npz": 16_700, "letter.npz": 16_400}
    for source in _data.SOURCES.values():
        n = lengths.get(source.file, 400)
        y = np.arange(n) % 10 if source.classifies else 5 * rng.standard_normal(n)
        X = np.abs(y[:, None]) + rng.random((n, 3))
        test = np.arange(n) >= 300
        np.savez(folder / source.file, X=X, y=y, n_train_official=300, is_test=test)
    images = rng.integers(0, 256, (400, 28, 28), np.uint8)
    labels = np.arange(400, dtype=np.uint8) % 10
    np.savez(
        folder / "mnist.npz",
        X_train=images[:300], y_train=labels[:300], X_test=images[300:], y_test=labels[300:],
    )  # fmt: skip


def test_tables_are_read(tmp_path):
    write_tables(tmp_path)
    for name in ("Letter", "Satimage", "optdigits", "Wine quality", "MNIST"):
        table = _data.load(str(tmp_path), name)
        n_test = {"Wine quality": 80, "Letter": 400}.get(name, 100)
        assert len(table.X_test) == len(table.y_test) == n_test
        assert (
            len(table.X) == len(table.y) == {"Letter": 16_000, "Wine quality": 320}.get(name, 300)
        )
        if _data.SOURCES[name].pixels:
            assert table.X.min() >= 0 and table.X.max() == 1
        else:
            np.testing.assert_allclose(table.X.mean(axis=0), 0, atol=1e-12)
            np.testing.assert_allclose(table.X.std(axis=0), 1)
    assert table.classifies and sorted(set(table.y)) == list(range(10))
    assert table.astype("float32").X.dtype == np.float32
    few = _data.load(str(tmp_path), "MNIST", rows=20)
    assert len(few.X) == len(few.X_test) == 20
    (tmp_path / "letter.npz").unlink()
    assert _data.missing(str(tmp_path), ["Letter", "MNIST"]) == ["letter.npz"]


def test_columns_of_zeros_and_ones_stay():
    train = np.array([[0, 1.0, 7], [1, 3, 7], [0, 5, 7]])
    scaled, other = _data._standardised(train, np.array([[1, 3.0, 7]]))
    np.testing.assert_allclose(scaled[:, 0], [0, 1, 0])
    np.testing.assert_allclose(scaled[:, 1], np.sqrt(1.5) * np.array([-1, 0, 1]))
    np.testing.assert_allclose(other, [[1, 0, 0]])
    assert not scaled[:, 2].any()


def test_scores_differ_by_standard_errors_of_both():
    theirs, ours = np.array([0.8, 0.9, 1.0]), np.array([0.6, 0.7, 0.8])
    error = 0.1 / 3**0.5
    assert estimators.standard_error(theirs) == pytest.approx(error)
    assert estimators.in_errors(ours, theirs) == pytest.approx(-0.2 / (2**0.5 * error))
    assert estimators.in_errors(np.ones(3), np.ones(3)) == 0
    assert estimators.in_errors(np.ones(3), np.zeros(3)) == np.inf
    table = _data.Table("t", True, *4 * [np.zeros((3, 1))])
    found = {"scikit-learn": theirs, "cmlp": ours, "cmlp float64": theirs + 0.01}
    row = estimators.compare_scores(table, 5, {name: list(found[name]) for name in found})
    assert row["difference"]["cmlp"] < -2 and not row["alike"]
    assert row["largest"]["cmlp float64"] == pytest.approx(0.01)
    assert estimators.score_cells(row)[-1] == "DIFFERENT"


def test_estimators_run_on_a_folder(tmp_path):
    pytest.importorskip("sklearn")
    write_tables(tmp_path)
    text, data = run("estimators", "--seconds", "0", "--data", tmp_path, tmp_path=tmp_path)
    parts = {part: [row for row in data["results"] if row["part"] == part]
             for part in estimators.PARTS}  # fmt: skip
    assert {row["table"] for row in parts["scores"]} == set(estimators.EPOCHS)
    assert len(parts["fits"]) == 2 * len(estimators.FITS)
    assert all(row["ratio"] > 0 for row in parts["fits"])
    assert all(set(row["us"]) == {"cmlp", "scikit-learn"} for row in parts["predict"])
    assert len(parts["grid"]) == 3 and "2 threads" in text


def test_local_steps_run(tmp_path):
    write_tables(tmp_path)
    code, text = python_output(
        "-m", "benchmarks.local_steps", "--data", tmp_path, "--tables", "California", "--seeds",
        "1", "--epochs", "1", "--every", "2", PYTHONPATH=PATH,
    )  # fmt: skip
    assert code == 0, text
    assert text.count("| California |") == 2


def test_two_ranks_are_measured(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", PATH)
    both = ring.measured([([], "127.0.0.1")] * 2, [[4, 8, 2], 5000, 1, 0.1, 2])
    for found in both:
        assert (len(found["together"]), len(found["alone"])) == (2, 2)
        assert min(found["together"] + found["alone"] + found["sum"]) > 0 < found["T"] < 1


def test_the_simulated_cluster_is_the_formula_without_stragglers():
    """Equal times, no adding: the ring takes 2 (K - 1) messages of a K-th."""
    size, line = 1e6, (1e8, 1e-4)
    ready = np.zeros(8)
    once = clusters.ring(ready, size, *line).max() - 7 * size / 8 / clusters.ADDING
    np.testing.assert_allclose(once, 2 * 7 / 8 * size / line[0] + 14 * line[1])
    tree = clusters.tree(ready, size, *line).max() - 3 * size / clusters.ADDING
    np.testing.assert_allclose(tree, 2 * 3 * (size / line[0] + line[1]))
    late = np.array([0, 0, 0, 1.0, 0, 0, 0, 0])
    assert clusters.ring(late, size, *line).min() > 1 < clusters.tree(late, size, *line).min()
    times = np.array([0.01])
    found = clusters.efficiency(clusters.ring, times, 8, size, line, 8, 4)
    assert abs(found - clusters.formula(0.01, 8, size, *line, 4)) < 0.01
