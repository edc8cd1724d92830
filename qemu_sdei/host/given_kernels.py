"""Kernels as people have them: an Image, a Debian package, a build tree, a directory with an installed kernel; and what
each has beside the kernel: configuration, modules, symbols, what the client module is built against.

Of a package kernel, configuration and modules are unpacked into the cache, by the package's SHA-256.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qemu_sdei import paths, untrusted_files
from qemu_sdei.boot.image import KernelImage
from qemu_sdei.errors import UsageError
from qemu_sdei.host import kernel_config
from qemu_sdei.host.progress import Progress, no_progress
from qemu_sdei.host.unpack import CONFIG, DRIVERS, IMAGE, Unpacked, extract, fields, read_sums, sha256, write_sums
from qemu_sdei.paths import cache_directory
from qemu_sdei.printable import printable

FOLDER: Final = "given-packages"
_MAX_PACKAGE: Final = 2 << 30
_BOOT: Final = Path("arch/arm64/boot")
_IMAGES: Final = ("Image", "Image.gz", "vmlinuz.efi", "Image.zst", "Image.xz", "Image.bz2", "Image.lzma")
"""What a build tree can have there, the best first."""
_RELEASE: Final = re.compile(rb"Linux version ([\w.+~-]{1,64}) \(")
_UTS: Final = re.compile(r'UTS_RELEASE "([^"\n]{1,64})"')
_MAX_HEADER: Final = 4096


@dataclass(frozen=True)
class GivenKernel:
    """A kernel that the user named, and what was found with it."""

    image: Path
    config: Path | None = None
    modules: Path | None = None
    """Directory with its modules, at any depth; None: there is none."""
    vmlinux: Path | None = None
    """The ELF file with its symbols."""
    tree: Path | None = None
    """The build tree that it comes from, against which modules can be built."""
    package: tuple[str, str] | None = None
    """Name and version of the Debian package that it comes from."""


def find(path: str | Path, progress: Progress = no_progress) -> GivenKernel:
    """The kernel that `path` names.

    Raises:
        UsageError: it is no such thing, or damaged; the message says what to give.
    """
    given = paths.absolute(path)
    try:
        if given.is_dir():
            return _directory(given)
        if not given.is_file():
            reason = "it is not a regular file" if given.exists() else "no such file"
            raise UsageError(f"kernel {given} cannot be read: {reason}")
        with given.open("rb") as file:
            magic = file.read(8)
    except OSError as error:
        raise UsageError(f"kernel {given} cannot be read: {error.strerror}") from None
    if magic == b"!<arch>\n":
        return _package(given.resolve(), progress)
    return _image(given)


def checked(path: str | Path, progress: Progress = no_progress) -> GivenKernel:
    """`find`, and it is an arm64 kernel. Raises `UsageError`: it is none."""
    found = find(path, progress)
    KernelImage.load(found.image)
    return found


def release_of(image: Path) -> str | None:
    """What `uname -r` says in the kernel of a file, by its own banner; None: it does not say. Raises `UsageError`."""
    found = _RELEASE.search(KernelImage.load(image).data)
    return found[1].decode() if found else None


def vmlinux_of(image: Path) -> Path | None:
    """The vmlinux of the build tree that a kernel's file lies in; None: it lies in none, or that has none."""
    return _image(image).vmlinux


def _image(file: Path) -> GivenKernel:
    """A kernel's file, with what lies around it."""
    where = file.resolve()
    if where.parent.parts[-3:] == _BOOT.parts:
        found = _tree(where.parents[3], file)
        if found is not None:
            return found
    return GivenKernel(file, kernel_config.beside(where))


def _directory(folder: Path) -> GivenKernel:
    images = [folder / _BOOT / name for name in _IMAGES]
    image = next((each for each in images if each.is_file()), None)
    if image is not None:
        return _tree(folder, image) or GivenKernel(image)
    if (folder / ".config").is_file() and (folder / "Makefile").is_file():
        text = kernel_config.KernelConfig.read(folder / ".config")
        if text is not None and text.get("ARM64") is None:
            raise UsageError(
                f"{folder} is the build tree of a kernel for another architecture: one for arm64 is needed"
            )
        raise UsageError(
            f"{folder} is a build tree without a kernel: {_BOOT}/Image is not there (`make ARCH=arm64 Image` makes it)"
        )
    return _installed(folder)


def _tree(tree: Path, image: Path) -> GivenKernel | None:
    """A build tree; None: it is none."""
    config, vmlinux = tree / ".config", tree / "vmlinux"
    if not config.is_file():
        return None
    buildable = (tree / "Makefile").is_file() and (tree / "include/generated/utsrelease.h").is_file()
    return GivenKernel(
        image,
        config,
        modules=tree,
        vmlinux=vmlinux if vmlinux.is_file() else None,
        tree=tree if buildable else None,
    )


