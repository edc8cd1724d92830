"""From the options of `qemu-sdei tables` to what is to be made, checked."""

from __future__ import annotations

import argparse
import re
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.cli.files import read_file
from qemu_sdei.cli.machine_arguments import vcpus
from qemu_sdei.errors import UsageError
from qemu_sdei.ras.source import AUTO, MAX_BLOCK, Notify, Source

if TYPE_CHECKING:
    from qemu_sdei.acpi.own import BootErrors
    from qemu_sdei.sdei.machine_description import MachineDescription
    from qemu_sdei.tables.table_set import Content, ErrorSource
    from qemu_sdei.vm.options import GuestOptions

_ADDRESS_MAX: Final = 1 << 52
"""Physical addresses of arm64 have 52 bits at most."""
_BLOCK_MIN, _REGION_MAX = 64, 1 << 20
_REGION: Final = 4096
"""Bytes of a boot error region where nothing else is said."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the user wants."""

    tables: tuple[str, ...]
    """Those named by --table; empty for all."""
    content: Content
    machine: GuestOptions | None

    def wants(self, table: str) -> bool:
        """Whether --table, or its default, names it."""
        return not self.tables or table in self.tables


def asked(args: argparse.Namespace) -> Asked:
    """What the options ask for. Raises `UsageError`."""
    from qemu_sdei.sdei.machine_description import MachineDescription
    from qemu_sdei.tables.table_set import Content, ErrorSource

    profile = MachineDescription.default() if args.events is None else MachineDescription.load(args.events)
    tables = () if args.table is None or "all" in args.table else tuple(dict.fromkeys(args.table))
    machine = _machine(args)
    if machine is not None and args.fadt is not None:
        raise UsageError("--fadt and a machine: the machine has a FADT of its own, leave one of them out")
    gsiv = None if args.agdi_interrupt is None else _number(args.agdi_interrupt, "--agdi-interrupt", 0xFFFF_FFFF)
    agdi = None if args.agdi is None else _event(args.agdi, profile, "--agdi")
    if agdi is None and gsiv is None:
        # What the machine description says of itself, where the user says nothing.
        agdi, gsiv = next(iter(profile.for_acpi("agdi")), None), profile.agdi_interrupt
    sources = tuple(_source(text, profile, machine is not None) for text in args.ghes)
    if machine is not None and not sources:
        sources = tuple(ErrorSource(source=source, address=None) for source in profile.sources)
    for name, given, what in (
        ("hest", sources, "an error source: give --ghes EVENT@ADDRESS"),
        ("agdi", agdi is not None or gsiv is not None, "its signal: give --agdi EVENT or --agdi-interrupt N"),
        ("bert", args.bert, "its region: give --bert ADDRESS"),
        ("ssdt", args.osc or (machine and sources), "what it says: give --osc"),
        ("fadt", args.fadt or machine, "a FADT to set PSCI in: give --fadt FILE, or --machine for QEMU's"),
    ):
        if name in tables and not given:
            raise UsageError(f"--table {name} needs {what}")
    content = Content(
        sources=sources,
        agdi_event=agdi,
        agdi_gsiv=gsiv,
        boot_errors=None if args.bert is None else _region(args.bert),
        # A guest of the machine is told that firmware comes first wherever there are error sources.
        firmware_first=args.osc or (machine is not None and bool(sources)),
        method=args.method,
        **_oem(args),
        fadt=None if args.fadt is None else _fadt(args.fadt),
    )
    return Asked(tables=tables, content=content, machine=machine)


def _machine(args: argparse.Namespace) -> GuestOptions | None:
    from qemu_sdei.vm.options import GuestOptions

    given: dict[str, Any] = {
        name: value
        for name in ("memory", "cpu", "virtualization", "qemu")
        if (value := getattr(args, name)) not in (None, False)
    }
    if args.smp is not None:
        given["smp"], given["topology"] = vcpus(args.smp)
    if args.qemu_arg:
        try:
            given["qemu_args"] = [word for argument in args.qemu_arg for word in shlex.split(argument)]
        except ValueError as error:
            raise UsageError(f"--qemu-arg cannot be split into words: {error}") from None
    return GuestOptions(**given, events=args.events) if given or args.machine else None


