"""Models for PyTorch, and networks from its modules: outputs, gradients, weights to the bit."""

import contextlib
import io
import pickle

import numpy as np
import pytest

import cmlp
from cmlp import from_safetensors, from_torch, to_safetensors, to_torch
from cmlp.core.vocabulary import ACTIVATIONS
from cmlp.exchange.chains import chain_of
from cmlp.formats.chain import ConversionError, run

NAMES = [row.name for row in ACTIVATIONS]
HIDDEN = [*(row.name for row in ACTIVATIONS if not row.output_only), "leaky_relu:0.3", "elu:0.5"]
rng = np.random.default_rng(0)
X = rng.normal(size=(50, 7))
Y = rng.integers(0, 3, 50)


torch = pytest.importorskip("torch")
nn = torch.nn


def trained(activation="tanh", sizes=(7, 12, 9, 3), **more):
    net = cmlp.Network(sizes, activation, seed=1, **more)
    net.fit(X, Y if sizes[-1] == 3 else X[:, : sizes[-1]], epochs=2, batch_size=25, clip_norm=1)
    return net


def outputs(module, dtype, rows=X):
    with torch.no_grad():
        return module(torch.from_numpy(rows.astype(dtype))).numpy()


def close(module, net, rows=X):
    """Within 4 times what the core deviates in the same dtype, + 1e-6 (1e-12 in float64)."""
    exact = run(chain_of(net), rows.astype(net.dtype))
    most = 1e-6 if net.dtype == np.float32 else 1e-12
    limit = 4 * np.abs(net.predict(rows) - exact).max() + most * max(1, np.abs(exact).max())
    deviation = np.abs(outputs(module, net.dtype, rows) - exact).max()
    assert deviation <= limit, (deviation, limit)
    return deviation


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("normalization", [None, "batch", "layer"])
@pytest.mark.parametrize("activation", HIDDEN)
def test_outputs(activation, normalization, dtype):
    net = trained(activation, dtype=dtype, normalization=normalization, input_scale=0.5)
    module = to_torch(net)
    assert not module.training and next(module.parameters()).dtype == getattr(torch, dtype)
    close(module, net)
    z = to_torch(net, raw=True)
    assert len(z) == len(module) - 1
    np.testing.assert_allclose(
        outputs(nn.Sequential(z, nn.Softmax(-1)), dtype),
        outputs(module, dtype), rtol=1e-5 if dtype == "float32" else 1e-12, atol=1e-7,
    )  # fmt: skip


@pytest.mark.parametrize("out", [name for name in NAMES if name != "softmax"])
def test_activations_of_outputs(out):
    net = cmlp.Network([7, 5, 2], "relu", out, "squared_error", seed=0)
    close(to_torch(net), net)
    back = from_torch(to_torch(net), loss="squared_error")
    assert back.activations == net.activations
    assert np.array_equal(back.params, net.params)


@pytest.mark.parametrize("activation", [name for name in HIDDEN if name != "identity"])
@pytest.mark.parametrize("normalization", [None, "layer"])
def test_there_and_back_to_the_bit(activation, normalization):
    net = trained(activation, normalization=normalization)
    back = from_torch(to_torch(net))
    assert back.activations == net.activations and back.loss_name == net.loss_name
    assert back.normalization == normalization and back.dtype == net.dtype
    assert np.array_equal(back.params, net.params)
    assert np.array_equal(back.predict(X), net.predict(X))


def test_batch_normalisation_kept():
    """Unfolded, it is BatchNorm1d; folded again on the way in."""
    net = trained("elu", normalization="batch", dtype="float64", input_scale=2)
    module = to_torch(net, fold=False)
    assert [type(m).__name__ for m in module][:3] == ["Linear", "BatchNorm1d", "ELU"]
    close(module, net)
    assert module[1].running_mean.numpy().tolist() == net.running[0][0].tolist()
    np.testing.assert_allclose(from_torch(module).predict(X), net.predict(X), rtol=1e-12)


