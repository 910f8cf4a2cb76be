"""The options of the ``cmlp`` command, and the pages that --help prints."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any, NoReturn

from cmlp import __version__
from cmlp.data.cells import FEW

_CODES = """\
exit codes:
  0 success; 1 training diverged, or another failure; 2 bad input or usage;
  130 Ctrl-C (during `train`: what was learned so far is saved first)
"""


_DATA = """\
DATA is CSV in UTF-8 (with a header or without, also .csv.gz and .csv.zst), cut at commas,
semicolons, tabs or bars; Parquet or Feather (with pyarrow installed); or .npz (arrays X and y, or
X_train, y_train, X_test, y_test) or .npy. A column is called by its name or number: 0 is the first,
-1 the last.

The first line of a CSV is a header if it has a name that is given (by --target, --ignore or the
model), or if it is unlike the lines below: words above numbers, integers above decimals, quotes
above none. A line of the report states a close decision; --header and --no-header decide it.
Columns without a name, such as a data frame's index, are left out.
"""


_MODEL_DATA = f"""\
{_DATA}
Where DATA has a header, the model's features are found by their names, in any order; other columns
may hold anything. A level that did not occur in training counts as missing, which a note states; a
cell that is no number, or no date, in a column of these is refused with its line. Without a header,
or if the model has no names, all columns but the target and those to leave out are its features, in
their order.
"""


_TRAIN = f"""\
{_DATA}
A column is numbers if its cells are, apart from empty ones and signs of a gap (NA, ?, null ...);
dates if they are in ISO's form (2024-05-31, 2024-05-31T09:30:00Z); true or false; otherwise text,
whose values are categories. Text that is nearly unique per row, and columns of one value, are left
out; a table shows what each column is. --categories, --numbers, --dates and --ignore decide
otherwise. One bad cell among numbers or dates is refused with its line. Rows without a target are
left out, which a note states.

Training, and every default, is that of cmlp.TabularClassifier and cmlp.TabularRegressor: part of
the rows is held out, and the epoch that predicts them best is kept. --cv and --ensemble train
several networks, whose mean predicts.

Classification or regression follows from the target. It is classification if the target is text, or
whole numbers written without a point with at most {FEW} different values (each on at least two rows
on average); anything else is regression. --loss (but squared_error) and --task decide otherwise.
Labels keep their text: 007 stays 007. Text among numbers, dates, and text that hardly repeats are
rejected as a target, unless --task classification makes them labels.

--plain trains one network on a table of numbers without gaps, with the defaults shown. Features are
standardised by mean and deviation of the training rows, as is the target of a regression; at the
end both are folded into the first and the last layer, so that the saved network takes raw features
and returns raw numbers. A column that is constant in training is left unused.

Several files, as 'trips/*.parquet', or files larger than --memory are read once to learn the
columns, and then in windows of rows while one network is trained. With --checkpoint the same
command again continues a training that was ended, and does nothing if it was complete.

Ctrl-C ends the training, not the command: what was learned is saved, and the exit code is 130.

examples:
  cmlp train titanic.csv --target Survived --ignore PassengerId
  cmlp train houses.csv --target price --categories zip --max-time 60 --out houses.cmlp
  cmlp train clicks.parquet --target clicked --metric loss --cv 5
  cmlp train 'trips/*.parquet' --target fare --memory 1GB --checkpoint run.cmlp
  cmlp train no_header.csv --target -1 --ignore 0 --loss quantile --quantile 0.9
  cmlp train digits.npz --plain --solver adam --schedule cosine --epochs 30 --core avx2

{_CODES}"""


_EXAMPLES = {
    "predict": f"""\
{_MODEL_DATA}
Predictions go to standard output: a label (or number) per line; several outputs and --proba as CSV.

examples:
  cmlp predict model.cmlp new.csv
  cmlp predict model.cmlp new.csv --proba --out probabilities.csv
  cmlp predict model.cmlp test.csv --target species | head

{_CODES}""",
    "evaluate": f"""\
{_MODEL_DATA}
examples:
  cmlp evaluate model.cmlp test.csv --target species

