"""Boots of a Linux to the shell of our initramfs, beside those of plain QEMU: by device tree, ACPI and UEFI."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from qemu_sdei.boot import initramfs
from qemu_sdei.boot.config import BootConfig
from qemu_sdei.config import RAM_BASE
from qemu_sdei.host.debian import DebianCache
from qemu_sdei.monitor import layout
from qemu_sdei.uefi import image
from scripts.benchlib import launch

RAM: Final = 1 << 30
USUAL: Final = ("plain", "dt", "acpi", "edk2")
"""Plain QEMU, our device tree, our ACPI tables, and EDK II on plain QEMU."""
ABOVE_EL2: Final = ("plain", "hvc-dt", "edk2", "hvc-acpi", "hvc-uefi")
_NONCE: Final = "bench"
_LIMIT: Final = 240


def times(
    qemu: str, rounds: int, series: str, directory: Path, say: Callable[[str], None], wanted: Sequence[str] = USUAL
) -> dict[str, float]:
    """Median seconds from starting QEMU to the shell, of each way in `wanted`, one after the other in each round."""
    cache = DebianCache()
    kernel = cache.kernel(series).image
    archive = directory / "initrd"
    archive.write_bytes(initramfs.build(cache.busybox().read_bytes(), command=None, nonce=_NONCE))
    append = "console=ttyAMA0 quiet panic=-1"
    hidden = RAM_BASE + RAM - layout.window_base(RAM_BASE, RAM)
    config = BootConfig(
        kind="linux", kernel=str(kernel), initrd=str(archive), append=append,
        ram_size=RAM, hidden_size=hidden, nr_cpus=2,
    )  # fmt: skip
    acpi = dataclasses.replace(config, tables="acpi")
    edk2 = cache.uefi()
    uefi = dataclasses.replace(acpi, uefi=str(edk2), hidden_size=hidden + len(image.load(str(edk2))))
    sides: dict[str, Callable[[], AbstractContextManager[launch.Running]]] = {
        "plain": lambda: launch.plain(qemu, kernel, archive, append, RAM, 2),
        "dt": lambda: launch.guest(qemu, config),
        "acpi": lambda: launch.guest(qemu, acpi),
        "edk2": lambda: launch.plain(qemu, kernel, archive, append, RAM, 2, edk2),
        "hvc-dt": lambda: launch.guest(qemu, dataclasses.replace(config, conduit="hvc")),
        "hvc-acpi": lambda: launch.guest(qemu, dataclasses.replace(acpi, conduit="hvc")),
        "hvc-uefi": lambda: launch.guest(qemu, dataclasses.replace(uefi, conduit="hvc")),
    }
    found: dict[str, list[float]] = {side: [] for side in wanted}
    for n in range(rounds):
        for side in wanted:
            say(f"boot of {series} ({side}), round {n + 1} of {rounds}")
            with sides[side]() as guest:
                guest.expect(f"qemu-sdei:{_NONCE}:shell", _LIMIT)
                found[side].append(time.monotonic() - guest.started)
    return {side: statistics.median(values) for side, values in found.items()}


def measure_above_el2(
    qemu: str, rounds: int, say: Callable[[str], None], add: Callable[[str, str, float, float], None]
) -> None:
    """Boots above our EL2 beside those of plain QEMU of the same kind."""
    with tempfile.TemporaryDirectory() as name:
        for series in ("6.1", "6.12"):
            boot = times(qemu, rounds, series, Path(name), say, ABOVE_EL2)
            add(f"{series}: DT boot to shell (plain QEMU)", "s", boot["hvc-dt"], boot["plain"])
            add(f"{series}: ACPI boot to shell (EDK II)", "s", boot["hvc-acpi"], boot["edk2"])
            add(f"{series}: UEFI boot to shell (EDK II)", "s", boot["hvc-uefi"], boot["edk2"])
