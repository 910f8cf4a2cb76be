"""Rings of sockets: sums, strangers, and ranks that are killed or stopped."""

import json
import os
import queue
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from ranks import TOKEN, socket_rings, together
from test_rounds import finished, made

from cmlp.distributed import Listener, RingBroken, listener, sockets

HERE = Path(__file__).parent
LIMIT = 60
"""Seconds after which a test has hung."""


# Sums --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("length", [0, 1, 70_001, 300_007])
def test_messages_of_any_length(n, length, dtype):
    """Below and above the lengths from which sums go round in segments, and in chunks."""
    parts = [np.random.default_rng(rank).normal(size=length).astype(dtype) for rank in range(n)]

    def work(comm):
        array, tail = parts[comm.rank].copy(), np.array([comm.rank, 0.5])
        comm.allreduce(array, tail)
        other = parts[comm.rank].copy()
        comm.broadcast(other, n - 1)
        return array, tail, other, comm.gather(b"x" * (comm.rank * 100_000))

    results = together(socket_rings(n), work)
    exact = np.sum(np.array(parts, np.float64), axis=0)
    for array, tail, other, messages in results:
        np.testing.assert_allclose(array, exact, rtol=0, atol=20 * np.finfo(dtype).eps)
        np.testing.assert_array_equal(array, results[0][0])  # bit by bit
        assert tail.tolist() == [n * (n - 1) / 2, n / 2]
        np.testing.assert_array_equal(other, parts[-1])
        assert [len(message) for message in messages] == [100_000 * rank for rank in range(n)]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_arrays_of_any_shape_and_layout(n, dtype):
    """Columns of a larger array: they are summed, and copied, in place."""
    parts = [np.random.default_rng(rank).normal(size=(90, 700)).astype(dtype) for rank in range(n)]

    def work(comm):
        whole = parts[comm.rank].copy()
        comm.allreduce(whole[:, ::2])
        comm.broadcast(whole[:, 1::2], n - 1)
        return whole

    for whole in together(socket_rings(n), work):
        exact = np.sum(np.array(parts, np.float64), axis=0)[:, ::2]
        np.testing.assert_allclose(whole[:, ::2], exact, rtol=0, atol=20 * np.finfo(dtype).eps)
        np.testing.assert_array_equal(whole[:, 1::2], parts[-1][:, 1::2])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_ranks_of_other_hosts(host, monkeypatch):
    """By TCP, which ranks of one host take where sockets have no names."""
    monkeypatch.setattr(listener, "HAS_NAMES", False)
    with suppress(OSError), socket.create_server((host, 0), family=(
            socket.AF_INET6 if ":" in host else socket.AF_INET)):  # fmt: skip
        comms = socket_rings(2, host=host)
        assert all(comm.out.family != getattr(socket, "AF_UNIX", None) for comm in comms)
        found = together(comms, lambda comm: comm.gather(bytes([comm.rank])))
        assert found == [[b"\0", b"\1"]] * 2
        return
    pytest.skip(f"nothing listens on {host} here")


@pytest.mark.skipif(not listener.HAS_NAMES, reason="sockets have no names here")
def test_who_takes_a_name_within_the_host_is_passed_by():
    """Another program has taken it, and does not know the token: they meet by TCP."""
    ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = [f"127.0.0.1:{port.getsockname()[1]}" for port in ports]
    for port in ports:
        port.close()
    thieves = [
        socket.create_server(listener.name_of(address), family=socket.AF_UNIX)
        for address in addresses
    ]
    listeners = [Listener("127.0.0.1", int(address.split(":")[1])) for address in addresses]
    comms = together(
        listeners,
        lambda each: each.ring(addresses, listeners.index(each), TOKEN, timeout=30),
    )
    for comm, thief in zip(comms, thieves, strict=True):
        assert comm.out.family == socket.AF_INET
        comm.close()
        thief.close()


def test_ranks_out_of_step_are_told_so():
    def work(comm):
        comm.gather(b"")
        if comm.rank:
            comm.gather(b"another call")
        comm.allreduce(np.zeros(9))

    found = together(socket_rings(3), work)
    assert all(isinstance(error, RingBroken) for error in found)
    assert any("sent step 2 with" in str(error) for error in found)


