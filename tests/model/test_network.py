"""The network: what it is made of, what it refuses, and what it returns."""

import copy
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from helpers import blobs, refused, squared_error, waves
from oracle import check_same

import cmlp
from cmlp import Network
from cmlp.core.vocabulary import ACTIVATIONS, INITIALISERS, LOSSES

# Made of ------------------------------------------------------------------------------------------

WRONG = {
    "no outputs": (([64],), ValueError, ("inputs and outputs", "[64]")),
    "no layers": (([],), ValueError, ("inputs and outputs",)),
    "zero units": (([3, 0, 1],), ValueError, ("size", "at least 1", "0")),
    "negative units": (([3, -1],), ValueError, ("size", "at least 1", "-1")),
    "half a unit": (([3, 2.5, 1],), TypeError, ("size", "whole number", "2.5")),
    "truth as a size": (([3, True],), TypeError, ("size", "whole number", "True")),
    "sizes as text": (("64,10",), TypeError, ("sizes", "sequence", "'64,10'")),
    "unknown activation": (([3, 2, 1], "rleu"), ValueError, ("activation", "'rleu'", "'relu'?")),
    "misspelt": (([3, 2, 1], "ReLo"), ValueError, ("'ReLo'", "Did you mean 'relu'?", "Known:")),
    "in a list": (([3, 2, 2, 1], ["tanh", "tan"]), ValueError, ("'tan'", "'tanh'?")),
    "too few": (([3, 2, 2, 1], ["tanh"]), ValueError, ("1", "2", "hidden layer")),
    "too many": (([3, 2, 1], ["tanh", "tanh"]), ValueError, ("2", "1", "hidden layer")),
    "hidden softmax": (([3, 2, 1], "softmax"), ValueError, ("softmax", "out_activation")),
    "unknown output": (([3, 2], "relu", "sofmax"), ValueError, ("out_activation", "'softmax'?")),
    "unknown loss": (([3, 2], "relu", None, "hubber"), ValueError, ("loss", "'huber'?")),
    "a number as loss": (([3, 2], "relu", None, 5), ValueError, ("Unknown loss 5", "Known:")),
    "unknown start": (([3, 2], "relu", None, None, "he-norm"), ValueError, ("'he_normal'?",)),
    "integers": (([3, 2], "relu", None, None, "auto", "int32"), ValueError, ("float64", "int32")),
    "half": (([3, 2], "relu", None, None, "auto", "float16"), ValueError, ("float32", "float16")),
    "swapped": (([3, 2], "relu", None, None, "auto", ">f4"), ValueError, ("float32", ">f4")),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_parameters_are_refused(case):
    arguments, kind, parts = WRONG[case]
    with refused(kind, *parts):
        Network(*arguments)


@pytest.mark.parametrize(
    "name, value",
    [
        ("sizes", 5),
        ("sizes", None),
        ("sizes", [10**10, 10**10]),
        ("activation", None),
        ("activation", 5),
        ("dtype", "floatt"),
    ],
)
def test_error_names_the_parameter(name, value):
    arguments = {"sizes": [3, 4, 1], name: value}
    with refused((TypeError, ValueError, MemoryError), name.removesuffix("s")):
        Network(**arguments)


@pytest.mark.parametrize("name", ["quantile", "huber_delta"])
@pytest.mark.parametrize(
    "value, kind", [(-0.1, ValueError), (math.nan, ValueError), ("a", TypeError)]
)
def test_loss_parameters_are_checked(name, value, kind):
    with refused(kind, name, repr(value)):
        Network([3, 1], **{name: value})


@pytest.mark.parametrize(
    "value, kind",
    [(0, ValueError), (-1, ValueError), (math.nan, ValueError), (math.inf, ValueError),
     (1e-60, ValueError), (1e60, ValueError), ("a", TypeError), (None, TypeError)],
)  # fmt: skip
def test_input_scale_is_checked(value, kind):
    with refused(kind, "input_scale", repr(value)):
        Network([3, 1], input_scale=value)


INFERRED = {
    (1, None, None): ("squared_error", "identity"),
    (3, None, None): ("categorical_crossentropy", "softmax"),
    (3, "softmax", None): ("categorical_crossentropy", "softmax"),
    (1, "logistic", None): ("binary_crossentropy", "logistic"),
    (3, "sigmoid", None): ("binary_crossentropy", "logistic"),
    (3, "exp", None): ("poisson", "exp"),
    (3, "identity", None): ("squared_error", "identity"),
    (3, "tanh", None): ("squared_error", "tanh"),
    (1, None, "mse"): ("squared_error", "identity"),
    (3, None, "bce"): ("binary_crossentropy", "logistic"),
    (3, None, "poisson"): ("poisson", "exp"),
    (3, None, "pinball"): ("quantile", "identity"),
    (3, "relu", "huber"): ("huber", "relu"),
    (3, None, squared_error): ("custom", "identity"),
    (3, "tanh", squared_error): ("custom", "tanh"),
}


@pytest.mark.parametrize("given", INFERRED, ids=str)
def test_loss_and_output_follow_from_each_other(given):
    n_out, out, loss = given
    net = Network([4, n_out], out_activation=out, loss=loss)
    assert (net.loss_name, net.activations[-1]) == INFERRED[given]


SHARES = {"logistic", "softmax", "hard_sigmoid"}
POSITIVE = SHARES | {"relu", "softplus", "exp"}


@pytest.mark.parametrize("loss", [row.name for row in LOSSES])
@pytest.mark.parametrize("out", [row.name for row in ACTIVATIONS])
def test_outputs_must_suit_the_loss(loss, out):
    suits = {
        "binary_crossentropy": out in SHARES,
        "categorical_crossentropy": out in SHARES,
        "poisson": out in POSITIVE,
    }.get(loss, True)
    if suits:
        assert Network([3, 2], "relu", out, loss).loss_name == loss
        return
    with refused(ValueError, loss, repr(out), "outputs between 0 and"):
        Network([3, 2], "relu", out, loss)


def test_one_activation_per_layer():
    net = Network([2, 3, 4, 1], ["tanh", "swish"], "exp")
    assert net.activations == ("tanh", "silu", "exp")
    assert "['tanh', 'silu']" in repr(net) and "poisson" in repr(net)
    assert Network([2, 1], []).activations == ("identity",)


@pytest.mark.parametrize("sizes", [[3, 1], [1, 1, 1], [5, 17, 2, 33]], ids=str)
def test_parameters_are_one_vector_with_views(sizes, dtype):
    net = Network(sizes, dtype=dtype, seed=0)
    assert net.params.dtype == dtype and net.params.ndim == 1
    assert [W.shape for W in net.weights] == list(pairwise(sizes))
    assert [b.shape for b in net.biases] == [(n,) for n in sizes[1:]]
    assert all(np.shares_memory(part, net.params) for part in (*net.weights, *net.biases))
    assert not any(b.any() for b in net.biases)
    assert net.n_params == sum(part.size for part in (*net.weights, *net.biases))
    for part in (*net.weights, *net.biases):
        part[...] = 7
    assert np.count_nonzero(net.params) == net.n_params, "something wrote into the padding"


def test_writing_into_a_view_changes_the_answer(engine):
    net = Network([2, 1], weight_init="zeros")
    net.weights[0][:] = [[2], [3]]
    net.biases[0][:] = 0.5
    np.testing.assert_array_equal(net.predict([[10, 100]]), [[320.5]])


@pytest.mark.parametrize("name", ["auto", *(row.name for row in INITIALISERS)])
def test_first_weights_come_from_the_seed(name):
    first, same, other = (Network([6, 5, 4], weight_init=name, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.params, same.params)
    assert (name == "zeros") == np.array_equal(first.params, other.params)


@pytest.mark.parametrize("seed", ["a", -1, 1.5])
def test_wrong_seeds(seed):
    with pytest.raises((TypeError, ValueError)):
        Network([3, 1], seed=seed)


def test_a_generator_as_seed_is_used_not_copied():
    rng = np.random.default_rng(3)
    first, second = Network([3, 2], seed=rng), Network([3, 2], seed=rng)
    assert not np.array_equal(first.params, second.params)
    np.testing.assert_array_equal(first.params, Network([3, 2], seed=3).params)


def test_summary_counts():
    lines = Network([64, 32, 10]).summary().splitlines()
    assert len(lines) == 4
    assert lines[1].split() == ["1", "64", "->", "32", "relu", "2,048", "32"]
    assert lines[2].split() == ["2", "32", "->", "10", "softmax", "320", "10"]
    assert "2,410 parameters" in lines[3] and "categorical_crossentropy" in lines[3]


@pytest.mark.parametrize(
    "sizes",
    [[1, 1], [64, 32, 10], [4_000_000, 3, 2], [3, 20_000_000, 1], [30_000, 4_000, 2]],
)
def test_the_columns_of_a_summary_are_aligned(sizes):
    architecture = Network([1] * len(sizes)).architecture  # without the memory for it
    head, *lines, last = replace(architecture, sizes=tuple(sizes)).summary().splitlines()
    assert {len(line) for line in lines} == {len(head)}
    assert all(line.index("->") == head.index("->") for line in lines)
    n_params = sum((n_in + 1) * n_out for n_in, n_out in pairwise(sizes))
    assert last.startswith(f"{n_params:,} parameters (")


def test_the_size_of_a_small_network_is_not_shown_as_0():
    assert "2 parameters (8 bytes, float32)" in Network([1, 1]).summary()
    assert "2 parameters (16 bytes, float64)" in Network([1, 1], dtype="float64").summary()
    assert "250 parameters (1.0 kB, float32)" in Network([24, 10]).summary()


@pytest.mark.parametrize("value", [1e-30, 0.1, 0.999999999])
def test_the_parameter_of_a_loss_is_shown(value):
    net = Network([3, 1], loss="quantile", quantile=value)
    assert f"loss='quantile', quantile={value!r}," in repr(net)
    net = Network([3, 1], loss="huber", huber_delta=value, input_scale=value)
    assert f"loss='huber', huber_delta={value!r}," in repr(net)
    assert f"input_scale={value!r}" in repr(net) and f"times {value:g}" in net.summary()
    assert "huber_delta" not in repr(Network([3, 1], huber_delta=value))


def test_input_scale_is_shown_where_there_is_one():
    assert "input" not in repr(Network([3, 1])) + Network([3, 1]).summary().splitlines()[-1]
    net = Network([3, 1], input_scale=0.25)
    assert repr(net).endswith(", input_scale=0.25)")
    assert net.summary().endswith("inputs times 0.25")


duplicates = pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net)),
     lambda net: net.astype("float64")],
    ids=["copy", "deepcopy", "pickle", "astype"],
)  # fmt: skip


