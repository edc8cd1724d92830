"""Text of others (names, paths, a guest's words, a peer's, a file's) made safe to show: it cannot control the terminal.

A terminal obeys control characters, shows what follows a bidirectional override in another order, and shows nothing
of zero-width ones; a line end in a name looks like another message of ours. All of these are shown as their numbers.
"""

from __future__ import annotations

import re
from typing import Final

LIMIT: Final = 4096
"""Characters of one name or message: a path has no more."""
_ENDLESS: Final = 1 << 16
"""Characters of one line of anything."""
_HIDDEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Characters that are printable to Python, and not seen (Unicode: Default_Ignorable_Code_Point)."""
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: object, limit: int | None = LIMIT) -> str:
    r"""`text` as one line without anything that a terminal obeys or hides; of a longer one than `limit` begin and end.

    What is printable stays as it is; a character that is not becomes `\n`, `\x1b` or `\u202e`, and a byte that was
    no UTF-8 (PEP 383) `\x9b`.
    """
    words = str(text)
    most = _ENDLESS if limit is None else limit
    if len(words) > most:
        # What to do is at the end of a message.
        words = f"{words[: most * 3 // 4]}... ({len(words) - most} characters more) ...{words[-(most // 4) :]}"
    if words.isprintable() and not _HIDDEN.search(words):
        return words
    return "".join(_shown(character) for character in words)


def printable_lines(text: str) -> str:
    """The same of text of several lines: line ends and tabs stay."""
    return "\n".join("\t".join(printable(part, None) for part in line.split("\t")) for line in text.split("\n"))


def message_lines(message: object) -> list[str]:
    """A message as lines to be shown. Only what is indented by two spaces, such as a program's output, is a line of its
    own: one that begins at the margin is ours, whatever names and words of others are in the message.
    """
    return [printable(line, None) for line in re.sub(r"\n(?! {2})", r"\\n", str(message)).split("\n")]


def _shown(character: str) -> str:
    if character.isprintable() and not _HIDDEN.match(character):
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    if character in _SHORT:
        return _SHORT[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
