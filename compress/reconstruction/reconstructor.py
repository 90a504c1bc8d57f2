"""Layer-wise reconstruction: runs both models side by side and refits layers before their calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.device import limit_blas_threads
from compress.core.lazy_modules import keras
from compress.core.memory_budget import get_current_budget
from compress.model.program import Node, Program
from compress.reconstruction.attention import AttentionMatch, solve_attention
from compress.reconstruction.kernel_parts import KernelPart
from compress.reconstruction.layer_pairs import LayerPairs
from compress.reconstruction.least_squares import Problem, fit_weights
from compress.reconstruction.linear_paths import (
    Absorber,
    Graph,
    LinearPath,
    find_absorbers,
    trace_linear_path,
)
from compress.reconstruction.matching import CallOrder, Match, report_skipped
from compress.reconstruction.report import KEPT, REPAIRED, LayerRepair, explain_kept
from compress.reconstruction.rounding import fit_on_grid, round_to_nearest
from compress.reconstruction.row_products import Numbers
from compress.reconstruction.sampling import ProgramRun, RecordedOutputs, Sampler
from compress.reconstruction.sums import Sample
from compress.reconstruction.tensor_store import Chunks, Store, StoredTensor, call_in_chunks
from compress.reconstruction.weight_assignment import assign_solution


class Reconstructor:
    """Layer-wise reconstruction of a pruned model from the original one.

    Args:
        programs: Flat programs of the pruned and of the original model.
        matches: Layers to reconstruct, by id of the layer in the pruned program.
        order: Order of the pruned program's calls; all calls of a layer to reconstruct are in one
            step.
        sampler: Draws the positions; it holds the examples.
        mask: Returns the positions of a pruned kernel that may differ from zero; None: all.
        grid: Returns the largest integer of a kernel's quantization grid; 0: the kernel is not
            quantized.
        joint: Whether pairs of consecutive kernels are also reconstructed jointly.
        recorded: Outputs of the original model from earlier reconstructions; None: they are not
            kept.
        on_layer: Called with the name of each layer and the share of calls that are done.

    Attributes:
        layer_repairs: Report rows, one per kernel.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        matches: dict[int, Match],
        order: CallOrder,
        sampler: Sampler,
        *,
        mask: Callable[[Any], npt.NDArray[np.bool_] | None],
        grid: Callable[[Any], int],
        joint: bool,
        recorded: RecordedOutputs | None,
        on_layer: Callable[[str, float], None],
    ) -> None:
        self.graphs = Graph(programs[0]), Graph(programs[1])
        self.matches, self.order, self.sampler = matches, order, sampler
        self.batches = sampler.batches
        self.mask, self.grid, self.on_layer = mask, grid, on_layer
        self.layer_repairs: list[LayerRepair] = []
        self.recorded = recorded
        if recorded is not None:
            recorded.require_bounds(self.batches.bounds)
        self.store = Store()
        self._call = partial(call_in_chunks, store=self.store)
        self.waiting_outputs: dict[int, list[Chunks]] = {}
        self.layer_pairs = LayerPairs(
            self.graphs[0], matches if joint else {}, sampler, mask, self._call
        )

    @limit_blas_threads(1)
    def run(self) -> tuple[list[npt.NDArray[Any]], list[npt.NDArray[Any]]]:
        """Reconstruct all layers and return both models' outputs for the held-out examples.

        Returns:
            Outputs of the pruned and of the original model, one array per output.
        """
        try:
            pruned_outputs, original_outputs = self._run_both()
            return [self._concat_held_out(chunks) for chunks in pruned_outputs], [
                self._concat_held_out(chunks) for chunks in original_outputs
            ]
        finally:
            self.store.close()
            get_current_budget().release_freed_memory()

    def _concat_held_out(self, chunks: Chunks) -> npt.NDArray[Any]:
        parts = zip(chunks, self.batches.held_out, strict=True)
        return np.concatenate([value.array for value, is_held_out in parts if is_held_out])

    def _run_both(self) -> tuple[list[Chunks], list[Chunks]]:
        inputs = [
            [
                self.store.keep(keras.ops.convert_to_tensor(x[start:stop]))
                for start, stop in self.batches.bounds
            ]
            for x in self.batches.inputs
        ]
        self.common_calls = self.graphs[0].count_common_calls(self.graphs[1])
        self.paths = self._trace_paths()
        # number of layers that still need each tensor
        self.remaining_uses = Counter(
            id(tensor) for path in self.paths.values() for tensor in _list_addends(path)
        )
        needed = set(self.remaining_uses)
        calls = {id(node) for match in self.matches.values() for node in match.original_calls}
        original_run = ProgramRun(
            self.graphs[1], inputs, self.sampler, needed, self._call_original, calls=calls
        )
        pruned_run = ProgramRun(
            self.graphs[0], inputs, self.sampler, needed, self._call_pruned,
            order=self.order.sort_steps(),
        )  # fmt: skip
        solved_layers: set[int] = set()
        while pruned_run.pending is not None:
            node = pruned_run.pending[0][0]
            match = self.matches.get(id(node.operation))
            if match is not None and id(match.layer) not in solved_layers:
                solved_layers.add(id(match.layer))
                original_run.run_until(match, self.paths.get(id(match.layer)))
                self.on_layer(match.name, pruned_run.calls_done / len(self.graphs[0].program.nodes))
                earlier_repairs = len(self.layer_repairs)
                new_inputs = self._solve(
                    match, [call_inputs for _, call_inputs in pruned_run.pending]
                )
                # kernels with a grid are rounded even where they are kept
                if any(self.grid(part.kernel) for part in match.parts) or any(
                    row.state == REPAIRED for row in self.layer_repairs[earlier_repairs:]
                ):
                    self._end_common_calls(match)
                self._release(match)
                if new_inputs is not None:
                    pruned_run.pending = [(node, [new_inputs])]
                self.layer_pairs.store_inputs(match, pruned_run.pending[0][1][0])
            pruned_run.step()
        while original_run.pending is not None:
            original_run.step()
        return pruned_run.outputs, original_run.outputs

    def _call_original(self, node: Node, inputs: list[Chunks]) -> list[Chunks]:
        """Return the outputs of a call of the original model."""
        index = self.graphs[1].call_index[id(node)]
        if self.recorded is None:
            return self._call_common(index, node, inputs)
        if index not in self.recorded.chunks:
            self.recorded.chunks[index] = call_in_chunks(node, inputs, store=self.recorded.store)
        return self.recorded.chunks[index]

    def _call_pruned(self, node: Node, inputs: list[Chunks]) -> list[Chunks]:
        """Return the outputs of a call of the pruned model."""
        index = self.graphs[0].call_index[id(node)]
        if index < self.common_calls and self.recorded is not None:
            return self.recorded.chunks.get(index) or self._call(node, inputs)
        return self._call_common(index, node, inputs)

    def _call_common(self, index: int, node: Node, inputs: list[Chunks]) -> list[Chunks]:
        """Make a call; where both models make it alike, the second one takes the first's outputs.

        Args:
            index: Index of the call in its model.
            node, inputs: The call.
        """
        if index in self.waiting_outputs:
            return self.waiting_outputs.pop(index)
        outputs = self._call(node, inputs)
        if index < self.common_calls:
            self.waiting_outputs[index] = outputs
        return outputs

    def _end_common_calls(self, match: Match) -> None:
        """Let both models run apart from a layer on, whose weights have changed."""
        first_call = min(self.graphs[0].call_index[id(node)] for node in match.calls)
        self.common_calls = min(self.common_calls, first_call)
        for index in [index for index in self.waiting_outputs if index >= first_call]:
            del self.waiting_outputs[index]

    def _trace_paths(self) -> dict[int, LinearPath]:
        """Trace the linear path after every layer, before the models run."""
        paths = {}
        # of two layers that feed an addition, the larger one corrects the error of both
        for match in sorted(self.matches.values(), key=lambda m: m.parts[-1].columns, reverse=True):
            part = match.parts[-1]
            # several calls would need several targets; gates are computed before the output
            if len(match.calls) == 1 and not part.uses_original_states:
                nodes = match.calls[0], match.original_calls[0]
                kept = match.original_parts[-1].find_kept_channels(self.sampler.kept)
                require_before = partial(self.order.require_before, node=nodes[0])
                path = trace_linear_path(
                    self.graphs, nodes, kept, part.extract_all_outputs, require_before
                )
                paths[id(match.layer)] = (
                    path if _is_invertible(path) else LinearPath(part.channel_count)
                )
        return paths

    def _release(self, match: Match) -> None:
        """Release the values that only this layer needed."""
        for node in match.original_calls:
            self.sampler.original_inputs.pop(id(node), None)
            self.sampler.linear_outputs.pop(id(node), None)
        path = self.paths.get(id(match.layer))
        for tensor in () if path is None else _list_addends(path):
            self.remaining_uses[id(tensor)] -= 1
            if not self.remaining_uses[id(tensor)]:
                self.sampler.tensor_values.pop(id(tensor), None)
        self.layer_pairs.first_inputs.pop(id(match.layer), None)

    def _solve(self, match: Match, inputs: list[list[Chunks]]) -> Chunks | None:
        """Reconstruct the kernels of a layer one by one.

        Returns:
            The layer's new inputs, if the preceding layer was changed too; else None.
        """
        if isinstance(match, AttentionMatch):
            self.layer_repairs.append(
                solve_attention(match, [values[0] for values in inputs], self.sampler)
            )
            return None
        new_inputs: Chunks | None = None
        for part, original_part in zip(match.parts, match.original_parts, strict=True):
            row, new_inputs = self._solve_part(match, part, original_part, inputs)
            self.layer_repairs.append(row)
        return new_inputs

    def _solve_part(
        self, match: Match, part: KernelPart, original_part: KernelPart, inputs: list[list[Chunks]]
    ) -> tuple[LayerRepair, Chunks | None]:
        """Reconstruct one kernel; return its report row and the new inputs as `_solve` does."""
        name = f"{match.name}:{part.name}" if part.name else match.name
        row = partial(LayerRepair, name, type(match.layer).__name__)
        traced_path = self.paths.get(id(match.layer)) if part is match.parts[-1] else None
        path = traced_path or LinearPath(part.channel_count)
        grid_max = self.grid(part.kernel)
        if not grid_max and self._is_unchanged(match, part, original_part, inputs, path):
            row_count = sum(
                _count_positions(part, value) for values in inputs for value in values[0]
            )
            reason = explain_kept(0.0, 0.0)
            return row(KEPT, 0.0, 0.0, ridge=0.0, rows=row_count, reason=reason), None
        train, held_out = self.sampler.sample_layer(match, part, original_part, inputs, traced_path)
        if not train or not held_out:
            return report_skipped(name, match.layer, "a mask leaves out all of its positions"), None
        problem, current_shift = self._build_problem(match, part, path)
        rows = Sample.concat(train)
        if grid_max:
            fit = fit_on_grid(problem, rows, held_out, current_shift, path.clip, grid_max)
        else:
            fit = fit_weights(problem, rows, held_out, current_shift, path.clip)
        before, after = (float(np.mean(side)) for side in (fit.before, fit.after))
        start = (fit.weights, fit.shift) if fit.is_better else (problem.initial, current_shift)
        sums, joint_result, new_inputs, first_name = fit.sums, None, None, ""
        if sums is not None:
            can_shift = problem.fixed_shift is None
            joint_result = self.layer_pairs.solve(match, inputs[0][0], path, start, can_shift)
        if joint_result is not None:
            start, sums, gain, new_inputs, first_name = joint_result
            # measured at other positions, relative to the previous solution there
            after = gain * (after if fit.is_better else before)
        is_better = fit.is_better or joint_result is not None
        if is_better and sums is not None:
            assign_solution(part, path, *start, sums, self._find_absorbers(match, part))
        elif grid_max:
            part.assign(round_to_nearest(part.read_weights(), grid_max))
        return row(
            REPAIRED if is_better else KEPT,
            before,
            after if is_better else before,
            "sum" if path.addends else "own",
            fit.ridge,
            sum(map(len, (*train, *held_out))),
            "" if is_better else explain_kept(before, after),
            first_name,
        ), new_inputs

    def _is_unchanged(
        self,
        match: Match,
        part: KernelPart,
        original_part: KernelPart,
        inputs: list[list[Chunks]],
        path: LinearPath,
    ) -> bool:
        """Return whether a layer and its inputs are equal to the original ones."""
        for variable, original_variable in zip(
            part.variables, original_part.variables, strict=True
        ):
            if self.mask(variable) is not None or not np.array_equal(
                variable.numpy(), original_variable.numpy()
            ):
                return False
        ends = [(part.read_bias(), original_part.read_bias()), (path.gain, path.original_gain),
                (path.offset, path.original_offset)]  # fmt: skip
        if not all(np.array_equal(current, original) for current, original in ends):
            return False
        pairs = [
            pair
            for current, node in zip(inputs, match.original_calls, strict=True)
            for pair in zip(current, self.sampler.original_inputs[id(node)], strict=True)
        ]
        pairs += [
            (
                self.sampler.tensor_values[id(addend.pruned)],
                self.sampler.tensor_values[id(addend.original)],
            )
            for addend in path.addends
        ]
        return all(
            _is_same_value(current, original)
            for first, second in pairs
            for current, original in zip(first, second, strict=True)
        )

    def _build_problem(
        self, match: Match, part: KernelPart, path: LinearPath
    ) -> tuple[Problem, Numbers]:
        """Return the regression problem behind the linear path, and the current shift there."""
        kernel = part.read_weights()
        gain = path.gain.reshape(len(kernel), -1)
        initial = kernel * gain[:, None]
        bias = part.read_bias().reshape(gain.shape) * gain
        support = part.build_support(self.mask)
        if support is not None:
            initial = initial * support
        # a bias or a normalization can represent a constant shift
        can_shift = (
            part.bias is not None
            or isinstance(path.scale_layer, keras.layers.BatchNormalization)
            or self._find_absorbers(match, part) is not None
        )
        return Problem(initial, support, None if can_shift else bias), bias

    def _find_absorbers(self, match: Match, part: KernelPart) -> list[Absorber] | None:
        """Return the normalizations that can absorb a shift if there is no bias, else None."""
        is_inner = part.name == "depthwise" or part.uses_original_states
        if part.bias is not None or is_inner or len(match.calls) != 1:
            return None
        return find_absorbers(self.graphs[0], match.calls[0].outputs[0])


def _count_positions(part: KernelPart, value: StoredTensor) -> int:
    outputs = (
        value.blank if part.uses_original_states else part.create_blank_output(value.blank.shape)
    )
    return len(value.blank) * part.count_positions(outputs)


def _is_same_value(first: StoredTensor, second: StoredTensor) -> bool:
    """Return whether two values are equal and the first one has no mask."""
    is_comparable = first.mask is None and first.blank.shape == second.blank.shape
    return is_comparable and (first is second or np.array_equal(first.array, second.array))


def _list_addends(path: LinearPath) -> list[Any]:
    """Return the tensors of both models that are added on a path."""
    return [tensor for addend in path.addends for tensor in (addend.pruned, addend.original)]


def _is_invertible(path: LinearPath) -> bool:
    """Return whether no gain by which the weights are divided is near zero."""
    size = np.abs(path.gain if path.scale_layer is None else path.later_gain)
    return bool(size.min() > 1e-4 * size.max())
