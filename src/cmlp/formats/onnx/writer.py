"""A chain as an ONNX file: plain operators of ``ai.onnx`` that all runtimes have.

The mean of a scaler is subtracted, in the type of the inputs, and what float32 loses of it goes
into the first biases. The same chain gives the same bytes.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.formats.chain import (
    Activation,
    Affine,
    Chain,
    ConversionError,
    LayerNorm,
    Member,
    Part,
    Periodic,
    Plain,
    Table,
    Unit,
)  # fmt: skip
from cmlp.formats.onnx import messages as om
from cmlp.formats.onnx import protobuf as pb
from cmlp.formats.onnx.activations import apply
from cmlp.formats.onnx.columns import columns_of, encoded
from cmlp.formats.onnx.graph import IR, NATIVE_LAYER_NORM, OPSETS, Graph, Options
from cmlp.formats.raw_rows import RawRows


def write(chain: Chain, options: Options, raw: RawRows | None = None) -> bytes:
    """Return a chain as an ONNX file; `raw` is how the columns of a table become its inputs.

    Raises
    ------
    ConversionError
        If a part of it cannot be told in ONNX; the message names it.
    """
    _check_size(chain, options)
    inputs = (options.input_name,) if raw is None else tuple(columns_of(raw))
    names = _output_names(chain, options, inputs)
    g = Graph(options, (*inputs, *names))
    x, residue = _inputs(g, chain) if raw is None else (encoded(g, raw), None)
    outputs = [
        _member(g, member, x, residue, number) for number, member in enumerate(chain.members)
    ]
    total = outputs[0]
    for each in outputs[1:]:
        total = g.op("Add", total, each)
    if len(outputs) > 1:
        total = g.op("Mul", total, g.scalar(1 / len(outputs)))
    _head(g, chain, total, names)
    return _model(g, chain)


def _check_size(chain: Chain, options: Options) -> None:
    if options.opset not in OPSETS:
        raise ConversionError(
            f"opset must be {OPSETS[0]} to {OPSETS[-1]}, the versions that are tested, not "
            f"{options.opset}"
        )
    if chain.classes is not None and len(chain.classes) < 2 and not chain.multilabel:
        raise ConversionError(
            f"this classifier has one class, {chain.classes.tolist()}: there is nothing to compute"
        )
    if options.raw and len(chain.members) > 1:
        last = chain.members[0].steps[-1]
        if isinstance(last, Activation) and last.name != "identity":
            raise ConversionError(
                "raw=True of an ensemble: the mean of its members' scores does not give its "
                "probabilities; export one member, model.estimators_[0]"
            )
    numbers = sum(step.weights.size for member in chain.members for step in member.affine)
    numbers += sum(
        part.rows.size for member in chain.members for part in member.front
        if isinstance(part, Table)
    )  # fmt: skip
    if numbers * np.dtype(options.dtype).itemsize > om.MAX_BYTES - 2**20:
        raise ConversionError(
            f"an ONNX file holds 2 GB at most, this model has {numbers:,} weights"
        )


def _output_names(chain: Chain, options: Options, inputs: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the outputs, which differ from those of the inputs."""
    if options.raw:
        names: tuple[str, ...] = ("scores",)
    elif chain.head == "numbers":
        names = ("variable",)
    elif not options.labels or not _has_labels(chain):
        names = ("probabilities",)
    else:
        names = ("output_label", "output_probability") if options.zipmap else (
            "label", "probabilities")  # fmt: skip
    if options.zipmap and (
        len(names) < 2 or chain.multilabel or _label_array(chain).dtype.kind not in "iO"
    ):
        raise ConversionError(
            "zipmap=True needs a classifier with one label per row, an integer or text, and its "
            "labels and probabilities as outputs"
        )
    if options.names is not None:
        if len(options.names) != len(names):
            raise ConversionError(
                f"output_names must be {len(names)}, for {', '.join(names)}, not "
                f"{len(options.names)}"
            )
        names = options.names
    if len({*inputs, *names}) < len(inputs) + len(names) or "" in (*inputs, *names):
        raise ConversionError(
            f"the names of inputs and outputs must differ, and none be ''; those of the outputs "
            f"are {', '.join(map(repr, names))}: give output_names=..."
        )
    return names


