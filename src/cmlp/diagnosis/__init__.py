"""Diagnosis: what is wrong with a training, in plain words."""
