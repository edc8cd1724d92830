"""The guest moves to another QEMU with another backend, or is saved; its firmware state goes along."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei import Guest, Hold

pytestmark = [pytest.mark.sdei_needs("linux", "shell"), pytest.mark.sdei_options(smp=2)]


@pytest.mark.parametrize("route", ["shared", "copy", "live"])
def test_migration(guest: Guest, route: str) -> None:
    """Migrates; CPUs go off and come back there."""
    guest.migrate(route=route)
    assert guest.run("cd /sys/devices/system/cpu/cpu1; echo 0 >online && echo 1 >online", 60).status == 0
    assert guest.status()["epoch"] == 1


@pytest.mark.sdei_needs("client", config="CONFIG_ARM_SDE_INTERFACE")
def test_amid_a_handler(guest: Guest) -> None:
    """Migrates while a handler runs, which ends at the destination."""
    client = guest.sdei_client([0], verbose=0)
    client.run_for(1_000_000_000)
    guest.inject(0, 1)
    guest.migrate(hold=Hold("running", 0, 1))
    client.flush()
    client.run_for(0)
    assert client.count(event=0, cpu=1) == 1
    assert guest.inject(0, 1, wait=True, timeout=30).outcome == "completed"


def test_saved(guest: Guest, tmp_path: Path) -> None:
    """Is saved into a directory, and goes on from there."""
    guest.run("echo kept >/tmp/word")
    guest.save(tmp_path / "saved", end=True)
    with Guest.saved(tmp_path / "saved", trust=True) as again:
        assert again.run("cat /tmp/word").output == "kept\n"
