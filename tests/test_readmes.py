"""Each folder has a README that names each of its modules, so that a stranger finds the right file."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = sorted(
    {file.parent for package in ("qemu_sdei", "acpi", "compat", "scripts") for file in (ROOT / package).rglob("*.py")}
)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_the_readme_names_each_module(folder: Path) -> None:
    if folder == ROOT / "qemu_sdei":
        readme = ROOT / "docs" / "internals.md"
    else:
        readme = next(where / "README.md" for where in (folder, *folder.parents) if (where / "README.md").exists())
    text = readme.read_text()
    names = sorted(file.name for file in folder.glob("*.py") if file.name not in ("__init__.py", "__main__.py"))
    missing = [name for name in names if f"{name}`" not in text]
    assert not missing, f"{readme.relative_to(ROOT)} does not name {', '.join(missing)}"
    named_folder = folder.name in text or readme.parent == folder
    assert named_folder, f"{readme.relative_to(ROOT)} does not name {folder.name}/"


@pytest.mark.parametrize(
    "readme",
    sorted(
        path
        for package in ("qemu_sdei", "acpi", "compat", "scripts", "guest")
        for path in (ROOT / package).rglob("README.md")
    ),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_the_readme_names_each_module_once(readme: Path) -> None:
    """Two rows for a file say two things of it, and one of them is old."""
    rows = re.findall(r"^\| ((?:`[^`|]+`,? ?)+)\|", readme.read_text(), re.M)
    named = Counter(name for row in rows for name in re.findall(r"`([^`]+)`", row))
    assert not [name for name, times in named.items() if times > 1]
