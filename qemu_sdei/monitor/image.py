"""The EL3 monitor's image, patched for one guest.

The blob is built once (`python -m qemu_sdei.guestbuild`) and holds a few configuration words at a fixed place, so
that no guest needs a compiler.
"""

from __future__ import annotations

import secrets
import struct
from typing import Final

from qemu_sdei import blobs
from qemu_sdei.errors import ProtocolError
from qemu_sdei.monitor import layout

IMAGE_MAGIC: Final = 0x324E_4F4D_4945_4453  # "SDEIMON2"
_WITHOUT_PROOF: Final = 0x314E_4F4D_4945_4453
""""SDEIMON1": what guests bring that were saved before there was a proof."""
_CONFIG: Final = struct.Struct("<QQQQ")  # magic, window base, CPUs, second redistributor region
_CONFIG_OFFSET: Final = 8
_PROOF: Final = struct.Struct("<Q")
_PROOF_OFFSET: Final = _CONFIG_OFFSET + _CONFIG.size
REDISTRIBUTOR_REGION_2 = 0x40_0000_0000
"""Where QEMU's `virt` puts the redistributors of CPU 123 and up, for RAM below 255 GiB."""


OLDER: Final = {1: "monitor-1", 2: "monitor-2"}
"""By `layout.VERSION` of then, monitors of guests that were saved before a saved guest had its own beside it."""


def blob(older: int | None = None) -> bytes:
    """The monitor as shipped, unpatched; with `older`, that of `OLDER`. Raises `UsageError`: it is damaged."""
    return blobs.read("monitor" if older is None else OLDER[older])


def patched(window_base: int, nr_cpus: int, image: bytes | None = None) -> bytes:
    """The monitor for a guest whose window lies at physical address `window_base`. It has no proof yet.

    Raises:
        ProtocolError: `image` is not a monitor of this version.
    """
    data = bytearray(blob() if image is None else image)
    magic = _magic(data)
    if not 1 <= nr_cpus <= layout.MAX_CPUS:
        raise ValueError(f"nr_cpus {nr_cpus} is not in 1..{layout.MAX_CPUS}")
    _CONFIG.pack_into(data, _CONFIG_OFFSET, magic, window_base, nr_cpus, REDISTRIBUTOR_REGION_2)
    return bytes(data)


def with_proof(image: bytes) -> bytes:
    """A patched monitor with a proof of its own: a random number that its guest cannot read, and that it shows to the
    backend at each reset of the machine.

    Raises:
        ProtocolError: `image` is not a monitor of this version.
    """
    data = bytearray(image)
    if _magic(data) != IMAGE_MAGIC:
        raise ProtocolError("monitor image: one of an older version, which has no proof")
    _PROOF.pack_into(data, _PROOF_OFFSET, secrets.randbits(64) | 1)
    return bytes(data)


def proof_of(image: bytes) -> int:
    """The proof in a monitor; 0: it has none.

    Raises:
        ProtocolError: `image` is not a monitor.
    """
    return int(_PROOF.unpack_from(image, _PROOF_OFFSET)[0]) if _magic(image) == IMAGE_MAGIC else 0


def _magic(image: bytes | bytearray) -> int:
    if len(image) < _PROOF_OFFSET + _PROOF.size:
        raise ProtocolError(f"monitor image: {len(image)} bytes are too few")
    magic = int(_CONFIG.unpack_from(image, _CONFIG_OFFSET)[0])
    if magic not in (IMAGE_MAGIC, _WITHOUT_PROOF):
        raise ProtocolError(
            f"monitor image: no {IMAGE_MAGIC:#x} at offset {_CONFIG_OFFSET}; is this a qemu-sdei monitor?"
        )
    return magic
