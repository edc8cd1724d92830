"""Disks, shared directories and the network of a guest: from a user's words to QEMU's options, and what init must know.

All but the image for snapshots are virtio devices on the machine's PCI bus. What cannot be is told before QEMU starts.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from qemu_sdei import paths
from qemu_sdei.boot import capture
from qemu_sdei.errors import UsageError
from qemu_sdei.uefi import variables
from qemu_sdei.vm import qcow2
from qemu_sdei.vm.options import NO_KERNEL, GuestOptions

SNAPSHOTS: Final = "snapshots"
"""QEMU's name for the image that holds snapshots and is no disk of the guest."""
_NETWORK: Final = "user,id=net0"
_VMCORE_MORE: Final = 64 << 20
"""Bytes of a vmcore beyond RAM, at most: headers, and registers of each CPU."""
_MAX_TAG: Final = 31
"""Bytes of a virtio-9p mount tag in QEMU, whose buffer has one more."""


@dataclass(frozen=True)
class Devices:
    """The devices of one guest."""

    arguments: tuple[str, ...] = ()
    """For QEMU's command line."""
    tags: tuple[str, ...] = ()
    """Mount tags of the shared directories."""
    drives: int = 0
    net: bool = False
    snapshots: Path | None = None
    """The image for snapshots; see `create`."""

    forwards: tuple[str, ...] = ()
    """Forwarded ports, in the words of QEMU's `hostfwd_add`."""
    variables: Path | None = None
    """The file of UEFI's variables; see `create`."""
    vmcore: Path | None = None
    """What the disk for a crash dump is while it is one; see `create` and `discard`."""

    def arriving(self) -> Devices:
        """For a guest that arrives by migration: its ports of the host are still taken, and come later."""
        words = (_NETWORK if word.startswith(_NETWORK) else word for word in self.arguments)
        return replace(self, arguments=tuple(words))

    @property
    def seen(self) -> bool:
        """Whether the guest has any of them."""
        return bool(self.drives or self.tags or self.net)

    def create(self, ram_size: int) -> None:
        """Make what is not there yet, for a guest with that many bytes of RAM. Raises `UsageError`."""
        if self.snapshots is not None:
            try:
                qcow2.create(self.snapshots)
            except OSError as error:
                raise UsageError(f"image for snapshots {self.snapshots} cannot be made: {error.strerror}") from None
        if self.variables is not None:
            try:
                variables.create(self.variables)
            except OSError as error:
                raise UsageError(f"UEFI variables {self.variables} cannot be made: {error.strerror}") from None
        if self.vmcore is not None:
            try:
                with self.vmcore.open("xb") as file:  # not one that somebody has made since it was looked for
                    file.truncate(ram_size + _VMCORE_MORE)
            except OSError as error:
                raise UsageError(f"{self.vmcore}, for the vmcore, cannot be made: {error.strerror}") from None

    def discard(self) -> None:
        """Take away what `create` made for this guest only: a vmcore that was not finished."""
        if self.vmcore is not None:
            with contextlib.suppress(OSError):
                self.vmcore.unlink()


def devices(options: GuestOptions, *, arriving: bool = False) -> Devices:
    """Check what `options` says of devices. Raises `UsageError`.

    `arriving`: from another host, whose QEMU has the same files as long as the guest is there.
    """
    arguments: list[str] = []
    for number, text in enumerate(options.drives):
        arguments += _drive(number, text, boots=options.kernel == NO_KERNEL)
    tags: list[str] = []
    for number, text in enumerate(options.shares):
        directory, tag = _share(text)
        if tag in tags:
            raise UsageError(f"two shared directories have the tag {tag!r}: give one of them another, as DIR:TAG")
        tags.append(tag)
        arguments += [
            "-fsdev",
            # none: what the guest creates belongs to the user of QEMU; to give it away needs no privilege, and fails.
            # remap: file systems below DIR may use the same inode numbers.
            f"local,id=share{number},path={_value(str(directory))},security_model=none,multidevs=remap",
            "-device",
            f"virtio-9p-pci,fsdev=share{number},mount_tag={_value(tag)}",
        ]
    rules: tuple[str, ...] = ()
    net = options.net or bool(options.forwards)
    if net:
        # romfile: nothing boots from the network, and QEMU needs no file for it then.
        rules = _forwards(options.forwards)
        arguments += ["-netdev", ",hostfwd=".join((_NETWORK, *rules))]
        arguments += ["-device", "virtio-net-pci,netdev=net0,romfile="]
    place = None
    if options.snapshots is not None:
        place, words = _snapshots(options.snapshots)
        arguments += words
    part = None
    if options.vmcore is not None:
        part = part_of(options.vmcore)
        arguments += [
            # A disk: what the guest writes to the host can never be more than it is large. What the host has no room
            # for is an error that the guest sees (by QEMU's default it would be paused).
            "-drive",
            f"if=none,id=vmcore,format=raw,cache=unsafe,werror=report,file={_value(str(part))}",
            "-device",
            f"virtio-blk-pci,drive=vmcore,serial={capture.SERIAL}",
        ]
    kept = None
    if options.uefi_vars is not None:
        kept = variables.check(options.uefi_vars, arriving=arriving)
        # The second bank; what is in the first the machine hides from the guest.
        arguments += ["-drive", f"if=pflash,unit=1,format=raw,file={_value(str(kept))}"]
    return Devices(tuple(arguments), tuple(tags), len(options.drives), net, place, rules, kept, part)


