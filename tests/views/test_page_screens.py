"""The page in a browser: it draws, is quiet, fits a phone, and does what a reader wants by keyboard and pointer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.views.html_page import write_page
from tests.views import chromium, sample
from tests.views.chromium import Chromium
from tests.views.test_html_page import PARTS, hostile_trace

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(chromium.find() is None, reason="there is no Chromium (scripts/test --all gets it)"),
]
SCREENS = [(1280, 900), (390, 844)]
CONSOLE = "".join(f"[    {n / 10:.6f}] line {n} of a kernel\n" for n in range(500))


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as started:
        yield started


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "report.html"
    write_page(file, sample.meta(), sample.trace(600), CONSOLE)
    return file


@pytest.fixture(autouse=True)
def quiet(browser: Chromium) -> Iterator[None]:
    """Whatever a test does, the page complains of nothing and asks nobody for anything."""
    browser.complaints.clear()
    yield
    assert browser.complaints == []


def opened(browser: Chromium, file: Path, width: int = 1280, height: int = 900, **screen: Any) -> Chromium:
    browser.screen(width, height, **screen)
    browser.open(file)
    return browser


def text(browser: Chromium, selector: str) -> str:
    return str(browser.run(f"document.querySelector('{selector}').textContent"))


def settle(browser: Chromium) -> None:
    """Wait until what was done is drawn."""
    browser.run("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")


def choose(browser: Chromium, selector: str, value: str, event: str = "change") -> None:
    """Give a field a value, as somebody does who types or picks it."""
    browser.run(
        f"(() => {{ const field = document.querySelector('{selector}'); field.value = '{value}';"
        f" field.dispatchEvent(new Event('{event}', {{ bubbles: true }})) }})()"
    )


def colours_drawn(browser: Chromium) -> int:
    """How many different colours the timeline has."""
    return int(
        browser.run(
            "(() => { const c = document.querySelector('#drawing');"
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "return new Set(new Uint32Array(d.buffer)).size })()"
        )
    )


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), SCREENS)
def test_it_fits_each_screen(
    browser: Chromium, report: Path, tmp_path: Path, width: int, height: int, dark: bool
) -> None:
    opened(browser, report, width, height, dark=dark, touch=width < 500)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert colours_drawn(browser) > 6
    back = browser.run("getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(back) < 3 * 128) == dark
    # No button or field reaches out of the page.
    outside = "[...document.querySelectorAll('button, input, select, h1, h2')].filter((e) => !e.closest('.scroll')"
    outside += f" && e.getBoundingClientRect().right > {width} + 1).map((e) => e.outerHTML)"
    assert browser.run(outside) == []
    assert browser.picture(tmp_path / "whole.png", whole=True).startswith(b"\x89PNG")


def test_the_switch_goes_before_the_system_s_setting(browser: Chromium, report: Path) -> None:
    opened(browser, report)
    back = "getComputedStyle(document.documentElement).backgroundColor"
    light = browser.run(back)
    browser.run("document.querySelector('#theme').click()")
    assert text(browser, "#theme") == "Theme: dark"
    assert browser.run(back) != light
    browser.run("document.querySelector('#theme').click(); document.querySelector('#theme').click()")
    assert text(browser, "#theme") == "Theme: auto"
    assert browser.run(back) == light


def test_the_timeline_by_keyboard(browser: Chromium, report: Path) -> None:
    opened(browser, report)
    browser.run("document.querySelector('#timeline').focus()")
    seen = [text(browser, "#range")]
    for key in ("+", "+", "ArrowRight", "-", "End", "Home"):
        browser.key(key, key if len(key) == 1 else "")
        settle(browser)
        seen.append(text(browser, "#range"))
    assert all(a != b for a, b in itertools.pairwise(seen)), seen
    browser.key("0", "0")
    settle(browser)
    assert text(browser, "#range") == seen[0]
    browser.key("n", "n")
    browser.key("n", "n")
    assert "record2, boot" in text(browser, "#detail")


def test_the_list_by_keyboard(browser: Chromium, report: Path) -> None:
    opened(browser, report)
    browser.key("/", "/")
    assert browser.run("document.activeElement.id") == "search"
    browser.ask("Input.insertText", text="event_register denied")
    browser.run("new Promise((done) => setTimeout(done, 400))")
    assert browser.run("document.querySelectorAll('.row').length") > 3
    assert browser.run(
        "[...document.querySelectorAll('.row .what')].every((e) => e.textContent.endsWith('-> DENIED (-3)'))"
    )
    browser.run("document.querySelector('#list').focus()")
    browser.key("ArrowDown")
    browser.key("ArrowDown")
    assert "SDEI_EVENT_REGISTER" in text(browser, "#detail")
    chosen = browser.run("document.querySelector('#list').getAttribute('aria-activedescendant')")
    assert browser.run(f"document.getElementById('{chosen}').getAttribute('aria-selected')") == "true"
    before = text(browser, "#range")
    browser.key("Enter")
    settle(browser)
    assert text(browser, "#range") != before


def test_filters(browser: Chromium, report: Path) -> None:
    opened(browser, report)
    total = int(text(browser, "#matches").split()[0])
    browser.run("document.querySelector('#only-refused').click()")
    refused = int(text(browser, "#matches").split()[0])
    assert 0 < refused < total
    browser.run("document.querySelector('#only-refused').click()")
    browser.run("document.querySelector('#types button').click()")
    assert int(text(browser, "#matches").split()[0]) < total
    browser.run("document.querySelector('#types button').click()")
    choose(browser, "#of-vcpu", "2")
    assert browser.run("[...document.querySelectorAll('.row .vcpu')].every((e) => e.textContent === '2')")


def test_a_handler_in_the_timeline_can_be_pointed_at_and_selected(browser: Chromium, report: Path) -> None:
    opened(browser, report)
    box = browser.run(
        "(() => { const b = document.querySelector('#drawing').getBoundingClientRect(); return [b.x, b.y, b.width] })()"
    )
    x, y = box[0] + 60, box[1] + 24 + 58 * 1 + 58 * 0.3
    while "handler of event" not in text(browser, "#tip"):
        x += 1
        assert x < box[0] + box[2], "there is no handler"
        browser.mouse("mouseMoved", x, y)
    assert not browser.run("document.querySelector('#tip').hidden")
    browser.mouse("mousePressed", x, y, button="left", clickCount=1)
    browser.mouse("mouseReleased", x, y, button="left", clickCount=1)
    assert "transition" in text(browser, "#detail")
    assert "DISPATCH" in text(browser, "#detail")


def test_the_timeline_can_be_dragged_and_zoomed_by_wheel(browser: Chromium, report: Path) -> None:
    opened(browser, report)
    ranges = [text(browser, "#range")]
    box = browser.run(
        "(() => { const b = document.querySelector('#drawing').getBoundingClientRect(); return [b.x, b.y] })()"
    )
    x, y = box[0] + 500, box[1] + 100
    browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-200, modifiers=2)
    settle(browser)
    ranges.append(text(browser, "#range"))
    browser.mouse("mousePressed", x, y, button="left", clickCount=1)
    browser.mouse("mouseMoved", x - 100, y, button="left", buttons=1)
    browser.mouse("mouseReleased", x - 100, y, button="left", clickCount=1)
    settle(browser)
    ranges.append(text(browser, "#range"))
    assert len(set(ranges)) == 3, ranges


def test_a_refusal_leads_to_its_record(browser: Chromium, report: Path) -> None:
    opened(browser, report)
    browser.run("document.querySelector('.jump').click()")
    assert "DENIED" in text(browser, "#detail")
    assert browser.run("document.querySelector('.row.selected') !== null")


def test_the_diagram_of_one_event(browser: Chromium, report: Path) -> None:
    opened(browser, report)
    count = "document.querySelector('[data-arrow=\"3-7\"] .count').textContent"
    of_all = browser.run(count)
    choose(browser, "#arrows-of", "0x103")
    assert browser.run(count) not in ("", of_all)


def test_lines_of_the_console_can_be_picked(browser: Chromium, report: Path) -> None:
    opened(browser, report)
    choose(browser, "#find", "LINE 49", "input")
    assert text(browser, "#console").count("\n") == 10  # line 49, and 490 to 499
    assert "line 48 " not in text(browser, "#console")


def test_nothing_that_a_guest_writes_is_run(browser: Chromium, tmp_path: Path) -> None:
    payload = "<img src=x onerror=hacked=1></script></pre></style><script>window.hacked=1</script>"
    records = [record for part in (payload, *PARTS) for record in hostile_trace(part)]
    events = ({"event": 0, "name": payload, "type": "private", "priority": "normal"},)
    file = tmp_path / "hostile.html"
    console = payload * 20 + "\n".join(PARTS)
    write_page(file, sample.meta(guest=payload, program=payload, events=events), records, console, title=payload)
    opened(browser, file)
    for _ in range(12):
        browser.run("document.querySelector('#next').click()")
    assert browser.run("window.hacked") is None
    assert browser.run("document.scripts.length") == 2
    assert browser.run("document.images.length") == 0
    assert payload in text(browser, "h1")
    assert browser.run("document.querySelectorAll('.row').length") > 5


@pytest.mark.parametrize("length", [0, 1, 2])
def test_next_to_nothing(browser: Chromium, tmp_path: Path, length: int) -> None:
    file = tmp_path / "small.html"
    write_page(file, sample.meta(), list(sample.trace(40))[:length])
    opened(browser, file)
    for button in ("zoom-in", "zoom-out", "next", "previous", "zoom-all"):
        browser.run(f"document.querySelector('#{button}').click()")
    assert text(browser, "#matches") == f"{length} records"


def test_many_records_open_and_only_those_in_view_are_there(browser: Chromium, tmp_path: Path) -> None:
    file = tmp_path / "large.html"
    write_page(file, sample.meta(vcpus=64), sample.trace(100_000, 64))
    opened(browser, file)
    total = int(text(browser, "#matches").split()[0])
    assert total > 99_000
    assert browser.run("document.querySelectorAll('.row').length") < 60
    browser.run("document.querySelector('#list').focus()")
    browser.key("End")
    assert "transition" in text(browser, "#detail")
    # 64 lanes: the canvas is no larger than what is seen of it.
    assert browser.run("document.querySelector('#drawing').height") <= 900
    browser.run("document.querySelector('#timeline').scrollTo(0, 100000)")
    settle(browser)
    assert colours_drawn(browser) > 4
