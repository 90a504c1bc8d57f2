"""Ship folder: the file to deploy, code that feeds it, and a model card."""

from __future__ import annotations

import filecmp
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress._version import __version__
from compress.core.arrays import take_examples
from compress.core.atomic_files import write_text
from compress.core.statistics import compute_wilson_interval
from compress.core.summary import render_template
from compress.data import Dataset, Preprocessing
from compress.data.tasks import has_classes
from compress.measure import formatting
from compress.measure.footprint import try_measure_resident
from compress.measure.runtimes import prepare_session
from compress.model.io import load_model, save_model
from compress.model.ports import flatten_inputs, list_input_names
from compress.run.compressed_model import Artifact
from compress.shrinking.file_choice import Measurements

if TYPE_CHECKING:
    import keras

    from compress.report.report_data import Report
    from compress.run.directory import RunFolder

TEMPLATES = Path(__file__).parent / "templates"
OTHER = "other"
IMAGES, ROWS = 3, 1
"""Number of axes of an image example, and of a row of a table."""
KINDS = {
    ("multiclass", IMAGES): "image-classification",
    ("binary", IMAGES): "image-classification",
    ("multilabel", IMAGES): "image-classification",
    ("segmentation", IMAGES): "image-segmentation",
    ("masks", IMAGES): "image-segmentation",
    ("multiclass", ROWS): "tabular-classification",
    ("binary", ROWS): "tabular-classification",
    ("regression", ROWS): "tabular-regression",
    ("tagging", ROWS): "token-classification",
}
"""Task names of the model hub, by our task and the number of axes of an example."""
FEEDING = {
    ".tflite": {"script": "feed.py.jinja", "library": "litert", "package": "ai-edge-litert"},
    ".onnx": {"script": "feed_onnx.py.jinja", "library": "onnx", "package": "onnxruntime"},
}
"""By file suffix: template of feed.py, name of the library on the model hub, and the package that
feed.py imports beside NumPy."""


def ship_selected_file(
    report: Report,
    folder: RunFolder,
    data: Dataset,
    threads: int,
    load_original: Callable[[str], keras.Model],
) -> None:
    """Write ship/ for the file that a report selects; without a selected file nothing is written.

    A folder that holds the same file already is kept.

    Args:
        report: Report of the run.
        folder: Folder of the run.
        data: Data of the run.
        threads: CPU threads of the latency measurement.
        load_original: Returns the Keras model of an original by its name.
    """
    from compress.report.file_selection import select_files
    from compress.report.text_report import describe_file_effect, describe_training

    selection = select_files(report)
    if selection.to_ship is None:
        return
    artifact = selection.to_ship.row.artifact
    rows = {row.artifact.id: row for row in report.rows}
    source, shipped = folder.path / artifact.file, folder.ship / Path(artifact.file).name
    if artifact.baseline not in rows or source.suffix not in FEEDING:
        return
    if shipped.exists() and filecmp.cmp(source, shipped, shallow=False):
        return
    original = rows[artifact.baseline].artifact
    name = artifact.id.rpartition(".")[0]
    path = folder.get_model_path(name)
    times = {name: row.latency for name, row in rows.items() if row.latency is not None}
    record = next(item for item in report.compressed if item.model == artifact.model)
    steps = [f"converted to {artifact.format}; the model is the original"]
    if artifact.variant != "dense":
        row = selection.to_ship.row
        steps = [describe_file_effect(report, row), describe_training(report, record)]
    write_ship_folder(
        folder,
        load_original(name) if artifact.variant == "dense" else load_model(path),
        original,
        artifact,
        Measurements(times, {}, relative=True),
        data,
        {
            "lines": [selection.verdict.line] if selection.verdict is not None else [],
            "steps": steps,
            "notes": record.notes,
        },
        runtime=folder.find_timed_runtime(),
        threads=threads,
    )


