"""The user's apt sources: read in both formats, and the Debian ones chosen (sources.list(5)). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

_ALIASES: Final = ("stable", "oldstable", "testing", "unstable", "sid")
_SUFFIXES: Final = ("", "-updates", "-security", "/updates", "-backports")
_KEYRING: Final = "debian-archive"
"""Part of the name of the keyring that signs Debian's own archive, wherever it is installed."""


@dataclass(frozen=True)
class Stanza:
    """One source in deb822 form; field names as written there, but for capitals compared without regard to case."""

    fields: dict[str, str] = field(default_factory=dict)

    def get(self, name: str) -> str:
        """The value of a field; "" if it is not there."""
        return next((value for key, value in self.fields.items() if key.lower() == name.lower()), "")

    def words(self, name: str) -> list[str]:
        """The value of a field as a list."""
        return self.get(name).split()

    def text(self, **changes: str) -> str:
        """The stanza as text, with some fields replaced or added."""
        replaced = {name.lower() for name in changes}
        kept = {name: value for name, value in self.fields.items() if name.lower() not in replaced}
        return "".join(f"{name}: {value}\n" for name, value in (kept | changes).items())


def parse_deb822(text: str) -> list[Stanza]:
    """The stanzas of a deb822 file (deb822(5)). What is no field is skipped."""
    stanzas: list[Stanza] = []
    for block in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n")):
        fields: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t"):
                if name:
                    fields[name] += "\n" + line
            elif match := re.match(r"([!-9;-~]+):[ \t]*(.*)", line):
                name = match[1]
                fields[name] = match[2]
        if fields:
            stanzas.append(Stanza(fields))
    return stanzas


def parse_one_line(text: str) -> list[Stanza]:
    """The `deb` lines of a sources.list as stanzas. Lines that apt would not understand are skipped."""
    stanzas = []
    for line in text.splitlines():
        match = re.match(r"\s*(deb|deb-src)\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)", line)
        if match is None:
            continue
        kind, options, uri, suite, components = match.groups()
        fields = {"Types": kind, "URIs": uri, "Suites": suite, "Components": components.strip()}
        for option in (options or "").split():
            name, equals, value = option.partition("=")
            if equals and re.fullmatch(r"[A-Za-z-]+", name):
                # In one line, several values have commas between them.
                fields["Architectures" if name == "arch" else name] = value.replace(",", " ")
        stanzas.append(Stanza(fields))
    return stanzas


def debian_stanzas(sources: Iterable[Stanza], codename: str) -> list[Stanza]:
    """Of the user's sources, `main` of the running Debian release, its updates, security and backports.

    No host is known here. Sources signed by Debian's archive keyring, or by nothing in particular, go before sources
    with a keyring of their own: third parties like to call their suites "bookworm" or "stable" too.
    """
    eligible = [stanza for stanza in sources if _usable(stanza)]
    for releases in ((codename,) if codename else (), _ALIASES):
        wanted = {release + suffix for release in releases for suffix in _SUFFIXES}
        found = [_narrow(stanza, wanted) for stanza in eligible if wanted & set(stanza.words("Suites"))]
        trusted = [stanza for stanza in found if not stanza.get("Signed-By") or _KEYRING in stanza.get("Signed-By")]
        if found:
            return trusted or found
    return []


def of_suite(stanzas: Iterable[Stanza], suite: str) -> list[Stanza]:
    """The same archive's `suite`, such as "trixie-backports", which the user's own sources need not have; security
    updates come from an archive of their own, and are left out.
    """
    archives = [stanza for stanza in stanzas if not any("security" in word for word in stanza.words("Suites"))]
    return [Stanza(stanza.fields | {"Suites": suite}) for stanza in archives[:1]]


def _usable(stanza: Stanza) -> bool:
    return (
        "deb" in stanza.words("Types")
        and stanza.get("Enabled").strip().lower() not in ("no", "false", "0", "off", "without", "disable")
        and "main" in stanza.words("Components")
        and any(not uri.startswith("cdrom:") for uri in stanza.words("URIs"))
    )


def _narrow(stanza: Stanza, suites: set[str]) -> Stanza:
    uris = [uri for uri in stanza.words("URIs") if not uri.startswith("cdrom:")]
    own = {"types", "uris", "suites", "components", "architectures", "enabled", "languages", "targets"}
    fields = {
        "Types": "deb",
        "URIs": " ".join(uris),
        "Suites": " ".join(suite for suite in stanza.words("Suites") if suite in suites),
        "Components": "main",
    }
    return Stanza(fields | {name: value for name, value in stanza.fields.items() if name.lower() not in own})
