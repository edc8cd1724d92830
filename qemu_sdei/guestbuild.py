"""The build step of everything under `guest/`: the EL3 monitor and the bare-metal guest programs.

`python -m qemu_sdei.guestbuild` compiles what changed and writes the raw binaries to `qemu_sdei/data/`, which are
committed and shipped, so that nobody needs a cross compiler to use the package. `blobs.json` beside them says what each
was built from and with. `--check` rebuilds into a temporary folder and compares.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from qemu_sdei.errors import UsageError

ROOT: Final = Path(__file__).resolve().parent.parent
CROSS_VARIABLE: Final = "QEMU_SDEI_CROSS"
TIMEOUT: Final = 120
"""Seconds that one compiler run may take."""

FLAGS: Final = (
    "-std=gnu11",
    "-O2",
    "-g",
    "-Wall",
    "-Wextra",
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


PROGRAMS: Final = (
    Program("monitor", ("monitor",), "monitor/monitor.lds"),
    Program("selftest", ("selftest", "lib"), "lib/guest.lds", (*LINK_FLAGS, *ANYWHERE)),
    Program("bench", ("bench", "lib"), "lib/guest.lds", (*LINK_FLAGS, *ANYWHERE)),
    Program("conformance", ("conformance", "lib"), "lib/guest.lds", (*LINK_FLAGS, *ANYWHERE)),
    Program("kdump", ("kdump",), "kdump/kdump.lds", (*LINK_FLAGS, *FOR_LINUX), executable=True),
    Program("victim", ("victim",), "kdump/kdump.lds", (*LINK_FLAGS, *FOR_LINUX), executable=True),
    Program("compare", ("compare", "lib"), "lib/guest.lds", (*LINK_FLAGS, *ANYWHERE)),
)


@dataclass(frozen=True)
class Compiler:
    """A C compiler driver for AArch64; `version` is the first line of its `--version`."""

    path: str
    version: str

    @property
    def is_clang(self) -> bool:
        """Clang takes other flags than GCC, and links with ld.lld."""
        return "clang" in self.version.lower()


@dataclass(frozen=True)
class BlobRecord:
    """What `blobs.json` keeps of one blob."""

    sha256: str
    size: int
    compiler: str
    sources: str


@dataclass(frozen=True)
class Layout:
    """Where sources, intermediate files and blobs are."""

    guest: Path = ROOT / "guest"
    build: Path = ROOT / "guest" / "build"
    data: Path = ROOT / "qemu_sdei" / "data"


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
        linker = [_lld(compiler), *program.link]
    else:
        linker = [compiler.path, "-nostdlib", "-no-pie"]
        linker += [part for flag in program.link for part in ("-Xlinker", flag)]
    _run([*linker, "-T", program.script, "-o", str(elf), *objects], guest)
    return elf.read_bytes() if program.executable else flatten(elf.read_bytes())


def _object_name(source: Path) -> str:
    return source.as_posix().replace("/", "_") + ".o"


def build_extended(name: str, guest: Path, extra: Path, build: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Build program `name` of the sources in `guest` with those of the folder `extra` into `build`; return its image.

    Raises UsageError if there is no compiler, or it refuses; in the compiler's own words then.
    """
    compiler = find_compiler(environ)
    if compiler is None:
        raise UsageError(f"{extra} must be compiled, and {_no_compiler()}")
    program = next(program for program in PROGRAMS if program.name == name)
    image = build / f"{name}.bin"
    image.write_bytes(compile_program(program, compiler, guest, build, extra))
    return image


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


