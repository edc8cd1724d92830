"""Builds the guest's client module (`qemu_sdei/data/module/`) for one kernel, on demand, and keeps the result.

For a Debian kernel three packages of the image's very version are needed; none of them is installed: the headers of the
flavour, the common headers, and kbuild, which holds the build's own programs and so is of the host's architecture.
A kernel of `scripts/crash-kernel` has its own beside it (`build_own`); any other needs its build tree (`build_tree`,
`build_for`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Final

from qemu_sdei import paths
from qemu_sdei.errors import UsageError
from qemu_sdei.host import kernel_toolchain
from qemu_sdei.host.apt import WHAT_ELSE
from qemu_sdei.host.debian import DebianCache, KernelFiles
from qemu_sdei.host.own_kernels import OwnKernel
from qemu_sdei.host.progress import Progress, no_progress
from qemu_sdei.host.unpack import Unpacked, read_sums, sha256, write_sums
from qemu_sdei.printable import printable

NAME: Final = "sdei_test"
MODULE_PATH: Final = "/lib/sdei_test.ko"
"""Where the module is in our own initramfs (`GuestOptions.client`)."""
KBUILD_ARCHITECTURE: Final = "amd64"
"""Debian's name for the host's architecture: kbuild's programs run here."""

_TIMEOUT: Final = 300.0
_LONGEST: Final = 300
"""Characters of a line of make or the compiler that are shown."""
_VERMAGIC: Final = re.compile(rb"\0?vermagic=([^ \0]+)")


def sources() -> dict[str, bytes]:
    """The module's sources as shipped, by file name."""
    folder = resources.files("qemu_sdei") / "data" / "module"
    wanted = (item for item in folder.iterdir() if item.name == "Kbuild" or item.name.endswith((".c", ".h")))
    return {item.name: item.read_bytes() for item in sorted(wanted, key=lambda item: item.name)}


def build(cache: DebianCache, kernel: KernelFiles, progress: Progress = no_progress) -> Path:
    """The module for a Debian kernel: from the cache, else built with headers that are downloaded now.

    Raises:
        UsageError: make or the cross compiler is missing, the archive has no headers of that version, or the module
            does not build.
    """
    target = cache.directory / "modules" / f"{kernel.release}-{kernel.version}-{_digest()}" / f"{NAME}.ko"
    if target.is_file():
        known = read_sums(target.parent).get(target.name)
        if known is not None and known == sha256(target):
            return target
        # Without a checksum: built by an older version of this program.
        progress(f"{target} {'has no checksum' if known is None else 'is damaged'}: building it again")
    toolchain = kernel_toolchain.find("the client module", "dpkg-deb")
    with _work_directory() as work:
        tree = _headers(cache, kernel, Path(work))
        return _compile(tree, kernel.release, toolchain, Path(work), target, progress)


def build_own(kernel: OwnKernel, progress: Progress = no_progress) -> Path:
    """The module for a kernel of `scripts/crash-kernel`: beside it in the cache, else built now.

    Raises:
        UsageError: make or the cross compiler is missing, or the module does not build.
    """
    target = kernel.directory / "modules" / _digest() / f"{NAME}.ko"
    if target.is_file() and read_sums(target.parent).get(target.name) == sha256(target):
        return target
    toolchain = kernel_toolchain.find("the client module")
    with _work_directory() as work:
        return _compile(kernel.tree, kernel.description.release, toolchain, Path(work), target, progress)


def build_for(kdir: str | Path, target: str | Path, progress: Progress = no_progress) -> Path:
    """Build the module against a kernel's build tree, such as `/lib/modules/RELEASE/build`, into the file `target`.

    Nothing is cached: such a tree may change at any time.

    Raises:
        UsageError: `kdir` is no built arm64 kernel tree, a tool is missing, or the module does not build.
    """
    tree = paths.resolved(kdir)
    release = _release(tree)
    toolchain = kernel_toolchain.find("the client module")
    with _work_directory() as work:
        return _compile(tree, release, toolchain, Path(work), paths.resolved(target), progress)


