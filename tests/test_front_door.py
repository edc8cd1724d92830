"""The package's front door, as a notebook shows it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import qemu_sdei
from qemu_sdei import Guest, GuestOptions
from qemu_sdei.errors import UsageError


def test_completion_has_what_was_not_used_yet() -> None:
    code = "import sys, qemu_sdei; print('Guest' in dir(qemu_sdei), [m for m in sys.modules if 'qemu_sdei.' in m])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "True []\n"
    assert set(qemu_sdei.__all__) <= set(dir(qemu_sdei))


def test_a_guest_says_what_it_is() -> None:
    assert repr(Guest(GuestOptions(smp=1))) == "<Guest: not started, 1 vCPU>"


def test_a_notebook_shows_an_error_without_our_frames(tmp_path: Path) -> None:
    """IPython asks the exception for its lines."""
    with pytest.raises(UsageError) as error:
        exec(compile("Guest.saved(where)", "cell", "exec"), {"Guest": Guest, "where": tmp_path / "none\x1b[2J"})
    *frames, message = error.value._render_traceback_()
    assert frames[-1].startswith('  File "cell", line 1')
    assert "saved.py" not in "".join(frames)
    assert message.startswith("UsageError: ")
    assert "holds no saved guest" in message
    assert "\x1b" not in message
