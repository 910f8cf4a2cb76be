"""One step with all its numbers, and the check of its gradients, against plain NumPy."""

import html.parser
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
from helpers import blobs, refused, squared_error, waves

from cmlp import Network
from cmlp.core import dispatch, formatting
from cmlp.explain.gradient_check import CheckedLayer, GradientCheck
from cmlp.model.parameters import Parameters


def tanh_net(dtype="float64", **options):
    return Network([3, 4, 1], "tanh", dtype=dtype, seed=0, **options)


def test_the_chain_rule_holds(engine, dtype):
    X, y = waves(6)
    net = tanh_net(dtype)
    (W1, W2), (b1, b2) = ([part.copy() for part in parts] for parts in (net.weights, net.biases))
    trace = net.trace_step(X, y, learning_rate=0.1, momentum=0.0, l2=0.01)
    one, two = trace.layers

    z1 = X @ W1 + b1
    a1 = np.tanh(z1)
    z2 = a1 @ W2 + b2
    delta2 = (z2 - y) / 6
    delta1 = (delta2 @ W2.T) * (1 - a1**2)
    dW2, dW1 = a1.T @ delta2 + 0.01 * W2, X.T @ delta1 + 0.01 * W1
    expected = {
        (0, "weights"): W1, (0, "biases"): b1, (0, "z"): z1, (0, "a"): a1, (0, "delta"): delta1,
        (0, "dweights"): dW1, (0, "dbiases"): delta1.sum(axis=0),
        (0, "new_weights"): W1 - 0.1 * dW1, (0, "new_biases"): b1 - 0.1 * delta1.sum(axis=0),
        (1, "weights"): W2, (1, "biases"): b2, (1, "z"): z2, (1, "a"): z2, (1, "delta"): delta2,
        (1, "dweights"): dW2, (1, "dbiases"): delta2.sum(axis=0),
        (1, "new_weights"): W2 - 0.1 * dW2, (1, "new_biases"): b2 - 0.1 * delta2.sum(axis=0),
    }  # fmt: skip
    close = {"rtol": 1e-4, "atol": 1e-6} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-15}
    for (layer, name), value in expected.items():
        np.testing.assert_allclose(
            getattr(trace.layers[layer], name), value, **close, err_msg=f"{name} of layer {layer}"
        )
    np.testing.assert_allclose(trace.costs, 0.5 * (z2 - y)[:, 0] ** 2, **close)
    penalty = 0.005 * ((W1**2).sum() + (W2**2).sum())
    assert trace.loss == pytest.approx(trace.costs.mean() + penalty, rel=1e-5)
    assert trace.new_loss < trace.loss
    np.testing.assert_array_equal(net.weights[0], one.new_weights)
    np.testing.assert_array_equal(net.biases[1], two.new_biases)
    np.testing.assert_array_equal(trace.y, y.astype(dtype))
    assert net.steps == 1


@pytest.mark.parametrize("solver", ["sgd", "adam", "adamw", "rmsprop"])
def test_a_traced_step_is_a_step(engine, solver):
    X, y = waves(6)
    traced, stepped = tanh_net(), tanh_net()
    recipe = {"solver": solver, "clip_norm": 0.1, "weight_decay": 0.1}
    for _ in range(3):
        loss = stepped.step(X, y, **recipe)
        assert traced.trace_step(X, y, **recipe).loss == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(traced.params, stepped.params, rtol=1e-10, atol=1e-13)
    assert traced.steps == stepped.steps == 3


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_without_apply_everything_stays(engine, solver):
    X, y = blobs()
    net = Network([3, 4, 3], seed=0)
    net.fit(X, y, solver="adam", epochs=2)
    state = [net.params.copy(), net.moments.copy(), net.steps, net.rng.bit_generator.state]
    trace = net.trace_step(X[:5], y[:5], solver=solver, apply=False)
    assert not np.array_equal(trace.layers[0].weights, trace.layers[0].new_weights)
    np.testing.assert_array_equal(net.params, state[0])
    np.testing.assert_array_equal(net.moments, state[1])
    assert [net.steps, net.rng.bit_generator.state] == state[2:]
    assert net.solver == "adam"


def test_a_trace_is_a_record():
    """What is done to the network later does not change it."""
    X, y = waves(6)
    net = tanh_net()
    trace = net.trace_step(X, y)
    text = str(trace)
    net.params[:] = 0
    net.step(X, y)
    assert str(trace) == text


def test_results_are_found_under_their_public_names():
    X, y = waves(6)
    for result in (tanh_net().trace_step(X, y), tanh_net().check_gradients(X, y)):
        assert type(result).__module__ == "cmlp"
        assert str(pickle.loads(pickle.dumps(result))) == str(result)


