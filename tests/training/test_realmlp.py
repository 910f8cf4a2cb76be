"""Ten steps of RealMLP-TD as pytabkit takes them (``witnesses/make_realmlp.py``), with NumPy.

The steps are written out below in float64, from the table and pytabkit's first weights; losses,
weights, and predictions agree with pytabkit's to the rounding of its float32. So this file states
what RealMLP-TD does; rate and decay of a group, in step t with the scheduled rate lr and decay wd:

    theta *= 1 - rho lr wd,    then Adam with the rate phi lr

==============================================  =====  =====
group                                            phi    rho
==============================================  =====  =====
weights (of the layers), category embedding      1      1
biases                                           0.1    0
scales                                           6      36
alphas; frequencies, phases, mixing, offsets     0.1    0.01
==============================================  =====  =====

pytabkit multiplies twice by a group's factors, hence 36 and 0.01: rho = (phi wd_factor)^2. Weights
have d_in inputs and act as W / sqrt(d_in). With W' = W / sqrt(d_in) stored instead, phi is
1 / sqrt(d_in) and rho is still 1.
"""

import numpy as np
import pytest
from witnesses import make_realmlp as realmlp

STORED = dict(np.load(realmlp.HERE / "realmlp.npz"))
RUNS = [f"{kind} {variant} " for kind, variant in realmlp.RUNS]
PHI_RHO = {
    "weights": (1, 1), "embedding": (1, 1), "biases": (0.1, 0), "scales": (6, 36),
    "alphas": (0.1, 0.01), "frequencies": (0.1, 0.01), "phases": (0.1, 0.01),
    "mixing": (0.1, 0.01), "offsets": (0.1, 0.01),
}  # fmt: skip
N_LAYERS, N_STEPS = 4, 10


def scaled(table):
    """Numbers and one-hot columns around their median, by the training rows, smoothly clipped."""
    binary, several = table["codes"][:, :2].T
    one_hot = several[:, None] == np.arange(1, 6)
    x = np.c_[table["numbers"], np.array([0, 1, -1])[binary], one_hot].astype(float)
    training = np.delete(x, table["validation"], axis=0)
    low, middle, high = np.quantile(training, [0.25, 0.5, 0.75], axis=0)
    distance = high - low
    distance = np.where(distance == 0, np.ptp(training, axis=0) / 2, distance)
    factor = np.divide(1, distance, out=np.zeros_like(distance), where=distance > 0)
    u = factor * (x - middle)
    return u / np.sqrt(1 + (u / 3) ** 2)


def selu(z):
    scale, alpha = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
    negative = scale * alpha * np.exp(np.minimum(z, 0))
    return np.where(z > 0, scale * z, negative - scale * alpha), np.where(z > 0, scale, negative)


def mish(z):
    t = np.tanh(np.logaddexp(0, z))
    return z * t, t + z * (1 - t * t) / (1 + np.exp(-z))


def forward(theta, x, codes, activation, masks, keep):
    """Return the outputs, and what the gradients need."""
    turns = 2 * np.pi * x[:, :4, None] * theta["frequencies"][:, 0] + theta["phases"][:, 0]
    embedded = np.einsum("bik,ikj->bij", np.cos(turns), theta["mixing"]) + theta["offsets"][:, 0]
    front = np.c_[embedded.reshape(len(x), -1), x, theta["embedding"][codes]]
    a, layers = front * theta["scales"], []
    for i in range(N_LAYERS):
        W = theta[f"weights{i}"]
        z = a @ W / np.sqrt(len(W)) + theta[f"biases{i}"]
        f, slope = activation(z) if i < N_LAYERS - 1 else (z, np.ones_like(z))
        layers.append((a, f - z, slope))
        a = z
        if i < N_LAYERS - 1:
            a = (z + theta[f"alphas{i}"] * (f - z)) * masks[i] / keep
    return a, (turns, front, layers)


