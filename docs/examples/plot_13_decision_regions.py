"""
Decision regions
================

Two features, three classes: what a network answers in every place, for three widths.
"""

import matplotlib.pyplot as plt
import numpy as np

import cmlp

rng = np.random.default_rng(0)
t, y = rng.uniform(0.3, 3.2, 450), np.arange(450) % 3
angle = 1.6 * t + y * 2 * np.pi / 3
X = np.c_[t * np.cos(angle), t * np.sin(angle)] + rng.normal(0, 0.12, (450, 2))

figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
for ax, hidden in zip(axes, ([2], [8], [32, 32]), strict=True):
    net = cmlp.Network([2, *hidden, 3], "tanh", seed=1)
    net.fit(X, y, epochs=200, learning_rate=0.05)
    cmlp.plot.decision_regions(net, X, y, ax=ax)
    ax.set_title(f"hidden {hidden}: {net.score(X, y):.0%}")
