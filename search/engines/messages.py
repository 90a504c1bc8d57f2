"""Messages between a run's process and its workers: one JSON object per line."""

from __future__ import annotations

import json
from typing import IO, Any

# kinds of messages to a worker
TRIAL, FINAL, COMPRESS, MODEL, QUIT = "trial", "final", "compress", "net", "quit"
STEP = "step"
# kinds of messages from a worker
READY, PROGRESS, CLAIMED, DONE = "ready", "progress", "claimed", "done"
DIED, FATAL = "died", "fatal"


def send(stream: IO[str], kind: str, **content: Any) -> None:
    """Write one message.

    Args:
        stream: Text stream of the receiver.
        kind: Kind of the message.
        **content: Further entries, which JSON can represent.
    """
    stream.write(json.dumps({"kind": kind, **content}) + "\n")
    stream.flush()


def parse(line: str) -> dict[str, Any] | None:
    """Return the message of a line; None for an invalid line (cut off by a kill)."""
    try:
        content = json.loads(line)
    except ValueError:
        return None
    return content if isinstance(content, dict) and "kind" in content else None