def test_gradients_by_the_inputs():
    for activation in HIDDEN:
        net = trained(activation, dtype="float64", input_scale=0.5)
        x = torch.from_numpy(X[:9]).requires_grad_()
        out = to_torch(net)(x)
        (theirs,) = torch.autograd.grad(
            -out[torch.arange(9), torch.from_numpy(Y[:9])].log().mean(), x
        )
        rtol = 1e-7 if activation == "hard_sigmoid" else 1e-9  # PyTorch's slope is float32(1 / 6)
        np.testing.assert_allclose(theirs, net.gradients(X[:9], Y[:9]).inputs, rtol, 1e-13)


def test_gradients_of_an_estimator():
    clf = cmlp.MLPClassifier((8,), "tanh", max_iter=3, tol=0, random_state=0, n_ensemble=2)
    with pytest.warns(cmlp.ConvergenceWarning):
        clf.fit(X, Y)
    x = torch.from_numpy(X[:5].astype(np.float32))
    slopes = torch.func.vmap(torch.func.jacrev(to_torch(clf)))(x)
    np.testing.assert_allclose(slopes.detach(), clf.input_gradient(X[:5]), rtol=1e-4, atol=1e-6)


def test_training_continues():
    net = trained("relu")
    module = to_torch(net, raw=True)
    loss = nn.CrossEntropyLoss()(module(torch.from_numpy(X.astype(np.float32))), torch.tensor(Y))
    loss.backward()
    g = net.gradients(X, Y)
    np.testing.assert_allclose(module[0].weight.grad.T, g.weights[0], rtol=1e-4, atol=1e-6)
    before = net.params.copy()
    module[0].weight.data += 1
    assert np.array_equal(net.params, before), "the module has weights of its own"
    back = from_torch(module, out_activation="softmax", classes=["a", "b", "c"])
    assert back.loss_name == "categorical_crossentropy"
    back.fit(X, np.array(["a", "b", "c"])[Y], epochs=1)
    assert set(back.predict_classes(X)) <= {"a", "b", "c"}


