"""Run written files in what the tests do not need: headless Chromium, MicroPython, old Pythons.

    python tools/run_written_files.py --chromium chromium
    python tools/run_written_files.py --micropython "micropython -X heapsize=64m"
    python tools/run_written_files.py --python python3.8

Each form writes networks of every activation, with layer norm and with parametric activations, and
a model of a table with hostile text, runs them there, and prints the largest deviation from the
NumPy core. The Python needs NumPy of its own; of it the bits are compared, too.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import warnings
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np

import cmlp
from cmlp import to_javascript, to_python
from cmlp.core.vocabulary import ACTIVATIONS
from cmlp.formats.source_text import identifier

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

X = (np.random.default_rng(0).normal(size=(20, 7)) / 2).astype(np.float32)
LABELS = ["</script><script>alert(1)</script>", "*/ \"'`${1}\\ \u2028\u202e\0"]


def networks() -> dict[str, cmlp.Network]:
    """Return networks of every activation by names that are valid in all languages."""
    found = {}
    names = [row.name for row in ACTIVATIONS]
    for name in (*names, "leaky_relu:0.3", "elu:0.5"):
        if name == "softmax":
            found[name] = cmlp.Network([7, 5], out_activation=name, seed=1)
            continue
        for more, options in {
            "plain": {}, "layer": {"normalization": "layer"},
            "alphas": {"parametric_activation": True}, "double": {"dtype": "float64"},
        }.items():  # fmt: skip
            net = cmlp.Network([7, 19, 8, 5], name, seed=1, **options)
            found[f"{identifier(name)}_{more}"] = net
    return found


def table_model() -> tuple[Any, list[dict[str, Any]]]:
    """Return a classifier of a table with hostile text, and rows that JSON can hold."""
    from written_files import table

    rows, target = table(zone="America/St_Johns")
    y = np.array(LABELS)[(target > 3).astype(int)]
    for row in rows:
        row["when"] = row["when"].isoformat()
        del row["long"]
    model = cmlp.TabularClassifier((8,), max_iter=2, n_ensemble=2, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(rows, y), rows


def deviation(found: Any, expected: Any) -> float:
    """Return the largest difference, in units of the largest number, or of 1."""
    return float(np.abs(np.array(found) - expected).max() / max(1.0, np.abs(expected).max()))


def report(where: str, found: dict[str, Any], nets: dict[str, cmlp.Network]) -> None:
    """Print the worst deviation of all networks."""
    worst = {name: deviation(found[name], net.predict(X)) for name, net in nets.items()}
    name = max(worst, key=worst.__getitem__)
    print(f"{where}: {len(nets)} networks, largest deviation {worst[name]:.1e} ({name})")


def in_chromium(program: str, folder: Path) -> None:
    """Run modules in a page, and one of them as a script of the page's own text."""
    nets, (model, rows) = networks(), table_model()
    for name, net in nets.items():
        to_javascript(net, folder / f"{name}.mjs")
    inline = to_javascript(model, module=False) or ""
    loads = "".join(f'  import * as {name} from "./{name}.mjs";\n' for name in nets)
    text = json.dumps(json.dumps(rows)).replace("<", "\\u003c")
    page = f"""<!doctype html><meta charset="utf-8"><pre id="out">nothing ran</pre>
<script>const module = {{}}; (function () {{ {inline} }})(); window.table = module.exports;</script>
<script type="module">
{loads}  const X = {json.dumps(X.tolist())}, rows = JSON.parse({text});
  const nets = {{ {", ".join(nets)} }}, found = {{}};
  for (const name of Object.keys(nets)) found[name] = X.map(nets[name].outputs);
  const answers = [found, rows.map(table.predictProba), rows.map(table.predict), table.classes];
  document.getElementById("out").textContent = JSON.stringify(answers);
</script>"""
    (folder / "page.html").write_text(page, encoding="utf-8")
    done = subprocess.run(
        [program, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
         "--virtual-time-budget=20000", "--dump-dom", (folder / "page.html").as_uri()],
        capture_output=True, text=True, encoding="utf-8", timeout=300, check=True,
    )  # fmt: skip
    shown = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    assert shown is not None and shown[1] != "nothing ran", done.stdout[:2000] + done.stderr
    found, proba, labels, classes = json.loads(unescape(shown[1]))
    report(program, found, nets)
    assert classes == model.classes_.tolist() and labels == model.predict(rows).tolist()
    print(
        f"{program}: a table of {len(rows)} rows, {deviation(proba, model.predict_proba(rows)):.1e}"
    )


START = """
import sys
sys.path.insert(0, ".")
import json
with open("X.json") as file:
    X, rows = json.load(file)
found = {}
for name in sorted(json.load(open("names.json"))):
    found[name] = __import__(name).outputs(X)
    if hasattr(found[name], "tolist"):
        found[name] = [[float(value) for value in row] for row in found[name]]
proba = [list(map(float, row)) for row in __import__("table").predict_proba(rows)] if rows else []
print(json.dumps([found, proba]))
"""


def in_python(program: str, folder: Path, *, pure: bool, tables: bool) -> None:
    """Run files without cmlp, with NumPy or without."""
    nets, (model, rows) = networks(), table_model()
    for name, net in nets.items():
        to_python(net, folder / f"{name}.py", pure=pure)
    to_python(model, folder / "table.py", pure=pure)
    (folder / "X.json").write_text(json.dumps([X.tolist(), rows if tables else []]))
    (folder / "names.json").write_text(json.dumps([*nets]))
    (folder / "start.py").write_text(START)
    done = subprocess.run(
        [*program.split(), "start.py"], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    found, proba = json.loads(done.stdout)
    where = f"{program}, {'pure' if pure else 'with NumPy'}"
    report(where, found, nets)
    if not pure:
        same = sum(np.array_equal(np.array(found[n]), net.predict(X)) for n, net in nets.items())
        print(f"{where}: {same} of {len(nets)} networks to the bit")
    if tables:
        worst = deviation(proba, model.predict_proba(rows))
        print(f"{where}: a table of {len(rows)} rows, {worst:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chromium")
    parser.add_argument("--micropython")
    parser.add_argument("--python")
    args = parser.parse_args()
    with cmlp.use_core("python"), tempfile.TemporaryDirectory() as folder:
        if args.chromium:
            in_chromium(args.chromium, Path(folder))
        if args.micropython:
            in_python(args.micropython, Path(folder), pure=True, tables=False)
        for pure in (False, True) if args.python else ():
            in_python(args.python, Path(folder), pure=pure, tables=True)


if __name__ == "__main__":
    main()
