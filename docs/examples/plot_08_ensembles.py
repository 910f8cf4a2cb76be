"""
Ensembles
=========

Several networks differ in their first weights and in the rows that they hold out. Their mean is
better than one of them, and its probabilities are more honest.
"""

import matplotlib.pyplot as plt
import numpy as np

import cmlp

digits = cmlp.load_digits()
X, y = digits.X_train[:800], digits.y_train[:800]

scores, losses, sizes = [], [], (1, 2, 4, 8)
for n in sizes:
    model = cmlp.MLPClassifier(
        (32,),
        early_stopping=True,
        learning_rate_init=0.01,
        input_scale=1 / 16,
        n_ensemble=n,
        random_state=0,
    ).fit(X, y)
    p = model.predict_proba(digits.X_test)
    scores.append(model.score(digits.X_test, digits.y_test))
    losses.append(-np.log(p[np.arange(len(p)), digits.y_test]).mean())

figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
axes[0].plot(sizes, scores, "o-")
axes[0].set(xlabel="networks", ylabel="accuracy", xscale="log", xticks=sizes, xticklabels=sizes)
axes[1].plot(sizes, losses, "o-")
axes[1].set(xlabel="networks", ylabel="log loss", xscale="log", xticks=sizes, xticklabels=sizes)

# %%
# Where the members disagree, the answer is worth less:
p, std = model.predict_proba(digits.X_test, return_std=True)
right = p.argmax(axis=1) == digits.y_test
at = p.argmax(axis=1)[:, None]
spread = np.take_along_axis(std, at, 1)[:, 0]
print(
    f"spread of right answers {spread[right].mean():.3f}, of wrong ones {spread[~right].mean():.3f}"
)
