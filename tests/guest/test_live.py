"""Migrated while it runs (QEMU's precopy and postcopy): nothing that a guest writes meanwhile is lost.

QEMU 7.2's TCG does lose pages, if RAM has the wrong size: that is shown first, with nothing of ours in the guest. The
judge is `mode=dirty` of the bench guest (guest/bench/dirty.c): it writes all the time, and looks whether it stays.
"""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from qemu.qmp import QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol

from qemu_sdei.errors import GuestError, LostGuestError, SdeiError, UsageError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.host.environment import find_qemu
from qemu_sdei.migration import ram
from qemu_sdei.migration.options import Hold, Step
from qemu_sdei.vm.options import GuestOptions
from tests.guest.client import KO, Client, module_for
from tests.guest.guests import check_nothing_left, postcopy_works, until
from tests.guest.load import EventLoad

pytestmark = pytest.mark.guest

PAGES = 512
TRIES = 10
"""Whether a page gets lost is a matter of when a CPU has it in its TLB; most often some do."""
BUSY = "while :; do head -c 3000000 /dev/urandom >/tmp/$i; md5sum /tmp/$i; done"
BENCH = Path(__file__).parents[2] / "qemu_sdei/data/bench.bin"
ENTRY, TRAMPOLINE = 0x40200000, 0x40100000


def dirty(pages: int = PAGES, *, pad_memory: bool | None = False, **more: Any) -> GuestOptions:
    """Two CPUs that write `pages` pages each, over and over, in RAM of which QEMU loses some."""
    words = f"mode=dirty pages={pages} smp=2"
    return GuestOptions(kernel="builtin:bench", append=words, memory="128M", pad_memory=pad_memory, **more)


def finish(guest: Guest) -> None:
    """Both CPUs are told to end; each has found at each pass what it wrote in the one before."""
    for cpu in (0, 1):
        assert guest.inject(0, cpu, wait=True, timeout=20).outcome in ("completed", "entered")
    assert guest.wait_off(30).guest
    assert re.search(rf"^dirty: ok pages={PAGES} passes=\d{{2,}}$", guest.console, re.MULTILINE), guest.console


# ---- the fault, with none of our firmware ----------------------------------------------------------------------------


def connected(path: Path) -> QEMUMonitorProtocol:
    found: list[QEMUMonitorProtocol] = []

    def connects() -> bool:
        monitor = QEMUMonitorProtocol(str(path))
        with suppress(QMPError):
            monitor.connect()
            found.append(monitor)
        return bool(found)

    until("QMP answers", connects)
    return found[0]


@contextmanager
def plain(size: int, directory: Path, *more: str) -> Iterator[QEMUMonitorProtocol]:
    """A QEMU without any firmware of ours; its RAM is the file `ram` in `directory`."""
    with (directory / "ram").open("wb") as file:
        file.truncate(size)
    command = [str(find_qemu(None).path), "-M", "virt,memory-backend=ram", "-cpu", "cortex-a72", "-m", f"{size >> 10}K"]
    command += ["-object", f"memory-backend-file,id=ram,share=on,size={size},mem-path={directory / 'ram'}"]
    command += ["-nodefaults", "-display", "none", "-qmp", f"unix:{directory / 'qmp'},server=on,wait=off"]
    command += ["-serial", f"file:{directory / 'console'}", *more]
    with subprocess.Popen(command) as process:
        try:
            with closing(connected(directory / "qmp")) as monitor:
                yield monitor
        finally:
            process.kill()


def start_alone(directory: Path) -> list[str]:
    """Options by which QEMU's CPU starts the bench guest, that then calls no firmware."""
    words = b"mode=dirty pages=%d alone=1 smp=1\0" % PAGES
    # ldr x0 (0: no device tree), ldr x1 (command line), ldr x2, br x2; then the three literals.
    code = struct.pack("<4I", 0x58000080, 0x580000A1, 0x580000C2, 0xD61F0040)
    (directory / "start").write_bytes(code + struct.pack("<3Q", 0, TRAMPOLINE + 0x28, ENTRY) + words)
    return [
        "-device",
        f"loader,file={directory / 'start'},addr={TRAMPOLINE:#x},cpu-num=0,force-raw=on",
        "-device",
        f"loader,file={BENCH},addr={ENTRY:#x},force-raw=on",
    ]


