"""The services that every guest has, in the order in which they are registered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Final, Protocol

from qemu_sdei.services.kvm import Kvm
from qemu_sdei.services.platform import Platform
from qemu_sdei.services.psci import Psci
from qemu_sdei.services.pv_time import PvTime
from qemu_sdei.services.sdei import Sdei
from qemu_sdei.services.trng import Trng
from qemu_sdei.smccc.arch import ArchService
from qemu_sdei.smccc.service import Service


class BuiltIn(Protocol):
    """A subclass of `Service` that is made by the firmware."""

    name: ClassVar[str]
    names: ClassVar[Mapping[int, str]]
    since_state_2: ClassVar[bool]

    @classmethod
    def of(cls, platform: Platform) -> Service | None:
        """The service of the guest on `platform`; None: this guest has none."""


SERVICES: Final[tuple[type[BuiltIn], ...]] = (ArchService, Psci, Sdei, Trng, PvTime, Kvm)
"""A new one comes last: state documents list services in this order."""


def services_of(platform: Platform) -> Iterator[Service]:
    """The built-in services of one guest."""
    for kind in SERVICES:
        service = kind.of(platform)
        if service is not None:
            yield service
