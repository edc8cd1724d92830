"""A name is used again: who was connected to a guest, or looked it up, does nothing to the next one of its name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qemu_sdei import locks, rundir
from qemu_sdei.errors import LostGuestError, NotDeliveredError, SdeiError, UsageError
from qemu_sdei.guest import adoption
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.guest.guest import Guest
from qemu_sdei.guest.supervisor_client import ask
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import check_nothing_left, command, until
from tests.guest.remote import Receiving

pytestmark = pytest.mark.guest

GONE = "guest 'g' has ended; another guest of that name runs now"


def options(name: str = "g") -> GuestOptions:
    return GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", smp=2, memory="128M", name=name)


@contextmanager
def idle(name: str = "g") -> Iterator[Guest]:
    with Guest(options(name)) as guest:
        guest.expect("idle: ready", 60)
        yield guest


def untouched(guest: Guest) -> bool:
    """Whether nobody has injected anything."""
    return bool(guest.status()["counts"]["accepted"] == 0)


def test_a_client_that_outlives_its_guest_leaves_the_next_one_alone(runtime: Path) -> None:
    with idle() as first:
        client, idle_client = first.client(), first.client()
        assert client.inject(0, 1, wait=True).outcome == "completed"
        stale = rundir.find("g")
    with idle() as second:
        for stranger in (client, idle_client):  # one that was connected, and one that never was
            for _ in range(2):
                with pytest.raises(LostGuestError, match=GONE):
                    stranger.inject(0, 1)
            with pytest.raises(LostGuestError, match=GONE):
                stranger.registers(0)
            stranger.shutdown()  # of one that has ended: nothing
            with pytest.raises(LostGuestError, match=GONE):
                next(stranger.events(1))
        # Looked up before the first one ended, and used only now: migrate, save, snapshot, stop, attach.
        for what in ("migrate", "save", "snapshot"):
            with pytest.raises(SdeiError, match=GONE):
                ask(stale.owner, what, {}, lambda step: None, identity=stale.identity)
        with pytest.raises(LostGuestError, match=GONE), ControlClient(stale.control, identity=stale.identity) as late:
            late.status()
        assert untouched(second)
        assert second.power_off is None
        assert second.inject(0, 1, wait=True).outcome == "completed"
    check_nothing_left(runtime)


def test_a_client_follows_its_guest_and_nobody_else(runtime: Path) -> None:
    """Here: after a migration another guest gets the name that the first had."""
    with idle() as guest:
        client = guest.client()
        assert client.inject(0, 0, wait=True).outcome == "completed"
        never = guest.client()
        known = rundir.find("g").identity
        guest.migrate("h")
        assert rundir.find("h").identity == known, "it is the same guest"
        with idle() as next_one:
            assert rundir.find("g").identity != known
            assert client.inject(0, 0, wait=True).outcome == "completed"
            assert guest.status()["counts"]["completed"] == 2
            with pytest.raises(LostGuestError, match=GONE):
                never.inject(0, 0)
            assert untouched(next_one)
    check_nothing_left(runtime)


def test_a_restored_guest_is_another_one(runtime: Path, tmp_path: Path) -> None:
    """It can be restored twice, and beside the one that it was: whoever was connected to that is not taken there."""
    with idle() as guest:
        client = guest.client()
        client.status()
        guest.save(tmp_path / "saved", end=True)
        guest.wait_off(30)
    with Guest.saved(tmp_path / "saved", name="g") as again:
        with pytest.raises(LostGuestError, match=GONE):
            client.inject(0, 0)
        assert untouched(again)
        assert again.inject(0, 0, wait=True).outcome == "completed"
    check_nothing_left(runtime)


def test_a_guest_at_another_host_is_the_same(runtime: Path) -> None:
    with idle() as guest:
        known = rundir.find("g").identity
        client = guest.client()
        client.status()
        with Receiving(name="there") as there:
            guest.migrate_to(there.to)
            assert there.guest.name == "there"
            assert rundir.find("there").identity == known
            with pytest.raises(NotDeliveredError, match="moved to there"):
                client.inject(0, 0)
    check_nothing_left(runtime)


def test_the_command_line_ends_the_guest_that_it_has_found(runtime: Path) -> None:
    """One without owner is looked up, ends, and another one has its name: that is neither ended nor taken over."""
    with idle():
        stale = rundir.find("g")
    with idle() as second:
        ownerless = rundir.Running(stale.name, stale.path, None, owned=False, identity=stale.identity)
        with pytest.raises(SdeiError):
            adoption.Adoption.take("g", stale.identity)
        with pytest.raises(SdeiError):
            adoption.end(ownerless)
        assert second.inject(0, 1, wait=True).outcome == "completed"
        process = command(runtime, "stop", "g")
        assert process.wait(60) == 0
        until("it has ended", lambda: second.power_off is not None)
    check_nothing_left(runtime)


def test_a_guest_that_cannot_be_taken_over_leaves_nothing_open(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that looks for guests to adopt may try again and again."""

    def descriptors() -> int:
        return len([*Path("/proc/self/fd").iterdir()])

    with Guest(options()) as guest:  # it stands for one whose owner was killed
        guest.expect("idle: ready")
        found = rundir.find("g")
        monkeypatch.setattr(adoption, "check", lambda _: None)
        monkeypatch.setattr(rundir.RunDirectory, "adopt", lambda *_: rundir.RunDirectory("g", found.path, os.dup(0)))
        before = descriptors()
        for where, name, instead in (
            (locks, "ended", lambda *_: True),
            (adoption, "_open_output", lambda *_: int("x")),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(where, name, instead)
                with pytest.raises(UsageError, match=r"has just ended|cannot be taken over"):
                    adoption.Adoption.take("g", found.identity)
            assert descriptors() == before
    check_nothing_left(runtime)
