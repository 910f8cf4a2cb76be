"""Text of the Python files that leave: the arithmetic, with NumPy and without.

The formulas with NumPy are those of the twin, operation by operation, so that a file computes the
same bits; those without compute in float64.
"""

from __future__ import annotations

NUMPY_ACTIVATIONS = {
    "identity": "def _identity(z):\n    return z.copy()",
    "logistic": (
        "def _logistic(z):\n    e = np.exp(-np.abs(z))\n    return np.where(z >= 0, 1, e) / (1 + e)"
    ),
    "tanh": "def _tanh(z):\n    return np.tanh(z)",
    "relu": "def _relu(z):\n    return np.maximum(z, 0)",
    "leaky_relu": "def _leaky_relu(z):\n    return np.where(z > 0, z, @ * z)",
    "elu": "def _elu(z):\n    return np.where(z > 0, z, @ * np.expm1(np.minimum(z, 0)))",
    "selu": (
        "def _selu(z):\n"
        "    scale, alpha = 1.0507009873554805, 1.6732632423543772\n"
        "    return np.where(z > 0, scale * z, scale * alpha * np.expm1(np.minimum(z, 0)))"
    ),
    "gelu": (
        "def _gelu(z):\n"
        "    phi = np.frompyfunc(lambda z: 0.5 * math.erfc(-z / math.sqrt(2.0)), 1, 1)\n"
        "    return _bounded(z) * np.asarray(phi(z), dtype=z.dtype)"
    ),
    "silu": "def _silu(z):\n    return _bounded(z) * _logistic(z)",
    "mish": "def _mish(z):\n    return _bounded(z) * np.tanh(_softplus(z))",
    "softplus": ("def _softplus(z):\n    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))"),
    "hard_sigmoid": "def _hard_sigmoid(z):\n    return np.clip(z / 6 + 0.5, 0, 1)",
    "exp": "def _exp(z):\n    return np.exp(z)",
    "softmax": (
        "def _softmax(z):\n"
        "    e = np.exp(z - z.max(axis=-1, keepdims=True))\n"
        "    return e / e.sum(axis=-1, keepdims=True)"
    ),
}
"""A function of a matrix of sums, ``_name``, for each activation; @ is its parameter."""

PURE_ACTIVATIONS = {
    "identity": "def _identity(z):\n    return z",
    "logistic": (
        "def _logistic(z):\n"
        "    e = math.exp(-abs(z))\n"
        "    return (1.0 if z >= 0 else e) / (1.0 + e)"
    ),
    "tanh": "def _tanh(z):\n    return math.tanh(z)",
    "relu": "def _relu(z):\n    return z if z > 0 else 0.0",
    "leaky_relu": "def _leaky_relu(z):\n    return z if z > 0 else @ * z",
    "elu": "def _elu(z):\n    return z if z > 0 else @ * math.expm1(z)",
    "selu": (
        "def _selu(z):\n"
        "    scale, alpha = 1.0507009873554805, 1.6732632423543772\n"
        "    return scale * z if z > 0 else scale * alpha * math.expm1(z)"
    ),
    "gelu": ("def _gelu(z):\n    return max(z, -1e308) * 0.5 * math.erfc(-z / 1.4142135623730951)"),
    "silu": "def _silu(z):\n    return max(z, -1e308) * _logistic(z)",
    "mish": "def _mish(z):\n    return max(z, -1e308) * math.tanh(_softplus(z))",
    "softplus": (  # some Pythons of microcontrollers have no log1p
        "def _softplus(z):\n"
        "    e = math.exp(-abs(z))\n"
        "    u = 1.0 + e\n"
        "    return max(z, 0.0) + (math.log(u) * e / (u - 1.0) if u > 1.0 else e)"
    ),
    "hard_sigmoid": "def _hard_sigmoid(z):\n    return min(max(z / 6 + 0.5, 0.0), 1.0)",
    "exp": "def _exp(z):\n    return math.exp(z) if z < 709.0 else math.inf",
    "softmax": (
        "def _softmax(z):\n"
        "    top = max(z)\n"
        "    e = [math.exp(each - top) for each in z]\n"
        "    total = sum(e)\n"
        "    return [each / total for each in e]"
    ),
}
"""The same of one number; of softmax, of a row."""

NEEDS = {"silu": ("logistic",), "mish": ("softplus",)}
"""Activations whose text calls others."""

BOUNDED = """\
def _bounded(z):
    return np.clip(z, np.finfo(z.dtype).min, np.inf)"""

# With NumPy --------------------------------------------------------------------------------------

