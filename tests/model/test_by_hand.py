"""What programs write into an estimator or a network: weights, labels, names, activations."""

import copy
import pickle

import numpy as np
import pytest
from helpers import blobs, data_for, fit_quietly, refused, waves

import cmlp
from cmlp import MLPClassifier, MLPRegressor, Network

BOTH = pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}


def answers(estimator, X):
    asks = estimator.predict_proba if isinstance(estimator, MLPClassifier) else estimator.predict
    return asks(X)


def written(fitted, **params):
    """An estimator that was never fitted, with another one's weights."""
    other = type(fitted)(**params)
    other.coefs_ = [W.tolist() for W in fitted.coefs_]
    other.intercepts_ = [b.tolist() for b in fitted.intercepts_]
    if isinstance(fitted, MLPClassifier):
        other.classes_ = fitted.classes_
    return other


# Weights -----------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("params", [{}, {"hidden_layer_sizes": (4,)}])
def test_weights_make_a_network_without_fit(kind, params):
    X, y = data_for(kind)
    fitted = fit_quietly(kind(hidden_layer_sizes=(4,), max_iter=2), X, y)
    other = written(fitted, **params)
    assert other.__sklearn_is_fitted__()
    for same in (pickle.loads(pickle.dumps(other)), copy.deepcopy(other), other):
        np.testing.assert_allclose(answers(same, X), answers(fitted, X), **TOLERANCE)
    assert other.score(X, y) == pytest.approx(fitted.score(X, y))
    for name in ("n_layers_", "n_outputs_", "n_features_in_", "out_activation_"):
        assert getattr(other, name) == getattr(fitted, name)
    with refused(ValueError, "is expecting 3 features"):
        other.predict(X[:, :2])


def test_labels_that_nobody_gave_are_numbers():
    X, y = blobs(n_classes=2)
    fitted = fit_quietly(MLPClassifier((4,), random_state=0), X, np.array(["no", "yes"])[y])
    text, unnamed = fitted.predict(X), MLPClassifier()
    np.testing.assert_array_equal(written(fitted).predict(X), text)
    unnamed.coefs_, unnamed.intercepts_ = fitted.coefs_, fitted.intercepts_
    np.testing.assert_array_equal(unnamed.predict(X), (text == "yes").astype(int))
    with refused(AttributeError, "no attribute 'classes_'"):
        unnamed.classes_  # noqa: B018
    unnamed.set_params(hidden_layer_sizes=(4,), warm_start=True)
    fit_quietly(unnamed, X, text)
    assert unnamed.classes_.tolist() == unnamed.network_.classes.tolist() == ["no", "yes"]


def test_two_classes_may_have_an_output_each():
    X = blobs()[0]
    clf = MLPClassifier()
    clf.coefs_, clf.intercepts_ = [np.eye(3)[:, :2]], [np.zeros(2)]
    expected = np.exp(X[:, :2]) / np.exp(X[:, :2]).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(clf.predict_proba(X), expected, **TOLERANCE)
    np.testing.assert_array_equal(clf.predict(X), (X[:, 1] > X[:, 0]).astype(int))


@BOTH
def test_lists_of_weights_are_filled_one_by_one(kind):
    estimator = kind(activation="tanh")
    estimator.coefs_, estimator.intercepts_ = [0] * 2, []
    estimator.coefs_[0] = np.ones((3, 2))
    estimator.coefs_[1] = np.ones((2, 1))
    estimator.intercepts_.extend([np.zeros((2,)), np.zeros(1)])
    X = waves()[0]
    z = 2 * np.tanh(X.sum(axis=1))
    expected = z if kind is MLPRegressor else 1 / (1 + np.exp(-z))
    answer = answers(estimator, X)
    np.testing.assert_allclose(answer[:, 1] if answer.ndim == 2 else answer, expected, **TOLERANCE)


