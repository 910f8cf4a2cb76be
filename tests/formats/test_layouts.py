"""Arrays by other libraries' names, files of them, and how chains become networks."""

import io
from dataclasses import replace

import numpy as np
import pytest

import cmlp
from cmlp import from_safetensors, from_torch, to_flax, to_safetensors
from cmlp.core.vocabulary import ACTIVATIONS
from cmlp.exchange.chains import chain_of
from cmlp.exchange.keras import IN_KERAS
from cmlp.exchange.networks import network_of
from cmlp.exchange.torch import IN_TORCH
from cmlp.formats import layouts, safetensors
from cmlp.formats.building import Builder, joined, ramp
from cmlp.formats.chain import (
    Activation,
    Affine,
    Chain,
    ConversionError,
    LayerNorm,
    Member,
    run,
    with_scaler,
)

rng = np.random.default_rng(0)
X = rng.normal(size=(30, 7))


def network(activation="tanh", sizes=(7, 12, 9, 3), **more):
    net = cmlp.Network(sizes, activation, seed=1, **more)
    net.params[...] = np.where(net.params != 0, net.params, 0)
    for views in (net.weights, net.biases, net.scales):
        for view in views:
            view[...] = rng.normal(size=view.shape)
    return net


def file_of(arrays, metadata=None):
    file = io.BytesIO()
    safetensors.write(file, arrays, metadata or {})
    file.seek(0)
    return file


