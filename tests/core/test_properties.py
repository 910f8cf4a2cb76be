"""What holds for every network and all rows: hypothesis searches for an exception."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import HIDDEN, PAIRS, SOLVERS, Oracle, Problem, check_same, layers

import cmlp
from cmlp.core import formatting, seam

# The fixtures `core` and `dtype` stay what they are for all examples of a test.
searching = settings(
    deadline=None, database=None, max_examples=8, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip

sizes = st.lists(st.integers(1, 70), min_size=2, max_size=4)
batches = st.integers(1, 40)
seeds = st.integers(0, 2**32)


@st.composite
def problems(draw, **options):
    """Any network with any rows, as the keywords of a Problem."""
    widths = tuple(draw(sizes))
    loss, out = draw(st.sampled_from(PAIRS))
    hidden = draw(st.lists(st.sampled_from(HIDDEN), min_size=len(widths) - 2,
                           max_size=len(widths) - 2))  # fmt: skip
    return {"sizes": widths, "activations": (*hidden, out), "loss": loss, "n": draw(batches),
            "seed": draw(seeds), "weighted": draw(st.booleans()),
            "l1": draw(st.sampled_from([0, 0.01])),
            "l2": draw(st.sampled_from([0, 0.02]))} | options  # fmt: skip


@st.composite
def noises(draw, n_hidden):
    rates = draw(st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.9]), min_size=n_hidden,
                          max_size=n_hidden))  # fmt: skip
    return seam.Noise(draw(seeds), draw(st.sampled_from([0.0, 0.3])), np.array(rates, float))


@searching
@given(data=st.data(), made=problems())
def test_twins_agree(core, dtype, data, made):
    problem = Problem(dtype=dtype, **made)
    noise = data.draw(noises(len(made["sizes"]) - 2))
    step = data.draw(st.integers(0, 2**40))
    oracle = Oracle(problem, noise, step)
    oracle.check_gradient(problem.gradient(core, noise=noise, step=step))
    out, costs = problem.evaluate(core, noise=noise, step=step)
    oracle.a[-1].check(out, "outputs")
    oracle.costs.check(costs, "costs")


def strided(data, X):
    """The same numbers in another memory order, amid NaN where there is room for it."""
    rows, columns = (data.draw(st.sampled_from([1, 2, 3, -1, -2])) for _ in range(2))
    fill = np.nan if X.dtype.kind == "f" else 0
    shape = [n * abs(s) + 1 for n, s in zip(X.shape, (rows, columns), strict=True)]
    big = np.full(shape, fill, X.dtype, order=data.draw(st.sampled_from("CF")))
    view = big[::rows, ::columns][: X.shape[0], : X.shape[1]]
    view[...] = X
    return view


@searching
@given(data=st.data(), made=problems())
def test_strides_and_formats_do_not_matter(core, dtype, data, made):
    problem = Problem(dtype=dtype, **made)
    kind = data.draw(st.sampled_from("bBhHiIlLqQfd"))
    whole = np.random.default_rng(made["seed"]).integers(0, 2, problem.X.shape)
    problem.X = whole.astype(dtype)
    other = strided(data, whole.astype(kind))
    oracle = Oracle(problem)
    oracle.a[-1].check(problem.predict(core, other), "predict")
    oracle.check_gradient(problem.gradient(core, X=other, targets=strided(data, problem.targets)))
    check_same(core, problem.predict(core, other), problem.predict(core))


@searching
@given(data=st.data(), made=problems(n=150))
def test_predictions_do_not_depend_on_the_batch(core, dtype, data, made):
    """Row i of predict(X) is predict(X[i:i+1]) within rounding: a row has no neighbours."""
    problem = Problem(dtype=dtype, **made)
    bound = Oracle(problem).a[-1].error
    whole = problem.predict(core).astype(float)
    for i in data.draw(st.lists(st.integers(0, 149), min_size=1, max_size=5)):
        one = problem.predict(core, problem.X[i : i + 1])
        assert (np.abs(one[0] - whole[i]) <= 2 * bound[i]).all()
    first = data.draw(st.integers(0, 149))
    part = problem.predict(core, problem.X[first:])
    assert (np.abs(part - whole[first:]) <= 2 * bound[first:]).all()


@searching
@given(data=st.data(), made=problems())
def test_permutations(core, dtype, data, made):
    """Rows in another order: the same outputs, and the same gradient but for rounding."""
    problem = Problem(dtype=dtype, **made)
    order = np.array(data.draw(st.permutations(range(made["n"]))))
    bound = Oracle(problem)
    off = np.abs(problem.predict(core, rows=order) - problem.predict(core)[order].astype(float))
    assert (off <= 2 * bound.a[-1].error[order]).all()
    check_same_gradient(problem, bound, problem.gradient(core, rows=order), problem.gradient(core))


def check_same_gradient(problem, oracle, one, other):
    """Two ways to a gradient differ by the rounding of both."""
    parts = zip(
        oracle.backward[0], layers(problem.plan, one[1]), layers(problem.plan, other[1]),
        strict=True,
    )  # fmt: skip
    for (_, *bounds), mine, theirs in parts:
        for bound, m, t in zip(bounds, mine, theirs, strict=True):
            assert (np.abs(m - t.astype(float)) <= 2 * bound.error).all()
    assert abs(one[0] - other[0]) <= 2 * oracle.loss.error


@searching
@given(made=problems(n=7, weighted=True, l1=0, l2=0))
def test_a_gradient_is_the_weighted_mean_of_its_rows(core, dtype, made):
    problem = Problem(dtype=dtype, **made)
    share = problem.weights / problem.weights.sum()
    loss, total = 0.0, np.zeros(len(problem.params))
    for i in np.flatnonzero(share):
        one = problem.gradient(core, rows=np.array([i]))
        loss, total = loss + share[i] * one[0], total + share[i] * one[1].astype(float)
    check_same_gradient(problem, Oracle(problem), problem.gradient(core), (loss, total))


copies_of_nine = st.lists(st.integers(1, 4), min_size=9, max_size=9)


@searching
@given(made=problems(n=9, weighted=False), times=copies_of_nine)
def test_a_weight_is_a_number_of_copies(core, dtype, made, times):
    problem = Problem(dtype=dtype, **made)
    copies = problem.gradient(core, rows=np.repeat(np.arange(9), times))
    problem.weights = np.array(times, float)
    check_same_gradient(problem, Oracle(problem), problem.gradient(core), copies)


@searching
@given(made=problems(n=9), factor=st.sampled_from([2.0, 0.125, 1024.0]))
def test_only_the_proportions_of_weights_count(core, dtype, made, factor):
    """Powers of two change no digit."""
    problem = Problem(dtype=dtype, **made)
    weights = np.ones(9) if problem.weights is None else problem.weights
    for mine, theirs in zip(
        problem.gradient(core, weights=weights), problem.gradient(core, weights=factor * weights),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.usefixtures("threads_at_any_size")
@searching
@given(
    widths=sizes, n=batches, batch_size=st.integers(1, 50), seed=seeds,
    solver=st.sampled_from(sorted(SOLVERS)), clip=st.sampled_from([None, 0.1]),
    dropout=st.sampled_from([0.0, 0.3]), hidden=st.sampled_from(HIDDEN),
)  # fmt: skip
def test_training_keeps_its_bits(core, dtype, widths, n, batch_size, seed, solver, clip, dropout,
                                 hidden):  # fmt: skip
    """The same seed gives the same bits on any number of threads, and the padding stays zero."""
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, widths[0])), rng.standard_normal((n, widths[-1]))
    nets = []
    for n_threads in (1, 2):
        net = cmlp.Network(widths, hidden, loss="squared_error", dtype=dtype, seed=seed % 1000)
        before = net.params.copy()
        net.fit(X, y, epochs=2, batch_size=batch_size, solver=solver, learning_rate=1e-3,
                dropout=dropout if len(widths) > 2 else 0, clip_norm=clip, n_threads=n_threads,
                input_noise=dropout)  # fmt: skip
        nets.append(net)
    np.testing.assert_array_equal(nets[0].params, nets[1].params)
    assert (nets[0].params != before).any()
    assert np.count_nonzero(nets[0].params) <= nets[0].n_params


@pytest.mark.parametrize("rows", [0, 1, 127, 128, 129, 300])
def test_predict_any_number_of_rows(core, dtype, rows):
    problem = Problem((3, 17, 2), ("relu", "identity"), "squared_error", 300, dtype)
    whole = problem.predict(core).astype(float)
    off = np.abs(problem.predict(core, problem.X[:rows]) - whole[:rows])
    assert (off <= 2 * Oracle(problem).a[-1].error[:rows]).all()


def any_number(width=64):
    """All sizes, but for those that four digits round to infinity."""
    most = 2.0**1000 if width == 64 else 2.0**127
    return st.one_of(st.floats(-most, most, width=width), st.floats(-2, 2, width=width),
                     st.sampled_from([np.nan, np.inf, -np.inf]))  # fmt: skip


@settings(searching, max_examples=150)
@given(value=any_number(), decimals=st.sampled_from([3, 4, 6, 8]))
def test_no_number_is_shown_as_another(value, decimals):
    """What is read differs by half of the second digit, a percentage by half of its last decimal.

    0 is 0, 1 is 1, and 100 % is 100 %.
    """
    for write in (formatting.number, formatting.score):
        read = float(write(value, decimals))
        np.testing.assert_allclose(read, value, rtol=0.05, atol=0)
        assert write is formatting.number or read != 1 or value == 1
    share = float(formatting.percent(value, decimals - 3))
    half = 0.5 * 10.0 ** (3 - decimals) * (1 + 1e-9)
    np.testing.assert_allclose(share, 100 * value, rtol=0.05, atol=half)
    assert share not in (0, 100) or 100 * value == share


@settings(searching, max_examples=50)
@given(data=st.data(), shape=st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_no_number_of_an_array_is_shown_as_another(data, dtype, shape):
    size = shape[0] * shape[1]
    numbers = st.lists(any_number(8 * dtype.itemsize), min_size=size, max_size=size)
    values = np.array(data.draw(numbers), dtype).reshape(shape)
    text = formatting.array(values)
    assert len({len(row) for row in text.replace("]]", "]").splitlines()}) == 1
    read = np.array(text.replace("[", " ").replace("]", " ").split(), float).reshape(shape)
    np.testing.assert_allclose(read, values.astype(float), rtol=0.05, atol=0)
