"""What the backend did, kept where a `kill -9` cannot reach it.

The firmware is deterministic, so its inputs are all there is to keep: each frame that changes state is copied here
*before* it is
handled, each trigger before it is made pending. A backend that is started again loads the last checkpoint, runs the
inputs that came after it, and knows the state and the answer of each frame: whatever the guest has not taken yet is
written again, and nothing is done twice. When the journal is full, a checkpoint (a JSON document) replaces it.

The file is a mapping in the run directory; it lives in the page cache, so it survives the process, which is what it
is for. It is not meant to survive the machine.

    header, bad pages | checkpoint 0 | checkpoint 1 | records

A checkpoint takes effect by one 8-byte store (its slot, generation and length in one word would not fit, so: the
generation word, whose parity names the slot). Records belong to a generation, so a new checkpoint empties the journal
by the same store. Pages that went bad at the host are no inputs of the firmware: they stand beside the header's words,
whatever becomes of records and checkpoints.
"""

from __future__ import annotations

import json
import mmap
import os
import weakref
import zlib
from array import array
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from qemu_sdei import bounded
from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.monitor.layout import HEAD_WORDS, MAX_OPS, OP_WORDS

MAGIC: Final = 0x314E_524A_4945_4453  # "SDEIJRN1"
RECORDS: Final = 1024
"""256 KiB of frames: they stay in a core's L2 cache."""
FULL: Final = RECORDS // 2
OVERFLOW: Final = RECORDS - 8
_HEADER_WORDS: Final = 512  # one page
_BAD_PAGES: Final = slice(64, _HEADER_WORDS)
_CHECKPOINT_SIZE: Final = 4 << 20
_CHECKPOINT_AT_FIRST: Final = 64 << 10
"""Bytes that a slot really takes, until a checkpoint needs more: 20 vCPUs' or so."""
_OPS_WORDS: Final = OP_WORDS * MAX_OPS


def _no_room(path: Path, error: OSError) -> UsageError:
    return UsageError(f"journal {path} cannot be written: {error.strerror}; make room there, or set XDG_RUNTIME_DIR")


class Record(IntEnum):
    """What a record is."""

    INPUT = 1
    """A frame that the firmware handled; running it again gives the same answer."""
    OUTCOME = 2
    """A frame as it was after handling; it is not run again."""
    TRIGGER = 3
    """The host made an event pending: body words 0, 1 = event, PE + 1 (0: none)."""
    OPS = 4
    """Micro-operations of the frame in the record that follows."""
    NOTICE = 5
    """The host wants the guest to notice something, or no longer: body words 0..4 are the notice's (`notices.py`), with
    PE + 1; of one that is withdrawn the second is 0.
    """
    CALLER = 6
    """Body word 0: x30 of the call in the record that follows, which a rule of a firmware profile asks for."""


class _H(IntEnum):
    MAGIC = 0
    GENERATION = 1
    COUNT = 2
    """Records of generation COUNT_GENERATION; one word holds both: count | generation << 32."""
    LENGTH0 = 4
    CRC0 = 5
    LENGTH1 = 6
    CRC1 = 7


