"""Parametric activations: a = z + alpha (f(z) - z), with one alpha per unit."""

from __future__ import annotations

from cmlp.core import layout


def _alpha(layer, flat):
    return layout.alpha_views(layer[None], flat)[0]


def bend(layer, params, z, a, slope):
    """Return a and da/dz with alpha, and da/dalpha = f - z, from f(z) and its slope."""
    alpha, difference = _alpha(layer, params), a - z
    return z + alpha * difference, 1 + alpha * (slope - 1), difference


def add_alpha_gradient(layer, grads, da, difference):
    """Add dC/dalpha of a layer, from dC/da and da/dalpha."""
    dalpha = _alpha(layer, grads)
    dalpha += (da * difference).sum(axis=0)
