"""A chain as one JavaScript file, in ASCII."""

from __future__ import annotations

import json
from typing import Any

from cmlp.formats.chain import (
    Activation,
    Affine,
    Chain,
    LayerNorm,
    Member,
    Part,
    Periodic,
    Plain,
    Step,
)
from cmlp.formats.js import pieces
from cmlp.formats.js import rows as row_pieces
from cmlp.formats.raw_rows import CategorySpec, DateSpec, NumberSpec, RawRows, Spec
from cmlp.formats.source_text import (
    Arrays,
    activations_of,
    function_of,
    has_front,
    identifier,
    kind_of_outputs,
    labels_of,
    probabilities_of,
    row_kinds,
    task_of,
)

EXACT = 2**53
"""Whole numbers below it are exact as numbers of JavaScript."""


def javascript_source(
    chain: Chain, *, module: bool = True, wide: bool = False, raw: RawRows | None = None
) -> str:
    """Return a chain as the text of a JavaScript file.

    Parameters
    ----------
    module : bool
        Whether it is an ES module; else it is one of CommonJS.
    wide, raw
        As of :func:`cmlp.formats.python.source.python_source`.

    Raises
    ------
    ConversionError
        For an activation, or labels, that cannot be written.
    """
    arrays = Arrays()
    members = "".join(_member(member, arrays) for member in chain.members)
    mean = None if chain.mean is None else _taken(arrays, chain.mean)
    parts = [_head(chain, raw), _constants(chain, raw)]
    if raw is not None:
        parts += _row_functions(raw)
    parts += _activations(chain)
    parts += _functions(chain, raw, wide=wide)
    lines = "".join(f'  "{line}",\n' for line in arrays.lines())
    parts.append(f'const text = [\n{lines}].join("");')
    parts.append(pieces.TAKE)
    parts.append(f"const members = [\n{members}];")
    if mean is not None:
        parts.append(f"const mean = {mean};")
    if raw is not None:
        parts.append(_columns(raw))
    names = ["predict", "outputs", "classes", "inputs", "nInputs", "nOutputs"]
    if task_of(chain) != "numbers":
        names.insert(1, "predictProba")
    exports = ", ".join(names)
    parts.append(f"export {{ {exports} }};" if module else f"module.exports = {{ {exports} }};")
    return ("" if module else '"use strict";\n') + "\n\n".join(parts) + "\n"


def literal(value: Any) -> str:
    """Return a value as a literal that is safe in a script, and in a script of a page.

    Bytes are text in Latin-1, and integers that a number cannot hold are of the type BigInt.
    """
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= EXACT:
        return f"{value}n"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(literal, value))}]"
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    if isinstance(value, str):
        for sign in "<>&'`/":
            text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _head(chain: Chain, raw: RawRows | None) -> str:
    """Return the comment at the top, without any text of the model."""
    n = len(chain.members)
    row = (
        f"an object of {len(raw.names)} raw values by column, or an array in their order"
        if raw is not None
        else f"an array of {chain.n_in} numbers"
    )
    answer = {
        "labels": "a 0 or 1 for each of several labels",
        "numbers": "a number" if chain.n_out == 1 else f"an array of {chain.n_out} numbers",
    }.get(task_of(chain), "one of classes")
    proba = "" if task_of(chain) == "numbers" else "// predictProba(x) -> their probabilities\n"
    return (
        f"// {'A network' if n == 1 else f'The mean of {n} networks'}, written by cmlp.\n"
        f"// x is one row: {row}.\n"
        f"// predict(x) -> {answer}\n{proba}"
        "// outputs(x) -> what these are made of\n"
        "// Generated from your model; the generator claims no rights in this file (0BSD)."
    )


def _constants(chain: Chain, raw: RawRows | None) -> str:
    labels = labels_of(chain)
    names = chain.feature_names if raw is None else raw.names
    n_out = chain.n_out if labels is None or chain.n_out == 1 else len(labels)
    return (
        f"const classes = {literal(labels)};\n"
        f"const inputs = {literal(None if names is None else list(map(str, names)))};\n"
        f"const nInputs = {chain.n_in if raw is None else len(raw.names)};\n"
        f"const nOutputs = {n_out};"
    )


def _activations(chain: Chain) -> list[str]:
    """Return the text of the activations that occur, and of those that they call."""
    found = {"erfc": pieces.ERFC} if "gelu" in activations_of(chain) else {}
    for name in activations_of(chain):
        for each in (*pieces.NEEDS.get(name, ()), name):
            found[each] = function_of(pieces.ACTIVATIONS, each, "JavaScript")
    return list(found.values())


