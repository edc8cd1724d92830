"""What `--symbols` names: files of each kind, and directories in which what fits is found.

A file is what its content says: ELF (vmlinux, a bare-metal program, a .ko), a kernel's Image, a System.map, or what was
copied from a guest: /proc/kallsyms, /proc/modules, /sys/module/*/sections, /sys/kernel/notes, VMCOREINFO. All of them
may be compressed.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from qemu_sdei import compressed, paths, untrusted_files
from qemu_sdei.boot.config import BUILTIN
from qemu_sdei.boot.image import KernelImage
from qemu_sdei.errors import UsageError
from qemu_sdei.symbols import elf, image_symbols, kaslr, listings, notes
from qemu_sdei.symbols.elf import ModuleFile
from qemu_sdei.symbols.symbol_table import SymbolTable

MAX_FILE: Final = 4 << 30
"""Bytes of an ELF file, of which little is read: a vmlinux with debugging information has 600 MiB."""
MAX_UNPACKED: Final = 256 << 20
"""Bytes that a compressed file may become."""
MAX_NAMES: Final = 200_000
"""Files of a directory that are looked at."""
MAX_KERNELS: Final = 8
"""Kernels of a directory that are read."""
_HEAD: Final = 4096
_SYSTEM: Final = ("boot", "lib/modules", "usr/lib/modules", "usr/lib/debug")
"""Where a system has kernels and modules."""
_AT: Final = re.compile(r"(.+)@(0x[0-9a-fA-F]{1,16})")
_MODULE_NAME: Final = re.compile(r"(.+)\.ko(?:\.debug)?(?:\.(?:xz|gz|zst))?")
_KERNEL_NAMES: Final = (
    re.compile(r"vmlinux(?:-(.+))?"),
    re.compile(r"System\.map(?:-(.+))?"),
    re.compile(r"(?:vmlinuz(?:-(.+))?|Image(?:\.gz)?)"),
)
"""Of what a kernel's symbols come from: the better first. Group 1: its release."""
_RELEASE_FOLDER: Final = re.compile(r"lib/modules/([^/]+)(?:/|$)")


@dataclass(frozen=True)
class Kernel:
    """Symbols of a kernel, or of a bare-metal program."""

    source: str
    """The file's name, for messages."""
    table: SymbolTable
    build_id: str | None = None
    release: str | None = None
    offset: int | None = None
    """Bytes from the file's addresses to those in the guest, where that is known beforehand."""


@dataclass
class Sources:
    """All that the user gave."""

    kernels: list[Kernel] = field(default_factory=list)
    modules: dict[str, list[ModuleFile | Path]] = field(default_factory=dict)
    """By name as /proc/modules has it. Those of a directory are read when they are needed."""
    bases: dict[str, int] = field(default_factory=dict)
    """Where modules are in the guest."""
    sections: dict[str, dict[str, int]] = field(default_factory=dict)
    build_id: str | None = None
    """The guest's kernel's, from a copy of its notes."""

    def module(self, name: str, release: str | None) -> ModuleFile | None:
        """The module `name`, of the kernel `release` if that is known. Raises `UsageError`: its file is damaged."""
        for number, known in enumerate(self.modules.get(name, ())):
            if isinstance(known, Path):
                with _opened(known) as file:
                    read = _elf(file, str(known))
                if not isinstance(read, ModuleFile):
                    continue
                self.modules[name][number] = known = read
            if release is None or known.release in (None, release):
                return known
        return None


def load(given: Iterable[str]) -> Sources:
    """Read what the words of `--symbols` name: `PATH`, or `PATH@0xADDRESS` where the first byte of code is there.

    Raises:
        UsageError: a file cannot be read, or is nothing that is known; a directory has nothing that fits.
    """
    sources = Sources()
    for word in given:
        at = _AT.fullmatch(word)
        if at is not None and not os.path.lexists(paths.expand(word)):
            word = at[1]
        else:
            at = None
        path = paths.resolved(word)
        if path.is_dir():
            if at is not None:
                raise UsageError(f"--symbols {word}: an address can follow a file only, and this is a directory")
            _load_directory(sources, path)
        else:
            _load_file(sources, path, int(at[2], 16) if at else None)
    return sources


def booted_file(boot: Mapping[str, Any]) -> Path | None:
    """The file of the kernel in a guest's boot configuration; None: a program of ours, or none."""
    kernel = boot.get("kernel")
    if not isinstance(kernel, str) or not kernel or kernel.startswith(BUILTIN):  # "": UEFI boots what it finds
        return None
    return paths.resolved(kernel)


def load_image(path: Path) -> Kernel | None:
    """The symbols in the Image that a guest was booted with; None: it is not there any more, or has none in it."""
    try:
        return _image(path)
    except UsageError:
        return None


def image_build_id(path: Path) -> str | None:
    """The build id of such an Image; None: it is not there any more, or has none."""
    try:
        return image_symbols.build_id(KernelImage.load(path).data)
    except UsageError:
        return None


def _load_file(sources: Sources, path: Path, address: int | None) -> None:
    source = str(path)
    with _opened(path) as file:
        if file.peek(64)[:64][4:8] == b"zimg":  # an EFI program with a kernel in it
            kernel = _image(path)
        else:
            kernel = _read(sources, _unpacked(file, source), source, address)
    if kernel is not None:
        if address is not None:
            kernel = Kernel(kernel.source, kernel.table, kernel.build_id, kernel.release, address - kernel.table.first)
        sources.kernels.append(kernel)


