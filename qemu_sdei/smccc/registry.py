"""Which service answers which function id."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator
from typing import Final, Literal, TypeVar

from qemu_sdei.errors import UsageError
from qemu_sdei.smccc.call_filter import Action, CallFilter
from qemu_sdei.smccc.ids import FUNCTION_MASK, NOT_SUPPORTED, SMC64
from qemu_sdei.smccc.regs import WORD_MASK, X0, X17, Regs
from qemu_sdei.smccc.service import Call, FunctionRange, Handler, Result, Running, Service, Steps

_S = TypeVar("_S", bound=Service)
_X1: Final = X0 + 1
_W_MASK: Final = 0xFFFF_FFFF
_MAX_RESULTS: Final = X17 - X0 + 1


class Registry:
    """The services of one guest."""

    def __init__(
        self,
        call_filter: CallFilter | None = None,
        conduit: Callable[[], Literal["smc", "hvc"]] = lambda: "smc",
    ) -> None:
        """`call_filter`: what becomes of calls before a service sees them; None: they are all handled. `conduit`: by
        which instruction the call came that is being answered.
        """
        self._filter = call_filter or CallFilter()
        self._conduit = conduit
        self.table: Final[dict[int, Handler]] = {}
        """Handlers of built-in services by function id (`W0 & FUNCTION_MASK`): for owners who cannot wait for `lookup`.
        """
        self._all: dict[int, Handler] = {}
        self._users: dict[int, Handler] = {}
        """Of `_all`, and beside it: handlers of services of the user's own."""
        self._withheld: frozenset[int] = frozenset()
        self._services: list[Service] = []
        self._spans: list[tuple[int, int, Service, FunctionRange]] = []
        self._forwarded: list[tuple[int, int, Service]] = []
        """Ranges of services of the user's own."""
        self._callers: list[tuple[int, int, Handler]] = []

    def register(self, service: Service, *, users: bool = False) -> None:
        """Add a service; `users`: of the user's own, which may also have functions that are forwarded to it.

        Raises:
            UsageError: a range that cannot be, that another service has already (both are named), or no range at all;
                a handler outside the ranges. Nothing is registered then.
        """
        if not service.ranges:
            raise UsageError(f"service {service.title}: it has no ranges: say which functions it answers")
        spans: list[tuple[int, int, Service, FunctionRange]] = []
        for functions in service.ranges:
            try:
                functions.check()
            except UsageError as error:
                raise UsageError(f"service {service.title}: {error}") from None
            for first, last in functions.spans():
                for other_first, other_last, other, other_functions in self._spans + spans:
                    both = max(first, other_first), min(last, other_last)
                    if both[0] <= both[1] and not (users and self._filter.forwards(*both)):
                        raise UsageError(
                            f"service {service.title} ({functions}) overlaps service {other.title} ({other_functions})"
                        )
                spans.append((first, last, service, functions))
        handlers = service.handlers()
        for function in handlers:
            if not any(first <= function <= last for first, last, *_ in spans):
                raise UsageError(f"service {service.title}: handler for {function:#x}, which is not in its ranges")
        if users:
            self._users |= handlers
            self._forwarded += [(first, last, service) for first, last, *_ in spans]
            handlers = {f: handler for f, handler in handlers.items() if self.service_of(f) is None}
        self._services.append(service)
        self._spans += spans
        self._all.update(handlers)
        self.withhold(self._withheld)
        if type(service).call is not Service.call:
            caller = _caller(service, self._conduit)
            self._callers += [(first, last, caller) for first, last, *_ in spans]

    def withhold(self, functions: Collection[int]) -> None:
        """Have the guest not find these functions (ids as in `table`), and all others again."""
        self._withheld = frozenset(functions)
        self.table.clear()
        for function, handler in self._all.items():
            if function not in self._withheld and self._filter.action(function) is Action.HANDLE:
                self.table[function] = handler

    def withheld(self, function: int) -> bool:
        """Whether the guest must not find a function."""
        return function & FUNCTION_MASK in self._withheld

    def lookup(self, function: int) -> Handler | None:
        """What answers a function id (its upper half and the SVE hint are ignored); None: answer NOT_SUPPORTED."""
        function &= FUNCTION_MASK
        handler = self.table.get(function)
        if handler is not None:
            return handler
        action = self._filter.action(function)
        if action is Action.DENY or (action is Action.HANDLE and function in self._withheld):
            return None
        if action is Action.FORWARD and function in self._users:
            return self._users[function]
        for first, last, caller in self._callers:
            if first <= function <= last:
                return caller
        return None

    def implemented(self, function: int) -> bool:
        """Is there anything behind a function id, whatever becomes of calls? A user's service counts with the whole of
        its ranges.
        """
        function &= FUNCTION_MASK
        return (function in self._all and function not in self._withheld) or self.lookup(function) is not None

    def service_of(self, function: int) -> Service | None:
        """The service whose range a function id lies in; of one that is forwarded, the user's."""
        function &= FUNCTION_MASK
        if self._filter.action(function) is Action.FORWARD:
            return next((service for first, last, service in self._forwarded if first <= function <= last), None)
        for first, last, service, _ in self._spans:
            if first <= function <= last:
                return service
        return None

    def find(self, kind: type[_S]) -> _S:
        """The service of the class `kind`, which is registered.

        Raises:
            UsageError: it is not.
        """
        for service in self._services:
            if isinstance(service, kind):
                return service
        raise UsageError(f"there is no service {kind.__name__}")

    def __iter__(self) -> Iterator[Service]:
        """The services, in the order in which they were registered."""
        return iter(self._services)

    def __len__(self) -> int:
        """How many services there are."""
        return len(self._services)


def _caller(service: Service, conduit: Callable[[], Literal["smc", "hvc"]]) -> Handler:
    """`service.call` in the form of a handler."""

    def handler(pe: int, regs: Regs) -> tuple[int, ...] | Running:
        function = regs[X0] & FUNCTION_MASK
        args = regs[_X1:].tolist()
        if function & SMC64:
            call = Call(pe, function, tuple(args), 64, conduit())
        else:
            call = Call(pe, function, tuple([arg & _W_MASK for arg in args]), 32, conduit())
        result = service.call(call)
        if isinstance(result, Generator):
            return _finish(service, result)
        return _words(service, result)

    return handler


def _finish(service: Service, steps: Steps) -> Running:
    """Drive `steps` to its end. It holds no registers: those that it ends with may be others than it began with."""
    return _words(service, (yield from steps))


def _words(service: Service, result: object) -> tuple[int, ...]:
    """x0, x1, ... of a result. Everything is checked first: a wrong result changes nothing.

    Raises:
        UsageError: the service returned what is no `Result`.
    """
    if result is None:
        return (NOT_SUPPORTED,)
    words: tuple[object, ...] = result if isinstance(result, tuple) else (result,)
    if not 1 <= len(words) <= _MAX_RESULTS:
        raise UsageError(
            f"service {service.title}: call() returned {len(words)} values; x0..x17 are 1 to {_MAX_RESULTS}"
        )
    return tuple(_checked(service, word) for word in words)


def _checked(service: Service, word: object) -> int:
    if not isinstance(word, int):
        raise UsageError(
            f"service {service.title}: call() returned a {type(word).__name__}; int, tuple or None is wanted"
        )
    if not -(1 << 63) <= word <= WORD_MASK:
        raise UsageError(f"service {service.title}: call() returned a number that does not fit in 64 bits")
    return int(word)


__all__ = ["Call", "FunctionRange", "Handler", "Registry", "Result", "Running", "Service", "Steps"]
