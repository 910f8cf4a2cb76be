"""Compile the C files of several models for every target that is installed, and run them there.

    PYTHONPATH=src python tools/c_targets.py [--only NAME ...] [--zig PYTHON]

Each program runs the self-tests of its models; a target that is missing is named. Debian has them:

    clang libclang-rt-14-dev tcc cppcheck lib32gcc-12-dev libc6-dev-i386 gcc-s390x-linux-gnu
    libc6-dev-s390x-cross
    qemu-user gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm gcc-avr avr-libc simavr
    gcc-xtensa-lx106

and PyPI ziglang and wasmtime, in the environment of PYTHON. Flash and RAM are of `size`;
instructions (Arm: of qemu's clock, one each) and cycles (AVR) are of one call of NAME_outputs.
"""

from __future__ import annotations

import argparse
import itertools
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

import cmlp
from cmlp import to_c
from cmlp.core.vocabulary import ACTIVATIONS
from cmlp.datasets import load_digits

warnings.simplefilter("ignore", cmlp.ConvergenceWarning)

WARNINGS = "-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wdouble-promotion -Wundef -Werror"
STRICT = WARNINGS.split()
C = [*STRICT, "-Wstrict-prototypes", "-Wmissing-prototypes"]

# Models ------------------------------------------------------------------------------------------


def models():
    """Return the C text of each model by its name; every text has a self-test."""
    X, y, _, _ = load_digits()
    texts = {}
    for name, sizes in (("digits", (32,)), ("deep", (24, 16))):
        model = cmlp.MLPClassifier(sizes, max_iter=20, random_state=0).fit(X, y)
        texts[name] = to_c(model, name=name, X=X)
        texts[f"{name}_int8"] = to_c(model, name=f"{name}_int8", X=X, weights="int8")
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 16))
    labels = (rows[:, 0] * rows[:, 1] > 0).astype(int)
    two = cmlp.Network([16, 64, 64, 2], "relu", loss="categorical_crossentropy", seed=0)
    two.fit(rows, labels, epochs=3)
    texts["two"] = to_c(two, name="two", X=rows)
    names = [row.name for row in ACTIVATIONS if not row.output_only]
    for n, activation in enumerate([*names, "leaky_relu:0.3", "elu:0.5"]):
        net = cmlp.Network(
            [6, 5, 4, 3], activation, loss="categorical_crossentropy", seed=n,
            normalization=(None, "layer")[n % 2], parametric_activation=n % 3 == 0,
        )  # fmt: skip
        name = activation.replace(":0.", "_")
        texts[name] = to_c(net, name=f"net_{name}")
    inputs = cmlp.Inputs(periodic=[0], levels={2: (5, 4)}, summed={3: 9}, scaled=True)
    net = cmlp.Network([4, 8, 2], "silu", inputs=inputs, seed=0, loss="squared_error")
    texts["front"] = to_c(net, name="front")
    several = cmlp.MLPClassifier((4,), max_iter=3, n_ensemble=3, random_state=0)
    several.fit(rows[:, :4], np.array(["*/", "??/\\", '"%s'])[labels + (rows[:, 2] > 1)])
    texts["ensemble"] = to_c(several, name="several")
    return texts


def together(texts):
    """Return one source of several models: `int self_tests(void)` and `void once(void)`."""
    parts = []
    names = []
    for text in texts:
        name = re.search(r"void (\w+)_outputs", text)[1]
        names.append(name)
        definition = f"int {name}_main(void);\nint {name}_main(void)"
        text = text.replace("int main(void)", definition)
        parts.append(f"#define {name.upper()}_SELFTEST 1\n{text}")
    tests = "".join(f"    failed += {name}_main();\n" for name in names)
    first = names[0]
    big = first.upper()
    once = (
        f"static float bench_x[{big}_INPUTS], bench_y[{big}_OUTPUTS], bench_s[{big}_SCRATCH];\n"
        "void once(void);\nvoid once(void)\n{\n    unsigned i;\n"
        f"    for (i = 0; i < {big}_INPUTS; i++)\n"
        f"        bench_x[i] = {big}_READ({first}_test_x + i);\n"
        f"    {first}_outputs(bench_x, bench_y, bench_s);\n}}\n"
    )
    return (
        "\n".join(parts)
        + f"int self_tests(void);\nint self_tests(void)\n{{\n    int failed = 0;\n{tests}"
        "    return failed;\n}\n" + once
    )


HOST = "int main(void) { return self_tests(); }\n"

