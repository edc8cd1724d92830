"""`qemu-sdei report`: a trace as a page, and what is said of input that cannot be."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command
from tests.views import sample
from tests.views.pages import Page


@pytest.fixture
def lines(tmp_path: Path) -> Callable[..., Path]:
    """Write records as `trace --json` prints them."""

    def write(records: Iterable[dict[str, Any]], name: str = "trace.jsonl", end: str = "\n") -> Path:
        path = tmp_path / name
        path.write_text("\n".join(json.dumps(part) for part in (sample.meta().document(), *records)) + end)
        return path

    return write


def test_a_trace_becomes_a_page(command: Command, lines: Callable[..., Path], tmp_path: Path) -> None:
    trace = lines(sample.trace(200))
    (tmp_path / "console.txt").write_text("Booting Linux\n")
    done = command(
        "report",
        str(trace),
        "-o",
        str(tmp_path / "a.html"),
        "--console",
        str(tmp_path / "console.txt"),
        "--title",
        "<Hi>",
    )
    assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stderr
    assert "a.html: " in done.stdout
    assert "records" in done.stdout
    page = Page((tmp_path / "a.html").read_text())
    assert page.data["total"] == len(list(sample.trace(200)))
    assert "Booting Linux" in page.text
    assert "<Hi>" in page.text


def test_json(command: Command, lines: Callable[..., Path], tmp_path: Path) -> None:
    trace = lines(sample.trace(200))
    done = command("report", str(trace), "-o", str(tmp_path / "a.html"), "--records", "50", "--json", "-q")
    said = json.loads(done.stdout)
    assert said["listed"] == 50
    assert said["records"] > 150
    assert said["bytes"] == (tmp_path / "a.html").stat().st_size
    assert done.stderr == ""


def test_a_page_that_is_there_is_not_replaced(command: Command, lines: Callable[..., Path], tmp_path: Path) -> None:
    trace, page = lines(sample.trace(50)), tmp_path / "a.html"
    page.write_text("mine")
    done = command("report", str(trace), "-o", str(page))
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert page.read_text() == "mine"
    assert command("report", str(trace), "-o", str(page), "--force").returncode == 0
    assert page.read_text().startswith("<!doctype html>")


def test_a_trace_that_was_cut(command: Command, lines: Callable[..., Path], tmp_path: Path) -> None:
    trace = lines(sample.trace(100), end='\n{"n": 17, "type": "ca')
    assert command("report", str(trace), "-o", str(tmp_path / "a.html")).returncode == 0
    assert "Records are missing: 1" in Page((tmp_path / "a.html").read_text()).text


def test_a_trace_without_records(command: Command, lines: Callable[..., Path], tmp_path: Path) -> None:
    assert command("report", str(lines([])), "-o", str(tmp_path / "a.html")).returncode == 0
    assert "The trace has no records." in Page((tmp_path / "a.html").read_text()).text


@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff" * 5000, b"{}\n", b"[1, 2]\n", b'{"type": "trace", "version": 99}\n']
)
def test_what_is_no_trace(command: Command, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "noise").write_bytes(content)
    done = command("report", str(tmp_path / "noise"), "-o", str(tmp_path / "a.html"), "-q")
    assert done.returncode in (1, 2)
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "a.html").exists()


def test_input_that_cannot_be(command: Command, lines: Callable[..., Path], tmp_path: Path) -> None:
    trace, page = str(lines(sample.trace(50))), str(tmp_path / "a.html")
    os.mkfifo(tmp_path / "fifo")
    for words, wanted in (
        ((str(tmp_path / "nothing" / "here"),), "No such file"),
        (("nobody",), "no guest named 'nobody' is running"),
        ((str(tmp_path),), "guest.json"),
        ((trace, "--records", "0"), "from 1 to 500000"),
        ((trace, "--records", "1000000"), "from 1 to 500000"),
        ((trace, "--console", str(tmp_path / "fifo")), "not a regular file"),
        ((trace, "--console", str(tmp_path / "none")), "No such file"),
    ):
        done = command("report", *words, "-o", page, "-q")
        assert done.returncode == 2, done.stderr
        assert wanted in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert command("report", "-o", page).stderr == "qemu-sdei: error: no guest is running\n"
    assert command("report", trace, "-o", str(tmp_path / "no" / "a.html"), "-q").returncode == 2
    assert command("report", trace, "-o", str(tmp_path), "-q").returncode == 2


def test_only_the_end_of_a_long_console_is_read(command: Command, lines: Callable[..., Path], tmp_path: Path) -> None:
    trace = lines(sample.trace(50))
    with (tmp_path / "console").open("wb") as file:
        file.truncate(1 << 40)  # a terabyte that costs nothing
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe end\xff\n")
    done = command("report", str(trace), "-o", str(tmp_path / "a.html"), "--console", str(tmp_path / "console"))
    assert done.returncode == 0, done.stderr
    assert "the end\\xff" in Page((tmp_path / "a.html").read_text()).text
