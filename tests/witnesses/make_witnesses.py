"""Ten training losses of some nets, from PyTorch and scikit-learn: witnesses from outside.

    /path/to/python make_witnesses.py       (an environment with torch and scikit-learn)

writes witnesses.json next to this file. ``test_witnesses.py`` trains the same nets with cmlp and
compares; where the libraries are installed it also runs them again, with the functions below.

Data and first weights are the same everywhere, without being stored: ``numbers`` makes them from
the raw 64-bit output of PCG64, which NumPy keeps stable (NEP 19).

Conventions. cmlp's squared error is ``sum over outputs (a - y)^2 / 2``, mean over rows; its l2
adds ``l2/2 sum W^2`` over the weights, not the biases; its Adam adds epsilon to ``sqrt(v)`` before
the bias is corrected (Kingma & Ba 2015, end of section 2), as scikit-learn and Keras do. PyTorch
adds it afterwards: epsilon is 1e-30 there. PyTorch's clip_grad_norm_ adds 1e-6 to the norm, so the
clipping is written out.
"""

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
STEPS = 10
TINY = 1e-30


def case(library, sizes, hidden, loss, rows=24, normalization=None, **recipe):
    """One training: `recipe` is that of ``Network.fit``."""
    recipe = {"learning_rate": 0.1, "momentum": 0.0} | recipe
    words = [library, *map(str, sizes), hidden, loss]
    words += [normalization] * (normalization is not None)
    words += [f"{name}={value}" for name, value in recipe.items()]
    return {"name": " ".join(words), "library": library, "sizes": sizes, "hidden": hidden,
            "loss": loss, "rows": rows, "normalization": normalization,
            "recipe": recipe}  # fmt: skip


def torch_cases():
    cce, bce, mse = "categorical_crossentropy", "binary_crossentropy", "squared_error"
    sgd = {"momentum": 0.9}
    nesterov = {"momentum": 0.9, "nesterov": True}
    adam = {"solver": "adam", "learning_rate": 0.02, "epsilon": TINY}
    adamw = {"solver": "adamw", "learning_rate": 0.02, "epsilon": TINY, "weight_decay": 0.1}
    rmsprop = {"solver": "rmsprop", "learning_rate": 0.01, "beta_2": 0.9, "epsilon": 1e-8}
    for hidden in ("relu", "tanh", "logistic", "gelu", "silu", "mish", "elu", "selu", "softplus",
                   "leaky_relu", "hard_sigmoid"):  # fmt: skip
        yield case("torch", [5, 17, 9, 4], hidden, cce, **sgd)
    for loss in (bce, mse, "huber", "absolute_error", "poisson"):
        yield case("torch", [5, 16, 3], "tanh", loss)
        yield case("torch", [5, 33, 3], "silu", loss, **adam)
    for recipe in (sgd, nesterov, adam, adamw, rmsprop):
        yield case("torch", [7, 15, 4], "tanh", cce, **recipe)
        yield case("torch", [7, 31, 2], "gelu", mse, batch_size=7, l2=0.01, **recipe)
        yield case("torch", [7, 9, 4], "logistic", bce, batch_size=5, clip_norm=0.1, **recipe)
    yield case("torch", [4, 3], "relu", cce, l2=0.05)
    for kind in ("batch", "layer"):
        yield case("torch", [7, 15, 9, 4], "tanh", cce, normalization=kind, **adam)
        yield case("torch", [7, 31, 2], "gelu", mse, normalization=kind, batch_size=6, **sgd)
    nadam = {"solver": "nadam", "learning_rate": 0.02, "epsilon": TINY}
    yield case("torch", [7, 15, 4], "tanh", cce, **nadam)
    yield case("torch", [7, 31, 2], "gelu", mse, batch_size=2, l2=0.01, **nadam)
    yield case("torch", [7, 9, 4], "logistic", bce, batch_size=5, clip_norm=0.1, **nadam)


def sklearn_cases():
    solvers = (
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"solver": "adam", "learning_rate": 0.02},
    )
    for number, recipe in enumerate(solvers):
        hidden = ("relu", "tanh", "logistic", "tanh")[number]
        yield case("sklearn", [5, 17, 4], hidden, "categorical_crossentropy", **recipe)
        yield case("sklearn", [5, 16, 7, 1], hidden, "binary_crossentropy", l2=0.02, **recipe)
        yield case("sklearn", [5, 33, 1], hidden, "squared_error", l2=0.01, **recipe)


def cases():
    return [*torch_cases(), *sklearn_cases()]