def build_tree(cache: Path, kdir: Path, progress: Progress = no_progress) -> Path:
    """The module for the kernel of a build tree, in the directory `cache`: built again when the tree was, or when the
    module's sources are others. Raises `UsageError` as `build_for`.
    """
    tree = paths.resolved(kdir)
    release = _release(tree)
    key = hashlib.sha256(f"{tree} {release} {_digest()}".encode())
    for name in (".config", "Module.symvers", "include/generated/utsrelease.h", "vmlinux"):
        with contextlib.suppress(OSError):
            status = (tree / name).stat()
            key.update(f"{name} {status.st_mtime_ns} {status.st_size}\n".encode())
    target = cache / "modules" / f"tree-{key.hexdigest()[:32]}" / f"{NAME}.ko"
    if target.is_file() and read_sums(target.parent).get(target.name) == sha256(target):
        return target
    return build_for(tree, target, progress)


def vermagic(module: Path) -> str:
    """The kernel release that a built module is for; empty when it does not say."""
    found = _VERMAGIC.search(module.read_bytes())
    return found[1].decode(errors="replace") if found else ""


def _digest() -> str:
    digest = hashlib.sha256()
    for name, data in sources().items():
        digest.update(f"{name} {len(data)}\n".encode() + data)
    return digest.hexdigest()[:16]


def _check_path(path: Path, what_to_do: str) -> None:
    """Refuse a path that make cannot name. Raises `UsageError`."""
    if re.search(r"[\s:#$%*?\\'\"]", str(path)):
        raise UsageError(
            f"a kernel module cannot be built in {path}: make takes no space or special character there; {what_to_do}"
        )


def _work_directory() -> tempfile.TemporaryDirectory[str]:
    _check_path(Path(tempfile.gettempdir()), "set TMPDIR to another directory")
    return tempfile.TemporaryDirectory(prefix="qemu-sdei-module-")


def _headers(cache: DebianCache, kernel: KernelFiles, work: Path) -> Path:
    """Download and unpack what a build for `kernel` needs; return the build tree."""
    headers = f"linux-headers-{kernel.release}"
    flavour = _download(cache, kernel, headers, "arm64")
    # The package itself knows what it builds with: the names of both others differ between series and flavours.
    needs = _run(["dpkg-deb", "--field", str(flavour), "Depends"], f"{flavour.name} cannot be read")
    common = re.search(r"linux-headers-[^\s,|]*-common[^\s,|(]*", needs)
    kbuild = re.search(r"linux-kbuild-[^\s,|(]+", needs)
    if common is None or kbuild is None:
        raise UsageError(f"{headers} {kernel.version} depends on no common headers or kbuild, as Debian's packages do")
    packages = [
        flavour,
        _download(cache, kernel, common[0], "all"),
        _download(cache, kernel, kbuild[0], KBUILD_ARCHITECTURE),
    ]
    root = work / "root"
    for package in packages:
        _run(["dpkg-deb", "--extract", str(package), str(root)], f"{package.name} cannot be unpacked")
    tree = root / "usr/src" / headers
    # The package's own Makefile names the common one, and where objects are (KBUILD_OUTPUT, since 6.13), by installed
    # paths.
    makefile = tree / "Makefile"
    try:
        text = makefile.read_text(errors="replace")
    except OSError:
        text = f"include /usr/src/{common[0]}/Makefile\n"
    makefile.unlink(missing_ok=True)  # a link would lead to where the package is not installed
    makefile.write_text(re.sub(r"(?<![\w.)/])/usr/(?=src/|lib/)", lambda _: f"{root}/usr/", text))
    return tree


def _download(cache: DebianCache, kernel: KernelFiles, package: str, architecture: str) -> Path:
    try:
        more = {} if kernel.suite is None else {"suite": kernel.suite}
        return cache.download(package, kernel.version, architecture, **more)
    except UsageError as error:
        reason = str(error).removesuffix(f": {WHAT_ELSE}").rpartition("cannot be downloaded: ")[2]
        raise UsageError(
            f"no client module for kernel {kernel.release}: {package} {kernel.version} ({architecture}) is needed and "
            f"cannot be had from Debian's archive ({reason}): use a kernel whose headers are there"
        ) from None


