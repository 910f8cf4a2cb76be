"""Installations and builds that lack something, and the messages that report it."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from cores import CORES
from helpers import python_output

import cmlp

PACKAGE = Path(cmlp.__file__).parent
LIBRARIES = PACKAGE / "core"
TOP = Path(__file__).parents[1]
COMPILED = [name for name in CORES if name != "python"]
MODULES = (".so", ".pyd")
SHOW = "import cmlp; print(cmlp.core_info())"
USE = SHOW + (
    "; d = cmlp.load_digits(); net = cmlp.Network([64, 8, 10], seed=0, input_scale=1 / 16);"
    "net.fit(d.X_train[:500], d.y_train[:500], epochs=1); print(net.predict(d.X_test[:2]).shape)"
)

# The environment ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["info"], ["demo"]], ids=" ".join)
def test_a_core_that_is_none_is_one_line_of_the_command(command):
    code, text = python_output("-m", "cmlp", *command, CMLP_CORE="nonsense")
    assert code == 2 and len(text.splitlines()) == 1
    assert text.startswith("cmlp: error: CMLP_CORE: unknown core 'nonsense'; known: auto, avx512")


def test_a_core_that_is_none_can_be_put_right():
    right = "import cmlp; cmlp.use_core('python'); print(cmlp.core_info().core)"
    assert python_output("-c", right, CMLP_CORE="nonsense") == (0, "python\n")


# Installations -----------------------------------------------------------------------------------


@pytest.fixture
def installation(tmp_path):
    """A copy of the package, whose compiled modules are links to ours."""
    copy = tmp_path / "site" / "cmlp"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
    for module in (path for path in LIBRARIES.iterdir() if path.suffix in MODULES):
        try:
            (copy / "core" / module.name).symlink_to(module)
        except OSError:  # Windows requires a privilege
            shutil.copy(module, copy / "core")
    return copy


def cut_off(installation, name, length=100):
    """Leave the beginning of a compiled module.

    A few bytes more, and the dynamic loader would map what is not there: it then ends the process
    with a SIGBUS, for any package's module.
    """
    (module,) = (path for path in installation.glob(f"core/{name}.*") if path.suffix in MODULES)
    beginning = module.read_bytes()[:length]
    module.unlink()
    module.write_bytes(beginning)


def ask(installation, code=USE, **environment):
    """Run a program on that installation."""
    where = {"PYTHONPATH": str(installation.parent), "CMLP_CORE": ""}
    return python_output("-c", code, **where | environment)


@pytest.mark.skipif(len(COMPILED) < 2, reason="there is no second compiled core to fall back on")
def test_a_core_that_is_cut_off(installation):
    cut_off(installation, f"_core_{COMPILED[0]}")
    code, text = ask(installation)
    assert code == 0 and text.splitlines()[-1] == "(2, 10)"
    assert f"core       {COMPILED[1]} (" in text
    assert f"compiled core {COMPILED[0]!r} is installed but failed to import" in text
    assert "RuntimeWarning" in text and "Reinstall cmlp" in text
    code, text = ask(installation, CMLP_CORE=COMPILED[0])
    expected = f"ImportError: CMLP_CORE: core {COMPILED[0]!r} cannot run here: it failed to import"
    assert code == 1 and text.splitlines()[-1].startswith(expected)


@pytest.mark.skipif(not COMPILED, reason="nothing compiled is installed")
@pytest.mark.parametrize("length", [0, 100])
def test_the_question_for_the_processor_is_cut_off(installation, length):
    """Without _cpu nothing compiled may be imported: the processor was not asked."""
    cut_off(installation, "_cpu", length)
    code, text = ask(installation)
    assert code == 0 and text.splitlines()[-1] == "(2, 10)"
    assert (
        "core       python" in text and "missing    avx512: cmlp.core._cpu failed to import" in text
    )
    assert "compiled modules are installed but failed to import" in text and "Reinstall" in text


READ_ONLY = """
import errno, os, sys

