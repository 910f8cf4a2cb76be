"""
Regression with uncertainty
===========================

The members of an ensemble agree where there are data, and differ where there are none.
"""

import matplotlib.pyplot as plt
import numpy as np

import cmlp

rng = np.random.default_rng(0)
X = np.concatenate([rng.uniform(-3, -0.5, 150), rng.uniform(1, 3, 150)])[:, None]
y = np.sin(2 * X[:, 0]) + rng.normal(0, 0.1, len(X))

model = cmlp.MLPRegressor(
    hidden_layer_sizes=(32, 32),
    activation="tanh",
    learning_rate_init=0.01,
    max_iter=200,
    early_stopping=True,
    n_ensemble=8,
    random_state=0,
)
grid = np.linspace(-4, 4, 200)[:, None]
mean, std = model.fit(X, y).predict(grid, return_std=True)

# %%
# The band is two standard deviations of the eight members. It is what they disagree about, not the
# noise of the data.
figure, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
ax.fill_between(grid[:, 0], mean - 2 * std, mean + 2 * std, alpha=0.3, label="mean ± 2 std")
ax.plot(grid[:, 0], mean, label="mean of eight networks")
ax.plot(X[:, 0], y, "k.", ms=3, label="data")
ax.set(xlabel="x", ylabel="y", ylim=(-3, 3))
ax.legend()
