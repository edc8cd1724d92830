"""The cells of a crash matrix: every ending on every firmware, of every kernel, with a capture kernel of every size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from qemu_sdei.crash.endings import Ending


class Capture(Enum):
    """How many vCPUs the capture kernel brings up."""

    UP = "up"
    """The one that panicked."""
    SMP = "smp"
    """All."""

    def vcpus(self, machine: int) -> int:
        """How many of a machine's vCPUs."""
        return 1 if self is Capture.UP else machine


@dataclass(frozen=True)
class Kernel:
    """A kernel that crashes, and that captures.

    Attributes:
        name: a series of Debian's, or the name of a file.
        image: that file; None: Debian's.
        client: the client module for it; None: it is built.
        missing: why there is no such kernel here: its cells are not run; "": there is.
    """

    name: str
    image: Path | None = None
    client: Path | None = None
    missing: str = ""


@dataclass(frozen=True)
class Origin:
    """A guest that is booted once, for all cells that differ in nothing before their crash.

    Attributes:
        kernel, capture: of these cells.
        by_kernel: event 0 is the kernel's own, if it wants it; else the client module's.
    """

    kernel: Kernel
    capture: Capture
    by_kernel: bool = False


@dataclass(frozen=True)
class Cell:
    """One crash."""

    ending: Ending
    firmware: str
    """Name of a firmware profile, or its file."""
    kernel: Kernel
    capture: Capture

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.ending.name}, {self.firmware}, {self.kernel.name}, {self.capture.value}"


@dataclass(frozen=True)
class Axes:
    """What a matrix is made of."""

    endings: Sequence[Ending]
    firmware: Sequence[str]
    kernels: Sequence[Kernel]
    captures: Sequence[Capture]

    def origins(self) -> Iterator[Origin]:
        """What has to be booted."""
        kinds = sorted({ending.by_kernel for ending in self.endings})
        pairs = ((kernel, capture) for kernel in self.kernels for capture in self.captures)
        return (Origin(kernel, capture, by_kernel) for kernel, capture in pairs for by_kernel in kinds)

    def cells(self, origin: Origin) -> list[Cell]:
        """Those that begin with the same guest."""
        return [cell for cell in self if (cell.kernel, cell.capture, cell.ending.by_kernel) == _key(origin)]

    def __iter__(self) -> Iterator[Cell]:
        """All, in the order in which they are shown."""
        return (
            Cell(ending, firmware, kernel, capture)
            for kernel in self.kernels
            for capture in self.captures
            for firmware in self.firmware
            for ending in self.endings
        )

    def __len__(self) -> int:
        return len(self.endings) * len(self.firmware) * len(self.kernels) * len(self.captures)


def _key(origin: Origin) -> tuple[Kernel, Capture, bool]:
    return origin.kernel, origin.capture, origin.by_kernel