def _installed(folder: Path) -> GivenKernel:
    """A directory with one installed kernel: what `dpkg -x`, `make install` or a root file system have."""
    found = sorted(_kernels_in(folder))
    if len(found) != 1:
        names = ", ".join(printable(each.name) for each in found[:3])
        what = (
            f"has {len(found)} kernels in it ({names}, ...): give the file of one" if found else "has no kernel in it"
        )
        raise UsageError(
            f"{folder} {what}" + ("" if found else ": give an arm64 Image, a linux-image package, or a build tree")
        )
    image = found[0]
    release = image.name.partition("-")[2] or image.parent.name
    config = kernel_config.beside(image)
    roots = [folder / name / release for name in ("lib/modules", "usr/lib/modules")]
    modules = next((root for root in (*roots, image.parent) if (root / "kernel").is_dir()), None)
    return GivenKernel(image, config, modules)


def _kernels_in(folder: Path) -> Iterator[Path]:
    patterns = ("vmlinuz-*", "vmlinuz", "Image", "boot/vmlinuz-*", "lib/modules/*/vmlinuz", "usr/lib/modules/*/vmlinuz")
    seen = set()
    for pattern in patterns:
        for path in folder.glob(pattern):
            where = path.resolve()
            # /lib may be a link to /usr/lib, and /boot/vmlinuz one to the kernel itself.
            if where.is_file() and where not in seen and where.is_relative_to(folder.resolve()):
                seen.add(where)
                yield where


# Packages


def _package(deb: Path, progress: Progress) -> GivenKernel:
    said = fields(deb, "Package", "Version", "Architecture", "Depends")
    name, version = said.get("Package", ""), said.get("Version", "")
    if (architecture := said.get("Architecture")) not in ("arm64", "all"):
        raise UsageError(f"{deb} is a package for {printable(architecture or '?')}: give one for arm64")
    folder = _unpacked(deb, progress)
    images = [path for path in folder.iterdir() if path.name.startswith("vmlinuz")]
    if len(images) != 1:
        raise UsageError(f"{deb} {_instead(name, said.get('Depends', ''), len(images))}")
    image = images[0]
    config = next((path for path in folder.iterdir() if path.name.startswith("config")), None)
    modules: Path | None = folder
    if not any(".ko" in path.name for path in folder.iterdir()):
        modules = None
    release = release_of(image) or image.name.partition("-")[2]
    # Some distributions have them in packages of their own, which people download into the same directory.
    for kind in ("linux-modules", "linux-base") if modules is None or config is None else ():
        for other in sorted(deb.parent.glob(f"{kind}-{_glob(release)}_*.deb"))[:1]:
            more = _unpacked(other.resolve(), progress)
            if modules is None and any(".ko" in path.name for path in more.iterdir()):
                modules = more
            config = config or next((path for path in more.iterdir() if path.name.startswith("config")), None)
    return GivenKernel(image, config, modules, package=(name, version))


def _instead(name: str, depends: str, images: int) -> str:
    if images:
        return f"has {images} kernels in it: unpack it, and give the file of one"
    needs = re.search(r"\b(linux-(?:image|binary)-[\w.+~-]+)", depends)
    if needs is not None and needs[1] != name:
        return f"is a package without a kernel, which depends on {needs[1]}: give that one"
    return "has no kernel in it: give the package with /boot/vmlinuz-*, such as linux-image-RELEASE-arm64"


def _glob(text: str) -> str:
    return re.sub(r"([\[\]*?])", r"[\1]", text)


def _unpacked(deb: Path, progress: Progress) -> Path:
    """The directory of the cache with what a package has of a kernel. Raises `UsageError`."""
    digest = untrusted_files.sha256(deb, _MAX_PACKAGE)
    folder = cache_directory() / FOLDER / digest[:32]
    if _is_whole(folder):
        return folder
    progress(f"unpacking {deb.name}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=folder.parent) as part:
            into = Path(part, "files")
            into.mkdir()
            pattern = re.compile(f"{IMAGE}|{CONFIG}|{DRIVERS}")
            files: dict[str, Unpacked] = extract(deb, pattern, into)
            write_sums(into, files)
            if folder.exists():  # damaged, or another process was quicker
                shutil.rmtree(folder, ignore_errors=True)
            into.rename(folder)
    except OSError as error:
        if _is_whole(folder):
            return folder
        raise UsageError(
            f"{deb} cannot be unpacked into {folder.parent}: {error.strerror or error}: make room or set "
            "XDG_CACHE_HOME to another directory"
        ) from None
    return folder


def _is_whole(folder: Path) -> bool:
    """It was unpacked, and is as it was then. Modules are compared when they are used."""
    sums = read_sums(folder)
    try:
        return (folder / "complete").is_file() and all(
            sha256(folder / name) == digest for name, digest in sums.items() if ".ko" not in name
        )
    except OSError:
        return False
