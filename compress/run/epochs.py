"""The epochs of fine-tuning, a line each, as they end: for logs that follow a run."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

EPOCHS = "epochs.jsonl"
"""The file's name in a run's folder."""


def note_epoch(folder: Path, model: str, phase: str, record: Mapping[str, Any]) -> None:
    """Adds an epoch; several processes may at once, as a line is written in one piece.

    Args:
        folder: The run's.
        model: That is trained.
        phase: What is done: "fine-tuning".
        record: "epoch", "loss", "val_loss", "val", "seconds".
    """
    line = {"model": model, "phase": phase, **record, "when": time.time()}
    with open(folder / EPOCHS, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
