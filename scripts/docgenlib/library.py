"""The page about the Python library: its public classes, from their signatures and docstrings."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Callable, Iterator
from typing import Any, Final

import qemu_sdei
from qemu_sdei import errors
from qemu_sdei.explain.explanation import Explanation
from qemu_sdei.guest.guest_exec import ExecResult
from qemu_sdei.guest.guest_firmware import GuestFirmware, RuleInTheMaking
from qemu_sdei.guest.nmi import Nmi
from qemu_sdei.guest.ras import Abort, GuestRas, HostError
from qemu_sdei.guest.ras_observing import Observed
from qemu_sdei.guest.ras_pages import Page
from qemu_sdei.guest.ras_refusals import SourceState
from qemu_sdei.guest.ras_report import Report
from qemu_sdei.guest.ras_victim import Victim
from qemu_sdei.guest.sdei_client import Count, Dumps, EventInfo, Record, SdeiClient
from qemu_sdei.guest.sdei_where import Where
from qemu_sdei.guest.status import (
    Counts,
    EventStatus,
    FirmwareStatus,
    InstanceStatus,
    RuleStatus,
    SourceStatus,
    TriggerCounts,
    VcpuStatus,
)
from qemu_sdei.migration.destination_remote import RemoteResult
from qemu_sdei.saving.snapshots import Snapshot
from scripts.docgenlib.page import ROOT, note

CLASSES: Final[tuple[type, ...]] = (
    *(found for name in sorted(qemu_sdei.__all__) if inspect.isclass(found := getattr(qemu_sdei, name))),
    VcpuStatus,
    EventStatus,
    InstanceStatus,
    TriggerCounts,
    Counts,
    SourceStatus,
    FirmwareStatus,
    RuleStatus,
    ExecResult,
    RemoteResult,
    Snapshot,
    Explanation,
    Nmi,
    GuestFirmware,
    RuleInTheMaking,
    GuestRas,
    Report,
    Observed,
    SourceState,
    Victim,
    Page,
    HostError,
    Abort,
    SdeiClient,
    EventInfo,
    Count,
    Record,
    Dumps,
    Where,
)
"""What can be imported from `qemu_sdei`, and what its methods give."""
_SECTION: Final = re.compile(r"^(Args|Raises|Returns|Attributes):\s*(.*)$")


def library() -> str:
    """Every public class with its fields and methods, then the errors."""
    text = (ROOT / "docs/reference/library.in").read_text().rstrip()
    out = ["# The Python library", "", note("the docstrings and docs/reference/library.in"), "", text, ""]
    out += ["| class | what |", "|---|---|"]
    out += [f"| [`{kind.__name__}`](#{kind.__name__.lower()}) | {_first_line(kind)} |" for kind in CLASSES]
    for kind in CLASSES:
        out += _class(kind)
    out += ["", "## Errors", "", "| error | exit code | what |", "|---|---|---|"]
    for kind in _errors(errors.SdeiError):
        parent = kind.__mro__[1].__name__
        of = "" if parent == "Exception" else f" (a `{parent}`)"
        out.append(f"| `{kind.__name__}`{of} | {getattr(kind, 'exit_code', 1)} | {_first_line(kind)} |")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)) + "\n"


def _errors(kind: type) -> Iterator[type]:
    yield kind
    below: type
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from _errors(below)


def _first_line(kind: type) -> str:
    return " ".join((kind.__doc__ or "").partition("\n\n")[0].split()).replace("|", "\\|")


def _class(kind: type) -> Iterator[str]:
    yield from ("", f"## {kind.__name__}", "", f"`{kind.__module__}.{kind.__name__}`", "")
    yield from _prose(kind.__doc__)
    if fields := list(_fields(kind)):
        yield from ("", "| field | type | default | what |", "|---|---|---|---|")
        yield from fields
    for name, member in members(kind):
        yield from ("", f"### {kind.__name__}.{name}", "")
        if isinstance(member, property):
            returns = inspect.signature(member.fget).return_annotation if member.fget else ""
            yield f"`{name}: {returns}`"
            yield ""
            yield from _prose(member.__doc__)
        else:
            function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            yield from ("```python", _signature(name, member, function), "```", "")
            yield from _prose(function.__doc__)


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties of a class that are ours, in the order of their names."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("qemu_sdei"):
            found |= {name: member for name, member in vars(base).items() if not name.startswith("_")}
    for name, member in sorted(found.items()):
        if isinstance(member, property | classmethod | staticmethod) or inspect.isfunction(member):
            yield name, member


def _signature(name: str, member: object, function: Callable[..., Any]) -> str:
    signature = inspect.signature(function)
    if not isinstance(member, staticmethod):
        signature = signature.replace(parameters=list(signature.parameters.values())[1:])
    text = _plain(f"def {name}{signature}: ...")
    if len(text) <= 100:
        return text
    shown = [_plain(str(each)) for each in signature.parameters.values()]
    kinds = [each.kind for each in signature.parameters.values()]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        shown.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    back = signature.return_annotation
    arrow = "" if back is inspect.Signature.empty else f" -> {back}"
    return f"def {name}(\n" + "".join(f"    {each},\n" for each in shown) + f"){arrow}: ..."


def _plain(text: str) -> str:
    """A signature as it stands in the source: no quotes around types, a function's name for a function."""
    text = re.sub(r"(: |-> )'([\w\[\], |.]+)'", r"\1\2", text)
    text = re.sub(r"= (b?)'([^'\"]*)'", r'= \1"\2"', text)
    text = re.sub(r"<(\w+\.\w+): [^>]*>", r"\1", text)  # a member of an enumeration
    return re.sub(r"<function (\w+) at 0x[0-9a-f]+>", r"\1", text)


