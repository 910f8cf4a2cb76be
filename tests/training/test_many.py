"""Many networks in one call: each learns what it would learn alone."""

import copy
import inspect
import threading

import numpy as np
import pytest
from cores import CORES
from helpers import blobs, covering, dealt, refused, squared_error, waves

import cmlp
from cmlp import Network, fit_many
from cmlp.core import vocabulary
from cmlp.core.seam import LANE, lane_memory
from cmlp.model.parameters import Parameters
from cmlp.training import lanes, many

HIDDEN = [row.name for row in vocabulary.ACTIVATIONS if not row.output_only]
LEARNED = ("epoch", "loss", "val_loss", "val_score", "learning_rate")


def networks(sizes=(3, 5, 4, 3), activation="tanh", n=None, **more):
    """As many networks as there are lanes, or half of them more; and copies, to train alone."""
    n = n or lanes.lanes_of_core() * 3 // 2
    nets = [Network(sizes, activation, seed=seed, **more) for seed in range(n)]
    return nets, copy.deepcopy(nets)


def alone(nets, X, y, **parameters):
    """Train each by itself, with its own value of each list."""
    records = []
    for number, net in enumerate(nets):
        own = {k: v[number] if isinstance(v, list) else v for k, v in parameters.items()}
        records.append(net.fit(X, y, **own))
    return records


def ramp(first, last, n):
    return np.linspace(first, last, n).tolist()


@pytest.fixture
def side_by_side(monkeypatch):
    """The jobs that have been trained in lanes."""
    seen = []

    def counted(kinds, n_threads, real=many.train_side_by_side):
        seen.extend(job for jobs in kinds.values() for job in jobs)
        return real(kinds, n_threads)

    monkeypatch.setattr(many, "train_side_by_side", counted)
    return seen


# Equal to rounding --------------------------------------------------------------------------------

RULES = (
    {"momentum": 0.0}, {"momentum": 0.9}, {"momentum": 0.8, "nesterov": True},
    {"solver": "adam", "epsilon": 0.1, "beta_1": 0.8}, {"solver": "adamw", "epsilon": 0.1},
)  # fmt: skip

PAIRS = [HIDDEN[i - 1 : i + 1] or [HIDDEN[-1], HIDDEN[0]] for i in range(0, len(HIDDEN), 2)]
"""Two hidden layers have different activations; every activation is there."""

PROBLEMS = {"squared_error": waves, "binary_crossentropy": blobs, "categorical_crossentropy": blobs}

PENALTIES = ({}, {"l2": 0.5, "l1": 0.1}, {"weight_decay": 3.0})


def on_cores(*columns):
    """Return rows that hold every pair of values, each row on one core."""
    numbers = dealt(CORES, covering(*(range(len(column)) for column in columns)))
    return [
        (core, *(column[at] for column, at in zip(columns, row, strict=True)))
        for core, _, *row in numbers
    ]


