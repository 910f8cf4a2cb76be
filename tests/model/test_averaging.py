"""Weight averaging: the mean of the weights over the steps, kept with the weights that move."""

import json

import numpy as np
import pytest
from helpers import blobs, refused, squared_error, waves

import cmlp
from cmlp import Network
from cmlp.core import seam

DECAY = 0.8
RECIPES = {
    "sgd": {},
    "plain": {"momentum": 0.0},
    "adam": {"solver": "adam", "learning_rate": 0.01},
    "lion": {"solver": "lion", "learning_rate": 0.002},
    "clipped": {"clip_norm": 0.05},
    "decay": {"solver": "rmsprop", "weight_decay": 0.1, "l2": 0.01},
}


def network(dtype="float32", loss=None, **options):
    return Network([3, 17, 3], "tanh", loss=loss, dtype=dtype, seed=0, **options)


def mean_of(steps):
    """The exponential mean as the sum of its weighted terms."""
    factors = DECAY ** np.arange(len(steps))[::-1]
    return np.tensordot(factors / factors.sum(), np.array(steps, np.float64), axes=1)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("loss", [None, "squared_error", squared_error], ids=["cce", "mse", "own"])
def test_the_mean_of_the_weights_behind_each_step(core, dtype, name, loss):
    X, y = blobs(24) if loss is None else waves(24, n_out=3)
    moving, averaged = network(dtype, loss), network(dtype, loss)
    steps = []
    for start in range(0, 24, 5):
        moving.step(X[start : start + 5], y[start : start + 5], **RECIPES[name])
        steps.append(moving.params.copy())
    averaged.fit(X, y, epochs=1, batch_size=5, shuffle=False, ema=DECAY, **RECIPES[name])
    room = 20 * np.finfo(dtype).eps
    np.testing.assert_allclose(averaged.params, mean_of(steps), rtol=0, atol=room)
    np.testing.assert_array_equal(averaged.moments[-1], moving.params)
    np.testing.assert_array_equal(averaged.moments[:-1], moving.moments)
    assert averaged.averaged == averaged.steps == 5


def test_one_step_has_no_bias(core, dtype):
    X, y = blobs()
    moving, averaged = network(dtype), network(dtype)
    moving.step(X, y)
    averaged.step(X, y, ema=0.999)
    np.testing.assert_array_equal(averaged.params, moving.params)


@pytest.mark.parametrize("name", RECIPES)
def test_calls_add_up(engine, name):
    """Two fits, or single epochs, give the bits of one fit."""
    X, y = blobs()
    recipe = {"batch_size": 7, "ema": DECAY, **RECIPES[name]}
    whole, parts, epochs = network(), network(), network()
    whole.fit(X, y, epochs=4, **recipe)
    parts.fit(X, y, epochs=3, **recipe)
    parts.fit(X, y, epochs=1, **recipe)
    for _ in range(4):
        epochs.train_epoch(X, y, **recipe)
    for other in (parts, epochs):
        np.testing.assert_array_equal(other.params, whole.params)
        np.testing.assert_array_equal(other.moments, whole.moments)
        assert other.averaged == whole.averaged == 36


@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_threads_give_the_same_bits(core, dtype, clip_norm):
    X, y = blobs(400, 9)
    nets = [Network([9, 165, 100, 3], dtype=dtype, seed=0) for _ in range(2)]
    for n_threads, net in enumerate(nets, 1):
        net.fit(X, y, epochs=2, batch_size=150, n_threads=n_threads, ema=0.9, clip_norm=clip_norm)
    np.testing.assert_array_equal(nets[0].params, nets[1].params)
    np.testing.assert_array_equal(nets[0].moments, nets[1].moments)


def test_what_is_validated_and_seen(engine):
    X, y = blobs(90)
    net, seen = network(), []

    def look(state):
        seen.append(state.network.params.copy())
        loss = state.network.loss(X, y)
        assert loss == state.history["val_loss"][-1]

    net.fit(X, y, epochs=5, X_val=X, y_val=y, ema=0.95, callbacks=[look])
    np.testing.assert_array_equal(seen[-1], net.params)
    assert (net.moments[-1] != net.params).any()


def test_the_best_mean_comes_back(engine):
    X, y = blobs(90)
    net, seen = network(), []
    history = net.fit(
        X, y, epochs=20, X_val=X[:9], y_val=(y[:9] + 1) % 3, ema=0.9, patience=2,
        callbacks=[lambda state: seen.append(state.network.params.copy())],
    )  # fmt: skip
    assert history.stopped == "patience"
    np.testing.assert_array_equal(net.params, seen[history.best_epoch - 1])


def test_without_it_training_goes_on_from_the_mean(engine):
    X, y = blobs()
    net = network()
    net.fit(X, y, epochs=2, ema=0.9)
    mean, velocity = net.params.copy(), net.moments[:1].copy()
    other = network()
    other.params[:] = mean
    other.optimizer_state.moments_for(cmlp.core.vocabulary.SOLVERS[0])[:] = velocity
    for each in (net, other):
        each.fit(X, y, epochs=1, shuffle=False)
    np.testing.assert_array_equal(net.params, other.params)
    assert net.averaged == 0 and len(net.moments) == 1


