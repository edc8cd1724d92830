"""Findings as files: a case that anybody can show to a guest again, and what came of it."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from qemu_sdei import bounded, codec, untrusted_files
from qemu_sdei.errors import CperError, UsageError
from qemu_sdei.fuzzing.verdicts import Judged, Verdict
from qemu_sdei.printable import printable
from qemu_sdei.ras.block import MAX_SIZE, parse_block
from qemu_sdei.ras.libcper import to_json
from qemu_sdei.ras.mutate import Case

FORMAT: Final = "qemu-sdei-ras-finding"
VERSION: Final = 1
MAX_FILE: Final = 16 << 20
_MAX_EDITS: Final = 1000


@dataclass(frozen=True)
class WrittenCase:
    """A case as it is written."""

    block: str
    """A well-formed status block, in base64."""
    edits: tuple[str, ...]
    size: int

    @classmethod
    def of(cls, case: Case) -> WrittenCase:
        """A case, to be written."""
        return cls(base64.b64encode(case.block).decode("ascii"), case.edits, case.size)

    def case(self) -> Case:
        """The case. Raises `UsageError`: it is none."""
        try:
            if not 20 <= self.size <= MAX_SIZE or len(self.edits) > _MAX_EDITS:
                raise CperError("its size or its edits are more than can be")
            found = Case(base64.b64decode(self.block, validate=True), self.edits, self.size)
            found.data  # noqa: B018 - that it can be made is to be known now
        except (ValueError, CperError) as error:
            raise UsageError(f"it has no case that can be shown: {error}") from None
        return found


@dataclass
class Finding:
    """A fault of a kernel, and a case that shows it. What there is of it is written as it is here."""

    key: str
    """By which the same fault is known again."""
    verdict: str
    title: str
    """What the kernel said of it."""
    stack: tuple[str, ...]
    kernel: str
    seed: int
    number: int
    """Of the case that found it first."""
    since: int
    """Number of the first case that its guest was shown."""
    case: WrittenCase
    """The simplest one."""
    original: WrittenCase
    alone: bool = False
    """It is found by its case alone, in a guest that has seen nothing else."""
    hits: int = 1
    """How often it was met."""
    console: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, judged: Judged, case: Case, *, seed: int, number: int, since: int, kernel: str) -> Finding:
        """What a verdict makes of a case."""
        trouble = judged.trouble
        written = WrittenCase.of(case)
        return cls(
            judged.key,
            judged.verdict.value,
            trouble.title if trouble is not None else judged.note,
            trouble.stack if trouble is not None else (),
            printable(kernel),
            seed,
            number,
            since,
            written,
            written,
            console=trouble.lines if trouble is not None else (),
        )

    def write(self, path: Path) -> Path:
        """Write it, beside it the record alone, for `ras inject --record`. Returns that file. Raises `UsageError`."""
        record = to_json(parse_block(self.case.case().block))
        beside = path.with_suffix(".record.json")
        write_json(path, {"format": FORMAT, "version": VERSION, **codec.to_data(self), "record": record})
        write_json(beside, record)
        return beside

    @classmethod
    def read(cls, path: Path) -> Finding:
        """The finding in a file. Raises `UsageError`: it holds none."""
        document = read_json(path, FORMAT, "finding of `ras fuzz`")
        document.pop("record", None)  # it follows from the case
        try:
            found = codec.from_data(cls, document)
            Verdict(found.verdict)
            found.case.case()
            found.original.case()
        except (ValueError, UsageError) as error:
            raise UsageError(f"{path} holds no finding of `ras fuzz`: {error}") from None
        return found


def read_json(path: Path, form: str, what: str) -> dict[str, Any]:
    """What a file of ours says, without its format and version. Raises `UsageError`."""
    try:
        document = bounded.loads(untrusted_files.read(path, MAX_FILE))
    except (ValueError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} holds no {what}: {error}") from None
    if not isinstance(document, dict) or document.pop("format", None) != form:
        raise UsageError(f"{path} holds no {what}")
    if document.pop("version", None) != VERSION:
        raise UsageError(f"{path} was written by another version of this program")
    return document


def write_json(path: Path, document: Any) -> None:
    """Write a file as a whole, or not at all. Raises `UsageError`."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(json.dumps(document, indent=2) + "\n")
        part.replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
