"""`qemu-sdei nmi`, `ras host-error` and `ras abort`: what is asked of a backend, what is said, and what cannot be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei import guest_identity, rundir
from qemu_sdei.config import GuestConfig
from qemu_sdei.rundir import RunDirectory
from tests.cli.conftest import Command
from tests.library.test_control_client import Backend, result

BOOT = {"kind": "linux", "kernel": "/k", "ram_size": 64 << 20}
ANSWERS: dict[str, dict[str, Any]] = {
    "nmi": {"by": "software", "event": 0, "intid": None, "vcpu": 1, "outcome": "queued", "reason": "PE 1 is masked"},
    "memory_error": {"page": 0x4A00_0000, "source": "gh\x1bes", "vcpu": 1, "outcome": "queued"},
    "abort": {"vcpu": 1, "pc": 0x1234, "pstate": 0, "el": 0},
}


@pytest.fixture
def backend(runtime: Path) -> Iterator[Backend]:
    directory = RunDirectory.create("g")
    config = GuestConfig(name="g", nr_cpus=2, cpu="cortex-a72", ram_size=64 << 20, boot=BOOT)
    (directory / rundir.CONFIG).write_text(config.to_json())
    known = guest_identity.read(directory.path)

    backend = Backend(directory / rundir.CONTROL, lambda request: b"", known)
    say(backend)
    try:
        yield backend
    finally:
        backend.close()
        directory.remove()


def say(backend: Backend, **found: Any) -> None:
    """What it answers, but to `hello`: what is in ANSWERS, or this."""

    def answer(request: dict[str, Any]) -> bytes:
        if request["cmd"] == "hello":
            return result(request, protocol=1, pid=1, name="g", nr_cpus=2, epoch=1, identity=backend.identity)
        return result(request, **(found or ANSWERS[request["cmd"]]))

    backend.answer = answer


def asked(backend: Backend) -> dict[str, Any]:
    return {key: value for key, value in backend.requests[-1].items() if key != "id"}


def test_an_nmi_says_what_it_went_by(command: Command, backend: Backend) -> None:
    shown = command("nmi", "g", "--vcpu", "1", "--by", "software")
    assert shown.stdout == (
        "NMI by the software-signalled event: event 0x0 on vCPU 1; not delivered yet: PE 1 is masked\n"
    )
    assert asked(backend) == {"cmd": "nmi", "vcpu": 1, "by": "software"}
    assert json.loads(command("nmi", "g", "--json").stdout) == {"guest": "g", **ANSWERS["nmi"]}
    assert asked(backend) == {"cmd": "nmi", "vcpu": None, "by": None}
    say(backend, by="agdi-interrupt", event=None, intid=208, vcpu=0, outcome="queued", reason=None)
    assert command("nmi", "g").stdout == "NMI by AGDI: interrupt 208 on vCPU 0\n"
    assert command("nmi", "g", "-q").stdout == ""


def test_a_page_that_is_bad_at_the_host(command: Command, backend: Backend) -> None:
    shown = command("ras", "host-error", "g", "--address", "0x4a000123", "--vcpu", "1")
    assert shown.stdout == "page 0x4a000000 is reported as bad by source 'gh\\x1bes', to vCPU 1\n"
    assert asked(backend) == {"cmd": "memory_error", "address": 0x4A00_0123, "source": None, "vcpu": 1}
    found = json.loads(command("ras", "host-error", "g", "--address", "1", "--json").stdout)
    assert found == {"guest": "g", "page": 0x4A00_0000, "source": "gh\x1bes", "vcpu": 1}


def test_an_abort(command: Command, backend: Backend) -> None:
    shown = command("ras", "abort", "g", "--address", "0x1000", "--kernel", "--timeout", "3")
    assert shown.stdout == "vCPU 1 took the abort at EL0, PC 0x1234\n"
    wanted = {"vcpu": None, "address": 0x1000, "fetch": False, "kernel": True, "limit": 3}
    assert asked(backend) == {"cmd": "abort", **wanted}
    assert json.loads(command("ras", "abort", "g", "--json").stdout) == {"guest": "g", **ANSWERS["abort"]}


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["nmi", "g", "--vcpu", "-1"], "vCPU -1 does not exist"),
        (["nmi", "g", "--by", "smoke"], "there is no choice 'smoke'"),
        (["ras", "host-error", "g"], "--address"),
        (["ras", "host-error", "g", "--address", "x"], "--address 'x' is not a number"),
        (["ras", "host-error", "g", "--address", "0x1" + 16 * "0"], "not a number of 64 bits"),
        (["ras", "abort", "g", "--timeout", "0"], "--timeout is 1 to 3600 seconds"),
        (["ras", "abort", "g", "--vcpu", "-1"], "vCPU -1 does not exist"),
        (["ras", "abort", "nobody"], "no guest named 'nobody'"),
    ],
)
def test_what_cannot_be_is_one_line(command: Command, backend: Backend, words: list[str], what: str) -> None:
    refused = command(*words)
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert what in refused.stderr


@pytest.mark.parametrize("words", [["nmi", "g"], ["ras", "abort", "g"], ["ras", "host-error", "g", "--address", "0"]])
def test_a_backend_that_answers_nonsense_is_not_believed(command: Command, backend: Backend, words: list[str]) -> None:
    say(backend, by=7, page="x", vcpu=None)
    refused = command(*words)
    assert refused.returncode == 1
    assert "not of the protocol's form" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
