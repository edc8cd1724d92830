"""fwts, the Firmware Test Suite, as a second opinion on a set of tables. Optional: Debian 12 does not have it.

It reads tables from an acpidump text, unprivileged and on any architecture. Its exit status is 1 as soon as it has
one warning, so it is the JSON log that is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

from qemu_sdei.acpi import tool
from qemu_sdei.acpi.formats import acpidump
from qemu_sdei.acpi.tool import ToolError

PACKAGE: Final = "fwts (Ubuntu: apt-get install fwts; Debian 12 does not have it: build it from source)"
TESTS: Final = (
    "acpitables", "checksum", "rsdp", "xsdt", "fadt", "facs", "madt", "gtdt", "hest", "bert", "einj", "erst", "sdei",
)  # fmt: skip
"""What is of interest here, as fwts 26.01 calls it (it has no test of the AGDI)."""
FALSE_ALARMS: Final = {
    "Table SDEI is empty": "false alarm: an SDEI table is a header and nothing else, DEN0054 appendix C",
}
"""What fwts says of sound tables, and why it is none."""
_MAX_DEPTH: Final = 64


class Outcome(Enum):
    """How one of fwts' checks ended."""

    PASSED = "passed"
    FAILED = "failed"
    WARNING = "warning"
    SKIPPED = "skipped"
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True)
class Result:
    """One check of fwts."""

    outcome: Outcome
    text: str
    label: str = ""
    """fwts' name of the failure, such as AcpiTableBadChecksum."""
    level: str = ""
    """How bad fwts holds a failure: critical, high, medium, low."""


class Fwts:
    """One fwts program.

    Args:
        path: the program; None: the one on PATH.
        timeout: seconds that each run may take.

    Raises:
        MissingToolError: it is not there.
    """

    def __init__(self, path: str | Path | None = None, *, timeout: float = 120.0) -> None:
        self._program = tool.find("fwts", PACKAGE, path)
        self._timeout = timeout

    def tests(self) -> tuple[str, ...]:
        """Those of `TESTS` that this fwts has, in that order."""
        with tool.workplace("fwts") as directory:
            text = tool.run(self._program, ["--show-tests"], cwd=directory, timeout=self._timeout).text
        there = set(re.findall(r"^\s+(\S+)", text, re.M))
        return tuple(name for name in TESTS if name in there)

    def check(self, tables: Iterable[acpidump.Entry], tests: Sequence[str] | None = None) -> list[Result]:
        """Run `tests` (default: all of `TESTS` that there are) over a set of tables.

        fwts wants RSDP, XSDT, FADT and DSDT among them; what it misses it says as a failure.

        Raises:
            ToolError: fwts wrote no log, or ended badly.
        """
        names = self.tests() if tests is None else tuple(tests)
        if not names:
            raise ToolError(f"{self._program} has none of the tests that are wanted here")
        with tool.workplace("fwts") as directory:
            tool.write_input(directory / "acpidump.txt", acpidump.write(tables).encode())
            words = ["-q", "--arch=arm64", "--dumpfile=acpidump.txt", "--log-type=json", "-r", "results.json", *names]
            output = tool.run(self._program, words, cwd=directory, timeout=self._timeout)
            log = tool.read_result(directory / "results.json")
        if log is None:
            lines = output.text.strip().splitlines()
            raise ToolError(f"fwts wrote no log: {lines[-1] if lines else f'exit status {output.status}'}")
        return parse(log)


def parse(log: bytes) -> list[Result]:
    """The results in a log that fwts wrote with --log-type=json.

    Raises:
        ToolError: it is no such log.
    """
    try:
        document = json.loads(log)
    except (ValueError, RecursionError) as error:
        raise ToolError(f"fwts' log is not JSON: {error}") from None
    if not isinstance(document, dict) or "fwts" not in document:
        raise ToolError("fwts' log is not of the form that is known: it has no 'fwts' section")
    return [result for record in _records(document, 0) if (result := _result(record)) is not None]


def _records(value: Any, depth: int) -> Iterator[dict[str, Any]]:
    """The records of all sections: sections are objects with a list in each value."""
    if depth > _MAX_DEPTH:
        raise ToolError("fwts' log is nested too deep")
    if isinstance(value, list):
        for item in value:
            yield from _records(item, depth + 1)
    elif isinstance(value, dict):
        if "log_text" in value:
            yield value
        else:
            for item in value.values():
                yield from _records(item, depth + 1)


def _result(record: dict[str, Any]) -> Result | None:
    for key in ("status", "field_type"):
        try:
            outcome = Outcome(str(record.get(key)).lower())
        except ValueError:
            continue
        # "FAILED [HIGH] AcpiBadChecksum: Test 1, the text": what stands before it has fields of its own.
        text = re.sub(r"^[^:]*: Test \d+, ", "", str(record["log_text"]))
        return Result(outcome, text, _word(record, "failure_label"), _word(record, "level").lower())
    return None


def _word(record: dict[str, Any], key: str) -> str:
    value = record.get(key)
    return value if isinstance(value, str) and value != "None" else ""
