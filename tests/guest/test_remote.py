"""A running guest goes on at another host: two hosts on one, whose only link is the protocol."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from qemu_sdei.errors import GuestError, UsageError
from qemu_sdei.guest import remote_migration
from qemu_sdei.guest.guest import Guest
from qemu_sdei.migration import destination_remote, offer_check, remote_link
from qemu_sdei.migration import offer as remote_offer
from qemu_sdei.migration.failure_points import UndecidedError
from qemu_sdei.migration.remote_ram import Verifier
from qemu_sdei.vm.options import DIE_WITH_OWNER, GuestOptions
from tests.guest.client import KO, Client, module_for
from tests.guest.guests import check_nothing_left, command, plain, processes, storm_ended, until
from tests.guest.remote import Load, Receiving, Way, authority, certificate

pytestmark = pytest.mark.guest


def idle(**more: object) -> GuestOptions:
    """A guest that handles event 0 on both CPUs and does nothing else."""
    return GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="128M", **more)  # type: ignore[arg-type]


def handles(guest: Guest) -> bool:
    """Whether it runs, and takes events."""
    return guest.inject(0, 1, wait=True, timeout=20).outcome == "completed"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [2, pytest.param(100, marks=pytest.mark.slow)])
def test_no_event_is_lost_or_doubled(count: int, runtime: Path) -> None:
    """There and back under events: what was accepted was delivered once; what came too late is told where it went."""
    accepted = 0
    with contextlib.ExitStack() as hosts:
        guest = hosts.enter_context(Guest(idle(name="a")))
        guest.expect("idle: ready")
        for _ in range(count):
            name, other = guest.name, {"a": "b", "b": "a"}[guest.name]
            there = hosts.enter_context(Receiving(name=other))
            with Load(guest) as load:
                until("events arrive", lambda load=load: load.accepted > 20)
                result = guest.migrate_to(there.to)
                assert (result.source, result.destination, result.route) == (name, other, "unix")
                assert result.pages_differing is not None, "QEMU before 9.0 may have lost some: they were repaired"
                until("the late ones are refused", lambda load=load: load.last)
            assert f"moved to {other} at unix:" in load.last
            assert not load.unknown
            accepted += load.accepted
            off = guest.wait_off(20)
            assert (off.returncode, off.moved) == (0, f"{there.to} as {other!r}")
            guest.close()
            guest = there.guest
            assert guest.console == "idle: ready\n"
        until("all are delivered", lambda: guest.status()["counts"]["completed"] == accepted)
        counts = guest.status()["counts"]
        assert (counts["delivered"], counts["rejected"]) == (accepted, 0)
        assert handles(guest)
    check_nothing_left(runtime)


@pytest.mark.smoke
@pytest.mark.timeout(120)
def test_in_a_storm_of_calls(runtime: Path) -> None:
    """Each call is answered once; the guest's end is seen where it is."""
    options = GuestOptions(kernel="builtin:bench", append="mode=storm count=60000 smp=2 seed=7", memory="128M")
    with Guest(options) as source, Receiving() as there:
        until("the storm is on", lambda: source.status()["counts"]["calls"] > 1000)
        assert source.migrate_to(there.to, multifd=2).passes > 0
        guest = there.guest
        assert storm_ended(guest).guest
        assert re.search(r"^storm: ok calls=\d+ handled=[1-9]\d*$", guest.console, re.MULTILINE), guest.console
    check_nothing_left(runtime)


