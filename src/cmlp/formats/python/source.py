"""A chain as one Python file, with NumPy or without."""

from __future__ import annotations

from collections.abc import Mapping
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
from cmlp.formats.python import pieces
from cmlp.formats.python import rows as row_pieces
from cmlp.formats.raw_rows import CategorySpec, NumberSpec, RawRows, Spec
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


def python_source(
    chain: Chain, *, pure: bool = False, wide: bool = False, raw: RawRows | None = None
) -> str:
    """Return a chain as the text of a Python file, in ASCII.

    Parameters
    ----------
    pure : bool
        Whether the file does without NumPy.
    wide : bool
        Whether a member's outputs are float64, and of a classifier sum to 1, before the mean is
        taken, as of tabular models.
    raw : RawRows, optional
        How a row of a table becomes numbers; the file takes such rows then.

    Raises
    ------
    ConversionError
        For an activation, or labels, that cannot be written.
    """
    arrays = Arrays()
    members = "".join(_member(member, arrays) for member in chain.members)
    mean = "None" if chain.mean is None else _taken(arrays, chain.mean)
    parts = [_head(chain, raw, pure=pure), *_constants(chain, raw, pure=pure)]
    if raw is not None:
        parts += _row_functions(raw)
    parts += _activations(chain, pure=pure)
    parts += _functions(chain, raw, pure=pure, wide=wide)
    data = "\n".join(arrays.lines())
    parts.append(f'_data = binascii.a2b_base64(\n    """\\\n{data}\n"""\n)')
    parts.append(pieces.PURE_TAKE if pure else pieces.NUMPY_TAKE)
    parts.append(f"_MEMBERS = (\n{members})\n_MEAN = {mean}\ndel _data")
    if raw is not None:
        parts.append(_columns(raw))
    parts += [pieces.RAW_CELLS if raw is not None else pieces.CELLS, pieces.MAIN]
    parts.append('if __name__ == "__main__":\n    _main()')
    return "\n\n\n".join(parts) + "\n"


# The head ----------------------------------------------------------------------------------------


def _head(chain: Chain, raw: RawRows | None, *, pure: bool) -> str:
    """Return the comment at the top, without any text of the model, and the imports."""
    needs = "Python's standard library alone" if pure else "NumPy alone"
    n = len(chain.members)
    rows = (
        f"rows of {len(raw.names)} raw values, each a dict by column, or a list in their order"
        if raw is not None
        else f"rows of {chain.n_in} numbers"
    )
    answers = {
        "labels": "a 0 or 1 for each of several labels",
        "numbers": "a number" if chain.n_out == 1 else f"{chain.n_out} numbers",
    }.get(task_of(chain), "a label of CLASSES")
    proba = "" if task_of(chain) == "numbers" else "predict_proba(X) -> their probabilities\n"
    text = (
        f'"""{"A network" if n == 1 else f"The mean of {n} networks"}, written by cmlp; needs '
        f"{needs} (Python 3.8 or newer).\n\n"
        f"X is {rows}.\n"
        f"predict(X) -> {answers} per row\n{proba}"
        "outputs(X) -> what these are made of\n\n"
        "As a program it reads CSV rows, of a file or of standard input, and writes predictions.\n"
        "Generated from your model; the generator claims no rights in this file (0BSD).\n"
        '"""'
    )
    kinds = set() if raw is None else row_kinds(raw)
    names = {"binascii", "math"} if pure or _needs_math(chain, kinds) else {"binascii"}
    names |= {"struct"} if pure else set()
    names |= {"re"} if kinds else set()
    names |= {"bisect"} if "number" in kinds else set()
    names |= {"datetime"} if kinds & {"date", "duration", "category"} else set()
    names |= {"decimal"} if "category" in kinds else set()
    imports = "\n".join(f"import {name}" for name in sorted(names))
    return f"{text}\n\n{imports}" + ("" if pure else "\n\nimport numpy as np")


def _needs_math(chain: Chain, kinds: set[str]) -> bool:
    return bool(kinds) or "gelu" in activations_of(chain) or has_front(chain)


def _constants(chain: Chain, raw: RawRows | None, *, pure: bool) -> list[str]:
    labels = labels_of(chain)
    names = chain.feature_names if raw is None else raw.names
    classes = "None" if labels is None else f"[{', '.join(map(ascii, labels))}]"
    known = "None" if names is None else f"[{', '.join(map(ascii, map(str, names)))}]"
    lines = [
        f"CLASSES = {classes}",
        f"FEATURE_NAMES = {known}",
        f"N_INPUTS = {chain.n_in if raw is None else len(raw.names)}",
        f"N_OUTPUTS = {_width(chain, labels)}",
    ]
    if pure:
        lines.append(f'_CODE = "{"f" if chain.dtype == "f4" else "d"}"')
    else:
        lines.append(f'_DTYPE = np.dtype("{chain.dtype.name}")')
        if chain.classes is not None and not chain.multilabel:
            lines.append(f'_LABELS = np.array(CLASSES, "{chain.classes.dtype.str[1:]}")')
    return ["\n".join(lines)]


def _width(chain: Chain, labels: list[Any] | None) -> int:
    return chain.n_out if labels is None or chain.n_out == 1 else len(labels)


# The functions -----------------------------------------------------------------------------------


def _activations(chain: Chain, *, pure: bool) -> list[str]:
    """Return the text of the activations that occur, and of those that they call."""
    table: Mapping[str, str] = pieces.PURE_ACTIVATIONS if pure else pieces.NUMPY_ACTIVATIONS
    found: dict[str, str] = {}
    if not pure and {"gelu", "silu", "mish"} & set(activations_of(chain)):
        found["bounded"] = pieces.BOUNDED
    for name in activations_of(chain):
        for each in (*pieces.NEEDS.get(name, ()), name):
            found[each] = function_of(table, each, "Python")
    return list(found.values())


