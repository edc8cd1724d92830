"""`qemu-sdei ras inject`: what is typed becomes the record that is reported, and the exit code says what came of it."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei import rundir
from qemu_sdei.cli import ras_reporting
from qemu_sdei.guest.ras_access import RasAccess
from qemu_sdei.ras.addresses import addresses
from qemu_sdei.ras.block import Block, block, parse_block
from qemu_sdei.ras.entry import entry
from qemu_sdei.ras.kinds import Arm, Memory
from qemu_sdei.ras.libcper import to_json
from tests.cli.conftest import Command
from tests.library.ras_fakes import FakeGuest, source

SIGNAL = "signal_generate: sig=7 errno=0 code=4 comm=sh pid=123 grp=0 res=0"


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeGuest:
    """The guest `g` that is asked."""
    fake = FakeGuest()

    @contextlib.contextmanager
    def of_running(running: rundir.Running, *, console: bool) -> Iterator[RasAccess]:
        yield fake.access()

    monkeypatch.setattr(ras_reporting, "of_running", of_running)
    monkeypatch.setattr(rundir, "find", lambda name: rundir.Running(name, tmp_path, 1))
    return fake


def reported(guest: FakeGuest) -> Block:
    ((_, data, _),) = guest.reports
    return parse_block(data)


def dry(command: Command, *words: str) -> Block:
    """The record that these words make."""
    done = command("ras", "inject", "g", *words, "--dry-run", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return parse_block(bytes.fromhex(json.loads(done.stdout)["bytes"]))


def test_sections_and_what_goes_for_all(command: Command) -> None:
    made = dry(
        command, "memory", "--physical-address", "0x41e78000", "--severity", "recoverable", "--fru-text", "DIMM A1",
        "+", "arm", "-t", "cache", "-p", "0x41e78000", "--severity", "corrected",
        "+", "pcie", "--device-id.primary-bus-number", "1",
    )  # fmt: skip
    assert [each.section.kind.name for each in made.entries] == ["memory", "arm", "pcie"]
    assert [each.severity for each in made.entries] == [0, 2, 0]
    assert [each.about["fru_text"].rstrip(b"\0") for each in made.entries] == [b"DIMM A1"] * 3
    assert made.severity == 0


def test_options_may_stand_on_both_sides_of_the_section(command: Command) -> None:
    for words in (
        ["--severity", "fatal", "memory", "--node", "1"],
        ["memory", "--node", "1", "--severity=fatal"],
        # Its value is the name of a section.
        ["--source", "memory", "--severity", "fatal", "memory", "--node", "1"],
    ):
        made = dry(command, *words)
        assert (made.severity, made.entries[0].section["node"]) == (1, 1)


def test_a_type_that_nobody_knows_is_bytes(command: Command) -> None:
    guid = "12345678-1234-1234-1234-123456789abc"
    (found,) = dry(command, guid, "--data", "00ff 10").entries
    assert (str(found.section.kind.guid), found.section.pack()) == (guid, b"\x00\xff\x10")


def test_the_words_of_qemus_script_make_an_arm_section(command: Command) -> None:
    (found,) = dry(
        command, "arm", "-a", "1", "-l", "0x80000000", "-i", "0x410fd083", "-r", "--psci", "3", "--vendor", "beef",
        "-t", "cache,tlb", "micro-arch", "-f", "first", "propagated,overflow", "-m", "1", "2", "-e", "0x91000f",
        "-p", "0x41e78000", "-v", "0x1000", "0x2000", "--ctx-type", "4", "--ctx-size", "16", "--ctx-array", "1,2,3",
    ).entries  # fmt: skip
    wanted = Arm(
        error_affinity_level=1,
        mpidr_el1=0x80000000,
        midr_el1=0x410FD083,
        running_state=1,
        psci_state=3,
        error_information=[
            {
                "type": 6, "flags": 1, "multiple_error": 1, "error_information": 0x91000F,
                "physical_fault_address": 0x41E78000, "virtual_fault_address": 0x1000,
            },
            {
                "type": 16, "flags": 12, "multiple_error": 2, "error_information": 0x91000F,
                "physical_fault_address": 0x41E78000, "virtual_fault_address": 0x2000,
            },
        ],
        context_information=[
            {"register_context_type": 4, "register_array": bytes([1, *bytes(7), 2, *bytes(7)])},
        ],
        vendor_specific_information=b"\xbe\xef",
    )  # fmt: skip
    assert found.section.pack() == wanted.pack()


def test_records_from_elsewhere_are_reported_as_they_are(command: Command, guest: FakeGuest, tmp_path: Path) -> None:
    wanted = block([entry(Memory(physical_address=0x41E78000), "recoverable", fru_text="x")])
    file = tmp_path / "record.json"
    file.write_text(json.dumps(to_json(wanted)))
    for words in (["--record", str(file)], ["--record", "-"], ["--base64", wanted.base64()], ["--replay", str(file)]):
        guest.reports.clear()
        done = command("ras", "inject", "g", *words, input=file.read_text())
        assert done.returncode == 0, done.stderr
        assert reported(guest).pack() == wanted.pack()


def test_the_next_boot_is_told_and_nobody_now(command: Command, guest: FakeGuest) -> None:
    words = ("ras", "inject", "g", "firmware", "--severity", "fatal", "--next-boot")
    done = command(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "firmware, fatal, 124 bytes: kept for the BERT of the next boot\n"
    assert json.loads(command(*words, "--json", "--count", "2").stdout) == {"guest": "g", "kept": [124, 124]}
    assert [parse_block(data).severity for data in guest.kept] == [1, 1, 1]
    assert not guest.reports
    done = command(*words, "--expect-panic")
    assert (done.returncode, "leave out --next-boot" in done.stderr) == (2, True)


def test_the_former_words_work_and_warn(command: Command, guest: FakeGuest, tmp_path: Path) -> None:
    wanted = block([entry(Memory(physical_address=0x41E78000), "recoverable")])
    file = tmp_path / "record.json"
    file.write_text(json.dumps(to_json(wanted)))
    for words in (["--json", str(file)], [f"--json={file}"], ["--json", "-"]):
        guest.reports.clear()
        done = command("ras", "inject", "g", *words, input=file.read_text())
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith("qemu-sdei: warning: --json FILE is --record FILE now")
        assert reported(guest).pack() == wanted.pack()
    done = command("ras", "inject", "g", "--json", "memory", "--dry-run")
    assert json.loads(done.stdout)["bytes"], "what follows is a section, and no file"
    assert done.stderr == ""
    done = command("ras", "inject", "g", "memory", "--dry-run", "--json-output")
    assert json.loads(done.stdout)["bytes"]
    assert "warning: --json-output is --json now" in done.stderr


def test_a_log_is_replayed_record_by_record(command: Command, guest: FakeGuest, tmp_path: Path) -> None:
    several = [block([entry(Memory(node=number))]) for number in range(3)]
    log = tmp_path / "log"
    log.write_text(json.dumps([to_json(each) for each in several]))
    assert command("ras", "inject", "g", "--replay", str(log)).returncode == 0
    assert [data for _, data, _ in guest.reports] == [each.pack() for each in several]
    assert command("ras", "inject", "g", "--record", str(log)).returncode == 2


def test_repeated_errors_are_at_addresses_that_differ(command: Command, guest: FakeGuest) -> None:
    def places(*words: str) -> list[int]:
        guest.reports.clear()
        assert command("ras", "inject", "g", "memory", "--count", "4", *words).returncode == 0
        found = [addresses(parse_block(data).entries[0].section) for _, data, _ in guest.reports]
        return [address for each in found for address in each]

    assert places("--address", "0x41e78000") == [0x41E78000 + n * 4096 for n in range(4)]
    assert places("--physical-address", "0x41e78000") == [0x41E78000 + n * 4096 for n in range(4)]
    assert places() == []
    first = places("--random", "7")
    assert len(set(first)) == 4
    assert places("--random", "7") == first != places("--random", "8")


def test_what_came_is_exit_code_0_and_what_did_not_1(command: Command, guest: FakeGuest) -> None:
    guest.trace = [SIGNAL]
    words = ("ras", "inject", "g", "memory", "--severity", "recoverable", "--pid", "123", "--timeout", "0.1")
    done = command(*words, "--expect-sigbus", "123:4")
    assert (done.returncode, done.stderr) == (0, "")
    assert "in a page of process 123 (sh, [stack]) at 0x41e78000: handled in 800 µs, read and acknow" in done.stdout
    assert "came: SIGBUS 4 (BUS_MCEERR_AR) to process 123\n" in done.stdout
    guest.trace = []
    done = command(*words, "--expect-sigbus", "123:4")
    assert done.returncode == 1
    assert "no SIGBUS with si_code 4 (BUS_MCEERR_AR) came to process 123: no process got one" in done.stderr


def test_scripts_get_it_as_json(command: Command, guest: FakeGuest) -> None:
    guest.trace = [SIGNAL]
    done = command("ras", "inject", "g", "memory", "--pid", "123", "--json", "--expect-sigbus", "123:4")
    document = json.loads(done.stdout)
    assert document["page"]["physical"] == 0x41E78000
    assert document["reports"][0]["outcome"] == "completed"
    assert document["observed"]["signals"] == [{"pid": 123, "code": 4, "address": None, "lsb": None}]


BAD: list[tuple[list[str], str]] = [
    ([], "say which error"),
    (["nosuch"], "there is no section 'nosuch'"),
    (["memory", "--bogus", "1"], "unrecognized arguments: --bogus 1"),
    (["memory", "--node"], "expected one argument"),
    (["memory", "--node", "x"], "memory: node: 'x' is not a number"),
    (["memory", "+"], "+ stands between sections"),
    (["memory", "--severity", "bad"], "'bad' is no severity"),
    (["memory", "--pid", "99"], "there is no process 99"),
    (["memory", "--pid", "x"], "--pid 'x' is not a process"),
    (["memory", "--pid", "123", "--address", "1"], "leave out --address"),
    (["memory", "--pid", "123", "--count", "2"], "--pid is of one page"),
    (["memory", "--virtual", "1"], "give --pid too"),
    (["memory", "--address", "1"], "is no RAM of the guest"),
    (["memory", "--address", "x"], "--address 'x' is not a number"),
    (["pcie", "--address", "0x40000000"], "no section here says a physical address"),
    (["memory", "--count", "0"], "--count 0 is not possible"),
    (["memory", "--rate", "0"], "--rate 0 is not possible"),
    (["memory", "--timeout", "nan"], "--timeout nan is not possible"),
    (["memory", "--expect-sigbus", "1"], "write PID:CODE"),
    (["memory", "--expect-log", "("], "is not a regular expression"),
    (["memory", "--expect-trace", "x y"], "is not a trace event"),
    (["memory", "--expect-offline"], "give one of them"),
    (["memory", "--source", "x"], "there is no error source 'x'"),
    (["memory", "--record", "-"], "give the error once"),
    (["--record", "-"], "it is not JSON of an error record"),
    (["--base64", "%%%"], "--base64"),
    (["--base64", base64.b64encode(b"abc").decode()], "--base64: offset 0x0"),
    (["--replay", "/nonexistent"], "error records /nonexistent cannot be read"),
    (["memory", "--raw-data", "zz"], "no hexadecimal digits"),
    (["arm", "-t", "nosuch"], "'nosuch' is not one of cache, tlb"),
    (["arm", "-p", "x"], "'x' is not a number"),
    (["memory", "--memory-error-type", "scrub-corrected-error", "--severity", "fatal"], "its severity is fatal"),
]


@pytest.mark.parametrize(("words", "message"), BAD)
def test_a_mistake_is_one_line_and_nothing_is_written(
    command: Command, guest: FakeGuest, words: list[str], message: str
) -> None:
    done = command("ras", "inject", "g", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not guest.reports


def test_unknown_fields_of_json_are_refused(command: Command, guest: FakeGuest) -> None:
    document = to_json(block([entry(Memory(node=1))]))
    document["sections"][0]["Memory"]["nosuch"] = 1
    done = command("ras", "inject", "g", "--record", "-", input=json.dumps(document))
    assert done.returncode == 2
    assert "there is no 'nosuch' in a Memory Error Section" in done.stderr
    assert not guest.reports


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"ready": False, "reason": "event 0x324 is not registered"}, "cannot report now: event 0x324 is not"),
        ({"block": 100}, "the block of error source 'ghes' has 100"),
        ({"state": "unread"}, "has not read yet"),
    ],
)
def test_a_source_that_cannot_take_it_says_why(
    command: Command, guest: FakeGuest, state: dict[str, Any], message: str
) -> None:
    guest.sources = [source(**state)]
    done = command("ras", "inject", "g", "memory")
    assert (done.returncode, guest.reports) == (2, [])
    assert message in done.stderr


def test_help_lists_the_fields_of_a_section(command: Command) -> None:
    done = command("ras", "inject", "g", "memory", "--help")
    assert done.returncode == 0
    assert "--memory-error-type V" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.split("\n"))


def test_what_a_guest_says_changes_nothing_at_a_terminal(command: Command, guest: FakeGuest) -> None:
    guest.log = ["\x1b[2J\x1b]0;title\x07 evil"]
    guest.trace = ["memory_failure_event: \x1b[31mred"]
    guest.sources = [source(reason="\x1b[2J")]
    done = command("ras", "inject", "g", "memory")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "evil" in done.stdout
