"""Training on windows of a source, against training on arrays: bits, order, memory, threads."""

import os
import pickle
import threading
import warnings
from itertools import repeat

import made
import numpy as np
import pytest
from helpers import covering

import cmlp
from cmlp.sources.plan import HeldRows, bytes_of, windows_of
from cmlp.training.trainer import Trainer

MAKERS = {
    "npy": made.write_npy,
    "arrays": lambda folder, X, y: cmlp.data.arrays(np.asarray(X), y, block_rows=100),
    "csv": made.write_csv,
    "parquet": made.write_parquet,
    "batches": lambda folder, X, y: made.stream_of(X, y),
    "arrow": lambda folder, X, y: made.arrow_of(X, y),
}
MEMORY = {"csv": "70 KB", "parquet": "70 KB"}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    made.small_pieces(monkeypatch)


def network(outputs, dtype="float32", **more):
    return cmlp.Network([made.D, 8, outputs], seed=1, dtype=dtype, **more)


def fit(net, *data, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return net.fit(*data, **{"epochs": 2, "batch_size": 32, "learning_rate": 1e-3} | more)


class Unseen:
    """An array of which nothing but the shape and slices of rows can be seen."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, rows):
        return self.array[rows]


@pytest.mark.parametrize(
    ("kind", "target", "dtype"), covering(MAKERS, ("labels", "numbers"), ("float32", "float64"))
)
def test_the_bits_are_those_of_arrays(kind, target, dtype, tmp_path):
    """In any memory if the order is kept; shuffled if all rows fit."""
    if kind in ("parquet", "arrow"):
        pytest.importorskip("pyarrow")
    X, labels, numbers = made.rows()
    y, outputs = (labels, 3) if target == "labels" else (numbers, 1)
    source = MAKERS[kind](tmp_path, X, y)
    if kind == "arrays":
        source = cmlp.data.arrays(Unseen(X), Unseen(y), block_rows=100)
    for shuffle in (True, False):
        net, other = (network(outputs, dtype) for _ in range(2))
        history, read = fit(net, X, y, shuffle=shuffle), fit(other, source, shuffle=shuffle)
        assert (net.params == other.params).all() and history["loss"] == read["loss"]
    net, windowed = network(outputs, dtype), network(outputs, dtype)
    more = {"shuffle": False, "dropout": 0.1, "input_noise": 0.01, "solver": "adam"}
    fit(net, X, y, **more)
    read = fit(windowed, source, memory=MEMORY.get(kind, "26 KB"), **more)
    assert "waited" in read  # else it was in memory
    assert (net.params == windowed.params).all()
    assert np.array_equal(net.predict(X), windowed.predict(source))
    assert net.loss(source) == pytest.approx(net.loss(X, y), rel=1e-6)
    assert net.score(source) == pytest.approx(net.score(X, y), abs=1e-12)


@pytest.mark.parametrize("library", ["h5py", "zarr"])
def test_stored_arrays_have_the_bits_too(library, tmp_path):
    module = pytest.importorskip(library)
    X, labels, _ = made.rows()
    y = np.unique(labels, return_inverse=True)[1]
    if library == "h5py":
        stored = module.File(tmp_path / "rows.h5", "w").create_dataset("X", data=X, chunks=(77, 6))
    else:
        stored = module.open(tmp_path / "rows", mode="w", shape=X.shape, chunks=(77, 6), dtype="f8")
        stored[:] = X
    source = cmlp.data.arrays(stored, y)
    assert set(source.blocks[:-1]) == {77}
    net, other = network(3), network(3)
    fit(net, X, y, shuffle=False)
    assert "waited" in fit(other, source, shuffle=False, memory="26 KB")
    assert (net.params == other.params).all()


@pytest.mark.parametrize("kind", ["npy", "batches"])
def test_a_shuffled_epoch_has_every_row_once(kind, tmp_path, monkeypatch):
    """By the labels that the core is given: each row has its own."""
    X, y = made.rows()[0], np.arange(made.N, dtype=np.float32)
    seen = []

    def run(self, rows, rates, losses=None, out_of_time=None):
        seen.append(self.data.targets[rows, 0].copy())
        assert (self.data.X[rows] == X[seen[-1].astype(int)].astype(np.float32)).all()
        return 0.0, rates.shape[-1]

    monkeypatch.setattr(Trainer, "run", run)
    source = MAKERS[kind](tmp_path, X, y)
    fit(network(1), source, memory="26 KB", epochs=2)
    orders = np.concatenate(seen).reshape(2, made.N).astype(int)
    assert (np.sort(orders, axis=1) == np.arange(made.N)).all()
    assert (orders[0] != orders[1]).any() and max(map(len, seen)) < made.N / 4
    first = orders[0, :32]  # of an ordered stream the first batch is from its beginning
    assert np.ptp(first) < 300 if kind == "batches" else np.ptp(first) > 700


def test_windows_are_whole_batches_of_many_blocks():
    counts = [30, 0, 7, 250, 11, 90, 90, 3, 64, 1, 200, 41]
    for key in ((0, 0), (0, 1), (5, 2), None):
        windows = list(windows_of(counts, repeat(96), 8 if key else 1, key))
        sizes = [sum(stop - start for _, start, stop in spans) for spans in windows]
        assert sizes[:-1] == [96] * (len(sizes) - 1) and sum(sizes) == sum(counts)
        seen = [(b, r) for spans in windows for b, i, j in spans for r in range(i, j)]
        assert sorted(seen) == [(b, r) for b, n in enumerate(counts) for r in range(n)]
        if key:
            assert min(len({b for b, _, _ in spans}) for spans in windows[:2]) >= 4
        else:
            assert seen == sorted(seen)


def test_a_window_has_all_parts_of_blocks_where_rows_are_read_anywhere():
    """Files that are sorted in themselves: each window has rows of every tenth of the blocks."""
    counts = [100] * 50
    windows = list(windows_of(counts, repeat(500), 256, (3, 1), turned=True))
    assert len(windows) == 10
    for spans in windows:
        assert {b for b, _, _ in spans} == set(range(50)) and sum(j - i for _, i, j in spans) == 500
        tenths = np.bincount([r // 10 for _, i, j in spans for r in range(i, j)], minlength=10)
        # 500 rows in runs of ten: Poisson of 5 runs in each tenth, 5 deviations above it
        assert tenths.max() < 10 * (5 + 5 * np.sqrt(5))
    seen = sorted((b, r) for spans in windows for b, i, j in spans for r in range(i, j))
    assert seen == [(b, r) for b in range(50) for r in range(100)]


def test_threads_and_a_fork_read_one_source(tmp_path):
    """Each reading has files of its own: else they would move each other's place."""
    X, labels, _ = made.rows()
    for number, part in enumerate(np.split(np.arange(made.N), 40)):  # more than are kept open
        np.save(tmp_path / f"X{number:02}.npy", X[part])
        np.save(tmp_path / f"y{number:02}.npy", labels[part])
    source = cmlp.data.npy(str(tmp_path / "X*.npy"), str(tmp_path / "y*.npy"))
    net, found, codes = network(3), [], []
    fit(net, source, memory="26 KB")
    source.read(0, 0, 5)
    expected = net.predict(X)

    def predict():
        found.extend(np.array_equal(net.predict(source), expected) for _ in range(3))

    def fork(state):
        child = os.fork()
        if not child:
            os._exit(0 if np.array_equal(net.predict(source), expected) else 1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    threads = [threading.Thread(target=predict) for _ in range(3)]
    for thread in threads:
        thread.start()
    other = network(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork among threads
        fit(other, source, memory="26 KB", callbacks=[fork] if hasattr(os, "fork") else [])
    for thread in threads:
        thread.join()
    assert found == [True] * 9 and set(codes) <= {0} and (other.params == net.params).all()


def test_held_out_rows_are_uniform_and_the_same():
    held = HeldRows(7, 0.25)
    masks = np.array([held.mask(block, 0, 4000) for block in range(5)])
    # Binomial: 5 deviations of the mean of 4,000, and of the agreement of two blocks
    assert abs(masks.mean(axis=1) - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 4000)
    assert abs((masks[0] & masks[1]).mean() - 1 / 16) < 5 * np.sqrt(1 / 16 / 4000)
    assert (held.mask(3, 1000, 1500) == masks[3, 1000:1500]).all()
    assert held.n_kept([4000] * 5) == (~masks).sum(axis=1).tolist()
    assert (HeldRows(8, 0.25).mask(0, 0, 4000) != masks[0]).any()


@pytest.mark.parametrize("kind", ["npy", "batches"])
def test_validation_rows_are_not_trained_on(kind, tmp_path, monkeypatch):
    X, y = made.rows()[0], np.arange(made.N, dtype=np.float32)
    source, seen, run = MAKERS[kind](tmp_path, X, y), [], Trainer.run

    def see(self, rows, *more):
        seen.append(self.data.targets[rows, 0].copy())
        return run(self, rows, *more)

    monkeypatch.setattr(Trainer, "run", see)
    more = {"validation_fraction": 0.1, "patience": 5, "learning_rate": 1e-9}
    history = fit(network(1), source, memory="70 KB", **more)
    first, second = np.split(np.sort(np.concatenate(seen).reshape(2, -1)).ravel(), 2)
    assert (first == second).all() and len(np.unique(first)) == len(first)
    # Binomial: 5 deviations of the number of rows held out
    assert abs(made.N - len(first) - 0.1 * made.N) < 5 * np.sqrt(0.09 * made.N)
    held = np.setdiff1d(y, first).astype(int)
    net = network(1)
    fit(net, X, y, epochs=0)
    loss = net.loss(X[held], y[held])  # hardly changed by steps that small
    assert history["val_loss"][1] == pytest.approx(loss, rel=1e-3)
    with pytest.warns(UserWarning, match="does not fit into a quarter"):
        network(1).fit(
            source,
            memory="30 KB",
            validation_fraction=0.5,
            epochs=1,
            shuffle=False,
            learning_rate=1e-9,
        )


def test_weights_and_x_val_of_a_source(tmp_path):
    X, labels, _ = made.rows()
    weight = np.random.default_rng(3).random(made.N)
    for name, values in (("X", X), ("y", labels), ("w", weight)):
        np.save(tmp_path / f"{name}.npy", values)
    source = cmlp.data.npy(*(tmp_path / f"{name}.npy" for name in "Xyw"))
    more = {"shuffle": False, "batch_size": 64}
    net, other = network(3), network(3)
    fit(net, X, labels, sample_weight=weight, X_val=X[:500], y_val=labels[:500], **more)
    history = fit(
        other, source, memory="80 KB", X_val=cmlp.data.arrays(X[:500], labels[:500]), **more
    )
    assert (net.params == other.params).all()
    assert history["val_loss"] == net.history["val_loss"]
    assert other.loss(source) == pytest.approx(net.loss(X, labels, weight), rel=1e-6)
    a, b = network(3), network(3)
    assert a.train_epoch(X, labels, shuffle=False, sample_weight=weight) == pytest.approx(
        b.train_epoch(source, shuffle=False, memory="32 KB"), rel=1e-6
    )
    assert (a.params == b.params).all()
    with pytest.raises(TypeError, match="its own targets"):
        net.fit(source, labels)
    with pytest.raises(ValueError, match="quarter of memory"):
        fit(other, source, memory="40 KB", X_val=source)


def test_a_window_has_four_batches_or_the_message_has_the_memory(tmp_path):
    source = made.write_npy(tmp_path, *made.rows()[:2])
    with pytest.raises(ValueError, match=r"windows of 4 batches of 500 rows need memory=") as error:
        network(3).fit(source, memory="50 KB", batch_size=500)
    need = str(error.value).split("memory='")[1].split("'")[0]
    network(3).fit(source, memory=need, batch_size=500, epochs=1)
    with pytest.raises(ValueError, match="batch_size=None"):
        network(3).fit(source, memory="50 KB", batch_size=None)
    assert bytes_of("1.5 GB") == bytes_of(1.5e9) == 1_500_000_000 and bytes_of("2MiB") == 2**21
    for wrong in ("much", "-1", 0, True, [], "5 PB"):
        with pytest.raises((TypeError, ValueError), match="memory must be"):
            bytes_of(wrong)


def test_sorted_rows_cause_a_warning(tmp_path):
    X, labels, numbers = made.rows()
    for y, outputs in ((labels, 3), (numbers, 1)):
        order = np.argsort(y, kind="stable")
        source = cmlp.data.arrays(Unseen(X[order]), y[order], block_rows=100)
        with pytest.warns(UserWarning, match="sorted by their targets"):
            network(outputs).fit(source, memory="32 KB", epochs=1)
        plain = cmlp.data.arrays(Unseen(X), y, block_rows=100)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            network(outputs).fit(plain, memory="32 KB", epochs=1)


def test_shares_of_ranks_are_a_partition(tmp_path):
    source = made.write_npy(tmp_path, *made.rows()[:2])
    for size in (1, 2, 3, 7):
        parts = [source.part(rank, size) for rank in range(size)]
        assert sum(part.n_rows for part in parts) == made.N
        assert max(p.n_rows for p in parts) - min(p.n_rows for p in parts) <= len(source.blocks)
        found = np.concatenate([b.X for part in parts for b in part.stream()])
        assert (np.sort(found, axis=0) == np.sort(made.rows()[0], axis=0)).all()
    part = pickle.loads(pickle.dumps(parts[2]))
    assert part.fingerprint() == parts[2].fingerprint() != parts[1].fingerprint()
    assert part.place(0, 3).endswith(f"row {part.spans[0][1] + 3}")
    whole = cmlp.data.arrays(*made.rows()[:2], block_rows=50)
    dealt = [whole.part(rank, 5) for rank in range(5)]
    assert {rows for part in dealt for rows in part.blocks} == {50}  # whole blocks
    with pytest.raises(ValueError, match="rank must be"):
        source.part(2, 2)
    with pytest.raises(TypeError, match="no blocks"):
        made.stream_of(*made.rows()[:2]).part(0, 2)


def test_the_summary_is_numpy_s(tmp_path):
    X, labels, numbers = made.rows()
    X = X.copy()
    X[5, 2] = np.nan
    summary = cmlp.data.arrays(X, numbers, block_rows=70).summary()
    assert summary.features.mean == pytest.approx(np.nanmean(X, axis=0), rel=1e-12)
    assert summary.features.deviation == pytest.approx(np.nanstd(X, axis=0), rel=1e-12)
    assert (summary.features.low == np.nanmin(X, axis=0)).all()
    assert summary.features.n_missing.tolist() == [0, 0, 1, 0, 0, 0]
    assert summary.targets.mean == pytest.approx(numbers.mean(), rel=1e-12)
    found = made.write_npy(tmp_path, X, labels).summary(features=False)
    expected = np.unique(labels, return_counts=True)
    assert (found.labels == expected[0]).all() and (found.counts == expected[1]).all()
    assert found.features is None and found.n_rows == made.N


def test_ctrl_c_ends_reading_and_keeps_the_weights(tmp_path):
    source = made.write_npy(tmp_path, *made.rows()[:2])
    before = threading.active_count()

    def interrupt(state):
        raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted"):
        history = network(3).fit(source, memory="26 KB", epochs=50, callbacks=[interrupt])
    assert history.stopped == "interrupted" and threading.active_count() == before


def test_a_slow_source_stops_in_time_and_is_waited_for():
    X, labels, _ = made.rows()

    def slowly():
        for i in range(0, made.N, 100):
            threading.Event().wait(0.01)
            yield X[i : i + 100], labels[i : i + 100]

    net, before = network(3), threading.active_count()
    net.fit(X, labels, epochs=0)  # the labels are known
    source = cmlp.data.batches(slowly, n_rows=made.N)
    history = fit(net, source, memory="26 KB", epochs=1)
    assert history["waited"][0] > 0.1
    history = fit(net, source, memory="26 KB", epochs=100, max_time=0.1)
    assert history.stopped == "max_time" and threading.active_count() == before
