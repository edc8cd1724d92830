"""A guest in a directory: saved to it while it runs, restored from it later, as often as one likes.

saved.json     what `GuestOptions` were, how to know the shell's words on the console, and what the other files must be;
               written last
guest.json     the backend's configuration
state.json     the state document
vm.state       QEMU's migration stream, RAM included where there is no ram.pages
ram.pages      RAM, of a guest that was saved with RAM apart
monitor.bin    the guest's EL3 monitor
initrd.img, console.log
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shlex
import shutil
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei import bounded, paths
from qemu_sdei import rundir as files
from qemu_sdei import untrusted_files as saved_files
from qemu_sdei.backend.control.state_document import MAX_DOCUMENT
from qemu_sdei.boot.config import BootConfig
from qemu_sdei.boot.image import MAX_FILE
from qemu_sdei.config import MAX_CONFIG, GuestConfig
from qemu_sdei.errors import GuestError, LostGuestError, ProtocolError, SdeiError, StandsStillError, UsageError
from qemu_sdei.migration.arrival import arrived, take_over
from qemu_sdei.migration.backend_link import BackendLink
from qemu_sdei.migration.options import COPY, SHARED, Hold, MigrationOptions, Report, Step
from qemu_sdei.migration.run_to_completion import finish
from qemu_sdei.migration.source import Side, Source, execute
from qemu_sdei.monitor import image
from qemu_sdei.rundir import RunDirectory
from qemu_sdei.saving import ram_file, saved_trust
from qemu_sdei.vm import travelling
from qemu_sdei.vm.guest_json import check_boot
from qemu_sdei.vm.options import GuestOptions

if TYPE_CHECKING:
    from qemu_sdei.vm.supervisor import Supervisor

FORMAT: Final = "qemu-sdei-saved"
VERSION: Final = 2
"""No release wrote version 1."""
APART: Final = 3
"""The version of a directory with RAM in a file of its own."""
META: Final = "saved.json"
VM: Final = "vm.state"
RAM: Final = "ram.pages"
_PART: Final = "vm.part"
_AS_FILE: Final = MigrationOptions(route=COPY)
_WITHOUT_RAM: Final = MigrationOptions(route=SHARED)
_SETTLE: Final = 10.0
_LOAD: Final = 120.0
"""Seconds that QEMU may take to read a guest."""
_REFUSAL: Final = "QEMU does not take the saved guest"
_KEYS: Final = frozenset(("format", "version", "options", "nonce", "running", "files"))
_FILES: Final = (files.CONFIG, files.STATE, VM, files.INITRD, files.MONITOR)
"""What a damage of would not be seen before the guest runs."""
_LIMITS: Final = {
    META: 1 << 20, files.CONFIG: MAX_CONFIG, files.STATE: MAX_DOCUMENT, files.INITRD: MAX_FILE, files.MONITOR: 1 << 20,
}  # fmt: skip
"""Bytes that the files can have; of the stream see `_limit`."""
_BESIDE_RAM: Final = 1 << 30
"""Bytes of QEMU's stream that are no RAM, at most: devices, and flash."""
_CONSOLE: Final = 32 << 20
_SAME: Final = sorted(travelling.in_directory() & {field.name for field in fields(GuestConfig)} - {"boot"})
"""Fields that are the same in options and configuration (`boot` is two things of one name)."""
_OPTIONAL: Final = frozenset((files.INITRD,))


@dataclass(frozen=True)
class SaveOptions:
    """How a guest is saved; `Guest.save` describes the fields."""

    end: bool = False
    hold: Hold | None = None
    timeout: float = 120.0
    ram_apart: bool = False


