"""What the control socket is asked: a handler says by `@handles` what it is called by, takes and answers.

    @handles("trace", Number("limit", 0, 1000, default=100), result="`records`: the newest, oldest first")
    def _trace(self, client, message):
        limit = message["limit"]

From this are made the table of handlers, the checks of their fields, and docs/reference/control-protocol.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from qemu_sdei.errors import UsageError

Handler = Callable[[Any, dict[str, Any]], "dict[str, Any] | None"]
"""(client, message) -> the answer's `result`; None: the handler, or somebody else, answers later."""
_H = TypeVar("_H", bound=Callable[..., "dict[str, Any] | None"])

_MAX_VCPU: Final = 0xFFFF_FFFF
"""Of a vCPU that is named, whether there is one or not."""


class Field:
    """A field of a request. One of this class itself the handler looks at."""

    def __init__(self, name: str, about: str = "") -> None:
        """`about`: for the documentation, in Markdown; it follows the name: " (none)", ": which it is"."""
        self.name = name
        self._about = about

    def check(self, message: dict[str, Any]) -> None:
        """Refuse what the field cannot be, and fill in what it is where it was left out.

        Raises:
            UsageError: it cannot be that.
        """

    def __str__(self) -> str:
        return f"`{self.name}`{self._about}"


class Number(Field):
    """A number from `low` to `high`; without `default` it must be there."""

    def __init__(self, name: str, low: int, high: int, *, default: int | None = None, about: str = "") -> None:
        super().__init__(name, (f" ({default})" if default is not None else "") + about)
        self._low, self._high, self._default = low, high, default

    def check(self, message: dict[str, Any]) -> None:
        """See `Field.check`."""
        message[self.name] = integer(message, self.name, self._low, self._high, default=self._default)


class Switch(Field):
    """True or false."""

    def __init__(self, name: str, *, default: bool, about: str = "") -> None:
        super().__init__(name, f" ({str(default).lower()}){about}")
        self._default = default

    def check(self, message: dict[str, Any]) -> None:
        """See `Field.check`."""
        if not isinstance(message.setdefault(self.name, self._default), bool):
            raise UsageError(f"{self.name} is true or false")


@dataclass(frozen=True, slots=True)
class Request:
    """One command of the protocol."""

    name: str
    fields: tuple[Field, ...]
    result: str
    """What is answered, in Markdown."""
    changes: bool
    """Whether it waits while the guest is handed over: it would change a guest that is on its way."""


@dataclass(frozen=True, slots=True)
class Command:
    """A request and who handles it."""

    request: Request
    handler: Handler

    def __call__(self, client: Any, message: dict[str, Any]) -> dict[str, Any] | None:
        """Check the message's fields, and handle it.

        Raises:
            SdeiError: a field cannot be (UsageError), or what the handler raises.
        """
        for field in self.request.fields:
            field.check(message)
        return self.handler(client, message)


_REQUESTS: Final[dict[Callable[..., Any], Request]] = {}


def handles(name: str, *fields: Field, result: str = "nothing", changes: bool = False) -> Callable[[_H], _H]:
    """Decorator of a method: it handles the requests of this name. The arguments are those of `Request`."""

    def register(method: _H) -> _H:
        _REQUESTS[method] = Request(name, fields, result, changes)
        return method

    return register


def requests_in(kind: type) -> Iterator[tuple[str, Request]]:
    """Name of the method, and the request that it handles, for each of `kind`; in their order there."""
    for name, value in vars(kind).items():
        if callable(value) and value in _REQUESTS:
            yield name, _REQUESTS[value]


def commands_of(owner: object) -> dict[str, Command]:
    """What the methods of `owner` handle, by the request's name."""
    return {asked.name: Command(asked, getattr(owner, method)) for method, asked in requests_in(type(owner))}


def integer(message: dict[str, Any], name: str, low: int, high: int, *, default: int | None = None) -> int:
    """The number in a message.

    Raises:
        UsageError: it is none, or not from `low` to `high`.
    """
    value = message.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"{name} is a number from {low} to {high}")
    return value


def integer_if_given(message: dict[str, Any], name: str, high: int) -> int | None:
    """The number in a message; None: it is left out, or null.

    Raises:
        UsageError: it is none, or not from 0 to `high`.
    """
    return None if message.get(name) is None else integer(message, name, 0, high)


def vcpu_if_given(message: dict[str, Any]) -> int | None:
    """The vCPU in a message, which may not be there; None: any. Raises UsageError: it is no number."""
    return integer_if_given(message, "vcpu", _MAX_VCPU)
