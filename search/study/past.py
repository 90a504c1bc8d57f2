"""What a run begins with: models and choices of other runs, which its data must not judge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compress.core.errors import InputError
from compress.data import Dataset, load_data
from compress.run.unlearnt import check_choices, check_scaling, check_unlearnt
from compress.shrinking.job import unlearnt_teachers
from compress.train.compiled import judged_by
from compress.train.scaling import load_for_model
from search.plan import SearchPlan
from search.spaces import Space
from search.study.directory import SearchFolder
from search.study.given_data import GivenData


@dataclass(frozen=True)
class Past:
    """What a run's models know before they are trained.

    Attributes:
        before: Files of models whose weights its candidates begin with.
        taught: Files of teachers from elsewhere.
        notes: What the report of each compressed model must say.
        val_learnt: Whether the compressed models' validation part was learnt: by a teacher, or
            in final trainings.
    """

    before: tuple[Path, ...] = ()
    taught: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    val_learnt: bool = False


def load_for_space(plan: SearchPlan, space: Space, given: GivenData | None = None) -> Dataset:
    """Loads the plan's data; a space around a trained model wants that model's scaling.

    Args:
        plan: Names the data.
        space: Of the plan.
        given: What was handed over in place of a name.

    Raises:
        InputError: The data cannot be loaded, or the model or its scaling cannot.
    """
    whole = space.whole()
    if given is not None:
        return given.dataset(None if whole is None else whole[1], plan.seed)
    if whole is None:
        return judged_by(load_data(plan.data, seed=plan.seed), plan.data.metric)
    try:
        return load_for_model(whole[0], plan.data, whole[1], plan.seed)
    except InputError as error:
        raise InputError(f"Space '{space.name}' must have data that fit it. {error}") from None


def check_past(plan: SearchPlan, data: Dataset, space: Space) -> Past:
    """Checks that a run's data judge nothing by what it has learnt elsewhere.

    Args:
        plan: Space, teachers, warm starts and what is replayed.
        data: What trains, selects and tests.
        space: Of the plan.

    Raises:
        InputError: A model that the run begins with, a teacher, a warm start or what is
            replayed has learnt the test part, or what selects.
    """
    before: list[Path] = []
    whole = space.whole()
    if whole is not None:
        _check_selectable(whole[0], data, f"Space '{space.name}'")
        check_scaling(whole[0], data, f"Space '{space.name}'")
        before.append(whole[0])
    for name in plan.search.warm_start:
        if not (Path(name) / "plan.json").is_file():
            continue
        source = SearchFolder(name)
        check_choices(source, data, f"Warm start '{name}'")
    if plan.search.replay:
        source = SearchFolder(plan.search.replay.resolve().parent.parent)
        check_choices(source, data, f"Replay '{plan.search.replay}'")
    judged = unlearnt_teachers(plan, data)
    notes = [note for item in judged for note in item.notes]
    learnt = any(item.validation for item in judged)
    if plan.final.on_validation:
        notes.append(
            "the dense model was trained on the validation part (--final-on-validation): nothing "
            "is selected by it, the last epoch is kept, and validation figures say little"
        )
        learnt = True
    return Past(tuple(before), tuple(plan.distill.teacher.files), tuple(notes), learnt)


def _check_selectable(path: Path, data: Dataset, what: str) -> None:
    """Checks that neither test nor validation examples have been learnt."""
    if check_unlearnt(path, data, what).validation:
        raise InputError(
            f"{what} must not have learnt the validation part: the search would choose by it. "
            f"Received: '{path}', trained with --final-on-validation or made of such a model. "
            "Take one of that run's candidates/."
        )
