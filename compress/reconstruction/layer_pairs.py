"""Pairs of consecutive kernels: detection, sampling and joint reconstruction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.lazy_modules import keras
from compress.core.memory_budget import get_current_budget
from compress.model.program import Node
from compress.reconstruction.attention import AttentionMatch
from compress.reconstruction.gauss_newton import MAX_STEPS, solve_pair
from compress.reconstruction.kernel_pair import KernelPair, PairPath, PairSample, PairWeights
from compress.reconstruction.kernel_parts import Array, KernelPart
from compress.reconstruction.linear_paths import (
    Graph,
    LinearPath,
    find_affine,
    find_clip,
    find_scale_layer,
    is_linear,
)
from compress.reconstruction.matching import Match
from compress.reconstruction.row_products import Numbers, Singles
from compress.reconstruction.sampling import Sampler, compute_window
from compress.reconstruction.sums import Sample, Sums
from compress.reconstruction.tensor_store import Chunks
from compress.reconstruction.weight_assignment import assign_solution

MAX_POSITIONS = 16_000
"""Maximum positions of the second kernel per step, over all examples."""
WINDOW_SIZE = 9
"""Positions of a window: neighbours share most of their inputs, which are computed once."""
PARTS = 16
"""Maximum number of parts of a step's sample, which threads share."""
TARGETS_PER_WEIGHT, MIN_POSITIONS = 64, 2_000
"""Targets for each weight of both kernels that suffice, and the fewest positions."""
MAX_MULTIPLIES = 2e9
"""Maximum multiplications of one product with the Jacobian."""
MAX_BYTES = 96 * 2**20
"""Maximum bytes of the rows of the first kernel; the memory budget may allow less."""
MEMORY_SHARE = 1 / 20
"""Share of the free memory for these rows; some of them are held in several forms."""

JointResult = tuple[tuple[Numbers, Numbers], Sums, float, Chunks, str]


