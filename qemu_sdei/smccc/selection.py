"""Which of the firmware's services a guest finds: KVM's bitmap registers (KVM_REG_ARM_*_BMAP, Linux 5.19).

User space elects them before the guest runs. Each register is a bitmap of features, one value for the machine; its
upper limit is what the firmware has. A bit that is cleared makes NOT_SUPPORTED of the functions behind it, also in
SMCCC_ARCH_FEATURES. Functions without a bit are always allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from errno import EBUSY, EINVAL, ENOENT
from typing import Final, NamedTuple

from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.smccc.ids import Owner, function_id

_COPROCESSOR: Final = 0x6030_0000_0016_0000
"""KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_FW_FEAT_BMAP."""
_WORD: Final = (1 << 64) - 1


def _functions(owner: int, first: int, last: int) -> frozenset[int]:
    numbers = range(first, last + 1)
    return frozenset(function_id(owner, number, width) for number in numbers for width in (32, 64))


class Feature(NamedTuple):
    """A bit of a register."""

    bit: int
    word: str
    """As users write it."""
    functions: frozenset[int]
    """Function ids that go with it."""
    about: str
    """What it is, for the reference."""


class Register(NamedTuple):
    """A bitmap register."""

    number: int
    word: str
    """As users write it."""
    features: tuple[Feature, ...]
    starts_empty: bool = False
    """It begins with 0, and not with its upper limit: guests that expect nothing of it are left as they were."""
    features_as_ever: int = 0
    """Bits of what guests found before there was any selection."""

    @property
    def name(self) -> str:
        """As KVM has it, without KVM_REG_ARM_."""
        return f"{self.word.upper().replace('-', '_')}_BMAP" if not self.starts_empty else "VENDOR_HYP_BMAP_2"

    @property
    def id(self) -> int:
        """As in `struct kvm_one_reg`."""
        return _COPROCESSOR | self.number


REGISTERS: Final = (
    Register(
        0,
        "std",
        (
            Feature(0, "trng", _functions(Owner.STANDARD, 0x50, 0x5F), "[random numbers](trng.md)"),
            Feature(
                1,
                "sdei",
                _functions(Owner.STANDARD, 0x20, 0x3F),
                "[SDEI](sdei.md); the bit is that of KVM's SDEI series v7, upstream ends at bit 0",
            ),
        ),
        features_as_ever=1 << 1,
    ),
    Register(
        1,
        "std-hyp",
        (Feature(0, "pv_time", _functions(Owner.STANDARD_HYP, 0x20, 0x21), "[stolen time](pv-time.md)"),),
    ),
    Register(
        2,
        "vendor-hyp",
        (
            Feature(
                0,
                "func_feat",
                frozenset((function_id(Owner.VENDOR_HYP, 0, 32), function_id(Owner.VENDOR_HYP, 0xFF01, 32))),
                "[that this is KVM](kvm-services.md), and what there is of it",
            ),
            Feature(
                1, "ptp", frozenset((function_id(Owner.VENDOR_HYP, 1, 32),)), "[cross timestamps](kvm-services.md)"
            ),
        ),
    ),
    Register(
        3,
        "vendor-hyp-2",
        (
            Feature(
                0,
                "discover_impl_ver",
                frozenset((function_id(Owner.VENDOR_HYP, 0x40, 64),)),
                "[how many CPU implementations](kvm-services.md) the guest can meet",
            ),
            Feature(
                1,
                "discover_impl_cpus",
                frozenset((function_id(Owner.VENDOR_HYP, 0x41, 64),)),
                "which they are",
            ),
        ),
        starts_empty=True,
    ),
)
"""All of them. Bit 1 of the first is of the series "Support SDEI Virtualization" (v7); upstream KVM has bit 0 only."""
BY_ID: Final = {register.id: register for register in REGISTERS}
BY_WORD: Final = {register.word: register for register in REGISTERS}


class RefusedError(UsageError):
    """A register, or a rule of the SMCCC filter, cannot be written, or is not there.

    Attributes:
        errno: what KVM gives: ENOENT, EINVAL or EBUSY of KVM_SET_ONE_REG; EINVAL, EBUSY or EEXIST of the filter.
    """

    def __init__(self, errno: int, text: str) -> None:
        super().__init__(text)
        self.errno = errno


class Selection:
    """The bitmaps of one machine."""

    def __init__(self, implemented: Callable[[int], bool]) -> None:
        """`implemented`: whether the firmware has a function at all; a feature is there if it has one of its own."""
        self._limits = {
            register.number: sum(
                1 << feature.bit for feature in register.features if any(map(implemented, feature.functions))
            )
            for register in REGISTERS
        }
        self._initial = {r.number: 0 if r.starts_empty else self._limits[r.number] for r in REGISTERS}
        self._values = dict(self._initial)

    def __iter__(self) -> Iterator[tuple[Register, int]]:
        """Each register with its value."""
        return ((register, self._values[register.number]) for register in REGISTERS)

    def limit(self, register: Register) -> int:
        """The bits that may be set."""
        return self._limits[register.number]

    def read(self, number: int) -> int:
        """The value of a register, by its id. Raises `RefusedError` (ENOENT)."""
        return self._values[_by_id(number).number]

    def write(self, number: int, value: int, *, has_run: bool) -> bool:
        """Set a register, by its id.

        Args:
            number: the id, with coprocessor and size.
            value: 64 bits.
            has_run: whether a vCPU of the machine has run already.

        Returns:
            Whether it has another value now.

        Raises:
            RefusedError: ENOENT: there is no such register (of this size). EINVAL: a bit that the firmware does not
                have; this is looked at first. EBUSY: another value than it has, and the guest has run.
        """
        register = _by_id(number)
        unknown = value & ~self._limits[register.number] if 0 <= value <= _WORD else value
        if unknown:
            raise RefusedError(
                EINVAL,
                f"{register.name} {value:#x}: bits {unknown:#x} are not supported; "
                f"it may have {self._limits[register.number]:#x}",
            )
        if value == self._values[register.number]:
            return False
        if has_run:
            raise RefusedError(
                EBUSY,
                f"{register.name} is {self._values[register.number]:#x} and stays so: the guest has run already; "
                "services are selected before that",
            )
        self._values[register.number] = value
        return True

    def elect(self, wanted: Mapping[str, Iterable[str]]) -> None:
        """Set registers by words, as `parse` gives them.

        Raises:
            UsageError: a feature that this firmware does not have.
        """
        for word, features in wanted.items():
            register, names = BY_WORD[word], set(features)
            value = sum(1 << feature.bit for feature in register.features if feature.word in names)
            missing = value & ~self._limits[register.number]
            if missing:
                lacking = ", ".join(f.word for f in register.features if missing >> f.bit & 1)
                raise UsageError(f"--services {word}={','.join(features)}: this firmware does not have {lacking}")
            self._values[register.number] = value

    def withheld(self) -> frozenset[int]:
        """Function ids that the guest must not find."""
        return frozenset().union(
            *(
                feature.functions
                for register, value in self
                for feature in register.features
                if not value >> feature.bit & 1
            )
        )

    def has(self, function: int) -> bool:
        """Whether the guest finds a function, as far as the bitmaps go."""
        return function not in self.withheld()

    def snapshot(self) -> dict[str, int]:
        """Register word → value, of all."""
        return {register.word: value for register, value in self}

    @property
    def before(self) -> dict[str, int]:
        """As `snapshot`, of a guest whose program knew of no selection: it finds SDEI, if that is there."""
        return {register.word: register.features_as_ever & self.limit(register) for register in REGISTERS}

    def restore(self, state: object) -> None:
        """Take what `snapshot` gave.

        Raises:
            ProtocolError: it is damaged, or has a feature that this firmware does not have. Nothing is changed then.
        """
        if not isinstance(state, Mapping) or state.keys() != BY_WORD.keys():
            raise ProtocolError("selection of services: other registers than this program knows")
        values = {}
        for word, value in state.items():
            register = BY_WORD[word]
            if type(value) is not int or value & ~self._limits[register.number]:
                raise ProtocolError(f"selection of services: {word}: not what this firmware has")
            values[register.number] = value
        self._values = values


def _by_id(number: int) -> Register:
    register = BY_ID.get(number)
    if register is None:
        known = ", ".join(f"{register.name} {register.id:#x}" for register in REGISTERS)
        raise RefusedError(ENOENT, f"there is no register {number:#x} for services; there are {known}")
    return register


def parse(words: Iterable[str], source: str = "--services") -> dict[str, tuple[str, ...]]:
    """What users write, such as "std=trng,sdei" or "vendor-hyp=" (none of it): register word → words of features.
    `source`: where it stands, for messages.

    Raises:
        UsageError: an unknown word, or a register twice.
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in words:
        word, equals, rest = text.partition("=")
        register = BY_WORD.get(word)
        if register is None or not equals:
            raise UsageError(
                f"{source} {text}: write REGISTER=FEATURE,...; the registers are {', '.join(BY_WORD)}, "
                "and what is not named is withheld"
            )
        if word in found:
            raise UsageError(f"{source}: {word} is there twice")
        features = tuple(part for part in rest.split(",") if part)
        known = {feature.word for feature in register.features}
        for feature in features:
            if feature not in known:
                raise UsageError(f"{source} {text}: {word} has no {feature}; it has {', '.join(sorted(known))}")
        found[word] = features
    return found