ARM_START = r"""
extern unsigned _estack;
void reset(void);
__attribute__((section(".vectors"), used)) static void *const vectors[2] = {
    (void *)&_estack, (void *)reset
};
static int semihost(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}
static void print(const char *text) { semihost(4, text); }
static void print_number(unsigned long n)
{
    char text[12];
    char *p = text + 11;
    *p = 0;
    do *--p = (char)('0' + n % 10); while (n /= 10);
    print(p);
}
#define SYSTICK ((volatile unsigned *)0xE000E010)
"""

ARM_MAIN = r"""
void reset(void)
{
    unsigned long before, after, i;
    int failed;
#ifdef __ARM_FP
    *(volatile unsigned *)0xE000ED88 |= 0xFu << 20;
    __asm__ volatile("dsb\nisb");
#endif
    failed = self_tests();
    SYSTICK[1] = 0xFFFFFF;
    SYSTICK[2] = 0;
    SYSTICK[0] = 5;
    before = SYSTICK[2];
    for (i = 0; i < 20; i++)
        once();
    after = SYSTICK[2];
    print(failed ? "FAILED " : "OK ");
    print_number((before - after & 0xFFFFFF) * 2); /* a tick is 40 ns, an instruction 1 ns */
    print("\n");
    semihost(0x18, (const void *)0x20026);
    for (;;) {}
}
"""

ARM_SCRIPT = """
MEMORY { CODE (rwx) : ORIGIN = 0x0, LENGTH = 1M  RAM (rwx) : ORIGIN = 0x20000000, LENGTH = 1M }
_estack = 0x20100000;
SECTIONS {
  .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) } > CODE
  .ARM.exidx : { *(.ARM.exidx*) } > CODE
  .data : { *(.data*) } > RAM
  .bss : { *(.bss*) *(COMMON) } > RAM
  end = .;
}
"""

AVR = r"""
#include <avr/io.h>
#include <avr/interrupt.h>
#include <avr/sleep.h>
static void put(char c)
{
    while (!(UCSR0A & (1 << UDRE0))) {}
    UDR0 = (uint8_t)c;
}
static void put_number(unsigned long n)
{
    char text[12];
    unsigned char k = 0;
    do { text[k++] = (char)('0' + n % 10); } while (n /= 10);
    while (k)
        put(text[--k]);
}
int main(void)
{
    unsigned char i;
    unsigned long cycles;
    int failed;
    UCSR0B = 1 << TXEN0;
    failed = self_tests();
    TCCR1B = 5; /* clock / 1024 */
    TCNT1 = 0;
    for (i = 0; i < 10; i++)
        once();
    cycles = (unsigned long)TCNT1 * 1024 / 10;
    put(failed ? 'F' : 'O');
    put(' ');
    put_number(cycles);
    put('\n');
    cli();
    sleep_enable();
    sleep_cpu();
    return 0;
}
"""

THREADS = r"""
#include <pthread.h>
#include <string.h>
static float reference[DIGITS_OUTPUTS];
static void *work(void *wrong)
{
    float x[DIGITS_INPUTS], y[DIGITS_OUTPUTS], scratch[DIGITS_SCRATCH];
    int n, i;
    for (i = 0; i < DIGITS_INPUTS; i++) x[i] = digits_test_x[i];
    for (n = 0; n < 20000; n++) {
        digits_outputs(x, y, scratch);
        if (memcmp(y, reference, sizeof y)) *(int *)wrong = 1;
    }
    return 0;
}
int main(void)
{
    pthread_t threads[8];
    int wrong[8] = {0}, i, sum = 0;
    float scratch[DIGITS_SCRATCH];
    digits_outputs(digits_test_x, reference, scratch);
    for (i = 0; i < 8; i++) pthread_create(threads + i, 0, work, wrong + i);
    for (i = 0; i < 8; i++) { pthread_join(threads[i], 0); sum += wrong[i]; }
    return sum;
}
"""

WASM = """
import sys, wasmtime
engine = wasmtime.Engine()
linker = wasmtime.Linker(engine)
linker.define_wasi()
store = wasmtime.Store(engine)
store.set_wasi(wasmtime.WasiConfig())
instance = linker.instantiate(store, wasmtime.Module.from_file(engine, sys.argv[1]))
try:
    instance.exports(store)["_start"](store)
except wasmtime.ExitTrap as trap:
    sys.exit(trap.code)
"""

# Targets -----------------------------------------------------------------------------------------


class Missing(Exception):
    """A program of a target is not installed."""


def run(command, folder, **options):
    """Run a command; raise with what it printed if it fails."""
    if shutil.which(command[0]) is None:
        raise Missing(command[0])
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, **options)
    if done.returncode:
        printed = (done.stdout + done.stderr)[-2000:]
        raise RuntimeError(f"{' '.join(map(str, command))[:200]}\n{printed}")
    return done.stdout + done.stderr


