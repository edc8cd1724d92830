"""Pages whose tables are printed into a text that stands beside them (`.in`)."""

from __future__ import annotations

import json
from typing import Any

from qemu_sdei.backend.control.commands import requests_in
from qemu_sdei.backend.control.control_socket import Control
from qemu_sdei.backend.control.handover_commands import HandoverCommands
from qemu_sdei.backend.control.host_error_commands import HostErrorCommands
from qemu_sdei.backend.control.injection_commands import InjectionCommands
from qemu_sdei.backend.control.look_commands import LookCommands
from qemu_sdei.backend.control.nmi_commands import NmiCommands
from qemu_sdei.backend.control.notifier_commands import NotifierCommands
from qemu_sdei.backend.control.profile_commands import ProfileCommands
from qemu_sdei.backend.control.ras_commands import RasCommands
from qemu_sdei.backend.control.snapshot_commands import SnapshotCommands
from qemu_sdei.conformance import listing
from qemu_sdei.crash import endings as crash_endings
from qemu_sdei.crash import table as crash_table
from qemu_sdei.profiles import profile_tables
from qemu_sdei.ras import reference
from qemu_sdei.services.function_names import NAMES
from qemu_sdei.smccc import selection
from qemu_sdei.trace import record_schema
from scripts.docgenlib.page import ROOT, note

_FEW = 6
"""Functions up to which all are named."""


def conformance() -> str:
    """The list of scenarios, from the conformance guest's own; what stands before it is `conformance.in`."""
    rows = []
    for s in listing.builtin():
        place = f"bare metal: [{s.group}.c](../../guest/conformance/{s.group}.c)" if s.group else s.elsewhere
        rows.append((s.number, f"| {s.number} | {s.name} | {s.source} | {place} | {_subjects(s.flags)} |"))
    rows.sort()
    head = (ROOT / "docs/reference/conformance.in").read_text()
    bare = sum("bare metal" in row for _, row in rows)
    out = [
        note("guest/conformance/list.h and docs/reference/conformance.in"),
        "",
        head.rstrip().replace("@TOTAL@", str(len(rows))).replace("@BARE@", str(bare)),
        "",
        "| | scenario | source | where | events |",
        "|---|---|---|---|---|",
        *(row for _, row in rows),
    ]
    return "\n".join(out) + "\n"


def _subjects(flags: str) -> str:
    """What the flags of a scenario mean."""
    if "EACH" not in flags:
        return ""
    kinds = {"PRIVATE": "each private one", "SHARED": "each shared one", "BOUND": "each bound one"}
    return next((text for flag, text in kinds.items() if flag in flags), "each")


def control() -> str:
    """The control protocol: its requests from the handlers' own words, the rest from the `.in`."""
    text = (ROOT / "docs/reference/control-protocol.in").read_text()
    tables: dict[str, tuple[type, ...]] = {
        "@CONTROL@": (
            Control,
            InjectionCommands,
            LookCommands,
            RasCommands,
            HostErrorCommands,
            NotifierCommands,
            NmiCommands,
            ProfileCommands,
        ),
        "@MIGRATION@": (HandoverCommands,),
        "@SNAPSHOT@": (SnapshotCommands,),
    }
    for mark, kinds in tables.items():
        rows = ["| command | fields | result |", "|---|---|---|"]
        for _, asked in (request for kind in kinds for request in requests_in(kind)):
            rows.append(f"| `{asked.name}` | {'; '.join(map(str, asked.fields))} | {asked.result} |")
        text = text.replace(mark, "\n".join(rows))
    head = note("qemu_sdei/backend/control and docs/reference/control-protocol.in")
    return f"# Control protocol\n\n{head}\n\n{text}"


def cper() -> str:
    """The page about error records: sections and fields from their tables, the rest from the `.in`."""
    text = (ROOT / "docs/reference/cper.in").read_text()
    text = text.replace("@KINDS@", reference.kinds()).replace("@TABLES@", reference.tables())
    head = note("qemu_sdei/ras and docs/reference/cper.in")
    return f"# Error records\n\n{head}\n\n{text}"


