"""What a service is. Services built in and services of users derive from the same class.

A built-in service that is called often returns `handlers()`: functions that find their arguments in the registers
themselves. A user's service overrides `call()`, which gets everything ready-made in a `Call`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from enum import Enum
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

from qemu_sdei.errors import UsageError
from qemu_sdei.smccc.ids import LAST_OWNER, NUMBER_MASK, function_id
from qemu_sdei.smccc.regs import Regs

MicroOp: TypeAlias = object
"""What a generator yields: an operation of the monitor, or several in a tuple. Its form is the owner's business."""

Result: TypeAlias = int | tuple[int, ...] | None
"""What `Service.call` gives: x0; or x0, x1, ... ; or None: NOT_SUPPORTED."""

Steps: TypeAlias = Generator[MicroOp, Any, Result]
"""A call that needs the monitor: yields micro-operations, receives their results, returns a `Result`."""

Running: TypeAlias = Generator[MicroOp, Any, tuple[int, ...]]
"""A handler that is not done: the owner drives it; the generator's return value goes into x0, x1, ..."""

Handler: TypeAlias = Callable[[int, Regs], int | tuple[int, ...] | Running | None]
"""(pe, regs) -> what goes into x0, or into x0, x1, ... (masked to 64 bits and written by the owner: a journal comes
first). None: the call does not return, `regs` hold what goes on.
"""


class JournalMode(Enum):
    """How a call survives a crash of the process that answers it: what the journal has to keep."""

    NONE = "none"
    """Stateless, the same answer each time: may simply be done again."""
    INPUT = "input"
    """Deterministic: replayed from its inputs; `snapshot` and `restore` keep the state."""
    OUTCOME = "outcome"
    """Anything else: the result is recorded and never computed twice."""


class Widths(Enum):
    """Which of the two forms of a function exist."""

    SMC32 = (32,)
    SMC64 = (64,)
    BOTH = (32, 64)


class FunctionRange(NamedTuple):
    """Fast functions `first`..`last` (0..0xffff, inclusive) of `owner` (0..63)."""

    owner: int
    first: int
    last: int
    widths: Widths = Widths.BOTH

    def check(self) -> None:
        """Raises UsageError if the numbers cannot be."""
        if not (0 <= self.owner <= LAST_OWNER and 0 <= self.first <= self.last <= NUMBER_MASK):
            raise UsageError(f"function range {self}: owner is 0..{LAST_OWNER}, numbers are 0..{NUMBER_MASK:#x}")

    def spans(self) -> tuple[tuple[int, int], ...]:
        """The ids as (first, last), one pair per width."""
        return tuple(
            (function_id(self.owner, self.first, width), function_id(self.owner, self.last, width))
            for width in self.widths.value
        )

    def __str__(self) -> str:
        """As it is written in messages: owner, numbers, widths."""
        widths = "/".join(str(width) for width in self.widths.value)
        return f"owner {self.owner}, functions {self.first:#x}..{self.last:#x}, SMC{widths}"


class Lasting(NamedTuple):
    """How long the answer to a call stays the same."""

    arguments: int
    """How many arguments it depends on: 0, x1 (1), or x1 and x2 (2)."""
    event: int | None = None
    """Until this SDEI event changes its state; None: as long as the services are what they are."""


class Call(NamedTuple):
    """A call as a user's service sees it."""

    pe: int
    """Number of the calling CPU."""
    function: int
    """Function id, without the SVE hint."""
    args: tuple[int, ...]
    """x1..x17; w1..w17 for an SMC32 call."""
    width: int
    """32 or 64."""
    conduit: Literal["smc", "hvc"] = "smc"
    """By which instruction it came."""


class Service:
    """Base class of all services. Give it a `name` and `ranges`, and override `call` (or `handlers`)."""

    name: ClassVar[str] = ""
    """For messages and `status`; the class's name if empty."""
    ranges: ClassVar[tuple[FunctionRange, ...]] = ()
    journal: ClassVar[JournalMode] = JournalMode.OUTCOME
    reads: ClassVar[frozenset[int]] = frozenset()
    """Function ids that only look: whatever `journal` says, they may be done again."""

    lasts: ClassVar[frozenset[int]] = frozenset()
    """Functions of a built-in service, among those that only look, whose answers may last (`lasting`)."""

    since_state_2: ClassVar[bool] = False
    """It came after guests which can still be here: their state documents do not have it, and they do not find it."""

    names: ClassVar[Mapping[int, str]] = {}
    """Function id (of an SMC32 call, where there is one) -> what `status` calls it; others are numbers there."""

    def handlers(self) -> dict[int, Handler]:
        """Function id -> handler. Ids must lie in `ranges`; ids of the ranges that are not there are NOT_SUPPORTED."""
        return {}

    def call(self, call: Call) -> Result | Steps:
        """Answer a call in `ranges`.

        Returns:
            x0 as an int (a negative one is sign-extended), or a tuple for x0, x1, ... (up to x17), or None if there is
            no such function (NOT_SUPPORTED); or a generator (`Steps`) that ends with one of these.
        """
        return None

    def lasting(self, function: int, pe: int, regs: Regs) -> Lasting | None:
        """How long the answer lasts that `function` has just given; None: it may be another one the next time. Only
        asked of functions of `lasts`, of a built-in service. `regs`: with the answer in them.
        """
        return None

    def arch_features(self, function: int) -> int | None:
        """The answer to SMCCC_ARCH_FEATURES(function) for a function of this service; None: it has nothing to say."""
        return None

    def reset(self) -> None:
        """The machine was reset: forget what the guest that is gone had set up."""

    def snapshot(self) -> Any:
        """The state as JSON-able data; only asked of a service whose journal mode is INPUT."""
        return None

    def restore(self, state: Any) -> None:
        """Take what `snapshot` gave. Raises ProtocolError if it is damaged; nothing is changed then."""

    @property
    def title(self) -> str:
        """`name`, or the class's name."""
        return self.name or type(self).__name__
