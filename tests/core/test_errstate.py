"""NumPy's error state around a call changes nothing: no error, no warning, and the same numbers."""

import io
import threading
import warnings

import matplotlib
import numpy as np
import pytest
from helpers import blobs, squared_error

import cmlp

matplotlib.use("Agg")

LARGE, SMALL = 1e37, 1e-42
"""Factors of X that make sums overflow, and numbers underflow, in float32."""


def data(scale=1.0, n=40):
    X, y = blobs(n)
    X = X * scale
    X[0] = [0, -0.0, 5e-324]
    X[1] *= 1e-30 / max(scale, 1e-30)
    return X, y


def numbers(n=40):
    rng = np.random.default_rng(1)
    return rng.normal(size=(n, 2)) * np.array([1e-200, 1e30])


def state_of(*models):
    """All numbers of some models."""
    nets = [net for model in models for net in getattr(model, "estimators_", [model])]
    nets = [getattr(net, "network_", net) for net in nets]
    return [(net.params.tobytes(), net.moments.tobytes(), net.steps) for net in nets]


def curves(history):
    timed = ("seconds", "rows_per_second")
    return repr({key: column for key, column in history.items() if key not in timed})


def network(activation="relu", **options):
    return cmlp.Network([3, 6, 5, 3], activation, seed=0, **options)


def spoiled(**options):
    """A network whose sums go to both ends of the range."""
    net = network(**options)
    net.params *= np.where(np.arange(len(net.params)) % 3, 1e-30, 1e30).astype(net.dtype)
    return net


def attempt(train, *arguments, **more):
    """Train, and return the result, or the message of a training that diverges."""
    try:
        return train(*arguments, **more)
    except cmlp.DivergenceError as error:
        return str(error)


def fitted(net, X, y, **how):
    history = attempt(net.fit, X, y, **{"epochs": 3, "batch_size": 8} | how)
    return history if isinstance(history, str) else curves(history), state_of(net)


def answers(net, X, y):
    """Everything that a network computes from rows."""
    out = [net.predict(X), net.predict_classes(X), net.forward(X), net.predict(X[0:1])]
    out += [each for part in net.forward(X, return_all=True) for each in part]
    out += [net.predictor()(X[0]), net.predictor(len(X))(X)]
    out += [net.loss(X, y), net.score(X, y), net.score(X, y, sample_weight=np.arange(1.0, 41))]
    gradients = net.gradients(X, y, l1=1e-40, l2=1e-40)
    out += [*gradients.weights, *gradients.biases, gradients.inputs, gradients.loss]
    return [np.asarray(each).tobytes() for each in out]


def train_many_ways(X, y):
    said = []
    for solver in ("sgd", "adam", "rmsprop", "adamw", "nadam", "lion"):
        said.append(
            fitted(
                network(), X, y, solver=solver, l1=1e-40, l2=1e-30, weight_decay=1e-30, ema=0.9,
                clip_norm=1e-30, validation_fraction=0.2, patience=2, epsilon=1e-30,
                schedule=cmlp.schedules.Step(every=1, multiplier=1e-200),
            )
        )  # fmt: skip
    for normalization in ("batch", "layer"):
        said.append(fitted(network(normalization=normalization), X, y, dropout=0.1, input_noise=1))
    for loss, out in (("binary_crossentropy", "softmax"), ("poisson", "exp"), ("mse", "softmax")):
        said.append(fitted(network(loss=loss, out_activation=out), X, np.eye(3)[y]))
    return said


def every_activation(X, y):
    said = []
    for activation in ("logistic", "tanh", "elu", "selu", "gelu", "silu", "mish", "softplus", "exp",
                       "hard_sigmoid", "leaky_relu", "identity"):  # fmt: skip
        net = network(activation)
        net.weights[0] *= 100
        said += [answers(net, X, y), fitted(net, X, y, epochs=1)]
    return said


def every_loss(X, y):
    said = []
    for loss in ("squared_error", "absolute_error", "huber", "poisson", "quantile", squared_error):
        net = cmlp.Network([3, 6, 2], "tanh", loss=loss, seed=0, missing_targets=loss == "huber")
        net.weights[1] = np.full((6, 2), 1e-50)
        targets = np.abs(numbers()) if loss == "poisson" else numbers()
        if loss is squared_error:
            targets = np.sign(targets)  # the user's own arithmetic is the user's
        said += [fitted(net, X, targets), net.loss(X, targets), net.score(X, targets)]
    return said


