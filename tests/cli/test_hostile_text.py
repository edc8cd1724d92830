"""Whatever names, paths, files, guests and peers say: a terminal shows it, and obeys none of it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import sys
import tempfile
import termios
import threading
import tty
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qemu_sdei import rundir
from qemu_sdei.acpi.fdt import Node, Tree, flatten
from qemu_sdei.acpi.tables.sdei import Sdei
from qemu_sdei.cli import main
from qemu_sdei.cli.output import Progress, print_json, print_table
from qemu_sdei.cli.screen import screened
from qemu_sdei.config import GuestConfig
from qemu_sdei.errors import GuestError, SdeiError
from qemu_sdei.host.environment import Finding
from qemu_sdei.printable import message_lines, printable
from qemu_sdei.ras import kinds
from qemu_sdei.ras.block import block
from qemu_sdei.ras.entry import entry
from qemu_sdei.rundir import RunDirectory
from qemu_sdei.vm.options import GuestOptions
from tests.examples import examples
from tests.library.test_control_client import Backend, result

OURS = re.compile(rb"\x1b\[(?:0|1|2|3|31|32|33|1;31)?m|\r\x1b\[K")
"""Colours of tables, and the line of `Progress`."""
FORGED = "qemu-sdei: all is well"
PARTS = (
    "\x1b[8m", "\x1b]0;title\x07", "\x1b]52;c;Zm9v\x1b\\", "\x1b]8;;http://x\x1b\\", "\x1b[2J", "\x9b31m", "\udc9b31m",
    "\udcff", "\u202e", "\u2066", "\u2069", "\u200b", "\ufeff", "\u2028", "\x7f", "\r", "\b", "\t", "\x85",
    f"\n{FORGED}\n",
    "[red]", "[/]", "[link=http://x]", ":smile:", "%s", "{0}", "\U000e0041", "\ud800", "x", " ", "é", "\x1b", "\x9d",
    "y" * 5000,
)  # fmt: skip
hostile = st.lists(st.one_of(st.sampled_from(PARTS), st.text(max_size=3)), min_size=1, max_size=6).map("".join)
word = hostile.map(lambda text: text.replace("\0", ""))
"""An argument of a command: it has no NUL."""


def named(text: str) -> str:
    """A file name with `text` in it, as far as one can be."""
    words = "".join(part for part in text if part not in "/\0" and not "\ud800" <= part <= "\udc7f")
    return os.fsdecode(os.fsencode(words)[:200])


def on_a_terminal(action: Callable[[], object]) -> str:
    """What `action` prints, on a terminal that changes nothing of it, without our own sequences; it is checked."""
    leader, follower = os.openpty()
    tty.setraw(follower)
    parts: list[bytes] = []

    def read() -> None:
        while True:
            try:
                if not (data := os.read(leader, 1 << 16)):
                    return
            except OSError:
                return
            parts.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    before = sys.stdout, sys.stderr
    # As Python opens its own.
    with os.fdopen(follower, "w", encoding="utf-8") as sys.stdout:
        sys.stderr = sys.stdout
        try:
            action()
        finally:
            sys.stdout.flush()
            sys.stdout, sys.stderr = before
    reader.join()
    os.close(leader)
    text = OURS.sub(b"", b"".join(parts)).decode()
    for line in text.split("\n"):
        bad = {character for character in line if not character.isprintable() and character != "\t"}
        assert not bad, (bad, line[:300])
        assert "\ufe0f" not in line
        assert not line.startswith(FORGED) or "Traceback" in text
    return text


def command(*words: str) -> str:
    def run() -> None:
        try:
            main(list(words))
        except Exception:  # then it is Python who prints
            sys.excepthook(*sys.exc_info())

    return on_a_terminal(run)


QUICK = settings(max_examples=examples(25), deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def wide(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


WORDS: list[Callable[[str], Sequence[str]]] = [
    lambda text: [text],
    lambda text: ["list", text],
    lambda text: ["run", "--smp", text],
    lambda text: ["run", "--kernel", text],
    lambda text: ["run", "--script", text],
    lambda text: ["run", "--name", text, "--kernel", "builtin:bench", "--dry-run"],
    lambda text: ["run", "--kernel", "builtin:bench", "--dry-run", "--qemu-arg", text],
    lambda text: ["run", "--drive", text, "--kernel", "builtin:bench"],
    lambda text: ["initramfs", "export", "--modules", text, "--kernel", text],
    lambda text: ["status", text],
    lambda text: ["explain", text],
    lambda text: ["firmware", text, "--set", text],
    lambda text: ["firmware", "--show", text],
    lambda text: ["run", "--firmware", text, "--kernel", "builtin:bench", "--dry-run"],
    lambda text: ["status", "--watch", text],
    lambda text: ["top", text],
    lambda text: ["events", text, "--event", text],
    lambda text: ["inject", text, "--event", text, "--vcpu", "0"],
    lambda text: ["nmi", text],
    lambda text: ["trace", "diff", text, text],
    lambda text: ["stop", text],
    lambda text: ["attach", text],
    lambda text: ["console", text],
    lambda text: ["exec", text, "--", text],
    lambda text: ["logs", text, "--since", text],
    lambda text: ["wait", text],
    lambda text: ["shell", text, "-c", text],
    lambda text: ["regs", text],
    lambda text: ["pause", text],
    lambda text: ["resume", text],
    lambda text: ["run", "--services", text],
    lambda text: ["run", "--smccc-filter", text],
    lambda text: ["report", text, "-o", "/dev/null"],
    lambda text: ["report", "/dev/null", "-o", text, "--title", text],
    lambda text: ["restore", text],
    lambda text: ["save", text, text],
    lambda text: ["snapshot", "list", text],
    lambda text: ["migrate", text, text],
    lambda text: ["migrate", text, "--to", text],
    lambda text: ["receive", "--listen", text],
    lambda text: ["doctor", "--qemu", text],
    lambda text: ["tables", "check", text],
    lambda text: ["tables", "show", text],
    lambda text: ["cper", "decode", text],
    lambda text: ["vmcore", text],
    lambda text: ["run", "--kdump", "--vmcore", f"/nonexistent/{text}", "--", "true"],
    lambda text: ["run", "--kdump", "--crashkernel", text, "--", "true"],
    lambda text: ["cper", "decode", "/dev/null", "--sections", text],
    lambda text: ["ras", text],
    lambda text: ["ras", "inject", text, "memory"],
    lambda text: ["ras", "inject", "x", text, "--dry-run"],
    lambda text: ["ras", "inject", "x", "memory", "--fru-text", text, "--dry-run"],
    lambda text: ["ras", "inject", "x", "memory", "--memory-error-type", text, "--expect-log", text],
    lambda text: ["ras", "inject", "x", "memory", "--malform", text, "--dry-run"],
    lambda text: ["ras", "inject", "x", "arm", "-t", text, "--dry-run"],
    lambda text: ["ras", "inject", "x", "--base64", text, "--dry-run"],
    lambda text: ["ras", "sources", text],
    lambda text: ["ras", "host-error", text, "--address", "0"],
    lambda text: ["ras", "host-error", "x", "--address", text, "--source", text],
    lambda text: ["ras", "abort", text],
    lambda text: ["ras", "abort", "x", "--address", text],
    lambda text: ["ras", "fuzz", text],
    lambda text: ["ras", "fuzz", "--resume", text],
    lambda text: ["ras", "fuzz", "x", "--source", text, "--keep", text, "--json", text],
    lambda text: ["ras", "fuzz", "x", "--replay", text],
    lambda text: ["ras", "victim", text, "--file", text],
    lambda text: ["dt", "--dtb", text],
    lambda text: ["completion", text],
    lambda text: ["conformance", "--only", text],
    lambda text: ["compare", "--firmware-image", text],
    lambda text: ["compare", "--firmware-image", "x", "--firmware-entry", text],
    lambda text: ["compare", "--firmware", text],
    lambda text: ["compare", "--replay", text],
    lambda text: ["crash", "matrix", "--endings", text],
    lambda text: ["crash", "matrix", "--firmware", text, "--series", "6.1"],
    lambda text: ["crash", "matrix", "--series", text],
    lambda text: ["crash", "matrix", "--kernel", text, "--client", text],
    lambda text: ["crash", "matrix", "--html", f"/nowhere/{text}"],
]


@settings(QUICK, max_examples=examples(100))
@given(word, st.sampled_from(WORDS))
def test_arguments(text: str, words: Callable[[str], Sequence[str]]) -> None:
    command(*words(text))


def table(text: str) -> bytes:
    """An SDEI table whose identifiers are bytes of `text`."""
    data = bytearray(Sdei().pack())
    raw = text.encode("utf-8", "replace" if not text.isascii() else "strict").ljust(18, b"\x1b")[:18]
    data[10:24], data[28:32] = raw[:14], raw[14:18]
    data[9] = 0
    data[9] = -sum(data) & 0xFF
    return bytes(data)


@QUICK
@given(hostile, hostile, st.binary(max_size=80))
def test_files(text: str, name: str, junk: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        one, two, tree = (os.path.join(folder, f"{n}{named(name)}") for n in "123")  # noqa: PTH118
        for path, data in ((one, table(text)), (two, table(text[::-1]) + junk), (tree, junk)):
            with open(path, "wb") as file:  # noqa: PTH123
                file.write(data)
        for words in (["show", one], ["check", one, two], ["diff", one, two], ["show", tree]):
            command("tables", *words)
        command("dt", "--dtb", tree)


@settings(QUICK, max_examples=examples(10))
@given(hostile, hostile)
def test_an_error_record(text: str, other: str) -> None:
    data = (text + other).encode("utf-8", "replace")[:128]
    section = kinds.Processor(cpu_brand_string=data.ljust(128, b"\0"))
    made = block([entry(section, fru_text=data[:20].ljust(20, b"\0"))])
    with tempfile.NamedTemporaryFile() as file:
        file.write(made.pack())
        file.flush()
        for words in (["decode"], ["decode", "--json"], ["check"]):
            command("cper", *words, file.name)
        file.truncate(0)
        file.seek(0)
        file.write(json.dumps({text: other, "sections": [{other: text}]}).encode())
        file.flush()
        command("cper", "decode", file.name)


@QUICK
@given(hostile, hostile)
def test_a_device_tree(node: str, value: str) -> None:
    def utf8(text: str) -> str:
        return text.replace("/", "").replace("\0", "").encode("utf-8", "replace").decode()[:60] or "x"

    inner = Node(utf8(node), {utf8(value)[:30]: utf8(value).encode() + b"\0"})
    try:
        blob = flatten(Tree(Node("", {"compatible": utf8(node).encode() + b"\0"}, [inner])))
    except (SdeiError, ValueError):
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(blob)
        file.flush()
        for form in ("dts", "dtb"):
            command("dt", "--dtb", file.name, "--format", form)


def leaves(value: Any, text: str) -> Any:
    """`value` with `text` for each string in it."""
    if isinstance(value, dict):
        return {key: leaves(entry, text) for key, entry in value.items()} | {text: text}
    if isinstance(value, list):
        return [leaves(entry, text) for entry in value]
    return text if isinstance(value, str) else value


STATUS = {
    "name": "g", "epoch": 1, "counts": {"calls": 1},
    "firmware": {"profile": "p", "summary": "s", "rules": [{"rule": "r", "why": "w", "acted": 1}], "deaf": [0],
                 "stuck": [], "held": []},
    "pes": [{"pe": 0, "affinity": 0, "power": "on", "masked": False, "running": [0], "calls": {"SDEI_VERSION": 1}}],
    "events": [
        {"event": 0, "name": "e", "type": "shared", "priority": "normal", "instances": [
            {"pe": None, "registered": True, "enabled": True, "running": False, "pending": False,
             "triggers": {"accepted": 1, "merged": 0, "dropped": 0, "delivered": 1}}
        ]}
    ],
}  # fmt: skip


@pytest.fixture
def guest(runtime: Path) -> Iterator[tuple[RunDirectory, Backend]]:
    """A guest that runs, as far as its directory and its backend's socket tell."""
    directory = RunDirectory.create("g")
    backend = Backend(directory / rundir.CONTROL, lambda request: result(request))
    try:
        yield directory, backend
    finally:
        backend.close()
        directory.remove()


