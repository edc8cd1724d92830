"""A guest that another host offers: all that is said of it is checked here, before anything of it is made.

Nothing reaches QEMU, the backend or a file that was not looked at. What of this host a guest may use (disks, shared
directories, the network, options for QEMU) is the receiver's to say: who comes through a unix socket is its own user,
and may have what the user may; others have what `Allowed` lists.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from qemu_sdei import paths
from qemu_sdei import rundir as files
from qemu_sdei.backend.control import state_document
from qemu_sdei.config import GuestConfig
from qemu_sdei.errors import ProtocolError, SdeiError, UsageError
from qemu_sdei.host import memory
from qemu_sdei.hypervisor.stage2 import FLASH_SIZE
from qemu_sdei.migration import offered_services
from qemu_sdei.migration.offer import INITRD, KERNEL, MONITOR, PROFILE, SERVICE, UEFI, describe
from qemu_sdei.migration.receiver_session import File
from qemu_sdei.migration.remote_link import clean
from qemu_sdei.paths import cache_directory
from qemu_sdei.vm import machine_type, travelling, uefi_boot
from qemu_sdei.vm.acpi_extras import AcpiExtras
from qemu_sdei.vm.devices import devices
from qemu_sdei.vm.guest_json import check_boot, guest_config, monitor_image
from qemu_sdei.vm.machine_checks import check_machine
from qemu_sdei.vm.options import BUILTIN, NO_KERNEL, GuestOptions
from qemu_sdei.vm.plan import Plan, check_tables

_KEYS: Final = {
    *("cmd", "name", "written_by", "document", "qemu", "machine", "options"),
    *("kernel", "flat", "append", "reboot", "shell", "config", "files"),
}
_SELECTION: Final = "selection"
"""A source that is older does not say which services its guest finds."""
_LIMITS: Final = {
    KERNEL: 1 << 30,
    INITRD: 8 << 30,
    UEFI: FLASH_SIZE,
    MONITOR: 1 << 20,
    PROFILE: 1 << 20,
    SERVICE: 1 << 20,
}
_NAMES: Final = {KERNEL: "kernel.img", INITRD: files.INITRD, UEFI: "uefi.fd", PROFILE: "events.toml"}
"""What files that were received are called here."""
_SAME: Final = ("name", "ram_path", "events", "firmware", "services", "trace")
"""Fields of guest.json that differ between two hosts."""
_IN_PLACE: Final = frozenset((KERNEL, UEFI, PROFILE))
"""Files that are taken from where the source has them, if they are here too."""
_CACHED: Final = {KERNEL: "kernels", UEFI: "qemu-efi-aarch64"}
"""Directories of the cache in which a file may be."""
_FILES_OF_BOOT: Final = ("kernel", "initrd", "uefi")


@dataclass(frozen=True)
class Allowed:
    """What a guest may use here."""

    everything: bool = False
    """It comes from this user."""
    paths: tuple[Path, ...] = ()
    """Disks, shares and services at or below these."""
    net: bool = False
    """A network card; the guest reaches what this host reaches, its loopback included."""
    qemu_args: bool = False
    """Options for QEMU: these can do what this user can."""

    @classmethod
    def of(cls, words: list[str], *, everything: bool) -> Allowed:
        """From --allow options."""
        good = tuple(paths.resolved(word) for word in words if word not in ("net", "qemu-args"))
        return cls(everything, good, "net" in words, "qemu-args" in words)

    def check(self, options: GuestOptions) -> None:
        """Raise `UsageError` when the guest wants what it may not have."""
        if self.everything:
            return
        disks = [text.partition(",")[0] for text in options.drives]
        if any(words.partition(",")[2].strip(",") for words in options.drives) and not self.qemu_args:
            raise UsageError("the guest has disks with options for QEMU, which are not allowed here: --allow qemu-args")
        kept = () if options.uefi_vars is None else (str(options.uefi_vars),)
        for text in (
            *disks,
            *kept,
            *(share.partition(":")[0] for share in options.shares),
            *map(str, options.services),
        ):
            path = Path(text).resolve()
            if not any(path.is_relative_to(good) for good in self.paths):
                raise UsageError(f"the guest uses {path}, which is not allowed here: --allow {path}")
        if (options.net or options.forwards) and not self.net:
            raise UsageError("the guest has a network, which is not allowed here: --allow net")
        if options.qemu_args and not self.qemu_args:
            raise UsageError("the guest has options for QEMU, which are not allowed here: --allow qemu-args")


@dataclass(frozen=True)
class Considered:
    """A guest that can be had."""

    options: GuestOptions
    nonce: str | None
    """Of its shell; None: it has none of ours."""
    needed: dict[str, File]
    """Files to be received, by role."""
    build: Callable[[], tuple[Plan, GuestConfig, bytes]]
    """Once they are there: plan, guest.json and monitor. Raises `SdeiError`."""


def consider(offer: dict[str, Any], own: GuestOptions, directory: Path, name: str, allowed: Allowed) -> Considered:
    """Check an offer. `own` has the options of this host; received files go into `directory`.

    Raises:
        SdeiError: the guest cannot be had here; the message says why.
    """
    if offer.keys() - {_SELECTION} != _KEYS:
        raise ProtocolError("the offer is not of the form that is known here: is the source a newer program?")
    version = offer["document"]
    if type(version) is not int or not 1 <= version <= state_document.VERSION:
        raise ProtocolError(
            f"the source writes state documents of version {clean(version)}, "
            f"this host knows up to version {state_document.VERSION}: use the newer program here"
        )
    options = replace(travelling.from_host(offer["options"]), qemu=own.qemu, memory_path=own.memory_path)
    words = {key: _string(offer[key], key) for key in ("kernel", "append")}
    flags = {key: offer[key] for key in ("flat", "reboot")}
    nonce = offer["shell"]
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise ProtocolError("the offer is not of the form that is known here")
    if nonce is not None and (not isinstance(nonce, str) or re.fullmatch("[0-9a-f]{1,64}", nonce) is None):
        raise ProtocolError("the offer is not of the form that is known here")
    theirs = GuestConfig.from_data(offer["config"])
    offered_services.check(offer.get(_SELECTION, {}), theirs)
    options = replace(options, memory=theirs.ram_size, pad_memory=False, start_timeout=own.start_timeout)
    options = replace(options, kernel=words["kernel"] or NO_KERNEL, uefi=theirs.boot.get("uefi") is not None)
    allowed.check(options)
    check_tables(replace(options, kernel=BUILTIN if flags["flat"] else None), flags["flat"])
    uefi_boot.check_options(options, flat=flags["flat"])
    qemu, size = check_machine(replace(options, services=(), events=None))
    attached = devices(options, arriving=True)
    memory.check_free(size, None if options.memory_path is None else Path(options.memory_path))
    kind = _machine_type(offer["qemu"], qemu)

    offered = _files(offer["files"], words["kernel"], theirs, len(options.services))
    _check_services(options, offered)
    places: dict[str, Path] = {}
    needed: dict[str, File] = {}
    for role, file in offered.items():
        if role.startswith(SERVICE):
            continue
        here = _here(role, file, allowed.everything)
        places[role] = here or directory / _NAMES.get(role, "monitor.offered")
        if here is None:
            needed[role] = replace(file, path=places[role])
    options = replace(options, uefi=places.get(UEFI, False))
    plan = Plan(
        options=replace(options, events=places.get(PROFILE)),
        qemu=qemu,
        ram_size=size,
        kernel=str(places.get(KERNEL, words["kernel"])),
        flat=flags["flat"],
        initrd=places.get(INITRD),
        # That it is set says that the initrd is one of ours; it was made elsewhere.
        busybox=places.get(INITRD) if nonce is not None else None,
        append=words["append"],
        reboot=flags["reboot"],
        devices=attached,
        extras=AcpiExtras.of_boot(theirs.boot),
        uefi=str(places[UEFI]) if UEFI in places else None,
    )
    plan = machine_type.pinned(plan, kind)
    own_monitor = monitor_image(plan)
    if describe_bytes(own_monitor) == (offered[MONITOR].size, offered[MONITOR].sha256):
        needed.pop(MONITOR, None)
    # As far as it can be known before the files are here.
    known = replace(plan, options=replace(plan.options, events=None), uefi=None, kernel=plan.kernel or BUILTIN)
    machine = state_document.machine_of(guest_config(known, name, None))
    if offer["machine"] != machine:
        different = sorted(key for key, value in machine.items() if _field(offer["machine"], key) != value)
        raise ProtocolError(
            f"the machine would be another one here: {', '.join(different) or 'it has other fields'}; "
            "is it the same version of the program?"
        )

    def build() -> tuple[Plan, GuestConfig, bytes]:
        config = guest_config(plan, name, plan.initrd)
        check_boot(config)
        _check_same(theirs, config)
        return plan, config, (directory / "monitor.offered").read_bytes() if MONITOR in needed else own_monitor

    return Considered(plan.options, nonce, needed, build)


def describe_bytes(data: bytes) -> tuple[int, str]:
    """Size and SHA-256."""
    return len(data), hashlib.sha256(data).hexdigest()


def _string(value: object, what: str) -> str:
    if not isinstance(value, str) or len(value) > 4096:
        raise ProtocolError(f"the offer's {what} has the wrong type")
    return value


def _field(data: object, name: str) -> object:
    return data.get(name) if isinstance(data, dict) else None


def _check_same(theirs: GuestConfig, ours: GuestConfig) -> None:
    """What the source's backend had and what ours would have must be the same guest."""
    one, other = json.loads(theirs.to_json()), json.loads(ours.to_json())
    for name in _SAME:
        del one[name], other[name]
    for config in (one, other):
        config["boot"] = {key: value for key, value in config["boot"].items() if key not in _FILES_OF_BOOT}
    if one != other:
        names = ", ".join(sorted(name for name in one if one[name] != other[name]))
        raise ProtocolError(f"the guest's configuration is not what its options make of it here: {names}")


