"""Attributions: sums, SHAP's DeepExplainer, Shapley values by force, and every kind of model."""

import importlib.util
from itertools import product
from math import factorial
from pathlib import Path

import numpy as np
import pytest
from helpers import blobs, covering, fit_quietly, refused, waves

import cmlp
from cmlp.core import vocabulary
from cmlp.explain import multipliers, pairs
from cmlp.model import passes

WITNESSES = np.load(Path(__file__).parents[1] / "witnesses" / "attributions.npz")
RNG = np.random.default_rng(5)
X, BACKGROUND = RNG.normal(size=(9, 4)), 0.5 + RNG.normal(size=(7, 4))
HIDDEN = [row.name for row in vocabulary.ACTIVATIONS if not row.output_only]
HIDDEN += ["leaky_relu:0.3", "elu:0.5"]


def witness(name):
    """The net of SHAP's values."""
    net = cmlp.Network([6, 12, 8, 3], name, dtype="float64")
    for number in range(3):
        net.weights[number] = WITNESSES[f"{name} W{number}"]
        net.biases[number] = WITNESSES[f"{name} b{number}"]
    return net


def unlike_new(net):
    """Give a network other numbers than those it begins with."""
    for part in (*net.alphas, *net.scales, *net.biases):
        part[...] = np.linspace(0.3, 1.2, len(part))
    for mean, variance in net.running:
        mean[...], variance[...] = 0.1, np.linspace(0.5, 2, len(variance))
    return net


def shapley(answer, x, others, weights, groups):
    """Shapley values by their definition, (features, answers)."""
    p = max(groups) + 1
    worth = {
        inside: weights @ answer(np.where(np.array(inside)[list(groups)], x, others))
        for inside in product([False, True], repeat=p)
    }
    values = []
    for player in range(p):
        total = 0
        for inside in worth:
            if not inside[player]:
                s = sum(inside)
                larger = tuple(there or i == player for i, there in enumerate(inside))
                share = factorial(s) * factorial(p - s - 1) / factorial(p)
                total = total + share * (worth[larger] - worth[inside])
        values.append(total)
    return np.array(values)


def raw(net):
    return lambda rows: net.forward(rows, return_all=True).z[-1].astype(float)


# Sums ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "normalization", "output", "parametric"),
    covering(HIDDEN, [None, "batch", "layer"], ["raw", "probability"], [False, True]),
)
def test_attributions_add_up(engine, activation, normalization, output, parametric):
    """By the rescale rule for every activation, to the difference of what the core predicts."""
    how = {"normalization": normalization, "parametric_activation": parametric}
    how["normalization_epsilon"] = 0.3  # large enough to be missed
    net = unlike_new(cmlp.Network([4, 6, 5, 3], activation, dtype="float64", seed=1, **how))
    answer = net.predict if output == "probability" else raw(net)
    found = cmlp.attributions(net, X, background=BACKGROUND, output=output)
    np.testing.assert_allclose(found.answers, answer(X), atol=1e-12)
    base = answer(BACKGROUND).mean(axis=0)
    np.testing.assert_allclose(found.base_values, np.tile(base, (len(X), 1)), atol=1e-12)
    largest = max(np.abs(answer(X)).max(), 1)
    np.testing.assert_allclose(
        found.base_values + found.values.sum(axis=1), found.answers, rtol=0, atol=1e-11 * largest
    )
    assert found.error <= 1e-11 * largest


@pytest.mark.parametrize("loss", ["binary_crossentropy", "poisson", "squared_error"])
def test_other_outputs_add_up(engine, loss):
    net = cmlp.Network([4, 6, 2], "silu", loss=loss, dtype="float64", seed=2)
    for method in ("deeplift", "integrated_gradients"):
        found = cmlp.attributions(
            net, X, background=BACKGROUND, output="probability", method=method
        )
        np.testing.assert_allclose(found.answers, net.predict(X))
        assert found.error < 1e-9


