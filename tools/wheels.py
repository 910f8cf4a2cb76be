"""Build the sdist and the wheels that this machine can build, and check them.

    python tools/wheels.py [--glibc 2.17] [--to dist]
    python tools/wheels.py --check dist

From the sdist come a pure wheel and Linux wheels for x86-64 and aarch64: zig is a C compiler for
any processor and any glibc. The second form checks existing files. Requires `pip install --group
wheels` in Python 3.12 or newer, and binutils for objdump. The first check that fails ends the
program.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MACHINES = ("x86_64", "aarch64")
LARGEST = 2_300_000  # bytes of a wheel

CONTENT = r"""
    cmlp/(\w+/){0,2}\w+\.py | cmlp/py\.typed
    | cmlp/core/_(cpu|core_[a-z0-9]+)(\.abi3|\.(cpython-|cp)\d+t?-[\w-]+)?\.(so|pyd)
    | cmlp/datasets/\w+\.npz
    | cmlp-[\d.]+\.dist-info/(METADATA|WHEEL|RECORD|entry_points\.txt|top_level\.txt)
    | cmlp-[\d.]+\.dist-info/licenses/(LICENSE|src/cmlp/datasets/LICENSE-\w+\.txt)
"""

# What the disassembly of a level must not show: registers and encodings of the next one.
FOREIGN = {
    "baseline": r"%[yz]mm | \bv(?!er[rw]\b)\w+\s.*%xmm | %k[0-7]",
    "avx2": r"%zmm | %k[0-7] | %[xy]mm(1[6-9]|2\d|3[01])",
}


def foreign_instructions(level: str, listing: str) -> Iterator[str]:
    """Yield the lines of a disassembly that a processor of this level cannot run."""
    pattern = re.compile(FOREIGN.get(level, "(?!)"), re.VERBOSE)
    return (line.strip() for line in listing.splitlines() if pattern.search(line))


def disassembly(library: Path) -> str:
    """Return the machine code of a library as AT&T assembler, an instruction a line."""
    return run("objdump", "--disassemble", "--no-show-raw-insn", library)


def run(*command: object, cwd: Path | None = None, **environment: str) -> str:
    """Run a command and return its output; if it fails, print the output and exit."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stdout}\nfailed with code {done.returncode}")
    return done.stdout


def tool(name: str, *arguments: object, **environment: str) -> str:
    """Run a program that is installed with this Python."""
    folder = Path(sys.executable).parent
    path = os.pathsep.join([str(folder), os.environ["PATH"]])
    return run(folder / name, *arguments, PATH=path, **environment)


# Building -----------------------------------------------------------------------------------------


def build_sdist(to: Path) -> Path:
    run(sys.executable, "-m", "build", "--sdist", "--outdir", to, ROOT)
    (sdist,) = to.glob("*.tar.gz")
    return sdist