@QUICK
@given(text=hostile, refuses=st.booleans())
def test_a_guest_and_its_backend(guest: tuple[RunDirectory, Backend], text: str, refuses: bool) -> None:
    directory, backend = guest
    config = GuestConfig("g", 1, text, 128 << 20, boot={"kernel": text})
    (directory / rundir.CONFIG).write_text(config.to_json())
    (directory / rundir.RUN).write_text(json.dumps({"format": text, "plan": text}))

    def answer(request: dict[str, Any]) -> bytes:
        if request.get("cmd") == "hello":
            return result(request, protocol=1, version=1, name="g", epoch=text, pid=text, nr_cpus=1)
        if refuses:
            refusal = {"id": request["id"], "ok": False, "error": {"kind": text, "message": text}}
            return json.dumps(refusal).encode() + b"\n"
        found = leaves(STATUS, text)
        return result(request, **(found["firmware"] if request.get("cmd") == "firmware" else found))

    backend.answer = answer
    shown = command("list")
    assert "\x1b" not in shown
    for words in (
        ["status", "-v"],
        ["explain"],
        ["firmware"],
        ["firmware", "-v", "--clear"],
        ["events"],
        ["inject", "--event", "0", "--vcpu", "0"],
        ["nmi"],
        ["regs"],
        ["status", "--json"],
    ):
        command(words[0], "g", *words[1:])


