"""Export for timing on another device: files of calls and models, scripts, manifest."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from compress.core.arguments import check_arguments
from compress.core.atomic_files import write_json, write_text
from compress.core.errors import InputError, RunFailed
from compress.core.lazy_modules import keras
from compress.core.quantities import MAX_THREADS, MAX_THREADS_REASON, parse_integer
from compress.core.summary import OnProgress, ignore_progress, render_template
from compress.exporting.batch_conversion import write_latency_files
from compress.measure.latency_table.measurement import CallItem, build_empty_model, iterate_batches
from compress.model.io import as_model
from compress.plan.fields import require, require_choice
from compress.plan.shrink import TIMED_FORMATS, ShrinkChannels
from compress.prune.channels.analysis import analyze_coupling
from compress.prune.channels.coupling.blocks import list_blocks
from compress.prune.channels.selection.allowed_counts import (
    compute_allowed_counts,
    list_rounding_steps,
)
from compress.prune.channels.selection.latency_measurement import (
    MODEL_COUNT,
    TimedCalls,
    build_pruned_models,
    sample_kept_counts,
)
from compress.run.records import Record, find_too_low, load_record

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("measure.sh", "measure.py")
MANIFEST = "manifest.json"
FILES, RESULTS = "files", "results"
"""Folders of the files to time and of the results."""
EMPTY_FILE = "empty.tflite"
"""File of one operation on one number, in each format."""


@check_arguments()
def export_latency_table(
    model: keras.Model | str | Path,
    folder: str | Path,
    *,
    formats: Sequence[str] = ("int8",),
    threads: int = 1,
    round_to: int = ShrinkChannels.round_to,
    min_kept: float = ShrinkChannels.min_kept,
    input_shape: Any = None,
    seed: int = 0,
    on_progress: OnProgress = ignore_progress,
) -> Path:
    """Write the files and scripts that measure the latency of any channel counts on a device.

    The folder has one file per call at some channel counts, one empty file, some pruned models as
    whole files, and two scripts that time them: `measure.sh` with LiteRT's `benchmark_model` (also
    over adb), and `measure.py` with NumPy and LiteRT's Python package. `import_latency_table` reads
    their results.

    Args:
        model: A Keras model, or the path of its file.
        folder: A new or empty folder.
        formats: Formats of the files: "float16", "dynamic", "int8". float32 is always included.
        threads: Number of CPU threads in the scripts.
        round_to, min_kept: Step and least share of kept channels, as in `ChannelOptions`. `shrink`
            must use the same values.
        input_shape: Shape of one example, if the model leaves sizes open.
        seed: Seed of the channel counts of the whole models.
        on_progress: Called with (current step, fraction that is done).

    Returns:
        The folder.

    Raises:
        InputError: The folder is not empty, an argument is out of range, or the model has no
            channels that can be removed.
        RunFailed: A whole model could not be converted.

    Example:
        >>> phone = export_latency_table(model, folder / "phone", formats=["float32"], round_to=4)
        >>> sorted(path.name for path in phone.iterdir())
        ['files', 'manifest.json', 'measure.py', 'measure.sh', 'results']
    """
    target_folder = Path(folder)
    require(
        not target_folder.exists() or (target_folder.is_dir() and not any(target_folder.iterdir())),
        "folder", "be new or empty", f"'{target_folder}'",
    )  # fmt: skip
    # float32 is always needed: latency targets given as shares refer to it
    all_formats = tuple(dict.fromkeys((TIMED_FORMATS[0], *formats)))
    for name in all_formats:
        require_choice("format", name, TIMED_FORMATS)
    parse_integer(threads, "threads", least=1, most=MAX_THREADS, why=MAX_THREADS_REASON)
    options = ShrinkChannels(round_to=round_to, min_kept=min_kept)
    source_model = as_model(model)
    coupling = analyze_coupling(source_model, input_shape)
    if not coupling.groups:
        raise InputError(
            f"Model '{source_model.name}' must have channels that can be removed: a latency table "
            "times layers with fewer channels. Received: none. Give another model."
        )
    allowed = compute_allowed_counts(coupling, options, list_rounding_steps(options)[-1])
    calls = TimedCalls(coupling, allowed, list_blocks(coupling)).list_model_makers()
    kept = sample_kept_counts(allowed, MODEL_COUNT, seed)
    target_folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target_folder.parent, prefix=".calls-") as temporary:
        work_folder = Path(temporary) / "made"
        (work_folder / RESULTS).mkdir(parents=True)
        folders = {format: work_folder / FILES / format for format in all_formats}
        for output_folder in folders.values():
            output_folder.mkdir(parents=True)
        on_progress("writing whole nets", 0.0)
        small_models = [build_empty_model(), *build_pruned_models(coupling, kept)]
        model_files = {
            format: _write_models(small_models, output_folder, source_model.name)
            for format, output_folder in folders.items()
        }
        on_progress(f"writing {len(calls)} calls", 0.2)
        rows: dict[str, list[dict[str, Any]]] = {format: [] for format in all_formats}
        for batch in iterate_batches(calls):
            for format, output_folder in folders.items():
                rows[format] += _write_calls(batch, output_folder, len(rows[format]))
            done = len(rows[all_formats[0]]) / len(calls)
            on_progress(f"writing {len(calls)} calls", 0.2 + 0.8 * done)
        for name in SCRIPTS:
            script = work_folder / name
            write_text(script, render_template(TEMPLATES, f"{name}.jinja", threads=threads))
            script.chmod(0o755)
        write_json(
            work_folder / MANIFEST,
            Manifest(
                source_model.name,
                threads,
                round_to,
                min_kept,
                tuple(tuple(map(int, row)) for row in kept),
                model_files,
                rows,
                input_shape,
            ).to_json(),
        )
        if target_folder.exists():
            target_folder.rmdir()
        work_folder.replace(target_folder)
    return target_folder


@dataclass(frozen=True)
class Manifest(Record):
    """Files of calls and models.

    Attributes:
        model: Name of the model.
        threads: Number of CPU threads for timing.
        round_to, min_kept, input_shape: See `DeviceTimes`.
        kept: Number of kept removable units in each group, for each whole model.
        nets: Format -> files of the whole models, relative to files/.
        calls: Format -> calls, each a `CallFile` as JSON.
    """

    model: str
    threads: int
    round_to: int
    min_kept: float
    kept: tuple[tuple[int, ...], ...]
    nets: dict[str, tuple[str, ...]]
    calls: dict[str, Any] = field(metadata={"shape": dict[str, list[dict[str, Any]]]})
    input_shape: Any = None

    def find_violation(self) -> str:
        """See `Record.find_violation`."""
        return find_too_low(self, 1, "threads")

    def read_calls(self, format: str) -> list[CallFile]:
        """Return the calls of a format."""
        return [CallFile.from_json(row) for row in self.calls[format]]

    def list_files(self) -> list[str]:
        """Return all files to time, relative to files/."""
        paths = []
        for format, nets in self.nets.items():
            paths += [f"{format}/{EMPTY_FILE}", *nets]
            paths += [call.file for call in self.read_calls(format) if call.file]
        return paths


@dataclass(frozen=True)
class CallFile(Record):
    """A single call and its file.

    Attributes:
        key: Key of the call, as JSON.
        ops: MACs and elementwise operations.
        weight_bytes: Bytes of its weights as float32.
        file: Path relative to files/; empty if there is no file.
        reason: Why there is no file.
    """

    key: dict[str, Any]
    ops: int
    weight_bytes: int
    file: str
    reason: str = ""


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a folder that `export_latency_table` wrote.

    Args:
        folder: The folder.

    Raises:
        InputError: The folder has no valid manifest.
    """
    return load_record(
        folder / MANIFEST,
        Manifest,
        "The folder must be one that paretune latency-table export wrote",
    )


