"""Compiling a program that runs in the guest: the compiler, its flags, its sources, and the image that comes of it.

A compiler gives the same bytes wherever the sources are, so that a committed image can be compared with its sources.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import struct
import subprocess
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qemu_sdei.errors import UsageError

CROSS_VARIABLE: Final = "QEMU_SDEI_CROSS"
TIMEOUT: Final = 120
"""Seconds that one compiler run may take."""

FLAGS: Final = (
    "-std=gnu11",
    "-O2",
    "-g",
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wundef",
    "-Wvla",
    "-Wstrict-prototypes",
    "-Wredundant-decls",
    "-Wcast-qual",
    "-Werror",
    "-ffreestanding",
    "-march=armv8-a",
    "-mgeneral-regs-only",
    "-mstrict-align",
    "-mno-outline-atomics",
    "-mbranch-protection=none",
    "-fno-pic",
    "-fno-pie",
    "-fno-common",
    # Monitor and handlers run between two instructions of a guest and do not save X18; the C ABI lets C code use it.
    "-ffixed-x18",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fno-unwind-tables",
)
LINK_FLAGS: Final = ("-static", "--build-id=none", "-z", "max-page-size=4096", "-z", "noexecstack")
ANYWHERE: Final = ("-pie", "--no-dynamic-linker", "-z", "norelro")
"""Link flags of a program that relocates itself to where it was loaded."""
FOR_LINUX: Final = ("-s", "-z", "max-page-size=65536")
"""The same of a program for Linux: without symbols, and for kernels of 64 KiB pages."""


@dataclass(frozen=True)
class Program:
    """One blob: its own folder under `guest/`, other folders it is built from, and its linker script."""

    name: str
    folders: tuple[str, ...]
    script: str
    link: tuple[str, ...] = LINK_FLAGS
    executable: bool = False
    """A program for Linux, as the ELF file that it is; else what is put into memory."""


@dataclass(frozen=True)
class Compiler:
    """A C compiler driver for AArch64; `version` is the first line of its `--version`."""

    path: str
    version: str

    @property
    def is_clang(self) -> bool:
        """Clang takes other flags than GCC, and links with ld.lld."""
        return "clang" in self.version.lower()


def find_compiler(environ: Mapping[str, str] = os.environ) -> Compiler | None:
    """The compiler to use, or None if there is none.

    `$QEMU_SDEI_CROSS` is a compiler (`/opt/gcc/bin/aarch64-none-elf-gcc`, `clang-15`) or a prefix as in
    `aarch64-none-elf-`.
    Without it: any `aarch64-*-gcc` on PATH, then clang if ld.lld is there too.
    Raises UsageError if `$QEMU_SDEI_CROSS` names nothing that runs.
    """
    path = environ.get("PATH", os.defpath)
    wanted = environ.get(CROSS_VARIABLE, "")
    if wanted:
        name = wanted + "gcc" if wanted.endswith("-") else wanted
        found = shutil.which(name, path=path)
        version = _version(found) if found else None
        if found is None or version is None:
            raise UsageError(f"{CROSS_VARIABLE}={wanted}: cannot run {name}; name an aarch64-*-gcc or a clang")
        return Compiler(found, version)
    for name in _gcc_names(path):
        found = shutil.which(name, path=path)
        if found and (version := _version(found)):
            return Compiler(found, version)
    found = shutil.which("clang", path=path)
    if found and shutil.which("ld.lld", path=path) and (version := _version(found)):
        return Compiler(found, version)
    return None


def _gcc_names(path: str) -> list[str]:
    """Names of cross GCCs on PATH: Debian's first, the rest in the order of their names."""
    names: set[str] = set()
    for folder in path.split(os.pathsep):
        try:
            names.update(p.name for p in Path(folder or ".").iterdir() if re.fullmatch(r"aarch64-[\w.-]+-gcc", p.name))
        except OSError:
            continue
    return sorted(names, key=lambda name: (name != "aarch64-linux-gnu-gcc", name))


def _version(compiler: str) -> str | None:
    try:
        done = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=TIMEOUT, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return (done.stdout.splitlines() or [""])[0].strip() or None


def _sources(program: Program, guest: Path) -> list[Path]:
    """All that a program is built from, relative to `guest/`, in a fixed order."""
    names = {program.script}
    for folder in program.folders:
        names |= {
            file.relative_to(guest).as_posix()
            for file in (guest / folder).iterdir()
            if file.suffix in (".S", ".c", ".h") and file.is_file()
        }
    return [Path(name) for name in sorted(names)]


def _extra_sources(folder: Path) -> list[Path]:
    """What a folder outside of `guest/` adds to a program."""
    return sorted(file for file in folder.iterdir() if file.suffix in (".S", ".c") and file.is_file())


