"""What can be asked of a migration; from another process it comes as JSON."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.migration.options import COPY, LIVE, POSTCOPY, SHARED, TCP, Hold, MigrationOptions


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"route": "express"}, "no migration route 'express'; there are shared, copy, live, postcopy"),
        ({"transport": "carrier pigeon"}, "no transport 'carrier pigeon'"),
        ({"route": COPY, "multifd": 256}, "multifd takes 1 to 255 connections, not 256"),
        ({"route": SHARED, "multifd": 2}, "multifd is for RAM that is sent before"),
        ({"route": POSTCOPY, "multifd": 2}, "multifd is for RAM that is sent before"),
        ({"hold": Hold("nowhere")}, "no hold point 'nowhere'"),
        ({"timeout": 0.0}, "must be more than 0 seconds"),
        ({"timeout": float("nan")}, "must be more than 0 seconds"),
    ],
)
def test_what_cannot_be(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        MigrationOptions(**given)


@pytest.mark.parametrize(
    "options",
    [
        MigrationOptions(),
        MigrationOptions(COPY, verify=False, hold=Hold("running", 7, 1, 2.5), timeout=3, transport=TCP, multifd=4),
    ],
)
def test_by_json_and_back(options: MigrationOptions) -> None:
    assert MigrationOptions.from_json(options.to_json()) == options


@pytest.mark.parametrize(
    "change",
    [
        None,
        [],
        "live",
        {"route": 1},
        {"verify": "yes"},
        {"verify": 1},
        {"multifd": True},
        {"timeout": "soon"},
        {"hold": "running"},
        {"hold": {"state": 3}},
        {"hold": {"state": "nowhere"}},
        {"hold": {"state": "running", "vcpu": "0"}},
        {"hold": {"event": 1}},
        {"colour": "red"},
    ],
)
def test_json_of_another_form(change: object) -> None:
    data = {**MigrationOptions().to_json(), **change} if isinstance(change, dict) else change
    with pytest.raises(UsageError):
        MigrationOptions.from_json(data)


def test_what_follows_from_the_route() -> None:
    options = MigrationOptions()
    assert [replace(options, route=route).live for route in (SHARED, COPY, LIVE, POSTCOPY)] == [
        False,
        False,
        True,
        True,
    ]
    compared = [replace(options, route=route).compared for route in (SHARED, COPY, LIVE, POSTCOPY)]
    assert compared == [False, True, True, True]
    assert not replace(options, route=LIVE, verify=False).compared
    assert Hold("resume").drain
    assert not Hold("running").drain
