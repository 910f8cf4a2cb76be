"""A session: what a page sends, and what it gets; numbers against Network and trace_step."""

import base64
import json
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import Page, read

import cmlp
from cmlp.page import build, limits
from cmlp.page.digits import blocks
from cmlp.page.host import Closed
from cmlp.page.models import own_of
from cmlp.page.session import Session
from cmlp.page.set_up import BY_HAND, SetUp


@pytest.fixture
def page():
    return Page({"data": "moons", "layers": [5, 4], "activation": "tanh"})


def errors(found):
    return [(each["field"], each["text"]) for each in found if each.get("type") == "error"]


# Frames ------------------------------------------------------------------------------------------


def test_the_first_picture():
    page = Page()
    found = [read(message) for message in page.sent]
    assert [each.get("type") or each["kind"] for each in found] == ["welcome", "state", "data"]
    assert found[0]["limits"] == limits.told() and "own" not in found[0]["vocabulary"]["data"]
    frame = page.frame({"type": "look", "panels": ["row", "weights", "wrong", "unit", "nonsense"]})
    arrays, net = frame["arrays"], page.session.run.net
    digits = cmlp.load_digits()
    first = digits.X_test[:1] / np.float32(16)
    assert np.array_equal(arrays["a3"], net.predict(first)[0])
    assert np.array_equal(arrays["W2"], net.weights[1]) and np.array_equal(arrays["x"], first[0])
    read_ = net.predict_classes(digits.X_test / np.float32(16))
    wrong = arrays["wrong"]
    assert (read_[wrong[:, 0].astype(int)] == wrong[:, 2]).all() and (
        wrong[:, 1] != wrong[:, 2]
    ).all()
    assert np.trace(arrays["confusion"]) == (read_ == digits.y_test).sum()
    assert arrays["curve"].shape == (12, 5) and frame["epoch"] == 12
    about, terms = arrays["unit_about"], arrays["unit_terms"]
    assert about[5] == pytest.approx(float(terms[:, 3].sum() + about[3] + about[4]), abs=1e-5)
    assert about[5] == arrays["z1"][0]


def test_panels_of_a_plane(page):
    arrays = page.frame({"type": "look", "panels": ["regions", "units", "stats"]})["arrays"]
    net = page.session.run.net
    ticks = (np.arange(64) + 0.5) / 64 * 2.5 - 1.25
    grid = np.stack(np.meshgrid(ticks, -ticks), axis=-1).reshape(-1, 2).astype(np.float32)
    assert np.array_equal(arrays["classes"].ravel(), net.predict(grid).argmax(axis=1))
    assert arrays["unit1"].shape == (5, 24, 24) and arrays["unit2"].shape == (4, 24, 24)
    assert arrays["hist1"].sum() == 10 and arrays["hist_first2"].sum() == 20
    rows = page.session.painter.sample
    gradient = net.gradients(rows.X, rows.targets)
    norm = np.sqrt((gradient.weights[0] ** 2).sum() + (gradient.biases[0] ** 2).sum())
    np.testing.assert_allclose(arrays["gradient"][0], norm, rtol=1e-5)
    assert np.array_equal(arrays["dead"], [0, 0])


def test_a_large_network_sends_a_part():
    page = Page({"layers": [300, 300]})
    frame = page.frame({"type": "look", "panels": ["nonsense", "weights", "row"]})
    assert frame["arrays"]["W2"].shape == (64, 32) and frame["arrays"]["a2"].shape == (32,)
    assert sum(array.nbytes for array in frame["arrays"].values()) < 64_000


