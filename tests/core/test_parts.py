"""Parts of a batch, each on another machine: together they have the gradient of the whole."""

import threading

import numpy as np
from oracle import Problem

from cmlp.core import seam

N = 150
SHAPE = (9, 33, 17, 3)


def problem_of(dtype, **options):
    made = Problem(
        SHAPE, ("tanh", "relu", "softmax"), "categorical_crossentropy", N, dtype, weighted=True,
        **options,
    )  # fmt: skip
    return made, seam.Noise(5, 0.1, np.array([0.3, 0.2]))


def gradient(core, problem, noise, rows, first_row, n_threads=1, batch=0.0):
    """Call the core with as many threads; return the loss, the gradient, and what it belongs to."""
    grads, nothing = problem.like_params(np.nan), np.empty((0, 0), problem.dtype)
    scratch, team, losses = problem.scratch(core, n_threads), seam.places(), {}

    def call(rank):
        losses[rank] = core.gradient(
            problem.plan, problem.params, problem.X, problem.targets, problem.weights, rows,
            problem.objective, noise, 3, grads, nothing, nothing, scratch, problem.input_scale,
            False, team, first_row, rank, n_threads, batch,
        )  # fmt: skip

    threads = [threading.Thread(target=call, args=(rank,)) for rank in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return losses[0], grads, problem.weights[rows].sum()


def test_the_parts_of_a_batch_add_up(core, dtype):
    """Noise and dropout are those of the whole batch: each sum is one of the same numbers."""
    problem, noise = problem_of(dtype)
    loss, whole, weight = gradient(core, problem, noise, np.arange(N), 0)
    parts = [
        gradient(core, problem, noise, np.arange(start, stop), start, 1, weight)
        for start, stop in ((0, 1), (1, 70), (70, N))
    ]
    tolerance = N * np.finfo(dtype).eps
    total = sum(grads.astype(float) for _, grads, _ in parts)
    np.testing.assert_allclose(total, whole, 0, tolerance * np.abs(whole).max())
    np.testing.assert_allclose(sum(part for part, _, _ in parts), loss, tolerance)
    shifted = gradient(core, problem, noise, np.arange(70, N), 0, 1, weight)[1]
    assert np.abs(shifted - parts[2][1]).max() > 1000 * tolerance * np.abs(whole).max()


def test_the_costs_of_a_part_are_those_in_the_whole(core, dtype):
    problem, noise = problem_of(dtype)
    found = []
    for rows in (np.arange(N), np.arange(70, N)):
        out, costs = np.empty((len(rows), 3), dtype), np.empty(len(rows), dtype)
        core.evaluate(
            problem.plan, problem.params, problem.X, problem.targets, rows, problem.objective,
            noise, 3, out, costs, problem.scratch(core), problem.input_scale, None, rows[0],
        )  # fmt: skip
        found.append(costs)
    np.testing.assert_allclose(found[1], found[0][70:], N * np.finfo(dtype).eps)


def test_threads_compute_one_gradient(core, dtype):
    problem, noise = problem_of(dtype)
    rows = np.arange(N)[::-1].copy()
    alone, together = (gradient(core, problem, noise, rows, 7, n) for n in (1, 3))
    assert alone[0] == together[0]
    np.testing.assert_array_equal(alone[1], together[1])