NUMPY_TAKE = '''\
_at = [0]


def _take(code, *shape):
    """Return the next array of the data, its rows padded to 64 bytes."""
    dtype, n = np.dtype("<" + code), int(np.prod(shape))
    flat = np.frombuffer(_data, dtype, n, _at[0])
    _at[0] += n * dtype.itemsize
    each, width = 64 // dtype.itemsize, shape[-1]
    padded = np.zeros(shape[:-1] + (-(-width // each) * each,), dtype.newbyteorder("="))
    padded[..., :width] = flat.reshape(shape)
    return padded[..., :width]'''

NUMPY_FRONT = '''\
def _expand(front, x):
    """Return the first layer's inputs, and what is added to its sums, or None."""
    values, sums = [], None
    for kind, first, count, arrays in front:
        columns = x[:, first : first + count]
        if kind == "plain":
            values.append(columns)
        elif kind == "periodic":
            w, b, V, d = arrays
            u = x.dtype.type(2 * math.pi) * (columns[:, :, None] * w) + b
            e = np.einsum("nck,cjk->ncj", np.cos(u), V) + d
            values.append(np.concatenate([e, columns[:, :, None]], axis=2).reshape(len(x), -1))
        elif kind == "table":
            values.append(_between(arrays[0], columns[:, 0]))
        else:
            rows = _between(arrays[0], columns[:, 0])
            sums = rows if sums is None else sums + rows
    return np.concatenate(values, axis=1) if values else np.zeros((len(x), 1), x.dtype), sums


def _between(E, x):
    """Return a row of a table for each whole number, a place between two rows for others."""
    x = np.minimum(np.where(x > 0, x, x.dtype.type(0)), x.dtype.type(len(E) - 1))
    c = x.astype(np.int64)
    f = x - c.astype(x.dtype)
    values = (1 - f)[:, None] * E[c]
    between = f > 0
    values[between] += f[between, None] * E[c[between] + 1]
    return values'''

NUMPY_RUN = '''\
def _run(member, x, raw=False):
    """Return the outputs of a network; raw: before the last activation."""
    front, steps, _ = member
    a, sums = _expand(front, x) if front else (x, None)
    for number, step in enumerate(steps):
        if step[0] == "affine":
            z = a @ step[1]
            if number == 0 and sums is not None:
                z = z + sums
            a = z if step[2] is None else z + step[2]
        elif step[0] == "norm":
            mean, variance = a.mean(1, keepdims=True), a.var(1, keepdims=True)
            inverse = 1 / np.sqrt(variance + a.dtype.type(step[3]))
            a = step[1] * ((a - mean) * inverse) + step[2]
        elif not (raw and number == len(steps) - 1):
            f = np.asarray(step[1](a), dtype=a.dtype)
            a = f if step[2] is None else a + step[2] * (f - a)
    return a'''

NUMPY_INPUTS = """\
def _inputs(X):
    x = np.asarray(X)
    if x.ndim != 2 or x.shape[1] != N_INPUTS:
        raise ValueError("X must be (n, %d); its shape is %s" % (N_INPUTS, x.shape))
    return _finite(x if _MEAN is None else x - _MEAN)"""

NUMPY_FINITE = """\
def _finite(x):
    with np.errstate(all="ignore"):
        x = np.asarray(x, _DTYPE)
    if not np.isfinite(x).all():
        raise ValueError("X holds NaN, infinity, or a number too large for %s" % _DTYPE)
    return x"""

NUMPY_ENCODED = """\
def _inputs(rows):
    if hasattr(rows, "to_dict"):  # a data frame
        rows = rows.to_dict("records")
    return _finite(np.array([_encode(row) for row in rows], np.float64).reshape(len(rows), -1))"""

NUMPY_OUTPUTS = '''\
def outputs(X):
    """Return the outputs of rows, (n, N_OUTPUTS)@MEAN@."""
    x = _inputs(X)
    with np.errstate(all="ignore"):
        parts = [
            np.concatenate(
                [_answer(member, x[i : i + 1024]) for i in range(0, max(len(x), 1), 1024)]
            )
            for member in _MEMBERS
        ]
        total = parts[0].copy()
        for part in parts[1:]:
            total += part
        if len(parts) > 1:
            total /= len(parts)
    return total'''

NUMPY_ANSWERS = {
    "plain": "def _answer(member, x):\n    return _run(member, x)",
    "softmax": (
        "def _answer(member, x):\n"
        "    p = _run(member, x).astype(np.float64)[:, : len(CLASSES)]\n"
        "    p /= np.add.reduce(p, axis=1, keepdims=True)\n"
        "    return p"
    ),
    "labels": (
        "def _answer(member, x):\n"
        "    return 1 / (1 + np.exp(-_run(member, x, True).astype(np.float64)))"
    ),
    "unit": (
        "def _answer(member, x):\n"
        "    y, (spread, centre, low, high) = _run(member, x).astype(np.float64), member[2]\n"
        "    y *= spread\n"
        "    y += centre\n"
        "    return np.clip(y, low, high, out=y)"
    ),
}
"""What a member's outputs become before the mean."""