def test_float32_adds_up_to_its_rounding(engine):
    """Of rows of integers with a scale."""
    net = cmlp.Network([4, 20, 10, 3], "tanh", seed=0, input_scale=1 / 64)
    rows = np.arange(80, dtype=np.uint8).reshape(20, 4) * 3
    found = cmlp.attributions(net, rows, background=rows[::3])
    assert found.error < 2e-5 and found.data is not None


def test_columns_far_from_0_lose_no_digits(engine):
    """Whole numbers above 10,000, and tables of them, of which float32 has eight digits."""
    net = cmlp.Network([2, 2], out_activation="identity", seed=0, inputs=cmlp.Inputs(summed={1: 4}))
    net.front["summed.1"] = E = 10_000 + np.array([[1.0, 2], [5, 0], [3, 3], [8, 7]])
    numbers, codes = np.array([3.0, 7, 5, 0]), np.array([0, 2, 3, 1])
    rows = np.column_stack([10_000 + numbers, codes])
    found = cmlp.attributions(net, rows[:1], background=rows[1:])
    by_number = (numbers[0] - numbers[1:].mean()) * net.weights[0][0]
    by_code = E[0] - E[codes[1:]].mean(axis=0)
    np.testing.assert_allclose(found.values[0], [by_number, by_code], rtol=1e-5)


def test_rows_that_are_close_lose_no_digits(engine):
    """In float32, where quotients of their differences have three."""
    single = cmlp.Network([4, 8, 3], "tanh", seed=0)
    rows = X.astype("float32")
    others = (rows + 1e-4 * BACKGROUND[0]).astype("float32")
    for row, other in zip(rows, others, strict=True):
        found, exact = (
            cmlp.attributions(net, row[None], background=other)
            for net in (single, single.astype("float64"))
        )
        largest = np.abs(exact.values).max()
        np.testing.assert_allclose(found.values, exact.values, rtol=0, atol=2e-5 * largest)


# Others' values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_the_rescale_rule_is_deep_explainer_s(engine, name):
    rows = {"background": WITNESSES["background"]}
    found = cmlp.attributions(witness(name), WITNESSES["X"], **rows)
    np.testing.assert_allclose(found.values, WITNESSES[f"{name} values"], rtol=0, atol=1e-12)
    single = cmlp.attributions(witness(name).astype("float32"), WITNESSES["X"], **rows)
    np.testing.assert_allclose(single.values, WITNESSES[f"{name} values"], rtol=0, atol=2e-5)


def test_exact_values_are_exact_explainer_s(engine):
    found = cmlp.attributions(
        witness("tanh"), WITNESSES["X"][:5], background=WITNESSES["background"], method="shapley",
        output="probability",
    )  # fmt: skip
    np.testing.assert_allclose(found.values, WITNESSES["exact"][:5], atol=1e-12)


def test_the_rescale_rule_by_hand():
    """x = (2, 1) and b = (0, 0): hidden sums 3 and -1 with b's 0 and 1, so relu's 3 and 0."""
    net = cmlp.Network([2, 2, 1], "relu", dtype="float64")
    net.weights[0], net.biases[0] = [[1.0, -1.0], [1.0, 0.0]], [0.0, 1.0]
    net.weights[1], net.biases[1] = [[2.0], [4.0]], [7.0]
    found = cmlp.attributions(net, [[2.0, 1.0]], background=[0.0, 0.0])
    # 2 * 3/3 * (2, 1) by the first unit; 4 * (0 - 1)/(-1 - 1) * (-2, 0) by the second
    np.testing.assert_allclose(found.values, [[4.0 - 4.0, 2.0]])
    assert (found.base_values.tolist(), found.answers.tolist()) == ([11.0], [13.0])


def test_a_linear_model_has_one_answer_by_all_methods(engine):
    net = cmlp.Network([4, 2], out_activation="identity", dtype="float64", seed=3)
    weights = np.arange(7) + 1.0
    centre = weights @ BACKGROUND / weights.sum()
    expected = (X - centre)[:, :, None] * net.weights[0]
    for how in ("deeplift", "integrated_gradients", "shapley"):
        found = cmlp.attributions(
            net, X, background=BACKGROUND, background_weight=weights * 1e307, method=how
        )  # whose sum overflows
        np.testing.assert_allclose(found.values, expected, atol=1e-12)


