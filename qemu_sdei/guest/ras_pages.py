"""Pages of processes in a guest: which physical address is behind a virtual one, what became of a page. Asked of the
guest's own kernel, by procfs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.guest.helper import Runner

_PRESENT: Final = 1 << 63
_FRAME: Final = (1 << 55) - 1
"""Of an entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst)."""
_POISONED: Final = 1 << 19
"""KPF_HWPOISON of /proc/kpageflags."""
_MAX_PAGES: Final = 64
"""Of each mapping that are looked at for a page that is there."""
_MAPPING: Final = re.compile(r"([0-9a-f]{1,16})-([0-9a-f]{1,16}) (....) [0-9a-f]+ \S+ (\d+) *(.*)")
_WORD: Final = "hexdump -v -e '8/1 \"%02x\"' -e '\"\\n\"'"
"""Eight bytes a line, in the order of their addresses."""

_REGISTERS: Final = (
    "if grep -q running syscall; then kill -STOP {pid}; n=40; "
    "while grep -q running syscall && [ $((n -= 1)) -gt 0 ]; do sleep 0.05; done; cat syscall; kill -CONT {pid}; "
    "else cat syscall; fi; "
)
"""Prints /proc/PID/syscall, whose last word but one is the stack pointer. Of a process that runs the kernel says it
only while that is stopped.
"""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a process in the guest."""

    pid: int
    """Process id in the guest."""
    virtual: int
    """Virtual address that was asked for, or of the start of the page."""
    physical: int
    """Guest physical address of the same byte."""
    size: int
    """Size of the page in bytes."""
    what: str
    """Name of the program, and the kind of mapping."""

    @property
    def frame(self) -> int:
        """Page frame number."""
        return self.physical // self.size


@dataclass(frozen=True, slots=True)
class _Mapping:
    start: int
    end: int
    writable: bool
    anonymous: bool
    name: str


class Pages:
    """Looks up pages of one guest."""

    def __init__(self, run: Runner) -> None:
        self._run = run

    def page(self, pid: int, virtual: int | None = None) -> Page:
        """The page at the address `virtual` of process `pid`; None: the one that it will touch next, as far as can be
        told: that of its stack pointer, else another one of its stack or of its heap. One that runs is stopped for a
        moment.

        Raises:
            UsageError: there is no such process, or there is no memory at that address.
        """
        found = self._run(
            f"cd /proc/{pid} 2>/dev/null || exit 9; cat comm; grep -m 1 KernelPageSize smaps; "
            f"{_REGISTERS.format(pid=pid) if virtual is None else ''}echo maps; head -n 4000 maps"
        )
        if found.status == 9:
            raise UsageError(f"there is no process {pid} in the guest")
        head, _, maps = found.output.partition("\nmaps\n")
        name = head.partition("\n")[0]
        size = int(words[1]) << 10 if (words := re.search(r"KernelPageSize: +(\d+) kB", head)) else 4096
        mappings = [mapping for line in maps.split("\n") if (mapping := _mapping(line)) is not None]
        if not mappings:
            raise UsageError(
                f"process {pid} ({name}) of the guest has no memory of its own: a kernel thread, or it ended"
            )
        if virtual is not None:
            mapping = next((each for each in mappings if each.start <= virtual < each.end), None)
            if mapping is None:
                raise UsageError(f"process {pid} ({name}) has nothing mapped at {virtual:#x}")
            frame = self._frames(pid, virtual // size, 1, size)[0]
            if frame is None:
                raise UsageError(
                    f"at {virtual:#x} process {pid} ({name}) has no page: nothing is written there, or it is swapped"
                )
            return _made(pid, virtual, frame, size, name, mapping)
        stack_pointer = _stack_pointer(head)
        for mapping, start in _candidates(mappings, stack_pointer, size):
            count = min((mapping.end - start) // size, _MAX_PAGES)
            frames = self._frames(pid, start // size, count, size)
            for number, frame in enumerate(frames):
                if frame is not None:
                    return _made(pid, start + number * size, frame, size, name, mapping)
        raise UsageError(f"process {pid} ({name}) has no anonymous page that it writes to: say which by --virtual")

    def _frames(self, pid: int, first: int, count: int, size: int) -> list[int | None]:
        """Page frame numbers of `count` pages; None: none is there."""
        found = self._run(f"dd if=/proc/{pid}/pagemap bs=8 skip={first} count={count} 2>/dev/null | {_WORD}")
        entries = _words(found.output)
        if entries and all(entry & _PRESENT and not entry & _FRAME for entry in entries):
            raise UsageError("the guest does not say where its pages are: its helper is not root there")
        frames = [entry & _FRAME if entry & _PRESENT else None for entry in entries]
        return frames or [None]

    def poisoned(self, frame: int) -> bool | None:
        """Whether the kernel has taken the page `frame` out of use for an error; None: it does not say."""
        found = self._run(f"dd if=/proc/kpageflags bs=8 skip={frame} count=1 2>/dev/null | {_WORD}")
        flags = _words(found.output)
        return bool(flags[0] & _POISONED) if flags else None


def _mapping(line: str) -> _Mapping | None:
    match = _MAPPING.fullmatch(line)
    if match is None:
        return None
    start, end, rights, inode, name = match.groups()
    anonymous = inode == "0" and (not name or name in ("[heap]", "[stack]"))
    return _Mapping(int(start, 16), int(end, 16), rights[1] == "w", anonymous, name)


def _stack_pointer(head: str) -> int | None:
    """The last word but one of /proc/PID/syscall."""
    match = re.search(r"(?:^|\n)-?\d+(?: 0x[0-9a-f]+)* (0x[0-9a-f]+) 0x[0-9a-f]+(?:\n|$)", head)
    return int(match[1], 16) if match else None


def _candidates(mappings: list[_Mapping], stack_pointer: int | None, size: int) -> list[tuple[_Mapping, int]]:
    """Where to look for a page, the likeliest first: mappings, and where in them to begin."""
    ours = [each for each in mappings if each.writable and each.anonymous]
    found = []
    for each in ours:
        if stack_pointer is not None and each.start <= stack_pointer < each.end:
            found.append((each, stack_pointer - stack_pointer % size))
    # A stack is used from its end downwards.
    found += [(each, max(each.start, each.end - 8 * size)) for each in ours if each.name == "[stack]"]
    found += [(each, each.start) for each in ours if each.name == "[heap]"]
    return found + [(each, each.start) for each in ours if not each.name]


def _made(pid: int, virtual: int, frame: int, size: int, name: str, mapping: _Mapping) -> Page:
    what = f"{name}, {mapping.name or 'anonymous memory'}"
    return Page(pid, virtual, frame * size + virtual % size, size, what)


def _words(text: str) -> list[int]:
    found = []
    for line in text.split("\n"):
        if re.fullmatch(r"[0-9a-f]{16}", line):
            found.append(int.from_bytes(bytes.fromhex(line), "little"))
        elif line and not line.startswith("["):  # a kernel message may stand between them
            raise ProtocolError("the guest's answer is no page map")
    return found
