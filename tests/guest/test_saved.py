"""A running guest in a directory, and back from it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from qemu_sdei.errors import GuestError, SdeiError, UsageError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from tests.guest.client import KO, Client, module_for
from tests.guest.guests import check_nothing_left, command, plain, storm_ended, until

pytestmark = pytest.mark.guest

STORM = GuestOptions(kernel="builtin:bench", append="mode=storm count=8000 smp=2 seed=3", memory="128M")


@pytest.mark.smoke
@pytest.mark.timeout(120)
def test_goes_on_and_is_restored_twice(runtime: Path, tmp_path: Path) -> None:
    """The guest that stayed and both that come back find every call answered once and every signal handled once. One
    of them has its RAM in QEMU's stream, the other one beside it.
    """
    with Guest(STORM) as guest:
        until("the storm is on", lambda: guest.status()["counts"]["calls"] > 1000)
        assert guest.save(tmp_path / "saved") > 100_000
        before = json.loads((tmp_path / "saved/state.json").read_text())["counters"]["delivered"]
        assert guest.power_off is None
        with pytest.raises(UsageError, match="File exists"):
            guest.save(tmp_path / "saved")
        guest.save(tmp_path / "apart", ram_apart=True)
        assert (tmp_path / "apart/vm.state").stat().st_size < (tmp_path / "saved/vm.state").stat().st_size
        storm_ended(guest)
        assert "storm: ok" in guest.console
    for name in ("saved", "apart"):
        with Guest.saved(tmp_path / name) as guest:
            assert guest.status()["counts"]["delivered"] >= before
            storm_ended(guest)
            assert re.search(r"^storm: ok calls=\d+ handled=[1-9]\d*$", guest.console, re.MULTILINE)
    with (tmp_path / "apart/ram.pages").open("r+b") as ram:  # it is read while QEMU and the backend start
        ram.truncate(ram.seek(-1, os.SEEK_END))
    with pytest.raises(UsageError, match=r"ram\.pages is damaged"), Guest.saved(tmp_path / "apart"):
        pass
    check_nothing_left(runtime)


@pytest.mark.timeout(60)
def test_no_room(runtime: Path, tmp_path: Path) -> None:
    """A disk that is full: the guest goes on, and nothing is left there."""
    with Guest(GuestOptions(kernel="builtin:bench", append="mode=idle", memory="128M")) as guest:
        guest.expect("idle: ready")
        full = tmp_path / "saved"
        with pytest.raises(GuestError, match="not saved and runs on"):
            guest.save(full, report=lambda step: _fill(full, step.phase))
        assert not full.exists()
        assert guest.inject(0, 1, wait=True, timeout=20).outcome == "completed"
    check_nothing_left(runtime)


def _fill(directory: Path, phase: str) -> None:
    """In place of a full disk: the stream's file is one that takes nothing."""
    if phase == "stop":
        (directory / "vm.part").symlink_to("/dev/full")


