"""Output errors of thinner models, reconstructed on a few examples: of one group, or of all."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import taken
from compress.core.errors import InputError
from compress.core.memory_budget import current_budget
from compress.core.summary import OnProgress, silent
from compress.data import drawn_inputs
from compress.measure.quality import distance, divergence, spread
from compress.model.activations import OVERHEAD, activation_bytes, outputs_of
from compress.model.ports import listed
from compress.model.program import Node, Program, flat
from compress.model.recording import record
from compress.prune.channels.coupling.blocks import Block, blocks_of
from compress.prune.channels.coupling.groups import Coupling, Group, Mask
from compress.prune.channels.coupling.slots import Numbers
from compress.prune.channels.criteria import Context, Criterion
from compress.prune.channels.criteria.reconstruction import Reader, all_readers, eliminated
from compress.prune.channels.selection.sensitivity import (
    BlockSensitivity,
    GroupSensitivity,
    SensitivityMap,
    removed_counts,
)
from compress.prune.channels.surgery import kept_indices, sliced_model
from compress.reconstruction import repair
from compress.reconstruction.kinds import Part
from compress.reconstruction.matching import opens
from compress.reconstruction.repairing import FEWEST

CHUNK = 256
"""Examples that are run at a time, where the memory budget allows."""
Change = tuple[Any, npt.NDArray[Any]]
"""A weight and the value that it has for a time."""

JUDGED = 500
"""Examples on which outputs are compared, at most; at most half of all."""
FEW_EXAMPLES = 300
FEW_SAMPLES = 4000
QUICK: dict[str, Any] = {"examples": FEW_EXAMPLES, "samples": FEW_SAMPLES, "joint": False}
"""Settings of a quick reconstruction, which the output error of a thinner model is judged by."""
TIMED = 64
"""Examples that a forward pass is timed on."""


@dataclass(frozen=True, eq=False)
class Trial:
    """Weights to be changed for a time, and the first call that they matter to."""

    place: int
    changes: tuple[Change, ...]


def measured(
    program: Program,
    inputs: Sequence[npt.NDArray[Any]],
    trials: Sequence[Trial],
    on_trial: Callable[[float], None],
) -> Numbers:
    """Measure the output error of each trial: one pass, and a partial one a trial.

    Args:
        program: A flat program; its weights are as before when this returns.
        inputs: One array an input, (examples, ...).
        trials: What is changed, one at a time.
        on_trial: Told the share of the trials that is done, chunk by chunk.

    Returns:
        The output error of each, (trials,); see `compress.measure.quality`.
    """
    count, done = len(inputs[0]), 0
    sums, unit = np.zeros(len(trials)), 0.0
    by_place: dict[int, list[int]] = {}
    for index, trial in enumerate(trials):
        by_place.setdefault(trial.place, []).append(index)
    tails = {place: program.tail(place) for place in by_place}
    chunk = _chunk(program, inputs, list(tails.values()))
    chunks = -(-count // chunk)
    for start in range(0, count, chunk):
        given = [x[start : start + chunk] for x in inputs]
        wanted = [np.asarray(y) for y in program.run(given)]
        unit += sum(spread(y) for y in wanted)
        held = _values_at(program, given, tails)
        for place, indices in sorted(by_place.items()):
            tail = tails[place]
            values = [held[id(tensor)] for tensor in tail.inputs]
            for index in indices:
                with changed(trials[index].changes):
                    made = tail.run(values)
                sums[index] += sum(
                    distance(y, np.asarray(z)) for y, z in zip(wanted, made, strict=True)
                )
                done += 1
                on_trial(done / (chunks * len(trials)))
    return np.asarray(sums / max(unit, 1e-30))


def _chunk(program: Program, inputs: Sequence[Any], tails: Sequence[Program]) -> int:
    """Return the number of examples at a time: the inputs of all tails are held meanwhile."""
    held = {id(tensor): tensor for tail in tails for tensor in tail.inputs}
    begin = sum(4 * math.prod(size or 1 for size in tensor.shape[1:]) for tensor in held.values())
    live = activation_bytes(program, [x.shape[1:] for x in inputs]).live
    return current_budget().batch_size(
        int(OVERHEAD * live) + begin, most=CHUNK, what=f"the damage of model '{program.model.name}'"
    )


@contextmanager
def changed(changes: Sequence[Change]) -> Iterator[None]:
    """Assign other values to weights for a time."""
    saved = [(variable, variable.numpy()) for variable, _ in changes]
    try:
        for variable, value in changes:
            variable.assign(value)
        yield
    finally:
        for variable, value in saved:
            variable.assign(value)


def measure_sensitivity(
    coupling: Coupling,
    context: Context,
    criterion: Criterion,
    judge: Judge,
    *,
    blocks: bool = False,
    on_progress: OnProgress | None = None,
) -> SensitivityMap:
    """Measure the output error where one group is thinned, or one block is removed.

    One pass collects what kernels read; then a partial pass for each width of each group, from
    the first layer on that reads it, with these layers reconstructed. A model without a block is
    reconstructed whole.

    Args:
        coupling: Of the model, whose weights are as before when this returns.
        context: Data and what the criterion sees.
        criterion: Orders the channels of a group.
        judge: Of the same model and data.
        blocks: Measure blocks too.
        on_progress: Called with (text, share that is done).
    """
    readers, told = context.of_all(all_readers), on_progress or silent
    plans = []
    for group, own in zip(coupling.groups, readers, strict=True):
        told(f"solving behind {group.name}", group.index / len(coupling.groups))
        scores = context.scored(criterion, group)
        counts = sorted({*removed_counts(len(scores))} - {0})
        order = np.argsort(scores, kind="stable")
        trials = trials_of(coupling, judge.program, group, own, order, counts)
        plans.append((group.name, counts, trials, scores))
    errors = iter(
        measured(
            judge.program,
            judge.judged,
            [trial for _, _, trials, _ in plans for trial in trials],
            lambda share: told("damage of thinner layers", share),
        ).tolist()
    )
    groups = tuple(
        GroupSensitivity(
            name, tuple(counts), tuple(islice(errors, len(counts))), tuple(scores.tolist())
        )
        for name, counts, _, scores in plans
    )
    missing = []
    for block in blocks_of(coupling) if blocks else ():
        told(f"damage without {block.name}", block.index / len(blocks_of(coupling)))
        error = judge.damage(np.ones(coupling.units, bool), [block])
        missing.append(BlockSensitivity(block.name, error))
    return SensitivityMap(groups, tuple(missing))


def _values_at(program: Program, given: Sequence[Any], tails: dict[int, Program]) -> dict[int, Any]:
    """Return the tensors that trials begin with, by id."""
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
    order: npt.NDArray[np.int64],
    counts: Sequence[int],
) -> list[Trial]:
    """Return the trials of a group without the first units of an order.

    Kernels that read the group are reconstructed without them, and the shift goes where it can.

    Args:
        coupling, program: Of one model; the program flat.
        group: The group.
        readers: What reads it; []: what its units own is set to zero.
        order: Of its units.
        counts: Numbers of units that are removed.
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
    shift = observed.moments.means[0][0] @ (observed.kernel() - kernel)
    if part.bias is not None:
        value = part.bias_vector() + shift
        return [*changes, (part.bias, value.reshape(part.bias.shape).astype(np.float32))]
    for absorber in observed.absorbers or ():
        moving = absorber.layer.moving_mean
        value = moving.numpy()
        value[absorber.start : absorber.start + len(shift)] -= shift
        changes.append((moving, value))
    return changes


