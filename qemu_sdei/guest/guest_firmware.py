"""What a guest's firmware does wrong on purpose, from Python: `guest.firmware.on("CPU_OFF").nth(1).returns(DENIED)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.profiles.firmware_profile import FirmwareProfile, load
from qemu_sdei.profiles.rule import Rule
from qemu_sdei.symbols.call_sites import placed, placed_rules
from qemu_sdei.symbols.sources import Kernel

T = TypeVar("T")
Value = bool | int | str | Sequence[int | str]


class GuestFirmware:
    """The firmware profile of a running guest. Each change acts at once.

    Every method that asks the guest may raise the errors of `ControlClient.firmware`.
    """

    def __init__(
        self,
        ask: Callable[[Callable[[ControlClient], dict[str, Any]]], dict[str, Any]],
        kernel: Callable[[], Path | None] = lambda: None,
    ) -> None:
        """`ask` puts a question to the guest's backend; `kernel` says which file the guest was booted with."""
        self._ask = ask
        self._kernel = kernel
        self._kernels: list[Kernel] | None = None

    def symbols(self, *files: str | Path) -> None:
        """Set the symbols for functions that rules name, such as `pc="psci_cpu_off"`. Without this call the symbols are
        those of the kernel that the guest was booted with.

        `files`: files and directories, as for the option `--symbols`.

        Raises:
            UsageError: a file cannot be read, or has no symbols.
        """
        from qemu_sdei.symbols.sources import load as load_symbols

        self._kernels = load_symbols(str(file) for file in files).kernels

    def _known(self) -> list[Kernel]:
        if self._kernels is None:
            from qemu_sdei.symbols.sources import load_image

            image = self._kernel()
            found = None if image is None else load_image(image)
            self._kernels = [] if found is None else [found]
        return self._kernels

    def on(self, what: str, **conditions: Value) -> RuleInTheMaking:
        """Begin a rule.

        Args:
            what: when it acts: a function's name or id, or another occasion (docs/reference/firmware-profiles.md).
            conditions: as in `RuleInTheMaking.when`.
        """
        return RuleInTheMaking(self, what).when(**conditions)

    def add(self, *rules: str | Rule) -> dict[str, Any]:
        """Add rules, as text or as objects, and return `status`.

        Raises:
            UsageError: a rule is not valid; none was added.
        """
        made = [Rule.of_text(rule) if isinstance(rule, str) else rule for rule in rules]
        if any(rule.unplaced for rule in made):
            made = placed_rules(made, self._known())
        texts = [rule.text for rule in made]
        return self._ask(lambda control: control.firmware(rules=texts))

    def use(self, profile: str | Path | FirmwareProfile) -> dict[str, Any]:
        """Replace the profile, and return `status`.

        `profile`: the name of a profile that comes with the program, the path of a TOML file, or an object.

        Raises:
            UsageError: there is no such profile, or it is not valid; nothing was changed.
        """
        wanted = profile if isinstance(profile, FirmwareProfile) else load(profile)
        if any(rule.unplaced for rule in wanted.rules):
            wanted = placed(wanted, self._known())
        return self._ask(lambda control: control.firmware(profile=wanted))

    def clear(self) -> dict[str, Any]:
        """Remove all rules, and return `status`. A vCPU that a rule has changed stays so until it is off, or the
        machine is reset.
        """
        return self._ask(lambda control: control.firmware(clear=True))

    def status(self) -> dict[str, Any]:
        """The profile, its rules and the vCPUs that they changed, with the fields of `FirmwareStatus`."""
        return self._ask(lambda control: control.firmware())


class RuleInTheMaking:
    """A rule that has no action yet. Its conditions (`when`, `where`, `nth`, `vcpu`, `event`) return the rule; an
    action completes it, adds it to the firmware, and returns `GuestFirmware.status`.

    Every action raises `UsageError` if the rule is not valid. docs/reference/firmware-profiles.md has the meaning of
    each word.
    """

    def __init__(self, firmware: GuestFirmware, on: str) -> None:
        self._firmware = firmware
        self._words: dict[str, Any] = {"on": on}

    def when(self, **conditions: Value) -> RuleInTheMaking:
        """Add conditions, as in a profile; `target_power="off"` stands for `target-power=off`."""
        self._words |= {word.replace("_", "-"): _value(value) for word, value in conditions.items()}
        return self

    def where(self, *, pc: str | int | None = None, caller: str | int | None = None) -> RuleInTheMaking:
        """Only for calls from a place in the guest: a function, an address or a range of addresses.

        Args:
            pc: place of the call instruction.
            caller: place to which the calling function returns (x30).
        """
        return self.when(**{word: value for word, value in (("pc", pc), ("caller", caller)) if value is not None})

    def nth(self, which: int | str) -> RuleInTheMaking:
        """Only some of the times: `which` is 1, "2..5", "3.." or "every:10"."""
        return self.when(nth=which)

    def vcpu(self, which: int | str) -> RuleInTheMaking:
        """Only on this vCPU: `which` is its number."""
        return self.when(vcpu=which)

    def event(self, which: int | str) -> RuleInTheMaking:
        """Only for this event: `which` is a number or a name."""
        return self.when(event=which)

    def does(self, **actions: Value) -> dict[str, Any]:
        """Complete the rule with `actions`, as in a profile; `target_power="off"` stands for `target-power=off`.
        Returns `GuestFirmware.status`.

        Raises:
            UsageError: the rule is not valid.
        """
        words = self._words | {word.replace("_", "-"): _value(value) for word, value in actions.items()}
        return self._firmware.add(Rule.of_table(words))

    def returns(self, result: int | str) -> dict[str, Any]:
        """Do not carry the call out, and return `result`: a number, or a name such as "DENIED"."""
        return self.does(returns=str(int(result)) if isinstance(result, int) else result)

    def answers(self, result: int | str) -> dict[str, Any]:
        """Carry the call out, but return `result`: a number, or a name such as "DENIED"."""
        return self.does(answers=str(int(result)) if isinstance(result, int) else result)

    def late(self, microseconds: int) -> dict[str, Any]:
        """Delay the call by at least `microseconds`."""
        return self.does(late=f"{microseconds}us")

    def never(self, *, after: bool = False) -> dict[str, Any]:
        """Keep the vCPU in EL3 for ever: in place of the call, or with `after` when the call was carried out."""
        return self.does(never="after" if after else "instead")

    def loses_event(self) -> dict[str, Any]:
        """Lose the event."""
        return self.does(loses="event")

    def loses_kick(self) -> dict[str, Any]:
        """Make the event pending, but do not kick the vCPU."""
        return self.does(loses="kick")

    def deafens(self) -> dict[str, Any]:
        """From then on the vCPU takes no interrupt and no event."""
        return self.does(deaf=True)


def _value(value: Value) -> Any:
    return list(value) if isinstance(value, tuple | range) else value
