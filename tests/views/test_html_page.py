"""The page of a trace: what a reader finds in it, whatever guest and file have written."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qemu_sdei.views.html_page import FOLDER, SCRIPTS, write_page
from qemu_sdei.views.page_data import PageData
from tests.examples import examples
from tests.views import sample
from tests.views.pages import Page, page

FEW = settings(max_examples=examples(40), deadline=None, suppress_health_check=list(HealthCheck))
PARTS = (
    *("<script>alert(1)</script>", "</script>", "</pre>", "<!--", "-->", "]]>", '"', "'", "&lt;", "{{script}}", "${x}"),
    *("\u2028", "\u2029", "\x00", "\x1b]0;x\x07", "\x1b[2J", "\u202e", "\ufeff", "\ud800", "\udc9b", "\n", "\r", "\\"),
    *("javascript:alert(1)", "<img src=x onerror=alert(1)>", "__proto__", "x" * 5000),
)
hostile = st.lists(st.sampled_from(PARTS) | st.text(max_size=4), min_size=1, max_size=5).map(
    lambda parts: "x" + "".join(parts)
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | hostile,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
NAMES = (
    *("n", "type", "vcpu", "time_ns", "at_ns", "at_error_ns", "counter", "pc", "function", "id", "args", "result"),
    *("result_name", "then", "event", "from", "to", "cause", "by", "outcome", "why", "reason", "count", "kind", "x"),
    *("pc_symbol", "name", "intid"),
)
TYPES = (
    *("call", "frame", "transition", "trigger", "undelivered", "power", "counted", "boot", "backend", "migration"),
    *("injection", "reject", "unknown", "note", "dropped", "ftrace"),
)
WORDS = ("DISPATCH", "COMPLETE", "RESET", "running", "enabled", "on", "off", "pending", "refused", "SDEI_EVENT_SIGNAL")
records = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(WORDS) | st.integers(-3, 5) | anything, max_size=12)
typed = st.tuples(records, st.sampled_from(TYPES)).map(lambda pair: {**pair[0], "type": pair[1]})


def test_a_reader_finds_what_the_trace_has() -> None:
    found = page(sample.trace(300), "Booting Linux\nPanic: no\n")
    assert "Trace of guest demo" in found.text
    assert "Panic: no" in found.text
    assert "SDEI_EVENT_REGISTER" in found.text
    assert "the event is enabled" in found.text
    assert "DEN0054 5.1.2" in found.text
    assert "entry to complete" in found.text
    data = found.data
    lines = [detail[0] for detail in data["details"]]
    assert "event=0x0/software enabled -> running by DISPATCH (DEN0054 6.1)" in lines
    assert "SDEI_EVENT_REGISTER event=0x0/software -> DENIED (-3)" in lines
    assert len(data["records"]["n"]) == data["total"]


def test_it_needs_nothing_from_anywhere() -> None:
    found = page(sample.trace(50))
    for tag, attributes in found.elements:
        for name in ("src", "href", "action", "srcset", "data"):
            assert attributes.get(name) in (None, "data:,", "#records"), (tag, attributes)
    # What a namespace is called is no address.
    assert not re.findall(r"url\((?!#)|@import|https?://", found.whole)


def test_only_its_own_script_may_run() -> None:
    found = page(sample.trace(50))
    policy = next(a["content"] for t, a in found.elements if t == "meta" and "http-equiv" in a)
    assert policy is not None
    (script,) = found.scripts[None]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert set(found.scripts) == {None, "application/json"}
    for tag, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)


def test_every_file_of_the_page_is_used() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted([*SCRIPTS, "page.css", "page.html"])
    for path in FOLDER.iterdir():
        assert len(path.read_text().splitlines()) < 400, path


def hostile_trace(text: str) -> list[dict[str, Any]]:
    """Records in which each word that a guest or a file can choose is `text`."""
    write = sample.Writer()
    states: dict[str, Any] = {"from": text, "to": text}
    own: dict[str, Any] = {"any": text, "<b>": text}
    return [
        write.record("backend", None, what=text, program=text),
        write.record("note", 0, name=text, **own),
        write.record("reject", 0, why=text),
        write.record("trigger", 0, event=0, by=text, outcome="refused", why=text),
        write.record("undelivered", 0, event=0, why=text, reason=text),
        write.call(0, text, 0xC400_0021, -3, named=text, then=text, args={text: 1}, pc_symbol=text),
        write.record("transition", 0, event=0, cause=text, clause=text, **states),
        write.record(text, 0, anything=text),
        write.record("dropped", None, count=3, why=text),
    ]


def hostile_page(text: str) -> Page:
    events = ({"event": 0, "name": text, "type": "private", "priority": "normal"},)
    meta = sample.meta(guest=text, program=text, events=events)
    return page(hostile_trace(text), f"{text}\n{text}", meta=meta, title=text)


def strings(value: Any) -> Iterator[str]:
    """All strings in a value of JSON, names too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