def test_labels_are_shown_as_rows(engine):
    net = Network([2, 3], seed=0)
    trace = net.trace_step([[0, 1], [1, 1]], [2, 0])
    np.testing.assert_array_equal(trace.y, [[0, 0, 1], [1, 0, 0]])
    np.testing.assert_allclose(trace.layers[0].delta, (trace.layers[0].a - trace.y) / 2, rtol=1e-5)


def test_a_custom_loss_can_be_traced(engine):
    X, y = waves(6)
    one, other = tanh_net(loss="squared_error"), tanh_net(loss=squared_error)
    first, second = one.trace_step(X, y), other.trace_step(X, y)
    for name in ("delta", "dweights", "new_weights"):
        for layer, same in zip(first.layers, second.layers, strict=True):
            np.testing.assert_allclose(
                getattr(layer, name), getattr(same, name), rtol=1e-10, atol=1e-15
            )
    assert "custom" in str(second)


def test_a_trace_shows_what_the_first_layer_sees(engine, dtype):
    pixels, y = np.array([[0, 51, 255], [102, 204, 5]], np.uint8), [[1], [0]]
    net = Network([3, 4, 1], "tanh", dtype=dtype, seed=0, input_scale=1 / 255)
    trace = net.trace_step(pixels, y)
    first = trace.layers[0]
    np.testing.assert_allclose(trace.X, pixels / 255, 1e-6)
    np.testing.assert_allclose(trace.X @ first.weights + first.biases, first.z, 1e-5, 1e-6)
    np.testing.assert_allclose(trace.X.T @ first.delta, first.dweights, 1e-5, 1e-6)
    assert "  X, multiplied by 0.00392157  (2, 3)" in str(trace)
    assert "  X  (1, 2)" in str(Network([2, 1], seed=0).trace_step([[1, 2]], [[3]]))
    assert net.check_gradients(pixels, y)


@pytest.mark.parametrize("noise", [{"dropout": 0.5}, {"input_noise": 0.1}, {"dropout": [0.1]}])
def test_noise_cannot_be_traced(noise):
    X, y = waves(6)
    with refused(ValueError, "plain step", "dropout, input_noise and ema"):
        tanh_net().trace_step(X, y, **noise)