@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_a_broadcast_that_breaks_leaves_the_array_alone(chunk, monkeypatch):
    """The root dies in the middle of it: no array is half another's."""
    monkeypatch.setattr(sockets, "CHUNK", 1000)
    comms = socket_rings(3, timeout=5)
    root = comms[0]
    send = root._send

    def failing(header, data):
        send(header, data[: 1000 * chunk + 10])
        root._transfer()
        root.close()
        raise RingBroken("killed")

    root._send = failing

    def work(comm):
        array = np.full(1000, comm.rank, float)
        try:
            comm.broadcast(array, 0)
        except RingBroken:
            return array
        raise AssertionError

    for rank, array in enumerate(together(comms, work)):
        assert (array == rank).all()


def test_an_abort_flag_ends_a_rank_that_is_alone():
    abort = threading.Event()
    (comm,) = socket_rings(1, abort=abort)
    comm.allreduce(np.ones(3))
    abort.set()
    with pytest.raises(RingBroken, match="aborted"):
        comm.allreduce(np.ones(3))


def test_an_abort_flag_ends_a_wait():
    abort = threading.Event()
    comms = socket_rings(2, abort=abort)
    threading.Timer(0.3, abort.set).start()
    found = together(comms[:1], lambda comm: comm.gather(b""))
    comms[1].close()
    assert isinstance(found[0], RingBroken) and "aborted" in str(found[0])


def test_a_silent_rank_is_named():
    comms = socket_rings(3, timeout=0.5)
    found = together(comms[:2], lambda comm: comm.gather(b""))
    comms[2].close()
    assert found[0].waited_for == 2 and "no byte for 0.5 s" in str(found[0])


# Strangers ---------------------------------------------------------------------------------------


def stranger(address, data, stays):
    """Connect, send something, and leave or stay."""
    host, port = address.rsplit(":", 1)
    with suppress(OSError):
        connection = socket.create_connection((host, int(port)), timeout=5)
        with suppress(OSError):
            connection.sendall(data)
        if stays:
            return connection
        connection.close()
    return None


