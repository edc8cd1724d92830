"""Cells of a crash matrix, in guests: one that dumps, one that hangs and is explained; all of them, slow."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import fastjsonschema
import pytest

from qemu_sdei.cli import main
from qemu_sdei.crash.cells import Axes, Capture, Kernel
from qemu_sdei.crash.document import SCHEMA, Matrix
from qemu_sdei.crash.endings import DEFAULT, ENDINGS, endings_of
from qemu_sdei.crash.run import Plan, run
from qemu_sdei.crash.verdict import Result, Verdict
from qemu_sdei.guest.kdump_stages import Stage
from tests.guest.guests import processes

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux", "runtime")]

SERIES = "6.1"
fits = fastjsonschema.compile(SCHEMA)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files are; what is left there is seen."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def matrix(*endings: str, firmware: tuple[str, ...], captures: tuple[Capture, ...] = (Capture.SMP,)) -> Matrix:
    found = run(Plan(Axes(endings_of(endings), firmware, (Kernel(SERIES),), captures)))
    fits(json.loads(json.dumps(found.document())))
    assert found.judged, [result.verdict for result in found.results]
    return found


def verdicts(found: Matrix) -> dict[tuple[str, str], Verdict]:
    return {(result.cell.firmware, result.cell.ending.name): result.verdict for result in found.results}


@pytest.mark.timeout(240)
def test_one_dumps_and_one_hangs_and_is_explained(scratch: Path, runtime: Path) -> None:
    """CPUs that go off inside the handler come back on firmware that starts them as after a reset; on one that leaves
    the priority of an interrupt active, the CPU that hung in an interrupt's handler does not, and the other one does.
    """
    found = verdicts(matrix("off", firmware=("spec", "gic-active")))
    good, bad = found["spec", "off"], found["gic-active", "off"]
    assert (good.result, good.stage, good.lost) == (Result.DUMPED, Stage.OFF, ())
    assert sorted(good.vcpus) == [0, 1, 2]
    assert (bad.result, bad.stage) == (Result.WEDGED, Stage.KERNEL)
    (lost,) = bad.lost
    assert (lost.vcpu, lost.rule, lost.clause) == (2, "priority-left-active", "DEN0022 6.4")
    assert (lost.call, lost.answered) == ("CPU_OFF()", "the vCPU went off")
    assert 1 in bad.acted
    assert list(scratch.iterdir()) == []
    assert processes(runtime) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_ending_does_what_it_says(scratch: Path) -> None:
    """On firmware without a fault: who stays is ALREADY_ON for the capture kernel, who goes off comes back."""
    found = verdicts(matrix(*ENDINGS, firmware=("spec",)))
    for name in ENDINGS:
        verdict = found["spec", name]
        # This kernel has no stop by SDEI of its own: by `linux` nobody stops CPUs that hang.
        stays = name in ("stay", "abort-stay", "linux")
        assert verdict.stage is Stage.OFF, (name, verdict)
        assert verdict.result is (Result.FEWER if stays else Result.DUMPED), (name, verdict)
        assert [cpu.vcpu for cpu in verdict.lost] == ([1, 2] if stays else [])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_page_in_the_documentation_is_what_comes(scratch: Path) -> None:
    """Of the first kernel; a few cells of each firmware, by chance of their order."""
    text = (Path(__file__).parents[2] / "docs/reference/crash-matrix.json").read_text()
    known = json.loads(text)
    fits(known)
    shown = {(cell["firmware"], cell["ending"]): cell for cell in known["cells"]
             if (cell["kernel"], cell["capture"]) == (SERIES, "smp")}  # fmt: skip
    firmware = tuple(dict.fromkeys(name for name, _ in shown))
    for key, verdict in verdicts(matrix(*DEFAULT, firmware=firmware)).items():
        assert verdict.result.value == shown[key]["result"], (key, verdict)
        assert [cpu.vcpu for cpu in verdict.lost] == [cpu["vcpu"] for cpu in shown[key]["lost"]], (key, verdict)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_cannot_be_prepared_is_a_cell_that_is_not_run(scratch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is no kernel; the one without a client module is "not built", and no failure."""
    image, module = scratch / "Image", scratch / "sdei_test.ko"
    image.write_bytes(os.urandom(1 << 16))
    module.write_bytes(b"no module")
    assert main(["crash", "matrix", "--kernel", str(image), "--capture", "up", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert counts == {result.value: 12 * (result is Result.MISSING) for result in Result}
    assert main(["crash", "matrix", "--kernel", str(image), "--client", str(module), "--capture", "up"]) == 2
