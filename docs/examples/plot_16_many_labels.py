"""
Several labels a row
====================

A film may be funny, sad and long at once. A matrix of 0 and 1 is a target with several labels; each
output is a probability of its own.
"""

import matplotlib.pyplot as plt
import numpy as np

import cmlp

rng = np.random.default_rng(0)
X = rng.normal(size=(1500, 10))
W = rng.normal(size=(10, 4))
Y = (X @ W + rng.normal(0, 0.5, (1500, 4)) > 0.8).astype(int)

model = cmlp.MLPClassifier((32,), early_stopping=True, learning_rate_init=0.01, random_state=0)
model.fit(X[:1000], Y[:1000])
p = model.predict_proba(X[1000:])
print(p[:3].round(2))
print(f"rows with all four right: {model.score(X[1000:], Y[1000:]):.2f}")

# %%
# How well each label is found, and how often it occurs:
right = ((p > 0.5) == Y[1000:]).mean(axis=0)
figure, ax = plt.subplots(figsize=(6, 2.6), layout="constrained")
ax.bar(np.arange(4) - 0.2, right, 0.4, label="read right")
ax.bar(np.arange(4) + 0.2, Y[1000:].mean(axis=0), 0.4, label="share of rows", color="0.7")
ax.set(xticks=range(4), xlabel="label", ylim=(0, 1.25))
ax.legend(ncols=2)
