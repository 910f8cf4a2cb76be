#!/usr/bin/env bash
# Runs every part of the core under valgrind, built in place, and fails if an error names a module of cmlp.
# valgrind knows no AVX-512: the AVX2 core runs, then the baseline. PYTHON=... chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for core in avx2 baseline; do
    PYTHONPATH=src:tests PYTHONMALLOC=malloc OPENBLAS_NUM_THREADS=1 valgrind --quiet --log-file="$log" \
        --num-callers=30 "${PYTHON:-python3}" tests/guarded.py "$core" quick
    errors=$(grep -c "cmlp/_c" "$log" || true)
    echo "$core: $errors lines of valgrind's report name a module of cmlp; $(grep -c "==$" "$log" || true) errors elsewhere"
    [ "$errors" = 0 ] || { cat "$log"; exit 1; }
done
