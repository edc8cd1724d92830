"""Builds what is published: `.venv/bin/python scripts/release.py --home URL [--out DIR]`; nothing is uploaded.

The source distribution and the wheel are made of what git has, with two changes. Links of the README are absolute,
because a package index shows it far from the other pages; and the project's addresses are in the metadata. Neither
stands in the repository, which has no address of its own. docs/release.md has the whole procedure.
"""

from __future__ import annotations

import argparse
import email.parser
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qemu_sdei import __version__  # noqa: E402

_LINK: Final = re.compile(r"(!?\[[^\]\n]*\]\()(?![a-z]+:|#)([^)\s]+)(\))")
_FENCE: Final = re.compile(r"^```.*?^```$|^    [^\n]*$", re.M | re.S)
_HOOK: Final = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
_LIMIT: Final = 600.0
"""Seconds for a program that is started here."""


class ReleaseError(Exception):
    """There is nothing to publish; the message says why."""


def absolute(text: str, home: str, tag: str) -> str:
    """A page of the top folder whose links lead to `home`, a repository as code hosts show it, at `tag`."""

    def lead(match: re.Match[str]) -> str:
        before, target, after = match.groups()
        kind = "raw" if before.startswith("!") else "tree" if target.endswith("/") else "blob"
        return f"{before}{home}/{kind}/{tag}/{target}{after}"

    parts, at = [], 0
    for code in _FENCE.finditer(text):
        parts += [_LINK.sub(lead, text[at : code.start()]), code[0]]
        at = code.end()
    return "".join([*parts, _LINK.sub(lead, text[at:])])


def with_addresses(pyproject: str, home: str, tag: str) -> str:
    """`pyproject.toml` with the project's addresses."""
    addresses = {
        "Homepage": home,
        "Documentation": f"{home}/blob/{tag}/docs/README.md",
        "Changelog": f"{home}/blob/{tag}/CHANGELOG.md",
        "Issues": f"{home}/issues",
    }
    table = "\n".join(f'{name} = "{address}"' for name, address in addresses.items())
    head, mark, rest = pyproject.partition("[project.scripts]")
    return f"{head}[project.urls]\n{table}\n\n{mark}{rest}"


def faults(changelog: str, version: str) -> list[str]:
    """What keeps a version from being published, as sentences."""
    found = []
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        found.append(f"__version__ in qemu_sdei/__init__.py is {version}: a release is three numbers, such as 0.2.0")
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.M):
        found.append(f"CHANGELOG.md has no heading `## [{version}] - YYYY-MM-DD`")
    return found


def build(home: str, tag: str, out: Path) -> list[Path]:
    """Make the source distribution and the wheel in `out`. Raises `ReleaseError`."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        clone = Path(directory) / "clone"
        _copy(clone)
        readme, pyproject = clone / "README.md", clone / "pyproject.toml"
        readme.write_text(absolute(readme.read_text(), home, tag))
        pyproject.write_text(with_addresses(pyproject.read_text(), home, tag))
        made = Path(directory) / "dist"
        made.mkdir()
        for hook in (
            "build_sdist",
            "build_wheel",
        ):  # each in a process of its own: the second finds nothing of the first
            _run([sys.executable, "-c", _HOOK, hook, str(made)], clone)
        return [Path(shutil.copy(file, out)) for file in sorted(made.iterdir())]


def metadata(file: Path) -> dict[str, list[str]]:
    """The metadata of a wheel or a source distribution: each field's values; `Description` is the page."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
            text = wheel.read(name).decode()
    else:
        with tarfile.open(file) as source:
            (member,) = (m for m in source.getmembers() if re.fullmatch(r"[^/]+/PKG-INFO", m.name))
            content = source.extractfile(member)
            assert content is not None
            text = content.read().decode()
    message = email.parser.Parser().parsestr(text)
    fields = {name: [str(value) for value in message.get_all(name) or ()] for name in message}
    return {**fields, "Description": [str(message.get_payload())]}


def _copy(clone: Path) -> None:
    for name in _run(["git", "ls-files", "-z"], ROOT).split("\0"):
        if name and ((ROOT / name).exists() or (ROOT / name).is_symlink()):
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name, follow_symlinks=False)


def _run(command: list[str], where: Path) -> str:
    result = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False, timeout=_LIMIT)
    if result.returncode:
        raise ReleaseError(f"{command[0]} failed:\n{result.stdout}{result.stderr}")
    return result.stdout


def main(argv: list[str] | None = None) -> int:
    """Exit code 0: both files are there; 1: why not is on standard error; 2: usage."""
    parser = argparse.ArgumentParser(prog="scripts/release.py", description="Build the files of a release.")
    parser.add_argument("--home", required=True, metavar="URL", help="address of the repository on its code host")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", metavar="DIR", help="directory (default: dist)")
    parser.add_argument("--try", dest="trial", action="store_true", help="build although the version is not ready")
    args = parser.parse_args(argv)
    if not re.fullmatch(r"https://[\w.-]+(/[\w.-]+)+", args.home):
        parser.error("--home must be an https address without a slash at its end")
    found = faults((ROOT / "CHANGELOG.md").read_text(), __version__)
    for fault in found:
        print(f"release: {fault}", file=sys.stderr)
    if found and not args.trial:
        return 1
    try:
        files = build(args.home, f"v{__version__}", args.out)
    except (ReleaseError, OSError, subprocess.TimeoutExpired) as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    print(*files, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