NUMPY_PROBABILITIES = {
    "wide": "    return outputs(X)",
    "both": (
        "    out = outputs(X)\n"
        '    single = getattr(X, "dtype", None) == np.float32\n'
        "    both = np.empty((len(out), 2), out.dtype if single else np.float64)\n"
        "    both[:, 1] = out[:, 0]\n"
        "    np.subtract(1, both[:, 1], out=both[:, 0])\n"
        "    return both"
    ),
    "softmax": (
        "    out = outputs(X)\n"
        '    if out.dtype == np.float64 or getattr(X, "dtype", None) == np.float32:\n'
        "        return out\n"
        "    p = out.astype(np.float64)\n"
        "    p /= np.add.reduce(p, axis=1, keepdims=True)\n"
        "    return p"
    ),
    "each": (
        "    out = outputs(X)\n"
        '    single = getattr(X, "dtype", None) == np.float32\n'
        "    return out if single else out.astype(np.float64)"
    ),
}
"""The body of predict_proba."""

NUMPY_PREDICT = {
    "labels": "    return (outputs(X) > 0.5).astype(np.int64)",
    "one": "    return np.repeat(_LABELS, len(outputs(X)))",
    "both": "    return _LABELS[(outputs(X)[:, 0] > 0.5).astype(np.intp)]",
    "several": "    return _LABELS[outputs(X).argmax(axis=1)]",
    "numbers": (
        "    out = outputs(X)\n"
        '    if getattr(X, "dtype", None) != np.float32:\n'
        "        out = out.astype(np.float64)\n"
        "    return out[:, 0] if N_OUTPUTS == 1 else out"
    ),
}
"""The body of predict."""

# Without NumPy -----------------------------------------------------------------------------------

PURE_TAKE = '''\
_at = [0]


def _take(code, *shape):
    """Return the next array of the data: a list, of lists if it has rows."""
    if len(shape) > 1:
        return [_take(code, *shape[1:]) for _ in range(shape[0])]
    letter, size = ("f", 4) if code == "f4" else ("d", 8)
    values = struct.unpack_from("<%d%s" % (shape[0], letter), _data, _at[0])
    _at[0] += shape[0] * size
    return list(values)'''

PURE_FRONT = '''\
def _expand(front, x):
    """Return the first layer's inputs, and what is added to its sums, or None."""
    values, sums = [], None
    for kind, first, count, arrays in front:
        if kind == "plain":
            values += x[first : first + count]
        elif kind == "periodic":
            for number, w, b, V, d in zip(x[first : first + count], *arrays):
                waves = [math.cos(2 * math.pi * number * w1 + b1) for w1, b1 in zip(w, b)]
                for row, d1 in zip(V, d):
                    values.append(sum([v * wave for v, wave in zip(row, waves)]) + d1)
                values.append(number)
        elif kind == "table":
            values += _between(arrays[0], x[first])
        else:
            rows = _between(arrays[0], x[first])
            sums = rows if sums is None else [s + r for s, r in zip(sums, rows)]
    return values or [0.0], sums


def _between(E, x):
    """Return a row of a table for a whole number, a place between two rows for others."""
    x = min(max(x, 0.0), len(E) - 1.0)
    c = int(x)
    f = x - c
    return [(1 - f) * a + f * b for a, b in zip(E[c], E[c + 1])] if f > 0 else E[c]'''

PURE_RUN = '''\
def _plus(z, pairs):
    """Return z plus rows times numbers; four at a time take half the time."""
    last = len(pairs) - len(pairs) % 4
    for at in range(0, last, 4):
        (a, p), (b, q), (c, r), (d, s) = pairs[at : at + 4]
        rows = zip(z, p, q, r, s)
        z = [z1 + a * p1 + b * q1 + c * r1 + d * s1 for z1, p1, q1, r1, s1 in rows]
    for a, p in pairs[last:]:
        z = [z1 + a * p1 for z1, p1 in zip(z, p)]
    return z


def _run(member, x, raw=False):
    """Return the outputs of a network about a row; raw: before the last activation."""
    front, steps, _ = member
    a, sums = _expand(front, x) if front else (x, None)
    for number, step in enumerate(steps):
        if step[0] == "affine":
            z = [0.0] * len(step[1][0]) if step[2] is None else step[2]
            if number == 0 and sums is not None:
                z = [z1 + s1 for z1, s1 in zip(z, sums)]
            a = _plus(z, [pair for pair in zip(a, step[1]) if pair[0]])
        elif step[0] == "norm":
            mean = sum(a) / len(a)
            a = [each - mean for each in a]
            root = math.sqrt(sum([each * each for each in a]) / len(a) + step[3])
            a = [g * (each / root) + b for g, each, b in zip(step[1], a, step[2])]
        elif not (raw and number == len(steps) - 1):
            f = @SOFTMAX@[step[1](z) for z in a]
            if step[2] is not None:
                f = [z + alpha * (f1 - z) for z, alpha, f1 in zip(a, step[2], f)]
            a = f
    return a'''

