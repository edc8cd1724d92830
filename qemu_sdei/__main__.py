"""`python -m qemu_sdei`: the same as the `qemu-sdei` command."""

import sys

from qemu_sdei.cli import main

if __name__ == "__main__":
    sys.exit(main())
