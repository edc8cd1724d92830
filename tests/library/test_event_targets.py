"""Events by name, waiting for a handler, and why there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from qemu_sdei.errors import NotDeliveredError, UsageError
from qemu_sdei.guest import event_targets
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.guest.event_targets import _reason


class Backend:
    """Answers `status` from a list: each answer once, the last for ever."""

    def __init__(self, path: Path, *registered: bool) -> None:
        self.path = path / "control.sock"
        self._answers = list(registered)

    def status(self) -> dict[str, Any]:
        there = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        instance = {"pe": None, "registered": there, "enabled": there}
        return {"events": [{"event": 0x100, "name": "ghes", "instances": [instance]}], "pes": [{"calls": {}}]}

    def ras_sources(self) -> list[dict[str, Any]]:
        return [{"event": 0x100}]


def backend(path: Path, *registered: bool) -> ControlClient:
    return cast("ControlClient", Backend(path, *registered))


def test_an_event_has_a_number_and_a_name(tmp_path: Path) -> None:
    control = backend(tmp_path, True)
    for event in (0x100, "0x100", "256", "ghes"):
        assert event_targets.number(control, event) == 0x100
    with pytest.raises(UsageError, match="no event named 'gehs'; this guest has ghes"):
        event_targets.number(control, "gehs")


def test_it_waits_until_the_event_is_registered(tmp_path: Path) -> None:
    told: list[str] = []
    event_targets.wait_until_listens(backend(tmp_path, False, False, True), 0x100, None, 60, tell=told.append)
    assert told == ["waiting until the guest has registered and enabled event 0x100"]
    with pytest.raises(UsageError, match="no event 0x7"):
        event_targets.wait_until_listens(backend(tmp_path, True), 7, None, 60)
    with pytest.raises(NotDeliveredError, match=r"event 0x100 was not registered and enabled within 0.01 s$"):
        event_targets.wait_until_listens(backend(tmp_path, False), 0x100, None, 0.01)


def test_why_is_said_where_it_is_known(tmp_path: Path) -> None:
    assert event_targets.why_not(backend(tmp_path, False), 0x100, tmp_path) == "", "no configuration can be read"
    (tmp_path / "guest.json").write_text(json.dumps({"odd": 1}))
    assert event_targets.why_not(backend(tmp_path, False), 0x100, tmp_path) == ""
    assert event_targets.why_not(backend(tmp_path, True), 0x100, tmp_path) == ""


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (("ghes", True, True, False), "CONFIG_ARM_SDE_INTERFACE"),
        (("ghes", True, True, True), "CONFIG_ACPI_APEI_GHES"),
        (("ghes", False, False, True), "--ras"),
        (("custom", True, False, True), "run --client"),
    ],
)
def test_the_reason(known: tuple[str, bool, bool, bool], said: str) -> None:
    assert said in _reason(*known)
