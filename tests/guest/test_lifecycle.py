"""The library: shells, resets, power, hotplug, QMP, and a backend that is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu_sdei import Guest, GuestOptions, rundir
from qemu_sdei.errors import (
    GuestError,
    GuestPanicError,
    GuestTimeoutError,
    LostGuestError,
    SdeiError,
    UsageError,
)
from qemu_sdei.trace.reading import open_trace
from tests.guest.guests import check_nothing_left, plain, runtime_directory, until

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux")]


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    """One guest for the tests that leave it as it was."""
    with pytest.MonkeyPatch.context() as patch, runtime_directory() as runtime:
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))
        with Guest(GuestOptions(name="shared")) as guest:
            guest.run("dmesg -n 1")
            yield guest
        check_nothing_left(runtime)


def test_the_kernel_found_its_firmware(guest: Guest) -> None:
    log = guest.run("dmesg").output
    assert "psci: PSCIv1.1 detected in firmware." in log
    assert "sdei: SDEIv1.1 (0x4b564d) detected in firmware." in log
    assert "SMP: Total of 2 processors activated." in log
    assert plain(guest.run("nproc").output) == "2\n"


def test_run_keeps_the_shell_and_tells_statuses_apart(guest: Guest) -> None:
    assert guest.run("cd /tmp; X=1; false").status == 1
    assert plain(guest.run("pwd; echo $X").output) == "/tmp\n1\n"
    assert guest.run("if").status == 2
    assert plain(guest.run("cat").output) == ""
    assert plain(guest.run("echo " + "x" * 5000).output) == "x" * 5000 + "\n"
    assert len(guest.run("seq 20000", timeout=200).output.split()) == 20000  # 109 KB by a UART: long on a busy host


def test_background_jobs_may_end_at_any_moment(guest: Guest) -> None:
    """Most of them end while the shell waits for input."""
    assert plain(guest.run("for n in $(seq 20); do (sleep 0.$n; touch /tmp/job.$n) & done").output) == ""
    until("the end of all jobs", lambda: plain(guest.run("ls /tmp/job.* | wc -l").output) == "20\n")
    assert guest.run("wait; jobs; rm /tmp/job.*").status == 0
    guest.write("(sleep 0.1; echo; echo over) &\r")
    guest.expect("^over")
    guest.write("echo still $((40+2))\r")
    guest.expect("still 42")


def test_a_command_that_was_given_up_before_it_ran_does_not_run(guest: Guest) -> None:
    guest.write("read -r x\r")
    with pytest.raises(GuestTimeoutError, match="touch"):
        guest.run("touch /tmp/late", timeout=0.5)
    assert plain(guest.run("ls /tmp").output) == ""


def test_a_command_that_takes_too_long_can_be_left(guest: Guest) -> None:
    with pytest.raises(GuestTimeoutError, match="sleep 20"):
        guest.run("sleep 20", timeout=0.5)
    guest.write("\x03")
    assert plain(guest.run("echo back").output) == "back\n"


def test_expect_takes_what_is_typed(guest: Guest) -> None:
    guest.run("true")
    guest.write("echo $((40+2))x\r")
    assert guest.expect(r"(\d+)x$", 10)[1] == "42"
    with pytest.raises(GuestTimeoutError, match="'never'"):
        guest.expect("never", 0.1)


def test_cpus_go_and_come(guest: Guest) -> None:
    online = "/sys/devices/system/cpu/cpu1/online"
    assert guest.run(f"echo 0 >{online}").status == 0
    assert guest.status()["pes"][1]["power"] == "off"
    assert plain(guest.run("nproc").output) == "1\n"
    assert guest.run(f"echo 1 >{online}").status == 0
    assert guest.status()["pes"][1]["power"] == "on"
    assert plain(guest.run("nproc").output) == "2\n"


def test_qmp(guest: Guest) -> None:
    assert guest.qmp("query-status")["running"] is True
    assert repr(guest).startswith(f"<Guest {guest.name!r}: running, {guest.options.smp} vCPU")
    with pytest.raises(GuestError, match="no_such"):
        guest.qmp("no_such")


def test_an_event_without_a_handler_says_why(guest: Guest) -> None:
    with pytest.raises(SdeiError, match=r"event 0x0 .* is not registered on PE 1"):
        guest.inject(0, 1)
    with pytest.raises(UsageError, match="no event"):
        guest.inject(0x12345, 0)


def test_a_killed_backend_is_replaced(guest: Guest) -> None:
    starts = guest.backend_starts
    for _ in range(3):
        pid = guest.backend_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert guest.status()["epoch"] >= 1
        assert (
            guest.run(
                "echo 0 >/sys/devices/system/cpu/cpu1/online && echo 1 >/sys/devices/system/cpu/cpu1/online"
            ).status
            == 0
        )
        until("the new backend", lambda old=pid: guest.backend_pid != old)
    assert guest.backend_starts == starts + 3


def test_a_stopped_backend_is_told_and_goes_on(guest: Guest) -> None:
    pid = guest.backend_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        with guest.client() as client:
            client.timeout = 0.5  # for its greeting, too
            with pytest.raises(GuestTimeoutError, match="did not answer"):
                client.request("status")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert guest.status()["name"] == "shared"


def test_reset_reboot_poweroff(runtime: os.PathLike[str]) -> None:
    with Guest(GuestOptions()) as guest:
        guest.run("touch /tmp/here")
        guest.reset()
        assert plain(guest.run("ls /tmp").output) == ""
        assert guest.status()["epoch"] == 2
        guest.write("reboot\r")
        guest.expect("reboot: Restarting system", 30)
        assert plain(guest.run("echo again").output) == "again\n"
        assert [(reset["guest"], reset["reason"]) for reset in guest.resets] == [
            (False, "host-qmp-system-reset"),
            (True, "guest-reset"),
        ]
        assert guest.status()["epoch"] == 3
        end = guest.poweroff()
        assert (end.reason, end.guest, end.returncode) == ("guest-shutdown", True, 0)
        with pytest.raises(LostGuestError, match="has ended"):
            guest.status()
        with pytest.raises(LostGuestError):
            guest.expect("never", 5)


def test_a_panic_is_told_unless_it_is_wanted(runtime: os.PathLike[str]) -> None:
    with Guest(GuestOptions()) as guest:
        guest.wait_shell()
        with pytest.raises(GuestPanicError, match="sysrq triggered crash") as error:
            guest.run("echo c >/proc/sysrq-trigger")
        assert error.value.exit_code == 255
        assert any("Call trace" in line for line in error.value.console)
        with pytest.raises(GuestPanicError):
            guest.run("true")
        guest.expect("Kernel panic - not syncing", 5)
        guest.reset()
        assert plain(guest.run("echo alive").output) == "alive\n"


def test_a_dead_qemu_is_told_at_once(runtime: os.PathLike[str]) -> None:
    with Guest(GuestOptions()) as guest:
        guest.wait_shell()
        assert guest.qemu_pid is not None
        os.kill(guest.qemu_pid, signal.SIGKILL)
        with pytest.raises(LostGuestError, match="QEMU was killed by SIGKILL while waiting for") as error:
            guest.run("sleep 1000", timeout=100)
        assert "-machine" in error.value.command
        assert guest.power_off is not None
        assert guest.power_off.returncode == -signal.SIGKILL
        assert f": ended ({guest.power_off.reason}), 2 vCPUs" in repr(guest)


def test_a_dead_qemu_is_told_to_whoever_asks_the_firmware(runtime: os.PathLike[str]) -> None:
    """From the first moment on: its run directory goes before its end is known, and is not what ended it."""
    with Guest(GuestOptions(kernel="builtin:bench", append="mode=idle", memory="64M")) as guest:
        guest.expect("idle: ready")
        assert guest.qemu_pid is not None
        directory = rundir.find(guest.name).path
        os.kill(guest.qemu_pid, signal.SIGKILL)
        until("its directory is gone", lambda: not directory.exists())
        for _ in range(2):
            with pytest.raises(LostGuestError, match="QEMU was killed by SIGKILL") as error:
                guest.inject(0, 0)
            assert "-machine" in error.value.command


def test_a_backend_that_cannot_start_is_given_up(runtime: os.PathLike[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(SdeiError, match="the backend ended with status 1 5 times in a row before it served anything"):
        Guest(GuestOptions(kernel="builtin:selftest")).start()


@pytest.mark.slow  # with and without VHE in test_cpus.py
@pytest.mark.parametrize("cpu", ["cortex-a53", "max"])
def test_el2_for_the_guest(runtime: os.PathLike[str], cpu: str) -> None:
    with Guest(GuestOptions(cpu=cpu, virtualization=True)) as guest:
        assert "started at EL2" in guest.run("dmesg | grep 'CPU: All'").output


def test_the_trace_is_complete(runtime: os.PathLike[str], tmp_path: Path) -> None:
    with Guest(GuestOptions(trace=tmp_path / "trace")) as guest:
        guest.poweroff()
    with open_trace(tmp_path / "trace") as reading:
        names = [record["function"] for record in reading.records() if record["type"] == "call"]
    assert "PSCI_VERSION" in names
    assert names[-1] == "SYSTEM_OFF"


def test_ram_in_a_file_has_no_name(runtime: os.PathLike[str], tmp_path: os.PathLike[str]) -> None:
    options = GuestOptions(kernel="builtin:bench", append="mode=idle", memory="64M", memory_path=os.fspath(tmp_path))
    with Guest(options) as guest:
        guest.expect("idle: ready")
        assert os.listdir(tmp_path) == []  # noqa: PTH208
