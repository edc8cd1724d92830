"""A crash dump as it is followed: each stage by who tells of it, each end by its exit code. No guest runs here."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from qemu_sdei.boot import capture
from qemu_sdei.errors import KdumpError, LostGuestError, UsageError
from qemu_sdei.guest.kdump_stages import Kdump, Reached, Stage, load_failure
from qemu_sdei.guest.kdump_watch import KdumpWatch, Listener
from qemu_sdei.guest.record import GuestRecord
from qemu_sdei.guest.status import Status
from qemu_sdei.vm.console import Console
from qemu_sdei.vm.devices import Devices
from qemu_sdei.vm.options import GuestOptions
from qemu_sdei.vm.qemu_exit import PowerOff
from tests.vmcore.samples import Log, vmcore

NONCE = "0123"
DUMP = vmcore(Log(["Kernel panic - not syncing: test"]))
OFF = PowerOff("guest-shutdown", True, 0)


def mark(what: str, nonce: str = NONCE) -> str:
    return f"\x1eqemu-sdei:{nonce}:{what}\x1e\n"


LOADED = mark("kdump:loaded 512")
BEGIN = mark("begin")
CRASH = "[    8.100000] Kernel panic - not syncing: test\n[    8.200000] Bye!\n"
KERNEL = "[    0.000000] Booting Linux on physical CPU 0x0000000002 [0x410fd083]\n"
INIT = mark("begin", capture.nonce_of(NONCE))
SDEI = "sdei SDEIv1.1 (0x4b564d)\ncpus 2\n"
COPY = f"copy 0 65536 0\ncopy 65536 65536 4096\ncopied {len(DUMP)} 4096\n"
DONE = mark("exit:0", capture.nonce_of(NONCE))
ALL = LOADED + BEGIN + CRASH + KERNEL + INIT + SDEI + COPY + DONE


class Guest:
    """As much of one as is watched: what it says, and what its firmware knows."""

    def __init__(self, folder: Path, said: str, off: PowerOff | None = OFF, **options: Any) -> None:
        chosen = GuestOptions(kdump=True, vmcore=folder / "vmcore", smp=4, **{"kdump_timeout": 0.2} | options)
        self.record = GuestRecord(chosen)
        self.record.nonce = NONCE
        self.part = folder / "vmcore.part"
        self.part.write_bytes(DUMP + bytes(100_000))
        plan = SimpleNamespace(devices=Devices(vmcore=self.part), options=chosen)
        self.record.placement = cast(Any, SimpleNamespace(plan=plan))
        self.console_text: Console = self.record.console
        self.resets: list[dict[str, Any]] = []
        self.reset_count = 0
        self.kernels = 1
        self.pes = [{"power": "on", "masked": False, "running": []} for _ in range(4)]
        self._off = off
        self.console_text.feed(said.encode())
        if off is not None:
            self.console_text.close()

    def status(self) -> Status:
        return cast(Status, {"kernels": self.kernels, "pes": self.pes})

    def wait_off(self, timeout: float = 1) -> PowerOff:
        if self._off is None or self._off.returncode:
            raise LostGuestError("QEMU died")
        return self._off

    def wait(self, listener: Listener | None = None, timeout: float | None = None) -> Kdump:
        return KdumpWatch(self, self.record, listener or Listener()).wait(timeout)


def test_a_dump_that_comes_to_its_end(tmp_path: Path) -> None:
    stages: list[Reached] = []
    output: list[str] = []
    guest = Guest(tmp_path, ALL.replace(BEGIN, BEGIN + "hello\n"))
    found = guest.wait(Listener(stage=stages.append, output=output.append))
    assert found.path == tmp_path / "vmcore"
    assert found.path.read_bytes() == DUMP
    assert not guest.part.exists()
    assert (found.panic, found.size, found.written) == ("test", len(DUMP), 4096)
    assert [reached.stage for reached in stages] == list(Stage)
    assert stages == list(found.stages)
    assert stages[4].note == "SDEIv1.1 (0x4b564d); vCPU 2"
    assert "".join(output) == "hello\n"


def test_it_may_come_in_any_pieces(tmp_path: Path) -> None:
    """Also the panic's first line, of which the command's output has nothing."""
    guest = Guest(tmp_path, "", None, kdump_timeout=20)
    output: list[str] = []

    def speak() -> None:
        for at in range(0, len(ALL), 7):
            guest.console_text.feed(ALL[at : at + 7].encode())
        guest._off = OFF
        guest.console_text.close()

    thread = threading.Thread(target=speak)
    thread.start()
    found = guest.wait(Listener(output=output.append))
    thread.join()
    assert found.panic == "test"
    assert "".join(output) == ""


def test_half_a_panic_is_no_output(tmp_path: Path) -> None:
    said = ALL.replace(BEGIN, BEGIN + "hello\n")
    cut = said.index("panic -")
    guest = Guest(tmp_path, said[:cut], None, kdump_timeout=20)
    output: list[str] = []

    def take(text: str) -> None:
        output.append(text)
        if len(output) == 1:  # only now comes the rest of the line
            guest.console_text.feed(said[cut:].encode())
            guest._off = OFF
            guest.console_text.close()

    assert guest.wait(Listener(output=take)).panic == "test"
    assert "".join(output) == "hello\n"


def test_the_firmware_tells_an_old_log_from_a_new_kernel(tmp_path: Path) -> None:
    guest = Guest(tmp_path, KERNEL + LOADED + BEGIN + KERNEL, None)
    with pytest.raises(KdumpError, match=r"the crash was waited for 1 s"):
        guest.wait(timeout=1)
    guest.kernels = 2
    with pytest.raises(KdumpError, match="did not come to its init within") as caught:
        guest.wait(timeout=20)
    assert caught.value.exit_code == 12


@pytest.mark.parametrize(
    ("said", "code", "message"),
    [
        (LOADED + BEGIN + "out\n" + mark("exit:3"), 10, "ended with status 3 and the kernel did not crash"),
        (LOADED, 10, r"the guest ended \(guest-shutdown\) and the kernel did not crash"),
        (LOADED + CRASH, 11, "the capture kernel did not start"),
        (LOADED + CRASH + KERNEL, 12, "the capture kernel did not come to its init"),
        (LOADED + CRASH + KERNEL + INIT, 13, "the vmcore was not copied"),
        (LOADED + CRASH + KERNEL + INIT + SDEI, 14, "the vmcore was not copied"),
        (ALL.replace("SDEIv1.1 (0x4b564d)", "none"), 13, "does not take SDEI events"),
        (ALL.replace("copied", "failed disk 2\nx"), 14, "virtio_blk, built in"),
        (ALL.replace("copied", "failed vmcore 2\nx"), 14, "has no /proc/vmcore"),
        (
            ALL.replace(f"copied {len(DUMP)}", "copied 4096"),
            14,
            "is not a vmcore: it has 4096 bytes, and its headers say",
        ),
        (LOADED + CRASH + KERNEL + CRASH, 12, "the capture kernel panicked: test"),
    ],
)
def test_a_dump_that_ends_early_says_where(tmp_path: Path, said: str, code: int, message: str) -> None:
    with pytest.raises(KdumpError, match=message) as caught:
        Guest(tmp_path, said).wait()
    assert caught.value.exit_code == code
    assert len(caught.value.stages) == code - 9 or "SDEI" in message


@pytest.mark.parametrize(
    ("said", "code", "message"),
    [
        (LOADED + CRASH, 11, "the capture kernel did not start within 0.2 s"),
        (LOADED + CRASH + KERNEL, 12, "did not come to its init within"),
        (LOADED + CRASH + KERNEL + INIT + SDEI, 14, "the vmcore was not copied within"),
        (ALL, 15, "the capture kernel did not power off within"),
    ],
)
def test_a_stage_has_its_limit(tmp_path: Path, said: str, code: int, message: str) -> None:
    with pytest.raises(KdumpError, match=message) as caught:
        Guest(tmp_path, said, None).wait()
    assert caught.value.exit_code == code
    assert (caught.value.vmcore is not None) == (code == 15)


def test_a_silent_panic_is_known_by_the_next_kernel(tmp_path: Path) -> None:
    """Linux prints nothing of a panic in an NMI; the firmware counts kernels."""
    guest = Guest(tmp_path, ALL.replace(CRASH, ""))
    guest.kernels = 2
    found = guest.wait()
    assert found.panic == ""
    assert [reached.stage for reached in found.stages] == list(Stage)


def test_an_early_crash_has_loaded_nothing(tmp_path: Path) -> None:
    with pytest.raises(KdumpError, match="the capture kernel was not loaded") as caught:
        Guest(tmp_path, CRASH).wait()
    assert (caught.value.exit_code, caught.value.stages) == (10, ["crash"])


def test_what_the_console_has_forgotten_is_known_by_what_follows(tmp_path: Path) -> None:
    stages = Guest(tmp_path, ALL.removeprefix(LOADED + BEGIN)).wait().stages
    assert [reached.stage for reached in stages] == list(Stage)


@pytest.mark.parametrize("state", [{"masked": True}, {"running": [0]}])
def test_sdei_is_there_when_the_firmware_says_so_too(tmp_path: Path, state: dict[str, Any]) -> None:
    """Of the vCPU on which the capture kernel runs; what another is left in is no matter."""
    guest = Guest(tmp_path, ALL)
    guest.pes[1] |= state
    guest.wait()
    guest = Guest(tmp_path, ALL)
    guest.pes[2] |= state
    with pytest.raises(KdumpError, match="has brought the vmcore, and does not take SDEI events") as caught:
        guest.wait()
    assert caught.value.exit_code == 13
    assert caught.value.vmcore == tmp_path / "vmcore"


def test_vcpus_that_are_missing_are_said(tmp_path: Path) -> None:
    said = ALL.replace("cpus 2", "cpus 3 2 100")
    stages = Guest(tmp_path, said, kdump_cpus=4).wait().stages
    assert stages[4].note == "SDEIv1.1 (0x4b564d); vCPUs 2, 3, 16, of 4 that were wanted"


def test_a_full_disk_of_the_host_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.statvfs", lambda path: SimpleNamespace(f_bavail=10, f_frsize=4096))
    with pytest.raises(KdumpError, match=f"there is no room left in {tmp_path}") as caught:
        Guest(tmp_path, ALL.replace("copied", "failed write 5\nx")).wait()
    assert caught.value.console == []


def test_a_guest_that_is_reset_or_lost_has_no_dump(tmp_path: Path) -> None:
    guest = Guest(tmp_path, LOADED + CRASH + KERNEL, None)
    watch = KdumpWatch(guest, guest.record, Listener())
    guest.reset_count = 1
    with pytest.raises(KdumpError, match="the machine was reset: the capture kernel did not"):
        watch.wait(None)
    with pytest.raises(KdumpError, match="QEMU died; the capture kernel did not") as caught:
        Guest(tmp_path, LOADED + CRASH + KERNEL, replace(OFF, returncode=-9)).wait()
    assert caught.value.exit_code == 12


def test_the_time_until_the_crash_is_the_callers(tmp_path: Path) -> None:
    with pytest.raises(KdumpError, match=r"the crash was waited for 0.1 s") as caught:
        Guest(tmp_path, LOADED, None).wait(timeout=0.1)
    assert caught.value.exit_code == 10
    with pytest.raises(
        KdumpError, match=r"printed nothing for 0.1 s while waiting for the capture kernel to be loaded"
    ):
        Guest(tmp_path, "", None, boot_timeout=0.1).wait()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("failed small 90 64", "needs 90 MiB, and the kernel has reserved 64 MiB for it: use --crashkernel 96M"),
        ("failed kexec 38", "has no kexec: build it with CONFIG_KEXEC"),
        ("failed reservation 0", "has reserved no memory"),
        ("failed files 2", "use more --memory, or less --crashkernel"),
        ("failed fdt 0", "could not be loaded: fdt 0"),
        ("", "its loader died"),
    ],
)
def test_a_capture_kernel_that_is_not_loaded_is_the_users_to_mend(tmp_path: Path, said: str, message: str) -> None:
    assert message in load_failure(said)
    with pytest.raises(UsageError, match=r"capture|kexec|reserved"):
        Guest(tmp_path, mark(f"kdump:{said}")).wait()


def test_what_the_guest_writes_may_be_anything(tmp_path: Path) -> None:
    guest = Guest(tmp_path, ALL)
    guest.part.write_bytes(bytes(1000))
    with pytest.raises(KdumpError, match="is not a vmcore") as caught:
        guest.wait()
    assert caught.value.exit_code == 14
    assert not (tmp_path / "vmcore").exists()
