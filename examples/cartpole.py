"""Reinforcement learning: a network learns to balance a pole on a cart, in NumPy and cmlp alone.

    python examples/cartpole.py [--seed 0]

Proximal policy optimisation (Schulman et al. 2017): one network, the policy, maps the four numbers
of a state to the logits of two pushes; another, the critic, to the reward still to come. What came
above the critic's expectation makes a push more probable, what came below it less. The policy
learns from a derivative of its own, by `backward`; the critic from numbers, by `step`.

It is solved when 100 episodes last 475 steps on average; 500 is the longest.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
from numpy.typing import NDArray

import cmlp

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

SOLVED, LONGEST = 475, 500
"""Steps of a good episode, and of the longest one."""

DISCOUNT, TRACE, CLIP = np.float32(0.99), np.float32(0.95), 0.2
"""Of a reward a step later; of what a later step tells of an action; of the policy's change."""


class CartPoles:
    """A number of carts with a pole on each; the equations of Barto, Sutton & Anderson (1983)."""

    def __init__(self, n: int, rng: np.random.Generator) -> None:
        self.rng = rng
        self.states = self._first(n)
        self.ages = np.zeros(n, np.int64)

    def _first(self, n: int) -> Floats:
        return self.rng.uniform(-0.05, 0.05, (n, 4)).astype(np.float32)

    def step(self, actions: NDArray[np.int64]) -> tuple[Floats, Bools, Bools]:
        """Push each cart to the left (0) or right (1) for a fiftieth of a second.

        Returns
        -------
        states : (n, 4) array
            Position and speed of the cart, angle and angular speed of the pole, before a fallen
            pole is put up again.
        fallen : (n,) array of bool
            Where the pole has fallen over, or the cart has left the track.
        ended : (n,) array of bool
            There, and where an episode was the longest: a new one begins.
        """
        _, speed, angle, spin = self.states.T
        force = np.where(actions == 1, 10.0, -10.0)
        sin, cos = np.sin(angle), np.cos(angle)
        push = (force + 0.05 * spin**2 * sin) / 1.1
        turn = (9.8 * sin - cos * push) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
        change = np.stack([speed, push - 0.05 * turn * cos / 1.1, spin, turn], axis=1)
        after = (self.states + 0.02 * change).astype(np.float32)
        self.ages += 1
        fallen = (np.abs(after[:, 0]) > 2.4) | (np.abs(after[:, 2]) > np.pi / 15)
        ended = fallen | (self.ages >= LONGEST)
        self.states = after.copy()
        self.states[ended] = self._first(int(ended.sum()))
        self.ages[ended] = 0
        return after, fallen, ended


def softmax(logits: Floats) -> Floats:
    """Return the probabilities of the actions, a row for each state."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


class Agent:
    """A policy and its critic, with the trainer of each.

    Parameters
    ----------
    seed : int
        Of all that is random.
    carts, steps : int
        Episodes at the same time, and their steps before the networks learn from them.
    batch : int
        Rows of a training step.
    """

    def __init__(self, seed: int, carts: int = 16, steps: int = 64, batch: int = 128) -> None:
        self.rng = np.random.default_rng(seed)
        self.world, self.steps, self.batch = CartPoles(carts, self.rng), steps, batch
        about = {"activation": "tanh", "loss": "squared_error", "weight_init": "orthogonal"}
        self.policy = cmlp.Network([4, 64, 64, 2], seed=seed, **about)
        self.critic = cmlp.Network([4, 64, 64, 1], seed=seed + 1, **about)
        self.policy.weights[-1] *= 0.01  # every push is as probable as the other
        recipe = {"solver": "adam", "batch_size": batch, "learning_rate": 1e-3, "clip_norm": 0.5}
        self.policy_trainer = self.policy.trainer(**recipe)
        self.critic_trainer = self.critic.trainer(**recipe)

    def collect(self) -> tuple[Floats, NDArray[np.int64], Floats, Floats]:
        """Act for some steps.

        Returns
        -------
        states, actions, returns, advantages : arrays
            A row for each step of each cart. The returns are estimates of the reward to come, the
            advantages what they are above the critic's value (Schulman et al. 2016).
        """
        n, world = len(self.world.states), self.world
        states, after = (np.empty((self.steps, n, 4), np.float32) for _ in range(2))
        actions = np.empty((self.steps, n), np.int64)
        fallen, ended = (np.empty((self.steps, n), bool) for _ in range(2))
        for t in range(self.steps):
            states[t] = world.states
            right = softmax(self.policy.predict(world.states))[:, 1]
            actions[t] = self.rng.random(n) < right
            after[t], fallen[t], ended[t] = world.step(actions[t])
        values = self.critic.predict(states.reshape(-1, 4)).reshape(actions.shape)
        to_come = self.critic.predict(after.reshape(-1, 4)).reshape(actions.shape)
        surprises = 1 + DISCOUNT * np.where(fallen, 0, to_come) - values
        advantages, running = np.empty_like(values), np.zeros(n, np.float32)
        for t in reversed(range(self.steps)):
            running = surprises[t] + DISCOUNT * TRACE * np.where(ended[t], 0, running)
            advantages[t] = running
        returns = advantages + values
        return states.reshape(-1, 4), actions.ravel(), returns.ravel(), advantages.ravel()

    def learn(self, epochs: int = 6) -> None:
        """Collect experience, and take some epochs of training steps on it."""
        states, actions, returns, advantages = self.collect()
        done = np.eye(2, dtype=np.float32)[actions]
        before = (softmax(self.policy.predict(states)) * done).sum(axis=1)
        gains = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        for _ in range(epochs):
            for rows in self.rng.permutation(len(states)).reshape(-1, self.batch):
                X, gain = states[rows], gains[rows]
                shares = softmax(self.policy.predict(X))
                ratio = (shares * done[rows]).sum(axis=1) / before[rows]
                # Beyond this the experience, which is the old policy's, tells nothing.
                trusted = np.where(gain > 0, ratio < 1 + CLIP, ratio > 1 - CLIP)
                slope = (trusted * ratio * gain)[:, None] * (shares - done[rows])
                self.policy_trainer.backward(X, slope / self.batch)
                self.critic_trainer.step(X, returns[rows])

    def mean_length(self, episodes: int) -> float:
        """Return the mean length of episodes in which the likelier push is taken."""
        world, lengths = CartPoles(episodes, self.rng), np.full(episodes, LONGEST)
        for age in range(1, LONGEST):
            _, fallen, _ = world.step(self.policy.predict(world.states).argmax(axis=1))
            lengths[fallen & (lengths == LONGEST)] = age
            if (lengths < LONGEST).all():
                break
        return float(lengths.mean())


def train(seed: int, *, rounds: int = 200, report: bool = False) -> Agent | None:
    """Return an agent that balances the pole, or None if the rounds were not enough."""
    agent = Agent(seed)
    for number in range(1, rounds + 1):
        agent.learn()
        if number % 5 == 0:
            length = agent.mean_length(20)
            if report:
                print(f"round {number:3d}: episodes of {length:.0f} steps", flush=True)
            if length >= SOLVED and agent.mean_length(100) >= SOLVED:
                return agent
    return None


def main() -> int:
    """Train one agent; 1 if it does not learn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    began = time.perf_counter()
    agent = train(parser.parse_args().seed, report=True)
    print(f"{'solved' if agent else 'not solved'} in {time.perf_counter() - began:.1f} s")
    return 0 if agent else 1


if __name__ == "__main__":
    sys.exit(main())
