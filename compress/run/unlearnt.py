"""Checks that a model is evaluated on held-out data, scaled as in its run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from compress.core.errors import InputError
from compress.data import Dataset
from compress.data.keys import KnownRows, is_among
from compress.data.leaks import Mask, compare_with_learned
from compress.run.directory import RunFolder
from compress.run.origin import KINDS, Origin, origin_of


@dataclass(frozen=True)
class Judged:
    """Notes on an evaluation that follow from a model's training.

    Attributes:
        validation: It has learnt the validation part: nothing may be selected by that.
        notes: What a report must say.
    """

    validation: bool = False
    notes: tuple[str, ...] = ()


def check_unlearnt(path: Path, data: Dataset, what: str) -> Judged:
    """Check that a model was not trained on the data that evaluate it, where this is known.

    The validation part may have been learnt by a model that was trained on it on purpose
    (`--final-on-validation`), which no choice of options could mend; the caller must then
    select by something else.

    Args:
        path: The model's file.
        data: What trains, selects and tests.
        what: Who the model is, for the error: "Model 'x.keras'".

    Raises:
        InputError: The test part, or the validation part, holds examples that the model has
            learnt; the message names the options of its run.
    """
    origin = origin_of(path)
    if origin is None:
        return Judged(
            notes=(
                f"what {_low(what)} has learnt is not known (it comes from no run): figures "
                "flatter it if it has seen the validation or test examples",
            )
        )
    learnt, on_purpose = origin.learnt(), origin.learnt_validation()
    if learnt is None:
        _check_fingerprint(origin, data, what)
        same = _same_source(str(origin.data.get("source")), data.name)
        return Judged(True, (_note_validation(what),)) if on_purpose and same else Judged()
    notes: list[str] = []
    known, chance = _recognize(origin.rows(origin.learned_kinds), data)
    for part, name in (("test", "test"), ("val", "validation")):
        shared = compare_with_learned(data, part, learnt, known.get(part), chance)
        if shared.is_leak and part == "val" and on_purpose:
            return Judged(True, (*notes, _note_validation(what)))
        if shared.is_leak:
            raise _refusal(
                origin, what, f"{shared.count:,} of the {shared.single:,} {name} examples that "
                "occur once in the data are among those that it has learnt",
            )  # fmt: skip
        if shared.count:
            notes.append(
                f"{shared.count:,} of the {shared.single:,} {name} examples that occur once in "
                f"the data are among those that {_low(what)} has learnt (chance duplicates)"
            )
    return Judged(False, tuple(notes))


def check_choices(folder: RunFolder, data: Dataset, what: str) -> None:
    """Check that a run's choices were not made on the data that test them.

    Choices carry no weights, so the validation part may hold whatever it wants.

    Args:
        folder: Of the run that made the choices.
        data: Of the new one.
        what: Who they are, for the error.

    Raises:
        InputError: The test part holds examples that the run has trained on or selected by.
    """
    if not folder.data.is_file():
        return
    origin = Origin(folder.models / "any.keras", folder, folder.read_data_record())
    stored = origin.examples()
    if stored is None:
        _check_fingerprint(origin, data, what)
        return
    seen = np.unique(np.concatenate([stored[name] for name in KINDS]))
    known, chance = _recognize(origin.rows(), data)
    shared = compare_with_learned(data, "test", seen, known.get("test"), chance)
    if shared.is_leak:
        raise _refusal(
            origin, what, f"{shared.count:,} of the {shared.single:,} test examples that occur "
            "once in the data are among those that it has trained on or chosen by",
        )  # fmt: skip


def _recognize(tables: Sequence[KnownRows], data: Dataset) -> tuple[dict[str, Mask], float]:
    """Return which examples are known rows in another scale, by part, and what chance finds."""
    parts = {name: data.split(name).x for name in ("train", "val", "test") if len(data.split(name))}
    masks: dict[str, Mask] = {}
    chance = 0.0
    for known in tables:
        for name, found in known.recognize(parts).items():
            masks[name] = masks[name] | found if name in masks else found
            chance = max(chance, known.sketch.collision_probability())
    return masks, chance


def check_scaling(path: Path, data: Dataset, what: str) -> tuple[str, ...]:
    """Check that a model is fed as it was in its run, where its run is known.

    Args:
        path: The model's file.
        data: What it is fed with.
        what: Who it is, for the error.

    Returns:
        What a report must say: of other data another scaling may be right.

    Raises:
        InputError: The data are those of its run, in another scaling.
    """
    origin = origin_of(path)
    known = origin.preprocess if origin is not None else None
    if origin is None or known is None or known.same_as(data.preprocess):
        return ()
    learnt = origin.learnt()
    if learnt is None:
        same = _same_source(str(origin.data.get("source")), data.name)
    else:
        same = bool(is_among(data.keys["train"], learnt).mean() > 0.5)
    if same:
        raise InputError(
            f"{what} must be fed in the scaling of its run '{origin.folder.path}'. Received: "
            "another one. Leave --normalize out (in Python: give load_data that preprocess)."
        )
    return (f"{_low(what)} is fed in another scaling than in its run '{origin.folder.path}'",)


def _check_fingerprint(origin: Origin, data: Dataset, what: str) -> None:
    """Compare with a run of the first release, which kept a hash of everything alone."""
    stored = origin.data.get("fingerprint")
    if stored is None or not _same_source(str(origin.data.get("source")), data.name):
        return
    scaled = origin.preprocess or data.preprocess
    known = {data.fingerprint(), replace(data, preprocess=scaled).fingerprint()}
    if stored not in known:
        raise _refusal(
            origin, what, f"other parts of '{data.name}', or other examples, than those that it "
            "was trained on",
        )  # fmt: skip


def _same_source(one: str, two: str) -> bool:
    if one == two:
        return True
    return Path(one).exists() and Path(two).exists() and Path(one).resolve() == Path(two).resolve()


def _low(what: str) -> str:
    return what[:1].lower() + what[1:]


def _note_validation(what: str) -> str:
    return (
        f"{_low(what)} has learnt the validation part: nothing is selected by it, the last "
        "epoch is kept, and validation figures say little"
    )


def _refusal(origin: Origin, what: str, received: str) -> InputError:
    return InputError(
        f"{what} must be judged on examples that it has not learnt in its run "
        f"'{origin.folder.path}'. Received: {received}. Give that run's {origin.options}."
    )
