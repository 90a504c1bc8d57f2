"""ship/: the file to use, how to feed it, and a card that says what it is and how good."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress._version import __version__
from compress.core.arrays import taken
from compress.core.atomic_files import write_text
from compress.core.statistics import wilson
from compress.core.summary import filled
from compress.data import Dataset, Preprocessing
from compress.data.tasks import has_classes
from compress.measure import formats
from compress.measure.footprint import known_resident
from compress.measure.runtimes import session_for
from compress.model.io import save_model
from compress.model.ports import input_names, listed
from compress.run.compressed import Artifact
from compress.shrinking.goals import Measured

if TYPE_CHECKING:
    import keras

    from compress.shrinking.case import Case
    from compress.shrinking.net import ShrinkFolder

TEMPLATES = Path(__file__).parent / "templates"
OTHER = "other"
IMAGES, ROWS = 3, 1
"""Axes of an example that is an image, and of one that is a row of a table."""
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
"""The hub's names of tasks, by ours and by the axes of an example."""
FEEDING = {
    ".tflite": {"script": "feed.py.jinja", "library": "litert", "package": "ai-edge-litert"},
    ".onnx": {"script": "feed_onnx.py.jinja", "library": "onnx", "package": "onnxruntime"},
}
"""By the suffix of a file the template of feed.py, the library as hubs of models call it, and what
feed.py imports beside NumPy."""


def ship(
    folder: ShrinkFolder,
    model: keras.Model,
    files: tuple[Artifact, Artifact],
    measured: Measured,
    case: Case,
    told: Mapping[str, Any],
) -> Path:
    """Write ship/ anew, whole or not at all.

    Args:
        folder: Of the files.
        model: The Keras model of the file that ships.
        files: The original's float32 file and the one that ships, as they were judged.
        measured: Times and memory of both.
        case: The original: its name, the plan, and data (scaling, labels, one example).
        told: For the card: "lines" (what was asked for and what came of it), "steps" (what was
            done), "notes".

    Returns:
        The file in it.
    """
    data, source = case.work.data, folder.path / files[1].file
    net = files[1].id.rpartition(".")[0]
    folder.path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.path, prefix=".ship-") as place:
        made = Path(place) / "ship"
        made.mkdir()
        file = made / source.name
        shutil.copyfile(source, file)
        save_model(model, made / f"{net}.keras")
        shutil.copyfile(source.with_name(f"{net}.json"), made / "feed.json")
        scaling = _example(made / "example.npz", file, model, data)
        labels = list(data.class_names) if has_classes(data.kind) else []
        feeding = FEEDING[file.suffix]
        feed = filled(TEMPLATES, feeding["script"], file=file.name, labels=labels, scaling=scaling)
        write_text(made / "feed.py", feed)
        card = filled(
            TEMPLATES, "README.md.jinja",
            file=file.name, format=files[1].format, model=case.name, version=__version__,
            date=f"{datetime.now(UTC):%Y-%m-%d}", keras=f"{net}.keras",
            tested=f"{files[1].tested or 0:,}", feeding=feeding,
            metadata=front_matter(metadata(file.name, feeding["library"], files[1], data)),
            **_figures(folder, files, measured, case), **told,
        )  # fmt: skip
        write_text(made / "README.md", card)
        if folder.ship.exists():
            folder.ship.replace(Path(place) / "old")
        made.replace(folder.ship)
    return folder.ship / source.name


def _example(path: Path, file: Path, model: keras.Model, data: Dataset) -> dict[str, Any]:
    """Store a validation example by the names of the file's inputs.

    Returns:
        Gain and offset of each.
    """
    names = [info.name for info in session_for(file).inputs]
    raw = listed(model, taken(data.val.x, slice(1)))
    np.savez(path, allow_pickle=False, **dict(zip(names, map(np.asarray, raw), strict=True)))
    own = dict(data.preprocess.columns)
    maps = (
        [own.get(item, Preprocessing()) for item in input_names(model)]
        if own
        else [data.preprocess] * len(names)
    )
    found = {}
    for name, item in zip(names, maps, strict=True):
        gain, offset = (part.tolist() for part in item.affine())
        found[name] = (gain, offset) if len(gain) > 1 else (gain[0], offset[0])
    return found


