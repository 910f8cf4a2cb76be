"""Draws the picture in the README, docs/plot.png: ``python tools/pictures.py``."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image  # which matplotlib depends on

import cmlp

FILE = Path(__file__).parents[1] / "docs" / "plot.png"


def moons(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return two interleaved arcs of points, with their labels."""
    angle, upper = rng.uniform(0, np.pi, n), np.arange(n) % 2 == 0
    x = np.where(upper, np.cos(angle), 1 - np.cos(angle))
    y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle))
    rows = np.stack([x, y], axis=1) + rng.normal(0, 0.12, (n, 2))
    return rows, np.where(upper, "upper", "lower")


def main() -> None:
    digits = cmlp.load_digits()
    X, X_test = digits.X_train / 16, digits.X_test / 16
    net = cmlp.Network([64, 24, 10], "tanh", seed=0)
    net.fit(X, digits.y_train, epochs=25, learning_rate=0.03, validation_fraction=0.2)
    rows, names = moons(300, np.random.default_rng(0))
    arcs = cmlp.MLPClassifier((32,), learning_rate_init=0.02, max_iter=150, random_state=0)
    arcs.fit(rows, names)

    figure, axes = plt.subplots(2, 2, figsize=(10, 7.4), layout="constrained")
    cmlp.plot.loss_curve(net, ax=axes[0, 0])
    cmlp.plot.confusion_matrix(net, X_test, digits.y_test, ax=axes[0, 1])
    cmlp.plot.first_layer_weights(net, ax=axes[1, 0])
    cmlp.plot.decision_regions(arcs, rows, names, ax=axes[1, 1])
    for ax, name in zip(
        axes.flat,
        ("loss_curve", "confusion_matrix", "first_layer_weights", "decision_regions"),
        strict=True,
    ):
        ax.set_title(name, family="monospace", fontsize="medium", pad=14)
    figure.savefig(FILE, dpi=88)
    # 200 colours are enough, and a third of the bytes.
    Image.open(FILE).convert("RGB").quantize(200).save(FILE, optimize=True)


if __name__ == "__main__":
    main()
