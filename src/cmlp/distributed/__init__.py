"""Training on several machines: one network, a process on each, gradients summed between them.

Every process calls ``net.fit(source, ..., comm=comm)`` with the communicator of its rank.

- :func:`ring`: the communicator of processes that are started by ssh, Slurm or Kubernetes
- :class:`Listener`: the same in two steps, for engines that hand addresses over
- :class:`SocketRing`: what both return
- :class:`mpi`: that of an MPI program
- :class:`ThreadRing`: threads of one process
- :class:`Communicator`: what these have in common
- :class:`RingBroken`, :class:`OutOfStepError`, :class:`RankError`: what ends a training early
"""

from cmlp.distributed.communicator import Communicator, OutOfStepError, RankError, RingBroken
from cmlp.distributed.launch import mpi, ring
from cmlp.distributed.listener import Listener
from cmlp.distributed.sockets import SocketRing, ThreadRing

__all__ = [
    "Communicator", "Listener", "OutOfStepError", "RankError", "RingBroken", "SocketRing",
    "ThreadRing", "mpi", "ring",
]  # fmt: skip
