"""Kernels that `scripts/crash-kernel` built, in the user's cache directory: found by name, such as "own-7.3".

Each has a directory in `own-kernels`, which appears there only when the kernel is whole:

    Image, vmlinux, config, System.map   the kernel; vmlinux has its debug information
    build/                               what modules are built against: headers, kbuild, Module.symvers
    kernel.json                          which kernel it is (`Description`)
    complete                             SHA-256 of these files (`qemu_sdei.host.unpack.SUMS`)

Nothing is downloaded or built here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qemu_sdei import bounded, codec, untrusted_files
from qemu_sdei.errors import UsageError
from qemu_sdei.host.unpack import damaged, read_sums, sha256
from qemu_sdei.paths import cache_directory
from qemu_sdei.printable import printable

PREFIX: Final = "own-"
SERIES: Final = re.compile(r"own-\d{1,3}\.\d{1,3}")
"""Name of a kernel: that of the Linux series it was built from."""
FOLDER: Final = "own-kernels"
FILES: Final = ("Image", "vmlinux", "config", "System.map")
DESCRIPTION: Final = "kernel.json"
COST: Final = "about 30 minutes of two cores, 4 GB of disk while it builds"

_MAX_DESCRIPTION: Final = 1 << 16
_MAX_KERNELS: Final = 1000


@dataclass(frozen=True)
class Description:
    """What `kernel.json` says."""

    series: str
    """Such as "own-7.3"."""
    release: str
    """What `uname -r` says, such as "7.3.4-crash"."""
    version: str
    """Of Debian's package linux-source-SERIES."""
    configuration: str
    """Digest of the options that it was built with (`scripts/kernellib/configuration.py`)."""
    built: float
    """When: seconds since the epoch."""
    seconds: float
    """How long the build took."""
    compiler: str
    """The first line of what the compiler says of its version."""


@dataclass(frozen=True)
class OwnKernel:
    """A kernel that was built here."""

    directory: Path
    description: Description

    @property
    def image(self) -> Path:
        """The arm64 Image, to be booted."""
        return self.directory / "Image"

    @property
    def vmlinux(self) -> Path:
        """The ELF file with symbols and debug information."""
        return self.directory / "vmlinux"

    @property
    def tree(self) -> Path:
        """What modules are built against."""
        return self.directory / "build"


def is_own(series: str | None) -> bool:
    """Whether a series names one of these, and none of Debian's."""
    return series is not None and SERIES.fullmatch(series) is not None


def built() -> list[OwnKernel]:
    """All that are here, the newest first. What is damaged or half deleted is none."""
    try:
        folders = sorted((cache_directory() / FOLDER).iterdir())[:_MAX_KERNELS]
    except (OSError, UsageError):
        return []
    found = [kernel for folder in folders if (kernel := _read(folder)) is not None]
    return sorted(found, key=lambda kernel: kernel.description.built, reverse=True)


def find(series: str) -> OwnKernel | None:
    """The newest kernel of a series such as "own-7.3"; None: it is not built."""
    return next((kernel for kernel in built() if kernel.description.series == series), None)


def kernel(series: str) -> OwnKernel:
    """The same, with its Image compared with what was built.

    Raises:
        UsageError: it is not built, and the message says how it is; or it is damaged.
    """
    if not is_own(series):
        raise UsageError(f"kernel series {printable(series)}: behind {PREFIX} give two numbers, such as own-7.3")
    found = find(series)
    if found is None:
        raise UsageError(not_built(series))
    try:
        sound = read_sums(found.directory).get("Image") == sha256(found.image)
    except OSError:
        sound = False
    if not sound:
        raise damaged(found.image, found.directory)
    return found


def not_built(series: str) -> str:
    """The sentence for a user (or for a test that is skipped) where `series` is not built."""
    have = sorted({each.description.series for each in built()})
    others = f" (here: {', '.join(have)})" if have else ""
    option = "" if series == "own-7.3" else f" --version {printable(series.removeprefix(PREFIX))}"
    return f"kernel {printable(series)} is not built{others}: scripts/crash-kernel{option} builds it ({COST})"


def vmlinux_of(image: Path) -> Path | None:
    """The vmlinux of the Image that a guest was booted with; None: it is no kernel of these."""
    if image.name != "Image" or image.parent.parent.name != FOLDER:
        return None
    found = _read(image.parent)
    return found.vmlinux if found is not None and found.vmlinux.is_file() else None


def _read(folder: Path) -> OwnKernel | None:
    """The kernel in `folder`; None: there is none that is whole."""
    if folder.name.startswith(".") or folder.name.endswith(".part"):
        return None
    try:
        data = bounded.loads(untrusted_files.read(folder / DESCRIPTION, _MAX_DESCRIPTION))
        description = codec.from_data(Description, data)
    except (UsageError, ValueError):
        return None
    found = OwnKernel(folder, description)
    return found if SERIES.fullmatch(description.series) and found.image.is_file() else None