@FEW
@given(hostile)
def test_no_foreign_text_becomes_anything_but_text(text: str) -> None:
    found = hostile_page(text)
    # As many lines of console as of harmless text: the console is one element, whatever is in it.
    assert found.shape() == hostile_page("harmless").shape()
    assert set(found.scripts) == {None, "application/json"}
    assert found.scripts[None] == page([]).scripts[None]
    for line in found.text.split("\n"):
        assert line.isprintable(), line[:200]
    found.whole.encode()  # no half of a surrogate pair
    assert [part for part in strings(found.data) if not part.isprintable()] == []


@FEW
@given(st.lists(typed | records | anything, max_size=30), hostile)
def test_whatever_the_records_are_a_page_comes_of_them(given_records: list[Any], console: str) -> None:
    found = page(given_records, console)
    kept = found.data["records"]
    assert {len(column) for column in kept.values()} == {len(kept["n"])}
    assert all(isinstance(at, int) and abs(at) < 1 << 54 for at in kept["at"])
    assert all(0 <= detail < len(found.data["details"]) for detail in kept["detail"])
    assert all(-1 <= vcpu < 512 for vcpu in kept["vcpu"])


def test_a_trace_without_records() -> None:
    found = page([])
    assert "The trace has no records." in found.text
    assert found.data["records"]["n"] == []


def test_a_trace_of_one_record() -> None:
    found = page(list(sample.trace(40))[:1])
    assert found.data["total"] == 1
    assert "Nothing was refused." in found.text


def test_only_the_newest_are_listed_and_it_says_so() -> None:
    whole = list(sample.trace(2000))
    found = page(whole, limit=500)
    assert f"the newest 500 of {len(whole)} records" in found.text
    numbers = found.data["records"]["n"]
    assert len(numbers) == 500
    assert sum(numbers) == whole[-1]["n"]
    # Counts are of all of them.
    registered = sum(record.get("function") == "SDEI_EVENT_REGISTER" for record in whole)
    assert re.search(rf"SDEI_EVENT_REGISTER\s*{registered}\D", found.text)
    first = min(record["at_ns"] for record in whole[-500:]) - whole[0]["at_ns"]
    for lane in found.data["lanes"]:
        assert all(span[1] is None or span[1] >= first for span in lane["handlers"])


def test_what_is_missing_is_said() -> None:
    write = sample.Writer()
    cut = [
        write.call(0, "PSCI_VERSION", 0x8400_0000, 0x10001, named=None),
        write.record("dropped", None, count=17),
        {"n": 0, "type": "dropped", "vcpu": None, "time_ns": 0, "at_ns": 0, "count": 1, "why": "the file ends early"},
    ]
    found = page(cut)
    assert "Records are missing: 17" in found.text
    assert "Records are missing: 1 (the file ends early)" in found.text
    # One whose time nobody knows does not stretch the time axis.
    assert found.data["last"] == 20_000


def test_a_guest_s_colours_are_not_text_and_its_other_escapes_are_not_obeyed() -> None:
    found = page([], "\x1b[1;32mgreen\x1b[0m and \x1b]0;title\x07plain\r\nover\rwritten\n\x1bZ\x07 <b>")
    assert "green and plain\nwritten\n\\x1bZ\\x07 <b>" in found.text


def test_a_long_console_is_cut_from_above() -> None:
    found = page([], "".join(f"line {n}\n" for n in range(50_000)))
    assert "line 49999" in found.text
    assert "line 20000\n" not in found.text
    assert "Only the newest" in found.text


def test_the_wall_clock_is_that_of_the_host() -> None:
    data = PageData(sample.meta(), sample.trace(40)).document()
    first = next(iter(sample.trace(40)))
    assert data["wall_ms"] == (1_796_000_000_000_000_000 + first["at_ns"] - sample.BEGAN) // 1_000_000


def test_a_page_is_written_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")

    def fails() -> Any:
        yield from list(sample.trace(40))
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        write_page(target, sample.meta(), fails())
    assert target.read_text() == "old"
    write_page(target, sample.meta(), sample.trace(40), "console")
    assert target.read_text().startswith("<!doctype html>")
    assert list(tmp_path.iterdir()) == [target]


def test_places_have_their_names() -> None:
    write = sample.Writer()
    call = write.call(0, "PSCI_VERSION", 0x8400_0000, 0x10001, named=None, next_pc=0x9000)
    found = page([{**call, "pc_symbol": "invoke+0x1c/0x80", "next_pc_symbol": "<b>"}])
    assert found.data["pcs"] == [f"{call['pc']:#x} invoke+0x1c/0x80", "0x9000 <b>"]
    assert "invoke" not in found.data["details"][0][0]
