"""The project's own initramfs: Debian's static busybox, and `qemu_sdei/data/init` as PID 1.

It is not compressed: to copy 2 MB into RAM costs the host a millisecond, to inflate them costs an emulated guest fifty.
What init expects and prints is told in `guest/initramfs/README.md`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from qemu_sdei import blobs
from qemu_sdei.boot import cpio
from qemu_sdei.boot.image import describe
from qemu_sdei.errors import UsageError

_INIT: Final = Path(__file__).resolve().parent.parent / "data" / "init"
_PROFILE: Final = _INIT.with_name("profile")
_HELPER: Final = _INIT.with_name("helper")
RESEED: Final = "bin/reseed"
"""Gives the kernel new random numbers (`guest/reseed`), where there is a helper."""
VICTIM: Final = "bin/victim"
"""A process whose memory is to fail (`guest/victim`), where there is a helper."""
AGENT: Final = "bin/agent"
"""Runs commands for the host (`guest/agent`)."""
_NONCE: Final = re.compile(r"[0-9A-Za-z]{1,64}")
_APPLET: Final = re.compile(rb"[0-9A-Za-z_.+\[-]{1,32}")
_APPLETS_START: Final = b"\0[\0[[\0"
"""busybox keeps its applets' names as one sorted list of strings; these come first."""


def build(
    busybox: bytes,
    *,
    command: Sequence[str] | None,
    nonce: str,
    extra_files: Mapping[str, bytes | tuple[bytes, int]] | None = None,
    drivers: Sequence[tuple[str, bytes]] = (),
    shares: Sequence[str] = (),
    net: bool = False,
    root: str | None = None,
    helper: str | None = None,
    channel: str | None = None,
    apart: bool = False,
) -> bytes:
    """An initramfs, as an uncompressed newc archive.

    Args:
        busybox: a statically linked arm64 busybox.
        command: what to run before powering off; one word is a shell script, several are a program and its arguments.
            None for an interactive shell.
        nonce: letters and digits that mark init's own lines on the console.
        extra_files: contents by path in the guest; with a permission mode (default 0o644) as a pair.
        drivers: kernel modules, name and content, in the order in which init loads them.
        shares: tags of 9p file systems that init mounts, each on /mnt/TAG.
        net: have init set up eth0 with the addresses of QEMU's user-mode network.
        root: device with the root file system whose own init is to be started.
        helper: PCI address of the serial card by which init is to take commands from the host, such as 0000:00:1e.0.
        channel: PCI address of the virtio serial card by which an agent is to run commands for the host.
        apart: the command has its streams by that card, and not on the console.

    Raises:
        UsageError: `busybox` is no static arm64 program, `command` is empty, or a path cannot be.
    """
    check_busybox(busybox)
    if not _NONCE.fullmatch(nonce):
        raise ValueError(f"nonce {nonce!r}: 1 to 64 letters and digits")
    nodes = [cpio.directory(name) for name in ("dev", "proc", "root", "run", "sys", "tmp")]
    nodes += [
        cpio.character_device("dev/console", 5, 1),  # the kernel opens it for init, before anything is mounted
        cpio.file("init", _INIT.read_bytes(), 0o755),
        cpio.file("bin/busybox", busybox, 0o755),
        cpio.symlink("sbin", "bin"),
        cpio.file("etc/passwd", b"root::0:0:root:/root:/bin/sh\n"),
        cpio.file("etc/group", b"root:x:0:\n"),
        cpio.file("qemu-sdei/nonce", nonce.encode() + b"\n"),
        cpio.fifo("qemu-sdei/ended"),
        cpio.file("qemu-sdei/profile", _PROFILE.read_bytes()),
    ]
    # devtmpfs does not have these, and is mounted over anything in /dev here: init copies them.
    fds = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
    nodes += [cpio.symlink(f"qemu-sdei/dev/{name}", target) for name, target in fds.items()]
    nodes += [cpio.symlink(f"bin/{name}", "busybox") for name in applets(busybox)]
    if command is not None:
        nodes.append(cpio.file("qemu-sdei/command", script(command)))
    nodes += [
        cpio.file(f"qemu-sdei/drivers/{number:02}-{name}.ko", data) for number, (name, data) in enumerate(drivers)
    ]
    nodes.append(cpio.file("qemu-sdei/shares", "".join(f"{tag}\n" for tag in shares).encode()))
    nodes += [cpio.directory(f"mnt/{tag}") for tag in shares]
    if net:
        nodes.append(cpio.file("qemu-sdei/net", b""))
        nodes.append(cpio.file("etc/resolv.conf", b"nameserver 10.0.2.3\n"))
    if root is not None:
        nodes.append(cpio.file("qemu-sdei/root", f"{root}\n".encode()))
    if helper is not None:
        nodes.append(cpio.file("qemu-sdei/helper", _HELPER.read_bytes()))
        nodes.append(cpio.file("qemu-sdei/helper-card", f"{helper}\n".encode()))
        nodes.append(cpio.file(VICTIM, blobs.read("victim"), 0o755))
        nodes.append(cpio.file(RESEED, blobs.read("reseed"), 0o755))
    if channel is not None:
        nodes.append(cpio.file(AGENT, blobs.read("agent"), 0o755))
        nodes.append(cpio.file("qemu-sdei/channel", f"{channel}\n".encode()))
        if apart:
            nodes.append(cpio.file("qemu-sdei/apart", b""))
    for path, item in (extra_files or {}).items():
        data, mode = item if isinstance(item, tuple) else (item, 0o644)
        nodes.append(cpio.file(path, data, mode & 0o7777))
    return cpio.archive(nodes)


def script(command: Sequence[str]) -> bytes:
    """The shell script that runs `command`: one word is a script already, several are quoted.

    Raises:
        UsageError: there is nothing to run, or it holds a NUL.
    """
    text = command[0] if len(command) == 1 else shlex.join(command)
    if not text.strip() or "\0" in text:
        raise UsageError("the command to run in the guest is empty or holds a NUL character")
    return text.encode(errors="surrogateescape") + b"\n"


def check_busybox(data: bytes) -> None:
    """Raise UsageError unless `data` is a statically linked little-endian AArch64 program."""
    if data[:6] != b"\x7fELF\x02\x01" or int.from_bytes(data[18:20], "little") != 0xB7:
        what = describe(data) if data else "an empty file"
        raise UsageError(f"busybox for the guest: this is {what}: give a static arm64 busybox (Debian: busybox-static)")
    start, size = int.from_bytes(data[32:40], "little"), int.from_bytes(data[54:56], "little")
    count = int.from_bytes(data[56:58], "little")
    headers = (data[at : at + 4] for at in range(start, start + count * max(size, 1), max(size, 1)))
    if any(header == b"\x03\0\0\0" for header in headers):  # PT_INTERP
        raise UsageError("busybox for the guest: it needs shared libraries: give a static one (Debian: busybox-static)")


def applets(busybox: bytes) -> list[str]:
    """The names that `busybox` answers to; [] if they cannot be found in it (init then asks the program itself)."""
    at = busybox.find(_APPLETS_START) + 1
    names: list[str] = []
    while at > 0 and len(names) < 1000:
        end = busybox.find(b"\0", at, at + 64)
        if not _APPLET.fullmatch(name := busybox[at : max(end, at)]):
            break
        names.append(name.decode())
        at = end + 1
    return [name for name in names if name != "busybox"]
