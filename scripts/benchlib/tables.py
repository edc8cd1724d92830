"""ACPI tables made by us, beside iasl compiling the same tables from source."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from qemu_sdei.acpi.formats import dsl
from qemu_sdei.acpi.iasl import Iasl
from qemu_sdei.acpi.tables import Fadt
from qemu_sdei.ras.source import Source
from qemu_sdei.tables.table_set import Content, ErrorSource, own

_CONTENT: Final = Content(
    sources=[
        ErrorSource(source=Source(name=f"source-{n}", event=0x324 + n), address=0x7FD0_0000 + n * 0x2000)
        for n in range(4)
    ],
    agdi_event=0x330,
    fadt=Fadt(minor_version=3).to_bytes(),
)
"""The full set: SDEI, HEST with four sources, AGDI, FADT."""
_REPEAT: Final = 200


def measure(rounds: int, row: Callable[[str, str, float, float], None]) -> None:
    """Hand to `row`: what, unit, ours, iasl's. Nothing where there is no iasl.

    Both sides are measured in turns. A table made in this process is set beside an iasl process, which is what a
    firmware's build starts for each table; and our command, a process too, beside as many iasl as there are tables.
    """
    if shutil.which("iasl") is None:
        return
    tables = [entry.data for entry in own(_CONTENT)]
    library: list[float] = []
    command: list[float] = []
    compiler: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        sources, _ = dsl.files(tables, Iasl())
        for file, text in sources.items():
            (directory / file).write_text(text)
        (directory / "fadt.aml").write_bytes(tables[-1])
        words = [
            sys.executable,
            "-m",
            "qemu_sdei",
            "tables",
            "--format",
            "aml",
            "--force",
            "-q",
            "-o",
            f"{directory}/out/",
        ]
        words += [f"--ghes=ghes@{_CONTENT.sources[0].address:#x}", f"--fadt={directory}/fadt.aml"]
        for _ in range(rounds):
            started = time.perf_counter()
            for _ in range(_REPEAT):
                own(_CONTENT)
            library.append((time.perf_counter() - started) / _REPEAT)
            started = time.perf_counter()
            for file in sources:
                subprocess.run(["iasl", file], cwd=directory, check=True, capture_output=True)
            compiler.append(time.perf_counter() - started)
            started = time.perf_counter()
            subprocess.run(words, check=True, capture_output=True)
            command.append(time.perf_counter() - started)
    count = len(tables)
    ours, theirs, whole = (statistics.median(values) for values in (library, compiler, command))
    row("an ACPI table, made (reference: iasl compiles it)", "us", ours / count * 1e6, theirs / count * 1e6)
    row(f"`tables`, {count} tables (reference: {count} iasl)", "ms", whole * 1e3, theirs * 1e3)
