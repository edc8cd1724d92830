"""`scripts/debian-disk`: installs Debian on a disk image that UEFI boots, and keeps the image in the user's cache."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from qemu_sdei import Guest, GuestOptions
from qemu_sdei.durations import duration
from qemu_sdei.errors import GuestError, SdeiError, UsageError
from qemu_sdei.host.debian import DebianCache
from qemu_sdei.locks import try_lock
from qemu_sdei.paths import cache_directory
from qemu_sdei.printable import printable, printable_lines
from scripts.disklib import layout, recipe
from scripts.kernellib import following

FOLDER: Final = "disks"
ROOM: Final = 4 << 30
"""Bytes that a build takes on the disk, all in all."""
LIMIT: Final = 6 * 3600.0
"""Seconds that the guest may take. It needs a quarter of an hour of CPU time and more: on a busy host, hours."""
TOOLS: Final = ("debootstrap", "mke2fs", "qemu-img", "wget", *layout.MTOOLS)
_LOG: Final = "build.log"
_LINE: Final = 4096
"""Characters of a line that are looked at."""
_STEP: Final = re.compile(r"I: (?!Extracting|Retrieving|Validating)(.*)")
_PACKAGE: Final = re.compile(r"I: (?:Extracting|Validating) (\S+)|(?:Unpacking|Setting up) (\S+)")


def image() -> Path:
    """Where the disk of this recipe is, or is to be. Raises `UsageError`: there is no place for a cache."""
    return cache_directory() / FOLDER / f"debian-{recipe.SUITE}-{recipe.digest()}.qcow2"


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0: the disk is there; 2: it cannot be made, and one line says why; 130: interrupted."""
    parser = argparse.ArgumentParser(
        prog="scripts/debian-disk",
        description=f"Install Debian ({recipe.SUITE}, arm64) on a disk image that UEFI boots, by debootstrap, and keep "
        "the image in the cache. A guest unpacks and configures its packages, which takes a quarter of an hour of CPU "
        "time or more.",
    )
    parser.add_argument("--mirror", default="", metavar="URL", help="Debian's archive (default: that of debootstrap)")
    parser.add_argument("--update", action="store_true", help="make it again, of the packages of today")
    args = parser.parse_args(words)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(args.mirror, args.update)
    except SdeiError as error:
        following.clear()
        print(f"debian-disk: {printable(error, None)}", file=sys.stderr)
    except OSError as error:
        following.clear()
        print(f"debian-disk: {printable(error.filename or 'the cache')}: {error.strerror}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\ndebian-disk: interrupted; what was downloaded and unpacked is kept", file=sys.stderr)
        return 130
    return 2


def _run(mirror: str, update: bool) -> int:
    if mirror and not re.fullmatch(r"(?:https?|file)://[!-~]{1,400}", mirror):
        raise UsageError(f"--mirror {printable(mirror)}: give a URL such as http://HOST/debian")
    target = image()
    if target.is_file() and not update:
        return _say(target, "there already")
    if missing := missing_tools():
        raise UsageError(
            f"not here: {', '.join(missing)}; install debootstrap, e2fsprogs, mtools, qemu-utils, fakeroot"
        )
    if re.search(r"[\s:,@\"'\\]", str(target)):
        raise UsageError(f"mtools and QEMU take no space or special character in {target}: set XDG_CACHE_HOME")
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = try_lock(target.parent / "lock")
    if lock is None:
        raise UsageError("another scripts/debian-disk is at work: wait for it")
    try:
        _check_room(target.parent)
        return _build(target, mirror, update)
    finally:
        os.close(lock)


def missing_tools() -> list[str]:
    """Programs that are needed and not here."""
    wanted = TOOLS if os.geteuid() == 0 else (*TOOLS, "fakeroot")
    return [name for name in wanted if shutil.which(name, path=_path()) is None]


def _build(target: Path, mirror: str, update: bool) -> int:
    began = time.monotonic()
    shown = following.Shown()
    part = target.with_suffix(".part")
    unpacked, disk = part / "unpacked.img", part / "disk.img"
    if update:
        unpacked.unlink(missing_ok=True)
    part.mkdir(exist_ok=True)
    if unpacked.is_file():
        shown.step("going on with the packages that are unpacked")
    else:
        _unpack(part, disk, mirror, shown)
        disk.rename(unpacked)
    # What the guest leaves half done is of no use to the next one.
    _tool("the disk cannot be copied", part, "cp", "--sparse=always", str(unpacked), str(disk))
    _configure(part, disk, shown)
    shown.step("putting it in its place")
    _tool("the disk cannot be converted", part, "qemu-img", "convert", "-O", "qcow2", str(disk), f"{disk}.qcow2")
    Path(f"{disk}.qcow2").rename(target)
    shutil.rmtree(part)
    return _say(target, f"made in {duration((time.monotonic() - began) * 1e9)}")


