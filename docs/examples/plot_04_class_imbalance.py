"""
Class imbalance
===============

Two of a hundred rows are of the class that matters. The accuracy of a model that never finds one is
98 %. ``class_weight="balanced"`` makes each class count alike.
"""

import matplotlib.pyplot as plt
import numpy as np

import cmlp

rng = np.random.default_rng(0)
rare = rng.random(6000) < 0.02
X = rng.normal(size=(6000, 4)) + rare[:, None] * [1.5, 1.0, 0.0, 0.0]
y = np.where(rare, "rare", "usual")
train, test = slice(0, 4000), slice(4000, None)

figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
for ax, weight in zip(axes, (None, "balanced"), strict=True):
    model = cmlp.MLPClassifier(
        (16,), class_weight=weight, early_stopping=True, learning_rate_init=0.01, random_state=0
    )
    model.fit(X[train], y[train])
    found = np.mean(model.predict(X[test])[rare[test]] == "rare")
    print(f"{weight}: accuracy {model.score(X[test], y[test]):.3f}, {found:.0%} of the rare found")
    cmlp.plot.confusion_matrix(model, X[test], y[test], ax=ax)
    ax.set_title(f"class_weight={weight!r}")

# %%
# Weights shift the balance between missing a rare row and raising a false alarm. The other way is a
# threshold of one's own on ``predict_proba``.
