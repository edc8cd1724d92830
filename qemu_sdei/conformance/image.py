"""A machine with another firmware: any image for QEMU's `virt,secure=on`. No backend of ours is part of it.

The image may do whatever it likes: it never gets more than a console that is read, and its time.
"""

from __future__ import annotations

import codecs
import os
import selectors
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from qemu_sdei.config import format_size
from qemu_sdei.errors import LaunchError, NotDeliveredError, UsageError
from qemu_sdei.paths import readable_file
from qemu_sdei.vm.machine_checks import check_machine
from qemu_sdei.vm.options import GuestOptions

RAM_START: Final = 0x4000_0000
ENTRY: Final = 0x4020_0000
"""Where the guest is put and the firmware enters it, unless the user says otherwise."""
FLASH: Final = 64 << 20
"""Bytes of QEMU's flash at address 0."""
SLOT: Final = b"QSDEIARG"
"""Mark in a flat guest, behind which a command line may be written (guest/lib/start.S)."""
SLOT_SIZE: Final = 256
_PIECE: Final = 1 << 16
"""Bytes of console that are looked at in one piece."""
_TAIL: Final = 4096
_TICK: Final = 0.2


def with_words(guest: bytes, words: str) -> bytes:
    """The guest's image with its command line in it: a firmware passes what it likes, if anything."""
    at = guest.find(SLOT)
    text = words.encode()
    if at < 0 or len(text) >= SLOT_SIZE:
        raise UsageError(f"a command line of {len(text)} characters does not go into this guest's image")
    at += len(SLOT)
    return guest[:at] + text.ljust(SLOT_SIZE, b"\0") + guest[at + SLOT_SIZE :]


def check_image(path: str | Path, entry: int | None, ram_size: int) -> Path:
    """The image, if QEMU can take it and the guest can be where it will enter. Raises `UsageError`."""
    image = readable_file(path, "firmware image")
    size = image.stat().st_size
    if not 0 < size <= FLASH:
        raise UsageError(f"firmware image {path} has {size} bytes: QEMU's flash takes 1 to {FLASH}")
    if entry is not None and (entry % 4096 or not RAM_START <= entry < RAM_START + ram_size - (1 << 20)):
        raise UsageError(
            f"--firmware-entry {entry:#x}: the guest goes to a multiple of 4096 in RAM, from {RAM_START:#x} on, "
            f"and needs 1 MiB"
        )
    return image.absolute()


class ImageMachine(AbstractContextManager["ImageMachine"]):
    """QEMU with `image` in its secure flash.

    `guest` is at `entry` in RAM and is what `-kernel` names; None: the firmware has it in its image, or takes it from
    fw_cfg.
    """

    def __init__(self, options: GuestOptions, image: Path, entry: int | None, guest: bytes, words: str) -> None:
        self._options = options
        self._image = image
        self._entry = entry
        self._guest = guest
        self._words = words
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = b""
        self._tail = ""
        self.ended = ""

    def _command(self, blob: str) -> list[str]:
        options = self._options
        qemu, size = check_machine(options)
        command = [
            *(str(qemu), "-no-user-config", "-nodefaults", "-display", "none"),
            # A reset is an end: a firmware that resets for ever must not.
            "-no-reboot",
            "-machine",
            "virt,secure=on,gic-version=3" + (",virtualization=on" if options.virtualization else ""),
            *("-cpu", options.cpu, "-smp", ",".join(filter(None, (str(options.smp), options.topology)))),
            *("-m", format_size(size)),
            # By -bios the flash at 0 has the image in memory: what the firmware writes to it never gets to the file.
            *("-bios", str(self._image)),
            *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
            # The secure UART exists only if somebody is at its other end.
            *("-serial", "null"),
            # Also in fw_cfg and /chosen/bootargs, for a firmware that loads or passes them.
            *("-kernel", blob, "-append", self._words),
        ]
        if self._entry is not None:
            command += ["-device", f"loader,file={blob},addr={self._entry:#x},force-raw=on"]
        command += options.qemu_args
        if setpriv := shutil.which("setpriv"):
            command = [setpriv, "--pdeathsig", "KILL", "--", *command]
        return command

    def __enter__(self) -> ImageMachine:
        # A file without a name: nothing of it is left, however this process ends.
        blob = os.memfd_create("guest")
        try:
            with open(blob, "wb", closefd=False) as file:
                file.write(with_words(self._guest, self._words))
            self._process = subprocess.Popen(
                self._command(f"/proc/self/fd/{blob}"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(blob,),
                start_new_session=True,
            )
        except OSError as error:
            raise LaunchError(f"QEMU cannot be started: {error.strerror}") from None
        finally:
            os.close(blob)
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def follow(self) -> Iterator[str]:
        """As `Machine`."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        assert process.stderr is not None
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            selector.register(process.stderr, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(_TICK)
                if not ready:
                    yield ""
                for key, _ in ready:
                    data = os.read(key.fd, _PIECE)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is process.stderr:
                        self._errors = (self._errors + data)[-_TAIL:]
                    else:
                        text = decoder.decode(data)
                        self._tail = (self._tail + text)[-_TAIL:]
                        yield text
        status = process.wait()
        said = self._errors.decode("utf-8", "replace").strip().splitlines()
        if status:
            self.ended = f"QEMU ended with status {status}" + (f": {said[-1]}" if said else "")
        else:
            self.ended = "the machine was powered off or reset"

    def write(self, text: str) -> None:
        """As `Machine`. What a guest that does not read it leaves no room for is dropped."""
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), text.encode())
        except OSError:
            pass

    def inject(self, event: int, cpu: int) -> None:
        """As `Machine`: nobody here can."""
        raise NotDeliveredError(f"another firmware's event {event:#x} cannot be triggered from here")

    def inject_at(self, event: int, cpu: int, watched: int, code: range) -> None:
        """As `Machine`: nobody here can."""
        self.inject(event, cpu)

    def trace(self, most: int = 0) -> Sequence[Mapping[str, Any]]:
        """As `Machine`: there is none."""
        return ()

    def explanation(self) -> Sequence[str]:
        """As `Machine`: nobody here knows."""
        return ()

    def console(self) -> list[str]:
        """As `Machine`."""
        return self._tail.splitlines()[-30:]
