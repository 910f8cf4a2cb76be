"""cmlp.plot: what is drawn equals the numbers; labels, legends, and the figures of the user."""

import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
from helpers import blobs, python_output, waves

import cmlp

pytest.importorskip("matplotlib").use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")
plot = cmlp.plot

DIGITS = cmlp.load_digits()
PIXELS, LABELS = DIGITS.X_train[:1000] / 16, DIGITS.y_train[:1000]


@pytest.fixture(scope="module")
def net():
    net = cmlp.Network([64, 20, 12, 10], ["relu", "tanh"], seed=0)
    net.fit(PIXELS, LABELS, epochs=6, learning_rate=0.05, validation_fraction=0.2)
    return net


@pytest.fixture(scope="module")
def flat():
    """Two inputs, three classes with names, as an estimator."""
    X, y = blobs(300, 2)
    names = np.array(["low", "middle", "a name that is rather long"])[y]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cmlp.ConvergenceWarning)
        how = {"max_iter": 30, "random_state": 0, "early_stopping": True, "n_iter_no_change": 50}
        return cmlp.MLPClassifier((8,), learning_rate_init=0.01, **how).fit(X, names), X, names


@pytest.fixture(autouse=True)
def figures():
    """Every test draws its pictures to the end, and leaves the settings alone."""
    settings = dict(plt.rcParams)
    yield
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")
    assert dict(plt.rcParams) == settings


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def texts(ax):
    return [text.get_text() for text in ax.texts]


# Curves ------------------------------------------------------------------------------------------


def test_loss_curve(net):
    ax = plot.loss_curve(net)
    training, validation = ax.get_lines()[:2]
    np.testing.assert_allclose(training.get_ydata(), net.history["loss"])
    np.testing.assert_allclose(validation.get_ydata(), net.history["val_loss"])
    assert training.get_linestyle() != validation.get_linestyle()
    best = int(np.argmin(net.history["val_loss"]))
    (mark,) = (line for line in ax.get_lines() if line.get_marker() == "o")
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (best + 1, net.history["val_loss"][best])
    assert legend(ax)[:2] == ["training", "validation"] and f"epoch {best + 1}" in legend(ax)[2]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_yscale()) == ("epoch", "loss", "linear")
    assert plot.loss_curve(net, log=True).get_yscale() == "log"


def test_loss_curves_of_histories_and_estimators(flat):
    X, y = waves(100)
    history = cmlp.Network([3, 4, 1], seed=0).fit(X, y, epochs=2)
    assert legend(plot.loss_curve(history)) == [
        "training",
        f"best: {history['loss'][1]:.3g} in epoch 2",
    ]
    ax = plot.loss_curve(flat[0])
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), flat[0].loss_curve_)
    steep = cmlp.History({"epoch": [1.0, 2.0, 3.0], "loss": [1.0, 0.1, 0.01]})
    assert plot.loss_curve(steep).get_yscale() == "log"
    assert plot.loss_curve(steep, log=False).get_yscale() == "linear"


def test_the_learning_rate_beside_the_loss(net):
    ax = plot.loss_curve(net, learning_rate=True)
    (other,) = (twin for twin in ax.figure.axes if twin is not ax)
    np.testing.assert_allclose(other.get_lines()[0].get_ydata(), net.history["learning_rate"])
    assert other.get_ylabel() == "learning rate" and "learning rate" in legend(ax)


def test_validation_curve(net, flat):
    ax = plot.validation_curve(net)
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), net.history["val_score"])
    assert ax.get_ylabel() == "accuracy" and "best" in legend(ax)[1]
    assert plot.validation_curve(flat[0]).get_ylabel() == "accuracy"
    X, y = waves(100)
    history = cmlp.Network([3, 4, 1], seed=0).fit(X, y, epochs=2, X_val=X, y_val=y)
    assert plot.validation_curve(history).get_ylabel() == "R²"


def test_there_must_be_a_curve():
    with pytest.raises(ValueError, match="fit the model first"):
        plot.loss_curve(cmlp.Network([3, 4, 1]))
    with pytest.raises(ValueError, match="not fitted yet"):
        plot.loss_curve(cmlp.MLPClassifier())
    X, y = waves(50)
    with pytest.raises(ValueError, match="X_val and y_val"):
        plot.validation_curve(cmlp.Network([3, 4, 1]).fit(X, y, epochs=1))


