"""The same kernels booted by EDK II on plain QEMU: what an ACPI boot of ours is compared with."""

from __future__ import annotations

import re
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from qemu_sdei.boot import initramfs
from qemu_sdei.host.debian import DebianCache

LIMIT = 120.0
"""Seconds for a boot; it needs 5."""
BUSY = ("hrtimer: interrupt took", "perf: interrupt took too long", "clocksource: timekeeping watchdog")
"""Warnings of a host that has more to do than cores."""


@cache
def edk2_log(series: str, smp: int = 2, cpu: str = "cortex-a72") -> str:
    """The kernel's log with its levels (`dmesg -r`) of a plain EDK II boot by ACPI."""
    debian = DebianCache()
    command = ["sh", "-c", "dmesg -r; poweroff -f"]
    archive = initramfs.build(debian.busybox().read_bytes(), command=command, nonce="edk2", extra_files={})
    with tempfile.NamedTemporaryFile(prefix="edk2-") as initrd:
        Path(initrd.name).write_bytes(archive)
        done = subprocess.run(
            ["qemu-system-aarch64", "-machine", "virt,gic-version=3", "-cpu", cpu, "-smp", str(smp), "-m", "1G",
             "-nodefaults", "-display", "none", "-serial", "stdio", "-bios", str(debian.uefi()), "-no-reboot",
             "-kernel", str(debian.kernel(series).image), "-initrd", initrd.name,
             "-append", "earlycon console=ttyAMA0 panic=-1 quiet"],
            check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT,
        )  # fmt: skip
    log = done.stdout.decode(errors="replace").replace("\r", "")
    assert "ACPI: RSDP" in log, f"EDK II did not boot Linux by ACPI:\n{log[-2000:]}"
    return log


def warnings(log: str) -> set[str]:
    """What a log with levels has of level warning and worse, without times and numbers."""
    found = re.findall(r"^<[0-4]>\[ *[\d.]+\] (.*)$", log, re.MULTILINE)
    return {re.sub(r"\b(0x)?[0-9a-f]*\d[0-9a-f]*\b", "#", text) for text in found if not text.startswith(BUSY)}