{_CODES}""",
    "explain": f"""\
{_MODEL_DATA}
Prints the features by how much they add to the answers on average, compared with the mean answer
about the background; --out has every row: its answer is the base value and what the features add.

examples:
  cmlp explain model.cmlp test.csv --background train.csv
  cmlp explain model.cmlp new.csv --background train.csv --proba --out attributions.csv

{_CODES}""",
    "export": f"""\
The ending of FILE decides what is written:
  .onnx              for ONNX Runtime and whatever else reads ONNX
  .c, .h             C, with a program that tests it inside; .h alone is a header to include
  .py                Python and NumPy, or Python alone (--pure)
  .js, .mjs, .cjs    JavaScript: a module, or one of CommonJS (.cjs)
  .safetensors       weights for PyTorch, Keras or Flax (--layout)
  .keras             a model of Keras, which must be installed
A model of tables takes raw rows in Python and JavaScript, elsewhere encoded ones. MODEL may be in
ONNX, as cmlp.to_onnx writes ensembles and pipelines, and other programs their networks.

examples:
  cmlp export model.cmlp --out model.onnx
  cmlp export pipeline.onnx --out pipeline.c
  cmlp export model.cmlp --out digits.c --header --int8 --sample digits.npz
  cmlp export model.cmlp --out weights.safetensors --layout keras

{_CODES}""",
    "import": f"""\
FILE is .onnx, .keras or .h5 (saved by Keras 3, read with h5py), or .safetensors, whose arrays do
not tell activations: --activation and --out-activation do. Nothing in it is executed.

examples:
  cmlp import model.onnx --out model.cmlp
  cmlp import model.keras --classes cat,dog
  cmlp import weights.safetensors --activation relu --out-activation softmax

{_CODES}""",
    "info": f"examples:\n  cmlp info\n  cmlp info model.cmlp\n\n{_CODES}",
    "bench": f"examples:\n  cmlp bench\n  cmlp bench --quick\n\n{_CODES}",
    "course": f"examples:\n  cmlp course\n  cmlp course 5\n  cmlp course --all lessons\n\n{_CODES}",
    "demo": f"examples:\n  cmlp demo\n  cmlp demo --seed 1 --core python\n\n{_CODES}",
    "play": f"""\
The page is on this machine alone, at the address that is printed; its token lets nothing else use
it. It needs websockets: pip install 'cmlp[play]'.

examples:
  cmlp play
  cmlp play --lesson 5
  cmlp play class.json --no-browser

{_CODES}""",
    "train": _TRAIN,
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with one line instead of the whole usage."""
        self.exit(2, f"cmlp: error: {message} (see {self.prog} --help)\n")


def _names(text: str) -> list[str]:
    """Split a list at its commas, except those in quotes: 'id,"mass, kg"'."""
    found = re.findall(r'(?:^|,)\s*(?:"((?:[^"]|"")*)"\s*(?=,|$)|([^,]*))', text)
    names = [(quoted.replace('""', '"') or plain).strip() for quoted, plain in found]
    return [name for name in names if name]


def _sizes(text: str) -> list[int]:
    return [] if text == "none" else [int(size) for size in text.split(",")]


def _rows(text: str) -> int | str:
    return text if text == "all" else int(text)


FIT: tuple[tuple[str, Callable[[str], Any], Any, str], ...] = (
    ("solver", str, "sgd", "sgd, adam, adamw, nadam, rmsprop or lion"),
    ("epochs", int, 100, "times that every row is used, at most"),
    ("batch_size", _rows, 32, "rows per step, or 'all'"),
    ("learning_rate", float, None, "of a step (default: 0.01 for sgd, else 0.001)"),
    ("momentum", float, 0.9, "of sgd"),
    (
        "schedule",
        str,
        None,
        "of the rate: cosine, one_cycle, step, exponential, adaptive ...",
    ),
    ("l1", float, 0.0, "adds l1 sum|W| to the loss"),
    ("l2", float, 0.0, "adds l2/2 sum W^2 to the loss"),
    ("weight_decay", float, 0.0, "takes rate * decay * W off the weights at each step"),
    ("dropout", float, 0.0, "probability that a hidden unit is switched off"),
    ("input_noise", float, 0.0, "deviation of noise added to the inputs"),
    ("label_smoothing", float, 0.0, "moves the targets of cross-entropy towards equal shares"),
    ("clip_norm", float, None, "largest norm of a gradient"),
    ("patience", int, 20, "epochs without a lower validation loss to stop after; 0: never"),
    ("max_time", float, None, "seconds to stop after"),
)
"""Options that `Network.fit` takes under the same name, with the default of --plain."""

