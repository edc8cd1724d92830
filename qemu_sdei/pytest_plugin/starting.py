"""How a test gets its guest: restored from the cache, or booted if that is not possible."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qemu_sdei.errors import SdeiError, UsageError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.host import memory
from qemu_sdei.pytest_plugin import cache
from qemu_sdei.pytest_plugin.cache import GuestCache
from qemu_sdei.pytest_plugin.room import LONGEST, Room
from qemu_sdei.vm.options import BUILTIN, FLAT, GuestOptions
from qemu_sdei.vm.plan import prepare

if TYPE_CHECKING:
    from qemu_sdei.vm.plan import Plan

_SEED: Final = 32
"""Bytes of new random numbers for a guest that goes on."""
_log: Final = logging.getLogger("qemu_sdei.pytest_plugin")


class Starter:
    """Starts guests for one process of pytest."""

    def __init__(self, *, fresh: bool, limit: int = cache.DEFAULT_LIMIT, cores: int | None = None) -> None:
        """`fresh`: boot each. `limit`: bytes that those in the cache may have together. `cores`: what the guests of all
        processes may take together; None: what the host has.
        """
        # It tells of each connection that ends, also of those that are to.
        logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL + 1)
        self._fresh = fresh
        self._limit = limit
        self._room = Room(cores, free=memory.available)
        self.remarks: list[str] = []
        """Why the cache could not be used, each said once."""

    @contextmanager
    def room(self, options: GuestOptions) -> Iterator[None]:
        """Have room on the host for a guest, beside those of other processes of pytest, as long as the context lasts;
        waits for it, with a limit.
        """
        with contextlib.ExitStack() as stack:
            try:
                size = memory.ram_size(options.memory)
                if not stack.enter_context(self._room.taken(options.smp + 1, size)):
                    self._remark(f"guests of other processes took all cores or memory for {LONGEST:g} s: one more now")
            except (OSError, UsageError) as error:
                self._remark(f"guests are started without looking whether there is room for them: {error}")
            yield

    def start(self, options: GuestOptions) -> Guest:
        """A running guest: at its shell, if it is a Linux with our own initramfs.

        Raises:
            SdeiError: the options cannot be, or it does not come up.
        """
        plan = prepare(options)
        if not _has_shell(plan):
            return _begun(Guest(options))
        if self._fresh or _outside(options):
            return _booted(options)
        try:
            stored = GuestCache(self._limit)
            return self._from(stored, cache.key_of(options, _files(plan), _qemu(plan)), options)
        except OSError as error:
            self._remark(f"guests are booted for each test: the cache cannot be used ({error})")
            return _booted(options)

    def _from(self, stored: GuestCache, key: str, options: GuestOptions) -> Guest:
        for _ in range(2):
            path = stored.find(key)
            if path is None:
                path = self._make(stored, key, options)
            try:
                return _going_on(path, options)
            except SdeiError as error:
                words = str(error).partition("\n")[0]
                self._remark(f"a guest in the cache could not be used, and is made again: {words}")
                stored.forget(key)
        return _booted(options)

    @staticmethod
    def _make(stored: GuestCache, key: str, options: GuestOptions) -> Path:
        with stored.making(key) as path:
            if stored.find(key) is None:  # nobody else made it meanwhile
                with Guest(options) as guest:
                    guest.wait_shell()
                    try:
                        guest.save(path, end=True, ram_apart=True)
                    except SdeiError as error:
                        raise OSError(str(error).partition("\n")[0]) from None
        return stored.path(key)

    def _remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)
            _log.warning("%s", text)


def _has_shell(plan: Plan) -> bool:
    return plan.own_initramfs and not plan.flat and plan.options.command is None and not plan.options.paused


def _outside(options: GuestOptions) -> bool:
    """Whether a guest is more than what a saved directory has: what it goes on with might have changed since."""
    return bool(
        options.drives or options.snapshots or options.shares or options.trace or options.root or options.uefi_vars
    )


def _files(plan: Plan) -> list[Path]:
    options = plan.options
    named = [
        plan.kernel or None,
        plan.uefi,
        plan.initrd,
        plan.busybox,
        plan.client,
        options.events,
        *options.services,
        *options.acpi_tables,
    ]
    if options.firmware is not None and os.path.sep in str(options.firmware):
        named.append(options.firmware)
    return [Path(file) for file in (*named, *options.files.values()) if file is not None and not _is_word(str(file))]


def _is_word(text: str) -> bool:
    return text.startswith((BUILTIN, FLAT))


def _qemu(plan: Plan) -> str:
    found = plan.qemu.resolve()
    about = found.stat()
    return f"{found} {about.st_size} {about.st_mtime_ns}"


def _begun(guest: Guest) -> Guest:
    try:
        guest.start()
    except BaseException:
        guest.close()
        raise
    return guest


def _booted(options: GuestOptions) -> Guest:
    guest = _begun(Guest(options))
    try:
        guest.wait_shell()
    except BaseException:
        guest.close()
        raise
    return guest


def _going_on(path: Path, options: GuestOptions) -> Guest:
    """The saved guest, with the host's time, and random numbers that no other guest of that directory has."""
    # The directory is of our own making, and only its owner can write to it.
    guest = _begun(Guest.saved(path, name=options.name, trust=True))
    try:
        command = f"date -u -s @{int(time.time())} >/dev/null"
        if options.helper:
            command += f" && reseed {secrets.token_hex(_SEED)}"
        done = guest.run(command)
        if done.status:
            raise SdeiError(f"its time and random numbers could not be set: {done.output.strip()[:200]}")
    except BaseException:
        guest.close()
        raise
    return guest


def with_trace(options: GuestOptions, directory: str | None, test: str) -> GuestOptions:
    """The same guest with a trace in `directory`, in a file named by its test. Raises `OSError`."""
    if directory is None:
        return options
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    safe = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in test)[-120:]
    return replace(options, trace=(folder / f"{safe}.jsonl").absolute())