def part_of(vmcore: str | Path) -> Path:
    """The file that is to become `vmcore`."""
    path = paths.absolute(vmcore)
    return Path(f"{path}.part")


def _value(text: str) -> str:
    """A value as QEMU's option parser takes it: commas doubled."""
    return text.replace(",", ",,")


def _drive(number: int, text: str, *, boots: bool) -> list[str]:
    """A disk. `boots`: UEFI is to try the disks in their order, before a network."""
    name, _, more = text.partition(",")
    file = paths.expand(name)
    try:
        with file.open("rb") as image:
            magic = image.read(4)
    except OSError as error:
        raise UsageError(f"disk image {file} cannot be read: {error.strerror}") from None
    words = [word for word in more.split(",") if word]
    if any("=" not in word for word in words):
        raise UsageError(f"--drive {text}: behind the file come QEMU's options as NAME=VALUE, separated by commas")
    given = {word.partition("=")[0] for word in words}
    if given & {"file", "id", "if"}:
        raise UsageError(
            f"--drive {text}: {', '.join(sorted(given & {'file', 'id', 'if'}))} is set by this option itself"
        )
    read_only = bool({"readonly=on", "read-only=on", "snapshot=on"} & set(words))
    if not read_only and not os.access(file, os.W_OK):
        raise UsageError(f"disk image {file} cannot be written: make it writable, or add ,snapshot=on or ,readonly=on")
    if "format" not in given:
        # To have QEMU guess lets a guest that writes a header into a raw image choose what it is opened as next time.
        words.append("format=qcow2" if magic == qcow2.MAGIC else "format=raw")
    options = ",".join([f"if=none,id=drive{number}", f"file={_value(str(file.absolute()))}", *words])
    order = f",bootindex={number}" if boots else ""
    return ["-drive", options, "-device", f"virtio-blk-pci,drive=drive{number}{order}"]


def _snapshots(name: str | Path) -> tuple[Path, list[str]]:
    file = paths.absolute(name)
    try:
        with file.open("rb") as image:
            if image.read(4) != qcow2.MAGIC:
                raise UsageError(f"{file} is not a qcow2 image: --snapshots needs one, or the name of a new file")
    except FileNotFoundError:
        if not os.access(file.parent, os.W_OK):
            raise UsageError(f"image for snapshots {file} cannot be made: {file.parent} is not writable") from None
    except OSError as error:
        raise UsageError(f"image for snapshots {file} cannot be read: {error.strerror}") from None
    else:
        if not os.access(file, os.W_OK):
            raise UsageError(f"image for snapshots {file} cannot be written: make it writable")
    return file, ["-drive", f"if=none,id={SNAPSHOTS},format=qcow2,file={_value(str(file))}"]


def _share(text: str) -> tuple[Path, str]:
    name, _, tag = text.partition(":")
    directory = paths.expand(name)
    if not directory.is_dir():
        raise UsageError(f"shared directory {directory}: there is no such directory")
    directory = directory.resolve()
    tag = tag or directory.name
    if not re.fullmatch(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,{_MAX_TAG - 1}}}", tag):
        raise UsageError(
            f"shared directory {directory}: {tag!r} cannot be its tag: give another one, as DIR:TAG, "
            f"of at most {_MAX_TAG} letters, digits and . _ -"
        )
    return directory, tag


def _forwards(texts: Sequence[str]) -> tuple[str, ...]:
    rules = []
    for text in texts:
        found = re.fullmatch(r"(\d{1,5}):(\d{1,5})", text)
        ports = [int(port) for port in found.groups()] if found else []
        if not ports or not all(1 <= port <= 65535 for port in ports):
            raise UsageError(f"--forward {text}: give two TCP ports as HOST:GUEST, such as 2222:22")
        # 127.0.0.1: the guest is nobody else's business, and often has no password.
        rules.append(f"tcp:127.0.0.1:{ports[0]}-:{ports[1]}")
    return tuple(rules)