def _figures(
    folder: ShrinkFolder, files: tuple[Artifact, Artifact], measured: Measured, case: Case
) -> dict[str, Any]:
    """Return the rows of the card's table, and how they were measured."""
    dense, small = files
    plan, data = case.plan, case.work.data
    rows: list[tuple[str, ...]] = []
    for metric in small.test:
        rows.append((f"test {metric}", *(_quality(metric, item, data) for item in files), ""))
    for title, own in (("MACs", "macs"), ("parameters", "params")):
        counts = getattr(dense, own), getattr(small, own)
        rows.append((title, *map(formats.count, counts), f"{counts[0] / counts[1]:.2f}"))
    resident = [
        known_resident(folder.path / item.file, plan.runtime, plan.latency.threads)
        for item in files
    ]
    sizes: dict[str, list[int | None]] = {
        "file": [item.size_bytes for item in files],
        "arena": [measured.memory.get(item.id) for item in files],
        "resident memory": resident,
    }
    for title, (old, new) in sizes.items():
        if old is not None and new is not None:
            rows.append((title, formats.size(old), formats.size(new), f"{old / max(1, new):.2f}"))
    first, second = (measured.times.get(item.id) for item in files)
    how = ["MACs and parameters are counted."]
    if first and second:
        threads = "1 thread" if second.threads == 1 else f"{second.threads} threads"
        ends = f"{second.ratio:.2f} [{second.ratio_low:.2f}, {second.ratio_high:.2f}]"
        rows.append(("latency", *(formats.time(item.median_ms) for item in (first, second)), ends))
        how.append(
            f"Latency is measured: {second.runtime}, {second.device}, {threads}, "
            f"batch 1, medians of {second.runs:,} runs of {second.instances} instances; "
            "in brackets the 95 % interval of the ratio."
        )
    if measured.memory.get(small.id) is not None:
        how.append(
            "The arena is what LiteRT's built-in kernels set aside for activations, measured."
        )
    if resident[1] is not None:
        how.append("Resident memory is measured: a process's, above one that runs nothing.")
    if (elsewhere := measured.elsewhere) is not None:
        share = elsewhere.ms[dense.id] / elsewhere.ms[small.id]
        there = (elsewhere.describe_time(item.id) for item in files)
        rows.append(("latency elsewhere", *there, f"{share:.2f}"))
    return {"rows": rows, "measured": " ".join(how)}


def _quality(metric: str, item: Artifact, data: Dataset) -> str:
    """Return a test quality with its 95 % interval, where it has one."""
    text = formats.quality(metric, item.test[metric])
    ends = None
    if metric in data.task.shares and item.tested:
        ends = wilson(item.test[metric], item.tested)
    elif metric == data.task.qualities[0]:
        ends = item.test_interval
    return f"{text} {formats.interval(metric, ends)}" if ends else text


def metadata(file: str, library: str, small: Artifact, data: Dataset) -> dict[str, Any]:
    """Return what stands between the lines of dashes that a card begins with.

    Args:
        file: The file's name.
        library: As the hub calls it.
        small: The file, as it was judged.
        data: By which.

    Reference:
        https://huggingface.co/docs/hub/model-cards: `model-index` holds results that were
        measured, here by the test part.
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
        # of the model that this was made of: whoever publishes it fills it in
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


def front_matter(values: dict[str, Any]) -> str:
    """Return it as YAML: JSON a key, which YAML takes, so that no name can break out of it.

    Example:
        >>> print(front_matter({"tags": ["a: b"], "license": "unknown"}))
        tags: ["a: b"]
        license: "unknown"
    """
    return "\n".join(f"{key}: {json.dumps(value)}" for key, value in values.items())
