"""
Why does it not learn?
======================

A network that answers the same for every row: ``diagnose`` finds out why, and the advice mends it.
"""

import matplotlib.pyplot as plt

import cmlp

digits = cmlp.load_digits()
X, y = digits.X_train, digits.y_train

bad = cmlp.Network([64, 128, 10], seed=0)
bad.fit(X, y, epochs=5, learning_rate=0.1)
print(bad.diagnose(X, y))

# %%
# Scale the pixels, and it learns:
good = cmlp.Network([64, 128, 10], seed=0, input_scale=1 / 16)
good.fit(X, y, epochs=5, learning_rate=0.1)
print(good.diagnose(X, y))

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for ax, net, title in zip(axes, (bad, good), ("as they are", "scaled"), strict=True):
    cmlp.plot.gradient_norms(net, X, y, ax=ax)
    ax.set_title(f"pixels {title}: {net.score(digits.X_test, digits.y_test):.0%}")
