"""The state document: all that a backend knows of its guest, as data that travels to another backend.

What QEMU itself migrates is not in it: vCPU registers, the GIC, RAM with the monitor's own memory. What is in
it and in guest RAM too is the frame window, because QEMU's dirty tracking does not see what another process writes.
Its form is in docs/reference/state-document.md, and beside it as a JSON Schema.

It is taken and restored while the vCPUs stand still. One from outside is hostile until all of it has been checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from qemu_sdei import __version__
from qemu_sdei.backend.control import document_rules
from qemu_sdei.backend.firmware import cpu_starts
from qemu_sdei.backend.firmware.call_counts import taken_up
from qemu_sdei.backend.loop import pending_injections
from qemu_sdei.config import GuestConfig
from qemu_sdei.errors import BusyError, ProtocolError
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.layout import FRAME_WORDS, Kind, Word
from qemu_sdei.services.psci import Power

if TYPE_CHECKING:
    from qemu_sdei.backend.loop.server import Server

Document = dict[str, Any]
FORMAT: Final = "qemu-sdei-state"
VERSION: Final = 2
"""1: without `waiting`."""
MAX_DOCUMENT: Final = 8 << 20
"""Bytes. 512 CPUs with all registers and every event of a full description need 4 MiB."""
_MAX_COUNT: Final = (1 << 63) - 1
_MAX_SEQ: Final = 1 << 47
_WORD: Final = (1 << 64) - 1

_TOP: Final = frozenset(
    ("format", "version", "written_by", "machine", "services", "counters", "cpus", "firmware", "waiting")
)
_MACHINE: Final = frozenset(("cpu", "nr_cpus", "ram_base", "ram_size", "window", "window_version", "virtualization"))
_COUNTERS: Final = frozenset(("delivered", "calls"))
_CPU: Final = frozenset(("seq", "answered", "kick", "frame"))
_PSCI: Final = frozenset(("power", "entry"))
_FIRMWARE: Final = frozenset(
    ("version", "nr_cpus", "client_el", "epoch", "id_registers", "psci", "sdei", "gic", "services")
)


def machine_of(config: GuestConfig) -> Document:
    """What of a machine must be the same on both sides."""
    return {
        "cpu": config.cpu,
        "nr_cpus": config.nr_cpus,
        "ram_base": config.ram_base,
        "ram_size": config.ram_size,
        "window": layout.window_base(config.ram_base, config.ram_size),
        "window_version": layout.VERSION,
        "virtualization": config.virtualization,
    }


def take(server: Server) -> Document:
    """The state of a guest whose vCPUs stand still.

    Raises:
        BusyError: let the guest run on for a moment.
    """
    firmware, window = server.firmware, server.window
    if firmware.busy:
        raise BusyError("a service of the guest is amid its micro-operations: its progress cannot be written down")
    for pe in range(window.nr_cpus):
        document_rules.put_right(server, pe)
    return {
        "format": FORMAT,
        "version": VERSION,
        "written_by": f"qemu-sdei {__version__}",
        "machine": dict(server.machine),
        "services": _services(server),
        "counters": {
            "delivered": firmware.delivered,
            "calls": {str(function): list(counts) for function, counts in server.calls.items()},
            "silent": server.starts.snapshot(),
        },
        "cpus": [
            {
                "seq": window.seq[pe],
                "answered": server.answered(pe),
                "kick": window.kick[pe],
                "frame": window.frames[pe].tolist(),
            }
            for pe in range(window.nr_cpus)
        ],
        "firmware": firmware.snapshot(),
        "waiting": server.waiting.snapshot(),
    }


def prepare(server: Server, document: object) -> Document:
    """Check the whole document, and have the firmware be as it says. Guest RAM is not touched.

    Raises:
        ProtocolError: it is damaged, newer, or of another machine; `server` is spoiled.
    """
    top = check(server, document)
    firmware = server.firmware
    server.machine["window_version"] = firmware.monitor = top["machine"]["window_version"]
    try:
        firmware.restore(top["firmware"])
    except (ProtocolError, RecursionError) as error:
        raise ProtocolError(f"state document: {error}") from None
    document_rules.check(server, top)
    counters = top["counters"]
    firmware.delivered = counters["delivered"]
    stored = ((int(function), counts) for function, counts in counters["calls"].items())
    taken_up(server.calls, stored, server.window.nr_cpus)
    server.starts.restore(counters.get("silent", []))
    return top


def restore(server: Server, document: object) -> None:
    """Take a guest over: `prepare`, then fill the window and go on where the other backend stood.

    Raises:
        ProtocolError: as `prepare`. Guest RAM is as it was.
    """
    top = prepare(server, document)
    window = server.window
    window.announce()
    for pe, cpu in enumerate(top["cpus"]):
        window.seq[pe] = cpu["seq"]
        window.kick[pe] = cpu["kick"]
        frame = window.frames[pe]
        for index, word in enumerate(cpu["frame"]):
            frame[index] = word
    first, on = window.frames[0], top["firmware"]["sdei"]["pes"][0]["on"]
    if server.firmware.booting and not on and first[Word.KIND] in (Kind.RESET, Kind.OPS) and not first[Word.VECTOR]:
        # It boots, the backend before us has seen that; a snapshot may have been made with another monitor's proof.
        first[Word.PROOF] = server.firmware.proof
    server.waiting.restore(top["waiting"], window.nr_cpus)
    server.waiting.disappoint(*document_rules.outstanding(server))
    server.take_over([cpu["answered"] for cpu in top["cpus"]])


def check(server: Server, document: object) -> Document:
    """Check all but `firmware`, whose parts check themselves when they are restored; return the document.

    Raises:
        ProtocolError: as `restore`.
    """
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ProtocolError("state document: this is none (its `format` is another)")
    version = document.get("version")
    if type(version) is not int or version < 1:
        raise ProtocolError("state document: it has no version")
    if version > VERSION:
        # The number may have more digits than Python converts.
        raise ProtocolError(f"state document: written by a newer program; this one knows up to version {VERSION}")
    if version == 1:
        document = {**document, "waiting": []}
    top = _object(document, _TOP)
    if not isinstance(top["written_by"], str):
        raise ProtocolError("state document: written_by: must be a text")
    machine = _object(top["machine"], _MACHINE, "machine")
    for name, value in server.machine.items():
        if name == "window_version" and type(machine[name]) is int and 1 <= machine[name] < layout.VERSION:
            continue  # the guest brings its monitor with it
        if machine[name] != value or type(machine[name]) is not type(value):
            raise ProtocolError(
                f"state document: of another machine: {name} is {_brief(machine[name])} there and {_brief(value)} here"
            )
    services = _services(server)
    if top["services"] != services:
        raise ProtocolError(
            f"state document: of a guest with other services: {_brief(top['services'])} there and {services} here"
        )
    _check_counters(top["counters"], server.window.nr_cpus)
    cpus = top["cpus"]
    if not isinstance(cpus, list) or len(cpus) != server.window.nr_cpus:
        raise ProtocolError(f"state document: cpus: must be a list of {server.window.nr_cpus}")
    for pe, cpu in enumerate(cpus):
        _check_cpu(cpu, f"CPU {pe}")
    _check_firmware(top["firmware"], server)
    pending_injections.check(top["waiting"], server.window.nr_cpus)
    return top


def _services(server: Server) -> list[str]:
    return [service.title for service in server.firmware.registry]


def _check_counters(value: object, nr_cpus: int) -> None:
    if not isinstance(value, dict):
        raise ProtocolError("state document: counters: must be an object")
    cpu_starts.check(value.get("silent", []), nr_cpus)
    counters = _object({key: item for key, item in value.items() if key != "silent"}, _COUNTERS, "counters")
    _number(counters["delivered"], _MAX_COUNT, "counters: delivered")
    calls = counters["calls"]
    if not isinstance(calls, dict):
        raise ProtocolError("state document: counters: calls: must be an object")
    for name, counts in calls.items():
        digits = name.removeprefix("-")
        if not (digits.isascii() and digits.isdecimal() and len(digits) < 20):
            raise ProtocolError("state document: counters: calls: a function id is a number")
        if not isinstance(counts, list) or len(counts) != nr_cpus:
            raise ProtocolError("state document: counters: calls: must be a number for each CPU")
        for count in counts:
            _number(count, _MAX_COUNT, "counters: calls")


def _check_cpu(value: object, where: str) -> None:
    cpu = _object(value, _CPU, where)
    for name in ("seq", "kick"):
        _number(cpu[name], _WORD, f"{where}: {name}")
    _number(cpu["answered"], _MAX_SEQ, f"{where}: answered")
    frame = cpu["frame"]
    if not isinstance(frame, list) or len(frame) != FRAME_WORDS:
        raise ProtocolError(f"state document: {where}: a frame has {FRAME_WORDS} words")
    for word in frame:
        _number(word, _WORD, f"{where}: frame")


def _check_firmware(firmware: object, server: Server) -> None:
    """What `Firmware.restore` and `Psci.restore` take as it is. Older programs wrote less of it than this one."""
    nr_cpus = server.window.nr_cpus
    known = server.firmware.snapshot().keys()
    if not isinstance(firmware, dict) or not firmware.keys() >= _FIRMWARE:
        raise ProtocolError(f"state document: firmware: must be an object with {', '.join(sorted(_FIRMWARE))}")
    if not firmware.keys() <= known:
        raise ProtocolError(
            f"state document: firmware: {', '.join(sorted(firmware.keys() - known))}: nothing is known of it"
        )
    if not isinstance(firmware["services"], dict):
        raise ProtocolError("state document: firmware: services: must be an object")
    _number(firmware["epoch"], _MAX_COUNT, "epoch")
    _number(firmware.get("kernels", 0), _MAX_COUNT, "kernels")
    registers = firmware["id_registers"]
    if not isinstance(registers, dict) or registers.keys() not in (set(), set(layout.RESET_REGISTERS)):
        raise ProtocolError("state document: id_registers: must be those of a RESET frame, or none")
    for name, value in registers.items():
        _number(value, _WORD, f"id_registers: {name}")
    psci = _object(firmware["psci"], _PSCI, "psci")
    for name in _PSCI:
        if not isinstance(psci[name], list) or len(psci[name]) != nr_cpus:
            raise ProtocolError(f"state document: psci: {name} must be a list of {nr_cpus}")
    for power, entry in zip(psci["power"], psci["entry"], strict=True):
        _number(power, max(Power), "psci: power")
        if entry is not None:
            if not isinstance(entry, list) or len(entry) != 2:
                raise ProtocolError("state document: psci: entry: must be two words, or null")
            for word in entry:
                _number(word, _WORD, "psci: entry")


def _object(value: object, keys: frozenset[str], where: str = "") -> Document:
    where = f"state document: {where}: " if where else "state document: "
    if not isinstance(value, dict):
        raise ProtocolError(f"{where}must be an object")
    if missing := keys - value.keys():
        raise ProtocolError(f"{where}{', '.join(sorted(missing))}: missing")
    if unknown := value.keys() - keys:
        raise ProtocolError(f"{where}{_brief(', '.join(sorted(unknown)))}: nothing is known of it")
    return value


def _number(value: object, high: int, where: str) -> None:
    if type(value) is not int or not 0 <= value <= high:
        raise ProtocolError(f"state document: {where}: must be a number from 0 to {high:#x}")


def _brief(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # a number with more digits than Python prints
        return "a very long number"
    return text if len(text) <= 60 else text[:57] + "..."
