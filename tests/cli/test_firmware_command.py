"""`qemu-sdei firmware`, as far as it needs no guest: the profiles that there are, and what cannot be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei import guest_identity, rundir
from qemu_sdei.profiles import firmware_profile
from qemu_sdei.rundir import RunDirectory
from tests.cli.conftest import Command
from tests.library.test_control_client import Backend, result


def test_the_profiles_that_there_are(command: Command) -> None:
    shown = command("firmware", "--list")
    assert shown.returncode == 0
    heads = [line.split()[0] for line in shown.stdout.splitlines() if not line.startswith(" ")]
    assert heads == list(firmware_profile.names())
    assert max(map(len, shown.stdout.splitlines())) <= 80
    listed = json.loads(command("firmware", "--list", "--json").stdout)["profiles"]
    assert [profile["name"] for profile in listed] == heads


def test_one_of_them_and_a_file(command: Command, tmp_path: Path) -> None:
    shown = command("firmware", "--show", "wedge-on-off").stdout
    assert "lkml 2606.3" in shown
    assert "  1 CPU_OFF never=instead\n" in shown
    mine = tmp_path / "mine.toml"
    mine.write_text('base = ["slow"]\n[[rule]]\non = "CPU_ON"\nnth = 1\nreturns = "DENIED"\nwhy = "so it was"\n')
    rules = json.loads(command("firmware", "--show", str(mine), "--json").stdout)["rules"]
    assert rules[1] == {"rule": "CPU_ON nth=1 returns=DENIED", "why": "so it was"}


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--show", "nope"], ["there is no firmware profile 'nope'", "tfa"]),
        (["--show", "not-there.toml"], ["not-there.toml", "No such file"]),
        (["--list", "g"], ["stand alone"]),
        (["--list", "--set", "CPU_OFF returns=0"], ["stand alone"]),
        (["--list", "--show", "tfa"], ["stand alone"]),
        (["g", "--clear", "--profile", "tfa"], ["leave out --clear"]),
        (["g", "--set", "CPU_OF returns=0"], ["--set 'CPU_OF returns=0'", "did you mean CPU_OFF"]),
        (["g", "--profile", "tf-a"], ["there is no firmware profile 'tf-a'"]),
        (["g", "--set", "CPU_OFF returns=0"], ["no guest"]),
    ],
)
def test_what_cannot_be_is_one_line(command: Command, words: list[str], what: list[str]) -> None:
    refused = command("firmware", *words)
    assert refused.returncode == (2 if "no guest" not in what else refused.returncode) != 0
    assert len(refused.stderr.splitlines()) == 1
    for text in what:
        assert text in refused.stderr


@pytest.fixture
def backend(runtime: Path) -> Iterator[Backend]:
    directory = RunDirectory.create("g")
    known = guest_identity.read(directory.path)
    backend = Backend(directory / rundir.CONTROL, lambda request: result(request), known)
    try:
        yield backend
    finally:
        backend.close()
        directory.remove()


def test_what_is_asked_of_a_guest(command: Command, backend: Backend) -> None:
    asked: list[dict[str, Any]] = []
    found = {
        "profile": "own",
        "summary": "a board",
        "rules": [{"rule": "CPU_ON nth=1 returns=DENIED", "why": "ticket", "acted": 3}],
        "deaf": [1],
        "stuck": [],
        "held": [],
    }

    def answer(request: dict[str, Any]) -> bytes:
        if request["cmd"] == "hello":
            return result(request, protocol=1, pid=1, name="g", nr_cpus=2, epoch=1, identity=backend.identity)
        asked.append({key: value for key, value in request.items() if key not in ("id", "cmd")})
        return result(request, **found)

    backend.answer = answer
    shown = command("firmware", "g", "--profile", "slow", "--set", "CPU_ON nth=1 returns=DENIED", "-v")
    assert shown.returncode == 0, shown.stderr
    assert [entry["set"] for entry in asked] == [["CPU_ON nth=1 returns=DENIED"]]
    assert asked[0]["profile"]["name"] == "slow"
    for text in (
        "on purpose: profile own",
        "a board",
        "no event: 1",
        "CPU_ON nth=1 returns=DENIED",
        "ticket",
    ):
        assert text in shown.stdout
    assert command("firmware", "g", "--clear").returncode == 0
    assert asked[1] == {"clear": True}
    found |= {"rules": [], "deaf": [], "profile": "spec"}
    assert "does nothing wrong on purpose (profile spec)" in command("firmware", "g").stdout
    found |= {"rules": [{"rule": 3}]}
    wrong = command("firmware", "g")
    assert wrong.returncode == 1
    assert len(wrong.stderr.splitlines()) == 1


MAP = """\
ffff800008000100 T __arm_smccc_smc
ffff800008000140 t psci_cpu_off
ffff800008000180 T next
ffff8000080001c0 T start_kernel
"""


def test_functions_by_name(command: Command, backend: Backend, tmp_path: Path) -> None:
    """What the backend is told has their places; people are shown the names."""
    asked: list[dict[str, Any]] = []
    placed = (
        "CPU_OFF caller=psci_cpu_off@0xffff800008000140..0xffff80000800017f~0xffff800008000100..0xffff80000800013f "
        "returns=DENIED"
    )
    states: dict[str, list[int]] = {"deaf": [], "stuck": [], "held": []}

    def answer(request: dict[str, Any]) -> bytes:
        if request["cmd"] == "hello":
            return result(request, protocol=1, pid=1, name="g", nr_cpus=2, epoch=1, identity=backend.identity)
        asked.append(request)
        rules = [{"rule": placed, "why": "", "acted": 0}]
        return result(request, profile="own", summary="", rules=rules, **states)

    backend.answer = answer
    symbols = tmp_path / "System.map"
    symbols.write_text(MAP)
    rule = "CPU_OFF caller=psci_cpu_off returns=DENIED"
    shown = command("firmware", "g", "--set", rule, "--symbols", str(symbols))
    assert shown.returncode == 0, shown.stderr
    assert asked[0]["set"] == [placed]
    assert rule in shown.stdout
    mine = tmp_path / "mine.toml"
    mine.write_text('[[rule]]\non = "CPU_OFF"\ncaller = "psci_cpu_off"\nreturns = "DENIED"\n')
    assert command("firmware", "g", "--profile", str(mine), "--symbols", str(symbols)).returncode == 0
    assert [each["rule"] for each in asked[1]["profile"]["rules"]] == [placed]
    for words, why in (
        (
            ("--set", "CPU_OFF caller=psci_cpu_of returns=DENIED", "--symbols", str(symbols)),
            "did you mean psci_cpu_off",
        ),
        (("--set", rule), "give --symbols"),
        (("--profile", str(mine)), "give --symbols"),
    ):
        refused = command("firmware", "g", *words)
        assert refused.returncode == 2
        assert why in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    assert len(asked) == 2
