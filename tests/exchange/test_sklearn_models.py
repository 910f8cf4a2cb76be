"""Models for scikit-learn's own classes, and estimators from them, which train on."""

import pickle
import warnings

import numpy as np
import pytest

import cmlp
from cmlp import from_sklearn, to_sklearn
from cmlp.formats.chain import ConversionError

sklearn = pytest.importorskip("sklearn")
from sklearn import (  # noqa: E402
    base,
    ensemble,
    linear_model,
    neural_network,
    pipeline,
    preprocessing,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning",
    "ignore:scipy.optimize:DeprecationWarning",  # of scikit-learn 1.4 with a later SciPy
)

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 5))
NUMBERS = rng.integers(0, 3, 60)
KINDS = {
    "three": NUMBERS,
    "two": np.array(["b", "a"])[NUMBERS % 2],
    "many": np.stack([NUMBERS % 2, NUMBERS == 0, X[:, 0] > 0], 1).astype(int),
    "floats": np.array([1.0, 2.0, 7.0])[NUMBERS],
    "bools": NUMBERS == 0,
}
ACTIVATIONS = ["identity", "logistic", "tanh", "relu"]


def fitted(kind, y, **more):
    more = {"max_iter": 4, "tol": 0, "random_state": 0, "hidden_layer_sizes": (8, 6)} | more
    return kind(**more).fit(X, y)


def limit(dtype):
    return 2e-6 if dtype == "float32" else 1e-12


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_classifiers(kind, activation, dtype):
    y = KINDS[kind]
    ours = fitted(cmlp.MLPClassifier, y, activation=activation, dtype=dtype, input_scale=0.5)
    theirs = to_sklearn(ours)
    assert type(theirs) is neural_network.MLPClassifier
    np.testing.assert_allclose(theirs.predict_proba(X), ours.predict_proba(X), atol=limit(dtype))
    assert theirs.predict(X).tolist() == ours.predict(X).tolist()
    assert theirs.classes_.dtype == ours.classes_.dtype
    assert theirs.coefs_[0].dtype == np.dtype(dtype)
    assert (theirs.n_iter_, theirs.t_, theirs.loss_) == (ours.n_iter_, ours.t_, ours.loss_)
    copy = pickle.loads(pickle.dumps(theirs))
    assert np.array_equal(copy.predict(X), theirs.predict(X))
    for each, more in ((theirs, {}), (base.clone(theirs), {"classes": ours.classes_})):
        each.partial_fit(X, y, **more)
    back = from_sklearn(copy)
    assert type(back) is cmlp.MLPClassifier and back.dtype == dtype
    assert all(np.array_equal(a, b) for a, b in zip(back.coefs_, copy.coefs_, strict=True))
    assert back.predict(X).tolist() == ours.predict(X).tolist()
    if kind == "many":
        assert back._labels.multilabel


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("columns", [1, 2])
def test_regressors(columns, activation):
    y = X[:, 0] if columns == 1 else X[:, :2]
    ours = fitted(
        cmlp.MLPRegressor, y, activation=activation, normalization="batch", dtype="float64"
    )
    theirs = to_sklearn(ours)
    assert type(theirs) is neural_network.MLPRegressor
    np.testing.assert_allclose(theirs.predict(X), ours.predict(X), atol=1e-12)
    theirs.partial_fit(X, y)


def test_the_weights_come_home():
    ours = fitted(cmlp.MLPClassifier, NUMBERS, activation="tanh")
    back = from_sklearn(to_sklearn(ours))
    assert np.array_equal(back.network_.params, ours.network_.params)
    assert back.get_params() == ours.get_params() | {"dtype": "float32"}
    assert np.array_equal(back.predict_proba(X), ours.predict_proba(X))


@pytest.mark.parametrize("kind", KINDS)
def test_training_continues_as_theirs_does(kind):
    """With 'sgd' without momentum there is no state but the weights."""
    y = KINDS[kind]
    settings = dict(solver="sgd", momentum=0, shuffle=False, max_iter=3, hidden_layer_sizes=(7,))
    theirs = neural_network.MLPClassifier(**settings, tol=0, random_state=0).fit(X, y)
    ours = from_sklearn(theirs)
    assert ours.coefs_[0].dtype == np.float64
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-14)
    for _ in range(3):
        ours.partial_fit(X, y)
        theirs.partial_fit(X, y)
    np.testing.assert_allclose(ours.coefs_[0], theirs.coefs_[0], rtol=1e-10, atol=1e-13)
    assert ours.t_ == theirs.t_ and len(ours.loss_curve_) == len(theirs.loss_curve_)


def test_a_regressor_comes_in():
    for loss in ("squared_error", "poisson"):
        if loss == "poisson" and "loss" not in neural_network.MLPRegressor().get_params():
            continue
        more = {"loss": loss} if loss == "poisson" else {}
        theirs = fitted(neural_network.MLPRegressor, np.abs(X[:, 0]), solver="lbfgs", **more)
        ours = from_sklearn(theirs)
        np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-12)
        again = to_sklearn(ours)
        np.testing.assert_allclose(again.predict(X), theirs.predict(X), atol=1e-12)


