"""To another host by ssh: a stand-in that does what `migrate` needs of it, and a real one where there is an sshd."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from qemu_sdei.errors import GuestError, UsageError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.migration.remote_ssh import Tunnel, parse_ssh
from qemu_sdei.vm.options import DIE_WITH_OWNER, GuestOptions
from tests.guest.guests import check_nothing_left, command, processes, until

COMMAND = f"{sys.executable} -m qemu_sdei"
IDLE = ("--kernel", "builtin:bench", "--append", "mode=idle", "-m", "128M")
STAND_IN = '''#!{python}
"""ssh, as far as a migration needs it: the other host is this one, with a runtime directory of its own."""
import os, signal, socket, subprocess, sys, threading

words = sys.argv[1:]
options = dict(words[n + 1].split("=", 1) for n, word in enumerate(words) if word == "-o")
control = options["ControlPath"]
host = words[words.index("--") + 1]
rest = words[words.index("--") + 2 :]
action = words[words.index("-O") + 1] if "-O" in words else None
if action == "exit":
    for pid in open(control).read().split():
        os.kill(int(pid), signal.SIGTERM)
    os.unlink(control)
elif action == "forward":
    near, far = words[words.index("-L") + 1].split(":")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(near)
    listener.listen(16)
    pid = os.fork()
    if pid:
        open(control, "a").write(str(pid) + "\\n")
        sys.exit(0)

    def carry(one, other):
        try:
            while data := one.recv(1 << 16):
                other.sendall(data)
        except OSError:
            pass
        for end in (one, other):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    os.setsid()
    for fd in (0, 1, 2):
        os.close(fd)
    while True:
        one, _ = listener.accept()
        other = socket.socket(socket.AF_UNIX)
        other.connect(far)
        for pair in ((one, other), (other, one)):
            threading.Thread(target=carry, args=pair, daemon=True).start()
elif options.get("ControlMaster") == "yes":
    if host == "nowhere":
        sys.exit("ssh: Could not resolve hostname nowhere: Name or service not known")
    open(control, "w").close()
else:
    print("Welcome to the other host")
    sys.stdout.flush()
    os.environ["XDG_RUNTIME_DIR"] = {runtime!r}
    os.execvp("sh", ["sh", "-c", *rest])
'''


@pytest.fixture
def there(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runtime directory of the other host, to which the stand-in leads."""
    there, programs = runtime / "there", runtime / "bin"
    there.mkdir(mode=0o700)
    programs.mkdir()
    ssh = programs / "ssh"
    ssh.write_text(STAND_IN.replace("{python}", sys.executable).replace("{runtime!r}", repr(str(there))))
    ssh.chmod(0o700)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return there


def check_way_gone(runtime: Path) -> None:
    """Fail unless nothing of the way to the other host is left."""
    until("the way is taken away", lambda: not [path for path in runtime.iterdir() if path.name.startswith("qs-")])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ssh://lab", (["--", "lab"], "lab", None)),
        ("ssh://me@lab:2222/demo", (["-p", "2222", "--", "me@lab"], "me@lab", "demo")),
        ("ssh://[fe80::1%eth0]/", (["--", "fe80::1%eth0"], "fe80::1%eth0", None)),
    ],
)
def test_parse(text: str, words: object) -> None:
    assert parse_ssh(text) == words


@pytest.mark.parametrize(
    "text", ["ssh://", "ssh://-oProxyCommand=x", "ssh://a b", "ssh://x@-y", "ssh://h/a/b", "ssh://h/ä"]
)
def test_parse_refuses(text: str) -> None:
    with pytest.raises(UsageError):
        parse_ssh(text)


