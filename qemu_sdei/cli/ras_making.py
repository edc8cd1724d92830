"""The status blocks that `ras inject` reports: from sections of the command line, from files, at varied addresses."""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from qemu_sdei.cli.files import read_file
from qemu_sdei.cli.ras_words import Said
from qemu_sdei.errors import CperError, UsageError
from qemu_sdei.ras.addresses import addressed, addresses, has_place
from qemu_sdei.ras.block import Block, block
from qemu_sdei.ras.conversion import as_block
from qemu_sdei.ras.from_text import hexadecimal
from qemu_sdei.ras.inputs import records as read_records
from qemu_sdei.ras.kinds import Kinds

PAGE: Final = 4096
Made = Block | bytes
"""A status block; bytes where it is wrong on purpose."""


def blocks(said: Said, kinds: Kinds) -> list[Block]:
    """What is to be reported, each once, as it is said. Raises `UsageError`: it is nothing, or cannot be."""
    args = said.general
    given = [name for name in ("record", "base64", "replay") if getattr(args, name, None) is not None]
    if len(given) + bool(said.sections) != 1:
        raise UsageError(
            "give the error once: a section (such as memory), --record FILE, --base64 TEXT or --replay LOG"
            if given or said.sections
            else "say which error: a section, such as memory, or --record FILE, --base64 TEXT or --replay LOG"
        )
    if not given:
        return [_of_sections(said)]
    found = _read(given[0], getattr(args, given[0]), kinds)
    if given[0] != "replay" and len(found) != 1:
        raise UsageError(f"there are {len(found)} records in it: --replay takes several")
    return found


def _of_sections(said: Said) -> Block:
    args = said.general
    try:
        raw = hexadecimal(args.raw_data) if getattr(args, "raw_data", None) is not None else b""
        return block(said.entries(), getattr(args, "block_severity", None), raw=raw)
    except CperError as error:
        raise UsageError(str(error)) from None


def _read(option: str, value: str, kinds: Kinds) -> list[Block]:
    if option == "base64" and not value.startswith("@"):
        name, data = "--base64", value.encode(errors="surrogateescape")
    else:
        path = value.removeprefix("@") if option == "base64" else value
        name, data = "standard input" if path == "-" else path, read_file(path, "error records")
    if option == "record" and data.strip()[:1] not in (b"{", b"["):
        raise UsageError(f"{name}: it is not JSON of an error record")
    try:
        return [as_block(each) for each in read_records(data, kinds)]
    except CperError as error:
        raise UsageError(f"{name}: {error}") from None


def varied(
    made: list[Block], args: argparse.Namespace, kinds: Kinds, *, address: int | None, ram: tuple[int, int] | None
) -> Iterator[Made]:
    """All that is reported, in its order: `--count` times each, at addresses that differ, wrong as `--malform` says.

    Args:
        made: as `blocks` gives them.
        args: of the command line.
        kinds: of sections.
        address: of the first one; None: as it is in the record.
        ram: where the guest's RAM begins and ends; None: not known.

    Raises:
        UsageError: it cannot be.
    """
    count, seed = getattr(args, "count", 1), getattr(args, "random", None)
    pages = random.Random(seed)
    for number in range(count):
        for each in made:
            where = address
            if seed is not None:
                assert ram is not None
                where = ram[0] + pages.randrange((ram[1] - ram[0]) // PAGE) * PAGE
            elif count > 1:
                first = address if address is not None else _first(each)
                where = None if first is None else first + number * PAGE
            yield _malformed(_placed(each, where), getattr(args, "malform", []), kinds)


def _first(made: Block) -> int | None:
    found = [address for each in made.entries for address in addresses(each.section)]
    return found[0] if found else None


def _placed(made: Block, address: int | None) -> Block:
    if address is None:
        return made
    if not any(has_place(each.section) for each in made.entries):
        kinds = ", ".join(dict.fromkeys(each.section.kind.name for each in made.entries))
        raise UsageError(f"no section here says a physical address ({kinds}): leave out --address, --pid and --random")
    try:
        entries = [
            replace(each, section=addressed(each.section, address)) if has_place(each.section) else each
            for each in made.entries
        ]
    except CperError as error:
        raise UsageError(str(error)) from None
    return replace(made, entries=tuple(entries))


def _malformed(made: Block, edits: list[str], kinds: Kinds) -> Made:
    if not edits:
        return made
    from qemu_sdei.ras.malform import malformed

    try:
        return malformed(made.pack(), edits, kinds)
    except CperError as error:
        raise UsageError(f"--malform: {error}") from None