def size_of(tool, path, folder):
    """Return text, data and bss."""
    return "text {} data {} bss {}".format(*run([tool, path], folder).splitlines()[1].split()[:3])


def host(folder, texts):
    """Every compiler, standard and optimisation: no warning, and the self-tests pass."""
    (folder / "all.c").write_text(together(texts.values()) + HOST)
    (folder / "all.cpp").write_text(together(texts.values()) + HOST)
    lines = []
    levels = ["-O0", "-O2", "-Os", "-O3 -ffast-math"]
    c = [("c99", C), ("c11", C), ("c17", C)]
    for compiler, (standard, strict), level in itertools.product(("gcc", "clang"), c, levels):
        if level in ("-O0", "-O3 -ffast-math") and standard != "c99":
            continue
        lines.append([compiler, f"-std={standard}", *strict, *level.split(), "all.c"])
    for compiler, standard in itertools.product(("g++", "clang++"), ("c++98", "c++11", "c++20")):
        lines.append([compiler, f"-std={standard}", *STRICT, "-O2", "all.cpp"])
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "all.c"]
    lines += [
        ["gcc", "-m32", *C, "-O2", "all.c"], ["gcc", *sanitizers], ["clang", *sanitizers],
        ["tcc", "all.c"],
    ]  # fmt: skip
    for line in lines:
        label = " ".join(word for word in line if not word.startswith("-W") and "all." not in word)
        yield label, lambda line=line: compiled_and_run(line, folder)


def compiled_and_run(line, folder):
    """Compile, run, and return a word."""
    said = "0 failed"
    try:
        run([*line, "-o", "all", "-lm"], folder)
    except RuntimeError as error:
        if "libclang_rt" not in str(error):
            raise
        trap = ["-fsanitize=undefined", "-fsanitize-trap=undefined"]  # these need no library
        run([line[0], *trap, "-O1", line[-1], "-o", "all", "-lm"], folder)
        said += ", undefined behaviour only: libclang-rt is not installed"
    run([str(folder / "all")], folder)
    return said


def cppcheck(folder, texts):
    """No finding of any kind but style's."""
    for name, text in texts.items():
        (folder / f"check_{name}.c").write_text(text)

    def check():
        command = ["cppcheck", "--enable=warning,performance,portability", "--error-exitcode=1"]
        command += ["-q", "--suppress=uninitvar"]  # it follows no pointer into the scratch
        files = sorted(path.name for path in folder.glob("check_*.c"))
        return run([*command, *files], folder) or "silent"

    yield "cppcheck", check


def threads(folder, texts):
    """Eight threads at once give the same bits."""
    (folder / "threads.c").write_text(
        "#define DIGITS_SELFTEST 1\n" + texts["digits"].replace("int main", "int unused") + THREADS
    )

    def check():
        run(["gcc", "-O2", "threads.c", "-o", "threads", "-lm", "-pthread"], folder)
        run([str(folder / "threads")], folder)
        return "the same bits"

    yield "8 threads", check


def s390x(folder, texts):
    """A big-endian processor, emulated."""
    (folder / "all.c").write_text(together(texts.values()) + HOST)

    def check():
        run(["s390x-linux-gnu-gcc", *C, "-O2", "-static", "all.c", "-o", "big", "-lm"], folder)
        run(["qemu-s390x", str(folder / "big")], folder)
        return "0 failed"

    yield "s390x, big-endian (qemu-s390x)", check


def sets(texts):
    """Return what small processors run: each model alone, then all activations together."""
    rest = {n: t for n, t in texts.items() if not n.startswith(("digits", "deep", "two"))}
    named = {n: [texts[n]] for n in ("digits", "digits_int8", "deep", "two")}
    return {**named, "activations, front, ensemble": list(rest.values())}


ARM_CORES = {
    "cortex-m0": (["-mcpu=cortex-m0"], "mps2-an385"),
    "cortex-m4": (["-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"], "mps2-an386"),
}


