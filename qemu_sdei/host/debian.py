"""Debian's own arm64 kernels and busybox, from the user's package mirror, kept in the user's cache directory.

Everything lies below `$XDG_CACHE_HOME/qemu-sdei` (default `~/.cache/qemu-sdei`): `debs/` packages, `kernels/RELEASE/`
what was taken from them, `apt-ARCHITECTURE/` a private apt (see `qemu_sdei.host.apt`), `index.json` what is there.
What is in the index is used without asking anybody, so that the second time works without a network. It has the SHA-256
of each file too, which is compared whenever a kernel or busybox is taken from here.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final, TypeVar

from qemu_sdei.errors import UsageError
from qemu_sdei.host import kernel_packages
from qemu_sdei.host.apt import WHAT_ELSE, Apt
from qemu_sdei.host.cache_index import CacheIndex, safe
from qemu_sdei.host.kernel_packages import Packages
from qemu_sdei.host.progress import Progress, no_progress
from qemu_sdei.host.unpack import CONFIG, DRIVERS, SUMS, Unpacked, damaged, extract, read_sums, sha256, write_sums
from qemu_sdei.paths import cache_directory

_DRIVERS: Final = re.compile(DRIVERS)
_LOCK_TIMEOUT: Final = 1800.0

Got = TypeVar("Got")


@dataclass(frozen=True)
class KernelFiles:
    """A Debian kernel in the cache."""

    series: str
    """As it was asked for, such as "6.1", "6.12-rt" or "7.3/trixie-backports"."""
    release: str
    """What `uname -r` says, such as "6.1.0-56-arm64"."""
    package: str
    """Which has the image."""
    version: str
    """The package's version."""
    image: Path
    config: Path | None
    """The kernel's .config, if the package has it."""
    modules: str = ""
    """The package with its modules, where that is another one."""

    @property
    def suite(self) -> str | None:
        """The suite that it comes from, where that was named."""
        return self.series.partition("/")[2] or None


