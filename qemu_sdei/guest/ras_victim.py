"""A process in the guest whose memory is to fail: it says which SIGBUS came of that (`guest/victim`)."""

from __future__ import annotations

import re
import secrets
import shlex
from dataclasses import dataclass

from qemu_sdei.errors import GuestError
from qemu_sdei.guest.helper import Runner


@dataclass(frozen=True, slots=True)
class Victim:
    """A running process in the guest, which has a page for an error."""

    pid: int
    """Its process id in the guest."""
    virtual: int
    """Virtual address of the page."""
    report: str
    """Path of the file in the guest to which it writes."""

    @classmethod
    def start(cls, run: Runner, *, early: bool = False, still: bool = False, file: str | None = None) -> Victim:
        """Start the process.

        Args:
            run: runs a command in the guest.
            early: True: it asks to be told at once (PR_MCE_KILL_EARLY).
            still: True: it does not touch the page any more.
            file: path in the guest of a file; the page is a shared mapping of it. None: anonymous memory.

        Raises:
            GuestError: it did not start.
        """
        report = f"/tmp/victim-{secrets.token_hex(4)}"
        words = ["early"] * early + ["still"] * still + ([f"file={file}"] if file is not None else [])
        command = (
            f"setsid victim {shlex.join(words)} >{report} 2>&1 & n=50; "
            f"until grep -q ready {report} || [ $((n -= 1)) -lt 0 ]; do sleep 0.1; done; cat {report}"
        )
        said = run(command).output
        match = re.search(r"ready pid=(\d{1,9}) virtual=0x([0-9a-f]{1,16})\b", said)
        if match is None:
            raise GuestError(f"the victim did not start: {said.strip()[:200] or 'it said nothing'}")
        return cls(int(match[1]), int(match[2], 16), report)
