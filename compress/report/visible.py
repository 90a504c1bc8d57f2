"""Text that is not ours, made fit to be shown.

Names, notes, choices and paths come from files that others wrote. A control character among them
would steer a terminal, a mark of direction would turn a line round, half of a surrogate pair
cannot be written at all. They are spelled out instead: `\\x1b`, `\\u202e`, `\\udc80`.
"""

from __future__ import annotations

import re

# controls but tab and line feed, marks of direction, other line ends, halves of pairs, and the
# two codes that are no character
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufffe\uffff]"
)


def visible(text: object) -> str:
    """Returns text with every character spelled out that would not be seen as itself.

    Tabs and line feeds stay: a page shows them as spaces, or as they are in a command.

    Args:
        text: Anything; `str` makes text of it.
    """
    return _STEERING.sub(_spelled, str(text))


def line(text: object) -> str:
    """Returns the same on one line: line feeds and tabs are spelled out too.

    Args:
        text: Anything; `str` makes text of it.
    """
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def short(text: object, letters: int) -> str:
    """Returns one line of at most so many letters; what is cut off shows as "…"."""
    whole = line(text)
    return whole if len(whole) <= letters else f"{whole[: letters - 1]}…"


def _spelled(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