class Journal:
    """The journal of one guest.

    Attributes:
        count: records since the last checkpoint. At FULL it is time for the next; at OVERFLOW it must be now.
        bad_pages: words (format "Q", 448 of them) that keep what a backend that is killed has not reported yet
            (`host_errors.py`), each written by one store; 0 where nothing is.
    """

    def __init__(self, path: Path) -> None:
        """Open the journal at `path`, making an empty one if there is none.

        Raises:
            ProtocolError: the file is not a journal of this version. `UsageError`: it cannot be made.
        """
        record_words = HEAD_WORDS
        size = _HEADER_WORDS * 8 + 2 * _CHECKPOINT_SIZE + RECORDS * (record_words + 1) * 8
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            found = os.fstat(fd).st_size
            if found not in (0, size):
                raise ProtocolError(
                    f"journal {path} has {found} bytes, not {size}: it is damaged or of another version"
                )
            if found == 0:
                os.ftruncate(fd, size)
            # Now, and not by a SIGBUS at the first store, if the file system is full.
            records = _HEADER_WORDS * 8 + 2 * _CHECKPOINT_SIZE
            os.posix_fallocate(fd, 0, _HEADER_WORDS * 8)
            for slot in range(2):
                os.posix_fallocate(fd, _HEADER_WORDS * 8 + slot * _CHECKPOINT_SIZE, _CHECKPOINT_AT_FIRST)
            os.posix_fallocate(fd, records, size - records)
            self._map = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as error:
            os.close(fd)
            raise _no_room(path, error) from None
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        weakref.finalize(self, os.close, fd)
        self._path = path
        self._bytes = memoryview(self._map)
        words = self._bytes.cast("Q")
        self._header = words[:_HEADER_WORDS]
        self.bad_pages = words[_BAD_PAGES]
        self._counted = self._bytes[8 * _H.COUNT : 8 * _H.COUNT + 4].cast("I")
        records = (_HEADER_WORDS * 8 + 2 * _CHECKPOINT_SIZE) // 8
        self._tags = words[records : records + RECORDS]
        self._words = words[records + RECORDS : records + RECORDS + RECORDS * record_words]
        first, length = 8 * (records + RECORDS), 8 * record_words
        self._places = [slice(at, at + length) for at in range(first, first + RECORDS * length, length)]
        """Where each record is in the file: to store by a slice of the mapping takes two thirds of the time that it
        takes by a view.
        """
        if self._header[_H.MAGIC] == 0:
            self._header[_H.MAGIC] = MAGIC
        if self._header[_H.MAGIC] != MAGIC:
            raise ProtocolError(
                f"journal {path} begins with {self._header[_H.MAGIC]:#x}: not a journal of this version"
            )
        self._epoch = self._header[_H.GENERATION] << 32
        count = self._header[_H.COUNT]
        self.count = count & 0xFFFF_FFFF if count >> 32 == self._header[_H.GENERATION] else 0
        if self.count > RECORDS:
            raise ProtocolError(f"journal {path} claims {self.count} records of {RECORDS}")
        if self.count == 0:
            self._header[_H.COUNT] = self._epoch  # whoever began this generation may have been killed before it did

    def _body(self, at: int) -> memoryview:
        return self._words[at * HEAD_WORDS : (at + 1) * HEAD_WORDS]

    def append(self, kind: int, cpu: int, seq: int, head: memoryview) -> int:
        """Keep one record: the head of a frame, HEAD_WORDS. It counts from the moment of the last store here, and not
        before: that is of half a word, because the other half is the generation, and small numbers cost less. Returns
        `count`.
        """
        at = self.count
        self._map[self._places[at]] = head
        self._tags[at] = seq << 16 | (kind << 12 | cpu)
        self.count = self._counted[0] = at = at + 1
        return at

    def append_ops(self, cpu: int, seq: int, head: memoryview, ops: memoryview) -> None:
        """Keep a frame that brings the results of micro-operations. They stand in records before it; all count at
        once.
        """
        at = self.count
        for start in range(0, _OPS_WORDS, HEAD_WORDS):
            part = ops[start : start + HEAD_WORDS]
            self._body(at)[: len(part)] = part
            self._tags[at] = Record.OPS << 12
            at += 1
        self.count = at
        self.append(Record.INPUT, cpu, seq, head)

    def append_with_caller(self, kind: int, cpu: int, seq: int, head: memoryview, caller: int) -> int:
        """As `append`, with the x30 of a call before it; both count at once."""
        self._body(self.count)[0] = caller
        self._tags[self.count] = Record.CALLER << 12 | cpu
        self.count += 1
        return self.append(kind, cpu, seq, head)

    def trigger(self, event: int, pe: int | None) -> None:
        """Keep a trigger."""
        at = self.count
        body = self._body(at)
        body[0] = event
        body[1] = 0 if pe is None else pe + 1
        self._tags[at] = Record.TRIGGER << 12
        self.count = self._counted[0] = at + 1

    def notice(self, words: Sequence[int]) -> None:
        """Keep a notice: number, kind (0: it is withdrawn), PE + 1, value, wish."""
        at = self.count
        self._body(at)[: len(words)] = memoryview(array("Q", words))
        self._tags[at] = Record.NOTICE << 12
        self.count = self._counted[0] = at + 1

    def records(self) -> Iterator[tuple[int, int, int, memoryview, list[int] | None]]:
        """(kind, cpu, sequence number, head, micro-operations if it has any) of each record since the checkpoint."""
        ops: list[int] = []
        for at, tag in enumerate(self._tags[: self.count]):
            body = self._body(at)
            kind = tag >> 12 & 0xF
            if kind == Record.OPS:
                ops += body.tolist()
                continue
            yield kind, tag & 0xFFF, tag >> 16, body, ops[:_OPS_WORDS] if len(ops) >= _OPS_WORDS else None
            ops = []

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Replace all records by `state`.

        Raises:
            ProtocolError: the document is larger than a slot. `UsageError`: the file system is full.
        """
        data = json.dumps(state, separators=(",", ":")).encode()
        if len(data) > _CHECKPOINT_SIZE:
            raise ProtocolError(f"state of {len(data)} bytes does not fit into a checkpoint of {_CHECKPOINT_SIZE}")
        generation = self._header[_H.GENERATION] + 1
        slot = generation & 1
        start = _HEADER_WORDS * 8 + slot * _CHECKPOINT_SIZE
        try:
            os.posix_fallocate(self._fd, start, max(len(data), 1))
        except OSError as error:
            raise _no_room(self._path, error) from None
        self._bytes[start : start + len(data)] = data
        self._header[_H.LENGTH0 + 2 * slot] = len(data)
        self._header[_H.CRC0 + 2 * slot] = zlib.crc32(data, generation & 0xFFFF_FFFF)
        self._header[_H.GENERATION] = generation
        self._header[_H.COUNT] = self._epoch = generation << 32
        self.count = 0

    def load(self) -> dict[str, Any] | None:
        """The last checkpoint, or None when there has been none.

        Raises:
            ProtocolError: it is damaged.
        """
        generation = self._header[_H.GENERATION]
        if generation == 0:
            return None
        slot = generation & 1
        length = self._header[_H.LENGTH0 + 2 * slot]
        if length > _CHECKPOINT_SIZE:
            raise ProtocolError(f"journal: checkpoint of {length} bytes")
        start = _HEADER_WORDS * 8 + slot * _CHECKPOINT_SIZE
        data = bytes(self._bytes[start : start + length])
        if zlib.crc32(data, generation & 0xFFFF_FFFF) != self._header[_H.CRC0 + 2 * slot]:
            raise ProtocolError("journal: the checkpoint's checksum is wrong")
        try:
            state = bounded.loads(data)
        except ValueError as error:
            raise ProtocolError(f"journal: the checkpoint is not a JSON document: {error}") from None
        if not isinstance(state, dict):
            raise ProtocolError("journal: the checkpoint is not an object")
        return state
