"""A guest crashes, its capture kernel brings a vmcore here, and what that says is so.

How a capture kernel is loaded by hand, and takes events on all vCPUs: `test_kdump.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qemu_sdei.errors import KdumpError, NotDeliveredError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.guest.kdump_stages import Stage
from qemu_sdei.vm.options import GuestOptions
from qemu_sdei.vmcore.dump import Dump
from tests.guest.guests import check_nothing_left, command

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux"), pytest.mark.timeout(240)]

CONTROL = "/proc/sdei_test/control"
ROUNDS = int(os.environ.get("QEMU_SDEI_KDUMP_ROUNDS", "3"))


def crash_on(guest: Guest, vcpu: int) -> None:
    """Have the kernel panic there; the shell does not come back."""
    guest.write(f"taskset {1 << vcpu:x} sh -c 'echo c >/proc/sysrq-trigger'\r")


def tell(guest: Guest, words: str) -> None:
    """Tell the client module to do something."""
    result = guest.run(f"echo {words} >{CONTROL}")
    assert result.status == 0, result.output


def inject(guest: Guest, vcpu: int) -> None:
    """Inject event 0; its handler may have panicked before the answer comes."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(NotDeliveredError):  # masked for a moment
            guest.inject(0, vcpu)
            return


def in_a_handler(guest: Guest) -> None:
    tell(guest, "panic")
    inject(guest, 3)


def beside_a_vcpu_with_interrupts_off(guest: Guest) -> None:
    tell(guest, "irqs-off 2 5000000000")
    crash_on(guest, 0)


def beside_a_vcpu_in_a_handler(guest: Guest) -> None:
    tell(guest, "run-for 5000000000")
    inject(guest, 1)
    crash_on(guest, 0)


def beside_one_that_is_off(guest: Guest) -> None:
    assert guest.run("echo 0 >/sys/devices/system/cpu/cpu3/online").status == 0
    crash_on(guest, 1)


def amid_calls(guest: Guest) -> None:
    guest.run(f"taskset 4 sh -c 'while :; do echo signal 2 >{CONTROL}; done' >/dev/null 2>&1 &")
    crash_on(guest, 0)


CAUSES: list[tuple[Callable[[Guest], None], int]] = [
    (in_a_handler, 3),
    (beside_a_vcpu_with_interrupts_off, 0),
    (beside_a_vcpu_in_a_handler, 0),
    (beside_one_that_is_off, 1),
    (amid_calls, 0),
]


def test_a_command_that_crashes_leaves_a_vmcore(runtime: Path, tmp_path: Path) -> None:
    """As a user runs it; all that people and programs are told."""
    core = tmp_path / "core"
    words = ["run", "--json", "--smp", "4", "--kdump", "--kdump-cpus", "4", "--vmcore", str(core), "--"]
    with command(runtime, *words, "sh", "-c", "echo hello; taskset 4 sh -c 'echo c >/proc/sysrq-trigger'") as process:
        out, err = process.communicate(timeout=200)
    found = json.loads(out)
    assert process.returncode == found["exit_code"] == 0, err
    assert found["output"].startswith("hello\n")
    assert "Kernel panic" not in found["output"]
    assert [stage["stage"] for stage in found["stages"] if stage["reached"]] == [stage.value for stage in Stage]
    assert found["stages"][1]["note"] == "sysrq triggered crash"
    assert "SDEIv1.1 (0x4b564d); vCPUs" in found["stages"][4]["note"]
    assert found["crash"] == {"message": "sysrq triggered crash", "vcpu": 2, "pid": found["crash"]["pid"], "comm": "sh"}
    assert b"vmcore copied" in err
    check_nothing_left(runtime)
    assert [path.name for path in tmp_path.iterdir()] == ["core"]

    dump = Dump.read(core)
    assert dump.crashed is not None
    assert dump.crashed.pid == found["crash"]["pid"]
    log = [record.text for record in dump.log]
    assert "sysrq: Trigger a crash" in log
    assert log[-1] == "Bye!"
    assert any("sdei: SDEIv1.1 (0x4b564d) detected in firmware." in line for line in log)
    assert core.stat().st_blocks * 512 < dump.memory


