"""The module that public classes name: pickles and reprs then survive a move of their files."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Kind = TypeVar("Kind", bound=type)


def set_module(name: str) -> Callable[[Kind], Kind]:
    """Return a decorator that sets the module of a class; ``cmlp`` exports it by that name."""

    def decorate(kind: Kind) -> Kind:
        kind.__module__ = name
        return kind

    return decorate
