"""Pages about where a guest is and how it moves, from the tables that the code acts by."""

from __future__ import annotations

from qemu_sdei.migration import failure_points
from qemu_sdei.migration.failure_points import FailurePoint
from qemu_sdei.vm import place
from scripts.docgenlib.page import note


def places() -> str:
    """Where a guest can be: the tables of `qemu_sdei/vm/place.py`."""
    out = [
        note("qemu_sdei/vm/place.py"),
        "",
        "# Where a guest is",
        "",
        "What its supervisor process knows of one QEMU with its backend, and what the run directory says to whoever",
        "finds the guest when that process is gone. A migration on one host has two of them: the source goes from",
        "*here* to *moved* as the destination goes from *arriving* to *here*.",
        "",
        "## States",
        "",
        "| state | `run.json` | `handover` | the end of QEMU is the guest's | a backend that dies | what is typed "
        "| who may act |",
        "|---|---|---|---|---|---|---|",
    ]
    described = {True: "there", False: "not there", None: "either"}
    for state, facts in place.FACTS.items():
        typed = "is kept" if facts.input_held else "goes to QEMU"
        ends = "yes" if facts.is_guest else "no"
        cells = (described[facts.described], facts.handover or "not there", ends, facts.death.value, typed, facts.acts)
        out.append(f"| *{state.value}* | {' | '.join(cells)} |")
    out += [
        "",
        "Whoever finds a guest without supervisor process reads this. No `run.json`: the guest is not here, and its",
        "QEMU is ended. No `handover`: it runs. An empty one: it may be paused, and runs on. One that names a host: it",
        "may run there, so it stays paused until its user says `qemu-sdei migrate NAME --resume`.",
        "",
        "## What happens",
        "",
        "| state | what happens | next | in the run directory |",
        "|---|---|---|---|",
    ]
    for row in place.ROWS:
        before = "(nothing is there)" if row.state is None else f"*{row.state.value}*"
        out.append(f"| {before} | {row.event.value} | *{row.next.value}* | {row.disk.value} |")
    return "\n".join(out) + "\n"


def migration() -> str:
    """What a migration that fails leaves, from the table that the sequence acts by."""
    out = [
        "# What a migration that fails leaves",
        "",
        note("qemu_sdei/migration/failure_points.py"),
        "",
        "The steps of a migration, in their order, and what becomes of the guest when one of them fails. The code "
        "([migration/](../../qemu_sdei/migration/README.md)) acts by this table; how to migrate: "
        "[migrate.md](../howto/migrate.md).",
        "",
        "Before the guest is resumed at the source, the destination is ended. If the source's QEMU cannot be reached "
        "then, the guest is paused until it can be. A cancellation (Ctrl-C, the end of the guest) counts as a failure "
        "of the step that it comes in; steps that cannot be cancelled are brought to their end.",
        "",
        "| step | what is done | routes on this host | to another host | after a failure the guest |",
        "|---|---|---|---|---|",
    ]
    for stage, point in failure_points.POINTS.items():
        late = ". Cannot be cancelled" if point.late else ""
        local, remote = _routes(point.local, failure_points.LOCAL), _routes(point.remote, failure_points.REMOTE)
        out.append(f"| `{stage.value}` | {point.what}{late} | {local} | {remote} | {_left(point)} |")
    return "\n".join(out) + "\n"


def _routes(those: tuple[str, ...], every: tuple[str, ...]) -> str:
    """Routes that have a step."""
    if those == every:
        return "all"
    return ", ".join(f"`{route}`" for route in those) or "none"


def _left(point: FailurePoint) -> str:
    """What a failure leaves, in words."""
    words = [point.leaves.value]
    if point.postcopy is not None:
        words.append(f"with `postcopy`: {point.postcopy.value}")
    if point.unknown is not None:
        words.append(f"if the other host does not say whether it runs there: {point.unknown.value}")
    return "; ".join(words)
