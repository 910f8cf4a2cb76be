"""Models to ONNX and back: what ONNX Runtime, tract, OpenVINO and browsers run."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from cmlp.core.checks import check_integer
from cmlp.exchange.chains import chain_of, raw_rows
from cmlp.exchange.ensembles import ensemble_of
from cmlp.exchange.networks import network_of
from cmlp.formats.chain import ConversionError
from cmlp.formats.onnx import graph, messages, reader, writer
from cmlp.formats.raw_rows import RawRows
from cmlp.formats.whole_file import write_files

Path = str | os.PathLike[str]


def to_onnx(
    model: Any,
    path: Path | None = None,
    *,
    dtype: str = "float32",
    input_dtype: str | None = None,
    input_name: str = "X",
    output_names: Sequence[str] | None = None,
    labels: bool = True,
    raw: bool = False,
    zipmap: bool = False,
    opset: int = 13,
    batch: int | None = None,
    columns: bool = False,
) -> bytes | None:
    """Convert a model to ONNX, without the package of that name.

    The graph has operators of ``ai.onnx`` only, apart from `zipmap` and `columns`. Its input is X,
    (N, n_features); its outputs are

    - of a classifier ``label``, (N,), of the labels' own kind (whole numbers and truth values are
      int64, text is text, floats are double), and ``probabilities``, (N, n_classes), two for two
      classes;
    - of several labels per row ``label``, (N, n_labels) of int64, and ``probabilities``;
    - of a regressor, and a network without labels, ``variable``, (N, n_outputs).

    Parameters
    ----------
    model : Network, estimator, or Pipeline of scikit-learn
        A pipeline of scalers that ends in one of the others. The graph of a tabular estimator
        takes encoded rows, ``model.encoder_.transform(X)``, or with `columns` raw ones.
    path : str or path-like, optional
        Of the file, which is written whole or not at all.
    dtype : {'float32', 'float64'}
        Of the arithmetic. ONNX Runtime and `onnx.reference` run both; others need 'float32'.
    input_dtype : {'float32', 'float64', 'uint8', 'int64'}, optional
        Of X; by default that of the arithmetic. With `columns` one of the first two, of columns
        that are numbers; by default 'float64'.
    input_name : str
        What the model calls its input.
    output_names : sequence of str, optional
        Instead of the names above, in that order.
    labels : bool
        Whether a classifier's graph has the output ``label``.
    raw : bool
        Whether the only output is ``scores``, the sums before the last activation.
    zipmap : bool
        Whether the probabilities are a map from labels to numbers per row, as sklearn-onnx has them
        by default: an operator of ``ai.onnx.ml``, which some runtimes do not have. The outputs are
        ``output_label`` and ``output_probability`` then.
    opset : int
        Version of the operators, 13 to 24; the file's own version is the least that has it.
    batch : int, optional
        A fixed number of rows, for tools that need one.
    columns : bool
        Whether the graph of a tabular estimator has an input per column of the table that the
        model uses, (N, 1), by its name. Numbers, truth values that are numbers and categories of
        whole or other numbers are numbers there, with NaN for a missing one; dates and durations
        are seconds (dates: since 1970, of UTC if they have a zone); other categories are text,
        with "" for a missing one, and need ``LabelEncoder`` of ``ai.onnx.ml``. Numbers are encoded
        in float64, as `predict` does.

    Returns
    -------
    bytes or None
        The file's content, if there is no path.

    Raises
    ------
    ConversionError
        If a part of the model has no form in ONNX, or options do not suit it.
    OSError
        If the file cannot be written.

    Notes
    -----
    Batch normalisation and factors are in the weights; the mean of a scaler is subtracted, and not
    folded, which would cost float32 its digits. `predict` refuses NaN and infinity, the graph
    computes with them. The same model gives the same bytes.

    Examples
    --------
    >>> import cmlp
    >>> net = cmlp.Network([2, 8, 1], "tanh", loss="binary_crossentropy", seed=0)
    >>> content = cmlp.to_onnx(net)
    >>> cmlp.from_onnx(content).sizes
    (2, 8, 1)
    """
    if dtype not in ("float32", "float64"):
        raise ConversionError(f"dtype must be 'float32' or 'float64', not {dtype!r}")
    raw_of_columns = _columns(model, input_name, input_dtype) if columns else None
    given = ("float64" if columns else dtype) if input_dtype is None else input_dtype
    if given not in messages.CODES:
        raise ConversionError(
            f"input_dtype must be one of {', '.join(messages.CODES)}, not {input_dtype!r}"
        )
    if isinstance(output_names, str):
        output_names = (output_names,)
    options = graph.Options(
        dtype,
        given,
        _encodable(input_name),
        None if output_names is None else tuple(map(_encodable, output_names)),
        bool(labels),
        bool(raw),
        bool(zipmap),
        check_integer("opset", opset, 1),
        None if batch is None else check_integer("batch", batch, 0),
        sys.modules["cmlp"].__version__,  # of the package that this file is in
    )
    content = writer.write(chain_of(model), options, raw_of_columns)
    if path is None:
        return content
    write_files({path: content})
    return None


def _columns(model: Any, input_name: str, input_dtype: str | None) -> RawRows:
    """Return how a tabular model encodes its columns, which are the inputs."""
    chain_of(model)  # raises if it is not fitted
    raw = raw_rows(model)
    if raw is None:
        raise ConversionError(
            f"columns=True is for TabularClassifier and TabularRegressor; {type(model).__name__} "
            "takes rows of numbers"
        )
    if input_name != "X" or input_dtype not in (None, "float32", "float64"):
        raise ConversionError(
            "columns=True: inputs have the names of columns, which are text, float32 or float64; "
            "leave input_name out"
        )
    return raw


def _encodable(name: str) -> str:
    """Return a name that ONNX can hold."""
    try:
        str(name).encode()
    except UnicodeEncodeError as error:
        raise ConversionError(f"the name {name!r} cannot be encoded: {error.reason}") from error
    return str(name)


def from_onnx(source: Path | bytes, *, loss: str | None = None) -> Any:
    """Read a network from an ONNX file, without the package of that name.

    The graph has one input of rows, and layers one after the other: Gemm, MatMul and Add, batch and
    layer normalisation, scalers, and the activations that cmlp has, as one operator or composed of
    others, as PyTorch, Keras, scikit-learn's converter and :func:`to_onnx` write them. Labels that
    the graph ends in become the network's `classes`.

    Parameters
    ----------
    source : str, path-like or bytes
        A file, or its content.
    loss : str, optional
        What training continues with. By default it belongs to the activation of the outputs:
        categorical cross-entropy to softmax, binary to logistic, poisson to exp, else the squared
        error.

    Returns
    -------
    Network, MLPClassifier or MLPRegressor
        A network, with the numbers of the file, bit for bit, where nothing was folded into them; of
        a graph that takes the mean of several networks an estimator that has them in `estimators_`.

    Raises
    ------
    ConversionError
        If the file is damaged, or has a part that cmlp does not have; the message names the first.
        External data is never opened.
    OSError
        If the file cannot be read.

    Notes
    -----
    LogSoftmax at the end is read as softmax, and so are scores that the graph takes the largest of.
    LeakyRelu with 0.3 is 'leaky_relu:0.3'; PRelu, and slopes below 0, become 'relu' with alphas. A
    scaler's means go into the first biases, of a network in float64 where float32 would lose
    digits.

    Examples
    --------
    >>> import cmlp
    >>> net = cmlp.Network([4, 8, 3], "silu", loss="cross_entropy", seed=0)
    >>> again = cmlp.from_onnx(cmlp.to_onnx(net))
    >>> bool((again.params == net.params).all())
    True
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        content = bytes(source)
    else:
        with open(os.fspath(source), "rb") as file:  # and not a number: a file that is open
            if os.fstat(file.fileno()).st_size > messages.MAX_BYTES:
                raise ConversionError(f"{os.fspath(source)!r} has more than 2 GB")
            content = file.read()
    chain = reader.read(content)
    return network_of(chain, loss) if len(chain.members) == 1 else ensemble_of(chain, loss)
