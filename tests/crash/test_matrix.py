"""A matrix as JSON, table, Markdown and page; its axes and endings. No guest runs here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import fastjsonschema
import pytest

from qemu_sdei.crash.cells import Capture
from qemu_sdei.crash.document import SCHEMA, CellResult, ordered
from qemu_sdei.crash.endings import CONTROL, DEFAULT, ENDINGS, endings_of
from qemu_sdei.crash.page import render
from qemu_sdei.crash.table import markdown, summary, table
from qemu_sdei.crash.verdict import Result, Verdict
from qemu_sdei.errors import UsageError
from tests.crash.cells import AXES, dumped, fewer, matrix, wedged

fits = fastjsonschema.compile(SCHEMA)


@pytest.mark.parametrize("verdict", [dumped(), fewer(), wedged(), Verdict(Result.FAILED, reason="no room")])
def test_json_has_the_promised_form(verdict: Verdict) -> None:
    document = json.loads(json.dumps(matrix(verdict).document()))
    fits(document)
    assert document["counts"][verdict.result.value] == len(AXES) == len(document["cells"])


def test_a_cell_that_disagrees_with_itself_is_marked_and_has_what_most_rounds_came_to() -> None:
    found = matrix(fewer(), wedged(), replace(wedged(), took=9.0))
    assert not found.results[0].agrees
    assert found.results[0].verdict.result is Result.WEDGED
    document = found.document()
    fits(document)
    assert document["unsteady"] == len(AXES)
    assert table(document).rows[0][1][0].text == "unsteady: hangs after capture-kernel [1]"
    assert f"3 rounds each, {len(AXES)} disagree" in summary(document)


def test_what_does_not_come_is_said_once_with_its_clause_and_last_call() -> None:
    found = table(matrix(wedged()).document())
    (note,) = found.notes
    assert "(DEN0022 6.4)" in note
    assert "CPU_OFF()" in note
    assert {cell.notes for _, cells in found.rows for cell in cells} == {(1,)}
    assert [key for key, _ in found.rows][:2] == [("6.1", "up", "spec"), ("6.1", "up", "tfa")]


def test_markdown_has_a_row_for_each_firmware() -> None:
    lines = markdown(matrix(fewer()).document())
    assert lines[0] == "| kernel | capture | firmware | stay | off | abort-stay | abort-off |"
    assert lines[2] == "| 6.1 | up | spec |" + " dump, 1 of 3 CPUs, 3.0 s [1] |" * 4
    assert lines[-1].startswith(
        "- [1] vCPU 1: A handler was not completed before another kernel began (DEN0054 6.5.4); "
    )


def test_only_what_could_not_be_judged_is_a_failure() -> None:
    for verdict, good in ((dumped(), True), (wedged(), True), (Verdict(Result.MISSING), True)):
        assert matrix(verdict).judged is good
    assert not matrix(Verdict(Result.FAILED)).judged
    assert not matrix(dumped(), Verdict(Result.UNEXPLAINED)).judged


def test_a_page_shows_hostile_text_and_obeys_none_of_it() -> None:
    found = matrix(Verdict(Result.FAILED, reason='<script>alert(1)</script>\x1b[2J\u202e"'))
    found.summaries["tfa"] = "<img src=x onerror=y>"
    page = render(found.document())
    assert "<script" not in page
    assert "<img" not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;" in page
    assert "default-src 'none'" in page.replace("&#x27;", "'")


@pytest.mark.parametrize("name", ["crash-matrix", "crash-matrix-own"])
def test_what_the_documentation_shows_was_judged(name: str) -> None:
    document = json.loads((Path(__file__).parents[2] / f"docs/reference/{name}.json").read_text())
    fits(document)
    assert {cell["result"] for cell in document["cells"]} <= {result.value for result in Result if result.judged}
    assert sum(document["counts"].values()) == len(document["cells"])


def test_cells_come_in_the_order_of_the_axes() -> None:
    found = matrix(dumped())
    assert ordered(list(reversed(found.results)), AXES) == found.results
    assert len({result.cell for result in found.results}) == len(AXES) == 2 * 2 * 2 * 4


def test_who_has_event_0_is_a_guest_of_its_own() -> None:
    """A kernel's own stop and the client module's cannot both register it."""
    axes = replace(AXES, endings=endings_of(["linux", "off", "irq-off"]))
    assert [(origin.kernel.name, origin.capture, origin.by_kernel) for origin in axes.origins()] == [
        (kernel, capture, by_kernel) for kernel in ("6.1", "own") for capture in Capture for by_kernel in (False, True)
    ]
    cells = [cell for origin in axes.origins() for cell in axes.cells(origin)]
    assert {cell.ending.name for cell in axes.cells(next(axes.origins()))} == {"off", "irq-off"}
    assert len(cells) == len(set(cells)) == len(axes)
    found = ordered([CellResult(cell, (dumped(),)) for cell in cells], axes)
    assert [result.cell.ending.name for result in found[:3]] == ["linux", "off", "irq-off"]


def test_endings() -> None:
    assert [ending.name for ending in endings_of(DEFAULT)] == list(DEFAULT)
    with pytest.raises(UsageError, match="there is no ending 'x': give stay, off"):
        endings_of(["off", "x"])
    script = ENDINGS["abort-off"].script(3)
    assert script.startswith("taskset 1 sh -c '")
    assert [f"echo {word} >{CONTROL}" in script for word in ("hang 1", "hang 2 irq", "crash abort-off")] == [True] * 3
    assert ENDINGS["irq-off"].script(3) == "taskset 1 sh -c 'echo c >/proc/sysrq-trigger'"
    script = ENDINGS["linux"].script(3)
    assert [f"echo hang {word} >{CONTROL}" in script for word in ("1", "2 irq")] == [True] * 2
    assert script.endswith("echo c >/proc/sysrq-trigger'")
    assert [Capture.UP.vcpus(3), Capture.SMP.vcpus(3)] == [1, 3]
