"""Functions that the rules of a firmware profile name, looked up: where the guest has them.

A Linux kernel may lie elsewhere in each boot (KASLR). So a place is said by the file's addresses, with those of the
function by which Linux makes its calls: the backend finds the kernel's place by the calls themselves.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from qemu_sdei.errors import UsageError
from qemu_sdei.profiles.firmware_profile import FirmwareProfile
from qemu_sdei.profiles.rule import Rule
from qemu_sdei.profiles.sites import Site
from qemu_sdei.symbols.kaslr import SMC
from qemu_sdei.symbols.sources import Kernel, Sources

_MOST: Final = 8
"""Functions of one name in one kernel that are looked for."""


def kernels_of(sources: Sources, *, force: bool = False) -> list[Kernel]:
    """Those of the guest's build, where that is known. Raises `UsageError`: there are others only, and no `force`."""
    ours = sources.build_id
    fit = [kernel for kernel in sources.kernels if force or ours is None or kernel.build_id in (None, ours)]
    if sources.kernels and not fit:
        raise UsageError(
            f"{sources.kernels[0].source} is of another build than the guest's kernel: its addresses would be wrong; "
            "--symbols-force uses it all the same"
        )
    return fit


def placed(profile: FirmwareProfile, kernels: Sequence[Kernel]) -> FirmwareProfile:
    """The same, with the places of the functions that its rules name. Raises `UsageError` as `placed_rules`."""
    if not any(rule.unplaced for rule in profile.rules):
        return profile
    return replace(profile, rules=tuple(placed_rules(profile.rules, kernels)))


def placed_rules(rules: Iterable[Rule], kernels: Sequence[Kernel]) -> list[Rule]:
    """The same.

    Args:
        kernels: symbols of the guest's kernel, or of its bare-metal program.

    Raises:
        UsageError: a function is in none of them, or there are none.
    """
    return [rule.placed(lambda name: _places(name, kernels)) if rule.unplaced else rule for rule in rules]


def _places(name: str, kernels: Sequence[Kernel]) -> list[Site]:
    if not kernels:
        raise UsageError(
            f"where the function {name} is cannot be said without symbols of the guest's kernel: give --symbols, such "
            "as its vmlinux or a copy of its System.map, or an address"
        )
    for kernel in kernels:
        found = [_site(name, there, kernel) for there in kernel.table.ranges_of(name)]
        if found:
            break
    else:
        names = [known for kernel in kernels for known in kernel.table.names]
        near = difflib.get_close_matches(name, names, 2)
        meant = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise UsageError(f"{kernels[0].source} has no function {name}{meant}")
    if len(found) > _MOST:
        raise UsageError(f"{kernel.source} has {len(found)} functions {name}: give the address of the one you mean")
    return found


def _site(name: str, there: tuple[int, int], kernel: Kernel) -> Site:
    low, size = there
    high = low + max(size, 1) - 1
    if kernel.offset is not None:
        return Site(low + kernel.offset, high + kernel.offset, name)
    calls = kernel.table.range_of(SMC)
    if calls is None:  # no Linux: it is where its file says
        return Site(low, high, name)
    return Site(low, high, name, (calls[0], calls[0] + max(calls[1], 1) - 1))
