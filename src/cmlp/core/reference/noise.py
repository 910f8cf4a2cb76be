"""Randomness: a hash of (seed, step, stream, row, unit), so that both twins draw the same."""

from __future__ import annotations

import math

import numpy as np

_MASK64 = (1 << 64) - 1


def key_of(seed, step, stream):
    """Two 32-bit words from the seed, the step and the stream (splitmix64's finaliser)."""
    x = (seed + 0x9E3779B97F4A7C15 * (step + 1) + 0xD1B54A32D192ED03 * (stream + 1)) & _MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK64
    x ^= x >> 31
    return np.uint32(x & 0xFFFFFFFF), np.uint32(x >> 32)


def _hash(counter, key):
    """Mix 32-bit counters with the key: every output bit depends on every input bit."""
    low, high = key
    x = counter + low
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x21F0AAAD)
    x ^= x >> np.uint32(15)
    x ^= high
    x *= np.uint32(0x735A2D97)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x9E3779B1)
    x ^= x >> np.uint32(16)
    return x


def _counters(shape, first_row):
    """One number per row and unit; `first_row` is the first one's place in its batch."""
    n_rows, n_units = shape
    number = np.arange(first_row * n_units, (first_row + n_rows) * n_units, dtype=np.int64)
    return number.astype(np.uint32).reshape(shape)


def bell(shape, key, first_row):
    """Nearly normal numbers: the sum of eight uniform bytes, scaled to mean 0 and variance 1."""
    counter = _counters(shape, first_row) * np.uint32(2)
    total = np.zeros(shape, np.int64)
    for half in (0, 1):
        h = _hash(counter + np.uint32(half), key)
        for shift in (0, 8, 16, 24):
            total += (h >> np.uint32(shift)) & np.uint32(255)
    return (total - 1020) / math.sqrt(8 * (256**2 - 1) / 12)


def dropout_scale(shape, key, rate, first_row):
    """0 where a unit is switched off, 1 / (1 - rate) where it is kept."""
    kept = _hash(_counters(shape, first_row), key) >= np.uint32(int(rate * 2**32))
    return kept / (1.0 - rate)
