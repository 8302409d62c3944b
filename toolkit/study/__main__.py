"""``python -m toolkit.study``: the same as ``toolkit study``."""

import sys

from toolkit.study.cli import main

if __name__ == "__main__":
    sys.exit(main(["study", *sys.argv[1:]]))