def read_records(data: Path) -> dict[str, BlobRecord]:
    """The content of `blobs.json`; empty if it is missing or of another form (all is rebuilt then)."""
    try:
        content = json.loads((data / "blobs.json").read_text())
        return {name: BlobRecord(**record) for name, record in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write(path: Path, content: bytes) -> None:
    """Replaces a file at once: somebody may be reading the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)


def _is_current(program: Program, record: BlobRecord | None, layout: Layout) -> bool:
    """True if a blob is the one that `blobs.json` describes, built from the sources as they are."""
    try:
        blob = (layout.data / f"{program.name}.bin").read_bytes()
    except OSError:
        return False
    return (
        record is not None
        and record.sources == sources_hash(program, layout.guest)
        and record.sha256 == hashlib.sha256(blob).hexdigest()
    )


def build(
    programs: Sequence[Program] = PROGRAMS,
    *,
    layout: Layout | None = None,
    force: bool = False,
    environ: Mapping[str, str] = os.environ,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Builds the blobs whose sources changed (all with `force`) and updates `blobs.json`.

    Raises UsageError if something must be built and there is no compiler, or it fails.
    """
    layout = layout or Layout()
    _need_sources(layout)
    records = read_records(layout.data)
    stale = [p for p in programs if force or not _is_current(p, records.get(p.name), layout)]
    for program in programs:
        if program not in stale:
            report(f"{program.name}: up to date")
    if not stale:
        return
    compiler = find_compiler(environ)
    if compiler is None:
        names = ", ".join(program.name for program in stale)
        raise UsageError(f"{names}: out of date, and {_no_compiler()}")
    for program in stale:
        sources = sources_hash(program, layout.guest)
        image = compile_program(program, compiler, layout.guest, layout.build / program.name)
        _write(layout.data / f"{program.name}.bin", image)
        records[program.name] = BlobRecord(hashlib.sha256(image).hexdigest(), len(image), compiler.version, sources)
        content = {name: asdict(record) for name, record in sorted(records.items())}
        _write(layout.data / "blobs.json", (json.dumps(content, indent=2) + "\n").encode())
        report(f"{program.name}: built, {len(image)} bytes, by {compiler.version}")


def check(
    programs: Sequence[Program] = PROGRAMS,
    *,
    layout: Layout | None = None,
    environ: Mapping[str, str] = os.environ,
    report: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Compares the blobs with their sources; returns what is wrong, one line each.

    With the compiler that built a blob it is rebuilt and must come out the same byte for byte. With another one, or
    none, it must only be what `blobs.json` says, built from the sources as they are; `report` is told so.
    """
    layout = layout or Layout()
    _need_sources(layout)
    records = read_records(layout.data)
    compiler = find_compiler(environ)
    wrong: list[str] = []
    for program in programs:
        record = records.get(program.name)
        if record is None or not _is_current(program, record, layout):
            wrong.append(f"{program.name}: not built from the sources as they are; run scripts/build-guest and commit")
            continue
        if compiler is None or compiler.version != record.compiler:
            ours = compiler.version if compiler else "no compiler"
            report(f"{program.name}: sources match; not rebuilt: built by {record.compiler}, here is {ours}")
            continue
        with tempfile.TemporaryDirectory() as folder:
            image = compile_program(program, compiler, layout.guest, Path(folder))
        if hashlib.sha256(image).hexdigest() != record.sha256:
            wrong.append(f"{program.name}: {compiler.version} makes other bytes of the same sources")
        else:
            report(f"{program.name}: rebuilt, the same {len(image)} bytes")
    return wrong


def _need_sources(layout: Layout) -> None:
    if not (layout.guest / "lib").is_dir():
        raise UsageError(f"{layout.guest} has no guest sources: build in a checkout of qemu-sdei")


def _no_compiler() -> str:
    return (
        "there is no compiler for AArch64: install gcc-aarch64-linux-gnu (Debian), or clang and lld, "
        f"or set {CROSS_VARIABLE} to an aarch64-*-gcc"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, 1 if --check found something, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(prog="build-guest", description="Build the monitor and the bare-metal guests.")
    parser.add_argument("name", nargs="*", help="what to build (default: all): " + ", ".join(p.name for p in PROGRAMS))
    parser.add_argument("--check", action="store_true", help="rebuild elsewhere and compare with the committed blobs")
    parser.add_argument("--force", action="store_true", help="build what is up to date too")
    options = parser.parse_args(argv)
    try:
        known = {program.name: program for program in PROGRAMS}
        for name in options.name:
            if name not in known:
                raise UsageError(f"no guest program '{name}'; there are {', '.join(known)}")
        programs = [known[name] for name in options.name] or list(PROGRAMS)
        if not options.check:
            build(programs, force=options.force, report=print)
            return 0
        wrong = check(programs, report=print)
    except UsageError as error:
        print(f"build-guest: {error}", file=sys.stderr)
        return error.exit_code
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