def test_nothing_random_is_drawn():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    to_torch(trained("tanh", normalization="batch"), fold=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_modules_of_our_own():
    """An ensemble, means of a scaler, parametric activations, exp: also pickled."""
    net = cmlp.Network([7, 6, 2], "elu", "exp", "poisson", seed=0, parametric_activation=True)
    net.alphas[0][...] = rng.uniform(0.5, 1, 6)
    close(to_torch(net), net)
    buffer = io.BytesIO()
    torch.save(to_torch(net), buffer)
    buffer.seek(0)
    close(torch.load(buffer, weights_only=False), net)
    reg = cmlp.MLPRegressor(
        hidden_layer_sizes=(8,), max_iter=2, tol=0, random_state=0, n_ensemble=3
    )
    with pytest.warns(cmlp.ConvergenceWarning):
        reg.fit(X, X[:, 0])
    module = pickle.loads(pickle.dumps(to_torch(reg)))
    np.testing.assert_allclose(outputs(module, "f4")[:, 0], reg.predict(X), rtol=1e-5, atol=1e-6)
    with pytest.raises(ConversionError, match="the mean of an ensemble has no raw sums"):
        to_torch(reg, raw=True)


@pytest.mark.filterwarnings("ignore::cmlp.ConvergenceWarning")
def test_ensembles_there_and_back():
    labels = np.array(["a", "b", "c"])[Y]
    for kind, y, more in (
        (cmlp.MLPClassifier, labels, {}),
        (cmlp.MLPClassifier, labels == "a", {}),
        (cmlp.MLPRegressor, X[:, 0], {"loss": "squared_error"}),
    ):
        ours = kind(hidden_layer_sizes=(8,), max_iter=2, random_state=0, n_ensemble=3).fit(X, y)
        classes = getattr(ours, "classes_", None)
        back = from_torch(to_torch(ours), classes=classes, **more)
        assert type(back) is kind and len(back.estimators_) == 3
        np.testing.assert_array_equal(back.predict(X), ours.predict(X))
        for one, other in zip(back.estimators_, ours.estimators_, strict=True):
            assert np.array_equal(one.network_.params, other.network_.params)
    module = to_torch(ours)
    with pytest.raises(ConversionError, match="input_scale is for single networks"):
        from_torch(module, input_scale=0.5)
    with pytest.raises(ConversionError, match="the mean of no networks"):
        from_torch(nn.Sequential(type(module[0])([])))
    module[0].register_forward_hook(lambda module, x, y: -y)
    with pytest.raises(ConversionError, match="hooks"):
        from_torch(module)


def test_means_of_a_scaler():
    pipeline = pytest.importorskip("sklearn.pipeline")
    scalers = pytest.importorskip("sklearn.preprocessing")
    far = X + 1e4
    clf = cmlp.MLPClassifier((8,), "tanh", max_iter=2, tol=0, random_state=0)
    model = pipeline.make_pipeline(scalers.StandardScaler(), clf)
    with pytest.warns(cmlp.ConvergenceWarning):
        model.fit(far, Y)
    module = to_torch(model)
    assert type(module[0]).__name__ == "Subtract"
    rows = far.astype(np.float32)
    expected = model.predict_proba(rows.astype(np.float64))  # whose means keep their digits
    np.testing.assert_allclose(outputs(module, "f4", rows), expected, atol=1e-5)
    net = from_torch(module)
    assert net.dtype == np.float64, "float32 biases cannot take these means"
    np.testing.assert_allclose(net.predict(rows), expected, atol=1e-5)


# In ----------------------------------------------------------------------------------------------


def agrees(module, atol=1e-6, **more):
    torch.manual_seed(0)
    net = from_torch(module, **more)
    was = module.training
    theirs = outputs(module.eval(), net.dtype)
    module.train(was)
    np.testing.assert_allclose(net.predict(X), theirs, atol=atol, rtol=1e-5)
    return net


def seeded_norm(n, eps=1e-5):
    norm = nn.BatchNorm1d(n, eps=eps)
    norm.running_mean, norm.running_var = torch.randn(n), torch.rand(n) + 0.1
    norm.weight.data, norm.bias.data = torch.randn(n), torch.randn(n)
    return norm


def test_nested_modules_and_norms():
    """Batch normalisation in front of all, of an activation, and following one."""
    torch.manual_seed(1)
    module = nn.Sequential(
        seeded_norm(7), nn.Dropout(0.3),
        nn.Sequential(nn.Linear(7, 5, bias=False), seeded_norm(5, 1e-3), nn.ReLU(), seeded_norm(5)),
        nn.Identity(), nn.Linear(5, 4), nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3), nn.LogSoftmax(-1),  # noqa: E501
    )  # fmt: skip
    module.train()
    net = from_torch(module, classes=[3, 1, 2])
    assert module.training and net.sizes == (7, 5, 6, 3)
    assert net.loss_name == "categorical_crossentropy" and net.classes.tolist() == [3, 1, 2]
    theirs = outputs(module.eval(), "f4")
    np.testing.assert_allclose(np.log(net.predict(X)), theirs, atol=2e-5)

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = module

        def forward(self, x):
            return self.net(x)

    assert np.array_equal(from_torch(Whole()).predict(X), net.predict(X))


RECTIFIERS = {
    "leaky_relu:0.25": nn.PReLU(),
    "leaky_relu:0.4": nn.PReLU(init=0.4),
    "relu, negative": nn.PReLU(init=-0.3),
    "relu, each unit": nn.PReLU(5),
    "leaky_relu:0.25, mean": nn.RReLU(0.1, 0.4),
    "elu": nn.CELU(),
    "elu, wider": nn.CELU(2.5),
    "softplus": nn.Softplus(),
    "softplus, steeper": nn.Softplus(3, 25),
    "hard_sigmoid, 0 to 6": nn.ReLU6(),
    "hard_sigmoid, -0.5 to 0.2": nn.Hardtanh(-0.5, 0.2),
}


@pytest.mark.parametrize("name", RECTIFIERS)
def test_modules_that_are_activations_between_scaled_weights(name):
    torch.manual_seed(2)
    f = RECTIFIERS[name]
    if name.endswith("unit"):
        f.weight.data = torch.tensor([-0.5, 0.0, 0.25, 1.0, 2.0])
    for norm in ([], [nn.LayerNorm(5)]):
        layers = [nn.Linear(7, 5, bias=not norm), *norm, f, nn.Linear(5, 2)]
        module = nn.Sequential(*layers).double()
        net = agrees(module, atol=1e-12)
        assert net.activations[0] == name.partition(",")[0]
        assert net.parametric_activation == (name in ("relu, negative", "relu, each unit"))