def _read(sources: Sources, file: IO[bytes], source: str, address: int | None) -> Kernel | None:
    """Take what a file says into `sources`; a kernel is returned."""
    head = file.read(_HEAD)
    file.seek(0)
    if head.startswith(elf.MAGIC):
        return _read_elf(sources, file, source, address)
    if head[56:60] == b"ARMd":
        found = image_symbols.read(_all(file, source), source)
        if found.table is None:
            raise UsageError(f"{source} is a kernel without symbols in it (CONFIG_KALLSYMS): give its vmlinux")
        return Kernel(source, found.table, found.build_id, found.release)
    if listings.is_symbols(head):
        return Kernel(
            source, listings.symbols(_all(file, source, listings.MAX_TEXT), source), release=_release_of(source)
        )
    if len(head) < _HEAD and notes.is_notes(head):
        sources.build_id = notes.build_id(head)
        return None
    text = head.decode("utf-8", "replace")
    if listings.is_modules(text):
        sources.bases |= listings.modules(_text(file, source))
    elif listings.is_sections(text):
        for name, where in listings.sections(_text(file, source)).items():
            sources.sections.setdefault(name, {}).update(where)
    elif "BUILD-ID" in (info := notes.vmcoreinfo(text)):
        sources.build_id = info["BUILD-ID"].lower()
    else:
        raise UsageError(
            f"{source} has no symbols that are known here: give a vmlinux, an Image, a System.map, a module (.ko), a "
            "copy of the guest's /proc/kallsyms or /proc/modules, or a directory with such files"
        )
    return None


def _read_elf(sources: Sources, file: IO[bytes], source: str, address: int | None) -> Kernel | None:
    read = _elf(file, source)
    if isinstance(read, ModuleFile):
        sources.modules.setdefault(read.name, []).insert(0, read)
        if address is not None:
            sources.bases[read.name] = address
        return None
    if not len(read.table):
        raise UsageError(f"{source} has no functions in its symbol table: it was stripped")
    # What is no Linux runs where it was linked to.
    offset = None if kaslr.is_linux(read.table) else 0
    return Kernel(source, read.table, read.build_id, _release_of(source), offset)


def _elf(file: IO[bytes], source: str) -> elf.Program | ModuleFile:
    head = file.read(6)
    file.seek(0)
    method = compressed.method_of(head)
    if method:
        file = io.BytesIO(compressed.decompress(method, _all(file, source), source, MAX_UNPACKED))
    return elf.read(file, source)


def _image(path: Path) -> Kernel | None:
    found = image_symbols.read(KernelImage.load(path).data, str(path))
    if found.table is None:
        return None
    return Kernel(str(path), found.table, found.build_id, found.release)


def _opened(path: Path) -> io.BufferedReader:
    """A regular file, opened. Raises `UsageError`."""
    return untrusted_files.opened(paths.resolved(path), MAX_FILE)


def _unpacked(file: io.BufferedReader, source: str) -> IO[bytes]:
    """The file, or what was compressed in it. Raises `UsageError`."""
    method = compressed.method_of(file.peek(6))
    if method is None:
        return file
    return io.BytesIO(compressed.decompress(method, _all(file, source), source, MAX_UNPACKED))


def _all(file: IO[bytes], source: str, most: int = MAX_UNPACKED) -> bytes:
    """All of a file that is read as a whole. Raises `UsageError`: it is too large for that."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size > most:
        raise UsageError(f"{source} has more than {most >> 20} MiB, which no such file has")
    return file.read(most)


def _text(file: IO[bytes], source: str) -> str:
    return _all(file, source, listings.MAX_TEXT).decode("utf-8", "replace")


def _release_of(path: str) -> str | None:
    """The release that a file's name or its folder says."""
    name = path.rpartition("/")[2]
    for pattern in _KERNEL_NAMES:
        found = pattern.fullmatch(name)
        if found and found.lastindex:
            return found[1]
    folder = _RELEASE_FOLDER.search(path)
    return folder[1] if folder else None


def _load_directory(sources: Sources, top: Path) -> None:
    """The best symbols of each kernel below `top`, and where its modules' files are."""
    best: dict[str, list[tuple[int, Path]]] = {}
    count = 0
    for path in _files(top):
        name = path.name
        if module := _MODULE_NAME.fullmatch(name):
            sources.modules.setdefault(module[1].replace("-", "_"), []).append(path)
            count += 1
            continue
        for rank, pattern in enumerate(_KERNEL_NAMES):
            if pattern.fullmatch(name):
                best.setdefault(_release_of(str(path)) or "", []).append((rank, path))
    if len(best) > MAX_KERNELS:
        raise UsageError(
            f"{top} has symbols of {len(best)} kernels ({', '.join(sorted(best)[:3])}, ...), more than are read: give "
            "the directory or the file of one"
        )
    refused: list[UsageError] = []
    read = 0
    for _, candidates in sorted(best.items()):
        for _, path in sorted(candidates):
            try:
                _load_file(sources, path, None)
            except UsageError as error:
                refused.append(error)  # a placeholder, or stripped: perhaps the next one will do
                continue
            read += 1
            break
    if not read and not count:
        raise (
            refused[0] if refused else UsageError(f"{top} has no symbols in it: no vmlinux, System.map, vmlinuz or .ko")
        )
    if not read and refused:
        raise refused[0]


def _files(top: Path) -> Iterator[Path]:
    """Files below `top`; of a system's root those where symbols are. Links to directories are not followed."""
    begins = [top]
    if (top / "usr").is_dir():
        # /lib may be a link to /usr/lib.
        begins = list(dict.fromkeys((top / name).resolve() for name in _SYSTEM if (top / name).is_dir())) or begins
    seen = 0
    for begin in begins:
        for folder, folders, names in os.walk(begin):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                seen += 1
                if seen > MAX_NAMES:
                    raise UsageError(f"{top} has more than {MAX_NAMES} files: give a directory nearer to the symbols")
                yield Path(folder, name)
