"""Findings as documents: for programs, and as files from which a comparison is done again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from qemu_sdei import bounded, untrusted_files
from qemu_sdei.differential import rules
from qemu_sdei.differential.answers import Record, Transcript
from qemu_sdei.differential.hunt import Finding, Outcome
from qemu_sdei.differential.judge import Difference, Verdict
from qemu_sdei.differential.sequence import Script, lines, parse
from qemu_sdei.errors import UsageError

FORMAT: Final = "qemu-sdei comparison"
VERSION: Final = 1
MAX_FILE: Final = 1 << 20
MAX_UNSTEADY: Final = 20


def of_difference(verdict: Verdict, difference: Difference) -> dict[str, Any]:
    """The first divergent answer."""
    script = verdict.script
    return {
        "stage": rules.stage(difference),
        "step": difference.place.step + 1 if difference.place.step < len(script.steps) else None,
        "cpu": difference.place.cpu,
        "where": rules.at_place(script, difference.place),
        "ours": rules.answer(script, difference.ours, difference.ours_end),
        "theirs": rules.answer(script, difference.theirs, difference.theirs_end),
    }


def of_finding(finding: Finding) -> dict[str, Any]:
    """All that is known of one."""
    verdict = finding.verdict
    assert verdict.first is not None
    return {
        "calls": verdict.script.calls,
        "sequence": verdict.script.words(),
        "lines": lines(verdict.script),
        "first": of_difference(verdict, verdict.first),
        "clause": finding.clause,
        "at_the_end": rules.health(verdict),
        "number": finding.number,
        "original": finding.original.words(),
        "seen": finding.seen,
        "steady": finding.steady,
        "ours": _records(verdict.script, verdict.ours),
        "theirs": _records(verdict.script, verdict.theirs),
    }


def _records(script: Script, transcript: Transcript) -> list[str]:
    shown = [_shown(script, record) for record in transcript.records]
    return shown + ([transcript.crash] if transcript.crash else [])


def _shown(script: Script, record: Record) -> str:
    when = f"step {record.step + 1}" if record.step < len(script.steps) else f"after ({record.step:#x})"
    return f"{when}, CPU {record.cpu}: {rules.told(script, record)}"


def of_outcome(outcome: Outcome) -> dict[str, Any]:
    """All that came of a hunt."""
    return {
        "sequences": outcome.sequences,
        "calls": outcome.calls,
        "seconds": round(outcome.seconds, 3),
        "calls_per_second": round(outcome.calls / outcome.seconds, 1) if outcome.seconds else 0.0,
        "findings": [of_finding(finding) for finding in outcome.findings],
        "allowed": [
            {"name": one.name, "what": one.what, "why": one.why, "sequences": times}
            for one, times in outcome.allowed.most_common()
        ],
        "unsteady": [
            {"sequence": verdict.script.words(), "first": of_difference(verdict, verdict.first)}
            for verdict in outcome.unsteady[:MAX_UNSTEADY]
            if verdict.first is not None
        ],
        "ended": outcome.ended,
    }


def keep(folder: Path, number: int, finding: Finding, machine: Mapping[str, Any]) -> Path:
    """Write one to a file of its own. Raises `UsageError`: it cannot be written."""
    path = folder / f"difference-{number}.json"
    document = {"format": FORMAT, "version": VERSION, "machine": dict(machine), **of_finding(finding)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A file that is there is whole.
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".difference-", delete=False) as file:
            file.write(json.dumps(document, indent=2) + "\n")
        Path(file.name).replace(path)
    except OSError as error:
        raise UsageError(f"--keep {folder}: {error.strerror}") from None
    return path


def replay(path: Path, cpus: int) -> Script:
    """The sequence of such a file. Raises `UsageError`: it is none, or wants more CPUs."""
    try:
        document = bounded.loads(untrusted_files.read(path, MAX_FILE))
    except ValueError as error:
        raise UsageError(f"{path} is not a file of `qemu-sdei compare --keep`: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UsageError(f"{path} is not a file of `qemu-sdei compare --keep`")
    if document.get("version") != VERSION:
        raise UsageError(f"{path} is of version {document.get('version')!r}, this program reads {VERSION}")
    words = document.get("sequence")
    if not isinstance(words, str):
        raise UsageError(f"{path} has no sequence")
    return parse(words, cpus)
