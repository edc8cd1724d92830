"""A running guest in a directory, and back from it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from qemu_sdei.errors import GuestError, SdeiError, UsageError
from qemu_sdei.machine.guest import Guest
from qemu_sdei.machine.options import GuestOptions
from tests.guest.client import KO, Client, module_for
from tests.guest.guests import check_nothing_left, command, until

pytestmark = pytest.mark.guest

STORM = GuestOptions(kernel="builtin:bench", append="mode=storm count=8000 smp=2 seed=3", memory="128M")


@pytest.mark.timeout(120)
def test_goes_on_and_is_restored_twice(runtime: Path, tmp_path: Path) -> None:
    """The guest that stayed and both that come back find every call answered once and every signal handled once."""
    with Guest(STORM) as guest:
        until("the storm is on", lambda: guest.status()["counts"]["calls"] > 1000)
        assert guest.save(tmp_path / "saved") > 100_000
        before = json.loads((tmp_path / "saved/state.json").read_text())["counters"]["delivered"]
        assert guest.power_off is None
        with pytest.raises(UsageError, match="File exists"):
            guest.save(tmp_path / "saved")
        guest.wait_off(60)
        assert "storm: ok" in guest.console
    for _ in range(2):
        with Guest.saved(tmp_path / "saved") as guest:
            assert guest.status()["counts"]["delivered"] >= before
            guest.wait_off(60)
            assert re.search(r"^storm: ok calls=\d+ handled=[1-9]\d*$", guest.console, re.MULTILINE)
    check_nothing_left(runtime)


@pytest.mark.timeout(60)
def test_no_room(runtime: Path, tmp_path: Path) -> None:
    """A disk that is full: the guest goes on, and nothing is left there."""
    with Guest(GuestOptions(kernel="builtin:bench", append="mode=idle", memory="128M")) as guest:
        guest.expect("idle: ready")
        full = tmp_path / "saved"
        with pytest.raises(GuestError, match="not saved and goes on"):
            guest.save(full, report=lambda step: _fill(full, step.phase))
        assert not full.exists()
        assert guest.inject(0, 1, wait=True, timeout=20).outcome == "completed"
    check_nothing_left(runtime)


def _fill(directory: Path, phase: str) -> None:
    """In place of a full disk: the stream's file is one that takes nothing."""
    if phase == "stop":
        (directory / "vm.part").symlink_to("/dev/full")


@pytest.mark.timeout(60)
def test_damaged(runtime: Path, tmp_path: Path) -> None:
    """A saved guest that is not whole is refused before it runs, and nothing is left."""
    with Guest(GuestOptions(kernel="builtin:bench", append="mode=idle", memory="128M")) as guest:
        guest.expect("idle: ready")
        guest.save(tmp_path / "saved", end=True)
        assert guest.wait_off(20).reason == "host-qmp-quit"
    for name, size in (("vm.state", 300_000), ("state.json", 2000), ("saved.json", 10)):
        shutil.copytree(tmp_path / "saved", tmp_path / name)
        with (tmp_path / name / name).open("r+b") as file:
            file.truncate(size)
        with pytest.raises(SdeiError), Guest.saved(tmp_path / name):
            pass
        check_nothing_left(runtime)
    with pytest.raises(UsageError, match="holds no saved guest"):
        Guest.saved(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_linux(linux: Path, tmp_path: Path, runtime: Path) -> None:
    """Its shell, its registered events and its other CPU are there; by the commands too."""
    with Guest(GuestOptions(series="6.1", smp=2, files={KO: module_for("6.1")}, name="a")) as guest:
        Client(guest).load("verbose=0")
        guest.run("echo kept >/tmp/file")
        saving = command(runtime, "save", "a", str(tmp_path / "saved"), "--end", "--json")
        assert json.loads(saving.communicate(timeout=100)[0])["bytes"] > 1 << 20
        assert guest.wait_off(20).reason == "host-qmp-quit"
    with Guest.saved(tmp_path / "saved", name="b") as guest:
        assert guest.run("cat /tmp/file").output == "kept\n"
        assert guest.inject(0, 1, wait=True, timeout=20).outcome == "completed"
        assert Client(guest).count(1) == (1, 1)
        assert guest.poweroff().guest