DEFAULTS: dict[str, Any] = {
    "hidden": [64, 32], "activation": ["relu"], "quantile": 0.5, "validation": 0.1,
    **{name: default for name, _, default, _ in FIT},
}  # fmt: skip
"""Of the options that --plain has a default for."""

PARAMETERS = {
    "hidden": "hidden_layer_sizes", "activation": "activation", "loss": "loss",
    "quantile": "quantile", "solver": "solver", "epochs": "max_iter", "batch_size": "batch_size",
    "learning_rate": "learning_rate_init", "schedule": "learning_rate",
    "weight_decay": "weight_decay", "dropout": "dropout", "label_smoothing": "label_smoothing",
    "patience": "n_iter_no_change", "max_time": "max_time", "validation": "validation_fraction",
    "seed": "random_state", "threads": "n_threads", "ensemble": "n_ensemble", "cv": "cv",
    "metric": "scoring",
}  # fmt: skip
"""Options of `train`, and the parameters of the tabular estimators that they set."""

ONLY_TABLES = (
    "categories", "numbers", "dates", "ensemble", "cv", "metric", "memory", "checkpoint",
    "checkpoint_every",
)  # fmt: skip

ONLY_PLAIN = ("momentum", "l1", "l2", "input_noise", "clip_norm", "no_scale")


