"""``cmlp explain``: the same numbers as cmlp.attributions, on rows of files."""

import csv

import numpy as np

import cmlp

HOW = {"hidden_layer_sizes": (4,), "max_iter": 2, "n_ensemble": 2, "random_state": 0}


def table(path):
    """Return the header and the rows of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    return header, rows


def test_a_network(run, complaint, in_folder):
    X = np.random.default_rng(0).normal(size=(30, 3)).round(3)
    net = cmlp.Network([3, 5, 3], "tanh", seed=0, dtype="float64")
    net.classes, net.feature_names = np.array(["ant", "bee", "cat"]), ["a", "b", "c\x1b"]
    net.save("net.cmlp")
    np.savetxt("rows.csv", X[:4], delimiter=",", fmt="%.3f")
    np.savetxt("others.csv", X, delimiter=",", fmt="%.3f")
    command = ("explain", "net.cmlp", "rows.csv", "--background", "others.csv")
    found = cmlp.attributions(net, X[:4], background=X)
    code, out, err = run(*command)
    assert (code, err) == (0, "")
    assert out.splitlines() == str(found).replace("\x1b", "\\x1b").splitlines()
    assert run(*command, "--out", "found.csv") == (0, "", "")
    header, rows = table("found.csv")
    assert header == ["row", "of", "answer", "base value", "a", "b", "c\x1b"]
    assert [row[:2] for row in rows[:4]] == [["1", "ant"], ["1", "bee"], ["1", "cat"], ["2", "ant"]]
    numbers = np.array([row[2:] for row in rows], float).reshape(4, 3, 5)
    np.testing.assert_allclose(numbers[:, :, 2:], found.values.swapaxes(1, 2), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(numbers[:, :, 0], numbers[:, :, 1:].sum(axis=2), atol=1e-7)
    before = table("rows.csv")
    for options, text in (
        (["--method", "guess"], "method must be 'deeplift'"),
        (["--out", "rows.csv"], "would replace the file"),
    ):
        assert text in complaint(*command, *options)
    assert table("rows.csv") == before


def test_a_model_for_tables(run, complaint, in_folder):
    rows = {"size": [i / 7 for i in range(40)], "kind": ["ab"[i % 2] for i in range(40)]}
    model = cmlp.TabularClassifier(**HOW).fit(rows, rows["kind"])
    model.save("table.cmlp")
    lines = [f"{size},{kind}" for size, kind in zip(*rows.values(), strict=True)]
    (in_folder / "rows.csv").write_text("\n".join(["size,kind", *lines]))
    given = ("explain", "table.cmlp", "rows.csv", "--proba", "--method", "shapley")
    code, out, err = run(*given)
    assert (code, err) == (0, "") and out.startswith(
        "Attributions by shapley, output 'probability'"
    )
    assert run(*given, "--out", "found.csv")[0] == 0
    header, found = table("found.csv")
    assert header == ["row", "answer", "base value", "size", "kind"] and len(found) == 40
    numbers = np.array(found, float)
    expected = cmlp.attributions(model, rows, method="shapley", output="probability")
    np.testing.assert_allclose(numbers[:, 3:], expected.values, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(numbers[:, 1], model.predict_proba(rows)[:, 1], rtol=1e-6)
    (in_folder / "rows.csv").write_text("\n".join(["size,kind", *lines, "large,a"]))
    assert "rows.csv: line 42" in complaint(*given)
