"""Figures of a Dask cluster: memory, starts, predictions, many networks, faults, the wire.

    PYTHONPATH=src python tools/dask_bars.py memory partitions predict many stop kill lost twice
    PYTHONPATH=src python tools/dask_bars.py wire cut      # root, Linux: network namespaces

Each name is a measurement on real processes of this machine, which prints its figures and those
that are wanted; nothing is asserted, but results that differ are errors.
"""

import argparse
import concurrent.futures
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zlib
from pathlib import Path

import dask.array as da
import distributed
import numpy as np

import cmlp
import cmlp.dask

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from dask_processes import Processes, stored, waves

MB = 1e6


@contextlib.contextmanager
def cluster(n, more=(), **connects):
    """Start a scheduler and workers; yield them and a client."""
    processes = Processes(n, more)
    try:
        with distributed.Client(processes.address(), timeout=200, **connects) as client:
            client.wait_for_workers(n, timeout=200)
            client.run(import_all)
            yield processes, client
    finally:
        processes.close()


def import_all():
    """Import what a training needs, so that it is not measured."""
    import cmlp.dask.worker
    import cmlp.distributed.rank  # noqa: F401


def resident(pid="self"):
    """Return the resident memory of a process."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Peak:
    """The most resident memory that processes have while this lasts."""

    def __init__(self, pids):
        self.most = {pid: resident(pid) for pid in pids}
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self.look)

    def look(self):
        while not self.ends.wait(0.02):
            for pid in self.most:
                with contextlib.suppress(OSError):
                    self.most[pid] = max(self.most[pid], resident(pid))

    def __enter__(self):
        self.thread.start()
        return self.most

    def __exit__(self, *error):
        self.ends.set()
        self.thread.join()


def network(sizes=(8, 16, 3), **more):
    return cmlp.Network(list(sizes), "tanh", dtype="float64", seed=1, **more)


# Data ---------------------------------------------------------------------------------------------


def memory():
    """500 MB of persisted chunks in two workers: what is there while they are learned."""
    n, n_in = 1_250_000, 100
    os.environ["MALLOC_TRIM_THRESHOLD_"] = "65536"  # as nannies do: what Dask computed is gone
    with cluster(2) as (_, client):
        pids = client.run(os.getpid)
        empty = {pid: resident(pid) for pid in pids.values()}
        X = da.random.random((n, n_in), chunks=(12_500, n_in)).astype(np.float32)
        X, y = client.persist([X, (X[:, 0] > 0.5).astype(np.int64)])
        distributed.wait([X, y])
        for window in (50 * MB, 200 * MB):
            before = client.run(resident)
            with Peak(pids.values()) as most:
                net = cmlp.Network([n_in, 64, 2], seed=0)
                how = {"epochs": 3, "batch_size": 8192, "memory": int(window)}
                cmlp.dask.train(client, net, X, y, **how)
            where, part = client.who_has(), client.nbytes(summary=False)
            for address, pid in pids.items():
                own = sum(part[key] for key, at in where.items() if address in at)
                over = most[pid] - own - window
                print(
                    f"memory={window / MB:.0f} MB: partitions {own / MB:.0f} MB, the worker before "
                    f"{before[address] / MB:.0f} MB, at most {most[pid] / MB:.0f} MB: "
                    f"{over / MB:.0f} MB above partitions and windows (at most 150; an empty "
                    f"worker has {empty[pid] / MB:.0f} MB)"
                )


def partitions():
    """10,000 partitions: from the call to the end of the first, short epoch."""
    for n in (100, 1_000, 10_000):
        with cluster(2) as (_, client):
            X = da.ones((100 * n, 8), chunks=(100, 8))
            X, y = client.persist([X, da.ones(100 * n, dtype=np.int64, chunks=100)])
            distributed.wait([X, y])
            began, epochs = time.monotonic(), []
            tell = lambda state, at=epochs: at.append(time.monotonic())  # noqa: E731
            how = {"epochs": 3, "batch_size": 50 * n, "callbacks": [tell]}
            cmlp.dask.train(client, cmlp.Network([8, 16, 1], seed=0), X, y, **how)
            times = np.diff([began, *epochs])
            print(
                f"{n:,} partitions: the first epoch ends after {times[0]:.1f} s, further ones take "
                f"{times[1]:.2f} and {times[2]:.2f} s (the start less than 30 s); load "
                f"{os.getloadavg()[0]:.1f}"
            )


def block_of_rows(number, n=100_000):
    return np.random.default_rng(number).normal(size=(n, 8)).astype(np.float32)


def predict():
    """10,000,000 rows, lazily, some blocks at a time; then the same here, at once."""
    from dask import delayed

    n_blocks, n = 100, 100_000
    net = cmlp.Network([8, 64, 64, 3], seed=0)
    with cluster(2) as (_, client):
        X = da.concatenate(
            [
                da.from_delayed(delayed(block_of_rows)(i), (n, 8), np.float32)
                for i in range(n_blocks)
            ]
        )
        lazy, seen, before = cmlp.dask.predict(client, net, X), [], resident()
        with Peak([os.getpid()]) as most:
            began = time.monotonic()
            parts, running = list(lazy.to_delayed().ravel()), []
            while parts or running:
                while parts and len(running) < 4:
                    running.append(client.compute(parts.pop(0)))
                seen.append(zlib.crc32(running.pop(0).result().tobytes()))
            seconds = time.monotonic() - began
        grown = most[os.getpid()] - before
    whole = net.predict(np.concatenate([block_of_rows(i) for i in range(n_blocks)]))
    here = [zlib.crc32(whole[i * n : (i + 1) * n].tobytes()) for i in range(n_blocks)]
    assert seen == here, "answers differ"
    print(
        f"predict: {n * n_blocks:,} rows in {seconds:.1f} s, the same bits as here at once; the "
        f"driver has grown by {grown / MB:.0f} MB (answers have {whole.nbytes / MB:.0f} MB)"
    )


# Many networks ------------------------------------------------------------------------------------


def jobs_of(numbers, epochs):
    return [(cmlp.Network([16, 32, 3], seed=i), {"epochs": epochs}) for i in numbers]


def alone(numbers, X, y, epochs, barrier):
    """Train networks in a process that knows of no cluster."""
    import cmlp

    pairs = jobs_of(numbers, epochs)
    barrier.wait()
    began = time.monotonic()
    settings = [settings for _, settings in pairs]
    cmlp.fit_many([net for net, _ in pairs], X, y, settings=settings, n_threads=1)
    return began, time.monotonic()


def many(epochs=60, turns=2):
    """200 networks: two workers, and in turns two plain processes with half of them each."""
    import multiprocessing

    X, y = waves(5_000, 16)
    X, context, ratios = X.astype(np.float32), multiprocessing.get_context("spawn"), []
    with (
        cluster(2) as (processes, client),
        concurrent.futures.ProcessPoolExecutor(2, context) as pool,
        context.Manager() as manager,
    ):
        list(cmlp.dask.fit_many(client, jobs_of(range(4), 1), (X, y)))
        for _ in range(turns):
            barrier = manager.Barrier(2)
            halves = [
                pool.submit(alone, list(range(i, 200, 2)), X, y, epochs, barrier) for i in (0, 1)
            ]
            times = [half.result() for half in halves]
            plain = max(end for _, end in times) - min(begin for begin, _ in times)
            began = time.monotonic()
            found = list(cmlp.dask.fit_many(client, jobs_of(range(200), epochs), (X, y)))
            there = time.monotonic() - began
            assert sorted(each.number for each in found) == list(range(200))
            ratios.append(plain / there)
            print(f"many: two processes {plain:.2f} s, two workers {there:.2f} s")
        print(f"many: {np.median(ratios):.3f} of two processes, median (0.9 or more)")
        for name, fault in (("killed", signal.SIGKILL), ("stopped", signal.SIGSTOP)):
            training = cmlp.dask.fit_many(client, jobs_of(range(200), epochs), (X, y), timeout=5)
            found, began = [next(training).number], time.monotonic()
            processes.signal(min(processes.workers), fault)
            found += [each.number for each in training]
            assert sorted(found) == list(range(200))
            print(f"many: a worker is {name}: all 200 after {time.monotonic() - began:.1f} s")
            if fault == signal.SIGKILL:
                processes.workers.pop(min(processes.workers)).wait()
                processes.add()
                client.wait_for_workers(2, timeout=200)


# Faults -------------------------------------------------------------------------------------------

HOW = {"batch_size": 32, "learning_rate": 0.02, "solver": "adam", "timeout": 5, "round_seconds": 2}


def gap(client, source, do, undo=lambda: None, epochs=6):
    """Train, and let something happen; return the longest pause between epochs, and the usual."""
    times = []

    def at(state):
        times.append(time.monotonic())
        if state.epoch == 3:
            threading.Timer(0.05, do).start()

    net = network()
    cmlp.dask.train(client, net, source, epochs=epochs, callbacks=[at], **HOW)
    undo()
    other = network()
    cmlp.dask.train(client, other, source, workers=1, epochs=epochs, **HOW)
    off = np.abs(net.params - other.params).max()
    assert off < 1e-9, f"weights differ by {off} after {net.history} and {other.history}"
    pauses = np.diff(times)
    return pauses.max(), np.median(pauses)


def stop():
    """A worker is stopped with a timeout of 5 s."""
    with cluster(3) as (processes, client), tempfile.TemporaryDirectory() as folder:
        source = stored(folder, *waves(4_000))
        for victim in sorted(processes.workers)[:2]:
            send = lambda number, v=victim: lambda: processes.signal(v, number)  # noqa: E731
            pause, usual = gap(client, source, send(signal.SIGSTOP), send(signal.SIGCONT))
            print(
                f"stop: {victim} is stopped: continues without it after {pause:.1f} s (at most 10; "
                f"other epochs take {usual:.2f} s)"
            )


def kill():
    """A worker is killed: that with rank 0, another one, two at once, one that has a nanny."""
    with cluster(3) as (processes, client), tempfile.TemporaryDirectory() as folder:
        source = stored(folder, *waves(4_000))
        for what in ("first", "last", "two", "nanny"):
            while len(processes.workers) < 3:
                processes.add(*(["--nanny"] if what == "nanny" else []))
            client.wait_for_workers(3, timeout=200)
            names = sorted(processes.workers, key=lambda name: int(name[1:]))
            victims = {"first": names[:1], "two": names[:2]}.get(what, names[-1:])
            do = lambda v=victims: [processes.kill(each) for each in v]  # noqa: E731
            pause, usual = gap(client, source, do)
            print(
                f"kill: {what} ({', '.join(victims)}): a pause of {pause:.1f} s (at most a round "
                f"and 10 s; other epochs take {usual:.2f} s)"
            )


DRIVER = """
import sys, pickle, distributed, cmlp, cmlp.dask
client = distributed.Client(sys.argv[1])
net = cmlp.Network([8, 16, 3], "tanh", dtype="float64", seed=1)
tell = lambda state: print(state.epoch, flush=True)
source = pickle.loads(bytes.fromhex(sys.argv[2]))
cmlp.dask.train(client, net, source, epochs=100_000, callbacks=[tell], timeout=float(sys.argv[3]))
"""


def lost():
    """The scheduler is killed; then drivers are, or are stopped, and another one begins."""
    import pickle

    with cluster(2) as (processes, client), tempfile.TemporaryDirectory() as folder:
        source = stored(folder, *waves(4_000))
        for what, timeout in ((signal.SIGKILL, 60), (signal.SIGSTOP, 5)):
            arguments = [processes.address(), pickle.dumps(source).hex(), str(timeout)]
            driver = subprocess.Popen(
                [sys.executable, "-c", DRIVER, *arguments], stdout=subprocess.PIPE
            )
            driver.stdout.readline()
            driver.send_signal(what)
            began, times = time.monotonic(), []
            tell = lambda state: times.append(time.monotonic() - began)  # noqa: B023, E731
            cmlp.dask.train(client, network(), source, epochs=1, callbacks=[tell], **HOW)
            print(
                f"lost: a driver ({what.name}, timeout={timeout}): the next training has its first "
                f"epoch after {times[0]:.1f} s"
            )
            driver.kill()
            driver.wait()
            driver.stdout.close()
        path, at = os.path.join(folder, "run.cmlp"), []

        def end(state):
            if state.epoch == 3:
                at.append(time.monotonic())
                processes.scheduler.kill()

        how = HOW | {"checkpoint": path, "checkpoint_every": 0}
        try:
            cmlp.dask.train(client, network(), source, epochs=100_000, callbacks=[end], **how)
        except cmlp.dask.ClusterLost:
            print(f"lost: the scheduler: ClusterLost after {time.monotonic() - at[0]:.1f} s (30)")
        with cluster(1) as (_, other):
            done = cmlp.load(path).history.epochs
            net = network()
            how = how | {"resume": True}
            cmlp.dask.train(other, net, source, epochs=done + 2, **how)
            print(f"lost: a new cluster continues from epoch {done}: {net.history.epochs} epochs")


def twice(n=20):
    """Two trainings at once, again and again; one after a failed one."""
    with cluster(2) as (processes, client), tempfile.TemporaryDirectory() as folder:
        source, nets, times = stored(folder, *waves(4_000)), [], []

        def train(own):
            net = network()
            cmlp.dask.train(own, net, source, epochs=2, **HOW | {"wait": 200})
            nets.append(net.params)

        def fail(state):
            raise ValueError("of a callback")

        with distributed.Client(processes.address(), timeout=200) as second:
            for number in range(n):
                with contextlib.suppress(ValueError):
                    cmlp.dask.train(client, network(), source, callbacks=[fail], **HOW)
                began = time.monotonic()
                threads = [threading.Thread(target=train, args=[own]) for own in (client, second)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(250)
                    assert not thread.is_alive(), f"pair {number} hangs"
                times.append(time.monotonic() - began)
        assert len(nets) == 2 * n
        assert max(np.abs(params - nets[0]).max() for params in nets) < 1e-9
        print(
            f"twice: {n} pairs, each after a failed training: all end, with the same weights; "
            f"{np.median(times):.1f} s a pair, at most {max(times):.1f} s"
        )


# Networks of its own ------------------------------------------------------------------------------


def again(name, *prefix):
    """Run one of the measurements in another network namespace."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    subprocess.run([*prefix, sys.executable, __file__, name], check=True, env=environment)