@BOTH
@pytest.mark.parametrize("coefs, intercepts", [
    ([np.ones((3, 2)), np.ones((3, 1))], [np.ones(2), np.ones(1)]),
    ([np.ones((3, 2))], [np.ones(3)]),
    ([np.ones((3, 2))], [np.ones(2), np.ones(2)]),
    ([0, 0], [np.ones(1), np.ones(1)]),
    ([], []),
])  # fmt: skip
def test_weights_that_do_not_fit_each_other(kind, coefs, intercepts):
    estimator = kind()
    estimator.coefs_, estimator.intercepts_ = coefs, intercepts
    shapes = [np.shape(W) for W in coefs]
    with refused(ValueError, "coefs_ needs an array (n_in, n_out) per layer", str(shapes)):
        estimator.predict(np.ones((1, 3)))


def test_weights_that_do_not_fit_the_labels():
    clf = MLPClassifier()
    clf.coefs_, clf.intercepts_, clf.classes_ = [np.ones((3, 4))], [np.ones(4)], ["a", "b"]
    with refused(ValueError, "the last layer of coefs_ has 4 outputs, but classes_ has 2 labels"):
        clf.predict(np.ones((1, 3)))


@BOTH
def test_weights_of_other_shapes(kind):
    X, y = data_for(kind)
    estimator = fit_quietly(kind(hidden_layer_sizes=(4,), max_iter=2), X, y)
    pruned = copy.deepcopy(estimator)
    pruned.coefs_ = [estimator.coefs_[0][:, :2], estimator.coefs_[1][:2]]
    with refused(ValueError, "intercepts_ one of (n_out,)"):
        pruned.predict(X)
    pruned.intercepts_ = [estimator.intercepts_[0][:2], estimator.intercepts_[1]]
    estimator.coefs_[1][2:] = 0
    np.testing.assert_allclose(answers(pruned, X), answers(estimator, X), **TOLERANCE)


@BOTH
def test_weights_that_were_there_before_can_be_brought_back(kind):
    X, y = data_for(kind)
    estimator = fit_quietly(kind(hidden_layer_sizes=(4,), max_iter=2), X, y)
    before, coefs, intercepts = answers(estimator, X), estimator.coefs_, estimator.intercepts_
    estimator.coefs_ = [0 * W for W in coefs]
    estimator.intercepts_ = [0 * b.reshape(1, -1) for b in intercepts]
    assert (answers(estimator, X) != before).any()
    estimator.coefs_, estimator.intercepts_ = coefs, intercepts
    np.testing.assert_array_equal(answers(estimator, X), before)


@BOTH
def test_a_shallow_copy_has_weights_of_its_own(kind):
    X, y = data_for(kind)
    parent = fit_quietly(kind(hidden_layer_sizes=(4,), max_iter=2), X, y)
    before, child = answers(parent, X), copy.copy(parent)
    child.coefs_ = [0 * W for W in child.coefs_]
    child.intercepts_[1] = 0 * child.intercepts_[1]
    np.testing.assert_array_equal(answers(parent, X), before)
    assert (answers(child, X) != before).any()
    assert copy.copy(kind(alpha=2)).alpha == 2


@BOTH
def test_given_weights_go_on_learning(kind):
    X, y = data_for(kind)
    params = {"hidden_layer_sizes": (4,), "solver": "sgd", "shuffle": False, "dtype": "float64"}
    fitted = fit_quietly(kind(max_iter=2, random_state=0, **params), X, y)
    curves = []
    for asks in (False, True):
        other = written(fitted, random_state=0, **params)
        if asks:
            answers(other, X)
        for _ in range(3):
            other.partial_fit(X, y)
        curves.append(other.loss_curve_)
        assert other.n_iter_ == 1 and other.t_ == 3 * len(X)
    assert curves[0] == curves[1] and curves[0][0] < fitted.loss_curve_[0]
    again = written(fitted, warm_start=True, max_iter=3, **params)
    answers(again, X)
    assert fit_quietly(again, X, y).loss_curve_ == curves[0]


