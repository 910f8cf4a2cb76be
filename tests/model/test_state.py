"""State and the façade: what programs may do to a network, and what a refused call leaves."""

import copy
import pickle

import numpy as np
import pytest
from helpers import blobs, refused

import cmlp
from cmlp import MLPClassifier, MLPRegressor, Network


class Encoder(Network):
    """A subclass with a method of its own that other libraries have, too."""

    def encode(self, X):
        return self.forward(X, return_all=True).a[0]


def test_a_subclass_may_have_methods_of_its_own():
    X, y = blobs()
    net = Encoder([3, 4, 3], seed=0)
    net.fit(X, y, epochs=1)
    assert net.encode(X).shape == (len(X), 4) and type(copy.copy(net)) is Encoder


@pytest.mark.parametrize("name", [
    "architecture", "optimizer_state", "workspaces", "custom_loss", "loss_row", "shown_average",
])  # fmt: skip
def test_parts_of_the_state_cannot_be_assigned(name):
    net = Network([3, 4, 3], seed=0)
    with refused(AttributeError, name, "cannot be assigned"):
        setattr(net, name, "resnet")
    assert net.predict(np.ones((1, 3))).shape == (1, 3)


def test_attributes_of_a_programs_own_are_copied():
    net = Network([3, 4, 3], seed=0)
    net.remark = "mine"
    for other in (copy.copy(net), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert other.remark == "mine"
        np.testing.assert_array_equal(other.plan, net.plan)


REFUSED = {
    "schedule": "x", "callbacks": [3], "verbose": "x", "solver": "zz", "epochs": -1, "patience": 0,
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_fit_that_is_refused_leaves_no_labels(name):
    X, y = blobs()
    net = Network([3, 4, 3], seed=0)
    with pytest.raises((TypeError, ValueError)):
        net.fit(X, np.array(["a", "b", "c"])[y], **{name: REFUSED[name]})
    assert net.classes is None


@pytest.mark.parametrize("method", ["step", "train_epoch", "trace_step"])
def test_a_step_that_is_refused_leaves_no_labels(method):
    X, y = blobs()
    net = Network([3, 4, 3], seed=0)
    with refused(ValueError, "zz"):
        getattr(net, method)(X, np.array(["a", "b", "c"])[y], solver="zz")
    assert net.classes is None


def test_a_batch_of_one_row_without_statistics_leaves_no_labels():
    X, y = blobs()
    net = Network([3, 4, 3], seed=0, normalization="batch")
    with refused(ValueError, "at least 2 rows"):
        net.fit(X, np.array(["a", "b", "c"])[y], batch_size=1)
    assert net.classes is None


@pytest.mark.parametrize("inner", ["sgd", "nadam", "adam"])
def test_a_callback_trains_with_the_same_solver_or_not_at_all(engine, inner):
    X, y = blobs()
    net = Network([3, 4, 3], seed=0)

    def train(state):
        state.network.step(X, y, solver=inner)

    if inner == "adam":
        assert len(net.fit(X, y, solver="adam", epochs=2, callbacks=[train])["loss"]) == 2
    else:
        with refused(RuntimeError, inner, "'adam'", "deepcopy"):
            net.fit(X, y, solver="adam", epochs=2, callbacks=[train])


def test_best_weights_are_restored_over_a_mean(engine, monkeypatch):
    """Ctrl-C within an epoch of averaged weights: the best epoch's stay, not the last mean."""
    X, y = blobs()
    net = Network([3, 8, 3], seed=0)
    seen, train_epoch = [], engine.train_epoch

    def interrupted(*arguments):
        if len(seen) == 3:
            raise KeyboardInterrupt
        return train_epoch(*arguments)

    def see(state):
        seen.append((state.history["val_loss"][-1], net.params.copy()))

    monkeypatch.setattr(engine, "train_epoch", interrupted)
    with pytest.warns(UserWarning, match="interrupted"):
        history = net.fit(X, y, ema=0.9, X_val=X, y_val=(y + 1) % 3, patience=5, epochs=9,
                          learning_rate=0.1, callbacks=[see])  # fmt: skip
    assert history.restored and history.stopped == "interrupted" and len(seen) == 3
    np.testing.assert_array_equal(net.params, min(seen, key=lambda pair: pair[0])[1])


@pytest.mark.parametrize("normalization", ["batch", "layer"])
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_hidden_layers_that_are_normalised(engine, normalization, kind):
    X, y = blobs()
    model = kind(hidden_layer_sizes=(6, 5), max_iter=3, random_state=0, dtype="float64",
                 normalization=normalization)  # fmt: skip
    with pytest.warns(cmlp.ConvergenceWarning):
        model.fit(X, y)
    activations = model.network_.forward(X, return_all=True).a
    for layer in (0, 1):
        np.testing.assert_allclose(model.transform(X, layer=layer), activations[layer], rtol=1e-12)


class Loose(MLPClassifier):
    """A subclass whose get_params does not list what it passes on."""

    def __init__(self, extra=1, **parameters):
        super().__init__(**parameters)
        self.extra = extra


def test_an_ensemble_needs_all_parameters_by_name():
    X, y = blobs()
    with refused(ValueError, "Loose", "**kwargs"):
        Loose(n_ensemble=2, max_iter=1).fit(X, y)