def _release(tree: Path) -> str:
    """The kernel release of a build tree. Raises `UsageError`."""
    try:
        # Not include/config/kernel.release, which in Debian's headers is the upstream version.
        found = re.search(
            r'UTS_RELEASE "([^"]+)"', (tree / "include/generated/utsrelease.h").read_text(errors="replace")
        )
        config = (tree / ".config").read_text(errors="replace")
    except OSError:
        found = None
    if found is None or not (tree / "Makefile").is_file():
        raise UsageError(
            f"{tree} is not a kernel build tree: it needs Makefile, .config and include/generated/utsrelease.h "
            "(make modules_prepare makes the last one)"
        )
    if "CONFIG_ARM64=y" not in config.splitlines():
        raise UsageError(f"{tree} is the build tree of a kernel for another architecture: one for arm64 is needed")
    _check_path(tree, "move the kernel tree")
    return found[1]


def _compile(
    tree: Path, release: str, toolchain: tuple[str, str], work: Path, target: Path, progress: Progress
) -> Path:
    """Build in `work` against `tree`; put the module into `target` at once, so that nobody sees half of it."""
    progress(f"building the client module for {release}")
    compiler, prefix = toolchain
    source = work / NAME
    source.mkdir()
    for name, data in sources().items():
        (source / name).write_bytes(data)
    failed = f"the client module does not build for {release}"
    _run(
        [
            "make",
            f"-j{os.cpu_count() or 1}",
            f"--directory={tree}",
            f"M={source}",
            "ARCH=arm64",
            # Both: Debian's 6.1 headers set no CROSS_COMPILE, and all name a compiler of one version.
            f"CROSS_COMPILE={prefix}",
            f"CC={compiler}",
            "CONFIG_DEBUG_INFO_BTF_MODULES=",  # else 6.12 wants pahole
            "modules",
        ],
        failed,
    )
    module = source / f"{NAME}.ko"
    _run([f"{prefix}strip", "--strip-debug", str(module)], failed)
    if vermagic(module) != release:
        raise UsageError(f"{failed}: the headers made it for {vermagic(module) or 'no kernel'}")
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(module, part)
        # The checksum first: a module without its own is built again.
        write_sums(target.parent, {target.name: Unpacked(target, sha256(part))})
        part.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise UsageError(f"{target} cannot be written: {error.strerror}") from None
    return target


def _run(command: Sequence[str], failed: str) -> str:
    """The standard output of `command`. Raises `UsageError`, one line that begins with `failed`."""
    # Nothing else of the user's environment: O, KCFLAGS, MAKEFLAGS and the like would change the build.
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment | {"LC_ALL": "C"},
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=_TIMEOUT)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)  # make's children too
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise UsageError(f"{failed}: {Path(command[0]).name} did not end within {_TIMEOUT:.0f} s") from None
        raise
    if process.returncode:
        lines = [line.strip() for line in errors.splitlines() if line.strip()]
        raise UsageError(f"{failed}: {_telling(lines) or f'exit status {process.returncode}'}")
    return output


_REASONS: Final = (
    (r"GLIBC_[\d.]+'? not found", "the kernel's build programs are for a newer Debian: build it there"),
    (r"unrecognized command[- ]line option|unknown argument", "the kernel wants a newer compiler than this one"),
    (r"\b(?:fatal )?error: (?!.*Error \d)", ""),
    (r"\*\*\* (?!\[)", ""),
    (r"(?i)not found|no such file|cannot", ""),
)
"""What says the reason in what a build prints, the first the best; and what more there is to say. That make ends with
"Error 1" is no reason.
"""


def _telling(lines: Sequence[str]) -> str:
    """Of what a build that fails has printed, the line with the reason; "" if there is none."""
    for pattern, more in _REASONS:
        for line in lines:
            if re.search(pattern, line):
                text = printable(" ".join(line.split()))[:_LONGEST]
                return f"{text} ({more})" if more else text
    return printable(lines[0])[:_LONGEST] if lines else ""