def _unpack(part: Path, disk: Path, mirror: str, shown: following.Shown) -> None:
    """Make `disk` with GRUB, and the packages as debootstrap unpacks them. Raises `UsageError`, `OSError`."""
    root, packages = part / "root", part / "packages"
    shutil.rmtree(root, ignore_errors=True)
    packages.mkdir(exist_ok=True)
    shown.step("getting GRUB")
    loader = layout.grub(DebianCache(progress=shown.step), part)
    config = part / "grub.cfg"
    config.write_text(recipe.GRUB)
    system_at, root_at = layout.write_gpt(disk, [(layout.SYSTEM, recipe.SYSTEM_MIB), (layout.LINUX, recipe.ROOT_MIB)])
    try:
        layout.fill_system_partition(
            disk, system_at, recipe.SYSTEM_MIB, {"EFI/BOOT/BOOTAA64.EFI": loader, "EFI/debian/grub.cfg": config}
        )
    except subprocess.SubprocessError as error:
        raise UsageError(f"the EFI system partition cannot be made: {error}") from None
    shown.step(f"downloading and unpacking Debian {recipe.SUITE}")
    bootstrap = ["debootstrap", f"--cache-dir={packages}", "--arch=arm64", "--foreign", "--variant=minbase"]
    bootstrap += [f"--include={','.join(recipe.PACKAGES)}", recipe.SUITE, str(root), *([mirror] if mirror else [])]
    script = part / "unpack.sh"
    lines = ["set -e", shlex.join(bootstrap), f"cd {shlex.quote(str(root))}"]
    for name, text in recipe.FILES.items():
        lines += [f"mkdir -p {Path(name).parent}", f"printf %s {shlex.quote(text)} >{name}"]
    # In a container debootstrap leaves links in place of some of these.
    lines += [f"[ ! -L {name} ] || rm {name}; mkdir -p {name}" for name in ("dev", "proc", "run", "sys")]
    # GRUB of bookworm does not read what newer ones of mke2fs make by default.
    make = ["mke2fs", "-q", "-F", "-t", "ext4", "-U", recipe.ROOT_UUID, "-E", f"offset={root_at}"]
    make += ["-O", "^metadata_csum_seed,^orphan_file", "-d", str(root), str(disk), f"{recipe.ROOT_MIB}M"]
    script.write_text("\n".join([*lines, shlex.join(make), ""]))
    count = 0

    def said(line: str) -> None:
        nonlocal count
        if found := _PACKAGE.match(line):
            count += 1
            shown.moved(f"{count} steps, {found[1]}")

    # One session: what has whose rights is known to fakeroot only while it runs.
    fake = [] if os.geteuid() == 0 else ["fakeroot"]
    proxies = {name: os.environ[name] for name in os.environ if name.lower() in ("http_proxy", "https_proxy")}
    following.run(
        [*fake, "sh", str(script)], "Debian's packages cannot be unpacked", part / _LOG,
        directory=part, environment={**proxies, "PATH": _path()}, said=said,
    )  # fmt: skip
    shutil.rmtree(root)


def _configure(part: Path, disk: Path, shown: following.Shown) -> None:
    """Have a guest finish the installation. Raises `UsageError`: it does not."""
    shown.step(f"a guest configures the packages; what it says is in {part / _LOG}")
    options = GuestOptions(
        command=[recipe.SECOND_STAGE], drives=[f"{disk},format=raw,cache=unsafe,discard=unmap"],
        smp=1, memory="1G", boot_timeout=300.0, die_with_owner=True,
    )  # fmt: skip
    rest, count = "", 0
    with (part / _LOG).open("a") as log, Guest(options, progress=shown.step) as guest:

        def output(text: str) -> None:
            nonlocal rest, count
            text = text.replace("\r", "")
            log.write(printable_lines(text))
            log.flush()
            *lines, rest = (rest[-_LINE:] + text).split("\n")
            for line in lines:
                if found := _PACKAGE.match(line):
                    count += 1
                    shown.moved(f"{count} steps, {found[1] or found[2]}")
                elif found := _STEP.match(line):
                    shown.moved(found[1])

        try:
            status = guest.wait_command(output, LIMIT).status
        except GuestError as error:
            raise UsageError(f"the guest that configures the packages failed: {error} (see {part / _LOG})") from None
    if status:
        raise UsageError(f"the packages cannot be configured: exit code {status} (see {part / _LOG})")


def _tool(failed: str, part: Path, *command: str) -> None:
    following.run(command, failed, part / _LOG, directory=part, environment={"PATH": _path()})


def _path() -> str:
    """PATH, and where Debian has what users do not need every day: debootstrap, mke2fs."""
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _check_room(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < ROOM:
        raise UsageError(
            f"{folder} has {free >> 20} MiB free, and a disk takes {ROOM >> 20}: make room, or set XDG_CACHE_HOME"
        )


def _say(target: Path, how: str) -> int:
    print(printable(f"the disk is {how}: {target}", None), flush=True)
    print(printable(f"qemu-sdei run --hypervisor --disk {target},snapshot=on", None), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