def test_curves_that_were_emptied_are_gone_on_with():
    X, y = blobs()
    clf = fit_quietly(MLPClassifier(max_iter=2, warm_start=True, random_state=0), X, y)
    clf.loss_curve_, clf.validation_scores_, clf.best_validation_score_ = [], [], -np.inf
    fit_quietly(clf.set_params(early_stopping=True, max_iter=5), X, y)
    assert [len(clf.loss_curve_), len(clf.validation_scores_)] == [5, 5]
    assert len(clf.validation_loss_curve_) == 5


# Activation of the outputs -----------------------------------------------------------------------


def test_another_output_activation_predicts():
    X, y = blobs()
    clf = fit_quietly(MLPClassifier((4,), max_iter=5), X, y)
    before, z = clf.predict_proba(X), clf.decision_function(X)
    clf.out_activation_ = "identity"
    for same in (clf, copy.deepcopy(clf), pickle.loads(pickle.dumps(clf))):
        assert same.out_activation_ == "identity"
        np.testing.assert_allclose(same.predict_proba(X), z, **TOLERANCE)
    with refused(ValueError, "categorical_crossentropy needs outputs between 0 and 1"):
        clf.partial_fit(X, y)
    clf.out_activation_ = "softmax"
    np.testing.assert_array_equal(clf.predict_proba(X), before)
    with refused(ValueError, "Unknown out_activation_ 'soft'"):
        clf.out_activation_ = "soft"


def test_another_output_activation_of_an_ensemble():
    X, y = waves()
    model = fit_quietly(MLPRegressor(n_ensemble=2, max_iter=2), X, y[:, 0])
    z = np.array([member.predict(X) for member in model.estimators_])
    assert model.out_activation_ == "identity"
    model.out_activation_ = "logistic"
    expected = np.mean(1 / (1 + np.exp(-z)), axis=0)
    np.testing.assert_allclose(model.predict(X), expected, **TOLERANCE)
    assert [member.out_activation_ for member in model.estimators_] == ["logistic"] * 2


@BOTH
def test_an_output_activation_before_fit(kind):
    X, y = data_for(kind)
    estimator = kind(max_iter=2)
    with refused(AttributeError, "'out_activation_': it is not fitted"):
        estimator.out_activation_  # noqa: B018
    estimator.out_activation_ = "sigmoid"
    assert estimator.out_activation_ == "sigmoid" and not estimator.__sklearn_is_fitted__()
    fit_quietly(estimator, X, y)
    assert estimator.out_activation_ == ("softmax" if kind is MLPClassifier else "identity")
    other = kind()
    other.coefs_, other.intercepts_ = [np.ones((3, 1))], [np.zeros(1)]
    other.out_activation_ = "tanh"
    answer = answers(other, X)
    expected = np.tanh(X.sum(axis=1))
    np.testing.assert_allclose(answer[:, 1] if answer.ndim == 2 else answer, expected, **TOLERANCE)


def test_an_output_activation_without_its_loss():
    X, y = blobs()
    clf = fit_quietly(MLPClassifier((4,), max_iter=2), X, y)
    clf.out_activation_ = "identity"
    net = clf.network_
    for ask in (net.fit, net.loss, net.score, net.step, net.gradients):
        with refused(ValueError, "categorical_crossentropy needs outputs between 0 and 1"):
            ask(X, y)
    net.activations = ("tanh", "softmax")
    assert net.score(X, y) == clf.score(X, y)


