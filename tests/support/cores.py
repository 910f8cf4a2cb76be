"""The cores that tests run on: those of this machine, or the one that CMLP_CORE forces."""

import os

from cmlp.core import dispatch

FORCED = os.environ.get("CMLP_CORE") or "auto"
CORES = tuple(dispatch._cores) if FORCED == "auto" else (FORCED,)
ENGINES = tuple(dict.fromkeys((CORES[0], CORES[-1])))
COMPILED = tuple(name for name in CORES if name != "python")