# Integrated gradients -----------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", [None, "layer"])
@pytest.mark.parametrize("output", ["raw", "probability"])
def test_integrated_gradients_are_means_of_the_core_s_gradients(engine, normalization, output):
    how = {"normalization": normalization, "parametric_activation": True}
    net = unlike_new(cmlp.Network([4, 6, 5, 3], "tanh", dtype="float64", seed=4, **how))
    found = cmlp.attributions(
        net, X[:3], background=BACKGROUND, method="integrated_gradients", output=output, n_steps=5
    )
    if output == "raw":
        net.activations = ("tanh", "tanh", "identity")
    nodes, shares = np.polynomial.legendre.leggauss(5)
    expected = np.zeros((3, 4, 3))
    for b in BACKGROUND:
        for node, share in zip((nodes + 1) / 2, shares / 2, strict=True):
            slopes = passes.output_slopes(net, b + node * (X[:3] - b))
            expected += share * slopes.transpose(0, 2, 1) * (X[:3] - b)[:, :, None] / 7
    np.testing.assert_allclose(found.values, expected, atol=1e-12)


def test_more_steps_have_smaller_errors():
    net = cmlp.Network([4, 16, 8, 2], "relu", dtype="float64", seed=0)
    how = {"background": BACKGROUND, "method": "integrated_gradients"}
    errors = [cmlp.attributions(net, X, n_steps=n, **how).error for n in (4, 32, 256)]
    assert errors[0] > 3 * errors[1] > 9 * errors[2] > 0


# Multipliers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", [None, "layer"])
@pytest.mark.parametrize("output", ["raw", "probability"])
def test_multipliers_of_equal_rows_are_slopes(normalization, output):
    """A background that is nearly the row: values are gradients times differences."""
    net = cmlp.Network([4, 6, 5, 3], "gelu", dtype="float64", seed=6, normalization=normalization)
    d = 1e-6 * RNG.normal(size=(1, 4))
    found = cmlp.attributions(net, X[:1] + d, background=X[:1], output=output)
    if output == "raw":
        net.activations = ("gelu", "gelu", "identity")
    slopes = passes.output_slopes(net, X[:1])[0].T
    np.testing.assert_allclose(found.values[0], slopes * d.T, atol=1e-5 * np.abs(d).max())


def test_rules_do_not_overflow():
    z, other = np.array([[900.0, -900, 0]]), np.array([[-800.0, 1700, 3]])
    with np.errstate(all="raise", under="ignore"):
        shares, weights = multipliers._softmax(z, other)
        np.testing.assert_array_equal(shares, multipliers._softmax(other, z)[0])
    step = z - other
    p, q = np.array([1.0, 0, 0]), np.array([0.0, 1, 0])
    rise = shares * (step - (weights * step).sum())
    np.testing.assert_allclose(rise[0], p - q, atol=1e-12)


# Shapley values -----------------------------------------------------------------------------------


def test_exact_values_are_those_of_the_definition(engine):
    net = cmlp.Network([4, 6, 3], "relu", dtype="float64", seed=7)
    weights = np.array([3.0, 0, 1, 1, 1, 2, 1])
    found = cmlp.attributions(
        net, X[:3], background=BACKGROUND, background_weight=weights, method="shapley"
    )
    for row, values in zip(X, found.values, strict=False):
        expected = shapley(raw(net), row, BACKGROUND, weights / weights.sum(), range(4))
        np.testing.assert_allclose(values, expected, atol=1e-12)
    assert found.standard_errors is None


