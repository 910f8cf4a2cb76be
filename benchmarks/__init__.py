"""Timings of cmlp, as programs: ``python -m benchmarks.training --quick``, in a clone's root.

- ``training``: a training step beside scikit-learn, PyTorch, torch.compile and JAX
- ``inference``: a prediction beside NumPy, ONNX Runtime, JAX, PyTorch and scikit-learn; its memory
- ``fit``: a whole fit of MNIST beside the bare step; accuracy, memory
- ``estimators``: MLPClassifier and MLPRegressor beside scikit-learn's: scores, fits, grid search
- ``paths``: every core of this machine beside the NumPy path
- ``variants``: Adam, float64, other activations, threads and cores beside the plain step
- ``scaling``: a step over rows, width, depth, batch and threads
- ``kernels``: products beside the peak; functions, with their errors; the threads' barrier

All take ``--seconds``, ``--quick``, ``--json FILE``, ``--chart FILE``, and say more with
``--help``. Other libraries take part if they are installed: ``pip install '.[bench]'``.
"""
