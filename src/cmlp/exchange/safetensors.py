"""Weights for other libraries, and from them, as safetensors files."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from cmlp.exchange.chains import chain_of
from cmlp.exchange.networks import finish
from cmlp.formats import layouts, safetensors
from cmlp.formats.chain import ConversionError
from cmlp.model.custom_loss import CustomLoss
from cmlp.network import Network


def to_safetensors(model: Any, path: safetensors.File, layout: str = "torch") -> None:
    """Write a network's weights for another library; the whole file or nothing.

    Parameters
    ----------
    model : Network, estimator, or Pipeline of scikit-learn
        One network of plain layers.
    path : str, path-like or binary file
        Written anew, or not at all.
    layout : {'torch', 'keras', 'flax'}
        'torch': ``0.weight`` (n_out, n_in), ``0.bias``, ``2.weight``, ... which
        ``safetensors.torch.load_model`` loads into the module of :func:`cmlp.to_torch`; 'keras':
        ``dense/kernel`` (n_in, n_out), ``dense/bias``, ``dense_1/kernel``, ...; 'flax':
        ``params.Dense_0.kernel``, ... The file has weights only: no activations, no labels.

    Raises
    ------
    ConversionError
        If there is more than layers, or `layout` is unknown.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import cmlp, io
    >>> cmlp.to_safetensors(cmlp.Network([4, 8, 3], seed=0), io.BytesIO())
    """
    arrays = layouts.arrays_of(chain_of(model), layout)
    safetensors.write(path, arrays, {"format": {"torch": "pt"}.get(layout, layout)})


def from_safetensors(
    path: safetensors.File,
    layout: str | None = None,
    *,
    activation: Any = None,
    out_activation: str | None = None,
    loss: str | CustomLoss | None = None,
    classes: ArrayLike | None = None,
    input_scale: float = 1.0,
) -> Network:
    """Return a network of the weights in a file of another library.

    Parameters
    ----------
    path : str, path-like or binary file
        The file to read.
    layout : {'torch', 'keras', 'flax'}, optional
        How the arrays are named and laid out, as :func:`cmlp.to_safetensors` describes it. Without
        it names and shapes decide; those of square layers do not.
    activation, out_activation, loss, classes, input_scale : optional
        As for :func:`cmlp.from_torch`.

    Returns
    -------
    Network

    Raises
    ------
    ConversionError
        Naming the first array that does not fit, or if the arrays do not tell what is needed.
    ModelFileError, OSError
        If the file is damaged or cannot be read.

    Examples
    --------
    >>> import cmlp, io
    >>> file = io.BytesIO()
    >>> cmlp.to_safetensors(cmlp.Network([4, 8, 3], seed=0), file)
    >>> _ = file.seek(0)
    >>> cmlp.from_safetensors(file, activation="relu", out_activation="softmax").sizes
    (4, 8, 3)
    """
    arrays, metadata = safetensors.read(path)
    if metadata.get("format", "").startswith("cmlp"):
        raise ConversionError("this is a file of cmlp's own: read it by cmlp.load")
    builder = layouts.read_arrays(arrays, layout, activation, metadata, ordered=False)
    return finish(builder, out_activation, loss, classes, input_scale)
