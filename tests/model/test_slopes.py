"""The slope of leaky ReLU, the alpha of ELU and the epsilon of a normalisation.

Expected values are PyTorch's in float64 (2.13: functional.leaky_relu, functional.elu with its
gradients, LayerNorm and BatchNorm1d with eps=0.1).
"""

import copy
import io
import pickle

import numpy as np
import pytest
from cores import COMPILED
from helpers import blobs, covering, data_for, fit_quietly, refused

import cmlp
from cmlp import MLPClassifier, MLPRegressor, Network
from cmlp.core.layout import ACTIVATION, PARAMETER, make_plan
from cmlp.core.vocabulary import ACTIVATIONS, activation_of

POINTS = [-2, -0.5, 0, 0.5, 3]
OF_PYTORCH = {
    "leaky_relu:0.3": ([-0.6, -0.15, 0, 0.5, 3], [0.3, 0.3, 0.3, 1, 1]),
    "leaky_relu:2": ([-4, -1, 0, 0.5, 3], [2, 2, 2, 1, 1]),
    "leaky_relu:0": ([0, 0, 0, 0.5, 3], [0, 0, 0, 1, 1]),
    "elu:0.5": (
        [-0.43233235838169365, -0.1967346701436833, 0, 0.5, 3],
        [0.06766764161830635, 0.3032653298563167, 0.5, 1, 1],
    ),
    "elu:3": (
        [-2.593994150290162, -1.1804080208620997, 0, 0.5, 3],
        [0.4060058497098381, 1.8195919791379003, 3, 1, 1],
    ),
}


def unit_network(n, dtype, hidden=None, **options):
    """A network whose layers multiply by 1 and add 0."""
    sizes = [n, n] if hidden is None else [n, n, n]
    net = Network(sizes, hidden or "relu", loss="squared_error", dtype=dtype, **options)
    for W in net.weights:
        W[...] = np.eye(n)
    return net


def close(came, expected, dtype):
    room = 8 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(came, expected, rtol=room, atol=room)


@pytest.mark.parametrize("name", OF_PYTORCH)
def test_values_and_slopes_are_those_of_pytorch(core, dtype, name):
    """On rows that are alone, few and many, of narrow and wide layers, hidden ones and the last."""
    for repeats, n in ((1, 1), (1, 9), (9, 1), (9, 130)):
        x = np.tile(np.array(POINTS, dtype), (n, repeats))
        a, slopes = (np.tile(values, (n, repeats)) for values in OF_PYTORCH[name])
        for net in (
            unit_network(x.shape[1], dtype, name),
            unit_network(x.shape[1], dtype, name, parametric_activation=True),
            unit_network(x.shape[1], dtype, out_activation=name),
        ):
            close(net.predict(x), a, dtype)
            close(net.forward(x, return_all=True)[1][0], a, dtype)
            close(net.predictor(n)(x), a, dtype)
            found = net.gradients(x, np.zeros_like(x))
            close(found.inputs * n, a * slopes, dtype)


def test_epsilon_is_that_of_pytorch(core, dtype):
    options = {"normalization_epsilon": 0.1, "hidden": "identity"}
    net = unit_network(4, dtype, normalization="layer", **options)
    y = [[0, 0.3892494720807615, 1.1677484162422844, -1.556997888323046]]
    dx = [[-0.5838742081211423, -0.12090324511599415, 0.41578920881354064, 0.2889882444235956]]
    for n in (1, 40):
        x = np.repeat(np.array([[1, 2, 4, -3]], dtype), n, axis=0)
        close(net.predict(x), np.repeat(y, n, axis=0), dtype)
        close(net.predictor(n)(x), np.repeat(y, n, axis=0), dtype)
        found = net.gradients(x, net.predict(x) - np.array([1, 2, 3, 4], dtype))
        close(found.inputs * n, np.repeat(dx, n, axis=0), dtype)
    net = unit_network(2, dtype, normalization="batch", **options)
    x = np.array([[1, 2], [3, -1]], dtype)
    squares = net.gradients(x, np.zeros_like(x)).weights[1]  # variance / (variance + epsilon)
    close(squares.diagonal(), [1 / 1.1, 2.25 / 2.35], dtype)
    net.running[0][0][...], net.running[0][1][...] = [0.2, 0.05], [1.1, 1.35]
    expected = [[0.7302967433402214, 1.6193868571479293], [2.556038601690775, -0.8719775384642696]]
    for predicts in (net.predict, net.predictor(2), net.folded().predict):
        close(predicts(x), expected, dtype)
    assert net.folded().normalization_epsilon == 1e-5


