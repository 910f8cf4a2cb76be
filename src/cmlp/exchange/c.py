"""A model as C source: :func:`to_c`."""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from numpy.typing import ArrayLike

from cmlp.exchange.chains import chain_of
from cmlp.formats.c.source import write_c
from cmlp.formats.chain import ConversionError
from cmlp.formats.whole_file import write_files

WEIGHTS = {"float32": False, "int8": True}


def to_c(
    model: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    header: bool = False,
    weights: str = "float32",
    raw: bool = False,
    X: ArrayLike | None = None,
    stack_limit: int = 2048,
) -> str | None:
    """Write a model as a file of C99 that is C++98, too: no heap, no state, no library but math.

    With ``name="digits"`` the file defines ``digits_outputs(x, y, scratch)``, which fills y with
    what `predict_proba` (classifiers) or `predict` (else) returns; of classifiers with one label a
    row ``digits_class(x, scratch)``, the index of the class in ``digits_class_names`` (or
    ``digits_class_values``, if the labels are whole numbers of 32 bits), and with one output
    ``digits_probabilities(x, p, scratch)`` for both classes; and ``digits_predict(x, y)``, which
    has its scratch of ``DIGITS_SCRATCH`` floats on the stack. Compiled with ``-DDIGITS_SELFTEST``
    the file is a program that returns 0 if its outputs are right.

    Parameters
    ----------
    model : Network, estimator, ensemble, tabular estimator, or Pipeline of scikit-learn
        A pipeline of scalers that ends in one of the others. A tabular model computes from encoded
        rows, ``model.encoder_.transform(X)``, on.
    path : str or path-like, optional
        A name that ends in ``.h`` makes all functions static: that file alone is included.
    name : str, optional
        First part of every identifier; the name of the file without its suffix if there is a path,
        else ``model``.
    header : bool, default=False
        Write the declarations to a second file, ``.h`` in place of ``.c``; without a path, return
        the text of a header whose functions are static.
    weights : {'float32', 'int8'}, default='float32'
        With ``'int8'`` a quarter of the flash: whole numbers from -127 to 127 and a factor for each
        unit; sums stay float32.
    raw : bool, default=False
        Leave the last activation out.
    X : array_like, (n, n_inputs), optional
        Rows for the self-test, and for the deviation from float64 in the file's first comment;
        drawn without it.
    stack_limit : int, default=2048
        Bytes of scratch above which there is no ``digits_predict``.

    Returns
    -------
    str or None
        The text, if there is no path. It depends on the model and the arguments only.

    Raises
    ------
    ConversionError
        If a part of the model, a label or the name has no place in C; the message names it.
    OSError
        If a file cannot be written.

    Warns
    -----
    UserWarning
        If the model has more than a million weights.

    Notes
    -----
    `predict` refuses NaN and infinity; C functions compute with them.

    Examples
    --------
    >>> import cmlp
    >>> text = cmlp.to_c(cmlp.Network([4, 8, 3], out_activation="softmax", seed=0), name="iris")
    >>> "void iris_outputs(const float *x, float *y, float *scratch);" in text
    True
    """

    if weights not in WEIGHTS:
        raise ConversionError(
            f"weights={weights!r}: expected one of {', '.join(map(repr, WEIGHTS))}"
        )
    target = None if path is None else os.fsdecode(path)
    static = header if target is None else target.endswith(".h")
    if name is None:
        name = "model" if target is None else re.sub(r"\.[^.]*$", "", os.path.basename(target))
    text = write_c(
        chain_of(model), name, static=static, int8=WEIGHTS[weights], raw=raw, X=X,
        stack_limit=stack_limit, version=sys.modules["cmlp"].__version__,
    )  # fmt: skip
    if target is None:
        return text.source
    texts = {target: text.source}
    if header and not static:
        texts[os.path.splitext(target)[0] + ".h"] = text.header
    write_files({file: content.encode() for file, content in texts.items()})
    return None
