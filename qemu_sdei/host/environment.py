"""What this machine has of what is needed: QEMU for every start of a guest, all of it for `qemu-sdei doctor`."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei import idle_states
from qemu_sdei.config import format_size
from qemu_sdei.errors import UsageError
from qemu_sdei.host.cpu_models import cpu_models
from qemu_sdei.paths import cache_directory, expand

QEMU_NAME: Final = "qemu-system-aarch64"
MIN_QEMU: Final = (6, 2)
"""First QEMU whose `virt,secure=on` has all that the monitor uses."""
TESTED_CPUS: Final = ("cortex-a53", "cortex-a57", "cortex-a72", "cortex-a76", "neoverse-n1", "a64fx", "max")
MIN_PYTHON: Final = (3, 11)
PACKAGES: Final = {"qemu.qmp": "qemu.qmp", "rich": "rich", "shtab": "shtab", "pyelftools": "elftools"}
"""Distribution and module of the Python packages that the project needs."""

if TYPE_CHECKING:
    from qemu_sdei.host.debian import DebianCache

_INSTALL_QEMU: Final = "install it (Debian: apt-get install qemu-system-arm) or point to one with --qemu"
_OPTIONS: Final = ("secure", "gic-version", "virtualization", "memory-backend")
"""Options of the `virt` machine that a guest's command line may use."""
_TIMEOUT: Final = 20.0


@dataclass(frozen=True)
class Qemu:
    """A QEMU that can run guests."""

    path: Path
    version: tuple[int, ...]
    """Major, minor, micro."""
    machines: tuple[str, ...] = ()
    """Its machine types."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for."""

    name: str
    found: str | None
    """What is there, in a few words; None if it is missing or not good enough."""
    needed: bool
    """Whether no guest runs without it."""
    why: str
    remedy: str
    damaged: bool = False
    """It is there, and is not what it should be."""
    tried: bool = False
    """It was not looked for but tried: a place was written to, a guest was run."""

    @property
    def ok(self) -> bool:
        """It is there, or can be done without."""
        return self.found is not None or not self.needed


def find_qemu(path: Path | None = None) -> Qemu:
    """The QEMU at `path`, else the one on PATH. It is asked once; the answer is kept while the file does not change.

    Raises:
        UsageError: it is missing, cannot be run, is older than 6.2, or its `virt` machine lacks an option that is used.
    """
    if path is None:
        on_path = shutil.which(QEMU_NAME)
        if on_path is None:
            raise UsageError(f"no {QEMU_NAME} on PATH: {_INSTALL_QEMU}")
        path = Path(on_path)
    elif not (path := expand(path)).is_file() or not os.access(path, os.X_OK):
        if path.parent == Path() and (on_path := shutil.which(str(path))):
            path = Path(on_path)
        else:
            reason = "is no program that can be run" if path.exists() else "does not exist"
            raise UsageError(f"QEMU {path} {reason}: give the path of a {QEMU_NAME}")
    path = path.absolute()
    if re.match(rf"qemu-system-(?!{QEMU_NAME.removeprefix('qemu-system-')})", path.name):
        raise UsageError(f"{path} emulates another architecture: give the path of a {QEMU_NAME}")
    known = _remembered(path)
    version = tuple(known["version"])
    if version < MIN_QEMU:
        raise UsageError(
            f"{path} is QEMU {_dotted(version)}, and {_dotted(MIN_QEMU)} or newer is needed: "
            "install a newer qemu-system-arm, or point to one with --qemu"
        )
    if missing := [name for name in _OPTIONS if name not in known["options"]]:
        what = f"no option {missing[0]!r}" if known["options"] else "no machine 'virt'"
        raise UsageError(f"{path} (QEMU {_dotted(version)}) has {what}: point to a {QEMU_NAME} with --qemu")
    return Qemu(path, version, tuple(known["machines"]))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _remembered(path: Path) -> dict[str, Any]:
    """Version and machine options of the QEMU at `path`, from the cache where it can be trusted. Raises UsageError."""
    status = path.stat()
    key = f"{path.resolve()} {status.st_mtime_ns} {status.st_size}"
    try:
        cache = cache_directory() / "qemu.json"
        known = json.loads(cache.read_bytes())
        # The types too: anybody may have written to the file.
        if known["key"] == key and all(type(part) is int for part in known["version"]) and known["version"]:
            return {"version": known["version"]} | {
                key: [str(name) for name in known[key]] for key in ("options", "machines")
            }
    except (OSError, ValueError, KeyError, TypeError, RecursionError, UsageError):
        pass
    known = {"key": key} | _ask(path)
    try:
        cache = cache_directory() / "qemu.json"
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=cache.parent, prefix=".qemu.json.", delete=False) as file:
            json.dump(known, file)
        Path(file.name).replace(cache)
    except (OSError, UsageError):
        pass  # only slower the next time
    return known


