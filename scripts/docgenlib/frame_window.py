"""The frame window's reference, from the one description of its layout."""

from __future__ import annotations

import ast
from collections.abc import Callable
from enum import IntEnum, IntFlag
from pathlib import Path

from qemu_sdei.monitor import layout
from scripts.docgenlib.page import note


def window() -> str:
    """The frame window's reference, from the one description of the layout."""
    out = [
        "# The frame window",
        "",
        note("qemu_sdei/monitor/layout.py"),
        "",
        f"The top {layout.WINDOW_SIZE >> 20} MiB of guest RAM, aligned to {layout.WINDOW_ALIGN >> 20} MiB, which the "
        "guest is not told of. All words are little-endian u64. How the two sides use it is told in "
        "[concepts.md](../concepts.md#the-exchange).",
        "",
        "| offset | size | what | written by |",
        "|---|---|---|---|",
    ]
    cpus, frames = layout.MAX_CPUS, layout.MAX_CPUS * layout.FRAME_SIZE
    for offset, size, what, writer in (
        (0, len(layout.Header) * 8, "header", "host"),
        (layout.SEQ_OFFSET, cpus * 8, "SEQ, one word a CPU: number of the newest frame that the CPU posted", "monitor"),
        (layout.KICK_OFFSET, cpus * 8, "KICK, one word a CPU: counts its kicks", "host"),
        (layout.KEPT_OFFSET, layout.KEPT_SIZE, "state document, while a snapshot is saved or loaded", "host"),
        (
            layout.FRAME_OFFSET,
            frames,
            f"frames, {layout.FRAME_SIZE:#x} bytes a CPU ({cpus} CPUs)",
            "both, word by word",
        ),
        (
            layout.MONITOR_OFFSET,
            layout.MAX_CPUS * layout.MONITOR_SIZE,
            f"the monitor's own memory, {layout.MONITOR_SIZE:#x} bytes a CPU",
            "monitor",
        ),
        (layout.EL2_OFFSET, layout.EL2_SIZE, "what is at EL2 below a guest of `--hypervisor`; else 0", "host"),
        (layout.SCRATCH_OFFSET, layout.SCRATCH_SIZE, "scratch: buffers for micro-operations", "both"),
        (
            layout.PV_TIME_OFFSET,
            layout.PV_TIME_SIZE,
            f"stolen time, a record of {layout.PV_TIME_STRIDE:#x} bytes a CPU: what PV_TIME_ST tells the guest of",
            "host",
        ),
        (
            layout.READY_OFFSET,
            layout.MAX_CPUS * layout.READY_SIZE,
            f"[answers that are ready](#a-cpus-table-of-ready-answers), {layout.READY_SIZE:#x} bytes a CPU",
            "host; COUNT of an entry: monitor",
        ),
    ):
        out.append(f"| {offset:#x} | {size:#x} | {what} | {writer} |")
    notes = _docstrings()
    out += _table("Header", layout.Header, notes, lambda value: f"{value * 8:#x}", "offset")
    out += [
        "",
        f"This is version {layout.VERSION}. A guest keeps the monitor that it was started with, and the host serves "
        f"{layout.OLDEST} to {layout.VERSION}: it writes the version of the guest's monitor to VERSION. It knows that "
        "by the monitor's image, by the state document, and by what a RESET frame says. The monitor looks at VERSION "
        "when it takes the first answer after a reset. The rest of the page is reserved: 0.",
    ]
    out += _table("What is saved besides", layout.Save, notes, str, "bit value of SAVE")
    out += _table("Words of a frame", layout.Word, notes, lambda value: f"{value * 8:#x}", "offset")
    out += [
        "",
        "X0..X30 are contiguous from X0 on. PC, PSTATE, X0..X17 (20 words) are the **context**: what SDEI saves, "
        f"replaces and restores. OPS holds up to {layout.MAX_OPS} micro-operations of {layout.OP_WORDS} words: "
        "code | size << 8, argument, value.",
        "",
        "ID_REGISTERS of a RESET frame, in this order: " + ", ".join(layout.RESET_REGISTERS) + ".",
        "",
        f"Reserved: {_spans(layout.RESERVED)}. Both sides leave them 0, and look at none of them.",
        "",
        f"Version {layout.COUNTER_SINCE - 1} has DONE where COUNTER is, and nothing of SAVE, MONITOR_VERSION, the EL2 "
        "registers and what is reserved here by name.",
    ]
    out += _table("Kinds of frames", layout.Kind, notes, str, "KIND")
    out += _table("What can be wrong with an answer", layout.BadAnswer, notes, str, "VECTOR")
    out += _table("Flags of an answer", layout.AnswerFlag, notes, str, "bit value")
    out += _table("A CPU's table of ready answers", layout.Ready, notes, lambda value: f"{value * 8:#x}", "offset")
    words = layout.READY_ENTRY_WORDS
    out += [
        "",
        f"Behind these words are {layout.READY_ENTRIES - 1} entries of {words} words, entry n at n * {words * 8:#x}. A "
        "call finds its entry where n is bits 63:60 of "
        f"(x0, or x0 + x1, or x0 + x1 + x2, by what counts) * {layout.READY_HASH:#x}; 0 is no entry.",
    ]
    out += _table("A ready answer", layout.Entry, notes, lambda value: f"{value * 8:#x}", "offset in the entry")
    out += _table("Micro-operations", layout.Op, notes, str, "code")
    out += [
        "",
        f"The monitor sets {layout.OP_ABORTED:#x} in the code word of a physical access that took an external abort.",
        "",
        "Registers that READ_SYSREG and WRITE_SYSREG reach: "
        + ", ".join(f"{r.name} ({r.value})" for r in layout.SysReg)
        + ". No write reaches "
        + ", ".join(r.name for r in sorted(layout.READ_ONLY))
        + ". An access to secure flash (0 to 0x3ffffff) is answered as one that took an external abort.",
    ]
    return "\n".join(out) + "\n"


def _spans(words: tuple[int, ...]) -> str:
    """Offsets of words of a frame: those that follow one another as one span."""
    spans: list[list[int]] = []
    for word in words:
        if spans and spans[-1][1] == word - 1:
            spans[-1][1] = word
        else:
            spans.append([word, word])
    return ", ".join(f"{first * 8:#x} to {last * 8 + 7:#x}" for first, last in spans)


def _table(
    title: str, kind: type[IntEnum] | type[IntFlag], notes: dict[str, str], number: Callable[[int], str], column: str
) -> list[str]:
    out = ["", f"## {title}", "", f"| {column} | name | what |", "|---|---|---|"]
    return out + [
        f"| {number(member.value)} | {member.name} | {notes.get(f'{kind.__name__}.{member.name}', '')} |"
        for member in kind
    ]


def _docstrings() -> dict[str, str]:
    """What layout.py says below each member of its enums, by `Class.MEMBER`."""
    assert layout.__file__ is not None
    found = {}
    for node in ast.parse(Path(layout.__file__).read_text()).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for before, item in zip(node.body, node.body[1:], strict=False):
            if (
                isinstance(before, ast.Assign)
                and isinstance(before.targets[0], ast.Name)
                and isinstance(item, ast.Expr)
                and isinstance(item.value, ast.Constant)
            ):
                text = " ".join(str(item.value.value).split())
                found[f"{node.name}.{before.targets[0].id}"] = text.replace("|", "\\|")
    return found
