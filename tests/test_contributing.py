"""CONTRIBUTING.md names the files to touch: they are there, and what three of its lists say is all that it takes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qemu_sdei.acpi.table import Table
from qemu_sdei.acpi.tables.raw import RawTable

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
PATH = re.compile(r"`((?:acpi|docs|guest|qemu_sdei|scripts|tests)/[\w./-]*)`")
CHANGES = (
    *(
        "A conformance scenario",
        "An ACPI table",
        "A subcommand",
        "A request to the backend",
        "A service",
        "An SDEI call",
        "A PSCI call",
    ),
    *("A guest option", "A trace record", "A field of `status`", "A hold point", "A QEMU flag"),
)


def listed(change: str) -> list[str]:
    """The files in the table below a heading of "What to touch"."""
    section = TEXT.partition(f"\n### {change}\n")[2].partition("\n#")[0]
    return [match[1] for line in section.splitlines() if line.startswith("| `") and (match := PATH.search(line))]


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_has_a_list(change: str) -> None:
    assert listed(change)


@pytest.mark.parametrize("path", sorted(set(PATH.findall(TEXT))))
def test_what_is_named_is_there(path: str) -> None:
    """Of a file that is yours to make, the folder; and there is one like it."""
    name = Path(path)
    if "NAME" in name.name or "GROUP" in name.name:
        assert list((ROOT / name.parent).glob(name.name.replace("NAME", "*").replace("GROUP", "*")))
    else:
        assert (ROOT / path).exists()


# ---- lists, followed

TABLE = {
    "acpi/tables/slit.py": '''"""SLIT: how far it is from one locality to another (ACPI 6.5 5.2.17)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qemu_sdei.acpi.layout import u64
from qemu_sdei.acpi.table import Table


@dataclass(frozen=True, kw_only=True)
class Slit(Table):
    """How many localities there are; the distances are in its tail."""

    SIGNATURE: ClassVar[str] = "SLIT"
    REVISIONS: ClassVar[tuple[int, int]] = (1, 1)
    ONCE: ClassVar[bool] = True

    localities: int = u64("Number of Localities")
''',
    "acpi/rules/slit.py": '''"""Rules for SLIT (ACPI 6.5 5.2.17)."""

from __future__ import annotations

from qemu_sdei.acpi.rules.registry import rules_for
from qemu_sdei.acpi.rules.report import Report
from qemu_sdei.acpi.tables.slit import Slit


@rules_for(Slit)
def check(report: Report, table: Slit) -> None:
    """Check the whole table.

    Errors: no locality.
    """
    if not table.localities:
        report.error("localities", "there is none")
''',
}
COMMAND = '''"""`qemu-sdei greet`: says whom it greets."""

from __future__ import annotations

