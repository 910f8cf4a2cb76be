"""What ranks of a training say to each other, and the errors that end it."""

from __future__ import annotations

from typing import Any, Protocol, Self

from cmlp.core.layout import Array


class RingBroken(ConnectionError):
    """A rank has left, or does not answer; the others have closed their connections.

    Attributes
    ----------
    waited_for : int or None
        The rank that did not answer, or that closed its connection; None where it is not known.
    seen : str
        What was seen of it.
    """

    def __init__(self, seen: str, waited_for: int | None = None) -> None:
        who = "" if waited_for is None else f"rank {waited_for}: "
        super().__init__(f"{who}{seen}")
        self.seen, self.waited_for = seen, waited_for

    def __reduce__(self) -> Any:
        return RingBroken, (self.seen, self.waited_for)


class OutOfStepError(RuntimeError):
    """Ranks do not fit each other: other versions, settings or data, or weights that differ."""


class RankError(RuntimeError):
    """Another rank has failed with an error of its own; the message has it."""


class Communicator(Protocol):
    """Connects the ranks of a training.

    All ranks call the same methods in the same order. What goes wrong raises :class:`RingBroken`,
    and closes the connections, so that the others do not wait.

    Attributes
    ----------
    rank, size : int
        The number of this rank, from 0, and how many there are.
    """

    rank: int
    size: int

    def allreduce(self, array: Array, tail: Array | None = None) -> None:
        """Replace an array by the sum of all ranks', the same bits on every rank.

        Parameters
        ----------
        array : (n,) array
            Of the same length and dtype on every rank; contiguous.
        tail : (m,) array of float64, optional
            A few more numbers, which travel along.
        """

    def broadcast(self, array: Array, root: int = 0) -> None:
        """Replace a contiguous array by that of a rank; it is unchanged until all has arrived."""

    def gather(self, message: bytes) -> list[bytes]:
        """Return the messages of all ranks, to every rank."""

    def close(self, error: BaseException | None = None) -> None:
        """Close the connections, at the end or because of an error; the others notice at once."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.close(error)