def _source(text: str, profile: MachineDescription, placed: bool) -> ErrorSource:
    """One --ghes; `placed`: without an address it has one of the machine's."""
    from qemu_sdei.tables.table_set import ErrorSource

    head, *extras = text.split(",")
    name, at, place = head.partition("@")
    source = _described(name, profile)
    if not at and not placed:
        raise UsageError(f"--ghes {text}: where is its error status address? Give EVENT@ADDRESS (or --machine)")
    address = _address(place, "--ghes") if at else None
    read_ack = None
    for extra in extras:
        key, _, value = extra.partition("=")
        if key == "ack" and value == "none":
            source = replace(source, type="ghes")
        elif key == "ack":
            read_ack = _address(value, "--ghes ack")
        elif key == "size":
            size = _number(value, "--ghes size", MAX_BLOCK)
            if size < _BLOCK_MIN:
                raise UsageError(f"--ghes: a status block of {size} bytes is too small: give {_BLOCK_MIN} or more")
            source = replace(source, block=size, raw=AUTO if source.raw == source.block else source.raw)
        else:
            raise UsageError(f"--ghes {text}: {extra!r} is not understood: ack=ADDRESS, ack=none or size=BYTES")
    if read_ack is not None and (address is None or read_ack == address):
        raise UsageError(f"--ghes {text}: ack={read_ack:#x} needs another address before it: EVENT@ADDRESS,ack=ADDRESS")
    if read_ack is not None and not source.acknowledged:
        raise UsageError(f"--ghes {text}: a source of type {source.type!r} has no read-ack register: leave ack= out")
    return ErrorSource(source=source, address=address, read_ack=read_ack)


def _described(name: str, profile: MachineDescription) -> Source:
    """The source that is called `name` in the machine description, or that the event of this number or name signals."""
    if name.isdigit() or (found := next((each for each in profile.sources if each.name == name), None)) is None:
        event = _event(name, profile, "--ghes")
        if event == 0:
            raise UsageError("--ghes: event 0 cannot signal hardware errors, Linux refuses it in a HEST: take another")
        found = next((each for each in profile.sources if each.event == event), None)
        if found is None:
            called = next(each.name for each in profile.events if each.number == event)
            found = Source(name=called, notify=Notify.SDEI, event=event)
    return found


def _region(text: str) -> BootErrors:
    """Where --bert says that the errors of the boot before are."""
    from qemu_sdei.acpi.own import BootErrors

    place, comma, extra = text.partition(",")
    key, _, value = extra.partition("=")
    if comma and key != "size":
        raise UsageError(f"--bert {text}: {extra!r} is not understood: size=BYTES")
    address = _address(place, "--bert")
    size = _number(value, "--bert size", _REGION_MAX) if comma else _REGION
    if size < _BLOCK_MIN:
        raise UsageError(f"--bert: a region of {size} bytes is too small: give {_BLOCK_MIN} or more")
    return BootErrors(address, size)


def _event(text: str, profile: MachineDescription, option: str) -> int:
    """An event of the machine description, by number or name."""
    found = profile.find(text)
    if found is not None:
        return found.number
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10}", text):
        number = int(text, 0) if not text.isdigit() else int(text)
        if any(event.number == number for event in profile.events):
            return number
        text = f"{number:#x}"
    there = ", ".join(f"{event.number:#x} ({event.name})" for event in profile.events[:12])
    raise UsageError(f"{option}: event {text!r} is not in the machine description (--events), which has {there}")


def _number(text: str, option: str, most: int) -> int:
    if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}", text):
        raise UsageError(f"{option}: {text!r} is not a number: write it as 4096 or 0x1000")
    number = int(text) if text.isdigit() else int(text, 16)
    if number > most:
        raise UsageError(f"{option}: {text} is too large: {most:#x} at most")
    return number


def _address(text: str, option: str) -> int:
    address = _number(text, option, _ADDRESS_MAX - 16)
    if address == 0 or address % 8:
        raise UsageError(f"{option}: it cannot be at {address:#x}: give an address that 8 divides, and not 0")
    return address


def _oem(args: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, size in (("oem_id", 6), ("oem_table_id", 8)):
        text = getattr(args, name)
        if text is None:
            continue
        if not (text.isascii() and text.isprintable() and 0 < len(text) <= size) or set(text) & set("\"\\'"):
            raise UsageError(f"--{name.replace('_', '-')} {text!r}: 1 to {size} plain characters are possible")
        found[name] = text.encode()
    if args.oem_revision is not None:
        found["oem_revision"] = _number(args.oem_revision, "--oem-revision", 0xFFFF_FFFF)
    return found


def _fadt(path: str) -> bytes:
    """The FADT in a file: alone, or among others."""
    from qemu_sdei.acpi.parse import entries_of, own_bytes

    entries, faults = entries_of(read_file(path, "FADT"))
    tables = [own_bytes(entry.data) for entry in entries if entry.data[:4] == b"FACP"]
    if not entries:
        raise UsageError(f"{path}: {faults[0]}")
    if len(tables) != 1:
        raise UsageError(f"{path} has {'no FADT' if not tables else 'more than one FADT'} (signature FACP) in it")
    return tables[0]