def test_curves_follow_the_run_back_and_forth(page):
    epoch, curve = -(-page.session.run.n_rows // 32), []
    moves = [
        {"type": "step", "n": 3, "epochs": True},
        {"type": "back", "n": epoch + 1},
        {"type": "seek", "step": 2 * epoch},
        {"type": "back", "n": 1},
        {"type": "change", "fields": {"learning_rate": 0.5}},
        {"type": "step", "n": 2 * epoch},
        {"type": "seek", "step": 0},
        {"type": "seek", "step": 2 * epoch},
    ]
    for move in moves:
        frame = page.frame(move)
        curve[frame["curve_from"] :] = frame["arrays"]["curve"].tolist()  # as the page does
        assert curve == [list(row) for row in page.session.run.curve]
    assert (frame["step"], frame["furthest"]) == (2 * epoch, 4 * epoch - 1)
    assert page.frame({"type": "back", "n": 1, "epochs": True})["step"] == epoch
    page.do({"type": "step", "n": 2})
    assert page.frame({"type": "back", "n": 1, "epochs": True})["step"] == epoch


def test_no_frame_without_credit(page):
    page.do({"type": "run", "speed": 0})
    session = page.session
    session.credit, before = 1, len(page.sent)
    for _ in range(5):
        session.play()
        session.shown_at = 0.0
        session.show()
    assert len(page.sent) - before == 1
    session.answer('{"type": "more", "credit": 2}')
    session.show()
    assert len(page.sent) - before == 2 and session.credit == 1


# Playing -----------------------------------------------------------------------------------------


def test_speed_is_kept(page):
    session = page.session
    page.do({"type": "run", "speed": 200})
    began = time.perf_counter()
    while time.perf_counter() - began < 0.4:
        time.sleep(min(session.wait(), 0.01))
        session.play()
        session.dirty = False
    assert 10 <= session.run.step <= 200 * (time.perf_counter() - began) + 1
    page.do({"type": "pause"})
    assert not session.playing and session.wait() > 0.2


def test_full_speed_gives_the_bits_of_single_batches(page):
    page.do({"type": "run", "speed": 0})
    while page.session.run.epoch < 12:
        page.session.play()
    step = page.session.run.step
    other = Page({"data": "moons", "layers": [5, 4], "activation": "tanh"})
    for _ in range(step):
        other.session.travel(other.session.run.step + 1)
    assert np.array_equal(page.session.run.net.params, other.session.run.net.params)


def test_patience_pauses(page):
    page.do({"type": "change", "fields": {"patience": 3, "learning_rate": 0.0}})
    page.do({"type": "run", "speed": 0})
    for _ in range(200):
        page.session.play()
    notes = [each for each in map(read, page.sent) if each.get("type") == "note"]
    assert [(each["code"], each["best"]) for each in notes] == [("patience", 1)]
    assert not page.session.playing and page.session.run.epoch >= 4


def test_the_limit_of_epochs_pauses(page, monkeypatch):
    monkeypatch.setattr(limits, "EPOCHS", 5)
    page.do({"type": "run", "speed": 0})
    for _ in range(100):
        page.session.play()
    assert not page.session.playing and page.session.run.epoch < 60


def test_a_divergence_is_told_and_the_run_goes_on(page):
    page.do(
        {
            "type": "setup",
            "fields": {
                "loss": "squared_error",
                "out_activation": "identity",
                "activation": "relu",
                "learning_rate": 1000,
            },
        }
    )
    page.do({"type": "run", "speed": 0})
    for _ in range(200):
        page.session.play()
    assert "diverged" in errors(map(read, page.sent))[-1][1] and not page.session.playing
    page.do({"type": "change", "fields": {"learning_rate": 0.01}})
    assert page.frame({"type": "step", "n": 5})["step"] > 0


def test_a_change_goes_back_with_the_run(page):
    page.do({"type": "step", "n": 10})
    page.do({"type": "change", "fields": {"learning_rate": 0.5, "batch_size": 8}})
    page.do({"type": "step", "n": 10})
    found = page.events("changed", {"type": "back", "n": 15})
    assert found[0]["fields"]["learning_rate"] == 0.05 and found[0]["fields"]["batch_size"] == 32
    assert page.session.setup.learning_rate == 0.05
    script = page.events("file", {"type": "export", "kind": "python"})[0]["text"]
    assert "changed during the run" in script


def test_runs_of_other_data_are_kept(page):
    page.do({"type": "step", "n": 7})
    page.do({"type": "use", "family": "digits", "story": "draw"})
    assert page.session.run.net.sizes[0] == 64
    state = page.events("state", {"type": "use", "family": "plane", "story": "plane"})[0]
    assert page.session.run.step == 7 and state["setup"]["story"] == "plane"
    assert errors(page.do({"type": "use", "family": "own"}))[0][0] == "family"
    lesson = {"data": "xor", "n": 20, "layers": [2], "rows": [[[1, -1], 1]]}
    page.do({"type": "setup", "fields": lesson, "new": True})
    assert page.session.run.step == 0 and page.session.setup.rows
    page.do({"type": "use", "family": "plane", "story": "plane"})
    assert page.session.run.step == 7 and not page.session.setup.rows
    fresh = Page()
    fresh.do({"type": "use", "family": "plane", "story": "plane"})
    assert fresh.session.rows.kind == "plane"


def test_the_same_seed_again(page):
    first = page.session.run.net.params.copy()
    page.do({"type": "step", "n": 30})
    trained = page.session.run.net.params.copy()
    page.do({"type": "reset"})
    assert np.array_equal(page.session.run.net.params, first) and page.session.run.step == 0
    page.do({"type": "step", "n": 30})
    assert np.array_equal(page.session.run.net.params, trained)
    page.do({"type": "reset", "seed": 5})
    assert not np.array_equal(page.session.run.net.params, first)


# Drawing -----------------------------------------------------------------------------------------


def test_test_digits_set_cell_by_cell():
    page = Page()
    page.do({"type": "look", "panels": ["row"]})
    digits, net = cmlp.load_digits(), page.session.run.net
    for row in range(10):
        values = digits.X_test[row].tolist()
        arrays = page.frame({"type": "pixels", "values": values})["arrays"]
        assert np.array_equal(arrays["x"] * 16, digits.X_test[row])
        assert np.array_equal(
            arrays["a3"], net.predict(digits.X_test[row][None] / np.float32(16))[0]
        )


def test_ink_is_prepared_and_read():
    page = Page()
    ink = np.zeros((32, 32), bool)
    ink[4:28, 14:18] = True
    found = page.do({"type": "ink", "bits": np.packbits(ink).tobytes().hex()})
    told = next(each for each in found if each.get("type") == "prepared")
    picture = np.unpackbits(np.frombuffer(bytes.fromhex(told["bits"]), np.uint8)).reshape(32, 32)
    assert np.array_equal(blocks(picture.astype(bool)).ravel(), told["counts"])
    assert np.array_equal(page.session.painter.row * 16, told["counts"])


def test_rows_read_wrongly_one_after_the_other():
    page = Page()
    X, y = cmlp.load_digits().X_test / np.float32(16), cmlp.load_digits().y_test
    wrong = np.flatnonzero(page.session.run.net.predict_classes(X) != y)
    seen = [page.events("sample", {"type": "sample", "which": "wrong"})[0]["row"] for _ in range(3)]
    assert seen == wrong[:3].tolist()
    assert page.events("sample", {"type": "sample", "which": "next"})[0]["row"] == seen[-1] + 1
    assert page.events("sample", {"type": "sample", "which": 17})[0]["truth"] == str(y[17])


def test_a_unit_that_is_off():
    page = Page()
    page.do({"type": "look", "panels": ["row", "unit"]})
    before = page.session.run.net.params.copy()
    assert page.events("off", {"type": "off", "layer": 1, "unit": 3})[0]["units"] == [[1, 3]]
    arrays = page.frame({"type": "sample", "which": 4})["arrays"]
    net = page.session.run.net
    assert np.array_equal(net.params, before) and arrays["a1"][3] == 0
    changed = cmlp.Network([64, 16, 16, 10], seed=0)
    changed.params[:] = before
    changed.weights[1][3] = 0
    assert np.array_equal(arrays["a3"], changed.predict(arrays["x"][None])[0])
    assert page.events("off", {"type": "off", "layer": 1, "unit": 3})[0]["units"] == []


def test_training_on_ones_own_digits():
    page = Page()
    run = page.session.run
    before = run.net.params.copy()
    assert errors(page.do({"type": "mine"}))[0][0] == "collect"
    wrong = page.events("sample", {"type": "sample", "which": "wrong"})[0]
    assert page.events("collected", {"type": "collect", "label": int(wrong["truth"])})[0]["n"] == 1
    told = page.events("mine", {"type": "mine"})[0]
    assert told["before"][1] == 0 and told["after"][1] == 1
    X, y = cmlp.load_digits().X_test / np.float32(16), cmlp.load_digits().y_test
    assert told["after"][0] == pytest.approx(run.net.score(X, y))
    page.do({"type": "mine"}, {"type": "forget"})
    assert np.array_equal(run.net.params, before)
    squares = Page({"loss": "squared_error", "layers": [8], "epochs": 1})
    squares.do({"type": "collect", "label": 3})
    assert squares.events("mine", {"type": "mine"})[0]["n"] == 1


# Stepping ----------------------------------------------------------------------------------------


def test_lesson_5_has_the_numbers_of_trace_step():
    page = Page(BY_HAND)
    cards = page.events("cards", {"type": "trace", "rows": "setup", "fresh": True})[0]
    found = {each["key"]: each for each in cards["stations"]}
    assert list(found) == [
        "x",
        "z1",
        "a1",
        "z2",
        "a2",
        "cost",
        "delta2",
        "dW2",
        "delta1",
        "dW1",
        "update",
        "new",
    ]
    numbers = {key: [float(value) for value in each["values"]] for key, each in found.items()}
    expected = {  # by hand: the course's lesson 5
        "z1": [-0.5, -1],
        "a1": [0.3775, 0.2689],
        "a2": [0.5841],
        "delta2": [-0.1010],
        "dW2": [-0.0381, -0.0272],
        "delta1": [-0.0237, 0.0397],
    }
    for key, values in expected.items():
        np.testing.assert_allclose(numbers[key], values, atol=5e-5)
    assert float(found["cost"]["result"]) == pytest.approx(0.0865, abs=5e-5)
    assert float(found["new"]["result"]) == pytest.approx(0.0691, abs=5e-5)
    net = build.network_of(page.session.setup, page.session.rows)
    trace = net.trace_step([[1, -1]], [[1.0]], apply=False, learning_rate=1, momentum=0)
    for number, layer in enumerate(trace.layers, 1):
        for key, value in (("z", layer.z), ("a", layer.a), ("delta", layer.delta)):
            np.testing.assert_allclose(numbers[f"{key}{number}"], value[0], rtol=1e-3)


def test_a_step_and_back():
    page = Page(BY_HAND)
    trained = page.session.run.net.params.copy()
    page.do({"type": "trace", "rows": "setup", "fresh": True})
    after = page.events("cards", {"type": "apply"})[0]
    assert float(after["cost"]) == pytest.approx(0.0691, abs=5e-5) and after["undo"] == 1
    back = page.events("cards", {"type": "undo"}, {"type": "undo"})[-1]
    assert float(back["cost"]) == pytest.approx(0.0865, abs=5e-5) and back["undo"] == 0
    assert np.array_equal(page.session.run.net.params, trained)  # all of it on a copy


@pytest.mark.parametrize("place", [(1, 0, 1), (1, -1, 0), (2, 1, 0), (2, -1, 0)])
def test_the_slope_of_a_weight(place):
    page = Page(BY_HAND)
    layer, i, j = place
    page.do({"type": "trace", "rows": "setup", "fresh": True})
    valley = page.events("valley", {"type": "weight", "layer": layer, "i": i, "j": j})[0]
    assert valley["slope"] == pytest.approx(valley["difference"], rel=1e-6)
    assert len(valley["w"]) == len(valley["C"]) == 41 and valley["C"][20] == valley["cost"]
    assert sum(float(term[2]) for term in valley["terms"]) == pytest.approx(
        valley["slope"], rel=1e-3
    )
    w = np.array(valley["w"])
    around = (valley["C"][21] - valley["C"][19]) / (w[21] - w[19])
    assert around == pytest.approx(valley["slope"], rel=0.01)  # the tangent
    moved = page.events("valley", {"type": "nudge", "value": w[30], "first": True})[0]
    assert moved["cost"] == pytest.approx(valley["C"][30], rel=1e-5)
    assert page.events("cards", {"type": "undo"})[0]["undo"] == 0


@pytest.mark.parametrize(
    "loss, out",
    [
        ("categorical_crossentropy", "softmax"),
        ("binary_crossentropy", "logistic"),
        ("squared_error", "softmax"),
        ("absolute_error", "tanh"),
        ("poisson", "exp"),
    ],
)
def test_cards_of_every_cost(loss, out):
    page = Page(
        {
            "data": "blobs",
            "loss": loss,
            "out_activation": out,
            "layers": [12],
            "dropout": 0.5,
            "activation": "elu:0.5",
        }
    )
    cards = page.events("cards", {"type": "trace", "rows": "batch", "fresh": True})[0]
    assert cards["rows"] == 8 and not cards["plain"]
    costs = next(each for each in cards["stations"] if each["key"] == "cost")
    assert float(costs["mean"]) == pytest.approx(
        np.mean([float(c) for c in costs["costs"]]), rel=1e-3
    )
    again = page.events("cards", {"type": "trace", "row": 7, "layer": 1, "unit": 11, "input": 1})[0]
    sums = next(each for each in again["stations"] if each["key"] == "z2")
    assert "4 more" in json.dumps(sums["numbers"]) and again["row"] == 7
    own = page.events("cards", {"type": "trace", "rows": [3, 5]}, {"type": "trace", "rows": "view"})
    assert [each["rows"] for each in own] == [2, 1]


# A program's own model ---------------------------------------------------------------------------


def test_a_model_of_ones_own():
    X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    y = np.array(["no", "yes"])[(X[:, 0] > 0).astype(int)]
    net = cmlp.Network([3, 4, 2], seed=1)
    before = net.params.copy()
    page = Page(own=build.Own(net, X, y, X[:10], y[:10]))
    state = next(each for each in map(read, page.sent) if each.get("type") == "state")
    assert state["classes"] == ["no", "yes"] and state["kind"] == "rows" and state["held_out"] == 10
    assert state["setup"]["layers"] == [4] and state["setup"]["out_activation"] == "softmax"
    page.do({"type": "step", "n": 3, "epochs": True})
    other = cmlp.Network([3, 4, 2], seed=1)
    other.fit(X, y, epochs=3, learning_rate=0.05)
    assert np.array_equal(page.session.run.net.params, other.params)
    assert np.array_equal(net.params, before)
    assert page.events("diagnosis", {"type": "diagnose"})[0]["looked_at"]
    assert errors(page.do({"type": "reset", "seed": 3}))[0][0] == "seed"
    assert page.events("sample", {"type": "sample", "which": 2})[0]["truth"] == y[2]
    (cards,) = page.events("cards", {"type": "trace", "rows": "view", "fresh": True})
    assert cards["viewed"] and page.events("cards", {"type": "trace", "rows": "batch"})
    np.testing.assert_allclose([float(x) for x in cards["stations"][0]["values"]], X[2], rtol=1e-3)
    assert [float(each) for each in station(cards, "cost")["target"]] == [
        y[2] == "no",
        y[2] == "yes",
    ]
    page.do({"type": "place", "values": [1, 2, 3]})
    assert page.session.painter.row.tolist() == [1, 2, 3]
    (cards,) = page.events("cards", {"type": "trace", "rows": "view"})  # it has no target
    assert not cards["viewed"] and cards["rows"] == 1
    numbers = Page(own=build.Own(cmlp.Network([3, 1], seed=0), X, X[:, 0]))
    numbers.do({"type": "step", "n": 2, "epochs": True})
    assert np.isnan(numbers.session.run.curve[-1][4]) and numbers.session.rows.classes == []
    plane = Page(
        own=build.Own(cmlp.Network([2, 1], loss="binary_crossentropy", seed=0), X[:, :2], y)
    )
    assert plane.session.rows.kind == "plane"
    assert "classes" in plane.frame({"type": "look", "panels": ["regions"]})["arrays"]


def station(cards, key):
    return next(each for each in cards["stations"] if each["key"] == key)


def test_a_model_whose_pixels_go_to_16():
    digits = cmlp.load_digits()
    net = cmlp.Network([64, 4, 10], seed=0, input_scale=1 / 16)
    page = Page(own=build.Own(net, digits.X_train[:99], digits.y_train[:99]))
    page.do({"type": "look", "panels": ["unit", "row"]})
    message = {"type": "pixels", "values": digits.X_test[0].tolist()}
    arrays = page.frame(message)["arrays"]
    assert np.array_equal(arrays["a2"], net.predict(digits.X_test[:1])[0])
    about = arrays["unit_about"]
    assert about[5] == pytest.approx(float(arrays["unit_terms"][:, 3].sum() + about[3] + about[4]))
    told = page.events("sample", {"type": "sample", "which": 3})[0]
    assert told["counts"] == digits.X_train[3].tolist()


def test_layers_that_no_card_explains():
    X = np.random.default_rng(0).normal(size=(40, 3))
    net = cmlp.Network([3, 4, 2], normalization="batch")
    page = Page(own=build.Own(net, X, X[:, 0] > 0))
    assert "unit_terms" not in page.frame({"type": "look", "panels": ["unit"]})["arrays"]
    assert "trace_step" in errors(page.do({"type": "trace", "rows": "view"}))[0][1]
    assert page.frame({"type": "step", "n": 1})["step"] == 1


def test_estimators(engine):
    X = np.random.default_rng(0).normal(size=(60, 3))
    y = np.array(["no", "yes"])[(X[:, 0] > 0).astype(int)]
    for model, target in (
        (cmlp.MLPClassifier((4,), max_iter=1, n_ensemble=2), y),
        (cmlp.TabularClassifier((4,), max_iter=1, n_ensemble=1, cv=None), y),
        (cmlp.TabularRegressor((4,), max_iter=1, n_ensemble=1, cv=None), 1000 + 9 * X[:, 0]),
    ):
        with pytest.raises(Exception, match="not fitted"):
            own_of(model, X, target)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", cmlp.ConvergenceWarning)
            own = own_of(model.fit(X, target), X, target, X[:9], target[:9])
        page = Page(own=own)
        assert page.frame({"type": "step", "n": 1, "epochs": True})["arrays"]["curve"][0][2] < 2
        assert page.session.rows.classes == (["no", "yes"] if target is y else [])
    with pytest.raises(TypeError, match="not list"):
        own_of([], X, y)
    with pytest.raises(ValueError, match="both X_val and y_val"):
        own_of(cmlp.Network([3, 2]), X, y, X_val=X)


# Taking away -------------------------------------------------------------------------------------


def test_exports(page, tmp_path):
    page.do({"type": "step", "n": 2, "epochs": True})
    model = next(each for each in page.do({"type": "export", "kind": "model"}) if each.get("name"))
    path = tmp_path / model["name"]
    path.write_bytes(model["arrays"]["bytes"].tobytes())
    assert np.array_equal(cmlp.load(path).params, page.session.run.net.params)
    text = page.events("file", {"type": "export", "kind": "setup"})[0]["text"]
    assert SetUp.from_dict(json.loads(text)) == page.session.setup and "token" not in text
    assert len(base64.b64encode(text.encode())) < 2000
    assert errors(page.do({"type": "export", "kind": "pickle"}))[0][0] == "kind"


def test_diagnosis_in_words():
    page = Page({"layers": [8], "learning_rate": 0.0001, "momentum": 0, "epochs": 3})
    found = page.events("diagnosis", {"type": "diagnose"})[0]
    assert "slow-training" in [each["code"] for each in found["findings"]] or found["looked_at"]
    assert Page({"layers": [8]}).events("diagnosis", {"type": "diagnose"})[0]["looked_at"] == ""


# What is wrong -----------------------------------------------------------------------------------

WRONG = [
    "",
    "[",
    "3",
    "[" * 20_000,
    '{"type": 3}',
    '{"type": "hello"}',
    '{"a": NaN}',
    '{"type": null}',
    {"type": "setup"},
    {"type": "setup", "fields": {"layers": "x"}},
    {"type": "change", "fields": 3},
    {"type": "change", "fields": {"layers": [3]}},
    {"type": "run", "speed": "fast"},
    {"type": "step", "n": 0},
    {"type": "step", "n": 1e99},
    {"type": "seek"},
    {"type": "back", "n": -1},
    {"type": "more", "credit": 10**9},
    {"type": "look", "unit": 99, "layer": 1},
    {"type": "ink", "bits": "0" * 256},
    {"type": "pixels", "values": [0] * 64},
    {"type": "sample", "which": 10**9},
    {"type": "off", "layer": 3, "unit": 0},
    {"type": "off", "layer": 1},
    {"type": "collect", "label": 12},
    {"type": "place", "values": [1]},
    {"type": "place", "values": ["x", None]},
    {"type": "weight", "layer": 1, "i": 0, "j": 0},
    {"type": "trace", "rows": []},
    {"type": "trace", "rows": list(range(9))},
    {"type": "trace", "rows": [10**6]},
    {"type": "trace", "layer": 9, "unit": 0},
    {"type": "nudge", "value": "x"},
    {"type": "apply"},
    {"type": "upload", "size": 10**12},
    {"type": "upload"},
    {"type": "fit"},
    {"type": "use", "story": "x"},
    {"type": "reset", "seed": -1},
    {"type": "setup", "fields": {"data": "own"}},
    b"more than was announced",
]


@pytest.mark.parametrize("message", WRONG, ids=lambda message: str(message)[:40])
def test_wrong_messages_are_answered(page, message):
    assert errors(page.do(message)), message
    assert page.frame({"type": "step", "n": 1})["step"] == 1  # and the session is alive


def test_ink_of_wrong_forms():
    page = Page()
    for bits in ("0" * 255, "g" * 256, " " * 256, 3, None):
        assert errors(page.do({"type": "ink", "bits": bits}))[0][0] == "ink"
    for values in ([0] * 63, [17] * 64, [0.5] * 64, "x"):
        assert errors(page.do({"type": "pixels", "values": values}))[0][0] == "pixels"
    for _ in range(201):
        page.do({"type": "collect", "label": 1})
    assert len(page.session.drawing.collected) == 200


def test_floods_are_dropped(page):
    session, before = page.session, len(page.sent)
    session.counts.clear()
    for _ in range(500):
        session.answer('{"type": "off", "layer": 1, "unit": 0}')
    found = [read(message) for message in page.sent[before:]]
    assert len(errors(found)) == 1 and len(found) <= 61 + 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 70) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=6,
)
KINDS = sorted(Session(Page()).handlers)
FIELDS = (
    "n",
    "step",
    "fields",
    "panels",
    "layer",
    "unit",
    "i",
    "j",
    "rows",
    "value",
    "which",
    "kind",
    "seed",
    "label",
    "values",
    "bits",
    "size",
    "name",
    "target",
    "credit",
    "speed",
    "epochs",
)
messages = st.builds(
    lambda kind, fields: {"type": kind, **fields},
    st.sampled_from(KINDS),
    st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(messages, max_size=8))
def test_any_messages_leave_a_session_alive(found):
    page = Page({"data": "xor", "layers": [3], "n": 20})
    page.do(*found)
    page.session.play()
    page.do({"type": "pause"}, {"type": "setup", "new": True, "fields": {"data": "xor", "n": 20}})
    assert page.frame({"type": "step", "n": 1})["step"] == 1


def test_a_bad_first_set_up_is_told():
    page = Page({"layers": 3})
    assert errors(map(read, page.sent))[0][0] == "layers"
    assert page.session.run.net.sizes == (64, 16, 16, 10)


def test_the_loop_ends_with_the_page(page):
    page.queue = ['{"type": "run", "speed": 0}', None, None, '{"type": "pause"}', None]
    with pytest.raises(Closed):
        page.session.serve()
    assert page.session.run.step > 0 and isinstance(page.sent[-1], bytes)
    page.queue = ['{"type":"hello"}']
    assert page.session.serve() == '{"type":"hello"}'
