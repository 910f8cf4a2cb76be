"""Pages whose text stands elsewhere: a page with one line, ``<!-- page: NAME -->``, becomes it.

NAME is ``lesson 5``, whose code runs here; ``command``, the help of every command; or a file of the
repository's root, whose links are made to fit.
"""

import argparse
import contextlib
import io
import os
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import cmlp
from cmlp.cli.arguments import make_parser
from cmlp.course import lessons

DOCS = Path(__file__).parents[1]


def lesson(number: int) -> str:
    """Return a lesson with what its code printed and drew; an error in it ends the build."""
    parts, namespace = [], {}
    for n, (kind, text) in enumerate(lessons.cells(number, answers=True)):
        if kind == "markdown":
            parts.append(text)
            continue
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(text, f"{lessons.NAMES[number - 1]}.md", "exec"), namespace)
        parts.append(f"```python\n{text}\n```")
        if printed.getvalue():
            parts.append(f"```{{code-block}} text\n:class: output\n\n{printed.getvalue()}```")
        if plt.get_fignums():
            folder = DOCS / "course" / "pictures"
            folder.mkdir(exist_ok=True)
            plt.savefig(folder / f"{number}-{n}.png", dpi=120)
            parts.append(f"![{description(text)}](pictures/{number}-{n}.png)")
            plt.close("all")
    return "\n\n".join(parts) + "\n"


def description(code: str) -> str:
    """Return in words what a cell draws: the first line of that function's documentation."""
    found = re.findall(r"(?:course\.pictures|cmlp\.plot)\.\w+", code)
    drawn = eval(found[-1], {"cmlp": cmlp, "course": cmlp.course})
    return drawn.__doc__.strip().splitlines()[0]


def commands() -> str:
    """Return a section for each command, with the text of its --help."""
    os.environ["COLUMNS"] = "96"
    parser = make_parser()
    (found,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    parts = ["# The command"]
    for name, each in [("", parser), *found.choices.items()]:
        parts.append(f"## cmlp {name}".rstrip() + f"\n\n```text\n{each.format_help()}```")
    return "\n\n".join(parts) + "\n"


def text_of(name: str) -> str:
    """Return a page's text."""
    if name.startswith("lesson "):
        return lesson(int(name.removeprefix("lesson ")))
    if name == "command":
        return commands()
    text = (DOCS.parent / name).read_text(encoding="utf-8")
    text = re.sub(r"\]\(docs/", "](", text)
    return re.sub(r"\]\((CONTRIBUTING|CHANGELOG)\.md", lambda m: f"]({m[1].lower()}.md", text)


def replace(app, docname, source):
    """Put the text in the place of the line."""
    if found := re.fullmatch(r"<!-- page: (.+) -->\s*", source[0]):
        source[0] = text_of(found[1])


def setup(app):
    """Register with Sphinx."""
    app.connect("source-read", replace)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