def _has_labels(chain: Chain) -> bool:
    return chain.multilabel or chain.classes is not None


# Before the layers -------------------------------------------------------------------------------


def _inputs(g: Graph, chain: Chain) -> tuple[str, NDArray[np.float64] | None]:
    """Subtract the means and give X the type of the weights.

    Returns
    -------
    str
        The name of the result.
    ndarray of float64, (n_in,), or None
        What is still to be subtracted: the means' digits that a float32 does not hold.
    """
    given, mean = g.options.input_dtype, chain.mean
    x = g.input(g.options.input_name, om.CODES[given], chain.n_in)
    residue = None
    if mean is not None:
        if given in ("float64", "int64"):  # more digits than float32 has: these differences first
            if given != "float64":
                x = g.op("Cast", x, to=om.DOUBLE)
            x, given = g.op("Sub", x, g.exactly("means", mean)), "float64"
        else:
            if given != g.options.dtype:
                x, given = g.op("Cast", x, to=om.CODES[g.options.dtype]), g.options.dtype
            name = g.array("means", mean)
            residue = mean - mean.astype(g.dtype).astype(np.float64)
            x = g.op("Sub", x, name)
    if given != g.options.dtype:
        x = g.op("Cast", x, to=om.CODES[g.options.dtype])
    return x, residue if residue is not None and residue.any() else None


def _front(g: Graph, parts: tuple[Part, ...], x: str) -> tuple[str | None, str | None]:
    """Return the first layer's inputs, and what is added to its sums."""
    values: list[str] = []
    sums: str | None = None
    for part in parts:
        if isinstance(part, Plain):
            values.append(_columns(g, x, part.first, part.count))
        elif isinstance(part, Periodic):
            values.append(_periodic(g, part, x))
        else:
            rows = _rows(g, part, x)
            if not part.summed:
                values.append(rows)
            else:
                sums = rows if sums is None else g.op("Add", sums, rows)
    if not values:
        return None, sums
    return values[0] if len(values) == 1 else g.op("Concat", *values, axis=1), sums


def _columns(g: Graph, x: str, first: int, count: int) -> str:
    return g.op("Slice", x, g.whole(first), g.whole(first + count), g.whole(1))


def _periodic(g: Graph, part: Periodic, x: str) -> str:
    """V cos(2 pi w x + b) + d, and x, of each column."""
    n, width = part.d.shape
    column = g.op("Unsqueeze", _columns(g, x, part.first, part.count), g.whole(2))
    u = g.op("Mul", column, g.array("frequencies", part.w))
    u = g.op("Add", g.op("Mul", u, g.scalar(2 * np.pi)), g.array("phases", part.b))
    waves = g.op("Unsqueeze", g.op("Cos", u), g.whole(2))
    V = np.ascontiguousarray(part.V.transpose(0, 2, 1))
    e = g.op("Squeeze", g.op("MatMul", waves, g.array("waves", V)), g.whole(2))
    e = g.op("Add", e, g.array("offsets", part.d))
    both = g.op("Concat", e, column, axis=2)
    return g.op("Reshape", both, g.whole(0, n * (width + 1)))


def _rows(g: Graph, part: Table, x: str) -> str:
    """(1 - f) E[c] + f E[c + 1]: never outside of the table, whatever stands in X."""
    last = g.scalar(len(part.rows) - 1)
    place = g.op("Gather", x, g.whole(part.column, scalar=True), axis=1)
    zero = g.scalar(0.0)
    place = g.op("Where", g.op("Greater", place, zero), place, zero)  # NaN is row 0
    place = g.op("Min", place, last)
    floor = g.op("Floor", place)
    f = g.op("Unsqueeze", g.op("Sub", place, floor), g.whole(1))
    following = g.op("Min", g.op("Add", floor, g.scalar(1.0)), last)
    table = g.array("table", part.rows)
    here, there = (
        g.op("Gather", table, g.op("Cast", each, to=om.INT64), axis=0)
        for each in (floor, following)
    )
    low = g.op("Mul", here, g.op("Sub", g.scalar(1.0), f))
    return g.op("Add", low, g.op("Mul", there, f))


