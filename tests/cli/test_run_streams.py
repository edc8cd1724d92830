"""`run -v -- COMMAND`: the kernel's log beside the command's own streams."""

from __future__ import annotations

from argparse import Namespace
from types import SimpleNamespace

import pytest

from qemu_sdei.cli.output import Progress
from qemu_sdei.cli.run_streams import _Watch
from qemu_sdei.guest.shell import marker
from qemu_sdei.vm.console import Console
from qemu_sdei.vm.options import GuestOptions

SAID = f"[    0.5] one\n{marker('5eed', 'channel:ready')}\n[    0.6] tw\u00f6\n"


@pytest.mark.parametrize("cut", range(1, len(SAID.encode())))
def test_a_marker_that_comes_in_pieces_is_not_shown(cut: int, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    guest = SimpleNamespace(console_text=console, options=GuestOptions())
    session = SimpleNamespace(started=True)
    watch = _Watch(guest, session, Namespace(verbose=1, timeout=None), Progress(quiet=True))  # type: ignore[arg-type]
    for part in (SAID.encode()[:cut], SAID.encode()[cut:]):
        console.feed(part)
        watch()
    assert capsys.readouterr().err == "[    0.5] one\n[    0.6] tw\u00f6\n"
