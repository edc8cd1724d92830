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
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from qemu_sdei.errors import UsageError
from qemu_sdei.guestcompile import (
    ANYWHERE,
    FOR_LINUX,
    LINK_FLAGS,
    Program,
    compile_program,
    find_compiler,
    no_compiler,
    sources_hash,
)

ROOT: Final = Path(__file__).resolve().parent.parent
PROGRAMS: Final = (
    Program("monitor", ("monitor", "include"), "monitor/monitor.lds"),
    Program("selftest", ("selftest", "lib", "include"), "lib/guest.lds", (*LINK_FLAGS, *ANYWHERE)),
    Program("bench", ("bench", "lib", "include"), "lib/guest.lds", (*LINK_FLAGS, *ANYWHERE)),
    Program("conformance", ("conformance", "lib", "include"), "lib/guest.lds", (*LINK_FLAGS, *ANYWHERE)),
    Program("kdump", ("kdump", "linux"), "linux/program.lds", (*LINK_FLAGS, *FOR_LINUX), executable=True),
    Program("victim", ("victim", "linux"), "linux/program.lds", (*LINK_FLAGS, *FOR_LINUX), executable=True),
    Program("reseed", ("reseed", "linux"), "linux/program.lds", (*LINK_FLAGS, *FOR_LINUX), executable=True),
    Program("agent", ("agent", "linux"), "linux/program.lds", (*LINK_FLAGS, *FOR_LINUX), executable=True),
    Program("compare", ("compare", "lib", "include"), "lib/guest.lds", (*LINK_FLAGS, *ANYWHERE)),
)


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


def build_extended(name: str, guest: Path, extra: Path, build: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Build program `name` of the sources in `guest` with those of the folder `extra` into `build`; return its image.

    Raises UsageError if there is no compiler, or it refuses; in the compiler's own words then.
    """
    compiler = find_compiler(environ)
    if compiler is None:
        raise UsageError(f"{extra} must be compiled, and {no_compiler()}")
    program = next(program for program in PROGRAMS if program.name == name)
    image = build / f"{name}.bin"
    image.write_bytes(compile_program(program, compiler, guest, build, extra))
    return image


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
        raise UsageError(f"{names}: out of date, and {no_compiler()}")
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