def wire():
    """What is on the wire of a cluster, in a network namespace where nothing else is."""
    again("wire-inside", "unshare", "--net")


def spy():
    """Keep the first bytes of the gradients that this worker sends, in packets that can be seen."""
    from cmlp.distributed import listener, sockets

    listener.HAS_NAMES = False  # ranks of one host meet without a network else
    original = sockets.SocketRing.allreduce
    sockets.sent = []

    def allreduce(self, array, *rest):
        sockets.sent.append(array[:4].tobytes())
        return original(self, array, *rest)

    sockets.SocketRing.allreduce = allreduce


def sent():
    from cmlp.distributed import sockets

    return sockets.sent


def listening():
    """Return the ports of this network namespace that are listened on."""
    with open("/proc/net/tcp") as file:
        lines = [line.split() for line in file.readlines()[1:]]
    return sorted(int(line[1].split(":")[1], 16) for line in lines if line[3] == "0A")


class Capture:
    """All packets of the loopback device, with those that Linux has dropped."""

    def __enter__(self):
        self.packets = bytearray()
        self.raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.raw.setsockopt(socket.SOL_SOCKET, 33, 1 << 28)  # SO_RCVBUFFORCE
        self.raw.bind(("lo", 0))
        self.raw.settimeout(0.5)
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self.read)
        self.thread.start()
        return self

    def read(self):
        while not self.ends.is_set():
            with contextlib.suppress(TimeoutError):
                self.packets += self.raw.recv(1 << 17)

    def __exit__(self, *error):
        time.sleep(1)
        self.ends.set()
        self.thread.join()
        self.dropped = int.from_bytes(self.raw.getsockopt(263, 6, 8)[4:8], "little")
        self.raw.close()


