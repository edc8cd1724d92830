"""A guest that another process runs, as an object: what `qemu-sdei shell` binds to `guest`.

It asks the guest's sockets, as the commands do, and owns nothing: the guest goes on whatever becomes of this process.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from qemu_sdei import rundir
from qemu_sdei.errors import SdeiError
from qemu_sdei.guest import machine_control
from qemu_sdei.guest.control_client import ControlClient, Injection
from qemu_sdei.guest.guest_exec import ExecResult
from qemu_sdei.guest.guest_firmware import GuestFirmware
from qemu_sdei.printable import printable
from qemu_sdei.untrusted_files import opened

if TYPE_CHECKING:
    from qemu_sdei.explain.explanation import Explanation
    from qemu_sdei.guest.nmi import Nmi

T = TypeVar("T")
_CONSOLE: Final = 1 << 20
_LOG: Final = 1 << 40
_PATIENCE: Final = 2.0
"""Seconds that `repr` waits for an answer."""


class Neighbour:
    """A running guest of another process. Its methods are those of `Guest` that need not own it."""

    def __init__(self, name: str | None = None) -> None:
        """Find the guest `name`; None: the only one that runs. Raises `UsageError`: there is none."""
        self._guest = rundir.find(name)
        self.name = self._guest.name
        self.firmware = GuestFirmware(self._ask)
        """What its firmware does wrong on purpose: see `Guest.firmware`."""

    def _client(self, timeout: float | None = None) -> ControlClient:
        more = {} if timeout is None else {"timeout": timeout, "connect_timeout": timeout}
        return ControlClient(self._guest.control, identity=self._guest.identity, **more)

    def _ask(self, question: Callable[[ControlClient], T]) -> T:
        with self._client() as client:
            return question(client)

    def __repr__(self) -> str:
        """Its state, vCPUs, events and where it is; asks it, for two seconds at most."""
        where = str(self._guest.path)
        try:
            with self._client(_PATIENCE) as client:
                status = client.status()
            power = [str(vcpu.get("power")) for vcpu in status["pes"]]
            events = ", ".join(_event(event) for event in status["events"] if _registered(event)) or "none registered"
        except (SdeiError, KeyError, TypeError, AttributeError) as error:
            words = str(error).partition("\n")[0]
            return printable(f"<guest {self.name!r}: it does not answer ({words}), {where}>", None)
        try:
            state = machine_control.run_state(self._guest.path / rundir.OWNER, self._guest.identity)
        except SdeiError:
            state = "here, and nobody says whether it runs"
        vcpus = f"{len(power)} vCPU{'s' if len(power) != 1 else ''} ({', '.join(power)})"
        return printable(f"<guest {self.name!r}: {state}, {vcpus}, events: {events}, {where}>", None)

    @property
    def directory(self) -> Path:
        """Its run directory."""
        return self._guest.path

    @property
    def console(self) -> str:
        """The end of what it has printed: 1 MiB at most. Raises `UsageError`: it cannot be read."""
        with opened(self._guest.path / rundir.CONSOLE_LOG, _LOG) as file:
            file.seek(max(0, file.seek(0, 2) - _CONSOLE))
            return file.read(_CONSOLE).decode(errors="replace").replace("\r\n", "\n")

    def status(self) -> dict[str, Any]:
        """The state of vCPUs and events. Raises `SdeiError`: it does not answer, or has ended."""
        return self._ask(ControlClient.status)

    def inject(
        self, event: int | str, vcpu: int | None = None, *, wait: bool = False, timeout: float = 5.0
    ) -> Injection:
        """Trigger an SDEI event: see `Guest.inject`."""
        from qemu_sdei.guest import event_targets

        return self._ask(
            lambda client: client.inject(event_targets.number(client, event), vcpu, wait=wait, timeout=timeout)
        )

    def nmi(self, vcpu: int | None = None, *, by: str | None = None) -> Nmi:
        """Give it an NMI: see `Guest.nmi`."""
        from qemu_sdei.guest.nmi import give

        return self._ask(lambda client: give(client, vcpu, by))

    def trace(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest trace records, oldest first."""
        return self._ask(lambda client: client.trace(limit))

    def explain(self) -> Explanation:
        """What is the matter with it: see `Guest.explain`."""
        from qemu_sdei.explain.explanation import explain
        from qemu_sdei.guest.picture_taking import take_picture

        return explain(take_picture(self._guest))

    def exec(self, command: str, *, stdin: bytes = b"", timeout: float = 30.0) -> ExecResult:
        """Run a command in it, beside its console: see `Guest.exec`."""
        from qemu_sdei.guest import guest_exec

        return guest_exec.run(lambda: self._guest.path, lambda: None, command, stdin, timeout)

    def pause(self) -> str:
        """Stop its vCPUs. Returns QEMU's word for what it does now. Raises `SdeiError`."""
        return machine_control.pause(self._guest.path / rundir.OWNER, self._guest.identity)

    def resume(self) -> str:
        """Have its vCPUs run again; as `pause`."""
        return machine_control.resume(self._guest.path / rundir.OWNER, self._guest.identity)


def _registered(event: dict[str, Any]) -> bool:
    return any(instance["registered"] for instance in event["instances"])


def _event(event: dict[str, Any]) -> str:
    name = event.get("name")
    return f"{event['event']:#x}" + (f"/{name}" if name else "")
