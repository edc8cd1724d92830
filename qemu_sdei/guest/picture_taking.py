"""The picture of a guest, taken from outside: of its backend, its trace ring, QEMU, its console, or what of them there
is. Nothing here waits long for a process that does not answer: a guest that hangs is what this is for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei import rundir, stopped
from qemu_sdei.config import GuestConfig
from qemu_sdei.errors import ProtocolError, SdeiError
from qemu_sdei.explain.picture import ErrorBlock, Picture, Vcpu, Where, events_of, vcpus_of
from qemu_sdei.explain.purpose import purpose_of
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.sdei.switches import description_of

if TYPE_CHECKING:
    from qemu_sdei.symbols.symbolizer import Symbolizer

_CONNECT: Final = 1.0
_ANSWER: Final = 2.0
_COME: Final = 1.0
"""Seconds for vCPUs to come when they are looked at, on a host that is busy; mostly it is a millisecond."""
_BETWEEN: Final = 0.1
"""Seconds between two looks: a vCPU that is where it was stays there."""
_POLL: Final = 0.005
_QEMU: Final = 1.5
"""Seconds for QEMU's answer, by way of its supervisor."""
_MOST: Final = 8
"""vCPUs that QEMU is asked about, of those that have not come."""
_TAIL: Final = 32 << 10
"""Bytes of the console's log that are looked at."""
_RUNNING: Final = "running"
_LEVELS: Final = {f"EL{n}{sp}": n << 2 | (sp == "h") for n in range(4) for sp in "th"}


def take_picture(
    guest: rundir.Running,
    *,
    vcpus: Collection[int] | None = None,
    ended: bool = False,
) -> Picture:
    """The picture of a running guest, in some half a second; 5 s at most where nothing of it answers.

    Args:
        guest: which.
        vcpus: those to look at; None: all.
        ended: its QEMU has ended: only files are left.

    Raises:
        UsageError: the guest's files cannot be read: it has just ended.
    """
    taking = _Taking(guest, vcpus)
    if not ended:
        taking.ask_backend()
    taking.read_files(ended=ended)
    if not ended:
        taking.ask_qemu()
    return taking.picture


def with_names(picture: Picture, symbolizer: Symbolizer) -> Picture:
    """The same picture with names for addresses. The trace says where the kernel lies."""
    for record in picture.records:
        symbolizer.learn(record)

    def name(address: int) -> str | None:
        found = symbolizer.name(address)
        return None if found.startswith("0x") else found

    return replace(picture, name=name)


