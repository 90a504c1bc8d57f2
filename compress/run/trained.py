"""For how many epochs a model was trained, as far as its run's folder tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compress.run.directory import RunFolder, final_name
from compress.run.origin import origin_of


@dataclass(frozen=True)
class Trained:
    """A model's training so far.

    Attributes:
        epochs: Of it; None: unknown, the model comes from elsewhere.
        begun: It began with weights that had been trained before, which are not counted.
    """

    epochs: int | None = None
    begun: bool = False


UNKNOWN = Trained()


def trained_for(path: Path) -> Trained:
    """Looks up how long a model was trained.

    Args:
        path: Of the model; one that lies in a run's folder has a record there.

    Raises:
        InputError: The record is damaged.
    """
    origin = origin_of(path)
    if origin is None or not origin.folder.plan_path.is_file():
        return UNKNOWN
    file, folder = origin.file, origin.folder
    plan = folder.read_plan_record()["plan"].get("search", {})
    around = str(plan.get("space", "")).startswith("around:")
    if file.parent == folder.final:
        epochs = [
            record.epochs
            for record in folder.read_finals()
            if file.stem in (record.model, final_name(record.model, record.place))
        ]
        return Trained(epochs[0], around) if epochs else UNKNOWN
    candidate = folder.read_candidate(file.stem)
    if candidate is not None:
        return Trained(len(candidate.history), around or bool(plan.get("inherit")))
    return _compressed(folder, file.stem)


def _compressed(folder: RunFolder, name: str) -> Trained:
    """Compressed models lie beside candidates; their training is the dense model's and more."""
    for record in folder.read_compressed():
        if record.small == name:
            if record.dense_epochs is None or record.finetuned is None:
                return UNKNOWN
            return Trained(record.dense_epochs + record.finetuned, record.dense_begun)
    return UNKNOWN