# The layers --------------------------------------------------------------------------------------


def _member(
    g: Graph, member: Member, x: str, residue: NDArray[np.float64] | None, number: int
) -> str:
    """Add the nodes of a network and return its outputs' name."""
    of = f"net{number}_" if number else ""
    a, sums = _front(g, member.front, x) if member.front else (x, None)
    layer = 0
    for place, step in enumerate(member.steps):
        if isinstance(step, Affine):
            layer += 1
            if layer == 1 and residue is not None:
                step = _without(step, residue)
            a = _affine(g, step, a, sums if layer == 1 else None, f"{of}layer{layer}")
        elif isinstance(step, LayerNorm):
            assert a is not None
            a = _layer_norm(g, step, a, f"{of}layer{layer}")
        elif not (g.options.raw and place == len(member.steps) - 1):
            assert a is not None
            f = apply(g, step, a, g.options.dtype)
            if step.alphas is not None and f != a:
                alphas = g.array(f"{of}layer{layer}_alphas", step.alphas)
                f = g.op("Add", a, g.op("Mul", g.op("Sub", f, a), alphas))
            a = f
    assert a is not None
    return a if member.unit is None else _unit(g, member.unit, a)


def _without(step: Affine, residue: NDArray[np.float64]) -> Affine:
    """Subtract the rest of the means by way of the biases."""
    shift = residue @ step.weights.astype(np.float64)
    return Affine(step.weights, -shift if step.bias is None else step.bias - shift)


def _affine(g: Graph, step: Affine, a: str | None, sums: str | None, name: str) -> str:
    """z = a W + b + sums; without a, there are no inputs but the sums."""
    bias = None if step.bias is None else g.array(f"{name}_bias", step.bias)
    if a is None:
        assert sums is not None
        return sums if bias is None else g.op("Add", sums, bias)
    weights = g.array(f"{name}_weights", step.weights)
    if bias is not None and g.options.dtype == "float32":
        z = g.op("Gemm", a, weights, bias)
    else:
        z = g.op("MatMul", a, weights)
        z = z if bias is None else g.op("Add", z, bias)
    return z if sums is None else g.op("Add", z, sums)


def _layer_norm(g: Graph, step: LayerNorm, z: str, name: str) -> str:
    gamma, beta = g.array(f"{name}_scale", step.gamma), g.array(f"{name}_shift", step.beta)
    if g.options.opset >= NATIVE_LAYER_NORM and g.options.dtype == "float32":
        return g.op("LayerNormalization", z, gamma, beta, axis=-1, epsilon=step.epsilon)
    centred = g.op("Sub", z, g.mean(z))
    variance = g.mean(g.op("Mul", centred, centred))
    deviation = g.op("Sqrt", g.op("Add", variance, g.scalar(step.epsilon)))
    return g.op("Add", g.op("Mul", g.op("Div", centred, deviation), gamma), beta)


def _unit(g: Graph, unit: Unit, y: str) -> str:
    """clip(spread y + centre, low, high), each per output."""
    y = g.op("Mul", y, g.array("spread", np.asarray(unit.spread, float)))
    y = g.op("Add", y, g.array("centre", np.asarray(unit.centre, float)))
    for kind, limit in (("Max", unit.low), ("Min", unit.high)):
        if np.isfinite(limit).any():
            y = g.op(kind, y, g.array("limit", np.asarray(limit, float)))
    return y


# The outputs -------------------------------------------------------------------------------------


