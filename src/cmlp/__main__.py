"""``python -m cmlp`` is the ``cmlp`` command."""

import sys

from cmlp.cli import main

if __name__ == "__main__":
    sys.exit(main())