def _write_calls(batch: Sequence[CallItem], folder: Path, first: int) -> list[dict[str, Any]]:
    """Write a file for each call, numbered from `first`, and return the manifest rows."""
    rows = []
    with tempfile.TemporaryDirectory(dir=folder) as hidden:
        models = [item.model for item in batch if item.model is not None]
        files = iter(write_latency_files(models, Path(hidden), folder.name))
        for index, item in enumerate(batch, first):
            file_or_reason = item.reason if item.model is None else next(files)
            row = CallFile(item.key.to_json(), item.ops, item.weight_bytes, "")
            if isinstance(file_or_reason, str):
                row = replace(row, reason=file_or_reason)
            else:
                row = replace(row, file=f"{folder.name}/call-{index:04}.tflite")
                file_or_reason.replace(folder.parent / row.file)
            rows.append(row.to_json())
    return rows


def _write_models(models: Sequence[keras.Model], folder: Path, name: str) -> tuple[str, ...]:
    """Write the empty file and the whole models, and return the files of the latter.

    Raises:
        RunFailed: A model could not be converted.
    """
    names = [EMPTY_FILE, *(f"net-{index}.tflite" for index in range(len(models) - 1))]
    with tempfile.TemporaryDirectory(dir=folder) as hidden:
        for file_name, file_or_reason in zip(
            names, write_latency_files(models, Path(hidden), folder.name), strict=True
        ):
            if isinstance(file_or_reason, str):
                requirement = f"Model '{name}' must become a {folder.name} file to be timed"
                raise RunFailed(f"{requirement}: {file_or_reason}")
            file_or_reason.replace(folder / file_name)
    return tuple(f"{folder.name}/{file_name}" for file_name in names[1:])