def _head(g: Graph, chain: Chain, p: str, names: tuple[str, ...]) -> None:
    """Name the outputs, and add labels."""
    rows = g.rows
    code, columns = om.CODES[g.options.dtype], chain.n_out
    *label, out = names
    if chain.head == "logistic" and not g.options.raw:
        columns, other = 2, g.op("Sub", g.scalar(1.0), p)
        p = g.op("Concat", other, p, axis=1)
    if label and chain.multilabel:
        above = g.op("Greater", p, g.scalar(0.5))
        g.result("Cast", label[0], above, to=om.INT64)
        g.outputs.append(om.tensor_value(label[0], om.INT64, (rows, columns)))
    elif label:
        labels = _label_array(chain)
        g.result("Gather", label[0], g.exactly("classes", labels),
                 g.op("ArgMax", p, axis=1, keepdims=0), axis=0)  # fmt: skip
        kind = om.STRING if labels.dtype == object else om.CODES[labels.dtype.name]
        g.outputs.append(om.tensor_value(label[0], kind, (rows,)))
        if g.options.zipmap:
            _zipmap(g, out, p, labels, kind)
            return
    g.result("Identity", out, p)
    g.outputs.append(om.tensor_value(out, code, (rows, columns)))


def _zipmap(g: Graph, out: str, p: str, labels: Array, kind: int) -> None:
    """Add a map from labels to probabilities per row, as sklearn-onnx does by default."""
    g.ml = max(g.ml, 1)
    if g.options.dtype != "float32":
        p = g.op("Cast", p, to=om.FLOAT)
    key = "classlabels_strings" if kind == om.STRING else "classlabels_int64s"
    g.result("ZipMap", out, p, domain="ai.onnx.ml", **{key: labels.tolist()})
    g.outputs.append(om.maps_value(out, kind))


def _label_array(chain: Chain) -> Array:
    """Return the labels as ONNX has them: int64, float64, or text as objects."""
    labels = np.arange(chain.n_out) if chain.classes is None else np.asarray(chain.classes)
    kind = labels.dtype.kind
    if kind in "SUO":
        texts: Array = np.empty(len(labels), object)
        texts[:] = [_text(label) for label in labels.tolist()]
        return texts
    if kind == "u" and labels.max(initial=0) > 2**63 - 1:
        raise ConversionError(f"the label {labels.max()} is too large: ONNX's are 64 bits, signed")
    if kind in "iub":
        return labels.astype(np.int64)
    return labels.astype(np.float64)


def _text(label: Any) -> str:
    text = label.decode("latin-1") if isinstance(label, bytes) else str(label)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConversionError(f"the label {label!r} cannot be encoded: {error.reason}") from error
    return text


# The file ----------------------------------------------------------------------------------------


def _model(g: Graph, chain: Chain) -> bytes:
    """Put the graph into a file."""
    options = g.options
    graph = [pb.chunk(1, node) for node in g.nodes] + [pb.text(2, "cmlp")]
    graph += [pb.chunk(5, tensor) for tensor in g.tensors]
    graph += [pb.chunk(11, x) for x in g.inputs]
    graph += [pb.chunk(12, out) for out in g.outputs]
    opsets = [("", options.opset)] + ([("ai.onnx.ml", g.ml)] if g.ml else [])
    parts = [pb.integer(1, IR[options.opset]), pb.text(2, "cmlp"), pb.text(3, options.version)]
    parts += [pb.chunk(7, *graph)]
    parts += [pb.chunk(8, pb.text(1, domain), pb.integer(2, n)) for domain, n in opsets]
    parts += [
        pb.chunk(14, pb.text(1, f"cmlp.{key}"), pb.text(2, text))
        for key, text in _metadata(chain, options.version).items()
    ]
    raw = b"".join(parts)
    if len(raw) > om.MAX_BYTES:
        raise ConversionError(f"an ONNX file holds 2 GB at most, this one has {len(raw):,} bytes")
    return raw


def _metadata(chain: Chain, version: str) -> dict[str, str]:
    """Return what the graph does not tell, as JSON in ASCII."""
    found: dict[str, Any] = {"version": version}
    if chain.classes is not None:
        labels = np.asarray(chain.classes).tolist()
        found["classes"] = [
            label.decode("latin-1") if isinstance(label, bytes) else label for label in labels
        ]
    if chain.feature_names is not None:
        found["feature_names"] = list(chain.feature_names)
    if chain.target_name is not None:
        found["target_name"] = chain.target_name
    return {key: value if key == "version" else json.dumps(value) for key, value in found.items()}
