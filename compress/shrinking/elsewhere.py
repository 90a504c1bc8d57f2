"""Goals of time on a device that is not at hand: estimated from what was timed there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.devices import DeviceTimes
from compress.plan.shrink import ShrinkPlan
from compress.prune.channels.coupling.blocks import blocks_of
from compress.prune.channels.selection.allowed import allowed_for, ladder

if TYPE_CHECKING:
    from compress.prune.channels.coupling.groups import Coupling
    from compress.prune.channels.selection.times import TimeModel


def device_times(plan: ShrinkPlan, coupling: Coupling) -> DeviceTimes | None:
    """Returns the times of the device that a plan's latency is of; None: it is of this machine.

    Args:
        plan: The plan.
        coupling: Of the model that is shrunk.

    Raises:
        InputError: The file is no such table, or not of this model and these formats.
    """
    if plan.goal.latency_table is None:
        return None
    found = DeviceTimes.load(plan.goal.latency_table)
    for format in dict.fromkeys([plan.first, *plan.export.steering]):
        time_model(found, plan, coupling, format)
    return found


def time_model(device: DeviceTimes, plan: ShrinkPlan, coupling: Coupling, format: str) -> TimeModel:
    """Returns how a model's time on a device follows from what stays of it.

    Args:
        device: What was timed there.
        plan: Which widths and blocks may leave.
        coupling: Of the model.
        format: Of the files.

    Raises:
        InputError: Files of this format, or calls of this model, were not timed.
    """
    options = plan.channels
    allowed = allowed_for(coupling, options, ladder(options)[-1])
    return device.times(coupling, allowed, blocks_of(coupling) if options.blocks else (), format)


def device_error(device: DeviceTimes, plan: ShrinkPlan, coupling: Coupling) -> float | None:
    """Return the mean relative error of estimates on whole models that a table had not seen.

    None where no whole models were timed on the device.
    """
    found = time_model(device, plan, coupling, plan.first).calibration
    return found.error if found.nets else None
