"""`status` for people: tables of vCPUs, events, triggers, calls and registers. What an older backend does not say is
left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from qemu_sdei.cli.output import print_table, say
from qemu_sdei.config import shown_ram
from qemu_sdei.durations import ago, duration
from qemu_sdei.explain.purpose import purpose_of
from qemu_sdei.vm.cpu_registers import LEVEL, flags, level

_MAX_COLUMNS: Final = 8
"""vCPUs up to which call counts are shown one by one."""
_COUNTS: Final = ("accepted", "merged", "dropped", "delivered")

Status = dict[str, Any]


def where(vcpu: Status) -> str:
    """Where a vCPU was last, as a symbol if there is one; "" if that is not known."""
    pc = vcpu.get("pc")
    return "" if pc is None else str(vcpu.get("pc_symbol") or f"{pc:#x}")


def show(status: Status, *, everything: bool = False) -> None:
    """Print all of it. `everything`: events that are registered nowhere too."""
    for line in head(status):
        say(line)
    say("")
    rates = status.get("rates")
    _show_vcpus(status, rates)
    _show_last(status)
    _show_events(status, everything)
    _show_sources(status.get("sources", []))
    triggers = list(_trigger_rows(status["events"]))
    if triggers:
        print_table("Triggers", ["event", "vCPU", *_COUNTS, "pending"], triggers)
    _show_calls(status["pes"])
    if "registers" in status:
        show_registers(status["registers"])


def head(status: Status) -> Iterator[str]:
    """The guest in few lines: how long it runs, its processes, what was counted."""
    host = status.get("host") or {}
    up, runs = host.get("qemu_up_ns"), host.get("vcpus")
    words = [f"boot {status['epoch']}"]
    kernels = status.get("kernels", 0)
    if kernels > 1:
        words.append(f"kernel {kernels} since")
    if status.get("reset_ns") is not None:
        words[0] += f" began {ago(status['now_ns'] - status['reset_ns'])}"
    state = "" if runs is None else f"{runs}, "
    yield f"guest {status['name']!r}: {state}{'' if up is None else f'up {duration(up)}, '}{', '.join(words)}"
    machine = [f"{len(status['pes'])} vCPU{'s' if len(status['pes']) > 1 else ''}"]
    if host.get("cpu"):
        machine[0] += f" {host['cpu']}"
    if host.get("memory"):
        machine.append(shown_ram(host["memory"]))
    if host.get("kernel"):
        machine.append(host["kernel"].rpartition("/")[2])
    if host:
        yield f"{', '.join(machine)}"
        supervisor = host.get("supervisor_pid")
        parts = ["no supervisor" if supervisor is None else f"supervisor {supervisor}"]
        if host.get("qemu_pid") is not None:
            parts.append(f"QEMU {host['qemu_pid']}")
        parts.append(f"backend {host['backend_pid']}")
        if "started_ns" in status:
            parts[-1] += f" ({duration(status['now_ns'] - status['started_ns'])} old)"
        yield f"processes: {', '.join(parts)}"
        if host.get("stopped"):
            yield f"not all of them run: {host['stopped']}"
    if misbehaves := purpose_of(status):
        yield f"this firmware misbehaves on purpose: {misbehaves}"
    counts = status.get("counts", {})
    yield f"calls: {counts.get('calls', 0)}; frames that were rejected: {counts.get('rejected', 0)}"
    yield "triggers: " + ", ".join(f"{counts.get(name, 0)} {name}" for name in (*_COUNTS, "completed"))


def since(status: Status, when: object) -> str:
    """How long ago that was; "" if it is not known."""
    return "" if not isinstance(when, int) else duration(status["now_ns"] - when)


def instance_of(event: Status, vcpu: int) -> Status | None:
    """The instance of an event that concerns a vCPU: its own, or the shared one."""
    return next((one for one in event["instances"] if one["pe"] in (vcpu, None)), None)


def handlers(status: Status, pe: Status) -> str:
    """The handlers that run on a vCPU, outermost first, and for how long."""
    return " < ".join(_handler(status, pe["pe"], number) for number in pe["running"])


def _handler(status: Status, vcpu: int, number: int) -> str:
    event = next((event for event in status["events"] if event["event"] == number), None)
    if event is None:
        return f"{number:#x}"
    name = f"{number:#x} ({event['name']})"
    instance = instance_of(event, vcpu)
    how_long = "" if instance is None else since(status, instance.get("since_ns"))
    return f"{name} for {how_long}" if how_long else name


def _show_vcpus(status: Status, rates: Status | None) -> None:
    pes = status["pes"]
    columns = ["vCPU", "affinity", "power", "since", "SDEI", "calls"]
    if rates is not None:  # a terminal has 80 columns
        columns = ["vCPU", "power", "since", "SDEI", "calls", "calls/s", "events/s"]
    print_table(
        "vCPUs", columns, ([_vcpu_cell(status, rates, n, column) for column in columns] for n in range(len(pes)))
    )
    lines = []
    for pe in pes:
        if running := handlers(status, pe):
            lines.append(f"vCPU {pe['pe']} runs the handler of {running}")
        entry = pe.get("not_heard_of_since")
        if entry is not None:
            lines.append(f"vCPU {pe['pe']} was started at {entry:#x} and has made no call since")
    if rates is not None and rates["shared_delivered"]:
        lines.append(f"shared events: {per_second(rates['shared_delivered'])} delivered a second")
    if lines:
        say(*lines, "")


def _vcpu_cell(status: Status, rates: Status | None, number: int, column: str) -> object:
    pe = status["pes"][number]
    match column:
        case "vCPU":
            return pe["pe"]
        case "affinity":
            return f"{pe['affinity']:#x}"
        case "since":
            return since(status, pe.get("power_since_ns"))
        case "SDEI":
            return "masked" if pe["masked"] else "unmasked"
        case "calls":
            return sum(pe["calls"].values())
        case "calls/s" | "events/s":
            name = "calls" if column == "calls/s" else "delivered"
            return "" if rates is None else per_second(rates[name][number])
    return pe[column]


def per_second(rate: float) -> str:
    """A rate in few figures."""
    return "0" if not rate else f"{rate:.1f}" if rate < 10 else f"{rate:.0f}"


def _show_last(status: Status) -> None:
    """Where vCPUs were last seen: an address is the guest's, a name comes from symbols."""
    rows = [
        [pe["pe"], pe["last_call"] or "(a kick, an interrupt or a start since)", level(pe["pstate"]), where(pe)]
        for pe in status["pes"]
        if pe.get("pc") is not None
    ]
    if rows:
        print_table("Last at EL3", ["vCPU", "last call", "went on in", "at"], rows)


