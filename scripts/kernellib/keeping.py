"""What of a built kernel is kept, and put in its place at once: nobody ever finds half a kernel."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Final

from qemu_sdei import codec
from qemu_sdei.errors import UsageError
from qemu_sdei.host.own_kernels import DESCRIPTION, FILES, Description
from qemu_sdei.host.unpack import Unpacked, sha256, write, write_sums

_IN_THE_TREE: Final = {
    "Image": "arch/arm64/boot/Image",
    "vmlinux": "vmlinux",
    "config": ".config",
    "System.map": "System.map",
}
_MODULE_BUILD: Final = ("Makefile", "Module.symvers", ".config", "scripts", "include", "arch/arm64/Makefile",
                        "arch/arm64/include", "tools/include")  # fmt: skip
"""What kbuild needs to build a module: makefiles, its programs, headers, and what the kernel exports."""


def release(tree: Path) -> str:
    """What `uname -r` will say. Raises `OSError`."""
    return (tree / "include/config/kernel.release").read_text().strip()


def keep(tree: Path, whole: Path, target: Path, description: Description) -> None:
    """Collect what is kept of the built `tree` in `whole`, beside `target`, then rename that to `target`.

    Raises:
        UsageError: the tree has not what it must have.
        OSError: it cannot be written.
    """
    missing = [path for path in (*_IN_THE_TREE.values(), *_MODULE_BUILD) if not (tree / path).exists()]
    if missing:
        raise UsageError(f"the build left no {missing[0]}: delete {tree.parent}, and build again")
    shutil.rmtree(whole, ignore_errors=True)
    (whole / "build").mkdir(parents=True)
    sums = {}
    for name in FILES:
        shutil.copyfile(tree / _IN_THE_TREE[name], whole / name)
        sums[name] = Unpacked(whole / name, sha256(whole / name))
    for path in _MODULE_BUILD:
        copied = whole / "build" / path
        copied.parent.mkdir(parents=True, exist_ok=True)
        if (tree / path).is_dir():
            shutil.copytree(tree / path, copied, symlinks=True, ignore=_objects)
        else:
            shutil.copyfile(tree / path, copied)
    write(whole / DESCRIPTION, json.dumps(codec.to_data(description), indent=1).encode() + b"\n")
    write_sums(whole, sums)
    if target.exists():  # damaged, or it would have been found and not been built again
        shutil.rmtree(target)
    whole.rename(target)


def _objects(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name.endswith((".o", ".cmd", ".tmp"))]