@BOTH
@pytest.mark.parametrize("more", [{}, {"n_ensemble": 2}], ids=str)
def test_the_activation_acts_at_once(engine, kind, more):
    X, y = data_for(kind)
    params = {"hidden_layer_sizes": (4,), "max_iter": 2, "random_state": 0, **more}
    estimator = fit_quietly(kind(**params), X, y)
    rows = X.astype(np.float32)
    before = answers(estimator, rows)
    for names in ("tanh", ["logistic"]):
        estimator.set_params(activation=names)
        members = vars(estimator).get("estimators_", [estimator])
        acts = names if isinstance(names, str) else names[0]
        for net in (member.network_ for member in members):
            assert net.activations[0] == acts
        z = [np.asarray(X, np.float64) @ m.coefs_[0] + m.intercepts_[0] for m in members]
        function = np.tanh if acts == "tanh" else lambda z: 1 / (1 + np.exp(-z))
        hidden = np.concatenate([function(part) for part in z], axis=1)
        np.testing.assert_allclose(estimator.transform(X), hidden, **TOLERANCE)
        now = answers(estimator, rows)
        assert not np.allclose(now, before)
        for same in (copy.deepcopy(estimator), pickle.loads(pickle.dumps(estimator))):
            np.testing.assert_array_equal(answers(same, rows), now)
        estimator.partial_fit(X, y)
    fresh = kind(**params)
    fresh.activation = "tanh"
    given = fit_quietly(kind(activation="tanh", **params), X, y)
    np.testing.assert_array_equal(answers(fit_quietly(fresh, X, y), X), answers(given, X))