def _show_events(status: Status, everything: bool) -> None:
    rows = list(_event_rows(status, everything))
    if rows:
        print_table("Events", ["event", "name", "type", "priority", "vCPU", "state", "since"], rows)
    waits = [
        instance["waits"] for event in status["events"] for instance in event["instances"] if instance.get("waits")
    ]
    for reason in waits:
        say(f"pending: {reason}")
    if waits:
        say("")
    hidden = len(status["events"]) - len({row[0] for row in rows})
    if hidden:
        say(f"{hidden} events are registered nowhere (-v shows them)", "")


def _show_sources(sources: list[Status]) -> None:
    """The error sources of the HEST, and why an error could not be reported."""
    if not sources:
        return
    rows = [
        [source["id"], source["name"], source["type"], told_by(source), source["block"], source["state"]]
        for source in sources
    ]
    print_table("Error sources", ["id", "name", "type", "told by", "block", "state"], rows)
    reasons = [f"source {source['name']!r}: {source['reason']}" for source in sources if source.get("reason")]
    if reasons:
        say(*reasons, "")


def told_by(source: Status) -> str:
    """How the guest hears of a source's errors, in few words."""
    if source.get("event") is not None:
        return f"event {source['event']:#x}"
    if source.get("interrupt") is not None:
        return f"{source['notify']} {source['interrupt']}"
    return str(source["notify"]) if source.get("poll_ms") is None else f"polled, {source['poll_ms']} ms"


def _event_rows(status: Status, everything: bool) -> Iterator[list[object]]:
    for event in status["events"]:
        for instance in event["instances"]:
            if not everything and not any(instance[name] for name in ("registered", "running", "pending")):
                continue
            yield [
                f"{event['event']:#x}",
                event["name"],
                event["type"],
                event["priority"],
                _where(instance),
                state(instance) + (", pending" if instance["pending"] else ""),
                since(status, instance.get("since_ns")),
            ]


def state(instance: Status) -> str:
    """The name of an instance's state."""
    if "state" in instance:
        return str(instance["state"])
    names = [name for name in ("registered", "enabled", "running") if instance[name]]
    return names[-1] if names else "unregistered"


def _where(instance: Status) -> str:
    if instance["pe"] is not None:
        return str(instance["pe"])
    if instance.get("running_on") is not None:
        return f"{instance['running_on']} (shared)"
    return "any" if instance.get("routed_to") is None else f"{instance['routed_to']} only"


def _trigger_rows(events: Iterable[Status]) -> Iterator[list[object]]:
    """Of each event that had any: accepted is the sum of what follows."""
    for event in events:
        for instance in event["instances"]:
            counts = instance.get("triggers", {})
            if counts.get("accepted"):
                where = "any" if instance["pe"] is None else instance["pe"]
                yield [f"{event['event']:#x}", where, *(counts[name] for name in _COUNTS), int(instance["pending"])]


def _show_calls(pes: list[Status]) -> None:
    names = sorted({name for pe in pes for name in pe["calls"]})
    split = len(pes) <= _MAX_COLUMNS
    print_table(
        "Calls",
        ["function", "total", *(f"vCPU {pe['pe']}" for pe in pes if split)],
        (
            [
                name,
                sum(pe["calls"].get(name, 0) for pe in pes),
                *(pe["calls"].get(name, 0) for pe in pes if split),
            ]
            for name in names
        ),
    )


def show_registers(registers: Status) -> None:
    """Registers of a vCPU, three a line."""
    values = registers["values"]
    numbers = [(name, value) for name, value in values.items() if isinstance(value, int)]
    cells = [(name.lower(), f"{value:016x}") for name, value in numbers if name != "PSTATE"]
    note = f"{flags(values['PSTATE'])}" if "PSTATE" in values else str(values.get(LEVEL, ""))
    if "pc_symbol" in registers:
        note += f", at {registers['pc_symbol']}"
    rows = [[word for cell in cells[n : n + 3] for word in cell] for n in range(0, len(cells), 3)]
    rows[-1] += [""] * (6 - len(rows[-1]))
    print_table(f"Registers of vCPU {registers['vcpu']} now", ["", "", "", "", "", ""], rows, note=note)
