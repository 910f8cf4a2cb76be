"""``cmlp train`` on files that need not fit into memory, with checkpoints."""

from __future__ import annotations

import argparse
import contextlib
import glob
import os
import sys
from typing import Any

import numpy as np

from cmlp.cli.output import PipeSafeStream, check_output, fail
from cmlp.cli.report import report_answers
from cmlp.cli.train import Tell, choose_task
from cmlp.cli.train_table import estimator_of, fit_model, summary_of
from cmlp.core import dispatch
from cmlp.core.layout import Array
from cmlp.data.cells import listed_near, read_target
from cmlp.data.source import Source, joined, streamed
from cmlp.estimators.tabular.validation import held_out_of
from cmlp.sources.csv import csv
from cmlp.sources.parquet import parquet
from cmlp.sources.paths import listed_files, open_file
from cmlp.sources.skipping import Skipping
from cmlp.training.progress import printable

FIRST_ROWS = 100_000
"""Rows by whose targets the task is decided."""

SINGLE = (".npz", ".npy", ".feather", ".gz", ".zst")
"""Endings of files that are read whole."""


def is_source(args: argparse.Namespace) -> bool:
    """Whether DATA is read in windows: several files, or an option that requires it."""
    if args.memory is not None or args.checkpoint is not None or args.more:
        return True
    return glob.has_magic(args.data) and not os.path.exists(args.data)


def run(args: argparse.Namespace) -> int:
    """Train a tabular estimator and save it; return the exit code."""
    with contextlib.redirect_stdout(PipeSafeStream(sys.stdout)):
        return _train_and_save(args)


def _train_and_save(args: argparse.Namespace) -> int:
    tell: Tell = (lambda *words: None) if args.quiet else print
    check_output(args.out, args.data, *args.more)
    if args.checkpoint is not None and os.path.realpath(args.checkpoint) == os.path.realpath(
        args.out
    ):
        raise ValueError(f"{args.out} cannot be the model and the checkpoint: name two files")
    source, note = with_targets(source_of(args))
    y = _first_targets(source)
    if y.dtype.kind == "U" and args.task == "auto":
        read_target(
            y.tolist(), lambda row: f"{args.data}, target {row + 1}"
        )  # refuses dates, names
    classifies, why = choose_task(y, args.task, args.loss)
    model = estimator_of(args, y, classifies)
    if args.categories:
        model.set_params(categorical_features=list(args.categories))
    rows = "rows in a stream" if source.n_rows is None else f"{source.n_rows:,} rows"
    n = len(source.blocks or ())
    blocks = f"{n:,} block{'s' * (n != 1)}"
    tell(f"data    {rows}, {source.n_features} columns, {blocks}")
    if note:
        tell(f"note    {note}")
    tell(f"task    {'classification' if classifies else 'regression'}, {why}")
    tell(f"core    {dispatch.describe(dispatch.core.name)}")
    how: dict[str, Any] = {"memory": args.memory or "1 GB"}
    if args.checkpoint is not None:
        found = os.path.exists(args.checkpoint)
        tell(f"resume  {args.checkpoint}: {'continues' if found else 'a new training'}")
        how |= {"checkpoint": args.checkpoint, "resume": True}
        if args.checkpoint_every is not None:
            how["checkpoint_every"] = args.checkpoint_every
    for message in fit_model(model, source, None, **how):
        tell(f"note    {message}")
    model.table_ = {"target": source.target_name, "gaps": {}}
    try:
        model.save(args.out)
    except OSError as error:
        return fail(f"{args.out}: cannot be written: {error.strerror}", 1)
    tell(summary_of(model))
    tell(f"saved   {args.out} ({os.path.getsize(args.out):,} bytes)")
    if any(net.history.stopped == "interrupted" for net in model.networks_):
        more = "; the same command continues" if args.checkpoint is not None else ""
        print(f"cmlp: interrupted; what was learned is in {args.out}{more}", file=sys.stderr)
        return 130
    answers = None if args.quiet else held_out_of(model, source)
    if answers is not None:
        print(f"\non the {len(answers[0]):,} validation rows:")
        print(report_answers(model, *answers))
    return 0


def with_targets(source: Source) -> tuple[Source, str]:
    """Return the rows that have a target, and a note on the others; empty without one."""
    if source.blocks is None:
        return source, ""
    known = Skipping(source, "targets")
    if not known.n_skipped:
        return source, ""
    if not known.n_rows:
        raise ValueError("no row has a target")
    rows = "1 row" if known.n_skipped == 1 else f"{known.n_skipped:,} rows"
    return known, f"{rows} without a target are left out; the first one: {known.first_skipped()}"


def source_of(args: argparse.Namespace) -> Source:
    """Return the source of DATA: Parquet by its first bytes, else CSV.

    Raises
    ------
    ValueError
        For formats that are read whole, and without a target.
    """
    paths = [args.data, *args.more]
    for path in paths:
        if path.lower().endswith(SINGLE):
            raise ValueError(
                f"{printable(path)}: several files, --memory and --checkpoint are for Parquet and "
                "CSV"
            )
    if args.target is None:
        raise ValueError(f"{args.data}: which column is the target? --target NAME")
    for option in ("numbers", "dates"):
        if getattr(args, option):
            raise ValueError(f"--{option} is for tables that are read whole, without --memory")
    if args.batch_size == "all":
        raise ValueError("--batch-size all needs all rows in memory: give a number")
    with open_file(listed_files(paths, "DATA")[0].path) as opened:
        is_parquet = opened.read(4) == b"PAR1"

    def source(columns: list[str] | None = None) -> Source:
        if is_parquet:
            return parquet(paths, args.target, columns)
        header = "auto" if args.header is None else args.header
        return csv(paths, args.target, columns, header=header)

    found = source()
    for name in args.ignore:
        if name not in found.feature_names:
            there = listed_near(name, found.feature_names) if found.feature_names else "no names"
            raise ValueError(
                f"--ignore {name}: there is no such feature in {printable(paths[0])}; there are "
                f"{there}. Columns of files that are read in windows are left out by name"
            )
    kept = [name for name in found.feature_names if name not in args.ignore]
    return source(kept) if args.ignore else found


def _first_targets(source: Source) -> Array:
    """Return the targets of the first rows."""
    parts, n = [], 0
    for piece in streamed(source, targets_only=True):
        parts.append(piece)
        n += len(piece.y)
        if n >= FIRST_ROWS:
            break
    return np.asarray(joined(parts).y)
