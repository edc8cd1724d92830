"""The way by ssh, with an ssh that only does as if: what is asked of it, and what is said when it does not work.

What an address can be, and a real ssh: tests/guest/test_remote_ssh.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qemu_sdei.errors import GuestError, UsageError
from qemu_sdei.migration import remote_ssh
from qemu_sdei.migration.remote_ssh import Tunnel

SSH = f"""#!{sys.executable}
import os, pathlib, sys
home = pathlib.Path(__file__).parent
words = sys.argv[1:]
with (home / "asked").open("a") as asked:
    print(*words, file=asked)
def said(name):
    file = home / name
    return file.read_text() if file.exists() else ""
if words[-1] == "true":
    if said("refuses"):
        sys.exit(said("refuses"))
    control = [word for word in words if word.startswith("ControlPath=")][0].partition("=")[2]
    pathlib.Path(control).touch()
elif "-O" in words:
    if "forward" in words and said("forbids"):
        sys.exit(said("forbids"))
else:
    print(said("answers"), flush=True)
    if not said("ends"):
        sys.stdin.read()
    sys.exit(said("ends") or 0)
"""
WAITING = '{"state": "waiting", "name": "g", "socket": "/run/user/1000/qemu-sdei/g/receive.sock"}'


@pytest.fixture
def ssh(tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the ssh; `answers` is what the other host says."""
    path = tmp_path / "bin"
    path.mkdir()
    (path / "ssh").write_text(SSH)
    (path / "ssh").chmod(0o755)
    (path / "answers").write_text(f"Welcome!\n[1, 2]\n{WAITING}\n")
    monkeypatch.setenv("PATH", str(path))
    return path


def asked(ssh: Path) -> list[str]:
    """What it was asked for, one line a call."""
    return (ssh / "asked").read_text().splitlines()


def test_a_way_there_and_nothing_left(ssh: Path, runtime: Path) -> None:
    with Tunnel("ssh://me@there:2222", "g", remote_command="/opt/x/qemu-sdei -q") as address:
        assert (address.kind, str(address)) == ("unix", "me@there")
        login, receive, forward = asked(ssh)
        assert "BatchMode=yes" in login
        assert login.endswith("-p 2222 -- me@there true")
        assert receive.endswith("-p 2222 -- me@there /opt/x/qemu-sdei -q receive --detach --name g")
        assert f"-L {address.host}:/run/user/1000/qemu-sdei/g/receive.sock" in forward
    assert "-O exit" in asked(ssh)[-1]
    assert not [*runtime.glob("qs-*")]


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("refuses", "Permission denied", "ssh to there could not log in (Permission denied)"),
        ("forbids", "forwarding is off", "ssh to there could not forward a socket (forwarding is off)"),
        ("answers", '{"state": "waiting"}\n', "there does not say where it waits"),
        ("answers", '{"state": "waiting", "socket": "/x; rm -r /"}\n', "there does not say where it waits"),
        ("ends", "qemu-sdei: not found", "there did not start to wait for the guest (qemu-sdei: not found); is qemu-s"),
    ],
)
def test_no_way_there(file: str, text: str, words: str, ssh: Path, runtime: Path) -> None:
    if file == "ends":
        (ssh / "answers").write_text("")
    (ssh / file).write_text(text)
    with pytest.raises(GuestError) as caught, Tunnel("ssh://there", "g"):
        pass
    assert words in str(caught.value)
    assert not [*runtime.glob("qs-*")]


def test_a_host_that_says_nothing(ssh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_ssh, "_ANSWER", 0.2)
    (ssh / "answers").write_text("")
    with pytest.raises(GuestError, match=r"did not say within 0\.2 s"), Tunnel("ssh://there", "g"):
        pass


def test_no_ssh_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="install openssh-client"), Tunnel("ssh://there", "g"):
        pass
