"""Builds the compiled core, once per instruction-set level. Everything else is in pyproject.toml.

CMLP_BUILD=auto      build it if there is a working compiler, else install the NumPy path (default)
CMLP_BUILD=require   fail if it cannot be built (wheels)
CMLP_BUILD=none      install the NumPy path alone
CMLP_LEVELS=avx2     only these levels, separated by commas; all of the platform by default
CMLP_DEBUG=1         the same source with every Cython check on, and -O1 -g1
"""

import os
import shutil
import subprocess
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
UNIX_FLAGS.append("-Wno-all")  # Python's -Wall: a twentieth of the time, about code of Cython's
UNIX_FLAGS += ["-O1", "-g1"] if DEBUG else ["-O3", "-g0"]  # -g, of some Pythons, takes time
# Smaller, and as fast or faster (docs/decisions.md): Clang unrolls loops that are unrolled enough,
# GCC copies functions that are not marked as inline, and loops for strides of 1.
SMALLER = "-fno-unroll-loops"
SMALLER_WITH_GCC = ("-fno-inline-small-functions", "-fno-version-loops-for-strides")
# GCC 14 and later, tuning for all processors, multiply and add in two roundings where a sum is the
# only one of a loop: the numbers of a row would depend on how many rows are computed with it.
FUSED_WITH_GCC = "--param=avoid-fma-max-bits=0"
# In a function of more than 100 loops, as the tile, GCC allocates registers for all of them
# together, and reloads strides in the loops of AVX-512.
REGISTERS_WITH_GCC = "--param=ira-max-loops-num=1000"
# The level of x86 processors before 2013: 17 % smaller, its products, in vectors, as fast.
FALLBACK_WITH_GCC = ["-O2", "-ftree-vectorize", "-fvect-cost-model=dynamic"]
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
    "cpow": True,  # powers of doubles are C's, not complex numbers
    "binding": False,  # functions of C: smaller, and quicker to call
    "embedsignature": True,  # which inspect.signature reads: the twins have the same
    "embedsignature.format": "clinic",
    "freethreading_compatible": True,  # see tests/core/test_threads.py
    "show_performance_hints": not DEBUG,  # each check would be one
    "emit_code_comments": DEBUG,  # half of the file, and a sixth of the time to compile it
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
    """One extension per level, from the same source, and that of the processor's features."""

    def extension(name, source, flags=(), macros=()):
        limited = [("Py_LIMITED_API", "0x030C0000")] if STABLE_ABI else []
        if DEBUG:  # products of bfloat16 as words, whatever the processor is
            limited.append(("SOFTWARE_WORDS", "1"))
        return Extension(
            f"cmlp.core.{name}",
            [source],
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
    modules = [extension("_cpu", "src/cmlp/core/_cpu.pyx")]
    for level in wanted:
        if level not in flags:
            sys.exit(f"CMLP_LEVELS names {level!r}; this platform has {', '.join(flags)}")
        # Python calls the initialisation that has the file's name.
        macros = [("PyInit__core", f"PyInit__core_{level}")]
        source = "src/cmlp/core/_core.pyx"
        modules.append(extension(f"_core_{level}", source, flags[level], macros))
    return modules


def translate(modules):
    """Let Cython write each source once, and give each extension a copy: objects go by its name."""
    from Cython.Build import cythonize

    folder = Path("build", "debug" if DEBUG else "cython")
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for module in modules:
        source = Path(module.sources[0])
        if source not in written:
            of_source = Extension(f"cmlp.core.{source.stem}", [str(source)], depends=module.depends)
            (translated,) = cythonize(
                [of_source], build_dir=str(folder), compiler_directives=DIRECTIVES
            )
            written[source] = translated.sources[0]
        copy = folder / f"{module.name.rpartition('.')[2]}.c"
        module.sources = [str(shutil.copy2(written[source], copy))]


class Build(build_ext):
    """Compiles the levels side by side; without a compiler fails or leaves the core out."""

    def build_extensions(self):
        if not self.compiler_works():
            if BUILD == "require":
                sys.exit("cmlp: no working C compiler, and CMLP_BUILD is 'require'")
            print("cmlp: no working C compiler; installing the NumPy path alone", file=sys.stderr)
            self.extensions.clear()
            return
        translate(self.extensions)
        msvc = self.compiler.compiler_type == "msvc"
        flags = MSVC_FLAGS if msvc else [*UNIX_FLAGS, SMALLER]
        of_gcc = [] if msvc else [flag for flag in SMALLER_WITH_GCC if self.compiler_knows(flag)]
        if of_gcc:
            of_gcc.append(FUSED_WITH_GCC)
        for extension in self.extensions:
            extension.extra_compile_args += flags + of_gcc
            if of_gcc and extension.name.endswith("avx512"):
                extension.extra_compile_args.append(REGISTERS_WITH_GCC)
            if of_gcc and not DEBUG and self.falls_back(extension):
                extension.extra_compile_args += FALLBACK_WITH_GCC
            if sys.platform == "linux" and not DEBUG:
                extension.extra_link_args.append("-Wl,-s")  # no symbol table in the wheel
        self.parallel = self.parallel or os.cpu_count() or 1
        self.extensions.reverse()  # the level that takes longest begins
        super().build_extensions()

    @staticmethod
    def falls_back(extension):
        """Whether a wheel has this level for processors that run none of the others."""
        return len(levels()) > 1 and extension.name.endswith("baseline")

    def compiler_knows(self, flag):
        """Whether the compiler takes a flag without a warning."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "try.c")
            source.write_text("int answer(void) { return 42; }\n")
            command = [*self.compiler.compiler_so, "-Werror", flag, "-c", str(source)]
            output = ["-o", str(source.with_suffix(".o"))]
            return subprocess.run([*command, *output], capture_output=True).returncode == 0

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
