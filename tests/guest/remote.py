"""Two hosts on one: a receiver in this process, a way between the two that can be cut, certificates."""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qemu_sdei.errors import LostGuestError, NotDeliveredError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.migration.remote_address import Tls
from tests.guest.guests import until


class Receiving:
    """Waits for a guest in a thread; in a `with`, at whose end the guest is ended."""

    def __init__(self, **arguments: Any) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.about: dict[str, Any] = {}
        """Where it waits."""
        self.error: BaseException | None = None
        self._guest = Guest.receive(event=self._happened, **{"timeout": 100, **arguments})
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Receiving:
        self._thread.start()
        until("it waits", lambda: self.about or self.error)
        if self.error is not None:
            raise self.error
        return self

    def __exit__(self, *_: object) -> None:
        self._guest.close()
        self._thread.join(30)

    def _run(self) -> None:
        try:
            self._guest.start()
        except BaseException as error:
            self.error = error

    def _happened(self, state: str, about: dict[str, Any]) -> None:
        self.events.append((state, about))
        if state == "waiting":
            self.about = about

    @property
    def to(self) -> str:
        """For `migrate_to`."""
        return str(self.about.get("listen") or f"unix:{self.about['socket']}")

    @property
    def failures(self) -> list[str]:
        """Why guests did not arrive."""
        return [str(about["what"]) for state, about in list(self.events) if state == "failed"]

    @property
    def guest(self) -> Guest:
        """The guest, once it is here."""
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self._guest


class Way:
    """A unix socket that leads to another one; what goes through it can be looked at, changed, and cut off."""

    def __init__(self, path: Path, to: str) -> None:
        """`path` is made; `to`: as `Receiving.to`."""
        self.look: Callable[[bytes], bytes | None] = lambda data: data
        """Is given what the source sends; returns what is passed on, or None: every connection is cut."""
        self.mute = False
        """Every connection is cut in place of the destination's next answer."""
        self.closed = False
        """No new connections are made."""
        self.to = f"unix:{path}"
        self._target = to.removeprefix("unix:")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Way:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Break every connection."""
        for pair in self._pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.closed:
                near.close()
                continue
            far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                far.connect(self._target)
            except OSError:
                near.close()
                continue
            self._pairs.append((near, far))
            threading.Thread(target=self._carry, args=(near, far), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError), near, far:
            while True:
                for end in select.select([near, far], [], [])[0]:
                    data = end.recv(1 << 20)
                    if self.mute and end is far:
                        self.mute = False
                        self.cut()
                        return
                    if data and end is near:
                        looked = self.look(data)
                        if looked is None:
                            self.cut()
                            return
                        data = looked
                    if not data:
                        return
                    (far if end is near else near).sendall(data)


class Load:
    """Injects event 0 on both CPUs in turn until the guest has gone to another host; in a `with`."""

    def __init__(self, guest: Guest) -> None:
        self.accepted = 0
        """Each of them must be delivered once."""
        self.unknown = 0
        self.last = ""
        """Why the last one was not taken."""
        self._guest = guest
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        number = 0
        with self._guest.client() as client:
            while not self._stop.wait(0.002):
                number += 1
                try:
                    self.accepted += client.inject(0, number % 2).outcome == "queued"
                except NotDeliveredError as error:
                    self.last = str(error)
                    return
                except LostGuestError as error:
                    self.unknown += 1
                    self.last = str(error)
                    return


def authority(directory: Path, name: str) -> Path:
    """Make a CA; returns the directory that it is in."""
    where = directory / name
    where.mkdir()
    openssl(where, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip
    return where


def certificate(ca: Path, name: str, trusts: Path | None = None) -> Tls:
    """A certificate for 127.0.0.1 that `ca` has signed; its owner trusts `trusts` (None: the same)."""
    openssl(ca, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
            "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
    (ca / "san").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl(ca, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "2", "-extfile", "san", "-out", f"{name}.pem")  # fmt: skip
    return Tls(str(ca / f"{name}.pem"), str(ca / f"{name}.key"), str((trusts or ca) / "ca.pem"))


def openssl(directory: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=directory, check=True, timeout=60, capture_output=True)