class _Taking:
    """One picture in the making."""

    def __init__(self, guest: rundir.Running, vcpus: Collection[int] | None) -> None:
        self._guest = guest
        self._directory: Path = guest.path
        self._wanted = vcpus
        self.picture = Picture(guest.name, time.monotonic_ns(), known_by="")
        self._acpi: dict[int, str] = {}
        try:
            config = GuestConfig.from_json((self._directory / rundir.CONFIG).read_bytes())
            profile = description_of(config)
        except (OSError, SdeiError):
            return  # what it says is of use only
        self._acpi = {event.number: event.acpi for event in profile.events if event.acpi}
        tables = config.boot.get("tables") == "acpi"
        self.picture = replace(self.picture, acpi=tables, client_el=2 if config.virtualization else 1)

    # ---- the backend

    def ask_backend(self) -> None:
        """State of events and vCPUs, and two looks at the vCPUs."""
        pid = stopped.processes(self._directory).get("backend")
        if pid is not None and stopped.is_stopped(pid):
            self.picture = replace(self.picture, backend=stopped.described("backend", pid))
            return
        if pid is None and rundir.deserted(self._directory):
            why = f"it has died, and there is no supervisor to start another: `qemu-sdei attach {self._guest.name}`"
            self.picture = replace(self.picture, backend=why)
            return
        client = ControlClient(
            self._guest.control, identity=self._guest.identity, timeout=_ANSWER, connect_timeout=_CONNECT
        )
        try:
            with client:
                status = client.hello() | client.status()
                self._directory = client.path.parent  # it may have moved
                # Before the looks, whose own frames are in it as well.
                self._read_records()
                self._know(status, "backend")
                self._look(client)
        except SdeiError as error:
            why = f"process {pid} does not answer" if pid is not None else "it has died, or has just been started again"
            self.picture = replace(self.picture, backend=f"{why} ({error})")

    def _know(self, status: dict[str, Any], by: str) -> None:
        self.picture = replace(
            self.picture,
            now_ns=time.monotonic_ns(),
            vcpus=vcpus_of(status),
            events=events_of(status, self._acpi),
            epoch=_number(status, "epoch"),
            kernels=_number(status, "kernels"),
            known_by=by,
            misbehaves=purpose_of(status),
        )

    def _look(self, client: ControlClient) -> None:
        wanted = [v.index for v in self.picture.vcpus if self._wanted is None or v.index in self._wanted]
        first = self._looked(client, wanted)
        on = [vcpu.index for vcpu in self.picture.vcpus if vcpu.index in wanted and vcpu.on and vcpu.seen]
        if on and not first.get("paused"):
            time.sleep(_BETWEEN)
            self._looked(client, on)

    def _looked(self, client: ControlClient, wanted: list[int]) -> dict[str, Any]:
        """Have them come; add what they show to the picture."""
        found = before = client.look(wanted)
        qemu = stopped.processes(self._directory).get("QEMU")
        limit = time.monotonic() + (0 if qemu is not None and stopped.is_stopped(qemu) else _COME)
        while found.get("waiting") and time.monotonic() < limit:
            time.sleep(_POLL)
            found = client.look(wanted, ask=False)
        try:
            old = {entry["vcpu"]: entry["look"] for entry in before["vcpus"]}
            new = {entry["vcpu"]: entry for entry in found["vcpus"]}
            vcpus = tuple(_seen(v, new[v.index], old[v.index]) if v.index in new else v for v in self.picture.vcpus)
            errors = tuple(map(_error, found["errors"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProtocolError(f"the backend's answer to look is not of the protocol's form ({error!r})") from None
        self.picture = replace(self.picture, vcpus=vcpus, errors=errors)
        return found

    # ---- files

    def read_files(self, *, ended: bool) -> None:
        """Trace, console, and without a backend its journal."""
        if not self.picture.known_by:
            from qemu_sdei.backend.loop.last_state import last_state

            self._read_records()
            try:
                self._know(last_state(self._directory), "journal")
            except (OSError, SdeiError):
                pass  # there is none, or it is damaged: the trace is what is left
        self.picture = replace(self.picture, console=_console(self._directory / rundir.CONSOLE_LOG), ended=ended)

    def _read_records(self) -> None:
        from qemu_sdei.trace.reading import open_trace

        try:
            with open_trace(self._directory / rundir.TRACE) as reading:
                records = list(reading.records())
        except (OSError, SdeiError):
            return  # of an older version
        # The first one is about what is older than the ring.
        lost = sum(int(record.get("count", 0)) for record in records[1:] if record.get("type") == "dropped")
        self.picture = replace(self.picture, records=tuple(records), lost=lost)

    # ---- QEMU

    def ask_qemu(self) -> None:
        """Whether the vCPUs run, and where those are that did not come; only if there are such."""
        picture = self.picture
        late = [v.index for v in picture.vcpus if v.missing or (not v.asked and v.on and picture.backend)]
        if not late and not picture.backend:
            return
        pid = stopped.processes(self._directory).get("QEMU")
        if pid is not None and stopped.is_stopped(pid):
            self.picture = replace(picture, qemu=stopped.described("QEMU", pid))
            return
        from qemu_sdei.guest import machine_control  # the whole of a supervisor comes with it: 0.1 s

        owner = self._directory / rundir.OWNER
        try:
            state = machine_control.run_state(owner, self._guest.identity)
            self.picture = replace(picture, paused="" if state == _RUNNING else state)
            limit = time.monotonic() + _QEMU
            for index in late[:_MOST]:
                if time.monotonic() > limit or (self._wanted is not None and index not in self._wanted):
                    continue
                values = machine_control.registers(owner, index, self._guest.identity, patience=_QEMU)
                where = _of_qemu(values)
                vcpus = (replace(v, seen=(where,)) if v.index == index else v for v in self.picture.vcpus)
                self.picture = replace(self.picture, vcpus=tuple(vcpus))
        except SdeiError as error:
            self.picture = replace(self.picture, qemu=f"it was asked where the vCPUs are, and did not say: {error}")


def _number(status: dict[str, Any], name: str) -> int:
    value = status.get(name)
    return value if isinstance(value, int) else 0


def _seen(vcpu: Vcpu, entry: dict[str, Any], old: dict[str, Any] | None) -> Vcpu:
    """A vCPU with what a look has shown; `old`: the look before it."""
    look = entry["look"]
    sleeps = bool(entry["sleeps"])
    if look is None or (old is not None and look["number"] == old["number"]):
        return replace(vcpu, sleeps=sleeps, asked=True, missing=not sleeps)
    where = Where(
        int(look["pc"]),
        int(look["pstate"]),
        tuple(int(word) for word in look["x"]),
        {str(name): int(value) for name, value in look["registers"].items()},
    )
    return replace(vcpu, sleeps=sleeps, asked=True, missing=False, seen=(*vcpu.seen, where))


def _error(entry: dict[str, Any]) -> ErrorBlock:
    acknowledged = bool(int(entry["ack"]) & 1)
    words = {name: int(entry[name]) for name in ("event", "source", "address", "expected", "status", "severity")}
    return ErrorBlock(**words, acknowledged=acknowledged)


def _of_qemu(values: dict[str, int | str]) -> Where:
    number = {name: value for name, value in values.items() if isinstance(value, int)}
    pstate = number.get("PSTATE", 0)
    level = _LEVELS.get(str(values.get("EL")))
    pstate = pstate if level is None else pstate & ~0xF | level
    general = tuple(number[f"X{n}"] for n in range(31) if f"X{n}" in number)
    return Where(number.get("PC", 0), pstate, general if len(general) == 31 else (), by="QEMU")


def _console(path: Path) -> tuple[str, ...]:
    """The last lines of the console's log."""
    try:
        with path.open("rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - _TAIL, 0))
            text = file.read(_TAIL).decode(errors="replace")
    except OSError:
        return ()
    return tuple(line.rstrip("\r") for line in text.split("\n"))
