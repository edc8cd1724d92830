"""Names for the guest's code addresses: symbols of the user's, and where the guest has them.

A `Symbolizer` is told what comes to be known of the guest: handlers that its kernel registers, the PC of its calls, its
own /proc/kallsyms. Until that says where the kernel lies, and where it contradicts the symbols, addresses stay numbers
and the reason is told once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from qemu_sdei.errors import UsageError
from qemu_sdei.printable import printable
from qemu_sdei.symbols import kaslr, listings, notes
from qemu_sdei.symbols.elf import ModuleFile
from qemu_sdei.symbols.kaslr import Found
from qemu_sdei.symbols.sources import Kernel, Sources
from qemu_sdei.symbols.symbol_table import Symbol, SymbolTable

_REGISTER: Final = 0xC400_0021
_RETURNS: Final = (0xC400_0025, 0xC400_0026)
"""EVENT_COMPLETE and EVENT_COMPLETE_AND_RESUME: Linux calls them from its handler's entry code."""
_SDEI: Final = range(0xC400_0020, 0xC400_0040)
_PSCI: Final = (range(0x8400_0000, 0x8400_0020), range(0xC400_0000, 0xC400_0020))
_ADDRESSES: Final = ("pc", "next_pc")
"""Fields of records that are code addresses."""
_MAX_CACHE: Final = 1 << 16
_MAX_TRAMPOLINE: Final = 4 * kaslr.PAGE
_UNKNOWN: Final = (
    "where the guest's kernel lies (KASLR) is not known yet, so addresses stay numbers: its next SDEI or PSCI call "
    "says it, or a copy of its /proc/kallsyms"
)


@dataclass
class _Placed:
    """A kernel's symbols, and what is known of its place."""

    kernel: Kernel
    offset: int | None = None
    trampoline: int | None = None
    why: str | None = None
    """Why they are not used."""


def _nobody(_: str) -> None:
    pass