def _functions(chain: Chain, raw: RawRows | None, *, wide: bool) -> list[str]:
    """Return the arithmetic, and the public functions."""
    front = has_front(chain)
    expand = "if (member.front.length) [a, sums] = expand(member.front, x);\n  " if front else ""
    softmax = "step.f === softmax ? softmax(a) : " if "softmax" in activations_of(chain) else ""
    run = pieces.RUN.replace("@EXPAND@", expand).replace("@SOFTMAX@", softmax)
    # The network was trained on rows in its own number type.
    rounds = "x = x.map(Math.fround);\n  " if chain.dtype == "f4" else ""
    minus = "" if chain.mean is None else " - mean[i]"
    inputs = pieces.ENCODED if raw is not None else pieces.INPUTS.replace("@MEAN@", minus)
    of = ": the mean of the members" if len(chain.members) > 1 else ""
    found = [pieces.FRONT] if front else []
    found += [
        run,
        pieces.ANSWERS[kind_of_outputs(chain, wide=wide)],
        pieces.FINITE.replace("@ROUND@", rounds),
        inputs,
        pieces.OUTPUTS.replace("@OF@", of),
    ]
    proba = probabilities_of(chain, wide=wide)
    if proba is not None:
        found.append(
            "// The probability of each class, or label.\n"
            f"function predictProba(x) {{\n{pieces.PROBABILITIES[proba]}\n}}"
        )
    found.append(f"function predict(x) {{\n{pieces.PREDICT[task_of(chain)]}\n}}")
    return found


# The arrays --------------------------------------------------------------------------------------


def _taken(arrays: Arrays, array: Any) -> str:
    """Append an array, and return the call that reads it."""
    if array is None:
        return "null"
    code, _ = arrays.add(array)
    return f'take("{code}", {array.size})'


def _member(member: Member, arrays: Arrays) -> str:
    front = "".join(f"      {_part(part, arrays)},\n" for part in member.front)
    steps = "".join(f"      {_step(step, arrays)},\n" for step in member.steps)
    unit = ""
    if member.unit is not None:
        names = ("spread", "centre", "low", "high")
        each = [f"{name}: {_taken(arrays, getattr(member.unit, name))}" for name in names]
        unit = f"    unit: {{ {', '.join(each)} }},\n"
    front = f"[\n{front}    ]" if front else "[]"
    return f"  {{\n    front: {front},\n    steps: [\n{steps}    ],\n{unit}  }},\n"


def _part(part: Part, arrays: Arrays) -> str:
    if isinstance(part, Plain):
        return f'{{ kind: "plain", first: {part.first}, count: {part.count} }}'
    if isinstance(part, Periodic):
        _, width, frequencies = part.V.shape
        waves = ", ".join(f"{name}: {_taken(arrays, getattr(part, name))}" for name in "wbVd")
        return (
            f'{{ kind: "periodic", first: {part.first}, count: {part.count}, width: {width}, '
            f"frequencies: {frequencies}, {waves} }}"
        )
    rows, width = part.rows.shape
    return (
        f'{{ kind: "table", first: {part.column}, summed: {str(part.summed).lower()}, '
        f"rows: {rows}, width: {width}, values: {_taken(arrays, part.rows)} }}"
    )


def _step(step: Step, arrays: Arrays) -> str:
    if isinstance(step, Affine):
        weights, bias = _taken(arrays, step.weights), _taken(arrays, step.bias)
        width = step.weights.shape[1]
        return f'{{ kind: "affine", width: {width}, weights: {weights}, bias: {bias} }}'
    if isinstance(step, LayerNorm):
        gamma, beta = _taken(arrays, step.gamma), _taken(arrays, step.beta)
        return f'{{ kind: "norm", gamma: {gamma}, beta: {beta}, epsilon: {step.epsilon!r} }}'
    assert isinstance(step, Activation)
    f, alphas = identifier(step.name), _taken(arrays, step.alphas)
    return f'{{ kind: "activation", f: {f}, alphas: {alphas} }}'


# Raw rows ----------------------------------------------------------------------------------------


def _row_functions(raw: RawRows) -> list[str]:
    kinds, found = row_kinds(raw), [row_pieces.ENCODE]
    if "number" in kinds:
        found.append(row_pieces.NUMBER)
    if "plain number" in kinds:
        found.append(row_pieces.NUMBER_OF)
    if "duration" in kinds:
        found.append(row_pieces.DURATION_OF)
    if "category" in kinds:
        found.append(row_pieces.CATEGORY)
    if "date" in kinds:
        found.append(row_pieces.DATE)
    return found


def _columns(raw: RawRows) -> str:
    lines = "".join(
        f"  [{column.place}, {literal(column.name)}, {_column(column.spec)}],\n"
        for column in raw.columns
    )
    return f"const columns = [\n{lines}];"


def _column(spec: Spec) -> str:
    if isinstance(spec, CategorySpec):
        return f"category({literal(spec.levels)}, {literal(spec.unseen)})"
    if isinstance(spec, DateSpec):
        parts = ", ".join(
            f"[{place}, {literal(cycle)}, {_number(part, 'same')}]"
            for place, cycle, part in spec.parts
        )
        seconds = _number(spec.seconds, "same")
        return f"date({seconds}, {literal(spec.zone)}, {literal(spec.numeric)}, [{parts}])"
    read = "durationOf" if spec.duration else f"numberOf({literal(spec.markers)})"
    return _number(spec, read)


def _number(spec: NumberSpec, read: str) -> str:
    scale, knots = literal(spec.scale), literal(spec.knots)
    return f"number({scale}, {literal(spec.flag)}, {knots}, {spec.gap!r}, {read})"
