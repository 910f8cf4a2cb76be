"""Ten training steps of RealMLP-TD as pytabkit takes them: a witness from outside.

    /path/to/python make_realmlp.py         (an environment with torch and pytabkit 1.7.3)

writes realmlp.npz next to this file. ``test_realmlp.py`` takes the same steps with NumPy.

The code that trains is pytabkit's own: ``RealMLP_TD_Classifier().fit`` and ``RealMLP_TD_Regressor
().fit`` on a table of mixed columns, with TD's hyperparameters except for the widths (`HIDDEN`),
the batch (16 rows), and the epochs (two of five batches). What passes through its functions is
recorded. There are three variants: "td" has TD's dropout and epsilon; "plain" has no dropout, whose
masks another generator cannot draw, and an epsilon of 1e-30, which is the same wherever a library
adds it; "epsilon" has a large one, which shows where pytabkit adds it.

The file has, once: the table (`numbers`; `codes`, 0 is missing), `labels`, `y`, and the rows of the
`validation` part. For each run, its names begin with "classifier td ", "regressor plain ", ...:

rows          the 16 rows of each step
arrays        names of the trained arrays, their `shapes`, and their lr and wd `factors`
values        all of them, flat and in this order, after 0, 1, 2, and 10 steps
lr, wd, p     rate, decay, and dropout of each step, before the factors
rates         the rate that torch's Adam had for each array in each step
loss          of each step, before its update
masks         what dropout kept, packed to bits: step, row, and neuron of all hidden layers
inputs        scaled numbers and one-hot columns of each row (NaN for a row that was in no batch)
predictions   of all rows after ten steps: probabilities, or numbers
"""

import contextlib
from pathlib import Path
from unittest import mock

import numpy as np

HERE = Path(__file__).parent
HIDDEN = [16, 12, 8]
N_ROWS, N_VALIDATION, BATCH, EPOCHS = 104, 20, 16, 2
LEVELS = (2, 5, 12)
RUNS = (("classifier", "td"), ("classifier", "plain"),
        ("regressor", "td"), ("regressor", "plain"), ("regressor", "epsilon"))  # fmt: skip
EPSILON = {"td": 1e-8, "plain": 1e-30, "epsilon": 1e-3}
NAMES = {
    "tfms/emb": "embedding", "plr/weight_1": "frequencies", "plr/bias_1": "phases",
    "plr/weight_2": "mixing", "plr/bias_2": "offsets", "scale": "scales",
    "weight": "weights", "bias": "biases", "act": "alphas",
}  # fmt: skip
"""The end of a scope in pytabkit, and the name here; those of layers get a number."""


def table():
    """Numbers of four kinds, three categories with gaps, and both targets."""
    rng = np.random.RandomState(7)
    numbers = rng.randn(N_ROWS, 4)
    numbers[:, 1] = np.exp(2 * numbers[:, 1])  # a long tail, which is clipped
    numbers[:, 2] *= rng.rand(N_ROWS) < 0.2  # no distance between its quartiles
    numbers[:, 3] = 5.0  # constant
    numbers = numbers.astype(np.float32)
    codes = np.stack([rng.randint(1, n + 1, N_ROWS) for n in LEVELS], axis=1)
    for column in range(len(LEVELS)):
        codes[rng.randint(0, N_ROWS, 5), column] = 0
    level = rng.randn(1 + max(LEVELS))[codes[:, 2]]
    y = numbers[:, 0] + level - codes[:, 0] + 0.3 * rng.randn(N_ROWS)
    y = 30 + 4 * np.tanh(2 * y)  # many at both ends, which clamp the predictions
    labels = np.digitize(numbers[:, 0] + level, [-0.6, 0.6])
    return numbers, codes, labels, y.astype(np.float32)


def name_of(parameter):
    """Return the name here of an array of pytabkit's."""
    scope = str(parameter.context.scope)
    ending = next(ending for ending in NAMES if scope.endswith(ending))
    layer = scope.split("layer-")[1][0] if "layer-" in scope and ending != "scale" else ""
    return NAMES[ending] + layer


