"""A page of a Linux guest's RAM goes bad at the host: the kernel in the guest takes it out of use."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import until, unused_page

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux", "runtime")]

ROOT = Path(__file__).parents[2]
SIGNALLED, ASKED, ASKED_AGAIN = map(unused_page, range(3))
SERVICE = f"""
import re, signal, sys
from pathlib import Path

from qemu_sdei.smccc.service import Call, FunctionRange, Service

sys.path.insert(0, {str(ROOT)!r})


class Quiet(Service):
    name = "quiet"
    ranges = (FunctionRange(3, 0, 0),)

    def call(self, call: Call) -> int:
        return 0


def go_bad(*_: object) -> None:
    from tests.backend.memory_error_signal import tell

    (ram,) = re.findall(r"^([0-9a-f]+)-.*memfd:.*ram.*$", Path("/proc/self/maps").read_text(), re.M)[:1]
    tell(int(ram, 16) + {SIGNALLED - 0x4000_0000:#x})


signal.signal(signal.SIGUSR1, go_bad)
"""
"""Its backend tells itself what the host's kernel would tell it, when it gets a SIGUSR1."""


@pytest.mark.timeout(200)
def test_the_guest_takes_the_page_out_of_use(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    with Guest(GuestOptions(series="6.12", ras=True, smp=2, services=(tmp_path / "service.py",))) as guest:
        guest.wait_shell()
        guest.run("dmesg -n 1")

        def corrupted() -> int:
            return int(guest.run("grep HardwareCorrupted /proc/meminfo").output.split()[1])

        with guest.client() as control:
            assert control.memory_error(ASKED)["source"] == "ghes"
            until("the page that was asked for", lambda: corrupted() == 4)
            assert guest.backend_pid is not None
            os.kill(guest.backend_pid, signal.SIGUSR1)
            until("the page that the signal was of", lambda: corrupted() == 8)
            log = guest.run("dmesg").output
            for page in (SIGNALLED, ASKED):
                assert f"Memory failure: {page >> 12:#x}: recovery action for" in log
            with pytest.raises(UsageError, match="frame window"):
                control.memory_error(0x8000_0000 - 4096)
            # What was told by a signal may come again, and so may a backend that is killed.
            starts = guest.backend_starts
            os.kill(guest.backend_pid, signal.SIGKILL)
            until("another backend", lambda: guest.backend_starts > starts)
            assert control.memory_error(ASKED_AGAIN)["outcome"] == "queued"
            until("a page of the next backend's", lambda: corrupted() == 12)
