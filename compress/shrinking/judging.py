"""Exports a net and judges its files on the validation part: the test part is left alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.run.directory import RunFolder
from compress.shrinking.files import FileJudge, made_files

Checks = dict[str, dict[str, float]]
"""By format: "max_difference", "agreement" and "checked" of a file, see `Exported`."""

if TYPE_CHECKING:
    import keras

    from compress.exporting import Exported
    from compress.shrinking.context import Work


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
    from compress.exporting import Exported, file_of

    about = folder.exports / f"{stem}.json"
    return [
        Exported(
            kind,
            file_of(folder.exports / stem, kind),
            own["max_difference"],
            own["agreement"],
            int(own["checked"]),
            about,
        )
        for kind, own in checks.items()
    ]


def judged(
    model: keras.Model, name: str, work: Work, folder: RunFolder, formats: tuple[str, ...]
) -> Judged:
    """Exports a model and judges each file.

    Args:
        model: Any Keras model.
        name: Begins the names of its files.
        work: Data, plan.
        folder: Where files go.
        formats: Of the files.
    """
    files, refused = made_files(model, name, work, folder, formats)
    judge = FileJudge(model, work, folder)
    val = {
        made.format: judge.evaluate(made.path, f"{name}.{made.format}", "val")[0] for made in files
    }
    return Judged(list(files), val, refused)