def _zeroed(
    coupling: Coupling, program: Program, group: Group, gone: npt.NDArray[np.int64]
) -> Trial:
    """Set all weights of units to zero, where no kernel alone reads them."""
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
    return Trial(next(places, 0), tuple(values.values()))


class Judge:
    """Judge of thinner models: reconstructed on a few examples, compared on others.

    Args:
        coupling: Of the model.
        context: Data, and the seed of what is drawn of them.

    Raises:
        InputError: There are no data, or they do not fit the model.

    Attributes:
        program: Of the model, flat.
        examples: How many there are in all.
        holds_back: Whether they are enough to hold some back from reconstruction.
        judged: Inputs on which outputs are compared, held back where that is so.
    """

    def __init__(self, coupling: Coupling, context: Context) -> None:
        if context.data is None:
            raise InputError("Channel scope 'damage' must have data to look at. Give data=.")
        self.program = flat(record(coupling.program.model, opens))
        self.coupling, self.seed = coupling, context.seed
        self.examples = min(context.examples, len(context.data.train))
        x = drawn_inputs(context.data, context.examples, context.seed)
        held = min(JUDGED, self.examples // 2)
        self.holds_back = held >= FEWEST
        judged = taken(x, slice(held if self.holds_back else JUDGED))
        self.judged: list[npt.NDArray[Any]] = listed(coupling.program.model, judged)
        self.x = taken(x, slice(held, None)) if self.holds_back else x

    @cached_property
    def _wanted(self) -> list[npt.NDArray[Any]]:
        return outputs_of(self.program, self.judged)

    def time_example(self) -> float:
        """Return the seconds that a forward pass of one example takes, among others."""
        few = [x[:TIMED] for x in self.judged]
        outputs_of(self.program, few)  # the first pass builds what later ones use again
        began = time.perf_counter()
        outputs_of(self.program, few)
        return (time.perf_counter() - began) / len(few[0])

    def damage(self, mask: Mask, blocks: Sequence[Block] = (), *, thorough: bool = False) -> float:
        """Return the output error of a kept set, all layers reconstructed.

        Args:
            mask: Kept units.
            blocks: That are removed.
            thorough: Reconstruct as the model that is kept will be, on all examples that are not
                held back; else on few, which tells neighbouring configurations apart.
        """
        small = sliced_model(self.coupling, mask, blocks)
        repair(
            small,
            self.coupling.program.model,
            self.x,
            kept=kept_indices(self.coupling, mask, blocks),
            seed=self.seed,
            **({} if thorough else QUICK),
        )
        return divergence(self._wanted, outputs_of(record(small), self.judged))