def test_labels_in_another_order():
    """They are sorted there, and outputs go with them."""
    net = cmlp.Network([5, 4, 3], "tanh", seed=0)
    net.classes = ["z", "a", "m"]
    theirs = to_sklearn(net)
    assert theirs.classes_.tolist() == ["a", "m", "z"]
    assert theirs.predict(X).tolist() == net.predict_classes(X).tolist()
    np.testing.assert_allclose(theirs.predict_proba(X), net.predict(X)[:, [1, 2, 0]], atol=1e-6)
    for n in (1, 2):
        loss = "binary_crossentropy" if n == 1 else None
        net = cmlp.Network([5, 4, n], "tanh", loss=loss, seed=3)
        net.classes = ["z", "a"]
        theirs = to_sklearn(net)
        assert theirs.n_outputs_ == 1 and theirs.out_activation_ == "logistic"
        assert theirs.predict(X).tolist() == net.predict_classes(X).tolist()
        assert len(set(theirs.predict(X))) == 2


def test_names_of_columns():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcde"))
    ours = cmlp.MLPClassifier((4,), max_iter=2, tol=0, random_state=0).fit(frame, NUMBERS)
    theirs = to_sklearn(ours)
    assert theirs.feature_names_in_.tolist() == list("abcde")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        theirs.predict(frame)
    assert from_sklearn(theirs).feature_names_in_.tolist() == list("abcde")


def test_ensembles():
    ours = fitted(cmlp.MLPClassifier, KINDS["two"], n_ensemble=3)
    voting = to_sklearn(ours)
    np.testing.assert_allclose(voting.predict_proba(X), ours.predict_proba(X), atol=2e-6)
    assert voting.predict(X).tolist() == ours.predict(X).tolist()
    base.clone(voting).fit(X, KINDS["two"])
    reg = fitted(cmlp.MLPRegressor, X[:, 0], n_ensemble=3)
    np.testing.assert_allclose(to_sklearn(reg).predict(X), reg.predict(X), atol=2e-6)
    with pytest.raises(ConversionError, match="no several outputs"):
        to_sklearn(fitted(cmlp.MLPRegressor, X[:, :2], n_ensemble=2))


def test_ensembles_there_and_back():
    """The same weights, labels, names and parameters; means are folded."""
    frame = pytest.importorskip("pandas").DataFrame(X, columns=list("abcde"))
    how = {"hidden_layer_sizes": (8,), "max_iter": 4, "tol": 0, "random_state": 0, "alpha": 0.25}
    for kind, y in ((cmlp.MLPClassifier, KINDS["two"]), (cmlp.MLPClassifier, KINDS["floats"]),
                    (cmlp.MLPRegressor, X[:, 0])):  # fmt: skip
        ours = kind(**how, n_ensemble=3).fit(frame, y)
        back = from_sklearn(to_sklearn(ours))
        assert type(back) is kind and back.alpha == 0.25 and back.n_ensemble == 3
        assert back.feature_names_in_.tolist() == list("abcde")
        np.testing.assert_array_equal(back.predict(frame), ours.predict(frame))
        for one, other in zip(back.estimators_, ours.estimators_, strict=True):
            assert all((a == b).all() for a, b in zip(one.coefs_, other.coefs_, strict=True))
        model = pipeline.make_pipeline(preprocessing.StandardScaler(), ours).fit(frame + 5, y)
        again = from_sklearn(to_sklearn(model))
        assert len(again.estimators_) == 3 and again.estimators_[0].network_.dtype == np.float64
        method = "predict" if kind is cmlp.MLPRegressor else "predict_proba"
        expected = getattr(model, method)(frame + 5)
        np.testing.assert_allclose(getattr(again, method)(frame + 5), expected, atol=1e-5)
    hard = ensemble.VotingClassifier([("a", neural_network.MLPClassifier(max_iter=1))])
    with pytest.raises(ConversionError, match="not fitted"):
        from_sklearn(hard)
    with pytest.raises(ConversionError, match="counts votes"):
        from_sklearn(hard.fit(X, KINDS["two"]))


@pytest.mark.parametrize(
    "scaler", ["StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler"]
)
def test_pipelines(scaler):
    far = X * [1, 10, 100, 1, 1] + 1000
    steps = getattr(preprocessing, scaler)(), cmlp.MLPClassifier((6,), max_iter=3, tol=0)
    ours = pipeline.make_pipeline(*steps).fit(far, NUMBERS)
    theirs = to_sklearn(ours)
    np.testing.assert_allclose(theirs.predict_proba(far), ours.predict_proba(far), atol=1e-5)
    its = pipeline.make_pipeline(
        steps[0], preprocessing.StandardScaler(),
        neural_network.MLPClassifier((6,), max_iter=3, tol=0),
    ).fit(far, KINDS["two"])  # fmt: skip
    back = from_sklearn(its)
    np.testing.assert_allclose(back.predict_proba(far), its.predict_proba(far), atol=1e-10)
    assert back.predict(far).tolist() == its.predict(far).tolist()
    back.partial_fit(far, KINDS["two"])