@pytest.mark.timeout(120)
def test_ram_that_did_not_arrive_is_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five pages, two of them in one chunk, one that only the destination has."""
    verify = Verifier.verify
    pages = (0x20_0000, 0x20_1000, 0x40_0000, 0x21_0000, 0x700_0000)

    async def damaged(self: Verifier, link: object) -> None:
        for page in pages:
            os.pwrite(self._fd, b"lost", page)
        await verify(self, link)  # type: ignore[arg-type]

    monkeypatch.setattr(Verifier, "verify", damaged)
    with Guest(idle(name="a")) as source, Receiving(name="b") as there:
        source.expect("idle: ready")
        assert source.migrate_to(there.to, route="copy").pages_differing == len(pages)
        assert handles(there.guest)
        monkeypatch.undo()
        with Receiving(name="c") as last:
            result = there.guest.migrate_to(last.to, route="copy", verify=False)
            assert (result.pages_differing, result.passes) == (None, 0)
            assert handles(last.guest)


@pytest.mark.timeout(120)
def test_files_of_a_reset(runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the destination has not is sent to it, and a reset there needs nothing of the source."""
    kernel = tmp_path / "bench"
    shutil.copy("qemu_sdei/data/bench.bin", kernel)
    with Guest(replace(idle(name="a"), kernel=f"flat:{kernel}")) as source:
        source.expect("idle: ready")
        monkeypatch.setattr(offer_check, "_here", lambda *_: None)
        with Receiving(name="b") as there:
            # The EL3 monitor too: each guest's has a number of its own.
            monitor = Path("qemu_sdei/data/monitor.bin").stat().st_size
            assert source.migrate_to(there.to).files_sent == kernel.stat().st_size + monitor
            kernel.unlink()
            guest = there.guest
            end = guest.console_text.end
            guest.reset()
            until("it boots again", lambda: "idle: ready" in guest.console_text.since(end)[0])
            assert handles(guest)
            assert guest.status()["epoch"] == 2
            # A backend that is killed reads the kernel again.
            assert guest.backend_pid is not None
            os.kill(guest.backend_pid, signal.SIGKILL)
            until("another backend is there", lambda: guest.backend_starts == 2)
            assert handles(guest)
    check_nothing_left(runtime)


@pytest.mark.timeout(180)
def test_cut_off_at_each_step(runtime: Path) -> None:
    """Until `go` the guest goes on at the source, the destination forgets it, and takes it the next time."""
    steps = ("offer", "prepare", "console", "ram", "document", "arrived", "verify", "hashes", "restore", "history")
    with Guest(idle(name="a")) as source, Receiving(name="b") as there, Way(runtime / "way", there.to) as way:
        source.expect("idle: ready")
        pid = source.qemu_pid
        for number, step in enumerate(steps, 1):
            words = b'"channel": "ram"' if step == "ram" else f'"cmd": "{step}"'.encode()
            way.look = lambda data, words=words: None if words in data else data  # type: ignore[misc]
            with pytest.raises(GuestError, match="was not migrated and runs on as 'a'"):
                source.migrate_to(way.to)
            until("the destination has forgotten it", lambda number=number: len(there.failures) == number)
            assert handles(source), step
            assert not [
                path for path in (runtime / "qemu-sdei/b").iterdir() if path.name not in ("lock", "receive.sock")
            ]
        assert source.qemu_pid == pid
        truncated = _Truncated()
        way.look = truncated
        with pytest.raises(GuestError, match="runs on as 'a'"):
            source.migrate_to(way.to, timeout=30)
        assert truncated.seen > truncated.limit
        assert handles(source)
        way.look = lambda data: data
        source.migrate_to(way.to)
        assert handles(there.guest)
    (runtime / "way").unlink()
    check_nothing_left(runtime)


class _Truncated:
    """Cuts QEMU's stream in its middle."""

    limit = 300_000

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, data: bytes) -> bytes | None:
        self.seen += len(data)
        return None if self.seen > self.limit else data


