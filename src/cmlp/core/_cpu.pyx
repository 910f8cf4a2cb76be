# cython: language_level=3
"""Which instruction-set levels this processor and its operating system run.

Imports nothing and uses no instruction of any level: it runs before a core is imported, since the
import of a core that the processor cannot run would end the interpreter. The tests of bits are
written out (Intel SDM vol. 2, CPUID; vol. 1, 13.3: XCR0) rather than left to a compiler's runtime,
because they must match the flags in setup.py one by one.
"""

from libc.stdint cimport uint32_t, uint64_t

cdef extern from *:
    """
    #if defined(__x86_64__) || defined(_M_X64)
    #if defined(_MSC_VER)
    #include <intrin.h>
    static void cpu_id(uint32_t leaf, uint32_t subleaf, uint32_t *out) {
        __cpuidex((int *)out, (int)leaf, (int)subleaf);
    }
    static uint64_t cpu_xcr0(void) { return _xgetbv(0); }
    #else
    #include <cpuid.h>
    static void cpu_id(uint32_t leaf, uint32_t subleaf, uint32_t *out) {
        __cpuid_count(leaf, subleaf, out[0], out[1], out[2], out[3]);
    }
    static uint64_t cpu_xcr0(void) {
        uint32_t low, high;
        __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(low), "=d"(high) : "c"(0));  /* xgetbv */
        return low | (uint64_t)high << 32;
    }
    #endif
    #define CPU_IS_X86_64 1
    #else
    #define CPU_IS_X86_64 0
    static void cpu_id(uint32_t leaf, uint32_t subleaf, uint32_t *out) {
        (void)leaf; (void)subleaf; out[0] = out[1] = out[2] = out[3] = 0;
    }
    static uint64_t cpu_xcr0(void) { return 0; }
    #endif
    """
    void cpu_id(uint32_t leaf, uint32_t subleaf, uint32_t *out) nogil
    uint64_t cpu_xcr0() nogil
    const bint CPU_IS_X86_64


cdef bint has(uint32_t register, bits):
    """Whether all of these bits of a register are set."""
    return all([register >> bit & 1 for bit in bits])


def levels():
    """Return the names of the levels that can run here, the lowest first."""
    cdef uint32_t[4] r  # eax, ebx, ecx, edx
    cdef uint32_t c1, b7, c81 = 0, highest, highest_extended
    cdef uint64_t saved
    if not CPU_IS_X86_64:
        return ("baseline",)
    cpu_id(0, 0, r)
    highest = r[0]
    cpu_id(0x80000000, 0, r)
    highest_extended = r[0]
    cpu_id(1, 0, r)
    c1 = r[2]
    if highest < 7 or highest_extended < 0x80000001 or not has(c1, (27,)):  # OSXSAVE
        return ("baseline",)
    cpu_id(7, 0, r)
    b7 = r[1]
    cpu_id(0x80000001, 0, r)
    c81 = r[2]
    saved = cpu_xcr0()  # registers that the operating system saves at a task switch
    # leaf 1, ecx: FMA 12, MOVBE 22, POPCNT 23, AVX 28, F16C 29; leaf 7, ebx: BMI1 3, AVX2 5, BMI2 8; LZCNT 5
    if not (
        saved & 0x06 == 0x06
        and has(c1, (12, 22, 23, 28, 29)) and has(b7, (3, 5, 8)) and has(c81, (5,))
    ):
        return ("baseline",)
    # leaf 7, ebx: F 16, DQ 17, CD 28, BW 30, VL 31
    if not (saved & 0xE6 == 0xE6 and has(b7, (16, 17, 28, 30, 31))):
        return ("baseline", "avx2")
    return ("baseline", "avx2", "avx512")
