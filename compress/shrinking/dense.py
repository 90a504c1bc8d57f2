"""The model's own files: what goals are shares of, and what smaller nets are held against."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from compress.core.atomic_files import write_json
from compress.core.errors import RunFailed
from compress.exporting.side_by_side import litert_files
from compress.measure.latency import Entry, time_entries
from compress.run.records import Record, read_record
from compress.shrinking.judging import judged

if TYPE_CHECKING:
    from compress.pipeline.opening import Opened
    from compress.shrinking.folder import ShrinkFolder

FIRST = "float32"
"""What goals that are shares are shares of."""
PRECISION, SECONDS = 0.01, 20.0


@dataclass(frozen=True)
class DenseFiles(Record):
    """The model's own files and what they cost.

    Attributes:
        file: The float32 file, in the folder.
        times: Milliseconds by format, timed against each other.
        sizes: Bytes by format.
        beside: For each format, by how many bytes a file that is shipped is larger than one that
            is made for timing: names of inputs and outputs.
        val: Validation quality by format, then by name.
        refused: For each format that could not be made the reason.
    """

    file: str
    times: dict[str, float]
    sizes: dict[str, int]
    beside: dict[str, int]
    val: dict[str, dict[str, float]]
    refused: dict[str, str]

    @property
    def ms(self) -> float:
        """The time of the float32 file."""
        return self.times[FIRST]


def dense_files(opened: Opened, folder: ShrinkFolder) -> DenseFiles:
    """Exports, judges and times the model as it is; what is in the folder is read.

    Raises:
        RunFailed: There is no float32 file.
    """
    if folder.dense.exists():
        return read_record(folder.dense, DenseFiles)
    work, name, model = opened.work, opened.given.name, opened.dense.model
    plan = work.plan
    formats = tuple(dict.fromkeys([FIRST, *plan.export.formats]))
    options = replace(plan.export, formats=formats)
    found = judged(model, name, work, folder, options)
    if FIRST not in found.files:
        raise RunFailed(f"No float32 file could be made of '{name}': {found.refused[FIRST]}")
    beside = {}
    for kind in found.files:
        with tempfile.TemporaryDirectory() as place:
            (file,) = litert_files([model], Path(place), kind)
            if isinstance(file, Path):
                beside[kind] = found.files[kind].stat().st_size - file.stat().st_size
    work.progress(f"timing {name}", 0.0)
    threads = plan.latency.threads
    timed = time_entries(
        {kind: Entry(path, "litert", threads) for kind, path in found.files.items()},
        precision=PRECISION,
        budget=min(SECONDS, plan.latency.budget),
        seed=plan.seed,
    )
    ms = timed[FIRST].median_ms
    record = DenseFiles(
        folder.relative(found.files[FIRST]),
        {kind: ms / latency.ratio for kind, latency in timed.items()},
        {kind: path.stat().st_size for kind, path in found.files.items()},
        beside,
        found.val,
        found.refused,
    )
    write_json(folder.dense, record.to_json())
    return record
