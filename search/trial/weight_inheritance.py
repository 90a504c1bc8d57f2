"""Weights of the nearest finished candidate as a start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.errors import InputError
from compress.model.io import load_model
from search.folder.directory import SearchFolder
from search.folder.records import COMPLETE, Candidate
from search.trial.morphing import morph
from search.trial.optimizers import is_setting

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Donor:
    """A finished candidate.

    Attributes:
        label: "0003" of this run, "other/run 0003" of another.
        file: Its model.
        likeness: Share of the architecture's choices that both have with the same value.
    """

    label: str
    file: Path
    likeness: float


def likeness(one: dict[str, Any], two: dict[str, Any]) -> float:
    """Returns the share of choices that are the same, in [0, 1]; settings do not count.

    A choice that only one of them was asked is a difference.
    """
    a, b = (
        {name: value for name, value in choices.items() if not is_setting(name)}
        for choices in (one, two)
    )
    names = a.keys() | b.keys()
    if not names:
        return 1.0
    same = [name for name in names if name in a and name in b and a[name] == b[name]]
    return len(same) / len(names)


def nearest(
    choices: dict[str, Any],
    finished: Mapping[str, dict[str, Any]],
    folder: SearchFolder,
    others: tuple[str, ...],
) -> Donor | None:
    """Returns the finished candidate most like these choices; of equals the first.

    Args:
        choices: Of the new candidate.
        finished: Choices of the run's finished candidates by id, as the study knows them: to
            read all records anew for each trial would take ever longer. Those without a model
            (repeats) are passed over.
        folder: The run; its candidates come first.
        others: Folders of finished runs (those of a warm start); storage URLs hold no models.
    """
    models = folder.candidate_models()
    donors = [
        Donor(name, models[name], likeness(choices, chosen))
        for name, chosen in finished.items()
        if name in models
    ]
    for name in others:
        if (Path(name) / "plan.json").is_file():
            donors += _donors(choices, SearchFolder(name), name)
    chosen = max(donors, key=lambda donor: donor.likeness, default=None)
    return chosen and replace(chosen, file=folder.brought(chosen.file))


def _donors(choices: dict[str, Any], folder: SearchFolder, name: str) -> Iterator[Donor]:
    candidates: list[Candidate] = folder.read_candidates()
    for item in candidates:
        file = folder.model_file(item.id)
        if item.state == COMPLETE and file.exists():
            yield Donor(f"{name} {item.id}", file, likeness(choices, item.choices))


def inherit(model: keras.Model, donor: Donor, seed: int = 0) -> str:
    """Gives a model the weights of a donor's layers of the same names; returns what was done.

    Where widths differ units are copied or left out, see `search.trial.morphing.morph`. The last
    layer's weights come along where its outputs are as many: they may mean something else.

    Args:
        model: The new one.
        donor: The old one.
        seed: Of the units that are copied.
    """
    try:
        source = load_model(donor.file)
    except InputError as error:
        return f"no weights inherited: {error}"
    return f"{morph(model, source, seed)} inherited from {donor.label}"