NAMES = ["leaky_relu:0.3", "elu:0.5", "leaky_relu", "elu:2", "leaky_relu:0.9"]


@pytest.mark.parametrize(
    "core, normalization, parametric, batch_size, n_threads",
    covering(COMPILED, [None, "batch", "layer"], [False, True], [7, 64], [1, 3]),
    indirect=["core"],
)
def test_layers_of_different_slopes(core, normalization, parametric, batch_size, n_threads,
                                    threads_at_any_size):  # fmt: skip
    """Training is that of the NumPy core; gradients are differences."""
    X, y = blobs(70, 6, 3)
    nets = []
    for name in ("python", core.name):
        with cmlp.use_core(name):
            net = Network([6, 40, 17, 9, 5, 3], NAMES[:4], seed=1, dtype="float64",
                          normalization=normalization, parametric_activation=parametric,
                          normalization_epsilon=0.05)  # fmt: skip
            net.fit(X, y, epochs=2, batch_size=batch_size, dropout=[0, 0.2, 0, 0.1],
                    solver="adam", n_threads=n_threads)  # fmt: skip
            nets.append(net)
    plain, net = nets
    np.testing.assert_allclose(net.predict(X), plain.predict(X), rtol=0, atol=1e-8)
    np.testing.assert_allclose(net.history["loss"], plain.history["loss"], rtol=1e-9)
    checked = net.check_gradients(X[:20], y[:20], entries=6)
    assert checked, str(checked)


def test_a_row_at_a_time(core, dtype):
    """Steps on single rows, which have a short way through the core."""
    X, y = blobs(12, 4, 3)
    nets = [Network([4, 6, 5, 3], NAMES[:2], seed=0, dtype=dtype) for _ in range(2)]
    nets[0].fit(X, y, epochs=1, batch_size=1, shuffle=False, learning_rate=0.05, momentum=0)
    for i in range(len(X)):
        step = nets[1].gradients(X[i : i + 1], y[i : i + 1])
        for view, slope in zip(
            [*nets[1].weights, *nets[1].biases], [*step.weights, *step.biases], strict=True
        ):
            view -= dtype.type(0.05) * slope
    close_by = 200 * float(np.finfo(dtype).eps)
    for mine, theirs in zip(nets[0].weights, nets[1].weights, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=close_by)


# Names -------------------------------------------------------------------------------------------


def test_a_name_is_the_shortest_of_its_function():
    for given, name, parameter in (
        ("leaky_relu:0.010", "leaky_relu", 0.01), ("leaky-relu:.30", "leaky_relu:0.3", 0.3),
        ("ELU:1", "elu", 1), ("elu:2.0", "elu:2", 2), ("elu:1e-05", "elu:1e-5", 1e-5),
        ("leaky_relu:-0.0", "leaky_relu:0", 0), ("elu:1e22", "elu:1e22", 1e22),
        (f"elu:{1 / 3!r}", f"elu:{1 / 3!r}", 1 / 3),
    ):  # fmt: skip
        row = activation_of(given)
        assert (row.name, row.parameter) == (name, parameter)
        assert activation_of(name) == row
    net = Network([2, 3, 4, 1], ["leaky_relu:0.30", "elu:1.0"], "leaky_relu:0.01", "squared_error")
    assert net.activations == ("leaky_relu:0.3", "elu", "leaky_relu")
    assert "activation=['leaky_relu:0.3', 'elu']" in repr(net)
    assert "3  leaky_relu:0.3 " in net.summary()
    net.activations = ["elu:.25", "leaky_relu:0.01", "elu:0.5"]
    assert net.activations == ("elu:0.25", "leaky_relu", "elu:0.5")