@duplicates
def test_copies_begin_at_a_cache_line(duplicate):
    nets = [Network([3, 4, 2], seed=0)]
    for _ in range(8):  # one may be there by chance
        nets.append(duplicate(nets[-1]))
        nets[-1].fit([[1, 2, 3], [3, 2, 1]], [0, 1], epochs=1)
    for net in nets[1:]:
        assert net.params.ctypes.data % 64 == net.moments.ctypes.data % 64 == 0


@duplicates
def test_input_scale_is_kept(duplicate):
    net = Network([3, 4, 2], seed=0, input_scale=1 / 255)
    other = duplicate(net)
    assert other.input_scale == net.input_scale == 1 / 255
    np.testing.assert_allclose(other.predict([[0, 100, 255]]), net.predict([[0, 100, 255]]), 1e-5)


def test_astype(engine):
    X, y = blobs()
    net = Network([3, 5, 3], seed=0)
    net.fit(X, np.array(["a", "b", "c"])[y], solver="adam", epochs=2)
    wide = net.astype("float64")
    assert wide.dtype == np.float64 and wide.predict(X).dtype == np.float64
    np.testing.assert_allclose(wide.predict(X), net.predict(X), rtol=1e-5)
    np.testing.assert_array_equal(wide.astype(np.float32).params, net.params)
    assert wide.classes.tolist() == ["a", "b", "c"] and wide.history == net.history
    before = net.params.copy(), net.rng.bit_generator.state, len(net.history["loss"])
    wide.fit(X, np.array(["a", "b", "c"])[y], epochs=1)
    np.testing.assert_array_equal(net.params, before[0])
    assert (net.rng.bit_generator.state, len(net.history["loss"])) == before[1:]