PURE_INPUTS = """\
def _inputs(row):
    x = [float(value) for value in row]
    if len(x) != N_INPUTS:
        raise ValueError("a row must have %d numbers; it has %d" % (N_INPUTS, len(x)))
    return _finite(x if _MEAN is None else [a - b for a, b in zip(x, _MEAN)])"""

PURE_FINITE = """\
def _finite(x):
    code = "<%d%s" % (len(x), _CODE)
    try:
        x = struct.unpack(code, struct.pack(code, *x))
    except OverflowError:
        x = [math.inf]
    if not all([abs(each) < math.inf for each in x]):
        raise ValueError("X holds NaN, infinity, or a number too large")
    return list(x)"""

PURE_ENCODED = """\
def _inputs(row):
    return _finite(_encode(row))"""

PURE_OUTPUTS = '''\
def outputs(X):
    """Return the outputs of rows, a list of N_OUTPUTS for each@MEAN@."""
    return [_mean([_answer(member, x) for member in _MEMBERS]) for x in map(_inputs, X)]


def _mean(parts):
    return [sum(each) / len(parts) for each in zip(*parts)]'''

PURE_ANSWERS = {
    "plain": "def _answer(member, x):\n    return _run(member, x)",
    "softmax": (
        "def _answer(member, x):\n"
        "    p = _run(member, x)[: len(CLASSES)]\n"
        "    total = sum(p)\n"
        "    return [each / total for each in p]"
    ),
    "labels": "def _answer(member, x):\n    return _run(member, x)",
    "unit": (
        "def _answer(member, x):\n"
        "    y = [y * s + c for y, s, c in zip(_run(member, x), *member[2][:2])]\n"
        "    return [min(max(each, low), high) for each, low, high in zip(y, *member[2][2:])]"
    ),
}

PURE_PROBABILITIES = {
    "wide": "    return outputs(X)",
    "both": "    return [[1 - p, p] for (p,) in outputs(X)]",
    "softmax": "    return outputs(X)",
    "each": "    return outputs(X)",
}

PURE_PREDICT = {
    "labels": "    return [[int(p > 0.5) for p in row] for row in outputs(X)]",
    "one": "    return [CLASSES[0] for _ in outputs(X)]",
    "both": "    return [CLASSES[p > 0.5] for (p,) in outputs(X)]",
    "several": "    return [CLASSES[row.index(max(row))] for row in outputs(X)]",
    "numbers": "    return [row[0] if N_OUTPUTS == 1 else row for row in outputs(X)]",
}

# As a program ------------------------------------------------------------------------------------

MAIN = '''\
def _main():
    """Read rows of a CSV file, or of standard input, and write an answer for each."""
    import csv
    import os
    import sys

    if len(sys.argv) > 1:
        with open(sys.argv[1], newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    else:
        rows = [row for row in csv.reader(sys.stdin) if row]
    write = csv.writer(sys.stdout).writerow
    try:
        for answer in predict(_of_cells(rows)) if rows else ():
            answer = answer.tolist() if hasattr(answer, "tolist") else answer
            write(answer if isinstance(answer, list) else [answer])
        sys.stdout.flush()
    except BrokenPipeError:  # as after `| head`; Python's last flush must not fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())'''

CELLS = """\
def _of_cells(rows):
    names = FEATURE_NAMES
    if names is not None and set(names) <= set(rows[0]):
        places = [rows[0].index(name) for name in names]
        return [[float(row[place]) for place in places] for row in rows[1:]]
    try:
        [float(cell) for cell in rows[0]]
    except ValueError:
        if names is not None:
            lacking = [ascii(name) for name in names if name not in rows[0]]
            raise ValueError("the first row lacks the columns %s" % ", ".join(lacking)) from None
        rows = rows[1:]
    return [[float(cell) for cell in row] for row in rows]"""

RAW_CELLS = """\
def _of_cells(rows):
    lacking = [ascii(name) for name in FEATURE_NAMES if name not in rows[0]]
    if not lacking:
        return [dict(zip(rows[0], row)) for row in rows[1:]]
    if 2 * len(lacking) <= len(FEATURE_NAMES):  # names of columns rather than values
        raise ValueError("the first row lacks the columns %s" % ", ".join(lacking))
    return rows"""
