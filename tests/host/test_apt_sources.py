"""Which of a user's package sources are Debian's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.host.apt_sources import debian_stanzas, parse_deb822, parse_one_line

DEB822 = """\
# Written by the installer
Types: deb deb-src
URIs: mirror+file:/etc/apt/mirrors/debian.list
Suites: bookworm bookworm-updates
Components: main non-free-firmware
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: copy:/security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abcdefdebian-archiveghij
 -----END PGP PUBLIC KEY BLOCK-----
"""


def chosen(text: str, codename: str = "bookworm") -> list[tuple[str, str]]:
    """(URIs, suites) of what is chosen of one-line or deb822 text."""
    parse = parse_deb822 if "URIs:" in text else parse_one_line
    return [(stanza.get("URIs"), stanza.get("Suites")) for stanza in debian_stanzas(parse(text), codename)]


def test_deb822_sources_are_kept_as_they_are_but_for_component_and_architecture() -> None:
    first, second = debian_stanzas(parse_deb822(DEB822), "bookworm")
    assert first.text(Architectures="arm64") == (
        "Types: deb\nURIs: mirror+file:/etc/apt/mirrors/debian.list\nSuites: bookworm bookworm-updates\n"
        "Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\nArchitectures: arm64\n"
    )
    assert " .\n abcdefdebian-archiveghij\n" in second.text()
    assert parse_deb822(second.text())[0] == second


def test_one_line_sources_with_options() -> None:
    text = "deb [arch=amd64,i386 signed-by=/k/debian-archive-keyring.gpg check-valid-until=no] copy:/d bookworm main x"
    (stanza,) = debian_stanzas(parse_one_line(text), "bookworm")
    assert stanza.get("Signed-By") == "/k/debian-archive-keyring.gpg"
    assert stanza.get("Check-Valid-Until") == "no"
    assert stanza.get("Architectures") == ""
    assert stanza.get("Components") == "main"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("deb copy:/d bookworm main\ndeb copy:/s bookworm-security main # security\n",
         [("copy:/d", "bookworm"), ("copy:/s", "bookworm-security")]),
        ("deb copy:/d bookworm/updates main\ndeb copy:/d bookworm-backports main",
         [("copy:/d", "bookworm/updates"), ("copy:/d", "bookworm-backports")]),
        # Third parties that call their suites as Debian does, with a keyring of their own.
        ("deb copy:/d bookworm main\ndeb [signed-by=/k/third.gpg] copy:/t bookworm main", [("copy:/d", "bookworm")]),
        ("deb copy:/d bookworm main\ndeb [arch=amd64] copy:/t stable main", [("copy:/d", "bookworm")]),
        # A company's own mirror, signed anew: it is all that there is.
        ("deb [signed-by=/k/company.gpg] copy:/c bookworm main", [("copy:/c", "bookworm")]),
        ("deb copy:/d stable main", [("copy:/d", "stable")]),
        ("deb copy:/d bookworm contrib", []),
        ("deb copy:/d bookworm-pgdg main", []),
        ("deb-src copy:/d bookworm main", []),
        ("# deb copy:/d bookworm main", []),
        ("deb cdrom:[Debian]/ bookworm main", []),
        ("deb copy:/flat ./", []),
        ("Types: deb\nURIs: copy:/d\nSuites: bookworm\nComponents: main\nEnabled: no\n", []),
        ("nonsense", []),
    ],
)  # fmt: skip
def test_what_is_chosen(text: str, wanted: list[tuple[str, str]]) -> None:
    assert chosen(text) == wanted


def test_without_a_codename_the_aliases_are_looked_for() -> None:
    assert chosen("deb copy:/d unstable main", "") == [("copy:/d", "unstable")]


@given(st.text(alphabet=st.sampled_from("deb-src []=#:.\n\t bookwrmain:URISuites/"), max_size=300))
def test_any_text_is_read(text: str) -> None:
    for stanza in debian_stanzas([*parse_deb822(text), *parse_one_line(text)], "bookworm"):
        assert stanza.text()
