"""The pages and the prose: links, the map, lines and phrases."""

import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from test_house import RANKS

from cmlp import cli

ROOT = Path(__file__).parents[1]
if not (ROOT / "CONTRIBUTING.md").exists():
    pytest.skip("the tests run without their repository", allow_module_level=True)

SOURCE = ROOT / "src" / "cmlp"
LESSONS = sorted(SOURCE.glob("course/*.md"))
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
CODE = [
    path
    for folder in ("src", "tests", "benchmarks", "examples", "tools")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".pyx", ".pxi", ".h") and path != Path(__file__)
]
CODE += [path for path in ROOT.glob("docs/**/*.py") if "gallery" not in path.parts]
CODE += [path for path in (ROOT / "setup.py", ROOT / ".ci" / "run") if path.exists()]

PHRASES = [
    r"nobody", r"(any|some)body", r"ask(ed|s|ing)? for", r"for ever", r"wants?", r"says", r"looks",
    r"(brings?|brought) (along|back)", r"(comes?|came|coming) back", r"(go|goes|went|going) on",
    r"the short way", r"behind", r"beside", r"stumbles?", r"(makes?|made) ready",
]  # fmt: skip
"""Phrases that hide what a function does: CONTRIBUTING, Prose."""

QUOTED = re.compile("If you want feature names to|You might also want")
"""Words of scikit-learn's, whose messages the estimators repeat."""

by_name = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def text_of(page):
    return page.read_text(encoding="utf-8")


def without_code(page):
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def anchors(page):
    """Return the targets that a page has for links to a part of it."""
    headings = re.findall(r"^#+ (.*)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@by_name
def test_lines_fit_a_screen(page):
    for number, line in enumerate(text_of(page).splitlines(), 1):
        assert len(line) <= 140 or line.startswith("|"), f"line {number} has {len(line)} characters"


@by_name
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", without_code(page)):
        if not target.startswith("https://"):
            file, _, anchor = target.partition("#")
            there = page.parent / file if file else page
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target


def run_line(line):
    """Run a line of a page in a shell's place, if its program is installed."""
    words = shlex.split(line, comments=True)
    if words[0] == "cmlp":
        assert cli.main(words[1:]) == 0, line
    elif words[0] == "python":
        subprocess.run([sys.executable, *words[1:]], check=True)
    elif words[0] != "pip" and (program := shutil.which(words[0])):
        subprocess.run([program, *words[1:]], check=True)


def is_installed(module):
    """Return whether there is such a module; folders of tests, such as dask, are none."""
    found = find_spec(module)
    return found is not None and found.origin is not None


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras' NumPy backend
@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.parent != ROOT], ids=lambda p: p.relative_to(ROOT).as_posix()
)
def test_blocks_run(page, tmp_path, monkeypatch):
    """In order, in an empty folder; but a block that imports what is not installed does not run.

    Text of another language is written to the file that its first line names. Those of the README:
    tests/test_readme.py.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # of modules that a page writes
    monkeypatch.setenv("KERAS_BACKEND", "numpy")
    namespace = {}
    for language, block in re.findall(
        r"^```(python|sh|c|js|html)\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE
    ):
        if language == "python":
            modules = re.findall(r"^ *(?:import|from) (\w+)", block, re.MULTILINE)
            if all(map(is_installed, modules)):
                exec(compile(block, page.name, "exec"), namespace)
        elif language == "sh":
            for line in filter(None, block.splitlines()):
                run_line(line)
        else:
            (name,) = re.findall(rf"\w+\.{language}\b|\w+\.mjs\b", block.splitlines()[0])
            Path(name).write_text(block, encoding="utf-8")


@by_name
def test_files_that_a_page_names_exist(page):
    known = [path.as_posix() for path in [*CODE, *SOURCE.rglob("*"), *ROOT.glob(".github/*/*")]]
    known += [path.as_posix() for path in [*ROOT.glob("*"), *ROOT.glob("tests/**/*.py")]]
    for name in re.findall(r"`([\w/]+\.(?:py|pyx|pxi|h|yml))`", text_of(page)):
        assert "NAME" in name or any(path.endswith(f"/{name}") for path in known), name


def map_lines():
    """Yield (rank, package or file, files that are named for it) of the map in CONTRIBUTING."""
    (text,) = re.findall(
        r"^```text\n(.*?)^```", text_of(ROOT / "CONTRIBUTING.md"), re.DOTALL | re.M
    )
    rank, entry, files = "", "", []
    for line in [*text.splitlines(), "-"]:
        if line.startswith(" " * 21):
            files += re.sub(r"\([^)]*\)", "", line).split()  # words in parentheses explain
            continue
        if entry:
            yield int(rank), entry, files
        rank, entry, files = line[:3].strip() or rank, line[3:21].strip(), []


def test_the_map_names_every_package_at_its_rank():
    lines = list(map_lines())
    named = {entry.strip("/").removesuffix(".py"): rank for rank, entry, _ in lines}
    packages = {path.parent.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("__init__.py")}
    packages |= {"core/kernels", "core/simd"}  # of another language
    assert named.keys() == RANKS.keys() | packages - {"."}
    for name, rank in named.items():
        assert rank == RANKS[name.split("/")[0]], name


def test_the_map_names_files_that_exist():
    for _, entry, files in map_lines():
        assert (SOURCE / entry).exists(), entry
        for name in files:
            suffixes = (".py", ".pyx", ".pxi", ".h")
            assert any((SOURCE / entry / f"{name}{s}").exists() for s in suffixes), f"{entry}{name}"


def test_the_map_fits_one_screen():
    (text,) = re.findall(
        r"^```text\n(.*?)^```", text_of(ROOT / "CONTRIBUTING.md"), re.DOTALL | re.M
    )
    assert text.count("\n") <= 48 and max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    "path", PAGES + LESSONS + CODE, ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_prose_is_plain(path):
    found = re.compile(rf"\b({'|'.join(PHRASES)})\b", re.IGNORECASE)
    for number, line in enumerate(text_of(path).splitlines(), 1):
        match = found.search(QUOTED.sub("", line))
        assert not match, f"line {number}: {match[0]!r}, in {line.strip()}"
