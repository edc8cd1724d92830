"""The conformance suite on our firmware, on firmware without SDEI, and told wrong things of the machine."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from qemu_sdei.acpi import fdt
from qemu_sdei.conformance import Outcome, Report, build, run
from qemu_sdei.conformance.listing import LAST
from qemu_sdei.conformance.tap import Parser, Result
from qemu_sdei.guestbuild import Layout
from qemu_sdei.guestcompile import find_compiler
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import command
from tests.guest.test_bare_metal import ENTRY, QEMU, SHIM, shim

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(shutil.which("qemu-system-aarch64") is None, reason="no qemu-system-aarch64"),
]

ELSEWHERE = {55, *range(87, 98)}
"""Scenarios that no bare-metal client can express."""
NEEDS = {2: "a 1.0 firmware", 7: "firmware without SDEI", 39: "a CPU with PAN"}
"""Scenarios that skip with our firmware's defaults."""

TF_A_LIKE = """
[sdei]
version = "1.0"
vendor = 0
signal = "invalid"
[slots]
private = 2
shared = 3
[[event]]
number = 0
name = "software"
signalable = true
[[event]]
number = 0x40
name = "private"
"""


def results(report: Report) -> dict[int, Result]:
    return {result.number: result for result in report.results}


def failures(report: Report, *fine: Outcome) -> str:
    """All that is known of the scenarios that came to anything else than `fine`, for a person to read; empty: none."""
    lines = []
    for result in report.results:
        if result.outcome not in fine:
            lines += [f"{result.number}: {result.outcome.name}: {result.reason}", f"  {result.details} {result.notes}"]
            lines += [f"  {note}" for note in result.trace]
    if lines:
        lines += [*report.firmware, f"guests: {report.starts}; in {report.seconds:.1f} s"]
    return "\n".join(lines)


def check(report: Report, skipped: set[int]) -> None:
    """All passed but those that are `skipped`; each scenario is told once."""
    found = results(report)
    assert len(report.results) == len(found) == LAST
    assert not failures(report, Outcome.PASS, Outcome.SKIP)
    assert {number for number, result in found.items() if result.outcome is Outcome.SKIP} == skipped | ELSEWHERE
    assert all(result.source for result in found.values())
    assert report.starts == 1


@pytest.mark.parametrize(
    ("cpu", "virtualization", "smp"),
    [
        pytest.param("cortex-a72", False, 4, marks=pytest.mark.smoke),
        # Each by itself, and together in the next one.
        pytest.param("cortex-a72", True, 4, marks=pytest.mark.slow),
        pytest.param("max", False, 4, marks=pytest.mark.slow),
        ("max", True, 2),
        pytest.param("cortex-a72", False, 8, marks=pytest.mark.slow),
    ],
    ids=["EL1", "EL2", "max", "max-EL2", "eight-CPUs"],
)
def test_our_firmware_conforms(cpu: str, virtualization: bool, smp: int) -> None:
    report = run(GuestOptions(cpu=cpu, virtualization=virtualization, smp=smp, memory="128M"))
    check(report, set(NEEDS) - ({39} if cpu == "max" else set()))
    assert not [result.notes for result in report.results if result.notes], "tried with each kind of event"


def test_one_cpu_leaves_out_what_needs_two() -> None:
    report = run(GuestOptions(smp=1, memory="128M"))
    assert not failures(report, Outcome.PASS, Outcome.SKIP)
    assert report.count(Outcome.PASS) > 50


def test_a_firmware_configured_as_tf_a(tmp_path: Path) -> None:
    """1.0, vendor 0, SIGNAL refused to those that are not ready, no static shared event: shared is the bound SPI."""
    events = tmp_path / "events.toml"
    events.write_text(TF_A_LIKE)
    report = run(GuestOptions(smp=4, memory="128M", events=events))
    check(report, (set(NEEDS) - {2}) | {32, 33, 74, 77})
    assert "shared event" in " ".join(results(report)[78].notes)


def test_the_same_by_switches() -> None:
    """What is left out: the static events are those of the built-in description."""
    options = GuestOptions(
        smp=2, memory="128M", sdei_version="1.0", sdei_vendor=0, sdei_signal="invalid", sdei_slots=(2, 3)
    )
    report = run(options, scenarios="1,2,9,11,65,73")
    assert {result.outcome for result in report.results} == {Outcome.PASS}
    assert report.firmware[0] == "firmware: SDEI 1.0, vendor 0x0; 2 CPUs at EL1; bind slots: 2 private, 3 shared"


