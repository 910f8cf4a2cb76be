"""
Digits, and those that are read wrongly
=======================================

A network of one hidden layer reads handwritten digits by people whose hands it has not seen. Which
ones does it misread, and how sure was it?
"""

import matplotlib.pyplot as plt
import numpy as np

import cmlp

digits = cmlp.load_digits()
net = cmlp.Network([64, 64, 10], "relu", input_scale=1 / 16, seed=0)
net.fit(digits.X_train, digits.y_train, epochs=30, learning_rate=0.05, weight_decay=1e-3)
print(f"{net.score(digits.X_test, digits.y_test):.1%} are read right")

# %%
# The rows of the table are the digits, its columns what they were read as.
cmlp.plot.confusion_matrix(net, digits.X_test, digits.y_test)

# %%
# The wrong answers that the network was surest of:
p = net.predict(digits.X_test)
read = p.argmax(axis=1)
wrong = np.flatnonzero(read != digits.y_test)
surest = wrong[np.argsort(-p[wrong].max(axis=1))][:12]
figure, axes = plt.subplots(2, 6, figsize=(8, 3.4), layout="constrained")
for ax, n in zip(axes.flat, surest, strict=False):
    ax.imshow(digits.X_test[n].reshape(8, 8), cmap="Greys")
    ax.set_title(f"{digits.y_test[n]}, read {read[n]} ({p[n].max():.0%})", fontsize=8)
    ax.axis("off")
