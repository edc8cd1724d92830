"""What signals do to a command, at moments that no user can choose."""

from __future__ import annotations

import subprocess
import sys

CALLBACK = """
import signal, time, weakref
from qemu_sdei.cli.signals import Terminated, catching_signals

class Thing:
    pass

try:
    with catching_signals():
        thing = Thing()
        watched = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
        del thing
        time.sleep(60)
except Terminated as end:
    print("ended by", end.number)
"""


def test_a_signal_amid_a_callback_of_python_s_own_is_not_lost() -> None:
    """Python drops the exception that is raised there: the command ran on, and no second signal could end it."""
    found = subprocess.run([sys.executable, "-c", CALLBACK], capture_output=True, text=True, timeout=50, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "ended by 2\n", "")
