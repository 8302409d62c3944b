"""``python -m toolkit``: the same as the console script ``toolkit``."""

import sys

from toolkit.study.cli import main

if __name__ == "__main__":
    sys.exit(main())
