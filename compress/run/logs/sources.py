"""What a compression leaves: epochs of fine-tuning as they come, files at the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from compress.core.atomic_files import read_json
from compress.run.directory import RunFolder
from compress.run.epochs import EPOCHS
from compress.run.logs._base import Event, Point

KEYS = {"model", "loss", "val_loss", "val", "when"}
COSTS = ("macs", "params", "size_bytes", "gzip_bytes")


class EpochSource:
    """Epochs of fine-tuning, from the file that those who train add lines to.

    Args:
        folder: The run's.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.path / EPOCHS
        self._at = 0
        self._steps: dict[str, int] = {}

    def new(self, *, last: bool) -> Iterator[Event]:
        """See `Source.new`."""
        if not self._path.exists():
            return
        with open(self._path, "rb") as stream:
            stream.seek(self._at)
            for line in stream:
                if not line.endswith(b"\n"):
                    return  # it is being written
                key, self._at = f"epoch {self._at}", self._at + len(line)
                content = _read(line)
                if content is None:
                    continue
                item = str(content["model"])
                # phases of one model stand behind each other
                self._steps[item] = step = self._steps.get(item, 0) + 1
                values = {
                    "training/loss": content["loss"],
                    "validation/loss": content["val_loss"],
                    **{f"validation/{name}": value for name, value in content["val"].items()},
                }
                yield Event(key, item, (Point(step, values, content["when"]),))


def _read(line: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(line)
    except ValueError:  # torn by a kill
        return None
    return content if isinstance(content, dict) and set(content) >= KEYS else None


class FileSource:
    """Exported files, when all of them were judged and timed.

    Args:
        folder: The run's.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def new(self, *, last: bool) -> Iterator[Event]:
        """See `Source.new`."""
        if not last:
            return
        path = self._folder.latency_of(self._folder.timed_by())
        timed = read_json(path) if path.exists() else {}
        for record in self._folder.read_compressed():
            for item in record.files():
                values = {f"test/{name}": value for name, value in item.test.items()}
                values |= {f"validation/{name}": value for name, value in item.val.items()}
                values |= {f"cost/{name}": float(getattr(item, name)) for name in COSTS}
                ms = timed.get(item.id, {}) if isinstance(timed, dict) else {}
                if isinstance(ms, dict) and "median_ms" in ms:
                    values["cost/latency_ms"] = float(ms["median_ms"])
                params = {"model": item.model, "variant": item.variant, "format": item.format}
                yield Event(f"file {item.id}", item.id, (Point(0, values),), params, "file")
