"""A chain as C: one file of C99 and C++98, without memory of its own.

Every table is constant, the caller gives the scratch, nothing else is written: the functions are
reentrant. Weights lie as (inputs, outputs), and each input adds its row to the sums, in the order
of the cores; that loop needs no fast-math to become vectors, and an input of 0 costs nothing.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from cmlp.core.layout import Array
from cmlp.formats.c.formulas import helper
from cmlp.formats.c.layers import Body, Writer, layers_of, quantise
from cmlp.formats.c.self_test import Rows, rows_of, self_test
from cmlp.formats.c.text import (
    check_name,
    comment,
    lines_of,
    long_literal,
    names_in_comment,
    number,
    string,
    whole_numbers,
    words,
)
from cmlp.formats.chain import Activation, Affine, Chain, ConversionError, Member, check
from cmlp.formats.source_text import task_of

MANY_WEIGHTS = 1_000_000
AVR_OBJECT = 32_767  # bytes of the largest object that avr-gcc knows


@dataclass(frozen=True)
class CText:
    """A model in C.

    Attributes
    ----------
    source : str
        Definitions, after the declarations.
    header : str
        The declarations alone; '' if the source is a header.
    deviation : float
        Largest difference between float32 and float64 arithmetic on the rows of the self-test.
    """

    source: str
    header: str
    deviation: float


def write_c(
    chain: Chain,
    name: str,
    *,
    static: bool = False,
    int8: bool = False,
    raw: bool = False,
    X: ArrayLike | None = None,
    stack_limit: int = 2048,
    version: str = "",
) -> CText:
    """Return a chain as C.

    Parameters
    ----------
    name : str
        First part of all identifiers.
    static : bool
        Whether the text is a header whose functions are all static.
    int8 : bool
        Whether weights are whole numbers of 8 bits, with a factor for each unit.
    raw : bool
        Whether outputs are the sums before the last activation.
    X : array_like, (n, n_in), optional
        Rows for the self-test, and for the deviation.
    stack_limit : int
        Bytes of scratch that `NAME_predict` may have on the stack.
    version : str
        Of cmlp, for the comment.

    Raises
    ------
    ConversionError
        If the name, a label or a weight has no place in C.
    """
    check_name(name)
    if task_of(chain) == "one":
        raise ConversionError(
            f"this classifier has one class, {words(np.asarray(chain.classes))}: there is nothing "
            "to compute"
        )
    chain = check(narrow(chain, int8))
    return _File(chain, name, static, int8, raw, stack_limit).text(X, version)


def narrow(chain: Chain, int8: bool) -> Chain:
    """Return the chain that the file computes: its weights as they are written, in float32."""
    if not int8:
        return chain
    members = []
    for member in chain.members:
        steps = []
        for step in member.steps:
            if isinstance(step, Affine):
                whole, scales = quantise(step.weights)
                step = replace(step, weights=whole.astype(np.float64) * scales.astype(np.float64))
            steps.append(step)
        members.append(replace(member, steps=tuple(steps)))
    return replace(chain, members=tuple(members))


class _File:
    """The parts of one file."""

    def __init__(
        self, chain: Chain, name: str, static: bool, int8: bool, raw: bool, stack_limit: int
    ) -> None:
        self.chain, self.name, self.NAME = chain, name, name.upper()
        self.static, self.int8, self.raw, self.stack_limit = static, int8, raw, stack_limit
        self.many = len(chain.members) > 1
        self.classifies = chain.head in ("softmax", "logistic")
        last = chain.members[0].steps[-1]
        assert isinstance(last, Activation)
        if self.many and raw and last.name != "identity":
            self.classifies = False  # the mean of scores does not tell the class
        self.split = self.classifies and not self.many
        self.bodies = [self._body(member) for member in chain.members]
        n = chain.n_out
        inner = max(body.scratch for body in self.bodies)
        self.scratch = inner + n * (1 + self.classifies) if self.many else inner

    def _body(self, member: Member) -> Body:
        writer = Writer(
            self.name,
            int8=self.int8,
            head=not (self.raw or self.split),
            outputs_in_scratch=self.split,
        )
        return writer.member(self.chain, member)

    # Text -----------------------------------------------------------------------------------

    def text(self, X: ArrayLike | None, version: str) -> CText:
        """Return the whole file, and its declarations."""
        rows = rows_of(self.chain, X, raw=self.raw)
        guard = f"{self.NAME}_H"
        opening = f"#ifndef {guard}\n#define {guard}\n\n"
        declared = self._interface()
        functions = self._functions()
        definitions = "\n".join(
            part
            for part in (
                self._includes(), self._tables(), self._labels(), functions, self._test(rows)
            )
            if part
        )  # fmt: skip
        about = self._about(rows, X is not None, version)
        if self.static:
            text = f"{about}{opening}{self._macros()}\n{definitions}\n#endif\n"
            return CText(text, "", rows.deviation)
        header = f"{opening}{self._macros()}\n{declared}\n#endif\n"
        return CText(f"{about}{header}\n{definitions}", about + header, rows.deviation)

    def _macros(self) -> str:
        lines = [
            f"#define {self.NAME}_INPUTS {self.chain.n_in}",
            f"#define {self.NAME}_OUTPUTS {self.chain.n_out}",
            f"#define {self.NAME}_SCRATCH {self.scratch} /* floats */",
        ]
        if self.chain.classes is not None:
            lines.append(f"#define {self.NAME}_CLASSES {len(self.chain.classes)}")
        return "\n".join(lines) + "\n"

    def _prototypes(self) -> list[tuple[str, str]]:
        """Return the public functions, each with a comment."""
        n = self.name
        rows = [
            (
                f"void {n}_outputs(const float *x, float *y, float *scratch)",
                f"y[{self.chain.n_out}] from x[{self.chain.n_in}]; x, y and scratch do not overlap",
            )
        ]
        if self.classifies:
            rows.append((f"int {n}_class(const float *x, float *scratch)", "index of the class"))
        if self._two:
            rows.append(
                (
                    f"void {n}_probabilities(const float *x, float *p, float *scratch)",
                    "p[2], of both classes",
                )
            )
        if 4 * self.scratch <= self.stack_limit:
            rows.append(
                (
                    f"void {n}_predict(const float *x, float *y)",
                    f"as {n}_outputs, with {4 * self.scratch} bytes on the stack",
                )
            )
        return rows

    @property
    def _two(self) -> bool:
        return self.chain.head == "logistic" and not self.raw

    def _interface(self) -> str:
        lines = ["#ifdef __cplusplus", 'extern "C" {', "#endif"]
        for declaration, about in self._prototypes():
            lines += [f"/* {about} */", f"{declaration};"]
        if self.chain.classes is not None:
            kind = self._label_kind()
            lines.append(f"extern {kind}[{self.NAME}_CLASSES];")
        lines += ["#ifdef __cplusplus", "}", "#endif", ""]
        return "\n".join(lines)

    def _label_kind(self) -> str:
        assert self.chain.classes is not None
        if whole_numbers(self.chain.classes) is not None:
            return f"const long {self.name}_class_values"
        return f"const char *const {self.name}_class_names"

    def _labels(self) -> str:
        classes = self.chain.classes
        if classes is None:
            return ""
        whole = whole_numbers(classes)
        if whole is None:
            items = [string(word) for word in words(classes)]
        else:
            items = [long_literal(value) for value in whole]
        static = "static " if self.static else ""
        kind = self._label_kind()
        return f"{static}{kind}[{self.NAME}_CLASSES] = {{\n{lines_of(items)}\n}};\n"

    def _includes(self) -> str:
        read, flash = f"{self.NAME}_READ", f"{self.NAME}_FLASH"
        lines = []
        if any(body.library for body in self.bodies) or self._head_library():
            lines.append("#include <math.h>\n")
        lines += [
            "#if defined(__AVR__) || defined(ESP8266)",
            "#ifdef __AVR__",
            "#include <avr/pgmspace.h>",
            "#else",
            "#include <pgmspace.h>",
            "#endif",
            f"#define {flash} PROGMEM",
            f"#define {read}(p) pgm_read_float(p)",
            f"#define {read}_INT8(p) ((float)(signed char)pgm_read_byte(p))",
            "#else",
            f"#define {flash}",
            f"#define {read}(p) (*(p))",
            f"#define {read}_INT8(p) ((float)*(p))",
            "#endif",
        ]
        for table, values in self._all_tables().items():
            if values.nbytes > AVR_OBJECT:
                lines += [
                    "#ifdef __AVR__",
                    f'#error "{table} has {values.nbytes} bytes; an object has at most '
                    f'{AVR_OBJECT} here"',
                    "#endif",
                ]
        return "\n".join(lines) + "\n"

    def _head_library(self) -> bool:
        last = self.chain.members[0].steps[-1]
        return self.split and not self.raw and isinstance(last, Activation)

    def _all_tables(self) -> dict[str, Array]:
        """Return every table by its name in the file; members share what is equal."""
        tables: dict[str, Array] = {}
        for number_, body in enumerate(self.bodies):
            for short, values in body.tables.items():
                tables[self._table_name(number_, short)] = values
        return tables

    def _table_name(self, number_: int, short: str) -> str:
        if short == "mean" or not self.many:
            return f"{self.name}_{short}"
        return f"{self.name}_{number_}_{short}"

    def _tables(self) -> str:
        parts = []
        for table, values in self._all_tables().items():
            if values.dtype == np.int8:
                kind, items = "signed char", [str(value) for value in values.tolist()]
            else:
                kind, items = "float", [number(value) for value in values.tolist()]
            parts.append(
                f"static const {kind} {table}[{len(items)}] {self.NAME}_FLASH = {{\n"
                f"{lines_of(items)}\n}};\n"
            )
        return "\n".join(parts)

    # Functions ------------------------------------------------------------------------------

    def _functions(self) -> str:
        helpers = {name for body in self.bodies for name in body.helpers}
        last = self.chain.members[0].steps[-1]
        assert isinstance(last, Activation)
        if self.split and not self.raw:
            helpers.add(last.name)
        parts = [helper(self.name, name) for name in sorted(helpers)]
        arguments = "const float *x, float *y, float *scratch"
        if self.many:
            parts += self._members(arguments)
        elif self.split:
            parts.append(_define(f"static void {self.name}_sums({arguments})", self._direct()))
        kind = "static inline " if self.static else ""
        parts.append(_define(f"{kind}void {self.name}_outputs({arguments})", self._outputs()))
        bodies = {"class": self._class, "probabilities": self._both, "predict": self._predict}
        for declaration, _ in self._prototypes()[1:]:
            which = declaration.split("(")[0].rsplit("_", 1)[1]
            parts.append(_define(kind + declaration, bodies[which]()))
        return "\n".join(part for part in parts if part)

    def _direct(self) -> str:
        """Return the one member's statements, which name the tables themselves."""
        body = self.bodies[0]
        names = {short: self._table_name(0, short) for short in body.tables}
        unused = "" if "scratch" in body.statements else "    (void)scratch;\n"
        return unused + body.statements.format(**names)

    def _members(self, arguments: str) -> list[str]:
        """Return functions of the members; equal networks share one, which gets their tables."""
        self.functions: dict[str, str] = {}
        parts = []
        for body in self.bodies:
            if body.statements in self.functions:
                continue
            function = f"{self.name}_member{len(self.functions)}"
            self.functions[body.statements] = function
            kinds = {
                short: "signed char" if values.dtype == np.int8 else "float"
                for short, values in body.tables.items()
            }
            tables = "".join(f"    const {kind} *{short},\n" for short, kind in kinds.items())
            unused = "" if "scratch" in body.statements else "    (void)scratch;\n"
            text = unused + body.statements.format(**{short: short for short in kinds})
            parts.append(_define(f"static void {function}(\n{tables}    {arguments})", text))
        return parts

    def _outputs(self) -> str:
        n, count = self.chain.n_out, len(self.chain.members)
        if not self.many:
            if not self.split:
                return self._direct()
            return f"    {self.name}_sums(x, y, scratch);\n" + ("" if self.raw else self._head())
        lines = ["    float *t = scratch;", "    unsigned j;"]
        for number_, body in enumerate(self.bodies):
            tables = "".join(f"{self._table_name(number_, short)}, " for short in body.tables)
            to = "t" if number_ else "y"
            call = self.functions[body.statements]
            lines.append(f"    {call}({tables}x, {to}, scratch + {n});")
            if number_:
                lines.append(f"    for (j = 0; j < {n}; j++)\n        y[j] += t[j];")
        lines.append(f"    for (j = 0; j < {n}; j++)\n        y[j] *= {number(1 / count)};")
        return "\n".join(lines) + "\n"

    def _head(self) -> str:
        if self.chain.head == "softmax":
            return f"    {self.name}_softmax(y, {self.chain.n_out});\n"
        return f"    y[0] = {self.name}_logistic(y[0]);\n"

    def _class(self) -> str:
        n, name = self.chain.n_out, self.name
        layers = len(layers_of(self.chain.members[0]))
        at = f"scratch + {self.scratch - n}" if not self.many and layers % 2 == 0 else "scratch"
        call = f"{name}_sums(x, y, scratch)"
        if self.many:
            call = f"{name}_outputs(x, y, scratch + {n})"
        start = f"    float *y = {at};\n"
        if self.chain.head == "logistic":
            threshold = "0.5f" if self.many else "0.0f"
            return f"{start}    {call};\n    return y[0] > {threshold};\n"
        return (
            f"{start}    unsigned j, best = 0;\n    {call};\n"
            f"    for (j = 1; j < {n}; j++)\n"
            "        if (y[j] > y[best])\n            best = j;\n"
            "    return (int)best;\n"
        )

    def _both(self) -> str:
        return f"    {self.name}_outputs(x, p + 1, scratch);\n    p[0] = 1.0f - p[1];\n"

    def _predict(self) -> str:
        return f"    float scratch[{self.NAME}_SCRATCH];\n    {self.name}_outputs(x, y, scratch);\n"

    def _test(self, rows: Rows) -> str:
        return self_test(self.name, self.chain, rows, with_class=self.classifies)

    # The comment ------------------------------------------------------------------------------

    def _about(self, rows: Rows, given: bool, version: str) -> str:
        chain, tables = self.chain, self._all_tables()
        sizes = [str(layers_of(chain.members[0])[0].shape[0])]
        sizes += [str(layer.shape[1]) for layer in layers_of(chain.members[0])]
        of = f"{len(chain.members)} networks, each " if self.many else ""
        flash = sum(values.nbytes for values in tables.values())
        products = sum(
            layer.shape[0] * layer.shape[1] for m in chain.members for layer in layers_of(m)
        )
        if products > MANY_WEIGHTS:
            warnings.warn(
                f"{products} weights make a C file of {products * 14 // 10**6} MB or so, which "
                "compiles slowly; ONNX is the format for models of this size",
                UserWarning,
                stacklevel=4,
            )
        rounded = chain.dtype == np.float64 and not self.int8
        outputs = {"softmax": "probabilities", "logistic": "probability of class 1"}
        what = "scores" if self.raw else outputs.get(chain.head, "")
        if not what:
            what = "probabilities of labels" if chain.multilabel else "numbers"
        where = "rows of X" if given else "drawn rows"
        stack = 4 * self.scratch + 256
        lines = [
            f"{self.name}: {of}{'-'.join(sizes)}, written by cmlp {comment(version)}".rstrip(),
            "Generated from your model; the generator claims no rights in this file (0BSD).",
            "",
            f"inputs: x[{chain.n_in}]"
            + (", their means are subtracted here" if chain.mean is not None else "")
            + (", encoded columns" if any(m.front for m in chain.members) else ""),
            *names_in_comment("x", chain.feature_names or ()),
            f"outputs: y[{chain.n_out}], {what}",
            *self._label_lines(),
            f"weights: {'8-bit, a factor for each unit' if self.int8 else 'float32'}"
            + (", rounded from float64" if rounded else ""),
            f"flash: {flash} bytes of tables; RAM: {4 * self.scratch} bytes of scratch; "
            f"stack: at most {stack} bytes; {products} multiply-adds",
            f"largest deviation of float32 from float64 on {rows.count} {where}: "
            f"{rows.deviation:.1e}",
            "NaN and infinite inputs are not refused.",
            f"-D{self.NAME}_SELFTEST adds a main() that returns 0 if all is right."
            if len(rows.x)
            else "There is no self-test: every row overflows.",
        ]
        if chain.classes is not None and whole_numbers(chain.classes) is None:
            lines.append("On AVR the class names are in RAM, unless the linker drops them.")
        return "/*\n" + "".join(f" * {line}".rstrip() + "\n" for line in lines) + " */\n"

    def _label_lines(self) -> list[str]:
        chain = self.chain
        if chain.classes is None:
            return [f"  of '{comment(chain.target_name)}'"] if chain.target_name else []
        if chain.head == "logistic":
            return names_in_comment("class", words(chain.classes))
        return names_in_comment("y", words(chain.classes))


def _define(declaration: str, body: str) -> str:
    return f"{declaration}\n{{\n{body}}}\n"