def test_our_firmware_without_sdei() -> None:
    report = run(GuestOptions(smp=2, memory="128M", sdei=False))
    assert {result.number for result in report.results if result.outcome is Outcome.PASS} == {7}
    assert report.count(Outcome.FAIL) == 0
    assert report.firmware == ("firmware: no SDEI; 2 CPUs at EL1",)


def test_events_are_found_by_asking() -> None:
    """The last of two equal words counts, and event 0 as `none` of each leaves the search to the guest."""
    words = "private=0 critical=0 shared=0 shared_critical=0"
    report = run(GuestOptions(smp=2, memory="128M", append=words), scenarios="76-78,26")
    assert {result.outcome for result in report.results} == {Outcome.PASS}
    assert "events: private 0x100, critical 0x103, shared 0x200, shared critical 0x202" in report.firmware[1]


def test_any_subset_in_any_order() -> None:
    generator = random.Random(3)
    numbers = [n for n in range(1, 87) if n not in ELSEWHERE | set(NEEDS)]
    for _ in range(3):
        chosen = generator.sample(numbers, 12)
        report = run(GuestOptions(smp=3, memory="128M"), scenarios=",".join(map(str, chosen)))
        assert [result.number for result in report.results] == chosen
        assert not failures(report, Outcome.PASS)


def test_what_does_not_conform_is_told(runtime: Path) -> None:
    """The suite is told that a private event is shared: GET_INFO says something else than the rules then."""
    done = command(runtime, "conformance", "-q", "--memory", "128M", "--filter", "26,25", "--append", "shared=0x101")
    output = done.communicate(timeout=100)[0].decode()
    assert done.returncode == 1
    assert "1 passed, 1 failed, 0 skipped in " in output
    for text in (
        "26  not ok",
        "    call:      EVENT_GET_INFO(0x101, 0x0)\n",
        "    expected:  1\n",
        "    got:       0 (SUCCESS)\n",
        "    subject:   shared event 0x101\n",
        "    where:     state.c:",
        "        CPU 0: EVENT_GET_INFO(0x101, 0x0) = 0\n",
        "    trace:\n",
        "call:        SDEI_EVENT_GET_INFO event=0x101",
    ):
        assert text in output, text


def test_output_for_programs(runtime: Path) -> None:
    done = command(runtime, "conformance", "-q", "--memory", "128M", "--filter", "1,2", "--json")
    document = json.loads(done.communicate(timeout=100)[0])
    assert done.returncode == 0
    assert (document["ok"], document["passed"], document["failed"], document["skipped"]) == (True, 1, 0, 1)
    assert document["results"][0] | {"name": ""} == {
        "number": 1,
        "name": "",
        "source": "ACS18, LNX",
        "outcome": "ok",
        "reason": "",
        "details": {},
        "notes": [],
        "trace": [],
    }
    done = command(runtime, "conformance", "-q", "--memory", "128M", "--filter", "12,1", "--tap")
    lines = done.communicate(timeout=100)[0].decode().splitlines()
    assert lines[:3] == ["TAP version 13", f"1..{LAST}", "ok 1 - " + lines[2].partition(" - ")[2]]
    assert [line.split()[1] for line in lines[2:]] == [str(n) for n in range(1, LAST + 1)]