def captured(source, more, **connects):
    """Train with a capture; return packets, tokens, gradients, what is open before and after."""
    import secrets

    tokens, original = [], secrets.token_bytes
    secrets.token_bytes = lambda n=32: tokens.append(original(n)) or tokens[-1]
    try:
        with cluster(2, more, **connects) as (_, client):
            client.run(spy)
            before = listening()
            with Capture() as found:
                net = cmlp.Network([8, 16, 3], "tanh", dtype="float64", seed=1)
                cmlp.dask.train(client, net, source, epochs=2, batch_size=512, timeout=30)
            gradients = [each for some in client.run(sent).values() for each in some]
            left = set(listening()) - set(before)
    finally:
        secrets.token_bytes = original
    return found, [token for token in tokens if len(token) == 32], set(gradients), left


def wire_inside():
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory() as folder:
        source = stored(folder, *waves(4_000))
        key, cert = os.path.join(folder, "key.pem"), os.path.join(folder, "cert.pem")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
             "/CN=cmlp", "-keyout", key, "-out", cert],
            check=True, capture_output=True,
        )  # fmt: skip
        tls = ["--tls-ca-file", cert, "--tls-cert", cert, "--tls-key", key, "--protocol", "tls"]
        security = distributed.Security(
            tls_ca_file=cert, tls_client_cert=cert, tls_client_key=key, require_encryption=True
        )
        for what, more, connects in (("plain", [], {}), ("TLS", tls, {"security": security})):
            found, tokens, gradients, left = captured(source, more, **connects)
            packets = bytes(found.packets)
            seen = sum(gradient in packets for gradient in gradients)
            print(
                f"wire, {what}: {len(packets):,} bytes captured, {found.dropped} packets lost; "
                f"'cmlpring' {packets.count(b'cmlpring')} times, {seen} of {len(gradients)} "
                f"gradients, {sum(token in packets for token in tokens)} of {len(tokens)} tokens; "
                f"ports left open: {sorted(left) or 'none'}"
            )


