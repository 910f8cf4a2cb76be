"""Sources of tables: what one reading learns, and estimators that train on windows of them."""

import csv
import warnings

import made
import numpy as np
import pytest

import cmlp
from cmlp.cli import main
from cmlp.data import DataError
from cmlp.data.source import streamed
from cmlp.files.csv_layout import Selection
from cmlp.files.raw_table import Reading, read_raw
from cmlp.sources.encode import RowEncoder
from cmlp.sources.plan import HeldRows
from cmlp.sources.survey import Survey, groups_of, learn
from cmlp.sources.tables import TrainingRows, whole_table
from cmlp.tables.encode import TableEncoder

N = 2100


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    made.small_pieces(monkeypatch)


@pytest.fixture
def trips(tmp_path):
    """Write a table of cities, of which ten are rare, distances with gaps, and a target."""
    rng = np.random.default_rng(0)
    city = rng.integers(0, 12, N)
    rare = rng.choice(N, 120, replace=False)
    city[rare] = 12 + np.arange(120) % 10  # 12 rows of each
    distance = rng.normal(size=N)
    fare = distance + (city % 3)
    with open(tmp_path / "trips.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["city", "distance", "far", "fare"])
        for row, (place, value) in enumerate(zip(city, distance, strict=True)):
            shown = "" if row == 2000 else f"{value:.6f}"
            writer.writerow([f"city {place}", shown, str(value > 1).lower(), f"{fare[row]:.6f}"])
    return tmp_path / "trips.csv"


def test_one_reading_learns_kinds_levels_and_scales(trips):
    """A sample of a tenth has every level with ten rows, the gap, and nearly the quantiles."""
    source = cmlp.data.csv(trips, "fare")
    learned = learn(source, "a test", HeldRows(0, 0.0), 300, 10, seed=1)
    whole, y, _ = whole_table(source, "a test")
    how = {"min_rows": 10, "max_one_hot": 2, "n_knots": 8}
    some = TableEncoder(**how).fit(learned.sample)
    every = TableEncoder(**how).fit(whole)
    assert some.column_kinds_ == every.column_kinds_ == ["category", "number", "category"]
    assert some.categories_[0].tolist() == every.categories_[0].tolist()
    assert len(some.categories_[0]) == 22
    assert [c.name for c in some.outputs_] == [c.name for c in every.outputs_]  # the gap has a flag
    statistics = learned.moments.statistics()
    assert statistics.mean == pytest.approx(y.mean(), rel=1e-12)
    assert (statistics.low, statistics.high) == (y.min(), y.max())
    # The median of 300 rows: 5 deviations of about 1.25 sigma / sqrt(300)
    center = [some._encoders[1].scale.center, every._encoders[1].scale.center]
    assert abs(center[0] - center[1]) < 5 * 1.25 / np.sqrt(300)
    again = learn(source, "a test", HeldRows(0, 0.0), 300, 10, seed=1)
    assert (again.sample.forms[1].values == learned.sample.forms[1].values)[:-1].all()
    held = learn(source, "a test", HeldRows(5, 0.25), 10**6, 10, seed=1)
    assert held.n_rows == HeldRows(5, 0.25).n_kept(source.blocks)[0] + sum(
        HeldRows(5, 0.25).n_kept(source.blocks)[1:]
    )
    assert len(held.sample.forms[1].values) in (held.n_rows, held.n_rows + 1)


@pytest.mark.parametrize("most", [300, 10_000])
def test_parts_of_a_reading_put_together_are_the_whole(trips, most, monkeypatch):
    """A block each, or all of them: the same sample, levels and labels; sums round differently."""
    source = cmlp.data.csv(trips, "fare")
    assert len(source.blocks) > 3
    held, found = HeldRows(5, 0.2), []
    for n in (1, 10**6):
        monkeypatch.setattr("cmlp.sources.survey.GROUP", n)
        found.append(learn(source, "a test", held, most, 10, seed=1))
    parts, whole = found
    assert parts.n_rows == whole.n_rows == sum(held.n_kept(source.blocks))
    np.testing.assert_array_equal(parts.labels, whole.labels)
    np.testing.assert_array_equal(parts.counts, whole.counts)
    fitted = [TableEncoder(min_rows=10).fit(each.sample) for each in found]
    every, _, _ = whole_table(source, "a test")
    np.testing.assert_array_equal(*(each.transform(every) for each in fitted))
    for one, other in zip(
        *(vars(each.moments.statistics()).values() for each in found), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=N * 2.0**-53, atol=1e-300)


def test_parts_of_a_sample_have_together_hardly_more_rows_than_it(trips, monkeypatch):
    """Each row is in one by a chance of (300 + 8 sqrt(300) + 64) / n: so many, and 6 deviations."""
    monkeypatch.setattr("cmlp.sources.survey.GROUP", 1)
    source = cmlp.data.csv(trips, "fare")
    survey = Survey(source, "a test", HeldRows(0, 0.0), 300, 10, seed=1)
    n = sum(survey.of(source, blocks).sample.n for blocks in groups_of(source))
    expected = 300 + 8 * np.sqrt(300) + 64
    assert 300 <= n <= expected + 6 * np.sqrt(expected) < N


def test_rows_to_train_on_and_those_held_out_are_all(trips):
    source = cmlp.data.csv(trips, "fare", ["distance"], missing=0.0)
    as_they_are = RowEncoder(source, np.dtype(np.float64), np.asarray, lambda y: y * 0 + 2)
    both = [TrainingRows(source, as_they_are, HeldRows(3, 0.25), out) for out in (False, True)]
    assert 0.6 < both[0].n_rows / N < 0.9 and sum(each.n_rows for each in both) == N
    pieces = [list(streamed(each)) for each in both]
    y = np.sort(np.concatenate([piece.y for part in pieces for piece in part]))
    np.testing.assert_array_equal(y, np.sort(np.concatenate([p.y for p in streamed(source)])))
    assert all((piece.weight == 2).all() for part in pieces for piece in part)
    block = next(i for i, n in enumerate(both[1].blocks) if n > 2)
    some = both[1].read(block, 1, 3)
    np.testing.assert_array_equal(some.y, both[1].read(block).y[1:3])
    assert both[0].fingerprint() != both[1].fingerprint()


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_tabular_estimators_train_on_windows(kind, trips, tmp_path):
    classifies = kind == "classifier"
    make = cmlp.TabularClassifier if classifies else cmlp.TabularRegressor
    source = cmlp.data.csv(trips, "far" if classifies else "fare", ["city", "distance"])
    more = {"max_iter": 3, "hidden_layer_sizes": 16, "random_state": 0, "n_threads": 1}
    more |= {"class_weight": "balanced"} if classifies else {}
    X, y, _ = whole_table(source, "a test")
    model = make(**more).fit(source, memory="90 KB")
    assert len(model.networks_) == 1 and "waited" in model.history_
    assert model.score(source) == pytest.approx(model.score(X, y), abs=1e-12) and (
        model.score(source) > 0.4
    )
    assert (model.predict(source) == model.predict(X)).all()
    assert list(model.feature_names_in_) == ["city", "distance"]

    def interrupt(state):
        if state.epoch == 2:
            raise KeyboardInterrupt

    file = tmp_path / "run.cmlp"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        make(**more, callbacks=[interrupt]).fit(source, memory="90 KB", checkpoint=file)
    for _ in range(2):
        resumed = make(**more).fit(source, memory="90 KB", checkpoint=file, resume=True)
        assert (resumed.network_.params == model.network_.params).all()
        assert resumed.history_["loss"] == model.history_["loss"]
    for parameters, match in (
        ({"cv": 3}, "cv needs all rows"),
        ({"scoring": "f1"}, "scoring must"),
    ):
        with pytest.raises(ValueError, match=match):
            make(**more | parameters).fit(source, memory="90 KB")
    with pytest.raises(ValueError, match="leave X_val out"):
        make(**more).fit(source, memory="90 KB", X_val=X, y_val=y)
    with pytest.raises(ValueError, match="checkpoints are for sources"):
        make(**more).fit(X, y, checkpoint=file)


def test_a_table_that_fits_is_as_without_a_source(trips):
    source = cmlp.data.csv(trips, "fare", ["city", "distance"])
    X, y, _ = whole_table(source, "a test")
    more = {"max_iter": 1, "hidden_layer_sizes": 4, "random_state": 0, "n_ensemble": 1}
    model, other = (cmlp.TabularRegressor(**more) for _ in range(2))
    model.fit(source)
    other.fit(X, y)
    assert (model.network_.params == other.network_.params).all()


@pytest.mark.parametrize("memory", ["60 KB", "1 GB"])
def test_text_of_files_that_is_dates_is_dates(memory, tmp_path):
    """As the command reads a file; gaps in a whole block, and an error has its line."""
    days = ["" if i < 300 else f"2024-{i % 12 + 1:02}-{i % 12 + 1:02}" for i in range(900)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["day,x,y", *(f"{d},{i},{i % 7}.5" for i, d in enumerate(days))]))
    more = {"max_iter": 1, "hidden_layer_sizes": 2, "n_ensemble": 1, "random_state": 0}
    model = cmlp.TabularRegressor(**more)
    for categories, kind in (("from_dtype", "date"), (["day"], "category")):
        model.set_params(categorical_features=categories)
        model.fit(cmlp.data.csv(path, "y"), memory=memory)
        assert model.column_kinds_ == [kind, "number"]
    model.set_params(categorical_features="from_dtype").fit(cmlp.data.csv(path, "y"), memory=memory)
    new = tmp_path / "new.csv"
    new.write_text("\n".join(["x,day", *(f"{i},{d}" for i, d in enumerate(days))]))
    answers = model.predict(cmlp.data.csv(new))
    assert (answers == model.predict(cmlp.data.csv(path, "y"))).all()
    new.write_text(new.read_text().replace("2024-08-08", "soon"))
    with pytest.raises(DataError, match=r"new.csv, line 309, column 'day': .*'soon'"):
        model.predict(cmlp.data.csv(new))
    with pytest.raises(DataError, match=r"new.csv: this source has no target, .* target=\.\.\."):
        model.score(cmlp.data.csv(new))