# Classes -----------------------------------------------------------------------------------------


def test_confusion_matrix(net):
    ax = plot.confusion_matrix(net, PIXELS, LABELS)
    read = net.predict_classes(PIXELS)
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (LABELS, read), 1)
    assert texts(ax) == [str(n) if n else "·" for n in counts.ravel()]
    shares = counts / counts.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ax.get_images()[0].get_array(), shares)
    assert [label.get_text() for label in ax.get_xticklabels()] == [str(n) for n in range(10)]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("label read", "true label")
    for text, share in zip(ax.texts, shares.ravel(), strict=True):
        assert (text.get_color() == "white") == (share > 0.3)


def test_normalised_confusion_matrices(flat):
    model, X, y = flat
    read = model.predict(X)
    for how, whole in (
        ("true", lambda i, j: y == i),
        ("pred", lambda i, j: read == j),
        ("all", lambda i, j: y == y),
    ):
        ax = plot.confusion_matrix(model, X, y, normalize=how)
        shown = iter(texts(ax))
        for i in model.classes_:
            for j in model.classes_:
                share = 100 * ((y == i) & (read == j)).sum() / whole(i, j).sum()
                text = next(shown)
                assert share == 0 if text == "·" else float(text) == pytest.approx(share, abs=0.06)
        assert "per cent" in ax.get_title()
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["a name that is ra…", "low", "middle"]


@pytest.mark.parametrize("how", ["true", "pred", "all"])
def test_shares_are_not_rounded_to_nothing_or_to_all(how):
    """One row of 10,000 is read wrongly."""
    net = cmlp.Network([1, 2], seed=0)
    net.weights[0][...], net.classes = [[-1, 1]], np.array([0, 1])
    X = np.repeat([[-1.0], [1.0]], 10_000, axis=0)
    y = (X[:, 0] > 0).astype(int)
    X[0] = 1
    shown = texts(plot.confusion_matrix(net, X, y, normalize=how))
    assert (
        shown
        == {
            "true": ["99.99", "0.01", "·", "100"],
            "pred": ["100", "0.01", "·", "99.990"],
            "all": ["50.0", "0.005", "·", "50.0"],
        }[how]
    )


def test_outputs_of_any_size_have_digits():
    net = cmlp.Network([1, 3], loss="bce", dtype="float64", weight_init="zeros")
    net.biases[0][...] = [-20, 20, 0]
    assert texts(plot.activations(net, [1.0]).axes[1]) == ["2.06e-09", "0.999999998", "0.500"]
    net = cmlp.Network([1, 4], loss="mse", dtype="float64", weight_init="zeros")
    net.biases[0][...] = [1e-30, -1e12, 0, 0.25]
    assert texts(plot.activations(net, [1.0]).axes[1]) == ["1e-30", "-1e+12", "0", "0.25"]


@pytest.mark.parametrize("unit", [1e-30, 1e12])
def test_curves_of_any_size(unit):
    losses = {"loss": [unit, 0.5 * unit, 0.25 * unit], "val_loss": [unit, 0.25 * unit, 0.5 * unit]}
    rest = {"epoch": [1.0, 2.0, 3.0], "val_score": [0.5, 0.99997, 0.9]}
    history = cmlp.History(losses | rest | {"learning_rate": [1e-8, 1e-9, 1e-10]})
    for log in (False, True):
        ax = plot.loss_curve(history, log=log, learning_rate=True)
        assert legend(ax)[2] == f"best: {0.25 * unit:.3g} in epoch 2"
        ax.figure.canvas.draw()
        marks = [label.get_text() for label in ax.get_yticklabels()]
        assert len(set(marks)) == len(marks) > 2 and "0" not in marks
    assert legend(plot.validation_curve(history))[1] == "best: 0.99997 in epoch 2"


def test_many_classes_have_no_numbers():
    y = np.arange(160) % 40
    net = cmlp.Network([3, 4, 40], seed=0)
    ax = plot.confusion_matrix(net, np.random.default_rng(0).normal(size=(160, 3)), y)
    assert not ax.texts and len(ax.get_xticklabels()) == 40