@BOTH
@pytest.mark.parametrize("names, parts", [
    ("tan", ["Unknown activation 'tan'", "Did you mean 'tanh'"]),
    (["tanh", "relu"], ["activation has 2 names, but there are 1 hidden layers"]),
    ("softmax", ["softmax is for the output layer"]),
    (None, ["must be a name or a list of names, not None"]),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("more", [{}, {"n_ensemble": 2}], ids=str)
def test_an_activation_of_another_network(engine, kind, names, parts, more):
    X, y = data_for(kind)
    estimator = fit_quietly(kind(hidden_layer_sizes=(4,), max_iter=2, **more), X, y)
    rows = X.astype(np.float32)
    before = estimator.predict(rows)
    estimator.activation = names
    for ask in (estimator.predict, estimator.transform, lambda X: estimator.score(X, y)):
        with refused(ValueError, f"activation={names!r} does not describe the fitted", *parts):
            ask(rows)
    with refused(ValueError, *parts):
        estimator.partial_fit(X, y)
    if isinstance(names, list):  # meant for the next fit
        fit_quietly(estimator.set_params(hidden_layer_sizes=(4, 3)), X, y).predict(rows)
        return
    estimator.activation = "relu"
    np.testing.assert_array_equal(estimator.predict(rows), before)


CHANGES = {
    "out_activation": "hard_sigmoid", "input_scale": 0.5, "normalization": "layer",
    "dtype": "float64", "loss": "huber", "huber_delta": 2.0, "hidden_layer_sizes": (5,),
}  # fmt: skip


@BOTH
@pytest.mark.parametrize("name", CHANGES)
def test_parameters_of_another_network(kind, name):
    X, y = data_for(kind)
    if kind is MLPClassifier and name in ("loss", "huber_delta"):
        pytest.skip("only the regressor has several")
    loss = {"loss": "huber"} if name == "huber_delta" else {}
    estimator = kind(**{"hidden_layer_sizes": (4,), "max_iter": 2, "warm_start": True, **loss})
    before = answers(fit_quietly(estimator, X, y), X)
    estimator.set_params(**{name: CHANGES[name]})
    for learn in (estimator.fit, estimator.partial_fit):
        with refused(ValueError, "the fitted network has", "warm_start=False"):
            learn(X, y)
    np.testing.assert_array_equal(answers(estimator, X), before)
    fit_quietly(estimator.set_params(warm_start=False), X, y)
    fit_quietly(estimator.set_params(warm_start=True), X, y)


def test_new_classes_want_the_network_that_was_fitted():
    X, y = blobs()
    clf = fit_quietly(MLPClassifier((4,), max_iter=2), X, y)
    clf.network_.target_name = "kind"
    assert copy.deepcopy(clf).add_classes(7).network_.target_name == "kind"
    clf.network_.input_scale = 0.5
    with refused(ValueError, "the fitted network has input_scale=0.5, but", "1.0"):
        clf.add_classes(7)
    before = clf.predict_proba(X)
    clf.set_params(input_scale=0.5).add_classes(7)
    shares = clf.predict_proba(X)[:, :3]
    np.testing.assert_allclose(shares / shares.sum(axis=1, keepdims=True), before, **TOLERANCE)


def test_another_loss_of_ones_own_acts():
    X, y = data_for(MLPRegressor)
    model = fit_quietly(MLPRegressor(lambda out, y: (1.0, out - y), max_iter=2, alpha=0), X, y)
    model.loss = lambda out, y: (2.0, out - y)
    assert model.partial_fit(X, y).loss_ == 2


# Labels ------------------------------------------------------------------------------------------

WRONG_LABELS = {
    "too few": (["a", "b"], "must have 3 labels, in the order of the outputs, not 2"),
    "too many": (list("abcd"), "must have 3 labels, in the order of the outputs, not 4"),
    "twice": (["b", "a", "b"], "must hold each label once; ['b'] occur twice"),
    "twice, by value": ([1, 2, 1.0], "must hold each label once"),
    "NaN": ([1, 2, np.nan], "must not hold NaN"),
    "None inside": (["a", None, "b"], "mixes labels of different types (NoneType, str)"),
    "mixed": (["a", 1, 2], "mixes labels of different types (int, str)"),
    "one text": ("abc", "must be a list of labels"),
    "a column": ([["a"], ["b"], ["c"]], "must be a list of labels, but its shape is (3, 1)"),
    "a set": ({"a", "b", "c"}, "must be a list of labels"),
    "dates": (np.arange(3).astype("M8[Y]"), "use text or numbers"),
    "too large": ([2**64, 1, 2], "more than 64 bits"),
}


@pytest.mark.parametrize("case", WRONG_LABELS)
def test_labels_that_are_refused(case):
    X, y = blobs()
    clf = fit_quietly(MLPClassifier(max_iter=2), X, y)
    labels, message = WRONG_LABELS[case]
    for model, name in ((clf, "classes_"), (clf.network_, "classes")):
        with refused(ValueError, name, message):
            setattr(model, name, labels)
    assert clf.classes_.tolist() == clf.network_.classes.tolist() == [0, 1, 2]
    with refused(ValueError, "classes_ must be a list of labels"):
        clf.classes_ = None
    with refused(TypeError, "not bytes"):
        clf.classes_ = [b"a", b"b", b"c"]


@pytest.mark.parametrize("labels", [
    ["low", "middle", "high"], ("c", "a", "b"), np.array(["c", "bbb", "a"], object),
    np.array([3, 1, 2], ">i4"), [2**64 - 1, 7, 2**63 + 1025], [2.5, 0.5, 1.5],
], ids=str)  # fmt: skip
def test_labels_are_copied_as_they_are(labels):
    X, y = blobs()
    clf = fit_quietly(MLPClassifier(max_iter=20), X, y)
    expected = [labels[number] for number in clf.predict(X)]
    clf.classes_ = labels
    net = Network([3, 3], weight_init="zeros")
    net.classes = labels
    assert net.classes.tolist() == clf.classes_.tolist() == list(labels)
    for same in (clf, copy.copy(clf), copy.deepcopy(clf), pickle.loads(pickle.dumps(clf))):
        assert same.predict(X).tolist() == same.network_.predict_classes(X).tolist() == expected


def test_labels_are_changed_in_place(tmp_path):
    X, y = blobs()
    clf = fit_quietly(MLPClassifier(max_iter=20, random_state=0), X, y)
    other = copy.copy(clf)
    clf.classes_[:] = [5, 3, 4]
    assert clf.predict(X).tolist() == clf.network_.predict_classes(X).tolist()
    assert set(clf.predict(X)) == {5, 3, 4} and other.classes_.tolist() == [0, 1, 2]
    assert clf.score(X, np.array([5, 3, 4])[y]) == other.score(X, y)
    clf.classes_[0] = 3
    with refused(ValueError, "cannot be saved: labels must differ"):
        clf.network_.save(tmp_path / "twice.cmlp")


def test_labels_are_renamed():
    X, y = blobs()
    clf = fit_quietly(MLPClassifier(max_iter=50, random_state=0), X, y)
    numbers = clf.predict(X)
    clf.classes_ = ["a", "b", "c"]
    assert clf.classes_.tolist() == clf.network_.classes.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(clf.predict(X), np.array(["a", "b", "c"])[numbers])
    clf.partial_fit(X, np.array(["a", "b", "c"])[y])


def test_names_of_features_are_renamed(tmp_path):
    X, y = blobs()
    clf = fit_quietly(MLPClassifier(max_iter=2), X, y)
    with refused(AttributeError, "no names of features"):
        clf.feature_names_in_  # noqa: B018
    clf.feature_names_in_ = ["a", "b", 3]
    assert clf.feature_names_in_.tolist() == clf.network_.feature_names == ["a", "b", "3"]
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        clf.predict(X)
    for names in (["a"], "abc", 5):
        with refused((ValueError, TypeError), "feature_names_in_"):
            clf.feature_names_in_ = names
    clf.network_.save(tmp_path / "named.cmlp")
    assert cmlp.load(tmp_path / "named.cmlp").feature_names == ["a", "b", "3"]
    del clf.feature_names_in_
    assert not hasattr(clf, "feature_names_in_")
    fit_quietly(clf, X[:, :2], y)
    assert clf.network_.feature_names == []


# Layers ------------------------------------------------------------------------------------------


@BOTH
def test_the_forward_pass_that_programs_know(kind):
    X, y = data_for(kind)
    estimator = fit_quietly(kind(hidden_layer_sizes=(5, 4), max_iter=2), X, y)
    activations = [X[:7], *(np.empty((7, n)) for n in (5, 4, estimator.n_outputs_))]
    assert estimator._forward_pass(activations) is activations
    for number in (0, 1):
        np.testing.assert_array_equal(activations[1 + number], estimator.transform(X[:7], number))
    outputs = estimator._forward_pass_fast(X[:7].tolist())
    assert outputs.shape == (7, estimator.n_outputs_)
    np.testing.assert_allclose(outputs, activations[3], **TOLERANCE)
    np.testing.assert_array_equal(estimator._forward_pass_fast(X[:7], check_input=False), outputs)


# Subclasses --------------------------------------------------------------------------------------


@BOTH
def test_a_subclass_whose_methods_are_never_called(kind):
    class Mixin:
        def _init_coef(self, fan_in, fan_out, dtype):
            raise AssertionError

    with pytest.warns(UserWarning, match="Mixed has _init_coef, but training never calls it"):

        class Mixed(Mixin, kind):
            pass

    with pytest.warns(UserWarning, match="Own has _backprop, _forward_pass, but") as seen:

        class Own(kind):
            def _forward_pass(self, activations):
                raise AssertionError

            def _backprop(self, *arguments):
                raise AssertionError

    assert [warning.filename for warning in seen] == [__file__]
    fit_quietly(Mixed(max_iter=1), *data_for(kind))


@BOTH
@pytest.mark.filterwarnings("error")
def test_a_subclass_of_its_own(kind):
    class Narrow(kind):
        def __init__(self, width=4, **more):
            super().__init__(hidden_layer_sizes=(width,), **more)
            self.width = width

        def fit(self, X, y):
            return super().fit(X, y)

    narrow = fit_quietly(Narrow(3, max_iter=2), *data_for(kind))
    assert narrow.coefs_[0].shape[1] == 3 and narrow.get_params() == {"width": 3}
