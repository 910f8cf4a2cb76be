"""What becomes of X's columns, as users describe it: checks, files, copies, views, texts."""

import copy
import json
import pickle

import numpy as np
import pytest
from helpers import refused

import cmlp
from cmlp import Inputs, ModelFileError, Network
from cmlp.core import front
from cmlp.formats import safetensors

ALL = {
    "periodic": [0, 4],
    "levels": {2: (5, 3), 6: (17, 1)},
    "summed": {3: 9, 7: 4},
    "scaled": True,
    "frequencies": 5,
    "width": 2,
}


@pytest.fixture
def net():
    return Network([8, 7, 3], inputs=Inputs(**ALL), seed=0)


def rows(n=30):
    rng = np.random.default_rng(0)
    return rng.uniform(0, 4, (n, 8)), rng.integers(0, 3, n)


# The description ---------------------------------------------------------------------------------


def test_columns_keep_their_order(net):
    """Each becomes its inputs, next to each other; a summed column has none."""
    inputs = net.inputs
    assert inputs.places(8) == [
        slice(0, 3), slice(3, 4), slice(4, 7), slice(7, 7), slice(7, 10), slice(10, 11),
        slice(11, 12), slice(12, 12),
    ]  # fmt: skip
    assert net.weights[0].shape == (12, 7)
    assert inputs == Inputs(periodic=(4, 0), levels={6: [17, 1], 2: (5, 3)}, **{
        name: ALL[name] for name in ("summed", "scaled", "frequencies", "width")
    })  # fmt: skip
    assert eval(repr(inputs), {"Inputs": Inputs}) == inputs
    assert Inputs.from_dict(json.loads(json.dumps(inputs.to_dict()))) == inputs


def test_shapes_are_those_of_the_views(net):
    shapes = {name: part.shape for name, part in net.front.items()}
    assert shapes == net.inputs.shapes(8, 7)
    assert sum(part.size for part in net.front.values()) == net.inputs.n_params(8, 7)
    weights = sum(W.size for W in net.weights) + sum(b.size for b in net.biases)
    assert net.n_params == weights + net.inputs.n_params(8, 7)


@pytest.mark.parametrize(
    "changes, kind, parts",
    [
        ({"periodic": [0, 2]}, ValueError, ["column 2", "2 times"]),
        ({"summed": {6: 3}}, ValueError, ["column 6"]),
        ({"periodic": [-1]}, ValueError, ["column", "at least 0"]),
        ({"periodic": [1.0]}, TypeError, ["whole number", "1.0"]),
        ({"periodic": "01"}, TypeError, ["periodic", "'01'"]),
        ({"levels": [3]}, TypeError, ["levels", "dict"]),
        ({"levels": {2: 5}}, TypeError, ["(rows, width)", "5"]),
        ({"levels": {2: (0, 5)}}, ValueError, ["rows of levels", "at least 1"]),
        ({"summed": {3: 2**24 + 1}}, ValueError, ["rows of summed", "16,777,216"]),
        ({"scaled": 1}, TypeError, ["scaled", "True or False"]),
        ({"frequencies": 0}, ValueError, ["frequencies"]),
        ({"width": True}, TypeError, ["width"]),
    ],
)
def test_what_is_refused(changes, kind, parts):
    with refused(kind, *parts):
        Inputs(**ALL | changes)


def test_what_does_not_fit_a_network():
    with refused(ValueError, "column 7", "X has 7"):
        Network([7, 3], inputs=Inputs(**ALL))
    with refused(TypeError, "cmlp.Inputs"):
        Network([8, 3], inputs=ALL)
    with refused(ValueError, "input_scale", "column 2"):
        Network([8, 3], inputs=Inputs(**ALL), input_scale=0.5)
    with refused(ValueError, "scaled=True", "every column is summed"):
        Network([1, 3], inputs=Inputs(summed={0: 4}, scaled=True))
    with refused(ValueError, "no memory"):
        Network([8, 2**30, 3], inputs=Inputs(summed={0: 2**24}))
    with pytest.raises(AttributeError, match="inputs="):
        Network([8, 3]).inputs = Inputs(**ALL)
    assert Network([8, 3], inputs=Inputs()).inputs is None
    scaled = Network([2, 3], inputs=Inputs(periodic=[0]), input_scale=0.5, seed=0)
    plain = Network([2, 3], inputs=Inputs(periodic=[0]), seed=0)
    np.testing.assert_array_equal(scaled.predict([[2, 4]]), plain.predict([[1, 2]]))


def test_networks_without_inputs_are_drawn_as_before():
    """The first weights of a seed are the same in every version."""
    drawn = Network([3, 4, 2], seed=5).weights
    assert drawn[0][0, 0] == pytest.approx(0.8626785, abs=1e-6)


