"""The central things with another QEMU than the machine's own, which an environment variable names; and with both.

    QEMU_SDEI_OTHER_QEMU=/path/to/qemu-system-aarch64 scripts/test --all tests/guest/test_other_qemu.py

What came of it with which versions is in docs/reference/qemu-versions.md. All other tests can be run with another QEMU
too: they take the first one on PATH.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.conformance import run
from qemu_sdei.errors import GuestError, LostGuestError, SdeiError, UsageError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.host.environment import find_qemu
from qemu_sdei.host.lost_pages import LOSES_NOTHING
from qemu_sdei.migration.options import LAST_POSTCOPY, Hold
from qemu_sdei.vm.options import GuestOptions
from tests.guest.client import KO, Client, module_for
from tests.guest.guests import check_nothing_left, command, plain, until
from tests.guest.remote import Receiving
from tests.guest.test_conformance import NEEDS, check
from tests.guest.test_live import dirty, finish, lost_pages

VARIABLE = "QEMU_SDEI_OTHER_QEMU"
WANTED = os.environ.get(VARIABLE, "")
NAME = "qemu-system-aarch64"
NOT_TAKEN = r"its CPU has other registers than in the QEMU|machine is virt-[0-9.]+.*, which .* has not: use the same"

pytestmark = [
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.skipif(not WANTED, reason=f"{VARIABLE} names no other {NAME}"),
]


def becomes(path: Path, qemu: Path) -> Path:
    """Have `path` be the program `qemu`, as a package upgrade has it."""
    path.unlink(missing_ok=True)
    path.write_text(f'#!/bin/sh\nexec {qemu} "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def own() -> Path:
    """The machine's own."""
    return find_qemu().path


