"""What a guest tells another host of itself before it leaves: machine, options, and the files that a reset needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qemu_sdei import __version__
from qemu_sdei import rundir as files
from qemu_sdei.backend.control import state_document
from qemu_sdei.config import GuestConfig
from qemu_sdei.errors import UsageError
from qemu_sdei.vm import travelling
from qemu_sdei.vm.options import BUILTIN, GuestOptions
from qemu_sdei.vm.plan import Plan

KERNEL: Final = "kernel"
INITRD: Final = "initrd"
MONITOR: Final = "monitor"
PROFILE: Final = "profile"
UEFI: Final = "uefi"
SERVICE: Final = "service"
"""Roles of files; of services with a number behind it."""
_READ: Final = 1 << 20


@dataclass(frozen=True)
class Offer:
    """What the destination must know before anything is stopped."""

    facts: dict[str, Any]
    """JSON: see docs/reference/migration-protocol.md."""
    files: dict[str, Path]
    """By role; each is in `facts["files"]` too, with size and hash."""


def make_offer(
    options: GuestOptions,
    plan: Plan,
    config: GuestConfig,
    directory: Path,
    nonce: str,
    machine: dict[str, str],
    selection: Mapping[str, int] | None = None,
) -> Offer:
    """Describe the guest of the run directory `directory`; `machine` is QEMU's `type` and `version`, `selection` says
    which services it finds: value by word of the bitmap registers.

    Raises:
        UsageError: a file that it was started with cannot be read any more, or it has a disk for a vmcore here.
    """
    if options.kdump is not False:
        raise UsageError("a guest with --kdump cannot go to another host: what its vmcore is written to is here")
    found: dict[str, Path] = {MONITOR: directory / files.MONITOR}
    kernel, initrd = str(config.boot.get("kernel")), config.boot.get("initrd")
    if kernel and not kernel.startswith(BUILTIN):
        found[KERNEL] = Path(kernel)
    if initrd is not None:
        found[INITRD] = Path(str(initrd))
    if config.boot.get("uefi") is not None:
        found[UEFI] = Path(str(config.boot["uefi"]))
    if config.events is not None:
        found[PROFILE] = Path(config.events)
    for number, service in enumerate(config.services):
        found[f"{SERVICE}{number}"] = Path(service)
    known = travelling.to_host(options)
    known["shares"] = [_tagged(text) for text in known["shares"]]
    facts: dict[str, Any] = {
        "name": config.name,
        "written_by": f"qemu-sdei {__version__}",
        "document": state_document.VERSION,
        "qemu": machine,
        "machine": state_document.machine_of(config),
        "options": known,
        "kernel": kernel,
        "flat": plan.flat,
        "append": plan.append,
        "reboot": plan.reboot,
        "shell": nonce if plan.own_initramfs else None,
        "config": json.loads(config.to_json()),
        "files": {role: describe(path) for role, path in found.items()},
        **({} if selection is None else {"selection": dict(selection)}),
    }
    return Offer(facts, found)


def _tagged(text: str) -> str:
    """`DIR:TAG` of a share. A tag that is not given is the name of the directory itself, wherever links lead here."""
    path, colon, _ = text.partition(":")
    return text if colon else str(Path(path).resolve())


def describe(path: Path) -> dict[str, Any]:
    """A file's path, size and SHA-256. Raises `UsageError`."""
    found = hashlib.sha256()
    size = 0
    try:
        with path.open("rb") as file:
            while part := file.read(_READ):
                found.update(part)
                size += len(part)
    except OSError as error:
        raise UsageError(
            f"{path}, which the guest was started with, cannot be read: {error.strerror}; the other host needs it"
        ) from None
    return {"path": str(path), "size": size, "sha256": found.hexdigest()}
