"""Rings without an engine: addresses and tokens, Slurm's variables, MPI."""

import os
import socket
import stat
import threading

import numpy as np
import pytest
from ranks import rows, trained

import cmlp
from cmlp.core import dispatch
from cmlp.distributed import ThreadRing, launch, mpi, ring

X, y, _ = rows()


def free_addresses(n):
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    found = [f"127.0.0.1:{server.getsockname()[1]}" for server in servers]
    for server in servers:
        server.close()
    return found


def fit(net, comm):
    net.fit(X, y, epochs=2, batch_size=50, comm=comm)


def test_processes_that_know_their_addresses(tmp_path, monkeypatch):
    """A file or the environment has the secret, which has to be one."""
    path, addresses = tmp_path / "token", free_addresses(2)
    path.write_text("a secret of these two ranks\n")
    monkeypatch.setenv("CMLP_TOKEN", "a secret of these two ranks")
    nets, errors = [cmlp.Network([5, 8, 1], seed=1) for _ in range(2)], []

    def run(rank):
        try:
            with ring(addresses, rank, path if rank else None, timeout=20) as comm:
                fit(nets[rank], comm)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    np.testing.assert_array_equal(nets[0].params, nets[1].params)
    path.write_text("short")
    with pytest.raises(ValueError, match="16 bytes"):
        ring(addresses, 0, path)
    with pytest.raises(ValueError, match="rank must be 0 to 1"):
        ring(addresses)
    for wrong in ("host:1", ["host"], ["host:port"], ["host:1", "host:1"], [":1"], ["host:65536"]):
        with pytest.raises(ValueError, match=r"a list of 'host:port'.* that of rank 0 is"):
            ring(wrong, 0, path)


def test_tasks_of_slurm(tmp_path, monkeypatch):
    """With a program in the place of Slurm's, which writes a name on each line."""
    with pytest.raises(ValueError, match="no 'SLURM_JOB_NODELIST': this is no task of Slurm"):
        launch.slurm_addresses({})
    program = tmp_path / "scontrol"
    program.write_text(
        '#!/bin/sh\n[ "$1 $2 $3" = "show hostnames n[01-02]" ] && echo n01; echo n02\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    of_job = {"SLURM_JOB_NODELIST": "n[01-02]", "SLURM_NTASKS": "4"}
    port = launch.PORT
    assert launch.slurm_addresses(of_job) == [
        f"n01:{port}", f"n01:{port + 1}", f"n02:{port}", f"n02:{port + 1}",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="3 tasks on 2 hosts"):
        launch.slurm_addresses(of_job | {"SLURM_NTASKS": "3"})


class World:
    """The part of mpi4py's communicator that is used, over threads."""

    def __init__(self, comm):
        self.comm, self.aborted = comm, None

    def Get_rank(self):
        return self.comm.rank

    def Get_size(self):
        return self.comm.size

    def Allreduce(self, mine, total):
        total[...] = mine
        self.comm.allreduce(total)

    def Bcast(self, array, root):
        self.comm.broadcast(array, root)

    def allgather(self, message):
        return self.comm.gather(message)

    def Abort(self, code):
        self.aborted = code


def test_programs_of_mpi():
    nets = trained(3, lambda net, comm: fit(net, mpi(World(comm))))
    for net in nets:
        np.testing.assert_array_equal(net.params, trained(3, fit)[0].params)
    world = World(ThreadRing.make(1)[0])
    mpi(world).close()
    assert world.aborted is None
    mpi(world).close(ValueError())
    assert world.aborted == 1


@pytest.mark.skipif(dispatch.core.name == "python", reason="there is no faster core than NumPy's")
def test_all_ranks_use_the_core_of_the_slowest():
    """Another core rounds in another way: the weights would drift apart."""

    class WithSlower(ThreadRing):
        """Adds a rank to every comparison that has no compiled core."""

        def gather(self, message):
            other = message.replace(f'"{dispatch.core.name}"'.encode(), b'"python"')
            return [message, other] if other != message else [message]

    def fit(comm):
        net = cmlp.Network([5, 8, 1], seed=1)
        net.fit(
            X, y, epochs=2, comm=comm, callbacks=[lambda state: used.append(dispatch.core.name)]
        )
        return net.params

    used = []
    slower = fit(WithSlower.make(1)[0])
    assert used == [dispatch.core.name] * 2 != ["python"] * 2  # outside a round: the user's
    with cmlp.use_core("python"):
        np.testing.assert_array_equal(slower, fit(ThreadRing.make(1)[0]))
    assert (fit(ThreadRing.make(1)[0]) != slower).any()
