"""Timings of cmlp, as programs: ``python -m benchmarks.paths``."""
