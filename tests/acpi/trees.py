"""Device trees to test with: QEMU's own, and small ones made here."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path

from qemu_sdei.acpi.fdt import Node, Tree, flatten

RAM_BASE = 0x4000_0000
GIB = 1 << 30


@cache
def qemu_tree(nr_cpus: int = 2, *options: str) -> bytes:
    """What QEMU itself puts into RAM for a machine whose firmware we are (it exits before it runs anything)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "qemu.dtb"
        firmware = Path(folder) / "firmware"
        firmware.write_bytes(bytes(16))
        machine = ",".join(["virt,secure=on,gic-version=3", f"dumpdtb={path}"])
        subprocess.run(
            ["qemu-system-aarch64", "-machine", machine, "-bios", str(firmware), "-cpu", "max", "-nodefaults",
             "-display", "none", "-smp", str(nr_cpus), "-m", "1G", *options],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        return path.read_bytes()


def small_tree(nr_cpus: int = 1, *, memory: bytes | None = None) -> Tree:
    """The least that `patch` takes: memory and CPUs."""
    root = Node("", {"#address-cells": b"\0\0\0\2", "#size-cells": b"\0\0\0\2"})
    node = root.ensure("memory@40000000")
    node.set_text("device_type", "memory")
    node.properties["reg"] = RAM_BASE.to_bytes(8, "big") + GIB.to_bytes(8, "big") if memory is None else memory
    cpus = root.ensure("cpus")
    for number in range(nr_cpus):
        cpu = cpus.ensure(f"cpu@{number:x}")
        cpu.set_text("device_type", "cpu")
        cpu.properties["reg"] = number.to_bytes(4, "big")
    return Tree(root)


def small_dtb(nr_cpus: int = 1, *, memory: bytes | None = None) -> bytes:
    """`small_tree` as bytes."""
    return flatten(small_tree(nr_cpus, memory=memory))
