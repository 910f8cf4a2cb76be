"""
Reinforcement learning
======================

A cart balances a pole. A small network learns the value of pushing left or right (Q-learning with
replay): thousands of single predictions and small steps, where a call must cost little.
"""

import copy

import matplotlib.pyplot as plt
import numpy as np

import cmlp

rng = np.random.default_rng(3)


def push(state, action):
    """A fiftieth of a second of Barto, Sutton & Anderson's cart and pole (1983)."""
    x, v, angle, turn = state
    force = 10.0 if action else -10.0
    pull = (force + 0.05 * turn**2 * np.sin(angle)) / 1.1
    bend = (9.8 * np.sin(angle) - np.cos(angle) * pull) / (
        0.5 * (4 / 3 - 0.1 * np.cos(angle) ** 2 / 1.1)
    )
    gain = pull - 0.05 * bend * np.cos(angle) / 1.1
    state = np.array([x + 0.02 * v, v + 0.02 * gain, angle + 0.02 * turn, turn + 0.02 * bend])
    return state, abs(state[0]) > 2.4 or abs(state[2]) > 0.2095


net = cmlp.Network([4, 32, 32, 2], "relu", "identity", "huber", missing_targets=True, seed=0)
slow = copy.copy(net)
value, trainer = net.predictor(), net.trainer(solver="adam", learning_rate=0.002, batch_size=64)
scale = np.array([1, 1, 5, 2])
past, later = np.zeros((20000, 4)), np.zeros((20000, 4))  # what has been seen, in a circle
actions, over = np.zeros(20000, int), np.zeros(20000, bool)
seen, lengths = 0, []

for episode in range(250):
    state, fallen, steps = rng.uniform(-0.05, 0.05, 4), False, 0
    while not fallen and steps < 300:
        curious = rng.random() < max(0.02, 0.5 - episode / 100)
        action = int(rng.integers(2)) if curious else int(value(state * scale).argmax())
        after, fallen = push(state, action)
        at = seen % len(past)
        past[at], actions[at], later[at], over[at] = state * scale, action, after * scale, fallen
        state, steps, seen = after, steps + 1, seen + 1
        if seen < 200 or seen % 2:
            continue
        rows = rng.integers(0, min(seen, len(past)), 64)
        future = slow.predict(later[rows]).max(axis=1)
        targets = np.full((64, 2), np.nan)  # the other action was not tried: missing
        targets[np.arange(64), actions[rows]] = np.where(over[rows], -1, 0.98 * future)
        trainer.step(past[rows], targets)
        if seen % 50 == 0:
            slow.copy_from(net)
    lengths.append(steps)
    if np.mean(lengths[-20:]) > 200:
        break

# %%
# How long the pole stands, of 300 steps at most:
figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
ax.plot(lengths, ".", color="0.6")
ax.plot(np.convolve(lengths, np.ones(15) / 15, "valid"), lw=2)
ax.set(xlabel="episode", ylabel="steps")
print(f"first ten: {np.mean(lengths[:10]):.0f} steps, last ten: {np.mean(lengths[-10:]):.0f}")
