"""When masks are updated and to which sparsity: the plan's times, or a tfmot schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from compress.core.errors import InputError
from compress.plan import TrainTime, WeightOptions
from compress.plan.fields import require
from compress.prune.weights import tfmot_bridge

Schedule = Callable[[Any], tuple[Any, Any]]
"""step -> (update now, sparsity), as tfmot's schedules are; the first step of training is 1."""


@dataclass(frozen=True)
class Times:
    """Steps of the first and the last mask update and the distance between; steps begin at 1."""

    begin: int
    end: int
    frequency: int


def update_times(
    options: WeightOptions, total_steps: int, steps_per_epoch: int | None = None
) -> Times:
    """Turns the plan's times into steps, such that the last update has full sparsity.

    A schedule updates when (step - begin) is a multiple of the frequency: the end is moved
    back to the last such step, else the final sparsity would never be reached.

    Args:
        options: Begin, end and frequency: shares of training, epochs or steps.
        total_steps: Steps of the training.
        steps_per_epoch: For times in epochs.

    Raises:
        InputError: Fewer than 2 steps, an end before the beginning or after the training, or
            epochs of unknown length.
    """
    require(total_steps >= 2, "training steps", "be at least 2 to prune", total_steps)

    def steps(time: TrainTime) -> int:
        if time.unit == "share":
            return round(time.value * total_steps)
        if time.unit == "steps":
            return round(time.value)
        if steps_per_epoch is None:
            raise InputError(
                f"Pruning times must be steps or shares where epochs have no known length. "
                f"Received: '{time}'. Give steps_per_epoch=."
            )
        return round(time.value * steps_per_epoch)

    begin, end = 1 + steps(options.begin), 1 + steps(options.end)
    exact = "share" not in (options.begin.unit, options.end.unit)
    if exact and not begin <= end:
        raise _outside(options, total_steps, "begin before it ends")
    if exact and end > total_steps:
        raise _outside(options, total_steps, "end before training does")
    begin = min(begin, total_steps - 1)
    end = min(max(end, begin + 1), total_steps)
    frequency = (
        max(1, steps(options.frequency))
        if options.frequency
        else max(1, -(-(end - begin) // options.updates))
    )
    return Times(begin, begin + max(1, (end - begin) // frequency) * frequency, frequency)


def _outside(options: WeightOptions, total: int, rule: str) -> InputError:
    return InputError(
        f"A pruning schedule must {rule}. Received: begin {options.begin}, end {options.end}, "
        f"{total} training steps."
    )


def planned(options: WeightOptions, times: Times) -> Schedule:
    """Returns the plan's schedule, a tfmot object."""
    if options.schedule == "constant":
        constant: Schedule = tfmot_bridge.constant_schedule(
            options.sparsity, times.begin, times.end, times.frequency
        )
        return constant
    polynomial: Schedule = tfmot_bridge.polynomial_schedule(
        options.initial_sparsity,
        options.sparsity,
        times.begin,
        times.end,
        times.frequency,
        options.power,
    )
    return polynomial


def checked(schedule: Any, total_steps: int | None) -> Schedule:
    """Checks a schedule that a user made.

    Args:
        schedule: tfmot's `ConstantSparsity` or `PolynomialDecay`, or any function from a step
            to (update now, sparsity).
        total_steps: Steps of the training, where known.

    Raises:
        InputError: It cannot be called, or ends after the training.
    """
    if not callable(schedule):
        raise InputError(
            "A pruning schedule must be a tfmot schedule or a function step -> (update, "
            f"sparsity). Received: {type(schedule).__name__}."
        )
    end = getattr(schedule, "end_step", None)
    if total_steps is not None and end is not None and end > total_steps:
        raise InputError(
            f"A pruning schedule must end before training does. Received: end_step {end}, "
            f"{total_steps} training steps."
        )
    usable: Schedule = schedule
    return usable


def final_sparsity(schedule: Any, options: WeightOptions) -> float:
    """Returns the sparsity that a schedule comes to."""
    for name in ("final_sparsity", "target_sparsity"):
        value = getattr(schedule, name, None)
        if value is not None:
            return float(value)
    return options.sparsity


def last_update(schedule: Any, total_steps: int | None) -> int | None:
    """Returns the step of the last mask update; None: it never ends or nobody knows."""
    end, begin = getattr(schedule, "end_step", None), getattr(schedule, "begin_step", None)
    frequency = getattr(schedule, "frequency", 1)
    if end == -1:
        end = total_steps
    if end is None or begin is None or end < begin:
        return total_steps
    return int(begin + (end - begin) // frequency * frequency)
