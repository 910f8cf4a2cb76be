"""The site's sources are complete and offline; its checker finds faults. `.ci/run` builds it."""

import importlib
import inspect
import re
import runpy
import types
from pathlib import Path

import pytest

import cmlp
from cmlp import course, dask, data, distributed, plot, schedules

ROOT = Path(__file__).parents[1]
if not (ROOT / "docs" / "conf.py").exists():
    pytest.skip("the tests run without their repository", allow_module_level=True)


def listed():
    """Names of the reference's pages."""
    text = "".join(page.read_text(encoding="utf-8") for page in ROOT.glob("docs/api/*.md"))
    return re.findall(r"^   (cmlp\.[\w.]+)$", text, re.MULTILINE)


def public():
    """Every public name but modules."""
    parts = [(name, getattr(cmlp, name)) for name in cmlp.__all__]
    parts += [(f"plot.{name}", getattr(plot, name)) for name in plot.__all__]
    parts += [(f"data.{name}", getattr(data, name)) for name in data.__all__]
    parts += [(f"course.{name}", getattr(course, name)) for name in course.__all__]
    parts += [(f"distributed.{name}", getattr(distributed, name)) for name in distributed.__all__]
    parts += [(f"dask.{name}", getattr(dask, name)) for name in dask.__all__]
    parts += [
        (f"schedules.{name}", thing)
        for name, thing in vars(schedules).items()
        if isinstance(thing, type) and issubclass(thing, schedules.Schedule)
    ]
    return {
        f"cmlp.{name}": thing for name, thing in parts if not isinstance(thing, types.ModuleType)
    }


def found(name):
    """Return the object of a name."""
    path, _, last = name.rpartition(".")
    return getattr(importlib.import_module(path), last)


def test_every_public_name_has_a_page_of_the_reference():
    names = listed()
    assert len(names) == len(set(names)) and public().keys() <= set(names)
    for name in names:
        assert found(name).__doc__, name


def test_every_parameter_has_a_sentence():
    """Of functions and constructors, as the reference shows them, and of `fit`."""
    shared = runpy.run_path(str(ROOT / "docs" / "_ext" / "shared_parameters.py"))
    known, missing = shared["entries_of"], []
    for name in listed():
        thing = found(name)
        text = shared["whole"](name, inspect.getdoc(thing))
        if isinstance(thing, type) and "\nParameters\n" not in text:
            continue  # what functions return is not constructed
        if names := inspect.signature(thing).parameters:
            documented = {parameter for each in known(text) for parameter in each}
            missing += [
                f"{name}: {parameter}" for parameter in names if parameter not in documented
            ]
    for thing in (cmlp.Network, cmlp.MLPClassifier, cmlp.TabularClassifier):
        text = inspect.getdoc(thing.fit)
        missing += [p for p in inspect.signature(thing.fit).parameters if p not in text]
    assert set(missing) == {"self"}


def test_the_gallery_has_its_examples():
    examples = sorted(ROOT.glob("docs/examples/plot_*.py"))
    assert len(examples) >= 15
    for path in examples:
        text = path.read_text(encoding="utf-8")
        assert re.match(r'"""\n(.+)\n=+\n\n', text), path
        assert "import cmlp" in text and ("plt." in text or "cmlp.plot." in text), path


def test_nothing_of_the_site_is_of_another_host():
    for path in [*ROOT.glob("docs/*.py"), *ROOT.glob("docs/_*/**/*.*")]:
        assert "://" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<a href="b.html#there">x</a><img src="p.png" alt="">', None),
        ('<a href="https://example.org">a reader clicks this</a><a href="#top">x</a>', None),
        ('<a href="c.html">x</a>', "c.html is dead"),
        ('<a href="b.html#nowhere">x</a>', "b.html#nowhere has no such anchor"),
        ('<img src="q.png" alt="">', "q.png is dead"),
        ('<img src="p.png">', "a picture has no description: p.png"),
        ('<script src="https://cdn.example.org/x.js"></script>', "of another host"),
        ('<link rel="stylesheet" href="//fonts.example.org/x.css">', "of another host"),
    ],
)
def test_the_checker_finds_what_is_wrong(body, fault, tmp_path):
    faults = runpy.run_path(str(ROOT / "tools" / "check_site.py"))["faults"]
    (tmp_path / "a.html").write_text(f"<html><body>{body}</body></html>")
    (tmp_path / "b.html").write_text('<h1 id="there">b</h1>')
    (tmp_path / "p.png").write_bytes(b"")
    lines = faults(tmp_path)
    assert [fault in line for line in lines] == ([True] if fault else []), lines
