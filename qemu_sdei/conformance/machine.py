"""What the suite needs of a machine that runs its guest, and the one that has our firmware."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

from qemu_sdei.errors import NotDeliveredError, SdeiError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.guest.kept import Kept
from qemu_sdei.host.progress import no_progress
from qemu_sdei.vm.options import GuestOptions

TRACE: Final = 24
"""Trace records that a failure keeps."""
COMES: Final = 2.0
"""Seconds in which a vCPU must come to where an event is wanted."""
_PC: Final = re.compile(r"\bPC=([0-9a-fA-F]{1,16})\b")


class Machine(Protocol):
    """One start of the guest."""

    @property
    def ended(self) -> str:
        """How it ended, once `follow` has; empty if nothing is known."""

    def follow(self) -> Iterator[str]:
        """Console text as it comes, and "" now and then while none does; ends with the machine."""

    def write(self, text: str) -> None:
        """Type at the console."""

    def inject(self, event: int, cpu: int) -> None:
        """Trigger a static event. Raises `SdeiError` if it cannot be."""

    def inject_at(self, event: int, cpu: int, watched: int, code: range) -> None:
        """Trigger it while vCPU `watched` is in the code at these addresses. Raises `SdeiError`."""

    def trace(self, most: int = TRACE) -> Sequence[Mapping[str, Any]]:
        """The firmware's newest `most` trace records, if it has any."""

    def explanation(self) -> Sequence[str]:
        """What is the matter with it, as lines, if the firmware is ours and it is known."""

    def console(self) -> list[str]:
        """The last lines of the console."""


class OurMachine(AbstractContextManager["OurMachine"]):
    """A guest of ours: the Python firmware."""

    def __init__(self, options: GuestOptions, kept: Kept | None = None) -> None:
        """`kept`: where trace and console are to be when it has ended."""
        self._guest = Guest(options if kept is None else kept.options(options), progress=no_progress)
        self._kept = kept
        self.ended = ""

    def __enter__(self) -> OurMachine:
        self._guest.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._kept is not None:
            self._kept.take_console(self._guest)
        self._guest.__exit__(*error)

    def follow(self) -> Iterator[str]:
        """As `Machine`."""
        return self._guest.follow()

    def write(self, text: str) -> None:
        """As `Machine`."""
        self._guest.write(text)

    def inject(self, event: int, cpu: int) -> None:
        """As `Machine`."""
        self._guest.inject(event, cpu)

    def inject_at(self, event: int, cpu: int, watched: int, code: range) -> None:
        """As `Machine`: the guest is stopped to look, and the event is there before it goes on."""
        deadline = time.monotonic() + COMES
        while time.monotonic() < deadline:
            self._guest.qmp("stop")
            try:
                if self._pc(watched) in code:
                    self._guest.inject(event, cpu)
                    return
            finally:
                self._guest.qmp("cont")
        raise NotDeliveredError(
            f"vCPU {watched} was not seen between {code.start:#x} and {code.stop:#x} within {COMES:g} s"
        )

    def _pc(self, vcpu: int) -> int:
        text = self._guest.qmp("human-monitor-command", command_line="info registers", cpu_index=vcpu)
        found = _PC.search(str(text))
        return int(found[1], 16) if found else -1

    def trace(self, most: int = TRACE) -> Sequence[Mapping[str, Any]]:
        """As `Machine`."""
        try:
            return tuple(self._guest.trace(most))
        except SdeiError:
            return ()

    def explanation(self) -> Sequence[str]:
        """As `Machine`."""
        from qemu_sdei.explain.lines import short

        try:
            return tuple(short(self._guest.explain(), where=True))
        except SdeiError:
            return ()

    def console(self) -> list[str]:
        """As `Machine`."""
        return list(self._guest.console_text.last_lines())