def check_way(args: argparse.Namespace) -> None:
    """Refuse options of the other way to train; give those of --plain their defaults."""
    for name in ONLY_TABLES if args.plain else ONLY_PLAIN:
        if getattr(args, name) not in (None, False):
            option = f"--{name.replace('_', '-')}"
            raise ValueError(
                f"{option} does not go with --plain, which trains a network on numbers alone"
                if args.plain
                else f"{option} needs --plain, which trains a network on numbers alone"
            )
    if args.plain and args.more:
        raise ValueError("--plain reads one file; several are for training without it")
    if args.plain:
        for name, default in DEFAULTS.items():
            if getattr(args, name) is None:
                setattr(args, name, default)
        args.batch_size = None if args.batch_size == "all" else args.batch_size


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; the command is ``command`` in its namespace."""
    parser = _Parser(
        prog="cmlp",
        description="Multilayer perceptrons on the CPU.",
        epilog=f"start with:\n  cmlp demo\n  cmlp train --help\n\n{_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"cmlp {__version__}")
    parser.set_defaults(core=None)
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=_Parser
    )

    def command(name: str, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=_EXAMPLES[name],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name != "bench":
            sub.add_argument("--core", help="auto, avx512, avx2, baseline or python")
        return sub

    _add_demo(command("demo", "train, test and save a network of handwritten digits"))
    _add_play(command("play", "open a page that draws a network while it learns"))

    _add_train(command("train", "train on a table and save the model"))

    model: dict[str, Any] = {
        "metavar": "MODEL",
        "help": "a file that `cmlp train` or a save method wrote",
    }
    predict = command("predict", "print a model's prediction of each row")
    predict.add_argument("model", **model)
    _add_data(predict, "the target, which is left out (not needed with names)")
    predict.add_argument("--out", metavar="FILE", help="write CSV with a header there instead")
    predict.add_argument("--proba", action="store_true", help="a probability per class, as CSV")

    evaluate = command("evaluate", "measure how well a model predicts a known target")
    evaluate.add_argument("model", **model)
    _add_data(evaluate, "the column to predict (default: as in training; .npz: y)")

    _add_explain(command("explain", "tell what each feature adds to a model's answers"), model)

    info = command("info", "describe this machine's cores, or a model")
    info.add_argument("model", nargs="?", **model)

    _add_export(command("export", "write a model for ONNX, C, Python and others"), model)
    _add_import(command("import", "make a model of a file of another program"))

    _add_course(command("course", "list the lessons of the course, or write them as notebooks"))

    bench = command("bench", "time the compiled cores against the NumPy path")
    bench.add_argument("--quick", action="store_true", help="in 4 seconds instead of 20")
    return parser


def _add_demo(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--seed", type=int, default=0, help="(default: 0)")
    sub.add_argument("--epochs", type=int, help="(default: the recipe's)")
    sub.add_argument("--out", help="where the model goes (default: nowhere)")


def _add_explain(sub: argparse.ArgumentParser, model: dict[str, Any]) -> None:
    add = sub.add_argument
    add("model", **model)
    _add_data(sub, "the target, which is left out (not needed with names)")
    background = "a table of rows to compare with, such as the training data (default: DATA)"
    add("--background", metavar="TABLE", help=background)
    method = "deeplift (default), integrated_gradients or shapley"
    add("--method", default="deeplift", metavar="NAME", help=method)
    add("--proba", action="store_true", help="explain probabilities, not the sums before them")
    add("--out", metavar="FILE", help="write CSV there: a line for each row and answer")


def _add_export(sub: argparse.ArgumentParser, model: dict[str, Any]) -> None:
    add = sub.add_argument
    add("model", **model)
    add("--out", metavar="FILE", required=True, help="where it goes; its ending is the format")
    add("--name", metavar="NAME", help="(.c, .h) first part of names (default: that of FILE)")
    add("--header", action="store_true", help="(.c) write FILE with the ending .h, too")
    add("--int8", action="store_true", help="(.c, .h) weights of 8 bits")
    add("--sample", metavar="DATA", help="(.c, .h) a table: rows for the test in the file")
    add("--raw", action="store_true", help="(.onnx, .c, .h) leave the last activation out")
    add("--no-labels", action="store_true", help="(.onnx) write probabilities only")
    add("--opset", type=int, metavar="N", help="(.onnx) version of the operators, 13 to 24")
    add("--input-dtype", metavar="TYPE", help="(.onnx) float32, float64, uint8 or int64")
    add("--columns", action="store_true", help="(.onnx) an input per column of a model for tables")
    add("--pure", action="store_true", help="(.py) do without NumPy")
    add("--layout", metavar="NAME", help="(.safetensors) torch, keras or flax (default: torch)")


def _add_course(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("lesson", nargs="?", type=int, metavar="LESSON", help="1 to 8")
    add("--all", metavar="FOLDER", help="write all lessons there")
    add("--py", action="store_true", help="write Python instead of a notebook")
    add("--open", action="store_true", help="open it in Jupyter")


def _add_import(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("file", metavar="FILE", help="a file of another program")
    out = "where the model goes, replacing a file that is there (default: model.cmlp)"
    add("--out", default="model.cmlp", metavar="MODEL", help=out)
    add("--loss", metavar="NAME", help="for training (default: that of the last activation)")
    add("--classes", metavar="NAMES", type=_names, help="(not .onnx) labels, in order: cat,dog")
    last = "(not .onnx) of the outputs, where FILE ends in sums"
    add("--out-activation", metavar="NAME", help=last)
    hidden = "(.safetensors) of the hidden layers, one for all or one each"
    add("--activation", metavar="NAMES", type=_names, help=hidden)
    add("--layout", metavar="NAME", help="(.safetensors) torch, keras or flax (default: by names)")


def _add_play(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("setup", metavar="FILE", nargs="?", help="a set-up that the page has saved")
    add("--lesson", type=int, metavar="N", help="begin with lesson N of `cmlp course`, 1 to 8")
    add("--port", type=int, default=0, metavar="N", help="(default: a free one)")
    add("--no-browser", dest="browser", action="store_false", help="print the address alone")


def _add_data(sub: argparse.ArgumentParser, target: str) -> None:
    sub.add_argument("data", metavar="DATA", help="a table: CSV, Parquet, Feather, .npz or .npy")
    sub.add_argument("--target", metavar="COLUMN", help=target)
    leave_out = 'columns to leave out, by name or number: id,date,"a, b"'
    sub.add_argument("--ignore", metavar="NAMES", type=_names, default=[], help=leave_out)
    first = "whether the first line of a CSV names its columns (default: by what is in it)"
    sub.add_argument("--header", action=argparse.BooleanOptionalAction, help=first)


def _add_train(sub: argparse.ArgumentParser) -> None:
    _add_data(sub, "the column to predict (.npz: y by default)")
    sub.add_argument("more", metavar="...", nargs="*", help="more files with the same columns")
    _add_table(sub)
    _add_network(sub)
    _add_fit(sub)
    _add_storage(sub)
    add = sub.add_argument
    add(
        "--no-scale",
        action="store_true",
        help="take features and target as they are (needs --plain)",
    )
    add(
        "--out",
        default="model.cmlp",
        metavar="MODEL",
        help="where the model goes, replacing a file that is there (default: model.cmlp)",
    )
    add("--quiet", action="store_true", help="print errors only")


def _add_storage(sub: argparse.ArgumentParser) -> None:
    """Add how files are read that do not fit into memory."""
    add = sub.add_argument
    add("--memory", metavar="BYTES", help="for rows, such as 1GB: larger files are read in windows")
    add(
        "--checkpoint",
        metavar="FILE",
        help="written in between and at the end; the same command again continues from it",
    )
    add("--checkpoint-every", type=float, metavar="SECONDS", help="(default: 300)")


def _add_table(sub: argparse.ArgumentParser) -> None:
    """Add what becomes of columns, members, and what is measured."""
    add = sub.add_argument
    for kind in ("categories", "numbers", "dates"):
        what = f"columns that are {kind}, by name or number (default: by their cells)"
        add(f"--{kind}", metavar="NAMES", type=_names, help=what)
    add("--ensemble", type=int, metavar="N", help="networks, per fold if there are folds")
    add("--cv", type=int, metavar="N", help="folds: each is left out of the training of some")
    add(
        "--metric",
        metavar="NAME",
        help="what the best epoch is chosen by: accuracy, r2, loss (for probabilities), or one of "
        "scikit-learn's scorers, such as roc_auc",
    )
    add(
        "--plain",
        action="store_true",
        help="train a network on numbers alone: no text, no gaps, no dates",
    )


def _add_network(sub: argparse.ArgumentParser) -> None:
    """Add what a network is: task, layers, activations, loss."""
    add = sub.add_argument
    add("--task", choices=("auto", "classification", "regression"), default="auto")
    add(
        "--hidden",
        type=_sizes,
        metavar="SIZES",
        help="units of the hidden layers, or 'none' (--plain: 64,32)",
    )
    add(
        "--activation",
        type=_names,
        metavar="NAME",
        help="of the hidden layers, one for all or one each: relu,elu:0.5 (--plain: relu)",
    )
    add(
        "--loss",
        metavar="NAME",
        help="(default: cross-entropy for labels, squared_error for numbers)",
    )
    add("--quantile", type=float, metavar="Q", help="of the loss 'quantile' (0.5)")


def _add_fit(sub: argparse.ArgumentParser) -> None:
    """Add how it is trained: the options of `Network.fit`, validation, seed, threads."""
    add = sub.add_argument
    for name, kind, default, text in FIT:
        shown = "" if default in (None, 0.0) and name != "patience" else f" (--plain: {default})"
        shown += " (needs --plain)" * (name in ONLY_PLAIN)
        add(
            f"--{name.replace('_', '-')}",
            type=kind,
            help=text + shown,
            metavar="NAME" if kind is str else "N",
        )
    add(
        "--validation",
        type=float,
        metavar="N",
        help="part of the rows to hold out, on which the best epoch is chosen (default: 0.2; "
        "--plain: 0.1)",
    )
    add(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of weights, order and split; the same seed gives the same model (default: 0)",
    )
    add(
        "--threads",
        type=int,
        metavar="N",
        help="(default: as many as pay, and as CMLP_NUM_THREADS or OMP_NUM_THREADS allow)",
    )
