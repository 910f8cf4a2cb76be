"""Training steps: cmlp against scikit-learn, PyTorch and JAX, on one thread and on two.

    python -m benchmarks.training [--threads 1,2] [--solver adam] [--net 784-128-10] [--bfloat16]

Same net, same data, same first weights, same batches (shuffled anew each epoch), same optimizer.
Each library runs in its best form (see ``_trainers``) in a process of its own, pinned to as many
processors as it has threads. They take turns of whole epochs, round after round, until the time of
a net is used up, and each one's fastest turn counts. A library that is missing is skipped.

The columns: microseconds of a step; rows of training data per second; GFLOP/s, where a step counts
as the operations of its matrix products and nothing else; these as a fraction of the peak, which is
a loop of independent multiply-adds in registers, measured in the same rounds; the time relative to
cmlp's; and the mean loss after three epochs. The losses start at the same number and differ by the
order of the rows only: if one falls more than 10 % further or less far than cmlp's, the program
reports it and returns 1. Compare ratios: a time is that of this machine in this minute.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from . import _report
from ._charts import bars
from ._timing import Peak, fastest
from ._trainers import BFLOAT16, TRAINERS
from ._work import Work, choose
from ._workers import PAUSE, Worker

TOLERANCE = 0.1
"""Largest difference of the fall of a loss from that of cmlp's, as a part of it."""

IDLE = 0.1
"""Part of a processor that a library may use during the turns of others."""

TURN = 0.15
"""Least seconds of a turn; caches are warm after a fraction of it."""


def main() -> int:
    """Run the benchmark; return 1 if the losses of the libraries differ."""
    parser = _report.parser("training", __doc__, seconds=20)
    ints, names = _report.list_of(int), _report.list_of(str)
    parser.add_argument("--threads", type=ints, default=None, help="1,2: for each, all nets (1,2)")
    parser.add_argument("--solver", choices=("sgd", "adam"), default="sgd", help="sgd has momentum")
    parser.add_argument("--net", action="append", metavar="SIZES", help="this one only; repeatable")
    parser.add_argument("--libraries", type=names, default=list(TRAINERS), help=",".join(TRAINERS))
    parser.add_argument("--rows", type=int, help="of an epoch, at most: fewer stay in the caches")
    parser.add_argument("--bfloat16", action="store_true", help="cmlp and PyTorch with it, too")
    args = parser.parse_args()
    args.libraries += list(BFLOAT16) if args.bfloat16 else []
    try:
        works = choose(args.net)
    except ValueError as error:
        parser.error(str(error))
    if unknown := set(args.libraries) - set(TRAINERS | BFLOAT16):
        parser.error(f"unknown library {unknown.pop()!r}; known: {', '.join(TRAINERS | BFLOAT16)}")
    if args.rows:
        works = tuple(w.smaller(max(1, min(args.rows, w.rows) // w.batch)) for w in works)
    if args.quick:
        works = tuple(work.smaller(10) for work in (works if args.net else works[:2]))
    about = _report.machine(_report.LIBRARIES) | {"solver": args.solver}
    print(_report.headline(about), end="\n\n")
    results = []
    for threads in args.threads or ([1] if args.quick else [1, 2]):
        results += compare(
            works,
            args.libraries,
            args.solver,
            threads,
            seconds=_report.seconds_of(args),
            least=0.005 if args.quick else TURN,
        )
    agree = all(row["agrees"] for row in results)
    print(f"losses {'agree' if agree else 'DISAGREE'}")
    _report.write_json(args.json, about, results)
    if args.chart:
        draw(args.chart, about, results)
    return 0 if agree else 1


def compare(
    works: Sequence[Work],
    libraries: Sequence[str],
    solver: str,
    threads: int,
    *,
    seconds: float,
    least: float,
) -> list[dict[str, Any]]:
    """Measure all nets with a number of threads; return a row per net and library."""
    results, known = [], TRAINERS | BFLOAT16
    with ExitStack() as stack:
        peak = stack.enter_context(Worker(Peak, threads, threads=threads))
        workers = {
            name: stack.enter_context(Worker(known[name], solver, threads, threads=threads))
            for name in libraries
        }
        for name, worker in workers.items():
            if worker.missing:
                print(f"{name} is left out: {worker.missing} is missing")
        for work in works:
            rows = measure(work, threads, workers, peak, seconds, least)
            show(work, threads, rows)
            results += rows
    return results


def measure(
    work: Work,
    threads: int,
    workers: dict[str, Worker],
    peak: Worker,
    seconds: float,
    least: float,
) -> list[dict[str, Any]]:
    """Measure one net in all libraries that are installed."""
    present = {name: worker for name, worker in workers.items() if not worker.missing}
    losses = {name: worker.call("set_up", work, least) for name, worker in present.items()}
    turns = {name: worker.turn for name, worker in present.items()}
    best = fastest({**turns, "peak": peak.turn}, seconds, pause=PAUSE * (threads > 1))
    flop = best.pop("peak")
    for name, worker in present.items():
        if worker.idle > IDLE:
            print(f"{name} used {_report.percent(worker.idle)} of a processor while it waited")
    reference = losses.get("cmlp", next(iter(losses.values())))[1]
    rows = []
    for name, spent in best.items():
        before, after = losses[name]
        rows.append(
            {
                "net": work.net,
                "batch": work.batch,
                "rows": work.rows,
                "threads": threads,
                "library": name,
                **_report.rates(work.step_flops, work.batch, spent / work.steps, flop),
                "relative": spent / best["cmlp"] if "cmlp" in best else None,
                "loss_before": before,
                "loss_after": after,
                "agrees": abs(after - reference) <= TOLERANCE * (before - reference),
                "idle": workers[name].idle,
            }
        )
    return rows


def show(work: Work, threads: int, rows: list[dict[str, Any]]) -> None:
    """Print the table of one net."""
    limit = ""
    if rows[0]["peak_gflops"]:
        least = 1e-3 * work.step_flops / rows[0]["peak_gflops"]
        limit = (
            f"; the peak of {_report.number(rows[0]['peak_gflops'])} GFLOP/s "
            f"would take {_report.number(least)} us a step"
        )
    print(f"{work}, {_report.plural(threads, 'thread')}{limit}")
    header = ("", *_report.RATES, "time/cmlp", "loss")
    lines = [
        (
            row["library"],
            *_report.rate_cells(row),
            _report.number(row["relative"]),
            f"{row['loss_before']:.3f} to {row['loss_after']:.3f}"
            + ("" if row["agrees"] else "  DIFFERS"),
        )
        for row in rows
    ]
    print(_report.table(header, lines), end="\n\n", flush=True)


def draw(file: str, about: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """Draw every rival's time relative to cmlp's."""
    panels: dict[str, dict[str, dict[str, float]]] = {}
    for row in results:
        if row["library"] != "cmlp" and row["relative"]:
            panel = panels.setdefault(_report.plural(row["threads"], "thread"), {})
            group = panel.setdefault(f"{row['net']}\nbatch {row['batch']:,}", {})
            group[row["library"]] = row["relative"]
    solver = {"sgd": "SGD with momentum", "adam": "Adam"}[about["solver"]]
    bars(file, about, f"Time of a training step, cmlp = 1 ({solver}, float32)", panels)


if __name__ == "__main__":
    sys.exit(main())
