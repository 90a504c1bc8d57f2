"""Text that is not ours (names, notes, choices, paths), made fit to be shown."""

from __future__ import annotations

import re

from compress.core.errors import printable


def visible(text: object) -> str:
    """Returns text with every character spelled out that would not be seen as itself.

    Tabs and line feeds stay: a page shows them as spaces, or as they are in a command.

    Args:
        text: Anything; `str` makes text of it.
    """
    return "".join(
        part if part in ("\n", "\t") else printable(part)
        for part in re.split("([\n\t])", str(text))
    )


def line(text: object) -> str:
    """Returns the same on one line: line feeds and tabs are spelled out too.

    Args:
        text: Anything; `str` makes text of it.
    """
    return printable(str(text))


def tail(text: object, letters: int) -> str:
    """Returns the end of one line, of at most so many letters: by it the layers of a net differ."""
    whole = line(text)
    return whole if len(whole) <= letters else f"…{whole[1 - letters :]}"


def short(text: object, letters: int) -> str:
    """Returns one line of at most so many letters; what is cut off shows as "…"."""
    whole = line(text)
    return whole if len(whole) <= letters else f"{whole[: letters - 1]}…"