@pytest.mark.slow
@pytest.mark.parametrize("series", ["6.1", "6.12"])
@pytest.mark.parametrize(("boot", "cpus"), [("dt", 1), ("acpi", 4)])
@pytest.mark.parametrize(("crash", "vcpu"), CAUSES, ids=[crash.__name__ for crash, _ in CAUSES])
def test_each_cause_leaves_one(
    tmp_path: Path, series: str, boot: str, cpus: int, crash: Callable[[Guest], None], vcpu: int
) -> None:
    options = GuestOptions(
        series=series,
        boot="acpi" if boot == "acpi" else "dt",
        smp=4,
        client=True,
        kdump=True,
        kdump_cpus=cpus,
        vmcore=tmp_path / "core",
        boot_timeout=120,
    )
    with Guest(options) as guest:
        guest.run("dmesg -n 1")
        guest.sdei_client([0], verbose=0)
        crash(guest)
        found = guest.wait_vmcore(60)
        assert guest.wait_vmcore() is found
    dump = Dump.read(found.path)
    assert dump.crash is not None
    assert dump.crash.cpu == vcpu
    assert dump.crash.message in ("sysrq triggered crash", "SDEI TEST: in the handler of event 0x0")
    # A CPU that Linux could not stop in its one second has no registers; idle ones cannot be told apart then.
    assert dump.crashed is not None or (len(dump.cpus) < 4 and dump.crash.pid == 0), (dump.crash, dump.cpus)


@pytest.mark.slow
@pytest.mark.timeout(60 * ROUNDS + 200)
@pytest.mark.parametrize("series", ["6.1", "6.12"])
def test_many_times(runtime: Path, tmp_path: Path, series: str) -> None:
    """QEMU_SDEI_KDUMP_ROUNDS says how many."""
    for number in range(ROUNDS):
        core = tmp_path / "core"
        words = ["run", "--series", series, "--kdump", "--smp", "4", "--vmcore", str(core), "--"]
        with command(runtime, *words, "sh", "-c", "echo c >/proc/sysrq-trigger") as process:
            _, err = process.communicate(timeout=200)
        # What is seen once in many times is to be told here: the file goes away with pytest's directories.
        assert process.returncode == 0, (number, err)
        dump = Dump.read(core)
        assert dump.crash is not None, (number, err, [record.text for record in dump.log[-60:]])
        core.unlink()


@pytest.mark.slow
def test_a_saved_and_a_migrated_guest_can_crash(runtime: Path, tmp_path: Path) -> None:
    """What it is saved with is its memory: the capture kernel is in it."""
    options = GuestOptions(kdump=True, vmcore=tmp_path / "core")
    with Guest(options) as guest:
        guest.wait_shell()
        guest.migrate()
        guest.save(tmp_path / "saved", end=True)
    assert not (tmp_path / "core.part").exists()
    with Guest.saved(tmp_path / "saved", trust=True) as guest:
        guest.write("echo c >/proc/sysrq-trigger\r")
        found = guest.wait_vmcore(60)
    assert Dump.read(tmp_path / "core").crash is not None
    assert found.path == tmp_path / "core"


@pytest.mark.slow
def test_a_capture_kernel_that_hangs_is_explained(runtime: Path, tmp_path: Path) -> None:
    """An Image that does nothing but loop: `explain` says where the vCPU is."""
    image = tmp_path / "Image"
    image.write_bytes(struct.pack("<2I3Q24x4s4xI", 0x1400_0010, 0, 0, 1 << 20, 0xA, b"ARMd", 0x1400_0000) + bytes(8192))
    words = ["run", f"--kdump={image}", "--kdump-timeout", "5", "--vmcore", str(tmp_path / "core"), "--"]
    with command(runtime, *words, "sh", "-c", "echo c >/proc/sysrq-trigger") as process:
        _, err = process.communicate(timeout=200)
    assert process.returncode == 11
    assert b"the capture kernel did not start within 5 s" in err
    assert b"what `qemu-sdei explain` says of it" in err
    assert b"stays there" in err
    check_nothing_left(runtime)
    assert [path.name for path in tmp_path.iterdir()] == ["Image"]


@pytest.mark.slow
def test_a_command_that_does_not_crash_has_no_vmcore(runtime: Path, tmp_path: Path) -> None:
    with pytest.raises(KdumpError, match="the command ended with status 3 and the kernel did not crash") as caught:
        with Guest(GuestOptions(kdump=True, vmcore=tmp_path / "core", command=["exit 3"])) as guest:
            guest.wait_vmcore()
    assert caught.value.exit_code == 10
    assert not list(tmp_path.iterdir())