def test_random_orders_are_unbiased_and_their_errors_true():
    """0.08 is three standard errors of the ratio of 108 values and their errors."""
    net = cmlp.Network([4, 8, 3], "relu", dtype="float64", seed=8)
    how = {"background": BACKGROUND, "method": "shapley"}
    exact = cmlp.attributions(net, X, **how).values
    ratios = []
    for seed in range(12):
        found = cmlp.attributions(net, X, n_permutations=56, random_state=seed, **how)
        assert found.error < 1e-12
        known = found.standard_errors > 1e-12
        ratios.append(((found.values - exact)[known] / found.standard_errors[known]) ** 2)
    mean_square = np.concatenate(ratios).mean()
    assert 0.7 < mean_square < 1.5
    again = cmlp.attributions(net, X, n_permutations=56, random_state=11, **how)
    np.testing.assert_array_equal(again.values, found.values)
    few = cmlp.attributions(net, X, n_permutations=1, **how)  # one pair per row of the background
    assert few.error < 1e-12 and np.isfinite(few.standard_errors).all()


def test_one_estimate_has_no_standard_error():
    found = cmlp.attributions(
        cmlp.Network([4, 3], seed=0), X, background=X[0], method="shapley", n_permutations=1
    )
    assert np.isnan(found.standard_errors).all() and found.error < 1e-6


# Fronts, threads, memory --------------------------------------------------------------------------


def fronted(dtype="float64", **more):
    inputs = cmlp.Inputs(
        periodic=[1], levels={2: (5, 3)}, summed={3: 6, 4: 4}, cumulative=[3], scaled=True
    )
    net = cmlp.Network([5, 7, 6, 2], "tanh", dtype=dtype, seed=3, inputs=inputs, **more)
    rng = np.random.default_rng(1)
    for part in net.front.values():
        part[...] = rng.normal(size=part.shape)

    def rows(n):
        codes = rng.integers(0, [5, 6, 4], (n, 3)) + np.array([0, 0.25, 0])
        return np.column_stack([rng.normal(size=(n, 2)), codes])

    return net, rows(8), rows(6)


@pytest.mark.parametrize("normalization", [None, "batch"])
def test_columns_with_tables_add_up(engine, normalization):
    net, rows, others = fronted(normalization=normalization)
    for mean, variance in net.running:
        mean[...], variance[...] = 0.2, np.linspace(0.5, 2, len(variance))
    for method in ("deeplift", "integrated_gradients", "shapley"):
        found = cmlp.attributions(net, rows, background=others, method=method)
        np.testing.assert_allclose(found.answers, raw(net)(rows), atol=1e-12)
        assert found.error < (1e-3 if method == "integrated_gradients" else 1e-12), method
        assert np.abs(found.values).mean(axis=(0, 2)).min() > 1e-3


def test_a_column_that_is_the_same_adds_nothing():
    net, rows, others = fronted()
    rows[:, 2:4] = others[:, 2:4] = 2, 3.5
    for method in ("deeplift", "integrated_gradients", "shapley"):
        values = cmlp.attributions(net, rows, background=others, method=method).values
        np.testing.assert_allclose(values[:, 2:4], 0, atol=1e-14)


def test_one_hidden_layer_with_a_front_has_its_column_s_part():
    """Without a hidden activation a column adds what its table does, whatever the method."""
    inputs = cmlp.Inputs(levels={0: (4, 2)}, summed={1: 3})
    net = cmlp.Network([2, 1], dtype="float64", seed=0, inputs=inputs)
    E, S = np.arange(8.0).reshape(4, 2) ** 2, np.array([[1.0], [5.0], [7.0]])
    net.front["levels.0"], net.front["summed.1"] = E, S
    for method in ("deeplift", "integrated_gradients", "shapley"):
        found = cmlp.attributions(net, [[3, 0.5]], background=[[1, 2]], method=method)
        expected = [((E[3] - E[1]) @ net.weights[0]).item(), (S[0, 0] + S[1, 0]) / 2 - S[2, 0]]
        np.testing.assert_allclose(found.values[0], expected)


def test_all_columns_may_be_summed(engine):
    inputs = cmlp.Inputs(summed={0: 4, 1: 3})
    net = cmlp.Network([2, 5, 2], dtype="float64", seed=0, inputs=inputs)
    for E in net.front.values():
        E[...] = RNG.normal(size=E.shape)
    rows = np.array([[0, 1], [3, 2], [2, 0], [1, 1.0]])
    assert cmlp.attributions(net, rows, background=rows[1:]).error < 1e-12


