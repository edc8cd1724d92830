"""What values of options can be, for the shell's completion: asked when the user presses the key."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from qemu_sdei.errors import SdeiError

_PATIENCE: Final = 1.0
"""Seconds for a guest's answer: somebody waits at the keyboard."""
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,60}")
"""What a shell is given: it expands what it reads, and names in a guest from elsewhere are a stranger's."""
_MOST: Final = 8
"""Running guests that are asked."""


def _statuses() -> Iterator[dict[str, Any]]:
    """What running guests say of themselves."""
    from qemu_sdei import rundir
    from qemu_sdei.guest.control_client import ControlClient

    for guest in rundir.running()[:_MOST]:
        with (
            contextlib.suppress(SdeiError, OSError),
            ControlClient(guest.path / rundir.CONTROL, timeout=_PATIENCE, connect_timeout=_PATIENCE) as client,
        ):
            yield client.status()


def _events() -> Iterator[str]:
    """By name: those of running guests, else those of a machine that has no events file."""
    from qemu_sdei.sdei.machine_description import MachineDescription

    found = [str(event["name"]) for status in _statuses() for event in status["events"] if event.get("name")]
    yield from found or (event.name for event in MachineDescription.default().events)


def _vcpus() -> Iterator[str]:
    yield from map(str, range(max((len(status["pes"]) for status in _statuses()), default=2)))


def _sources() -> Iterator[str]:
    for status in _statuses():
        yield from (str(source["name"]) for source in status.get("sources", []))


def _cpus() -> Iterator[str]:
    from qemu_sdei.host.cpu_models import cpu_models
    from qemu_sdei.host.environment import find_qemu

    yield from cpu_models(find_qemu().path)


def _series() -> Iterator[str]:
    from qemu_sdei.host import own_kernels
    from qemu_sdei.host.debian import DebianCache

    yield from ("6.1", "6.12")
    yield from (kernel.series for kernel in DebianCache().cached_kernels())
    yield from (kernel.description.series for kernel in own_kernels.built())


def _routes() -> Iterator[str]:
    from qemu_sdei.migration.options import ROUTES

    yield from ROUTES


def _holds() -> Iterator[str]:
    from qemu_sdei.backend.loop.hold_points import STATES

    yield from STATES


def _profiles() -> Iterator[str]:
    from qemu_sdei.profiles.firmware_profile import names

    yield from names()


def _severities() -> Iterator[str]:
    from qemu_sdei.ras.severity import Severity

    yield from (severity.name.lower() for severity in Severity)


KINDS: Final[Mapping[str, Callable[[], Iterator[str]]]] = {
    "events": _events,
    "vcpus": _vcpus,
    "sources": _sources,
    "cpus": _cpus,
    "series": _series,
    "routes": _routes,
    "holds": _holds,
    "profiles": _profiles,
    "severities": _severities,
}
OPTIONS: Final[Mapping[str, str]] = {
    "--event": "events",
    "--vcpu": "vcpus",
    "--source": "sources",
    "--cpu": "cpus",
    "--series": "series",
    "--route": "routes",
    "--hold": "holds",
    "--firmware": "profiles",
    "--profile": "profiles",
    "--show": "profiles",
    "--severity": "severities",
}
"""The kind of an option's value, by its longest name."""


def words(kind: str) -> list[str]:
    """What a value of this kind can be, each once; nothing where it cannot be known now."""
    found: dict[str, None] = {}
    with contextlib.suppress(SdeiError, OSError):
        for word in KINDS[kind]():
            if _WORD.fullmatch(word):
                found[word] = None
    return list(found)
