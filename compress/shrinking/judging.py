"""Exports a net and judges its files on the validation part: the test part is left alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from compress.exporting import export
from compress.exporting.files import answered_part
from compress.measure.runtimes import session_for
from compress.model.heads import decides_at
from compress.run.directory import LOG, RunFolder

Checks = dict[str, dict[str, float]]
"""By format: "max_difference", "agreement" and "checked" of a file, see `Exported`."""

if TYPE_CHECKING:
    import keras

    from compress.exporting import Exported
    from compress.pipeline.context import Work
    from compress.plan import ExportOptions


@dataclass(frozen=True)
class Judged:
    """Files of a net.

    Attributes:
        files: What was made.
        val: Validation quality by format, then by name.
        refused: For each format that could not be made the reason.
    """

    files: list[Exported]
    val: dict[str, dict[str, float]]
    refused: dict[str, str]

    @property
    def checks(self) -> Checks:
        """How the files agree with the Keras model, as records hold it."""
        return {
            made.format: {
                "max_difference": made.max_difference,
                "agreement": made.agreement,
                "checked": made.checked,
            }
            for made in self.files
        }


def exported(stem: str, checks: Checks, folder: RunFolder) -> list[Exported]:
    """Returns files that were made before.

    Args:
        stem: Begins their names.
        checks: Of each format, see `Judged.checks`.
        folder: In which they lie.
    """
    from compress.exporting import Exported

    about = folder.exports / f"{stem}.json"
    return [
        Exported(
            kind,
            folder.exports / f"{stem}.{kind}.tflite",
            own["max_difference"],
            own["agreement"],
            int(own["checked"]),
            about,
        )
        for kind, own in checks.items()
    ]


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
    found, main = Judged([], {}, {}), work.data.task.qualities[0]
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
        found.files.append(made)
        quality = task.quality(labels, scores, threshold=threshold)
        # the first is the one that judges
        found.val[made.format] = {main: quality[main], **quality}
    return found
