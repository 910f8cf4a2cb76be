"""Arithmetic and its words; imports nothing of cmlp above it.

    model.passes, training.trainer  allocate; call ``dispatch.core.<function>``
    ------------------------------------------------------------------------- the seam
    dispatch                        which core runs; once per process
        _core_avx512, _core_avx2, _core_baseline    ``_core.pyx`` with ``kernels`` and ``simd``
        reference                                   the same functions in NumPy, the textbook

A core offers the same functions, with the same parameters, whichever it is:

    predict, forward, evaluate      outputs; every layer's z and a; costs of the rows
    gradient, update, train_epoch   dC/dparameters; one step from them; one step per batch
    train_lanes                     the same of several networks, one in each lane of a vector
    Predictor                       predictions of few rows, with the preparations made once
    workspace_size                  scratch numbers that a call needs
    largest                         of an array: whether its numbers are finite
    activate, product, multiply_adds   parts alone, for tests and measurements

What crosses the seam, in the letters of both twins (n rows of X; i inputs and j outputs, or units,
of a layer; L layers):

    plan        (L, 10) int64       one row per layer, then of a ``front``: ``layout.make_plan``
    params      flat                W, (i, j), and b, (j,), of every layer, rows padded to 64 bytes
    grads       like params         dC/dparams
    state       (moments, params)   what a solver carries, then the mean of the parameters
    X           (n, i)              any real dtype and strides, or ``seam.SparseRows``
    targets     (n, j) or (n,)      numbers, or int64 labels
    weights     (n,) float64        of the rows; None: they count alike
    rows        int64               which rows, in order; None: all
    z, a, delta (n, units)          a record: layer l's units start at column ``plan[l, UNITS]``
    objective, optimizer, noise     ``seam.Objective``, ``seam.Optimizer``, ``seam.Noise``
    team        (16,) int64         where threads meet, and a caller stops a call: ``seam.places``
    workspace   flat                scratch, for anything in between

The words: ``vocabulary`` has the names and codes of activations, losses, solvers and initialisers,
``layout`` the places of numbers, ``seam`` what a call takes in addition to arrays.
"""
