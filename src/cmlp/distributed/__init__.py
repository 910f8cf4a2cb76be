"""Training on several machines: one network, a process on each, gradients summed between them.

Every process calls ``net.fit(source, ..., comm=comm)`` with the communicator of its rank.

- :func:`ring`: the communicator of processes that are started by ssh, Slurm or Kubernetes
- :class:`Listener`: the same in two steps, for engines that hand the addresses over
- :func:`mpi`: that of mpi4py
- :class:`ThreadRing`: threads of one process
- :class:`Communicator`: what these have in common
- :class:`RingBroken`, :class:`OutOfStepError`, :class:`RankError`: what ends a training early
"""

from cmlp.distributed.communicator import Communicator, OutOfStepError, RankError, RingBroken
from cmlp.distributed.threads import ThreadRing

__all__ = ["Communicator", "OutOfStepError", "RankError", "RingBroken", "ThreadRing"]