def test_blocks_and_threads_change_nothing(engine, monkeypatch):
    net, rows, others = fronted()
    calls = [{"method": name} for name in ("deeplift", "integrated_gradients", "shapley")]
    calls += [{"method": "shapley", "n_permutations": 12}]
    whole = [cmlp.attributions(net, rows, background=others, n_steps=4, **how) for how in calls]
    monkeypatch.setattr(pairs, "BLOCK", 40)
    monkeypatch.setattr(pairs, "CHUNK", 200)
    monkeypatch.setattr(cmlp.explain.shapley, "BLOCK", 60)
    for how, expected in zip(calls, whole, strict=True):
        one, two = (
            cmlp.attributions(net, rows, background=others, n_steps=4, n_threads=n, **how)
            for n in (1, 2)
        )
        np.testing.assert_array_equal(one.values, two.values)
        np.testing.assert_allclose(one.values, expected.values, rtol=0, atol=1e-12)


def test_both_cores_agree():
    net, rows, others = fronted("float32")
    found = []
    for core in ("auto", "python"):
        with cmlp.use_core(core):
            found.append(cmlp.attributions(net, rows, background=others).values)
    np.testing.assert_allclose(*found, rtol=0, atol=2e-5)


def test_memory_is_bounded():
    """20,000 rows against 100: their pairs would be 500 MB."""
    tracemalloc = pytest.importorskip("tracemalloc")
    net = cmlp.Network([3, 64, 1], seed=0)
    rows = RNG.normal(size=(2_000, 3)).astype("float32")
    tracemalloc.start()
    cmlp.attributions(net, rows, background=rows[:100], n_threads=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16e6 < 2_000 * 100 * 64 * 4


# Models -------------------------------------------------------------------------------------------


def test_names_answers_and_classes():
    net = cmlp.Network([3, 5, 3], seed=0, dtype="float64")
    rows, y = blobs(30)
    net.fit(rows, np.array(["a", "b", "c"])[y], epochs=1)
    net.feature_names = ["one", "two", "three"]
    whole = cmlp.attributions(net, rows[:5], background=rows)
    assert whole.feature_names == ["one", "two", "three"] and whole.output_names == ["a", "b", "c"]
    assert whole.values.shape == (5, 3, 3) and len(whole) == 5
    some = cmlp.attributions(net, rows[:5], background=rows, classes=["c", "a"])
    np.testing.assert_allclose(some.values, whole.values[:, :, [2, 0]], atol=1e-12)
    one = cmlp.attributions(net, rows[:5], background=rows, classes="b", output="probability")
    assert one.values.shape == (5, 3) and one.output_names == ["b"]
    np.testing.assert_allclose(one.answers, net.predict(rows[:5])[:, 1])
    np.testing.assert_array_equal(one.mean_absolute, np.abs(one.values).mean(axis=0))
    assert one.order()[0] == one.mean_absolute.argmax()
    text = str(whole)
    assert "5 rows, 3 features, 3 answers" in text and "three" in text and "deeplift" in text


def test_estimators_and_ensembles(engine):
    rows, y = blobs(40, n_classes=2)
    clf = fit_quietly(
        cmlp.MLPClassifier((6,), max_iter=3, random_state=0, n_ensemble=2), rows, y * 2 + 1
    )
    found = cmlp.attributions(clf, rows[:6], background=rows)
    assert found.values.shape == (6, 3) and found.output_names == ["3"]
    parts = [cmlp.attributions(each, rows[:6], background=rows) for each in clf.estimators_]
    np.testing.assert_allclose(found.values, np.mean([p.values for p in parts], axis=0))
    np.testing.assert_allclose(parts[0].answers, clf.estimators_[0].decision_function(rows[:6]))
    sure = cmlp.attributions(clf, rows[:6], background=rows, output="probability")
    np.testing.assert_allclose(sure.answers, clf.predict_proba(rows[:6])[:, 1], atol=1e-6)
    assert sure.error < 1e-6
    Z, t = waves(30, n_out=2)
    model = fit_quietly(cmlp.MLPRegressor(hidden_layer_sizes=5, max_iter=3, random_state=0), Z, t)
    found = cmlp.attributions(model, Z)  # against rows of its own
    np.testing.assert_allclose(found.answers, model.predict(Z), rtol=1e-5, atol=1e-6)
    assert found.values.shape == (30, 3, 2)


def table(n, seed=0):
    """Numbers with gaps, a category, a date, a truth value, and a constant: a dict of columns."""
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 80, n).astype(float)
    age[::7] = np.nan
    city = rng.choice(["Bern", "Oslo", "Rome"], n).astype(object)
    day = np.datetime64("2020-01-01") + rng.integers(0, 900, n).astype("timedelta64[D]")
    columns = {"age": age, "city": city, "same": np.ones(n), "day": day, "new": rng.random(n) < 0.5}
    return columns, np.where((np.nan_to_num(age) > 45) ^ (city == "Oslo"), "yes", "no")


