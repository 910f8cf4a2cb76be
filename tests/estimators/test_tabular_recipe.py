"""The defaults of the tabular estimators: first weights, temperature, members, small and large."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cmlp
from cmlp.estimators.tabular.presets import Facts, preset_for
from cmlp.estimators.tabular.temperature import golden_section, log_loss_at_best

N = 400
rng = np.random.default_rng(0)
X = {
    "size": np.where(rng.random(N) < 0.1, np.nan, rng.normal(size=N)),
    "city": rng.choice(["Bern", "Oslo", "Rome"], N),
    "member": rng.choice([True, False], N),
}
y = np.nan_to_num(X["size"]) + (X["city"] == "Rome") + 0.5 * rng.normal(size=N) > 0.3
FEW = {"hidden_layer_sizes": (32,), "max_iter": 2, "random_state": 0, "n_threads": 1}


def test_members_are_folds_with_less_and_more_dropout():
    model = cmlp.TabularClassifier(**FEW).fit(X, y)
    assert len(model.networks_) == 4 and model.parameters_["cv"] == 8
    held = np.concatenate(model._held_rows)
    assert len(np.unique(held)) == len(held) == N // 2  # four of eight folds
    assert model.parameters_["by_member"] == ({"dropout": 0.1}, {"dropout": 0.35})
    own = cmlp.TabularClassifier(**FEW, dropout=0.0).fit(X, y)
    assert own.parameters_["by_member"] == ()
    for more, n in (
        ({"n_ensemble": 3}, 3),
        ({"cv": None}, 1),
        ({"early_stopping": False}, 4),
        ({"cv": 8}, 8),
    ):
        assert len(cmlp.TabularClassifier(**FEW, **more).fit(X, y).networks_) == n


def test_columns_are_tables():
    """A number is its scaled value, a flag, and a place in a cumulative table; a category a row."""
    net = cmlp.TabularClassifier(**FEW, cv=None).fit(X, y).network_
    uses = [name.partition(" ")[::2] for name in net.feature_names]
    assert [name for name, _ in uses] == ["size", "size", "size", "city", "member"]
    assert dict(net.inputs.summed) == {1: len(net.front["summed.1"]), 3: 4}
    assert net.inputs.cumulative == (1,) and (net.front["summed.1"][0] == 0).all()
    assert (net.front["summed.3"][0] == 0).all()  # no city is missing


@pytest.mark.parametrize("how, arrays", [
    ({"numeric_embedding": None}, {"summed.2"}),
    ({"embedding_size": 3}, {"summed.1", "levels.3"}),
    ({"numeric_embedding": "periodic"}, {"summed.2", "periodic.phases"}),
    ({"max_one_hot": 3}, {"summed.1"}),
])  # fmt: skip
def test_what_becomes_of_columns(how, arrays):
    model = cmlp.TabularClassifier(**FEW, cv=None, **how).fit(X, y)
    assert arrays <= set(model.network_.front), set(model.network_.front)
    assert np.isfinite(model.predict_proba(X)).all()


def test_first_weights_have_their_variance():
    """2 / n_in, n_in counting dense columns, all rows of tables and a bias."""
    from cmlp.estimators.tabular.network import build_network
    from cmlp.estimators.targets import Outputs

    encoder = cmlp.TabularClassifier(**FEW, cv=None).fit(X, y).encoder_
    preset = preset_for(Facts("numbers", N, 3, 1))
    net = build_network(encoder.outputs_, preset, Outputs(1, "squared_error"), 0)
    tables = [net.front["summed.1"], net.front["summed.3"]]
    n_in = 3 + sum(map(len, tables)) + 1
    steps = np.concatenate([np.diff(tables[0], axis=0), tables[1][1:], net.weights[0]])
    assert steps.var() * n_in / 2 == pytest.approx(1, abs=5 * np.sqrt(2 / steps.size))
    last = net.weights[-1]
    assert last.var() * 256 / 2 == pytest.approx(0.09, abs=0.09 * 5 * np.sqrt(2 / last.size))
    assert not any(b.any() for b in net.biases)


# Temperature --------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.6, 1.0, 3.0])
def test_the_temperature_is_found(temperature):
    """Labels drawn from softmax(z); the probabilities are those of z * temperature."""
    random = np.random.default_rng(1)
    z = random.normal(size=(20_000, 3)) * 2
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    labels = (random.random((len(z), 1)) > np.cumsum(p, axis=1)).sum(axis=1)
    q = np.exp(z * temperature)
    q /= q.sum(axis=1, keepdims=True)
    loss, found = log_loss_at_best(q, labels, None)
    assert found == pytest.approx(temperature, rel=0.06)  # 9 steps: 3.5 * 0.618^9 = 0.046 in log T
    assert loss == pytest.approx(-np.log(p[np.arange(len(z)), labels]).mean(), rel=2e-3)


@given(st.floats(-0.9, 2.4))
def test_golden_section(least):
    found = golden_section(lambda x: (x - least) ** 2, -1.0, 2.5, 20)
    assert found == pytest.approx(least, abs=3.5 * 0.619**20)


def test_the_network_has_the_temperature_of_its_held_out_rows():
    """No temperature around makes the held-out loss less, but by the last step of the search."""
    model = cmlp.TabularClassifier(**FEW | {"max_iter": 60}, cv=None).fit(X, y)
    held = model._held_rows[0]
    part = {name: column[held] for name, column in X.items()}
    z = model.decision_function(part)

    def loss(factor):
        return np.logaddexp(0, -np.where(y[held], z, -z) * factor).mean()

    assert loss(1) == pytest.approx(-model.validation_score_, rel=1e-4)
    assert loss(1) <= min(loss(1.25), loss(0.8)) + 2e-3


# Sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 15, 16, 40, 200, 6000, 100_000, 500_000, 20_000_000])
def test_the_work_suits_the_number_of_rows(n):
    preset = preset_for(Facts("classes", n, 5, 2))
    n_train = n - n // 8
    assert 8 <= preset.batch_size <= 256 and (preset.cv is None or preset.cv <= n // 4)
    assert (preset.folds_used or 1) * preset.n_ensemble == 4
    visits = preset.max_iter * n_train
    assert preset.max_iter >= 4 and (visits <= 2.5e6 or preset.max_iter == 4)
    assert preset.max_iter <= 120
    if n >= 5000:
        assert preset.batch_size == 256 and preset.learning_rate_init == 0.006


@pytest.mark.parametrize("n", [5, 20, 60])
def test_few_rows(n):
    columns = {name: column[:n] for name, column in X.items()}
    model = cmlp.TabularClassifier(random_state=0, n_threads=1, max_iter=3).fit(columns, y[:n])
    assert np.isfinite(model.predict_proba(columns)).all() and len(model.networks_) == 4
