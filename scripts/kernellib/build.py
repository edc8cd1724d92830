"""`scripts/crash-kernel`: builds Debian's kernel sources with the options of `guest/crash-kernel.config`, and keeps the
kernel where `qemu-sdei run --series own-7.3` finds it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from qemu_sdei.durations import duration
from qemu_sdei.errors import UsageError
from qemu_sdei.host import kernel_toolchain, own_kernels
from qemu_sdei.host.cache_index import safe
from qemu_sdei.host.own_kernels import Description, OwnKernel
from qemu_sdei.locks import try_lock
from qemu_sdei.paths import cache_directory
from qemu_sdei.printable import printable
from scripts.kernellib import configuration, following, keeping, source

CONFIG: Final = Path(__file__).resolve().parents[2] / "guest/crash-kernel.config"
SERIES: Final = "7.3"
SUITE: Final = "trixie-backports"
ROOM: Final = 4 << 30
"""Bytes that a build takes on the disk, all in all."""
PART: Final = ".part"
_UNPACKED: Final = "unpacked"
_FILE: Final = re.compile(r"\s+(?:CC|AS|LD|AR)\s")


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0: the kernel is there; 2: it cannot be built, and one line says why; 130: interrupted."""
    args = _arguments(words)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(args)
    except UsageError as error:
        following.clear()
        print(f"crash-kernel: {printable(error, None)}", file=sys.stderr)
    except OSError as error:
        following.clear()
        print(f"crash-kernel: {printable(error.filename or 'the cache')}: {error.strerror}", file=sys.stderr)
    except KeyboardInterrupt:
        print(
            "\ncrash-kernel: interrupted; what is built so far is kept, and the next time goes on there",
            file=sys.stderr,
        )
        return 130
    return 2


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/crash-kernel",
        description="Build a Linux that has what Debian's kernels leave out (SDEI NMI, AGDI, KEXEC_FILE, EDAC), from "
        f"Debian's linux-source package and guest/crash-kernel.config: {own_kernels.COST}. "
        f"It is for `qemu-sdei run --series own-{SERIES}`.",
    )
    parser.add_argument("--version", default=SERIES, metavar="M.N", help=f"the series of Linux (default: {SERIES})")
    parser.add_argument(
        "--suite", default=SUITE, metavar="S", help=f"Debian's suite that has its sources (default: {SUITE})"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="files compiled at once")
    parser.add_argument("--update", action="store_true", help="ask the archive for a newer one than the one here")
    return parser.parse_args(words)


def _run(args: argparse.Namespace) -> int:
    if not re.fullmatch(r"\d{1,3}\.\d{1,3}", args.version):
        raise UsageError(f"--version {printable(args.version)}: give two numbers, such as {SERIES}")
    if not re.fullmatch(r"[a-z][\w.+-]{0,60}(?:/[\w.+-]{1,60})?", args.suite):
        raise UsageError(f"--suite {printable(args.suite)}: give a suite of Debian's, such as {SUITE}")
    if not 1 <= args.jobs <= 1024:
        raise UsageError(f"--jobs {args.jobs}: give 1 to 1024")
    wanted = configuration.options(CONFIG.read_text())
    series = own_kernels.PREFIX + args.version
    known = _known(series, configuration.digest(wanted))
    if known is not None and not args.update:
        return _say_built(known, "built already")
    folder = cache_directory() / own_kernels.FOLDER
    if re.search(r"[\s:#$%*?\\'\"]", str(folder)):
        raise UsageError(f"make takes no space or special character in {folder}: set XDG_CACHE_HOME")
    folder.mkdir(parents=True, exist_ok=True)
    lock = try_lock(folder / "lock")
    if lock is None:
        raise UsageError("another scripts/crash-kernel is building: wait for it")
    try:
        return _build(args, series, wanted, folder)
    finally:
        os.close(lock)