def foreign(folder: Path, start: bytes, *machine: str) -> dict[int, Result]:
    """The guest on QEMU's own PSCI, which has no SDEI, by HVC."""
    (folder / "shim").write_bytes(start)
    options = ["-M", "virt,gic-version=3", "-cpu", "cortex-a72", "-smp", "2", "-m", "64", "-display", "none"]
    options += ["-nodefaults", "-no-reboot", "-serial", "stdio", *machine]
    options += ["-device", f"loader,file={folder}/shim,addr={SHIM:#x},cpu-num=0,force-raw=on"]
    options += ["-device", f"loader,file={Layout().data}/conformance.bin,addr={ENTRY:#x},force-raw=on"]
    done = subprocess.run([QEMU or "", *options], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    parser = Parser()
    return {item.number: item for item in [*parser.feed(done.stdout), *parser.finish()] if isinstance(item, Result)}


def test_firmware_without_sdei(tmp_path: Path) -> None:
    found = foreign(tmp_path, shim("conduit=hvc smp=2"))
    assert found[7].outcome is Outcome.PASS
    assert {result.reason for number, result in found.items() if number not in ELSEWHERE | {7}} == {
        "the firmware has no SDEI"
    }


def test_words_from_the_device_tree(tmp_path: Path) -> None:
    """As a boot loader enters it that knows of no command line in x1."""
    root = fdt.Node("")
    root.ensure("cpus").ensure("cpu@0").set_text("device_type", "cpu")
    root.ensure("chosen").set_text("stdout-path", "/pl011")
    root.ensure("chosen").set_text("bootargs", "conduit=hvc smp=2 filter=7,12")
    tree = 0x4018_0000
    (tmp_path / "dtb").write_bytes(fdt.flatten(fdt.Tree(root)))
    words = (
        0xD2A0_0000 | (tree >> 16) << 5,
        0xAA1F_03E1,
        0xD2A0_0000 | (ENTRY >> 16) << 5 | 2,
        0xF280_0000 | 2,
        0xD61F_0040,
    )
    start = b"".join(word.to_bytes(4, "little") for word in words)  # movz x0; mov x1, xzr; movz, movk x2; br x2
    found = foreign(tmp_path, start, "-device", f"loader,file={tmp_path}/dtb,addr={tree:#x},force-raw=on")
    assert found[7].outcome is Outcome.PASS
    assert found[12].reason == "the firmware has no SDEI"
    assert found[13].reason == "not selected"


OWN = Path(__file__).parent.parent / "conformance" / "scenarios"
"""A folder as a user has one: scenarios that go wrong in each way that the suite must survive."""
needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no compiler for AArch64")


@needs_compiler
def test_scenarios_of_ones_own(tmp_path: Path) -> None:
    """Exceptions wherever they come are failures with their syndrome, and no guest ends for them."""
    options = GuestOptions(smp=2, memory="128M")
    report = run(options, scenarios="201-207,210,1", own=build(OWN, tmp_path))
    assert report.starts == 1
    found = results(report)
    assert [(n, r.outcome.value) for n, r in found.items() if r.outcome is not Outcome.FAIL] == [
        (201, "ok"),
        (205, "ok"),
        (206, "ok"),
        (1, "ok"),
    ]
    for number, cpu in ((202, "0"), (203, "0"), (204, "1")):
        details = found[number].details
        what = re.fullmatch(
            r"exception at vector 4, ESR (0x96\w+) ELR 0x402\w+ FAR 0xfffffffffff0", str(details["what"])
        )
        assert what, details
        assert (details["got"], details["cpu"]) == (f"ESR {what[1]} (class 0x25)", cpu)
        assert found[number].trace
    assert found[210].reason.startswith("number 5 of CPU 0: expected 0")
    assert found[207].details["subject"] == "software event 0x0"
    assert found[207].notes == (), "the other four kinds were tried, and passed"


@needs_compiler
def test_what_hangs_in_the_guest_is_told_by_the_guest(tmp_path: Path) -> None:
    """The last CPU looks after the others. What is behind the kind of event with which it hangs is tried too."""
    options = GuestOptions(smp=2, memory="128M", append="watchdog=2")
    report = run(options, scenarios="208,209,201", own=build(OWN, tmp_path))
    assert [(r.number, r.outcome.value) for r in report.results] == [(208, "not ok"), (209, "not ok"), (201, "ok")]
    assert report.results[0].reason.startswith("the scenario did not end; seconds")
    assert report.results[1].details["subject"] == "private event 0x100"
    assert report.results[1].notes == (f"then: {report.results[1].reason}",), "the shared static event"
    assert report.starts == 4


@needs_compiler
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("int own_x(void) { return undeclared_name; }", "undeclared_name"),
        (None, "scenario 201 is of group own: no own.c"),
    ],
)
def test_scenarios_that_do_not_compile(runtime: Path, tmp_path: Path, content: str | None, words: str) -> None:
    (tmp_path / "scenarios.h").write_text('SCENARIO(201, own, x, "a", "b", 0)\n')
    if content is not None:
        (tmp_path / "own.c").write_text(content)
    done = command(runtime, "conformance", "-q", "--scenarios", str(tmp_path))
    errors = done.communicate(timeout=100)[1].decode()
    assert done.returncode == 2
    assert words in errors
    assert "Traceback" not in errors
