"""`qemu-sdei demo`: the run that SDEI for KVM was announced with, live, on stock QEMU and firmware in Python.

The embedded guest's transcript; then Debian's stock kernel by ACPI, six vCPUs in two sockets, its own lines about the
firmware, a migration, and an event that it handles on the other side, with the registers that the event interrupted.

A stock kernel registers no SDEI event by itself, so a small client module is built for it
(`qemu_sdei.host.client_module`) and loaded. Where that cannot be built, the demo says so, and has the event handled by
the embedded bare-metal guest.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.cli.output import Progress, add_verbosity, print_json
from qemu_sdei.cli.report_option import RunReport, add_report_option
from qemu_sdei.cli.screen import raw
from qemu_sdei.errors import GuestError, NotDeliveredError, UsageError
from qemu_sdei.printable import printable

if TYPE_CHECKING:
    from qemu_sdei.guest.control_client import Injection
    from qemu_sdei.guest.guest import Guest
    from qemu_sdei.vm.options import GuestOptions

_EVENT: Final = 0
_VCPU: Final = 1
_SMP: Final = 6
_TOPOLOGY: Final = "sockets=2,cores=3,threads=1"
_FIRMWARE_LINES: Final = re.compile(
    r"^(?:\[[^\]\n]*\] *)?"
    r"(Linux version \S+|ACPI: (?:RSDP|XSDT|SDEI|HEST|AGDI)\b.*|(?:psci|sdei|smp|SMP|Machine model)\b.*)",
    re.MULTILINE,
)


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "demo",
        description="Run the embedded selftest; boot Debian's stock arm64 kernel by ACPI with 6 vCPUs on the Python "
        "firmware, migrate it to another QEMU, inject an SDEI event there, show it handled, power off. Exit code 0 "
        "when all of it worked.",
    )
    parser.add_argument("--dt", action="store_true", help="boot by device tree in place of ACPI")
    parser.add_argument("--kernel", metavar="K", help="arm64 Image (default: Debian's stock kernel)")
    parser.add_argument("--series", metavar="S", help="series of Debian's kernel, such as 6.1 or 6.12")
    parser.add_argument("--busybox", metavar="FILE", help="static arm64 busybox (default: Debian's)")
    parser.add_argument("--module", metavar="FILE", help="client module, built for that kernel (default: build it)")
    parser.add_argument("--qemu", metavar="FILE", help="qemu-system-aarch64 to use (default: the one on PATH)")
    add_report_option(parser)
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class _Parts:
    kernel: Path
    kernel_name: str
    module: Path | None
    no_module: str
    """Why there is none."""


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    began = time.monotonic()
    # With --json, what is for people goes where it does not mix with it.
    with contextlib.redirect_stdout(sys.stderr if args.json else sys.stdout):
        with Progress(args.quiet) as progress, RunReport(args.report, "Demonstration of SDEI") as report:
            parts = _find(args, progress)
            done = _selftest(args, progress, report) + _linux(args, parts, progress, report)
            if parts.module is None:
                done += _bare_metal(args, progress, report)
        seconds = time.monotonic() - began
        print("\nSummary")
        for line in done:
            print(f"  {line}")
        print(f"  all of it in {seconds:.1f} s")
    if args.json:
        print_json({"ok": True, "kernel": str(parts.kernel), "done": done, "seconds": round(seconds, 3)})
    return 0


def _find(args: argparse.Namespace, progress: Progress) -> _Parts:
    from qemu_sdei.host import client_module as module
    from qemu_sdei.host import given_kernels
    from qemu_sdei.host.debian import DebianCache
    from qemu_sdei.paths import readable_file

    given = None if args.module is None else readable_file(args.module, "module")
    if args.kernel is not None:
        kernel = given_kernels.checked(args.kernel).image
        return _Parts(kernel, kernel.name, given, "no --module was given for this kernel")
    cache = DebianCache(progress=progress)
    files = cache.kernel(args.series)
    name = f"Debian's {files.package} {files.version}"
    if given is not None:
        return _Parts(files.image, name, given, "")
    try:
        return _Parts(files.image, name, module.build(cache, files, progress), "")
    except UsageError as error:
        return _Parts(files.image, name, None, str(error))


def _heading(progress: Progress, text: str) -> None:
    progress.done()
    bold, plain = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("", "")
    raw(sys.stdout).write(f"\n{bold}{printable(text)}{plain}\n")
    sys.stdout.flush()


def _show(lines: list[str]) -> None:
    for line in lines:
        print(f"    {line}".rstrip(), flush=True)


@contextlib.contextmanager
def _guest(options: GuestOptions, progress: Progress, report: RunReport) -> Iterator[Guest]:
    """A guest that runs, and comes into the report when it has ended."""
    from qemu_sdei.guest.guest import Guest

    kept = report.next_guest()
    with Guest(options if kept is None else kept.options(options), progress=progress) as guest:
        try:
            yield guest
        finally:
            if kept is not None:
                kept.take_console(guest)


def _linux(args: argparse.Namespace, parts: _Parts, progress: Progress, report: RunReport) -> list[str]:
    from qemu_sdei.vm.options import GuestOptions

    files = {} if parts.module is None else {"sdei_test.ko": parts.module}
    options = GuestOptions(
        die_with_owner=True,
        kernel=parts.kernel,
        busybox=args.busybox,
        files=files,
        qemu=args.qemu,
        smp=_SMP,
        topology=_TOPOLOGY,
        boot="dt" if args.dt else "acpi",
    )
    how = "device tree" if args.dt else "ACPI"
    _heading(progress, f"Booting {parts.kernel_name} by {how} with {options.smp} vCPUs ({_TOPOLOGY})")
    began = time.monotonic()
    with _guest(options, progress, report) as guest:
        if args.verbose:
            progress.done()
            guest.attach(_to_stderr)
        else:
            progress("booting")
        guest.wait_shell()
        seconds = time.monotonic() - began
        progress.done()
        _show([match[1] for match in _FIRMWARE_LINES.finditer(guest.console)])
        done = [f"{parts.kernel_name} booted by {how} on {options.smp} vCPUs in {seconds:.1f} s"]
        _heading(progress, f"Injecting event {_EVENT:#x} on vCPU {_VCPU} while nobody in the kernel has registered it")
        try:
            guest.inject(_EVENT, _VCPU)
        except NotDeliveredError as refusal:
            _show([f"refused: {refusal}"])
        else:
            raise GuestError("an event that nobody has registered was not refused")
        done.append("an event without a client was refused, with the reason")
        if parts.module is not None:
            _load_client(guest, progress)
        done.append(_migrate(guest, progress))
        if parts.module is None:
            _show([f"(no client module here: {parts.no_module})"])
        else:
            done.append(_handled_by_linux(guest, progress))
        _heading(progress, "Powering off")
        end = guest.poweroff()
        if not end.guest:
            raise GuestError(f"the guest did not power itself off: {end.reason}")
        _show([f"QEMU ended: {end.reason}, by the guest's own SYSTEM_OFF"])
        done.append("the guest powered itself off")
    return done


def _selftest(args: argparse.Namespace, progress: Progress, report: RunReport) -> list[str]:
    from qemu_sdei.vm.options import GuestOptions

    _heading(progress, "The embedded bare-metal guest goes through SDEI's calls")
    options = GuestOptions(kernel="builtin:selftest", qemu=args.qemu, memory="128M", die_with_owner=True)
    with _guest(options, progress, report) as guest:
        progress.done()
        guest.expect(r"Result: .*\n", timeout=60)
        _show([line.rstrip() for line in guest.console.strip("\n").splitlines()])
        if "Result: OK" not in guest.console:
            raise GuestError("the selftest did not end well", console=guest.console_text.last_lines())
    return ["the selftest went through SDEI's calls"]


def _load_client(guest: Guest, progress: Progress) -> None:
    _heading(progress, "Loading a client module, which registers and enables the event by the kernel's own SDEI driver")
    loaded = guest.run("insmod /sdei_test.ko")
    if loaded.status != 0:
        raise GuestError(f"the module did not load: {loaded.output.strip()}", console=guest.console_text.last_lines())
    _show(["# dmesg | grep -i sdei", *_kernel_lines(guest.run("dmesg | grep -i sdei; dmesg -c >/dev/null").output)])


def _migrate(guest: Guest, progress: Progress) -> str:
    source = guest.name
    _heading(progress, f"Migrating {source!r} to another QEMU with another backend")
    result = guest.migrate(route="copy")
    line = (
        f"{source!r} is {result.destination!r} now: {result.transferred >> 20} MiB sent in {result.total_ms:.0f} ms, "
        f"{result.pages_differing} pages had to be repaired, state document of {result.document} bytes"
    )
    _show([line])
    return f"the guest was migrated in {result.total_ms:.0f} ms, its SDEI state with it"


def _handled_by_linux(guest: Guest, progress: Progress) -> str:
    _heading(progress, f"Injecting event {_EVENT:#x} on vCPU {_VCPU} of the destination from the host")
    injection = guest.inject(_EVENT, _VCPU, wait=True)
    guest.run("echo flush >/proc/sdei_test/control")
    _show(_kernel_lines(guest.run("dmesg -c").output))
    count = guest.run(f"grep -E '^cpu {_VCPU} event' /proc/sdei_test/status").output
    _show([f"/proc/sdei_test/status: {count.strip()}"])
    if not re.search(r"\bcount [1-9]\d* returned [1-9]", count):
        raise GuestError("the kernel's handler did not count the event", console=guest.console_text.last_lines())
    return _latency(injection, "Linux' handler")


def _kernel_lines(text: str) -> list[str]:
    """The kernel's lines in `dmesg`, without time stamps and the remark that the module is not Debian's."""
    lines = [line.partition("] ")[2] for line in text.splitlines() if re.match(r"\[ *\d+\.\d+\] ", line)]
    return [line for line in lines if "taint" not in line]


def _latency(injection: Injection, whose: str) -> str:
    entry, complete = (injection.entry_ns or 0) / 1000, (injection.complete_ns or 0) / 1000
    line = f"handler entered after {entry:.0f} µs, completed after {complete:.0f} µs"
    _show([line])
    return f"an event injected from the host was handled by {whose}: {line}"


def _bare_metal(args: argparse.Namespace, progress: Progress, report: RunReport) -> list[str]:
    from qemu_sdei.vm.options import GuestOptions

    _heading(progress, f"The same event, handled by the embedded bare-metal guest on vCPU {_VCPU}")
    options = GuestOptions(kernel="builtin:bench", append="mode=idle", qemu=args.qemu, die_with_owner=True)
    with _guest(options, progress, report) as guest:
        progress.done()
        guest.expect("idle: ready", timeout=30)
        return [_latency(guest.inject(_EVENT, _VCPU, wait=True), "the bare-metal guest")]


def _to_stderr(data: bytes) -> None:
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()
