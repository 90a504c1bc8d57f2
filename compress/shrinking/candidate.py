"""Record of a candidate (a smaller model for a goal), and the folder of such candidates."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.atomic_files import write_json
from compress.core.errors import RunFailed
from compress.exporting import litert, onnx
from compress.exporting.batch_conversion import EXAMPLES, write_latency_files
from compress.exporting.conversions import ConversionFailed
from compress.exporting.tracing import TracedModel
from compress.measure.footprint import try_measure_arena
from compress.measure.latency import Entry, time_entries
from compress.plan.output import ONNX_FORMATS
from compress.run.directory import RunFolder
from compress.run.records import Record, find_too_low, find_unknown_value, read_record
from compress.shrinking.file_evaluation import export_and_validate

if TYPE_CHECKING:
    import keras

    from compress.measure import Analysis
    from compress.shrinking.compression_job import CompressionJob

REPAIRED, TRAINED = "repaired", "trained"
STAGES = (REPAIRED, TRAINED)
PRECISION, SECONDS = 0.01, 20.0
"""Relative half-width at which timing the original's files stops, and its time limit."""


@dataclass(frozen=True)
class Candidate(Record):
    """Candidate: a smaller model, with its costs and its metrics at each stage.

    Attributes:
        name: Name for files: "l0_5-int8".
        format: Format whose file meets the goals.
        formats: Export formats.
        goals: Limit of each cost, by name: milliseconds, bytes, counts.
        costs: Costs, counted or measured on its file in this format.
        macs, params: MACs and parameters.
        share: MACs as a share of the original's.
        whole: Whether nothing was removed: the format alone meets the goals.
        dropped: Indices of removed blocks.
        rounds: Number of measured files during the search for its channel counts.
        stage: "repaired" (reconstructed) or "trained".
        repaired: Validation metrics of its files before training, by format, then by name.
        val: Validation metrics of its files at its last stage.
        checks: Agreement of its files with the Keras model, see
            `compress.shrinking.file_evaluation`.
        epochs, best_epoch: Number of epochs of its fine-tuning, and the best one, which was kept.
        seconds: Total time of its stages so far, in seconds.
        notes: Notes.
        channels: Channel report as JSON; None if nothing was removed.
        layer_ms: Milliseconds by layer "before" and "after", from the latency model; {}: unknown.
        device_ms: Milliseconds of its files by format, estimated from the latency table of a
            remote device; {}: latencies are measured on this machine.
        variation: Changes to the default recipe, as JSON; {}: none.
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

    def find_violation(self) -> str:
        """Return a violated rule, or ""; see `Record.find_violation`."""
        return find_unknown_value("stage", self.stage, STAGES) or find_too_low(
            self, 0, "macs", "params", "share", "rounds", "epochs", "seconds"
        )

    def get_metric(self, format: str, name: str) -> float:
        """Return a validation metric of its file of a format, at its last stage.

        Args:
            format: Format of the file.
            name: Name of the metric.
        """
        return self.val[format][name]

    def get_best_repaired(self, name: str) -> float:
        """Return the best value of a validation metric among its files before training.

        Args:
            name: Name of the metric.
        """
        return max(values[name] for values in self.repaired.values())

    def get_best(self, name: str) -> float:
        """Return the best value of a validation metric among its files, at its last stage.

        Args:
            name: Name of the metric.
        """
        return max(values[name] for values in self.val.values())


class ShrinkFolder(RunFolder):
    """Folder of one `shrink`, with the paths of its files.

    Args:
        path: The folder; it need not exist yet.

    Attributes:
        candidate_records: Folder of the record of each candidate, NAME.json.
        original_record: Record of the original model's files and costs.
        spent: File with the seconds spent, if there is a time budget.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.candidate_records = self.path / "nets"
        self.original_record = self.path / "dense.json"
        self.spent = self.path / "spent.json"

    @property
    def _folders(self) -> tuple[Path, ...]:
        return (*super()._folders, self.candidate_records)

    def get_record_path(self, name: str) -> Path:
        """Return the path of a candidate's record.

        Args:
            name: Name of the candidate.
        """
        return self.candidate_records / f"{name}.json"

    def find_candidate(self, name: str) -> Candidate | None:
        """Return a candidate, or None if it does not exist.

        Args:
            name: Name of the candidate.
        """
        path = self.get_record_path(name)
        return read_record(path, Candidate) if path.exists() else None

    def load_candidate(self, name: str) -> Candidate:
        """Return an existing candidate.

        Args:
            name: Name of the candidate.
        """
        return read_record(self.get_record_path(name), Candidate)