LINE = """
ip netns add cmlp-a
ip netns add cmlp-b
ip link add cmlp0 type veth peer name cmlp1
ip link set cmlp0 netns cmlp-a
ip link set cmlp1 netns cmlp-b
ip netns exec cmlp-a ip addr add 10.77.0.1/24 dev cmlp0
ip netns exec cmlp-b ip addr add 10.77.0.2/24 dev cmlp1
ip netns exec cmlp-a ip link set cmlp0 up
ip netns exec cmlp-b ip link set cmlp1 up
ip netns exec cmlp-a ip link set lo up
ip netns exec cmlp-b ip link set lo up
"""


def cut():
    """The line to a worker is cut: it is in another network namespace, across a pair of veth."""
    try:
        for line in LINE.strip().splitlines():
            subprocess.run(line.split(), check=True)
        again("cut-inside", "ip", "netns", "exec", "cmlp-a")
    finally:
        for name in "ab":
            subprocess.run(["ip", "netns", "del", f"cmlp-{name}"], check=False)


def cut_inside():
    def link(state):
        subprocess.run(["ip", "link", "set", "cmlp0", state], check=True)

    processes = Processes(0, ["--host", "10.77.0.1"])
    try:
        processes.add()
        processes.add()
        processes.more, start = ["--host", "10.77.0.2"], subprocess.Popen
        subprocess.Popen = lambda arguments, **more: start(
            ["ip", "netns", "exec", "cmlp-b", *arguments], **more
        )
        processes.add()
        subprocess.Popen = start
        with (
            distributed.Client(processes.address(), timeout=200) as client,
            tempfile.TemporaryDirectory() as folder,
        ):
            client.wait_for_workers(3, timeout=200)
            client.run(import_all)
            source = stored(folder, *waves(4_000))
            up = threading.Timer(15, link, ["up"])

            def down():
                link("down")
                up.start()

            pause, usual = gap(client, source, down, up.join)
            print(
                f"cut: the line of a worker is down: continues without it after {pause:.1f} s (at "
                f"most 10; other epochs take {usual:.2f} s)"
            )
            began = time.monotonic()
            cmlp.dask.train(client, network(), source, epochs=1, min_workers=3, **HOW)
            print(f"cut: a training that needs it has ended {time.monotonic() - began:.1f} s later")
    finally:
        processes.close()


def main():
    warnings.simplefilter("ignore")
    measures = {
        each.__name__.replace("_", "-"): each
        for each in (memory, partitions, predict, many, stop, kill, lost, twice, wire, cut,
                     wire_inside, cut_inside)
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="+", choices=measures)
    for name in parser.parse_args().names:
        measures[name]()


if __name__ == "__main__":
    main()