def test_the_text_reads_in_the_order_of_the_computation():
    text = str(Network([2, 3, 1], "tanh", seed=0).trace_step([[1, 2]], [[3]]))
    places = [
        text.index(part)
        for part in (
            "Inputs", "Forward, layer 1 (tanh)", "Forward, layer 2 (identity)", "Cost",
            "Backward, layer 2", "Backward, layer 1", "Update, layer 1", "After the step",
        )
    ]  # fmt: skip
    assert places == sorted(places)
    for part in ("a = tanh(z)", "(2, 3)", "delta = dC/dz", "dC/dW = a_before^T delta", "new W"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 110


def test_large_arrays_are_shortened():
    text = str(Network([500, 300, 2], seed=0).trace_step(np.ones((200, 500)), [0] * 200))
    assert len(text) < 20_000 and "..." in text


def read_gradients(trace, number):
    """Read dC/dW of a layer from the text."""
    part = str(trace).split(f"\nBackward, {trace.layers[number].name}\n")[1]
    block = re.search(r"  dC/dW = .*\n((    .*\n)+)", part)[1]
    return np.array(re.sub(r"[\[\]]", " ", block).split(), float)


@pytest.mark.parametrize("unit", [1e-30, 1e-12, 1, 1e12, 1e30])
def test_numbers_of_any_size_are_shown(engine, unit):
    X, y = waves(4)
    net = tanh_net()
    net.weights[1][...] *= unit
    trace = net.trace_step(X, y * unit, learning_rate=1e-3, momentum=0.0)
    page = html.unescape(trace._repr_html_())
    for number, layer in enumerate(trace.layers):
        np.testing.assert_allclose(
            read_gradients(trace, number), np.ravel(layer.dweights), rtol=0.05, atol=0
        )
        assert f"<pre>{formatting.array(layer.dweights)}</pre>" in page
    losses = re.findall(r"  loss: (\S+)(?: \((\S+)\))?\n", str(trace))
    before, after, change = (float(n) for n in (losses[0][0], *losses[1]))
    np.testing.assert_allclose([before, after], [trace.loss, trace.new_loss], rtol=1e-5)
    np.testing.assert_allclose(change, trace.new_loss - trace.loss, rtol=1e-2)


def test_vanishing_gradients_are_not_shown_as_zeros(engine, dtype):
    net = Network([2, *[3] * 6, 1], "logistic", loss="bce", seed=0, dtype=dtype)
    trace = net.trace_step([[0.3, -0.2], [0.1, 0.4]], [1, 0], learning_rate=1e-8)
    read = read_gradients(trace, 0)
    assert len(read) == 6 and (read != 0).all() and np.abs(read).max() < 1e-4
    change = float(re.findall(r"  loss: .* \((.*)\)", str(trace))[0])
    assert dtype == np.float32 or -1e-6 < change < 0


def test_true_zeros_are_shown_as_zeros(engine):
    net = Network([2, 3, 1], "relu", seed=0)
    net.biases[0][...] = -100  # no unit is ever on
    trace = net.trace_step([[1e-9, 0]], [3])
    np.testing.assert_array_equal(read_gradients(trace, 0), np.zeros(6))
    assert "    [[1e-09     0]]\n" in str(trace)


class Tags(html.parser.HTMLParser):
    """Checks that every tag that is opened is closed, in order."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_html_is_sound_and_escaped():
    net = Network([2, 3, 1], "leaky_relu", seed=0)
    loss = net.loss_row._replace(formula="<script>alert('&')</script>")
    net.replace_architecture(replace(net.architecture, loss=loss))
    tags = Tags()
    page = net.trace_step([[1, 2]], [[3]])._repr_html_()
    tags.feed(page)
    assert tags.open == [] and "<script>" not in page
    assert "<script>alert('&')</script>" in tags.text and "z if z > 0" in tags.text


# The check of gradients ---------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["squared_error", "huber", "bce", "poisson", squared_error])
def test_right_gradients_pass(engine, dtype, loss):
    X, _ = waves(12)
    net = Network([3, 5, 4, 2], ["gelu", "tanh"], loss=loss, dtype=dtype, seed=0)
    check = net.check_gradients(X, np.full((12, 2), 0.25), l1=0.01, l2=0.1)
    assert check, str(check)
    assert len(check.layers) == 3 and "all within" in str(check)


@pytest.mark.parametrize("entries", [None, 1, 10])
def test_entries(entries):
    X, y = waves(12)
    assert tanh_net().check_gradients(X, y, entries=entries)


def test_kinks_are_no_errors(engine):
    """A unit that sits exactly on the kink of relu has no derivative to compare with."""
    net = Network([2, 8, 1], "relu", seed=0)
    check = net.check_gradients([[0, 0], [0, 1], [1, 0], [1, 1]], [1, 0, 1, 0])
    assert check, str(check)
    still = Network([2, 3, 1], "tanh", weight_init="zeros")
    assert still.check_gradients([[0, 1], [1, 1]], [1, 0], l1=0.1)


@pytest.mark.parametrize(
    "letter, layer, where", [("W", 0, (2, 1)), ("b", 0, (3,)), ("W", 1, (0, 0))]
)
@pytest.mark.parametrize("factor", [1.01, -1, np.nan])
def test_wrong_gradients_are_found_and_named(engine, monkeypatch, letter, layer, where, factor):
    X, y = waves(12)
    net = tanh_net()
    right = dispatch.core.gradient

    def wrong(plan, params, *rest):
        value = right(plan, params, *rest)
        gradient = Parameters(net.plan, rest[7])
        part = (gradient.weights if letter == "W" else gradient.biases)[layer]
        part[where] *= factor
        return value

    monkeypatch.setattr(dispatch.core, "gradient", wrong)
    check = net.check_gradients(X, y, entries=None)
    assert not check
    assert check.worst.name == f"layer {layer + 1}"
    assert check.worst.entry == f"{letter}[{', '.join(map(str, where))}]"
    assert f"{check.worst.name}, {check.worst.entry} is beyond" in str(check)


def test_the_table_of_a_check_stays_aligned():
    """Whatever size the numbers have."""
    sizes = (1.5, -1.5e-8, 3e30, -2e-300, 0.0, np.nan, -np.inf)
    layers = [
        CheckedLayer(f"layer {number}", f"W[{number}, 0]", value, -value, 1e-7)
        for number, value in enumerate(sizes, 1)
    ]
    _, *lines, verdict = str(GradientCheck(layers, 1.5e-6)).splitlines()
    assert len({len(line) for line in lines}) == 1 and verdict == "all within 1.5e-06"
    for line, value in zip(lines, sizes, strict=True):
        assert float(line.split()[4]) == value or np.isnan(value)


def test_a_falsified_custom_loss_is_found():
    def loss(outputs, targets):
        value, slope = squared_error(outputs, targets)
        return value, 1.1 * slope

    X, y = waves(12)
    assert not tanh_net(loss=loss).check_gradients(X, y)
