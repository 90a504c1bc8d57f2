"""For how many epochs a model was trained, as far as its run's folder tells.

What else a run does is not known here: whoever trains models writes records beside them, of
which these keys are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from compress.core.atomic_files import read_json, whole_files
from compress.core.typed import conform
from compress.run.directory import RunFolder
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


class _Trained(TypedDict, total=False):
    """The record beside a model: what was noted of each epoch."""

    history: list[dict[str, Any]]


class _TrainedAnew(TypedDict):
    """The record of a training at a run's end: whose model it is of, and how long it was."""

    model: str
    epochs: int


class _Beginning(TypedDict, total=False):
    """The part of a run's plan that says with what weights its models begin.

    Earlier versions could begin a candidate with another's weights: "inherit".
    """

    space: str
    inherit: bool


class _Plan(TypedDict, total=False):
    search: _Beginning


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
    plan = conform(folder.read_plan_record()["plan"], _Plan, f"'{folder.plan_path}'.plan")
    beginning: _Beginning = plan.get("search", {})
    around = beginning.get("space", "").startswith("around:")
    if file.parent == folder.final:
        epochs = [count for names, count in _anew(folder) if file.stem in names]
        return Trained(epochs[0], around) if epochs else UNKNOWN
    record = file.with_name(f"{file.stem}.json")
    if record.is_file():
        told = conform(read_json(record), _Trained, f"'{record}'")
        return Trained(len(told.get("history", [])), around or beginning.get("inherit", False))
    return _compressed(folder, file.stem)


def _anew(folder: RunFolder) -> Iterator[tuple[tuple[str, str], int]]:
    """Yields names of the models that were trained anew, with epochs; the best has its model's."""
    for path in whole_files(folder.final, ".json"):
        record = conform(read_json(path), _TrainedAnew, f"'{path}'")
        yield (path.stem, record["model"]), record["epochs"]


def _compressed(folder: RunFolder, name: str) -> Trained:
    """A compressed model has no record of its own; its training is the dense model's and more."""
    for record in folder.read_compressed():
        if record.small == name:
            if record.dense_epochs is None or record.finetuned is None:
                return UNKNOWN
            return Trained(record.dense_epochs + record.finetuned, record.dense_begun)
    return UNKNOWN