def _build(args: argparse.Namespace, series: str, wanted: dict[str, str], folder: Path) -> int:
    compiler, prefix = kernel_toolchain.find("the kernel", "gcc", "flex", "bison", "bc", "xz", "perl", "dpkg-deb")
    shown = following.Shown()
    digest = configuration.digest(wanted)
    part = _begun(folder, args.version, digest)
    if part is None or args.update:
        sources = source.Sources(cache_directory() / "apt-source", args.suite, shown.step)
        version = sources.newest(args.version)
        target = folder / f"{safe(version)}-{digest}"
        if (known := _known(series, digest)) is not None and known.directory == target:
            return _say_built(known, "nothing newer is there")
        part = target.with_name(target.name + PART)
        _check_room(folder)
        _get(sources, args.version, version, part, shown)
    else:
        shown.step(f"going on with {part.name.removesuffix(PART)}")
        target = part.with_name(part.name.removesuffix(PART))
        version = (part / _UNPACKED).read_text().strip()
    began = time.monotonic()
    tree, log = part / "source", part / "build.log"
    make = ["make", "ARCH=arm64", f"CROSS_COMPILE={prefix}", f"CC={compiler}"]
    environment = {"KBUILD_BUILD_USER": "qemu-sdei", "KBUILD_BUILD_HOST": "qemu-sdei"}
    shown.step("configuring")
    _configure(make, tree, log, wanted, environment)
    shown.step(f"compiling, {args.jobs} at once; what make says is in {log}")
    count = 0

    def said(line: str) -> None:
        nonlocal count
        if _FILE.match(line):
            count += 1
            shown.moved(f"{count} files")

    following.run(
        [*make, f"-j{args.jobs}", "Image", "vmlinux", "modules"],
        "the kernel does not build", log, directory=tree, environment=environment, said=said,
    )  # fmt: skip
    shown.step("putting it in its place")
    keeping.keep(
        tree,
        part / "whole",
        target,
        Description(
            series, keeping.release(tree), version, digest, time.time(), time.monotonic() - began, _version_of(compiler)
        ),
    )
    shutil.rmtree(part)
    for other in folder.glob(f"*{PART}"):
        shown.step(f"of a build that was not finished is left: {other} (rm -r, if nobody goes on with it)")
    return _say_built(own_kernels.kernel(series), f"built in {duration((time.monotonic() - began) * 1e9)}")


def _configure(make: list[str], tree: Path, log: Path, wanted: dict[str, str], environment: dict[str, str]) -> None:
    """Write the tree's .config. Raises `UsageError`: an option did not come out as it is wanted."""
    failed = "the kernel cannot be configured"
    config = tree / ".config"
    following.run([*make, "allnoconfig"], failed, log, directory=tree, environment=environment)
    with config.open("a") as file:
        file.write(CONFIG.read_text())
    following.run([*make, "olddefconfig"], failed, log, directory=tree, environment=environment)
    if wrong := configuration.wrong(wanted, configuration.options(config.read_text())):
        raise UsageError(
            f"of guest/crash-kernel.config did not come out: {', '.join(wrong)}; this Linux has them under another "
            "name, or something that they need is off"
        )


def _get(sources: source.Sources, series: str, version: str, part: Path, shown: following.Shown) -> None:
    """Have the sources in `part`/source."""
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    shown.step(f"downloading {source.name(series)} {version}")
    package = sources.download(series, version, part)
    shown.step("unpacking")
    count = 0

    def said(line: str) -> None:
        nonlocal count
        count += 1
        shown.moved(f"{count} files")

    source.unpack(package, series, part / "source", part / "build.log", said)
    (part / _UNPACKED).write_text(f"{version}\n")


def _begun(folder: Path, series: str, digest: str) -> Path | None:
    """A build of the series that was interrupted, and can go on."""
    found = [path for path in folder.glob(f"{series}.*-{digest}{PART}") if (path / _UNPACKED).is_file()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _known(series: str, digest: str) -> OwnKernel | None:
    """The newest kernel of a series that was built with just these options."""
    mine = (kernel for kernel in own_kernels.built() if kernel.description.series == series)
    return next((kernel for kernel in mine if kernel.description.configuration == digest), None)


def _check_room(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < ROOM:
        raise UsageError(
            f"{folder} has {free >> 20} MiB free, and a build takes {ROOM >> 20}: make room, or set XDG_CACHE_HOME"
        )


def _version_of(compiler: str) -> str:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        out = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
        return out.partition("\n")[0]
    return compiler


def _say_built(kernel: OwnKernel, how: str) -> int:
    print(printable(f"{kernel.description.release} is {how}: {kernel.directory}", None), flush=True)
    print(printable(f"qemu-sdei run --series {kernel.description.series}"), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
