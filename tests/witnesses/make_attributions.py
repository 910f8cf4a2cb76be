"""SHAP's DeepExplainer on small PyTorch nets: witnesses of cmlp.attributions from outside.

    /path/to/python make_attributions.py         (an environment with torch and shap 0.51)

writes attributions.npz next to this file: `X` and `background`, and for each activation, "relu" and
"tanh", the weights `relu W0`, biases `relu b0`, ... of a net 6-12-8-3 in float64, and the values
that DeepExplainer has for its three outputs, `relu values`, (rows, features, outputs). `exact` are
those of SHAP's ExactExplainer for the softmax of the net with tanh.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SIZES = (6, 12, 8, 3)


def main():
    import shap
    import torch

    torch.set_default_dtype(torch.float64)
    rng = np.random.default_rng(17)
    X, background = rng.normal(size=(20, SIZES[0])), 0.5 + rng.normal(size=(11, SIZES[0]))
    arrays = {"X": X, "background": background}
    for name, activation in (("relu", torch.nn.ReLU), ("tanh", torch.nn.Tanh)):
        parts = []
        for number, (n_in, n_out) in enumerate(pairwise(SIZES)):
            layer = torch.nn.Linear(n_in, n_out)
            W, b = rng.normal(size=(n_in, n_out)) / n_in**0.5, 0.3 * rng.normal(size=n_out)
            with torch.no_grad():
                layer.weight[:], layer.bias[:] = torch.tensor(W.T), torch.tensor(b)
            arrays[f"{name} W{number}"], arrays[f"{name} b{number}"] = W, b
            parts += [layer, activation()]
        net = torch.nn.Sequential(*parts[:-1])
        explainer = shap.DeepExplainer(net, torch.tensor(background))
        arrays[f"{name} values"] = explainer.shap_values(torch.tensor(X))

    def probabilities(rows):
        with torch.no_grad():
            return torch.softmax(net(torch.tensor(rows)), dim=1).numpy()

    exact = shap.explainers.Exact(probabilities, shap.maskers.Independent(background))
    arrays["exact"] = exact(X).values
    np.savez_compressed(HERE / "attributions.npz", **arrays)


if __name__ == "__main__":
    main()
