"""Sources of rows for trainings on data larger than memory: see :mod:`cmlp.data`."""
