"""`qemu-sdei trace`: as a file for Perfetto, and with the guest's own ftrace."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from tests.cli.conftest import Command
from tests.trace.records import META, one_of_each
from tests.trace.test_ftrace import HEADER, quiet


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A trace with a record of each kind."""
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in (META, *one_of_each())))
    return path


def test_a_file_for_perfetto_is_written(command: Command, trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pftrace"
    done = command("trace", str(trace), "--perfetto", str(out))
    assert done.returncode == 0
    assert "ui.perfetto.dev" in done.stdout
    read = pb.Trace()
    read.ParseFromString(out.read_bytes())
    assert any(packet.track_event.name == "SDEI_EVENT_REGISTER" for packet in read.packet)


def test_without_the_package_a_file_that_is_there_stays(
    command: Command, trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("perfetto"):
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    out = tmp_path / "out.pftrace"
    out.write_text("what was there")
    monkeypatch.setattr(builtins, "__import__", without)
    done = command("trace", str(trace), "--perfetto", str(out))
    assert done.returncode == 2
    assert done.stderr.strip().endswith("pip install 'qemu-sdei[perfetto]'")
    assert done.stderr.count("\n") == 1
    assert out.read_text() == "what was there"


def test_ftrace_s_lines_stand_among_ours(command: Command, tmp_path: Path) -> None:
    guest = quiet()
    guest.read_counter(guest.machine.now - 500_000)
    guest.line("on_event: x", guest.machine.records[15].true_ns + 100_000)
    text, trace = tmp_path / "ftrace", tmp_path / "trace.jsonl"
    text.write_text(HEADER + "".join(guest.lines))
    placed = ({**seen.record, "at_ns": seen.true_ns, "at_error_ns": 0} for seen in guest.machine.records)
    trace.write_text("".join(json.dumps(record) + "\n" for record in (META, *placed)))
    done = command("trace", str(trace), "--ftrace", str(text))
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    (line,) = [n for n, line in enumerate(lines) if "on_event" in line]
    assert line == 17
    assert "name=ftrace lines=3 not_understood=0" in lines[16]
    as_json = command("trace", str(trace), "--ftrace", str(text), "--filter", "ftrace", "--json")
    (found,) = [record for line in as_json.stdout.splitlines() if (record := json.loads(line))["type"] == "ftrace"]
    assert found["at_error_ns"] < 60_000


@pytest.mark.parametrize(("text", "message"), [("noise\n", "no line of ftrace"), (None, "cannot be read")])
def test_an_ftrace_that_is_none_is_one_line(
    command: Command, trace: Path, tmp_path: Path, text: str | None, message: str
) -> None:
    path = tmp_path / "ftrace"
    if text is not None:
        path.write_text(text)
    done = command("trace", str(trace), "--ftrace", str(path))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert message in done.stderr
