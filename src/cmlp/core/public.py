"""Public classes say where users find them, wherever they are defined."""

from __future__ import annotations

from typing import TypeVar

Class = TypeVar("Class", bound=type)


def set_module(cls: Class) -> Class:
    """Give a class the public module's name: in reprs, in pickles, in documentation."""
    cls.__module__ = "cmlp"
    return cls
