"""Sampling of rows and targets for the reconstruction of layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.memory_budget import get_current_budget
from compress.model.program import Node
from compress.reconstruction.kernel_parts import KeptIndices, KernelPart, Positions
from compress.reconstruction.linear_paths import Graph, LinearPath, is_linear
from compress.reconstruction.matching import Match
from compress.reconstruction.row_products import Singles, multiply_rows
from compress.reconstruction.sums import Sample
from compress.reconstruction.tensor_store import Chunks, Store, StoredTensor

MAX_SAMPLES = 20_000
"""Default maximum number of positions per layer."""
MIN_SAMPLES, SAMPLES_PER_COLUMN = 8_000, 16
"""Positions per layer below that maximum: more of them did not improve small layers."""
MIN_SYSTEM_SAMPLES = 2_000
"""Minimum positions of a layer of several systems (depthwise), whose columns are few."""
MAX_BYTES = 512 * 2**20
"""Maximum bytes of the rows of one layer; the memory budget may allow less."""
MEMORY_SHARE = 1 / 12
"""Share of the free memory for these rows; solving with them makes copies."""
STEPS = 255
"""Number of steps between the smallest and the largest value of an int8 tensor."""


@dataclass(frozen=True, eq=False)
class Batches:
    """Calibration examples in chunks, the last of which are held out.

    Attributes:
        inputs: One array per input, (examples, ...), in random order.
        bounds: Start and stop index of each chunk.
        held_out: Whether each chunk is held out.
        count: Number of examples in all chunks.
    """

    inputs: tuple[npt.NDArray[Any], ...]
    bounds: tuple[tuple[int, int], ...]
    held_out: tuple[bool, ...]
    count: int


def count_samples(systems: int, columns: int) -> int:
    """Return the number of positions that determine a kernel of this shape well enough."""
    least = MIN_SAMPLES if systems == 1 else MIN_SYSTEM_SAMPLES
    return min(MAX_SAMPLES, max(least, SAMPLES_PER_COLUMN * columns))


class Sampler:
    """Sampler of positions, with the rows and targets there.

    Args:
        kept: Returns the kept indices of an axis of an original kernel.
        batches: Calibration examples.
        seed: Seed of the positions.
        samples: Maximum number of positions per layer, over all examples.

    Attributes:
        tensor_values: Values of tensors of both models that are needed later, by id of the tensor.
        original_inputs: Inputs of calls of the original model, by id of the node.
        linear_outputs: Outputs of the original model's calls without an activation, by id of the
            node.
    """

    def __init__(
        self, kept: KeptIndices, batches: Batches, seed: int, samples: int = MAX_SAMPLES
    ) -> None:
        self.tensor_values: dict[int, Chunks] = {}
        self.original_inputs: dict[int, list[Chunks]] = {}
        self.linear_outputs: dict[int, Chunks] = {}
        self.kept, self.batches, self.samples = kept, batches, samples
        self.rng = np.random.default_rng(seed)
        self.max_bytes = get_current_budget().compute_share(MEMORY_SHARE, MAX_BYTES)

    def sample_layer(
        self,
        match: Match,
        part: KernelPart,
        original_part: KernelPart,
        inputs: list[list[Chunks]],
        path: LinearPath | None,
    ) -> tuple[list[Sample], list[Sample]]:
        """Sample rows and targets of all calls of a layer.

        Args:
            match: The layer in both models.
            part, original_part: Its kernel in both models.
            inputs: Inputs of each call in the pruned model.
            path: Linear path after the layer; None: it was not traced.

        Returns:
            Training samples, one per call and chunk, and held-out samples, one per call. Either
            list is empty if a mask excludes all of its positions.
        """
        systems, columns, _ = part.read_weights().shape
        most = min(int(self.max_bytes // (4 * systems * columns)), count_samples(systems, columns))
        max_positions = max(1, most) // len(match.calls)
        train: list[Sample] = []
        held_out: list[Sample] = []
        for node, values in zip(match.original_calls, inputs, strict=True):
            call_samples: list[Sample] = []
            for index, is_held_out in enumerate(self.batches.held_out):
                x = (
                    select_sequences(values, index)
                    if part.uses_original_states
                    else values[0][index]
                )
                # the positions of a recurrent layer are those of its input
                outputs = (
                    x.blank
                    if part.uses_original_states
                    else part.create_blank_output(x.blank.shape)
                )
                positions = self.sample_positions(part, x, outputs, max_positions)
                if not len(positions[0]):
                    continue
                if part.uses_original_states:
                    original_value = select_sequences(self.original_inputs[id(node)], index)
                    pair = part.build_pairs(original_part, x, original_value, positions, self.kept)
                    rows, target_rows = (side.astype(np.float32, copy=False) for side in pair)
                    sample = Sample(rows, target_rows)
                else:
                    rows = part.extract_rows(x.array, outputs, positions).astype(
                        np.float32, copy=False
                    )
                    targets = self.build_targets(node, part, original_part, index, positions, path)
                    sample = Sample(rows, *targets, estimate_rounding_noise(rows))
                (call_samples if is_held_out else train).append(sample)
            if call_samples:
                held_out.append(Sample.concat(call_samples))
        return train, held_out

    def build_targets(
        self,
        node: Node,
        part: KernelPart,
        original_part: KernelPart,
        index: int,
        positions: Positions,
        path: LinearPath | None,
    ) -> tuple[Singles, Singles | None]:
        """Return the targets of a kernel alone, and the values that the path adds to its outputs.

        Args:
            node: Call of the layer in the original model.
            part, original_part: Kernel in the pruned and in the original model.
            index: Index of the chunk.
            positions: Positions in the chunk.
            path: Linear path after the layer; None: it was not traced.

        Returns:
            Targets, and the values added before the activation (None without a path), both (rows,
            channels).
        """
        kept, cached_outputs = (
            original_part.find_kept_channels(self.kept),
            self.linear_outputs.get(id(node)),
        )
        if (
            cached_outputs is not None
            and part.name != "depthwise"
            and not original_part.has_position_bias
        ):
            outputs = original_part.extract_outputs(cached_outputs[index].array, positions)[:, kept]
        else:
            value = self.original_inputs[id(node)][0][index]
            rows = original_part.extract_rows(
                value.array, original_part.create_blank_output(value.blank.shape), positions
            )
            outputs = multiply_rows(rows, original_part.read_weights())[:, kept]
            outputs = outputs + original_part.read_bias()[kept].astype(np.float32)
        return self._fold_path(path, part, outputs, index, positions)

    def _fold_path(
        self,
        path: LinearPath | None,
        part: KernelPart,
        outputs: npt.NDArray[Any],
        index: int,
        positions: Positions,
    ) -> tuple[Singles, Singles | None]:
        """Return the targets behind the linear path and the values added there, both by rows.

        The targets are those of the kernel alone: offset and addends are subtracted.
        """
        outputs = outputs.astype(np.float32, copy=False)
        if path is None:
            return outputs, None
        targets = outputs * path.original_gain + path.original_offset
        base = np.broadcast_to(path.offset, targets.shape)
        channel_count = len(path.gain)
        for addend in path.addends:
            original_rows = part.extract_outputs(
                self.tensor_values[id(addend.original)][index].array, positions
            )
            pruned_rows = part.extract_outputs(
                self.tensor_values[id(addend.pruned)][index].array, positions
            )
            targets = targets + addend.gains[1] * original_rows[:, addend.kept]
            base = (
                base + addend.gains[0] * pruned_rows[:, addend.start : addend.start + channel_count]
            )
        return (targets - base).astype(np.float32), base.astype(np.float32)

    def sample_positions(
        self, part: KernelPart, x: StoredTensor, outputs: npt.NDArray[Any], max_positions: int
    ) -> Positions:
        """Draw positions of every example of a chunk, without those excluded by a mask.

        Args:
            part: Kernel of the layer.
            x: Inputs of the chunk.
            outputs: Array of the output's shape.
            max_positions: Maximum number of positions over all examples; at least one is drawn from
                each example.
        """
        position_count = part.count_positions(outputs)
        samples = min(self.samples, max_positions)
        count, per_example = (
            len(outputs),
            min(position_count, max(1, -(-samples // self.batches.count))),
        )
        examples = np.repeat(np.arange(count), per_example)
        if per_example == position_count:
            drawn = np.tile(np.arange(position_count), count)
        else:
            order = self.rng.random((count, position_count), np.float32)
            drawn = np.argpartition(order, per_example, axis=1)[:, :per_example].ravel()
        if x.mask is not None:
            mask = np.asarray(x.mask).reshape(count, -1)
            if mask.shape[1] == position_count:
                inside = mask[examples, drawn]
                return examples[inside], drawn[inside]
        return examples, drawn

    def sample_windows(
        self, grid: tuple[int, ...], example_count: int, position_count: int, window_size: int
    ) -> Positions:
        """Draw windows of adjacent positions from every example of a chunk.

        Args:
            grid: Sizes of the grid of positions.
            example_count: Number of examples of the chunk.
            position_count: Approximate number of positions over the examples of all chunks.
            window_size: Positions of a window; windows are cut at the border.
        """
        window = compute_window(grid, window_size)
        inside = math.prod(s * w / (s + w - 1) for s, w in zip(grid, window, strict=True))
        is_sampled = np.zeros((example_count, *grid), bool)
        offsets = np.indices(window).reshape(len(window), -1)
        for _ in range(max(1, round(position_count / self.batches.count / inside))):
            corner = [
                self.rng.integers(1 - w, s, example_count)
                for s, w in zip(grid, window, strict=True)
            ]
            at = [c[:, None] + o for c, o in zip(corner, offsets, strict=True)]
            fits = np.all([(a >= 0) & (a < s) for a, s in zip(at, grid, strict=True)], axis=0)
            example = np.broadcast_to(np.arange(example_count)[:, None], fits.shape)
            is_sampled[(example[fits], *[a[fits] for a in at])] = True
        examples, positions = np.nonzero(is_sampled.reshape(example_count, -1))
        return examples, positions


@dataclass(eq=False)
class RecordedOutputs:
    """Outputs of all calls of the original model, for reconstructions on the same examples.

    Attributes:
        chunks: Outputs of each call, by its index in the program.
        bounds: Start and stop index of each chunk of examples.
        store: Storage of the outputs, all in memory.
    """

    chunks: dict[int, list[Chunks]] = field(default_factory=dict)
    bounds: tuple[tuple[int, int], ...] = ()
    store: Store = field(default_factory=lambda: Store(2**62))

    def require_bounds(self, bounds: tuple[tuple[int, int], ...]) -> None:
        """Forget the outputs if they belong to other chunks of examples."""
        if bounds != self.bounds:
            self.chunks.clear()
            self.bounds = bounds


class ProgramRun:
    """Step-by-step run of a program on all chunks.

    Args:
        graph: Graph of the program.
        inputs: Inputs of the model.
        sampler: Stores the values that are needed later.
        needed: Ids of the tensors with these values.
        call: Runs a call on every chunk.
        calls: Ids of the calls of the original model with inputs that are needed later.
        order: Order of the calls, in steps; default: one by one.

    Attributes:
        pending: Calls of the next step with their inputs; None at the end.
        calls_done: Number of calls that were run.
        outputs: Outputs of the model, at the end.
    """

    def __init__(
        self, graph: Graph, inputs: list[Chunks], sampler: Sampler, needed: set[int],
        call: Callable[[Node, list[Chunks]], list[Chunks]], *, calls: Set[int] = frozenset(),
        order: Sequence[Sequence[Node]] | None = None,
    ) -> None:  # fmt: skip
        self.graph, self.sampler, self.needed = graph, sampler, needed
        self.call, self.calls = call, calls
        self.calls_done = 0
        self.outputs: list[Chunks] = []
        self._record_values(graph.program.inputs, inputs)
        self._steps = graph.program.iterate_steps(inputs, order)
        self.pending: list[tuple[Node, list[Any]]] | None = next(self._steps)

    def _record_values(self, tensors: Sequence[Any], values: Sequence[Any]) -> None:
        for tensor, value in zip(tensors, values, strict=True):
            if id(tensor) in self.needed:
                self.sampler.tensor_values[id(tensor)] = value

    def step(self) -> None:
        """Run the calls of the next step."""
        pending, self.pending = self.pending or [], None
        results: list[Sequence[Any]] = [self.call(*request) for request in pending]
        for (node, inputs), outputs in zip(pending, results, strict=True):
            if id(node) in self.calls:
                self.sampler.original_inputs[id(node)] = inputs
                if is_linear(getattr(node.operation, "activation", None)):
                    self.sampler.linear_outputs[id(node)] = outputs[0]
            self._record_values(node.outputs, outputs)
        self.calls_done += len(pending)
        del pending, inputs
        try:
            self.pending = self._steps.send(results)
        except StopIteration as end:
            self.outputs = list(end.value)

    def run_until(self, match: Match, path: LinearPath | None) -> None:
        """Run the original model past the calls of a layer and of the addends on its path."""
        indices = [self.graph.call_index[id(node)] for node in match.original_calls]
        indices += [
            self.graph.producer_index[id(addend.original)]
            for addend in (path.addends if path else ())
        ]
        while self.pending is not None and self.calls_done <= max(indices):
            self.step()


def select_sequences(values: list[Chunks], index: int) -> StoredTensor:
    """Return the input sequences of a recurrent layer, with the mask from its second input."""
    x = values[0][index]
    return x.with_mask(values[1][index].tensor) if len(values) > 1 else x


def compute_window(grid: tuple[int, ...], size: int) -> tuple[int, ...]:
    """Return the sizes of a window of about `size` positions, equal on all axes."""
    side = max(1, round(size ** (1 / len(grid))))
    return tuple(min(side, axis) for axis in grid)


def estimate_rounding_noise(rows: Singles) -> float:
    """Return the variance of the int8 rounding error of each element.

    Args:
        rows: Values of one tensor; the quantization range covers them and 0.

    Example:
        >>> estimate_rounding_noise(np.float32([0, 255])) * 12
        1.0
    """
    step = (max(0.0, float(rows.max())) - min(0.0, float(rows.min()))) / STEPS
    return step**2 / 12
