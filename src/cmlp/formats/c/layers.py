"""The statements of C that compute one member of a chain, and the tables that they read."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cmlp.core.layout import Array
from cmlp.formats.c.formulas import FORMULAS, library
from cmlp.formats.c.text import LARGEST, float32, number
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
    Table,
)
from cmlp.formats.source_text import identifier

LEVELS = 127  # of an 8-bit weight, on either side of 0


@dataclass(frozen=True)
class Layer:
    """An affine step and those that follow it in place."""

    affine: Affine
    then: tuple[Step, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Inputs and outputs."""
        n_in, n_out = self.affine.weights.shape
        return int(n_in), int(n_out)


def layers_of(member: Member) -> list[Layer]:
    """Return a member's steps, a layer for each affine one."""
    groups: list[list[Step]] = []
    for step in member.steps:
        if isinstance(step, Affine):
            groups.append([])
        groups[-1].append(step)
    return [Layer(group[0], tuple(group[1:])) for group in groups if isinstance(group[0], Affine)]


def quantise(weights: Array) -> tuple[Array, Array]:
    """Return whole numbers from -127 to 127 and a float32 factor for each column."""
    W = np.asarray(weights, np.float64)
    largest = np.abs(W).max(axis=0)
    scales = np.where(largest > 0, largest / LEVELS, 1).astype(np.float32)
    whole = np.rint(W / scales.astype(np.float64)).clip(-LEVELS, LEVELS)
    return whole.astype(np.int8), scales


@dataclass
class Body:
    """What a member becomes.

    Attributes
    ----------
    statements : str
        They read `x`, write the outputs to `y`, and use `scratch`; tables by their short names.
    tables : dict of str to ndarray
        Flat arrays of float32 or int8 by their short names.
    scratch : int
        Floats of `scratch`.
    library, helpers : set of str
        Functions of math.h, and activations as functions, that occur.
    """

    statements: str = ""
    tables: dict[str, Array] = field(default_factory=dict)
    scratch: int = 0
    library: set[str] = field(default_factory=set)
    helpers: set[str] = field(default_factory=set)