@pytest.mark.parametrize("activation", [name for name in HIDDEN if name != "identity"])
def test_slopes_of_units_there_and_back(activation):
    net = trained(activation, parametric_activation=True)
    back = from_torch(to_torch(net))
    assert back.parametric_activation and back.activations == net.activations
    assert np.array_equal(back.params, net.params)


def test_weight_norm_is_computed():
    """The old one leaves a weight that is out of date once its parts have changed."""
    old = nn.utils.weight_norm if hasattr(nn.utils, "weight_norm") else None
    new = nn.utils.parametrizations.weight_norm
    for make in filter(None, (old, new)):
        torch.manual_seed(0)
        with pytest.warns() if make is old else contextlib.nullcontext():
            module = nn.Sequential(make(nn.Linear(7, 5)), nn.ReLU(), nn.Linear(5, 2))
        if make is old:
            module[0].weight_g.data *= 3
        else:
            module[0].parametrizations.weight.original0.data *= 3
        net = agrees(module)
        again = from_torch(module.state_dict(), activation="relu")
        np.testing.assert_allclose(again.params, net.params, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_are_widened(dtype):
    module = nn.Sequential(nn.Linear(7, 5), nn.SiLU(), nn.Linear(5, 2)).to(dtype)
    net = from_torch(module)
    assert net.dtype == np.float32
    assert np.array_equal(net.weights[0], module[0].weight.detach().float().T)


def test_state_dicts():
    net = trained("gelu")
    state = to_torch(net).state_dict()
    back = from_torch(state, activation="gelu", out_activation="softmax")
    assert np.array_equal(back.params, net.params)
    with pytest.raises(ConversionError, match="give activation='relu'"):
        from_torch(state)
    module = nn.Sequential(nn.Linear(7, 5), seeded_norm(5), nn.Tanh(), nn.Linear(5, 2)).eval()
    net = from_torch(module.state_dict(), activation="tanh")
    np.testing.assert_allclose(net.predict(X), outputs(module, "f4"), atol=1e-5)
    after = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), seeded_norm(5), nn.Linear(5, 2))
    with pytest.raises(ConversionError, match="do not tell whether the normalisation '2'"):
        from_torch(after.state_dict(), activation="tanh")
    agrees(after, atol=1e-5)


L = nn.Linear


@pytest.mark.parametrize(
    "layers, text",
    [
        (
            [L(7, 5), nn.Softsign(), L(5, 2)],
            r"layer 2 \(Softsign, '1'\) has no counterpart in cmlp; these",
        ),
        ([L(7, 5), nn.PReLU(4), L(5, 2)], r"layer 2 \(PReLU.* has 4 slopes for 5 units"),
        ([L(7, 5), nn.PReLU(5)], "the outputs have slopes of their own"),
        ([L(7, 5), nn.RReLU(-0.5, 0.1), L(5, 2)], r"layer 2 \(RReLU.* the slope -0.2; cmlp has"),
        ([L(7, 5), nn.LeakyReLU(-0.2), L(5, 2)], r"layer 2 \(LeakyReLU.* the slope -0.2; cmlp has"),
        ([L(7, 5), nn.CELU(-0.5), L(5, 2)], r"layer 2 \(CELU.*with these constants"),
        ([L(7, 5), nn.CELU(0.0), L(5, 2)], r"layer 2 \(CELU.*with these constants"),
        ([L(7, 5), nn.Softplus(1, 5), L(5, 2)], "threshold=5"),
        ([L(7, 5), nn.GELU("tanh"), L(5, 2)], "approximate='tanh'.*approximate=True"),
        ([L(7, 5), nn.Hardtanh(-1e4, 1e4), L(5, 2)], "limits beyond 64 cost float32 its digits"),
        ([L(7, 5), nn.ReLU6()], "after the activation of the outputs"),
        ([L(7, 5), nn.Softmax(-1), L(5, 2)], "layer 1 has softmax"),
        ([L(7, 5), nn.Softmax(0)], "dim=0"),
        ([L(7, 5), nn.LogSoftmax(1), L(5, 2)], "LogSoftmax.*in front of other layers"),
        ([L(7, 5), nn.LayerNorm(5), nn.ReLU(), L(5, 2)], "bias in front of its layer norm"),
        ([L(7, 5), nn.ReLU(), nn.LayerNorm(5), L(5, 2)], "layer normalisation is of a linear"),
        ([L(7, 5), nn.BatchNorm1d(5, track_running_stats=False)], "track_running_stats=False"),
        ([nn.Conv1d(7, 5, 1)], r"layer 1 \(Conv1d"),
        ([nn.LSTM(7, 5)], r"layer 1 \(LSTM"),
        ([L(7, 5), nn.ReLU(), nn.BatchNorm1d(5)], "after the activation of the outputs"),
        ([L(7, 5), nn.ReLU(), L(4, 2)], "takes 4 inputs, but gets 5"),
        ([nn.ReLU()], "an activation is of a linear"),
        ([nn.Dropout()], "there is no linear layer"),
    ],
)
def test_what_does_not_fit(layers, text):
    with pytest.raises(ConversionError, match=text):
        from_torch(nn.Sequential(*layers))


