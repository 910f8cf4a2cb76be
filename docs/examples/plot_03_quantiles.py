"""
Quantiles
=========

How long will it take, at most, nine times out of ten? The loss ``quantile`` answers that: a network
for each quantile.
"""

import matplotlib.pyplot as plt
import numpy as np

import cmlp

rng = np.random.default_rng(0)
X = rng.uniform(0, 4, (2000, 1))
y = X[:, 0] + rng.exponential(0.2 + 0.4 * X[:, 0])  # late is possible, early is not

grid = np.linspace(0, 4, 100)[:, None]
figure, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
ax.plot(X[:, 0], y, ".", ms=2, color="0.6")
for quantile, style in ((0.1, ":"), (0.5, "-"), (0.9, "--")):
    net = cmlp.Network([1, 32, 1], "tanh", loss="quantile", quantile=quantile, seed=0)
    net.fit(X, y, epochs=60, solver="adam", learning_rate=0.01, schedule="cosine")
    below = np.mean(y <= net.predict(X)[:, 0])
    ax.plot(grid[:, 0], net.predict(grid), style, lw=2, label=f"{quantile}: {below:.0%} below")
ax.set(xlabel="distance", ylabel="time", ylim=(0, 10))
ax.legend()