def test_the_command_continues(trips, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["train", "tri*.csv", "--target", "fare", "--ignore", "far", "--memory", "90KB"]
    command += ["--checkpoint", "run.cmlp", "--epochs", "2", "--hidden", "8"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert (
        "2,100 rows, 2 columns" in shown and "a new training" in shown and "epoch 2  loss" in shown
    )
    model = cmlp.load("model.cmlp")
    assert main([*command, "--out", "again.cmlp"]) == 0
    shown = capsys.readouterr().out
    assert "run.cmlp: continues" in shown and "epoch 2  loss" not in shown
    assert (cmlp.load("again.cmlp").network_.params == model.network_.params).all()
    for wrong, match in (
        (["--numbers", "city"], "read whole"),
        (["--batch-size", "all"], "needs all rows"),
        (["--ignore", "dist"], "--ignore dist: there is no such feature in tri"),
        (["--ignore", "0"], "left out by name"),
        (["--out", "run.cmlp"], "name two files"),
        (["--checkpoint", "model.cmlp", "--out", "o"], "a model without a training to resume"),
    ):
        assert main([*command, *wrong]) == 2
        assert match in capsys.readouterr().err
    assert main([*command[:2], "--memory", "1GB"]) == 2
    assert "which column is the target" in capsys.readouterr().err
    assert main(["predict", "model.cmlp", "trips.csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == N


@pytest.mark.parametrize("labels", ["+1 -1", "01 02", "A 1 2", "1 2.5 +3", "1 2 02", "1 2 B"])
def test_labels_of_csv_are_those_of_all_rows_in_memory(labels, tmp_path):
    """Blocks have a label each; the first is numbers, or text, of which others may have none."""
    path = tmp_path / "t.csv"
    rows = [f"{i},{label}" for label in labels.split() for i in range(600)]
    path.write_text("\n".join(["x,t", *rows]))
    expected = read_raw(str(path), Selection("t"), Reading(task="auto")).y
    source = cmlp.data.csv(path, "t")
    assert len(source.blocks) > 2
    if labels[0] == "1" and expected.dtype.kind == "U":
        with pytest.raises(DataError, match=r"t.csv, line \d+: the target is '(02|B)'"):
            list(source.stream_targets())
        return
    y = np.concatenate([block.y for block in source.stream_targets()])
    assert y.dtype.kind == expected.dtype.kind and (y == expected).all()


def test_parquet_and_arrow_have_the_tables_of_csv(trips, tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow.csv as pc
    import pyarrow.parquet as pq

    table = pc.read_csv(trips)
    pq.write_table(table, tmp_path / "trips.parquet", row_group_size=400)
    more = {"max_iter": 4, "hidden_layer_sizes": 16, "random_state": 0}
    columns = ["city", "distance"]
    scores = []
    for source in (
        cmlp.data.parquet(tmp_path / "trips.parquet", "fare", columns),
        cmlp.data.arrow(lambda: table, "fare", columns),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            model = cmlp.TabularRegressor(**more).fit(source, memory="90 KB")
        assert 12 < len(model.categories_[0]) <= 22  # a part of the rows is held out
        scores.append(model.score(source))
    assert min(scores) > 0.5


def test_shuffled_rows_are_those_of_the_source_in_uniform_order(tmp_path):
    n = 4000
    X = np.column_stack([np.arange(n) % 256, np.arange(n) // 256]).astype(float)
    y = np.sort(np.random.default_rng(0).choice(["a", "bb", "c"], n))
    source = cmlp.data.arrays(X, y, np.arange(n), block_rows=100)
    found = cmlp.data.shuffled(source, tmp_path / "out", memory="40 KB", seed=3)
    assert found.dtype == np.uint8 and len(found.blocks) > 3
    rows = np.concatenate([block.X for block in found.stream()]).astype(int) @ [1, 256]
    assert (np.sort(rows) == np.arange(n)).all()
    targets = list(found.stream_targets())
    assert (np.concatenate([block.y for block in targets]) == y[rows]).all()
    assert (np.concatenate([block.weight for block in targets]) == rows).all()
    # Kolmogorov and Smirnov: where the rows of each tenth of the source are, 1 in 10^4 is above 2.2
    places = np.argsort(rows) / n
    for tenth in np.split(places, 10):
        tenth = np.sort(tenth)
        gap = np.abs(tenth - (np.arange(len(tenth)) + 0.5) / len(tenth)).max()
        assert gap * np.sqrt(len(tenth)) < 2.2
    again = cmlp.data.shuffled(source, tmp_path / "again", memory="40 KB", seed=3)
    assert (again.read(0).X == found.read(0).X).all()
    for values, dtype in ((X + 0.5, np.float16), (X + 1 / 3, np.float64), (-X * 300, np.int32)):
        narrow = cmlp.data.shuffled(cmlp.data.arrays(values, y), tmp_path / f"{dtype.__name__}")
        assert narrow.X.dtype == dtype, dtype
        assert narrow.summary().features.mean == pytest.approx(values.mean(axis=0), rel=1e-12)
    with pytest.raises(ValueError, match="is not empty"):
        cmlp.data.shuffled(source, tmp_path / "out")
    times = []

    def breaks():  # at the second reading, when piles have been begun
        times.append(0)
        yield X[:900], y[:900]
        if len(times) > 2:
            raise OSError("the line is dead")

    with pytest.raises(OSError, match="the line is dead"):
        cmlp.data.shuffled(cmlp.data.batches(breaks), tmp_path / "broken", memory="9 KB")
    assert not list((tmp_path / "broken").iterdir())
    with pytest.raises(ValueError, match=r"needs memory='.*'; it is '500 B'"):
        cmlp.data.shuffled(source, tmp_path / "small", memory="500 B")


@pytest.mark.parametrize("target", ["fare", "far", "class"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_rows_without_a_target_are_left_out(kind, target, trips, tmp_path, monkeypatch, capsys):
    """Models of windows, and of all rows, are those of files without these rows."""
    frames = pytest.importorskip("pandas")
    frame = frames.read_csv(trips)
    frame["far"] = frame.far.map({True: "yes", False: "no"})
    frame["class"] = (frame.distance > 0).astype(int)
    gaps = [0, 7, 8, 9, 700, 1500, N - 1]
    whole = frame[["city", "distance", target]]
    holes = whole.astype({"class": "Int64"}) if target == "class" else whole.copy()
    holes[target] = holes[target].mask(holes.index.isin(gaps))
    paths = {}
    for name, table in (("whole", whole.drop(index=gaps)), ("holes", holes)):
        paths[name] = str(tmp_path / f"{name}.{kind}")
        if kind == "csv":
            table.to_csv(paths[name], index=False)
        else:
            pytest.importorskip("pyarrow")
            table.to_parquet(paths[name], index=False, row_group_size=500)
    source = {name: getattr(cmlp.data, kind)(path, target) for name, path in paths.items()}
    make = cmlp.TabularRegressor if target == "fare" else cmlp.TabularClassifier
    more = {"max_iter": 2, "hidden_layer_sizes": 8, "random_state": 0, "n_threads": 1}
    more["n_ensemble"] = 1
    for memory in ("90 KB", "1 GB"):
        known = make(**more).fit(source["whole"], memory=memory)
        model = make(**more, missing_targets=True).fit(source["holes"], memory=memory)
        assert model.n_features_in_ == 2
        if make is cmlp.TabularClassifier:
            assert model.classes_.tolist() == known.classes_.tolist()
            assert model.classes_.dtype == known.classes_.dtype
        if memory == "1 GB":  # the same rows in the same order; windows depend on the blocks
            assert (model.network_.params == known.network_.params).all()
        assert abs(model.score(source["whole"]) - known.score(source["whole"])) < 0.2
        with pytest.raises(DataError, match=rf"holes.{kind}, .*(0|2): the target is (missing|'')"):
            make(**more).fit(source["holes"], memory=memory)
    place = "line 2" if kind == "csv" else "row group 0, row 0"
    monkeypatch.chdir(tmp_path)
    command = ["train", paths["holes"], paths["holes"], "--target", target, "--memory", "150KB"]
    assert main([*command, "--epochs", "1", "--hidden", "4"]) == 0
    shown = capsys.readouterr().out
    note = f"{2 * len(gaps)} rows without a target are left out; the first one: {paths['holes']}"
    assert f"{note}, {place}" in shown
    assert ("RMSE" if target == "fare" else "true | read as") in shown


def test_sources_of_several_targets_have_them_all(tmp_path):
    y = np.column_stack([np.arange(60.0), np.arange(60.0)])
    y[5, 1] = np.nan
    source = cmlp.data.arrays(np.random.default_rng(0).normal(size=(60, 3)), y, block_rows=20)
    model = cmlp.TabularRegressor(max_iter=1, missing_targets=True, n_ensemble=1, random_state=0)
    model.fit(source)  # in memory, where a target that is missing has no loss
    with pytest.raises(ValueError, match="row 5 of X: the target is missing"):
        model.set_params(batch_size=4).fit(source, memory="2 KB")


def test_several_files_are_not_plain(trips, capsys):
    assert main(["train", str(trips), str(trips), "--plain", "--target", "fare"]) == 2
    assert "--plain reads one file" in capsys.readouterr().err
