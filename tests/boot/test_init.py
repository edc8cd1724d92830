"""The initramfs's init in a stock Debian kernel, booted by plain QEMU: nothing of our firmware is needed for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pexpect
import pytest

from qemu_sdei.boot import initramfs
from qemu_sdei.host.debian import DebianCache

pytestmark = pytest.mark.guest

NONCE = "n0nce"


def boot(tmp_path: Path, command: Sequence[str] | None, **extra: bytes) -> pexpect.spawn[bytes]:
    """A guest on a pipe-like terminal; it ends when the guest powers off."""
    cache = DebianCache()
    archive = tmp_path / "initramfs"
    data = cache.busybox().read_bytes()
    archive.write_bytes(initramfs.build(data, command=command, nonce=NONCE, extra_files=extra))
    arguments = ["-machine", "virt", "-cpu", "cortex-a57", "-m", "256M", "-nodefaults", "-display", "none"]
    arguments += ["-chardev", "stdio,id=c,signal=off", "-serial", "chardev:c", "-no-reboot"]
    arguments += ["-kernel", str(cache.kernel().image), "-initrd", str(archive)]
    arguments += ["-append", "console=ttyAMA0 quiet panic=-1 TERM=vt220"]
    return pexpect.spawn("qemu-system-aarch64", arguments, timeout=30, echo=False)


def marker(text: str) -> str:
    return re.escape(f"\x1eqemu-sdei:{NONCE}:{text}\x1e")


def run(tmp_path: Path, *command: str, **extra: bytes) -> tuple[str, int]:
    """Output and exit status of a command, with the newlines that the guest wrote."""
    guest = boot(tmp_path, command, **extra)
    try:
        guest.expect(marker("begin") + "\r*\n")
        guest.expect("\x1eqemu-sdei:" + NONCE + ":exit:([0-9]+)\x1e")
        assert isinstance(guest.match, re.Match)
        assert isinstance(guest.before, bytes)
        status = int(guest.match[1])
        output = guest.before.decode()
        guest.expect(pexpect.EOF)  # it powers itself off
    finally:
        guest.close(force=True)
    # The host's terminal puts a CR before every newline.
    return output.replace("\r\n", "\n"), status


@pytest.mark.slow  # by `qemu-sdei run` as well (tests/guest/test_run.py)
def test_output_is_the_commands_alone_and_its_status_comes_back(tmp_path: Path) -> None:
    output, status = run(tmp_path, "echo '<3>noise' >/dev/kmsg; printf 'one\\ntwo'; exit 42")
    assert (output, status) == ("one\ntwo", 42)


def test_all_output_arrives_before_the_power_goes(tmp_path: Path) -> None:
    output, status = run(tmp_path, "seq", "1", "4000")
    assert output == "".join(f"{number}\n" for number in range(1, 4001))
    assert status == 0


def test_the_command_has_a_usual_surrounding(tmp_path: Path) -> None:
    script = "set -e; cat </dev/stdin; cat /root/file; mount | cut -d' ' -f3 | sort | tr '\\n' ' '; pwd; nosuchprogram"
    output, status = run(tmp_path, script, **{"root/file": b"from outside\n"})
    lines = output.splitlines()
    assert lines[0] == "from outside"
    assert lines[1] == "/ /dev /proc /run /sys /tmp /root"
    assert status == 127


@pytest.mark.slow  # by `qemu-sdei run` as well
def test_a_panic_is_seen_although_kernel_messages_are_off(tmp_path: Path) -> None:
    guest = boot(tmp_path, ["echo c >/proc/sysrq-trigger"])
    try:
        guest.expect(marker("begin"))
        guest.expect("Kernel panic - not syncing: sysrq triggered crash")
        guest.expect(pexpect.EOF)
    finally:
        guest.close(force=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [pytest.param("poweroff", "reboot: Power down", marks=pytest.mark.slow), ("reboot", "reboot: Restarting system")],
)
def test_power_commands_work_by_their_names(tmp_path: Path, name: str, said: str) -> None:
    guest = boot(tmp_path, [f"echo 7 >/proc/sys/kernel/printk; echo last words; {name}; sleep 1000"])
    try:
        guest.expect("last words")
        guest.expect(said)
        guest.expect(pexpect.EOF)
    finally:
        guest.close(force=True)


def test_interactive_shell(tmp_path: Path) -> None:
    guest = boot(tmp_path, None)
    try:
        guest.expect(marker("shell"))
        guest.expect("guest# ")
        # The program itself says that it runs: a ^C before that may meet a shell that is not waiting for it yet.
        guest.sendline("sh -c 'echo s1$((1+1))3; exec sleep 1000'")
        guest.expect("s123")
        guest.sendcontrol("c")  # job control: the shell lives on
        guest.expect("guest# ")
        guest.sendline("echo status $?")
        guest.expect(r"status 130\s")
        guest.sendline("kill -9 $$")  # another one takes its place
        guest.expect("Killed")
        guest.expect("guest# ")
        guest.sendline("stty -echo; echo r$((2+1))ady")
        guest.expect("r3ady")
        guest.sendline("echo $TERM o$((1+1))k")
        guest.expect("guest# (?P<rest>.*)vt220 o2k")
        assert isinstance(guest.match, re.Match)
        assert b"echo" not in guest.match["rest"]
        guest.sendline("exit")
        guest.expect(pexpect.EOF)
    finally:
        guest.close(force=True)
