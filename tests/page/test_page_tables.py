"""A table of one's own: text, gaps and quoted commas train; an error has its place."""

import json

import numpy as np
import pytest
from pages import Page, read

import cmlp
from cmlp.page import limits, tables

HEAD = "city,rooms,note,price\n"


def csv(n=80, classes=False):
    rng = np.random.default_rng(0)
    lines = [HEAD]
    for _ in range(n):
        city, rooms = rng.integers(3), rng.integers(1, 6)
        price = 50 * rooms + [200, 90, 0][city] + rng.normal()
        target = ("cheap", "dear")[int(price > 250)] if classes else f"{price:.1f}"
        cells = [
            ["Bern", '"Oslo, north"', "Porto"][city],
            "" if rooms == 5 else rooms,
            "same",
            target,
        ]
        lines.append(",".join(map(str, cells)) + "\n")
    return "".join(lines).encode()


def upload(page, data, part=1000):
    parts = [data[at : at + part] for at in range(0, len(data), part)]
    return page.do({"type": "upload", "name": "houses.csv", "size": len(data)}, *parts)


def errors(found):
    return [each["text"] for each in found if each.get("type") == "error"]


@pytest.fixture
def page():
    page = Page({"data": "xor", "layers": [2], "n": 20})
    page.session.channel.receive = lambda timeout: None
    return page


def test_columns(page):
    found = upload(page, csv())[-2]
    assert found["rows"] == 80 and found["name"] == "houses.csv"
    kinds = {each["name"]: (each["kind"], each["missing"]) for each in found["columns"]}
    assert (
        kinds["city"] == ("category", 0) and kinds["rooms"][0] == "number" and kinds["rooms"][1] > 0
    )
    assert kinds["note"][0] == "constant"


def test_a_regression(page):
    upload(page, csv())
    found = page.do({"type": "fit", "target": "price", "seconds": 20})
    assert [each["type"] for each in found[:2]] == ["fitting", "epoch"]
    done = next(each for each in found if each.get("type") == "fitted")
    assert done["r2"] > 0.8 and len(done["worst"]) == 5 and done["held_out"]
    assert {name for name, _ in done["columns"]} == {"city", "rooms"}
    assert "findings" in done["diagnosis"] and len(done["pairs"]) == done["n"]


def test_labels(page):
    upload(page, csv(classes=True))
    done = page.events("fitted", {"type": "fit", "target": "price", "ignore": ["note"]})[0]
    assert done["labels"] == ["cheap", "dear"] and np.sum(done["confusion"]) == done["n"]
    assert done["accuracy"] == pytest.approx(np.trace(done["confusion"]) / done["n"])


def test_stop_ends_it_early(page):
    upload(page, csv())
    replies = ['{"type":"stop"}', '{"type": "more", "credit": 1}']
    page.session.channel.receive = lambda timeout: replies.pop() if replies else None
    found = page.do({"type": "fit", "target": "price"})
    assert sum(each.get("type") == "epoch" for each in found) == 1
    assert any(each.get("type") == "fitted" for each in found)
    page.do({"type": "stop"})


def test_the_page_is_served_while_a_table_is_learned(page):
    """Messages between two epochs are answered; another table waits; a new page ends it."""
    upload(page, csv())
    replies = [
        '{"type":"hello"}',
        '{"type": "upload", "name": "x", "size": 3}',
        '{"type": "use", "family": "digits", "story": "draw"}',
    ]
    page.session.channel.receive = lambda timeout: replies.pop() if replies else None
    found = page.do({"type": "fit", "target": "price"})
    assert sum(each.get("type") == "epoch" for each in found) == 1
    assert page.session.setup.story == "draw" and page.session.run.net.sizes[0] == 64
    assert "stop it first" in errors(found)[0] and page.session.serve() == '{"type":"hello"}'


def test_a_broken_file_is_told_with_its_line(page):
    text = errors(upload(page, csv() + b"Bern,3\n"))[0]
    assert "line 82" in text and "houses.csv" in text and "/" not in text
    upload(page, csv().replace(b",same,", b",same,,", 1))
    upload(page, csv())
    assert "no column" in errors(page.do({"type": "fit", "target": "prise"}))[0]
    assert "column" in errors(page.do({"type": "fit", "target": None}))[0]
    assert "list" in errors(page.do({"type": "fit", "target": "price", "ignore": "x"}))[0]
    ignore = ["city", "rooms", "note"]
    assert "left" in errors(page.do({"type": "fit", "target": "price", "ignore": ignore}))[0]
    assert "nothing to learn" in errors(page.do({"type": "fit", "target": "note"}))[0]


def test_a_file_without_a_header(page):
    """Its columns keep their numbers, whichever is the target; errors name the file alone."""
    rows = "\n".join(f"{i % 7},{i % 5},{i % 7 + 1}.5" for i in range(60))
    told = next(each for each in upload(page, rows.encode()) if each["type"] == "columns")
    assert [(c["name"], c["target"]) for c in told["columns"]] == [("x0", 0), ("x1", 1), ("x2", 2)]
    done = page.events("fitted", {"type": "fit", "target": 1, "seconds": 5})[0]
    assert {name for name, _ in done["columns"]} == {"x0", "x2"}
    (text,) = errors(upload(page, b"1,2\n" + 9 * b"inf,3\n"))
    assert text.startswith("houses.csv: line 2, ")


def test_more_than_was_announced(page):
    found = page.do({"type": "upload", "name": "x", "size": 3}, b"abcd")
    assert "more came" in errors(found)[0] and not page.session.table.data
    assert "drop a CSV" in errors(page.do({"type": "fit", "target": "x"}))[0]


def test_too_many_rows(page, monkeypatch):
    """Lines are counted before anything is read; a table in few lines is counted as it is read."""
    monkeypatch.setattr(limits, "ROWS", 10)
    assert "this table has more" in errors(upload(page, csv()))[0] and not page.session.table.data
    upload(page, csv(n=9))
    monkeypatch.setattr(limits, "ROWS", 8)
    assert "at most 8 rows" in errors(page.do({"type": "fit", "target": "price"}))[0]


def test_what_a_target_is():
    assert tables.classifies(np.array(["a", "b"])) and tables.classifies(np.array([True, False]))
    assert tables.classifies(np.array([1, 2, 1, 2])) and not tables.classifies(np.array([1, 2, 3]))
    assert not tables.classifies(np.array([0.5, 1.0, 0.5, 1.0]))


def test_what_cannot_be_explained_is_left_out():
    found = tables.explained(cmlp.TabularClassifier(), [[1], [2], [3]], np.zeros(3))
    assert found["columns"] == [] and found["diagnosis"] is None
    assert json.dumps(found) and read('{"a": 1}') == {"a": 1}