def _fields(kind: type) -> Iterator[str]:
    """The fields of a data class or of a dictionary's type, with what stands below each of them in the source."""
    if typing.is_typeddict(kind):
        for name, type_ in kind.__annotations__.items():
            shown = getattr(type_, "__forward_arg__", str(type_)).replace("|", "\\|")
            yield f"| `{name}` | `{shown}` | | {field_notes(kind).get(name, '').replace('|', chr(92) + '|')} |"
        return
    if not dataclasses.is_dataclass(kind):
        return
    notes: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("qemu_sdei"):
            notes |= field_notes(base)
    for field in dataclasses.fields(kind):
        if field.name.startswith("_"):
            continue
        default = ""
        if field.default is not dataclasses.MISSING:
            default = f"`{field.default!r}`"
        elif field.default_factory is not dataclasses.MISSING:
            default = f"`{field.default_factory()!r}`"
        words = notes.get(field.name, "").replace("|", "\\|")
        shown = str(field.type).replace("|", "\\|")
        yield f"| `{field.name}` | `{shown}` | {default} | {words} |"


def field_notes(kind: type) -> dict[str, str]:
    """What a class says below each of its fields, by name."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for before, item in zip(tree.body, tree.body[1:], strict=False):
        if not (isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name)):
            continue
        if isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant):
            found[before.target.id] = " ".join(str(item.value.value).split())
    return found


def _prose(doc: str | None) -> Iterator[str]:
    """A docstring as Markdown: its paragraphs, and a list for each of its sections."""
    section = False
    for paragraph in inspect.cleandoc(doc or "").split("\n\n"):
        if "```" in paragraph or paragraph.startswith("    "):
            yield from (textwrap.dedent(paragraph), "")
            continue
        plain: list[str] = []
        for line in paragraph.split("\n"):
            if match := _SECTION.match(line):
                if plain:
                    yield from (" ".join(plain), "")
                    plain = []
                section = True
                yield from (f"**{match[1]}**", "")
                if match[2]:
                    plain = [match[2]]
            elif section and re.match(r"^    \S", line):
                if plain:
                    yield f"- {' '.join(plain)}"
                plain = [_named(line.strip())]
            else:
                plain.append(line.strip())
        if plain:
            yield f"- {' '.join(plain)}" if section else " ".join(plain)
        yield ""


def _named(line: str) -> str:
    """An entry of a section: its name as code."""
    return re.sub(r"^([\w*, ]+): ", r"`\1`: ", line)