def sources_hash(program: Program, guest: Path) -> str:
    """SHA-256 over the names and contents of a program's sources and the flags it is built with."""
    digest = hashlib.sha256(" ".join((*FLAGS, *program.link)).encode())
    for source in _sources(program, guest):
        try:
            content = (guest / source).read_bytes()
        except FileNotFoundError:
            raise UsageError(f"guest/{source} is missing: this is no complete source tree of qemu-sdei") from None
        digest.update(f"\n{source.as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def compile_program(program: Program, compiler: Compiler, guest: Path, build: Path, extra: Path | None = None) -> bytes:
    """Compiles and links one program in `build` and returns its raw image, or the ELF file of one for Linux.

    `extra` is a folder whose sources are compiled with it, with EXTRA_SCENARIOS defined.
    The same compiler gives the same bytes wherever the folders are: it runs in `guest/` and sees relative names only.
    Raises UsageError with the compiler's own words if it refuses.
    """
    build.mkdir(parents=True, exist_ok=True)
    includes = [f"-I{folder}" for folder in program.folders]
    flags = [*FLAGS, *includes, f"-ffile-prefix-map={guest}=guest"]
    if compiler.is_clang:
        flags = ["--target=aarch64-none-elf", *flags]
    sources = [source for source in _sources(program, guest) if source.suffix in (".S", ".c")]
    if extra is not None:
        flags += ["-DEXTRA_SCENARIOS", f"-I{extra.absolute()}"]
        sources = [*_extra_sources(extra.absolute()), *sources]  # what is new first: it is where mistakes are
    objects: list[str] = []
    for number, source in enumerate(sources):
        target = str(build / (f"extra_{number}_{source.name}.o" if source.is_absolute() else _object_name(source)))
        _run([compiler.path, *flags, "-c", str(source), "-o", target], guest)
        objects.append(target)
    elf = build / f"{program.name}.elf"
    if compiler.is_clang:
        # Addresses in constants are relocated too, by the program itself: GNU ld takes that for granted.
        linker = [_lld(compiler), *program.link, *(("-z", "notext") if "-pie" in program.link else ())]
    else:
        linker = [compiler.path, "-nostdlib", "-no-pie"]
        linker += [part for flag in program.link for part in ("-Xlinker", flag)]
    _run([*linker, "-T", program.script, "-o", str(elf), *objects], guest)
    return elf.read_bytes() if program.executable else flatten(elf.read_bytes())


def _object_name(source: Path) -> str:
    return source.as_posix().replace("/", "_") + ".o"


def _lld(compiler: Compiler) -> str:
    """ld.lld of this clang: in the same folder or on PATH, with the same suffix (clang-15, ld.lld-15) or none."""
    folder, name = os.path.split(os.path.realpath(compiler.path))
    suffix = name.removeprefix("clang")
    for candidate in (f"ld.lld{suffix}", "ld.lld"):
        found = shutil.which(candidate, path=folder) or shutil.which(candidate)
        if found:
            return found
    raise UsageError(f"{compiler.path}: no ld.lld for this clang; install lld or use an aarch64-*-gcc")


def _run(command: Sequence[str], folder: Path) -> None:
    environ = os.environ | {"LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"}
    try:
        done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise UsageError(f"{command[0]} did not end in {TIMEOUT} s") from None
    if done.returncode:
        said = textwrap.indent((done.stderr or done.stdout).strip(), "  ", lambda line: True)
        raise UsageError(f"{' '.join(command)} failed:\n{said}")


def flatten(elf: bytes) -> bytes:
    """The raw image of an AArch64 ELF executable: what its PT_LOAD segments put into memory, by physical address.

    Starts at the lowest address that has content, and ends with the last content (.bss is not in it).
    Raises UsageError if it is no such ELF or its segments are too far apart.
    """
    try:
        segments = _segments(elf)
    except struct.error:
        raise UsageError("the linker's output is cut off") from None
    if not segments:
        raise UsageError("the linker's output has nothing to load")
    start = min(address for address, _ in segments)
    end = max(address + len(content) for address, content in segments)
    if end - start > 16 << 20:
        raise UsageError(f"the image would be {end - start} bytes: wrong addresses in the linker script?")
    image = bytearray(end - start)
    for address, content in segments:
        image[address - start : address - start + len(content)] = content
    return bytes(image)


def _segments(elf: bytes) -> list[tuple[int, bytes]]:
    """Physical address and content of all PT_LOAD segments that have content."""
    if elf[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", elf, 18)[0] != 183:
        raise UsageError("the linker's output is no little-endian AArch64 ELF")
    (offset,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    segments: list[tuple[int, bytes]] = []
    for index in range(count):
        kind, _, at, _, physical, length = struct.unpack_from("<IIQQQQ", elf, offset + index * size)
        if kind == 1 and length:
            segments.append((physical, elf[at : at + length]))
    return segments


def no_compiler() -> str:
    """What to do where there is no compiler, as the end of a message."""
    return (
        "there is no compiler for AArch64: install gcc-aarch64-linux-gnu (Debian), or clang and lld, "
        f"or set {CROSS_VARIABLE} to an aarch64-*-gcc"
    )