def status(monitor: QEMUMonitorProtocol, command: str) -> object:
    answer = monitor.cmd(command)
    assert isinstance(answer, dict)
    return answer["status"]


def lost_pages(size: int, path: Path) -> int:
    """Migrate a plain QEMU with `size` bytes of RAM that is written to, and count the pages that are not the same."""
    here, there = path / "here", path / "there"
    here.mkdir()
    there.mkdir()
    with (
        plain(size, here, *start_alone(here)) as source,
        plain(size, there, "-incoming", f"unix:{path / 'stream'}", "-S") as destination,
    ):
        until("the guest writes", lambda: b"dirty: ready" in (here / "console").read_bytes())
        source.cmd("migrate", uri=f"unix:{path / 'stream'}")
        until("it is there", lambda: status(destination, "query-status") == "paused", 60)
        assert status(source, "query-migrate") == "completed"
        fds = [os.open(side / "ram", os.O_RDWR) for side in (here, there)]
        try:
            return len(ram.compare(fds[0], fds[1], size, repair=False))
        finally:
            for fd in fds:
                os.close(fd)


@pytest.mark.timeout(200)
def test_qemu_itself_loses_pages(tmp_path: Path) -> None:
    """The control. A QEMU that does not any more needs none of what follows: then skip, and say so."""
    for n in range(TRIES):
        for size, name in ((128 << 20) + 8192, "padded"), (128 << 20, "whole"):
            (tmp_path / f"{name}{n}").mkdir()
            lost = lost_pages(size, tmp_path / f"{name}{n}")
            assert lost == 0 or name == "whole"
        if lost:
            return
    assert find_qemu(None).version >= (9, 0), "QEMU before 9.0 loses pages"
    pytest.skip("this QEMU loses no pages")


# ---- ours ------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(200)
def test_pages_are_lost_where_ram_is_not_compared(runtime: Path) -> None:
    """RAM of whole MiB: the guest finds out, unless RAM is compared. (Only a guest's first QEMU is so.)"""
    if find_qemu().version >= (9, 0):
        pytest.skip("QEMU 9.0 and later lose no pages")
    for _ in range(TRIES):
        with Guest(dirty()) as guest:
            guest.expect("dirty: ready")
            lost = guest.migrate(route="live").pages_differing
            finish(guest)
        if lost:
            break
    else:
        pytest.fail("no page was lost, and repaired")
    for _ in range(TRIES):
        with Guest(dirty()) as guest:
            guest.expect("dirty: ready")
            assert guest.migrate(route="live", verify=False).pages_differing is None
            for cpu in (0, 1):
                with suppress(SdeiError):  # where it has failed and is gone
                    guest.inject(0, cpu)
            guest.wait_off(30)
            if re.search(r"page \d+ of CPU \d: expected \d+, got \d+", guest.console):
                break
    else:
        pytest.fail("no page was lost, and missed by the guest")
    check_nothing_left(runtime)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("verify", [pytest.param(True, marks=pytest.mark.slow), False])
def test_nothing_is_lost(verify: bool, runtime: Path) -> None:
    """There and back by all live routes: RAM is compared, or as by default of a size by which nothing gets lost."""
    with Guest(dirty(pad_memory=False if verify else None)) as guest:
        guest.expect("dirty: ready")
        for more in (
            {"route": "live"},
            {"route": "postcopy"},
            {"route": "live", "multifd": 2},
            {"route": "live", "transport": "tcp"},
            {"route": "postcopy", "transport": "tcp"},
        ):
            if more["route"] == "postcopy" and not postcopy_works():
                with pytest.raises(UsageError, match="postcopy is not for QEMU"):
                    guest.migrate(verify=verify, **more)
                continue
            result = guest.migrate(verify=verify, **more)
            assert result.passes >= 2
            assert (result.pages_differing is None) is (not verify or more["route"] == "postcopy")
        finish(guest)
    check_nothing_left(runtime)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("padded", [True, False])