def test_other_things_that_do_not_fit():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(7, 5), nn.Linear(7, 5)

    class Other(nn.Linear):
        def forward(self, x):
            return super().forward(x) + 1

    class Reversed(nn.Sequential):
        def forward(self, x):
            return -super().forward(x)

    with pytest.raises(ConversionError, match=r"order of its parts \(a, b\) is not known"):
        from_torch(Branches())
    with pytest.raises(ConversionError, match=r"layer 1 \(Other, '0'\) has no counterpart"):
        from_torch(nn.Sequential(Other(7, 5)))
    with pytest.raises(ConversionError, match="Reversed"):
        from_torch(Reversed(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 2)))
    hooked = nn.Sequential(nn.Linear(7, 5))
    hooked[0].register_forward_hook(lambda module, x, y: -y)
    with pytest.raises(ConversionError, match=r"hooks"):
        from_torch(hooked)
    with pytest.raises(ConversionError, match=r"not an? ?int|not int"):
        from_torch(3)
    gelu = nn.Sequential(nn.Linear(7, 5), nn.GELU("tanh"), nn.Linear(5, 2))
    agrees(gelu, atol=2e-3, approximate=True)
    with pytest.raises(ConversionError, match="ends in relu, but out_activation='softmax'"):
        from_torch(nn.Sequential(nn.Linear(7, 5), nn.ReLU()), out_activation="softmax")
    inputs = cmlp.Network([7, 5, 2], inputs=cmlp.Inputs(periodic=[0]), seed=0)
    with pytest.raises(ConversionError, match="no layer for inputs="):
        to_torch(inputs)


# Files -------------------------------------------------------------------------------------------


def test_safetensors_into_the_module(tmp_path):
    theirs = pytest.importorskip("safetensors.torch")
    for normalization in (None, "layer"):
        net = trained("silu", normalization=normalization)
        to_safetensors(net, tmp_path / "m.safetensors")
        module = to_torch(cmlp.Network(net.sizes, "silu", seed=9, normalization=normalization))
        missing, unexpected = theirs.load_model(module, str(tmp_path / "m.safetensors"))
        assert not missing and not unexpected
        close(module, net)
        back = from_safetensors(
            tmp_path / "m.safetensors", activation="silu", out_activation="softmax"
        )
        assert np.array_equal(back.params, net.params)
    theirs.save_model(to_torch(trained("relu")), str(tmp_path / "n.safetensors"))
    theirs.save_file({"a": torch.zeros(2, dtype=torch.bfloat16)}, str(tmp_path / "b.safetensors"))
    from_safetensors(tmp_path / "n.safetensors", activation="relu")


@pytest.mark.filterwarnings("ignore")  # of SHAP's own
def test_shap():
    shap = pytest.importorskip("shap")
    for activation in ("relu", "tanh"):
        net = trained(activation, dtype="float64")
        module = to_torch(net)
        explainer = shap.DeepExplainer(module, torch.from_numpy(X))
        values = explainer.shap_values(torch.from_numpy(X[:4]))
        total = np.asarray(values).sum(axis=1) + outputs(module, "f8").mean(axis=0)
        np.testing.assert_allclose(total, net.predict(X[:4]), atol=1e-6)