def write_ship_folder(
    folder: RunFolder,
    model: keras.Model,
    original: Artifact,
    small: Artifact,
    measured: Measurements,
    data: Dataset,
    card_values: Mapping[str, Any],
    *,
    runtime: str,
    threads: int,
) -> Path:
    """Write ship/ anew, in one atomic step.

    Args:
        folder: Folder of the files.
        model: Keras model of the deployed file.
        original, small: The original's file and the deployed file, with their metrics.
        measured: Latencies and memory of both.
        data: Data (scaling, labels, one example).
        card_values: Contents of the model card: "lines" (goals and results), "steps" (steps of the
            compression), "notes".
        runtime, threads: Runtime and threads of the latencies.

    Returns:
        The deployed file in the ship folder.
    """
    source, model_name = folder.path / small.file, small.id.rpartition(".")[0]
    folder.path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.path, prefix=".ship-") as temporary:
        new_folder = Path(temporary) / "ship"
        new_folder.mkdir()
        file = new_folder / source.name
        shutil.copyfile(source, file)
        save_model(model, new_folder / f"{model_name}.keras")
        shutil.copyfile(source.with_name(f"{model_name}.json"), new_folder / "feed.json")
        scaling = _write_example(new_folder / "example.npz", file, model, data)
        labels = list(data.class_names) if has_classes(data.kind) else []
        feeding = FEEDING[file.suffix]
        feed = render_template(
            TEMPLATES, feeding["script"], file=file.name, labels=labels, scaling=scaling
        )
        write_text(new_folder / "feed.py", feed)
        card = render_template(
            TEMPLATES,
            "README.md.jinja",
            file=file.name,
            format=small.format,
            model=small.model,
            version=__version__,
            date=f"{datetime.now(UTC):%Y-%m-%d}",
            keras=f"{model_name}.keras",
            tested=f"{small.tested or 0:,}",
            feeding=feeding,
            metadata=format_yaml(build_metadata(file.name, feeding["library"], small, data)),
            **_tabulate_figures(folder, (original, small), measured, data, runtime, threads),
            **card_values,
        )
        write_text(new_folder / "README.md", card)
        if folder.ship.exists():
            folder.ship.replace(Path(temporary) / "old")
        new_folder.replace(folder.ship)
    return folder.ship / source.name


def _write_example(path: Path, file: Path, model: keras.Model, data: Dataset) -> dict[str, Any]:
    """Store a validation example by the names of the file's inputs.

    Returns:
        Gain and offset of each input.
    """
    names = [info.name for info in prepare_session(file).inputs]
    raw = flatten_inputs(model, take_examples(data.val.x, slice(1)))
    np.savez(path, allow_pickle=False, **dict(zip(names, map(np.asarray, raw), strict=True)))
    scalings = dict(data.preprocess.columns)
    preprocessings = (
        [scalings.get(item, Preprocessing()) for item in list_input_names(model)]
        if scalings
        else [data.preprocess] * len(names)
    )
    scaling = {}
    for name, item in zip(names, preprocessings, strict=True):
        gain, offset = (part.tolist() for part in item.compute_gain_offset())
        scaling[name] = (gain, offset) if len(gain) > 1 else (gain[0], offset[0])
    return scaling


