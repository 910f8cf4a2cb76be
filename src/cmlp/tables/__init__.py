"""Tables as people have them become matrices: kinds of columns, levels, dates, gaps."""
