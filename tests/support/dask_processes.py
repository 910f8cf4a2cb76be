"""A Dask cluster of real processes, which tests stop and kill."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

import cmlp


class Processes:
    """A scheduler and workers, each a process of its own.

    Parameters
    ----------
    n : int
        Workers.
    more : list of str
        Arguments of all of them.
    """

    def __init__(self, n, more=(), environment=None):
        self.folder, self.more = tempfile.mkdtemp(), list(more)
        self.log = open(os.path.join(self.folder, "errors"), "a")  # noqa: SIM115 - closed below
        self.environment = environment or {}  # of processes that are started later
        self.file = os.path.join(self.folder, "scheduler.json")
        self.started, self.number, self.nannies = [], 0, set()
        self.scheduler = self._start("scheduler", "--port", "0", "--scheduler-file", self.file)
        self.workers = {}
        for _ in range(n):
            self.add()

    def _start(self, what, *arguments):
        settings = {
            "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
            "DASK_DISTRIBUTED__ADMIN__LOG_LENGTH": "0",
            "DASK_DISTRIBUTED__WORKER__DAEMON": "False",
            "DASK_LOGGING__DISTRIBUTED": "error",
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_" + what, "--no-dashboard",
             "--host", "127.0.0.1", *arguments, *self.more],
            env=os.environ | settings | self.environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=self.log,
        )  # fmt: skip
        self.started.append(process)
        return process

    def add(self, *arguments):
        """Start a worker and return its name."""
        name, self.number = f"w{self.number}", self.number + 1
        nanny = [] if "--nanny" in arguments else ["--no-nanny"]
        self.nannies |= set() if nanny else {name}
        self.workers[name] = self._start(
            "worker", "--scheduler-file", self.file, "--name", name, "--nthreads", "1",
            "--local-directory", self.folder, *nanny, *arguments,
        )  # fmt: skip
        return name

    def address(self):
        """Return the scheduler's address, once it has one."""
        end = time.monotonic() + 200
        while time.monotonic() < end:
            with contextlib.suppress(OSError, ValueError), open(self.file) as file:
                return json.load(file)["address"]
            time.sleep(0.05)
        raise TimeoutError("the scheduler does not start: " + self.errors())

    def errors(self):
        """Return what the processes have written."""
        with open(os.path.join(self.folder, "errors")) as file:
            return file.read()

    def signal(self, name, number):
        """Send a signal to a worker, not to its nanny."""
        process = self.workers[name]
        if name in self.nannies:
            for pid in children(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        else:
            process.send_signal(number)

    def kill(self, name):
        """End a worker as a crash does; a nanny starts another one."""
        self.signal(name, signal.SIGKILL)
        if name not in self.nannies:
            self.workers.pop(name).wait()

    def close(self):
        """End all processes that were started, and theirs."""
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self.started:
            process.wait()
        self.log.close()


def children(pid):
    """Return the workers that a nanny has started."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as stat:
            parent = int(stat.read().rpartition(")")[2].split()[1])
            with open(f"/proc/{name}/cmdline") as command:
                if parent == pid and "spawn_main" in command.read():
                    found.append(int(name))
    return found


def waves(n, n_in=8, n_out=3, seed=0):
    """Return rows of a problem that a small network learns."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, n_in))
    return X, (X @ rng.normal(size=(n_in, n_out))).argmax(axis=1)


def stored(folder, X, y, blocks=4):
    """Return a source of files with these rows."""
    paths = []
    for i, rows in enumerate(np.array_split(np.arange(len(X)), blocks)):
        paths.append((os.path.join(folder, f"X{i}.npy"), os.path.join(folder, f"y{i}.npy")))
        np.save(paths[-1][0], X[rows])
        np.save(paths[-1][1], y[rows])
    return cmlp.data.npy(*(list(each) for each in zip(*paths, strict=True)))