def test_another_solver_averages_anew(engine):
    X, y = blobs()
    net = network()
    net.fit(X, y, epochs=2, ema=0.9)
    net.fit(X, y, epochs=1, batch_size=20, ema=0.9, solver="adam")
    assert net.averaged == net.steps == 3 and len(net.moments) == 3


@pytest.mark.parametrize("when", ["between calls", "in a callback"])
def test_weights_that_someone_wrote_are_where_training_goes_on(engine, when):
    X, y = blobs()
    net, other = network(), network()

    def write(state):
        state.network.weights[0][...] = 0.25

    if when == "between calls":
        net.fit(X, y, epochs=2, ema=0.9, shuffle=False)
        net.weights[0] = np.full((3, 17), 0.25)
    else:
        net.fit(X, y, epochs=2, ema=0.9, shuffle=False, callbacks=[write])
    other.params[:] = net.params
    other.optimizer_state.moments_for(cmlp.core.vocabulary.SOLVERS[0])[:] = net.moments[:1]
    for each in (net, other):
        each.fit(X, y, epochs=1, ema=0.9, shuffle=False)
    np.testing.assert_array_equal(net.params, other.params)
    assert net.averaged == other.averaged == 2


def test_a_saved_training_goes_on(engine, tmp_path):
    X, y = blobs()
    net = network()
    net.fit(X, y, epochs=2, ema=0.9, solver="adam")
    net.save(tmp_path / "all.cmlp", optimizer=True)
    net.save(tmp_path / "mean.cmlp")
    plain = cmlp.load(tmp_path / "mean.cmlp")
    np.testing.assert_array_equal(plain.params, net.params)
    assert plain.averaged == 0
    again = cmlp.load(tmp_path / "all.cmlp")
    for each in (net, again):
        each.fit(X, y, epochs=2, ema=0.9, solver="adam")
    np.testing.assert_array_equal(again.params, net.params)
    np.testing.assert_array_equal(again.moments, net.moments)
    assert net.astype("float64").averaged == 0


@pytest.mark.parametrize("change", [
    {"averaged": -1}, {"averaged": 10**6}, {"averaged": 0.5}, {"averaged": 0},
    {"shown_average": -1}, {"shown_average": "x"},
], ids=str)  # fmt: skip
def test_files_that_make_no_sense(tmp_path, change):
    X, y = blobs()
    net = network()
    net.fit(X, y, epochs=1, ema=0.9)
    path = tmp_path / "net.cmlp"
    net.save(path, optimizer=True)
    arrays, metadata = cmlp.formats.safetensors.read(path, lambda *_: None)
    state = json.loads(metadata["optimizer"]) | change
    cmlp.formats.safetensors.write(path, arrays, metadata | {"optimizer": json.dumps(state)})
    with pytest.raises(cmlp.ModelFileError):
        cmlp.load(path)


def test_divergence_leaves_the_last_finite_mean(engine):
    X, y = waves(40, n_out=3)
    net = network(loss="squared_error")
    net.fit(X, y, epochs=2, ema=0.9)
    mean, moving = net.params.copy(), net.moments[-1].copy()
    for _ in range(2):
        with pytest.raises(cmlp.DivergenceError):
            net.fit(X, y, batch_size=4, ema=0.9, learning_rate=1e15)
        np.testing.assert_array_equal(net.params, mean)
        np.testing.assert_array_equal(net.moments[-1], moving)
    again = network(loss="squared_error")
    again.fit(X, y, epochs=2, ema=0.9)
    for each in (net, again):
        each.fit(X, y, epochs=1, ema=0.9, shuffle=False)
    np.testing.assert_array_equal(net.params, again.params)


def test_an_interrupt_leaves_the_mean(engine):
    X, y = blobs()
    net = network()

    def interrupt(state):
        if state.epoch == 2:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted"):
        net.fit(X, y, epochs=5, ema=0.9, shuffle=False, callbacks=[interrupt])
    whole = network()
    whole.fit(X, y, epochs=2, ema=0.9, shuffle=False)
    np.testing.assert_array_equal(net.params, whole.params)


def test_it_smooths(engine):
    """Large steps jump about the minimum; their mean lies nearer to it."""
    X, y = waves(100)
    X, y = X[:, :1], y + np.random.default_rng(0).normal(0, 0.5, y.shape)
    losses = {}
    for ema in (0.0, 0.98):
        net = Network([1, 16, 1], "tanh", seed=0)
        net.fit(X, y, epochs=40, batch_size=2, learning_rate=0.05, momentum=0.0, ema=ema)
        losses[ema] = net.loss(X, y)
    assert losses[0.98] < losses[0.0]


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, np.nan, "much"])
def test_values_that_are_refused(value):
    X, y = blobs()
    with refused((ValueError, TypeError), "ema"):
        network().fit(X, y, ema=value)
    with refused(ValueError, "one plain step", "ema"):
        network().trace_step(X, y, ema=0.9)


def test_the_core_wants_room_for_the_mean(engine):
    if not engine.vector_bytes:
        pytest.skip("NumPy checks every index")
    net = network()
    spec = seam
    with pytest.raises(ValueError, match="state must be"):
        engine.update(
            net.plan, net.params, net.params.copy(), np.zeros((2, len(net.params)), "f4"),
            spec.Optimizer(1, ema=0.9), 0, 0.1,
        )  # fmt: skip