class Recorder:
    """What passes through pytabkit's functions while it fits."""

    def __init__(self):
        self.rows, self.values, self.rates, self.masks, self.loss = [], [], [], [], []
        self.hyper = {"lr": [], "wd": [], "p": []}
        self.inputs = {}
        self.training = False
        self.parameters = []

    def flat(self):
        arrays = [p.detach().numpy()[0].ravel() for p in self.parameters]
        return np.concatenate(arrays).astype(np.float32)

    def start(self, module):
        """Take note of the arrays, before the first step."""
        self.parameters = list(module.model.parameters())
        self.values.append(self.flat())
        self.shapes = [tuple(p.shape[1:]) for p in self.parameters]
        self.arrays = [name_of(p) for p in self.parameters]
        self.factors = [[p.hyper_factors.get(key, 1.0) for key in ("lr", "wd")]
                        for p in self.parameters]  # fmt: skip

    @contextlib.contextmanager
    def listening(self):
        """Record for the time of a fit."""
        from pytabkit.models.data.data import DictDataset
        from pytabkit.models.nn_models import nn
        from pytabkit.models.optim.optimizers import OptimizerBase
        from pytabkit.models.training.lightning_modules import TabNNModule

        owners = [
            (TabNNModule, "training_step", self.step),
            (OptimizerBase, "_opt_step_with_loss", self.update),
            (nn.ScaleLayer, "forward_cont", self.scale),
            (nn.F, "dropout", self.dropout),
            (DictDataset, "get_batch", self.get_batch),
        ]
        with contextlib.ExitStack() as stack:
            for owner, name, method in owners:
                original = getattr(owner, name)
                replaced = self.wrapped(original, method)
                stack.enter_context(mock.patch.object(owner, name, replaced))
            yield

    @staticmethod
    def wrapped(original, method):
        return lambda *args, **kwargs: method(original, *args, **kwargs)

    def get_batch(self, original, dataset, idxs):
        if idxs.shape[-1] == BATCH:  # the validation part has more rows
            self.rows.append(idxs[0].numpy().copy())
        return original(dataset, idxs)

    def step(self, original, module, batch, batch_idx):
        if not self.parameters:
            self.start(module)
        self.training = True
        loss = original(module, batch, batch_idx)
        self.training = False
        self.loss.append(loss.item())
        self.values.append(self.flat())
        return loss

    def scale(self, original, layer, x):
        if self.training:
            # The front's numbers and one-hot columns: not the periodic terms, not the embedding.
            first, last = 3 * 4, 3 * 4 + 4 + 1 + LEVELS[1]
            row = self.rows[len(self.loss)]
            self.inputs.update(
                zip(row.tolist(), x[0, :, first:last].numpy(force=True), strict=True)
            )
        return original(layer, x)

    def dropout(self, original, x, p, training):
        result = original(x, p, training=training)
        if self.training:
            assert training and bool((x != 0).all())
            self.masks.append((result != 0).numpy()[0])
        return result

    def update(self, original, optimizer, loss):
        groups = optimizer.opt.param_groups
        assert all(g["params"][0] is p for g, p in zip(groups, self.parameters, strict=True))
        for name in ("lr", "wd"):
            self.hyper[name].append(optimizer.get_hyper_values(name, 0, use_hyper_factor=False))
        p_drop = optimizer.hp_manager.register_hyper("p_drop", self.parameters[0].context.scope)
        self.hyper["p"].append(p_drop())
        self.rates.append([group["lr"] for group in groups])
        assert all(group["betas"] == (0.9, 0.95) for group in groups)
        return original(optimizer, loss)


def run(kind, variant):
    """One fit of pytabkit's; returns its numbers by name."""
    import pandas as pd
    import torch
    from pytabkit import RealMLP_TD_Classifier, RealMLP_TD_Regressor

    torch.set_num_threads(1)
    numbers, codes, labels, y = table()
    columns = {f"n{i}": numbers[:, i] for i in range(numbers.shape[1])}
    for i in range(len(LEVELS)):
        levels = np.array([None, *"abcdefghijkl"], dtype=object)
        columns[f"c{i}"] = levels[codes[:, i]]
    X = pd.DataFrame(columns)
    base = RealMLP_TD_Classifier if kind == "classifier" else RealMLP_TD_Regressor

    class Last(base):
        """Keep the last weights instead of the best: there is no parameter for it."""

        def _get_default_params(self):
            return super()._get_default_params() | {"use_best_epoch": False}

        __name__ = base.__name__

    other = {} if variant == "td" else {"p_drop": 0.0, "opt_eps": EPSILON[variant]}
    model = Last(device="cpu", n_threads=1, random_state=3, n_epochs=EPOCHS, batch_size=BATCH,
                 hidden_sizes=HIDDEN, **other)  # fmt: skip
    recorder = Recorder()
    with recorder.listening():
        model.fit(X, labels if kind == "classifier" else y, val_idxs=validation())
    predictions = model.predict_proba(X) if kind == "classifier" else model.predict(X)
    n_steps = EPOCHS * ((N_ROWS - N_VALIDATION) // BATCH)
    rows = np.array(recorder.rows)
    assert rows.shape == (n_steps, BATCH) and len(recorder.loss) == n_steps
    assert not np.isin(rows, validation()).any()
    inputs = np.full((N_ROWS, 4 + 1 + LEVELS[1]), np.nan, dtype=np.float32)
    for row, values in recorder.inputs.items():
        inputs[row] = values
    found = {
        "rows": rows.astype(np.int16), "arrays": np.array(recorder.arrays),
        "shapes": np.array([" ".join(map(str, shape)) for shape in recorder.shapes]),
        "factors": np.array(recorder.factors), "loss": np.array(recorder.loss, dtype=np.float32),
        "values": np.array([recorder.values[i] for i in (0, 1, 2, n_steps)]),
        "rates": np.array(recorder.rates, dtype=np.float64), "inputs": inputs,
        "predictions": np.asarray(predictions, dtype=np.float32),
    }  # fmt: skip
    found |= {name: np.array(values, np.float64) for name, values in recorder.hyper.items()}
    if variant == "td":
        masks = [np.concatenate(recorder.masks[i : i + 3], axis=1)
                 for i in range(0, 3 * n_steps, 3)]  # fmt: skip
        found["masks"] = np.packbits(np.array(masks))
    return {f"{kind} {variant} {name}": array for name, array in found.items()}


def validation():
    """The rows of the validation part."""
    return np.arange(N_ROWS - N_VALIDATION, N_ROWS)


def main():
    from importlib.metadata import version

    numbers, codes, labels, y = table()
    stored = {"numbers": numbers, "codes": codes.astype(np.int8), "labels": labels.astype(np.int8),
              "y": y, "validation": validation().astype(np.int16),
              "made by": np.array([f"{name} {version(name)}" for name in ("pytabkit", "torch")]),
              }  # fmt: skip
    for kind, variant in RUNS:
        stored |= run(kind, variant)
    np.savez_compressed(HERE / "realmlp.npz", **stored)


if __name__ == "__main__":
    main()
