"""The one door: Host, Origin, method, paths, token; limits; pages that leave each other alone."""

import gc
import json
import os
import signal
import socket
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pages import read

from cmlp.page import limits
from cmlp.page.door import Door
from cmlp.page.set_up import SetUp

pytest.importorskip("websockets.sync.server")
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from cmlp.page import server as module

SMALL = SetUp(data="moons", layers=(4,), n=40)


@pytest.fixture
def server():
    server = module.PageServer(setup=SMALL)
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield server
    server.close()
    thread.join(5)
    assert not thread.is_alive()


@contextmanager
def opened(server, token=None, hello=True, origin=None):
    url, own = f"127.0.0.1:{server.door.port}", f"http://127.0.0.1:{server.door.port}"
    with connect(f"ws://{url}/socket", origin=origin or own, max_size=None) as page:
        if hello:
            page.send(json.dumps({"type": "hello", "token": token or server.door.token}))
        yield page


def until(page, kind, seconds=5.0):
    """The next event, or frame, of a kind."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        found = read(page.recv(timeout=left))
        if found.get("type", found.get("kind")) == kind:
            return found
    raise TimeoutError(kind)


def asked(server, lines):
    """The first line of the answer to a request that is written by hand."""
    with socket.create_connection(("127.0.0.1", server.door.port), timeout=5) as line:
        line.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        return line.makefile("rb").read()


def host(server):
    return f"Host: 127.0.0.1:{server.door.port}"


def threads():
    return [each for each in threading.enumerate() if each is not threading.main_thread()]


# Doors -------------------------------------------------------------------------------------------


def test_files(server):
    answer = asked(server, ["GET / HTTP/1.1", host(server)])
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200") and b"text/html" in head and len(body) > 1000
    assert b"default-src 'none'" in head and b"nosniff" in head and b"no-store" in head
    assert b"script-src 'sha256-" in head  # no other script than the one in the page
    assert b"Access-Control" not in head and b"Set-Cookie" not in head
    assert server.door.token.encode() not in answer
    assert set(server.files) == {"/"} and body.count(b"</script>") == 1


REFUSED = {
    "another host": ("421", "GET / HTTP/1.1", ["Host: evil.example"]),
    "another port": ("421", "GET / HTTP/1.1", ["Host: 127.0.0.1:1"]),
    "no host": ("421", "GET / HTTP/1.1", []),
    "two hosts": ("421", "GET / HTTP/1.1", ["Host: evil.example", "{host}"]),
    "a post": ("405", "POST / HTTP/1.1", ["{host}"]),
    "an unknown path": ("404", "GET /static/app.js HTTP/1.1", ["{host}"]),
    "a path upward": ("404", "GET /../../etc/passwd HTTP/1.1", ["{host}"]),
    "a query": ("404", "GET /?token=x HTTP/1.1", ["{host}"]),
    "no origin": ("403", "GET /socket HTTP/1.1", ["{host}", "Upgrade: websocket"]),
    "two origins": ("403", "GET /socket HTTP/1.1", ["{host}", "Origin: a", "Origin: b"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(server, name):
    status, line, headers = REFUSED[name]
    answer = asked(server, [line, *(each.replace("{host}", host(server)) for each in headers)])
    assert answer.split(b" ")[1] == status.encode()
    assert asked(server, ["GET / HTTP/1.1", host(server)]).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "https://127.0.0.1:{port}",
        "http://127.0.0.1",
        "http://127.0.0.1:{port}.evil.example",
    ],
)
def test_foreign_origins(server, origin):
    with (
        pytest.raises(InvalidStatus) as caught,
        opened(server, origin=origin.format(port=server.door.port)),
    ):
        pass
    assert caught.value.response.status_code == 403


TEXT = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=40)
STARTS = st.sampled_from(
    ("GET / HTTP/1.1", "GET /socket HTTP/1.1", "POST / HTTP/1.1", "GET /socket HTTP/1.0")
)
HEADERS = st.builds(
    "{}: {}".format,
    st.sampled_from(("Host", "Origin", "Upgrade", "Sec-WebSocket-Key", "Content-Length", "Range")),
    TEXT | st.sampled_from(("127.0.0.1:80", "http://127.0.0.1", "websocket", "9" * 30)),
)
REQUESTS = st.lists(
    st.tuples(STARTS | TEXT, st.lists(HEADERS | TEXT, max_size=3)), min_size=10, max_size=10
)


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(requests=REQUESTS)
def test_any_request_leaves_the_server_alive(server, requests):
    """2,000 requests; none is answered with anything but a refusal, and the next page is served."""
    for first, headers in requests:
        with socket.create_connection(("127.0.0.1", server.door.port), timeout=5) as line:
            line.sendall("\r\n".join([first, *headers, "", ""]).encode("latin-1"))
            if first in ("GET / HTTP/1.1", "GET /socket HTTP/1.1"):  # not their own address
                assert line.recv(12).split(b" ")[1:2] in ([b"421"], [b"400"], [])
    assert asked(server, ["GET / HTTP/1.1", host(server)]).startswith(b"HTTP/1.1 200")
    assert server.sessions == 0


@pytest.mark.parametrize(
    "first",
    [
        '{"type": "hello", "token": "x"}',
        '{"type": "hello"}',
        "[",
        b"\0",
        '{"type": "run"}',
        '{"type": "hello", "token": 3}',
        "[" * 30_000,
    ],
)
def test_no_session_without_the_token(server, first):
    with opened(server, hello=False) as page:
        page.send(first)
        with pytest.raises(ConnectionClosed) as caught:
            page.recv(timeout=5)
        assert caught.value.rcvd.code == 1008
    assert server.sessions == 0


def test_silence_is_no_token_either(server, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_FOR_HELLO", 0.1)
    with opened(server, hello=False) as page, pytest.raises(ConnectionClosed):
        page.recv(timeout=5)


def test_many_wrong_tokens_take_time(server, monkeypatch):
    monkeypatch.setattr(module, "WRONG_TOKENS", 0)
    with opened(server, token="wrong") as page:
        began = time.monotonic()
        with pytest.raises(ConnectionClosed):
            page.recv(timeout=5)
        assert time.monotonic() - began > 0.8


def test_the_token_is_in_the_fragment_alone(server):
    before, fragment = server.door.url.split("#")
    assert fragment == f"token={server.door.token}" and server.door.token not in before
    assert server.door.socket.getsockname()[0] == "127.0.0.1"


# Pages -------------------------------------------------------------------------------------------


def test_two_pages_do_not_disturb_each_other(server):
    with opened(server) as one, opened(server) as other:
        for page, seed in ((one, 1), (other, 2)):
            page.send(json.dumps({"type": "setup", "fields": {"seed": seed}}))
            page.send(json.dumps({"type": "look", "panels": ["weights"]}))
            page.send(json.dumps({"type": "step", "n": 40}))
        weights = []
        for page in (one, other):
            while (frame := until(page, "frame"))["step"] < 40 or "W1" not in frame["arrays"]:
                page.send('{"type": "more", "credit": 1}')
            weights.append(frame["arrays"]["W1"])
        assert not np.array_equal(*weights)
        from cmlp.page import build

        for seed, found in zip((1, 2), weights, strict=True):
            setup = SMALL.changed({"seed": seed})
            run = build.new_run(setup, build.rows_of(setup, None))
            run.advance(40)
            assert np.array_equal(found, run.net.weights[0])


def test_a_closed_page_ends_its_training(server):
    gc.collect()
    before = len(threads())
    with opened(server) as page:
        until(page, "frame")
        page.send('{"type": "run", "speed": 0}')
        until(page, "frame")
    end = time.monotonic() + 2
    while (server.sessions or len(threads()) > before) and time.monotonic() < end:
        time.sleep(0.01)
    assert server.sessions == 0 and len(threads()) <= before


def test_many_pages_one_after_the_other(server):
    before = len(threads())
    for _ in range(50):
        with opened(server) as page:
            until(page, "state")
    end = time.monotonic() + 2
    while (server.sessions or len(threads()) > before) and time.monotonic() < end:
        time.sleep(0.01)
    assert server.sessions == 0 and len(threads()) <= before


def test_a_ninth_page_is_refused(server, monkeypatch):
    monkeypatch.setattr(limits, "SESSIONS", 2)
    with opened(server) as one, opened(server) as two:
        until(one, "state"), until(two, "state")
        with opened(server) as third:
            assert "pages are open" in until(third, "error")["text"]


def test_a_reader_that_stops_gets_two_frames(server):
    with opened(server) as page:
        page.send('{"type": "look", "panels": ["weights", "regions"]}')
        page.send('{"type": "run", "speed": 0}')
        until(page, "frame")
        time.sleep(0.5)
        frames = 1
        while True:
            try:
                frames += read(page.recv(timeout=0.1)).get("kind") == "frame"
            except TimeoutError:
                break
        assert frames == 2
        page.send('{"type": "more", "credit": 1}')
        until(page, "frame")


def test_a_message_that_is_too_large(server):
    with opened(server) as page:
        until(page, "state")
        with pytest.raises(ConnectionClosed) as caught:
            page.send("x" * (limits.MESSAGE_BYTES + 1))
            page.recv(timeout=5), page.recv(timeout=5), page.recv(timeout=5)
        assert caught.value.rcvd.code == 1009
    with opened(server) as page:
        until(page, "state")


def test_a_port_that_is_taken(server):
    with pytest.raises(OSError):
        Door(server.door.port)


def test_the_command(monkeypatch, capsys, run, tmp_path):
    """It prints the address, and ends with Ctrl-C."""

    def interrupted(self):
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        serve(self)

    opened_, serve = [], module.PageServer.serve
    monkeypatch.setattr(module.PageServer, "serve", interrupted)
    monkeypatch.setattr("webbrowser.open", opened_.append)
    code, out, _ = run("play")
    assert code == 0 and "http://127.0.0.1:" in out and len(opened_) == 1
    code, out, _ = run("play", "--no-browser")
    assert code == 0 and len(opened_) == 1
    file = tmp_path / "class.json"
    file.write_text('{"layers": "x"}')
    code, _, err = run("play", file)
    assert code == 2 and "layers" in err
    assert run("play", tmp_path / "none.json")[0] == 2
    begun = []
    monkeypatch.setattr("cmlp.cli.play.serve", lambda setup, **_: begun.append(setup))
    assert run("play", "--lesson", "5")[0] == 0 and begun[0].rows == (((1, -1), 1),)
    assert run("play", "--lesson", "9")[0] == 2 and run("play", file, "--lesson", "1")[0] == 2
    assert run("play", "--port", "99999")[0] == 2
