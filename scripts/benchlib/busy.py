"""Work on every core, beside which something is measured: what a CI machine has, too."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def busy(wanted: bool) -> Iterator[int]:
    """While this lasts, each core has a process that wants it all: stress-ng where it is there. Gives how many; 0: it
    is not `wanted`.
    """
    count = (os.cpu_count() or 1) if wanted else 0
    stress = shutil.which("stress-ng")
    if stress is not None:
        command = [stress, "--cpu", "1", "--cpu-method", "int64", "--quiet"]
    else:
        command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield count
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
