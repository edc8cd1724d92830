"""Foreign text in HTML and in scripts: it is shown, and changes nothing but itself."""

from __future__ import annotations

import html
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.views.page_text import EXACT, Markup, element, json_block, json_text, safe

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.text())
def test_safe_text_is_shown_and_is_no_html(text: str) -> None:
    markup = safe(text)
    assert not set("<>\"'") & set(markup)
    assert markup.isprintable()
    if text.isprintable() and text.isascii():
        assert html.unescape(markup) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a\\nb"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202eevil", "\\u202eevil"),
        ("\u2028", "\\u2028"),
        ("</script><script>", "&lt;/script&gt;&lt;script&gt;"),
        ('" onload="x', "&quot; onload=&quot;x"),
    ],
)
def test_what_a_browser_would_obey(text: str, shown: str) -> None:
    assert safe(text) == shown
    assert element("b", text) == f"<b>{shown}</b>"
    assert element("b", title=text) == f'<b title="{shown}"></b>'


def test_markup_is_not_escaped_again() -> None:
    assert element("p", element("b", "<"), Markup("&amp;")) == "<p><b>&lt;</b>&amp;</p>"


@pytest.mark.parametrize("name", ["", "a b", "b>", "on\x00", "é"])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        element(name)
    with pytest.raises(ValueError, match="no name"):
        json_block(name, 1)


@given(values)
def test_json_in_a_script_cannot_end_it(value: Any) -> None:
    text = json_text(value)
    assert not set("<>&") & set(text)
    assert text.isascii()
    assert text.isprintable()
    json.loads(text)


plain = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-EXACT, EXACT) | plain,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(plain, inner, max_size=4),
        max_leaves=10,
    )
)
def test_what_json_and_javascript_have_comes_back(value: Any) -> None:
    assert json.loads(json_text(value)) == value


def test_numbers_that_javascript_would_round() -> None:
    assert json.loads(json_text([EXACT, EXACT + 1, -EXACT - 1])) == [EXACT, "0x20000000000000", "-0x20000000000000"]
    assert len(json.loads(json_text(1 << 100_000))) < 100
    assert json.loads(json_text([float("inf"), float("nan"), 0.5])) == [None, None, 0.5]


def test_what_is_nested_without_end() -> None:
    value: list[Any] = []
    for _ in range(10_000):
        value = [value]
    assert "..." in json_text(value)