def refuse(event, arguments):
    path = arguments[0] if arguments and isinstance(arguments[0], (str, bytes)) else ""
    if os.fsdecode(path).startswith(sys.argv[1]) and (
        (event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        or event in ("os.mkdir", "os.remove", "os.rename", "os.chmod", "os.truncate")
    ):
        refused.append(path)
        raise OSError(errno.EROFS, "Read-only file system", path)

refused = []
sys.addaudithook(refuse)
"""


def test_a_read_only_installation(installation):
    """Nothing is written next to the modules, and Python needs no __pycache__."""
    tail = "; print(refused != [], all('__pycache__' in path for path in refused))"
    where = {"PYTHONPATH": str(installation.parent), "CMLP_CORE": "", "PYTHONDONTWRITEBYTECODE": ""}
    code, text = python_output("-c", READ_ONLY + USE + tail, installation, **where)
    assert code == 0 and text.splitlines()[-2:] == ["(2, 10)", "True True"], text
    assert not (installation / "__pycache__").exists()


def test_import_from_a_zip(installation, tmp_path):
    """The NumPy path and the digits work from there; compiled modules cannot."""
    archive = tmp_path / "cmlp.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in installation.rglob("*"):
            if "__pycache__" not in path.parts:
                file.write(path, path.relative_to(installation.parent))
    code, text = ask(archive / "cmlp")
    assert code == 0 and text.splitlines()[-1] == "(2, 10)", text
    assert "core       python" in text and "Warning" not in text
    assert "avx512: no compiled module can be imported from a zip file" in text
    code, text = ask(archive / "cmlp", CMLP_CORE="baseline")
    assert code == 1 and "core 'baseline' cannot run here: no compiled module" in text


# Builds ------------------------------------------------------------------------------------------

CYTHONIZE = '''
"""Replaces Cython: an empty module for each that is requested."""
import os
from pathlib import Path

def cythonize(extensions, **options):
    for extension in extensions:
        short = extension.name.rpartition(".")[2]
        source = Path(os.environ["SOURCES"], f"{short}.c")
        source.write_text(f"""
            #include <Python.h>
            static struct PyModuleDef d = {{PyModuleDef_HEAD_INIT, "{short}"}};
            PyMODINIT_FUNC PyInit_{short}(void) {{ return PyModule_Create(&d); }}
        """)
        extension.sources[:] = [str(source)]
    return extensions
'''

COMPILERS = {
    "broken": "echo internal compiler error; exit 1",
    "silent": "exit 0",
    "old": 'case "$*" in *avx512*) echo unrecognized option; exit 1;; esac; exec cc "$@"',
}


def setuptools_generation():
    try:
        return int(importlib.metadata.version("setuptools").split(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return 0


@pytest.fixture
def build(tmp_path):
    """Run setup.py with a compiler of this kind; returns its exit code, text and modules."""
    if not (TOP / "setup.py").exists() or setuptools_generation() < 77:
        pytest.skip("builds from a source tree, with setuptools 77 or newer")
    if os.name != "posix" or shutil.which("cc") is None:
        pytest.skip("the compilers that this test invents are shell scripts around cc")
    (tmp_path / "Cython").mkdir()
    (tmp_path / "Cython/__init__.py").touch()
    (tmp_path / "Cython/Build.py").write_text(CYTHONIZE)

    def run(kind, **environment):
        compiler = tmp_path / "compiler"
        if kind in COMPILERS:
            compiler.write_text(f"#!/bin/sh\n{COMPILERS[kind]}\n")
            compiler.chmod(0o755)
        out = tmp_path / "out"
        environment |= {"PYTHONPATH": str(tmp_path), "SOURCES": str(tmp_path), "CC": str(compiler)}
        done = subprocess.run(
            [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", out, "--build-temp",
             tmp_path / "temp"],
            cwd=TOP, env={**os.environ, **environment}, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        names = {path.name.split(".")[0] for path in out.rglob("*") if path.is_file()}
        return done.returncode, done.stdout, names

    return run


@pytest.mark.parametrize("kind", ["broken", "silent"])
def test_a_build_without_a_compiler_that_works(build, kind):
    code, text, names = build(kind, CMLP_BUILD="auto")
    assert (code, names) == (0, set()), text
    assert "cmlp: the C compiler does not work: " in text
    assert "cmlp: no working C compiler; installing the NumPy path alone" in text


def test_a_build_that_requires_a_compiler(build):
    code, text, names = build("none", CMLP_BUILD="require")
    assert code != 0 and not names
    assert "cmlp: no working C compiler, and CMLP_BUILD is 'require'" in text


def test_a_level_that_the_platform_does_not_have(build):
    code, text, names = build("none", CMLP_BUILD="auto", CMLP_LEVELS="baseline,avx9")
    assert code != 0 and not names
    assert "CMLP_LEVELS names 'avx9'; this platform has baseline" in text


@pytest.mark.skipif(platform.machine() != "x86_64", reason="there is no level to leave out")
def test_a_compiler_too_old_for_a_level(build):
    code, text, names = build("old", CMLP_BUILD="auto")
    assert (code, names) == (0, {"_cpu", "_core_baseline", "_core_avx2"}), text
    assert "unrecognized option" in text
