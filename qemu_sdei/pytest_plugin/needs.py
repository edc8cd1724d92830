"""`@pytest.mark.sdei_needs("acpi", kernel=">=6.12", config="CONFIG_ACPI_AGDI", cpus=4)`: why a test cannot be run."""

from __future__ import annotations

import operator
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from qemu_sdei.host import kernel_config

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qemu_sdei.vm.options import GuestOptions
    from qemu_sdei.vm.plan import Plan

_WORDS: Final = ("acpi", "dt", "ras", "shell", "linux", "client")
_FIELDS: Final = ("kernel", "config", "cpus")
_ORDER: Final[dict[str, Callable[[Any, Any], bool]]] = {
    ">=": operator.ge, "<=": operator.le, "==": operator.eq, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
_RELEASE: Final = re.compile(rb"Linux version (\d+)\.(\d+)")


def missing(marker: pytest.Mark, options: GuestOptions) -> str | None:
    """What a guest of these options lacks of a marker; None: it has all.

    Raises:
        pytest.UsageError: the marker asks for what nobody knows.
        SdeiError: the options cannot be.
    """
    from qemu_sdei.vm.plan import prepare

    unknown = [word for word in marker.args if word not in _WORDS] + [k for k in marker.kwargs if k not in _FIELDS]
    if unknown:
        raise pytest.UsageError(
            f"sdei_needs: nobody knows {', '.join(map(repr, unknown))}; there are {', '.join((*_WORDS, *_FIELDS))}"
        )
    plan = prepare(options)
    return next(
        filter(None, (*(_lacks_word(word, plan) for word in marker.args), *_lacking(marker.kwargs, plan))), None
    )


def _lacks_word(word: str, plan: Plan) -> str | None:
    there = {
        "acpi": plan.acpi,
        "dt": not plan.acpi,
        "ras": plan.options.ras,
        "shell": plan.own_initramfs,
        "linux": not plan.flat,
        "client": plan.options.client is not False,
    }
    if word == "client" and not there[word]:
        return "no client module of this kernel: --sdei-client FILE"
    return None if there[word] else f"the guest has no {word}"


def _lacking(wanted: Mapping[str, Any], plan: Plan) -> list[str | None]:
    found: list[str | None] = []
    if "cpus" in wanted and plan.options.smp < wanted["cpus"]:
        found.append(f"{wanted['cpus']} vCPUs are needed, the guest has {plan.options.smp}")
    if "kernel" in wanted:
        found.append(_other_kernel(wanted["kernel"], plan))
    if "config" in wanted:
        names = [wanted["config"]] if isinstance(wanted["config"], str) else wanted["config"]
        found += [_not_configured(name, plan) for name in names]
    return found


def _other_kernel(wanted: str, plan: Plan) -> str | None:
    match = re.fullmatch(r"\s*(>=|<=|==|>|<)\s*(\d+)\.(\d+)", wanted)
    if match is None:
        raise pytest.UsageError(f"sdei_needs: kernel={wanted!r}: write an order and two numbers, such as '>=6.12'")
    has = release_of(plan)
    if has is None:
        return "the kernel does not say which version it is"
    if _ORDER[match[1]](has, (int(match[2]), int(match[3]))):
        return None
    return f"a kernel {wanted} is needed, it is {has[0]}.{has[1]}"


def release_of(plan: Plan) -> tuple[int, int] | None:
    """Major and minor version of a plan's kernel, by its image; None: it does not say."""
    from qemu_sdei.boot.image import KernelImage

    if plan.flat or not plan.kernel:
        return None
    found = _RELEASE.search(KernelImage.load(plan.kernel).data)
    return None if found is None else (int(found[1]), int(found[2]))


def _not_configured(name: str, plan: Plan) -> str | None:
    path = plan.config or kernel_config.beside(Path(plan.kernel))
    if path is None:
        return f"{name} is needed, and nobody knows how the kernel is configured: there is no config beside it"
    text = path.read_text(errors="replace")
    return None if re.search(rf"^{re.escape(name)}=[ym]", text, re.MULTILINE) else f"the kernel has no {name}"
