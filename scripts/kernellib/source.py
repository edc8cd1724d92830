"""Debian's package of a kernel's sources: found, downloaded by the private apt, and unpacked."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from qemu_sdei.errors import UsageError
from qemu_sdei.host.apt import WHAT_ELSE, Apt
from scripts.kernellib import following

ARCHITECTURE: Final = "arm64"
"""Whose package lists are got: sources are in those of every architecture."""
_LEFT_OUT: Final = (
    *(
        f"*/{folder}/*.[ch]"
        for folder in (
            "drivers/gpu",
            "drivers/infiniband",
            "drivers/media",
            "drivers/net/ethernet",
            "drivers/net/wireless",
            "drivers/scsi",
            "drivers/staging",
            "sound",
        )
    ),
    *(
        "*/arch/*.dts",
        "*/arch/*.dtsi",
        "*/Documentation/*.rst",
        "*/Documentation/*.yaml",
        "*/tools/perf/*",
        "*/tools/testing/*",
    ),
)
"""Half of the sources: of drivers that no virtual machine has. Their Kconfig files and makefiles are needed all the
same. Of device trees drivers/of builds one in, so only those of boards go."""
_TIMEOUT: Final = 300.0


def plain(error: UsageError) -> str:
    """What went wrong, without what `qemu-sdei run` could do in its place."""
    return str(error).removesuffix(f": {WHAT_ELSE}")


class Sources:
    """The packages `linux-source-SERIES` of one suite."""

    def __init__(self, directory: Path, suite: str, progress: Callable[[str], None]) -> None:
        """`directory`: of the private apt; `suite`: such as "trixie-backports"."""
        self._suite = suite
        self._apt = Apt(directory, ARCHITECTURE, progress, suite=suite)

    def newest(self, series: str) -> str:
        """The newest version of the package for a series such as "7.3".

        Raises:
            UsageError: the suite has none (the message says what it has), or its lists cannot be had.
        """
        try:
            # What old lists lack may be there by now.
            for age in (Apt.LISTS_AGE, 0):
                is_new = self._apt.update(age)
                if version := self._apt.show(name(series)).get("Version"):
                    return version
                if is_new:
                    break
            have = [found[1] for each in self._apt.names("linux-source-") if (found := _SERIES.fullmatch(each))]
        except UsageError as error:
            raise UsageError(plain(error)) from None
        known = ", ".join(sorted(have, key=lambda each: [int(part) for part in each.split(".")])) or "none"
        raise UsageError(
            f"Debian's {self._suite} has no {name(series)} (it has {known}): give one of these by --version, "
            "or another --suite"
        )

    def download(self, series: str, version: str, target: Path) -> Path:
        """The package, in the directory `target`. Raises `UsageError`."""
        try:
            return self._apt.download(name(series), version, target)
        except UsageError as error:
            raise UsageError(plain(error)) from None


_SERIES: Final = re.compile(r"linux-source-(\d{1,3}\.\d{1,3})")


def name(series: str) -> str:
    """The package."""
    return f"linux-source-{series}"


def unpack(package: Path, series: str, target: Path, log: Path, said: Callable[[str], None]) -> None:
    """Unpack the sources in `package` into the directory `target`. Raises `UsageError`; `OSError`."""
    failed = f"{package.name} cannot be unpacked"
    inner = target.parent / "package"
    archive = inner / "usr/src" / f"{name(series)}.tar.xz"
    following.run(
        ["dpkg-deb", "--extract", str(package), str(inner)], failed, log, directory=target.parent, silence=_TIMEOUT
    )
    if not archive.is_file():
        raise UsageError(f"{failed}: there is no {archive.relative_to(inner)} in it")
    target.mkdir(exist_ok=True)
    following.run(
        ["tar", "--extract", "--xz", "--verbose", f"--file={archive}", "--strip-components=1",
         *(f"--exclude={pattern}" for pattern in _LEFT_OUT)],
        failed, log, directory=target, environment={"XZ_OPT": "-T0"}, said=said, silence=_TIMEOUT,
    )  # fmt: skip
    shutil.rmtree(inner)
    package.unlink()
