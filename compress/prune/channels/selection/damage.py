"""What it costs to thin one group, its readers repaired: measured on the model's outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.memory_budget import current_budget
from compress.measure.quality import distance, spread
from compress.model.activations import OVERHEAD, activation_bytes
from compress.model.program import Node, Program
from compress.prune.channels.coupling.groups import Coupling, Group
from compress.prune.channels.criteria import Context, Criterion, Scores
from compress.prune.channels.criteria.reconstruction import Reader, eliminated
from compress.reconstruction.kinds import Part

Numbers = npt.NDArray[np.float64]
SHARES = (0.25, 0.5, 0.625, 0.75, 0.875)
"""Of a group's units that are removed, where its damage is measured."""
CHUNK = 256
"""Examples that are run at a time, where the memory budget allows."""
Change = tuple[Any, npt.NDArray[Any]]
"""A weight and the value that it has for a time."""


@dataclass(frozen=True)
class Damage:
    """How much the outputs change when a share of one group's units is removed.

    Attributes:
        name: Of the group.
        removed: Numbers of removed units, rising.
        damage: At each: see `compress.measure.quality`.
        scores: Of the units, higher = keep.
    """

    name: str
    removed: tuple[int, ...]
    damage: tuple[float, ...]
    scores: Scores

    def by_count(self, units: int) -> Numbers:
        """Returns the damage of removing 0 to all units, (units + 1,); it never falls.

        Between measured numbers it is interpolated, behind the last it doubles by all units.
        """
        at = [0, *self.removed, max(units, self.removed[-1] + 1)]
        known = np.maximum.accumulate(np.maximum([0.0, *self.damage], 0.0))
        values = [*known, 2.0 * known[-1] + 1e-12]
        found = np.interp(np.arange(units + 1), at, values)
        return np.asarray(found + 1e-9 * np.arange(units + 1))


@dataclass(frozen=True, eq=False)
class Trial:
    """Weights to be changed for a time, and the first call that they matter to."""

    place: int
    changes: tuple[Change, ...]