class DebianCache:
    """Gets Debian packages and keeps them. Safe against other processes that use the same directory."""

    def __init__(self, directory: Path | None = None, *, progress: Progress = no_progress) -> None:
        self.directory = directory or cache_directory()
        self._progress = progress
        self._apts: dict[str, Apt] = {}
        self._index = CacheIndex(self.directory)
        self._holder: int | None = None
        """Thread that holds the lock."""

    def kernel(self, series: str | None = None, *, refresh: bool = False) -> KernelFiles:
        """The kernel of a series such as "6.1" or "6.12-rt" (`kernel_packages`), or the release's default one;
        downloaded if it is not here yet.

        `refresh` asks the mirror for a newer one first. Kernels that were there before stay.

        Raises:
            UsageError: it is not here and cannot be had; the message says why and what to do.
        """
        suite = kernel_packages.suite_of(series)
        if not refresh and (found := self._sound_kernel(series)):
            return found
        with self._locked():
            if not refresh and (found := self._sound_kernel(series)):
                return found
            apt = self._apt("arm64", suite)

            def get() -> tuple[Packages, Path, Path | None]:
                parts = kernel_packages.find(apt, series)
                image = self._deb(apt, parts.image, parts.version)
                config = None if parts.config == parts.image else self._deb(apt, parts.config, parts.version)
                if parts.modules != parts.image:
                    self._deb(apt, parts.modules, parts.version)
                return parts, image, config

            parts, deb, more = _with_lists(apt, get, refresh)
            release = parts.release
            files = self._extract_kernel(deb, release, parts.file)
            if more is not None:
                files |= extract(more, re.compile(CONFIG), self.directory / "kernels" / release)
            config = next((file.path for name, file in files.items() if name.startswith("config")), None)
            found = KernelFiles(
                kernel_packages.series_of(release) if series is None else series,
                release,
                parts.image,
                parts.version,
                files[parts.file].path,
                config,
                parts.modules if parts.modules != parts.image else "",
            )
            index = self._index.read()
            index["kernels"][found.series] = asdict(found) | {
                "image": str(found.image.relative_to(self.directory)),
                "config": str(config.relative_to(self.directory)) if config else None,
            }
            if series is None:
                index["default"] = found.series
            self._index.write(index, files.values())
            return found

    def busybox(self, *, refresh: bool = False) -> Path:
        """A statically linked arm64 busybox.

        Raises:
            UsageError: it is not here and cannot be had.
        """
        return self._single("busybox", "busybox-static", r"\./(?:usr/)?bin/(busybox)", refresh)

    def uefi(self, *, refresh: bool = False) -> Path:
        """UEFI for QEMU's arm64 `virt` machine (EDK II), as a flash image: what boots a guest with `uefi`, and what an
        ACPI boot is compared with.

        Raises:
            UsageError: it is not here and cannot be had.
        """
        pattern = r"\./usr/share/qemu-efi-aarch64/(QEMU_EFI\.fd)"
        return self._single("QEMU_EFI.fd", "qemu-efi-aarch64", pattern, refresh)

    def _single(self, name: str, package: str, pattern: str, refresh: bool) -> Path:
        """The one file `name` of a package, whose path there matches `pattern`."""

        def sound() -> Path | None:
            path = self._index.file(name)
            return path and self._sound(
                path,
                lambda: self._index.deb_of(package, path.parent.name),
                lambda deb: extract(deb, re.compile(pattern), path.parent, last=name),
            )

        if not refresh and (found := sound()):
            return found
        with self._locked():
            if not refresh and (found := sound()):
                return found
            apt = self._apt("arm64")

            def get() -> tuple[str, Path]:
                version = apt.show(package).get("Version")
                if not version:
                    raise UsageError(f"your Debian package sources have no {package} for arm64: {WHAT_ELSE}")
                return version, self._deb(apt, package, version)

            version, deb = _with_lists(apt, get, refresh)
            target = self.directory / package / safe(version)
            files = extract(deb, re.compile(pattern), target, last=name)
            index = self._index.read()
            index[name] = str(files[name].path.relative_to(self.directory))
            self._index.write(index, files.values())
            return files[name].path

    def download(self, package: str, version: str, architecture: str = "arm64", suite: str | None = None) -> Path:
        """A package of exactly this version, as a .deb file. `architecture` "all" is looked for beside arm64; `suite`
        is that of `KernelFiles`.

        Raises:
            UsageError: it is not here and cannot be had.
        """
        if known := self._index.deb(package, version):
            return known
        with self._locked():
            apt = self._apt("arm64" if architecture == "all" else architecture, suite)
            return _with_lists(apt, lambda: self._deb(apt, package, version))

    def package(self, name: str, architecture: str = "arm64") -> Path:
        """A package as a .deb file: the newest version that the mirror had when the lists were got last.

        Raises:
            UsageError: there is none, or it cannot be had.
        """
        with self._locked():
            apt = self._apt(architecture)

            def get() -> Path:
                version = apt.show(name).get("Version")
                if not version:
                    raise UsageError(f"your Debian package sources have no {name} for {architecture}")
                return self._deb(apt, name, version)

            return _with_lists(apt, get)

    def drivers(self, kernel: KernelFiles) -> Path:
        """A directory with those of the kernel's modules that disks, networks and shares can need.

        Raises:
            UsageError: they are not here, and the kernel's package cannot be had.
        """
        # Not "drivers": older versions have less in there, and may be used beside this one.
        target = self.directory / "kernels" / kernel.release / "drivers-2"
        unsummed = (target / SUMS).is_file()  # of an older version, which kept no checksums
        if read_sums(target) or (unsummed and not os.access(target, os.W_OK)):
            return target
        try:
            deb = self.download(kernel.modules or kernel.package, kernel.version, suite=kernel.suite)
        except UsageError:
            if unsummed:
                return target
            raise
        with self._locked():
            if not read_sums(target):
                self._progress(f"unpacking drivers of {kernel.release}")
                write_sums(target, extract(deb, _DRIVERS, target))
        return target

    def cached_kernels(self) -> list[KernelFiles]:
        """The newest kernel of each series in the cache; asks nobody."""
        found = (
            self._indexed_kernel(series) for series in sorted(self._index.read()["kernels"], key=kernel_packages.order)
        )
        return [kernel for kernel in found if kernel is not None]

    def cached_busybox(self) -> Path | None:
        """The busybox in the cache, if there is one; asks nobody."""
        found = self._index.file("busybox")
        return found if found is not None and found.is_file() else None

    def cached_uefi(self) -> Path | None:
        """The UEFI image in the cache, if there is one; asks nobody."""
        found = self._index.file("QEMU_EFI.fd")
        return found if found is not None and found.is_file() else None

    def is_damaged(self, path: Path) -> bool:
        """Whether a file of the cache is not what was put there; asks nobody, changes nothing."""
        return self._index.is_damaged(path)

    # Finding and downloading; the lock is held.

    def _apt(self, architecture: str, suite: str | None = None) -> Apt:
        name = safe(architecture if suite is None else f"{architecture}-{suite}")
        if name not in self._apts:
            self._apts[name] = Apt(self.directory / f"apt-{name}", architecture, self._progress, suite=suite)
        return self._apts[name]

    def _deb(self, apt: Apt, package: str, version: str) -> Path:
        if known := self._index.deb(package, version):
            return known
        self._progress(f"downloading {package} {version}")
        path = apt.download(package, version, self.directory / "debs")
        index = self._index.read()
        index["debs"][f"{package}={version}"] = path.name
        self._index.write(index, [Unpacked(path, sha256(path))])
        return path

    def _extract_kernel(self, deb: Path, release: str, image: str) -> dict[str, Unpacked]:
        self._progress(f"unpacking {release}")
        target = self.directory / "kernels" / release
        name = re.escape(release)
        where = rf"\./boot/((?:vmlinuz|config)-{name})|\./(?:usr/)?lib/modules/{name}/(vmlinuz|config)"
        return extract(deb, re.compile(where), target, last=image)

    # The index.

    def _entry(self, series: str | None) -> KernelFiles | None:
        """What the index says of a kernel."""
        index = self._index.read()
        try:
            entry = index["kernels"][index["default"] if series is None else series]
            image, config = self.directory / entry["image"], entry["config"]
            return KernelFiles(**entry | {"image": image, "config": self.directory / config if config else None})
        except (TypeError, KeyError):
            return None

    def _indexed_kernel(self, series: str | None) -> KernelFiles | None:
        known = self._entry(series)
        return known if known is not None and known.image.is_file() else None

    def _sound_kernel(self, series: str | None) -> KernelFiles | None:
        """A kernel of the cache whose image is what was put there. Raises `UsageError`: it is damaged."""
        known = self._entry(series)
        if known is None:
            return None
        found = self._sound(
            known.image,
            lambda: self._index.deb(known.package, known.version),
            lambda deb: self._extract_kernel(deb, known.release, known.image.name),
        )
        return known if found else None

    def _sound(
        self, path: Path, package: Callable[[], Path | None], unpack: Callable[[Path], dict[str, Unpacked]]
    ) -> Path | None:
        """`path` if it is what was put there; None if it has to be fetched. Raises `UsageError`: it is damaged.

        A file that was deleted, or that an older version put there without a checksum, is unpacked again where its
        package is here: that needs no network.
        """
        read_only = self.directory.is_dir() and not os.access(self.directory, os.W_OK)
        if path.is_file() and (read_only or self._index.digest(path)):
            if not self.is_damaged(path):
                return path
            if read_only:
                raise damaged(path)
        with self._locked():
            # Once more: another process may just have replaced it.
            known = self._index.digest(path)
            if path.is_file() and known:
                if self.is_damaged(path):
                    raise damaged(path)
                return path
            deb = package()
            if deb is None and not path.is_file():
                return None
            # Without its package, an older version's file can only be taken as it is.
            files = unpack(deb).values() if deb else [Unpacked(path, sha256(path))]
            self._index.write(self._index.read(), files)
            return path

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the cache's lock; what fails on the file system inside becomes a UsageError."""
        if self._holder == threading.get_ident():
            yield
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with (self.directory / "lock").open("a") as lock:
                self._lock(lock)
                self._holder = threading.get_ident()
                try:
                    yield
                finally:
                    self._holder = None
        except OSError as error:
            raise UsageError(
                f"the cache {self.directory} cannot be used: {error.strerror or error}: "
                "make room or set XDG_CACHE_HOME to another directory"
            ) from None

    def _lock(self, lock: IO[str]) -> None:
        deadline = time.monotonic() + _LOCK_TIMEOUT
        told = False
        while True:
            try:
                return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            if not told:
                self._progress("waiting for another qemu-sdei that is downloading")
                told = True
            if time.monotonic() > deadline:
                raise UsageError(
                    f"another qemu-sdei holds {self.directory}/lock for {_LOCK_TIMEOUT:.0f} s: end it, or {WHAT_ELSE}"
                )
            time.sleep(0.2)


def kernel(series: str | None = None, *, refresh: bool = False, progress: Progress = no_progress) -> KernelFiles:
    """`DebianCache.kernel` of the user's cache."""
    return DebianCache(progress=progress).kernel(series, refresh=refresh)


def busybox(*, refresh: bool = False, progress: Progress = no_progress) -> Path:
    """`DebianCache.busybox` of the user's cache."""
    return DebianCache(progress=progress).busybox(refresh=refresh)


def _with_lists(apt: Apt, action: Callable[[], Got], refresh: bool = False) -> Got:
    """Do something that needs package lists; once more with new ones if it fails with older ones.

    Old lists name what the mirror has replaced since, and lack what is new.
    """
    are_new = apt.update(0 if refresh else apt.LISTS_AGE)
    try:
        return action()
    except UsageError:
        if are_new:
            raise
    apt.update(0)
    return action()