@pytest.mark.parametrize(
    ("core", "activation", "loss", "rule", "batch_size", "penalties"),
    on_cores(PAIRS, tuple(PROBLEMS), RULES, (1, 5, None), PENALTIES),
    indirect=["core"],
)
def test_lanes_compute_what_float64_does(
    core, side_by_side, activation, loss, rule, batch_size, penalties
):
    X, y = PROBLEMS[loss](n=7, n_in=4)
    if loss != "categorical_crossentropy":
        y = np.stack([y.ravel() % 2, 1 - y.ravel() % 2], axis=1)
    nets, _ = networks((4, 5, 4, 3 if y.ndim == 1 else 2), activation, loss=loss)
    n, n_steps = len(nets), 2 * (-(-7 // (batch_size or 7)))
    common = {"epochs": 2, "batch_size": batch_size, **rule, **penalties}
    rates = ramp(0.002, 0.01, n)
    exact = {number: nets[number].astype("float64") for number in (0, 3, n - 1)}
    records = fit_many(nets, X, y, learning_rate=rates, **common)
    assert len(side_by_side) == n
    # A sum in a step has 7 terms at most, those of three layers follow each other, forward and
    # back; an update and penalties of 52 weights are added.
    tolerance = n_steps * (2 * 3 * 8 + 60) * 2.0**-24
    for number, other in exact.items():
        net, theirs = nets[number], other.fit(X, y, learning_rate=rates[number], **common)
        scale = max(np.abs(other.params).max(), np.abs(other.moments).max())
        for mine, all_of_it in zip((net.params, *net.moments), (other.params, *other.moments),
                                   strict=True):  # fmt: skip
            assert_close(net, mine, other, all_of_it, tolerance * scale)
        np.testing.assert_allclose(records[number]["loss"], theirs["loss"], 4 * tolerance)
        assert net.steps == other.steps == n_steps and net.solver == other.solver


def test_large_batches_are_sums_of_passes(core, side_by_side):
    """In several passes; a network of small batches next to them is none the different for it."""
    X, y = blobs(100)
    n, rates = lanes.lanes_of_core(), ramp(0.01, 0.1, lanes.lanes_of_core())
    sizes = [(97, 20, 64, 33)[number % 4] for number in range(n)]
    nets, _ = networks((3, 5, 3), n=n)
    small, _ = networks((3, 5, 3), n=n)
    exact = [net.astype("float64") for net in nets]
    common = {"epochs": 3, "learning_rate": rates, "l2": 0.01}
    records = fit_many(nets, X, y, batch_size=sizes, **common)
    theirs = alone(exact, X, y, batch_size=sizes, **common)
    fit_many(small, X, y, batch_size=[20] * n, **common)
    assert len(side_by_side) == 2 * n
    np.testing.assert_array_equal(nets[1].params, small[1].params)
    for net, other, record, their, size in zip(nets, exact, records, theirs, sizes, strict=True):
        # Sums of a batch's rows, of two layers, forward and back, in every step.
        tolerance = 3 * -(-100 // size) * 2 * 2 * (size + 8) * 2.0**-24
        scale = np.abs(other.params).max()
        assert_close(net, net.params, other, other.params, tolerance * scale)
        np.testing.assert_allclose(record["loss"], their["loss"], 4 * tolerance)


def assert_close(net, mine, other, theirs, tolerance):
    """Compare two vectors that are laid out as the parameters of two networks."""
    expected = Parameters(other.plan, theirs).parts()
    for name, part in Parameters(net.plan, mine).parts().items():
        np.testing.assert_allclose(part, expected[name], 0, tolerance)


def test_every_network_has_its_own_numbers(core, side_by_side):
    X, y = blobs(47)
    nets, copies = networks(input_scale=0.5)
    n = len(nets)
    common = {"sample_weight": np.linspace(0, 2, 47), "label_smoothing": 0.1}
    each = {
        "epochs": [3 + number % 4 for number in range(n)],
        "batch_size": [1 + number % 13 for number in range(n)],
        "learning_rate": ramp(0.01, 0.1, n),
        "momentum": ramp(0.0, 0.9, n),
        "l2": ramp(0.0, 0.1, n),
        "l1": ramp(0.01, 0.0, n),
        "weight_decay": ramp(0.0, 0.2, n),
        "schedule": [["cosine", "constant", "one_cycle"][number % 3] for number in range(n)],
        "shuffle": [number % 5 > 0 for number in range(n)],
    }
    rows = [np.delete(np.arange(47), np.arange(number % 6)) for number in range(n)]
    records = fit_many(nets, X, y, rows=rows, **common, **each)
    assert len(side_by_side) == n
    for number in {0, 1, 5, n - 1}:
        net, part = copies[number], rows[number]
        own = {name: values[number] for name, values in each.items()}
        own |= common | {"sample_weight": common["sample_weight"][part]}
        record = net.fit(X[part], y[part], **own)
        np.testing.assert_allclose(nets[number].params, net.params, 0, 2e-4)
        np.testing.assert_allclose(records[number]["loss"], record["loss"], 1e-4)
        assert records[number]["learning_rate"] == record["learning_rate"]
        assert records[number].stopped == record.stopped == "epochs"
        assert nets[number].history == records[number]


def test_rows_that_weigh_nothing(core, side_by_side):
    X, y = blobs(20)
    nets, copies = networks()
    weight, rows = np.repeat([0.0, 1.0], 10), [slice(0, 10)] * len(nets)
    common = {"learning_rate": 0.1, "weight_decay": 0.1, "batch_size": 4, "epochs": 2}
    records = fit_many(nets, X, y, rows=rows, sample_weight=weight, **common)
    assert records[1]["loss"] == [0, 0] and len(side_by_side) == len(nets)
    for mine, theirs in zip(nets[1].weights, copies[1].weights, strict=True):
        np.testing.assert_allclose(mine, theirs * 0.99**6, 1e-6)  # all that is left is decay


def test_a_network_does_not_depend_on_its_neighbours(core):
    X, y = blobs()
    nets, copies = networks(n=lanes.lanes_of_core())
    fit_many(nets, X, y, epochs=3, batch_size=7)
    some = copies[::-1][: lanes.lanes_of_core() - 1]
    fit_many(some, X, y, epochs=3, batch_size=7)
    for net, other in zip(nets[::-1], some, strict=False):
        np.testing.assert_array_equal(net.params, other.params)
        np.testing.assert_array_equal(net.moments, other.moments)


def test_any_number_of_threads_gives_the_same_bits(compiled, monkeypatch):
    monkeypatch.setattr(lanes.dispatch, "threads_for", lambda n: n)
    X, y = blobs(20)
    n = lanes.lanes_of_core() * (lanes.BLOCK + 1) + 1
    nets, copies = networks(n=n)
    patience = [1 + number % 4 for number in range(n)]
    common = {"epochs": 30, "learning_rate": 0.5, "patience": patience, "batch_size": 4}
    fit_many(nets, X, y, n_threads=3, **common)
    fit_many(copies, X, y, n_threads=1, **common)
    for net, other in zip(nets, copies, strict=True):
        np.testing.assert_array_equal(net.params, other.params)


def test_an_interruption_reaches_all_threads(compiled, monkeypatch):
    monkeypatch.setattr(lanes.dispatch, "threads_for", lambda n: 2)
    X, y = blobs(lanes.CALL_ROWS // 4)  # a call takes few epochs
    nets, _ = networks(n=lanes.lanes_of_core() * (lanes.BLOCK + 1))

    def rate(epoch):
        if epoch == 3:
            raise KeyboardInterrupt
        return 0.1

    schedule = [rate] + ["constant"] * (len(nets) - 1)
    with pytest.warns(UserWarning, match="training was interrupted"):
        records = fit_many(nets, X, y, epochs=1000, schedule=schedule)
    assert {record.stopped for record in records if "loss" in record} == {"interrupted"}


def test_a_further_call_continues(engine):
    X, y = blobs(n_classes=2)
    nets, copies = networks((3, 5, 1), loss="binary_crossentropy")
    how = {"solver": "adam", "label_smoothing": 0.2}
    for each in (nets, copies):
        fit_many(each, X, y, epochs=2, **how)
    fit_many(nets, X, y, epochs=3, **how)
    alone(copies, X, y, epochs=3, **how)
    for net, other in zip(nets, copies, strict=True):
        assert net.steps == other.steps == 10 and net.history.epochs == 5
        np.testing.assert_allclose(net.params, other.params, 0, 1e-5)


# Ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validates", [{}, {"validation_fraction": 0.3}])
def test_patience_gives_the_lane_to_the_next(engine, side_by_side, validates):
    X, y = blobs(40)
    y = np.random.default_rng(0).permutation(y)  # nothing to learn: losses soon rise
    nets, copies = networks(n=lanes.lanes_of_core() + 7)
    patience = [1 + number % 4 for number in range(len(nets))]
    common = {"epochs": 60, "learning_rate": 0.5, "patience": patience, **validates}
    records = fit_many(nets, X, y, **common)
    expected = alone(copies, X, y, **common)
    assert len({len(record["loss"]) for record in records}) > 3
    assert {record.stopped for record in records} == {"patience"}
    for net, other, record, theirs in zip(nets, copies, records, expected, strict=True):
        assert (record.best_epoch, record.restored) == (theirs.best_epoch, theirs.restored)
        for name in theirs.keys() & LEARNED:
            np.testing.assert_allclose(record[name], theirs[name], 1e-3, err_msg=name)
        np.testing.assert_allclose(net.params, other.params, 0, 1e-3)


def test_one_that_diverges_ends_alone(engine, side_by_side):
    X, y = waves(40)
    nets, copies = networks((3, 5, 1), "identity")
    rates = [0.01] * len(nets)
    rates[2] = rates[-1] = 4.0
    with pytest.warns(cmlp.ConvergenceWarning) as caught:
        records = fit_many(nets, X, y, learning_rate=rates, epochs=40)
    with pytest.raises(cmlp.DivergenceError) as error:
        copies[2].fit(X, y, learning_rate=4.0, epochs=40)
    (warning,) = caught
    numbers = [2, len(nets) - 1]
    assert f"2 of {len(nets)} networks diverged, {numbers}. The first: " in str(warning.message)
    assert str(error.value) in str(warning.message)
    stopped = ["diverged" if number in numbers else "epochs" for number in range(len(nets))]
    assert [record.stopped for record in records] == stopped
    assert len(records[2]["loss"]) == len(error.value.history["loss"]) < 40
    np.testing.assert_allclose(nets[2].params, copies[2].params, 1e-3)
    copies[1].fit(X, y, epochs=40)
    np.testing.assert_allclose(nets[1].params, copies[1].params, 0, 1e-5)


def test_an_interruption_keeps_recorded_epochs(engine):
    X, y = blobs()
    nets, copies = networks()

    def rate(epoch):
        if epoch == 3:
            raise KeyboardInterrupt
        return 0.1

    with pytest.warns(UserWarning, match=f"{lanes.lanes_of_core()} of {len(nets)} networks"):
        records = fit_many(nets, X, y, epochs=9, schedule=rate)
    n = lanes.lanes_of_core()
    assert [len(record["loss"]) for record in records if "loss" in record] == [3] * n
    for net, other, record in zip(nets, copies, records, strict=True):
        other.fit(X, y, epochs=len(record.get("loss", [])), learning_rate=0.1)
        np.testing.assert_allclose(net.params, other.params, 0, 1e-5)
        assert (record.stopped == "interrupted") == ("loss" in record)


def test_an_error_in_between_is_raised(engine):
    X, y = blobs()
    nets, _ = networks()

    def rate(epoch):
        return 0.1 if epoch < 2 else 1 / 0

    with pytest.raises(ZeroDivisionError):
        fit_many(nets, X, y, epochs=9, schedule=rate)
    assert nets[0].history.stopped == "error"
    with nets[0].exclusive_training():
        pass


# What is trained alone ----------------------------------------------------------------------------

ALONE = {
    "float64": ({"dtype": "float64"}, {}),
    "layer": ({"normalization": "layer"}, {}),
    "batch": ({"normalization": "batch"}, {}),
    "parametric": ({"parametric_activation": True}, {}),
    "scaled loss": ({"loss": "huber"}, {}),
    "other output": ({"loss": "squared_error", "out_activation": "tanh"}, {}),
    "custom": ({"loss": squared_error}, {}),
    "missing": ({"loss": "squared_error", "missing_targets": True}, {}),
    "front": ({"inputs": cmlp.Inputs(levels={0: (3, 2)})}, {}),
    "large": ({"activation": "relu", "sizes": (3, 200, 200, 1)}, {}),
    "rmsprop": ({}, {"solver": "rmsprop", "learning_rate": 0.001}),
    "dropout": ({}, {"dropout": (0.5, 0.0)}),
    "noise": ({}, {"input_noise": 0.1}),
    "clip": ({}, {"clip_norm": 1.0}),
    "ema": ({}, {"ema": 0.9}),
    "factors": ({}, {"rate_factors": {"biases": 0.5}}),
    "callbacks": ({}, {"callbacks": (lambda state: None,)}),
    "time": ({}, {"max_time": 60}),
    "scheduled": ({}, {"dropout_schedule": "cosine"}),
}


@pytest.mark.parametrize("case", ALONE)
def test_the_rest_is_trained_as_ever(engine, side_by_side, case):
    made, parameters = ALONE[case]
    X, y = waves(n_in=3)
    made = {"sizes": (3, 5, 4, 1)} | made
    if case == "front":
        X = np.abs(np.round(X)).clip(0, 2)
    if case == "missing":
        y[3] = np.nan
    nets, copies = networks(n=3, **made)
    records = fit_many(nets, X, y, epochs=2, **parameters)
    expected = alone(copies, X, y, epochs=2, **parameters)
    assert not side_by_side
    for net, other, record, theirs in zip(nets, copies, records, expected, strict=True):
        np.testing.assert_array_equal(net.params, other.params)
        assert record["loss"] == theirs["loss"]


def test_few_networks_are_trained_alone(engine, side_by_side):
    """A step takes as long for one of them as for all lanes."""
    X, y = blobs()
    nets, copies = networks(n=lanes.lanes_of_core() // 2 - 1)
    fit_many(nets, X, y, epochs=3)
    alone(copies, X, y, epochs=3)
    for net, other in zip(nets, copies, strict=True):
        np.testing.assert_array_equal(net.params, other.params)


def test_sparse_rows(engine, side_by_side):
    sparse = pytest.importorskip("scipy.sparse")
    X, y = blobs()
    nets, copies = networks(n=3)
    fit_many(nets, sparse.csr_matrix(X), y, epochs=2)
    alone(copies, X, y, epochs=2)
    assert not side_by_side
    np.testing.assert_allclose(nets[2].params, copies[2].params, 0, 1e-6)


# What is passed -----------------------------------------------------------------------------------


def test_settings_and_sequences(engine):
    X, y = blobs()
    nets, copies = networks(n=4)
    grid = [{"l2": l2, "dropout": (d, 0.0)} for l2 in (0.0, 0.1) for d in (0.0, 0.5)]
    rates = np.array([0.1, 0.2, 0.3, 0.4])
    fit_many(iter(nets), X, y, settings=iter(grid), learning_rate=rates, epochs=2)
    for net, other, own, rate in zip(nets, copies, grid, rates.tolist(), strict=True):
        other.fit(X, y, learning_rate=rate, epochs=2, **own)
        np.testing.assert_array_equal(net.params, other.params)
    assert fit_many([], X, y) == []


def test_rows_to_train_and_to_validate_on(engine):
    X, y = blobs(30)
    test = [np.arange(start, 30, 5) for start in range(5)]
    mask = np.ones(30, bool)
    mask[test[0]] = False
    train = [mask, *(np.setdiff1d(np.arange(30), part) for part in test[1:])]
    nets, copies = networks(n=5)
    records = fit_many(nets, X, y, rows=train, val_rows=test, epochs=4, patience=2)
    for net, other, record, own, held in zip(nets, copies, records, train, test, strict=True):
        theirs = other.fit(X[own], y[own], X_val=X[held], y_val=y[held], epochs=4, patience=2)
        np.testing.assert_allclose(record["val_loss"], theirs["val_loss"], 1e-4)
        assert record["val_score"] == theirs["val_score"]
        np.testing.assert_allclose(net.params, other.params, 0, 1e-5)
        np.testing.assert_array_equal(net.classes, [0, 1, 2])
    more = fit_many(nets, X, y, rows=[slice(0, 20)] * 5, X_val=X[20:], y_val=y[20:], epochs=1)
    assert all(len(record["val_loss"]) == 1 for record in more)
    fit_many(nets, X, y, rows=[None] * 5, val_rows=[None] * 4 + [test[4]], epochs=1)
    assert len(nets[4].history["val_loss"]) == 6


def test_defaults_are_those_of_fit():
    theirs = inspect.signature(Network.fit).parameters
    assert {name: theirs[name].default for name in many.DEFAULTS} == many.DEFAULTS
    own = set(inspect.signature(fit_many).parameters) - {"networks", "parameters"}
    taken = own | {*many.DEFAULTS, *many.PARAMETERS}
    # of the fit of one network alone
    taken |= {"memory", "checkpoint", "checkpoint_every", "resume", "comm", "sync_every"}
    assert set(theirs) - {"self"} <= taken
    np.testing.assert_array_equal(sorted(many.SEQUENCES), sorted({*many.SEQUENCES} & {*taken}))


@pytest.mark.parametrize(
    ("parts", "kind", "parameters"),
    [
        (["networks[1]", "cmlp.Network", "3"], TypeError, {"networks": [None, 3]}),
        (["networks[1] is networks[0]", "deepcopy"], ValueError, {"networks": [None, None]}),
        (["learning_rate", "2 networks", "[0.1]"], ValueError, {"learning_rate": [0.1]}),
        (["settings", "2 networks", "1"], ValueError, {"settings": [{}]}),
        (["learning_rat", "Did you mean", "learning_rate"], TypeError, {"learning_rat": 1}),
        (["epoch", "Did you mean", "epochs"], TypeError, {"settings": [{}, {"epoch": 1}]}),
        (["rows", "2 networks", "3"], ValueError, {"rows": [0, 1, 2]}),
        (["rows[1]", "0 to 59", "77"], IndexError, {"rows": [None, [77]]}),
        (["rows[0]", "one row"], ValueError, {"rows": [[], [1]]}),
        (["val_rows[0]", "one row", "3"], ValueError, {"val_rows": [3, None]}),
        (["one of X_val", "val_rows"], ValueError,
         {"val_rows": [[1], [2]], "validation_fraction": 0.5}),
        (["go together"], ValueError, {"X_val": np.zeros((2, 3))}),
        (["learning_rate", "-1"], ValueError, {"learning_rate": [0.1, -1]}),
        (["dropout", "one per hidden layer"], ValueError, {"dropout": [0.1]}),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(parts, kind, parameters):
    X, y = blobs()
    nets, copies = networks(n=2)
    given = [nets[0] if net is None else net for net in parameters.pop("networks", nets)]
    with refused(kind, *parts):
        fit_many(given, X, y, **parameters)
    assert nets[0].classes is None and nets[1].classes is None
    np.testing.assert_array_equal(nets[0].params, copies[0].params)


def test_another_thread_is_refused():
    X, y = blobs()
    nets, _ = networks(n=2)
    held, done = threading.Event(), threading.Event()

    def hold():
        with nets[1].exclusive_training():
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    with refused(RuntimeError, "another thread"):
        fit_many(nets, X, y)
    done.set()
    thread.join()
    fit_many(nets, X, y, epochs=1)


# The seam -----------------------------------------------------------------------------------------


def call_of(core):
    """Arguments of a valid call on two rows."""
    n, plan = lanes.lanes_of_core(), Network((2, 3, 2)).plan
    table = np.zeros((n, len(LANE)), np.int64)
    table[:, :3] = 2, 2, 1
    table[:, 5:9] = np.arange(n)[:, None] * (2, 11, 11, 11) + (0, 0, 1, 2)
    return {
        "plan": plan, "memory": np.zeros(lane_memory(plan, 1, 2, n), np.float32),
        "data": np.ones(8, np.float32), "weights": None, "rows": np.array([0, 1] * n),
        "numbers": np.zeros(11 * n), "lanes": table.ravel(), "loss": 2, "rule": 0, "most": 9,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, lambda a: a[:-1].copy()) for name in ("memory", "numbers", "rows", "lanes")],
        ("data", lambda a: a[:3].copy()), ("weights", lambda a: np.ones(1)),
        ("numbers", lambda a: a[:6].copy()), ("rows", lambda a: a + 1), ("rows", lambda a: a - 1),
        ("loss", lambda a: 3), ("rule", lambda a: -1), ("rule", lambda a: 2),
        *[("lanes", lambda a, column=column, to=to: with_number(a, column, to)) for column, to in [
            (0, 0), (0, -1), (0, 2**62), (1, 0), (1, 3), (1, 2000), (2, 2**62), (3, 2), (3, -1),
            (4, -1), (5, -1), (5, 2**62), (6, -1), (6, 999), (7, -1), (7, 999), (8, -1), (8, 999),
        ]],
        ("plan", lambda a: Network((2, 3, 2), normalization="layer").plan),
        ("plan", lambda a: Network((2, 3, 2), parametric_activation=True).plan),
        ("plan", lambda a: Network((2, 3, 2), inputs=cmlp.Inputs(levels={0: (3, 2)})).plan),
    ],
)  # fmt: skip
def test_nothing_outside_an_array_is_touched(compiled, name, value):
    call = call_of(compiled)
    assert compiled.train_lanes(**call) == 1
    call["lanes"][3 :: len(LANE)] = 0
    call[name] = value(call[name])
    with pytest.raises((ValueError, IndexError)):
        compiled.train_lanes(**call)


def with_number(table, column, value):
    table = table.copy()
    table[column - len(LANE)] = value
    return table
