"""The table at the end of a run of the scenario library."""

from __future__ import annotations

from typing import Literal

import pytest

from qemu_sdei.pytest_plugin.results_table import TITLE, VARIANT, ResultsTable

pytest_plugins = ["pytester"]

Outcome = Literal["passed", "failed", "skipped"]


def report(
    table: ResultsTable,
    name: str,
    title: str,
    outcome: Outcome,
    when: Literal["setup", "call", "teardown"] = "call",
    why: str = "",
) -> None:
    words = ("file", 1, f"Skipped: {why}") if outcome == "skipped" else why
    variant = [(VARIANT, name.partition("[")[2].rstrip("]"))] if "[" in name else []
    table.pytest_runtest_logreport(
        pytest.TestReport(name, ("file", 1, ""), {}, outcome, words, when, user_properties=[(TITLE, title), *variant])
    )


def test_scenarios_by_kernels_and_why_not() -> None:
    table = ResultsTable()
    for kernel in ("6.1", "6.12"):
        report(table, f"test_a.py::test_one[{kernel}]", "boots", "passed", "setup")
        report(table, f"test_a.py::test_one[{kernel}]", "boots", "passed")
    report(table, "test_a.py::test_two[6.1]", "dumps", "skipped", "setup", "the kernel has no CONFIG_KEXEC")
    report(table, "test_a.py::test_two[6.12]", "dumps", "failed", why="no\x1b[31m dump")
    report(table, "test_a.py::test_two[6.12]", "dumps", "passed", "teardown")
    assert table.lines() == [
        "scenario  6.1     6.12",
        "boots     ok      ok",
        "dumps     n.a.    FAILED",
        "",
        "not applicable:",
        "- the kernel has no CONFIG_KEXEC (6.1): dumps",
    ]


def test_a_guest_that_does_not_come_up_is_a_failure() -> None:
    table = ResultsTable()
    report(table, "test_a.py::test_one", "boots", "failed", "setup", "it did not boot")
    assert table.lines()[1] == "boots     FAILED"


def test_a_failure_afterwards_is_one_too() -> None:
    table = ResultsTable()
    report(table, "test_a.py::test_one", "boots", "passed")
    report(table, "test_a.py::test_one", "boots", "failed", "teardown", "it left something")
    assert table.lines()[1] == "boots     FAILED"


def test_names_and_reasons_reach_no_terminal_raw() -> None:
    table = ResultsTable()
    report(table, "test_a.py::test_one[\x1b]0;x\x07]", "bo\x1b[31mots", "skipped", "setup", "no \x1b[2J module")
    assert not [line for line in table.lines() if any(ord(letter) < 32 or ord(letter) == 127 for letter in line)]


def test_it_is_there_with_xdist_too(pytester: pytest.Pytester) -> None:
    """Whose main process does not read the scenarios' conftest.py."""
    found = pytester.runpytest_subprocess(
        *("-p", "no:cacheprovider", "-n", "1", "--pyargs", "qemu_sdei.scenarios", "-k", "test_without_sdei"),
        *("--sdei-kernel", "nowhere"),
    )
    found.stdout.fnmatch_lines(["No SDEI at all: it boots, and complains of nothing*FAILED"])
