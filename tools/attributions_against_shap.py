"""Compare cmlp.attributions with SHAP: the rescale rule of every activation that both have.

    PYTHONPATH=src /path/to/python tools/attributions_against_shap.py

in an environment with torch and shap (0.51). A net 30-100-50-3 of each activation, copied to
PyTorch, is explained by ``shap.DeepExplainer`` against 100 rows, in float64 and float32; then
Shapley values of a tanh net of 8 inputs by SHAP's ExactExplainer, for logits and probabilities.
Prints the largest differences, and returns 1 if one is beyond rounding.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import shap
import torch

import cmlp

ACTIVATIONS = {
    "identity": torch.nn.Identity, "relu": torch.nn.ReLU, "tanh": torch.nn.Tanh,
    "logistic": torch.nn.Sigmoid, "leaky_relu": torch.nn.LeakyReLU, "elu": torch.nn.ELU,
    "selu": torch.nn.SELU, "softplus": torch.nn.Softplus,
}  # fmt: skip
"""Those for which DeepExplainer has the rule; of others it takes the gradient, with a warning."""

TOLERANCE = {"float64": 1e-9, "float32": 2e-4}
"""float32: DeepExplainer divides differences from 1e-6 on, which have few digits then."""


def copied(net):
    """Return a network's sums before the softmax, in PyTorch."""
    parts = []
    for W, b, name in zip(net.weights, net.biases, net.activations, strict=True):
        layer = torch.nn.Linear(*W.shape, dtype=torch.from_numpy(W.copy()).dtype)
        with torch.no_grad():
            layer.weight[:], layer.bias[:] = torch.tensor(W.T.copy()), torch.tensor(b.copy())
        parts += [layer] if name == "softmax" else [layer, ACTIVATIONS[name]()]
    return torch.nn.Sequential(*parts)


def against_deep_explainer():
    """Print a line for each activation and dtype; return whether all agree."""
    rng, right = np.random.default_rng(0), True
    X, background = rng.normal(size=(30, 30)), rng.normal(size=(100, 30))
    for name in ACTIVATIONS:
        for dtype, tolerance in TOLERANCE.items():
            net = cmlp.Network([30, 100, 50, 3], name, seed=0, dtype=dtype)
            rows, others = X.astype(dtype), background.astype(dtype)
            explainer = shap.DeepExplainer(copied(net), torch.tensor(others))
            begin = time.perf_counter()
            theirs = explainer.shap_values(torch.tensor(rows), check_additivity=False)
            middle = time.perf_counter()
            ours = cmlp.attributions(net, rows, background=others)
            seconds = time.perf_counter() - middle
            difference = np.abs(theirs - ours.values).max()
            right &= bool(difference <= tolerance)
            print(
                f"{name:11s} {dtype}: largest value {np.abs(theirs).max():.3f}, difference "
                f"{difference:.1e}; {middle - begin:.2f} s by SHAP, {seconds:.3f} s by cmlp",
                flush=True,
            )
    return right


def against_exact_explainer():
    """Print a line for logits and probabilities; return whether both agree."""
    rng, right = np.random.default_rng(1), True
    X, background = rng.normal(size=(10, 8)), rng.normal(size=(30, 8))
    net = cmlp.Network([8, 20, 3], "tanh", seed=0, dtype="float64")
    answers = {"raw": lambda rows: net.forward(rows, return_all=True).z[-1],
               "probability": net.predict}  # fmt: skip
    for output, answer in answers.items():
        explainer = shap.explainers.Exact(answer, shap.maskers.Independent(background))
        theirs = explainer(X, silent=True).values
        how = {"background": background, "method": "shapley", "output": output}
        ours = cmlp.attributions(net, X, **how)
        difference = np.abs(theirs - ours.values).max()
        right &= bool(difference <= 1e-9)
        print(f"exact Shapley values, {output}: difference {difference:.1e}")
        sampled = cmlp.attributions(net, X, n_permutations=300, **how)
        known = sampled.standard_errors > 0
        z = ((sampled.values - theirs)[known] / sampled.standard_errors[known]).std()
        print(f"300 pairs of orders, {output}: deviations are {z:.2f} standard errors")
    return right


if __name__ == "__main__":
    torch.set_num_threads(1)
    right = [against_deep_explainer(), against_exact_explainer()]
    print("cmlp and SHAP", "agree" if all(right) else "DISAGREE")
    sys.exit(not all(right))
