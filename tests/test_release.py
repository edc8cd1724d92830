"""What is published: links that lead somewhere from a package index, metadata that an index takes, all files."""

from __future__ import annotations

import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata

from scripts import release

ROOT = Path(__file__).resolve().parent.parent
HOME = "https://code.example/team/qemu-sdei"


def test_links_and_pictures_of_a_page_become_absolute() -> None:
    page = "![a](docs/a.svg) [b](docs/b.md#c), [d](#e), [f](https://g.example) [h](tests/)\n    [i](j.md)\n[k](l.md)\n"
    assert release.absolute(page, HOME, "v1.2.3") == (
        f"![a]({HOME}/raw/v1.2.3/docs/a.svg) [b]({HOME}/blob/v1.2.3/docs/b.md#c), [d](#e), [f](https://g.example) "
        f"[h]({HOME}/tree/v1.2.3/tests/)\n    [i](j.md)\n[k]({HOME}/blob/v1.2.3/l.md)\n"
    )


@pytest.mark.parametrize(
    ("version", "changelog", "faults"),
    [
        ("0.2.0", "# Changelog\n\n## [0.2.0] - 2026-12-01\n", 0),
        ("0.2.0", "# Changelog\n\n## [Unreleased]\n", 1),
        ("0.2.0.dev0", "# Changelog\n\n## [Unreleased]\n", 2),
    ],
)
def test_a_version_is_published_only_when_it_is_ready(version: str, changelog: str, faults: int) -> None:
    assert len(release.faults(changelog, version)) == faults


def test_an_address_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        release.main(["--home", "code.example/x"])
    assert "https" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="not in a git clone")
def test_the_files_of_a_release(tmp_path: Path) -> None:
    source, wheel = sorted(release.build(HOME, "v9.9.9", tmp_path), key=lambda file: file.suffix)
    for file in (source, wheel):
        fields = release.metadata(file)
        assert fields["Name"] == ["qemu-sdei"]
        assert fields["License-Expression"] == ["Apache-2.0"]
        assert f"Homepage, {HOME}" in fields["Project-URL"]
        (page,) = fields["Description"]
        assert (
            re.findall(r"\]\((?!https://|#)[^)]*\)", re.sub(r"^```.*?^```$|^    [^\n]*$", "", page, flags=re.M | re.S))
            == []
        )
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (text,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        assert Metadata.from_email(archive.read(text), validate=True).description_content_type == "text/markdown"
    assert {
        "qemu_sdei/data/monitor.bin",
        "qemu_sdei/conformance/sources/conformance/list.h",
        "qemu_sdei/acpi/tables/hest.py",
        "acpi/__init__.py",
    } <= set(names)
    assert "acpi/parse.py" not in names  # only the word that it is elsewhere now
    assert any(name.endswith("share/man/man1/qemu-sdei.1") for name in names)
    with tarfile.open(source) as files:
        inside = {name.partition("/")[2] for name in files.getnames()}
    assert {
        "SECURITY.md",
        "docs/README.md",
        "scripts/setup.sh",
        "guest/monitor/monitor.S",
        "tests/test_docs.py",
        "acpi/tables/hest.py",
        "qemu_sdei/acpi/tables/hest.py",
    } <= inside
