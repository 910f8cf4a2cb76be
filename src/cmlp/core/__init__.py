"""Arithmetic and its words; knows no network."""