def test_scalers_with_options():
    """With with_mean=False a StandardScaler has a mean_ that it does not subtract."""
    far = X + 3
    for scaler in (
        preprocessing.StandardScaler(with_mean=False),
        preprocessing.StandardScaler(with_std=False),
        preprocessing.RobustScaler(with_centering=False),
        preprocessing.RobustScaler(with_scaling=False),
        preprocessing.MinMaxScaler((5, 7)),
    ):
        its = pipeline.make_pipeline(scaler, linear_model.Ridge()).fit(far, X[:, 0])
        np.testing.assert_allclose(from_sklearn(its).predict(far), its.predict(far), atol=1e-10)
    for clips in (preprocessing.MinMaxScaler(), preprocessing.MaxAbsScaler()):
        clips.clip = True  # MaxAbsScaler has it since 1.8
        its = pipeline.make_pipeline(clips, linear_model.Ridge()).fit(far, X[:, 0])
        with pytest.raises(ConversionError, match="clips"):
            from_sklearn(its)


def test_linear_models():
    for y in (KINDS["two"], NUMBERS):
        theirs = linear_model.LogisticRegression().fit(X, y)
        ours = from_sklearn(theirs)
        np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-14)
        assert ours.predict(X).tolist() == theirs.predict(X).tolist()
        ours.partial_fit(X, y)
    for y in (X[:, 0] ** 2, X[:, :2] ** 2):
        for theirs in (
            linear_model.LinearRegression(),
            linear_model.Ridge(),
            linear_model.Ridge(fit_intercept=False),
        ):
            theirs.fit(X, y)
            np.testing.assert_allclose(
                from_sklearn(theirs).predict(X), theirs.predict(X), atol=1e-13
            )
    two = pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.Ridge())
    two.fit(X + 100, X[:, 0])
    np.testing.assert_allclose(from_sklearn(two).predict(X + 100), two.predict(X + 100), atol=1e-10)


@pytest.mark.parametrize(
    "more, text",
    [
        ({"activation": "gelu"}, "hidden layer 1 has gelu, .*to_torch"),
        ({"activation": ["relu", "tanh"]}, "hidden layer 2 has tanh, the first has relu"),
        ({"normalization": "layer"}, "no layer normalisation"),
        ({"parametric_activation": True}, "no parametric activations"),
        ({"out_activation": "logistic", "loss": "squared_error"}, "the outputs have logistic"),
        ({"inputs": cmlp.Inputs(periodic=[0])}, "no inputs="),
    ],
)
def test_what_scikit_learn_lacks(more, text):
    with pytest.raises(ConversionError, match=text):
        to_sklearn(cmlp.Network([5, 6, 4, 3], seed=0, **more))


def test_what_does_not_come_in():
    from sklearn.ensemble import RandomForestClassifier

    with pytest.raises(ConversionError, match="not RandomForestClassifier"):
        from_sklearn(RandomForestClassifier())
    with pytest.raises(ConversionError, match="is not fitted"):
        from_sklearn(neural_network.MLPClassifier())
    with pytest.raises(ConversionError, match="not int of builtins"):
        from_sklearn(3)
    poly = pipeline.make_pipeline(preprocessing.PolynomialFeatures(), linear_model.Ridge())
    with pytest.raises(ConversionError, match="is a PolynomialFeatures"):
        from_sklearn(poly.fit(X, X[:, 0]))

    class Own(neural_network.MLPRegressor):
        pass

    with pytest.raises(ConversionError, match="not Own"):
        from_sklearn(fitted(Own, X[:, 0]))


@pytest.mark.parametrize("kind", ["three", "two", "many"])
def test_the_circle_is_closed(kind, tmp_path):
    """skl2onnx converts it, and skops trusts every type."""
    ours = fitted(cmlp.MLPClassifier, KINDS[kind], activation="tanh")
    theirs = to_sklearn(ours)
    io = pytest.importorskip("skops.io")
    io.dump(theirs, tmp_path / "m.skops")
    assert not io.get_untrusted_types(file=tmp_path / "m.skops")
    assert np.array_equal(io.load(tmp_path / "m.skops").predict(X), theirs.predict(X))
    skl2onnx = pytest.importorskip("skl2onnx")
    runtime = pytest.importorskip("onnxruntime")
    X32 = X.astype("f4")
    file = skl2onnx.to_onnx(theirs, X32[:1], options={"zipmap": False})
    session = runtime.InferenceSession(file.SerializeToString())
    label, p = session.run(None, {"X": X32})
    assert label.tolist() == ours.predict(X32).tolist()
    np.testing.assert_allclose(p, ours.predict_proba(X32), atol=4e-6)
