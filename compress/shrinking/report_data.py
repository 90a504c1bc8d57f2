"""What the report shows beside figures: what files decided of the test part, and models' graphs.

The test part is read no second time for that.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import named, taken
from compress.core.atomic_files import write_json
from compress.core.errors import InputError
from compress.data import Dataset
from compress.model.heads import counted_at
from compress.run.compressed import Artifact
from compress.run.directory import LOG, RunFolder
from compress.run.exports import SIDES, Nodes, write_graphs

if TYPE_CHECKING:
    import keras

MOST_CLASSES = 50
"""Of more, a matrix shows nothing."""
EXAMPLES = 12
SIDE = 112
"""Pixels of a picture at most."""
Indices = npt.NDArray[np.int64]


def keep_scores(folder: RunFolder, artifact: str, scores: Any, data: Dataset, bound: Any) -> None:
    """Keeps the decisions of one file until all of its model's are known.

    Args:
        folder: The run's.
        artifact: Id of the file.
        scores: Its answers to the test part.
        data: Of one class of several, or yes or no; of others nothing is kept.
        bound: Score from which a binary file says yes.
    """
    if data.kind not in ("multiclass", "binary") or data.num_classes > MOST_CLASSES:
        return
    if data.kind == "multiclass":
        decided = np.argmax(scores, axis=-1)
    else:
        decided = (np.asarray(scores).reshape(len(scores), -1)[:, 0] > bound).astype(np.int64)
    folder.decisions.mkdir(parents=True, exist_ok=True)
    np.save(folder.decisions / f".{artifact}.npy", decided.astype(np.int64))


def write_decisions(folder: RunFolder, artifacts: Sequence[Artifact], data: Dataset) -> None:
    """Writes confusion matrices of a model's files, and where they differ from its own file.

    Args:
        folder: The run's.
        artifacts: All files of one model, with baselines.
        data: Their test part.
    """
    kept = {item.id: folder.decisions / f".{item.id}.npy" for item in artifacts}
    decided = {name: np.load(path) for name, path in kept.items() if path.exists()}
    if not decided or not len(data.test):
        return
    labels = np.asarray(data.test.y).reshape(-1).astype(np.int64)
    files = {}
    for item in artifacts:
        own, base = decided.get(item.id), decided.get(item.baseline)
        if own is None or base is None:
            continue
        examples = [
            {"place": int(place), "label": int(labels[place]), "before": int(base[place]),
             "after": int(own[place]), "picture": _picture(data, int(place))}
            for place in _differing(labels, base, own)
        ]  # fmt: skip
        files[item.id] = {
            "baseline": item.baseline,
            "confusion": confusion(labels, own, data.num_classes).tolist(),
            "differ": int((own != base).sum()),
            "examples": examples,
        }
    content = {"class_names": list(data.class_names), "files": files}
    write_json(folder.decisions_of(artifacts[0].model), content)
    for path in kept.values():
        path.unlink(missing_ok=True)


def confusion(labels: Indices, decided: Indices, classes: int) -> Indices:
    """Returns how often an example of a class (row) is taken for a class (column).

    Example:
        >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
        [[1, 1], [0, 1]]
    """
    counted = np.bincount(labels * classes + decided, minlength=classes * classes)
    return counted.reshape(classes, classes)


def _differing(labels: Indices, base: Indices, own: Indices) -> Iterator[int]:
    """Yields examples that are decided otherwise: what was lost first, then what was won."""
    other = base != own
    lost = np.flatnonzero(other & (base == labels))
    won = np.flatnonzero(other & (own == labels))
    neither = np.flatnonzero(other & (base != labels) & (own != labels))
    yield from np.concatenate([lost, won, neither])[:EXAMPLES]


def _picture(data: Dataset, place: int) -> str:
    """Returns an example as an image in a page; empty where it is none."""
    from PIL import Image

    parts = named(taken(data.test.x, slice(place, place + 1)))
    if len(parts) != 1:
        return ""
    image = np.asarray(parts[0][1])[0]
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[:, :, 0]
    if (
        not (image.ndim == 2 or (image.ndim == 3 and image.shape[-1] == 3))
        or min(image.shape[:2]) < 4
    ):
        return ""
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        image = (255 * (image - low) / max(high - low, 1e-12)).astype(np.uint8)
    step = -(-max(image.shape[:2]) // SIDE)
    made = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image[::step, ::step])).save(made, "PNG")
    return f"data:image/png;base64,{base64.b64encode(made.getvalue()).decode('ascii')}"


def keep_graphs(
    folder: RunFolder, name: str, before: keras.Model, after: keras.Model, data: Dataset,
    times: Mapping[str, Mapping[str, float]] | None = None,
) -> None:  # fmt: skip
    """Writes the graphs of a model; one that cannot be recorded is told, and has none.

    Args:
        folder: The run's.
        name: Of the model.
        before, after: The model, and what became of it.
        data: Their inputs.
        times: Milliseconds by layer, "before" and "after"; None: they are not known.
    """
    from compress.measure.counting import graph_of

    try:
        each = [graph_of(item, counted_at(item, data.input_shapes)) for item in (before, after)]
    except InputError as error:
        LOG.info("note: %s has no graph in the report: %s", name, error)
        return
    known = times or {}
    timed = [_timed(nodes, known.get(side, {})) for nodes, side in zip(each, SIDES, strict=True)]
    write_graphs(folder.graphs_of(name), timed[0], timed[1])


def _timed(nodes: Nodes, times: Mapping[str, float]) -> Nodes:
    """Returns calls with their times, by the names of their layers."""
    return tuple(
        replace(node, ms=times.get(node.name, times.get(node.name.rpartition("/")[2])))
        for node in nodes
    )
