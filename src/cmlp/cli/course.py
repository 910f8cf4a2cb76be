"""``cmlp course``: list the lessons, and write them as notebooks."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from cmlp.course import lessons


def run(args: argparse.Namespace) -> int:
    """List the lessons, or write one or all of them; what is there already stays as it is."""
    if args.open and args.lesson is None:
        raise ValueError("--open needs the number of a lesson, 1 to 8")
    if args.lesson is None and args.all is None:
        print("Eight lessons: how a network learns.\n")
        for number in range(1, len(lessons.NAMES) + 1):
            print(f"  {lessons.title(number)}")
        print("\n`cmlp course 1` writes the first one, `cmlp course --all FOLDER` all of them.")
        if not find_spec("matplotlib"):
            print("Their pictures need matplotlib: pip install 'cmlp[plot]'")
        return 0
    if args.lesson is not None and args.all is not None:
        raise ValueError("name one lesson, or --all FOLDER")
    if args.all is None:
        return _one(args)
    for number in range(1, len(lessons.NAMES) + 1):
        try:
            print(lessons.write(number, args.all, as_script=args.py))
        except FileExistsError as error:
            print(f"{error.filename} is there already, and stays as it is")
    return 0


def _one(args: argparse.Namespace) -> int:
    """Write a lesson here, and open it if --open is set."""
    try:
        path = lessons.write(args.lesson, as_script=args.py)
    except FileExistsError as error:
        if not args.open:
            raise ValueError(
                f"{error.filename} is there already, and may hold your answers: "
                "move it, or go to another folder"
            ) from None
        path = Path(error.filename)
    jupyter = shutil.which("jupyter")
    if args.py:
        print(f"Wrote {path}: edit it, and run it with python {path}")
    elif args.open and jupyter:
        return subprocess.call([jupyter, "lab", str(path)])
    elif args.open:
        raise ValueError(f"{path} needs Jupyter to be opened: pip install jupyterlab")
    else:
        print(f"Wrote {path}: open it with `jupyter lab {path}`, or in an editor for notebooks")
    return 0