@QUICK
@given(hostile, hostile)
def test_errors_with_a_guests_words(text: str, other: str) -> None:
    """A guest's console lines, QEMU's words and a command line: each on its own lines, which are indented."""

    def say() -> None:
        from qemu_sdei import cli

        def fail(_: object) -> int:
            raise GuestError(text, command=["qemu", other], console=[text, other], output=f"{text}\n{other}")

        class Args:
            run = staticmethod(fail)

        with screened():
            cli._guarded(Args)  # type: ignore[arg-type]

    shown = on_a_terminal(say)
    assert all(line.startswith("  ") for line in shown.split("\n")[1:-1])


@QUICK
@given(hostile)
def test_tables_progress_and_json(text: str) -> None:
    def show() -> None:
        with screened():
            print_table(text, ["a", text], [[text, 1], [None, text]])
            print_json({text: [text]})
            with Progress() as progress:
                progress(text)
            print(text.replace("\n", ""))  # what is printed without a thought

    on_a_terminal(show)


def test_json_is_whole_however_long(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"all": "0123456789" * 20_000, "é": "\x1b\x7f\udc9b"}
    with screened():
        print_json(value)
    assert json.loads(capsys.readouterr().out) == value
    assert json.loads(on_a_terminal(lambda: _screened_json(value))) == value