def firmware_profiles() -> str:
    """What a firmware profile can say, from its tables; the rest from the `.in`."""
    text = (ROOT / "docs/reference/firmware-profiles.in").read_text()
    for part in ("occasions", "conditions", "actions", "profiles"):
        text = text.replace(f"@{part.upper()}@", getattr(profile_tables, part)())
    head = note("qemu_sdei/profiles, qemu_sdei/data/firmware and docs/reference/firmware-profiles.in")
    return f"# Firmware profiles\n\n{head}\n\n{text}"


def trace() -> str:
    """The records of a trace: tables from their schema, the rest from the `.in`."""
    text = (ROOT / "docs/reference/trace.in").read_text().replace("@TABLES@", record_schema.tables())
    head = note("qemu_sdei/trace/record_schema.py and docs/reference/trace.in")
    return f"# Trace records\n\n{head}\n\n{text}"


def _run_of(found: dict[str, Any]) -> str:
    """When and on what a crash matrix was run."""
    kernels = " and ".join(str(kernel["release"]) for kernel in found["kernels"])
    return (
        f"Run on {found['date']} (UTC): qemu-sdei {found['program']}, QEMU {found['qemu']}, Linux {kernels}, "
        f"{found['vcpus']} vCPUs, {found['memory']}. {crash_table.summary(found)}."
    )


def crash_matrix() -> str:
    """Crash matrices as they were run: their tables from what `--json` printed, the rest from the `.in`."""
    stock, own = (
        json.loads((ROOT / f"docs/reference/{name}.json").read_text()) for name in ("crash-matrix", "crash-matrix-own")
    )
    ways = [f"| `{each.name}` | {each.sentence} |" for each in crash_endings.ENDINGS.values()]
    text = (ROOT / "docs/reference/crash-matrix.in").read_text()
    for mark, words in (
        ("@RUN@", _run_of(stock)),
        ("@ENDINGS@", "\n".join(["| ending | a stopped CPU |", "|---|---|", *ways])),
        ("@TABLE@", "\n".join(crash_table.markdown(stock))),
        ("@OWN RUN@", _run_of(own)),
        ("@OWN TABLE@", "\n".join(crash_table.markdown(own))),
    ):
        text = text.replace(mark, words)
    head = note("docs/reference/crash-matrix*.json (what `--json` printed) and docs/reference/crash-matrix.in")
    return f"# Crash matrix\n\n{head}\n\n{text}"


def kvm_registers() -> str:
    """KVM's pseudo registers: which services a guest finds from the tables, the rest from the `.in`."""
    registers = ["| register | id | words | at the beginning |", "|---|---|---|---|"]
    features = ["| register | bit | word | functions | what it is |", "|---|---|---|---|---|"]
    for register in selection.REGISTERS:
        words = ", ".join(f"{feature.bit} `{feature.word}`" for feature in register.features)
        empty = "0" if register.starts_empty else "all there are"
        registers.append(f"| `{register.name}` (`{register.word}`) | `{register.id:#x}` | {words} | {empty} |")
        for feature in register.features:
            named = [f"{NAMES[f]} `{f:#x}`" for f in sorted(feature.functions) if f in NAMES]
            which = ", ".join(named) if len(named) <= _FEW else f"{named[0]} to {named[-1]}"
            features.append(f"| `{register.name}` | {feature.bit} | `{feature.word}` | {which} | {feature.about} |")
    text = (ROOT / "docs/reference/kvm-registers.in").read_text()
    text = text.replace("@REGISTERS@", "\n".join(registers)).replace("@FEATURES@", "\n".join(features))
    head = note("qemu_sdei/smccc/selection.py, qemu_sdei/services and docs/reference/kvm-registers.in")
    return f"# KVM's pseudo registers\n\n{head}\n\n{text}"
