"""Make QEMU's device tree the one that a kernel above Python-hosted firmware should see.

QEMU's `virt,secure=on` leaves firmware to describe itself: its tree has no `/psci` and no `enable-method` on the CPUs,
and it lists what belongs to the Secure world (`secram`, `secure-chosen`, devices with `status = "disabled"` and
`secure-status = "okay"`).
"""

from __future__ import annotations

import copy

from qemu_sdei.acpi.dt_firmware import Conduit, announce, available, cpus, difference, is_overlay
from qemu_sdei.acpi.errors import DtError
from qemu_sdei.acpi.fdt import Node, Tree, flatten, parse, total_size


def patch(
    dtb: bytes | bytearray | memoryview,
    *,
    nr_cpus: int,
    conduit: Conduit,
    memory: tuple[int, int],
    bootargs: str,
    initrd: tuple[int, int] | None = None,
    sdei: bool = True,
    psci: bool = True,
) -> bytes:
    """Return `dtb` with the firmware's nodes added and the Secure world's taken out.

    Args:
        dtb: QEMU's tree; bytes after its end are ignored.
        nr_cpus: how many CPU nodes the tree must have.
        conduit: `method` of `/psci` and `/firmware/sdei`.
        memory: (base, size) in bytes; what lies outside is taken out of the memory nodes.
        bootargs: `/chosen/bootargs`, replacing what was there.
        initrd: (start, end) physical addresses, end exclusive; None for no initrd.
        sdei: add `/firmware/sdei` (Documentation/devicetree/bindings/arm/firmware/sdei.txt).
        psci: add `/psci` and set `enable-method` on every CPU (bindings/arm/psci.yaml, arm/cpus.yaml).

    The result's size does not depend on the addresses in `initrd`.

    Raises:
        DtError: the tree is damaged, has another number of CPUs, or none of its memory lies in `memory`.
    """
    tree = parse(dtb)
    root = tree.root
    root.children = [node for node in root.children if not _is_secure(node)]
    _clip_memory(root, *memory)
    if (count := len(cpus(root))) != nr_cpus:
        raise DtError(f"the device tree has {count} CPUs, not {nr_cpus}")
    announce(root, conduit=conduit, sdei=sdei, psci=psci)
    chosen = root.ensure("chosen")
    chosen.properties["bootargs"] = _command_line(bootargs)
    for name, index in (("linux,initrd-start", 0), ("linux,initrd-end", 1)):
        if initrd is None:
            chosen.properties.pop(name, None)
        else:
            chosen.properties[name] = initrd[index].to_bytes(8, "big")
    return flatten(tree)


def merge(dtb: bytes, *, conduit: Conduit, sdei: bool = True, psci: bool = True) -> bytes:
    """Return the blob `dtb`, of whatever machine, with the firmware's nodes in it; the rest stays as it is.

    Where they are there already, the result is `dtb` itself, byte for byte (without what follows its end).

    Raises:
        DtError: the tree is damaged, or an overlay.
    """
    tree = _machine(dtb)
    before = flatten(tree)
    announce(tree.root, conduit=conduit, sdei=sdei, psci=psci)
    after = flatten(tree)
    return bytes(dtb[: total_size(dtb)]) if after == before else after


def overlay_for(dtb: bytes, *, conduit: Conduit, sdei: bool = True, psci: bool = True) -> Node:
    """What an overlay for just this tree must say, below its root: `merge` as an overlay. Nothing: it has all of it.

    Raises:
        DtError: the tree is damaged or an overlay, or something in it must be taken out, which no overlay can.
    """
    tree = _machine(dtb)
    before = copy.deepcopy(tree.root)
    announce(tree.root, conduit=conduit, sdei=sdei, psci=psci)
    return difference(before, tree.root)


def _machine(dtb: bytes) -> Tree:
    tree = parse(dtb)
    if is_overlay(tree.root):
        raise DtError("it is an overlay, which has no machine in it: apply it to a tree first (fdtoverlay -i TREE)")
    return tree


def _command_line(text: str) -> bytes:
    try:
        data = text.encode(errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise DtError(f"the kernel command line is no text: {error}") from None
    if b"\0" in data:
        raise DtError("the kernel command line has a NUL character in it")
    return data + b"\0"


def _is_secure(node: Node) -> bool:
    """What kernels could trip over. Secure devices are left as QEMU has them, with status "disabled".

    Linux before 5.16 does not look at the status of a memory node: it would take secure SRAM for its own.
    """
    return node.name == "secure-chosen" or (node.text("device_type") == "memory" and not available(node))


def _cells(node: Node, name: str, default: int) -> int:
    value = node.properties.get(name)
    if value is None:
        return default
    if value not in (b"\0\0\0\1", b"\0\0\0\2"):
        raise DtError(f"the device tree's {name} is not 1 or 2")
    return value[3]


def _clip_memory(root: Node, base: int, size: int) -> None:
    """Take everything outside of [base, base + size) from the memory nodes; with NUMA there are several."""
    address_bytes = 4 * _cells(root, "#address-cells", 2)
    size_bytes = 4 * _cells(root, "#size-cells", 1)
    entry = address_bytes + size_bytes
    gone: set[int] = set()
    found = False
    for node in root.children:
        if node.text("device_type") != "memory":
            continue
        reg = node.properties.get("reg", b"")
        if not reg or len(reg) % entry:
            raise DtError(f"the device tree's /{node.name} has no usable reg property")
        kept = bytearray()
        for at in range(0, len(reg), entry):
            start = int.from_bytes(reg[at : at + address_bytes], "big")
            end = start + int.from_bytes(reg[at + address_bytes : at + entry], "big")
            start, end = max(start, base), min(end, base + size)
            if start < end:
                try:
                    kept += start.to_bytes(address_bytes, "big") + (end - start).to_bytes(size_bytes, "big")
                except OverflowError:
                    raise DtError(f"the device tree's /{node.name} has memory beyond its own address size") from None
        node.properties["reg"] = bytes(kept)
        if kept:
            found = True
        else:
            gone.add(id(node))
    if not found:
        raise DtError(f"the device tree has no memory between {base:#x} and {base + size:#x}")
    root.children = [node for node in root.children if id(node) not in gone]
