"""
Next to scikit-learn
====================

The same constructor, the same data, the same random state: the loss curves lie on each other, and
the times do not.
"""

import time

import matplotlib.pyplot as plt
from sklearn.neural_network import MLPClassifier

import cmlp

digits = cmlp.load_digits()
X, y = digits.X_train / 16, digits.y_train

figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
for name, make, style in (
    ("scikit-learn", MLPClassifier, "-"),
    ("cmlp", cmlp.MLPClassifier, "--"),
):
    more = {"dtype": "float64"} if name == "cmlp" else {}
    model = make((64,), max_iter=40, tol=0, n_iter_no_change=99, random_state=0, **more)
    start = time.perf_counter()
    with __import__("warnings").catch_warnings(action="ignore"):
        model.fit(X, y)
    seconds = time.perf_counter() - start
    score = model.score(digits.X_test / 16, digits.y_test)
    ax.plot(model.loss_curve_, style, lw=2, label=f"{name}: {seconds:.2f} s, accuracy {score:.3f}")
ax.set(xlabel="epoch", ylabel="loss", yscale="log")
ax.legend()