def _screened_json(value: object) -> None:
    with screened():
        print_json(value)


def test_progress_is_one_line_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What went on in the next line stayed there, once for each turn of the wheel."""
    monkeypatch.setattr("qemu_sdei.cli.output._TICK", 1000.0)

    def show() -> None:
        fcntl.ioctl(sys.stderr.fileno(), termios.TIOCSWINSZ, struct.pack("4H", 24, 40, 0, 0))
        with Progress() as progress:
            for text in ("short", "/a/long/path" * 10, "漢" * 30, "é" * 39):
                progress(text)

    for line in on_a_terminal(show).split("|")[1:]:
        assert sum(2 if character == "漢" else 1 for character in line) < 40


def test_markup_is_shown_as_it_is() -> None:
    text = "[red]a[/red] [link=http://x]b[/link] :smile:"
    shown = on_a_terminal(lambda: print_table(text, [text], [[text]]))
    assert shown.count(text) == 3


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢 [red]", "plain é 漢 [red]"),
        ("\x1b[31m\x9b\udc9b\x7f", r"\x1b[31m\x9b\x9b\x7f"),
        ("a\n\r\tb", r"a\n\r\tb"),
        ("\u202ea\u2066b\u200b\ufeff", r"\u202ea\u2066b\u200b\ufeff"),
        ("\ufe0f\U000e0041\ud800", r"\ufe0f\U000e0041\ud800"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def test_only_what_is_indented_is_a_line_of_its_own() -> None:
    message = f"x failed:\n  x.c:1: error\n    1 | foo\x1b\n{FORGED}"
    assert message_lines(message) == ["x failed:", "  x.c:1: error", rf"    1 | foo\x1b\n{FORGED}"]


def test_doctor_shows_what_a_trial_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    finding = Finding("a guest", None, True, "a trial", "QEMU ended\n  QEMU said: one\n    two", tried=True)
    monkeypatch.setattr("qemu_sdei.host.environment.check", lambda _: [])
    monkeypatch.setattr("qemu_sdei.cli.doctor_trials.places", list)
    monkeypatch.setattr("qemu_sdei.cli.doctor_trials.guest", lambda _: finding)
    assert main(["doctor", "-q"]) == 1
    table, _, rest = capsys.readouterr().out.partition("\n\n")
    assert table.splitlines()[1].split() == ["a", "guest", "failed"]
    assert rest == "a guest (needed: a trial): QEMU ended\n  QEMU said: one\n    two\n"


def test_a_long_one_keeps_its_end() -> None:
    shown = printable("x" * 1_000_000 + ": do this")
    assert len(shown) < 5000
    assert shown.endswith(": do this")


def test_the_guests_own_output_comes_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    from qemu_sdei.cli.run_command import _run_command
    from qemu_sdei.guest.shell import CommandResult

    class Talking:
        options = GuestOptions()
        placement = SimpleNamespace(plan=SimpleNamespace(options=options))

        def start(self) -> None:
            pass

        def wait_command(self, output: Callable[[str], None], *_: object, **__: object) -> CommandResult:
            output("\x1b[31mred\x1b[0m\r\n")
            return CommandResult(0, "")

    with screened():
        _run_command(Talking(), Namespace(json=False, verbose=0, timeout=None), Progress(quiet=True))  # type: ignore[arg-type]
    assert capsys.readouterr().out == "\x1b[31mred\x1b[0m\r\n"


@contextmanager
def _unchanged() -> Iterator[None]:
    before = sys.stdout, sys.stderr
    yield
    assert (sys.stdout, sys.stderr) == before


def test_a_traceback_is_screened_too() -> None:
    """What nobody caught is printed by Python, after `main`."""
    with _unchanged():

        def fail() -> None:
            with screened():
                raise ValueError("\x1b]0;x\x07")

        def run() -> None:
            try:
                fail()
            except ValueError:
                sys.excepthook(*sys.exc_info())

        assert r"ValueError: \x1b]0;x\x07" in on_a_terminal(run)
