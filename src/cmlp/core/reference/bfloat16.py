"""Products of operands that are rounded to bfloat16, with sums in float32."""

from __future__ import annotations

import numpy as np

from cmlp.core import layout
from cmlp.core.layout import Array


def rounded(x: Array) -> Array:
    """Return the nearest bfloat16 of each float32, as float32; denormal numbers become zero.

    A bfloat16 is the first 16 bits of a float32: a sign, 8 bits of exponent and 7 of the fraction.
    """
    bits = np.ascontiguousarray(x).view(np.uint32)
    nearest = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))  # half: to even
    nearest = np.where(np.isnan(x), bits | np.uint32(0x400000), nearest) & np.uint32(0xFFFF0000)
    is_denormal = (bits & np.uint32(0x7F800000)) == 0
    return np.where(is_denormal, bits & np.uint32(0x80000000), nearest).view(np.float32)


def operands(layer: Array, *arrays: Array) -> tuple[Array, ...]:
    """Return the operands of a layer's product as that takes them: rounded, or as they are."""
    return tuple(map(rounded, arrays)) if layer[layout.PRECISION] else arrays
