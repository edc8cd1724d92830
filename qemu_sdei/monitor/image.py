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

IMAGE_MAGIC: Final = 0x334E_4F4D_4945_4453  # "SDEIMON3"
_OLDER: Final = {0x314E_4F4D_4945_4453: 2, 0x324E_4F4D_4945_4453: 3}
"""SDEIMON1 and SDEIMON2 do not say their version of the frame window. The first had versions 1 and 2."""
_CONFIG: Final = struct.Struct("<QQQQ")  # magic, window base, CPUs, second redistributor region
_CONFIG_OFFSET: Final = 8
_WORD: Final = struct.Struct("<Q")
_PROOF_OFFSET: Final = _CONFIG_OFFSET + _CONFIG.size
_VERSION_OFFSET: Final = _PROOF_OFFSET + _WORD.size
REDISTRIBUTOR_REGION_2 = 0x40_0000_0000
"""Where QEMU's `virt` puts the redistributors of CPU 123 and up, for RAM below 255 GiB."""


def blob() -> bytes:
    """The monitor as shipped, unpatched. Raises `UsageError`: it is damaged."""
    return blobs.read("monitor")


def patched(window_base: int, nr_cpus: int, image: bytes | None = None) -> bytes:
    """The monitor for a guest whose window lies at physical address `window_base`. It has no proof yet.

    Raises:
        ProtocolError: `image` is not a monitor that this program serves.
    """
    data = bytearray(blob() if image is None else image)
    version_of(data)
    if not 1 <= nr_cpus <= layout.MAX_CPUS:
        raise ValueError(f"nr_cpus {nr_cpus} is not in 1..{layout.MAX_CPUS}")
    _CONFIG.pack_into(data, _CONFIG_OFFSET, _magic(data), window_base, nr_cpus, REDISTRIBUTOR_REGION_2)
    return bytes(data)


def with_proof(image: bytes) -> bytes:
    """A patched monitor with a proof of its own: a random number that its guest cannot read, and that it shows to the
    backend at each reset of the machine.

    Raises:
        ProtocolError: `image` is not a monitor that this program serves.
    """
    data = bytearray(image)
    version_of(data)
    _WORD.pack_into(data, _PROOF_OFFSET, secrets.randbits(64) | 1)
    return bytes(data)


def proof_of(image: bytes) -> int:
    """The proof in a monitor; 0: it has none.

    Raises:
        ProtocolError: `image` is not a monitor that this program serves.
    """
    version_of(image)
    return int(_WORD.unpack_from(image, _PROOF_OFFSET)[0])


def version_of(image: bytes | bytearray) -> int:
    """The version of the frame window that a monitor was built for, `layout.OLDEST` to `layout.VERSION`.

    Raises:
        ProtocolError: `image` is no monitor, or of a version that this program does not serve.
    """
    magic = _magic(image)
    version = _OLDER[magic] if magic in _OLDER else int(_WORD.unpack_from(image, _VERSION_OFFSET)[0])
    if not layout.OLDEST <= version <= layout.VERSION:
        raise ProtocolError(
            f"its EL3 monitor has frame window {version}, and this program knows {layout.OLDEST} to {layout.VERSION}: "
            "use the version of qemu-sdei that it was started with"
        )
    return version


def _magic(image: bytes | bytearray) -> int:
    if len(image) < _VERSION_OFFSET + _WORD.size:
        raise ProtocolError(f"monitor image: {len(image)} bytes are too few")
    magic = int(_CONFIG.unpack_from(image, _CONFIG_OFFSET)[0])
    if magic != IMAGE_MAGIC and magic not in _OLDER:
        raise ProtocolError(
            f"monitor image: no {IMAGE_MAGIC:#x} at offset {_CONFIG_OFFSET}; is this a qemu-sdei monitor?"
        )
    return magic