def measured(
    program: Program,
    inputs: Sequence[npt.NDArray[Any]],
    trials: Sequence[Trial],
    on_trial: Callable[[float], None] | None = None,
    chunk: int | None = None,
) -> Numbers:
    """Measures how far each trial moves the outputs: one pass, and a partial one a trial.

    Args:
        program: A flat program; its weights are as before when this returns.
        inputs: One array an input, (examples, ...).
        trials: What is changed, one at a time.
        on_trial: Told the share of the trials that is done, chunk by chunk.
        chunk: Examples that are run at a time; default: what memory allows, at most 256.

    Returns:
        The damage of each, (trials,); see `Damage`.
    """
    count, done = len(inputs[0]), 0
    sums, unit = np.zeros(len(trials)), 0.0
    by_place: dict[int, list[int]] = {}
    for index, trial in enumerate(trials):
        by_place.setdefault(trial.place, []).append(index)
    tails = {place: program.tail(place) for place in by_place}
    chunk = chunk or _chunk(program, inputs, list(tails.values()))
    chunks = -(-count // chunk)
    for start in range(0, count, chunk):
        given = [x[start : start + chunk] for x in inputs]
        wanted = [np.asarray(y) for y in program.run(given)]
        unit += sum(spread(y) for y in wanted)
        held = _values_at(program, given, tails)
        for place in sorted(by_place):
            tail = tails[place]
            values = [held[id(tensor)] for tensor in tail.inputs]
            for index in by_place[place]:
                with changed(trials[index].changes):
                    made = tail.run(values)
                pairs = zip(wanted, made, strict=True)
                sums[index] += sum(distance(y, np.asarray(z)) for y, z in pairs)
                done += 1
                if on_trial is not None:
                    on_trial(done / (chunks * len(trials)))
    return np.asarray(sums / max(unit, 1e-30))


def _chunk(program: Program, inputs: Sequence[Any], tails: Sequence[Program]) -> int:
    """Return how many examples are run at a time: what all tails begin with is held meanwhile."""
    held = {id(tensor): tensor for tail in tails for tensor in tail.inputs}
    begin = sum(4 * math.prod(size or 1 for size in tensor.shape[1:]) for tensor in held.values())
    live = activation_bytes(program, [x.shape[1:] for x in inputs]).live
    return current_budget().batch_size(
        int(OVERHEAD * live) + begin, most=CHUNK, what=f"the damage of model '{program.model.name}'"
    )


class changed:  # noqa: N801 - reads as a statement
    """Gives weights other values for a time."""

    def __init__(self, changes: Sequence[Change]) -> None:
        self.changes = changes
        self.saved: list[Change] = []

    def __enter__(self) -> None:
        for variable, value in self.changes:
            self.saved.append((variable, variable.numpy()))
            variable.assign(value)

    def __exit__(self, *_: object) -> None:
        for variable, value in reversed(self.saved):
            variable.assign(value)


def damages(
    coupling: Coupling,
    program: Program,
    readers: Sequence[list[Reader]],
    context: Context,
    criterion: Criterion,
    inputs: Sequence[npt.NDArray[Any]],
    told: Callable[[str, float], None],
) -> tuple[Damage, ...]:
    """Measures the damage of every group at some widths.

    Args:
        coupling, program: Of one model; the program flat.
        readers: Of each group.
        context, criterion: Choose the units that leave.
        inputs: One array an input, (examples, ...).
        told: Called with (text, share that is done).
    """
    plans = []
    for group, own in zip(coupling.groups, readers, strict=True):
        told(f"solving behind {group.name}", group.index / len(coupling.groups))
        plans.append(trials_of(coupling, program, group, own, context, criterion))
    trials = [trial for _, some, _ in plans for trial in some]

    def done(share: float) -> None:
        told("damage of thinner layers", share)

    found = measured(program, inputs, trials, done)
    ends = np.cumsum([len(some) for _, some, _ in plans])
    return tuple(
        Damage(group.name, tuple(counts), tuple(found[end - len(some) : end].tolist()), scores)
        for group, (counts, some, scores), end in zip(coupling.groups, plans, ends, strict=True)
    )


def _values_at(program: Program, given: Sequence[Any], tails: dict[int, Program]) -> dict[int, Any]:
    """Returns what the model holds where trials begin, by id of the tensor."""
    import keras

    needed = {id(tensor) for tail in tails.values() for tensor in tail.inputs}
    held = {
        id(tensor): keras.ops.convert_to_tensor(x)
        for tensor, x in zip(program.inputs, given, strict=True)
        if id(tensor) in needed
    }

    def tell(node: Node, results: Sequence[Any]) -> None:
        for tensor, value in zip(node.outputs, results, strict=True):
            if id(tensor) in needed:
                held[id(tensor)] = value

    program.run(given, tell=tell)
    return held


def trials_of(
    coupling: Coupling,
    program: Program,
    group: Group,
    readers: list[Reader],
    context: Context,
    criterion: Criterion,
    shares: Sequence[float] = SHARES,
) -> tuple[list[int], list[Trial], Scores]:
    """Returns numbers of removed units of a group, the trials that measure them, and scores.

    The units that leave are chosen by the criterion. Kernels that read the group are solved for
    without them, and the shift goes where it can.
    """
    units = len(group.units)
    counts = sorted({min(units - 1, max(1, round(share * units))) for share in shares} - {0})
    scores = context.scored(criterion, group)
    order = np.argsort(scores, kind="stable")
    return counts, without(coupling, program, group, readers, order, counts), scores


def without(
    coupling: Coupling,
    program: Program,
    group: Group,
    readers: list[Reader],
    order: npt.NDArray[np.int64],
    counts: Sequence[int],
) -> list[Trial]:
    """Returns the trials of a group without the first units of an order.

    Args:
        coupling, program: Of one model; the program flat.
        group: The group.
        readers: What reads it, to be solved for; []: what its units own is set to zero.
        order: Of its units.
        counts: Numbers of units that leave.
    """
    if not readers:
        return [_zeroed(coupling, program, group, order[:count]) for count in counts]
    kernels = eliminated(readers, len(order), counts, order).kernels
    place = min(reader.observed.place for reader in readers)
    trials = []
    for count in counts:
        changes: list[Change] = []
        for reader, kernel in zip(readers, kernels.get(count, ()), strict=count in kernels):
            changes += _changes(reader, kernel)
        trials.append(Trial(place, tuple(changes)))
    return trials


def _changes(reader: Reader, kernel: Numbers) -> list[Change]:
    observed = reader.observed
    part: Part = observed.part
    changes: list[Change] = [(part.kernel, part.array(kernel[None]).astype(np.float32))]
    if not observed.movable:
        return changes
    mean = observed.moments.means[0][0]
    shift = mean @ (observed.kernel() - kernel)
    if part.bias is not None:
        value = part.bias_vector() + shift
        changes.append((part.bias, value.reshape(part.bias.shape).astype(np.float32)))
    for absorber in observed.absorbers or () if part.bias is None else ():
        moving = absorber.layer.moving_mean
        value = moving.numpy()
        value[absorber.start : absorber.start + len(shift)] -= shift
        changes.append((moving, value))
    return changes


def _zeroed(
    coupling: Coupling, program: Program, group: Group, gone: npt.NDArray[np.int64]
) -> Trial:
    """Sets all that units own to zero: what no kernel reads alone cannot be repaired."""
    flags = np.zeros(coupling.units, bool)
    flags[group.units[gone]] = True
    values: dict[int, Change] = {}
    for binding in coupling.bindings:
        own = flags[coupling.unit[binding.ids]]
        if own.any():
            variable = binding.variable
            value = values.get(id(variable), (variable, variable.numpy()))[1]
            shape = [-1 if axis == binding.axis else 1 for axis in range(value.ndim)]
            values[id(variable)] = variable, np.where(own.reshape(shape), 0, value)
    places = (
        index
        for index, node in enumerate(program.nodes)
        if any(id(weight) in values for weight in getattr(node.operation, "weights", ()))
    )
    place = next(places, 0)
    return Trial(place, tuple(values.values()))
