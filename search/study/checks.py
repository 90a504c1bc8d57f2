"""Checks before the first trial: data, limits, compression.

The data judge nothing by what the run's models have learnt elsewhere; the space has a model within
the limits; what will compress the front can compress models of the space.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.errors import InputError
from compress.data import Dataset, load_data
from compress.data.adapters import name_of
from compress.run.directory import LOG
from compress.run.unlearnt import check_choices, check_scaling, check_unlearnt
from compress.shrinking.case import Subject
from compress.shrinking.checks import check_by_data, check_by_models, checks_of
from compress.shrinking.job import unlearnt_teachers
from compress.train.compiled import judged_by
from compress.train.given import dataset_for
from compress.train.scaling import load_for_model
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
class GivenData:
    """What `run` was given in place of a name.

    Attributes:
        data: What `compress.as_dataset` takes.
        val, test: Parts beside it.
        options: Of `DataOptions`, those that were given.
        groups, time: Of the examples, beside them.
    """

    data: Any
    val: Any
    test: Any
    options: Mapping[str, Any]
    groups: Any = None
    time: Any = None

    @property
    def name(self) -> str:
        """What records call them."""
        return name_of(self.data)

    def dataset(self, model: keras.Model | None, seed: int) -> Dataset:
        """Makes the data set, with a test part.

        Args:
            model: The trained model that the search is around, if it is around one.
            seed: Of the splits.

        Raises:
            InputError: See `compress.as_dataset`; or it is a data set of a class of one's own,
                which cannot be handed on to other processes.
        """
        marks = {"groups": self.groups, "time": self.time}
        parts = {"val": self.val, "test": self.test, **marks, **self.options}
        made = dataset_for(model, self.data, seed=seed, testing=True, **parts)
        if type(made) is not Dataset:
            raise InputError(
                f"Data of a run must be a Dataset, which other processes can be given. Received: "
                f"{type(made).__name__}. Name the function that makes it: 'module:function'."
            )
        # one that was read by name can be read by that name again
        return made if made.max_value is not None else replace(made, notes=(*made.notes, NOTE))


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


def check_limits(plan: SearchPlan, data: Dataset) -> None:
    """Builds the smallest model of the space and holds it against the limits on counts.

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
    """Holds what will compress the front against models of the space.

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
    import optuna

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
