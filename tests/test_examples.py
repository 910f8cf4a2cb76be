"""The examples of the repository run, and do what they are examples of."""

import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("the tests run without their repository", allow_module_level=True)


@pytest.fixture
def cartpole(monkeypatch):
    """The module of the example."""
    monkeypatch.syspath_prepend(EXAMPLES)
    yield __import__("cartpole")
    sys.modules.pop("cartpole")


def test_the_pole_falls_by_the_equations(cartpole):
    """A push to the right: the cart runs to the right, and the pole tips to the left."""
    import numpy as np

    world = cartpole.CartPoles(3, np.random.default_rng(0))
    world.states[:] = 0
    after, fallen, ended = world.step(np.array([1, 0, 1]))
    np.testing.assert_allclose(after[0], [0, 0.1951219, 0, -0.2926829], rtol=1e-5)  # Gymnasium's
    np.testing.assert_allclose(after[1], -after[0])
    assert not fallen.any() and not ended.any()
    for _ in range(20):
        after, fallen, _ = world.step(np.array([1, 1, 1]))
        if fallen.any():
            break
    assert abs(after[fallen][0, 2]) > np.pi / 15 and abs(world.states[fallen]).max() < 0.06


def test_the_pole_is_balanced(cartpole):
    """With 100 episodes of more than 475 steps on average, from the first numbers."""
    agent = cartpole.train(seed=0)
    assert agent is not None and agent.mean_length(20) > 400