@dataclass(frozen=True)
class Saved:
    """A directory that holds a guest."""

    path: Path
    options: GuestOptions
    nonce: str
    config: GuestConfig
    running: bool
    files: dict[str, str]
    """SHA-256 of each file, in hex digits."""

    trusted: bool = False
    """The user has said that they know who made it."""

    @classmethod
    def read(cls, path: str | Path) -> Saved:
        """Look at the directory `path`. Raises `UsageError`: it holds no guest, or one of a newer program."""
        directory = paths.absolute(path)
        try:
            data = bounded.loads(saved_files.read(directory / META, _LIMITS[META]))
            config = GuestConfig.from_json(saved_files.read(directory / files.CONFIG, _LIMITS[files.CONFIG]))
            BootConfig.from_json(config.boot)
            for name in (VM, files.STATE):
                saved_files.opened(directory / name, _limit(name, config)).close()
        except (ValueError, ProtocolError, UsageError) as error:
            raise UsageError(f"{directory} holds no saved guest: {error}") from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise UsageError(f"{directory} holds no saved guest, or not all of it")
        if data.get("version") not in (VERSION, APART) or data.keys() != _KEYS:
            raise UsageError(f"{directory} was saved by another version of this program")
        found = data["files"]
        if (
            not isinstance(found, dict)
            or not found.keys() >= {*_FILES} - _OPTIONAL
            or (RAM in found) != (data["version"] == APART)
            or not all(isinstance(digest, str) for digest in found.values())
        ):
            raise UsageError(f"{directory} holds no saved guest: {META} does not say what the files are")
        nonce = data["nonce"]
        if not isinstance(nonce, str) or re.fullmatch("[0-9a-f]{1,64}", nonce) is None:
            raise UsageError(f"{directory} holds no saved guest: its nonce is damaged")
        options = travelling.from_directory(data["options"])
        same = (options.smp, *(getattr(options, name) for name in _SAME))
        if same != (config.nr_cpus, *(getattr(config, name) for name in _SAME)):
            raise UsageError(f"{directory} holds no saved guest: {META} and {files.CONFIG} are of different ones")
        # Of a run, not of the guest; both would be written to.
        config = replace(config, trace=None, ram_path=None)
        return cls(directory, options, nonce, config, data["running"] is True, found)

    def wants(self, *, qemu: bool = False) -> list[str]:
        """What of this host it may only have from who is trusted, one line each; `qemu`: the user has named one."""
        options = replace(self.options, qemu=None) if qemu else self.options
        return saved_trust.wanted(options, self.config, initrd=(self.path / files.INITRD).exists())

    def check(self) -> None:
        """Look whether the files are those that were saved, but for RAM (`fill`). Raises `UsageError`."""
        for name in _FILES:
            path = self.path / name
            if not path.is_symlink() and not path.exists() and name not in self.files:
                continue  # one of those that need not be there
            digest = saved_files.sha256(path, _limit(name, self.config))
            if self.files.get(name) != digest:
                raise UsageError(f"{path} is damaged, or of another saved guest")

    def fill(self, ram_fd: int) -> None:
        """Fill the guest's RAM, which is zeroes, as far as it is in a file of its own. Raises `UsageError`."""
        if RAM in self.files:
            ram_file.load(self.path / RAM, ram_fd, self.config.ram_size, self.files[RAM])

    def furnish(self, directory: RunDirectory) -> GuestConfig:
        """Fill a new run directory. Returns the configuration there. Raises `UsageError`."""
        boot = dict(self.config.boot)
        try:
            for name in (files.INITRD, files.STATE):
                if (self.path / name).exists():
                    saved_files.copy(self.path / name, directory / name, _limit(name, self.config))
            if (self.path / files.CONSOLE_LOG).exists():
                saved_files.copy_end(self.path / files.CONSOLE_LOG, directory / files.CONSOLE_LOG, _CONSOLE)
        except OSError as error:
            raise UsageError(f"{directory.path} cannot be written: {error.strerror}") from None
        if (directory / files.INITRD).is_file():
            boot["initrd"] = str(directory / files.INITRD)
        config = replace(self.config, name=directory.name, boot=boot)
        if not self.trusted:
            check_boot(config)  # what a reset loads is what `run` would take
        return config

    def monitor(self) -> bytes:
        """The EL3 monitor that the guest was saved with. Raises `UsageError`: it cannot be read, or is not served.

        QEMU writes it anew at each reset, and does not see that it is another one than it has translated.
        """
        path = self.path / files.MONITOR
        data = saved_files.read(path, _LIMITS[files.MONITOR])
        try:
            image.version_of(data)
        except ProtocolError as error:
            raise UsageError(f"the guest in {self.path} cannot be restored: {error}") from None
        return data

    async def arrive(self, side: Supervisor) -> None:
        """Have QEMU and backend of `side`, which wait for a guest, take this one."""
        await Source.capabilities(side, _WITHOUT_RAM if RAM in self.files else _AS_FILE)
        try:
            await execute(side, "migrate-incoming", uri=f"exec:cat {shlex.quote(str(self.path / VM))}")
            await arrived(side, _LOAD, refusal=_REFUSAL)
        except LostGuestError as error:
            raise GuestError(f"{_REFUSAL}: {await side.last_words() or error}") from None
        await take_over(side)
        side.stays()
        if self.running:
            await execute(side, "cont")


