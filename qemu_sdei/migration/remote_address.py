"""Where the other host is, who may talk to whom, and the connections themselves: unix sockets, TLS, TCP on loopback.

Nothing goes over a network in clear, and nothing listens beyond loopback without TLS and certificates on both sides.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from qemu_sdei import codec, locks, paths, rundir
from qemu_sdei.errors import UsageError
from qemu_sdei.migration.remote_link import BUFFER, MAX_LINE, Link, LostPeerError

_CONNECT: Final = 20.0
"""Seconds that a connection may take to be made, TLS included."""

_BACKLOG: Final = 64

Accept = Callable[[Link], Awaitable[None]]


@dataclass(frozen=True)
class Tls:
    """PEM files: a certificate with its key, and who signs those of the other side. Both sides show one."""

    cert: str
    key: str
    ca: str

    @classmethod
    def of(cls, cert: str | None, key: str | None, ca: str | None) -> Tls | None:
        """From three options, given all or not at all. Raises `UsageError`."""
        given = [cert, key, ca]
        if not any(given):
            return None
        if not all(given):
            raise UsageError("TLS needs all of --tls-cert, --tls-key and --tls-ca")
        return cls(*(str(paths.absolute(str(name))) for name in given))

    def context(self, *, server: bool) -> ssl.SSLContext:
        """TLS 1.3 with certificates of both sides. Raises `UsageError`: the files are not what they should be."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        name = self.ca
        try:
            context.load_verify_locations(self.ca)
            name = f"{self.cert} or {self.key}"
            # The empty password: otherwise OpenSSL asks for one at the terminal.
            context.load_cert_chain(self.cert, self.key, password=lambda: "")
        except OSError as error:  # SSLError is one
            reason = error.strerror if not isinstance(error, ssl.SSLError) else f"no PEM, or not of a pair ({error})"
            raise UsageError(f"TLS file {name} cannot be used: {reason}") from None
        return context


@dataclass(frozen=True)
class Address:
    """`unix:PATH`, `tcp://HOST:PORT` (loopback) or `tls://HOST:PORT`, with what is needed to be let in."""

    kind: str
    host: str = ""
    """Of a unix socket: its path."""
    port: int = 0
    token: str = ""
    tls: Tls | None = None
    label: str = ""
    """What a person calls it, where that is something else."""

    def __str__(self) -> str:
        if self.label:
            return self.label
        return f"unix:{self.host}" if self.kind == "unix" else f"{self.kind}://{joined(self.host, self.port)}"

    def to_json(self) -> dict[str, Any]:
        """All fields; the owner socket, which is the user's, takes it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> Address:
        """What `to_json` gave. Raises `UsageError`."""
        try:
            return codec.from_data(cls, data)
        except codec.FieldError:
            raise UsageError("where the guest is to go is not of the form that is known here") from None


def parse(text: str, *, token: str = "", tls: Tls | None = None) -> Address:
    """The address that `text` says, all but `ssh://`. Raises `UsageError`."""
    if text.startswith("unix:"):
        path = paths.absolute(text.removeprefix("unix:").removeprefix("//"))
        rundir.check_socket_path(path, "use a shorter one")
        return Address("unix", str(path))
    kind, _, rest = text.partition("://")
    if kind not in ("tcp", "tls"):
        raise UsageError(
            f"--to {text!r} is not understood: give ssh://HOST, tls://HOST:PORT, tcp://127.0.0.1:PORT or unix:PATH"
        )
    host, port = split(rest)
    if port == 0:
        raise UsageError(f"--to {text!r}: a port is a number from 1 to 65535")
    if kind == "tls":
        if tls is None:
            raise UsageError("tls:// needs --tls-cert, --tls-key and --tls-ca")
        return Address("tls", host, port, token, tls)
    if tls is not None:
        raise UsageError("tcp:// has no TLS: write tls://, or leave out --tls-cert, --tls-key and --tls-ca")
    if not is_loopback(host):
        raise UsageError(f"a guest does not go to {host} in clear: use tls://{rest}, or ssh://{host}")
    if not token:
        raise UsageError("tcp:// needs the --token that `qemu-sdei receive` has printed")
    return Address("tcp", host, port, token)


def split(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `[IPV6]:PORT`. Raises `UsageError`."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.%\w]+\]|[A-Za-z0-9._-]+):(\d{1,5})", text)
    if found is None or int(found[2]) > 65535:
        raise UsageError(f"address {text!r} is not understood: write HOST:PORT, or [IPV6]:PORT")
    return found[1].strip("[]"), int(found[2])


def joined(host: str, port: int) -> str:
    """The opposite of `split`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether `host` is this host's loopback, in numbers or as `localhost`: other names may be anything tomorrow."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    return host == "localhost"


async def connect(address: Address) -> Link:
    """Connect, without a word yet. Raises `LostPeerError`, and `UsageError` where a file cannot be used."""
    try:
        async with asyncio.timeout(_CONNECT):
            if address.kind == "unix":
                return Link(*await asyncio.open_unix_connection(address.host, limit=BUFFER))
            context = None if address.tls is None else address.tls.context(server=False)
            return Link(*await asyncio.open_connection(address.host, address.port, ssl=context, limit=BUFFER))
    except ssl.SSLCertVerificationError as error:
        raise LostPeerError(f"{address} is not who it should be: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise LostPeerError(f"{address} and this side do not agree on TLS: {error.reason or error}") from None
    except TimeoutError:
        raise LostPeerError(f"{address} cannot be reached: no answer within {_CONNECT:g} s") from None
    except OSError as error:
        raise LostPeerError(f"{address} cannot be reached: {error.strerror or error}") from None


async def listen_unix(path: Path, accept: Accept) -> asyncio.Server:
    """Listen at `path`, mode 0600, for processes of this user. Raises `UsageError`."""
    try:
        listener = locks.listening(path, _BACKLOG)
    except OSError as error:
        raise UsageError(f"socket {path} cannot be made: {error.strerror}") from None

    async def checked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if locks.may_ask(writer.get_extra_info("socket")):
            await accept(Link(reader, writer))
        else:
            writer.close()

    return await asyncio.start_unix_server(checked, sock=listener, limit=BUFFER)


async def listen_tcp(host: str, port: int, tls: Tls | None, accept: Accept) -> tuple[asyncio.Server, int]:
    """Listen at one address; port 0: a free one. Returns the port too. Raises `UsageError`."""
    if tls is None and not is_loopback(host):
        raise UsageError(
            f"{host} is not loopback: give --tls-cert, --tls-key and --tls-ca, or listen on 127.0.0.1 and use ssh"
        )

    async def wrapped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(Link(reader, writer))

    context = None if tls is None else tls.context(server=True)
    timeouts: dict[str, Any] = {} if context is None else {"ssl_handshake_timeout": _CONNECT}
    try:
        server = await asyncio.start_server(wrapped, host, port, ssl=context, limit=max(BUFFER, MAX_LINE), **timeouts)
    except OSError as error:
        raise UsageError(f"{joined(host, port)} cannot be listened at: {error.strerror or error}") from None
    # Of a name with several addresses and port 0 each would have another port.
    bound = {entry.getsockname()[1] for entry in server.sockets}
    if len(bound) != 1:
        server.close()
        raise UsageError(f"{host} has several addresses: give one of them in numbers, such as 127.0.0.1:{port}")
    return server, bound.pop()