@pytest.mark.parametrize("wrong", ["float16", "int32", ">f4", "complex64"])
def test_astype_knows_two_types(wrong):
    with refused(ValueError, "float32", "float64", np.dtype(wrong)):
        Network([3, 1]).astype(wrong)


# Answers ------------------------------------------------------------------------------------------


def test_forward_is_the_textbook(core, dtype):
    net = Network([3, 4, 2], "tanh", "softmax", dtype=dtype, seed=0)
    X, _ = waves(7)
    (W1, W2), (b1, b2) = net.weights, net.biases
    b1[:], b2[:] = 0.1, (-0.2, 0.3)
    z1 = X @ W1 + b1
    z2 = np.tanh(z1) @ W2 + b2
    p = np.exp(z2) / np.exp(z2).sum(axis=1, keepdims=True)
    found = net.forward(X, return_all=True)
    close = {
        "rtol": 2e-5 if dtype == np.float32 else 1e-12,
        "atol": 1e-6 if dtype == np.float32 else 0,
    }
    for came, expected in zip((*found.z, *found.a), (z1, z2, np.tanh(z1), p), strict=True):
        assert came.dtype == dtype
        np.testing.assert_allclose(came, expected, **close)
    np.testing.assert_array_equal(net.forward(X), net.predict(X))
    np.testing.assert_allclose(net.predict(X), p, **close)


