"""The name under which public classes are found: ``cmlp``, whatever module they are written in."""

from __future__ import annotations

from typing import Any, TypeVar

Class = TypeVar("Class", bound=type[Any])


def set_module(cls: Class) -> Class:
    """Decorate a public class: reprs, tracebacks and pickles name it ``cmlp.<class>``."""
    cls.__module__ = "cmlp"
    return cls
