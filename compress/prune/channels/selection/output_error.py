"""Output errors of pruned models that are reconstructed on a few examples."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compress.core.arrays import take_examples
from compress.core.errors import InputError
from compress.core.lazy_modules import keras
from compress.core.linux import keep_freed_memory
from compress.core.memory_budget import get_current_budget
from compress.core.summary import OnProgress, ignore_progress
from compress.data import sample_inputs
from compress.measure.file_agreement import compute_distance, compute_divergence, compute_normalizer
from compress.model.activations import OVERHEAD, count_activation_bytes, run_in_batches
from compress.model.layer_patches import restore_values, use_fused_batch_norm
from compress.model.ports import flatten_inputs
from compress.model.program import Node, Program, flatten_program
from compress.model.recording import record_program
from compress.prune.channels.coupling.blocks import Block, list_blocks
from compress.prune.channels.coupling.groups import Coupling, Group, Mask
from compress.prune.channels.coupling.slots import Numbers
from compress.prune.channels.criteria import Context, Criterion
from compress.prune.channels.criteria.reconstruction import (
    Elimination,
    KeptEliminations,
    Reader,
    collect_readers,
    eliminate_units,
)
from compress.prune.channels.selection.sensitivity import (
    SHARES,
    BlockSensitivity,
    GroupSensitivity,
    SensitivityMap,
    list_removed_counts,
)
from compress.prune.channels.surgery import build_pruned_model, compute_kept_indices
from compress.reconstruction import repair
from compress.reconstruction.kernel_parts import KernelPart
from compress.reconstruction.matching import should_open
from compress.reconstruction.repairing import MIN_EXAMPLES, reconstruct
from compress.reconstruction.sampling import RecordedOutputs

CHUNK = 256
"""Number of examples run at a time, if the memory budget allows it."""
Change = tuple[Any, npt.NDArray[Any]]
"""A weight and its temporary value."""

MIN_SENSITIVITY_EXAMPLES, SENSITIVITY_EXAMPLES = 16, 160
"""Number of these examples on which each layer at each channel count is evaluated."""
SENSITIVITY_BYTES = 6e10
"""Activations computed for these evaluations, which determine the number between both."""
EVALUATION_EXAMPLES = 500
"""Maximum number of examples on which outputs are compared; at most half if they are held back."""
QUICK_EXAMPLES, QUICK_SAMPLES = 300, 4000
"""Number of examples, and of rows of each kernel's inputs, of a quick reconstruction."""
RECORDED_SHARE, MAX_RECORDED_BYTES = 1 / 8, 2**30
"""Share of the free memory, and bytes, for the original model's outputs of all calls."""
TIMING_EXAMPLES, SLOW_TIMING_EXAMPLES, SLOW_SECONDS = (8, 32), (2, 8), 0.5
"""Numbers of examples of the forward passes that are timed, those for slow models, and the seconds
of the first pass from which a model is slow."""
TIMING_REPEATS = 2
"""Number of times that each of these passes is timed; the shortest counts."""


@dataclass(frozen=True, eq=False)
class Perturbation:
    """Temporary changes of weights, and the first call that they affect.

    Attributes:
        first_call: Index of the first affected call in the flat program.
        changes: Weights with their temporary values.
    """

    first_call: int
    changes: tuple[Change, ...]


