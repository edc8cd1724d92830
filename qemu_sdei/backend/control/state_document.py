"""The state document: all that a backend knows of its guest, as data that travels to another backend.

What QEMU itself migrates is not in it: vCPU registers, the GIC, RAM with the monitor's own memory. What is in
it and in guest RAM too is the frame window, because QEMU's dirty tracking does not see what another process writes.
Its form is in `document_schema.py`, and explained in docs/reference/state-document.md.

It is taken and restored while the vCPUs are paused. One from outside is hostile until all of it has been checked.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei import __version__
from qemu_sdei.backend.control import document_rules
from qemu_sdei.backend.control.document_schema import FORMAT as FORMAT
from qemu_sdei.backend.control.document_schema import SCHEMA
from qemu_sdei.backend.control.document_schema import UPGRADES as UPGRADES
from qemu_sdei.backend.control.document_schema import VERSION as VERSION
from qemu_sdei.backend.firmware import cpu_starts
from qemu_sdei.backend.firmware.call_counts import taken_up
from qemu_sdei.backend.loop import pending_injections
from qemu_sdei.config import GuestConfig
from qemu_sdei.errors import BusyError, ProtocolError
from qemu_sdei.json_schema import Check, MisfitError, compiled
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.layout import Kind, Word
from qemu_sdei.services.built_in import SERVICES

if TYPE_CHECKING:  # the command line checks documents as well, and starts faster without the whole backend
    from qemu_sdei.backend.loop.server import Server

Document = dict[str, Any]
MAX_DOCUMENT: Final = 8 << 20
"""Bytes. 512 CPUs with all registers and every event of a full description need 4 MiB."""


def machine_of(config: GuestConfig) -> Document:
    """What of a machine must be the same on both sides."""
    return {
        "cpu": config.cpu,
        "nr_cpus": config.nr_cpus,
        "ram_base": config.ram_base,
        "ram_size": config.ram_size,
        "window": layout.window_base(config.ram_base, config.ram_size),
        "window_version": layout.VERSION,
        "virtualization": config.virtualization or config.hypervisor,
    }


def take(server: Server) -> Document:
    """The state of a guest whose vCPUs are paused.

    Raises:
        BusyError: let the guest run on for a moment.
    """
    firmware, window = server.firmware, server.window
    if firmware.exchange.busy:
        raise BusyError("a service of the guest has micro-operations in flight: its state cannot be written down now")
    server.guest.ready.collect()
    for pe in range(window.nr_cpus):
        document_rules.put_right(server.guest, pe)
    return {
        "format": FORMAT,
        "version": VERSION,
        "written_by": f"qemu-sdei {__version__}",
        "machine": dict(server.guest.machine),
        "services": _services(server),
        "counters": {
            "delivered": firmware.exchange.delivered,
            "calls": {str(function): list(counts) for function, counts in server.guest.calls.items()},
            "silent": server.guest.starts.snapshot(),
        },
        "cpus": [
            {
                "seq": window.seq[pe],
                "answered": server.guest.answered[pe],
                "kick": window.kick[pe],
                "frame": window.frames[pe].tolist(),
            }
            for pe in range(window.nr_cpus)
        ],
        "firmware": firmware.snapshot(),
        "waiting": server.injections.snapshot(),
        **({"bad_pages": pages} if (pages := server.host_errors.snapshot()) else {}),
    }


def prepare(server: Server, document: object) -> Document:
    """Check the whole document, and have the firmware be as it says. Guest RAM is not touched.

    Raises:
        ProtocolError: it is damaged, newer, or of another machine; `server` is spoiled.
    """
    top = check(server, document)
    firmware = server.firmware
    server.guest.machine["window_version"] = firmware.machine.monitor = top["machine"]["window_version"]
    try:
        firmware.restore(top["firmware"])
    except (ProtocolError, RecursionError) as error:
        raise ProtocolError(f"state document: {error}") from None
    document_rules.check(server.guest, top)
    server.host_errors.check(top.get("bad_pages", []))
    counters = top["counters"]
    firmware.exchange.delivered = counters["delivered"]
    stored = ((int(function), counts) for function, counts in counters["calls"].items())
    taken_up(server.guest.calls, stored, server.window.nr_cpus)
    server.guest.starts.restore(counters.get("silent", []))
    return top


def restore(server: Server, document: object) -> None:
    """Take a guest over: `prepare`, then fill the window and go on where the other backend stood.

    Raises:
        ProtocolError: as `prepare`. Guest RAM is as it was.
    """
    top = prepare(server, document)
    window = server.window
    window.announce(server.firmware.machine.monitor)
    for pe, cpu in enumerate(top["cpus"]):
        window.seq[pe] = cpu["seq"]
        window.kick[pe] = cpu["kick"]
        frame = window.frames[pe]
        for index, word in enumerate(cpu["frame"]):
            frame[index] = word
    first, on = window.frames[0], top["firmware"]["sdei"]["pes"][0]["on"]
    boot = server.firmware.boot
    if boot.booting and not on and first[Word.KIND] in (Kind.RESET, Kind.OPS) and not first[Word.VECTOR]:
        # It boots, the backend before us has seen that; a snapshot may have been made with another monitor's proof.
        first[Word.PROOF] = boot.proof
    server.injections.restore(top["waiting"], window.nr_cpus)
    server.host_errors.restore(top.get("bad_pages", []))
    server.injections.disappoint(*document_rules.outstanding(server.guest))
    server.take_over([cpu["answered"] for cpu in top["cpus"]])


def check(server: Server, document: object) -> Document:
    """Check the form of a document, and whether it is of this machine; return it as this version writes it. What the
    parts of `firmware` mean they check themselves when they are restored.

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
    document = _current(document, version)
    _check_machine(server, document.get("machine"))
    top = _check_form(document)
    services = _services(server)
    lacking = [service for service in services if service not in top["services"]]
    # What can be withheld from a guest is withheld from one whose program did not have it.
    if top["services"] != [s for s in services if s not in lacking] or not _since().issuperset(lacking):
        raise ProtocolError(
            f"state document: of a guest with other services: {_brief(top['services'])} there and {services} here"
        )
    _check_sizes(top, server.window.nr_cpus)
    cpu_starts.check(top["counters"].get("silent", []), server.window.nr_cpus)
    pending_injections.check(top["waiting"], server.window.nr_cpus)
    return top


