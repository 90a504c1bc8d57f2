"""Whether anything in a space can do what the plan asks: found out before the first trial."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from compress.core.errors import InputError
from compress.data import Dataset
from compress.run.directory import LOG
from compress.shrinking.case import Subject
from compress.shrinking.checks import check_by_data, check_by_models, checks_of
from search.plan import SearchPlan
from search.spaces.describe import measured
from search.study.costs import NAMES, Costs, excesses, limits

if TYPE_CHECKING:
    import keras

FLAGS = {"macs": "max_macs", "params": "max_params", "size_bytes": "max_size"}
"""Limits that are judged: what is counted, and the weights' bytes."""


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
