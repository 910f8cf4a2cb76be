"""Weights for Flax, which is not imported."""

from __future__ import annotations

from typing import Any

from cmlp.exchange.chains import chain_of
from cmlp.formats import layouts


def to_flax(model: Any) -> dict[str, dict[str, dict[str, Any]]]:
    """Return a network's weights as the variables of a Flax module of ``Dense`` layers.

    Parameters
    ----------
    model : Network, estimator, or Pipeline of scikit-learn
        One network of plain layers.

    Returns
    -------
    dict
        ``{"params": {"Dense_0": {"kernel": (n_in, n_out), "bias": (n_out,)}, ...}}`` of NumPy
        arrays; ``LayerNorm_0`` and so on have "scale" and "bias". No library is imported.

    Raises
    ------
    ConversionError
        Naming the part that has no place there.

    Notes
    -----
    The module is yours: ``nn.Dense`` layers with the network's activations. ``jax.nn.gelu`` is the
    tanh form by default, which differs by up to 5e-4: cmlp's is ``gelu(x, approximate=False)``.
    ``nn.LayerNorm`` has the epsilon 1e-6 by default: give ``epsilon=1e-5``, and
    ``nn.Dense(n, use_bias=False)`` in front of it. ``jax.nn.hard_sigmoid``, ``mish``, ``selu`` and
    ``leaky_relu`` are the same functions as here; 'leaky_relu:0.3' is ``leaky_relu(z, 0.3)``,
    'elu:0.5' is ``elu(z, 0.5)``.

    Examples
    --------
    >>> import cmlp
    >>> variables = cmlp.to_flax(cmlp.Network([4, 8, 3], seed=0))
    >>> variables["params"]["Dense_1"]["kernel"].shape
    (8, 3)
    """
    member = layouts.plain_member(chain_of(model), "Flax")
    return {"params": dict(layouts.named_layers(member, "flax"))}