def on_arm(source, flags, machine, folder, level):
    """Compile, run under qemu, and return its verdict, instructions and sizes."""
    (folder / "arm.c").write_text(source + ARM_START + ARM_MAIN)
    (folder / "arm.ld").write_text(ARM_SCRIPT)
    sections = ["-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"]
    link = ["-nostartfiles", "-T", "arm.ld", "--specs=nano.specs", "--specs=nosys.specs"]
    run(
        [
            "arm-none-eabi-gcc",
            "-mthumb",
            *flags,
            level,
            *sections,
            "arm.c",
            *link,
            "-o",
            "arm",
            "-lm",
        ],
        folder,
    )
    qemu = ["qemu-system-arm", "-M", machine, "-nographic", "-icount", "shift=0"]
    semihosting = ["-semihosting-config", "enable=on,target=native", "-kernel", "arm"]
    printed = run([*qemu, *semihosting], folder, timeout=120).strip().splitlines()[-1]
    verdict, count = printed.split()
    assert verdict == "OK", printed
    return f"0 failed, {int(count)} instructions, {size_of('arm-none-eabi-size', 'arm', folder)}"


def arm(folder, texts):
    """Cortex-M0 (without floating point) and M4 (with it) under qemu."""
    for (core, (flags, machine)), level in itertools.product(ARM_CORES.items(), ("-Os", "-O2")):
        for name, chosen in sets(texts).items():
            yield (
                f"{core} {level} {name}",
                lambda f=flags, m=machine, c=chosen, o=level: on_arm(together(c), f, m, folder, o),
            )


def on_avr(source, folder):
    """Compile, run in simavr, and return its verdict, cycles and sizes."""
    (folder / "avr.c").write_text(source + AVR)
    sections = ["-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"]
    run(["avr-gcc", "-mmcu=atmega328p", "-Os", *sections, "avr.c", "-o", "avr.elf", "-lm"], folder)
    simavr = ["simavr", "-m", "atmega328p", "-f", "16000000", "avr.elf"]
    printed = run(simavr, folder, timeout=300)
    found = re.search(r"([OF]) (\d+)", re.sub(r"\x1b\[[\d;]*m|\.\.", "", printed))
    assert found and found[1] == "O", printed
    return f"0 failed, {found[2]} cycles, {size_of('avr-size', 'avr.elf', folder)}"


def avr(folder, texts):
    """ATmega328P in simavr: 32 kB of flash, 2 kB of RAM."""
    several = sets(texts)
    rest = several.pop("activations, front, ensemble")
    for n in range(0, len(rest), 3):
        names = ", ".join(re.search(r"void (\w+)_outputs", text)[1] for text in rest[n : n + 3])
        several[names] = rest[n : n + 3]
    for name, chosen in several.items():
        yield f"atmega328p {name}", lambda c=chosen: on_avr(together(c), folder)


def xtensa(folder, texts):
    """ESP8266's compiler: compiled, not run."""
    (folder / "xtensa.c").write_text(texts["digits"])

    def check():
        run(["xtensa-lx106-elf-gcc", "-mlongcalls", "-Os", *C, "-ffreestanding", "-c", "xtensa.c",
             "-include", "math_declarations.h", "-I", "."], folder)  # fmt: skip
        return size_of("xtensa-lx106-elf-size", "xtensa.o", folder)

    (folder / "math.h").write_text("float expf(float);\n")  # the package has no C library
    (folder / "math_declarations.h").write_text("")
    yield "xtensa-lx106 (compiled only)", check


def wasm(folder, texts, python):
    """WebAssembly by zig's clang, in wasmtime."""
    (folder / "all.c").write_text(together(texts.values()) + HOST)
    (folder / "run_wasm.py").write_text(WASM)

    def check():
        for module in ("ziglang", "wasmtime"):
            if subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode:
                raise Missing(f"{module} in {python}; give --zig")
        zig = [python, "-m", "ziglang", "cc", "-target", "wasm32-wasi", *C, "-O2", "-s"]
        run([*zig, "all.c", "-o", "all.wasm"], folder)
        run([python, "run_wasm.py", "all.wasm"], folder)
        return f"0 failed, {(folder / 'all.wasm').stat().st_size} bytes"

    yield "wasm32-wasi (zig, wasmtime)", check


def main():
    """Run the targets, print a line for each, and exit with 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", help="names of targets")
    parser.add_argument("--zig", default=sys.executable, help="a Python with ziglang and wasmtime")
    chosen = parser.parse_args()
    texts = models()
    targets = {
        "host": host, "cppcheck": cppcheck, "threads": threads, "s390x": s390x, "arm": arm,
        "avr": avr, "xtensa": xtensa, "wasm": lambda *given: wasm(*given, chosen.zig),
    }  # fmt: skip
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for target in chosen.only or targets:
            for label, check in targets[target](folder, texts):
                try:
                    answer = check()
                except Missing as missing:
                    answer = f"not run: there is no {missing}"
                except (RuntimeError, AssertionError, subprocess.TimeoutExpired) as error:
                    answer, failed = f"FAILED: {error}", failed + 1
                print(f"{label:52} {answer}", flush=True)
    print(f"{failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
