"""A guest in a notebook: what its kernel shows, interrupts, and leaves. Needs ipykernel and jupyter_client."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.guest.guests import LIMIT, check_nothing_left

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(200)]

PATIENCE = 3 * LIMIT
Cell = Callable[..., str]


@pytest.fixture
def kernel(runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A notebook's kernel, of which a guest is to end also without the variable of the tests."""
    pytest.importorskip("ipykernel", reason="no ipykernel here")
    manager = pytest.importorskip("jupyter_client.manager", reason="no jupyter_client here")
    monkeypatch.delenv("QEMU_SDEI_DIE_WITH_OWNER")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    kernel = manager.KernelManager(kernel_name="python3")
    kernel.start_kernel()
    yield kernel
    kernel.shutdown_kernel(now=True)


@pytest.fixture
def cell(kernel: Any) -> Iterator[Cell]:
    """Run a cell: what is shown below it. `shown` is called with each part."""
    client = kernel.client()
    client.start_channels()
    client.wait_for_ready(PATIENCE)

    def run(code: str, shown: Callable[[str], object] = lambda _: None) -> str:
        parts: list[str] = []

        def hook(message: dict[str, Any]) -> None:
            content = message["content"]
            text = content.get("text") or "\n".join(content.get("traceback", ()))
            parts.append(text or content.get("data", {}).get("text/plain", ""))
            shown(parts[-1])

        client.execute_interactive(code, timeout=PATIENCE, output_hook=hook)
        return "".join(parts)

    yield run
    client.stop_channels()


def test_a_guest_in_a_notebook(kernel: Any, cell: Cell, runtime: Path) -> None:
    start = """
        from qemu_sdei import Guest, GuestOptions
        guest = Guest(GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="128M", smp=2, name="nb"))
        guest.start(); guest.expect("idle: ready", 90); guest
    """
    assert cell("\n".join(line.strip() for line in start.splitlines())).startswith("<Guest 'nb': running, 2 vCPUs")
    *frames, message = cell("guest.inject(0x7777)").splitlines()
    assert message.startswith("UsageError: there is no event 0x7777")
    assert "qemu_sdei" not in "".join(frames)
    interrupted = cell(
        "print('now', flush=True); guest.expect('never', 1000)",
        lambda text: kernel.interrupt_kernel() if "now" in text else None,
    )
    assert "KeyboardInterrupt" in interrupted
    assert cell("import asyncio; (await asyncio.to_thread(guest.inject, 0, 1, wait=True)).outcome") == "'completed'"
    os.kill(kernel.provisioner.pid, signal.SIGKILL)
    check_nothing_left(runtime)
