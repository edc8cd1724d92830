"""The control socket's command `regs`: KVM's pseudo registers, of SDEI (`kvm_regs.py`) and of the services."""

from __future__ import annotations

from typing import Any

from qemu_sdei.backend.control import kvm_regs
from qemu_sdei.backend.control.commands import Field, commands_of, handles, integer
from qemu_sdei.backend.control.connections import Client
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.sdei.constants import Function
from qemu_sdei.smccc import selection


class RegisterCommands:
    """The command `regs`.

    Attributes:
        commands: by name.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._aside: dict[tuple[int, int], dict[int, list[int]]] = {}
        """Handlers that were written before their events, by boot and PE."""
        self.commands = commands_of(self)

    @handles(
        "regs",
        Field("vcpu"),
        Field("set", ": id → list of words, all written at once (none)"),
        result="`registers`: id → list of 64-bit words, of all [KVM's pseudo registers](kvm-registers.md) that the "
        "guest has",
        changes=True,
    )
    def _regs(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        pe = integer(message, "vcpu", 0, self._server.window.nr_cpus - 1)
        values = message.get("set", {})
        if not isinstance(values, dict) or not all(isinstance(words, list) for words in values.values()):
            raise UsageError("set is an object of lists of words")
        try:
            wanted = {int(number, 0): words for number, words in values.items()}
        except ValueError:
            raise UsageError("a register's id is a number") from None
        bitmaps = {number: _one_word(words) for number, words in wanted.items() if number in selection.BY_ID}
        sdei = {number: words for number, words in wanted.items() if number not in bitmaps}
        if bitmaps and sdei:
            raise UsageError("registers of SDEI and of the services' selection are written by two requests")
        if bitmaps:
            self._server.select_services(bitmaps)
        found = self._sdei(pe, sdei) | {register.id: [value] for register, value in self._server.firmware.selection}
        return {"registers": {f"{number:#x}": words for number, words in found.items()}}

    def _sdei(self, pe: int, wanted: dict[int, Any]) -> dict[int, list[int]]:
        firmware = self._server.firmware
        if not firmware.serves_sdei or not firmware.selection.has(Function.VERSION):
            if wanted:
                raise UsageError("this guest finds no SDEI (--no-sdei, or --services), and has none of its registers")
            return {}
        aside = dict(self._aside.get((firmware.machine.epoch, pe), {}))
        if wanted:
            try:
                self._server.replace_sdei(kvm_regs.write(firmware.dispatcher.snapshot(), pe, wanted, aside))
            except ProtocolError as error:
                raise UsageError(f"this cannot be: {error}") from None
            self._aside = {key: value for key, value in self._aside.items() if key[0] == firmware.machine.epoch}
            self._aside[firmware.machine.epoch, pe] = aside
        return kvm_regs.read(firmware.dispatcher.snapshot(), pe, aside)


def _one_word(words: list[Any]) -> int:
    if len(words) != 1 or type(words[0]) is not int:
        raise UsageError("a bitmap register has one word of 64 bits")
    return words[0]