class Writer:
    """Makes the body of one member.

    Parameters
    ----------
    name : str
        First part of the file's identifiers.
    int8 : bool
    head : bool
        Whether the last activation is computed.
    outputs_in_scratch : bool
        Whether the outputs may be put at the free end of the scratch.
    """

    def __init__(self, name: str, *, int8: bool, head: bool, outputs_in_scratch: bool) -> None:
        self.name, self.int8, self.head = name, int8, head
        self.outputs_in_scratch = outputs_in_scratch
        self.read = f"{name.upper()}_READ"
        self.body = Body()
        self.lines: list[str] = []

    def member(self, chain: Chain, member: Member) -> Body:
        """Return the body."""
        layers = layers_of(member)
        self.body.scratch = self._scratch(member, layers)
        for k, layer in enumerate(layers, 1):
            last = k == len(layers)
            self._layer(chain, member, layer, k, last)
        if member.unit is not None:
            self._unit(member)
        self.body.statements = "\n".join(self.lines) + "\n"
        return self.body

    def _scratch(self, member: Member, layers: list[Layer]) -> int:
        widths = [layer.shape[1] for layer in layers]
        if not self.outputs_in_scratch:
            widths[-1] = 0
        pairs = [a + b for a, b in zip([0, *widths], widths, strict=False)]
        waves = [part.w.shape[1] for part in member.front if isinstance(part, Periodic)]
        return max(*pairs, widths[0] + max(waves, default=0), 1)

    def place(self, k: int, width: int) -> str:
        """Return where the outputs of layer `k` are: the ends of the scratch take turns."""
        return "scratch" if k % 2 else f"scratch + {self.body.scratch - width}"

    def table(self, short: str, values: Array, what: str) -> str:
        """Keep a table, and return its name in statements."""
        if values.dtype != np.int8:
            values = float32(values, what)
        self.body.tables[short] = values.ravel()
        return "{" + short + "}"

    def value(self, table: str, index: str) -> str:
        """Return an element of a table of float32."""
        return f"{self.read}({table} + {index})"

    def add(self, text: str, level: int = 2) -> None:
        """Append statements, indented; braces are doubled, but around names of tables."""
        self.lines += ["    " * level + line if line else "" for line in text.split("\n")]

    # A layer ---------------------------------------------------------------------------------

    def _layer(self, chain: Chain, member: Member, layer: Layer, k: int, last: bool) -> None:
        n_in, n_out = layer.shape
        source = "x" if k == 1 else self.place(k - 1, n_in)
        names = [step.name for step in layer.then if isinstance(step, Activation)]
        self.add("{{", 1)
        self.add(f"/* layer {k}: {n_in} -> {n_out}, {', '.join(names)} */")
        if source != "x":
            self.add(f"const float *a = {source};")
        self.add(f"float *b = {'y' if last else self.place(k, n_out)};")
        weights, bias = layer.affine.weights, layer.affine.bias
        if k == 1 and chain.mean is not None:
            bias = self._mean(chain, member, weights, bias)
        kind, cast = "float", self.read
        if self.int8:
            weights, scales = quantise(float32(weights, f"layer {k}").reshape(weights.shape))
            kind, cast = "signed char", f"{self.name.upper()}_READ_INT8"
        front = member.front if k == 1 else ()
        if front and all(isinstance(part, Table) and part.summed for part in front):
            self.add("unsigned j;")  # the one input is always 0
        else:
            w = self.table(f"w{k}", weights, f"layer {k}")
            self.add(f"const {kind} *w = {w};\nunsigned i, j;")
        self._start(k, n_out, bias)
        plain = "x[i]" if k == 1 else "a[i]"
        if k == 1 and chain.mean is not None and not front:
            mean = self.table("mean", np.asarray(chain.mean, np.float64), "the mean of X")
            plain = f"x[i] - {self.value(mean, 'i')}"
        axpy = _axpy(cast, n_out)
        if not front:
            row = _axpy(cast, n_out, f"w + i * {n_out}")
            self.add(_loop("i", n_in, f"const float v = {plain};\n{row}"))
        for number_, part in enumerate(front, 1):
            self._part(part, number_, n_out, axpy)
        if self.int8:
            self._scale(k, n_out, scales, bias)
        if k == 1:
            for number_, part in enumerate(front, 1):
                if isinstance(part, Table) and part.summed:
                    self._summed(part, number_, n_out)
        self._after(layer, k, n_out, last)
        self.add("}}", 1)

    def _mean(
        self, chain: Chain, member: Member, weights: Array, bias: Array | None
    ) -> Array | None:
        """Return a bias that makes up for what the mean loses in float32."""
        assert chain.mean is not None and not member.front
        lost = chain.mean - chain.mean.astype(np.float32).astype(np.float64)
        if not lost.any():
            return bias
        shift = lost @ weights.astype(np.float64)
        return np.asarray((0.0 if bias is None else bias.astype(np.float64)) - shift)

    def _start(self, k: int, n_out: int, bias: Array | None) -> None:
        first = "0.0f"
        if bias is not None and not self.int8:
            first = self.value(self.table(f"b{k}", bias, f"the bias of layer {k}"), "j")
        self.add(f"for (j = 0; j < {n_out}; j++)\n    b[j] = {first};")

    def _scale(self, k: int, n_out: int, scales: Array, bias: Array | None) -> None:
        """The factors of 8-bit weights, once for each sum."""
        s = self.value(self.table(f"s{k}", scales, f"the scales of layer {k}"), "j")
        shift = ""
        if bias is not None:
            shift = " + " + self.value(self.table(f"b{k}", bias, f"the bias of layer {k}"), "j")
        self.add(f"for (j = 0; j < {n_out}; j++)\n    b[j] = b[j] * {s}{shift};")

    def _after(self, layer: Layer, k: int, n_out: int, last: bool) -> None:
        for place, step in enumerate(layer.then):
            if isinstance(step, LayerNorm):
                self._normalise(step, k, n_out)
            elif isinstance(step, Activation):
                final = last and place == len(layer.then) - 1
                if self.head or not final:
                    self._activate(step, k, n_out)

    def _normalise(self, step: LayerNorm, k: int, n_out: int) -> None:
        gamma = self.value(self.table(f"gamma{k}", step.gamma, f"gamma of layer {k}"), "j")
        beta = self.value(self.table(f"beta{k}", step.beta, f"beta of layer {k}"), "j")
        each = f"for (j = 0; j < {n_out}; j++)"
        self.body.library.add("sqrtf")
        share = number(1 / n_out)
        self.add(
            "{{\n"
            "    float mean = 0.0f, variance = 0.0f;\n"
            f"    {each}\n        mean += b[j];\n"
            f"    mean *= {share};\n"
            f"    {each} {{{{\n        b[j] -= mean;\n        variance += b[j] * b[j];\n    }}}}\n"
            f"    variance = 1.0f / sqrtf(variance * {share} + {number(step.epsilon)});\n"
            f"    {each}\n        b[j] = b[j] * variance * {gamma} + {beta};\n"
            "}}"
        )

    def _activate(self, step: Activation, k: int, n_out: int) -> None:
        self.body.library.update(library(step.kind))
        if step.name == "softmax":
            self.body.helpers.add("softmax")
            self.add(f"{self.name}_softmax(b, {n_out});")
            return
        formula = FORMULAS[step.kind]
        if formula is None:
            return
        if step.name == "relu":
            value = "(b[j] < 0.0f ? 0.0f : b[j])"
        else:
            self.body.helpers.add(step.name)
            value = f"{self.name}_{identifier(step.name)}(b[j])"
        if step.alphas is not None:
            alpha = self.value(self.table(f"alpha{k}", step.alphas, f"alpha of layer {k}"), "j")
            value = f"b[j] + {alpha} * ({value} - b[j])"
        elif value.startswith("("):
            value = value[1:-1]
        self.add(f"for (j = 0; j < {n_out}; j++)\n    b[j] = {value};")

    def _unit(self, member: Member) -> None:
        unit = member.unit
        assert unit is not None
        n = member.n_out
        values = []
        for short, array in (("spread", unit.spread), ("centre", unit.centre)):
            full = np.broadcast_to(np.asarray(array, np.float64), (n,))
            values.append(self.value(self.table(short, full, short), "j"))
        lines = [f"y[j] = y[j] * {values[0]} + {values[1]};"]
        for short, array, sign in (("low", unit.low, "<"), ("high", unit.high, ">")):
            full = np.broadcast_to(np.asarray(array, np.float64), (n,))
            if np.isinf(full).all():
                continue
            bound = self.value(self.table(short, full.clip(-LARGEST, LARGEST), short), "j")
            lines += [f"if (y[j] {sign} {bound})", f"    y[j] = {bound};"]
        inner = "\n".join("        " + line for line in lines)
        loop = f"    for (j = 0; j < {n}; j++) {{{{\n{inner}\n    }}}}"
        self.add(f"{{{{\n    unsigned j;\n{loop}\n}}}}", 1)

    # Columns that are no inputs of the first layer by themselves ------------------------------

    def _part(self, part: Part, number_: int, n_out: int, axpy: str) -> None:
        if isinstance(part, Plain):
            self.add(_loop("i", part.count, f"const float v = x[{part.first} + i];\n{axpy}"))
        elif isinstance(part, Periodic):
            self._periodic(part, number_, axpy)
        elif not part.summed:
            e = self.table(f"e{number_}", part.rows, f"the table of column {part.column}")
            width = int(part.rows.shape[1])
            line = _between(self.read, "r", width, "i")
            loop = _loop("i", width, f"const float v = {line};\n{axpy}")
            self.add(_place(part, e, loop))

    def _summed(self, part: Table, number_: int, n_out: int) -> None:
        e = self.table(f"e{number_}", part.rows, f"the table of column {part.column}")
        line = _between(self.read, "r", n_out, "j")
        self.add(_place(part, e, f"for (j = 0; j < {n_out}; j++)\n    b[j] += {line};"))

    def _periodic(self, part: Periodic, number_: int, axpy: str) -> None:
        frequencies, width = int(part.w.shape[1]), int(part.V.shape[1])
        what = f"the waves of column {part.first}"
        self.body.library.add("cosf")
        p = self.table(f"p{number_}", part.w.astype(np.float64) * (2 * np.pi), what)
        q = self.table(f"q{number_}", part.b, what)
        V = self.table(f"v{number_}", part.V, what)
        d = self.table(f"d{number_}", part.d, what)
        at = f"c * {frequencies} + i"
        wave = f"cosf(t * {self.value(p, at)} + {self.value(q, at)})"
        term = f"u[i] * {self.value(V, f'(c * {width} + k) * {frequencies} + i')}"
        embed = (
            f"float v = {self.value(d, f'c * {width} + k')};\n"
            f"for (i = 0; i < {frequencies}; i++)\n    v += {term};\n{axpy}"
        )
        self.add(
            f"{{{{\n    float *u = scratch + {self.body.scratch - frequencies};\n"
            "    unsigned c, k;\n"
            f"    for (c = 0; c < {part.count}; c++) {{{{\n"
            f"        const float t = x[{part.first} + c];\n"
            f"        for (i = 0; i < {frequencies}; i++)\n            u[i] = {wave};\n"
            + _indent(_loop("k", width, embed), 2)
            + "\n        {{\n            const float v = t;\n"
            + _indent(axpy, 3)
            + "\n        }}\n    }}\n}}"
        )