def test_confusion_matrices_that_cannot_be(net):
    with pytest.raises(ValueError, match="'true', 'pred' or 'all'"):
        plot.confusion_matrix(net, PIXELS, LABELS, normalize="rows")
    with pytest.raises(ValueError, match="one label per row"):
        plot.confusion_matrix(net, PIXELS, np.eye(10)[LABELS])


def test_decision_regions(flat):
    model, X, y = flat
    ax = plot.decision_regions(model, X, y, resolution=50)
    assert legend(ax) == ["a name that is ra…", "low", "middle"]
    assert ax.get_images()[0].get_array().shape == (50, 50, 3)
    clouds = [c for c in ax.collections if c.get_label() in legend(ax)]
    for label, cloud in zip(model.classes_, clouds, strict=True):
        np.testing.assert_allclose(cloud.get_offsets(), X[y == label])
    assert len({cloud.get_paths()[0].vertices.tobytes() for cloud in clouds}) == 3  # markers
    shaded = ax.get_images()[0].get_array()
    left, right, bottom, top = ax.get_images()[0].get_extent()
    for label, cloud in zip(model.classes_, clouds, strict=True):
        x = X[y == label].mean(axis=0)
        column, row = 49 * (x - [left, bottom]) / [right - left, top - bottom]
        ink = 1 - shaded[round(row), round(column)]
        np.testing.assert_allclose(
            ink / ink.max(), (full := 1 - cloud.get_facecolor()[0, :3]) / full.max(), atol=0.02
        )


