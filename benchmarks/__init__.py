"""Timings of cmlp, as programs: ``python -m benchmarks.training --quick``, in a clone's root.

- ``training``: a training step against scikit-learn, PyTorch, torch.compile and JAX
- ``inference``: a prediction against NumPy, ONNX Runtime, JAX, PyTorch, scikit-learn; its memory
- ``tables``: tables of pandas, polars, Arrow and NumPy to a matrix: time, memory, one row
- ``fit``: a whole fit of MNIST against the step alone; accuracy, memory
- ``estimators``: MLPClassifier and MLPRegressor against scikit-learn's: scores, fits, grid search
- ``paths``: every core of this machine against the NumPy path
- ``variants``: Adam, float64, other activations, threads and cores against the plain step
- ``scaling``: a step over rows, width, depth, batch and threads
- ``kernels``: products against the peak; functions, with their errors; the threads' barrier

All take ``--seconds``, ``--quick``, ``--json FILE``, ``--chart FILE``; ``--help`` describes
them. Other libraries take part if they are installed: ``pip install '.[bench]'``.
"""