def measure_perturbations(
    program: Program,
    inputs: Sequence[npt.NDArray[Any]],
    perturbations: Sequence[Perturbation],
    on_share: Callable[[float], None],
) -> Numbers:
    """Measure the output error of each perturbation by a partial pass after one full pass.

    Args:
        program: A flat program; its weights are restored on return.
        inputs: One array for each input, (examples, ...).
        perturbations: Changes, which are applied one at a time.
        on_share: Called with the completed share.

    Returns:
        The output error of each perturbation, (perturbations,); see
        `compress.measure.file_agreement`.
    """
    count = len(inputs[0])
    sums, unit = np.zeros(len(perturbations)), 0.0
    by_first_call: dict[int, list[int]] = {}
    for index, perturbation in enumerate(perturbations):
        by_first_call.setdefault(perturbation.first_call, []).append(index)
    tails = {first_call: program.slice_from(first_call) for first_call in by_first_call}
    tail_inputs = {id(tensor): tensor for tail in tails.values() for tensor in tail.inputs}
    tail_bytes = sum(
        4 * math.prod(size or 1 for size in tensor.shape[1:]) for tensor in tail_inputs.values()
    )
    live = count_activation_bytes(program, [x.shape[1:] for x in inputs]).live
    chunk = get_current_budget().find_batch_size(
        int(OVERHEAD * live) + tail_bytes,
        max_examples=CHUNK,
        purpose=f"the output error of model '{program.model.name}'",
    )
    chunks = -(-count // chunk)
    for chunk_index, start in enumerate(range(0, count, chunk)):
        chunk_inputs = [x[start : start + chunk] for x in inputs]
        reference_outputs = [np.asarray(y) for y in program.run(chunk_inputs)]
        unit += sum(compute_normalizer(y) for y in reference_outputs)
        tail_values, call_seconds = _collect_values(program, chunk_inputs, tail_inputs)
        # a pass from an early layer takes longer than one from a late layer
        seconds = {first_call: sum(call_seconds[first_call:]) for first_call in tails}
        total = max(1e-9, sum(seconds[item.first_call] for item in perturbations))
        done = 0.0
        for first_call, indices in sorted(by_first_call.items()):
            tail = tails[first_call]
            values = [tail_values[id(tensor)] for tensor in tail.inputs]
            for index in indices:
                changes = perturbations[index].changes
                with restore_values(variable for variable, _ in changes):
                    for variable, value in changes:
                        variable.assign(value)
                    perturbed_outputs = tail.run(values)
                sums[index] += sum(
                    compute_distance(y, np.asarray(z))
                    for y, z in zip(reference_outputs, perturbed_outputs, strict=True)
                )
                done += seconds[first_call]
                on_share(min(1.0, (chunk_index + done / total) / chunks))
    return np.asarray(sums / max(unit, 1e-30))


def measure_sensitivity(
    coupling: Coupling,
    context: Context,
    criterion: Criterion,
    evaluator: ErrorEvaluator,
    *,
    blocks: bool = False,
    on_progress: OnProgress | None = None,
) -> SensitivityMap:
    """Measure the output error for each pruned group and, if requested, each removed block.

    One full pass collects the second moments of kernel inputs. Then, for each channel count of each
    group, a partial pass runs from the first layer that reads the group, with these layers
    reconstructed. A model without a block is reconstructed completely.

    Args:
        coupling: Coupling of the model; the model's weights are restored on return.
        context: Data and context of the criterion.
        criterion: Criterion that orders the channels of a group.
        evaluator: Evaluator of the same model and data.
        blocks: Whether to measure blocks too.
        on_progress: Called with (text, completed share).

    Raises:
        InputError: There is no data, or the criterion did not return one finite number for each
            unit.
    """
    report_progress = on_progress or ignore_progress
    report_progress("observing the inputs of layers", 0.0)
    readers = context.compute_once(collect_readers)
    report_progress("observing the inputs of layers", 1.0)
    plans = []
    kept = context.compute_once(KeptEliminations)
    kept.list_counts = list_removed_counts
    # multiplications to remove the units of each group one after another
    shapes = [[reader.kernel.shape for reader in group_readers] for group_readers in readers]
    efforts = np.cumsum([0.0, *(sum(c**2 * (c + m) for c, m in group) for group in shapes)])
    for group, group_readers in zip(coupling.groups, readers, strict=True):
        share = float(efforts[group.index] / max(efforts[-1], 1.0))
        report_progress(f"solving behind {group.name}", share)
        scores = context.score(criterion, group)
        counts = sorted({*list_removed_counts(len(scores))} - {0})
        order = np.argsort(scores, kind="stable")
        perturbations = build_perturbations(
            coupling, evaluator.program, group, group_readers, order, counts,
            kept.by_group.pop(group.index, None),
        )  # fmt: skip
        plans.append((group.name, counts, perturbations, scores))
    kept.list_counts = None
    count = evaluator.count_sensitivity_examples()
    errors = iter(
        measure_perturbations(
            evaluator.program,
            [x[:count] for x in evaluator.evaluation_inputs],
            [perturbation for _, _, perturbations, _ in plans for perturbation in perturbations],
            lambda share: report_progress("output error of thinner layers", share),
        ).tolist()
    )
    groups = tuple(
        GroupSensitivity(
            name, tuple(counts), tuple(islice(errors, len(counts))), tuple(scores.tolist())
        )
        for name, counts, _, scores in plans
    )
    missing = []
    for block in list_blocks(coupling) if blocks else ():
        report_progress(
            f"output error without {block.name}", block.index / len(list_blocks(coupling))
        )
        error = evaluator.measure_error(np.ones(coupling.unit_count, bool), [block])
        missing.append(BlockSensitivity(block.name, error))
    return SensitivityMap(groups, tuple(missing))


def _collect_values(
    program: Program, inputs: Sequence[Any], needed: Container[int]
) -> tuple[dict[int, Any], list[float]]:
    """Return the tensors that partial passes start from, by id, and the seconds of each call."""
    values = {
        id(tensor): keras.ops.convert_to_tensor(x)
        for tensor, x in zip(program.inputs, inputs, strict=True)
        if id(tensor) in needed
    }
    ends = [time.perf_counter()]

    def record_values(node: Node, results: Sequence[Any]) -> None:
        ends.append(time.perf_counter())
        for tensor, value in zip(node.outputs, results, strict=True):
            if id(tensor) in needed:
                values[id(tensor)] = value

    program.run(inputs, after_call=record_values)
    return values, np.diff(ends).tolist()


def build_perturbations(
    coupling: Coupling,
    program: Program,
    group: Group,
    readers: list[Reader],
    order: npt.NDArray[np.int64],
    counts: Sequence[int],
    elimination: Elimination | None = None,
) -> list[Perturbation]:
    """Return the perturbations that remove the first units of an order from a group.

    Kernels that read the group are reconstructed without these units. The mean shift of their
    outputs is compensated by the bias, or by the moving mean of a normalization that follows.

    Args:
        coupling, program: Coupling and flat program of the same model.
        group: The group.
        readers: Kernels that read the group; if there are none, all weights of the removed units
            are set to zero.
        order: Order of removal of its units.
        counts: Numbers of removed units, one for each perturbation.
        elimination: Elimination that scored the group, with kernels at these counts; it is used if
            its order is the same.
    """
    if not readers:
        return [_zero_units(coupling, program, group, order[:count]) for count in counts]
    if elimination is None or not np.array_equal(elimination.order, order):
        elimination = eliminate_units(readers, len(order), counts, order)
    first_call = min(reader.observed.call_index for reader in readers)
    perturbations = []
    for count in counts:
        pairs = zip(
            readers, elimination.kernels.get(count, ()), strict=count in elimination.kernels
        )
        changes = (change for pair in pairs for change in _compute_changes(*pair))
        perturbations.append(Perturbation(first_call, tuple(changes)))
    return perturbations


def _compute_changes(reader: Reader, kernel: Numbers) -> list[Change]:
    observed = reader.observed
    part: KernelPart = observed.part
    changes: list[Change] = [(part.kernel, part.from_matrix(kernel[None]).astype(np.float32))]
    if not observed.can_shift:
        return changes
    shift = observed.moments.means[0][0] @ (observed.read_kernel() - kernel)
    if part.bias is not None:
        value = part.read_bias() + shift
        return [*changes, (part.bias, value.reshape(part.bias.shape).astype(np.float32))]
    for absorber in observed.absorbers or ():
        moving = absorber.layer.moving_mean
        value = moving.numpy()
        value[absorber.start : absorber.start + len(shift)] -= shift
        changes.append((moving, value))
    return changes


def _zero_units(
    coupling: Coupling, program: Program, group: Group, removed: npt.NDArray[np.int64]
) -> Perturbation:
    """Return the perturbation that sets all weights of the removed units to zero."""
    flags = np.zeros(coupling.unit_count, bool)
    flags[group.units[removed]] = True
    values: dict[int, Change] = {}
    for binding in coupling.bindings:
        is_removed = flags[coupling.unit_of_slot[binding.ids]]
        if is_removed.any():
            variable = binding.variable
            value = values.get(id(variable), (variable, variable.numpy()))[1]
            shape = [-1 if axis == binding.axis else 1 for axis in range(value.ndim)]
            values[id(variable)] = variable, np.where(is_removed.reshape(shape), 0, value)
    call_indices = (
        index
        for index, node in enumerate(program.nodes)
        if any(id(weight) in values for weight in getattr(node.operation, "weights", ()))
    )
    return Perturbation(next(call_indices, 0), tuple(values.values()))


class PassTime(NamedTuple):
    """Time of a forward pass in seconds: of any pass, and of each example."""

    overhead: float
    example: float

    def predict(self, examples: float, passes: float = 1.0) -> float:
        """Return the time of passes over this many examples together."""
        return passes * self.overhead + examples * self.example


class ErrorEvaluator:
    """Evaluator of pruned models: reconstructs them on some examples, compares them on others.

    Args:
        coupling: Coupling of the original model.
        context: Data, and seed of the drawn examples.

    Raises:
        InputError: There is no data, or it does not fit the model.

    Attributes:
        program, coupling: Flat program and coupling of the original model.
        seed: Seed of the drawn examples.
        example_count: Number of drawn examples.
        has_holdout: Whether there are enough examples to hold some back from reconstruction.
        evaluation_inputs: Inputs on which outputs are compared; held back if `has_holdout`.
        calibration_inputs: Inputs on which models are reconstructed.
    """

    def __init__(self, coupling: Coupling, context: Context) -> None:
        if context.data is None:
            raise InputError("Channel scope 'output_error' must have data to look at. Give data=.")
        self.program = flatten_program(record_program(coupling.program.model, should_open))
        self.coupling, self.seed = coupling, context.seed
        self.example_count = min(context.examples, len(context.data.train))
        x = sample_inputs(context.data, context.examples, context.seed)
        holdout_size = min(EVALUATION_EXAMPLES, self.example_count // 2)
        self.has_holdout = holdout_size >= MIN_EXAMPLES
        evaluated = slice(holdout_size if self.has_holdout else EVALUATION_EXAMPLES)
        self.evaluation_inputs: list[npt.NDArray[Any]] = flatten_inputs(
            coupling.program.model, take_examples(x, evaluated)
        )
        self.calibration_inputs = (
            take_examples(x, slice(holdout_size, None)) if self.has_holdout else x
        )

    @cached_property
    def _reference_outputs(self) -> list[npt.NDArray[Any]]:
        return run_in_batches(self.program, self.evaluation_inputs)

    @cached_property
    def _recorded_outputs(self) -> RecordedOutputs | None:
        """Outputs of the original model for quick reconstructions; None if they are too large."""
        examples = min(QUICK_EXAMPLES, self.example_count)
        needed = examples * self._activation_bytes
        fits = get_current_budget().can_hold(needed, RECORDED_SHARE)
        return RecordedOutputs() if fits and needed <= MAX_RECORDED_BYTES else None

    def release_outputs(self) -> None:
        """Release the recorded outputs; the next quick reconstruction records them anew."""
        self.__dict__.pop("_recorded_outputs", None)

    def time_passes(self) -> PassTime:
        """Return the time of forward passes, measured on a small and a larger batch.

        Each is timed twice, and the shorter time counts: what else the machine did does not.
        """
        began = time.perf_counter()  # of a warm-up
        run_in_batches(self.program, [x[: TIMING_EXAMPLES[0]] for x in self.evaluation_inputs])
        is_slow = time.perf_counter() - began > SLOW_SECONDS
        counts = SLOW_TIMING_EXAMPLES if is_slow else TIMING_EXAMPLES
        batches = [[x[:count] for x in self.evaluation_inputs] for count in counts]
        times: list[list[float]] = [[], []]
        for _ in range(TIMING_REPEATS):
            for seconds, batch in zip(times, batches, strict=True):
                began = time.perf_counter()
                run_in_batches(self.program, batch)
                seconds.append(time.perf_counter() - began)
        (small, large), (few, many) = map(min, times), (len(batch[0]) for batch in batches)
        slope = (large - small) / max(1, many - few)
        example = slope if slope > 0 else large / many
        return PassTime(max(0.0, small - few * example), example)

    def count_trials(self) -> int:
        """Return the number of evaluations of single groups, each at several channel counts."""
        return sum(min(len(SHARES), len(group.units) - 1) for group in self.coupling.groups)

    def count_sensitivity_examples(self) -> int:
        """Return the number of examples for these evaluations, fewer if activations are large."""
        # on average an evaluation runs half of the model
        per_example = self.count_trials() * self._activation_bytes / 2
        affordable = int(SENSITIVITY_BYTES / max(per_example, 1))
        most = min(SENSITIVITY_EXAMPLES, len(self.evaluation_inputs[0]))
        return min(most, max(MIN_SENSITIVITY_EXAMPLES, affordable))

    @cached_property
    def _activation_bytes(self) -> int:
        """Bytes of all activations of one example."""
        shapes = [x.shape[1:] for x in self.evaluation_inputs]
        return count_activation_bytes(self.program, shapes).total

    def measure_error(
        self, mask: Mask, blocks: Sequence[Block] = (), *, thorough: bool = False
    ) -> float:
        """Return the output error of a pruned model with all layers reconstructed.

        Args:
            mask: True for kept units, (units,).
            blocks: Blocks that are removed.
            thorough: Whether to reconstruct as for the final model, on all examples that are not
                held back, instead of a few, which suffice to compare neighbours.
        """
        pruned_model = build_pruned_model(self.coupling, mask, blocks)
        kept = compute_kept_indices(self.coupling, mask, blocks)
        original, x = self.coupling.program.model, self.calibration_inputs
        if thorough:
            repair(pruned_model, original, x, kept=kept, seed=self.seed)
        else:
            reconstruct(
                pruned_model, original, x, kept=kept, seed=self.seed, examples=QUICK_EXAMPLES,
                samples=QUICK_SAMPLES, joint=False, recorded=self._recorded_outputs,
            )  # fmt: skip
        with keep_freed_memory(), use_fused_batch_norm(pruned_model):
            outputs = run_in_batches(record_program(pruned_model), self.evaluation_inputs)
        return compute_divergence(self._reference_outputs, outputs)