@pytest.mark.timeout(100)
def test_damaged(runtime: Path, tmp_path: Path) -> None:
    """A saved guest that is not whole, or not of one piece, is refused before anything is started."""
    with Guest(GuestOptions(kernel="builtin:bench", append="mode=idle", memory="64M")) as guest:
        guest.expect("idle: ready")
        guest.save(tmp_path / "saved")
        assert guest.inject(0, 1, wait=True, timeout=20).outcome == "completed"
        guest.save(tmp_path / "later", end=True)
        assert guest.wait_off(20).reason == "host-qmp-quit"
    tried = tmp_path / "tried"

    def refused(damage: Callable[[], object], why: str, *, trust: bool = False) -> None:
        shutil.rmtree(tried, ignore_errors=True)
        shutil.copytree(tmp_path / "saved", tried)
        damage()
        with pytest.raises(SdeiError, match=why) as error, Guest.saved(tried, trust=trust):
            pass
        assert len(str(error.value).splitlines()) == 1, "one clear line"
        check_nothing_left(runtime)

    def edit(name: str, before: str, after: str) -> None:
        text = (tried / name).read_text()
        assert before in text
        (tried / name).write_text(text.replace(before, after))

    def flip() -> None:
        data = bytearray((tried / "vm.state").read_bytes())
        data[300] ^= 1
        (tried / "vm.state").write_bytes(data)

    size = (tmp_path / "saved/vm.state").stat().st_size
    for length in (0, 300_000, size - 1):
        refused(lambda n=length: os.truncate(tried / "vm.state", n), "vm.state is damaged")  # type: ignore[misc]
    refused(flip, "vm.state is damaged")
    for name in ("vm.state", "state.json", "guest.json"):
        refused(lambda n=name: (tried / n).unlink(), "holds no saved guest")  # type: ignore[misc]
    for name in ("vm.state", "state.json"):
        later = tmp_path / "later" / name
        refused(lambda f=later: shutil.copy(f, tried / f.name), "damaged, or of another saved guest")  # type: ignore[misc]
    refused(lambda: os.truncate(tried / "state.json", 2000), "state.json is damaged")
    refused(lambda: os.truncate(tried / "saved.json", 10), "holds no saved guest")
    refused(lambda: edit("saved.json", '"smp": 2', '"smp": 4'), "of different ones")
    refused(lambda: edit("saved.json", '"smp": 2', '"smp": "2"'), "options are damaged: smp")
    refused(lambda: edit("saved.json", '"smp"', '"vcpus"'), "another version of this program")
    refused(lambda: edit("saved.json", '"version": 2', '"version": 4'), "another version of this program")
    refused(lambda: edit("saved.json", '"version": 2', '"version": 3'), "does not say what the files are")
    with pytest.raises(UsageError, match="holds no saved guest"):
        Guest.saved(tmp_path)

    def cut_and_summed(name: str, length: int) -> None:
        """Whoever changes a file can change its checksum: then QEMU and the backend find out."""
        os.truncate(tried / name, length)
        data = json.loads((tried / "saved.json").read_text())
        data["files"][name] = hashlib.sha256((tried / name).read_bytes()).hexdigest()
        (tried / "saved.json").write_text(json.dumps(data))

    refused(lambda: cut_and_summed("vm.state", 300_000), "QEMU does not take the saved guest: .", trust=True)
    refused(lambda: cut_and_summed("state.json", 2000), "state document: .*truncated", trust=True)


@pytest.mark.timeout(60)
def test_migrates_into_a_directory(runtime: Path, tmp_path: Path) -> None:
    """`qemu-sdei migrate --to-file` is `save --end`; a hold point is one for it too."""
    with Guest(GuestOptions(kernel="builtin:bench", append="mode=idle", memory="64M", name="a")) as guest:
        guest.expect("idle: ready")

        def said(*words: str, code: int) -> str:
            process = command(runtime, *words)
            output, errors = process.communicate(timeout=60)
            assert process.returncode == code, errors.decode()
            return (output + errors).decode()

        target = str(tmp_path / "there")
        assert "DEST is not known yet" in said("migrate", "a", "b", "--to-file", target, code=2)
        late = said("save", "a", target, "--hold", "running", "--timeout", "0.3", code=1)
        assert "was not reached within 0.3 s" in late
        assert "runs on" in late
        assert not (tmp_path / "there").exists()
        assert guest.inject(0, 1, wait=True, timeout=20).outcome == "completed"
        assert "guest 'a' is saved in" in said("migrate", "a", "--to-file", target, code=0)
        assert guest.wait_off(20).reason == "host-qmp-quit"
    with Guest.saved(target) as guest:
        assert guest.status()["counts"]["completed"] == 1
        assert guest.inject(0, 1, wait=True, timeout=20).outcome == "completed"
    check_nothing_left(runtime)


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
        assert plain(guest.run("cat /tmp/file").output) == "kept\n"
        assert guest.inject(0, 1, wait=True, timeout=20).outcome == "completed"
        assert Client(guest).count(1) == (1, 1)
        assert guest.poweroff().guest
