"""What the tests of files of source code share: hostile text, models of tables, other programs."""

import datetime
import json
import shutil
import subprocess
import sys
import zoneinfo
from pathlib import Path

import numpy as np

import cmlp
from cmlp.exchange.chains import chain_of
from cmlp.tables.encode import TableEncoder

HOSTILE = [
    "*/", '"', "'", "\\", "a\nb", "\r\n", "<script>alert(1)</script>", "<!--", "]]>", "??/",
    "??/\n", "\u202eabc\u200f", "nul\0x", "`${1}`", "\u2028\u2029", "'''", '"""', "__proto__",
    "constructor", "%s", "{}", "\\u0041", "x\\", "-->", "\ufeff", "\U0001f600",
    "import os", "#\n__import__('os')",
]  # fmt: skip
"""Labels and names of columns that break out of careless quoting."""


def old_python():
    """Return the path of the oldest Python that pure files promise to run on, or None."""
    found = next(map(str, Path.home().glob(".pyenv/versions/3.8.*/bin/python")), None)
    return found or shutil.which("python3.8")


def run_python(folder, code, *options, python=sys.executable):
    """Run code in a folder of written files, without cmlp, and return what it prints as JSON."""
    start = "import sys; sys.modules['cmlp'] = None; sys.path.insert(0, '.'); import json\n"
    done = subprocess.run(
        [python, "-I", "-W", "error", *options, "-c", start + code],
        cwd=folder, capture_output=True, text=True, encoding="utf-8", timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run_node(folder, code):
    """Run code as an ES module in a folder of written files, and return what it prints as JSON."""
    (folder / "run.mjs").write_text(code, encoding="utf-8")
    done = subprocess.run(
        ["node", "run.mjs"], cwd=folder, capture_output=True, text=True, encoding="utf-8",
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def table(n=120, zone=None):
    """Return rows of all kinds of columns, with gaps, and a target."""
    rng = np.random.default_rng(3)
    start = datetime.datetime(1995, 3, 1, 23, 30)
    tz = None if zone is None else zoneinfo.ZoneInfo(zone)
    rows = [
        {
            "size": float(rng.normal() * 10) if rng.random() > 0.1 else None,
            "__proto__": int(rng.integers(0, 100)),
            "city": str(rng.choice(["a", "b's", "*/", "<script>", "\u2028\u202e\n", ' "q" '])),
            "two": bool(rng.random() > 0.5),
            "level": float(rng.choice([0.1, 1.25e-5, 2.0, 35])),
            "when": (start + datetime.timedelta(hours=int(rng.integers(0, 200_000)))).replace(
                tzinfo=tz
            ),
            "long": datetime.timedelta(seconds=float(rng.integers(0, 5000)) / 4),
            "text": f"{rng.integers(0, 9)}.5" if rng.random() > 0.1 else "n/a",
        }
        for _ in range(n)
    ]
    target = [(row["size"] or 0) + 5 * (row["city"] == "a") + 3 * row["two"] for row in rows]
    return rows, np.array(target)


CATEGORIES = ["city", "two", "level"]
ENCODERS = {
    "all": {
        "max_one_hot": 1,
        "n_knots": 5,
        "target_statistics": "regression",
        "date_parts": "cycles",
    },
    "standard": {"numbers": "standard", "max_one_hot": 9, "max_categories": 3, "min_rows": 3},
    "two knots": {"date_parts": None, "n_knots": 2},
    "knots alone": {"numbers": None, "n_knots": 4, "date_features": ["long"]},
}
"""Options of TableEncoder that tabular models leave alone."""


def encoder_and_chain(name):
    """Return an encoder with these options, rows, and a chain that takes what it returns."""
    rows, target = table(zone="Asia/Kathmandu")
    if name == "knots alone":
        for row in rows:
            row["long"] = 1e6 * row["long"].total_seconds()
    encoder = TableEncoder(categorical_features=CATEGORIES, **ENCODERS[name])
    width = encoder.fit_transform(rows, target).shape[1]
    net = cmlp.Network([width, 2], out_activation="identity", loss="squared_error", seed=0)
    return encoder, rows, chain_of(net)
