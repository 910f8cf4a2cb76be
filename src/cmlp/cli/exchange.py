"""``cmlp export`` and ``cmlp import``: models for other programs, and from them."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import tempfile
from collections.abc import Iterable
from typing import Any

from cmlp.cli.output import check_output
from cmlp.cli.tables import read_for
from cmlp.core.layout import Array
from cmlp.estimators.loading import load
from cmlp.estimators.mlp import MLP
from cmlp.exchange.c import to_c
from cmlp.exchange.chains import chain_of
from cmlp.exchange.javascript import to_javascript
from cmlp.exchange.keras import from_keras, to_keras
from cmlp.exchange.onnx import from_onnx, to_onnx
from cmlp.exchange.python import to_python
from cmlp.exchange.safetensors import from_safetensors, to_safetensors
from cmlp.formats.chain import Affine, ConversionError
from cmlp.formats.whole_file import write_files
from cmlp.network import Network

ONNX, C, PYTHON = (".onnx",), (".c", ".h"), (".py",)
JAVASCRIPT, SAFETENSORS = (".js", ".mjs", ".cjs"), (".safetensors",)

EXPORTS = (*ONNX, *C, *PYTHON, *JAVASCRIPT, *SAFETENSORS, ".keras")
EXPORT_OPTIONS = {
    "name": C, "header": (".c",), "int8": C, "sample": C, "raw": ONNX + C, "no_labels": ONNX,
    "opset": ONNX, "input_dtype": ONNX, "columns": ONNX, "pure": PYTHON, "layout": SAFETENSORS,
}  # fmt: skip
"""Options of `export`, and the endings that they are for."""

KERAS = (".keras", ".h5")
IMPORTS = (*ONNX, *KERAS, *SAFETENSORS)
IMPORT_OPTIONS = {
    "classes": KERAS + SAFETENSORS, "out_activation": KERAS + SAFETENSORS,
    "activation": SAFETENSORS, "layout": SAFETENSORS,
}  # fmt: skip

PICKLED = (".pt", ".pth", ".pkl", ".pickle", ".joblib")


def export(args: argparse.Namespace) -> int:
    """Write a model for another program; return the exit code."""
    suffix = _suffix(args.out, EXPORTS, f"--out {args.out}")
    _check_options(args, EXPORT_OPTIONS, suffix)
    written = [args.out]
    if args.header:
        written.append(os.path.splitext(args.out)[0] + ".h")
    for path in written:
        check_output(path, args.model, *filter(None, [args.sample]))
    model = _load(args.model)
    if suffix in ONNX:
        given = {"opset": args.opset} if args.opset is not None else {}
        to_onnx(
            model, args.out, labels=not args.no_labels, raw=args.raw,
            input_dtype=args.input_dtype, columns=args.columns, **given,
        )  # fmt: skip
    elif suffix in C:
        to_c(
            model, args.out, name=args.name, header=args.header, raw=args.raw,
            weights="int8" if args.int8 else "float32", X=_sample(model, args),
        )  # fmt: skip
    elif suffix in PYTHON:
        to_python(model, args.out, pure=args.pure)
    elif suffix in JAVASCRIPT:
        to_javascript(model, args.out, module=suffix != ".cjs")
    elif suffix in SAFETENSORS:
        to_safetensors(model, args.out, args.layout or "torch")
    else:
        _write_keras(model, args.out)
    print(f"{args.out}: {os.path.getsize(args.out):,} bytes; {_costs(model, args.out, suffix)}")
    return 0


def import_(args: argparse.Namespace) -> int:
    """Save the network that a file of another program holds; return the exit code."""
    suffix = _suffix(args.file, IMPORTS, args.file)
    _check_options(args, IMPORT_OPTIONS, suffix)
    if os.path.splitext(args.out)[1].lower() in {*EXPORTS, *IMPORTS} - {*SAFETENSORS}:
        raise ValueError(
            f"--out {args.out}: a model file of cmlp is written, such as model.cmlp; another "
            "format is written of it by cmlp export"
        )
    check_output(args.out, args.file)
    try:
        net = _read(args, suffix)
    except ConversionError as error:
        raise ConversionError(f"{args.file}: {error}") from error
    if not isinstance(net, Network):
        raise ConversionError(
            f"{args.file} is the mean of {len(net.estimators_)} networks, but a model file holds "
            f"one: cmlp export {args.file} writes it in other formats, and cmlp.from_onnx returns "
            "them in Python"
        )
    net.save(args.out)
    sizes = "-".join(map(str, net.sizes))
    print(
        f"{args.out}: {os.path.getsize(args.out):,} bytes; {sizes}, "
        f"{', '.join(dict.fromkeys(net.activations))}, loss {net.loss_name}"
    )
    return 0


def _load(path: str) -> Any:
    """Return the model of a model file, or of one in ONNX, which ensembles and pipelines have."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in PICKLED:
        raise ValueError(
            f"{path}: {suffix} may hold code, which this command does not run; write the model in "
            "Python, by cmlp.to_onnx(model, 'model.onnx'), and export that file"
        )
    if suffix not in ONNX:
        return load(path)
    try:
        return from_onnx(path)
    except ConversionError as error:
        raise ConversionError(f"{path}: {error}") from error


