"""Client of a backend's control socket: one JSON object a line, request and answer.

Synchronous and small, so that the command line starts quickly. The connection is in `control_connection.py`.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.errors import GuestTimeoutError, LostGuestError, NotDeliveredError, ProtocolError, SdeiError
from qemu_sdei.guest.control_connection import ControlConnection

if TYPE_CHECKING:
    from qemu_sdei.profiles.firmware_profile import FirmwareProfile

PROTOCOL: Final = 1
CONNECT_TIMEOUT: Final = 30.0
"""Seconds that a backend has to come back; on a host that is busy, Python's start takes several."""


@dataclass(frozen=True)
class Injection:
    """What became of an injected event."""

    event: int
    vcpu: int | None
    """The one that was asked for; None: any."""
    outcome: str
    """`queued`: pending or being delivered; `merged`: it was pending already; `completed`: the handler completed it."""
    reason: str | None = None
    """Why it is not delivered yet."""
    entry_ns: int | None = None
    """Nanoseconds from the trigger to the handler's entry."""
    complete_ns: int | None = None
    """Nanoseconds from the trigger to the handler's completion."""


class ControlClient:
    """What one guest's backend can be asked; not for use by several threads at once.

    When the guest migrates, the connection follows it. It is bound to the guest, not to the path: when that guest has
    ended and another one has its name, each request is a `LostGuestError`.
    """

    def __init__(
        self,
        path: Path,
        *,
        identity: str = "",
        timeout: float = 10.0,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        """`path` is the control socket; `timeout` is what an answer may take, in seconds.

        `identity`: which guest is meant (`rundir.Running.identity`); "": the first that answers. To any other one that
        has that path later nothing is said.
        """
        self._connection = ControlConnection(path, identity=identity, timeout=timeout, connect_timeout=connect_timeout)

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; the next request connects again."""
        self._connection.close()

    @property
    def path(self) -> Path:
        """The control socket; another one after the guest has migrated."""
        return self._connection.path

    @property
    def identity(self) -> str:
        """Which guest it is, once it has answered."""
        return self._connection.identity

    @property
    def timeout(self) -> float:
        """Seconds that an answer may take."""
        return self._connection.timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._connection.timeout = seconds

    @property
    def connect_timeout(self) -> float:
        """Seconds that a backend has to come back."""
        return self._connection.connect_timeout

    @connect_timeout.setter
    def connect_timeout(self, seconds: float) -> None:
        self._connection.connect_timeout = seconds

    def request(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
        again: bool = False,
    ) -> dict[str, Any]:
        """See `ControlConnection.request`."""
        return self._connection.request(command, arguments, timeout=timeout, again=again)

    def _reason(self) -> str:
        """Which of the guest's processes are stopped, as the end of a message."""
        return self._connection.reason()

    # What the backend offers

    def hello(self) -> dict[str, Any]:
        """Who serves: {pid, name, nr_cpus, epoch, protocol}. Raises `SdeiError` if it speaks another protocol."""
        result = self.request("hello", again=True)
        if result.get("protocol") != PROTOCOL:
            raise SdeiError(
                f"the guest's backend speaks protocol {result.get('protocol')}, this command {PROTOCOL}: "
                "use the version that the guest was started with"
            )
        return result

    def status(self) -> dict[str, Any]:
        """The state of the guest's vCPUs and events (see docs/internals.md)."""
        return self.request("status", again=True)

    def look(self, vcpus: list[int], *, ask: bool = True) -> dict[str, Any]:
        """Where these vCPUs are, as far as they have come; `ask`: have them come now. See the protocol's `look`."""
        return self.request("look", {"vcpus": vcpus, "ask": ask}, again=True)

    def trace(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest trace records, oldest first."""
        records = self.request("trace", {"limit": limit}, again=True).get("records")
        if not isinstance(records, list):
            raise ProtocolError("the backend's answer to trace is not of the protocol's form")
        return records

    def abort(
        self,
        vcpu: int | None = None,
        *,
        address: int | None = None,
        fetch: bool = False,
        kernel: bool = False,
        limit: int = 10,
    ) -> dict[str, Any]:
        """Have a vCPU (None: the first that can) take a synchronous external abort: {vcpu, pc, pstate, el} that it was
        taken at.

        Args:
            vcpu: None: the first that is where it can take one.
            address: virtual, for FAR; None: FAR holds none.
            fetch: of an instruction, not of data.
            kernel: it may hit the guest's kernel too, which dies of it.
            limit: seconds in which a moment is to come.

        Raises:
            NotDeliveredError: no moment came; the message says what was in the way.
        """
        arguments = {"vcpu": vcpu, "address": address, "fetch": fetch, "kernel": kernel, "limit": limit}
        return self.request("abort", arguments, timeout=limit + self.timeout)

    def interrupt(self, intid: int, *, look: bool = False) -> dict[str, Any]:
        """Make an SPI of the guest's pending; `look`: only find out whether it would reach the guest.

        Raises:
            UsageError: it is no SPI, or a device's. `NotDeliveredError`: the guest has not enabled it.
        """
        return self.request("interrupt", {"intid": intid, "look": look}, timeout=2 * self.timeout)

    def memory_error(self, address: int, *, source: str | None = None, vcpu: int | None = None) -> dict[str, Any]:
        """Tell of a page of guest RAM that is bad at the host: {page, source, vcpu, outcome} of how it is reported.

        Args:
            address: guest physical, in that page.
            source: name of the error source; None: the first that is ready.
            vcpu: which one is told; None: any.

        Raises:
            UsageError: that is no page of the guest's. `NotDeliveredError`: no source can report it now.
        """
        asked = {"address": address, "source": source, "vcpu": vcpu}
        return self.request("memory_error", asked, timeout=2 * self.timeout)

    def nmi(self, vcpu: int | None = None, *, by: str | None = None) -> dict[str, Any]:
        """Give the guest an NMI: see `qemu_sdei.guest.nmi`."""
        return self.request("nmi", {"vcpu": vcpu, "by": by}, timeout=2 * self.timeout)

    def inject(self, event: int, vcpu: int | None = None, *, wait: bool = False, timeout: float = 5.0) -> Injection:
        """Trigger `event` on `vcpu` (None: a shared event, on any); with `wait`, return when its handler completed,
        `timeout` seconds at most.

        Raises:
            UsageError: there is no such event or vCPU.
            NotDeliveredError: it cannot be delivered, or was not within `timeout`; the message says why.
        """
        target = {"event": event, "vcpu": vcpu}
        where = "" if vcpu is None else f" on vCPU {vcpu}"
        if wait:
            try:
                result = self.request("inject", {**target, "wait": True}, timeout=timeout)
            except GuestTimeoutError:
                reason = self.request("why", target, again=True).get("reason") or "its handler has not completed"
                raise NotDeliveredError(
                    f"event {event:#x}{where} was not completed within {timeout:g} s: {reason}{self._reason()}"
                ) from None
        else:
            result = self.request("inject", {**target, "wait": False})
        return Injection(
            event=event,
            vcpu=vcpu,
            outcome=str(result.get("outcome", "queued")),
            reason=result.get("reason"),
            entry_ns=result.get("entry_ns"),
            complete_ns=result.get("complete_ns"),
        )

    def ras_sources(self) -> list[dict[str, Any]]:
        """The error sources of the HEST and how they are (see the protocol's "Error sources"); of a guest that has none
        an empty list.
        """
        sources = self.request("ras_sources", again=True).get("sources")
        if not isinstance(sources, list) or not all(isinstance(source, dict) for source in sources):
            raise ProtocolError("the backend's answer to ras_sources is not of the protocol's form")
        return sources

    def ras_keep(self, block: bytes) -> dict[str, Any]:
        """Have the BERT of the guest's next boot tell of an error; now nobody is told of it.

        Args:
            block: a generic error status block, as `qemu_sdei.ras.block` makes it.

        Raises:
            UsageError: that is none, the guest has no BERT, or no room in it.
            NotDeliveredError: the guest has not booted yet, or its RAM is still arriving.
        """
        return self.request("ras_keep", {"block": base64.b64encode(block).decode("ascii")})

    def ras_report(
        self,
        source: str,
        block: bytes,
        *,
        vcpu: int | None = None,
        address: int | None = None,
        wait: bool = False,
        force: bool = False,
        raw: bool = False,
        timeout: float = 5.0,
    ) -> dict[str, Any]:
        """Report a hardware error to the guest.

        Args:
            source: the error source's name.
            block: a generic error status block, as `qemu_sdei.ras.block` makes it.
            vcpu: which one is told; None: any.
            address: virtual, for a synchronous external abort: what FAR holds.
            wait: return when the handler of the source's SDEI event has completed; other sources do not wait.
            force: also while the error before is not read, or SDEI is masked.
            raw: the block is malformed on purpose.
            timeout: seconds, with `wait`.

        Returns:
            `outcome` ("queued" or "completed"), `source`, `bytes`, `vcpu`; of one that completed also `entry_ns` and
            `complete_ns`, from the report on.

        Raises:
            UsageError: there is no such source, or it does not take this block. Nothing was written.
            NotDeliveredError: nobody would notice it, or the error before is not read, and nothing was written; or its
                handler did not complete within `timeout`, and it was.
        """
        asked: dict[str, Any] = {"source": source, "block": base64.b64encode(block).decode("ascii")}
        # An abort that finds no moment is told of before the wait for the answer ends.
        asked |= {"wait": wait, "force": force, "raw": raw, "limit": max(1, int(timeout) - 1)}
        asked |= {name: value for name, value in (("vcpu", vcpu), ("address", address)) if value is not None}
        try:
            result = self.request("ras_report", asked, timeout=max(timeout, self.timeout) if not wait else timeout)
        except GuestTimeoutError:
            if not wait:
                raise
            raise NotDeliveredError(
                f"source {source!r}: the error was written, and its handler has not completed within {timeout:g} s"
                f"{self._why_unread(source)}{self._reason()}"
            ) from None
        # A guest that has moved meanwhile answers as to an injection.
        return {"source": source, "bytes": len(block), **result}

    def _why_unread(self, source: str) -> str:
        """What stands between an error and its handler, as the end of a message."""
        for found in self.ras_sources():
            if found.get("name") == source and found.get("event") is not None:
                asked = {"event": found["event"], "vcpu": 0}
                reason = self.request("why", asked, again=True).get("reason") or found.get("reason")
                return f": {reason}" if reason else ""
        return ""

    def firmware(
        self, *, profile: FirmwareProfile | None = None, clear: bool = False, rules: Sequence[str] = ()
    ) -> dict[str, Any]:
        """What the firmware does wrong on purpose, after a change of it: the protocol's `firmware`.

        Raises:
            UsageError: something of it cannot be; nothing was changed.
        """
        fields: dict[str, Any] = {}
        if profile is not None:
            fields["profile"] = profile.document()
        if clear:
            fields["clear"] = True
        if rules:
            fields["set"] = list(rules)
        return _firmware(self.request("firmware", fields, again=not fields))

    def events(self, timeout: float | None = None) -> Iterator[dict[str, Any]]:
        """Subscribe, then yield events (`{"type": "reset"|"power"|"deliver"|...}`).

        Ends when the guest does, or after `timeout` seconds. While it migrates, events may be missed.
        """
        return self._connection.events(timeout)

    def registers(self, vcpu: int, values: dict[int, list[int]] | None = None) -> dict[int, list[int]]:
        """KVM's pseudo firmware registers of a vCPU (`backend/control/kvm_regs.py`), by id, after writing `values`.

        Raises `UsageError`: there is no such register or vCPU, or what is written cannot be; nothing was changed.
        """
        wanted = {f"{number:#x}": words for number, words in (values or {}).items()}
        found = self.request("regs", {"vcpu": vcpu, "set": wanted}).get("registers")
        if not isinstance(found, dict):
            raise ProtocolError("the backend's answer to regs is not of the protocol's form")
        return {int(number, 0): words for number, words in found.items()}

    def shutdown(self) -> None:
        """Ask the backend to end, and its supervisor to end the guest with it."""
        with contextlib.suppress(LostGuestError):
            self.request("shutdown")


def _firmware(found: dict[str, Any]) -> dict[str, Any]:
    """An answer to `firmware`. Raises `ProtocolError`: it is none."""
    rules = found.get("rules")
    texts = [found.get("profile"), found.get("summary")]
    numbers: list[object] = []
    good = isinstance(rules, list) and all(isinstance(rule, dict) for rule in rules)
    for rule in rules if isinstance(rules, list) and good else ():
        texts += [rule.get("rule"), rule.get("why")]
        numbers.append(rule.get("acted"))
    for name in ("deaf", "stuck", "held"):
        vcpus = found.get(name)
        good = good and isinstance(vcpus, list)
        numbers += vcpus if isinstance(vcpus, list) else []
    if not good or not all(isinstance(text, str) for text in texts) or not all(type(n) is int for n in numbers):
        raise ProtocolError("the backend's answer to firmware is not of the protocol's form")
    return found
