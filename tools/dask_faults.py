"""Random faults while a network learns on a Dask cluster: nothing hangs, no result is wrong.

    PYTHONPATH=src python tools/dask_faults.py --sequences 200 --seed 0

Each sequence is a training on real processes, three workers, during which up to four faults happen
at random moments: workers are killed, stopped (some for good), retired, kept busy, added; in some
sequences the driver or the scheduler is killed. It has to end within a limit, with the weights of
an undisturbed training within 1e-9, or, where the scheduler was killed, with ClusterLost, after
which a new cluster continues from the checkpoint to the same weights.
"""

import argparse
import collections
import contextlib
import faulthandler
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from pathlib import Path

import distributed
import numpy as np

import cmlp
import cmlp.dask

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from dask_processes import Processes, stored, waves

LIMIT = 300
"""Seconds for a sequence, on a machine that does other things, too."""

HOW = {
    "epochs": 4, "batch_size": 32, "learning_rate": 0.02, "solver": "adam", "dropout": 0.1,
    "timeout": 4, "round_seconds": 1, "retries": 9, "wait": 200,
    "shards": 16,
}  # fmt: skip

FAULTS = ("kill", "kill", "kill two", "stop", "stop for good", "retire", "busy", "add")

DRIVER = """
import pickle, sys, distributed, cmlp, cmlp.dask
client = distributed.Client(sys.argv[1])
source, how = pickle.loads(bytes.fromhex(sys.argv[2]))
net = cmlp.Network([8, 16, 3], "tanh", dtype="float64", seed=1)
print("begins", flush=True)
cmlp.dask.train(client, net, source, **how)
"""


def network():
    return cmlp.Network([8, 16, 3], "tanh", dtype="float64", seed=1)


class Hang(BaseException):
    """A sequence has not ended."""


def hang(number, frame):
    raise Hang(f"it has not ended within {LIMIT} s")