def _axpy(cast: str, n_out: int, row: str | None = None) -> str:
    """Return the sums' part of one input `v`; an input of 0 has none.

    Weights are those of `row`; without it `w` moves on to the next one. GCC makes vectors of a
    loop at -O2 only if it sees which table a row is of, which a pointer that moves hides.
    """
    text = (
        "if (v != 0.0f)\n"
        f"    for (j = 0; j < {n_out}; j++)\n"
        f"        b[j] += v * {cast}({row or 'w'} + j);"
    )
    return text if row else f"{text}\nw += {n_out};"


def _indent(text: str, level: int) -> str:
    return "\n".join("    " * level + line for line in text.split("\n"))


def _loop(index: str, count: int, inner: str) -> str:
    return f"for ({index} = 0; {index} < {count}; {index}++) {{{{\n{_indent(inner, 1)}\n}}}}"


def _between(read: str, row: str, width: int, index: str) -> str:
    """Return an element of a table's row, or of the line from it to the next one."""
    here = f"{read}({row} + {index})"
    return f"f > 0.0f ? (1.0f - f) * {here} + f * {read}({row} + {width} + {index}) : {here}"


def _place(part: Table, e: str, inner: str) -> str:
    """Return a block where `r` is a row of a table and `f` the way to the next one."""
    n_rows, width = part.rows.shape
    top = number(float(n_rows - 1))
    return (
        "{{\n"
        f"    float t = x[{part.column}] > 0.0f ? x[{part.column}] : 0.0f, f;\n"
        "    const float *r;\n"
        f"    if (t > {top})\n        t = {top};\n"
        f"    r = {e} + (unsigned long)t * {width};\n"
        "    f = t - (float)(unsigned long)t;\n" + _indent(inner, 1) + "\n}}"
    )