@pytest.fixture(scope="module")
def tabular():
    X, y = table(300)
    return cmlp.TabularClassifier(random_state=0, max_iter=4, n_ensemble=2, cv=2).fit(X, y), X


@pytest.mark.parametrize("method", ["deeplift", "integrated_gradients", "shapley"])
def test_tables_report_each_column(engine, tabular, method):
    model, rows = tabular
    some = {name: column[:12] for name, column in rows.items()}
    how = {"background": rows, "max_background": 10, "method": method}
    found = cmlp.attributions(model, some, output="probability", **how)
    assert found.feature_names == ["age", "city", "same", "day", "new"]
    assert found.values.shape == (12, 5) and found.output_names == ["yes"]
    np.testing.assert_allclose(found.answers, model.predict_proba(some)[:, 1], atol=1e-6)
    assert found.error < (1e-3 if method == "integrated_gradients" else 1e-5)
    np.testing.assert_array_equal(found.values[:, 2], 0)
    assert (found.order()[0], found.order()[-1]) == (0, 2)
    assert found.data.shape == (12, 5) and found.data[3, 1] == rows["city"][3]


def test_columns_of_tables_are_players(tabular):
    """Shapley values of whole columns, by the definition, on what predict_proba answers."""
    model, rows = tabular
    names, others = list(rows), {name: column[20:23] for name, column in rows.items()}

    def answer(inside):
        mixed = {n: np.repeat(rows[n][4:5], 3) if i else others[n]
                 for n, i in zip(names, inside, strict=True)}  # fmt: skip
        return model.predict_proba(mixed)[:, 1:].mean(axis=0)

    masks = list(product([False, True], repeat=5))
    number = {mask: place for place, mask in enumerate(masks)}
    worth = np.array([answer(mask) for mask in masks])
    found = cmlp.attributions(
        model, {n: c[4:5] for n, c in rows.items()}, background=others, method="shapley",
        output="probability",
    )  # fmt: skip
    for player in range(5):
        gain = 0
        for mask in masks:
            if not mask[player]:
                larger = tuple(there or i == player for i, there in enumerate(mask))
                share = factorial(sum(mask)) * factorial(4 - sum(mask)) / factorial(5)
                gain += share * (worth[number[larger]] - worth[number[mask]])
        assert found.values[0, player] == pytest.approx(gain.item(), abs=1e-6)


