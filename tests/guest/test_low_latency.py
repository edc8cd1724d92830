"""`--low-latency`: the host's cores are kept awake for as long as the guest is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qemu_sdei import idle_states
from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import until

pytestmark = pytest.mark.guest


@pytest.mark.skipif(idle_states.why_not() is not None, reason="this host does not let us keep its cores awake")
def test_the_backend_holds_them_and_its_successor_too() -> None:
    with Guest(
        GuestOptions(kernel="builtin:bench", append="mode=idle smp=1", smp=1, memory="64M", low_latency=True)
    ) as guest:
        guest.expect("idle: ready")
        first = guest.backend_pid
        assert first is not None
        assert _holds(first)
        os.kill(first, 9)
        until("another backend is there", lambda: guest.backend_pid not in (None, first))
        until("it holds them", lambda: _holds(guest.backend_pid or first))


def _holds(pid: int) -> bool:
    try:
        return any(fd.readlink() == idle_states.LATENCY for fd in Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:
        return False
