"""Boot of a bare-metal binary: the selftest, the conformance guest, a user's own.

The binary is linked to run at 2 MiB above the start of RAM and entered at its first byte, MMU off, with the device
tree's address in X0 and that of a NUL-terminated command line in X1. Both lie in the last 2 MiB of its memory. The
device tree is at the start of RAM too, where QEMU has put its own: firmware made for QEMU (U-Boot) looks there. What
lies behind the binary is not cleared: a binary with a BSS clears it itself.
"""

from __future__ import annotations

from functools import lru_cache

from qemu_sdei import blobs
from qemu_sdei.boot.config import BUILTIN, BootConfig, Entry
from qemu_sdei.boot.image import read_file
from qemu_sdei.boot.load_addresses import BLOCK, align_up, too_small
from qemu_sdei.boot.tree import check_ram, firmware_tree
from qemu_sdei.errors import UsageError


@lru_cache(maxsize=2)
def _binary(kernel: str) -> bytes:
    if not kernel.startswith(BUILTIN):
        return read_file(kernel, "guest binary")
    name = kernel.removeprefix(BUILTIN)
    if not name.isidentifier() or name not in blobs.guests():
        have = ", ".join(BUILTIN + known for known in blobs.guests()) or "none"
        raise UsageError(f"{kernel}: no such guest in this package; there are: {have}")
    return blobs.read(name)


def _places(config: BootConfig, binary: bytes) -> tuple[int, int]:
    """Physical addresses of the binary and of the block with device tree and command line."""
    start = align_up(config.ram_base + BLOCK, BLOCK)
    top = (config.ram_base + config.usable_size - BLOCK) & -BLOCK
    if start + len(binary) > top:
        need = start + len(binary) + 2 * BLOCK - config.ram_base
        raise too_small(f"the guest binary needs {need >> 20} MiB of memory", need, config.usable_size)
    return start, top


def check(config: BootConfig) -> None:
    """Find what is wrong with binary and memory before a guest is started.

    Raises:
        UsageError: see `load`.
    """
    _places(config, _binary(config.kernel))


def code_range(config: BootConfig) -> tuple[int, int]:
    """Physical address and size in bytes of what `load` writes that the guest will execute."""
    binary = _binary(config.kernel)
    return _places(config, binary)[0], len(binary)


def load(ram: memoryview, config: BootConfig) -> Entry:
    """Write binary, device tree and command line into `ram`, and say where the boot CPU starts.

    Raises:
        UsageError: the binary cannot be read, or memory is too small.
        GuestError: QEMU's device tree is not at the start of RAM, or not this machine's.
    """
    check_ram(ram, config)
    binary = _binary(config.kernel)
    start, block = _places(config, binary)
    tree = firmware_tree(ram, config)
    command_line = config.append.encode(errors="surrogateescape") + b"\0"
    x1 = block + align_up(len(tree), 16)
    if x1 + len(command_line) > block + BLOCK:
        raise UsageError("device tree and command line together do not fit into 2 MiB: make the command line shorter")
    for address, data in ((config.ram_base, tree), (start, binary), (block, tree), (x1, command_line)):
        offset = address - config.ram_base
        ram[offset : offset + len(data)] = data
    return Entry(pc=start, x0=block, x1=x1)
