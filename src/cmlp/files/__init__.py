"""Tables in files: CSV, Parquet, Feather, and NumPy's own."""