def test_first_numbers(net):
    wide = Network(
        [2, 400, 1], "relu", inputs=Inputs(levels={0: (300, 8)}, summed={1: 300}), seed=0
    )
    E = wide.front["levels.0"]
    assert abs(E.mean()) < 0.1 and abs(E.std() - 1) < 0.1
    bound = np.sqrt(6 / 9)  # He, of eight inputs and one of the summed table
    for part in (wide.weights[0], wide.front["summed.1"]):
        assert 0.95 * bound < np.abs(part).max() <= bound
    assert (net.front["factors"] == 1).all()
    many = Network([300, 1], inputs=Inputs(periodic=range(300)), seed=0).front
    assert abs(many["periodic.frequencies"].std() - 0.1) < 0.01
    assert 3 < np.abs(many["periodic.phases"]).max() <= np.pi
    for name in ("periodic.weights", "periodic.biases"):
        assert 0.24 < np.abs(many[name]).max() <= 0.25


# Views and gradients -----------------------------------------------------------------------------


def test_views_are_written(net):
    X, y = rows()
    before = net.predict(X)
    net.front["levels.2"] = np.zeros((5, 3))
    assert not net.front["levels.2"].any() and (net.predict(X) != before).any()
    with pytest.raises(KeyError):
        net.front["levels.3"] = 1
    with pytest.raises(ValueError):
        net.front["levels.2"] = np.zeros((3, 3))
    found = net.gradients(X, y)
    assert {n: d.shape for n, d in found.front.items()} == net.inputs.shapes(8, 7)
    assert net.front.keys() == net.inputs.shapes(8, 7).keys()
    assert Network([2, 1]).front == {}
    assert Network([2, 1]).gradients([[1, 2]], [[1]]).front == {}


def test_wrong_gradients_of_the_front_are_found(engine, monkeypatch):
    from cmlp.model import passes
    from cmlp.model.parameters import Parameters

    # Two predictions for every parameter: few of each kind, and few rows.
    fewer = ALL | {"levels": {2: (5, 1), 6: (4, 1)}, "frequencies": 2, "width": 1}
    net = Network([8, 2, 3], inputs=Inputs(**fewer), seed=0)
    exact = passes.backpropagate

    def wrong(net, *arguments, **options):
        found = exact(net, *arguments, **options)
        Parameters(net.plan, found.gradient).front["summed.3"][2, 1] += 1
        return found

    assert net.check_gradients(*rows())
    monkeypatch.setattr(passes, "backpropagate", wrong)
    check = net.check_gradients(*rows())
    assert not check and check.worst.entry == "summed.3[2, 1]"


def test_a_trace_has_the_front(engine, net):
    X, y = rows(3)
    before = copy.deepcopy(net)
    trace = net.trace_step(X, y, solver="sgd", momentum=0.0, learning_rate=0.5)
    shown = trace.front
    for name, dpart in before.gradients(X, y).front.items():
        np.testing.assert_allclose(shown.gradients[name], dpart, atol=1e-6)
        np.testing.assert_allclose(shown.new_arrays[name], net.front[name])
        np.testing.assert_allclose(
            shown.new_arrays[name], shown.arrays[name] - 0.5 * shown.gradients[name], atol=1e-6
        )
    z = shown.inputs @ before.weights[0] + before.biases[0] + shown.sums
    np.testing.assert_allclose(trace.layers[0].z, z, atol=1e-5)
    for text in ("Forward, front", "summed.7", "Backward, front", "new periodic.weights"):
        assert text in str(trace)
    assert Network([8, 3]).trace_step(X, y).front is None


def test_a_summary_shows_the_front(net):
    text = net.summary()
    for line in ("2 columns periodic", "2 columns of levels", "2 columns of summed levels",
                 "a factor for each input: 12 numbers"):  # fmt: skip
        assert line in text
    assert f"{net.n_params:,} parameters" in text
    assert "Inputs(periodic=[0, 4], levels={2: (5, 3)" in repr(net)


# Copies and files --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [None, "batch", "layer"])
def test_copies_and_files(engine, dtype, kind, tmp_path):
    net = Network([8, 7, 5, 3], inputs=Inputs(**ALL), seed=0, dtype=dtype, normalization=kind)
    X, y = rows()
    net.fit(X, y, epochs=3, solver="adam")
    out = net.predict(X)
    net.save(tmp_path / "net.cmlp", optimizer=True)
    copies = {
        "file": cmlp.load(tmp_path / "net.cmlp"),
        "pickle": pickle.loads(pickle.dumps(net)),
        "copy": copy.copy(net),
        "dtype": net.astype(dtype),
    }
    for name, other in copies.items():
        np.testing.assert_array_equal(other.predict(X), out, err_msg=name)
        assert other.inputs == net.inputs, name
        assert not np.shares_memory(other.params, net.params)
    copies["file"].fit(X, y, epochs=2, solver="adam")
    net.fit(X, y, epochs=2, solver="adam")
    np.testing.assert_array_equal(copies["file"].params, net.params)


