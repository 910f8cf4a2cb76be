"""Lessons: each runs, as a page, a notebook and a script; nothing that is there is overwritten."""

import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import python_output

import cmlp
from cmlp import cli, course
from cmlp.course import lessons, twin

NUMBERS = range(1, len(lessons.NAMES) + 1)


@pytest.fixture
def closed_figures(monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    yield pyplot
    pyplot.close("all")


def run_lesson(number, capsys):
    """Return what a lesson prints; its pictures stay open."""
    namespace = {}
    for kind, text in lessons.cells(number):
        if kind == "code":
            exec(compile(text, lessons.NAMES[number - 1], "exec"), namespace)
    return capsys.readouterr().out


@pytest.mark.parametrize("number", NUMBERS)
def test_lessons_run(number, closed_figures, capsys):
    printed = run_lesson(number, capsys)
    assert printed.count("Nothing yet") == 3
    assert re.search(r"^ *\d+ > ", printed, re.M), "no line of the twin is marked"
    assert closed_figures.get_fignums(), "there is no picture"


@pytest.mark.parametrize("number", NUMBERS)
def test_lessons_run_on_the_twin(number, closed_figures, capsys, monkeypatch):
    """With the same numbers. At most two epochs: those of the lessons would take NumPy 15 s."""
    fit = cmlp.Network.fit
    monkeypatch.setattr(
        cmlp.Network,
        "fit",
        lambda net, *data, epochs, **how: fit(net, *data, epochs=min(epochs, 2), **how),
    )
    printed = numbers_of(run_lesson(number, capsys))
    with cmlp.use_core("python"):
        again = numbers_of(run_lesson(number, capsys))
    assert len(again) == len(printed) > 20
    for one, other in zip(printed, again, strict=True):
        assert abs(float(one) - float(other)) <= last_digit(one), (one, other)


def last_digit(number):
    """What one more of its last digit adds: numbers are rounded when they are printed."""
    places = len(number.partition("e")[0].partition(".")[2])
    exponent = int(number.partition("e")[2] or 0)
    return 1.001 * 10.0 ** (exponent - min(places, 9)) if places else 0


def numbers_of(text):
    """The numbers of a text; none that is a time, or only rounding."""
    lines = [line for line in text.splitlines() if not line.startswith("layer ")]
    text = re.sub(r", [\d.]+ s$", "", "\n".join(lines), flags=re.M)
    return re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text)


def test_numbers_of_lesson_5_are_the_engines():
    """Those of the text, from the trace; and finite differences agree."""
    net, (x, y) = course.two_two_one(), ([[1, -1]], [1])
    hidden, last = net.trace_step(x, y, learning_rate=1, momentum=0, apply=False).layers
    for value, written in (
        (hidden.z, [-0.5, -1]), (hidden.a, [0.3775, 0.2689]), (last.a, 0.5841),
        (last.delta, -0.1010), (last.dweights.ravel(), [-0.0381, -0.0272]),
        (hidden.delta, [-0.0237, 0.0397]),
    ):  # fmt: skip
        np.testing.assert_allclose(np.squeeze(value), written, rtol=0, atol=5.1e-5)
    assert net.check_gradients(x, y)


def test_the_valley_is_the_formula():
    w = np.random.default_rng(0).normal(size=(20, 2))
    for point in w:
        np.testing.assert_allclose(course.valley_slope(point), point * [1, 10], rtol=1e-12)
    np.testing.assert_allclose(course.descend((2, 1), 0.05, 1)[-1], (1.9, 0.5), rtol=1e-12)


@pytest.mark.parametrize("name", twin.PLACES)
def test_lines_of_the_twin_are_those_of_the_file(name):
    file, *lines = course.source(name, whole=True).splitlines()
    source = (Path(cmlp.__file__).parents[1] / file).read_text(encoding="utf-8").splitlines()
    marked = [line for line in lines if line[5:7] == " >"]
    assert len(marked) == 1 and twin.PLACES[name][1] in marked[0]
    for line in lines:
        assert source[int(line[:5]) - 1] == line[8:]
    assert set(course.source(name).splitlines()) <= {file, *lines}


def test_every_name_of_the_twin_is_known_to_help():
    for name in twin.PLACES:
        assert f"'{name}'" in inspect.getdoc(course.source)
    with pytest.raises(ValueError, match="one of: logistic"):
        course.source("loss")


