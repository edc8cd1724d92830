"""The package's front door, as a notebook shows it."""

from __future__ import annotations

import subprocess
import sys

import qemu_sdei
from qemu_sdei import Guest, GuestOptions


def test_completion_has_what_was_not_used_yet() -> None:
    code = "import sys, qemu_sdei; print('Guest' in dir(qemu_sdei), [m for m in sys.modules if 'qemu_sdei.' in m])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "True []\n"
    assert set(qemu_sdei.__all__) <= set(dir(qemu_sdei))


def test_a_guest_says_what_it_is() -> None:
    assert repr(Guest(GuestOptions(smp=1))) == "<Guest: not started, 1 vCPU>"