def test_decision_regions_of_two_labels_and_of_numbers():
    X, y = blobs(100, 2, 2)
    net = cmlp.Network([2, 4, 1], loss="bce", seed=0)
    net.fit(X, y == 1, epochs=3)
    net.feature_names = ["height", "a width with a long name"]
    ax = plot.decision_regions(net, X, y == 1)
    assert legend(ax) == ["0", "1"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("height", "a width with a lo…")
    numbers = cmlp.Network([2, 4, 1], seed=0)
    ax = plot.decision_regions(numbers, X, X[:, 0])
    np.testing.assert_allclose(ax.collections[-1].get_array(), X[:, 0])
    assert (ax.get_xlabel(), len(ax.figure.axes)) == ("feature 0", 2)


def test_decision_regions_draw_some_of_many_rows():
    X, y = blobs(4000, 2)
    ax = plot.decision_regions(cmlp.Network([2, 3], seed=0), X, y, resolution=20)
    assert (
        sum(len(cloud.get_offsets()) for cloud in ax.collections if cloud.get_label()[0] != "_")
        == 1500
    )


def test_decision_regions_need_two_inputs(net):
    with pytest.raises(ValueError, match="two inputs: the network has 64"):
        plot.decision_regions(net, PIXELS, LABELS)
    with pytest.raises(ValueError, match=r"y must be \(5,\)"):
        plot.decision_regions(cmlp.Network([2, 3]), np.zeros((5, 2)), np.zeros((5, 2)))


# Inside ------------------------------------------------------------------------------------------


def test_first_layer_weights(net):
    ax = plot.first_layer_weights(net)
    image = ax.get_images()[0]
    board, (low, high) = np.ma.filled(image.get_array(), np.nan), image.get_clim()
    assert low == -high
    np.testing.assert_allclose(np.sort(board[np.isfinite(board)]), np.sort(net.weights[0].ravel()))
    np.testing.assert_allclose(board[:8, :8], net.weights[0][:, 0].reshape(8, 8))
    assert texts(ax) == [str(unit) for unit in range(20)] and "20 units" in ax.get_title()


def test_the_largest_units_of_a_layer(net):
    ax = plot.first_layer_weights(net, (4, 16), units=5)
    norms = np.linalg.norm(net.weights[0], axis=0)
    assert texts(ax) == [str(unit) for unit in np.sort(np.argsort(-norms)[:5])]
    assert "5 of 20 units" in ax.get_title()


def test_inputs_that_make_no_square(flat):
    with pytest.raises(ValueError, match=r"2 inputs make no square image.*\(1, 2\)"):
        plot.first_layer_weights(flat[0])
    with pytest.raises(ValueError, match="12 pixels, but there are 2 inputs"):
        plot.first_layer_weights(flat[0], (3, 4))
    assert len(texts(plot.first_layer_weights(flat[0], (1, 2)))) == 8


def test_activations(net):
    figure = plot.activations(net, PIXELS[5])
    panels = [ax for ax in figure.axes if ax.get_title()]
    titles = [panel.get_title().replace("\n", ", ") for panel in panels]
    assert titles == [
        "input, 64 numbers", "layer 1, 20 relu units", "layer 2, 12 tanh units",
        "output, 10 softmax units",
    ]  # fmt: skip
    np.testing.assert_allclose(panels[0].get_images()[0].get_array(), PIXELS[5].reshape(8, 8))
    record = net.forward(PIXELS[5:6], return_all=True).a
    for panel, a in zip(panels[1:], record[:-1], strict=False):
        cells = panel.get_images()[0].get_array().ravel()
        np.testing.assert_allclose(np.ma.filled(cells, np.nan)[: a.size], a[0], rtol=1e-6)
        assert np.ma.getmaskarray(np.ma.masked_invalid(cells))[a.size :].all()
    low, high = panels[2].get_images()[0].get_clim()
    assert low == -high  # tanh has a sign
    widths = [bar.get_width() for bar in panels[3].patches]
    np.testing.assert_allclose(widths, record[-1][0], rtol=1e-6)
    assert [label.get_text() for label in panels[3].get_yticklabels()] == list("0123456789")


def test_activations_of_estimators_and_many_outputs(flat):
    figure = plot.activations(flat[0], flat[1][0], figure=plt.figure())
    assert [label.get_text() for label in figure.axes[2].get_yticklabels()] == [
        "a name that is ra…", "low", "middle",
    ]  # fmt: skip
    many = cmlp.Network([5, 40], loss="mse", seed=0)
    figure = plot.activations(many, np.ones(5))
    out = many.predict(np.ones((1, 5)))[0]
    panel = figure.axes[1]
    np.testing.assert_allclose([b.get_width() for b in panel.patches], np.sort(out)[::-1][:12])
    assert "the largest 12" in panel.get_title()
    with pytest.raises(ValueError, match="one row of 5 numbers; it has 6"):
        plot.activations(many, np.ones(6))


def test_gradient_norms(net, flat):
    ax = plot.gradient_norms(net, PIXELS, LABELS)
    exact = [np.linalg.norm(dW) for dW in net.gradients(PIXELS, LABELS).weights]
    np.testing.assert_allclose(ax.get_lines()[1].get_ydata(), exact, rtol=1e-4)
    trace = net.trace_step(PIXELS, LABELS, apply=False)
    deltas = [np.linalg.norm(layer.delta) for layer in trace.layers]
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), deltas, rtol=1e-4)
    assert legend(ax) == ["sums, ||dC/dz||", "weights, ||dC/dW||"] and ax.get_yscale() == "log"
    assert [t.get_text() for t in ax.get_xticklabels()] == [
        "1\n20\nrelu",
        "2\n12\ntanh",
        "3\n10\nsoftmax",
    ]
    assert len(plot.gradient_norms(*flat).get_lines()[0].get_ydata()) == 2


def test_gradients_of_dead_layers_are_written_as_0(net):
    dead = cmlp.Network([64, 8, 8, 10], seed=0)
    dead.biases[1][:] = -1e6
    ax = plot.gradient_norms(dead, PIXELS, LABELS)
    assert texts(ax) == ["0"] * 5  # dC/dz of two layers, dC/dW of three