@pytest.mark.guest
@pytest.mark.timeout(120)
def test_background_and_terminal(there: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver is started there in the background, and outlives the connection; one that waits already is used."""
    options = GuestOptions(kernel="builtin:bench", append="mode=idle", memory="128M", name="a")
    with Guest(options) as source:
        source.expect("idle: ready")
        with pytest.raises(GuestError, match=r"nowhere could not log in \(ssh: Could not resolve hostname nowhere"):
            source.migrate_to("ssh://nowhere", remote_command=COMMAND)
        with pytest.raises(GuestError, match=r"did not start to wait for the guest .*not found.*--remote-command"):
            source.migrate_to("ssh://lab", remote_command="no-such-program")
        assert source.inject(0, 1, wait=True, timeout=20).outcome == "completed"
        result = source.migrate_to("ssh://lab", remote_command=COMMAND)
        assert (result.host, result.destination) == ("lab", "a")
    check_way_gone(runtime)
    (listed,) = listing(there)
    assert listed["name"] == "a"
    assert command(there, "inject", "a", "--event", "0", "--vcpu", "1", "--wait", "-q").wait(60) == 0
    # From there on to a receiver that waits at a terminal.
    with (runtime / "out").open("wb") as out:
        waiting = command(there, "receive", "--name", "b", "--json", stdout=out)
        until("it waits", lambda: b"waiting" in (runtime / "out").read_bytes())
        words = ("migrate", "a", "--to", "ssh://lab/b", "--remote-command", COMMAND, "--json", "--route", "copy")
        moved = command(there, *words)
        said, errors = moved.communicate(timeout=60)
        assert moved.returncode == 0, errors
        assert json.loads(said)["destination"] == "b"
        until("the first is gone", lambda: [entry["name"] for entry in listing(there)] == ["b"])
        assert command(there, "inject", "b", "--event", "0", "--vcpu", "1", "--wait", "-q").wait(60) == 0
        waiting.terminate()
        waiting.communicate(timeout=30)
    (runtime / "out").unlink()
    check_way_gone(there)
    check_nothing_left(there)


@pytest.mark.guest
@pytest.mark.timeout(60)
def test_nobody_comes(there: Path, runtime: Path) -> None:
    """The receiver ends with the connection if no guest has come by it."""
    with Tunnel("ssh://lab/x", "a", remote_command=COMMAND) as address:
        assert address.kind == "unix"
        assert str(address) == "lab"
        assert (there / "qemu-sdei/x/receive.sock").is_socket()
    check_nothing_left(there)
    check_way_gone(runtime)


def listing(runtime: Path) -> list[dict[str, object]]:
    found = json.loads(command(runtime, "list", "--json").communicate(timeout=30)[0])["guests"]
    assert isinstance(found, list)
    return found


@pytest.mark.guest
@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.skipif(not Path("/usr/sbin/sshd").exists(), reason="no sshd here")
def test_real_ssh(runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSH's own client and server, on loopback, with a configuration that has all sorts of other things in it."""
    there, programs = runtime / "there", runtime / "bin"
    for path in (there, programs):
        path.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True, timeout=30
        )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shutil.copy(tmp_path / "user.pub", tmp_path / "authorized")
    (tmp_path / "authorized").chmod(0o600)
    (tmp_path / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/authorized\n"
        f"StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\nSetEnv XDG_RUNTIME_DIR={there}\n"
    )
    (tmp_path / "known").write_text(f"[127.0.0.1]:{port} {(tmp_path / 'host.pub').read_text()}")
    (tmp_path / "config").write_text(
        f"Host lab\n HostName 127.0.0.1\n Port {port}\n User {getpass.getuser()}\n IdentityFile {tmp_path}/user\n"
        f" IdentitiesOnly yes\n UserKnownHostsFile {tmp_path}/known\n ControlMaster auto\n ControlPath {tmp_path}/mux\n"
        f" RemoteCommand false\n RequestTTY yes\n LocalForward {tmp_path}/forward 127.0.0.1:1\n ForwardAgent yes\n"
    )
    wrapper = programs / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {tmp_path}/config "$@"\n')
    wrapper.chmod(0o700)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    Path("/run/sshd").mkdir(exist_ok=True) if os.getuid() == 0 else None
    server = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-e", "-f", str(tmp_path / "sshd_config")], stderr=subprocess.PIPE
    )
    try:
        until("sshd listens", lambda: not socket.socket().connect_ex(("127.0.0.1", port)))
        monkeypatch.delenv(DIE_WITH_OWNER)
        with Guest(GuestOptions(kernel="builtin:bench", append="mode=idle", memory="128M", name="a")) as source:
            source.expect("idle: ready")
            result = source.migrate_to("ssh://lab", remote_command=COMMAND, multifd=2)
            assert (result.host, result.destination) == ("lab", "a")
        assert not (tmp_path / "forward").exists()
        check_way_gone(runtime)
        (listed,) = listing(there)
        assert command(there, "inject", "a", "--event", "0", "--vcpu", "1", "--wait", "-q").wait(60) == 0
        os.kill(int(str(listed["pid"])), signal.SIGTERM)
        until("it ends", lambda: not processes(there))
    finally:
        server.terminate()
        server.communicate(timeout=20)
    check_nothing_left(there)