def test_strangers_and_garbage_are_turned_away():
    """Random bytes, lengths and silence before, between and after: the ring stands, and works."""
    rng = np.random.default_rng(0)
    listeners = [Listener("127.0.0.1") for _ in range(3)]
    addresses = [listener.address for listener in listeners]
    kept, done = [], threading.Event()

    def disturb():
        while not done.is_set():
            data = rng.bytes(int(rng.integers(0, 200)))
            kept.append(stranger(addresses[rng.integers(3)], data, rng.random() < 0.3))
            time.sleep(0.002)

    disturber = threading.Thread(target=disturb)
    disturber.start()
    time.sleep(0.05)
    comms = [None] * 3

    def connect(rank):
        time.sleep(0.1 * rank)
        comms[rank] = listeners[rank].ring(addresses, rank, TOKEN, timeout=20)

    threads = [threading.Thread(target=connect, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    ranks = [made() for _ in range(3)]
    found = finished(ranks, ring=lambda n: comms)
    done.set()
    disturber.join()
    for connection in kept:
        if connection is not None:
            connection.close()
    assert [rounds[-1].ended for rounds in found] == ["epochs"] * 3
    for address in addresses:  # no port is open any more
        with pytest.raises(OSError):
            socket.create_connection(tuple(address.split(":")), timeout=1)


@pytest.mark.parametrize("other", ["token", "attempt", "size", "rank"])
def test_another_ring_is_turned_away(other):
    """Another secret, an earlier attempt, another number or place of ranks."""
    listeners = [Listener("127.0.0.1") for _ in range(2)]
    addresses = [listener.address for listener in listeners]
    mine = {"addresses": addresses, "rank": 0, "token": TOKEN, "attempt": 1, "timeout": 0.7}
    theirs = mine | {"rank": 1}
    theirs |= {
        "token": {"token": TOKEN[::-1]}, "attempt": {"attempt": 0},
        "size": {"addresses": [*addresses, addresses[0]]}, "rank": {"rank": 0},
    }[other]  # fmt: skip
    if other == "rank":
        theirs["addresses"] = addresses[::-1]
    found = together(
        listeners, lambda each: each.ring(**(theirs if each is listeners[1] else mine))
    )
    assert all(isinstance(error, RingBroken) for error in found), found
    assert found[0].waited_for == 1


def test_a_rank_that_is_missing_is_named():
    listener = Listener("127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
    with pytest.raises(RingBroken, match=f"rank 1: no connection to {address}") as caught:
        listener.ring([listener.address, address], 0, TOKEN, timeout=0.5)
    assert caught.value.waited_for == 1


@pytest.mark.parametrize("n, names", [(3, True), (2, True), (2, False)])
def test_encrypted_rings(n, names, tmp_path, monkeypatch):
    """With a certificate that both sides know; one without it is turned away."""
    monkeypatch.setattr(listener, "HAS_NAMES", names and listener.HAS_NAMES)
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made_it = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=ring", "-keyout", str(key), "-out",
         str(certificate)], capture_output=True, check=False)  # fmt: skip
    if made_it.returncode:
        pytest.skip("openssl makes no certificate")
    contexts = {}
    for name, purpose in (("client", ssl.Purpose.SERVER_AUTH), ("server", ssl.Purpose.CLIENT_AUTH)):
        context = ssl.create_default_context(purpose, cafile=str(certificate))
        context.check_hostname, context.verify_mode = False, ssl.CERT_REQUIRED
        context.load_cert_chain(certificate, key)
        contexts[name] = context

    def work(comm):
        array = np.full(100_000, comm.rank, np.float32)
        comm.allreduce(array, np.zeros(4))
        assert isinstance(comm.out, ssl.SSLSocket)
        return array[0], array[-1]

    total = n * (n - 1) / 2
    assert together(socket_rings(n, **contexts), work) == [(total, total)] * n
    listeners = [Listener("127.0.0.1") for _ in range(2)]
    addresses = [listener.address for listener in listeners]

    def one_in_the_clear(each):
        number = listeners.index(each)
        given = contexts if number else {}
        return each.ring(addresses, number, TOKEN, timeout=1, **given)

    assert all(isinstance(each, RingBroken) for each in together(listeners, one_in_the_clear))


# Processes ---------------------------------------------------------------------------------------


class Process:
    """A rank in a process of its own; see rank_process.py."""

    def __init__(self, epochs):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(
            [str(HERE), str(HERE.parent / "support"), *filter(None, sys.path)])}  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "rank_process.py"), str(epochs)], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
        )  # fmt: skip
        self.told = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        for line in self.process.stdout:
            self.told.put(json.loads(line))

    def wait_for(self, key):
        """Return what it tells, skipping other news; fails after a minute."""
        while True:
            found = self.told.get(timeout=LIMIT)
            if key in found:
                return found

    def join(self, addresses, rank, attempt, timeout=60.0):
        ring = {"addresses": addresses, "rank": rank, "attempt": attempt, "timeout": timeout}
        self.process.stdin.write(json.dumps(ring) + "\n")
        self.process.stdin.flush()

    def close(self):
        self.process.kill()
        self.process.communicate()


def ring_of(processes, attempt, timeout=60.0):
    addresses = [process.wait_for("address")["address"] for process in processes]
    for rank, process in enumerate(processes):
        process.join(addresses, rank, attempt, timeout)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no signals that stop a process")
@pytest.mark.parametrize("how, victim", [("SIGKILL", 0), ("SIGSTOP", 1)])
def test_a_rank_that_dies_or_stops_is_done_without(how, victim):
    """The others find out, make another ring, and end as if there had been no loss."""
    epochs = 150
    processes = [Process(epochs) for _ in range(3)]
    try:
        ring_of(processes, 0, 1.0 if how == "SIGSTOP" else 60.0)
        for process in processes:
            process.wait_for("epoch")
        processes[victim].process.send_signal(getattr(signal, how))
        others = [process for process in processes if process is not processes[victim]]
        for process in others:
            assert process.wait_for("broken")["waited_for"] is not None
        ring_of(others, 1)
        found = [process.wait_for("params") for process in others]
        if how == "SIGSTOP":  # when it wakes up, it finds its ring gone
            processes[victim].process.send_signal(signal.SIGCONT)
            assert processes[victim].wait_for("broken")
    finally:
        for process in processes:
            process.close()
    whole = [made(epochs=epochs, patience=None) for _ in range(2)]
    finished(whole)
    for each in found:
        assert each["params"] == found[0]["params"] and len(each["losses"]) == epochs
        np.testing.assert_allclose(each["params"], whole[0].net.params, rtol=0, atol=1e-9)
        np.testing.assert_allclose(each["losses"], whole[0].net.history["loss"], rtol=1e-9)
