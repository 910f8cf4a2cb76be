"""The course: how a network learns, in eight lessons with exercises that are checked.

``cmlp course`` lists the lessons, ``cmlp course 1`` writes one as a notebook. In it:

- :func:`check`: is an answer right, and if not, what may it come from?
- :func:`hint`, :func:`solution`: help in three levels, and the answer
- :func:`source`: the line of the NumPy twin that does what the lesson explains
- :func:`set_up`: what ``cmlp play --lesson 1`` begins with
- :mod:`cmlp.course.pictures`: the pictures, with matplotlib (``pip install 'cmlp[plot]'``)
"""

from cmlp.course import pictures
from cmlp.course.lessons import check, hint, question, solution, title, write
from cmlp.course.nets import (
    descend,
    digits_net,
    raw_reader,
    sigmoid,
    softmax,
    two_two_one,
    valley_slope,
)
from cmlp.course.set_ups import link, set_up
from cmlp.course.twin import source

__all__ = [
    "check",
    "descend",
    "digits_net",
    "hint",
    "link",
    "pictures",
    "question",
    "raw_reader",
    "set_up",
    "sigmoid",
    "softmax",
    "solution",
    "source",
    "title",
    "two_two_one",
    "valley_slope",
    "write",
]