def one_step(X, y):
    net = network()
    said = [attempt(way, X, y, learning_rate=1e-30) for way in (net.step, net.train_epoch)]
    trace = net.trace_step(X, y, learning_rate=1e-30)
    said += [str(trace), trace._repr_html_(), str(net.check_gradients(X[:5], y[:5], entries=3))]
    return [*said, state_of(net)]


def copies(X, y):
    net = network(normalization="batch")
    attempt(net.fit, X, y, epochs=1)
    net.history.clear()  # its seconds are others each time
    net.scales[0][...] = 1e-30
    file = io.BytesIO()
    net.classes = np.array([1.5, 1e300, 1e-310])
    net.save(file, optimizer=True)
    file.seek(0)
    loaded = cmlp.load(file)
    others = loaded, net.astype("float64"), net.astype("float64").astype("float32"), net.folded()
    return [file.getvalue(), *map(state_of, others)]


def diagnoses(X, y):
    net = network()
    fitted(net, X, y, epochs=8, validation_fraction=0.3)
    said = [str(net.diagnose(X, y)), str(network("tanh").diagnose(X, y, X_val=X, y_val=y))]
    said.append(str(spoiled().diagnose(X, y)))
    regression = cmlp.Network([3, 4, 2], loss=squared_error, seed=0)
    return [*said, str(regression.diagnose(X, numbers()))]


def classifiers(X, y):
    X, single = X[0], X[1].astype(np.float32)
    said = []
    for more in ({}, {"solver": "sgd", "early_stopping": True}, {"solver": "lbfgs"},
                 {"n_ensemble": 2, "learning_rate": "cosine"}, {"loss": "bce"} ):  # fmt: skip
        labels = y > 0 if "loss" in more else y
        clf = cmlp.MLPClassifier((5,), max_iter=3, random_state=0, **more)
        if isinstance(diverged := attempt(clf.fit, X, labels), str):
            said.append(diverged)
            continue
        ways = (clf.predict, clf.predict_proba, clf.predict_log_proba, clf.decision_function,
                clf.transform, clf.input_gradient, clf._run)  # fmt: skip
        for rows in (X, single, X[:1]):
            said += [np.asarray(way(rows)).tobytes() for way in ways]
        if "n_ensemble" in more:
            said += [part.tobytes() for part in clf.predict_proba(X, return_std=True)]
        said += [clf.score(X, labels), curves(clf.history_), state_of(clf)]
        said.append(str(clf.diagnose(X, labels)))
    return said


def regressors(X, y):
    said = []
    for more in ({}, {"loss": "huber"}, {"n_ensemble": 2}, {"dtype": "float64", "ema": 0.9}):
        model = cmlp.MLPRegressor(hidden_layer_sizes=(5,), max_iter=3, random_state=0, **more)
        for targets in (numbers()[:, 0], numbers(), np.where(numbers() > 0, numbers(), np.nan)):
            for train in (model.fit, model.partial_fit):
                if isinstance(diverged := attempt(train, X, targets), str):
                    said.append(diverged)
                    continue
                said += [model.predict(X).tobytes(), model.score(X, targets), state_of(model)]
    return said


def by_hand(X, y):
    clf = cmlp.MLPClassifier((2,), max_iter=2, random_state=0)
    clf.coefs_ = [np.full((3, 2), 1e-44), np.full((2, 3), 1e-320)]
    clf.intercepts_ = [np.full(2, 1e-310), np.zeros(3)]
    said = [clf.predict_proba(X).tobytes()]
    clf.coefs_ = [np.full((3, 2), 1e-44), np.full((2, 3), 1e-310)]
    attempt(clf.fit, X, y)
    clf.add_classes([9])
    attempt(clf.partial_fit, X, np.where(y == 0, 9, y))
    return [*said, clf.predict_proba(X).tobytes(), state_of(clf)]


