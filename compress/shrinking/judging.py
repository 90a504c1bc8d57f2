"""Exports a net and judges its files on the validation part: the test part is left alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from compress.exporting import export
from compress.exporting.files import answered_part
from compress.measure.runtimes import session_for
from compress.model.heads import decides_at
from compress.run.directory import LOG, RunFolder

if TYPE_CHECKING:
    import keras

    from compress.pipeline.context import Work
    from compress.plan import ExportOptions


@dataclass(frozen=True)
class Judged:
    """Files of a net.

    Attributes:
        files: By format.
        val: Validation quality by format, then by name.
        refused: For each format that could not be made the reason.
    """

    files: dict[str, Path]
    val: dict[str, dict[str, float]]
    refused: dict[str, str]


def judged(
    model: keras.Model, name: str, work: Work, folder: RunFolder, options: ExportOptions
) -> Judged:
    """Exports a model and judges each file.

    Args:
        model: Any Keras model.
        name: Begins the names of its files.
        work: Data and seed.
        folder: Where files go.
        options: Formats and calibration.
    """
    found, main = Judged({}, {}, {}), work.data.task.qualities[0]
    data, task = work.data, work.data.task
    threshold, labels = decides_at(model, task), data.labels(data.val)

    def refused(kind: str, reason: str) -> None:
        LOG.warning("%s.%s was not made: %s", name, kind, reason)
        found.refused[kind] = reason

    work.progress(f"exporting {name}", 0.0)
    for made in export(
        model, folder.exports / name, data=data, options=options, seed=work.seed,
        on_refusal=refused,
    ):  # fmt: skip
        told = partial(work.progress, f"validating {made.path.name}")
        scores = answered_part(model, session_for(made.path), data, "val", told)
        found.files[made.format] = made.path
        quality = task.quality(labels, scores, threshold=threshold)
        # the first is the one that judges
        found.val[made.format] = {main: quality[main], **quality}
    return found
