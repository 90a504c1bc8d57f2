"""Messages between a run's process and its workers: one JSON object a line."""

from __future__ import annotations

import json
from typing import IO, Any

# to a worker
TRIAL, FINAL, COMPRESS, NET, QUIT = "trial", "final", "compress", "net", "quit"
# from a worker
READY, PROGRESS, CLAIMED, DONE = "ready", "progress", "claimed", "done"
DIED, FATAL = "died", "fatal"


def send(stream: IO[str], kind: str, **content: Any) -> None:
    """Write one message."""
    stream.write(json.dumps({"kind": kind, **content}) + "\n")
    stream.flush()


def parse(line: str) -> dict[str, Any] | None:
    """Read one message; None for a line that is none (torn by a kill)."""
    try:
        content = json.loads(line)
    except ValueError:
        return None
    return content if isinstance(content, dict) and "kind" in content else None