def test_tables_of_numbers_and_of_other_labels():
    X, _ = table(200)
    age = np.nan_to_num(X["age"])
    two = {"random_state": 0, "max_iter": 2, "n_ensemble": 1, "early_stopping": False}
    model = cmlp.TabularClassifier(**two).fit(X, age > 40)
    found = cmlp.attributions(model, X, background=X, max_background=3)
    np.testing.assert_allclose(found.answers, model.decision_function(X), rtol=1e-4, atol=1e-5)
    model = cmlp.TabularRegressor(**two).fit(X, 1000 + 10 * age)
    found = cmlp.attributions(model, X, background=X, max_background=20)
    assert found.error < 1e-3 and found.output_names == ["y"]
    inside = (found.answers > 1000) & (found.answers < 1790)  # predictions keep within y
    np.testing.assert_allclose(found.answers[inside], model.predict(X)[inside], rtol=1e-5)
    model = cmlp.TabularClassifier(**two).fit(X, np.digitize(age, [30, 50]))
    found = cmlp.attributions(model, X, background=X, max_background=5, output="probability")
    np.testing.assert_allclose(found.answers, model.predict_proba(X), atol=1e-6)
    assert found.output_names == ["0", "1", "2"]


def test_data_frames_have_names():
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame(X, schema=["a", "b", "c", "d"])
    found = cmlp.attributions(cmlp.Network([4, 3, 1], seed=0), frame)
    assert found.feature_names == ["a", "b", "c", "d"] and found.output_names == ["0"]
    np.testing.assert_array_equal(found.data, X)


def test_sparse_rows(engine):
    sparse = pytest.importorskip("scipy.sparse")
    rows = np.where(RNG.random((12, 4)) < 0.5, 0, RNG.normal(size=(12, 4)))
    net = cmlp.Network([4, 5, 2], seed=0)
    for method in ("deeplift", "shapley"):
        dense, thin = (
            cmlp.attributions(net, each[:6], background=each[6:], method=method)
            for each in (rows, sparse.csr_matrix(rows))
        )
        np.testing.assert_array_equal(dense.values, thin.values)


@pytest.mark.skipif(importlib.util.find_spec("shap") is None, reason="without SHAP")
def test_an_explanation_of_shap_s():
    found = cmlp.attributions(cmlp.Network([4, 3], seed=0), X)
    made = found.to_shap()
    assert made.shape == (9, 4, 3) and made[0, :, 1].base_values == found.base_values[0, 1]


# What is refused ----------------------------------------------------------------------------------


def test_options_that_do_not_fit():
    net = cmlp.Network([4, 3], seed=0)
    cases = [
        ({"method": "lime"}, ValueError, "'deeplift', 'integrated_gradients', 'shapley'"),
        ({"output": "logits"}, ValueError, "'raw', 'probability'"),
        ({"n_steps": 0}, ValueError, "n_steps must be at least 1"),
        ({"random_state": 0.5}, TypeError, "random_state must be a whole number"),
        ({"n_threads": 0}, ValueError, "n_threads must be at least 1"),
        ({"max_background": -1}, ValueError, "max_background"),
        ({"classes": 3}, ValueError, "3 is not"),
        ({"classes": []}, ValueError, "it is empty"),
        ({"background_weight": np.ones(9)}, ValueError, "pass them, too"),
        ({"background": X[:, :2]}, ValueError, "background has 2 features"),
        ({"background": X[:0]}, ValueError, "background has no rows"),
        ({"background": X, "background_weight": [1]}, ValueError, "background_weight must be (9,)"),
        ({"background": X * np.nan}, ValueError, "background"),
    ]
    for how, kind, part in cases:
        with refused(kind, part):
            cmlp.attributions(net, X, **how)
    with refused(ValueError, "one row has nothing to be compared with"):
        cmlp.attributions(net, X[:1])
    clf = fit_quietly(cmlp.MLPClassifier((3,), max_iter=1), *blobs())
    with pytest.raises(ValueError, match="X has 2 features") as caught:
        cmlp.attributions(clf, X[:, :3], background=X[:, :2])
    assert caught.value.__notes__ == ["This is about background."]
    with refused(TypeError, "scikit-learn Pipeline", "not int"):
        cmlp.attributions(3, X)
    with refused(ValueError, "not fitted yet"):
        cmlp.attributions(cmlp.MLPClassifier(), X)
    with refused(ValueError, "weights of the 2 rows"):
        weights = np.zeros(9)
        weights[0] = 1
        for seed in range(9):
            cmlp.attributions(
                net, X, background=X, background_weight=weights, max_background=2,
                random_state=seed,
            )  # fmt: skip
