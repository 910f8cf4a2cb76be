"""The lessons: Markdown with code, as pages, notebooks and scripts."""

from __future__ import annotations

import errno
import json
import os
import re
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from cmlp.course.exercise import Exercise, Verdict
from cmlp.course.lessons_1_to_4 import FIRST
from cmlp.course.lessons_5_to_8 import SECOND

NAMES = (
    "1-neuron", "2-layer", "3-cost", "4-descent", "5-backpropagation", "6-batches",
    "7-cross-entropy", "8-generalise",
)  # fmt: skip
"""Of the lessons' files, in order."""

EXERCISES = {exercise.key: exercise for exercise in (*FIRST, *SECOND)}


SHOW = "import matplotlib.pyplot as plt\n\nplt.show()"
"""The end of a script: its pictures appear."""


class Cell(NamedTuple):
    """A piece of a lesson: 'markdown' or 'code', and its text."""

    kind: str
    text: str


@lru_cache
def text(number: int, answers: bool = False) -> str:
    """Return a lesson as MyST Markdown, with its exercises.

    Parameters
    ----------
    number : int
        1 to 8.
    answers : bool
        Put hints and the answer under each exercise, to be unfolded: for pages where no code runs.

    Returns
    -------
    str
        CommonMark with formulas between dollars; code that runs is in fences named {code-cell}.

    Raises
    ------
    ValueError
        If there is no such lesson.
    """
    if number not in range(1, len(NAMES) + 1):
        raise ValueError(f"lesson is {number!r}; there are 1 to {len(NAMES)}")
    page = files("cmlp.course").joinpath(f"{NAMES[number - 1]}.md").read_text(encoding="utf-8")
    return re.sub(
        r"^\{exercise\} (\d\.\d)$", lambda match: _posed(match[1], answers), page, flags=re.M
    )


def _posed(key: str, answers: bool) -> str:
    """Return an exercise as Markdown."""
    exercise = EXERCISES[key]
    parts = [
        f"### Exercise {key}",
        exercise.question,
        f'```{{code-cell}}\nanswer = ...\nprint(course.check("{key}", answer))\n```',
    ]
    if answers:
        hints = "\n".join(f"1. {hint}" for hint in exercise.hints[:2])
        for title, inside in (("Hints", hints), ("Answer", exercise.solution)):
            parts.append(f"<details><summary>{title}</summary>\n\n{inside}\n\n</details>")
    return "\n\n".join(parts)


def title(number: int) -> str:
    """Return a lesson's title.

    Parameters
    ----------
    number : int
        1 to 8.

    Returns
    -------
    str
    """
    return text(number).partition("\n")[0].removeprefix("# ")


def cells(number: int, answers: bool = False) -> list[Cell]:
    """Return the pieces of a lesson in order.

    Parameters
    ----------
    number : int
        1 to 8.
    answers : bool
        As for :func:`text`.

    Returns
    -------
    list of Cell
    """
    found = []
    for n, part in enumerate(
        re.split(r"^```\{code-cell\}\n(.*?)^```$", text(number, answers), flags=re.M | re.S)
    ):
        if part.strip():
            found.append(Cell("code" if n % 2 else "markdown", part.strip("\n")))
    return found


def notebook(number: int) -> dict[str, Any]:
    """Return a lesson as a Jupyter notebook (nbformat 4.5).

    Parameters
    ----------
    number : int
        1 to 8.

    Returns
    -------
    dict
        To be written as JSON.
    """
    made: list[dict[str, Any]] = []
    for n, (kind, content) in enumerate(cells(number)):
        cell: dict[str, Any] = {
            "cell_type": kind,
            "id": f"{number}-{n}",
            "metadata": {},
            "source": content.splitlines(keepends=True),
        }
        made.append({**cell, "outputs": [], "execution_count": None} if kind == "code" else cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": made,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def script(number: int) -> str:
    """Return a lesson as Python, whose text is comments.

    Parameters
    ----------
    number : int
        1 to 8.

    Returns
    -------
    str
    """
    parts = []
    for kind, content in [*cells(number), Cell("code", SHOW)]:
        lines = content.splitlines()
        if kind == "markdown":
            lines = [f"# {line}".rstrip() for line in lines]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def write(number: int, folder: str | os.PathLike[str] = ".", *, as_script: bool = False) -> Path:
    """Write a lesson as a notebook.

    Parameters
    ----------
    number : int
        1 to 8.
    folder : path
        Made if it is not there.
    as_script : bool
        Write Python instead.

    Returns
    -------
    Path
        Of the new file.

    Raises
    ------
    FileExistsError
        If the file is there: it may hold your answers.
    NotADirectoryError
        If the folder is a file.
    ValueError
        If there is no such lesson.
    """
    content = script(number) if as_script else json.dumps(notebook(number), indent=1) + "\n"
    path = Path(folder) / f"{NAMES[number - 1]}{'.py' if as_script else '.ipynb'}"
    if path.parent.exists() and not path.parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "it is a file; name a folder", str(path.parent))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(content)
    return path


def exercise(key: str) -> Exercise:
    """Return an exercise.

    Parameters
    ----------
    key : str
        Lesson and number, such as "5.2".

    Returns
    -------
    Exercise

    Raises
    ------
    ValueError
        If there is no such exercise.
    """
    if str(key) not in EXERCISES:
        raise ValueError(f"exercise is {key!r}; there are {', '.join(EXERCISES)}")
    return EXERCISES[str(key)]


def check(key: str, answer: Any) -> Verdict:
    """Check an answer.

    Parameters
    ----------
    key : str
        Lesson and number, such as "5.2".
    answer : float, array_like or str
        With as many digits after the point as the question requires, or a word in quotes.

    Returns
    -------
    Verdict
        True if the answer is right; printed, it tells what a wrong one may come from.

    Raises
    ------
    ValueError
        If there is no such exercise.

    Examples
    --------
    >>> from cmlp import course
    >>> course.check("1.1", 0.5)
    Not yet: that is the output without the bias. Add b to the weighted sum.
    >>> course.check("1.1", 0.562)
    Right.
    """
    return exercise(key).check(answer)


def question(key: str) -> str:
    """Return what an exercise is about, as Markdown.

    Parameters
    ----------
    key : str
        Lesson and number, such as "5.2".

    Returns
    -------
    str
    """
    return exercise(key).question


def hint(key: str, level: int = 1) -> str:
    """Return a hint.

    Parameters
    ----------
    key : str
        Lesson and number, such as "5.2".
    level : int
        1 to 3; each is plainer than the one before.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If there is no such exercise or level.
    """
    hints = exercise(key).hints
    if level not in range(1, len(hints) + 1):
        raise ValueError(f"level is {level!r}; there are 1 to {len(hints)}")
    return hints[level - 1]


def solution(key: str) -> str:
    """Return the answer to an exercise, with the way to it.

    Parameters
    ----------
    key : str
        Lesson and number, such as "5.2".

    Returns
    -------
    str
        Markdown, with formulas between dollars.

    Raises
    ------
    ValueError
        If there is no such exercise.
    """
    return exercise(key).solution