def _read(args: argparse.Namespace, suffix: str) -> Any:
    """Return what a file of another program holds."""
    if suffix in ONNX:
        return from_onnx(args.file, loss=args.loss)
    ends = {
        "out_activation": args.out_activation, "loss": args.loss, "classes": args.classes or None,
    }  # fmt: skip
    if suffix in KERAS:
        return from_keras(args.file, **ends)
    hidden = args.activation
    one = hidden[0] if hidden and len(hidden) == 1 else hidden or None
    return from_safetensors(args.file, args.layout, activation=one, **ends)


def _write_keras(model: Any, path: str) -> None:
    """Write the file of Keras 3, by Keras, to another place first."""
    if importlib.util.find_spec("keras") is None:
        raise ImportError(f"--out {path} needs Keras 3: pip install keras")
    os.environ.setdefault("KERAS_BACKEND", "numpy")  # the file is the same with any
    with tempfile.TemporaryDirectory() as folder:
        saved = os.path.join(folder, "model.keras")
        to_keras(model).save(saved)
        with open(saved, "rb") as file:
            write_files({path: file.read()})


def _suffix(path: str, known: Iterable[str], what: str) -> str:
    """Return the ending of a name, if it is known."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in known:
        return suffix
    hint = ""
    if suffix in PICKLED:
        hint = (
            f"; {suffix} may hold code, which this command neither writes nor runs: see "
            "cmlp.to_torch, from_torch, to_sklearn and from_sklearn"
        )
    raise ValueError(f"{what}: expected a name that ends in {', '.join(known)}{hint}")


def _check_options(
    args: argparse.Namespace, options: dict[str, tuple[str, ...]], suffix: str
) -> None:
    """Refuse options of other formats."""
    for name, suffixes in options.items():
        if getattr(args, name) not in (None, False) and suffix not in suffixes:
            raise ValueError(
                f"--{name.replace('_', '-')} is for {', '.join(suffixes)}, not for {suffix}"
            )


def _sample(model: Any, args: argparse.Namespace) -> Array | None:
    """Return the rows of --sample as the C functions take them."""
    if args.sample is None:
        return None
    how: dict[str, Any] = {"needs_target": False, "leave_out": [], "header": None}
    if isinstance(model, MLP):
        model = model.estimators_[0].network_
    if isinstance(model, Network):
        return read_for(model, args.model, args.sample, None, **how).X
    from cmlp.cli import model_table

    rows = model_table.read_rows(model, args.sample, args.model, None, **how)
    return rows.answer(model.encoder_.transform)


def _costs(model: Any, path: str, suffix: str) -> str:
    """Describe what a row costs; of C in the words of the file."""
    if suffix in C:
        with open(path, encoding="utf-8") as file:
            found = re.findall(r"^ \* (flash: .*|largest deviation .*)$", file.read(), re.MULTILINE)
        return "; ".join(found)
    steps = [step for member in chain_of(model).members for step in member.steps]
    arrays = [array for step in steps for array in vars(step).values() if hasattr(array, "size")]
    products = sum(step.weights.size for step in steps if isinstance(step, Affine))
    parameters = sum(array.size for array in arrays)
    return f"{parameters:,} parameters of layers, {products:,} multiply-adds a row"
