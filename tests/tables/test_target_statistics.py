"""What levels tell of the target: by hand, and nothing of a row's own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmlp.tables.encode import TableEncoder
from cmlp.tables.target_statistics import level_means, ordered_means, targets_of


def slowly(codes, targets, weights, prior, seed, n_permutations):
    """The definition: a loop over the rows of each order."""
    found = np.zeros(targets.shape)
    for permutation in range(n_permutations):
        order = np.random.default_rng([seed, permutation]).permutation(len(codes))
        for i, row in enumerate(order):
            before = [r for r in order[:i] if codes[r] == codes[row]]
            weight = sum(weights[r] for r in before) + prior
            total = sum(weights[r] * targets[r] for r in before)
            found[row] += total / weight if weight else 0
    return found / n_permutations


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.sampled_from([0.0, 1.0, 2.5]), st.integers(0, 99))
def test_the_means_by_their_definition(n, levels, prior, seed):
    rng = np.random.default_rng(seed)
    codes, targets = rng.integers(0, levels, n), rng.normal(size=(n, 2))
    weights = rng.random(n)
    found = ordered_means(codes, targets, weights, prior, seed, 2)
    expected = slowly(codes, targets, weights, prior, seed, 2)
    # a sum of n terms, from cumulative sums of all: n roundings of their largest value
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    equal = ordered_means(codes, targets, None, prior, seed, 2)
    expected = slowly(codes, targets, np.ones(n), prior, seed, 2)
    np.testing.assert_allclose(equal, expected, rtol=1e-9, atol=1e-9)


def test_the_means_of_levels_by_hand():
    codes, targets = np.array([1, 1, 2, 1]), np.array([[1.0], [3], [5], [5]])
    means = level_means(codes, targets, None, 4, 1.0)
    np.testing.assert_allclose(means[:, 0], [0, 9 / 4, 5 / 2, 0])
    means = level_means(codes, targets, np.array([1.0, 0, 2, 1]), 4, 0.5)
    np.testing.assert_allclose(means[:, 0], [0, 6 / 2.5, 10 / 2.5, 0])


@pytest.mark.parametrize("row", [0, 7, 99])
def test_a_rows_own_target_changes_nothing_of_its_own(row):
    rng = np.random.default_rng(1)
    codes, targets = rng.integers(0, 6, 100), rng.normal(size=(100, 1))
    before = ordered_means(codes, targets, None, 1.0, 3, 4)
    targets[row] += 100
    after = ordered_means(codes, targets, None, 1.0, 3, 4)
    assert after[row] == pytest.approx(before[row], rel=1e-12, abs=1e-12)
    same = codes == codes[row]
    assert np.abs(after - before)[same].max() > 1
    np.testing.assert_allclose(after[~same], before[~same], atol=1e-12)


def test_random_targets_are_not_told():
    """Of levels that mean nothing: the mean of a level has each row's own target, ours has not."""
    rng = np.random.default_rng(0)
    n = 4000
    X = {"a": [f"level {i}" for i in rng.integers(0, 1000, n)]}
    y = rng.normal(size=n)
    encoder = TableEncoder(target_statistics="regression", categorical_features=["a"])
    E = encoder.fit_transform(X, y)
    bound = 5 / np.sqrt(n)  # five deviations of the correlation of independent numbers
    assert abs(np.corrcoef(E[:, 1], y)[0, 1]) < bound
    assert np.corrcoef(encoder.transform(X)[:, 1], y)[0, 1] > 5 * bound


def test_informative_levels_are_told():
    rng = np.random.default_rng(0)
    n = 4000
    level = rng.integers(0, 50, n)
    effect = rng.normal(size=50)
    X = {"a": [f"level {i}" for i in level]}
    y = effect[level] + 0.1 * rng.normal(size=n)
    encoder = TableEncoder(target_statistics="regression")
    E = encoder.fit_transform(X, y)
    assert [o.use for o in encoder.outputs_] == ["code", "statistic", "statistic"]
    assert [o.name for o in encoder.outputs_] == ["a", "a target 0", "a count"]
    assert np.corrcoef(E[:, 1], y)[0, 1] > 0.9
    assert np.abs(E[:, 1]).max() < 3 and np.isfinite(E).all()
    new = encoder.transform({"a": [*X["a"][:5], "unseen", None]})
    np.testing.assert_array_equal(new[5], new[6])
    assert new[5, 1] == 0  # the mean of all
    counts = np.bincount(level)
    assert np.corrcoef(E[:, 2], np.log1p(counts[level]))[0, 1] > 0.95
    np.testing.assert_array_equal(encoder.fit_transform(X, y), E)
    other = TableEncoder(target_statistics="regression", random_state=1).fit_transform(X, y)
    assert (other[:, 1] != E[:, 1]).any() and (other[:, [0, 2]] == E[:, [0, 2]]).all()
    again = TableEncoder.from_entries(*encoder.to_entries())
    np.testing.assert_array_equal(again.transform(X), encoder.transform(X))
    row = encoder.row()
    np.testing.assert_allclose(row({"a": X["a"][0]}), new[0], rtol=1e-6)


def test_classes_have_a_column_each():
    """One for two classes, none for more than ten."""
    assert targets_of(["a", "b", "b"], None, "classification").shape == (3, 1)
    assert targets_of([0, 1, 2, 2], None, "classification").shape == (4, 3)
    assert targets_of(np.arange(11), None, "classification").shape == (11, 0)
    columns = targets_of(["a", "b", "b"], None, "classification")
    np.testing.assert_allclose(columns[:, 0], np.array([-2, 1, 1]) / np.sqrt(2))
    weighted = targets_of([1.0, 2, 3], np.array([1.0, 0, 1]), "regression")
    np.testing.assert_allclose(weighted[:, 0], [-1, 0, 1])
    several = targets_of([[1.0, np.nan], [3, 5], [5, 7]], None, "regression")
    np.testing.assert_allclose(several[:, 1], [0, -1, 1])
    assert targets_of(["same"] * 3, None, "classification").shape == (3, 1)


def test_what_the_targets_must_be():
    X = {"a": list("abcdefghijkl")}
    encoder = TableEncoder(target_statistics="regression")
    with pytest.raises(ValueError, match="pass y to fit"):
        encoder.fit(X)
    with pytest.raises(ValueError, match="each of the 12 rows"):
        encoder.fit(X, [1, 2])
    with pytest.raises(ValueError, match="sample_weight must be"):
        encoder.fit(X, np.arange(12), [1.0])
