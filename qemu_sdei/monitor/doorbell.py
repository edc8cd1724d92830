"""The doorbell: the secure UART's socket chardev, QEMU being the server.

Guest to host: a byte says that some CPU posted a frame while nobody watched. Host to guest: a byte raises the UART's
interrupt, which is Group 0 and so reaches EL3 whatever the guest masks; the KICK words say whom it is for. What the
byte is never matters.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import socket
import termios
import time
from collections.abc import Callable

from qemu_sdei.errors import GuestTimeoutError
from qemu_sdei.locks import peer_pid

_RETRY_S = 0.005


class Doorbell:
    """A connection to the secure UART. It never blocks: kicks are bounded (one outstanding for each CPU), so the
    socket's buffer always has room, and if it should not, the byte is not needed: the ones that lie there ring for
    it.
    """

    def __init__(self, path: str, timeout: float, vain: Callable[[], bool] = lambda: False) -> None:
        """Connect to QEMU's socket at `path`, waiting up to `timeout` seconds for it to appear, or until `vain()`.

        Raises:
            GuestTimeoutError: nobody listened there in time.
        """
        limit = time.monotonic() + timeout
        while True:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self._socket.connect(path)
                break
            except OSError as error:
                self._socket.close()
                if time.monotonic() > limit or vain():
                    raise GuestTimeoutError(
                        f"no QEMU listened at doorbell {path} within {timeout:g} s, or while its owner lived: {error}"
                    ) from None
            time.sleep(_RETRY_S)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """For `select`: readable when the guest rang or QEMU went away."""
        return self._socket.fileno()

    def server(self) -> int:
        """Process id of QEMU, if it made its socket itself; else of who did."""
        return peer_pid(self._socket)

    def ring(self) -> None:
        """Interrupt the guest. Raises nothing: a dead QEMU is noticed by `drain`."""
        with contextlib.suppress(OSError):
            self._socket.send(b"\n")

    @property
    def taken(self) -> bool:
        """Whether QEMU has read each byte that was rung: it has accepted the connection, if one was."""
        left = array.array("i", [0])
        try:
            fcntl.ioctl(self._socket, termios.TIOCOUTQ, left)
        except OSError:
            return False
        return not left[0]

    def drain(self) -> bool:
        """Take the bytes that came. False: QEMU closed the connection."""
        try:
            while data := self._socket.recv(4096):
                if len(data) < 4096:
                    return True
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Hang up; QEMU waits for the next client."""
        self._socket.close()
