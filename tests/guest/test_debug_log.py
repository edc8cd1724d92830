"""Why a migration failed, by `-vv`: what was said to QEMU and what it answered, wherever that happened."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from qemu_sdei.errors import SdeiError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import command
from tests.guest.remote import Receiving

pytestmark = pytest.mark.guest

# QEMU has devices that it does not migrate, and says so when it is asked to.
UNMOVABLE = ("-blockdev", "null-co,node-name=n,size=1048576", "-device", "nvme,serial=x,drive=n")


def idle(*qemu_args: str) -> GuestOptions:
    return GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="64M", name="a", qemu_args=qemu_args)


def test_a_refusal_by_qemu(runtime: Path) -> None:
    """The guest's supervisor talks to QEMU: what they say to each other, the command shows."""
    with Guest(idle(*UNMOVABLE)) as guest:
        guest.expect("idle: ready")
        with command(runtime, "migrate", "a", "b", "-vv") as migrate:
            _, errors = migrate.communicate(timeout=60)
        lines = errors.decode().splitlines()
        assert migrate.returncode == 1
        assert "nvme" in lines[-1]
        (sent,) = [n for n, line in enumerate(lines) if ' qmp a -> {"execute": "migrate", ' in line]
        refusal = next(line for line in lines[sent:] if " qmp a <- {" in line and '"error"' in line)
        assert '"desc": "' in refusal
        assert "nvme" in refusal
        assert any(" control backend of a -> " in line for line in lines)
        with command(runtime, "migrate", "a", "b") as migrate:
            _, errors = migrate.communicate(timeout=60)
        assert " qmp " not in errors.decode()


def test_both_sides_of_a_migration_between_hosts(runtime: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither shows the token, nor the secret of the session."""
    with Receiving(listen="127.0.0.1:0", name="there", allow=("qemu-args",)) as there, Guest(idle(*UNMOVABLE)) as guest:
        guest.expect("idle: ready")
        with caplog.at_level(logging.DEBUG, "qemu_sdei"), pytest.raises(SdeiError, match="nvme"):
            guest.migrate_to(there.to, token=there.about["token"])
    assert '"cmd": "offer"' in caplog.text
    assert '"cmd": "prepare"' in caplog.text
    assert there.about["token"] not in caplog.text
    hidden = [text for text in caplog.messages if '"session": "(hidden)"' in text]
    assert len(hidden) == 2  # sent by one side, received by the other
