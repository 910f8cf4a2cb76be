"""
Callbacks and schedules
=======================

A schedule changes the learning rate from step to step; a callback is called after each epoch, may
look at everything, and may end the training.
"""

import matplotlib.pyplot as plt

import cmlp

digits = cmlp.load_digits()
X, y = digits.X_train, digits.y_train

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for name in ("constant", "cosine", "one_cycle"):
    net = cmlp.Network([64, 32, 10], "relu", input_scale=1 / 16, seed=0)
    history = net.fit(X, y, epochs=20, learning_rate=0.1, schedule=name)
    axes[0].plot(history["learning_rate"], label=name)
    axes[1].plot(history["loss"], label=name)
axes[0].set(xlabel="epoch", ylabel="learning rate")
axes[1].set(xlabel="epoch", ylabel="loss", yscale="log")
axes[1].legend()

# %%
# A callback that prints, keeps, and stops:
norms = []


def watch(state):
    norms.append(float((state.network.weights[0] ** 2).sum() ** 0.5))
    state.stop = state.history["loss"][-1] < 0.05


net = cmlp.Network([64, 32, 10], "relu", input_scale=1 / 16, seed=0)
history = net.fit(X, y, epochs=100, learning_rate=0.05, callbacks=[watch])
print(f"ended after {len(norms)} epochs ({history.stopped})")
print(f"norm of the first layer's weights: {norms[0]:.1f} to {norms[-1]:.1f}")
