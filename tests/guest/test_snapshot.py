"""Snapshots of a running guest in a qcow2 image: it goes on, and can be taken back there; or nothing has happened.

The judges are the guest (`mode=storm` of the bench guest checks each result against its own model) and the counts.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.backend.control.kvm_regs import REGISTERS
from qemu_sdei.errors import GuestError, NotDeliveredError, UsageError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.migration.options import Step
from qemu_sdei.vm import qcow2
from qemu_sdei.vm.options import GuestOptions
from tests.guest.client import KO, Client, module_for
from tests.guest.guests import check_nothing_left, command, plain, storm_ended, until
from tests.guest.load import EventLoad, at_rest

pytestmark = pytest.mark.guest

LIMIT = 20.0
ONLINE = "/sys/devices/system/cpu/cpu1/online"
PE_STATE = next(register.id for register in REGISTERS if register.name == "SDEI_PE_STATE")


def idle(image: Path | None, **more: Any) -> GuestOptions:
    """A guest that handles event 0 on both CPUs and does nothing else."""
    return GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="64M", snapshots=image, **more)


def handled(guest: Guest, vcpu: int = 1) -> bool:
    return guest.inject(0, vcpu, wait=True, timeout=LIMIT).outcome == "completed"


def completed(guest: Guest) -> int:
    count: int = guest.status()["counts"]["completed"]
    return count


@pytest.mark.timeout(100)
def test_back_in_a_storm_of_calls(runtime: Path, tmp_path: Path) -> None:
    """Loaded twice, elsewhere too, each call is answered once and each signal handled once."""
    options = GuestOptions(
        kernel="builtin:bench",
        append="mode=storm count=30000 smp=2 seed=9",
        memory="64M",
        snapshots=tmp_path / "a.qcow2",
    )
    with Guest(options) as guest:
        until("the storm is on", lambda: guest.status()["counts"]["calls"] > 1000)
        guest.snapshot("storm")
        then = guest.status()["counts"]["calls"]
        until("it goes on", lambda: guest.status()["counts"]["calls"] > then)
        guest.load_snapshot("storm")
        guest.migrate("moved")
        guest.load_snapshot("storm")
        assert storm_ended(guest).guest
        assert re.search(r"^storm: ok calls=\d+ handled=[1-9]\d*$", guest.console, re.MULTILINE), guest.console
    check_nothing_left(runtime)


@pytest.mark.timeout(100)
def test_events_belong_to_one_side_of_it(runtime: Path, tmp_path: Path) -> None:
    """What was accepted before is delivered once after each load; what came later never was."""
    with Guest(idle(tmp_path / "a.qcow2")) as guest:
        guest.expect("idle: ready")
        with EventLoad(guest, (0,), 2) as load:
            until("events come", lambda: load.delivered > 20)
            first = guest.snapshot("busy")
            until("more come", lambda: completed(guest) > 100)
        until("all are delivered", lambda: completed(guest) == load.delivered)
        with guest.client() as client:
            client.registers(1, {PE_STATE: [1]})  # masked
            assert guest.inject(0, 1).outcome == "queued"
            guest.snapshot("pending")
            for _ in range(2):
                before = completed(guest)
                assert guest.inject(0, 1).outcome == "merged", "it is pending: once"
                client.registers(1, {PE_STATE: [0]})
                until("it is delivered", lambda before=before: completed(guest) == before + 1)
                assert handled(guest)
                guest.load_snapshot("pending")
                assert completed(guest) == before
        guest.load_snapshot("busy")
        assert 20 <= completed(guest) <= 100
        assert [snapshot.tag for snapshot in guest.snapshots()] == ["busy", "pending"]
        assert guest.snapshots()[0] == first
        at_rest(guest)
        assert handled(guest, 0)
        counts = at_rest(guest)
        assert counts["delivered"] == counts["completed"]
        assert counts["rejected"] == 0
        guest.reset()
        guest.expect("idle: ready")
        assert handled(guest)
        guest.delete_snapshot("busy")
        assert [snapshot.tag for snapshot in guest.snapshots()] == ["pending"]
    check_nothing_left(runtime)


def _other_events(directory: Path) -> Path:
    file = directory / "events.toml"
    file.write_text('[[event]]\nnumber = 0\nname = "other"\nsignalable = true\ntype = "private"\npriority = "normal"\n')
    return file


def _pending(guest: Guest) -> bool:
    return any(instance["pending"] for event in guest.status()["events"] for instance in event["instances"])


@pytest.mark.timeout(100)
def test_another_run_goes_on_with_it(runtime: Path, tmp_path: Path) -> None:
    """The image holds all of the guest. One of another machine does not take it, and goes on as it was."""
    image = tmp_path / "a.qcow2"
    with Guest(idle(image)) as guest:
        guest.expect("idle: ready")
        assert all(handled(guest) for _ in range(5))
        guest.snapshot("five")
        guest.qmp("human-monitor-command", command_line="savevm foreign")
    assert image.stat().st_mode & 0o777 == 0o600
    with Guest(idle(image)) as guest:
        guest.expect("idle: ready")
        guest.load_snapshot("five")
        assert completed(guest) == 5
        assert handled(guest)
        with pytest.raises(GuestError, match=r"runs on as it was: .*no state document"):
            guest.load_snapshot("foreign")
        assert completed(guest) == 6
        assert handled(guest)
        with pytest.raises(UsageError, match="no snapshot 'six'; it has five, foreign"):
            guest.load_snapshot("six")
        with pytest.raises(UsageError, match="'five' already"):
            guest.snapshot("five")
    for other in ({"sdei_vendor": 1}, {"smp": 4}, {"memory": "96M"}, {"events": _other_events(tmp_path)}):
        with Guest(GuestOptions(**{**vars(idle(image)), **other})) as guest:
            guest.expect("idle: ready")
            assert handled(guest)
            with pytest.raises(GuestError, match=r"runs on as it was: .*(QEMU's snapshot-load|state document|profile)"):
                guest.load_snapshot("five")
            assert completed(guest) == 1
            assert handled(guest)
            assert "qemu-sdei-undo" not in json.dumps(guest.qmp("query-block"))
    check_nothing_left(runtime)


@pytest.mark.timeout(100)
def test_the_backend_dies_while_it_is_loaded(runtime: Path, tmp_path: Path) -> None:
    """The guest runs on as it was, with another backend; and can be loaded the next time."""
    with Guest(idle(tmp_path / "a.qcow2")) as guest:
        guest.expect("idle: ready")
        guest.snapshot("early")
        assert all(handled(guest) for _ in range(3))

        def kill(step: Step) -> None:
            if step.phase == "load":
                assert guest.backend_pid is not None
                os.kill(guest.backend_pid, signal.SIGKILL)

        with pytest.raises(GuestError, match="runs on as it was"):
            guest.load_snapshot("early", report=kill)
        assert guest.backend_starts == 2
        assert completed(guest) == 3
        assert handled(guest)
        guest.load_snapshot("early")
        assert completed(guest) == 0
        assert handled(guest)
    check_nothing_left(runtime)


@pytest.mark.timeout(60)
def test_no_room_in_the_image(runtime: Path, tmp_path: Path) -> None:
    """A disk that is full: the guest goes on, and the image has no more snapshots than before."""
    qcow2.create(tmp_path / "a.qcow2")
    full = (
        "if=none,id=snapshots,driver=qcow2,file.driver=blkdebug,file.image.driver=file,"
        f"file.image.filename={tmp_path / 'a.qcow2'},"
        "file.inject-error.0.event=write_aio,file.inject-error.0.errno=28"
    )
    with Guest(idle(None, qemu_args=("-drive", full))) as guest:
        guest.expect("idle: ready")
        with pytest.raises(
            GuestError, match=r"no snapshot was saved, and the guest runs on as it was: QEMU's snapshot-save: \w+"
        ):
            guest.snapshot("a")
        assert guest.snapshots() == []
        assert handled(guest)
    check_nothing_left(runtime)


@pytest.mark.timeout(60)
def test_who_waits_for_an_event_is_told(tmp_path: Path) -> None:
    """An event that is waited for belongs to what is forgotten."""
    with Guest(idle(tmp_path / "a.qcow2")) as guest, guest.client() as client, guest.client() as waiting:
        guest.expect("idle: ready")
        guest.snapshot("a")
        client.registers(1, {PE_STATE: [1]})
        said: list[str] = []

        def wait() -> None:
            try:
                waiting.inject(0, 1, wait=True, timeout=LIMIT)
            except NotDeliveredError as error:
                said.append(str(error))

        thread = threading.Thread(target=wait)
        thread.start()
        until("it is pending", lambda: _pending(guest))
        guest.load_snapshot("a")
        thread.join(LIMIT)
        assert said == ["event 0x0: the guest was taken to a snapshot, where nobody has asked for it"]
        assert not _pending(guest)
        assert handled(guest)


@pytest.mark.timeout(60)
def test_disks(tmp_path: Path) -> None:
    """A qcow2 disk holds snapshots by itself; a raw one that can be written to cannot be in one, and is named."""
    qcow2.create(tmp_path / "disk.qcow2")
    (tmp_path / "raw.img").write_bytes(bytes(1 << 16))
    raw = str(tmp_path / "raw.img")
    with Guest(idle(None, drives=(str(tmp_path / "disk.qcow2"), raw + ",readonly=on"))) as guest:
        guest.expect("idle: ready")
        guest.snapshot("a")
        guest.load_snapshot("a")
        assert handled(guest)
    with Guest(idle(tmp_path / "b.qcow2", drives=(raw,))) as guest:
        guest.expect("idle: ready")
        with pytest.raises(UsageError, match=r"raw.img is raw, and only .*snapshot=on or FILE,readonly=on"):
            guest.snapshot("a")
        assert handled(guest)
    with Guest(idle(None)) as guest:
        with pytest.raises(UsageError, match="no place for a snapshot: start it with --snapshots FILE"):
            guest.snapshots()
        with pytest.raises(UsageError, match="cannot be used"):
            guest.snapshot("../a")
    with pytest.raises(UsageError, match="is not a qcow2 image"):
        Guest(idle(tmp_path / "raw.img")).start()


@pytest.mark.timeout(60)
def test_command(runtime: Path, tmp_path: Path) -> None:
    """`qemu-sdei snapshot`, for a guest that another terminal runs."""
    with Guest(idle(tmp_path / "a.qcow2", name="a")) as guest:
        guest.expect("idle: ready")

        def said(*words: str, code: int = 0) -> str:
            process = command(runtime, "snapshot", "a", *words)
            output, errors = process.communicate(timeout=60)
            assert process.returncode == code, errors.decode()
            assert b"Traceback" not in errors
            return (output if code == 0 else errors).decode()

        assert said("list") == "no snapshots\n"
        assert handled(guest)
        assert json.loads(said("save", "one", "--json"))["snapshot"]["bytes"] > 100_000
        assert "'one' already" in said("save", "one", code=2)
        assert handled(guest)
        assert "is back at snapshot 'one'" in said("load", "one")
        assert completed(guest) == 1
        assert re.search(r"^one +20\d\d-.* MiB +\d+\.\d s$", said("list"), re.MULTILINE)
        said("delete", "one")
        assert "no snapshot 'one'; it has none" in said("load", "one", code=2)
        assert "takes a TAG" in said("save", code=2)
        assert "takes no TAG" in said("list", "one", code=2)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_linux(linux: Path, tmp_path: Path, runtime: Path) -> None:
    """Its shell, its disk, its registered events and its other CPU are as they were; it reboots."""
    qcow2.create(tmp_path / "disk.qcow2")
    options = GuestOptions(
        series="6.1", smp=2, files={KO: module_for("6.1")}, drives=(str(tmp_path / "disk.qcow2"),), name="a"
    )
    with Guest(options) as guest:
        Client(guest).load("verbose=0")
        assert handled(guest)
        guest.run("dmesg -n1")
        guest.run(f"echo kept >/tmp/file; echo kept | dd of=/dev/vda conv=sync,fsync; echo 0 >{ONLINE}")
        guest.snapshot("a")
        guest.run(f"echo lost >/tmp/file; echo lost | dd of=/dev/vda conv=sync,fsync; echo 1 >{ONLINE}")
        assert handled(guest)
        for _ in range(2):
            guest.load_snapshot("a")
            assert (
                plain(guest.run("cat /tmp/file; echo 3 >/proc/sys/vm/drop_caches; head -c 4 /dev/vda").output)
                == "kept\nkept"
            )
            assert [pe["power"] for pe in guest.status()["pes"]] == ["on", "off"]
            guest.run(f"echo 1 >{ONLINE}")
            assert handled(guest)
            assert Client(guest).count(1) == (2, 2)
        assert not re.search(r"BUG|Oops|Call trace|stall", guest.run("dmesg").output)
        guest.reset()
        guest.wait_shell()
        guest.load_snapshot("a")
        assert plain(guest.run("cat /tmp/file").output) == "kept\n"
        assert guest.poweroff().guest
    check_nothing_left(runtime)