def build_wheel(sdist: Path, to: Path, **environment: str) -> Path:
    """Build a wheel from a fresh copy of the sdist."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        (source,) = Path(folder).iterdir()
        run(sys.executable, "-m", "build", "--wheel", source, "--outdir", folder, **environment)
        (wheel,) = Path(folder).glob("*.whl")
        return wheel.rename(to / wheel.name)


def build_linux_wheel(sdist: Path, to: Path, machine: str, glibc: str) -> Path:
    """Build a manylinux wheel for any processor."""
    zig = f"{sys.executable} -m ziglang cc -target {machine}-linux-gnu.{glibc}"
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(
            sdist,
            Path(folder),
            CMLP_BUILD="require",
            CC=zig,
            LDSHARED=f"{zig} -shared",
            CFLAGS="-Wno-unused-command-line-argument",
            _PYTHON_HOST_PLATFORM=f"linux-{machine}",
        )
        tool("auditwheel", "repair", "--only-plat", "-w", to, wheel)  # names the oldest glibc
    (repaired,) = to.glob(f"*_{machine}.whl")
    return repaired


# Checking -----------------------------------------------------------------------------------------


def check_sdist(sdist: Path) -> None:
    """Check that the sdist has every file that a build, a test or a reader needs."""
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    tracked = run(
        "git", "ls-files", "src", "tests", "benchmarks", "tools", "docs", cwd=ROOT
    ).split()
    missing = {*tracked, "README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml"} - packed
    if missing:
        sys.exit(f"{sdist.name} lacks {sorted(missing)}")


def check_wheel(wheel: Path) -> None:
    """Check size and content of a wheel; of a compiled one also its ABI and its machine code."""
    if wheel.stat().st_size > LARGEST:
        sys.exit(f"{wheel.name} has {wheel.stat().st_size:,} bytes, more than {LARGEST:,}")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    stray = [name for name in names if not re.fullmatch(CONTENT, name, re.VERBOSE)]
    if stray:
        sys.exit(f"{wheel.name} contains {stray}")
    tool("check-wheel-contents", wheel)
    if "-abi3-" in wheel.name:
        tool("abi3audit", "--strict", wheel)
    if "linux" in wheel.name:
        tool("auditwheel", "show", wheel)
    if "linux" in wheel.name and "x86_64" in wheel.name:
        check_machine_code(wheel)


def check_machine_code(wheel: Path) -> None:
    """Check that no library uses an instruction above its level."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(".so"):
                level = "baseline" if "_cpu" in name else re.split(r"[_.]", Path(name).name)[2]
                listing = disassembly(Path(archive.extract(name, folder)))
                if found := list(foreign_instructions(level, listing)):
                    sys.exit(f"{name} in {wheel.name} has {len(found)} of {found[0]!r}")


def check_all(folder: Path) -> None:
    """Check every file of a release, and print their sizes."""
    files = sorted(folder.iterdir())
    for file in files:
        print(f"{file.stat().st_size:>10,} bytes  {file.name}", flush=True)
        if file.suffix == ".whl":
            check_wheel(file)
        else:
            check_sdist(file)
    tool("twine", "check", "--strict", *files)
    check_choices(folder)


def check_choices(folder: Path) -> None:
    """Check that pip selects each wheel on its platform, and elsewhere the pure one."""
    expected = {"pyodide_2026_0_wasm32": "-py3-none-any.whl"}
    for wheel in folder.glob("*-abi3-*.whl"):
        platform = wheel.stem.rpartition("-")[2].rpartition(".")[2]
        expected[platform] = wheel.name
    for platform, name in expected.items():
        for python in ("3.12", "3.15"):
            with tempfile.TemporaryDirectory() as to:
                run(
                    *(sys.executable, "-m", "pip", "download", "-q", "--no-index", "--no-deps"),
                    *("--find-links", folder, "--only-binary", ":all:", "--dest", to),
                    *("--platform", platform, "--python-version", python, "cmlp"),
                )
                (taken,) = os.listdir(to)
            if not taken.endswith(name):
                sys.exit(f"on {platform} pip selects {taken} for Python {python}, not {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--glibc", default="2.17", help="the oldest that the wheels run on")
    parser.add_argument("--to", type=Path, default=ROOT / "dist", help="an empty or new folder")
    parser.add_argument("--check", type=Path, help="a folder whose files are checked; build none")
    arguments = parser.parse_args()
    tool("validate-pyproject", ROOT / "pyproject.toml")
    if arguments.check:
        check_all(arguments.check)
        return
    to, glibc = arguments.to.resolve(), arguments.glibc
    to.mkdir(parents=True, exist_ok=True)
    if os.listdir(to):
        sys.exit(f"{to} is not empty")
    sdist = build_sdist(to)
    build_wheel(sdist, to, CMLP_BUILD="none")
    for machine in MACHINES:
        build_linux_wheel(sdist, to, machine, glibc)
    check_all(to)


if __name__ == "__main__":
    main()