class Sequence:
    """One training with faults."""

    def __init__(self, cluster, source, draw, folder, n_workers, more):
        self.cluster, self.source, self.draw, self.n_workers = cluster, source, draw, n_workers
        self.more = more  # arguments of workers
        self.path = os.path.join(folder, "run.cmlp")
        self.done, self.timers, self.tasks, self.lost = [], [], [], False
        self.began = time.monotonic()

    def note(self, what):
        self.done.append(f"{time.monotonic() - self.began:.1f} s {what}")

    def later(self, seconds, do):
        timer = threading.Timer(seconds, self.guarded, [do])
        timer.daemon = True
        self.timers.append(timer)
        timer.start()

    def guarded(self, do):
        try:
            do()
        except Exception as error:  # what a fault meets may have gone already
            self.note(f"(not done: {error!r})")

    def fault(self, kind, client):
        """Let one of the faults happen now; there is always a worker left or coming."""
        workers = self.cluster.workers
        names = sorted(workers)
        victim = self.draw.choice(names) if names else None
        self.note(f"{kind} {victim}")
        if kind.startswith("kill"):
            for name in names[: len(kind.split())] if kind == "kill two" else [victim]:
                self.cluster.kill(name)
            if not self.more:
                self.cluster.add()
        elif kind.startswith("stop"):
            self.cluster.signal(victim, signal.SIGSTOP)
            if kind == "stop for good" and self.more:
                self.later(self.draw.uniform(6, 20), lambda: self.cluster.kill(victim))
            elif kind == "stop for good":
                process = workers.pop(victim)
                self.later(self.draw.uniform(6, 20), lambda: process.kill())
                self.cluster.add()
            else:
                resume = lambda: self.cluster.signal(victim, signal.SIGCONT)  # noqa: E731
                self.later(self.draw.uniform(0.1, 8), resume)
        elif kind == "retire":
            found = client.scheduler_info()["workers"].items()
            addresses = [address for address, about in found if about["name"] == victim]
            client.retire_workers(addresses, close_workers=True)
            workers.pop(victim, None)
            self.cluster.add(*self.more)
        elif kind == "busy":
            address = self.draw.choice(sorted(client.scheduler_info()["workers"]))
            seconds = self.draw.uniform(0.5, 8)
            self.tasks.append(client.submit(time.sleep, seconds, workers=[address], pure=False))
        elif kind == "add" and len(workers) < 5:
            self.cluster.add(*self.more)
        elif kind == "scheduler":
            self.lost = True
            self.cluster.scheduler.kill()

    def run(self):
        """Train; return what is wrong with it, or nothing."""
        while len(self.cluster.workers) < self.n_workers:
            self.cluster.add(*self.more)
        kinds = [self.draw.choice(FAULTS) for _ in range(self.draw.randint(1, 4))]
        if self.draw.random() < 0.08:
            kinds.append("scheduler")
        with distributed.Client(self.cluster.address(), timeout=200) as client:
            client.wait_for_workers(self.n_workers, timeout=200)
            if self.draw.random() < 0.15:
                self.kill_a_driver()
            self.began = time.monotonic()
            for kind in kinds:
                moment = self.draw.uniform(0, 4)
                self.later(moment, lambda kind=kind: self.fault(kind, client))
            return self.judged(client)

    def judged(self, client):
        net = network()
        how = HOW | {"checkpoint": self.path, "checkpoint_every": 0.2, "resume": False}
        slow = lambda state: time.sleep(0.4)  # noqa: E731 - so that faults meet it
        try:
            cmlp.dask.train(client, net, self.source, callbacks=[slow], **how)
        except cmlp.dask.ClusterLost:
            if not self.lost:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.note(f"(the scheduler ended by itself: {self.cluster.scheduler.wait(20)})")
                    self.lost = True  # an error of Dask's; the rest is as if it had been killed
            return net, "lost" if self.lost else "ClusterLost, with a scheduler that lives"
        except Exception as error:
            notes = " ".join(getattr(error, "__notes__", []))
            return net, f"{type(error).__name__}: {error} {notes}"
        finally:
            for timer in self.timers:
                timer.join(30)
        return net, ""

    def kill_a_driver(self):
        """Kill another driver in the middle of its training."""
        self.note("a driver is killed")
        arguments = [
            sys.executable, "-c", DRIVER, self.cluster.address(),
            pickle.dumps((self.source, HOW | {"epochs": 1000})).hex(),
        ]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        other = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        other.stdout.readline()
        time.sleep(self.draw.uniform(0, 3))
        other.kill()
        other.wait()
        other.stdout.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sequences", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="number of the first sequence")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--nanny", action="store_true", help="each has one, which restarts it")
    arguments = parser.parse_args()
    more = ["--nanny"] if arguments.nanny else []
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, hang)
    counts, wrong = collections.Counter(), 0
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        source = stored(folder, *waves(8_000))
        cluster = started(arguments.workers, more)
        stack.callback(lambda: cluster.close())
        reference = network()
        signal.alarm(LIMIT)
        with distributed.Client(cluster.address(), timeout=200) as client:
            client.wait_for_workers(1, timeout=200)
            cmlp.dask.train(client, reference, source, workers=1, **HOW)
        for number in range(arguments.first, arguments.first + arguments.sequences):
            draw = random.Random(arguments.seed * 1_000_003 + number)
            sequence = Sequence(cluster, source, draw, folder, arguments.workers, more)
            signal.alarm(LIMIT)
            try:
                net, problem = sequence.run()
            except Hang as error:
                traceback.print_exc()
                faulthandler.dump_traceback()
                net, problem = network(), str(error)
            if sequence.lost:
                if "scheduler ended" in " ".join(sequence.done):
                    print(cluster.errors()[-20_000:], flush=True)
                cluster.close()
                cluster = started(arguments.workers, more)
                if problem in ("lost", ""):
                    problem = problem and resumed(cluster, source, sequence.path, net)
            signal.alarm(0)
            difference = np.abs(net.params - reference.params).max()
            if not problem and not difference < 1e-9:
                problem = f"weights differ by {difference:.3g}"
            counts.update(done.split(" s ")[1].rsplit(" ", 1)[0] for done in sequence.done)
            wrong += bool(problem)
            seconds = time.monotonic() - sequence.began
            print(f"{number}: {seconds:.1f} s, {'; '.join(sequence.done)}", flush=True)
            if problem:
                state = cluster.scheduler.poll()
                lives = "lives" if state is None else f"has ended with {state}"
                print(f"   WRONG: {problem}; the scheduler {lives}", flush=True)
                print(cluster.errors()[-20_000:], flush=True)
                cluster.close()
                cluster = started(arguments.workers, more)
    print(f"{arguments.sequences} sequences, {wrong} wrong; {dict(counts)}")
    return wrong > 0


def started(n, more):
    """Return a cluster."""
    cluster = Processes(0)
    for _ in range(n):
        cluster.add(*more)
    return cluster


def resumed(cluster, source, path, net):
    """Continue on a new cluster; return what is wrong with it."""
    how = HOW | {"checkpoint": path, "checkpoint_every": 1, "resume": True}
    other = network()
    with distributed.Client(cluster.address(), timeout=200) as client:
        client.wait_for_workers(1, timeout=200)
        cmlp.dask.train(client, other, source, **how)
    net.params[:] = other.params
    return ""


if __name__ == "__main__":
    sys.exit(main())
