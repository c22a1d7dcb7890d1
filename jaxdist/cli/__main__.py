"""``python -m jaxdist.cli``: the command line."""

import sys

from jaxdist.cli import main

if __name__ == "__main__":
    sys.exit(main())