@pytest.mark.timeout(120)
def test_connection_is_lost_at_the_last_word(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether `go` arrived is asked for; without an answer the guest stands still here. Never do both run."""

    def running(guest: Guest) -> bool:
        return bool(guest.qmp("query-status")["running"])

    with Guest(idle(name="a")) as source, Receiving(name="b") as there, Way(runtime / "way", there.to) as way:
        source.expect("idle: ready")
        # It did not arrive, and the destination says so.
        way.look = lambda data: None if b'"cmd": "go"' in data else data
        with pytest.raises(GuestError, match="has cancelled"):
            source.migrate_to(way.to)
        assert running(source)
        assert handles(source)
        # It did not arrive, and nobody answers: the user looks, and has it go on.
        way.look = lambda data: _close(way) if b'"cmd": "go"' in data else data
        with monkeypatch.context() as patch:
            patch.setattr(destination_remote, "_INQUIRE", 1.0)
            with pytest.raises(UndecidedError, match="--resume"):
                source.migrate_to(way.to)
        assert not running(source)
        until("the destination has given up", lambda: len(there.failures) == 2)
        with pytest.raises(UsageError, match="--resume"):
            source.migrate_to(way.to)
        source.resume()
        assert running(source)
        assert handles(source)
        with pytest.raises(UsageError, match="nothing to resume"):
            source.resume()
        # It arrived, and the answer did not: the destination says so.
        way.closed = False
        way.look = lambda data: _mute(way, data)
        assert source.migrate_to(way.to).destination == "b"
        guest = there.guest
        assert source.wait_off(20).moved
        assert handles(guest)
        # It arrived, and nobody answers: the guest stands still here, whatever comes.
        with Receiving(name="c") as last, Way(runtime / "far", last.to) as far:
            far.look = lambda data: _mute(far, data, close=True)
            monkeypatch.setattr(destination_remote, "_INQUIRE", 1.0)
            with pytest.raises(UndecidedError):
                guest.migrate_to(far.to)
            assert not running(guest)
            assert handles(last.guest)


def _close(way: Way) -> None:
    way.closed = True


def _mute(way: Way, data: bytes, *, close: bool = False) -> bytes:
    """Pass `go` on, and not the answer to it."""
    if b'"cmd": "go"' in data:
        way.closed, way.mute = close, True
    return data


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make certificates")
@pytest.mark.timeout(120)
def test_tcp_and_tls(runtime: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Loopback with a token, anything by TLS with certificates on both sides; whoever has none gets nowhere."""
    ca, other = authority(tmp_path, "ca"), authority(tmp_path, "other")
    host, guest, stranger = certificate(ca, "host"), certificate(ca, "guest"), certificate(other, "stranger", ca)
    with Guest(idle(name="a")) as source, Receiving(name="b", listen="127.0.0.1:0") as there:
        source.expect("idle: ready")
        assert there.to.startswith("tcp://127.0.0.1:")
        with pytest.raises(GuestError, match="runs on as 'a': the token is wrong"):
            source.migrate_to(there.to, token="guess")
        assert not there.failures, "a wrong token is no attempt"
        assert source.migrate_to(there.to, token=there.about["token"]).route == "tcp"
        with Receiving(name="c", listen="127.0.0.1:0", tls=host) as last:
            arrived = there.guest
            for tls, words in (
                (stranger, "perhaps it does not take this side's certificate"),
                (replace(guest, ca=str(other / "ca.pem")), "is not who it should be"),
            ):
                with pytest.raises(GuestError, match=words):
                    arrived.migrate_to(last.to, tls=tls)
            with pytest.raises(UsageError, match="needs --tls-cert"):
                arrived.migrate_to(last.to)
            assert "token" not in last.about
            assert arrived.migrate_to(last.to, tls=guest).route == "tls"
            assert handles(last.guest)
    assert capfd.readouterr().err == ""
    check_nothing_left(runtime)


@pytest.mark.timeout(60)
def test_what_a_stranger_may_use_here(tmp_path: Path) -> None:
    """A guest that comes by TCP has nothing of this host but what is allowed; the source's goes on."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    with Guest(idle(name="a", drives=[str(disk)])) as source:
        source.expect("idle: ready")
        with Receiving(name="b", listen="127.0.0.1:0") as there:
            with pytest.raises(GuestError, match=f"runs on as 'a': .*{disk}, which is not allowed here: --allow"):
                source.migrate_to(there.to, token=there.about["token"])
            until("the receiver says so", lambda: there.failures)
        with Receiving(name="b", listen="127.0.0.1:0", allow=(str(tmp_path),)) as there:
            source.migrate_to(there.to, token=there.about["token"])
            assert handles(there.guest)


@pytest.mark.timeout(120)
def test_command(runtime: Path) -> None:
    """`receive` and `migrate --to`: the console is there, the terminal here says where and ends well."""
    here, there = runtime / "here", runtime / "there"
    for path in (here, there):
        path.mkdir(mode=0o700)
    with (runtime / "out").open("wb") as out, (runtime / "console").open("wb") as console:
        receiver = command(there, "receive", "--json", "--name", "b", stdout=console)
        owner = command(
            here, "run", "--name", "a", "--kernel", "builtin:bench", "--append", "mode=idle", "-m", "128M", stdout=out
        )
        until("the guest is up", lambda: b"idle: ready" in (runtime / "out").read_bytes())
        until("it waits", lambda: b'"waiting"' in (runtime / "console").read_bytes())
        to = f"unix:{there}/qemu-sdei/b/receive.sock"
        wrong = command(here, "migrate", "a", "--to", "tcp://192.0.2.1:1", "--token", "x")
        assert b"does not go to 192.0.2.1 in clear" in wrong.communicate(timeout=60)[1]
        assert wrong.returncode == 2
        moved = command(here, "migrate", "a", "--to", to)
        said, errors = moved.communicate(timeout=60)
        assert moved.returncode == 0, errors
        assert said.decode().startswith(f"guest 'a' is at {to} as 'b' now\n")
        assert b"RAM was compared: " in said
        errors = owner.communicate(timeout=60)[1]
        assert owner.returncode == 0
        assert errors.decode().endswith(f"qemu-sdei: guest 'a' is at {to} as 'b' now\n")
        until("it runs there", lambda: b'"running"' in (runtime / "console").read_bytes())
        injected = command(there, "inject", "b", "--event", "0", "--vcpu", "1", "--wait")
        assert injected.wait(60) == 0
        receiver.terminate()
        receiver.communicate(timeout=60)
        injected.communicate()
    for name in ("out", "console"):
        (runtime / name).unlink()
    for path in (here, there):
        check_nothing_left(path)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("step", ["start", "ram", "restore"])
def test_receiver_is_killed(step: str, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that receives is killed (-9): its QEMU ends as well, and the guest goes on at the source."""
    monkeypatch.setenv(DIE_WITH_OWNER, "0")  # not by the kernel: its backend sees that no guest is there
    there = runtime / "there"
    there.mkdir(mode=0o700)
    with (runtime / "said").open("wb") as out:
        receiver = command(there, "receive", "--json", "--name", "b", stdout=out)
        with Guest(idle(name="a")) as source:
            source.expect("idle: ready")
            until("it waits", lambda: b'"waiting"' in (runtime / "said").read_bytes())

            def kill(report: object) -> None:
                if getattr(report, "phase", "") == step:
                    receiver.kill()

            with pytest.raises(GuestError, match="runs on as 'a'"):
                source.migrate_to(f"unix:{there}/qemu-sdei/b/receive.sock", report=kill)
            assert handles(source)
        until("its QEMU ends", lambda: not processes(there))
        receiver.communicate(timeout=20)
    shutil.rmtree(there)
    (runtime / "said").unlink()
    check_nothing_left(runtime)


@pytest.mark.timeout(120)
def test_source_is_killed(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the source's process is killed: until `go` the guest is here for whoever adopts it, and goes on; after that
    it is there, and stands still here until somebody says that it is not.
    """
    monkeypatch.setenv(DIE_WITH_OWNER, "0")
    with Receiving(name="b") as there, Way(runtime / "way", there.to) as way:
        for step in (b'"cmd": "restore"', b'"cmd": "go"'):
            with (runtime / "out").open("wb") as out:
                words = ("run", "--name", "a", "--kernel", "builtin:bench", "--append", "mode=idle", "-m", "128M")
                owner = command(runtime, *words, stdout=out)
                until("the guest is up", lambda: b"idle: ready" in (runtime / "out").read_bytes())

                def look(data: bytes, step: bytes = step, owner: object = owner) -> bytes:
                    if step in data:
                        owner.kill()  # type: ignore[attr-defined]
                        owner.wait(20)  # type: ignore[attr-defined]
                    return data

                way.look = look
                asked = command(runtime, "migrate", "a", "--to", way.to)
                assert b"owner went away" in asked.communicate(timeout=60)[1]
                owner.communicate(timeout=20)
            with Guest.adopt("a") as adopted:
                if step == b'"cmd": "restore"':
                    until("the receiver waits again", lambda: there.failures)
                    assert handles(adopted)
                    continue
                assert handles(there.guest)
                assert not adopted.qmp("query-status")["running"]
                with pytest.raises(UsageError, match="--resume"):
                    adopted.migrate_to(way.to)
                there.guest.close()
                adopted.resume()
                assert handles(adopted)
    for name in ("out", "way"):
        (runtime / name).unlink()
    check_nothing_left(runtime)


@pytest.mark.timeout(60)
def test_document_of_a_newer_program(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before anything moves where it is announced, and by the backend where it is not."""
    make_offer = remote_offer.make_offer

    def newer(*arguments: object) -> object:
        offer = make_offer(*arguments)  # type: ignore[arg-type]
        offer.facts["document"] = 99
        return offer

    with Guest(idle(name="a")) as source, Receiving(name="b") as there, Way(runtime / "way", there.to) as way:
        source.expect("idle: ready")
        with monkeypatch.context() as patch:
            patch.setattr(remote_migration, "make_offer", newer)
            with pytest.raises(GuestError, match="documents of version 99, this host knows up to version"):
                source.migrate_to(way.to)
        way.look = lambda data: data.replace(b'"qemu-sdei-state", "version": ', b'"qemu-sdei-state", "version":9')
        with pytest.raises(GuestError, match="runs on as 'a': state document: written by a newer program"):
            source.migrate_to(way.to)
        assert handles(source)
        until("the receiver says so", lambda: len(there.failures) == 2)


READY = b'{"ok": true, "name": "b", "session": "x"}\n'
OK = b'{"ok": true}\n'


@pytest.mark.timeout(120)
def test_hostile_receiver(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the other side answers: one line that can be shown, no file that was not offered, the guest goes on."""
    monkeypatch.setattr(remote_link, "SILENCE", 2.0)
    offered = b'{"ok": true, "need": []}\n'
    sent = OK + offered + READY + OK
    answers = (
        (b"\n", "a message is not JSON"),
        (b"x" * (1 << 21), "more than 256 KiB"),
        (b'{"ok": false, "error": "\\u001b[2Jgo\\naway"}\n', r"runs on as 'a': \[2Jgo away$"),
        (b'{"ok": 1}\n', "not of the protocol's form"),
        (OK + b'{"ok": true, "need": "kernel"}\n', "not of the protocol's form"),
        (OK + b'{"ok": true, "need": ["/etc/passwd"]}\n', "not of the protocol's form"),
        (OK + b'{"ok": true, "need": [{}]}\n', "not of the protocol's form"),
        (OK + offered + b'{"ok": true, "name": "", "session": 1}\n', "not of the protocol's form"),
        (OK + offered + READY + b'{"ok": false, "error": "no console"}\n', "no console"),
        # It does as if all was well, and takes no RAM.
        (sent, "runs on as 'a'"),
    )
    with Guest(idle(name="a")) as source:
        source.expect("idle: ready")
        for number, (answer, words) in enumerate(answers):
            path = runtime / f"hostile{number}"
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
                listener.bind(str(path))
                listener.listen(4)
                threading.Thread(target=_answers, args=(listener, answer), daemon=True).start()
                with pytest.raises(GuestError, match=words):
                    source.migrate_to(f"unix:{path}", timeout=20)
            path.unlink()
            assert source.qmp("query-status")["running"], words
        assert handles(source)
    check_nothing_left(runtime)


def _answers(listener: socket.socket, answer: bytes) -> None:
    """Give one connection all answers at once, and hang up on the others."""
    with contextlib.suppress(OSError):
        first, _ = listener.accept()
        with first:
            first.sendall(answer)
            while True:
                listener.accept()[0].close()


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_linux(linux: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernel and initrd travel; registered events, the shell, both CPUs and the next boot are there."""
    monkeypatch.setattr(offer_check, "_here", lambda *_: None)
    with Guest(GuestOptions(series="6.1", smp=2, files={KO: module_for("6.1")}, name="a")) as source:
        Client(source).load("events=0,0x100 verbose=0")
        with Receiving(name="b") as there:
            result = source.migrate_to(there.to)
            assert result.files_sent > linux.stat().st_size // 2
            guest = there.guest
            client = Client(guest)
            for cpu in (0, 1):
                assert guest.inject(0x100, cpu, wait=True, timeout=20).outcome == "completed"
            assert [client.count(cpu, 0x100) for cpu in (0, 1)] == [(1, 1), (1, 1)]
            assert not re.search(r"BUG|Oops|WARNING|Call trace|stall", client.shell("dmesg"))
            assert plain(guest.run("uname -m").output) == "aarch64\n"
            end = guest.console_text.end
            guest.reset()
            until("it boots again", lambda: "SDEI" in guest.console_text.since(end)[0], 100)
            assert plain(guest.run("uname -m").output) == "aarch64\n"
            assert guest.poweroff().guest
    check_nothing_left(runtime)
