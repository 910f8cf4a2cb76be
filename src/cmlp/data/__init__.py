"""Files, data frames and arrays become validated rows."""
