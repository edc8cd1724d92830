"""The `qemu-sdei` command's entry point, and `python -m qemu_sdei`.

Imports nothing at first, so that Ctrl-C while the modules are read ends the process without a word.
"""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Run the command line of this process. Returns the exit code."""
    # Until the command takes signals itself there is nothing to clean up. One that is ignored (nohup) stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from qemu_sdei.cli import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
