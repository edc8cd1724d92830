"""A table is known because its module is in the folder, its rules because theirs is."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from qemu_sdei.acpi.rules import RULES
from qemu_sdei.acpi.table import Table
from qemu_sdei.acpi.tables import KINDS
from tests.acpi.samples import TABLES

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.__name__)
def test_each_class_has_a_sample(kind: type[Table]) -> None:
    """What goes through all tests of parsing, printing and damage are the samples."""
    assert any(type(sample) is kind for sample in TABLES.values())


@pytest.mark.parametrize("kind", RULES, ids=lambda kind: kind.__name__)
def test_rules_are_where_the_table_s_name_says(kind: type[Table]) -> None:
    assert RULES[kind].__module__ == kind.__module__.replace(".acpi.tables.", ".acpi.rules.")


def test_tables_and_rules_are_found_in_a_zip_file(tmp_path: Path) -> None:
    """An application that is one file has no folder to list."""
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in (ROOT / "acpi").rglob("*.py"):
            archive.write(file, "qemu_sdei" / file.relative_to(ROOT))
        archive.write(ROOT / "qemu_sdei/__init__.py", "qemu_sdei/__init__.py")
    code = (
        "from qemu_sdei import acpi; from qemu_sdei.acpi.rules import RULES; from qemu_sdei.acpi.tables import KINDS; "
    )
    code += "print(acpi.__file__); print(*KINDS, *(kind.__name__ for kind in RULES), sep='\\n')"
    out = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'all.zip')!r}); {code}"],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    where, *found = out.splitlines()
    assert "all.zip" in where
    assert found == [*KINDS, *(kind.__name__ for kind in RULES)]
