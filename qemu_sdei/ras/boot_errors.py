"""The region that a BERT names: errors of the boot before, which the next kernel prints (ACPI 6.5 18.3.1)."""

from __future__ import annotations

from collections.abc import Sequence

from qemu_sdei.errors import CperError
from qemu_sdei.ras.block import Block


def region(blocks: Sequence[Block], size: int) -> bytes:
    """The bytes of a boot error region with these blocks; `ras.block.parse_blocks` reads it.

    Args:
        blocks: each without bytes behind its raw data, as `ras.block.block` makes it.
        size: of the region, in bytes.

    Raises:
        CperError: they do not fit, or one has no entry: Linux takes that for the end of the region.
    """
    for number, each in enumerate(blocks):
        if not each.entries:
            raise CperError("it has no entry: a reader takes it for the end", field=f"blocks[{number}]")
    data = b"".join(each.pack()[: each.size] for each in blocks)
    if len(data) > size:
        raise CperError(f"{len(data)} bytes do not fit into a region of {size}", field="blocks")
    return data.ljust(size, b"\0")
