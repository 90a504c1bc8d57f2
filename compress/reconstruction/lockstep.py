"""Runs a pruned and a dense model side by side and solves for layers before they are called."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.device import one_blas_thread
from compress.core.memory_budget import current_budget
from compress.model.program import Program
from compress.reconstruction.attention import Scores, solved
from compress.reconstruction.in_a_row import InARow
from compress.reconstruction.kinds import Part
from compress.reconstruction.least_squares import Problem, fitted
from compress.reconstruction.matching import Match, Order, left
from compress.reconstruction.paths import Absorber, Graph, Way, absorbers, way_from
from compress.reconstruction.report import KEPT, REPAIRED, LayerRepair, explain_kept
from compress.reconstruction.rounding import nearest, on_grid
from compress.reconstruction.sampling import Run, Sampler
from compress.reconstruction.settling import settle
from compress.reconstruction.sums import Numbers, Sample
from compress.reconstruction.values import Chunks, Store, Value, make_in_chunks


class Lockstep:
    """Both models, side by side.

    Args:
        programs: Of the pruned and of the dense model, flat.
        matches: What is solved for, by id of the layer in the pruned program.
        order: Of the pruned program's calls; those of one layer that is solved for are in one
            step.
        sampler: Draws positions; it holds the examples.
        mask: Where a pruned kernel may differ from zero; None: everywhere.
        grid: The largest whole number of the grid on which a kernel is put; 0: on none.
        joint: Whether two kernels in a row are solved together too.
        on_layer: Told the layer and the share that is done.

    Attributes:
        rows: What was done, kernel by kernel.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        matches: dict[int, Match],
        order: Order,
        sampler: Sampler,
        *,
        mask: Callable[[Any], npt.NDArray[np.bool_] | None],
        grid: Callable[[Any], int],
        joint: bool,
        on_layer: Callable[[str, float], None],
    ) -> None:
        self.graphs = Graph(programs[0]), Graph(programs[1])
        self.matches, self.order, self.sampler = matches, order, sampler
        self.batches = sampler.batches
        self.mask, self.grid, self.on_layer = mask, grid, on_layer
        self.rows: list[LayerRepair] = []
        self.store = Store()
        self._called = partial(make_in_chunks, store=self.store)
        self.in_a_row = InARow(
            self.graphs[0], matches if joint else {}, sampler, mask, self._called
        )

    @one_blas_thread()
    def run(self) -> tuple[list[npt.NDArray[Any]], list[npt.NDArray[Any]]]:
        """Solve layer by layer; returns both models' outputs of what is held back."""
        try:
            mine, theirs = self._run()
            return [self._held(made) for made in mine], [self._held(made) for made in theirs]
        finally:
            self.store.close()
            current_budget().give_back()

    def _held(self, made: Chunks) -> npt.NDArray[Any]:
        parts = zip(made, self.batches.held, strict=True)
        return np.concatenate([value.array for value, hold in parts if hold])

    def _run(self) -> tuple[list[Chunks], list[Chunks]]:
        import keras

        inputs = [
            [
                self.store.keep(keras.ops.convert_to_tensor(x[start:stop]))
                for start, stop in self.batches.bounds
            ]
            for x in self.batches.inputs
        ]
        self.ways = self._planned()
        # tensors that are needed later, by how many
        self.wanted = Counter(id(tensor) for way in self.ways.values() for tensor in _added(way))
        wanted = set(self.wanted)
        calls = {id(node) for match in self.matches.values() for node in match.twin_calls}
        dense = Run(self.graphs[1], inputs, self.sampler, wanted, self._called, calls=calls)
        pruned = Run(
            self.graphs[0], inputs, self.sampler, wanted, self._called, order=self.order.sorted()
        )
        solved_layers: set[int] = set()
        while pruned.asked is not None:
            node = pruned.asked[0][0]
            match = self.matches.get(id(node.operation))
            if match is not None and id(match.layer) not in solved_layers:
                solved_layers.add(id(match.layer))
                dense.until(match, self.ways.get(id(match.layer)))
                self.on_layer(match.name, pruned.done / len(self.graphs[0].program.nodes))
                again = self._solve(match, [given for _, given in pruned.asked])
                self._release(match)
                if again is not None:
                    pruned.asked = [(node, [again])]
                self.in_a_row.remember(match, pruned.asked[0][1][0])
            pruned.step()
        while dense.asked is not None:
            dense.step()
        return pruned.outputs, dense.outputs

    def _planned(self) -> dict[int, Way]:
        """Follow every layer's output once, before anything runs."""
        ways = {}
        # of two layers that feed one addition the larger takes the error of both: it can do more
        for match in sorted(self.matches.values(), key=lambda m: m.parts[-1].columns, reverse=True):
            part = match.parts[-1]
            # several calls would want several targets; gates lie in front of the output
            if len(match.calls) == 1 and not part.guided:
                nodes = match.calls[0], match.twin_calls[0]
                kept = match.twins[-1].channels(self.sampler.kept)
                before = partial(self.order.before, node=nodes[0])
                way = way_from(self.graphs, nodes, kept, part.channel_rows, before)
                ways[id(match.layer)] = way if _invertible(way) else Way(part.width)
        return ways

    def _release(self, match: Match) -> None:
        """Let go of what only this layer's solution needed."""
        for node in match.twin_calls:
            self.sampler.given.pop(id(node), None)
            self.sampler.made.pop(id(node), None)
        way = self.ways.get(id(match.layer))
        for tensor in () if way is None else _added(way):
            self.wanted[id(tensor)] -= 1
            if not self.wanted[id(tensor)]:
                self.sampler.seen.pop(id(tensor), None)
        self.in_a_row.given.pop(id(match.layer), None)

    def _solve(self, match: Match, given: list[list[Chunks]]) -> Chunks | None:
        """Solve for a layer's kernels, one after the other.

        Returns:
            What the layer is given now, where the one in front was solved again with it.
        """
        if isinstance(match, Scores):
            self.rows.append(solved(match, [values[0] for values in given], self.sampler))
            return None
        again: Chunks | None = None
        for part, twin in zip(match.parts, match.twins, strict=True):
            row, again = self._solve_part(match, part, twin, given)
            self.rows.append(row)
        return again

    def _solve_part(
        self, match: Match, part: Part, twin: Part, given: list[list[Chunks]]
    ) -> tuple[LayerRepair, Chunks | None]:
        """Solve for one kernel; returns what was done, and the same as `_solve`."""
        began = time.perf_counter()
        name = f"{match.name}:{part.name}" if part.name else match.name
        row = partial(LayerRepair, name, type(match.layer).__name__)
        followed = self.ways.get(id(match.layer)) if part is match.parts[-1] else None
        way = followed or Way(part.width)
        most = self.grid(part.kernel)
        if not most and self._as_it_was(match, part, twin, given, way):
            seen = sum(_positions(part, value) for values in given for value in values[0])
            seconds = time.perf_counter() - began
            reason = explain_kept(0.0, 0.0)
            return row(KEPT, 0.0, 0.0, ridge=0.0, rows=seen, seconds=seconds, reason=reason), None
        train, held = self.sampler.of_layer(match, part, twin, given, followed)
        if not train or not held:
            return left(name, match.layer, "a mask leaves out all of its positions"), None
        problem, now = self._problem(match, part, way)
        rows = Sample.joined(train)
        if most:
            fit = on_grid(problem, rows, held, now, way.clip, most)
        else:
            fit = fitted(problem, rows, held, now, way.clip)
        before, after = (float(np.mean(side)) for side in (fit.before, fit.after))
        start = (fit.weights, fit.shift) if fit.better else (problem.before, now)
        sums, together, again, first = fit.sums, None, None, ""
        if sums is not None:
            movable = problem.shift is None
            together = self.in_a_row.together(match, given[0][0], way, start, movable)
        if together is not None:
            start, sums, gain, again, first = together
            # measured at other positions: what the solution before was there is the unit
            after = gain * (after if fit.better else before)
        better = fit.better or together is not None
        if better and sums is not None:
            settle(part, way, *start, sums, self._absorbers(match, part))
        elif most:
            part.assign(nearest(part.weights(), most))
        return row(
            REPAIRED if better else KEPT, before, after if better else before,
            "sum" if way.others else "own", fit.ridge, sum(map(len, (*train, *held))),
            time.perf_counter() - began, "" if better else explain_kept(before, after), first,
        ), again  # fmt: skip

    def _as_it_was(
        self, match: Match, part: Part, twin: Part, given: list[list[Chunks]], way: Way
    ) -> bool:
        """Tell whether a layer is the dense one and is given the same: nothing need be drawn."""
        for own, theirs in zip(part.variables, twin.variables, strict=True):
            if self.mask(own) is not None or not np.array_equal(own.numpy(), theirs.numpy()):
                return False
        ends = [(part.bias_vector(), twin.bias_vector()), (way.gain, way.dense_gain),
                (way.offset, way.dense_offset)]  # fmt: skip
        if not all(np.array_equal(mine, other) for mine, other in ends):
            return False
        pairs = [pair for mine, node in zip(given, match.twin_calls, strict=True)
                 for pair in zip(mine, self.sampler.given[id(node)], strict=True)]  # fmt: skip
        pairs += [(self.sampler.seen[id(other.pruned)], self.sampler.seen[id(other.dense)])
                  for other in way.others]  # fmt: skip
        return all(
            _same(mine, other)
            for first, second in pairs
            for mine, other in zip(first, second, strict=True)
        )

    def _problem(self, match: Match, part: Part, way: Way) -> tuple[Problem, Numbers]:
        """Return what is to be solved behind the way, and the shift as it is there."""
        import keras

        kernel = part.weights()
        gain = way.gain.reshape(len(kernel), -1)
        before = kernel * gain[:, None]
        bias = part.bias_vector().reshape(gain.shape) * gain
        support = part.support(self.mask)
        if support is not None:
            before = before * support
        # whether something takes up a constant shift of the outputs
        movable = (
            part.bias is not None
            or isinstance(way.first, keras.layers.BatchNormalization)
            or self._absorbers(match, part) is not None
        )
        return Problem(before, support, None if movable else bias), bias

    def _absorbers(self, match: Match, part: Part) -> list[Absorber] | None:
        """Return the normalizations that take up a shift where there is no bias."""
        inner = part.name == "depthwise" or part.guided
        if part.bias is not None or inner or len(match.calls) != 1:
            return None
        return absorbers(self.graphs[0], match.calls[0].outputs[0])


def _positions(part: Part, value: Value) -> int:
    made = value.blank if part.guided else part.blank_output(value.blank.shape)
    return len(value.blank) * part.positions(made)


def _same(mine: Value, other: Value) -> bool:
    """Tell whether two values are equal, and no position of them is padding."""
    alike = mine.mask is None and mine.blank.shape == other.blank.shape
    return alike and np.array_equal(mine.array, other.array)


def _added(way: Way) -> list[Any]:
    """Return the tensors that are added on a way, of both models."""
    return [tensor for other in way.others for tensor in (other.pruned, other.dense)]


def _invertible(way: Way) -> bool:
    """Tell whether gains can be divided by: nothing near zero among them."""
    size = np.abs(way.gain if way.first is None else way.rest)
    return bool(size.min() > 1e-4 * size.max())