def _current(document: Document, version: int) -> Document:
    """A document as one of this version, step by step. Raises `ProtocolError`: it is too old."""
    while version < VERSION:
        if version not in UPGRADES:
            raise ProtocolError(
                f"state document: of version {version}, which only earlier versions of this program read"
            )
        document = UPGRADES[version](document) | {"version": version + 1}
        version += 1
    return document


def _since() -> set[str]:
    """Services that came after guests which can still be here: those do not find them (see `Selection.before`)."""
    return {kind.name for kind in SERVICES if kind.since_state_2}


def _services(server: Server) -> list[str]:
    return [service.title for service in server.firmware.registry]


def _check_machine(server: Server, machine: object) -> None:
    """Of another machine not even the form need be known. What is no machine at all is left to the form."""
    if not isinstance(machine, dict) or not machine.keys() >= server.guest.machine.keys():
        return
    for name, value in server.guest.machine.items():
        there = machine[name]
        if name == "window_version" and type(there) is int and layout.OLDEST <= there <= layout.VERSION:
            continue  # the guest brings its monitor with it
        if there != value or type(there) is not type(value):
            raise ProtocolError(
                f"state document: of another machine: {name} is {_brief(there)} there and {_brief(value)} here"
            )


def _check_form(document: Document) -> Document:
    try:
        form()(document)
    except MisfitError as error:
        raise ProtocolError(f"state document: {error}") from None
    return document


@cache
def form() -> Check:
    """What checks the form of a document. Making it takes 1 ms: a backend that waits for a guest has it done before."""
    return compiled(SCHEMA)


def _check_sizes(document: Document, nr_cpus: int) -> None:
    """Whether what there is of each CPU is there as often as there are CPUs."""
    psci = document["firmware"]["psci"]
    lists = {"cpus": document["cpus"], "psci: power": psci["power"], "psci: entry": psci["entry"]}
    for name, entries in lists.items():
        if len(entries) != nr_cpus:
            raise ProtocolError(f"state document: {name}: must be a list of {nr_cpus}")
    if any(len(counts) != nr_cpus for counts in document["counters"]["calls"].values()):
        raise ProtocolError("state document: counters: calls: must be a number for each CPU")


def _brief(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # a number with more digits than Python prints
        return "a very long number"
    return text if len(text) <= 60 else text[:57] + "..."
