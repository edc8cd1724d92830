"""A QEMU of the user's own, served by `qemu-sdei backend` over its restarts and over the backend's."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.guest.guests import LIMIT, command, processes, until

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(shutil.which("qemu-system-aarch64") is None, reason="no qemu-system-aarch64"),
]


PAGE = Path(__file__).resolve().parents[2] / "docs/howto/own-qemu.md"


class Own:
    """A directory of `qemu-args`; by default with the embedded guest that handles event 0."""

    def __init__(self, runtime: Path, *what: str, ready: str = "idle: ready") -> None:
        self.runtime = runtime
        self.directory = runtime / "own"
        self.ready = ready.encode()
        what = what or ("--kernel", "builtin:bench", "--append", "mode=idle", "--memory", "128M")
        answer = self.ask("qemu-args", "--dir", str(self.directory), *what, "--json")
        self.arguments: list[str] = answer["arguments"]
        self.ram = Path(answer["ram"])

    def ask(self, *words: str) -> Any:
        with command(self.runtime, *words) as process:
            out, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        return json.loads(out)

    @contextmanager
    def qemu(self) -> Iterator[None]:
        line = ["qemu-system-aarch64", *self.arguments, "-display", "none", "-nodefaults"]
        console = self.runtime / "console"
        line[line.index("mon:stdio")] = f"file:{console}"
        with subprocess.Popen(line, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            try:
                until("the guest is ready", lambda: console.exists() and self.ready in console.read_bytes())
                yield
            finally:
                process.terminate()
                process.communicate(timeout=30)
        console.unlink()

    @contextmanager
    def backend(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            [sys.executable, "-m", "qemu_sdei", "backend", "--dir", str(self.directory), *words],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGINT)
                process.communicate(timeout=30)

    def inject(self) -> str:
        answer = self.ask("inject", str(self.directory), "--event", "0", "--vcpu", "1", "--wait", "--json")
        (outcome,) = answer["outcomes"]
        return str(outcome)


def test_the_printed_command_line_runs_with_a_network_card(runtime: Path) -> None:
    """As docs/howto/own-qemu.md has it: also where no boot ROM of a network card is installed."""
    directory, console = runtime / "own", runtime / "console"
    words = ["--kernel", "builtin:bench", "--append", "mode=idle", "--memory", "128M"]
    with command(runtime, "qemu-args", "--dir", str(directory), *words) as process:
        text = process.communicate(timeout=30)[0].decode()
    line = text.partition("#")[0].replace("mon:stdio", f"file:{console}").rstrip()
    (card,) = re.findall(r"^    (-netdev .*)$", PAGE.read_text(), re.M)

    def ready() -> bool:
        return console.exists() and b"idle: ready" in console.read_bytes()

    with subprocess.Popen(["/bin/sh", "-c", f"exec {line} {card}"], stdin=subprocess.DEVNULL) as qemu:
        try:
            with command(runtime, "backend", "--dir", str(directory), "--once") as backend:
                until("the guest is ready", ready, 3 * LIMIT)  # two programs start beside each other
                qemu.terminate()
                backend.communicate(timeout=30)
        finally:
            qemu.terminate()
    ram = re.search(r"mem-path=(\S+)", text)
    assert ram is not None
    assert not Path(ram[1]).exists()


def test_a_qemu_and_its_successor_are_served(runtime: Path) -> None:
    own = Own(runtime)
    with own.backend() as backend:
        for _ in range(2):
            with own.qemu():
                assert own.inject() == "completed"
        assert backend.poll() is None
        until("the backend waits for the next one", lambda: len(processes(own.directory)) == 2)
    assert backend.returncode == 128 + signal.SIGINT
    assert sorted(path.name for path in own.directory.iterdir()) == ["guest.json", "monitor.bin"]
    assert not own.ram.exists()


def test_a_backend_that_comes_later_and_comes_back(runtime: Path) -> None:
    own = Own(runtime)
    with own.backend() as backend:
        with own.qemu():
            assert own.inject() == "completed"
            backend.send_signal(signal.SIGINT)
            _, err = backend.communicate(timeout=30)
            assert b"QEMU still runs" in err
            assert own.ram.exists()
            with own.backend("--once") as second:
                assert own.inject() == "completed"
                (child,) = (pid for pid in processes(own.directory) if b"doorbell-timeout" in arguments(pid))
                os.kill(child, signal.SIGKILL)
                until("another backend", lambda: any(pid != child for pid in backends(own)))
                assert own.inject() == "completed"
                qemu = [pid for pid in processes(own.directory) if b"-machine" in arguments(pid)]
                os.kill(qemu[0], signal.SIGTERM)
                second.communicate(timeout=30)
                assert second.returncode == 0
    assert not own.ram.exists()


def test_two_backends_do_not_serve_one_guest(runtime: Path) -> None:
    own = Own(runtime)
    with own.backend() as first:
        until("the first has its lock", lambda: (own.directory / "lock").exists())
        with own.backend() as second:
            _, err = second.communicate(timeout=30)
            assert second.returncode == 2
            assert f"served by process {first.pid}".encode() in err
        assert first.poll() is None


def test_kill_9_takes_the_serving_process_with_it(runtime: Path) -> None:
    own = Own(runtime)
    with own.backend() as backend:
        with own.qemu():
            backend.kill()
            until("its child ends", lambda: not backends(own))
    own.ram.unlink()


def arguments(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def backends(own: Own) -> list[int]:
    return [pid for pid in processes(own.directory) if b"doorbell-timeout" in arguments(pid)]


def test_linux_by_acpi(runtime: Path, linux: Path) -> None:
    """Without an initrd it panics in the end, but it has found its tables by then."""
    words = ("--kernel", str(linux), "--acpi", "--append", "earlycon console=ttyAMA0", "--memory", "256M")
    own = Own(runtime, *words, ready="sdei: SDEIv1.1")
    with own.backend(), own.qemu():
        console = (runtime / "console").read_text(errors="replace")
        assert "psci: probing for conduit method from ACPI." in console
        assert "ACPI: AGDI" in console