def numbers(seed, shape):
    """Uniform numbers in [-1, 1), the same with every NumPy; exact in float32."""
    raw = np.random.PCG64(seed).random_raw(int(np.prod(shape)))
    return ((raw >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1).reshape(shape)


def weights(case):
    """First weights and biases; each is a float32, so that all dtypes start at one point."""
    pairs = list(zip(case["sizes"], case["sizes"][1:], strict=False))
    found = [numbers(10 + i, pair) * np.sqrt(2 / pair[0]) for i, pair in enumerate(pairs)]
    biases = [0.3 * numbers(20 + i, pair[1]) for i, pair in enumerate(pairs)]
    return [[a.astype(np.float32).astype(np.float64) for a in part] for part in (found, biases)]


def data(case):
    """X, and targets: class numbers, or one number per output."""
    X = numbers(1, (case["rows"], case["sizes"][0]))
    n_out = case["sizes"][-1]
    signal = np.sin(3 * X @ numbers(2, (case["sizes"][0], n_out)))
    if case["loss"] == "categorical_crossentropy":
        return X, signal.argmax(axis=1)
    if case["loss"] == "binary_crossentropy":
        return X, (signal > 0).astype(np.float64)
    if case["loss"] == "poisson":
        return X, np.floor(1.5 + 1.5 * signal)
    return X, signal.astype(np.float32).astype(np.float64)


def batches(case):
    """Slices of the rows, in order."""
    size = case["recipe"].get("batch_size", case["rows"])
    return [slice(start, start + size) for start in range(0, case["rows"], size)]


def torch_losses(case):
    """Mean loss of each of ten epochs in PyTorch, float64."""
    import torch
    from torch.nn import functional as F

    torch.set_default_dtype(torch.float64)  # in which NAdam keeps the product of its momenta
    recipe = case["recipe"]
    Ws, bs = ([torch.tensor(a, requires_grad=True) for a in part] for part in weights(case))
    X, y = map(torch.tensor, data(case))
    other = {  # F.hardsigmoid has 1/6 in single precision
        "logistic": torch.sigmoid,
        "hard_sigmoid": lambda z: F.relu6(z + 3) / 6,
    }
    activate = other.get(case["hidden"]) or getattr(F, case["hidden"])
    decay, rate = recipe.get("weight_decay", 0.0), recipe["learning_rate"]
    gammas = [torch.ones(n, requires_grad=True) for n in case["sizes"][1:-1]]
    rest = bs + gammas if case["normalization"] else bs
    groups = [{"params": Ws, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
    solver = recipe.get("solver", "sgd")
    if solver == "sgd":
        rule = torch.optim.SGD(groups, rate, recipe["momentum"], nesterov="nesterov" in recipe)
    elif solver == "rmsprop":
        rule = torch.optim.RMSprop(groups, rate, recipe["beta_2"], recipe["epsilon"])
    else:
        names = {"adam": "Adam", "adamw": "AdamW", "nadam": "NAdam"}
        rule = getattr(torch.optim, names[solver])(groups, rate, eps=recipe["epsilon"])

    def cost(z, y):
        if case["loss"] == "categorical_crossentropy":
            return F.cross_entropy(z, y)
        if case["loss"] == "binary_crossentropy":
            rows = F.binary_cross_entropy_with_logits(z, y, reduction="none")
        elif case["loss"] == "poisson":  # what PyTorch leaves out does not depend on z
            rows = F.poisson_nll_loss(z, y, reduction="none") - y + torch.xlogy(y, y)
        elif case["loss"] == "squared_error":
            rows = F.mse_loss(z, y, reduction="none") / 2
        elif case["loss"] == "huber":
            rows = F.huber_loss(z, y, reduction="none")
        else:
            rows = F.l1_loss(z, y, reduction="none")
        return rows.sum(dim=1).mean()

    losses = []
    for _ in range(STEPS):
        total = 0.0
        for part in batches(case):
            a = X[part]
            for number, (W, b) in enumerate(zip(Ws, bs, strict=True), 1):
                hidden = number < len(Ws)
                if hidden and case["normalization"] == "batch":
                    a = F.batch_norm(a @ W, None, None, gammas[number - 1], b, training=True)
                elif hidden and case["normalization"] == "layer":
                    a = F.layer_norm(a @ W, b.shape, gammas[number - 1], b)
                else:
                    a = a @ W + b
                a = activate(a) if hidden else a
            loss = cost(a, y[part])
            loss = loss + recipe.get("l2", 0.0) / 2 * sum((W**2).sum() for W in Ws)
            rule.zero_grad()
            loss.backward()
            if "clip_norm" in recipe:
                grads = [p.grad for p in (*Ws, *bs)]
                norm = torch.sqrt(sum((g**2).sum() for g in grads))
                for g in grads:
                    g.mul_(min(1.0, recipe["clip_norm"] / float(norm)))
            rule.step()
            total += float(loss.detach()) * len(X[part])
        losses.append(total / len(X))
    return losses


def sklearn_losses(case):
    """Mean loss of each of ten epochs in scikit-learn's MLPClassifier or MLPRegressor, float64."""
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    recipe, (X, y) = case["recipe"], data(case)
    make = MLPRegressor if case["loss"] == "squared_error" else MLPClassifier
    net = make(
        hidden_layer_sizes=case["sizes"][1:-1], activation=case["hidden"],
        solver=recipe.get("solver", "sgd"),
        alpha=recipe.get("l2", 0.0) * len(X), batch_size=len(X), momentum=recipe["momentum"],
        learning_rate_init=recipe["learning_rate"], shuffle=False,
        nesterovs_momentum=recipe.get("nesterov", False),
    )  # fmt: skip
    known = {} if make is MLPRegressor else {"classes": np.unique(y)}
    y = y if y.ndim == 1 else y[:, 0]
    net.partial_fit(X, y, **known)  # makes the arrays; then it starts afresh from our weights
    for mine, theirs in zip(weights(case), (net.coefs_, net.intercepts_), strict=True):
        for source, target in zip(mine, theirs, strict=True):
            target[...] = source
    del net._optimizer
    losses = []
    for _ in range(STEPS):
        net.partial_fit(X, y)
        losses.append(float(net.loss_))
    return losses


LIVE = {"torch": torch_losses, "sklearn": sklearn_losses}


def main():
    import sklearn
    import torch

    made_by = {"torch": torch.__version__.split("+")[0], "sklearn": sklearn.__version__}
    losses = {case["name"]: LIVE[case["library"]](case) for case in cases()}
    lines = [f"{json.dumps(name)}: {json.dumps(values)}" for name, values in losses.items()]
    text = ",\n".join([f'{{"made by": {json.dumps(made_by)}', *lines]) + "}\n"
    (HERE / "witnesses.json").write_text(text)


if __name__ == "__main__":
    main()