def test_exercises_and_their_answers_are_in_the_page():
    page = lessons.text(5, answers=True)
    for key in ("5.1", "5.2", "5.3"):
        assert f"### Exercise {key}\n\n{course.question(key)}" in page
        assert course.solution(key) in page and course.solution(key) not in lessons.text(5)
    assert "{exercise}" not in "".join(map(lessons.text, NUMBERS))
    with pytest.raises(ValueError, match="there are 1 to 8"):
        lessons.text(9)


def test_notebooks_are_of_the_format(tmp_path):
    for number in NUMBERS:
        path = lessons.write(number, tmp_path / "new")
        made = json.loads(path.read_text(encoding="utf-8"))
        assert (made["nbformat"], made["nbformat_minor"]) == (4, 5)
        assert made["metadata"]["kernelspec"]["name"] == "python3"
        ids = [cell["id"] for cell in made["cells"]]
        assert len(set(ids)) == len(ids)
        cells = [(cell["cell_type"], "".join(cell["source"])) for cell in made["cells"]]
        assert cells == [tuple(cell) for cell in lessons.cells(number)]
        for cell in made["cells"]:
            assert cell.keys() - {"outputs", "execution_count"} == {
                "cell_type", "id", "metadata", "source",
            }  # fmt: skip
            assert ("outputs" in cell) == (cell["cell_type"] == "code")
        if nbformat := pytest.importorskip("nbformat") if number == 8 else None:
            nbformat.validate(made)


@pytest.mark.parametrize("number", NUMBERS)
def test_notebooks_run(number, tmp_path):
    """In a kernel of Jupyter, cell by cell; pictures arrive, and nothing is said about errors."""
    client = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    book = nbformat.read(lessons.write(number, tmp_path), as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    client.NotebookClient(book, timeout=120, resources=resources).execute()
    outputs = [each for cell in book.cells for each in cell.get("outputs", ())]
    assert any("image/png" in each.get("data", ()) for each in outputs)
    assert not [each for each in outputs if each.get("name") == "stderr"]
    printed = "".join(each.get("text", "") for each in outputs)
    assert printed.count("Nothing yet") == 3
    said = [each["data"]["text/plain"] for each in outputs if each.output_type == "execute_result"]
    assert not said, "a cell ends without a semicolon"


def test_a_script_runs(tmp_path):
    """In a process of its own, where pictures open no window."""
    pytest.importorskip("matplotlib")
    path = lessons.write(5, tmp_path, as_script=True)
    code, text = python_output(str(path), MPLBACKEND="svg")
    assert code == 0 and text.count("Nothing yet") == 3, text


def test_nothing_is_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["course", "5"]) == 0
    path = Path("5-backpropagation.ipynb")
    path.write_text("answers")
    assert cli.main(["course", "5"]) == 2
    assert "may hold your answers" in capsys.readouterr().err
    assert cli.main(["course", "--all", "."]) == 0
    assert "stays as it is" in capsys.readouterr().out
    assert path.read_text() == "answers" and len([*Path().glob("*.ipynb")]) == 8


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["course"]) == 0
    assert "5. Backpropagation by hand" in capsys.readouterr().out
    assert cli.main(["course", "1", "--py"]) == 0 and Path("1-neuron.py").exists()
    for words in (["9"], ["0"], ["1", "--all", "x"], ["--open"], ["--all", "1-neuron.py"]):
        assert cli.main(["course", *words]) == 2, words
    assert "1-neuron.py: it is a file; name a folder" in capsys.readouterr().err
    assert not Path("x").exists()


def test_open_calls_jupyter(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cmlp.cli.course.shutil.which", lambda name: None)
    assert cli.main(["course", "2", "--open"]) == 2
    assert "pip install jupyterlab" in capsys.readouterr().err
    called = []
    monkeypatch.setattr("cmlp.cli.course.shutil.which", lambda name: "/bin/jupyter")
    monkeypatch.setattr("cmlp.cli.course.subprocess.call", lambda words: called.append(words) or 0)
    assert cli.main(["course", "2", "--open"]) == 0  # written before: opened as it is
    assert called == [["/bin/jupyter", "lab", "2-layer.ipynb"]]
