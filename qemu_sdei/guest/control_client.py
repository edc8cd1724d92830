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
    """Result of an injection."""

    event: int
    """Event number."""
    vcpu: int | None
    """Number of the vCPU that was asked for; None: any."""
    outcome: str
    """"queued": the event is pending, or being delivered; "merged": it was pending already; "completed": its handler
    completed.
    """
    reason: str | None = None
    """Why it is not delivered yet."""
    entry_ns: int | None = None
    """Nanoseconds from the trigger to the handler's entry."""
    complete_ns: int | None = None
    """Nanoseconds from the trigger to the handler's completion."""


class ControlClient:
    """A connection to the backend of one guest. Threads must not share it: each one takes its own (`Guest.client`).

    The connection follows the guest when it migrates. It belongs to this guest, not to the socket's path: after the
    guest's end each request raises `LostGuestError`, also if another guest has the same name.

    Every request may raise the errors of `request`.
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
        """Path of the control socket. It changes when the guest migrates."""
        return self._connection.path

    @property
    def identity(self) -> str:
        """Identity of the guest, from the first answer on; "" before that."""
        return self._connection.identity

    @property
    def timeout(self) -> float:
        """Seconds to wait for an answer."""
        return self._connection.timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._connection.timeout = seconds

    @property
    def connect_timeout(self) -> float:
        """Seconds to wait for a backend that is being started again."""
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
        """Send one request to the backend, and return its result.

        Args:
            command: name of the request (docs/reference/control-protocol.md).
            arguments: the fields of the request.
            timeout: seconds to wait for the answer; None: as `timeout` of the client.
            again: True: send the request again if the backend is restarted before it answers. Only for requests that
                change nothing.

        Raises:
            UsageError: the request is not valid.
            NotDeliveredError: the state of the guest does not allow the request.
            LostGuestError: the backend is gone.
            GuestTimeoutError: the backend did not answer in time.
            ProtocolError: the answer is malformed.
            SdeiError: an internal error of the backend.
        """
        return self._connection.request(command, arguments, timeout=timeout, again=again)

    def _reason(self) -> str:
        """Which of the guest's processes are stopped, as the end of a message."""
        return self._connection.reason()

    # What the backend offers

    def hello(self) -> dict[str, Any]:
        """Ask which backend answers: `pid`, `name`, `nr_cpus`, `epoch`, `protocol`.

        Raises:
            SdeiError: the backend speaks another version of the protocol.
        """
        result = self.request("hello", again=True)
        if result.get("protocol") != PROTOCOL:
            raise SdeiError(
                f"the guest's backend speaks protocol {result.get('protocol')}, this command {PROTOCOL}: "
                "use the version that the guest was started with"
            )
        return result

    def status(self) -> dict[str, Any]:
        """State of the guest's vCPUs and events, with the fields of `Status`."""
        return self.request("status", again=True)

    def look(self, vcpus: list[int], *, ask: bool = True) -> dict[str, Any]:
        """Where vCPUs execute: see the request `look` in docs/reference/control-protocol.md.

        Args:
            vcpus: numbers of the vCPUs.
            ask: True: interrupt them, so that they report; False: return only what is known already.
        """
        return self.request("look", {"vcpus": vcpus, "ask": ask}, again=True)

    def trace(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest trace records, at most `limit`, oldest first (docs/reference/trace.md)."""
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
        """Make a vCPU take a synchronous external abort.

        Args:
            vcpu: number of the vCPU; None: the first one that can take the abort.
            address: virtual address for FAR_EL1; None: FAR_EL1 holds no address.
            fetch: True: the abort is of an instruction fetch; False: of a data access.
            kernel: True: the abort may also hit the guest's kernel, which then panics.
            limit: seconds to wait until a vCPU is at a place where it can take the abort.

        Returns:
            `vcpu`, and the `pc`, `pstate` and `el` at which it took the abort.

        Raises:
            NotDeliveredError: no vCPU could take it within `limit`; the message says why.
            UsageError: there is no such vCPU.
        """
        arguments = {"vcpu": vcpu, "address": address, "fetch": fetch, "kernel": kernel, "limit": limit}
        return self.request("abort", arguments, timeout=limit + self.timeout)

    def interrupt(self, intid: int, *, look: bool = False) -> dict[str, Any]:
        """Make a shared peripheral interrupt (SPI) of the guest pending.

        Args:
            intid: interrupt number, 32 to 1019.
            look: True: change nothing, only check that the interrupt would reach the guest.

        Raises:
            UsageError: the interrupt is no SPI, or belongs to a device.
            NotDeliveredError: the guest has not enabled the interrupt.
        """
        return self.request("interrupt", {"intid": intid, "look": look}, timeout=2 * self.timeout)

    def memory_error(self, address: int, *, source: str | None = None, vcpu: int | None = None) -> dict[str, Any]:
        """Report a page of guest RAM that has failed on the host.

        Args:
            address: a guest physical address in the page.
            source: name of the error source; None: the first one that is ready.
            vcpu: number of the vCPU that is notified; None: any.

        Returns:
            `page` (its physical address), `source`, `vcpu` and `outcome` of the report.

        Raises:
            UsageError: the address is not in the guest's RAM.
            NotDeliveredError: no error source can report it now.
        """
        asked = {"address": address, "source": source, "vcpu": vcpu}
        return self.request("memory_error", asked, timeout=2 * self.timeout)

    def nmi(self, vcpu: int | None = None, *, by: str | None = None) -> dict[str, Any]:
        """Give the guest an NMI.

        Args:
            vcpu: number of the vCPU; None: any.
            by: one of `qemu_sdei.guest.nmi.WAYS`; None: the first one that the guest has ready.

        Returns:
            The fields of `Nmi`.

        Raises:
            NotDeliveredError: the guest takes no NMI now; the message says why.
            UsageError: there is no such vCPU or way.
        """
        return self.request("nmi", {"vcpu": vcpu, "by": by}, timeout=2 * self.timeout)

    def inject(self, event: int, vcpu: int | None = None, *, wait: bool = False, timeout: float = 5.0) -> Injection:
        """Trigger an SDEI event. With `wait`, return when its handler has completed.

        Args:
            event: event number.
            vcpu: number of the vCPU for a private event; None for a shared event.
            wait: True: wait for the handler.
            timeout: seconds to wait, with `wait`.

        Raises:
            UsageError: there is no such event or vCPU.
            NotDeliveredError: the event cannot be delivered, or its handler did not complete within `timeout`; the
                message says why.
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
        """The guest's error sources, in the order of the HEST, each with the fields of `SourceStatus`. The list is
        empty if the guest has none.
        """
        sources = self.request("ras_sources", again=True).get("sources")
        if not isinstance(sources, list) or not all(isinstance(source, dict) for source in sources):
            raise ProtocolError("the backend's answer to ras_sources is not of the protocol's form")
        return sources

    def ras_keep(self, block: bytes) -> dict[str, Any]:
        """Put an error into the BERT of the guest's next boot (ACPI 6.5 18.3.1). The running kernel is not notified.

        Args:
            block: a generic error status block (ACPI 6.5 18.3.2.7.1), as `qemu_sdei.ras.block` makes it.

        Raises:
            UsageError: `block` is not valid, the guest has no BERT, or the BERT has no room for it.
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
            source: name of the error source.
            block: a generic error status block (ACPI 6.5 18.3.2.7.1), as `qemu_sdei.ras.block` makes it.
            vcpu: number of the vCPU that is notified; None: any.
            address: virtual address for FAR_EL1, where the notification is a synchronous external abort.
            wait: True: return when the handler of the source's SDEI event has completed. Sources without an event
                return at once.
            force: True: report also while the previous error has not been read, or SDEI is masked.
            raw: True: accept a block that is malformed.
            timeout: seconds to wait, with `wait`.

        Returns:
            `outcome` ("queued" or "completed"), `source`, `bytes`, `vcpu`. If completed, also `entry_ns` and
                `complete_ns`: nanoseconds since the report.

        Raises:
            UsageError: there is no such source, or it cannot hold this block. Nothing was written.
            NotDeliveredError: nothing was written, because the kernel would not notice, or has not read the previous
                error; or the error was written, and its handler did not complete within `timeout`. The message says
                which.
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
        """Change what the firmware does wrong on purpose. Without arguments it changes nothing.

        Args:
            profile: use this firmware profile in place of the present one.
            clear: remove all rules.
            rules: rules to add, as text (docs/reference/firmware-profiles.md).

        Returns:
            The profile after the change, as `FirmwareStatus` has it.

        Raises:
            UsageError: an argument is not valid; nothing was changed.
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
        """Subscribe to the backend's events, and yield each of them: a dictionary with `type`, such as "reset", "power"
        or "deliver" (docs/reference/control-protocol.md).

        It ends when the guest ends, or after `timeout` seconds (None: no limit). Events that happen during a migration
        may be missed.

        Raises:
            LostGuestError: the backend is gone.
        """
        return self._connection.events(timeout)

    def registers(self, vcpu: int, values: dict[int, list[int]] | None = None) -> dict[int, list[int]]:
        """Read KVM's pseudo firmware registers of a vCPU, after writing some of them.

        Args:
            vcpu: number of the vCPU.
            values: registers to write first: KVM's register id, and the value as 64-bit words.

        Returns:
            All registers: register id, and the value as 64-bit words (docs/reference/kvm-registers.md).

        Raises:
            UsageError: there is no such register or vCPU, or a value is not valid; nothing was changed.
        """
        wanted = {f"{number:#x}": words for number, words in (values or {}).items()}
        found = self.request("regs", {"vcpu": vcpu, "set": wanted}).get("registers")
        if not isinstance(found, dict):
            raise ProtocolError("the backend's answer to regs is not of the protocol's form")
        return {int(number, 0): words for number, words in found.items()}

    def shutdown(self) -> None:
        """Ask the backend to end. Its supervisor process then ends the guest."""
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
