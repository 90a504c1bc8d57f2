"""The record of one smaller net on the way to a goal, and the folder of such nets."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.atomic_files import write_json
from compress.core.errors import RunFailed
from compress.exporting import litert, onnx
from compress.exporting.conversions import ConversionFailed
from compress.exporting.side_by_side import EXAMPLES, litert_files, onnx_files
from compress.exporting.traced import Traced
from compress.measure.footprint import known_arena
from compress.measure.latency import Entry, time_entries
from compress.measure.latency_table.measuring import Convert
from compress.plan.output import ONNX_FORMATS
from compress.run.directory import RunFolder
from compress.run.records import Record, read_record, too_low, unknown_value
from compress.shrinking.files import judged

if TYPE_CHECKING:
    import keras

    from compress.measure import Analysis
    from compress.shrinking.case import Case

REPAIRED, TRAINED = "repaired", "trained"
STAGES = (REPAIRED, TRAINED)
PRECISION, SECONDS = 0.01, 20.0


@dataclass(frozen=True)
class Net(Record):
    """A smaller net: what it keeps, what it costs, how good it is at each stage.

    Attributes:
        name: In names of files: "l0_5-int8".
        format: Of the file that its widths were chosen for.
        formats: Of the files that are made of it.
        goals: What it was to come to, by cost: milliseconds, bytes, counts.
        costs: What it came to: counted, and measured on its file in that format.
        macs, params: Counted.
        share: Of the model's own MACs.
        whole: Whether nothing left: the format alone meets the goals.
        dropped: Places of blocks that left.
        rounds: How often the choice was put right by what was measured.
        stage: "repaired" or "trained".
        repaired: Validation quality of its files before training, by format, then by name.
        val: The same at its last stage.
        checks: How its files agree with the Keras model, see `compress.shrinking.files`.
        epochs, best_epoch: Of its fine-tuning, and which of them was kept.
        seconds: That its stages took so far.
        notes: What there is to know about it.
        device_ms: Milliseconds of its files by format on the device of a table of times,
            estimated from it; {}: times are measured here.
        variation: How it departs from the fixed recipe, as JSON; {}: it does not.
        channels: The channel report, as JSON; None where nothing left.
        layer_ms: Milliseconds by layer "before" and "after", from the table of times; {}: there is
            none.
    """

    name: str
    format: str
    formats: tuple[str, ...]
    goals: dict[str, float]
    costs: dict[str, float]
    macs: int
    params: int
    share: float
    whole: bool
    dropped: tuple[int, ...]
    rounds: int
    stage: str
    repaired: dict[str, dict[str, float]] = field(default_factory=dict)
    val: dict[str, dict[str, float]] = field(default_factory=dict)
    checks: dict[str, dict[str, float]] = field(default_factory=dict)
    epochs: int = 0
    best_epoch: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    channels: dict[str, Any] | None = None
    layer_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    device_ms: dict[str, float] = field(default_factory=dict)
    variation: dict[str, Any] = field(default_factory=dict)

    def flaw(self) -> str:
        """See `Record.flaw`."""
        return unknown_value("stage", self.stage, STAGES) or too_low(
            self, 0, "macs", "params", "share", "rounds", "epochs", "seconds"
        )

    def quality(self, format: str, name: str) -> float:
        """Return the validation quality of its file of a format, at its last stage."""
        return self.val[format][name]

    def repaired_best(self, name: str) -> float:
        """Return the best validation quality of its files before training."""
        return max(values[name] for values in self.repaired.values())

    def best(self, name: str) -> float:
        """Return the best validation quality of its files, at its last stage."""
        return max(values[name] for values in self.val.values())


class ShrinkFolder(RunFolder):
    """The files of one `shrink`, by role.

    Args:
        path: The folder; it need not exist yet.

    Attributes:
        nets: A record for each smaller net, NAME.json.
        dense: What the model's own files cost.
        spent: Seconds that were spent, where a budget bounds them.
        ship: The file to use, with what it takes to use it.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.nets = self.path / "nets"
        self.dense = self.path / "dense.json"
        self.spent = self.path / "spent.json"
        self.ship = self.path / "ship"

    @property
    def _places(self) -> tuple[Path, ...]:
        return (*super()._places, self.nets)

    def net_file(self, name: str) -> Path:
        """Where a net's record stands."""
        return self.nets / f"{name}.json"

    def read_net(self, name: str) -> Net | None:
        """Return a net that was made; None: it was not."""
        path = self.net_file(name)
        return read_record(path, Net) if path.exists() else None

    def known_net(self, name: str) -> Net:
        """Return a net that is there."""
        return read_record(self.net_file(name), Net)