def _functions(chain: Chain, raw: RawRows | None, *, pure: bool, wide: bool) -> list[str]:
    """Return the arithmetic, and the public functions."""
    prefix = "PURE" if pure else "NUMPY"

    def piece(name: str) -> Any:
        return getattr(pieces, f"{prefix}_{name}")

    found = [piece("FRONT")] if has_front(chain) else []
    run = piece("RUN")
    if pure:
        softmax = "softmax" in activations_of(chain)
        whole_row = "_softmax(a) if step[1] is _softmax else " if softmax else ""
        run = run.replace("@SOFTMAX@", whole_row)
    found.append(run)
    found.append(piece("ANSWERS")[kind_of_outputs(chain, wide=wide)])
    found += [piece("FINITE"), piece("ENCODED" if raw is not None else "INPUTS")]
    several = len(chain.members) > 1
    found.append(piece("OUTPUTS").replace("@MEAN@", ": the mean of the members" * several))
    of_one = (
        "    if isinstance(X, dict):\n        return @NAME@([X])[0]\n" if raw is not None else ""
    )
    proba = probabilities_of(chain, wide=wide)
    if proba is not None:
        found.append(
            'def predict_proba(X):\n    """Return the probability of each class, or label, of '
            f'each row."""\n{of_one.replace("@NAME@", "predict_proba")}'
            + piece("PROBABILITIES")[proba]
        )
    found.append(
        f'def predict(X):\n    """Return the answer for each row."""\n'
        f"{of_one.replace('@NAME@', 'predict')}" + piece("PREDICT")[task_of(chain)]
    )
    return found


# The arrays --------------------------------------------------------------------------------------


def _taken(arrays: Arrays, array: Any) -> str:
    """Append an array, and return the call that reads it."""
    if array is None:
        return "None"
    code, shape = arrays.add(array)
    return f'_take("{code}", {", ".join(map(str, shape))})'


def _member(member: Member, arrays: Arrays) -> str:
    front = "".join(f"            {_part(part, arrays)},\n" for part in member.front)
    steps = "".join(f"            {_step(step, arrays)},\n" for step in member.steps)
    unit = "None"
    if member.unit is not None:
        u = member.unit
        numbers = [_taken(arrays, each) for each in (u.spread, u.centre, u.low, u.high)]
        unit = "(\n" + "".join(f"            {each},\n" for each in numbers) + "        )"
    front = f"(\n{front}        )" if front else "()"
    return f"    (\n        {front},\n        (\n{steps}        ),\n        {unit},\n    ),\n"


def _part(part: Part, arrays: Arrays) -> str:
    if isinstance(part, Plain):
        return f'("plain", {part.first}, {part.count}, ())'
    if isinstance(part, Periodic):
        waves = ", ".join(_taken(arrays, each) for each in (part.w, part.b, part.V, part.d))
        return f'("periodic", {part.first}, {part.count}, ({waves}))'
    kind = "summed" if part.summed else "table"
    return f'("{kind}", {part.column}, 1, ({_taken(arrays, part.rows)},))'


def _step(step: Step, arrays: Arrays) -> str:
    if isinstance(step, Affine):
        return f'("affine", {_taken(arrays, step.weights)}, {_taken(arrays, step.bias)})'
    if isinstance(step, LayerNorm):
        gamma, beta = _taken(arrays, step.gamma), _taken(arrays, step.beta)
        return f'("norm", {gamma}, {beta}, {step.epsilon!r})'
    assert isinstance(step, Activation)
    return f'("activation", _{identifier(step.name)}, {_taken(arrays, step.alphas)})'


# Raw rows ----------------------------------------------------------------------------------------


def _row_functions(raw: RawRows) -> list[str]:
    kinds, found = row_kinds(raw), [row_pieces.ENCODE]
    if "number" in kinds:
        found.append(row_pieces.NUMBER)
    if "plain number" in kinds:
        found.append(row_pieces.NUMBER_OF)
    if "duration" in kinds:
        found.append(row_pieces.DURATION_OF)
    if kinds & {"category", "date", "duration"}:
        found.append(row_pieces.TIMES)
    if "category" in kinds:
        found.append(row_pieces.CATEGORY)
    if "date" in kinds:
        found.append(row_pieces.DATE)
    return found


def _columns(raw: RawRows) -> str:
    lines = "".join(
        f"    ({column.place}, {column.name!a}, {_column(column.spec)}),\n"
        for column in raw.columns
    )
    return f"_COLUMNS = (\n{lines})"


def _column(spec: Spec) -> str:
    if isinstance(spec, CategorySpec):
        return f"_category({spec.levels!a}, {spec.unseen!a})"
    if isinstance(spec, NumberSpec):
        read = "_duration_of" if spec.duration else f"_number_of({spec.markers!a})"
        return _number(spec, read)
    parts = "".join(
        f"({place}, {cycle}, {_number(part, 'float')}), " for place, cycle, part in spec.parts
    )
    seconds = _number(spec.seconds, "float")
    return f"_date({seconds}, {spec.zone!a}, {spec.numeric}, ({parts}))"


def _number(spec: NumberSpec, read: str) -> str:
    knots = ascii(spec.knots)
    return f"_number({spec.scale!a}, {spec.flag}, {knots}, {spec.gap!r}, {read})"
