"""The documentation says what is there: links, commands, options, examples, printed pages. No file names a machine."""

from __future__ import annotations

import argparse
import itertools
import re
import runpy
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from qemu_sdei.cli import make_parser, ras_arm_words
from qemu_sdei.cli.commands import ALIASES
from qemu_sdei.profiles import firmware_profile
from qemu_sdei.ras.fields import NO_GUID
from qemu_sdei.ras.from_text import words
from qemu_sdei.ras.kinds import KINDS, kind_of
from qemu_sdei.sdei import constants as sdei
from qemu_sdei.sdei.machine_description import MachineDescription
from qemu_sdei.services import psci

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = {".git", ".venv", "build", "dist", "__pycache__"}
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


@cache
def files() -> tuple[Path, ...]:
    """The project's files: what git tracks or would; without git, all that are not made by tools."""
    if shutil.which("git") and (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
        return tuple(ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file())
    return tuple(
        path
        for path in ROOT.rglob("*")
        if path.is_file() and not any(part in SKIPPED or part.endswith(("_cache", ".egg-info")) for part in path.parts)
    )


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


PAGES = sorted(path for path in files() if path.suffix == ".md")
every_page = pytest.mark.parametrize("page", PAGES, ids=relative)


def slug(heading: str) -> str:
    """The anchor that code hosts give a heading."""
    text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@cache
def anchors(page: Path) -> frozenset[str]:
    text = FENCE.sub("", page.read_text())
    return frozenset(slug(heading) for heading in re.findall(r"^#{1,6} +(.+)$", text, re.M))


def links(page: Path) -> Iterator[str]:
    yield from LINK.findall(FENCE.sub("", page.read_text()))


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    todo = [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        seen.add(page)
        targets = [(page.parent / link.partition("#")[0]).resolve() for link in links(page)]
        todo += [target for target in targets if target.suffix == ".md" and target.is_file()]
    docs = {page for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert not [relative(page) for page in sorted(docs - seen)]


# ---- commands


def code(page: Path) -> Iterator[str]:
    """Lines of code blocks, and what stands between backquotes."""
    text = page.read_text()
    for _, block in FENCE.findall(text):
        yield from block.splitlines()
    for line in FENCE.sub("", text).splitlines():
        if line.startswith("    "):
            yield line
        else:
            yield from INLINE.findall(line)


@cache
def commands() -> dict[str, frozenset[str]]:
    """Options of each subcommand, those of the commands below it included."""
    (action,) = (a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction))
    found = {name: frozenset(options(parser)) for name, parser in action.choices.items()}
    # Sections have options of their own, behind their names.
    return {**found, "ras": found["ras"] | frozenset(section_options())}


def section_options() -> Iterator[str]:
    arm = argparse.ArgumentParser()
    ras_arm_words.add(arm)
    yield from options(arm)
    for kind in (*KINDS.values(), kind_of(NO_GUID)):
        yield from (f"--{word.name}" for word in words(kind.table))


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from options(below)


@every_page
def test_commands_and_options_exist(page: Path) -> None:
    wrong = []
    for line in code(page):
        for name, rest in re.findall(r"(?<![\w/.-])qemu-sdei ([a-z][a-z-]*)([^|#]*)", line):
            if name not in commands():
                wrong.append(f"qemu-sdei {name}")
                continue
            # What is quoted is an option's value; what follows -- is the guest's.
            own = re.sub(r"'[^']*'|\"[^\"]*\"", "", rest).partition(" -- ")[0]
            own = own.replace(" -vv", " -v")  # an option that is given twice
            known = commands()[name]
            wrong += [
                f"{name} {option}" for option in re.findall(r"(?<=\s)--?[a-z][a-z0-9.-]*", own) if option not in known
            ]
        wrong += [
            name for name in re.findall(r"(?<![\w/.-])(scripts/[a-z][\w.-]*)", line) if not (ROOT / name).exists()
        ]
    assert not wrong


def lines_to_type(page: Path) -> Iterator[str]:
    """What a page has its reader type, on a line of its own."""
    text = page.read_text()
    indented = re.findall(r"^    (?:\$ )?(qemu-sdei .*)$", FENCE.sub("", text), re.M)
    fenced = [line.removeprefix("$ ") for _, block in FENCE.findall(text) for line in block.splitlines()]
    for line in (*indented, *fenced):
        if re.match(r"qemu-sdei [a-z-]+(?: |$)", line) and not re.search(r"\.\.\.(?:\s|$)|\\$|\[", line):
            yield line


def words_of(line: str) -> list[str]:
    """The words of one call of `qemu-sdei`, without what the guest runs, and what the shell makes of the output."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    own = itertools.takewhile(lambda word: word != "--" and not re.fullmatch(r"[<>|&;()]+", word), lexer)
    return list(own)[1:]


@every_page
def test_lines_to_type_are_understood(page: Path) -> None:
    """The parser takes each of them as it is printed: options, values, what is required."""
    for line in lines_to_type(page):
        words = words_of(line)
        words[0] = ALIASES.get(words[0], words[0])
        try:
            _, unknown = make_parser(words[:1]).parse_known_args(words)
        except SystemExit as end:
            unknown = [f"exit code {end.code}"] if end.code else []
        assert not unknown, line


def blocks(language: str) -> list[object]:
    """The fenced blocks of a language, as parameters."""
    return [
        pytest.param(text, id=f"{relative(page)}-{number}")
        for page in PAGES
        for number, (name, text) in enumerate(FENCE.findall(page.read_text()), 1)
        if name == language
    ]


@pytest.mark.parametrize("text", blocks("python"))
def test_python_examples_compile(text: str) -> None:
    compile(text, "example", "exec")


@pytest.mark.parametrize("text", blocks("toml"))
def test_machine_descriptions_and_firmware_profiles_load(text: str, tmp_path: Path) -> None:
    file = tmp_path / "events.toml"
    file.write_text(text)
    if "[[rule]]" in text:
        firmware_profile.load(file)
    else:
        MachineDescription.load(file)


# ---- reference


def test_printed_pages_are_up_to_date() -> None:
    pages = runpy.run_path(str(ROOT / "scripts" / "docgen.py"))["PAGES"]
    old = [name for name, page in pages.items() if (ROOT / name).read_text() != page()]
    assert not old, "run `python scripts/docgen.py`"


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff")
def test_manual_page_is_troff_without_a_warning() -> None:
    command = ["groff", "-man", "-ww", "-Tutf8", str(ROOT / "docs/man/qemu-sdei.1")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert result.stderr == ""
    assert "--no-pad-memory" in re.sub(".\b", "", result.stdout)  # bold is a letter over itself


def test_psci_page_has_each_function() -> None:
    text = (ROOT / "docs/reference/psci.md").read_text()
    rows = {match[0]: match[1] for match in re.findall(r"^\| ([A-Z0-9_]+) \| ([^|]+) \|", text, re.M)}
    assert set(rows) == {function.name for function in psci.Function}
    for function in psci.Function:
        assert f"{function:#010x}" in rows[function.name]


def test_sdei_page_has_each_function() -> None:
    text = (ROOT / "docs/reference/sdei.md").read_text()
    table = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    assert [function.name for function in sdei.Function if not re.search(rf"\b{function.name}\b", table)] == []


# ---- what no file may name

PLACES = re.compile(
    "|".join(
        # Put together here, so that this file does not name them.
        re.escape("".join(parts))
        for parts in (
            *(("/wo", "rk/"), ("/tmp", "/k/"), ("/opt/", "wheels"), ("/ro", "ot/.")),
            *(("py", "pi.org"), ("python", "hosted.org"), ("deb.", "debian.org"), ("security.", "debian.org")),
            *(
                ("ftp.", "debian.org"),
                ("npm", "js.org"),
                ("npm", "js.com"),
                ("crates", ".io"),
                ("proxy.", "golang.org"),
            ),
        )
    )
)


def test_no_file_names_this_machine_or_a_package_registry() -> None:
    found = []
    for path in files():
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if PLACES.search(line):
                found.append(f"{relative(path)}:{number}: {line.strip()[:120]}")
    assert not found