def test_what_traces_write():
    X, y = blobs(4, 2, 2)
    net = Network([2, 3, 3, 2], NAMES[:2], normalization="layer", normalization_epsilon=0.001)
    text = str(net.trace_step(X, y))
    assert "a = z if z > 0 else 0.3 z" in text and "else 0.5 (exp(z) - 1)" in text
    assert "sqrt(variance + 0.001)" in text and "normalization_epsilon=0.001" in repr(net)
    assert "hidden layers normalised by layer (epsilon 0.001)" in net.summary()
    net.normalization_epsilon = 1e-5
    assert "sqrt(variance + 1e-5)" in str(net.trace_step(X, y)) and "epsilon" not in repr(net)


def test_names_that_are_refused():
    takers = "these do: leaky_relu (slope), elu (alpha)"
    for name, *parts in (
        ("relu:0.3", "relu takes no parameter", takers),
        ("linear:2", "identity takes no parameter", takers),
        ("elu:x", "alpha of elu must be a number from 0", "not 'x'"),
        ("elu:", "alpha of elu must be a number", "not ''"),
        ("elu:0.5:1", "not '0.5:1'"),
        ("leaky_relu:nan", "slope of leaky_relu must be a number from 0", "not 'nan'"),
        ("leaky_relu:-0.1", "from 0", "not '-0.1'"),
        ("leaky_relu:inf", "from 0 to 1e+30", "not 'inf'"),
        ("leaky_rely:0.1", "Did you mean 'leaky_relu'?"),
    ):
        with refused(ValueError, "activation", *parts):
            Network([2, 3, 1], name)
        with refused(ValueError, "out_activation", *parts):
            Network([2, 1], out_activation=name, loss="squared_error")
    with refused(ValueError, "poisson needs outputs between 0", "out_activation='elu:0.5'"):
        Network([2, 1], out_activation="elu:0.5", loss="poisson")
    Network([2, 1], out_activation="elu:0", loss="poisson")
    for epsilon in (0, -1, np.nan, "1"):
        with refused((ValueError, TypeError), "normalization_epsilon must be"):
            Network([2, 3, 1], normalization="layer", normalization_epsilon=epsilon)
    with refused(AttributeError, "no normalization"):
        Network([2, 3, 1]).normalization_epsilon = 0.1


def test_a_plan_with_a_slope_is_taken():
    net = Network([3, 4, 3], "relu", "identity", "squared_error")
    x = np.array([[1, -1, 2]], np.float32)
    net.plan = make_plan([3, 4, 3], ["leaky_relu:0.3", "identity"], np.float32)
    assert net.activations == ("leaky_relu:0.3", "identity")
    same = Network([3, 4, 3], "leaky_relu:0.3", "identity", "squared_error")
    same.params[...] = net.params
    np.testing.assert_array_equal(net.predict(x), same.predict(x))
    plan = net.plan.copy()
    plan[0, ACTIVATION] = activation_of("elu").code  # its alpha is not the slope
    with refused(ValueError, "assign net.activations"):
        net.plan = plan
    plan[0, PARAMETER] = np.array(-1.0).view(np.int64)
    with refused(ValueError, "alpha of elu must be a number from 0"):
        net.plan = plan
    plan[0, ACTIVATION] = activation_of("tanh").code
    net.plan = plan
    assert net.activations == ("tanh", "identity")
    np.testing.assert_array_equal(net.plan, make_plan([3, 4, 3], net.activations, np.float32))


def test_first_weights_of_a_leaky_relu():
    """Variance 2 / (1 + slope^2) / n_in (He et al. 2015, eq. 15)."""
    gains = {"leaky_relu:0.5": 1.6, "leaky_relu": 2, "leaky_relu:3": 0.2, "elu:0.5": 2}
    for name, gain in gains.items():
        W = Network([200, 300, 1], name, seed=0).weights[0]
        bound = np.sqrt(3 * gain / 200)
        assert 0.999 * bound < np.abs(W).max() <= bound
    both = (Network([20, 30, 1], name, seed=0) for name in ("leaky_relu:1", "identity"))
    np.testing.assert_array_equal(*(net.weights[0] for net in both))


# Files -------------------------------------------------------------------------------------------


def saved(net):
    file = io.BytesIO()
    net.save(file)
    return file.getvalue()


def loaded(content):
    return cmlp.load(io.BytesIO(content))


