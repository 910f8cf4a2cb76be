"""Models leave for other programs and libraries, and arrive from there."""