@pytest.mark.parametrize("loss", ["categorical_crossentropy", squared_error])
def test_scaled_pixels_are_the_numbers_they_stand_for(core, dtype, loss):
    """Bytes with an input_scale give the bits of numbers that were multiplied before."""
    rng = np.random.default_rng(0)
    pixels, y = rng.integers(0, 256, (70, 9), np.uint8), np.arange(70) % 3
    numbers = pixels.astype(dtype) * dtype.type(1 / 255)
    net, plain = (
        Network([9, 17, 3], out_activation="softmax", loss=loss, dtype=dtype, seed=0, **options)
        for options in ({"input_scale": 1 / 255}, {})
    )
    for _ in range(2):  # before and after a training
        check_same(core, net.predict(pixels), plain.predict(numbers))
        for mine, theirs in zip(
            net.forward(pixels, return_all=True), plain.forward(numbers, return_all=True),
            strict=True,
        ):  # fmt: skip
            for layer, same in zip(mine, theirs, strict=True):
                check_same(core, layer, same)
        assert net.loss(pixels, y) == pytest.approx(plain.loss(numbers, y), rel=1e-6)
        assert net.score(pixels, y) == plain.score(numbers, y)
        mine, theirs = net.gradients(pixels, y), plain.gradients(numbers, y)
        for layer, same in zip(mine.weights, theirs.weights, strict=True):
            check_same(core, layer, same)
        check_same(core, mine.inputs, theirs.inputs * dtype.type(1 / 255))
        for X, one in ((pixels, net), (numbers, plain)):
            one.step(X, y)
            one.train_epoch(X, y, batch_size=8, input_noise=0.1)
            one.fit(X, y, epochs=2, dropout=0.2, validation_fraction=0.2, patience=2, n_threads=2)
        check_same(core, net.params, plain.params)


def test_no_rows(engine):
    net = Network([3, 4, 2], seed=0)
    assert net.predict(np.empty((0, 3))).shape == (0, 2)
    assert net.predict_classes(np.empty((0, 3), np.uint8)).shape == (0,)
    assert [a.shape for a in net.forward(np.empty((0, 3)), return_all=True).a] == [(0, 4), (0, 2)]
    for ask in (net.loss, net.score, net.gradients, net.fit, net.step, net.trace_step):
        with refused(ValueError, "X has no rows"):
            ask(np.empty((0, 3)), [])


