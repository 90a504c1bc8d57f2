"""A terminal of a given size, for commands of the tests."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from pathlib import Path

from tests.search.test_run import COMMAND, environment


def on_terminal(*words: object, columns: int, lines: int = 40, cwd: Path | None = None) -> str:
    """Returns what a command prints on a terminal, both streams, without the codes of colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    own = {name: value for name, value in environment().items() if name not in ("COLUMNS", "LINES")}
    child = subprocess.Popen(
        [*COMMAND, *map(str, words)], stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd,
        env={**own, "TERM": "dumb", "NO_COLOR": "1"}, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    text = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # Linux's way to say that the other side was closed
            break
        if not piece:
            break
        text += piece
    os.close(ours)
    assert child.wait() == 0, text.decode()
    return text.decode().replace("\r\n", "\n")
