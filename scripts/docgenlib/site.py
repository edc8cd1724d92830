"""The documentation as a site of HTML files: the same Markdown, by Sphinx, MyST and Furo; no network is asked.

`python -m scripts.docgenlib.site FOLDER`, run by `scripts/site`. The pages are those that can be reached by links from
README.md, each where it is in the clone, so that links between them hold; files that they link are there too. A link
to a page or to a heading that is not there is an error.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import qemu_sdei
from scripts.docgenlib.page import ROOT

FIRST: Final = "README.md"
CONTENTS: Final = "docs/README.md"
"""The page whose lists are the site's table of contents."""
_LINK: Final = re.compile(r"\]\(([^()\s]+)\)")
_CODE: Final = re.compile(r"^(```|~~~).*?^\1[^\n]*$|`[^`\n]+`", re.M | re.S)
_SECTION: Final = re.compile(r"^\*\*(.+)\*\*$", re.M)
_CONFIG: Final = """project = "qemu-sdei"
version = release = {version!r}
extensions = ["myst_parser"]
root_doc = "README"
html_theme = "furo"
html_title = "qemu-sdei {version}"
html_show_copyright = html_show_sphinx = False
html_copy_source = False
smartquotes = False
myst_heading_anchors = 6
suppress_warnings = ["myst.header", "misc.highlighting_failure", "toc.not_included"]
"""
_BEGIN: Final = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=README.html">'


def links(text: str) -> list[str]:
    """What a page links, without what stands in code and what is elsewhere; without headings."""
    found = [target.partition("#")[0] for target in _LINK.findall(_CODE.sub("", text))]
    return [target for target in dict.fromkeys(found) if target and "://" not in target and ":" not in target]


def files() -> tuple[list[Path], list[Path]]:
    """The pages that can be reached from the first one, and the other files that they link; relative to the clone."""
    pages, others, waiting = [Path(FIRST)], set[Path](), [Path(FIRST)]
    while waiting:
        page = waiting.pop()
        for target in links((ROOT / page).read_text()):
            file = Path((ROOT / page.parent / target).resolve().relative_to(ROOT))
            if file.suffix != ".md" and not (ROOT / file).is_dir():
                others.add(file)
            elif file.suffix == ".md" and file not in pages:
                pages.append(file)
                waiting.append(file)
    return pages, sorted(others)


def contents(text: str, pages: list[Path]) -> dict[str, list[str]]:
    """Sections of the table of contents, and the pages of each, without suffix; what no list has goes into the last."""
    cut = _SECTION.split(text)
    found: dict[str, list[str]] = {}
    for title, part in zip(cut[1::2], cut[2::2], strict=True):
        names = [str(Path(CONTENTS).parent / target) for target in links(part) if target.endswith(".md")]
        found[title] = [str(Path((ROOT / name).resolve().relative_to(ROOT)).with_suffix("")) for name in names]
    listed = {FIRST.removesuffix(".md"), *(name for names in found.values() for name in names)}
    found["Inside the code"] = [str(page.with_suffix("")) for page in pages if str(page.with_suffix("")) not in listed]
    return found


def write_sources(folder: Path) -> None:
    """Pages, what they link, and Sphinx' configuration into an empty folder."""
    pages, others = files()
    for file in (*pages, *others):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, folder / file)
    trees = [
        "\n".join(("```{toctree}", ":hidden:", f":caption: {title}", "", *(f"/{name}" for name in names), "```"))
        for title, names in contents((ROOT / CONTENTS).read_text(), pages).items()
    ]
    first = folder / FIRST
    first.write_text(first.read_text() + "\n\n" + "\n\n".join(trees) + "\n")
    (folder / "conf.py").write_text(_CONFIG.format(version=qemu_sdei.__version__))


def build(target: Path) -> int:
    """The site into the folder `target`, which may be there; what was in it goes. Returns Sphinx' exit status."""
    with tempfile.TemporaryDirectory(prefix="qemu-sdei-site-") as name:
        source, made = Path(name) / "source", Path(name) / "site"
        source.mkdir()
        write_sources(source)
        command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(source), str(made)]
        status = subprocess.run(command, check=False, timeout=600).returncode
        if status == 0:
            (made / "index.html").write_text(_BEGIN)
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(made, target, ignore=shutil.ignore_patterns(".doctrees", ".buildinfo"))
    return status


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1])))