@pytest.mark.parametrize("normalization", [None, "batch", "layer"])
def test_every_copy_has_them(engine, normalization):
    X, y = blobs()
    net = Network([3, 5, 4, 3], NAMES[:2], seed=0, normalization=normalization,
                  normalization_epsilon=0.2)  # fmt: skip
    net.fit(X, y, epochs=1)
    expected, epsilon = net.predict(X), 1e-5 if normalization is None else 0.2
    assert saved(net).count(b"normalization") == 1
    for other in (loaded(saved(net)), pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        np.testing.assert_array_equal(other.predict(X), expected)
        np.testing.assert_array_equal(other.plan, net.plan)
        assert other.normalization_epsilon == epsilon
    for other in (net.astype("float64"), net.folded()):
        np.testing.assert_allclose(other.predict(X), expected, rtol=1e-5, atol=1e-6)
        assert other.activations == net.activations


def test_defaults_leave_no_trace_in_a_file():
    files = [
        saved(Network([2, 3, 3, 1], names, seed=0, normalization="layer", **more))
        for names, more in (
            (["leaky_relu:0.01", "elu:1"], {"normalization_epsilon": 1e-5}),
            (["leaky_relu", "elu"], {}),
        )
    ]
    assert files[0] == files[1] and b":0.01" not in files[0] and b"layer:" not in files[0]


def test_files_with_other_names_are_refused():
    content = saved(Network([2, 3, 1], "leaky_relu:0.3", normalization="layer",
                            normalization_epsilon=0.01))  # fmt: skip
    for old, others in {
        b"leaky_relu:0.3": [
            b"leaky_relu:.30", b"leaky_relu:nan", b"leaky_relu:inf", b"leaky_relu:-.3",
            b"leaky_relu: .3", b"leaky_relu:1_0", b"leaky_relu:000", b"softplus:0.300",
            b"leaky_relu0.30", b"leaky-relu:0.3", b"leaky_relu:+.3",
        ],
        b"layer:0.01": [
            b"layer:.010", b"layer:1e-5", b"layer:nan ", b"layer:-0.1", b"layer:0000",
            b"layer:1_00", b"layer:0:01", b"later:0.01", b"batch:0.01",
        ],
    }.items():  # fmt: skip
        assert content.count(old) == 1
        for other in others:
            with pytest.raises(cmlp.ModelFileError):
                loaded(content.replace(old, other))
    assert loaded(content.replace(b"layer:0.01", b"layer:0.07")).normalization_epsilon == 0.07


# Estimators and diagnoses ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_estimators(kind):
    X, y = data_for(kind)
    params = {"activation": ["leaky_relu:0.30", "elu:0.5"], "hidden_layer_sizes": (6, 5),
              "normalization": "layer", "normalization_epsilon": 0.1, "random_state": 0,
              "max_iter": 3, "warm_start": True}  # fmt: skip
    estimator = fit_quietly(kind(**params), X, y)
    assert estimator.network_.activations[:2] == ("leaky_relu:0.3", "elu:0.5")
    assert estimator.network_.normalization_epsilon == 0.1
    before = estimator.predict(X)
    fit_quietly(estimator, X, y)  # continues
    if kind is MLPClassifier:
        grown = copy.deepcopy(estimator).add_classes([7]).network_
        assert grown.activations == estimator.network_.activations
        assert grown.normalization_epsilon == 0.1 and grown.sizes[-1] == 4
    other = pickle.loads(pickle.dumps(estimator))
    assert params.items() <= other.get_params().items()
    estimator.normalization_epsilon = 0.2
    with refused(ValueError, "normalization_epsilon=0.1", "require 0.2"):
        estimator.fit(X, y)
    estimator.activation = "leaky_relu:0.9"
    assert estimator.network_.activations[:2] == ("leaky_relu:0.9",) * 2
    assert len(before) == len(estimator.predict(X))


def test_units_that_are_off():
    """A slope of 0 passes no gradient below 0; another one does."""
    X, y = blobs(200)
    for name, off in (("leaky_relu:0", True), ("elu:0", True), ("leaky_relu:0.1", False)):
        net = Network([3, 8, 3], name, seed=0)
        net.biases[0][:] = -1000
        assert ("dead-units" in net.diagnose(X, y).codes) == off


def test_every_function_with_a_parameter_is_there():
    """One that is added without a parameter's effect is found by its formula."""
    for row in ACTIVATIONS:
        if row.parameter:
            other = activation_of(f"{row.name}:0.75")
            assert other.code == row.code and "0.75" in other.formula and "0.75" in other.slope
