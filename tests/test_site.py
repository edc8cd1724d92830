"""The site of the documentation has each page, and a place for each in its table of contents."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.docgenlib import site

ROOT = Path(__file__).resolve().parent.parent


def test_each_page_of_the_documentation_can_be_reached() -> None:
    pages, _ = site.files()
    missing = [page for page in (ROOT / "docs").rglob("*.md") if page.relative_to(ROOT) not in pages]
    assert not missing


def test_each_page_has_one_place_in_the_table_of_contents() -> None:
    pages, _ = site.files()
    sections = site.contents((ROOT / site.CONTENTS).read_text(), pages)
    assert list(sections)[:3] == ["To understand", "To do something", "To look up"]
    listed = [name for names in sections.values() for name in names]
    assert sorted(set(listed)) == sorted({str(page.with_suffix("")) for page in pages} - {"README"})
    assert "docs/howto/kdump" in sections["To do something"]


def test_what_is_code_is_no_link() -> None:
    assert site.links("[a](b.md#c) `[x](y.md)` [m](https://a.example)\n```\n[z](z.md)\n```\n") == ["b.md"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="no Sphinx: scripts/test --all installs it")
def test_it_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.docgenlib.site", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stderr
    assert "README.html" in (tmp_path / "site/index.html").read_text()
    page = (tmp_path / "site/docs/howto/kdump.html").read_text()
    assert "https://fonts" not in page, "it is read without a network"
    assert "../../docs/reference/cli.html" in page or "../reference/cli.html" in page