class LayerPairs:
    """Pairs of consecutive layers of a pruned model.

    Args:
        graph: Graph of the pruned model.
        matches: Layers to reconstruct, by id of the layer.
        sampler: Draws the positions.
        mask: Returns the positions of a kernel that may differ from zero; None: all.
        call: Runs a call on every chunk.

    Attributes:
        first_inputs: Inputs of the first layer of a pair, by id of the second one.
    """

    def __init__(
        self,
        graph: Graph,
        matches: dict[int, Match],
        sampler: Sampler,
        mask: Callable[[Any], npt.NDArray[np.bool_] | None],
        call: Callable[[Node, list[Chunks]], list[Chunks]],
    ) -> None:
        self.graph, self.sampler, self.mask, self.call = graph, sampler, mask, call
        # once: measuring the free memory of a large process takes a tenth of a second
        self._max_bytes = get_current_budget().compute_share(MEMORY_SHARE, MAX_BYTES)
        self._first_matches: dict[int, Match] = {}  # first layer by id of the second one
        self.first_inputs: dict[int, Chunks] = {}
        self._ends = {id(node) for match in matches.values() for node in match.calls}
        for first in filter(_has_single_kernel, matches.values()):
            path = self._trace_between(first)
            second = None if path is None else matches.get(id(path.second.operation))
            if second is not None and _has_single_kernel(second):
                self._first_matches[id(second.layer)] = first

    def _trace_between(self, first: Match) -> PairPath | None:
        part = first.parts[0]
        return trace_between(
            self.graph, first.calls[0], self._ends, part.extract_all_outputs, part.channel_count
        )

    def store_inputs(self, match: Match, inputs: Chunks) -> None:
        """Store the inputs of a pair's first layer until the second one is reconstructed."""
        for second, first in self._first_matches.items():
            if first is match:
                self.first_inputs[second] = inputs

    def solve(
        self,
        match: Match,
        inputs: Chunks,
        next_path: LinearPath,
        start: tuple[Numbers, Numbers],
        can_shift: bool,
    ) -> JointResult | None:
        """Reconstruct a layer jointly with the preceding one.

        The weights of the preceding layer are assigned; those of this layer are returned.

        Args:
            match: The second layer.
            inputs: Its inputs.
            next_path: Linear path after it.
            start: Its weights (systems, columns, outputs) and shift, both behind its path.
            can_shift: Whether the model can represent a constant shift of its outputs.

        Returns:
            Weights and shift of the second layer, the sums of its new rows, its held-out error
            relative to the previous solution, its new inputs, and the name of the first layer. None
            if there is no pair, if it is too large, if there are too few positions, or if the error
            did not decrease.
        """
        if id(match.layer) not in self._first_matches:
            return None
        first, first_inputs = (
            self._first_matches[id(match.layer)],
            self.first_inputs[id(match.layer)],
        )
        samples = self._sample_pairs(first, match, (first_inputs, inputs), next_path)
        path = self._trace_between(first)
        if samples is None or path is None:
            return None
        first_part, second_part = first.parts[0], match.parts[0]
        normalized = isinstance(path.path.scale_layer, keras.layers.BatchNormalization)
        pair = KernelPair(
            (first_part, second_part),
            path,
            next_path.clip,
            (first_part.build_support(self.mask), second_part.build_support(self.mask)),
            (first_part.bias is not None or normalized, can_shift),
        )
        kernel = first_part.read_weights()
        gain = path.path.gain.reshape(len(kernel), 1, -1)
        shift = path.path.gain * first_part.read_bias() + path.path.offset
        kernels = PairWeights(kernel * gain, start[0], (shift, start[1].reshape(-1)))
        *train, held_out = samples
        kernels, error_share = solve_pair(pair, train, PairSample.concat(held_out), kernels)
        if error_share >= 1:
            return None
        parts = [part for sample in samples for part in sample]
        sums = Sample.concat([pair.build_sample(part, kernels) for part in parts]).compute_sums()
        rows = np.concatenate([part.rows for part in parts], 1)
        # the targets are not used
        read = Sample(
            rows, np.zeros((rows.shape[1], first_part.channel_count), np.float32)
        ).compute_sums()
        assign_solution(
            first_part, path.path, kernels.first, kernels.shifts[0] - path.path.offset, read, None
        )
        new_inputs = first_inputs
        for node in (first.calls[0], *path.nodes):
            (new_inputs,) = self.call(node, [new_inputs])
        start = kernels.second, kernels.shifts[1]
        return start, sums, error_share, new_inputs, first.name

    def _sample_pairs(
        self, first: Match, match: Match, inputs: tuple[Chunks, Chunks], next_path: LinearPath
    ) -> list[list[PairSample]] | None:
        """Draw samples for each step and a held-out one, in parts.

        Returns:
            The parts of each sample; None if there are too few or too many positions.
        """
        parts = first.parts[0], match.parts[0]
        x, y = inputs[0][0].blank, inputs[1][0].blank
        outputs = parts[0].create_blank_output(x.shape), parts[1].create_blank_output(y.shape)
        reads = parts[1].map_input_positions(y, outputs[1])
        if reads is None or parts[0].map_input_positions(x, outputs[0]) is None:
            return None
        max_positions = _limit_positions(
            *parts,
            _count_shared_reads(reads, parts[1].compute_grid_shape(outputs[1])),
            self._max_bytes,
        )
        shapes = [part.read_weights().shape for part in parts]
        unknown = sum(map(math.prod, shapes))
        if (
            max_positions < self.sampler.batches.count
            or max_positions * parts[1].channel_count < unknown
        ):
            return None  # the pair is too large, or its weights outnumber the targets
        most_parts = _limit_parts(shapes, self._max_bytes)
        samples = []
        # each step uses other positions, so that it does not overfit those of the steps before
        for wants_held_out in (*[False] * MAX_STEPS, True):
            chunks = [
                self._sample_chunk(first, match, inputs, next_path, index, reads, max_positions)
                for index, is_held_out in enumerate(self.sampler.batches.held_out)
                if is_held_out == wants_held_out
            ]
            chunk_samples = [sample for sample in chunks if sample is not None]
            if not chunk_samples:
                return None
            size = -(-len(chunk_samples) // most_parts)
            starts = range(0, len(chunk_samples), size)
            samples.append([PairSample.concat(chunk_samples[i : i + size]) for i in starts])
        return samples

    def _sample_chunk(
        self, first: Match, match: Match, inputs: tuple[Chunks, Chunks], next_path: LinearPath,
        index: int, table: npt.NDArray[np.int64], max_positions: int,
    ) -> PairSample | None:  # fmt: skip
        """Draw positions of one chunk; None if there are none."""
        first_part, second_part = first.parts[0], match.parts[0]
        x, y = inputs[0][index], inputs[1][index]
        outputs = (
            first_part.create_blank_output(x.blank.shape),
            second_part.create_blank_output(y.blank.shape),
        )
        if table.shape[1] == 1 or y.mask is not None:
            sampled = self.sampler.sample_positions(second_part, y, outputs[1], max_positions)
        else:
            sampled = self.sampler.sample_windows(
                second_part.compute_grid_shape(outputs[1]),
                len(outputs[1]),
                max_positions,
                WINDOW_SIZE,
            )
        if not len(sampled[0]):
            return None
        local, position_count = table[sampled[1]], first_part.count_positions(outputs[0])
        number = sampled[0][:, None] * position_count + local
        hidden, row_index = np.unique(number[local >= 0], return_inverse=True)
        reads = np.full(local.shape, len(hidden))
        reads[local >= 0] = row_index.ravel()
        rows = first_part.extract_rows(
            x.array, outputs[0], (hidden // position_count, hidden % position_count)
        )
        target_call = match.original_calls[0], second_part, match.original_parts[0]
        targets = self.sampler.build_targets(*target_call, index, sampled, next_path)
        return PairSample(rows.astype(np.float32, copy=False), reads, *targets)


def _has_single_kernel(match: Match) -> bool:
    """Return whether a layer is called once and its only kernel alone computes the output."""
    if (
        isinstance(match, AttentionMatch)
        or len(match.calls) != 1
        or len(match.calls[0].inputs) != 1
    ):
        return False
    return (
        len(match.parts) == 1
        and not match.parts[0].uses_original_states
        and not match.parts[0].has_position_bias
    )


def trace_between(
    graph: Graph,
    first: Node,
    ends: Set[int],
    extract_rows: Callable[[Array], Array],
    channel_count: int,
) -> PairPath | None:
    """Follow a kernel's output to the next kernel.

    Args:
        graph: Graph of the pruned model.
        first: Call of the kernel.
        ends: Ids of the calls of kernels.
        extract_rows: Converts tensors in the layout of the first kernel's output to rows of
            channels.
        channel_count: Channels of the first kernel's output.

    Returns:
        The path; None if the output branches or changes its shape, or if an operation is neither
        affine by channel nor the only elementwise activation.
    """
    path, gain, offset, apply = (
        LinearPath(channel_count),
        np.ones(channel_count),
        np.zeros(channel_count),
        None,
    )
    activation = getattr(first.operation, "activation", None)
    if activation is not None and not is_linear(activation):
        apply, path.clip = (
            _wrap_elementwise(lambda tensors: activation(*tensors)),
            find_clip(activation),
        )
        if apply is None:
            return None
    nodes: list[Node] = []
    tensor = first.outputs[0]
    while True:
        node = graph.find_only_reader(tensor)
        if node is None:
            return None
        if id(node) in ends:
            is_only_input = tensor is node.inputs[0]
            return (
                PairPath(tuple(nodes), node, path, apply, gain, offset) if is_only_input else None
            )
        if len(node.outputs) != 1:
            return None
        if tuple(node.outputs[0].shape)[1:] != tuple(tensor.shape)[1:]:
            return None
        scale_and_offset = find_affine(node, extract_rows)
        if scale_and_offset is None:
            if apply is not None or len(node.inputs) != 1:
                return None
            if getattr(node.operation, "weights", None):
                return None
            apply, path.clip = _wrap_elementwise(node.call), find_clip(node.operation)
            if apply is None:
                return None
        elif apply is not None:
            gain, offset = (
                scale_and_offset[0] * gain,
                scale_and_offset[0] * offset + scale_and_offset[1],
            )
        else:
            path.append_affine(*scale_and_offset, None if nodes else find_scale_layer(graph, node))
        nodes.append(node)
        tensor = node.outputs[0]


def _wrap_elementwise(function: Callable[[Any], Any]) -> Callable[[Singles], Singles] | None:
    """Return a tensor function as a function of arrays; None if it is not elementwise.

    This is tested on random inputs.
    """

    def apply(x: Singles) -> Singles:
        outputs = function([keras.ops.convert_to_tensor(x)])
        return np.asarray(keras.ops.convert_to_numpy(outputs), np.float32)

    x = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    changed = x.copy()
    changed[:3, :4] = 3.0 * changed[3:, 4:]
    try:
        outputs, changed_outputs = apply(x), apply(changed)
    except Exception:  # an elementwise function accepts any shape
        return None
    if outputs.shape != x.shape or not np.isfinite(outputs).all():
        return None
    same = np.ones(x.shape, bool)
    same[:3, :4] = False
    return apply if np.array_equal(outputs[same], changed_outputs[same]) else None


def _count_shared_reads(reads: npt.NDArray[np.int64], grid: tuple[int, ...]) -> float:
    """Return the mean number of first-kernel positions per second-kernel position of a window."""
    size = compute_window(grid, WINDOW_SIZE)
    inside = np.zeros(grid, bool)
    inside[
        tuple(slice((s - w) // 2, (s - w) // 2 + w) for s, w in zip(grid, size, strict=True))
    ] = 1
    read = reads[inside.ravel()]
    return len(np.unique(read[read >= 0])) / max(1, len(read))


def _limit_parts(shapes: Sequence[tuple[int, ...]], max_bytes: int) -> int:
    """Return the most parts of a sample: each has second moments of its own, which take memory.

    Args:
        shapes: Shapes of both kernels, (systems, columns, outputs).
        max_bytes: Maximum bytes of all second moments.
    """
    moment_bytes = sum(8 * systems * (columns + 1) ** 2 for systems, columns, _ in shapes)
    return max(1, min(PARTS, int(max_bytes // moment_bytes)))


def _limit_positions(
    first: KernelPart, second: KernelPart, first_per_second: float, max_bytes: int
) -> int:
    """Return the number of positions of the second kernel to sample.

    It is limited by the number of weights, by computation and by memory.

    Args:
        first, second: Both kernels.
        first_per_second: Mean number of positions of the first kernel for each of the second.
        max_bytes: Maximum bytes of the rows of the first kernel.
    """
    first_weights, second_weights = first.read_weights(), second.read_weights()
    multiplies = first_per_second * first_weights.size + second_weights.size
    bytes_per_position = 4 * first_per_second * first_weights.shape[0] * first_weights.shape[1]
    weights = first_weights.size + second_weights.size
    enough = max(MIN_POSITIONS, TARGETS_PER_WEIGHT * weights // second.channel_count)
    return int(
        min(MAX_POSITIONS, enough, MAX_MULTIPLIES // multiplies, max_bytes // bytes_per_position)
    )
