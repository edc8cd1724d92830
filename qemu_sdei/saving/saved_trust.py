"""What of this host a saved guest wants: what a guest from another host may not have, unless its user says so.

Whoever made the directory wrote the options in it. What runs inside the guest is the guest's, its EL3 monitor
(`monitor.bin`) too: QEMU and the backend trust neither, as they trust no RAM.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from qemu_sdei.boot.config import BUILTIN
from qemu_sdei.config import GuestConfig
from qemu_sdei.errors import UntrustedError
from qemu_sdei.host.environment import QEMU_NAME
from qemu_sdei.vm.options import GuestOptions


def wanted(options: GuestOptions, config: GuestConfig, *, initrd: bool) -> list[str]:
    """What a guest with these options uses of this host, one line each; `initrd`: its initrd is in the directory."""
    found = [f"program: QEMU {options.qemu}"] if options.qemu is not None and not _is_default(options.qemu) else []
    found += [f"program: service {path}, which is run" for path in options.services]
    if options.qemu_args:
        found.append(f"program: options for QEMU, which can do all that you can: {shlex.join(options.qemu_args)}")
    found += [f"drive: {text}" for text in options.drives]
    found += [f"share: {text}" for text in options.shares]
    if options.kdump is not False:
        found.append(f"file: {options.vmcore or 'vmcore, in the working directory'}, which a crash is written to")
    if options.net or options.forwards:
        ports = f", and ports of this host: {', '.join(options.forwards)}" if options.forwards else ""
        found.append(f"network: the guest reaches what this host reaches, its loopback included{ports}")
    if options.memory_path is not None:
        found.append(f"directory: {options.memory_path}, for a file with its RAM")
    kernel, own_initrd = str(config.boot.get("kernel")), config.boot.get("initrd")
    # Of anything but an arm64 kernel, which is looked at, a reset would tell the guest what is in it.
    if config.boot.get("kind") == "flat" and not kernel.startswith(BUILTIN):
        found.append(f"file: {kernel}, which a reset loads into the guest")
    found += [f"file: {options.uefi_vars}, for UEFI's variables"] if options.uefi_vars is not None else []
    if own_initrd is not None and not initrd:
        found.append(f"file: {own_initrd}, which a reset loads into the guest")
    return found


def check(path: Path, wants: list[str]) -> None:
    """Raise `UntrustedError` if the guest in `path` wants anything."""
    if wants:
        raise UntrustedError(
            f"the guest saved in {path} wants programs, devices or files of this host: if you know who made it, give "
            "--trust (in Python: trust=True)",
            wants,
        )


def _is_default(qemu: str | Path) -> bool:
    here = shutil.which(QEMU_NAME)
    return here is not None and Path(qemu).resolve() == Path(here).resolve()
