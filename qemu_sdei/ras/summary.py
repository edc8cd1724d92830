"""What happened, in one line."""

from __future__ import annotations

from qemu_sdei.ras.fields import Field
from qemu_sdei.ras.kinds import Section
from qemu_sdei.ras.structure import Structure


def summary(section: Section) -> str:
    """Such as "Memory Error Section: Multi-bit ECC, physical address 0x41e78000"."""
    parts = []
    for name in section.kind.headline:
        item = section.body.table.by_name.get(name)
        if not isinstance(item, Field) or not section.body.valid(item):
            continue
        value = section.body[name]
        number = f"{value:#x}" if item.hexadecimal and isinstance(value, int) else str(value)
        parts.append(item.meaning(value) or f"{item.title} {number}")
    for each in section.body.values.get("error_information", ()):
        kind = each.table["type"]
        assert isinstance(kind, Field)
        parts.append(kind.meaning(each["type"]) or f"error type {each['type']:#x}")
    device = section.body.values.get("device_id")
    if isinstance(device, Structure) and section.body.valid(section.body.table["device_id"]):
        parts += _address(device)
    return section.kind.table.title + (": " + ", ".join(parts) if parts else "")


def _address(device: Structure) -> list[str]:
    """Where a device is, as Linux and lspci write it: 0000:00:01.0."""
    bus = device.values.get("primary_bus_number", device.values.get("bus_number"))
    if bus is None:
        return []
    place = f"{device['segment_number']:04x}:{bus:02x}:{device['device_number']:02x}.{device['function_number']:x}"
    return [place]