import argparse
from typing import Any


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser("greet", description="Say hello.")
    parser.add_argument("--whom", default="world", help="who is there (default: world)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei.cli.output import say

    say(f"hello, {args.whom}")
    return 0
'''
HANDLER = """
    @handles("greet", Number("times", 1, 9, default=1), result="`words`")
    def _greet(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        return {"words": "hello " * message["times"]}
"""
METHOD = '''    def greet(self, times: int) -> str:
        """Say hello so often."""
        return str(self.request("greet", {"times": times}, again=True)["words"])

'''
ASK = """
import pathlib, sys, threading
from qemu_sdei.errors import UsageError
from qemu_sdei.guest.control_client import ControlClient
from tests.backend.controlled import Backend

backend = Backend(pathlib.Path(sys.argv[1]))

def ask():
    with ControlClient(backend.path) as client:
        print(client.greet(2))
        try:
            client.greet(10)
        except UsageError as error:
            print(error)

thread = threading.Thread(target=ask)
thread.start()
while thread.is_alive():
    backend.turn()
    thread.join(0.01)
"""
"""Who asks, and a backend without QEMU that answers."""


class Copy:
    """A copy of the project, in which files were written."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.touched: set[str] = set()
        for name in ("acpi", "qemu_sdei", "scripts", "docs", "guest"):
            shutil.copytree(ROOT / name, directory / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))

    def write(self, path: str, text: str) -> None:
        self.touched.add(path)
        (self.directory / path).write_text(text)

    def run(self, *words: str | Path, status: int = 0) -> str:
        """What Python says with `words`; errors too."""
        result = subprocess.run(
            [sys.executable, *words], cwd=self.directory, capture_output=True, text=True, timeout=60, check=False
        )
        assert result.returncode == status, result.stdout + result.stderr
        return result.stdout + result.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path / "copy")


def slit(localities: int) -> bytes:
    return RawTable.build("SLIT", localities.to_bytes(8, "little")).to_bytes()


def test_a_table_is_what_its_list_says(copy: Copy, tmp_path: Path) -> None:
    for path, text in TABLE.items():
        copy.write(path, text)
    assert copy.touched == {path.replace("NAME", "slit") for path in listed("An ACPI table")}
    for localities in (0, 2):
        (tmp_path / f"slit{localities}").write_bytes(slit(localities))
    none, two = tmp_path / "slit0", tmp_path / "slit2"
    tables = ("-m", "qemu_sdei", "tables")
    assert re.search(r"0x024 +8 +Number of Localities +0x2\n", copy.run(*tables, "show", two))
    assert re.search(r"Number of Localities +0x0{16} +0x0{15}2\n", copy.run(*tables, "diff", none, two, status=1))
    assert "no faults in 1 table: SLIT" in copy.run(*tables, "check", two)
    assert re.search(r"SLIT +error +0x24 +localities +there is none", copy.run(*tables, "check", none, status=1))
    assert "the second SLIT" in copy.run(*tables, "check", two, two)
    copy.run("scripts/docgen.py")
    page = (copy.directory / "docs/reference/acpi-tables.md").read_text()
    assert (
        "| `slit.Slit` | `SLIT` | How many localities there are; the distances are in its tail | ACPI 6.5 5.2.17 |"
        in page
    )
    assert "| SLIT | no locality |  |" in page


def test_it_is_no_table_that_is_known_here() -> None:
    """Else the test above would show nothing."""
    from qemu_sdei.acpi.parse import parse

    read: Table = parse(slit(2))
    assert type(read) is RawTable


def test_a_subcommand_is_what_its_list_says(copy: Copy) -> None:
    commands = copy.directory / "qemu_sdei/cli/commands.py"
    copy.write("qemu_sdei/cli/greet_command.py", COMMAND)
    before = '        "list": '
    copy.write(
        "qemu_sdei/cli/commands.py", commands.read_text().replace(before, f'        "greet": "say hello",\n{before}')
    )
    assert copy.touched == {path.replace("NAME", "greet") for path in listed("A subcommand")}
    command = ("-m", "qemu_sdei")
    assert copy.run(*command, "greet", "--whom", "you") == "hello, you\n"
    overview = copy.run(*command, "--help")
    assert re.search(r"\n +greet +say hello\n", overview)
    assert "who is there" in copy.run(*command, "greet", "--help")
    assert "--whom" in copy.run(*command, "completion", "bash")
    copy.run("scripts/docgen.py")
    assert "\n## qemu-sdei greet\n" in (copy.directory / "docs/reference/cli.md").read_text()


def test_a_request_is_what_its_list_says(copy: Copy, tmp_path: Path) -> None:
    handlers, client = listed("A request to the backend")
    old = (copy.directory / handlers).read_text()
    copy.write(handlers, re.sub(r'(\nclass Control\b.*:\n    """.*"""\n)', lambda match: match[1] + HANDLER, old))
    assert HANDLER in (copy.directory / handlers).read_text()
    old = (copy.directory / client).read_text()
    copy.write(client, old.replace("    def shutdown(", METHOD + "    def shutdown("))
    assert METHOD in (copy.directory / client).read_text()
    shutil.copytree(ROOT / "tests/backend", copy.directory / "tests/backend")
    shutil.copy(ROOT / "tests/__init__.py", copy.directory / "tests/__init__.py")
    assert copy.run("-c", ASK, tmp_path) == "hello hello \ntimes is a number from 1 to 9\n"
    copy.run("scripts/docgen.py")
    page = (copy.directory / "docs/reference/control-protocol.md").read_text()
    assert "| `greet` | `times` (1) | `words` |" in page