@dataclass(frozen=True)
class DenseFiles(Record):
    """The model's own files and what they cost.

    Attributes:
        first: The format without rounding: what goals that are shares are shares of.
        file: Its file, in the folder.
        times: Milliseconds by format, timed against each other.
        sizes: Bytes by format.
        memory: Bytes of LiteRT's arena by format, where they can be read off.
        beside: For each format, by how many bytes a file that is shipped is larger than one that
            is made for timing (names of tensors), where a size is the goal.
        val: Validation quality by format, then by name.
        refused: For each format that could not be made the reason.
        checks: How the files agree with the Keras model, see `compress.shrinking.files`.
        weights: Tensors of weights that the model has; 0: older records do not tell.
        notes: How files were made that were not made as usual, and which were not made and why.
    """

    first: str
    file: str
    times: dict[str, float]
    sizes: dict[str, int]
    memory: dict[str, int]
    beside: dict[str, int]
    val: dict[str, dict[str, float]]
    refused: dict[str, str]
    checks: dict[str, dict[str, float]] = field(default_factory=dict)
    weights: int = 0
    notes: tuple[str, ...] = ()

    def beside_of(self, format: str, weights: int) -> float:
        """Return by how many bytes a net's shipped file is larger than its file for timing.

        Names are as many as tensors.

        Args:
            format: Of the file.
            weights: Tensors of weights that the net has.
        """
        share = weights / self.weights if self.weights else 1.0
        return share * self.beside.get(format, 0)

    def costs(self, format: str, counted: Analysis) -> dict[str, float]:
        """Return what the file of a format costs: milliseconds, bytes, counts.

        Args:
            format: That was made.
            counted: The model's MACs and parameters.
        """
        found = {
            "latency": self.times[format],
            "size": float(self.sizes[format]),
            "macs": float(counted.macs),
            "params": float(counted.params),
        }
        if format in self.memory:
            found["peak_memory"] = float(self.memory[format])
        return found

    @property
    def ms(self) -> float:
        """The time of the file without rounding."""
        return self.times[self.first]


def dense_files(case: Case, folder: ShrinkFolder) -> DenseFiles:
    """Export, judges and times the model as it is; what is in the folder is read.

    Raises:
        RunFailed: There is no file without rounding.
    """
    if folder.dense.exists():
        return read_record(folder.dense, DenseFiles)
    work, name, model = case.work, case.name, case.model
    plan, first = case.plan, case.plan.first
    found = judged(model, name, work, folder, tuple(dict.fromkeys([first, *plan.export.steering])))
    files = {made.format: made.path for made in found.files}
    if first not in files:
        raise RunFailed(f"No {first} file could be made of '{name}': {found.refused[first]}")
    beside = {}
    for kind in files if plan.goal.size is not None else ():
        with tempfile.TemporaryDirectory() as place:
            (file,) = convert_for(kind)([model], Path(place), kind)
            if isinstance(file, Path):
                beside[kind] = files[kind].stat().st_size - file.stat().st_size
    work.progress(f"timing {name}", 0.0)
    threads = plan.latency.threads
    timed = time_entries(
        {kind: Entry(path, plan.runtime, threads) for kind, path in files.items()},
        precision=PRECISION,
        budget=min(SECONDS, plan.latency.budget),
        seed=plan.seed,
    )
    ms = timed[first].median_ms
    record = DenseFiles(
        first,
        folder.relative(files[first]),
        {kind: ms / latency.ratio for kind, latency in timed.items()},
        {kind: path.stat().st_size for kind, path in files.items()},
        {kind: size for kind, path in files.items() if (size := known_arena(path)) is not None},
        beside,
        found.val,
        found.refused,
        found.checks,
        len(model.weights),
        (
            *(f"{name}: {note}" for made in found.files for note in made.notes),
            *(f"{name}.{kind} was not made: {why}" for kind, why in found.refused.items()),
        ),
    )
    write_json(folder.dense, record.to_json())
    return record


def convert_for(format: str) -> Convert:
    """Return what writes files of models for timing, in a format; see `Convert`."""
    return onnx_files if format in ONNX_FORMATS else litert_files


def file_for(model: keras.Model, format: str, folder: Path, *, shipped: bool) -> Path:
    """Write the file of a net.

    Args:
        model: Of any weights; its sizes are known.
        format: Of the file; whole numbers are calibrated on random inputs.
        folder: Where it goes.
        shipped: As it is shipped, byte for byte as large; else as it is timed, with fewer names.

    Raises:
        RunFailed: The net could not be converted.
    """
    if not shipped:
        (file,) = convert_for(format)([model], folder, format)
        if isinstance(file, str):
            raise RunFailed(f"A thinner net could not be converted to {format}: {file}")
        return file
    rng = np.random.default_rng(0)
    inputs = [
        rng.uniform(size=(EXAMPLES, *tensor.shape[1:])).astype(tensor.dtype)
        for tensor in model.inputs
    ]
    try:
        with Traced(model) as traced:
            if format in ONNX_FORMATS:
                kind = "int8" if format == "onnx_int8" else "float32"
                return onnx.file_for(traced, kind, folder / "shipped", inputs)
            return litert.file_for(traced, format, folder / "shipped", inputs)
    except ConversionFailed as error:
        reason = error.reason
    except RunFailed as error:
        reason = str(error)
    raise RunFailed(f"A thinner net could not be converted to {format}: {reason}")
