"""Each folder has a README that names each of its modules, so that a stranger finds the right file."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = sorted({file.parent for package in ("qemu_sdei", "acpi") for file in (ROOT / package).rglob("*.py")})


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
