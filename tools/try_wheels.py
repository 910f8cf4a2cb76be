"""Try the wheels of a folder on Pythons and processors that this machine has or can emulate.

    python tools/try_wheels.py dist --python python3.11 python3.13
    python tools/try_wheels.py dist --processors
    python tools/try_wheels.py dist --aarch64 ROOT

The first form runs all tests in new environments, with the oldest NumPy and the newest. The second
puts old x86-64 processors under the core, and the third an ARM: both need `qemu-user-static`, the
third also `mmdebstrap`, with which it makes a Debian in the folder ROOT. The tests are the sdist's,
unpacked elsewhere, so that only the installed package can be imported.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

OLDEST = {
    "3.11": "numpy==1.26.0",
    "3.12": "numpy==1.26.0",
    "3.13": "numpy==2.1.0",
    "3.14": "numpy==2.3.2",
}
"""The oldest supported NumPy that has wheels for a Python."""

PROCESSORS = {
    "Nehalem": "baseline",  # SSE4.2
    "SandyBridge": "baseline",  # AVX
    "Haswell,-avx2": "baseline",  # AVX and FMA
    "Haswell": "avx2",
}
"""Processors, and the core that each should choose."""

TESTS = ["pytest>=8", "hypothesis>=6.100", "joblib>=1.3"]
OF_THE_CORE = (
    *(
        "tests/model/test_network.py",
        "tests/core/test_predictor.py",
        "tests/core/test_activations.py",
    ),
    # Without tests of long doubles, which an emulator computes in software, and of subprocesses.
    *("-k", "not last_place and not unknown_numpy"),
)

CHOSEN = "import cmlp; print(cmlp.core_info().core)"
VERSIONS = """
import platform, numpy, cmlp
print(platform.python_version(), platform.machine(), "numpy", numpy.__version__, cmlp.__file__)
print(cmlp.core_info())
"""
REFUSED = """
import cmlp
for name in {missing}:
    try:
        cmlp.use_core(name)
    except RuntimeError as error:
        print(error)
    else:
        raise SystemExit(f"{{name}} was not refused")
"""
UNASKED = """
import numpy
from cmlp.core import _core_{level}
from cmlp.core.vocabulary import ACTIVATIONS, lookup
_core_{level}.multiply_adds(10)
sigmoid = lookup("activation", ACTIVATIONS, "sigmoid").code
_core_{level}.activate(sigmoid, numpy.zeros((2, 64), numpy.float32))
"""
"""What `_cpu` prevents: this program dies if the emulated processor lacks the instructions.

Products use AVX and FMA; the exponential uses AVX2's integer instructions."""


def run(*command: object, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
    """Run a command with its output shown."""
    words = [str(word) for word in command]
    return subprocess.run(words, check=check, env={**os.environ, **environment})


def said(*command: object) -> str:
    return subprocess.check_output([str(word) for word in command], text=True).strip()


def environment(folder: Path, python: str, wheels: Path, numpy: str = "numpy") -> Path:
    """Create a virtual environment with one of the wheels; return its interpreter."""
    run(python, "-m", "venv", folder)
    inside = folder / "bin" / "python"
    pip = (inside, "-m", "pip", "install", "-q", "--only-binary", ":all:")
    run(*pip, numpy, *TESTS)
    run(*pip, "--no-index", "--find-links", wheels, "cmlp")
    return inside


def test(*command: object, what: Sequence[str] = ("tests",), **environment: str) -> None:
    """Print the versions of an interpreter, and run tests with it."""
    run(*command, "-c", VERSIONS, **environment)
    run(*command, "-m", "pytest", "-q", "-p", "no:cacheprovider", *what, **environment)


def try_pythons(pythons: Sequence[str], wheels: Path, folder: Path) -> None:
    """Run all tests, with the oldest and the newest NumPy; report failures when all have run."""
    failed = []
    for python in pythons:
        version = said(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
        for end, numpy in {"oldest": OLDEST.get(version, "numpy"), "newest": "numpy"}.items():
            name = f"{version}-{end}"
            try:
                test(environment(folder / name, python, wheels, numpy))
            except subprocess.CalledProcessError:
                failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def try_processors(wheels: Path, folder: Path) -> None:
    """Check which cores old processors choose and refuse, and run the core's tests on them."""
    inside = environment(folder / "x86-64", sys.executable, wheels)
    for processor, expected in PROCESSORS.items():
        emulated = ("qemu-x86_64-static", "-cpu", processor, inside)
        chosen = said(*emulated, "-c", CHOSEN)
        print(f"\n{processor}: {chosen}", flush=True)
        if chosen != expected:
            sys.exit(f"expected {expected}")
        missing = ["avx2", "avx512"] if chosen == "baseline" else ["avx512"]
        run(*emulated, "-c", REFUSED.format(missing=missing))
        unasked = run(*emulated, "-c", UNASKED.format(level=missing[0]), check=False)
        if unasked.returncode != -signal.SIGILL:
            sys.exit(f"{processor} runs {missing[0]} nevertheless: this emulation proves nothing")
        test(*emulated, what=OF_THE_CORE, CMLP_CORE=chosen)


def try_aarch64(wheels: Path, folder: Path, root: Path) -> None:
    """Run the tests of the core on an emulated ARM, with Debian's Python."""
    if not root.exists():
        include = "--include=python3.11,libstdc++6"
        run("mmdebstrap", "--arch=arm64", "--variant=extract", include, "bookworm", root)
    packages = folder / "aarch64"
    for what in ("numpy", *TESTS), ("cmlp", "--no-index", "--no-deps", "--find-links", wheels):
        run(
            *(sys.executable, "-m", "pip", "install", "-q", "--target", packages),
            *("--platform", "manylinux_2_28_aarch64", "--platform", "manylinux_2_17_aarch64"),
            *("--python-version", "3.11", "--only-binary", ":all:", *what),
        )
    emulated = ("qemu-aarch64-static", "-L", root, root / "usr/bin/python3.11")
    test(*emulated, what=OF_THE_CORE, PYTHONPATH=str(packages))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("wheels", type=Path, help="a folder with wheels and their sdist")
    parser.add_argument("--python", nargs="+", default=[], help="interpreters to try them on")
    parser.add_argument("--processors", action="store_true", help="try old x86-64 processors")
    parser.add_argument("--aarch64", type=Path, metavar="ROOT", help="try an ARM, with this Debian")
    arguments = parser.parse_args()
    wheels = arguments.wheels.resolve()
    root = arguments.aarch64 and arguments.aarch64.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (sdist,) = wheels.glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        (source,) = folder.iterdir()
        for part in ("tests", "pyproject.toml"):
            (source / part).rename(folder / part)
        os.chdir(folder)
        try_pythons(arguments.python, wheels, folder)
        if arguments.processors:
            try_processors(wheels, folder)
        if root:
            try_aarch64(wheels, folder, root)


if __name__ == "__main__":
    main()