def test_nothing_is_lost_in_a_hundred(padded: bool) -> None:
    """A hundred live migrations, half of them a guest's first, whose pages QEMU would lose."""
    found = 0
    for _ in range(50):
        with Guest(dirty(pad_memory=padded)) as guest:
            guest.expect("dirty: ready")
            for _ in range(2):
                lost = guest.migrate(route="live").pages_differing
                assert lost is not None
                found += lost > 0
            finish(guest)
    loses = find_qemu().version < (9, 0) and not padded
    assert found > 25 if loses else found == 0, "this QEMU loses pages of RAM of whole MiB, and of no other"


@pytest.mark.timeout(200)
@pytest.mark.parametrize("route", ["live", pytest.param("postcopy", marks=pytest.mark.slow)])
def test_no_event_is_lost_or_doubled(route: str) -> None:
    """Under 500 events a second from the host."""
    options = GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="128M")
    with Guest(options) as guest:
        guest.expect("idle: ready")
        with EventLoad(guest, (0,), 2, pause=0.002) as load:
            for _ in range(5):
                assert not guest.migrate(route=route).pages_differing
        until("all are delivered", lambda: guest.status()["counts"]["completed"] == load.delivered)
        assert guest.status()["counts"]["delivered"] == load.delivered > 100
        assert not load.refused
        assert not any(load.unknown.values())
        assert guest.status()["counts"]["rejected"] == 0


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_linux_under_load(linux: Path) -> None:
    """A kernel that writes all over its memory; events before, between and after."""
    options = GuestOptions(series="6.12", smp=2, memory="512M", files={KO: module_for("6.12")}, boot="acpi")
    with Guest(options) as guest:
        client = Client(guest)
        client.load("events=0,0x100 verbose=0")
        client.shell("mount -t tmpfs none /tmp 2>/dev/null || { mkdir -p /tmp; mount -t tmpfs none /tmp; }")
        client.shell(f"for i in 1 2; do ({BUSY}) >/dev/null & done")
        for n, route in enumerate(("live", "postcopy" if postcopy_works() else "copy", "live"), 1):
            assert not guest.migrate(route=route).pages_differing
            for cpu in (0, 1):
                assert guest.inject(0x100, cpu, wait=True, timeout=30).outcome == "completed"
                assert client.count(cpu, 0x100) == (n, n)
        assert not re.search(r"BUG|Oops|WARNING|Call trace|stall", client.shell("dmesg"))


@pytest.mark.timeout(100)
@pytest.mark.parametrize("verify", [True, False])
def test_a_reset_on_the_way(verify: bool, runtime: Path) -> None:
    """What a boot writes QEMU does not see: it arrives where RAM is compared, and is refused where it is not."""
    with Guest(dirty(name="a")) as guest:
        guest.expect("dirty: ready")

        def reset(step: Step) -> None:
            if step.phase == "hold":
                threading.Thread(target=guest.reset).start()

        with nullcontext() if verify else pytest.raises(GuestError, match="was reset while its RAM was being sent"):
            # RAM is being sent, and the guest goes on up to where it registers its event once more.
            guest.migrate("b", route="live", verify=verify, hold=Hold("registered"), report=reset)
        guest.expect("dirty: ready")
        finish(guest)
    check_nothing_left(runtime)


def test_what_does_not_go_together(runtime: Path) -> None:
    with Guest(dirty()) as guest:
        for more in ({"route": "postcopy", "multifd": 2}, {"multifd": 2}, {"transport": "rdma"}, {"multifd": -1}):
            with pytest.raises(UsageError):
                guest.migrate(**more)


@pytest.mark.timeout(100)
def test_the_source_dies_while_ram_is_fetched(runtime: Path) -> None:
    """With postcopy that is the guest's end: it is said, and nothing is left."""
    if not postcopy_works():
        pytest.skip("this QEMU loses pages by postcopy")
    with Guest(dirty(4096, name="a")) as guest:
        guest.expect("dirty: ready")
        source = 0

        def kill(step: Step) -> None:
            if step.phase == "fetch":
                with suppress(ProcessLookupError):
                    os.kill(source, signal.SIGKILL)

        def migrate() -> None:
            nonlocal source
            for _ in range(10):  # now and then nothing is left to be fetched
                source = guest.qemu_pid or 0
                guest.migrate(route="postcopy", report=kill)

        with pytest.raises(LostGuestError, match="the rest of its RAM could not be fetched"):
            migrate()
        with pytest.raises(LostGuestError):
            guest.expect("never said", timeout=30)
    check_nothing_left(runtime)