def gradients(theta, x, codes, delta, masks, keep, kept):
    """Return the gradient of each array, from that of the outputs."""
    turns, front, layers = kept
    found = {}
    for i in reversed(range(N_LAYERS)):
        a, bend, slope = layers[i]
        if i < N_LAYERS - 1:
            delta = delta * masks[i] / keep
            found[f"alphas{i}"] = (delta * bend).sum(axis=0, keepdims=True)
            delta = delta * (1 + theta[f"alphas{i}"] * (slope - 1))
        root = np.sqrt(len(theta[f"weights{i}"]))
        found[f"weights{i}"] = a.T @ delta / root
        found[f"biases{i}"] = delta.sum(axis=0, keepdims=True)
        delta = delta @ theta[f"weights{i}"].T / root
    found["scales"] = (delta * front).sum(axis=0, keepdims=True)
    delta = delta * theta["scales"]
    found["embedding"] = np.zeros_like(theta["embedding"])
    np.add.at(found["embedding"], codes, delta[:, -8:])
    delta = delta[:, :12].reshape(len(x), 4, 3)
    found["mixing"] = np.einsum("bik,bij->ikj", np.cos(turns), delta)
    found["offsets"] = delta.sum(axis=0)[:, None]
    turning = -np.sin(turns) * np.einsum("ikj,bij->bik", theta["mixing"], delta)
    found["phases"] = turning.sum(axis=0)[:, None]
    found["frequencies"] = 2 * np.pi * np.einsum("bi,bik->ik", x[:, :4], turning)[:, None]
    return found


def softmax(z):
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def targets(table, classes):
    """Smoothed labels, or the standardised numbers with their mean and standard deviation."""
    if classes:
        return 0.9 * np.eye(3)[table["labels"]] + 0.1 / 3, None, None
    y = table["y"].astype(float)[:, None]
    training = np.delete(y, table["validation"])
    return (y - training.mean()) / training.std(), training.mean(), training.std()


def schedules(n_steps, dropout, base):
    """Rate, decay, dropout of each step."""
    t = np.arange(n_steps) / n_steps
    coslog4 = (1 - np.cos(2 * np.pi * np.log2(1 + 15 * t))) / 2
    flat_cos = np.where(t < 0.5, 1, (1 + np.cos(np.pi * (2 * t - 1))) / 2)
    return base * coslog4, 0.02 * flat_cos, dropout * flat_cos


def arrays_of(run, flat):
    """Return the arrays of a run by name."""
    shapes = [[int(n) for n in text.split()] for text in STORED[run + "shapes"]]
    parts = np.split(flat, np.cumsum([np.prod(shape) for shape in shapes])[:-1])
    named = zip(STORED[run + "arrays"], parts, shapes, strict=True)
    return {str(name): part.reshape(shape) for name, part, shape in named}


def recipe(run):
    """Return what of TD a run has: rate, decay, dropout of each step, activation, and epsilon."""
    td, classes = " td " in run, "classifier" in run
    rate, decay, dropout = schedules(N_STEPS, 0.15 if td else 0.0, 0.04 if classes else 0.2)
    return rate, decay, dropout, selu if classes else mish, realmlp.EPSILON[run.split()[1]]


def masks_of(run):
    """Return what dropout keeps: for each step, one mask per hidden layer."""
    if " td " not in run:
        return [[1, 1, 1]] * N_STEPS
    shape = N_STEPS, realmlp.BATCH, sum(realmlp.HIDDEN)
    masks = np.unpackbits(STORED[run + "masks"]).reshape(shape)
    return [np.split(mask, np.cumsum(realmlp.HIDDEN)[:-1], axis=1) for mask in masks]