def _limit(name: str, config: GuestConfig) -> int:
    """Bytes that a file can have."""
    # A page of RAM goes with its number.
    return config.ram_size + config.ram_size // 256 + _BESIDE_RAM if name == VM else _LIMITS[name]


def described(options: GuestOptions, reboot: bool) -> dict[str, Any]:
    """Options as JSON, as far as a restored guest has them."""
    return travelling.to_directory(options) | {"reboot": reboot}


async def save(
    side: Side,
    path: str,
    meta: dict[str, Any],
    report: Report,
    options: SaveOptions,
    ram: tuple[int, int] | None = None,
) -> int:
    """Save the running guest of `side` into the new directory `path`. `ram`: descriptor and bytes of its RAM, for
    `options.ram_apart`.

    Returns the bytes written. Raises `UsageError`: the directory cannot be; `SdeiError`: it did not work, nothing is
    left of it, and the guest goes on.
    """
    directory = Path(path)
    try:
        directory.mkdir(mode=0o700)
    except OSError as error:
        raise UsageError(f"directory {directory} cannot be made: {error.strerror}") from None
    leaving = None
    try:
        link = await BackendLink.open(side.path / files.CONTROL)
        leaving = Source(side, link, options.hold, report, options.timeout)
        await leaving.reach_hold_point()
        report(Step("stop"))
        running, _ = await leaving.pause()
        part, whole = shlex.quote(str(directory / _PART)), shlex.quote(str(directory / VM))
        await leaving.transfer(f"exec:cat >{part} && mv {part} {whole}", _AS_FILE if ram is None else _WITHOUT_RAM)
        await _appears(directory / VM)
        if ram is not None:
            await asyncio.to_thread(ram_file.write, directory / RAM, *ram)
        for name in (files.CONFIG, files.STATE, files.INITRD, files.MONITOR, files.CONSOLE_LOG):
            if (side.path / name).is_file():
                await asyncio.to_thread(shutil.copyfile, side.path / name, directory / name)
        # Not `_limit`: what was written is what it is.
        sums = {
            name: await asyncio.to_thread(saved_files.sha256, directory / name, 1 << 62) for name in _saved(directory)
        }
        version = VERSION if ram is None else APART
        text = json.dumps({"format": FORMAT, "version": version, **meta, "running": running, "files": sums}, indent=2)
        (directory / META).write_text(text + "\n")
        for file in directory.iterdir():
            file.chmod(0o600)  # the guest's RAM is its user's alone, wherever the files are moved to
    except BaseException as error:
        try:
            if leaving is not None:
                await finish(leaving.resume())
        except StandsStillError as still:
            raise StandsStillError(f"the guest was not saved: {still}") from None
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        if isinstance(error, OSError):
            raise GuestError(f"the guest was not saved and runs on: {error.strerror or error}") from None
        if isinstance(error, SdeiError):
            raise GuestError(f"the guest was not saved and runs on: {error}") from None
        raise
    if options.end:
        with contextlib.suppress(SdeiError):
            await finish(execute(side, "quit"))
    else:
        await finish(leaving.resume())
    return sum(file.stat().st_size for file in directory.iterdir())


def _saved(directory: Path) -> list[str]:
    return [name for name in (*_FILES, RAM) if (directory / name).is_file()]


async def _appears(file: Path) -> None:
    """QEMU has written all; whether the disk had room for it, the name tells."""
    deadline = time.monotonic() + _SETTLE
    while not file.exists():
        if time.monotonic() > deadline:
            raise GuestError(f"{file} was not written to its end: is the disk full?")
        await asyncio.sleep(0.01)
