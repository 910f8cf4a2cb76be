"""Builds the compiled core, once per instruction-set level. Everything else is in pyproject.toml.

CMLP_BUILD=auto      build it if there is a working compiler, else install the NumPy path (default)
CMLP_BUILD=require   fail if it cannot be built (wheels)
CMLP_BUILD=none      install the NumPy path alone
CMLP_LEVELS=avx2     only these levels, separated by commas; all of the platform by default
CMLP_DEBUG=1         the same source with every Cython check on, and -O1 -g1
"""

import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

BUILD = os.environ.get("CMLP_BUILD", "auto")
DEBUG = os.environ.get("CMLP_DEBUG", "0") not in ("", "0")
if BUILD not in ("auto", "require", "none"):
    sys.exit(f"CMLP_BUILD is {BUILD!r}; it must be auto, require or none")

# A level may use the features that cmlp.core._cpu checks, no more.
AVX2 = ["-mavx2", "-mfma", "-mbmi", "-mbmi2", "-mf16c", "-mlzcnt", "-mmovbe"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512cd", "-mavx512vl", "-mavx512bw", "-mavx512dq",
          "-mprefer-vector-width=512"]  # fmt: skip

# No -ffast-math: linked into a library it changes how the whole process rounds denormals.
UNIX_FLAGS = ["-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
UNIX_FLAGS += ["-O1", "-g1"] if DEBUG else ["-O3", "-g0"]  # -g, of some Pythons, takes time
MSVC_FLAGS = ["/O2", "/fp:precise", "/std:c11"]

# One build for all Pythons from 3.12 on, where there is a stable ABI: not without the GIL. In that
# of 3.11 the counts of immortal objects, such as None, drift with every prediction.
STABLE_ABI = (
    sys.implementation.name == "cpython"
    and sys.version_info >= (3, 12)
    and not sysconfig.get_config_var("Py_GIL_DISABLED")
)

PARTS = (".h", ".pxi")  # what _core.pyx is made of

CHECKS = ("boundscheck", "wraparound", "initializedcheck", "nonecheck")
DIRECTIVES = {
    **dict.fromkeys(CHECKS, DEBUG),
    "cdivision": not DEBUG,
    "embedsignature": False,
    "freethreading_compatible": True,  # see tests/core/test_threads.py
    "show_performance_hints": not DEBUG,  # each check would be one
}


def levels():
    """Flags of each level, for the compilers of the platform that is built for."""
    system = sysconfig.get_platform()  # of another one: that of _PYTHON_HOST_PLATFORM
    if system.startswith("macosx") or not system.endswith(("x86_64", "amd64")):
        return {"baseline": []}
    if system.startswith("win"):
        return {"baseline": [], "avx2": ["/arch:AVX2"], "avx512": ["/arch:AVX512"]}
    return {"baseline": [], "avx2": AVX2, "avx512": AVX512}


def extensions():
    """Extensions of the levels, from the same C: Cython translates it once.

    Only the name of its initialisation is that of the level: Python calls it after the file.
    """
    from Cython.Build import cythonize

    built = Path("build", "debug" if DEBUG else "cython")

    def extension(name, source, flags=(), macros=()):
        limited = [("Py_LIMITED_API", "0x030C0000")] if STABLE_ABI else []
        return Extension(
            f"cmlp.core.{name}",
            [str(source)],
            include_dirs=["src/cmlp/core/simd"],
            depends=[
                str(path) for path in Path("src/cmlp/core").rglob("*") if path.suffix in PARTS
            ],
            extra_compile_args=list(flags),
            define_macros=[*limited, *macros],
            py_limited_api=STABLE_ABI,
            optional=BUILD == "auto",  # a compiler too old for a level leaves that level out
        )

    flags = levels()
    wanted = (os.environ.get("CMLP_LEVELS") or ",".join(flags)).split(",")
    for level in wanted:
        if level not in flags:
            sys.exit(f"CMLP_LEVELS names {level!r}; this platform has {', '.join(flags)}")
    modules = [extension(name, f"src/cmlp/core/{name}.pyx") for name in ("_cpu", "_core")]
    cpu, core = cythonize(modules, build_dir=str(built), compiler_directives=DIRECTIVES)
    for level in wanted:
        copy = Path(shutil.copy2(core.sources[0], built / f"_core_{level}.c"))
        macros = [("PyInit__core", f"PyInit__core_{level}")]
        modules.append(extension(f"_core_{level}", copy, flags[level], macros))
    return [cpu, *modules[2:]]


class Build(build_ext):
    """Compiles the levels side by side; without a compiler fails or leaves the core out."""

    def build_extensions(self):
        if not self.compiler_works():
            if BUILD == "require":
                sys.exit("cmlp: no working C compiler, and CMLP_BUILD is 'require'")
            print("cmlp: no working C compiler; installing the NumPy path alone", file=sys.stderr)
            self.extensions.clear()
            return
        msvc = self.compiler.compiler_type == "msvc"
        for extension in self.extensions:
            extension.extra_compile_args += MSVC_FLAGS if msvc else UNIX_FLAGS
            if sys.platform == "linux" and not DEBUG:
                extension.extra_link_args.append("-Wl,-s")  # no symbol table in the wheel
        self.parallel = self.parallel or os.cpu_count() or 1
        super().build_extensions()

    def compiler_works(self):
        """Whether a module that includes Python.h compiles and links."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "try.c")
            source.write_text("#include <Python.h>\nint answer(void) { return 42; }\n")
            include = sysconfig.get_paths()["include"]
            try:
                objects = self.compiler.compile(
                    [str(source)], output_dir=folder, include_dirs=[include]
                )
                linked = Path(folder, "try.so")
                self.compiler.link_shared_object(objects, str(linked))
                linked.stat()  # some broken compilers report success for everything
            except Exception as error:  # distutils raises its own kinds, and OSError
                print(f"cmlp: the C compiler does not work: {error}", file=sys.stderr)
                return False
        return True


setup(
    ext_modules=[] if BUILD == "none" else extensions(),
    cmdclass={"build_ext": Build},
    options={"bdist_wheel": {"py_limited_api": "cp312"}} if STABLE_ABI else {},
)
