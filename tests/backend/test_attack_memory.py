"""A backend process under attack, without QEMU: what it takes of the host's memory. (With QEMU and for as long as is
wanted: tests/guest/test_attacks.py.)
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from qemu_sdei import locks, rundir
from qemu_sdei.backend.loop import memory_limit
from qemu_sdei.boot.config import BootConfig
from qemu_sdei.config import RAM_BASE, GuestConfig
from qemu_sdei.monitor import image, layout
from qemu_sdei.monitor.layout import Kind, Word
from tests.acpi.hostile_trees import TREES
from tests.acpi.trees import qemu_tree

RAM_SIZE = 64 << 20
BOUND = 64 << 20
LIMIT = 30.0
"""Seconds."""


class Alone:
    """A backend process, and this one in the place of QEMU: RAM, doorbell, and CPU 0's monitor."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.directory = directory
        path = directory / "ram"
        with path.open("wb") as file:
            file.truncate(RAM_SIZE)
        with path.open("r+b") as file:
            self.ram = memoryview(mmap.mmap(file.fileno(), RAM_SIZE))
        start = layout.window_base(0, RAM_SIZE)
        self.words = self.ram[start : start + layout.WINDOW_SIZE].cast("Q")
        self.frame = self.words[layout.FRAME_OFFSET // 8 :][: layout.FRAME_WORDS]
        boot = BootConfig("flat", "builtin:bench", append="mode=idle", ram_base=RAM_BASE, ram_size=RAM_SIZE, nr_cpus=1)
        config = GuestConfig("alone", 1, "max", RAM_SIZE, boot=boot.to_json(), ram_path=str(path))
        (directory / rundir.CONFIG).write_text(config.to_json())
        monitor = image.with_proof(image.patched(layout.window_base(RAM_BASE, RAM_SIZE), 1))
        self.proof = image.proof_of(monitor)
        (directory / rundir.MONITOR).write_bytes(monitor)
        self.doorbell = locks.listening(directory / rundir.DOORBELL)
        command = [sys.executable, "-m", "qemu_sdei.backend", str(directory)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | environment)
        self.bell, _ = self.doorbell.accept()

    def close(self) -> None:
        self.bell.close()
        self.doorbell.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(LIMIT)
        self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()

    def post(self, proof: int, kind: int = Kind.RESET) -> int:
        """A frame of CPU 0's boot, with this proof. Returns its number."""
        self.frame[Word.KIND], self.frame[Word.VECTOR], self.frame[Word.PROOF] = kind, 0, proof
        self.frame[Word.MONITOR_VERSION] = layout.VERSION
        at = layout.SEQ_OFFSET // 8
        self.words[at] = number = self.frame[Word.ACK] + 1
        with contextlib.suppress(OSError):
            self.bell.send(b"\0")
        return int(number)

    def boot(self) -> None:
        tree = qemu_tree(1, "-m", "64M")
        self.ram[: len(tree)] = tree
        number = self.post(self.proof)
        limit = time.monotonic() + LIMIT
        while self.frame[Word.ACK] != number:
            assert time.monotonic() < limit, "the boot was not answered"
            time.sleep(0.01)
        self.frame[Word.DONE] = number

    def private_memory(self) -> int:
        """RssAnon in bytes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("RssAnon:")[1].split()[0]) << 10


@contextlib.contextmanager
def alone(**environment: str) -> Iterator[Alone]:
    with tempfile.TemporaryDirectory(prefix="qs-") as name:
        backend = Alone(Path(name), **environment)
        try:
            yield backend
        finally:
            backend.close()


def test_forged_resets_take_no_memory() -> None:
    """Trees of 2 MiB in RAM that wanted to become gigabytes, and a RESET frame for each."""
    with alone() as backend:
        backend.boot()
        assert backend.frame[Word.PROOF] == 0
        most = before = backend.private_memory()
        for _ in range(3):
            for make in TREES:
                tree = make()
                backend.ram[: len(tree)] = tree
                for proof in (0, 1, backend.proof ^ 2):
                    backend.post(proof)
                    time.sleep(0.005)
                    backend.post(proof, Kind.OPS)  # a boot clears memory first, and goes on when that is done
                    time.sleep(0.005)
                most = max(most, backend.private_memory())
        assert backend.process.poll() is None
        assert most < min(BOUND, before + (8 << 20))


def test_one_at_its_limit_says_so() -> None:
    """The wall behind the bounds, moved close, and clients that lean on it."""
    with alone(**{memory_limit.VARIABLE: "8M"}) as backend:
        backend.boot()
        path = str(backend.directory / rundir.CONTROL)
        clients = []
        limit = time.monotonic() + LIMIT
        with contextlib.suppress(OSError):
            while backend.process.poll() is None and time.monotonic() < limit:
                client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                clients.append(client)
                client.settimeout(LIMIT)
                client.connect(path)
                client.sendall(b"[" * (1 << 20))
        assert backend.process.wait(LIMIT) == memory_limit.EXIT
        for client in clients:
            client.close()
        assert backend.process.stderr is not None
        said = backend.process.stderr.read().decode()
        assert "reached its memory limit of" in said
        assert memory_limit.VARIABLE in said
        assert "Traceback" not in said
