"""The README, and the tables that it had before there was a guide, run as they are written."""

import doctest
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import cmlp
from cmlp.core import vocabulary

README = Path(__file__).parents[1] / "README.md"
if not README.exists():
    pytest.skip("the tests run without their repository", allow_module_level=True)


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)


def test_it_fits_three_screens():
    """Of 80 columns and 50 lines; longer lines are wrapped."""
    assert sum(max(1, -(-len(line) // 80)) for line in README.read_text().splitlines()) <= 150


def test_python_blocks_run_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    assert len(blocks("python")) == 4
    for number, block in enumerate(blocks("python"), 1):
        dask = getattr(find_spec("distributed"), "origin", None)  # a folder of tests has none
        if dask or "distributed" not in block:
            exec(compile(block, f"README.md, python block {number}", "exec"), namespace)
    text = capsys.readouterr().out
    (accuracy,) = re.findall(r"test accuracy ([\d.]+)", text)
    assert float(accuracy) > 0.9
    assert "['category', 'number']" in text and "all within" in text and "delta = dC/dz" in text
    assert (tmp_path / "digits.c").exists() and (tmp_path / "late.cmlp").exists()


PUBLIC = {name: getattr(cmlp, name) for name in cmlp.__all__}


def test_the_examples_of_the_docstrings_are_right():
    """Object by object: their module is cmlp, so doctest.testmod would not find them."""
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    for name, thing in PUBLIC.items():
        for examples in finder.find(thing, name, module=False, globs={}):
            runner.run(examples)
    failed, tried = runner.summarize()
    assert tried > 20 and not failed


NEEDS = {"scikit-learn": ["sklearn"], "PyTorch": ["torch"], "Keras": ["keras", "h5py"]}


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras' NumPy backend
def test_ways_out_and_in(tmp_path, monkeypatch):
    """Each line of code in the table, if its library is installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "numpy")
    X = np.random.default_rng(0).normal(size=(40, 4))
    model = cmlp.MLPClassifier((8,), tol=0.1, random_state=0).fit(X, X[:, :3].argmax(1))
    text = (README.parent / "docs" / "leaving.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[([^]]+)\]\(leaving/[^|]*\|(.*)", text, re.MULTILINE)
    assert len(rows) == 9
    for way, cells in rows:
        if all(map(find_spec, NEEDS.get(way, []))):
            namespace = {"cmlp": cmlp, "model": model}
            for line in re.findall(r"`([^`]*\bcmlp\.\w+\([^`]*)`", cells):
                exec(compile(line, f"leaving.md, {way}", "exec"), namespace)
            if "net" in namespace:
                p = namespace["net"].predict(X)
                np.testing.assert_allclose(p, model.predict_proba(X), rtol=1e-5, atol=1e-6)


def test_the_two_commands_of_a_fresh_machine():
    text = "".join(blocks("sh"))
    assert "pip install . && python -m cmlp demo" in text
    assert "pip install '.[test]' && pytest" in text


@pytest.mark.parametrize("table", ["ACTIVATIONS", "LOSSES", "SOLVERS"])
def test_every_name_is_documented(table):
    guide = (README.parent / "docs/guide/activations-losses.md").read_text(encoding="utf-8")
    documented = cmlp.Network.__doc__ + cmlp.Network.fit.__doc__
    for row in getattr(vocabulary, table):
        assert re.search(rf"\b{row.name}\b", guide), row.name
        assert f"'{row.name}'" in documented, row.name
