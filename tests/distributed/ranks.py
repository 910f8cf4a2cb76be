"""Trainings on several ranks, which are threads or processes."""

import threading

import numpy as np

import cmlp
from cmlp.distributed import Listener, RingBroken, ThreadRing

TOKEN = b"a token of these tests, 32 bytes"


def together(comms, work, limit=60):
    """Call ``work(comm)`` in a thread for each communicator; return results, or errors."""
    found = [None] * len(comms)

    def run(number):
        try:
            found[number] = work(comms[number])
        except BaseException as error:
            found[number] = error
            comms[number].close()

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(comms))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(limit)
        assert not thread.is_alive(), "a rank hangs"
    for comm in comms:
        comm.close()
    return found


def socket_rings(n, host="127.0.0.1", **options):
    """Return a ring of sockets within this process."""
    listeners = [Listener(host) for _ in range(n)]
    addresses = [listener.address for listener in listeners]
    found = [None] * n

    def connect(rank):
        found[rank] = listeners[rank].ring(addresses, rank, TOKEN, **{"timeout": 20} | options)

    threads = [threading.Thread(target=connect, args=(rank,)) for rank in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def rows(n=203, n_features=5, seed=0):
    """Return X, y of numbers, and weights, some of them 0."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, n_features))
    y = np.sin(X[:, :1]) + X[:, 1:2] * X[:, 2:3]
    weights = rng.integers(0, 4, n).astype(float)
    return X, y, weights


def trained(n, fit, make=None, ring=ThreadRing.make):
    """Return the networks after ``fit(net, comm)`` on n ranks; raise what a rank has raised."""
    make = make or (lambda: cmlp.Network([5, 8, 6, 1], "tanh", seed=1, dtype="float64"))
    nets = [make() for _ in range(n)]
    comms = ring(n)
    for found in together(comms, lambda comm: fit(nets[comm.rank], comm)):
        if isinstance(found, BaseException):
            raise found
    return nets


class Faulty:
    """A communicator that breaks at its n-th call: before it, or after it has succeeded."""

    def __init__(self, comm, n, after=False):
        self.comm, self.left, self.after = comm, n, after
        self.rank, self.size = comm.rank, comm.size

    def _call(self, name, *arguments):
        self.left -= 1
        if self.left == 0 and not self.after:
            raise RingBroken("injected, before a call")
        found = getattr(self.comm, name)(*arguments)
        if self.left == 0:
            raise RingBroken("injected, after a call")
        return found

    def allreduce(self, array, tail=None):
        self._call("allreduce", array, tail)

    def broadcast(self, array, root=0):
        self._call("broadcast", array, root)

    def gather(self, message):
        return self._call("gather", message)

    def close(self, error=None):
        self.comm.close(error)


def until_the_end(rank, comm, **arguments):
    """Train in rounds; return what each has done."""
    rounds = [rank.round(comm, **arguments)]
    while not rounds[-1].ended:
        rounds.append(rank.round(comm, **arguments))
    return rounds


class Stored(cmlp.data.Source):
    """Rows in uneven blocks that are not in memory, as far as training knows."""

    def __init__(self, X, y, weights):
        self.arrays, self.ends = (X, y, weights), [0, 7, 100, 101, *range(180, len(y), 90), len(y)]
        self.blocks = tuple(np.diff(self.ends).tolist())
        self.n_features, self.dtype = X.shape[1], X.dtype

    def read(self, block, start=0, stop=None):
        first = self.ends[block]
        last = self.ends[block + 1] if stop is None else first + stop
        return cmlp.data.Block(*(each[first + start : last] for each in self.arrays))
