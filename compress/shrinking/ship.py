"""ship/: the file to use, how to feed it, and a card that says what it is and how good."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress._version import __version__
from compress.core.arrays import taken
from compress.core.atomic_files import write_text
from compress.core.statistics import wilson
from compress.core.summary import filled
from compress.data import Preprocessing
from compress.data.tasks import has_classes
from compress.measure import formats
from compress.measure.runtimes import session_for
from compress.model.io import save_model
from compress.model.ports import input_names, listed
from compress.run.compressed import Artifact
from compress.shrinking.choosing import Measured

if TYPE_CHECKING:
    import keras

    from compress.data import Dataset

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


def ship(folder: Path, shipped: Shipped, data: Dataset, name: str) -> Path:
    """Writes ship/ anew, whole or not at all.

    Args:
        folder: ship/ in a run's folder.
        shipped: What goes into it.
        data: Of the model: scaling, labels, one validation example.
        name: Of the original model.

    Returns:
        The file in it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".ship-") as place:
        made = Path(place) / "ship"
        made.mkdir()
        file = made / shipped.file.name
        shutil.copyfile(shipped.file, file)
        keras_file = made / f"{shipped.small.id.rpartition('.')[0]}.keras"
        save_model(shipped.model, keras_file)
        about = shipped.file.with_name(f"{shipped.small.id.rpartition('.')[0]}.json")
        shutil.copyfile(about, made / "feed.json")
        scaling = _example(made / "example.npz", file, shipped.model, data)
        labels = list(data.class_names) if has_classes(data.kind) else []
        feed = filled(
            TEMPLATES, FEEDING[file.suffix].script, file=file.name, labels=labels, scaling=scaling
        )
        write_text(made / "feed.py", feed)
        card = filled(TEMPLATES, "README.md.jinja", **_card(shipped, data, name, keras_file))
        write_text(made / "README.md", card)
        old = Path(place) / "old"
        if folder.exists():
            folder.replace(old)
        made.replace(folder)
    return folder / shipped.file.name


@dataclass(frozen=True)
class Shipped:
    """What goes into ship/.

    Attributes:
        file: The file to use.
        model: The same net in Keras.
        dense: The original's float32 file, as it was measured.
        small: This one.
        measured: Times and memory of both.
        resident: Bytes that a process needs for each, where that could be measured.
        lines: What was asked for and what came of it.
        steps: What was done.
        notes: What there is to know.
    """

    file: Path
    model: keras.Model
    dense: Artifact
    small: Artifact
    measured: Measured
    resident: tuple[int | None, int | None]
    lines: tuple[str, ...]
    steps: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Feeding:
    """What runs a kind of file.

    Attributes:
        script: The template of feed.py.
        library: As hubs of models call it.
        package: What feed.py imports beside NumPy.
    """

    script: str
    library: str
    package: str


FEEDING = {
    ".tflite": Feeding("feed.py.jinja", "litert", "ai-edge-litert"),
    ".onnx": Feeding("feed_onnx.py.jinja", "onnx", "onnxruntime"),
}


def _example(path: Path, file: Path, model: keras.Model, data: Dataset) -> dict[str, Any]:
    """Stores a validation example by the names of the file's inputs.

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


def _card(shipped: Shipped, data: Dataset, name: str, keras_file: Path) -> dict[str, Any]:
    dense, small, measured = shipped.dense, shipped.small, shipped.measured
    rows = []
    for metric in small.test:
        before, after = (_quality(metric, item, data) for item in (dense, small))
        rows.append((f"test {metric}", before, after, ""))
    for title, own, show in (
        ("MACs", "macs", formats.count),
        ("parameters", "params", formats.count),
        ("file", "size_bytes", formats.size),
    ):
        old, new = getattr(dense, own), getattr(small, own)
        rows.append((title, show(old), show(new), f"{old / new:.2f}"))
    old, new = (measured.memory.get(item.id) for item in (dense, small))
    ratio = f"{old / max(1, new):.2f}" if old is not None and new is not None else ""
    if old is not None:
        rows.append(("arena", formats.size(old), formats.size(new), ratio))
    old, new = shipped.resident
    if old is not None and new is not None:
        ratio = f"{old / max(1, new):.2f}"
        rows.append(("resident memory", formats.size(old), formats.size(new), ratio))
    first, second = (measured.times.get(item.id) for item in (dense, small))
    how = ["MACs and parameters are counted."]
    if first and second:
        old_ms, new_ms = first.median_ms, second.median_ms
        threads = "1 thread" if second.threads == 1 else f"{second.threads} threads"
        ends = f"{second.ratio:.2f} [{second.ratio_low:.2f}, {second.ratio_high:.2f}]"
        rows.append(("latency", formats.time(old_ms), formats.time(new_ms), ends))
        how.append(
            f"Latency is measured: {second.runtime}, {second.device}, {threads}, "
            f"batch 1, medians of {second.runs:,} runs of {second.instances} instances; "
            "in brackets the 95 % interval of the ratio."
        )
    if measured.memory.get(small.id) is not None:
        how.append(
            "The arena is what LiteRT's built-in kernels set aside for activations, measured."
        )
    if shipped.resident[1] is not None:
        how.append("Resident memory is measured: a process's, above one that runs nothing.")
    if (elsewhere := measured.elsewhere) is not None:
        before, after = (elsewhere.describe_time(item.id) for item in (dense, small))
        share = elsewhere.ms[dense.id] / elsewhere.ms[small.id]
        rows.append(("latency elsewhere", before, after, f"{share:.2f}"))
    return {
        "file": shipped.file.name, "format": small.format, "model": name, "version": __version__,
        "date": f"{datetime.now(UTC):%Y-%m-%d}", "lines": shipped.lines, "rows": rows,
        "measured": " ".join(how), "steps": shipped.steps, "keras": keras_file.name,
        "tested": f"{small.tested or 0:,}", "notes": shipped.notes,
        "feeding": FEEDING[shipped.file.suffix],
        "metadata": front_matter(
            metadata(shipped.file.name, FEEDING[shipped.file.suffix].library, small, data)
        ),
    }  # fmt: skip


def _quality(metric: str, item: Artifact, data: Dataset) -> str:
    """Returns a test quality with its 95 % interval, where it has one."""
    text = formats.quality(metric, item.test[metric])
    ends = None
    if metric in data.task.shares and item.tested:
        ends = wilson(item.test[metric], item.tested)
    elif metric == data.task.qualities[0]:
        ends = item.test_interval
    return f"{text} {formats.interval(metric, ends)}" if ends else text


def metadata(file: str, library: str, small: Artifact, data: Dataset) -> dict[str, Any]:
    """Returns what stands between the lines of dashes that a card begins with.

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
    """Returns it as YAML: JSON a key, which YAML takes, so that no name can break out of it.

    Example:
        >>> print(front_matter({"tags": ["a: b"], "license": "unknown"}))
        tags: ["a: b"]
        license: "unknown"
    """
    return "\n".join(f"{key}: {json.dumps(value)}" for key, value in values.items())
