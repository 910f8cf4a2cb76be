"""The front end as files: joined, small, of this machine alone."""

import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from cmlp.page import bundle
from cmlp.page.widget import WidgetChannel, serve
from cmlp.plot.style import COLOURS

STATIC = bundle.files("cmlp.page").joinpath("static")
MODULES = sorted(file.name[:-3] for file in STATIC.iterdir() if file.name.endswith(".js"))


def test_every_module_is_part_of_the_page():
    joined = bundle.single_module("main") + bundle.single_module("widget")
    for name in MODULES:
        assert f"const m_{name} = (() => {{" in joined
    assert len(MODULES) <= 16


@pytest.mark.parametrize("name", ["main", "widget"])
def test_the_joined_module_is_a_module(name, tmp_path):
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    file = tmp_path / "page.mjs"
    file.write_text(bundle.single_module(name), encoding="utf-8")
    subprocess.run(["node", "--check", str(file)], check=True)


def test_nothing_foreign_is_loaded():
    """Everything works offline; the only addresses are names of namespaces."""
    for text in (bundle.page(), bundle.single_module("main")):
        assert set(re.findall(r"https?://[\w./]+", text)) <= {"http://www.w3.org/1998/Math/MathML"}
        assert "innerHTML" not in text and "eval(" not in text and "document.write" not in text


def test_colours_are_those_of_the_pictures():
    found = re.findall(r"--c(\d): (#\w{6});", bundle.page())
    assert [colour for at, colour in found[:8]] == list(COLOURS)
    assert [at for at, _ in found] == [str(i) for i in range(8)] * 2


def test_it_is_small(tmp_path):
    with zipfile.ZipFile(tmp_path / "page.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for each in STATIC.iterdir():
            file.writestr(each.name, each.read_bytes())
    assert (tmp_path / "page.zip").stat().st_size < 45_000


class Widget:
    """A front end that remembers what it got."""

    def __init__(self):
        self.got = []

    def send(self, content, buffers=()):
        self.got.append((content, buffers))


def test_a_notebook_serves_one_display_after_the_other():
    widget = Widget()
    channel = WidgetChannel(widget)
    for text in (
        "[",
        '{"type":"hello","setup":{"data":"xor","n":20,"layers":[2]}}',
        '{"type": "step", "n": 3}',
        '{"type":"hello"}',
    ):
        channel.take(None, {"text": text}, [])
    channel.take(None, {"binary": True}, [memoryview(b"abc")])
    channel.take(None, "nonsense", [])
    channel.close()
    serve(channel, None, None)
    kinds = [re.search(r'"type": "(\w+)"', c["text"])[1] for c, _ in widget.got if "text" in c]
    assert kinds.count("welcome") == 2 and kinds.count("error") == 1  # of the bytes
    assert any(content.get("binary") and buffers for content, buffers in widget.got)


def test_the_widget():
    anywidget = pytest.importorskip("anywidget")
    from cmlp.page.widget import widget_of

    widget = widget_of(None, None)
    assert isinstance(widget, anywidget.AnyWidget) and "export default" in str(widget._esm)


def test_the_command_starts_without_what_it_does_not_need():
    code = (
        "import sys, cmlp.page.server; print({'cmlp.plot', 'matplotlib', 'cmlp.diagnosis.report', "
    )
    code += "'cmlp.core.reference', 'cmlp.estimators.fit', 'websockets'} & {*sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() in ("set()", "{'cmlp.core.reference'}")  # the NumPy core
