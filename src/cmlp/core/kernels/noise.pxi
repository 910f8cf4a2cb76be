# Randomness: the same hash as in the twin ----------------------------------------------------------

cdef inline uint64_t key_of(uint64_t seed, uint64_t step, uint64_t stream) noexcept nogil:
    cdef uint64_t x = (
        seed + <uint64_t>0x9E3779B97F4A7C15 * (step + 1) + <uint64_t>0xD1B54A32D192ED03 * (stream + 1)
    )
    x = (x ^ (x >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * <uint64_t>0x94D049BB133111EB
    return x ^ (x >> 31)


cdef inline uint32_t hash_of(uint32_t counter, uint64_t key) noexcept nogil:
    cdef uint32_t x = counter + <uint32_t>key
    x ^= x >> 16
    x *= <uint32_t>0x21F0AAAD
    x ^= x >> 15
    x ^= <uint32_t>(key >> 32)
    x *= <uint32_t>0x735A2D97
    x ^= x >> 15
    x *= <uint32_t>0x9E3779B1
    x ^= x >> 16
    return x


cdef inline uint32_t sum_of_bytes(uint32_t h) noexcept nogil:
    cdef uint32_t pairs = (h & <uint32_t>0x00FF00FF) + ((h >> 8) & <uint32_t>0x00FF00FF)
    return (pairs & 0xFFFF) + (pairs >> 16)


cdef void add_input_noise(
    real[::1] ws, Py_ssize_t at, Py_ssize_t n, uint32_t counter, uint64_t key, double deviation
) noexcept nogil:
    """Add nearly normal numbers to a row: sums of eight uniform bytes, mean 1020."""
    cdef Py_ssize_t j
    cdef uint32_t total
    cdef double scale = deviation / sqrt(8 * (256.0 * 256.0 - 1) / 12)
    for j in range(n):
        total = (
            sum_of_bytes(hash_of(2 * (counter + <uint32_t>j), key))
            + sum_of_bytes(hash_of(2 * (counter + <uint32_t>j) + 1, key))
        )
        ws[at + j] += <real>(scale * (<double><int32_t>total - 1020))


cdef void drop_out(
    const Drop *drop, real[::1] ws, Py_ssize_t at, Py_ssize_t slope, Py_ssize_t n, uint32_t counter
) noexcept nogil:
    """Switch units of one row off, and scale the others by 1 / (1 - rate); their slopes likewise."""
    cdef Py_ssize_t j
    cdef uint32_t threshold = <uint32_t>(drop.rate * 4294967296.0)
    cdef real kept = <real>(1.0 / (1.0 - drop.rate)), scale
    for j in range(n):
        scale = kept if hash_of(counter + <uint32_t>j, drop.key) >= threshold else 0
        ws[at + j] *= scale
        ws[slope + j] *= scale