@pytest.mark.parametrize("kind", [None, "batch"])
def test_factors_are_folded(engine, dtype, kind):
    net = Network([8, 7, 3], inputs=Inputs(**ALL), seed=0, dtype=dtype, normalization=kind)
    X, y = rows()
    net.fit(X, y, epochs=3, solver="adam")
    folded = net.folded()
    assert not folded.inputs.scaled and "factors" not in folded.front
    room = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(folded.predict(X), net.predict(X), rtol=0, atol=room)
    only = Network([2, 3], inputs=Inputs(scaled=True), seed=0)
    only.front["factors"] = [2, 3]
    assert only.folded().inputs is None
    np.testing.assert_allclose(only.folded().predict([[1, 1]]), only.predict([[1, 1]]), rtol=1e-6)


def metadata(path):
    found = []
    arrays, _ = safetensors.read(path, lambda metadata, infos: found.append(metadata))
    return arrays, dict(found[0])


HOSTILE = {
    "a column twice": ("levels", [[2, 5, 3], [2, 5, 3]]),
    "a column that is not there": ("periodic", [0, 8]),
    "a column that is no number": ("periodic", [0, "4"]),
    "a column that is true": ("periodic", [0, True]),
    "a table that is larger": ("summed", [[3, 10], [7, 4]]),
    "a table of no rows": ("summed", [[3, 0], [7, 4]]),
    "a table as large as memory": ("levels", [[2, 2**24, 2**24], [6, 17, 1]]),
    "a table in words": ("levels", ["abc", "def"]),
    "too few numbers": ("levels", [[2, 5], [6, 17]]),
    "more frequencies": ("frequencies", 2**24),
    "a fraction": ("frequencies", 5.0),
    "no factors": ("scaled", False),
    "truth as a number": ("scaled", 1),
    "nothing": ("width", None),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files(net, case, tmp_path):
    path = tmp_path / "net.cmlp"
    net.save(path)
    arrays, text = metadata(path)
    network = json.loads(text["network"])
    name, value = HOSTILE[case]
    network["inputs"][name] = value
    safetensors.write(path, arrays, text | {"network": json.dumps(network)})
    with refused(ModelFileError, path):
        cmlp.load(path)


def test_files_without_inputs_stay_as_they_are(tmp_path):
    """Older versions read them."""
    Network([2, 3]).save(tmp_path / "net.cmlp")
    assert "inputs" not in metadata(tmp_path / "net.cmlp")[1]["network"]


def test_a_million_plain_columns_cost_nothing():
    """Parts are runs of columns, however many there are."""
    parts = Inputs(summed={5: 3}).parts(10**12, 4)
    assert [(part.kind, part.count) for part in parts] == [
        (front.PLAIN, 5), (front.SUMMED, 1), (front.PLAIN, 10**12 - 6),
    ]  # fmt: skip


# Training ----------------------------------------------------------------------------------------


def test_a_table_learns_a_function_of_a_number(engine):
    """Linear between knots: exactly the target's form."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 4, (400, 1))
    y = np.interp(x, np.arange(5), [0, 2, -1, 1, 0])
    net = Network([1, 1], loss="squared_error", inputs=Inputs(summed={0: 5}), seed=0)
    net.fit(x, y, epochs=60, solver="adam", learning_rate=0.05)
    at = np.arange(5.0)[:, None]
    np.testing.assert_allclose(net.predict(at)[:, 0], [0, 2, -1, 1, 0], atol=0.05)


def test_one_hot_columns_are_a_summed_table(engine, dtype):
    """The same steps as a network that is given the columns, on the same weights."""
    rng = np.random.default_rng(0)
    codes, y = rng.integers(0, 6, 40), rng.integers(0, 2, 40)
    written = Network([6, 9, 2], "tanh", seed=0, dtype=dtype)
    summed = Network([1, 9, 2], "tanh", seed=0, dtype=dtype, inputs=Inputs(summed={0: 6}))
    summed.front["summed.0"] = written.weights[0]
    summed.weights[1] = written.weights[1]
    settings = {"solver": "adam", "batch_size": 8, "shuffle": False, "weight_decay": 0.1}
    for _ in range(5):
        one = written.train_epoch(np.eye(6)[codes], y, **settings)
        other = summed.train_epoch(codes[:, None], y, **settings)
        assert other == pytest.approx(one, rel=1e-5)
    room = 1e-4 if dtype == np.float32 else 1e-10
    np.testing.assert_allclose(summed.front["summed.0"], written.weights[0], rtol=0, atol=room)