def _tabulate_figures(
    folder: RunFolder,
    files: tuple[Artifact, Artifact],
    measured: Measurements,
    data: Dataset,
    runtime: str,
    threads: int,
) -> dict[str, Any]:
    """Return the rows of the card's table, and a text on how they were measured."""
    original, small = files
    rows: list[tuple[str, ...]] = []
    for metric in small.test:
        rows.append((f"test {metric}", *(_format_metric(metric, item, data) for item in files), ""))
    for title, attribute in (("MACs", "macs"), ("parameters", "params")):
        counts = getattr(original, attribute), getattr(small, attribute)
        ratio = f"{counts[0] / counts[1]:.2f}" if counts[1] else "-"
        rows.append((title, *map(formatting.format_count, counts), ratio))
    resident = [try_measure_resident(folder.path / item.file, runtime, threads) for item in files]
    sizes: dict[str, list[int | None]] = {
        "file": [item.size_bytes for item in files],
        "arena": [measured.memory.get(item.id) for item in files],
        "resident memory": resident,
    }
    rows += [
        (title, *map(formatting.format_size, (old, new)), f"{old / max(1, new):.2f}")
        for title, (old, new) in sizes.items()
        if old is not None and new is not None
    ]
    first, second = (measured.times.get(item.id) for item in files)
    measurement_notes = ["MACs and parameters are counted."]
    if first and second:
        threads_text = "1 thread" if second.threads == 1 else f"{second.threads} threads"
        ends = f"{second.ratio:.2f} [{second.ratio_low:.2f}, {second.ratio_high:.2f}]"
        rows.append(
            ("latency", *(formatting.format_time(item.median_ms) for item in (first, second)), ends)
        )
        measurement_notes.append(
            f"Latency is measured: {second.runtime}, {second.device}, {threads_text}, "
            f"batch 1, medians of {second.runs:,} runs of {second.instances} instances; "
            "in brackets the 95 % interval of the ratio."
        )
    if measured.memory.get(small.id) is not None:
        measurement_notes.append(
            "The arena is what LiteRT's built-in kernels set aside for activations, measured."
        )
    if resident[1] is not None:
        measurement_notes.append(
            "Resident memory is measured: a process's, above one that runs nothing."
        )
    if (remote_times := measured.remote_times) is not None:
        share = remote_times.ms[original.id] / remote_times.ms[small.id]
        time_texts = (remote_times.describe_time(item.id) for item in files)
        rows.append(("latency elsewhere", *time_texts, f"{share:.2f}"))
    return {"rows": rows, "measured": " ".join(measurement_notes)}


def _format_metric(metric: str, item: Artifact, data: Dataset) -> str:
    """Return a test metric with its 95 % confidence interval, if there is one."""
    text = formatting.format_metric(metric, item.test[metric])
    ends = None
    if metric in data.task.shares and item.tested:
        ends = compute_wilson_interval(item.test[metric], item.tested)
    elif metric == data.task.qualities[0]:
        ends = item.test_interval
    return f"{text} {formatting.format_interval(metric, ends)}" if ends else text


def build_metadata(file: str, library: str, small: Artifact, data: Dataset) -> dict[str, Any]:
    """Return the metadata (front matter) of a model card.

    Args:
        file: Name of the file.
        library: Name of the library on the model hub.
        small: The file, with its metrics.
        data: Data set of the metrics.

    Reference:
        https://huggingface.co/docs/hub/model-cards: `model-index` has measured results, here those
        on the test part.
    """
    rank = len(data.input_shape) if len(data.input_shapes) == 1 else 0
    task = KINDS.get((data.kind, rank), OTHER)
    results = [
        {"type": name, "value": round(value, 6), "name": f"test {name}"}
        for name, value in small.test.items()
    ]
    return {
        "library_name": library,
        **({"pipeline_tag": task} if task != OTHER else {}),
        "tags": ["paretune", small.format],
        # the license of the original model is unknown: the publisher enters it
        "license": "unknown",
        "metrics": list(small.test),
        "model-index": [
            {
                "name": file,
                "results": [
                    {
                        "task": {"type": task},
                        "dataset": {"type": data.name, "name": data.name, "split": "test"},
                        "metrics": results,
                    }
                ],
            }
        ],
    }


def format_yaml(values: dict[str, Any]) -> str:
    """Return metadata as lines "key: value" of YAML, the values as JSON, which YAML reads.

    Args:
        values: Metadata that JSON can hold.

    Example:
        >>> print(format_yaml({"tags": ["a: b"], "license": "unknown"}))
        tags: ["a: b"]
        license: "unknown"
    """
    return "\n".join(f"{key}: {json.dumps(value)}" for key, value in values.items())
