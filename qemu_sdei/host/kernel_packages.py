"""Which of Debian's packages have the kernel of a series, by the lists of a package source. Nothing is downloaded here.

A series is written `6.12`, with a flavour as `6.12-rt`, `6.12-cloud` or `6.12-16k`, and with a suite that the user's
own sources do not name as `7.3/trixie-backports`. Up to trixie one package has kernel, configuration and modules. In
forky and sid `linux-image-RELEASE` is empty, and depends on `linux-binary-RELEASE` (the kernel),
`linux-modules-RELEASE`, and `linux-base-RELEASE` (the configuration).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from qemu_sdei.errors import UsageError
from qemu_sdei.printable import printable

METAPACKAGE: Final = "linux-image-arm64"
"""Depends on the release's default kernel; `linux-image-SERIES-arm64` on that of another series."""
FLAVOURS: Final = ("rt", "cloud", "16k")
SERIES: Final = re.compile(r"(\d{1,3}\.\d{1,3})(?:-(rt|cloud|16k))?(?:/([a-z]{1,20}(?:-[a-z]{1,20}){0,2}))?")
"""Groups: the two numbers, flavour, suite."""
HOW: Final = "give two numbers, such as 6.1, with a flavour such as 6.12-rt, or a suite such as 7.3/trixie-backports"

_ARM64: Final = re.compile(
    r"linux-image-((\d{1,3}\.\d{1,3})[\w.+~]*(?:-[\d.]{1,10})?(?:-(rt|cloud))?-arm64(?:-(16k))?)(?:\s|$)"
)
"""A package of one kernel: not that of its debugging information, and not the unsigned one."""
_EXACTLY: Final = re.compile(r"(linux-(image|binary|modules|base)-([\w.+~-]+)) \(= ([\w.+~:-]+)\)")


class Lists(Protocol):
    """What is asked of apt (`qemu_sdei.host.apt`)."""

    def show(self, package: str) -> dict[str, str]:
        """The fields of a package's newest version; {}: there is none."""

    def versions(self, package: str) -> list[dict[str, str]]:
        """The same of all its versions, the newest first."""

    def names(self, prefix: str) -> list[str]:
        """Names of packages that begin so."""


@dataclass(frozen=True)
class Packages:
    """Where a kernel is."""

    release: str
    """What `uname -r` will say."""
    version: str
    """Of all of these packages."""
    image: str
    """Package with the kernel."""
    modules: str
    config: str

    @property
    def file(self) -> str:
        """Name of the kernel's file in it."""
        return "vmlinuz" if self.image.startswith("linux-binary-") else f"vmlinuz-{self.release}"


def suite_of(series: str | None) -> str | None:
    """The suite in a series; None: it names none. Raises `UsageError`: it is no series."""
    if series is None:
        return None
    found = SERIES.fullmatch(series)
    if found is None:
        raise UsageError(f"kernel series {printable(repr(series))}: {HOW}")
    return found[3]


def series_of(release: str) -> str:
    """The series of a release: "6.12-rt" of 6.12.117+deb12-rt-arm64; "" if it begins with no two numbers."""
    numbers = re.match(r"\d+\.\d+", release)
    if numbers is None:
        return ""
    flavour = next((each for each in FLAVOURS if f"-{each}" in release), "")
    return numbers[0] + (f"-{flavour}" if flavour else "")


def order(series: str) -> tuple[list[int], str]:
    """By which series are sorted."""
    return [int(number) for number in re.findall(r"\d+", series.partition("-")[0])], series


def find(lists: Lists, series: str | None) -> Packages:
    """The packages of the series' newest kernel; `series` None: of the release's default one.

    Raises:
        UsageError: there is none. The message says which series there are.
    """
    from qemu_sdei.host.apt import WHAT_ELSE  # here: options need no more than SERIES

    suite_of(series)
    wanted = None if series is None else series.partition("/")[0]
    for name in _metapackages(wanted):
        # Of several suites each has its own version of it.
        for stanza in lists.versions(name) if wanted else [lists.show(name)]:
            for found in _EXACTLY.finditer(stanza.get("Depends", "")):
                if found[2] in ("image", "binary") and wanted in (None, series_of(found[3])):
                    return _parts(lists, found[1], found[3], found[4])
    have: dict[str, list[str]] = {}
    for name in lists.names("linux-image-"):
        if one := _ARM64.fullmatch(name):
            have.setdefault(series_of(one[1]), []).append(name)
    for name in sorted(have.get(wanted or "", ()), key=_numbers, reverse=True):
        if version := lists.show(name).get("Version"):
            return _parts(lists, name, name.removeprefix("linux-image-"), version)
    known = ", ".join(sorted(have, key=order)) or "no kernels at all"
    what = f"series {series}" if series else METAPACKAGE
    elsewhere = "" if series is None or "/" in series else f", name another suite, as in {series}/trixie-backports"
    raise UsageError(
        f"your Debian package sources have no arm64 kernel of {what} (they have {known}){elsewhere}: {WHAT_ELSE}"
    )


def _metapackages(wanted: str | None) -> Iterable[str]:
    numbers, _, flavour = (wanted or "").partition("-")
    for prefix in ("", f"{numbers}-") if numbers else ("",):
        if flavour in ("", "16k"):
            yield f"linux-image-{prefix}arm64{'-16k' if flavour else ''}"
        else:
            yield f"linux-image-{prefix}{flavour}-arm64"


def _parts(lists: Lists, package: str, release: str, version: str) -> Packages:
    """The packages that have what `package` of a kernel has, or depends on."""
    wanted = (each for each in lists.versions(package) if each.get("Version") == version)
    depends = next(wanted, {}).get("Depends", "")
    parts = {found[2]: found[1] for found in _EXACTLY.finditer(depends) if found[3] == release and found[4] == version}
    image = parts.get("binary", package)
    return Packages(release, version, image, parts.get("modules", image), parts.get("base", image))


def _numbers(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]
