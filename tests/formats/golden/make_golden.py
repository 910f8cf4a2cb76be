"""Model files as an older cmlp wrote them, and what it computed with them.

    python make_golden.py       (with the cmlp whose files are to be kept)

writes those that are not there yet, and golden.json, next to this file. ``test_golden.py`` loads
the files with the cmlp of today. The files stand for those that users have: they are not written
again.

Rows and targets are the same everywhere, without being stored: formulas make them.
"""

import json
from pathlib import Path

import numpy as np

import cmlp

HERE = Path(__file__).parent
FURTHER_EPOCHS = 3


def rows(n, n_in):
    """Return numbers between -1 and 1."""
    return np.sin(1 + 7 * np.arange(n)[:, None] * np.sqrt(2 + np.arange(n_in)))


def classifier_data():
    X = rows(60, 5)
    labels = np.array(["low", "middle", "high"])
    return X, labels[np.digitize(X[:, 0] + X[:, 1], [-0.4, 0.4])]


def regressor_data():
    X = rows(60, 4)
    y = np.stack([X[:, 0], X[:, 1] * X[:, 2], np.cos(3 * X[:, 3])], axis=1)
    y[::7, 1] = y[::5, 2] = np.nan
    return X, y


def slopes_data():
    return rows(60, 4), regressor_data()[1][:, :1] - 0.5


DATA = {"classifier": classifier_data, "regressor": regressor_data, "slopes": slopes_data}
RECIPES = {
    "classifier": {
        "solver": "adam", "learning_rate": 0.02, "batch_size": 16, "dropout": 0.1,
        "validation_fraction": 0.2, "patience": 50,
    },
    "regressor": {"solver": "sgd", "learning_rate": 0.05, "batch_size": 8, "ema": 0.9},
    "slopes": {"solver": "adam", "learning_rate": 0.02, "batch_size": 20},
}  # fmt: skip


def classifier():
    net = cmlp.Network([5, 8, 6, 3], ["relu", "tanh"], seed=1, normalization="batch")
    net.feature_names = ["a", "b", "c", "d", "β"]
    net.target_name = "level"
    return net


def regressor():
    return cmlp.Network(
        [4, 7, 3], "gelu", loss="quantile", quantile=0.3, missing_targets=True, seed=2,
        dtype="float64",
    )  # fmt: skip


def slopes():
    return cmlp.Network(
        [4, 7, 6, 1], ["leaky_relu:0.3", "elu:0.5"], "leaky_relu:0.1", "squared_error", seed=3,
        dtype="float64", normalization="layer", normalization_epsilon=0.01,
    )  # fmt: skip


MAKE = {"classifier": classifier, "regressor": regressor, "slopes": slopes}


def computed(net, name):
    """Return the outputs, loss and score of a network, and the losses of further epochs."""
    X, y = DATA[name]()
    outputs, loss, score = net.predict(X).tolist(), net.loss(X, y), net.score(X, y)
    history = net.fit(X, y, epochs=FURTHER_EPOCHS, **RECIPES[name])
    return {
        "outputs": outputs,
        "loss": loss,
        "score": score,
        "further": {key: history[key] for key in ("loss", "val_loss") if key in history},
        "outputs after them": net.predict(X).tolist(),
    }


def main():
    stored = json.loads((HERE / "golden.json").read_text())
    for name in MAKE.keys() - stored.keys():
        net = MAKE[name]()
        net.fit(*DATA[name](), epochs=12, **RECIPES[name])
        path = HERE / f"{name}.cmlp"
        net.save(path, optimizer=True)
        stored[name] = computed(cmlp.load(path), name)
    lines = [
        f"{json.dumps(name)}: {{\n"
        + ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in each.items())
        + "}"
        for name, each in stored.items()
    ]
    (HERE / "golden.json").write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main()
