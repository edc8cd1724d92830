"""The plugin's options: each with the prefix `--sdei-`, and an environment variable in place of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pytest

    from qemu_sdei.vm.options import GuestOptions


@dataclass(frozen=True)
class Option:
    """An option of pytest's command line.

    Attributes:
        word: what follows `--sdei-`.
        help: what it is for.
        field: of `GuestOptions`; "": the plugin's own.
        convert: from text; None: it is a switch.
        metavar: for `--help`.
        many: it may be given several times, or as a list with commas; tests run once for each.
    """

    word: str
    help: str
    field: str = ""
    convert: Callable[[str], Any] | None = str
    metavar: str = ""
    many: bool = False

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"QEMU_SDEI_{self.word.upper().replace('-', '_')}"

    @property
    def dest(self) -> str:
        """Where pytest keeps it."""
        return f"sdei_{self.word.replace('-', '_')}"


OPTIONS: Final = (
    Option("kernel", "kernel to test: an Image, also compressed", "kernel", metavar="FILE", many=True),
    Option("series", "Debian's kernel to test, such as 6.12", "series", metavar="SERIES", many=True),
    Option("firmware", "firmware profile: spec, tfa, ... or a file", "firmware", metavar="PROFILE", many=True),
    Option("initrd", "initramfs in place of our own", "initrd", metavar="FILE"),
    Option("qemu", "the qemu-system-aarch64 to use", "qemu", metavar="FILE"),
    Option(
        "client",
        "client module of the kernel under test: docs/howto/client-module.md",
        "client",
        metavar="FILE",
    ),
    Option("events", "events file of the machine", "events", metavar="FILE"),
    Option("cpu", "QEMU's CPU model", "cpu", metavar="MODEL"),
    Option("smp", "number of vCPUs", "smp", int, metavar="N"),
    Option("memory", "RAM, as 512M", "memory", metavar="SIZE"),
    Option("boot", "what describes the machine: dt, acpi or auto", "boot", metavar="HOW"),
    Option("append", "added to the kernel's command line", "append", metavar="WORDS"),
    Option("timeout", "seconds of silent console while booting", "boot_timeout", float, metavar="S"),
    Option("trace", "keep each guest's trace below this directory", metavar="DIR"),
    Option("keep", "keep the guest of a test that failed below this directory, to go on with", metavar="DIR"),
    Option("cache", "megabytes that guests in the cache may have (default: 4096)", "", int, metavar="MB"),
    Option(
        "cores",
        "cores that guests of all processes may take together, one for each vCPU and one more (default: this host's)",
        "",
        int,
        metavar="N",
    ),
    Option("fresh", "boot each guest, and take none from the cache", "", None),
)
BY_WORD: Final = {option.word: option for option in OPTIONS}


def add(parser: pytest.Parser) -> None:
    """Have pytest know them."""
    group = parser.getgroup("sdei", "qemu-sdei: guests with their firmware (environment: QEMU_SDEI_KERNEL and so on)")
    for option in OPTIONS:
        if option.convert is None:
            group.addoption(
                f"--sdei-{option.word}", action="store_true", default=None, dest=option.dest, help=option.help
            )
        else:
            group.addoption(
                f"--sdei-{option.word}",
                action="append" if option.many else "store",
                default=None,
                dest=option.dest,
                metavar=option.metavar,
                help=option.help + (" (several: the tests run with each)" if option.many else ""),
            )


def value(config: pytest.Config, word: str) -> Any:
    """What an option was set to, by the command line or the environment; None: neither.

    Raises:
        pytest.UsageError: it is not understood.
    """
    option = BY_WORD[word]
    given = config.getoption(option.dest, None)
    if given is None:
        given = os.environ.get(option.variable) or None
        if given is not None and option.many:
            given = [given]
    if given is None or option.convert is None:
        return bool(given) if option.convert is None else None
    if option.many:
        return [part for text in given for part in text.split(",") if part]
    try:
        return option.convert(given)
    except ValueError:
        import pytest

        raise pytest.UsageError(f"--sdei-{word} {given}: a number is wanted") from None


def several(config: pytest.Config) -> list[dict[str, Any]]:
    """Kernels × firmware profiles that the tests are to run with: fields of `GuestOptions`, one set each.

    Raises:
        pytest.UsageError: a kernel and a series were both given.
    """
    kernels, series = value(config, "kernel") or [], value(config, "series") or []
    if kernels and series:
        import pytest

        raise pytest.UsageError("--sdei-kernel and --sdei-series were both given: give one of them")
    kinds: list[dict[str, Any]] = (
        [{"kernel": each} for each in kernels] or [{"series": each} for each in series] or [{}]
    )
    profiles: list[dict[str, Any]] = [{"firmware": each} for each in value(config, "firmware") or []] or [{}]
    return [kind | profile for kind in kinds for profile in profiles]


def title(chosen: Mapping[str, Any]) -> str:
    """Of one of `several`, in the names of tests."""
    names = [str(each).rpartition("/")[2] for each in chosen.values()]
    return "-".join(names) or "default"


def guest_options(config: pytest.Config, chosen: Mapping[str, Any], more: Mapping[str, Any]) -> GuestOptions:
    """The guest that a test is to have: by the command line, one of `several`, and what the test says itself.

    Raises:
        pytest.UsageError: a test wants an option that there is not.
    """
    from dataclasses import fields

    from qemu_sdei.vm.options import GuestOptions

    found = {
        option.field: value(config, option.word)
        for option in OPTIONS
        if option.field and not option.many and value(config, option.word) is not None
    }
    unknown = sorted(set(more) - {field.name for field in fields(GuestOptions)})
    if unknown:
        import pytest

        raise pytest.UsageError(f"sdei_options: a guest has no option {', '.join(unknown)}")
    found |= {**chosen, **more}
    if not found.get("initrd"):
        found.setdefault("helper", True)
    found.setdefault("die_with_owner", True)  # a worker of xdist that is killed leaves no guest
    return GuestOptions(**found)
