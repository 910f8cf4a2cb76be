"""What programs assign to a network: every prediction uses it, or it is refused at once."""

import copy
import pickle

import numpy as np
import pytest
from helpers import blobs, data_for, fit_quietly, refused, waves

import cmlp
from cmlp import MLPClassifier, MLPRegressor, Network
from cmlp.core.layout import ACTIVATION, make_plan

TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


def trained(loss=None, n_out=3, **more):
    X, y = blobs() if n_out > 1 else waves()
    net = Network([3, 4, n_out], "tanh", loss=loss, seed=0, **more)
    net.fit(X, y, epochs=2)
    return net


@pytest.fixture(params=["pickle", "copy", "file"])
def through(request, tmp_path):
    """A network's way through a pickle, a copy or a file."""

    def file(net):
        net.save(tmp_path / "net.cmlp", optimizer=True)
        return cmlp.load(tmp_path / "net.cmlp")

    ways = {"pickle": lambda net: pickle.loads(pickle.dumps(net)), "copy": copy.copy, "file": file}
    return ways[request.param]


def layout(*names):
    return make_plan([3, 4, 3], names, np.float32)


TAKEN = {
    "input_scale": (np.float32(0.5), 0.5),
    "activations": (["ReLU", "sigmoid"], ("relu", "logistic")),
    "plan": (layout("relu", "logistic"), layout("relu", "logistic")),
    "classes": ((5, 6, 7), [5, 6, 7]),
    "feature_names": (np.array([1, "b", 2.5], object), ["1", "b", "2.5"]),
    "target_name": (("a", 1), "('a', 1)"),
    "history": ({"loss": [np.float32(1), 2]}, {"loss": [1.0, 2.0]}),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_assigned_predicts_everywhere(engine, through, name):
    X, net = blobs()[0].astype(np.float32), trained()
    before = net.predict(X)
    value, becomes = TAKEN[name]
    setattr(net, name, value)
    now = net.predict(X)
    assert np.array_equal(now, before) == (name not in ("input_scale", "activations", "plan"))
    np.testing.assert_allclose(net.predict(X.tolist()), now, rtol=1e-5, atol=1e-6)
    other = through(net)
    for same in (net, other):
        found = getattr(same, name)
        assert (found.tolist() if name == "classes" else found) is not None
        np.testing.assert_array_equal(found, becomes)
    np.testing.assert_array_equal(other.predict(X), now)
    assert other.predict_classes(X).tolist() == net.predict_classes(X).tolist()
    assert (other.activations, other.input_scale) == (net.activations, net.input_scale)


def unaligned(params):
    raw = np.zeros(params.nbytes + 1, np.uint8)
    out = raw[1:].view(params.dtype)
    out[:] = params
    return out


def frozen(params):
    params.flags.writeable = False
    return params


PARAMS = {
    "as they are": lambda p: p,
    "float64": lambda p: p.astype(np.float64),
    "another byte order": lambda p: p.astype(p.dtype.newbyteorder()),
    "every second": lambda p: np.repeat(p, 2)[::2],
    "backwards": lambda p: p[::-1].copy()[::-1],
    "read-only": frozen,
    "unaligned": unaligned,
    "a list": lambda p: p.tolist(),
    "numbers in the padding": lambda p: np.where(p == 0, 3, p).astype(p.dtype),
}


@pytest.mark.parametrize("kind", PARAMS)
@pytest.mark.parametrize("more", [{}, {"normalization": "batch"}], ids=str)
def test_parameters_of_any_kind(engine, through, kind, more):
    X, net = blobs()[0], trained(**more)
    half = copy.deepcopy(net)
    for part in half.parameter_views.parts().values():
        part *= 0.5
    net.predict(X)
    net.params = PARAMS[kind](half.params.copy())
    np.testing.assert_array_equal(net.predict(X), half.predict(X))
    np.testing.assert_array_equal(through(net).predict(X), half.predict(X))
    assert net.params.dtype == np.float32 and net.params.shape == half.params.shape


def test_parameters_that_fit_are_not_copied():
    net = trained()
    mine = net.params.copy()
    net.params = mine
    assert net.params is mine


P = trained().params
NOT_TAKEN = {
    "sizes": [((3, 4, 5), "cannot be assigned")],
    "dtype": [("float64", "net.astype")],
    "normalization": [("batch", "cannot be assigned")],
    "weight_init": [("zeros", "cannot be assigned")],
    "loss_name": [("mse", "")],
    "weights": [([np.ones((3, 4))], "")],
    "loss_parameter": [(0.5, "the loss categorical_crossentropy has no parameter")],
    "missing_targets": [(True, "has no meaning for categorical_crossentropy")],
    "input_scale": [(v, "input_scale must be") for v in (np.nan, 0, -1, np.inf, "1", None, [1])],
    "activations": [
        ("relu", "a list of names"), (["relu"], "must have 2 names, one per layer, not 1"),
        (["relu", "softmaxx"], "Unknown activation 'softmaxx'"), (None, "a list of names"),
        (["softmax", "softmax"], "softmax is for the output layer"),
    ],
    "plan": [(layout("relu", "relu") + 1, "net.activations"), (None, "net.activations"),
             (layout("softmax", "relu"), "softmax is for the output layer")],
    "params": [(v, "params must be") for v in (P[:-1], P[None], P.astype(int), P + 0j, None, "a")]
    + [(P.astype(np.float64) * 1e300, "params holds numbers that are too large for float32")],
    "feature_names": [(["a"], "must have 3 names, one per input, not 1"), ("abc", "must be a list"),
                      (5, "must be a list")],
    "history": [(None, "must be a History"), ([1], "must be a History")],
    "rng": [("x", "")],
    "activation": [("tanh", "assign net.activations")],
    "out_activation": [("softmax", "assign net.activations")],
    "loss": [("squared_error", "loss=...")],
    "loss_row": [("squared_error", "loss=...")],
    "huber_delta": [(2.0, "net.loss_parameter")],
    "seed": [(1, "net.rng")],
    "learning_rate": [(0.1, "a parameter of fit")],
    "feature_name": [(["a", "b", "c"], "no attribute 'feature_name'")],
    "predict": [(print, "predict is a method")],
    "solver": [("sdg", "Unknown solver 'sdg'"), (None, "Unknown solver")],
    "moments": [(np.zeros((1, 3)), "moments must be"), (None, "moments must be")],
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_what_is_not_assigned_leaves_no_trace(engine, name):
    X, net = blobs()[0], trained()
    before = net.predict(X)
    for value, message in NOT_TAKEN[name]:
        with refused((ValueError, TypeError, AttributeError), message):
            setattr(net, name, value)
        np.testing.assert_array_equal(net.predict(X), before)


class Noted(Network):
    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.note = "mine"


@pytest.mark.parametrize("kind", [Network, Noted])
def test_a_program_may_have_attributes_of_its_own(kind):
    net = kind([3, 4, 3], seed=0)
    net.scaler = net.note = "mine"
    net.note += "!"
    assert copy.copy(net).note == "mine!" and pickle.loads(pickle.dumps(net)).scaler == "mine"
    with refused(AttributeError, "predict is a method"):
        net.predict = print


@pytest.mark.parametrize("kind", [np.array, tuple, lambda values: (value for value in values)])
def test_a_column_of_a_history_may_be_any_list(through, kind):
    X, y = blobs()
    net = trained()
    net.history["loss"] = kind([0.5, 0.25])
    said = str(net.diagnose(X, y))
    assert str(through(net).diagnose(X, y)) == said
    assert len(net.fit(X, y, epochs=1)["loss"]) == 1 and net.history["loss"][:2] == [0.5, 0.25]
    for wrong in (3, "abc", None):
        with refused(TypeError, "history['loss'] must be a list of numbers"):
            net.history["loss"] = wrong


def test_the_parameter_of_a_loss(through):
    net = trained("quantile", 1, quantile=0.2)
    net.loss_parameter = 0.9
    assert through(net).loss_parameter == 0.9
    for wrong in (1.5, np.nan, "a"):
        with refused((ValueError, TypeError), "loss_parameter must be"):
            net.loss_parameter = wrong
    with refused(ValueError, "softmax needs an output per class"):
        net.activations = ["tanh", "softmax"]


def test_a_seed_is_assigned(through):
    X, y = blobs()
    net, other = trained(), trained()
    net.rng, other.rng = 5, np.random.default_rng(5)
    net.fit(X, y, epochs=1)
    other.fit(X, y, epochs=1)
    np.testing.assert_array_equal(net.params, other.params)
    assert through(net).rng.bit_generator.state == other.rng.bit_generator.state


@pytest.mark.parametrize("state, message", [
    ({"steps": -1}, "steps must be at least 0"),
    ({"steps": "a"}, "steps must be a whole number"),
    ({"averaged": 9}, "moments must be (2,"),
    ({"solver": "adam"}, "moments must be (2,"),
])  # fmt: skip
def test_an_optimizer_that_no_training_could_go_on_from(tmp_path, state, message):
    net = trained()
    for name, value in state.items():
        setattr(net, name, value)
    with refused((ValueError, TypeError), message):
        net.save(tmp_path / "net.cmlp", optimizer=True)
    assert not any(tmp_path.iterdir())
    net.save(tmp_path / "net.cmlp")
    cmlp.load(tmp_path / "net.cmlp")


def test_what_was_changed_in_place_is_looked_at_by_save(tmp_path):
    for change, message in (
        (lambda net: net.feature_names.append("a"), "one feature name per input"),
        (lambda net: net.plan.__setitem__((0, ACTIVATION), 3), "plan was changed in place"),
    ):
        net = trained()
        change(net)
        with refused(ValueError, message):
            net.save(tmp_path / "net.cmlp")
    assert not any(tmp_path.iterdir())


ASSIGNMENTS = {
    "input_scale": lambda net: 0.5 * net.input_scale,
    "params": lambda net: net.params * net.dtype.type(0.5),
    "plan": lambda net: make_plan(
        net.sizes, ("gelu", net.activations[-1]), net.dtype, net.normalization
    ),
    "activations": lambda net: ("selu", net.activations[-1]),
}


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("normalization", [None, "batch"])
def test_network_and_estimator_take_the_same_short_way(engine, kind, normalization):
    X, y = data_for(kind)
    params = {"hidden_layer_sizes": (4,), "max_iter": 2, "random_state": 0}
    estimator = kind(normalization=normalization, **params)
    net = fit_quietly(estimator, X, y).network_
    for rows in (X[:1].astype(np.float32), X.astype(np.float32), X):
        for name, value in ASSIGNMENTS.items():
            before = estimator._outputs(rows)
            setattr(net, name, value(net))
            now = estimator._outputs(rows)
            assert (now != before).any() or name in ("plan", "activations")
            np.testing.assert_array_equal(net.predict(rows), now)
            np.testing.assert_allclose(net.predict(rows.tolist()), now, **TOLERANCE)
            fresh = pickle.loads(pickle.dumps(net))
            np.testing.assert_array_equal(fresh.predict(rows), now)
    for name in cmlp.core_info().available:
        with cmlp.use_core(name):
            np.testing.assert_array_equal(estimator._outputs(X), net.predict(X))
    estimator.network_ = net.folded()
    np.testing.assert_allclose(estimator._outputs(X), net.predict(X), **TOLERANCE)
