"""The front end as files: joined, small, of this machine alone."""

import json
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile

import numpy as np
import pytest
from pages import read

from cmlp.page import bundle
from cmlp.page.set_up import SetUp
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


class Comm:
    """The kernel's end of a widget's line, and what went out."""

    def __init__(self, **opened):
        self.opened, self.sent, self.answer = opened, [], None
        self.comm_id, self.kernel = "1", self

    def send(self, data=None, metadata=None, buffers=None):
        self.sent.append((data["method"], data.get("content"), buffers))

    def on_msg(self, answer):
        self.answer = answer

    def on_close(self, answer):
        self.closed = answer

    def close(self, *_, **__):
        pass

    def ask(self, **message):
        """Send what a front end sends."""
        data = {"method": "custom", "content": {"text": json.dumps(message)}}
        self.answer({"content": {"data": data}, "buffers": []})

    def events(self, kind):
        found = [json.loads(c["text"]) for m, c, _ in [*self.sent] if m == "custom" and "text" in c]
        return [each for each in found if each["type"] == kind]

    def frames(self):
        return [b[0] for m, c, b in [*self.sent] if m == "custom" and c.get("binary")]


def test_the_widget(monkeypatch):
    """By the protocol of widgets: its module, its messages and its frames; closed, it ends."""
    pytest.importorskip("anywidget")
    from cmlp.page.widget import widget_of

    opened = []
    monkeypatch.setattr("comm.create_comm", lambda **how: opened.append(Comm(**how)) or opened[-1])
    before = {*threading.enumerate()}
    widget = widget_of(None, SetUp(data="xor", layers=(3,)))
    (comm,) = (each for each in opened if "_esm" in each.opened["data"]["state"])
    (serving,) = {*threading.enumerate()} - before
    state = comm.opened["data"]["state"]
    assert "export default m_widget" in str(state["_esm"]) and state["_css"] == bundle.style()
    comm.ask(type="hello")
    comm.ask(type="look", panels=["weights"])
    until(lambda: comm.frames())
    assert [each["sizes"] for each in comm.events("state")] == [[2, 3, 2]]
    arrays = read(bytes(comm.frames()[-1]))["arrays"]
    before = len(comm.frames())
    comm.ask(type="more", credit=2)
    comm.ask(type="step", n=3)
    until(lambda: len(comm.frames()) > before)
    after = read(bytes(comm.frames()[-1]))
    assert after["step"] == 3 and not np.array_equal(after["arrays"]["W1"], arrays["W1"])
    widget.close()
    serving.join(10)
    assert not serving.is_alive()


def until(holds):
    """Wait for what another thread does."""
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.01)
    raise TimeoutError


def test_the_command_starts_without_what_it_does_not_need():
    code = (
        "import sys, cmlp.page.server; print({'cmlp.plot', 'matplotlib', 'cmlp.diagnosis.report', "
    )
    code += "'cmlp.core.reference', 'cmlp.estimators.fit', 'websockets'} & {*sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() in ("set()", "{'cmlp.core.reference'}")  # the NumPy core
