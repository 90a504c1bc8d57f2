"""What lies in a folder of files that are to be timed elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compress.run.records import Record, load_record, too_low

MANIFEST = "manifest.json"
FILES, RESULTS = "files", "results"
"""Folders: of what is timed, and of what was."""
EMPTY = "empty.tflite"
"""In each format the file of one operation on one number."""


@dataclass(frozen=True)
class CallFile(Record):
    """A call alone.

    Attributes:
        key: Of the call, as JSON.
        ops: MACs and elementwise operations.
        weight_bytes: Of its weights, as float32.
        file: Below files/; empty: there is none.
        reason: Why there is none.
    """

    key: dict[str, Any]
    ops: int
    weight_bytes: int
    file: str
    reason: str = ""


@dataclass(frozen=True)
class Manifest(Record):
    """Files of calls and nets.

    Attributes:
        model: Name of the model.
        threads: CPU threads that they are to be timed with.
        round_to, min_kept, input_shape: See `DeviceTimes`.
        kept: Removable units kept in each group by the whole nets.
        nets: For each format the files of whole nets, below files/.
        calls: For each format the calls.
    """

    model: str
    threads: int
    round_to: int
    min_kept: float
    kept: tuple[tuple[int, ...], ...]
    nets: dict[str, tuple[str, ...]]
    calls: dict[str, Any] = field(metadata={"shape": dict[str, list[dict[str, Any]]]})
    input_shape: Any = None

    def flaw(self) -> str:
        """See `Record.flaw`."""
        return too_low(self, 1, "threads")

    def calls_of(self, format: str) -> list[CallFile]:
        """Returns the calls of a format."""
        return [CallFile.from_json(row) for row in self.calls[format]]

    def files(self) -> list[str]:
        """Returns all files that are to be timed, below files/."""
        found = []
        for format, nets in self.nets.items():
            found += [f"{format}/{EMPTY}", *nets]
            found += [call.file for call in self.calls_of(format) if call.file]
        return found


def read_manifest(folder: Path) -> Manifest:
    """Reads what `export_latency_table` wrote.

    Raises:
        InputError: The folder holds something else.
    """
    rule = "The folder must be one that paretune latency-table export wrote"
    return load_record(folder / MANIFEST, Manifest, rule)
