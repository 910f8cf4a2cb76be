"""
Missing targets
===============

Three properties of a material, of which each laboratory measured only some. With
``missing_targets=True`` a NaN among the targets has no loss and no gradient, and one network learns
from all rows.
"""

import matplotlib.pyplot as plt
import numpy as np

import cmlp

rng = np.random.default_rng(0)
X = rng.normal(size=(1500, 6))
hidden = np.tanh(X @ rng.normal(size=(6, 3)))
Y = hidden @ rng.normal(size=(3, 3)) + rng.normal(0, 0.1, (1500, 3))
known = rng.random(Y.shape) < 0.4  # of each number, four in ten were measured
train, test = slice(0, 1000), slice(1000, None)

together = cmlp.Network([6, 32, 3], "tanh", loss="squared_error", missing_targets=True, seed=0)
together.fit(
    X[train], np.where(known, Y, np.nan)[train], epochs=200, learning_rate=0.02, weight_decay=1e-3
)

complete = np.flatnonzero(known[train].all(axis=1))
alone = cmlp.Network([6, 32, 3], "tanh", loss="squared_error", seed=0)
alone.fit(X[complete], Y[complete], epochs=200, learning_rate=0.02, weight_decay=1e-3)

print(f"rows with all three: {len(complete)} of 1000")
scores = [net.score(X[test], Y[test]) for net in (alone, together)]
figure, ax = plt.subplots(figsize=(6, 2), layout="constrained")
bars = ax.barh([f"{len(complete)} complete rows", "all 1,000 rows"], scores, color=["0.7", "C0"])
ax.bar_label(bars, fmt=" %.3f")
ax.set(xlabel="R2 on other rows", xlim=(0, 1.1))
