"""Checks before the first trial: data, limits, compression.

The data judge nothing by what the run's models have learnt elsewhere; the space has a model within
the limits; what will compress the front can compress models of the space.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from compress.core.errors import InputError
from compress.data import Dataset, load_data
from compress.run.directory import LOG
from compress.run.unlearnt import check_choices, check_scaling, check_unlearnt
from compress.shrinking.case import Subject, check_by_models, checks_of
from compress.shrinking.job import check_by_data, unlearnt_teachers
from compress.train.given import dataset_for, judged_by, load_for_model
from search.plan import SearchPlan
from search.spaces import Space
from search.spaces.describe import measured
from search.study.costs import NAMES, Costs, excesses, limits
from search.study.directory import SearchFolder

if TYPE_CHECKING:
    import keras

NOTE = "the data were handed over in Python: commands that are shown need them as a file, by --data"
FLAGS = {"macs": "max_macs", "params": "max_params", "size_bytes": "max_size"}
"""Limits that are judged: what is counted, and the weights' bytes."""


@dataclass(frozen=True)
class Past:
    """The past of a run's models: weights, teachers and data from before their training.

    Attributes:
        before: Files of models whose weights its candidates begin with.
        notes: What the report of each compressed model must say.
        val_learnt: Whether the compressed models' validation part was learnt: by a teacher, or
            in final trainings.
    """

    before: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    val_learnt: bool = False


def load_for_space(
    plan: SearchPlan, space: Space, given: Mapping[str, Any] | None = None
) -> Dataset:
    """Load the plan's data; a space around a trained model wants that model's scaling.

    Args:
        plan: Names the data.
        space: Of the plan.
        given: What was handed over in place of a name: arguments of `compress.as_dataset`.

    Raises:
        InputError: The data cannot be loaded, or the model or its scaling cannot; or they are a
            data set of a class of one's own, which cannot be handed on to other processes.
    """
    whole = space.whole()
    if given is not None:
        model = None if whole is None else whole[1]
        made = dataset_for(model, **given, seed=plan.seed, testing=True)
        if type(made) is not Dataset:
            raise InputError(
                f"Data of a run must be a Dataset, which other processes can be given. Received: "
                f"{type(made).__name__}. Name the function that makes it: 'module:function'."
            )
        # one that was read by name can be read by that name again
        return made if made.max_value is not None else replace(made, notes=(*made.notes, NOTE))
    if whole is None:
        return judged_by(load_data(plan.data, seed=plan.seed), plan.data.metric)
    try:
        return load_for_model(whole[0], plan.data, whole[1], plan.seed)
    except InputError as error:
        raise InputError(f"Space '{space.name}' must have data that fit it. {error}") from None


def check_past(plan: SearchPlan, data: Dataset, space: Space) -> Past:
    """Check that nothing before the run has learnt its test part, or data that select.

    Args:
        plan: Space, teachers, warm starts and what is replayed.
        data: What trains, selects and tests.
        space: Of the plan.

    Raises:
        InputError: A model that the run begins with, a teacher, a warm start or what is
            replayed has learnt the test part, or what selects.
    """
    whole = space.whole()
    if whole is not None:
        if check_unlearnt(whole[0], data, f"Space '{space.name}'").validation:
            raise InputError(
                f"Space '{space.name}' must not have learnt the validation part: the search would "
                f"choose by it. Received: '{whole[0]}', trained with --final-on-validation or made "
                "of such a model. Take one of that run's candidates/."
            )
        check_scaling(whole[0], data, f"Space '{space.name}'")
    for name in plan.search.warm_start:
        if (Path(name) / "plan.json").is_file():
            check_choices(SearchFolder(name), data, f"Warm start '{name}'")
    if plan.search.replay:
        folder = SearchFolder(plan.search.replay.resolve().parent.parent)
        check_choices(folder, data, f"Replay '{plan.search.replay}'")
    judged = unlearnt_teachers(plan, data)
    notes = [note for item in judged for note in item.notes]
    learnt = any(item.validation for item in judged)
    if plan.final.on_validation:
        notes.append(
            "the dense model was trained on the validation part (--final-on-validation): nothing "
            "is selected by it, the last epoch is kept, and validation figures say little"
        )
        learnt = True
    before = () if whole is None else (whole[0],)
    return Past(before, tuple(notes), learnt)


def check_limits(plan: SearchPlan, data: Dataset) -> None:
    """Check that the smallest model of the space keeps the limits on counts.

    Spaces whose smallest model is not known (the user's own) are not judged here.

    Raises:
        InputError: It exceeds a limit; the message says what the smallest costs.
    """
    space = plan.search.made_space
    choices = space.smallest(data) if FLAGS.keys() & limits(plan.search) else None
    if choices is None:
        return
    smallest = measured(space, choices, data)
    for name, value, limit in excesses(Costs(smallest.macs, smallest.params), plan.search):
        raise InputError(
            f"{FLAGS[name]} must be at least what the smallest candidate of space "
            f"'{plan.search.space}' has: {value:,.0f} {NAMES[name]}. Received: {limit:,}."
        )


def check_compression(plan: SearchPlan, data: Dataset, teachers: Sequence[keras.Model]) -> None:
    """Check the options of compression against models of the space.

    These are the baseline, the largest and the smallest, as far as they are known; of the
    user's own space one sample. What none of them can do is refused: a target that is too
    small or too large for all, a pattern or a pair of layers that fits no name. A front may
    hold models with other layers: what only some can do is left out where it cannot be done.

    Args:
        plan: Of the run.
        data: What the models are for.
        teachers: Those that the plan names.

    Raises:
        InputError: See above.
    """
    check_by_data(plan, data)
    if any(checks_of(plan, data, [None])):
        subjects = [Subject(model, data.input_shape) for model in _models(plan, data)]
        check_by_models(plan, data, subjects, teachers)


def _models(plan: SearchPlan, data: Dataset) -> Iterator[keras.Model]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = plan.search.made_space
    built: list[dict[str, Any]] = []
    for choices in (space.baseline(data), space.largest(data), space.smallest(data)):
        if choices is None or choices in built:
            continue
        built.append(choices)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(plan.seed))
        study.enqueue_trial(choices)
        try:
            model = space.build(study.ask(), data)
        except Exception as error:  # the user's own code; the trials will tell, one by one
            LOG.info("a first model of the space cannot be built: %s", error)
            continue
        yield model