def _machine_type(data: object, qemu: Path) -> str:
    """QEMU's versioned machine type, which this host's QEMU must have too."""
    kind, version = _field(data, "type"), _field(data, "version")
    if not isinstance(kind, str) or not machine_type.is_type(kind):
        raise ProtocolError("the offer does not say which machine it is")
    machine_type.check(kind, qemu, clean(version))
    return kind


def _files(data: object, kernel: str, config: GuestConfig, services: int) -> dict[str, File]:
    """The offered files, by role: all that there must be, and no others."""
    wanted = {MONITOR, *(f"{SERVICE}{number}" for number in range(services))}
    if kernel and not kernel.startswith(BUILTIN):
        wanted.add(KERNEL)
    if config.boot.get("initrd") is not None:
        wanted.add(INITRD)
    if config.boot.get("uefi") is not None:
        wanted.add(UEFI)
    if config.events is not None:
        wanted.add(PROFILE)
    if not isinstance(data, dict) or data.keys() != wanted:
        raise ProtocolError("the offer has not the files that such a guest has")
    found: dict[str, File] = {}
    for role, entry in data.items():
        path, size, digest = (_field(entry, name) for name in ("path", "size", "sha256"))
        limit = next(limit for name, limit in _LIMITS.items() if role.startswith(name))
        good = isinstance(path, str) and len(path) <= 4096 and type(size) is int and 0 <= size <= limit
        if not good or not isinstance(digest, str) or re.fullmatch("[0-9a-f]{64}", digest) is None:
            raise ProtocolError(f"the offer's file {clean(role)} is not described as it should be, or too large")
        found[role] = File(Path(str(path)), int(str(size)), digest)
    return found


def _check_services(options: GuestOptions, offered: dict[str, File]) -> None:
    """Code of the user's own runs here only where the user has put it."""
    for number, path in enumerate(options.services):
        if not _is(Path(path), offered[f"{SERVICE}{number}"]):
            raise UsageError(f"the service {path} is not here, or is another one: copy it from the source's host first")


def _is(path: Path, file: File) -> bool:
    try:
        if not path.is_file() or path.stat().st_size != file.size:
            return False
        return hmac.compare_digest(str(describe(path)["sha256"]), file.sha256)
    except (OSError, SdeiError):
        return False


def _here(role: str, file: File, trusted: bool) -> Path | None:
    """Where this host has a file already; what a stranger names is not looked for."""
    candidates = [file.path] if trusted and role in _IN_PLACE else []
    if role in _CACHED:
        try:
            candidates += (cache_directory() / _CACHED[role]).rglob("*")
        except OSError:
            pass
    return next((path for path in candidates if _is(path, file)), None)