class Symbolizer:
    """Names for addresses. Each method takes microseconds, but for those that say otherwise."""

    def __init__(self, sources: Sources, *, force: bool = False, tell: Callable[[str], None] = _nobody) -> None:
        """`force`: symbols of another build id are used too. `tell` gets each sentence for the user, once a kernel."""
        self._sources = sources
        self._force = force
        self._tell = tell
        self._build_id = sources.build_id
        self._kernels = [_Placed(kernel, kernel.offset) for kernel in sources.kernels]
        self._running: SymbolTable | None = None
        self._bases = dict(sources.bases)
        self._placed_modules: list[SymbolTable] | None = None
        self._told: set[str] = set()
        self._names: dict[int, str | None] = {}

    # What the guest is.

    def learn(self, record: Mapping[str, Any]) -> None:
        """Take from a trace record (decoded) what it says. Records come in order."""
        kind = record.get("type")
        if kind == "call":
            number, x, pc = record.get("id"), record.get("x"), record.get("pc")
            if number == _REGISTER and isinstance(x, list) and len(x) > 2 and isinstance(x[2], int):
                self.learn_handler(x[2])
            if isinstance(number, int) and isinstance(pc, int):
                self.learn_call(pc, number)
        elif kind == "kernel":
            self.forget()
        elif kind == "boot":
            self.forget(same_kernel=True)

    def learn_handler(self, entry: int) -> None:
        """The guest has registered the handler `entry` (SDEI_EVENT_REGISTER)."""
        for placed in self._kernels:
            if placed.kernel.offset is None:
                self._take(placed, kaslr.offset_from_handler(entry, placed.kernel.table), certain=True)

    def learn_call(self, pc: int, function: int) -> None:
        """The guest has made a call from `pc`, as the firmware sees it (behind the SMC). Calls that are not PSCI's or
        SDEI's say nothing: Linux makes them from anywhere.
        """
        if function in _RETURNS or not (function in _SDEI or any(function in ids for ids in _PSCI)):
            return
        for placed in self._kernels:
            if placed.kernel.offset is None:
                self._take(placed, kaslr.offset_from_call(pc, placed.kernel.table), certain=False)

    def learn_kallsyms(self, text: str | bytes) -> None:
        """The guest's own /proc/kallsyms: also names its modules. Takes a second.

        Raises:
            UsageError: this is none, or it has zeroes for addresses.
        """
        data = text.encode() if isinstance(text, str) else text
        self._running = listings.symbols(data, "the guest's kallsyms")
        self._names.clear()
        for placed in self._kernels:
            if placed.kernel.offset is None:
                self._take(placed, kaslr.offset_from_kallsyms(self._running, placed.kernel.table), certain=True)

    def learn_modules(self, text: str) -> None:
        """The guest's /proc/modules."""
        self._bases |= listings.modules(text)
        self._placed_modules = None
        self._names.clear()

    def learn_build_id(self, build_id: str | None) -> None:
        """The build id of the guest's kernel, in hex digits (VMCOREINFO, /sys/kernel/notes, its Image)."""
        self._build_id = build_id.lower() if build_id else None
        self._names.clear()

    def learn_notes(self, data: bytes) -> None:
        """The guest's /sys/kernel/notes."""
        self.learn_build_id(notes.build_id(data))

    def forget(self, *, same_kernel: bool = False) -> None:
        """Another kernel runs now (kexec, a capture kernel), or with `same_kernel` the same one after a reset, at
        another place. What the user's files say stays: they were copied when what is asked for happened.
        """
        self._running = None
        self._bases = dict(self._sources.bases)
        self._placed_modules = None
        self._names.clear()
        self._told.clear()
        if not same_kernel:
            self._build_id = None
        for placed in self._kernels:
            placed.offset, placed.trampoline, placed.why = placed.kernel.offset, None, None

    # What addresses are.

    def name(self, pc: int) -> str:
        """`pc` as a person reads it: `function+0x1c/0x80 [module]`, or in hex digits where that is not known. Safe to
        print.
        """
        known = self.symbol(pc)
        if known is None:
            if kaslr.is_kernel_address(pc):
                self._explain()
            known = f"{pc:#x}"
        return known

    def symbol(self, pc: int) -> str | None:
        """The same; None where it is not known, which is not told of."""
        try:
            return self._names[pc]
        except KeyError:
            pass
        symbol = self.resolve(pc)
        if len(self._names) >= _MAX_CACHE:
            self._names.clear()
        known = self._names[pc] = None if symbol is None else str(symbol)
        return known

    def annotated(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A trace record with `pc_symbol` (and the like of its other code addresses), where they are known. What it
        says is learned first. Records come in order.
        """
        self.learn(record)
        found = dict(record)
        for field in _ADDRESSES:
            address = record.get(field)
            if isinstance(address, int) and (symbol := self.symbol(address)):
                found[f"{field}_symbol"] = symbol
        return found

    def resolve(self, pc: int) -> Symbol | None:
        """The function that `pc` lies in; None: it is not known."""
        for placed in self._kernels:
            if self._unusable(placed) is None and (symbol := _in_kernel(placed, pc)):
                return symbol
        if self._running is not None and (symbol := self._running.resolve(pc)):
            return symbol
        for table in self._modules():
            if symbol := table.resolve(pc):
                return symbol
        return None

    @property
    def problem(self) -> str | None:
        """Why addresses of the kernel stay numbers, in one sentence; None: they have names."""
        if self._running is not None:
            return None
        reasons = []
        for placed in self._kernels:
            reason = self._unusable(placed)
            if reason is None and placed.offset is not None:
                return None
            reasons.append(reason or _UNKNOWN)
        return reasons[0] if reasons else None

    @property
    def summary(self) -> str:
        """Which symbols are used, and where the kernel lies, in one sentence."""
        for placed in self._kernels:
            if placed.offset is not None and self._unusable(placed) is None:
                table = placed.kernel.table
                begin = table.address_of("_text")
                if begin is None:
                    begin = table.first & ~(kaslr.GRANULE - 1)
                return f"symbols of {placed.kernel.source}, the kernel at {begin + placed.offset:#x}"
        if self._running is not None:
            return "symbols of the guest's own kallsyms"
        return self.problem or "no symbols of a kernel"

    # Inside.

    def _take(self, placed: _Placed, found: Found, *, certain: bool) -> None:
        """What an address says. `certain`: if it fits nothing, what was known before is of another kernel."""
        before = placed.offset, placed.trampoline, placed.why
        if found.offset is not None:
            placed.offset, placed.why = found.offset, None
        elif found.trampoline is not None:
            placed.trampoline = found.trampoline
        elif found.why is not None and (certain or placed.offset is None):
            placed.offset = None
            if certain:
                placed.trampoline = None
            placed.why = f"{placed.kernel.source} is of another kernel than the guest's: {found.why}"
        if (placed.offset, placed.trampoline, placed.why) != before:
            self._placed_modules = None  # which of several kernels' they are may be known now
            self._names.clear()

    def _unusable(self, placed: _Placed) -> str | None:
        """Why a kernel's symbols are not used."""
        theirs, ours = placed.kernel.build_id, self._build_id
        if theirs and ours and theirs != ours and not self._force:
            return (
                f"{placed.kernel.source} is of another build than the guest's kernel (build id {theirs[:12]}, the "
                f"guest's is {ours[:12]}), so addresses stay numbers; --symbols-force uses it all the same"
            )
        return placed.why

    def _explain(self) -> None:
        reason = self.problem
        if reason is not None:
            self._tell_once(reason)
        self._say_unplaced()

    def _modules(self) -> list[SymbolTable]:
        """Symbols of the modules whose place is known."""
        if self._placed_modules is None:
            self._placed_modules = []
            known = (k.kernel.release for k in self._kernels if k.offset is not None and self._unusable(k) is None)
            release = next(known, None)
            for name in {**self._bases, **self._sources.sections}:
                try:
                    module = self._sources.module(name, release)
                except UsageError as error:
                    self._tell_once(str(error))
                    continue
                if module is None:
                    if name in self._sources.modules:
                        self._tell_once(f"no file of module {printable(name)} is of the guest's kernel {release}")
                else:
                    places = self._sources.sections.get(name) or module.at(self._bases[name])
                    self._placed_modules.append(module.placed(places))
        return self._placed_modules

    def _say_unplaced(self) -> None:
        """Tell of modules that the user named, and that nobody says the place of."""
        for name, (file, *_) in self._sources.modules.items():
            if isinstance(file, ModuleFile) and name not in {**self._bases, **self._sources.sections}:
                self._tell_once(
                    f"where the module of {file.source} lies is not known: give a copy of the guest's /proc/modules, "
                    f"or {file.source}@0xADDRESS"
                )

    def _tell_once(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            self._tell(sentence)


def _in_kernel(placed: _Placed, pc: int) -> Symbol | None:
    table = placed.kernel.table
    if placed.offset is not None:
        symbol = table.resolve(pc - placed.offset)
        # Modules of a kallsyms lie elsewhere in each boot.
        if symbol is not None and (symbol.module is None or placed.offset == 0):
            return symbol
    if placed.trampoline is not None:
        begin, end = table.address_of(kaslr.TRAMPOLINE_BEGIN), table.address_of(kaslr.TRAMPOLINE_END)
        if begin is not None:
            size = min(end - begin, _MAX_TRAMPOLINE) if end is not None and end > begin else _MAX_TRAMPOLINE
            if placed.trampoline <= pc < placed.trampoline + size:
                return table.resolve(pc - placed.trampoline + begin)
    return None
