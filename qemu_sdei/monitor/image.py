"""The EL3 monitor's image, patched for one guest.

The blob is built once (`python -m qemu_sdei.guestbuild`) and holds a few configuration words at a fixed place, so
that no guest needs a compiler.
"""

from __future__ import annotations

import struct
from importlib import resources
from typing import Final

from qemu_sdei.errors import ProtocolError
from qemu_sdei.monitor import layout

IMAGE_MAGIC = 0x314E_4F4D_4945_4453  # "SDEIMON1"
_CONFIG = struct.Struct("<QQQQ")  # magic, window base, CPUs, second redistributor region
_CONFIG_OFFSET = 8
REDISTRIBUTOR_REGION_2 = 0x40_0000_0000
"""Where QEMU's `virt` puts the redistributors of CPU 123 and up, for RAM below 255 GiB."""


OLDER: Final = {1: "monitor-1.bin", 2: "monitor-2.bin"}
"""By `layout.VERSION` of then, monitors of guests that were saved before a saved guest had its own beside it."""


def blob(older: int | None = None) -> bytes:
    """The monitor as shipped, unpatched; with `older`, that of `OLDER`."""
    return (resources.files("qemu_sdei") / "data" / ("monitor.bin" if older is None else OLDER[older])).read_bytes()


def patched(window_base: int, nr_cpus: int, image: bytes | None = None) -> bytes:
    """The monitor for a guest whose window lies at physical address `window_base`.

    Raises:
        ProtocolError: `image` is not a monitor of this version.
    """
    data = bytearray(blob() if image is None else image)
    if len(data) < _CONFIG_OFFSET + _CONFIG.size:
        raise ProtocolError(f"monitor image: {len(data)} bytes are too few")
    magic, _, _, _ = _CONFIG.unpack_from(data, _CONFIG_OFFSET)
    if magic != IMAGE_MAGIC:
        raise ProtocolError(
            f"monitor image: no {IMAGE_MAGIC:#x} at offset {_CONFIG_OFFSET}; is this a qemu-sdei monitor?"
        )
    if not 1 <= nr_cpus <= layout.MAX_CPUS:
        raise ValueError(f"nr_cpus {nr_cpus} is not in 1..{layout.MAX_CPUS}")
    _CONFIG.pack_into(data, _CONFIG_OFFSET, IMAGE_MAGIC, window_base, nr_cpus, REDISTRIBUTOR_REGION_2)
    return bytes(data)
