"""A request of the control protocol is what its handler says of it: name, fields, and whether it waits."""

from __future__ import annotations

from typing import Any

import pytest

from qemu_sdei.backend.control.commands import Field, Number, Switch, commands_of, handles, requests_in
from qemu_sdei.backend.control.control_socket import Control
from qemu_sdei.backend.control.handover_commands import HandoverCommands
from qemu_sdei.backend.control.injection_commands import InjectionCommands
from qemu_sdei.backend.control.snapshot_commands import SnapshotCommands
from qemu_sdei.errors import UsageError


class Handlers:
    def __init__(self, answer: int) -> None:
        self._answer = answer

    @handles("add", Number("n", 0, 9, default=1), Switch("twice", default=False), Field("to", ": what"), changes=True)
    def _add(self, client: object, message: dict[str, Any]) -> dict[str, Any]:
        return {"sum": self._answer + message["n"] * (2 if message["twice"] else 1), "client": client}

    @handles("look", result="`it`")
    def _look(self, client: object, message: dict[str, Any]) -> None:
        """Answers later."""


ADD, LOOK = (commands_of(Handlers(40))[name] for name in ("add", "look"))


def test_a_handler_gets_what_was_left_out() -> None:
    assert ADD("me", {"cmd": "add"}) == {"sum": 41, "client": "me"}
    assert ADD(None, {"n": 4, "twice": True}) == {"sum": 48, "client": None}
    assert LOOK(None, {}) is None


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"n": 10}, "n is a number from 0 to 9"),
        ({"n": -1}, "n is a number from 0 to 9"),
        ({"n": True}, "n is a number from 0 to 9"),
        ({"n": "1"}, "n is a number from 0 to 9"),
        ({"n": None}, "n is a number from 0 to 9"),
        ({"twice": 1}, "twice is true or false"),
        ({"twice": None}, "twice is true or false"),
    ],
)
def test_a_field_that_cannot_be_is_refused(message: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=f"^{words}$"):
        ADD(None, message)


def test_what_the_page_is_printed_from() -> None:
    (_, add), (_, look) = requests_in(Handlers)
    assert [str(field) for field in add.fields] == ["`n` (1)", "`twice` (false)", "`to`: what"]
    assert (add.changes, look.changes, add.result, look.result) == (True, False, "nothing", "`it`")


def test_no_two_handlers_have_a_name() -> None:
    """Each of the control socket's classes has a table of its own, and they are put together."""
    kinds = (Control, InjectionCommands, HandoverCommands, SnapshotCommands)
    names = [asked.name for kind in kinds for _, asked in requests_in(kind)]
    assert len(names) == len(set(names))
    assert {"hello", "inject", "freeze", "keep"} <= set(names)