def ten_steps(run):
    """Return the losses, the arrays after every step, and the predictions of all rows."""
    rate, decay, dropout, activation, eps = recipe(run)
    classes, masks = "classifier" in run, masks_of(run)
    x, all_codes = scaled(STORED), STORED["codes"][:, 2]
    all_y, mean, std = targets(STORED, classes)
    theta = {k: a.astype(float) for k, a in arrays_of(run, STORED[run + "values"][0]).items()}
    m, v = ({k: np.zeros_like(a) for k, a in theta.items()} for _ in range(2))
    losses, values = [], [theta]
    for t, rows in enumerate(STORED[run + "rows"]):
        y, codes, keep = all_y[rows], all_codes[rows], 1 - dropout[t]
        z, kept = forward(theta, x[rows], codes, activation, masks[t], keep)
        if classes:
            losses.append(-(y * np.log(softmax(z))).sum(axis=1).mean())
            delta = (softmax(z) - y) / len(y)
        else:
            losses.append(((z - y) ** 2).mean())
            delta = 2 * (z - y) / len(y)
        found = gradients(theta, x[rows], codes, delta, masks[t], keep, kept)
        theta = dict(theta)
        for name, g in found.items():
            phi, rho = PHI_RHO[name.rstrip("0123")]
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.95 * v[name] + 0.05 * g * g
            root = np.sqrt(v[name] / (1 - 0.95 ** (t + 1))) + eps
            step = phi * rate[t] * m[name] / (1 - 0.9 ** (t + 1)) / root
            theta[name] = theta[name] * (1 - rho * rate[t] * decay[t]) - step
        values.append(theta)
    z, _ = forward(theta, x, all_codes, activation, [1, 1, 1], 1)
    if classes:
        return losses, values, softmax(z)
    y = np.delete(STORED["y"], STORED["validation"])
    return losses, values, np.clip(z[:, 0] * std + mean, y.min(), y.max())


LIMIT = np.finfo("float32").eps * np.sqrt(16 + 30) * 2 * N_STEPS
"""As in ``test_witnesses.py``: rounding of a step, with sums over 16 rows and 30 inputs."""


@pytest.mark.parametrize("run", RUNS)
def test_ten_steps_are_pytabkits(run):
    losses, values, predictions = ten_steps(run)
    np.testing.assert_allclose(losses, STORED[run + "loss"], rtol=LIMIT)
    for flat, t in zip(STORED[run + "values"], (0, 1, 2, N_STEPS), strict=True):
        for name, array in arrays_of(run, flat).items():
            largest = max(abs(theta[name]).max() for theta in values)
            np.testing.assert_allclose(values[t][name], array, 0, LIMIT * largest, err_msg=name)
    size = 1 if "classifier" in run else np.ptp(STORED["y"])
    np.testing.assert_allclose(predictions, STORED[run + "predictions"], 0, LIMIT * size)


def test_some_predictions_are_clamped():
    for run in RUNS:
        if "regressor" in run:
            y = np.delete(STORED["y"], STORED["validation"])
            assert np.isin(STORED[run + "predictions"], [y.min(), y.max()]).any()


@pytest.mark.parametrize("run", RUNS)
def test_the_table_is_scaled_as_by_pytabkit(run):
    """In batches; the last short one is left out in each epoch."""
    inputs = STORED[run + "inputs"]
    seen = ~np.isnan(inputs[:, 0])
    assert seen.sum() >= 80 and not seen[STORED["validation"]].any()
    np.testing.assert_allclose(scaled(STORED)[seen], inputs[seen], rtol=1e-6, atol=3e-7)


@pytest.mark.parametrize("run", RUNS)
def test_rates_and_decay_of_the_groups(run):
    rate, decay, dropout, _, _ = recipe(run)
    groups = [PHI_RHO[str(name).rstrip("0123")] for name in STORED[run + "arrays"]]
    phi, rho = np.array(groups).T
    np.testing.assert_allclose(STORED[run + "rates"], np.outer(rate, phi), atol=1e-15)
    np.testing.assert_allclose(STORED[run + "wd"], decay, rtol=1e-12)
    np.testing.assert_allclose(STORED[run + "p"], dropout, rtol=1e-12)
    np.testing.assert_allclose(STORED[run + "factors"][:, 0], phi)
    np.testing.assert_allclose(STORED[run + "factors"].prod(axis=1) ** 2, rho)


@pytest.mark.parametrize("run", RUNS)
def test_the_first_step_changes_nothing(run):
    """Its rate is 0; and in step 2 the moments are those of two steps."""
    before, first, second, _ = STORED[run + "values"]
    assert (before == first).all() and (before != second).mean() > 0.7
