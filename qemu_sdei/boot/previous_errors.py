"""Errors that the boot before has left, for the BERT of the next one (ACPI 6.5 18.3.1).

A fatal error is kept in guest RAM when it is reported, as firmware keeps it in memory that a reset leaves alone: so it
survives the backend, and goes along when the guest moves or is saved. At the next boot come to it those that were
reported and that nobody has read. Which boot an error is of stands beside it, so that boots that begin twice (a backend
that is killed meanwhile) tell of the same ones.

A guest can write there: what it leaves is read with limits, and only ever shown to itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from qemu_sdei.boot.area import AcpiArea, ErrorSource
from qemu_sdei.errors import CperError
from qemu_sdei.ras.source import MAX_BLOCK, MIN_BLOCK

if TYPE_CHECKING:
    from qemu_sdei.ras.block import Block

_EPOCH, _USED, _FIRST = 0, 8, 16
"""Offsets: which boot the errors are of; bytes behind `_FIRST` in use; the first error, each behind its length."""
_WORD: Final = 8


class Stage:
    """The memory in which errors wait for the next boot."""

    def __init__(self, ram: memoryview, ram_base: int, area: AcpiArea) -> None:
        """`ram`: all of guest RAM, format "B", from the physical address `ram_base` on."""
        address, size = area.staged_errors
        self._memory = ram[address - ram_base : address - ram_base + size]
        self._size = size

    def keep(self, block: bytes, epoch: int) -> bool:
        """Keep an error of this boot of the machine, if there is room. Returns whether there was."""
        used = self._used(epoch)
        end = used + _WORD + len(block)
        if _FIRST + end > self._size:
            return False
        at = _FIRST + used
        self._put(at, len(block))
        self._memory[at + _WORD : at + _WORD + len(block)] = block
        self._use(end, epoch)
        return True

    def forget(self, block: bytes, epoch: int) -> None:
        """An error of this boot that was kept is none after all: the newest one of these bytes."""
        errors = self.kept(epoch)
        if block not in errors:
            return
        del errors[len(errors) - 1 - errors[::-1].index(block)]
        self._use(0, epoch)
        for each in errors:
            self.keep(each, epoch)

    def _use(self, used: int, epoch: int) -> None:
        """Have so many bytes of errors of this boot."""
        self._put(_USED, 0)
        self._put(_EPOCH, epoch)
        self._put(_USED, used)

    def kept(self, epoch: int) -> list[bytes]:
        """The errors of this boot of the machine, oldest first: as many as make sense."""
        found = []
        at, end = _FIRST, _FIRST + self._used(epoch)
        while at + _WORD < end:
            size = self._word(at)
            at += _WORD
            if not MIN_BLOCK <= size <= MAX_BLOCK or at + size > end:
                break
            found.append(bytes(self._memory[at : at + size]))
            at += size
        return found

    def _used(self, epoch: int) -> int:
        used = self._word(_USED)
        return used if self._word(_EPOCH) == epoch and used <= self._size - _FIRST else 0

    def _word(self, at: int) -> int:
        return int.from_bytes(self._memory[at : at + _WORD], "little")

    def _put(self, at: int, value: int) -> None:
        self._memory[at : at + _WORD].cast("Q")[0] = value


def left_behind(
    stage: Stage, ram: memoryview, ram_base: int, sources: Sequence[ErrorSource], epoch: int
) -> list[bytes]:
    """The errors that the boot before `epoch` has left: those on `stage`, and those that nobody has read, which are on
    it from then on.
    """
    before = epoch - 1
    known = {data[_WORD // 2 :] for data in stage.kept(before)}
    for placed in sources:
        at = placed.block - ram_base
        data = bytes(ram[at : at + placed.block_size])
        if any(data[:4]) and (block := _whole(data)) is not None and block[_WORD // 2 :] not in known:
            stage.keep(block, before)
    return stage.kept(before)


def _whole(data: bytes) -> bytes | None:
    """The status block at the start of `data`, without what follows it; None: there is none."""
    from qemu_sdei.ras.block import parse_block

    try:
        found = parse_block(data)
        return found.pack()[: found.size] if found.entries else None
    except CperError:
        return None


def region_of(errors: Sequence[bytes], size: int) -> bytes:
    """The bytes of a BERT's region of `size` bytes: the newest of these errors that fit and are well-formed. Empty:
    there are none.
    """
    if not errors:
        return b""
    from qemu_sdei.ras.boot_errors import region

    blocks = list(_newest(errors, size))
    return region(blocks[::-1], size) if blocks else b""


def _newest(errors: Sequence[bytes], size: int) -> Iterator[Block]:
    from qemu_sdei.ras.block import parse_block

    for data in reversed(errors):
        try:
            found = parse_block(data)
        except CperError:
            continue
        size -= found.size
        if size < 0:
            return
        if found.entries:
            yield found
