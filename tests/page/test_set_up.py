"""Every field of a set-up is checked; nothing else gets in."""

import base64
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cmlp
from cmlp import course
from cmlp.page import build, play, points
from cmlp.page.set_up import BY_HAND, CHECKS, SetUp, SetUpError

BAD = {
    "story": ["x", None],
    "title": [3, "x" * 201],
    "data": ["mnist", []],
    "n": [7, 1.5, True, 10**9],
    "noise": [-0.1, math.nan, "0"],
    "data_seed": [-1],
    "points": [[[0, 0]], [[0, 0, 8]], [[0, "x", 0]], [[0, 0, 0]] * 5001, 3],
    "layers": [[0], [513], [4] * 9, "16", [2.5]],
    "one_output": [1],
    "activation": ["softmax", "rel", 3],
    "out_activation": ["softmx"],
    "loss": ["custom", None],
    "weight_init": ["normal"],
    "seed": [2**40],
    "solver": ["lbfgs"],
    "learning_rate": [-1, math.inf],
    "momentum": [1.1],
    "nesterov": ["yes"],
    "batch_size": [0],
    "l1": [-1],
    "l2": [101],
    "weight_decay": ["0"],
    "dropout": [1],
    "input_noise": [-1],
    "label_smoothing": [1.0],
    "clip_norm": [-1],
    "patience": [-1],
    "epochs": [201],
    "speed": [-1],
    "rows": [[[1, 2]], [[[1e9], 0]], [[[0], 0]] * 9, 1, [[[0]]]],
    "parameters": [[[1]], [[[1], 2]], [[[[math.nan]], [0]]], 2, [[[["x"]], [0]]]],
    "hidden_panels": ["x", [3], ["x"] * 101],
    "locked": [3],
}


@pytest.mark.parametrize("field", CHECKS)
def test_bad_values_are_refused_by_name(field):
    for value in BAD[field]:
        with pytest.raises(SetUpError) as caught:
            SetUp.from_dict({field: value})
        assert caught.value.field == field and caught.value.text, value


def test_there_is_no_other_field():
    with pytest.raises(SetUpError, match="token: there is no such field"):
        SetUp.from_dict({"token": "x"})
    with pytest.raises(SetUpError, match="setup"):
        SetUp.from_dict([1])
    assert BAD.keys() == CHECKS.keys() == SetUp().to_dict().keys()


def test_a_set_up_survives_json():
    setup = SetUp.from_dict(
        {
            "data": "points",
            "points": [[0.5, 1, 0], [2, 3, 7]],
            "layers": [3],
            "solver": "adam",
            "parameters": [[[[1, 2, 3], [4, 5, 6]], [0, 0, 1]]],
            "rows": [[[1, 2], 1]],
        }
    )
    again = SetUp.from_dict(json.loads(json.dumps(setup.differences())))
    assert again == setup and set(setup.differences()) < set(setup.to_dict())
    assert SetUp().differences() == {}


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(sorted(CHECKS)),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=8,
        ),
        max_size=4,
    )
)
def test_anything_is_a_set_up_or_refused(given_fields):
    try:
        setup = SetUp.from_dict(given_fields)
    except SetUpError:
        return
    assert SetUp.from_dict(setup.to_dict()) == setup


@pytest.mark.parametrize("number", range(1, 9))
def test_set_ups_of_lessons(number):
    """Each is a set-up, short enough for an address, and gives a first run that is finite."""
    setup = SetUp.from_dict(course.set_up(number))
    run = build.new_run(setup, build.rows_of(setup, None))
    assert np.isfinite(run.net.params).all() and setup.title == f"Lesson {number}"
    link = course.link(number)
    assert link.startswith("#setup=") and len(link) < 2000
    text = base64.urlsafe_b64decode(link.removeprefix("#setup=") + "===")
    assert SetUp.from_dict(json.loads(text)) == setup


def test_there_is_no_ninth_lesson():
    assert SetUp.from_dict(course.set_up(5)) == SetUp.from_dict({"title": "Lesson 5", **BY_HAND})
    with pytest.raises(ValueError, match="lesson is 9; there are 1 to 8"):
        course.set_up(9)


@pytest.mark.parametrize("name", points.RECIPES)
def test_recipes_of_points(name):
    X, y = points.RECIPES[name](300, 0.0, np.random.default_rng(0))
    assert X.shape == (300, 2) and np.abs(X).max() < 1.2
    counts = np.bincount(y)
    assert counts.min() >= 300 // len(counts) - 1
    held = points.held_out(300)
    assert held.sum() == 75 and np.bincount(y[held]).min() > 75 / len(counts) / 2
    net = cmlp.Network([2, 16, 16, len(counts)], "tanh", seed=0)
    net.fit(X[~held], y[~held], epochs=400, batch_size=16, solver="adam", learning_rate=0.01)
    assert net.score(X[held], y[held]) > 0.93


def test_points_come_into_the_box():
    X = points.in_box(np.array([[100.0, 5.0], [300.0, 5.0], [200.0, 55.0]]))
    np.testing.assert_allclose(X, [[-0.95, -0.2375], [0.95, -0.2375], [0, 0.2375]])
    inside = np.array([[-0.5, 0.1], [0.5, 0.9]])
    assert points.in_box(inside) is inside


WRONG_TOGETHER = {
    "loss": {"loss": "poisson", "out_activation": "identity"},
    "one_output": {"one_output": True},
    "parameters": {"data": "moons", "layers": [2], "parameters": [[[[1]], [1]]]},
    "points": {"data": "points"},
    "data": {"data": "own"},
    "epochs": {"layers": [512] * 8, "epochs": 200},
}


@pytest.mark.parametrize("field", WRONG_TOGETHER)
def test_what_does_not_go_together(field):
    setup = SetUp.from_dict(WRONG_TOGETHER[field])
    with pytest.raises(SetUpError) as caught:
        build.new_run(setup, build.rows_of(setup, None))
    assert caught.value.field == field


def test_one_output_needs_another_cost():
    setup = SetUp(data="moons", one_output=True)
    with pytest.raises(SetUpError, match="an output for each class"):
        build.network_of(setup, build.rows_of(setup, None))


def test_a_file(tmp_path):
    file = tmp_path / "class.json"
    file.write_text('{"layers": [5], "locked": ["settings"]}')
    assert play.read_setup(str(file)) == SetUp(layers=(5,), locked=("settings",))
    for text, message in (
        ('{"layers": 5}', "layers"),
        ("[", "no set-up"),
        ("[" * 9999, "no set-up"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            play.read_setup(str(file))
    with pytest.raises(ValueError, match="drop the file on the page"):
        play.read_setup("own.csv")
    file.write_bytes(b" " * 1_000_001)
    with pytest.raises(ValueError, match="at most"):
        play.read_setup(str(file))


def test_the_function_checks_its_arguments():
    net = cmlp.Network([2, 3, 2], seed=0)
    for arguments, message in (
        ((net,), "needs rows"),
        ((None, [[1]], [1]), "needs a model"),
        (("x", [[1]], [1]), "takes a Network"),
        ((net, [[1.0]], [0]), "X"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            cmlp.play(*arguments)
    with pytest.raises(SetUpError):
        cmlp.play(setup={"layers": 3})
