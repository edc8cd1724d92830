"""A kernel that dies: with panic=1 it reboots by our firmware, and events work again."""

from __future__ import annotations

import os

import pytest

from qemu_sdei.errors import GuestPanicError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import plain, until
from tests.guest.load import EventLoad

pytestmark = pytest.mark.guest

CPUS = 3


@pytest.mark.parametrize("cpu", [pytest.param(cpu, marks=pytest.mark.slow) for cpu in (0, 2)])
def test_a_panic_reboots_and_events_work_again(cpu: int) -> None:
    """The crash comes on one CPU, under events on all, one of them shared; the others are stopped where they are."""
    with Guest(GuestOptions(series="6.1", smp=CPUS, append="panic=1", client=True)) as guest:
        client = guest.sdei_client([0, 0x100, 0x200], verbose=0)
        with EventLoad(guest, (0, 0x100, 0x200), CPUS):
            guest.write(f"taskset {1 << cpu:x} sh -c 'echo c >/proc/sysrq-trigger'\r")
            until("the guest resets itself", lambda: guest.resets, 60)
        assert [(reset["guest"], reset["reason"]) for reset in guest.resets] == [(True, "guest-reset")]
        guest.wait_shell()
        assert "Kernel panic - not syncing: sysrq triggered crash" in guest.console
        status = guest.status()
        assert status["epoch"] == 2
        assert not any(i["registered"] for event in status["events"] for i in event["instances"])
        client.load([0, 0x100, 0x200])
        for event in (0, 0x100, 0x200):
            for target in range(CPUS):
                guest.inject(event, target, wait=True, timeout=30)
        assert [client.count(event=event) for event in (0, 0x100, 0x200)] == [CPUS] * 3
        assert guest.poweroff().guest


@pytest.mark.parametrize("panics", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_panic_is_not_the_end(panics: int, runtime: os.PathLike[str]) -> None:
    """`on_panic`: who crashes is told, and the next command runs in the next boot."""
    with Guest(GuestOptions(append="panic=1", on_panic="continue")) as guest:
        for epoch in range(1, panics + 1):
            with pytest.raises(GuestPanicError, match="sysrq triggered crash"):
                guest.run("echo c >/proc/sysrq-trigger")
            panic = guest.expect_panic()
            assert panic.message == "sysrq triggered crash"
            assert any("Call trace" in line for line in panic.lines)
            assert plain(guest.run("echo alive").output) == "alive\n"
            assert (guest.status()["epoch"], guest.status()["kernels"]) == (epoch + 1, 1)
        assert guest.poweroff().guest