def test_threads_may_share_a_network(engine):
    net = Network([8, 16, 4], seed=0)
    X = np.random.default_rng(0).normal(size=(300, 8))
    expected = net.predict(X)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: net.predict(X), range(200)))
    assert all(np.array_equal(answer, expected) for answer in answers)


def test_predict_classes():
    X, y = blobs()
    net = Network([3, 3], seed=0)
    out = net.predict(X)
    np.testing.assert_array_equal(net.predict_classes(X), out.argmax(axis=1))
    net.fit(X, np.array(["x", "y", "z"])[y], epochs=30, learning_rate=0.1)
    assert np.mean(net.predict_classes(X) == np.array(["x", "y", "z"])[y]) == net.score(
        X, np.array(["x", "y", "z"])[y]
    )
    binary = Network([3, 1], loss="bce", seed=0)
    np.testing.assert_array_equal(binary.predict_classes(X), binary.predict(X)[:, 0] > 0.5)
    labels = Network([3, 2], loss="bce", seed=0)
    np.testing.assert_array_equal(labels.predict_classes(X), labels.predict(X) > 0.5)
    with refused(ValueError, "squared_error", "use predict"):
        Network([3, 1]).predict_classes(X)


def test_a_single_output_reads_its_own_labels(engine):
    X, y = blobs(40, n_classes=2)
    for labels in ([-1, 1], ["no", "yes"], [5, 7]):
        net = Network([3, 4, 1], loss="bce", seed=0)
        net.fit(X, np.array(labels)[y], epochs=30, learning_rate=0.3)
        np.testing.assert_array_equal(net.predict_classes(X), np.array(labels)[y])
        assert net.score(X, np.array(labels)[y]) == 1


def test_score_of_numbers_is_r2(engine):
    X, y = waves(80, n_out=2)
    net = Network([3, 6, 2], out_activation="identity", dtype="float64", seed=0)
    r2 = 1 - ((y - net.predict(X)) ** 2).sum(axis=0) / ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    assert net.score(X, y) == pytest.approx(r2.mean(), rel=1e-12)
    assert net.score(X, net.predict(X)) == 1
    assert Network([3, 1], weight_init="zeros").score(X, np.zeros(80)) == 1  # constant, and met
    assert Network([3, 1], weight_init="zeros").score(X, np.ones(80)) == 0


@pytest.mark.parametrize("n_out", [1, 2])
def test_one_row_has_no_r2(engine, n_out):
    X, y = waves(3, n_out=n_out)
    net = Network([3, 6, n_out], out_activation="identity", seed=0)
    with pytest.warns(cmlp.UndefinedMetricWarning, match="less than two samples") as warned:
        assert np.isnan(net.score(X[:1], y[:1])) and warned[0].filename == __file__
    assert np.isfinite([net.loss(X[:1], y[:1]), net.score(X[:2], y[:2])]).all()
    # nor have more rows if one of them has all the weight, but there scikit-learn has an answer
    assert net.score(X, y, [0, 1, 0]) == 0
    assert net.score(X, net.predict(X), [0, 1, 0]) == 1
    classifier = Network([3, 2], seed=0)
    assert classifier.score(X[:1], classifier.predict_classes(X[:1])) == 1


def test_loss_is_the_mean_over_rows(engine):
    X, y = waves(50, n_out=2)
    net = Network([3, 6, 2], out_activation="identity", dtype="float64", seed=0)
    rows = 0.5 * ((net.predict(X) - y) ** 2).sum(axis=1)
    weight = np.arange(50.0)
    assert net.loss(X, y) == pytest.approx(rows.mean(), rel=1e-12)
    assert net.loss(X, y, weight) == pytest.approx((rows * weight).sum() / weight.sum(), rel=1e-12)