def _ask(path: Path) -> dict[str, Any]:
    found = re.search(r"QEMU emulator version (\d+)\.(\d+)(?:\.(\d+))?", _output(path, "--version"))
    if found is None:
        raise UsageError(f"{path} does not say that it is a QEMU: give the path of a {QEMU_NAME}")
    options = re.findall(r"^\s+([a-z0-9-]+)=<", _output(path, "-machine", "virt,help"), re.MULTILINE)
    machines = re.findall(r"^([a-z0-9.-]+)\s", _output(path, "-machine", "help"), re.MULTILINE)
    return {"version": [int(part or 0) for part in found.groups()], "options": options, "machines": machines}


def _output(path: Path, *arguments: str) -> str:
    """What the program prints. Raises UsageError."""
    try:
        result = subprocess.run(
            [str(path), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=_TIMEOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise UsageError(f"{path} {' '.join(arguments)} did not end within {_TIMEOUT:.0f} s: is it a QEMU?") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be run ({error.strerror}): give the path of a {QEMU_NAME}") from None
    return result.stdout.decode(errors="replace")


def check(qemu: Path | None = None) -> list[Finding]:
    """Everything that guests, tests and builds use, in the order of its importance. Raises nothing; asks no network."""
    findings = [*_qemu(qemu), *_python(), _blobs(), _shared_memory(), _idle_states()]
    findings += [
        _tool("apt-get", "downloads Debian's kernel and busybox", "without it give --kernel IMAGE and --busybox FILE"),
        _kernels(),
        _own_kernels(),
        _busybox(),
        _uefi(),
        _compiler(),
        _tool("dtc", "a second opinion on device trees, in the tests", "apt-get install device-tree-compiler"),
        _tool("iasl", "a second opinion on ACPI tables, in the tests", "apt-get install acpica-tools"),
        _tool("setpriv", "ends QEMU when its supervisor is killed", "apt-get install util-linux"),
    ]
    return findings


def _qemu(wanted: Path | None) -> list[Finding]:
    why = f"runs the guests; {_dotted(MIN_QEMU)} or newer, with the machine virt,secure=on"
    try:
        qemu = find_qemu(wanted)
    except UsageError as error:
        return [Finding("QEMU", None, True, why, str(error))]
    models = cpu_models(qemu.path)
    lacking = [name for name in TESTED_CPUS if name not in models]
    cpus = Finding(
        "CPU models",
        f"{len(models)}; tested: {', '.join(name for name in TESTED_CPUS if name in models)}" if models else None,
        False,
        "what --cpu can choose from",
        f"this QEMU lacks {', '.join(lacking)}: a newer one has them" if lacking else "",
    )
    return [Finding("QEMU", f"{_dotted(qemu.version)} ({qemu.path})", True, why, _INSTALL_QEMU), cpus]


def _python() -> list[Finding]:
    good = sys.version_info[:2] >= MIN_PYTHON
    wanted = _dotted(MIN_PYTHON)
    findings = [
        Finding("Python", platform.python_version() if good else None, True, f"{wanted} or newer", f"install {wanted}")
    ]
    for distribution, module in PACKAGES.items():
        found: str | None = None
        if importlib.util.find_spec(module.partition(".")[0]) is not None:
            try:
                found = importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                found = "present"  # as installed by a distribution's own package
        remedy = f"scripts/demo sets up everything; or: pip install {distribution}"
        findings.append(Finding(f"Python package {distribution}", found, True, "imported by qemu-sdei", remedy))
    return findings


def _blobs() -> Finding:
    data = Path(__file__).resolve().parent.parent / "data"
    remedy = "install the package again, or build them: python -m qemu_sdei.guestbuild"
    found: str | None = None
    try:
        records = json.loads((data / "blobs.json").read_bytes())
        damaged = [
            name
            for name, record in records.items()
            if hashlib.sha256((data / f"{name}.bin").read_bytes()).hexdigest() != record["sha256"]
        ]
        (data / "init").stat()
        if damaged or "monitor" not in records:
            remedy = f"{', '.join(damaged) or 'monitor'}: not what blobs.json says; {remedy}"
        else:
            found = ", ".join(sorted(records))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        remedy = f"{error}: {remedy}"
    return Finding("embedded programs", found, True, "EL3 monitor, selftest and initramfs's init", remedy)


def _shared_memory() -> Finding:
    try:
        status = os.statvfs("/dev/shm")
        shm: str | None = f"{format_size(status.f_bavail * status.f_frsize >> 20 << 20)} free"
    except OSError:
        shm = None
    return Finding("/dev/shm", shm, False, "a place for --memory-path", "mount a tmpfs there")


def _idle_states() -> Finding:
    why = "to wake a core is most of what an event takes to reach an idle guest"
    refused = idle_states.why_not()
    remedy = "run --low-latency keeps the cores awake" + (f", but not here: {refused}" if refused else "")
    return Finding("the cores' sleep", f"{idle_states.describe()}; {remedy}", False, why, remedy)


def _tool(name: str, why: str, remedy: str) -> Finding:
    return Finding(name, shutil.which(name), False, why, remedy)


def _cached(name: str, look: Callable[[DebianCache], dict[str, Path]], why: str, remedy: str, no_apt: str) -> Finding:
    """`look` returns what is in the cache, by how it is shown."""
    # Imported here: every start of a guest needs find_qemu(), and none of this.
    from qemu_sdei.host.debian import DebianCache
    from qemu_sdei.host.unpack import damaged

    try:
        cache = DebianCache()
        files = look(cache)
        wrong = [path for path in files.values() if cache.is_damaged(path)]
    except (OSError, UsageError):  # a cache that may not be read, or that there is no place for
        files, wrong = {}, []
    if wrong:
        # Needed: `run` refuses it, until it is deleted.
        return Finding(name, None, True, why, "; ".join(str(damaged(path)) for path in wrong), damaged=True)
    # `run` downloads what is not there; it cannot without apt.
    needed = shutil.which("apt-get") is None
    return Finding(name, ", ".join(files) or None, needed, why, no_apt if needed else remedy)


def _kernels() -> Finding:
    return _cached(
        "Debian kernels",
        lambda cache: {kernel.release: kernel.image for kernel in cache.cached_kernels()},
        "in the cache, for use without a network",
        "the first run gets one",
        "there is no apt-get to download one: give --kernel IMAGE",
    )


def _own_kernels() -> Finding:
    from qemu_sdei.host import own_kernels

    found = ", ".join(f"{kernel.description.series} ({kernel.description.release})" for kernel in own_kernels.built())
    return Finding(
        "crash-path kernel",
        found or None,
        False,
        "Linux with SDEI NMI, AGDI and EDAC, for --series own-7.3",
        "scripts/crash-kernel builds it",
    )


def _busybox() -> Finding:
    def look(cache: DebianCache) -> dict[str, Path]:
        found = cache.cached_busybox()
        return {} if found is None else {str(found): found}

    return _cached(
        "busybox for arm64",
        look,
        "the shell in our initramfs",
        "the first run gets it",
        "there is no apt-get to download it: give --busybox FILE",
    )


def _uefi() -> Finding:
    def look(cache: DebianCache) -> dict[str, Path]:
        found = cache.cached_uefi()
        return {} if found is None else {str(found): found}

    found = _cached(
        "UEFI for arm64",
        look,
        "boots guests with --uefi and --disk",
        "the first such run gets it",
        "there is no apt-get to download it: give --uefi=FILE",
    )
    return found if found.damaged else replace(found, needed=False)


def _compiler() -> Finding:
    from qemu_sdei.guestcompile import find_compiler

    remedy = "apt-get install gcc-aarch64-linux-gnu (a prebuilt monitor is in the package)"
    try:
        compiler = find_compiler()
    except UsageError as error:
        compiler, remedy = None, str(error)
    found = f"{compiler.version} ({compiler.path})" if compiler else None
    return Finding("cross compiler", found, False, "builds the EL3 monitor and the client module", remedy)