@dataclass(frozen=True)
class OriginalFiles(Record):
    """Files of the original model, with their costs.

    Attributes:
        first: The float format, to which relative goals refer.
        file: File of this format, relative to the folder.
        times: Milliseconds by format, timed against each other.
        sizes: Bytes by format.
        memory: Bytes of LiteRT's arena by format, if known.
        beside: Difference in bytes between a deployed file and a file for timing, which has fewer
            tensor names, by format; only if size is a goal.
        val: Validation metrics by format, then by name.
        refused: Reason for each format that could not be exported.
        checks: Agreement of the files with the Keras model, see
            `compress.shrinking.file_evaluation`.
        weights: Number of weight tensors of the model; 0: unknown, in older records.
        notes: Notes on the export, and on formats that could not be exported.
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

    def estimate_overhead(self, format: str, weights: int) -> float:
        """Return the size difference in bytes between a candidate's deployed and timed file.

        The difference is proportional to the number of tensors, whose names it consists of.

        Args:
            format: Format of the file.
            weights: Number of weight tensors of the candidate.
        """
        share = weights / self.weights if self.weights else 1.0
        return share * self.beside.get(format, 0)

    def collect_costs(self, format: str, counted: Analysis) -> dict[str, float]:
        """Return the costs of the file of a format: milliseconds, bytes, counts.

        Args:
            format: An exported format.
            counted: MACs and parameters of the model.
        """
        costs = {
            "latency": self.times[format],
            "size": float(self.sizes[format]),
            "macs": float(counted.macs),
            "params": float(counted.params),
        }
        if format in self.memory:
            costs["peak_memory"] = float(self.memory[format])
        return costs

    @property
    def ms(self) -> float:
        """Latency of the float file, in milliseconds."""
        return self.times[self.first]


def measure_original(job: CompressionJob, folder: ShrinkFolder) -> OriginalFiles:
    """Export, evaluate and time the original model; results in the folder are reused.

    Args:
        job: The model.
        folder: Folder of the files.

    Raises:
        RunFailed: There is no float file.
    """
    if folder.original_record.exists():
        return read_record(folder.original_record, OriginalFiles)
    context, name, model = job.context, job.name, job.model
    plan, first = job.plan, job.plan.float_format
    evaluated = export_and_validate(
        model, name, context, folder, tuple(dict.fromkeys([first, *plan.export.candidate_formats]))
    )
    files = {file_record.format: file_record.path for file_record in evaluated.files}
    if first not in files:
        raise RunFailed(f"No {first} file could be made of '{name}': {evaluated.refused[first]}")
    beside = {}
    for kind in files if plan.goal.size is not None else ():
        with tempfile.TemporaryDirectory() as temporary:
            (file,) = write_latency_files([model], Path(temporary), kind)
            if isinstance(file, Path):
                beside[kind] = files[kind].stat().st_size - file.stat().st_size
    context.on_progress(f"timing {name}", 0.0)
    threads = plan.latency.threads
    timed = time_entries(
        {kind: Entry(path, plan.runtime, threads) for kind, path in files.items()},
        precision=PRECISION,
        budget=min(SECONDS, plan.latency.budget),
        seed=plan.seed,
        on_progress=partial(context.on_progress, f"timing {name}"),
    )
    context.on_progress(f"timing {name}", 1.0)
    ms = timed[first].median_ms
    record = OriginalFiles(
        first,
        folder.to_relative(files[first]),
        {kind: ms / latency.ratio for kind, latency in timed.items()},
        {kind: path.stat().st_size for kind, path in files.items()},
        {
            kind: size
            for kind, path in files.items()
            if (size := try_measure_arena(path)) is not None
        },
        beside,
        evaluated.val,
        evaluated.refused,
        evaluated.checks,
        len(model.weights),
        (
            *(f"{name}: {note}" for file_record in evaluated.files for note in file_record.notes),
            *(
                f"{name}.{kind} was not made: {reason}"
                for kind, reason in evaluated.refused.items()
            ),
        ),
    )
    write_json(folder.original_record, record.to_json())
    return record


def write_candidate_file(model: keras.Model, format: str, folder: Path, *, shipped: bool) -> Path:
    """Write the file of a candidate.

    Args:
        model: Model of known sizes; its weights do not matter.
        format: Format of the file; int8 is calibrated on random inputs.
        folder: Folder of the file.
        shipped: Whether to write the file as deployed, with the same size; else as timed, with
            fewer tensor names.

    Raises:
        RunFailed: The model could not be converted.
    """
    if not shipped:
        (file,) = write_latency_files([model], folder, format)
        if isinstance(file, str):
            raise RunFailed(f"A pruned model could not be converted to {format}: {file}")
        return file
    rng = np.random.default_rng(0)
    inputs = [
        rng.uniform(size=(EXAMPLES, *tensor.shape[1:])).astype(tensor.dtype)
        for tensor in model.inputs
    ]
    try:
        with TracedModel(model) as traced:
            if format in ONNX_FORMATS:
                kind = "int8" if format == "onnx_int8" else "float32"
                return onnx.write_for_runtime(traced, kind, folder / "shipped", inputs)
            return litert.write_for_runtime(traced, format, folder / "shipped", inputs)
    except (ConversionFailed, RunFailed) as error:
        reason = error.reason if isinstance(error, ConversionFailed) else str(error)
        message = f"A pruned model could not be converted to {format}: {reason}"
        raise RunFailed(message) from None