def test_every_activation_has_its_row():
    assert [*IN_TORCH] == [*IN_KERAS] == [row.name for row in ACTIVATIONS]


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
@pytest.mark.parametrize("normalization", [None, "layer"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_hidden", [0, 1, 12])
def test_files_there_and_back(layout, normalization, dtype, n_hidden):
    """Also of more than ten layers, whose numbers are not in the order of text."""
    if normalization and not n_hidden:
        return
    sizes = (7, *range(20, 20 + n_hidden), 3)
    net = network("silu", sizes, normalization=normalization, dtype=dtype)
    file = io.BytesIO()
    to_safetensors(net, file, layout)
    file.seek(0)
    back = from_safetensors(file, activation="silu", out_activation="softmax")
    assert np.array_equal(back.params, net.params) and back.dtype == net.dtype
    assert back.loss_name == "categorical_crossentropy"
    first = next(iter(layouts.arrays_of(chain_of(net), layout).values()))
    assert first.shape == ((sizes[1], 7) if layout == "torch" else (7, sizes[1]))


def test_flax():
    net = network("gelu", normalization="layer")
    params = to_flax(net)["params"]
    assert [*params] == ["Dense_0", "LayerNorm_0", "Dense_1", "LayerNorm_1", "Dense_2"]
    assert [*params["Dense_0"]] == ["kernel"] and [*params["LayerNorm_0"]] == ["scale", "bias"]
    assert np.array_equal(params["Dense_2"]["kernel"], net.weights[2])


@pytest.mark.filterwarnings("ignore")
def test_flax_computes_the_same():
    linen = pytest.importorskip("flax.linen")
    jax = pytest.importorskip("jax")
    functions = {
        "identity": lambda z: z, "logistic": jax.nn.sigmoid, "tanh": jax.numpy.tanh,
        "relu": jax.nn.relu, "leaky_relu": jax.nn.leaky_relu, "elu": jax.nn.elu,
        "selu": jax.nn.selu, "gelu": lambda z: jax.nn.gelu(z, approximate=False),
        "silu": jax.nn.silu, "mish": jax.nn.mish, "softplus": jax.nn.softplus,
        "hard_sigmoid": jax.nn.hard_sigmoid, "exp": jax.numpy.exp,
        "leaky_relu:0.3": lambda z: jax.nn.leaky_relu(z, 0.3),
        "elu:0.5": lambda z: jax.nn.elu(z, 0.5),
    }  # fmt: skip
    for name, f in functions.items():
        net = cmlp.Network([7, 12, 9, 3], name, seed=1, normalization="layer")

        class Module(linen.Module):
            function: object

            @linen.compact
            def __call__(self, x):
                for n in (12, 9):
                    x = linen.Dense(n, use_bias=False)(x)
                    x = self.function(linen.LayerNorm(epsilon=1e-5, use_fast_variance=False)(x))
                return jax.nn.softmax(linen.Dense(3)(x))

        rows = X.astype("f4")
        exact = run(chain_of(net), rows)
        most = 4 * np.abs(net.predict(rows) - exact).max() + 1e-6
        assert np.abs(Module(f).apply(to_flax(net), rows) - exact).max() <= most, name
    assert [*functions][:-2] == [row.name for row in ACTIVATIONS if not row.output_only]


# What arrays do not tell -----------------------------------------------------------------------


def layers(*shapes, names=None):
    return {
        f"{name}.weight": rng.normal(size=shape)
        for name, shape in zip(names or range(len(shapes)), shapes, strict=True)
    }


def test_square_layers_need_a_layout():
    arrays = layers((4, 4), (4, 4))
    with pytest.raises(ConversionError, match=r"the weights are square: .*layout='torch'"):
        from_safetensors(file_of(arrays), activation="relu")
    one = from_safetensors(file_of(arrays), "torch", activation="relu")
    marked = from_safetensors(file_of(arrays, {"format": "pt"}), activation="relu")
    other = from_safetensors(file_of(arrays), "keras", activation="relu")
    assert np.array_equal(one.weights[0], arrays["0.weight"].T)
    assert np.array_equal(one.params, marked.params)
    assert np.array_equal(other.weights[0], arrays["0.weight"])


def test_shapes_decide():
    out_in = from_safetensors(file_of(layers((5, 7), (3, 5))), activation="relu")
    in_out = from_safetensors(file_of(layers((7, 5), (5, 3))), activation="relu")
    assert out_in.sizes == in_out.sizes == (7, 5, 3)
    with pytest.raises(ValueError, match="layout must be one of torch, keras, flax"):
        from_safetensors(file_of(layers((5, 7))), "pytorch")


def test_the_order_of_layers():
    """By numbers, else by the only order that fits; a dict is in order."""
    named = layers((3, 5), (5, 7), (2, 3), names=("b", "enter", "a"))
    assert from_safetensors(file_of(named), "torch", activation="relu").sizes == (7, 5, 3, 2)
    twice = layers((5, 5), (5, 7), (5, 5), names=("b", "enter", "a"))
    with pytest.raises(ConversionError, match="do not tell the order of the layers"):
        from_safetensors(file_of(twice), "torch", activation="relu")
    in_order = {name: twice[name] for name in ("enter.weight", "a.weight", "b.weight")}
    net = from_torch(in_order, activation="relu")
    assert np.array_equal(net.weights[1], twice["a.weight"].T)


@pytest.mark.parametrize(
    "arrays, text",
    [
        (layers((5, 7), (3, 4)), "takes 4 inputs, but gets 5"),
        ({"0.weight": np.zeros((5, 7)), "0.bias": np.zeros(4)}, r"bias of shape \(4,\)"),
        ({"0.weight": np.zeros((5, 7), "i8")}, "weight of int64, not of floating"),
        ({"0.weight": np.zeros((5, 7)), "0.lora_A": np.zeros(4)}, "an array 'lora_A'"),
        ({"0.weight": np.zeros((5, 7, 1))}, "neither a linear layer nor a normalisation"),
        ({"0.weight": np.full((5, 7), np.nan)}, "layer 1 has weights that are not finite"),
        ({}, "there is no linear layer"),
        (layers((5, 7), (3, 5), (2, 3)), "activation has 1 names, but there are 2 hidden"),
    ],
)
def test_arrays_that_do_not_fit(arrays, text):
    with pytest.raises(ConversionError, match=text):
        from_safetensors(file_of(arrays), "torch", activation=["relu"])


def test_a_file_of_our_own(tmp_path):
    """``layers.0.weight`` is (n_in, n_out) there, and (n_out, n_in) in PyTorch's."""
    cmlp.Network([7, 7, 7], seed=0).save(tmp_path / "m.safetensors")
    with pytest.raises(ConversionError, match=r"read it by cmlp.load"):
        from_safetensors(tmp_path / "m.safetensors", activation="relu")


def test_what_files_have_no_place_for(tmp_path):
    path = tmp_path / "m.safetensors"
    reg = cmlp.MLPRegressor(hidden_layer_sizes=(4,), max_iter=1, n_ensemble=2, tol=0)
    with pytest.warns(cmlp.ConvergenceWarning):
        reg.fit(X, X[:, 0])
    parametric = cmlp.Network([7, 5, 3], parametric_activation=True, seed=0)
    table = cmlp.Network([7, 5, 3], inputs=cmlp.Inputs(periodic=[0]), seed=0)
    for model, text in (
        (reg, "ensemble of 2"),
        (parametric, "parametric activations"),
        (table, "inputs="),
    ):
        with pytest.raises(ConversionError, match=text):
            to_safetensors(model, path)
        with pytest.raises(ConversionError, match=text):
            to_flax(model)
    with pytest.raises(ValueError, match="layout must be"):
        to_safetensors(cmlp.Network([7, 3], seed=0), path, "onnx")
    assert not path.exists()


# Chains to networks ----------------------------------------------------------------------------


def test_a_network_is_itself_again():
    for more in ({}, {"normalization": "layer"}, {"parametric_activation": True}):
        for dtype in ("float32", "float64"):
            net = network("elu", dtype=dtype, **more)
            net.feature_names, net.classes = list("abcdefg"), ["x", "z", "y"]
            back = network_of(chain_of(net))
            assert np.array_equal(back.params, net.params)
            assert back.classes.tolist() == ["x", "z", "y"]
            assert str(back) == str(net) and back.feature_names == net.feature_names


def test_affine_layers_in_a_row():
    W = [rng.normal(size=shape).astype("f4") for shape in ((7, 5), (5, 6), (6, 2))]
    b = [rng.normal(size=len(w.T)).astype("f4") for w in W]
    steps = [Affine(W[0], None), Affine(W[1], b[1]), Activation("tanh"), Affine(W[2], b[2])]
    chain = Chain(7, (Member((*steps, Activation("identity"))),))
    net = network_of(chain)
    assert net.sizes == (7, 6, 2)
    np.testing.assert_allclose(net.predict(X), run(chain, X), rtol=1e-5, atol=1e-5)
    wide = W[0].astype("f8") @ W[1].astype("f8")
    assert np.array_equal(net.weights[0], wide.astype("f4")), "rounded once"


def test_means_go_into_biases():
    """In float64 where they are too large for float32."""
    for mean, dtype in ((0.5, np.float32), (1e5, np.float64)):
        chain = with_scaler(chain_of(network()), np.full(7, mean), np.full(7, 2.0))
        net = network_of(chain)
        assert net.dtype == dtype
        rows = (X + mean).astype(dtype)
        np.testing.assert_allclose(net.predict(rows), run(chain, rows), atol=1e-5)
    with pytest.raises(ConversionError, match="subtract them yourself"):
        network_of(with_scaler(chain_of(network(normalization="layer")), np.ones(7), np.ones(7)))


def test_a_scale_stays_one():
    net = network(input_scale=1 / 255)
    plain = Chain(7, (Member(chain_of(network()).members[0].steps),))
    back = network_of(plain, input_scale=1 / 255)
    assert back.input_scale == net.input_scale
    np.testing.assert_allclose(back.predict(X * 255), run(plain, X), atol=1e-6)


def test_losses():
    steps = chain_of(network()).members[0].steps
    for out, loss in {
        "softmax": "categorical_crossentropy", "logistic": "binary_crossentropy",
        "exp": "poisson", "identity": "squared_error", "tanh": "squared_error",
    }.items():  # fmt: skip
        chain = Chain(7, (Member((*steps[:-1], Activation(out))),))
        assert network_of(chain).loss_name == loss
    assert network_of(chain, "huber").loss_name == "huber"
    with pytest.raises(ConversionError, match="poisson needs outputs between 0 and inf"):
        network_of(chain, "poisson")


def test_layer_normalisation_that_a_network_has_not():
    plain = chain_of(network(normalization="layer"))
    steps = list(plain.members[0].steps)

    def refused(changed, text):
        with pytest.raises(ConversionError, match=text):
            network_of(Chain(7, (Member(tuple(changed)),)))

    refused([s for s in steps if s is not steps[1]], r"layer normalisation is of layers \[2\] of 3")
    other = replace(steps[1], epsilon=1e-3)
    refused([steps[0], other, *steps[2:]], "epsilon=1e-05, but cmlp has epsilon=0.001 only")
    bias = Affine(steps[0].weights, np.arange(12.0))
    refused([bias, *steps[1:]], "layer 1 has a bias in front of its layer normalisation")
    assert isinstance(steps[1], LayerNorm)
    refused([steps[0], steps[2], steps[1], *steps[3:]], "layer 2 is not a linear layer")


def test_folding_by_the_builder():
    """Factors and shifts in every place, against the arithmetic written out."""
    f, s = rng.uniform(0.5, 2, (4, 7)), rng.normal(size=(4, 7))
    W, V = rng.normal(size=(7, 7)), rng.normal(size=(7, 7))
    builder = Builder()
    builder.scale("a", f[0], s[0])
    builder.affine("b", W, None)
    builder.scale("c", f[1], s[1])
    builder.activation("d", "tanh")
    builder.scale("e", f[2], s[2])
    builder.scale("f", f[3], s[3])
    builder.affine("g", V, np.ones((1, 7)))
    chain = builder.chain()
    a = np.tanh(((X * f[0] + s[0]) @ W) * f[1] + s[1])
    expected = ((a * f[2] + s[2]) * f[3] + s[3]) @ V + 1
    assert chain.dtype == np.float64 and chain.mean is not None
    np.testing.assert_allclose(run(chain, X), expected, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(network_of(chain).predict(X), expected, rtol=1e-11, atol=1e-11)
    with pytest.raises(ConversionError, match="has 3 columns, not 7"):
        builder.scale("h", np.ones(3), np.ones(3))
    with pytest.raises(ConversionError, match="variance below 0"):
        builder.batch_norm("h", np.ones(7), -np.ones(7), 1e-5, None, None)


def test_activations_between_scaled_weights():
    """Slopes of PReLU, and functions that are cmlp's of scaled sums, scaled."""
    W, V = rng.normal(size=(7, 5)), rng.normal(size=(5, 2))
    z, slopes = X @ W, np.array([-0.5, 0.0, 0.25, 1.0, 2.0])

    def agrees(add, expected, name):
        builder = Builder()
        builder.affine("a", W, None)
        add(builder)
        builder.affine("c", V, None)
        net = network_of(builder.chain())
        assert net.activations[0] == name
        np.testing.assert_allclose(net.predict(X), expected @ V, rtol=1e-12, atol=1e-12)

    for slope, name in ((slopes, "relu"), (slopes[:1], "relu"), (slopes[2:3], "leaky_relu:0.25")):
        leaky = np.where(z > 0, z, slope * z)
        agrees(lambda builder, slope=slope: builder.rectifier("b", slope), leaky, name)
    elu = np.where(z > 0, z, 2 * np.expm1(z / 2))
    agrees(lambda builder: builder.scaled_activation("b", 0.5, 0.0, "elu", 2.0, 0.0), elu, "elu")
    factor, shift, *rest = ramp(-0.5, 2)
    clipped, name = np.clip(z, -0.5, 2), "hard_sigmoid"
    agrees(
        lambda builder: builder.scaled_activation("b", factor, shift, name, *rest), clipped, name
    )
    assert ramp(0, 65) is ramp(2, 1) is ramp(0, np.nan) is None
    builder = Builder()
    builder.affine("a", W, None)
    with pytest.raises(ConversionError, match="b has 4 slopes for 5 units"):
        builder.rectifier("b", slopes[:4])
    for numbers in ((np.inf, 0.0, 0.0), (-1.0, 0.0, 1.0), (1.0, np.nan, 1.0)):
        with pytest.raises(ConversionError, match=r"b has no counterpart.*with these constants"):
            builder.scaled_activation("b", *numbers[:2], "elu", numbers[2], 0.0)


def test_the_mean_of_chains():
    def chain(n_in, mean):
        builder = Builder(n_in)
        builder.scale("a", 1.0, np.full(n_in, -mean))
        builder.affine("b", np.ones((n_in, 2)), None)
        return builder.chain()

    whole = joined([chain(3, 5.0), chain(3, 5.0)], classes=np.array(["a", "b"]))
    assert len(whole.members) == 2 and whole.mean.tolist() == [5] * 3
    assert whole.classes.tolist() == ["a", "b"]
    np.testing.assert_allclose(run(whole, X[:, :3]), run(chain(3, 5.0), X[:, :3]))
    for others, text in (
        ([], "no networks"),
        ([chain(3, 5.0), chain(3, 0.0)], "different means"),
        ([chain(3, 5.0), chain(4, 5.0)], "different numbers of units"),
    ):
        with pytest.raises(ConversionError, match=text):
            joined(others)
