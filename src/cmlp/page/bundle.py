"""The page's files, joined: HTML, style and one module, so that a browser makes one request.

The modules import each other in lines of one form, ``import { a, b } from "./file.js";``, and
export functions and constants where they declare them. Each becomes a function's body that returns
its exports, after those that it imports.
"""

from __future__ import annotations

import re
from importlib.resources import files

IMPORT = re.compile(r'^import \{ ([\w$, ]+) \} from "\./(\w+)\.js";$', re.M)
EXPORT = re.compile(r"^export (async function|function|const|class) ([\w$]+)", re.M)


def source(name: str) -> str:
    """Return a file of the page."""
    return files("cmlp.page").joinpath("static").joinpath(name).read_text(encoding="utf-8")


PLACE = '<script type="module"></script>'
"""Where the HTML takes its script."""


def page() -> str:
    """Return the HTML, with its style and its script."""
    script = single_module("main")
    return source("index.html").replace(PLACE, f'<script type="module">\n{script}</script>')


def style() -> str:
    """Return the CSS of the page."""
    found = re.search(r"<style>(.*?)</style>", source("index.html"), re.DOTALL)
    assert found is not None
    return found[1]


def single_module(name: str) -> str:
    """Return a module and all that it imports as one text."""
    done: dict[str, str] = {}
    _add(name, done)
    return "".join(done.values())


def _add(name: str, done: dict[str, str]) -> None:
    if name in done:
        return
    text = source(f"{name}.js")
    for _, other in IMPORT.findall(text):
        _add(other, done)
    exports = [found[1] for found in EXPORT.findall(text)]
    text = IMPORT.sub(lambda line: f"const {{ {line[1]} }} = m_{line[2]};", text)
    text = EXPORT.sub(r"\1 \2", text)
    assert "\nimport " not in text and "\nexport " not in text, f"{name}.js imports otherwise"
    done[name] = f"const m_{name} = (() => {{\n{text}return {{ {', '.join(exports)} }};\n}})();\n"
