"""Record a command as an SVG of a terminal, in which lines appear in their order.

    python docs/record_terminal.py docs/images/shrink.svg -- paretune shrink MODEL --data DATA ...

The command runs for real. Pauses between lines are shortened; the text says how long it took.
"""

from __future__ import annotations

import argparse
import html
import os
import shlex
import subprocess
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

COLUMNS = 80
LINE_HEIGHT, CHARACTER_WIDTH, MARGIN = 19, 8.45, 18
"""In pixels, of a font of 14 pixels."""
LONGEST_PAUSE = 0.5
"""Seconds in the picture between two lines at most."""

Line = tuple[float, str]
"""Seconds from the start of the command, and text."""


def run_command(words: Sequence[str]) -> list[Line]:
    """Run a command and return its lines.

    Args:
        words: The command.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    began = time.monotonic()
    environment = os.environ | {"COLUMNS": str(COLUMNS), "PYTHONUNBUFFERED": "1"}
    lines: list[Line] = []
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            seconds = time.monotonic() - began
            parts = textwrap.wrap(line, COLUMNS, drop_whitespace=False) or [""]
            lines += [(seconds, part.rstrip()) for part in parts]
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(words))
    return [*lines, (time.monotonic() - began, "")]


def build_svg(words: Sequence[str], lines: Sequence[Line]) -> str:
    """Return the picture of a command and its lines.

    Args:
        words: The command.
        lines: Its lines, the last one at its end.
    """
    command = shlex.join(words)
    shown = [(0.0, f"$ {command}"), *lines[:-1], (lines[-1][0], f"# {lines[-1][0]:.0f} seconds")]
    width = round(COLUMNS * CHARACTER_WIDTH + 2 * MARGIN)
    height = LINE_HEIGHT * len(shown) + 2 * MARGIN
    texts, delay = [], 0.0
    for number, (seconds, line) in enumerate(shown):
        before = shown[number - 1][0] if number else 0.0
        delay += min(LONGEST_PAUSE, seconds - before)
        y = MARGIN + LINE_HEIGHT * (number + 0.75)
        kind = "command" if number == 0 else "note" if line.startswith(("#", "note")) else ""
        texts.append(
            f'<text class="{kind}" x="{MARGIN}" y="{y:g}" style="animation-delay:{delay:.2f}s">'
            f"{html.escape(line)}</text>"
        )
    style = (
        "text{font:14px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#d7dce5;"
        "white-space:pre;opacity:0;animation:show .01s forwards}"
        ".command{fill:#7fd1b9;font-weight:bold}.note{fill:#9aa4b5}"
        "@keyframes show{to{opacity:1}}"
        "@media (prefers-reduced-motion:reduce){text{animation:none;opacity:1}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" xml:space="preserve">'
        f"<title>{html.escape(command)}</title><style>{style}</style>"
        f'<rect width="{width}" height="{height}" rx="8" fill="#1b2130"/>{"".join(texts)}</svg>\n'
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("command", nargs="+", metavar="-- COMMAND")
    given = parser.parse_args()
    given.picture.write_text(build_svg(given.command, run_command(given.command)), "utf-8")


if __name__ == "__main__":
    main()