# Attributions ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found():
    """Of three answers, with gaps in the data."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 5)) * [1, 2, 0, 3, 1]
    return cmlp.attributions(cmlp.Network([5, 8, 3], "tanh", seed=0), X)


def test_attributions_as_bars(found):
    ax = plot.attributions(found, features=4)
    order = found.order()[:4]
    widths = np.array([bar.get_width() for bar in ax.patches]).reshape(3, 4).T
    np.testing.assert_allclose(widths, found.mean_absolute[order])
    ends = np.array([bar.get_x() for bar in ax.patches]).reshape(3, 4).T
    np.testing.assert_allclose(ends[:, 1:], np.cumsum(widths, axis=1)[:, :-1])
    assert [t.get_text() for t in ax.get_yticklabels()] == [f"x{place}" for place in order]
    assert legend(ax) == ["0", "1", "2"] and ax.get_xlabel() == "mean |attribution| (raw)"


def test_attributions_of_one_row_have_signs(found):
    one = replace(
        found, values=found.values[:1, :, 1], data=found.data[:1], output_names=["1"],
        base_values=found.base_values[:1, 1], answers=found.answers[:1, 1],
    )  # fmt: skip
    ax = plot.attributions(one, features=3)
    order = one.order()
    widths = [bar.get_width() for bar in ax.patches]
    np.testing.assert_allclose(widths[:3], one.values[0, order[:3]])
    assert sum(widths) == pytest.approx((one.answers - one.base_values).item(), abs=1e-6)
    marks = [t.get_text() for t in ax.get_yticklabels()]
    assert marks[0] == f"x{order[0]} = {one.data[0, order[0]]:.3g}" and marks[3] == "2 others"
    colours = {bar.get_width() > 0: bar.get_facecolor() for bar in ax.patches}
    assert len(set(colours.values())) == len(colours)


def test_attributions_as_points(found):
    ax = plot.attributions(found, answer="2")
    order = found.order()  # of all answers; here of one
    sizes = np.abs(found.values[:, :, 2]).mean(axis=0)
    order = np.argsort(-sizes, kind="stable")
    for place, (cloud, feature) in enumerate(zip(ax.collections, order, strict=True)):
        x, y = cloud.get_offsets().T
        np.testing.assert_allclose(x, found.values[:, feature, 2])
        assert np.abs(y - place).max() <= 0.45
        if feature != 2:  # a column of zeros has one colour
            ranks = np.asarray(cloud.get_array())
            np.testing.assert_array_equal(np.argsort(ranks), np.argsort(found.data[:, feature]))
    points = [tuple(each) for each in ax.collections[0].get_offsets()]
    assert len(set(points)) == 40 and ax.get_xlabel() == "attribution to 2 (raw)"
    cells = np.array([["a", 1.0], ["b", np.nan]] * 20, object)
    text = replace(found, values=found.values[:, :2, 0], data=cells, feature_names=["t", "n"])
    clouds = plot.attributions(text).collections
    ranks = {len(np.unique(c.get_array())) for c in clouds if c.get_array() is not None}
    assert ranks == {2} and len(clouds) == 2  # one of text, in grey; a gap has no rank


def test_attributions_that_cannot_be_drawn(found):
    with pytest.raises(ValueError, match="None, 'bars' or 'points'"):
        plot.attributions(found, kind="waterfall")
    with pytest.raises(ValueError, match="answer='0'"):
        plot.attributions(found, kind="points")
    with pytest.raises(ValueError, match="one of '0', '1', '2'"):
        plot.attributions(found, answer="three")


# Whose figures -----------------------------------------------------------------------------------


def test_axes_of_the_user_are_used(net, flat, found):
    model, X, y = flat
    calls = {
        "loss_curve": (net,),
        "validation_curve": (net,),
        "attributions": (found,),
        "confusion_matrix": (net, PIXELS, LABELS),
        "decision_regions": (model, X, y),
        "first_layer_weights": (net,),
        "gradient_norms": (net, PIXELS, LABELS),
    }
    assert {*calls, "activations"} == set(plot.__all__)
    for name, arguments in calls.items():
        figure, ax = plt.subplots()
        before = plt.get_fignums()
        assert getattr(plot, name)(*arguments, ax=ax) is ax
        assert plt.get_fignums() == before and plt.gcf() is figure
        own = getattr(plot, name)(*arguments)
        assert own.figure is plt.gcf() and len(plt.get_fignums()) == len(before) + 1
        plt.close("all")
    figure = plt.figure()
    part = figure.subfigures(1, 2)[0]
    assert plot.activations(net, PIXELS[0], figure=part) is part


def test_without_matplotlib(monkeypatch, net):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'cmlp\[plot\]'"):
        plot.loss_curve(net)


def test_matplotlib_is_imported_when_something_is_drawn():
    code = "import sys, cmlp; cmlp.plot; assert not any('matplotlib' in n for n in sys.modules)"
    assert python_output("-c", code) == (0, "")