def pictures(X, y):
    net = cmlp.Network([3, 6, 3], seed=0)
    net.history.update({key: [1e-300, 1e-320, 1e300] for key in ("loss", "val_loss", "val_score")})
    net.history["epoch"], net.history["learning_rate"] = [1.0, 2.0, 3.0], [1e-300, 1e-310, 0.0]
    flat = cmlp.Network([2, 4, 3], seed=0)
    draw = (
        lambda: cmlp.plot.loss_curve(net, learning_rate=True).figure,
        lambda: cmlp.plot.validation_curve(net).figure,
        lambda: cmlp.plot.confusion_matrix(net, X, y, normalize="true").figure,
        lambda: cmlp.plot.first_layer_weights(net, (3, 1)).figure,
        lambda: cmlp.plot.activations(net, X[0]),
        lambda: cmlp.plot.gradient_norms(net, X, y).figure,
        lambda: cmlp.plot.decision_regions(flat, X[:, :2], y, resolution=20).figure,
    )
    sizes = []
    for each in draw:
        figure = each()
        sizes.append([len(ax.get_children()) for ax in figure.axes])
        matplotlib.pyplot.close(figure)
    return sizes


CALLS = {
    function.__name__: function
    for function in (
        train_many_ways, every_activation, every_loss, one_step, copies, diagnoses, classifiers,
        regressors, by_hand, pictures,
    )
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_raise(engine, name):
    """With NumPy's own arithmetic at every scale; the pictures do not depend on X's."""
    every = engine.name == "python" and name != "pictures"
    for scale in (1.0, LARGE, SMALL) if every else (LARGE,):
        X, y = data(scale)
        X = np.stack([X, X.astype(np.float32)]) if name == "classifiers" else X
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", cmlp.ConvergenceWarning)
            expected = CALLS[name](X, y)
            with np.errstate(all="raise"):
                assert CALLS[name](X, y) == expected
                assert set(np.geterr().values()) == {"raise"}


def test_for_the_whole_process(engine):
    X, y = data()
    expected = train_many_ways(X, y)
    before = np.seterr(all="raise")
    try:
        assert train_many_ways(X, y) == expected
    finally:
        np.seterr(**before)


def test_in_threads(engine):
    X, y = data(LARGE)
    expected, said = one_step(X, y), []

    def work():
        with np.errstate(all="raise"):
            said.append(one_step(X, y))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == [expected] * 4


def too_large(*_):
    return np.float64(1e300) * np.float64(1e300)


@pytest.mark.filterwarnings("ignore::cmlp.ConvergenceWarning")
def test_the_users_own_code_runs_in_the_users_state(engine):
    X, y = blobs()
    seen = []

    def watch(state):
        seen.append(np.geterr()["over"])
        too_large()

    def loss(outputs, targets):
        too_large()
        return squared_error(outputs, targets)

    def scorer(estimator, rows, labels):
        too_large()
        return estimator.score(rows, labels)

    def rate(epoch):
        too_large()
        return 0.01

    net = cmlp.Network([3, 2, 3], loss=loss, seed=0)
    clf = cmlp.MLPClassifier((2,), max_iter=1, early_stopping=True, scoring=scorer)
    for train in (
        lambda: network().fit(X, y, epochs=1, callbacks=[watch]),
        lambda: network().fit(X, y, epochs=1, schedule=rate),
        lambda: net.fit(X, np.eye(3)[y], epochs=1),
        lambda: net.loss(X, np.eye(3)[y]),
        lambda: clf.fit(X, y),
    ):
        with pytest.warns(RuntimeWarning, match="overflow"):
            train()
        with np.errstate(over="ignore"):
            train()
        with np.errstate(all="raise"), pytest.raises(FloatingPointError):
            train()
        assert np.geterr()["over"] == "warn"
    assert seen == ["warn", "ignore", "raise"]
    with np.errstate(all="raise"):  # trial fits do not warn, in any error state
        assert net.diagnose(X, np.eye(3)[y]).codes == ["no-better-than-constant"]


def test_numbers_that_are_written_by_hand(engine):
    net = network()
    with np.errstate(all="raise"):
        net.weights[0] = np.full((3, 6), 1e-44)
        with pytest.raises(FloatingPointError, match="overflow"):
            net.weights[0] = np.full((3, 6), 1e300)