def test_weights_are_repeated_rows(engine):
    X, y = blobs(30)
    times = np.random.default_rng(1).integers(0, 4, 30)
    twice = np.repeat(np.arange(30), times)
    weighted, repeated = (Network([3, 5, 3], "tanh", dtype="float64", seed=0) for _ in range(2))
    assert weighted.loss(X, y, times) == pytest.approx(repeated.loss(X[twice], y[twice]), rel=1e-12)
    assert weighted.score(X, y, times) == pytest.approx(repeated.score(X[twice], y[twice]))
    one, other = weighted.gradients(X, y, times), repeated.gradients(X[twice], y[twice])
    for came, expected in zip(
        (*one.weights, *one.biases), (*other.weights, *other.biases), strict=True
    ):
        np.testing.assert_allclose(came, expected, rtol=1e-9, atol=1e-14)
    weighted.fit(X, y, sample_weight=times, batch_size=None, epochs=20)
    repeated.fit(X[twice], y[twice], batch_size=None, epochs=20)
    np.testing.assert_allclose(weighted.params, repeated.params, rtol=1e-7, atol=1e-12)


def test_gradients_follow_the_inputs_too(engine):
    X, y = waves(5)
    net = Network([3, 4, 1], "tanh", dtype="float64", seed=0)
    found = net.gradients(X, y)
    assert found.inputs.shape == X.shape and found.loss == pytest.approx(net.loss(X, y))
    for where in np.ndindex(X.shape):
        up, down = X.copy(), X.copy()
        up[where] += 1e-5
        down[where] -= 1e-5
        numeric = (net.loss(up, y) - net.loss(down, y)) / 2e-5
        assert found.inputs[where] == pytest.approx(numeric, abs=1e-9)


def test_gradients_of_penalties(engine):
    X, y = waves(5)
    net = Network([3, 4, 1], "tanh", dtype="float64", seed=0)
    plain, full = net.gradients(X, y), net.gradients(X, y, l1=0.1, l2=0.2)
    for W, before, after in zip(net.weights, plain.weights, full.weights, strict=True):
        np.testing.assert_allclose(after, before + 0.1 * np.sign(W) + 0.2 * W, rtol=1e-12)
    for before, after in zip(plain.biases, full.biases, strict=True):
        np.testing.assert_array_equal(after, before)
    penalty = sum(0.1 * np.abs(W).sum() + 0.1 * (W**2).sum() for W in net.weights)
    assert full.loss == pytest.approx(plain.loss + penalty)


def test_asking_changes_nothing(engine):
    X, y = blobs()
    net = Network([3, 5, 3], seed=0)
    params, state = net.params.copy(), net.rng.bit_generator.state
    net.predict(X), net.loss(X, y), net.score(X, y), net.gradients(X, y), net.check_gradients(X, y)
    np.testing.assert_array_equal(net.params, params)
    assert net.rng.bit_generator.state == state and net.steps == 0 and not net.history


def test_public_names_exist():
    assert all(hasattr(cmlp, name) for name in cmlp.__all__)


def test_capitals_and_dashes_are_forgiven():
    net = Network([3, 2, 1], "ReLU", weight_init="He-Normal")
    assert net.activations == ("relu", "identity")
    net.step([[1, 2, 3]], [1.0], solver="RMSprop")
    assert net.solver == "rmsprop"


@pytest.mark.parametrize("loss, out", [(None, "softmax"), ("categorical_crossentropy", None)])
def test_one_output_is_no_softmax(loss, out):
    with refused(ValueError, "softmax", "output per class", "binary_crossentropy"):
        Network([3, 1], loss=loss, out_activation=out)


def test_true_and_false_are_no_numbers():
    with refused(ValueError, "True and False", "binary_crossentropy", "astype(float)"):
        Network([3, 1]).fit(np.eye(3), [True, False, True])


def test_an_unknown_keyword_of_a_step_is_named():
    for call in ("step", "train_epoch", "trace_step"):
        with refused(TypeError, "parameter 'learning_rat'", "'learning_rate'?"):
            getattr(Network([3, 1]), call)(np.eye(3), [1.0, 2, 3], learning_rat=0.1)
