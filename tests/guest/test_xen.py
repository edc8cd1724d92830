"""Xen at EL2 with a dom0, as docs/howto/boot-xen.md says: what dom0 runs, and whose calls come to the firmware."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from qemu_sdei import Guest, GuestOptions
from qemu_sdei.cli import make_parser
from qemu_sdei.errors import UsageError
from qemu_sdei.host.debian import DebianCache
from tests.guest.guests import check_nothing_left

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(300)]

PAGE = (Path(__file__).resolve().parents[2] / "docs/howto/boot-xen.md").read_text()
PACKAGE = "xen-hypervisor-4.17-arm64"
BOOT = 200.0
"""Seconds: two kernels, one above the other, on a busy host."""


@pytest.fixture(scope="module")
def xen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's; skipped where its package cannot be had."""
    assert PACKAGE in PAGE
    folder: Path = tmp_path_factory.mktemp("xen")
    try:
        package = DebianCache().package(PACKAGE)
    except UsageError as error:
        pytest.skip(str(error))
    subprocess.run(["dpkg-deb", "--extract", str(package), str(folder)], check=True, timeout=60)
    return folder / "boot/xen-4.17-arm64"


def test_dom0_comes_to_its_shell_and_xen_answers_its_calls(xen: Path, linux: Path, runtime: Path) -> None:
    (line,) = re.findall(r"^    qemu-sdei (run (?:.*\\\n)+.*) -- uname -r$", PAGE, re.MULTILINE)
    args = make_parser().parse_args(shlex.split(line.replace("\\\n", "").replace("kernel=Image", f"kernel={linux}")))
    (device,) = args.qemu_arg
    options = GuestOptions(
        kernel=str(xen),
        virtualization=args.virtualization,
        memory=args.memory,
        smp=int(args.smp),
        append=args.append,
        qemu_args=shlex.split(device),
        boot_timeout=BOOT,
    )
    with Guest(options) as guest:
        guest.wait_shell(BOOT)
        assert "(XEN) Brought up 2 CPUs" in guest.console
        said = guest.run("dmesg", BOOT).output
        assert "sdei: Failed to get SDEI version: -95" in said
        assert guest.run("cd /sys/devices/system/cpu/cpu1 && echo 0 >online && echo 1 >online", BOOT).status == 0
        calls = [vcpu["calls"] for vcpu in guest.status()["pes"]]
        assert calls[0]["CPU_ON"] == 1
        made = set().union(*calls)
        assert "CPU_OFF" not in made, "dom0's are Xen's"
        assert not [name for name in made if name.startswith("SDEI_")]
    check_nothing_left(runtime)