@pytest.fixture
def other(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The other one, which is also the first on PATH while the test runs."""
    (tmp_path / "bin").mkdir()
    path = becomes(tmp_path / "bin" / NAME, Path(WANTED).absolute())
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    assert find_qemu().path == path != own
    return path


@pytest.fixture
def nothing_left(runtime: Path) -> Iterator[Path]:
    yield runtime
    check_nothing_left(runtime)


def idle(**more: Any) -> GuestOptions:
    return GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="64M", **more)


def answers(guest: Guest) -> bool:
    with suppress(SdeiError):
        return bool(guest.status())
    return False


def handled(guest: Guest, vcpu: int = 1) -> bool:
    return guest.inject(0, vcpu, wait=True, timeout=20).outcome == "completed"


@pytest.mark.timeout(60)
def test_selftest_and_doctor(other: Path, nothing_left: Path) -> None:
    for words, said in ((("selftest",), "Result: OK"), (("doctor", "--qemu", str(other)), str(other))):
        process = command(nothing_left, *words)
        output, errors = process.communicate(timeout=50)
        assert process.returncode == 0, errors.decode()
        assert said in output.decode()


@pytest.mark.timeout(200)
@pytest.mark.parametrize(("boot", "series"), [("dt", "6.1"), ("acpi", "6.1"), ("acpi", "6.12")])
def test_linux(boot: Any, series: str, other: Path, linux: Path, nothing_left: Path) -> None:
    """Events on each CPU, hotplug, a migration, another boot."""
    with Guest(GuestOptions(series=series, boot=boot, files={KO: module_for(series)})) as guest:
        client = Client(guest)
        client.load("events=0,0x100 verbose=0")
        guest.migrate()
        for cpu in (0, 1):
            assert guest.inject(0x100, cpu, wait=True, timeout=20).outcome == "completed"
        online = "/sys/devices/system/cpu/cpu1/online"
        client.shell(f"echo 0 >{online}; echo 1 >{online}")
        assert guest.inject(0x100, 1, wait=True, timeout=20).outcome == "completed"
        assert [client.count(cpu, 0x100) for cpu in (0, 1)] == [(1, 1), (2, 2)]
        assert not re.search(r"BUG|Oops|WARNING|Call trace|stall", client.shell("dmesg"))
        guest.reset()
        assert plain(guest.run("dmesg | grep -c 'SDEIv1.1'").output) == "1\n"
        assert guest.poweroff().guest


@pytest.mark.timeout(100)
@pytest.mark.parametrize("virtualization", [False, True])
def test_linux_with_all_that_the_cpu_has(virtualization: bool, other: Path, linux: Path) -> None:
    """Each version's `max` has more features, and Linux uses those that it knows: the monitor lets them through."""
    with Guest(GuestOptions(series="6.12", cpu="max", virtualization=virtualization)) as guest:
        assert plain(guest.run("echo $((6 * 7))").output) == "42\n"
        assert guest.poweroff().guest


@pytest.mark.timeout(200)
@pytest.mark.parametrize("cpu", ["cortex-a72", "max"])
def test_conformance_above_el2(cpu: str, other: Path) -> None:
    """Newer versions have more registers in which our EL2 could trap what a guest does."""
    check(
        run(GuestOptions(cpu=cpu, hypervisor=True, smp=4, memory="128M")),
        set(NEEDS) - ({39} if cpu == "max" else set()),
    )


@pytest.mark.timeout(200)
@pytest.mark.parametrize("cpu", ["cortex-a72", "max"])
@pytest.mark.parametrize("boot", ["dt", "uefi"])
def test_linux_above_el2(boot: str, cpu: str, other: Path, linux: Path, nothing_left: Path) -> None:
    """By HVC, behind stage 2: events on each CPU, hotplug, a migration, another boot."""
    more: dict[str, Any] = {"uefi": True, "ras": True} if boot == "uefi" else {"boot": boot}
    options = GuestOptions(series="6.12", cpu=cpu, hypervisor=True, files={KO: module_for("6.12")}, **more)
    with Guest(options) as guest:
        client = Client(guest)
        client.load("events=0,0x100 verbose=0")
        guest.migrate()
        online = "/sys/devices/system/cpu/cpu1/online"
        client.shell(f"echo 0 >{online}; echo 1 >{online}")
        for number in (0, 1):
            assert guest.inject(0x100, number, wait=True, timeout=20).outcome == "completed"
        assert not re.search(r"BUG|Oops|WARNING|Call trace|stall", client.shell("dmesg"))
        guest.reset()
        assert plain(guest.run("dmesg | grep -c 'SDEIv1.1'").output) == "1\n"
        assert guest.poweroff().guest


@pytest.mark.timeout(200)
def test_every_route(other: Path, nothing_left: Path) -> None:
    """A guest that writes all the time loses nothing, and is refused what QEMU would lose it by."""
    postcopy = find_qemu().version[:2] <= LAST_POSTCOPY
    with Guest(dirty()) as guest:
        guest.expect("dirty: ready")
        routes: tuple[dict[str, Any], ...] = (
            {"route": "shared"},
            {"route": "copy"},
            {"route": "copy", "multifd": 2},
            {"route": "live"},
            {"route": "live", "multifd": 2, "transport": "tcp"},
            {"route": "live", "transport": "tcp"},
            *({"route": "postcopy", "transport": transport} for transport in ("unix", "tcp")),
        )
        for more in routes:
            if more["route"] != "postcopy" or postcopy:
                guest.migrate(**more)
            else:
                with pytest.raises(UsageError, match=r"postcopy is not for QEMU \d+.* choose another route"):
                    guest.migrate(**more)
        finish(guest)


@pytest.mark.timeout(200)
def test_whether_it_loses_pages(other: Path, tmp_path: Path) -> None:
    """With nothing of ours in it: what is said of QEMU 9.0 and later is true of this one."""
    if find_qemu().version < LOSES_NOTHING:
        pytest.skip("QEMU before 9.0 does")
    for n in range(10):
        (tmp_path / f"{n}").mkdir()
        assert lost_pages(128 << 20, tmp_path / f"{n}") == 0


@pytest.mark.timeout(100)
def test_saved_and_snapshot(other: Path, tmp_path: Path, nothing_left: Path) -> None:
    options = idle(snapshots=tmp_path / "a.qcow2")
    with Guest(options) as guest:
        guest.expect("idle: ready")
        assert handled(guest)
        guest.snapshot("one")
        assert handled(guest)
        guest.load_snapshot("one")
        assert guest.status()["counts"]["completed"] == 1
        guest.save(tmp_path / "saved", end=True)
    with Guest.saved(tmp_path / "saved") as guest:
        assert handled(guest)
        assert guest.status()["counts"]["completed"] == 2
    with Guest(options) as guest:
        guest.expect("idle: ready")
        guest.load_snapshot("one")
        assert handled(guest)
        assert guest.status()["counts"]["completed"] == 2


@pytest.mark.timeout(250)
@pytest.mark.parametrize("route", ["shared", "live"])
def test_hold_points_and_a_killed_backend(route: str, other: Path, nothing_left: Path) -> None:
    options = GuestOptions(kernel="builtin:bench", append="mode=storm count=60000 smp=2 seed=7", memory="64M")
    with Guest(options) as guest:
        for state in ("running", "pending-masked", "exchange"):
            guest.migrate(route=route, hold=Hold(state))
            assert guest.backend_pid is not None
            os.kill(guest.backend_pid, signal.SIGKILL)
            until("another one serves", lambda: guest.backend_starts == 2 and answers(guest))
        assert guest.wait_off(150).guest
        assert re.search(r"^storm: ok calls=\d+ handled=[1-9]\d*$", guest.console, re.MULTILINE), guest.console


# ---- both ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["to the other", "to the own"])
def two(request: pytest.FixtureRequest, own: Path, other: Path) -> tuple[Path, Path]:
    """Where a guest is, and where it is to go."""
    return (own, other) if request.param == "to the other" else (other, own)


def says(error: SdeiError, words: str) -> None:
    assert re.search(words, str(error)), error


def goes_on(error: SdeiError) -> None:
    """The guest was not taken, its user is told why, and it is not lost."""
    assert not isinstance(error, LostGuestError)
    says(error, NOT_TAKEN)


@pytest.mark.timeout(100)
@pytest.mark.parametrize("machine", ["", "virt-7.2"])
def test_to_another_version(machine: str, two: tuple[Path, Path], nothing_left: Path) -> None:
    """It arrives whole, or goes on where it was and its user is told why."""
    arguments = ("-machine", machine) if machine else ()
    with Guest(dirty(name="a", qemu=two[0], qemu_args=arguments)) as guest:
        guest.expect("dirty: ready")
        with Receiving(name="b", qemu=two[1]) as there:
            try:
                guest.migrate_to(there.to)
            except GuestError as error:
                goes_on(error)
                finish(guest)
                return
            finish(there.guest)


@pytest.mark.timeout(100)
@pytest.mark.parametrize("route", ["shared", "copy", "live"])
def test_qemu_was_replaced(route: str, two: tuple[Path, Path], tmp_path: Path, nothing_left: Path) -> None:
    """By a package upgrade, say, while the guest runs: its next migration goes to the new one."""
    qemu = becomes(tmp_path / NAME, two[0])
    with Guest(dirty(qemu=qemu)) as guest:
        guest.expect("dirty: ready")
        kind = guest.qmp("qom-get", path="/machine", property="type")
        becomes(qemu, two[1])
        try:
            guest.migrate(route=route)
        except SdeiError as error:
            goes_on(error)
        becomes(qemu, two[0])
        assert guest.qmp("qom-get", path="/machine", property="type") == kind
        finish(guest)


@pytest.mark.timeout(100)
def test_postcopy_to_another_version(two: tuple[Path, Path], tmp_path: Path, nothing_left: Path) -> None:
    """Is refused: a QEMU that finds out in postcopy that it cannot take the guest takes it with it."""
    qemu = becomes(tmp_path / NAME, two[0])
    machine = () if two[0] < two[1] else ("-machine", "virt-7.2")
    with Guest(replace(dirty(qemu=qemu), qemu_args=machine)) as guest:
        guest.expect("dirty: ready")
        becomes(qemu, two[1])
        with pytest.raises(UsageError, match=r"postcopy is (not for QEMU|only for two QEMUs)|has not: use the same"):
            guest.migrate(route="postcopy")
        assert guest.power_off is None
        finish(guest)


@pytest.mark.timeout(100)
def test_saved_by_another_version(two: tuple[Path, Path], tmp_path: Path, nothing_left: Path) -> None:
    """One that it does not take is there for the QEMU that saved it."""
    with Guest(idle(qemu=two[0])) as guest:
        guest.expect("idle: ready")
        assert handled(guest)
        guest.save(tmp_path / "saved", end=True)
    try:
        with Guest.saved(tmp_path / "saved", qemu=two[1]) as guest:
            assert handled(guest)
    except (GuestError, UsageError) as error:
        goes_on(error)
    with Guest.saved(tmp_path / "saved", qemu=two[0]) as guest:
        assert handled(guest)
        assert guest.status()["counts"]["completed"] == 2
