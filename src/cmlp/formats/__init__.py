"""Networks as files: those of cmlp, and of other programs and libraries."""
