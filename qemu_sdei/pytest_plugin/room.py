"""Room for guests on this host: cores and memory, shared by all processes of a user that run tests (pytest-xdist).

A guest takes a core for each vCPU and one for its firmware, and its RAM. Each claim is a file that its process holds
locked, so that one that is killed claims nothing any more. Claims are served in the order in which they came. Only the
first guest of a process waits: whoever has a guest and waits for another one could be waited for by its owner.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qemu_sdei import bounded, locks
from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.rundir_base import base_locked, make_base
from qemu_sdei.untrusted_files import read

FOLDER: Final = ".pytest"
"""In the directory of all run directories."""
LONGEST: Final = 300.0
"""Seconds that a guest waits for room; then it is started all the same."""
_LOOK: Final = 0.05
_MOST: Final = 4096


@dataclass(frozen=True)
class Claim:
    """What a guest takes, or is to take: cores, and bytes of memory. `number`: claims are served in its order."""

    cores: int
    memory: int
    number: int = 0
    running: bool = False


def has_room(claims: Sequence[Claim], mine: Claim, cores: int, memory: int, free: int | None) -> bool:
    """Whether the guest of `mine` may start beside the others of `claims`.

    `cores`, `memory`: what the host has; `free`: bytes that are free now, None if it does not say. A guest that takes
    more than there is runs when no other one does.
    """
    others = [claim for claim in claims if claim.number != mine.number]
    if any(claim.number < mine.number and not claim.running for claim in others):
        return False
    running = [claim for claim in others if claim.running]
    if not running:
        return True
    return (
        sum(claim.cores for claim in running) + mine.cores <= cores
        and sum(claim.memory for claim in running) + mine.memory <= memory
        and (free is None or mine.memory <= free)
    )


class Room:
    """The claims of this process among those of the others."""

    def __init__(
        self,
        cores: int | None = None,
        memory: int | None = None,
        free: Callable[[], int | None] = lambda: None,
        longest: float = LONGEST,
    ) -> None:
        """What there is; None: what the host has. `free`: as in `has_room`; `longest`: seconds to wait."""
        self._cores = cores or len(os.sched_getaffinity(0))
        self._memory = memory or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self._free = free
        self._longest = longest
        self._held = 0

    @contextmanager
    def taken(self, cores: int, memory: int) -> Iterator[bool]:
        """Wait until there is room for a guest, and have it as long as the context lasts. Gives False where there was
        none for too long.

        Raises:
            OSError, UsageError: no claim can be made here.
        """
        base = make_base()
        path, lock, claim = self._claimed(base, Claim(cores, memory, running=self._held > 0))
        try:
            there = self._waited(base, path, claim)
            self._held += 1
            try:
                yield there
            finally:
                self._held -= 1
        finally:
            _given_back(base, path, lock)

    @staticmethod
    def _claimed(base: Path, claim: Claim) -> tuple[Path, int, Claim]:
        """Its file, the descriptor that locks it, and the claim with its number."""
        folder = base / FOLDER
        with base_locked(base):
            folder.mkdir(mode=0o700, exist_ok=True)
            number = max((each.number for each in _claims(folder)), default=0) + 1
            claim = Claim(claim.cores, claim.memory, number, claim.running)
            path = folder / str(number)
            lock = locks.try_lock(path)
            assert lock is not None, "nobody else knows of it"
            try:
                _write(path, claim)
            except BaseException:
                path.unlink()
                os.close(lock)
                raise
            return path, lock, claim

    def _waited(self, base: Path, path: Path, claim: Claim) -> bool:
        """Whether there is room; the claim is one of a guest that runs, from now on."""
        deadline = time.monotonic() + self._longest
        running = Claim(claim.cores, claim.memory, claim.number, running=True)
        while not claim.running:
            with base_locked(base):
                there = has_room(_claims(path.parent, path), claim, self._cores, self._memory, self._free())
                if there or time.monotonic() > deadline:
                    _write(path, running)
                    return there
            time.sleep(_LOOK)
        return True


def _claims(folder: Path, mine: Path | None = None) -> list[Claim]:
    """Those of processes that live, but for the file `mine`; the others are removed. The lock of the base is held."""
    found = []
    for path in folder.iterdir():
        if not path.name.isdigit() or path == mine:
            continue
        with contextlib.suppress(OSError):
            lock = locks.try_lock(path)
            if lock is not None:
                path.unlink()
                os.close(lock)
                continue
        found.append(_read(path))
    return found


def _read(path: Path) -> Claim:
    number = int(path.name[:18])
    try:
        data = bounded.loads(read(path, _MOST))
    except (ProtocolError, UsageError, ValueError):
        data = None
    words = data if isinstance(data, dict) else {}
    cores, memory = words.get("cores"), words.get("memory")
    if not isinstance(cores, int) or not isinstance(memory, int):
        return Claim(0, 0, number, running=True)  # somebody has written into it: nobody waits for that
    return Claim(cores, memory, number, words.get("running") is True)


def _write(path: Path, claim: Claim) -> None:
    path.write_text(json.dumps({"cores": claim.cores, "memory": claim.memory, "running": claim.running}))


def _given_back(base: Path, path: Path, lock: int) -> None:
    try:
        with base_locked(base), contextlib.suppress(OSError):
            path.unlink()
            path.parent.rmdir()  # of the last one
    except (OSError, UsageError):
        pass  # the lock goes all the same, and whoever comes next removes the file
    finally:
        os.close(lock)
