"""
A loss of one's own
===================

Too little stock costs more than too much. A function that returns the loss and its derivative is
enough; ``check_gradients`` finds a slip in the derivative.
"""

import matplotlib.pyplot as plt
import numpy as np

import cmlp

rng = np.random.default_rng(0)
X = rng.uniform(0, 7, (1500, 1))
y = 20 + 8 * np.sin(X[:, 0]) + rng.normal(0, 3, 1500)


def shortage(outputs, targets):
    """Ten for each missing piece, one for each that is left over."""
    short = targets - outputs
    loss = np.where(short > 0, 10 * short, -short).mean()
    return loss, np.where(short > 0, -10.0, 1.0) / len(outputs)


grid = np.linspace(0, 7, 100)[:, None]
figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
ax.plot(X[:, 0], y, ".", ms=2, color="0.6")
for loss, style in (("squared_error", "-"), (shortage, "--")):
    net = cmlp.Network([1, 32, 1], "tanh", loss=loss, seed=0)
    net.fit(X, y, epochs=80, solver="adam", learning_rate=0.03, schedule="cosine")
    name = loss if isinstance(loss, str) else "shortage"
    enough = np.mean(net.predict(X)[:, 0] >= y)
    ax.plot(
        grid[:, 0], net.predict(grid), style, lw=2, label=f"{name}: enough on {enough:.0%} of days"
    )
ax.set(xlabel="day of the week", ylabel="pieces")
ax.legend()
