"""The ``cmlp`` command: train, predict, evaluate, explain, info, export, import and others.

An error is one line: :func:`main` turns the package's exceptions into ``cmlp: error: ...`` and an
exit code. Each command is imported when it is called, pandas for large files only.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Callable, Sequence

from cmlp.cli.arguments import check_way, make_parser
from cmlp.cli.output import fail
from cmlp.core import dispatch
from cmlp.training import divergence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    int
        0; 1 if training diverged or another failure occurred; 2 for bad input; 130 after Ctrl-C.

    Raises
    ------
    SystemExit
        From argparse: 0 after --help, 2 for invalid arguments.
    """
    args = make_parser().parse_args(argv)
    if args.command != "predict" and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # labels of any alphabet can be printed
    try:
        with contextlib.ExitStack() as stack:
            if args.core:
                try:
                    stack.enter_context(dispatch.use_core(args.core))
                except RuntimeError as error:
                    return fail(error, 2)
            code = COMMANDS[args.command](args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # as after `| head`; Python's last flush must not fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return fail("interrupted", 130)
    except divergence.DivergenceError as error:
        return fail(f"{error} Nothing was saved.", 1)
    except MemoryError as error:
        return fail(f"not enough memory. {error}", 1)
    except OSError as error:
        return fail(f"{error.filename}: {error.strerror}" if error.filename else error, 2)
    except UnicodeEncodeError as error:
        return fail(f"{error}; PYTHONIOENCODING=utf-8 or --out FILE helps", 2)
    except (ImportError, ValueError) as error:
        return fail(error, 2)


def _bench(args: argparse.Namespace) -> int:
    """Run the benchmark in a process whose BLAS has one thread."""
    from cmlp.cli import bench

    if os.environ.items() >= bench.ONE_THREAD.items():
        return bench.run(quick=args.quick)
    import subprocess  # here NumPy is loaded already, with threads

    command = [sys.executable, "-m", "cmlp", "bench", *(["--quick"] if args.quick else [])]
    return subprocess.call(command, env={**os.environ, **bench.ONE_THREAD})


def _course(args: argparse.Namespace) -> int:
    from cmlp.cli import course

    return course.run(args)


def _demo(args: argparse.Namespace) -> int:
    from cmlp.cli import demo

    return demo.run(seed=args.seed, epochs=args.epochs, out=args.out)


def _explain(args: argparse.Namespace) -> int:
    from cmlp.cli import explain

    return explain.run(args)


def _export(args: argparse.Namespace) -> int:
    from cmlp.cli import exchange

    return exchange.export(args)


def _import(args: argparse.Namespace) -> int:
    from cmlp.cli import exchange

    return exchange.import_(args)


def _play(args: argparse.Namespace) -> int:
    from cmlp.cli import play

    return play.run(args.setup, lesson=args.lesson, port=args.port, opens=args.browser)


def _predict(args: argparse.Namespace) -> int:
    from cmlp.cli import predict

    return predict.run(args)


def _evaluate(args: argparse.Namespace) -> int:
    from cmlp.cli import predict

    return predict.evaluate(args)


def _info(args: argparse.Namespace) -> int:
    from cmlp.cli import info

    return info.run(args.model)


def _train(args: argparse.Namespace) -> int:
    check_way(args)
    if args.plain:
        from cmlp.cli import train

        return train.run(args)
    from cmlp.cli import train_source, train_table

    if train_source.is_source(args):
        return train_source.run(args)

    return train_table.run(args)


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "demo": _demo,
    "play": _play,
    "train": _train,
    "predict": _predict,
    "evaluate": _evaluate,
    "explain": _explain,
    "info": _info,
    "export": _export,
    "import": _import,
    "bench": _bench,
    "course": _course,
}
