"""Drivers that Debian's kernels have as modules and our own initramfs needs: virtio disks, network and 9p, ext4.

They come from the kernel's own package, from its build tree, or from where `make modules_install` has put them. A
package has no modules.dep (its installation makes that), so each module is asked what it depends on.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from qemu_sdei import compressed, untrusted_files
from qemu_sdei.errors import UsageError
from qemu_sdei.host.unpack import damaged, read_sums

DISK: Final = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")
"""ext4 asks the kernel's crypto library for crc32c by name, which no dependency tells."""
NET: Final = ("virtio_pci", "virtio_net")
CHANNEL: Final = ("virtio_pci", "virtio_console")
SHARE: Final = ("virtio_pci", "9pnet_virtio", "9p")

_MAX_FILES: Final = 400_000
_MAX_MODULE: Final = 128 << 20
"""Bytes; with debugging information some have 50 MiB."""
_MAX_ORDER: Final = 16 << 20
_FILE: Final = re.compile(r"([^/]{1,100})\.ko(?:\.(?:xz|gz|zst))?")
_DEPENDS: Final = re.compile(rb"\0depends=([^\0]*)")


def load_order(folder: Path, wanted: Iterable[str]) -> list[tuple[str, bytes]]:
    """Name and content (not compressed) of the modules `wanted` and of all they need, in the order to load them.

    What is not in `folder`, at any depth, is taken to be built into the kernel, if it is wanted by its own name.

    Raises:
        UsageError: a module that another one depends on is not there, or one is not what was unpacked.
    """
    sums = read_sums(folder)
    files = modules_in(folder, sums)
    order: dict[str, bytes] = {}

    def add(name: str, needed_by: str = "") -> None:
        if name in order:
            return
        if name not in files:
            if needed_by:
                raise UsageError(f"kernel module {needed_by} needs {name}, which is not in {folder}")
            return
        data = _content(files[name], sums)
        order[name] = b""  # two modules that need each other are damaged, and no reason to go on for ever
        found = _DEPENDS.search(data)
        for other in found[1].decode(errors="replace").split(",") if found else ():
            if other:
                add(other.replace("-", "_"), name)
        del order[name]
        order[name] = data

    for name in wanted:
        add(name)
    return list(order.items())


def modules_in(folder: Path, sums: Iterable[str] = ()) -> dict[str, Path]:
    """The modules' files below `folder` by their names, links to directories not followed; with those that `sums` says
    were once there, because what was unpacked and is gone is not built into the kernel.

    Raises:
        UsageError: there are too many files in it.
    """
    found = {_name(name): folder / name for name in sums if _FILE.fullmatch(name)}
    built = _built(folder)
    if built is not None:
        return found | built
    seen = 0
    for top, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            seen += 1
            if seen > _MAX_FILES:
                raise UsageError(f"{folder} has more than {_MAX_FILES} files: give the directory with the modules")
            if _FILE.fullmatch(name):
                found.setdefault(_name(name), Path(top, name))
    return found


def _built(tree: Path) -> dict[str, Path] | None:
    """The modules of a build tree, which has a list of them (modules.order), so that its 100,000 files need not be
    looked at; None: it is none.
    """
    order = tree / "modules.order"
    if not ((tree / "Makefile").is_file() and order.is_file()):
        return None
    text = untrusted_files.read(order.resolve(), _MAX_ORDER).decode("utf-8", "replace")
    # Since 6.2 it names the objects.
    files = (tree / f"{line.rpartition('.')[0]}.ko" for line in text.splitlines() if line.endswith((".o", ".ko")))
    return {_name(file.name): file for file in files if ".." not in file.parts and file.is_file()}


def _name(name: str) -> str:
    return name.partition(".ko")[0].replace("-", "_")


def _content(file: Path, sums: dict[str, str]) -> bytes:
    # What was unpacked here can be deleted and made again; what is the user's is theirs.
    wrong = damaged(file, file.parent) if sums else UsageError(f"kernel module {file} is damaged")
    try:
        data = untrusted_files.read(file.resolve(), _MAX_MODULE)
    except UsageError as error:
        raise wrong if sums else error from None
    if sums and hashlib.sha256(data).hexdigest() != sums.get(file.name):
        raise wrong
    method = compressed.method_of_name(file.name)
    if method is None:
        return data
    try:
        return compressed.decompress(method, data, str(file), _MAX_MODULE, "kernel module")
    except UsageError as error:
        raise error if "zstd: " in str(error) else wrong from None
