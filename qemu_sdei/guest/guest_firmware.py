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
    """The firmware profile of one running guest. Each change acts at once."""

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
        """Where functions are that rules name (`pc="psci_cpu_off"`), from now on: files and directories as `--symbols`
        has them. Without it they are looked for in the kernel that the guest was booted with. Raises `UsageError`.
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
        """Begin a rule. `what`: a function's name or id, or another occasion; `conditions` as `when` has them."""
        return RuleInTheMaking(self, what).when(**conditions)

    def add(self, *rules: str | Rule) -> dict[str, Any]:
        """More rules, as text. Returns `status`. Raises `UsageError`: one cannot be; none is added then."""
        made = [Rule.of_text(rule) if isinstance(rule, str) else rule for rule in rules]
        if any(rule.unplaced for rule in made):
            made = placed_rules(made, self._known())
        texts = [rule.text for rule in made]
        return self._ask(lambda control: control.firmware(rules=texts))

    def use(self, profile: str | Path | FirmwareProfile) -> dict[str, Any]:
        """Have this profile in place of what there is: a name, a TOML file, or the profile. Returns `status`."""
        wanted = profile if isinstance(profile, FirmwareProfile) else load(profile)
        if any(rule.unplaced for rule in wanted.rules):
            wanted = placed(wanted, self._known())
        return self._ask(lambda control: control.firmware(profile=wanted))

    def clear(self) -> dict[str, Any]:
        """No rule acts any more; what has become of a vCPU stays until it is off or the machine is reset."""
        return self._ask(lambda control: control.firmware(clear=True))

    def status(self) -> dict[str, Any]:
        """`profile`, `summary`, `rules` with how often each `acted`; the vCPUs that are `deaf`, `stuck` or `held`."""
        return self._ask(lambda control: control.firmware())


class RuleInTheMaking:
    """A rule without an action; each action makes it act. What its words mean: docs/reference/firmware-profiles.md."""

    def __init__(self, firmware: GuestFirmware, on: str) -> None:
        self._firmware = firmware
        self._words: dict[str, Any] = {"on": on}

    def when(self, **conditions: Value) -> RuleInTheMaking:
        """More conditions; `target_power="off"` is `target-power=off`."""
        self._words |= {word.replace("_", "-"): _value(value) for word, value in conditions.items()}
        return self

    def where(self, *, pc: str | int | None = None, caller: str | int | None = None) -> RuleInTheMaking:
        """From which place: function, address or range of addresses of the call (`pc`), and of who called (x30)."""
        return self.when(**{word: value for word, value in (("pc", pc), ("caller", caller)) if value is not None})

    def nth(self, which: int | str) -> RuleInTheMaking:
        """Which of the times: 1, "2..5", "3..", "every:10"."""
        return self.when(nth=which)

    def vcpu(self, which: int | str) -> RuleInTheMaking:
        """The vCPU that it is about."""
        return self.when(vcpu=which)

    def event(self, which: int | str) -> RuleInTheMaking:
        """The event that it is about."""
        return self.when(event=which)

    def does(self, **actions: Value) -> dict[str, Any]:
        """The rule acts from now on. Returns `GuestFirmware.status`. Raises `UsageError`: it cannot be."""
        words = self._words | {word.replace("_", "-"): _value(value) for word, value in actions.items()}
        return self._firmware.add(Rule.of_table(words))

    def returns(self, result: int | str) -> dict[str, Any]:
        """The call is not carried out and has this result: a number, or a name such as "DENIED"."""
        return self.does(returns=str(int(result)) if isinstance(result, int) else result)

    def answers(self, result: int | str) -> dict[str, Any]:
        """The call is carried out and has this result."""
        return self.does(answers=str(int(result)) if isinstance(result, int) else result)

    def late(self, microseconds: int) -> dict[str, Any]:
        """The call is late by this at least."""
        return self.does(late=f"{microseconds}us")

    def never(self, *, after: bool = False) -> dict[str, Any]:
        """The vCPU stays in EL3, instead of what it came for or after it."""
        return self.does(never="after" if after else "instead")

    def loses_event(self) -> dict[str, Any]:
        """The event is lost."""
        return self.does(loses="event")

    def loses_kick(self) -> dict[str, Any]:
        """The event is pending, and nobody tells the vCPU."""
        return self.does(loses="kick")

    def deafens(self) -> dict[str, Any]:
        """The vCPU takes no interrupt and no event from then on."""
        return self.does(deaf=True)


def _value(value: Value) -> Any:
    return list(value) if isinstance(value, tuple | range) else value
