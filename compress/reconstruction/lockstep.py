"""Runs a pruned and a dense model side by side and solves for layers before they are called."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.blas import one_blas_thread
from compress.core.memory_budget import current_budget
from compress.model.program import Node, Program
from compress.reconstruction.attention import Scores, solved
from compress.reconstruction.in_a_row import InARow
from compress.reconstruction.kinds import Kept, Part, parts_of
from compress.reconstruction.least_squares import Problem, fitted
from compress.reconstruction.matching import Match, Order, left
from compress.reconstruction.paths import Absorber, Graph, Way, absorbers, way_from
from compress.reconstruction.report import KEPT, REPAIRED, LayerRepair
from compress.reconstruction.rounding import GridFit, nearest, on_grid
from compress.reconstruction.samples import Sample
from compress.reconstruction.sampling import SAMPLES, Ahead, Batches, Known, Sampler
from compress.reconstruction.settling import settle
from compress.reconstruction.sums import Numbers
from compress.reconstruction.values import Chunks, Store, Value, make_in_chunks

OnLayer = Callable[[str, float], None]


class Lockstep:
    """Both models, side by side.

    Args:
        pruned, dense: Flat programs.
        matches: What is solved for, by id of the layer in the pruned program.
        order: Of the pruned program's calls; those of one layer that is solved for are in one
            step.
        kept: Kept indices of a dense kernel's axis.
        mask: Where a pruned kernel may differ from zero; None: everywhere.
        grid: The largest whole number of the grid on which a kernel is put; 0: on none.
        batches: Examples.
        seed: Of the positions that are looked at.
        samples: Positions to look at, for one layer.
        joint: Whether two kernels in a row are solved together too.
        on_layer: Told the layer and the share that is done.
    """

    def __init__(
        self,
        pruned: Program,
        dense: Program,
        matches: dict[int, Match],
        order: Order,
        *,
        kept: Kept,
        mask: Callable[[Any], npt.NDArray[np.bool_] | None],
        grid: Callable[[Any], int] = lambda _: 0,
        batches: Batches,
        seed: int,
        samples: int = SAMPLES,
        joint: bool = True,
        on_layer: OnLayer,
    ) -> None:
        self.graphs = Graph(pruned), Graph(dense)
        self.matches = matches
        self.order = order
        self.kept = kept
        self.mask = mask
        self.grid = grid
        self.batches = batches
        self.on_layer = on_layer
        self.rows: list[LayerRepair] = []
        self.store = Store()
        self._called = partial(make_in_chunks, store=self.store)
        self.known = Known()
        self.sampler = Sampler(self.known, kept, batches, seed, samples)
        self.wanted: Counter[int] = Counter()  # tensors that are needed later, by how many
        self.solved: set[int] = set()
        self.in_a_row = (
            InARow(self.graphs[0], matches, self.sampler, mask, self._called) if joint else None
        )

    @one_blas_thread()
    def run(self) -> tuple[list[npt.NDArray[Any]], list[npt.NDArray[Any]]]:
        """Solves layer by layer; returns both models' outputs of what is held back."""
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

        pruned = self.graphs[0].program
        inputs = [
            [
                self.store.keep(keras.ops.convert_to_tensor(x[start:stop]))
                for start, stop in self.batches.bounds
            ]
            for x in self.batches.inputs
        ]
        self.ways = self._planned()
        self.wanted = Counter(id(tensor) for way in self.ways.values() for tensor in _added(way))
        wanted = set(self.wanted)
        calls = {id(node) for match in self.matches.values() for node in match.twin_calls}
        ahead = Ahead(self.graphs[1], inputs, self.known, calls, wanted, self._called)
        for tensor, value in zip(pruned.inputs, inputs, strict=True):
            if id(tensor) in wanted:
                self.known.seen[id(tensor)] = value
        order = self.order.sorted()
        steps = pruned.stepwise(inputs, order)
        results: list[Sequence[Any]] | None = None
        done = 0
        while True:
            try:
                asked = next(steps) if results is None else steps.send(results)
            except StopIteration as end:
                outputs = list(end.value)
                break
            layer = asked[0][0].operation
            match = self.matches.get(id(layer))
            if match is not None and id(layer) not in self.solved:
                self.solved.add(id(layer))
                ahead.until(match, self.ways.get(id(layer)))
                self.on_layer(match.name, done / len(pruned.nodes))
                again = self._solve(match, [given for _, given in asked])
                self._release(match)
                if again is not None:
                    asked = [(asked[0][0], [again])]
                if self.in_a_row is not None:
                    self.in_a_row.remember(match, asked[0][1][0])
            results = [self._called(node, given) for node, given in asked]
            for (node, _), made in zip(asked, results, strict=True):
                for tensor, value in zip(node.outputs, made, strict=True):
                    if id(tensor) in wanted:
                        self.known.seen[id(tensor)] = value
            done += len(asked)
            del asked
        return outputs, ahead.finish()

    def _planned(self) -> dict[int, Way]:
        """Follows every layer's output once, before anything runs."""
        ways = {}
        # of two layers that feed one addition the larger takes the error of both: it can do more
        for match in sorted(self.matches.values(), key=_columns, reverse=True):
            if len(match.calls) != 1:
                continue  # several calls would want several targets
            node, twin = match.calls[0], match.twin_calls[0]
            parts, _ = parts_of(match.layer, len(node.inputs[0].shape))
            twins, _ = parts_of(match.twin, len(twin.inputs[0].shape))
            part = parts[-1]
            if part.guided:
                continue  # gates lie between what is solved for and the output

            def before(tensor: Any, node: Node = node) -> bool:
                return self.order.before(tensor, node)

            kept = twins[-1].channels(self.kept)
            way = way_from(self.graphs, (node, twin), kept, part.channel_rows, before)
            ways[id(match.layer)] = way if _invertible(way) else Way.plain(part.width)
        return ways

    def _release(self, match: Match) -> None:
        """Lets go of what only this layer's solution needed."""
        for node in match.twin_calls:
            self.known.given.pop(id(node), None)
            self.known.made.pop(id(node), None)
        way = self.ways.get(id(match.layer))
        for tensor in _added(way) if way is not None else ():
            self.wanted[id(tensor)] -= 1
            if not self.wanted[id(tensor)]:
                self.known.seen.pop(id(tensor), None)

    def _solve(self, match: Match, given: list[list[Chunks]]) -> Chunks | None:
        """Solves for a layer's kernels, one after the other.

        Returns:
            What the layer is given now, where the one in front was solved again with it.
        """
        if isinstance(match, Scores):
            theirs = [self.known.given[id(node)][0] for node in match.twin_calls]
            mine = [values[0] for values in given]
            row = solved(match, mine, theirs, self.batches.held, self.kept, self.sampler.drawn)
            self.rows.append(row)
            return None
        parts, _ = parts_of(match.layer, len(match.calls[0].inputs[0].shape))
        twins, _ = parts_of(match.twin, len(match.twin_calls[0].inputs[0].shape))
        kind = type(match.layer).__name__
        again: Chunks | None = None
        for part, twin in zip(parts, twins, strict=True):
            began = time.perf_counter()
            name = f"{match.name}:{part.name}" if part.name else match.name
            way = self.ways.get(id(match.layer)) if part is parts[-1] else None
            most = self.grid(part.kernel)
            if not most and self._as_it_was(match, part, twin, given, way):
                seen = sum(_positions(part, value) for values in given for value in values[0])
                self.rows.append(LayerRepair(
                    name, kind, KEPT, 0.0, 0.0, ridge=0.0, rows=seen,
                    seconds=time.perf_counter() - began, reason=_why(0.0, 0.0),
                ))  # fmt: skip
                continue
            train, held = self.sampler.of_layer(match, part, twin, given, way)
            if not train or not held:
                reason = "a mask leaves out all of its positions"
                self.rows.append(left(name, match.layer, reason))
                continue
            problem, now = self._problem(match, part, way)
            clip = None if way is None else way.clip
            if most:
                found = on_grid(problem, Sample.joined(train), held, now, clip, most)
                self._put(match, part, way, found, most)
                sizes = sum(map(len, (*train, *held))), time.perf_counter() - began
                self.rows.append(_row_of(name, kind, way, found, *sizes))
                continue
            fit, sums = fitted(problem, Sample.joined(train), held, now, clip)
            start = (fit.weights, fit.shift) if fit.better else (problem.before, now)
            before, after = (float(np.mean(side)) for side in (fit.before, fit.after))
            joint = None
            if sums is not None and self.in_a_row is not None:
                movable = problem.shift is None
                joint = self.in_a_row.together(match, given[0][0], twin, way, start, movable)
            if joint is not None:
                start, sums, again = joint.start, joint.sums, joint.given
                # measured at other positions: what the solution before was there is the unit
                after = joint.gain * (after if fit.better else before)
            if sums is not None and (fit.better or joint is not None):
                plain = Way.plain(part.width) if way is None else way
                settle(part, plain, *start, sums, self._absorbers(match, part))
            better = fit.better or joint is not None
            self.rows.append(LayerRepair(
                name, kind, REPAIRED if better else KEPT, before, after if better else before,
                "sum" if way is not None and way.others else "own",
                fit.ridge, sum(map(len, (*train, *held))), time.perf_counter() - began,
                "" if better else _why(before, after), "" if joint is None else joint.first,
            ))  # fmt: skip
        if self.in_a_row is not None:
            self.in_a_row.forget(match)
        return again

    def _put(self, match: Match, part: Part, way: Way | None, found: GridFit, most: int) -> None:
        """Puts a kernel on its grid: as it was solved, or where that is no better the nearest."""
        if not found.better:
            part.assign(nearest(part.weights(), most))
            return
        plain = Way.plain(part.width) if way is None else way
        settle(part, plain, found.weights, found.shift, found.sums, self._absorbers(match, part))

    def _as_it_was(
        self, match: Match, part: Part, twin: Part, given: list[list[Chunks]], way: Way | None
    ) -> bool:
        """Tells whether a layer is the dense one and is given the same: nothing need be drawn."""
        for own, theirs in zip(part.variables, twin.variables, strict=True):
            if self.mask(own) is not None or not _equal(own, theirs):
                return False
        ends = [(part.bias_vector(), twin.bias_vector())]
        if way is not None:
            ends += [(way.gain, way.dense_gain), (way.offset, way.dense_offset)]
        if not all(np.array_equal(mine, other) for mine, other in ends):
            return False
        theirs = [self.known.given[id(node)] for node in match.twin_calls]
        pairs = [pair for mine, other in zip(given, theirs, strict=True)
                 for pair in zip(mine, other, strict=True)]  # fmt: skip
        for other in way.others if way is not None else ():
            pairs.append((self.known.seen[id(other.pruned)], self.known.seen[id(other.dense)]))
        return all(
            _same(mine, other)
            for first, second in pairs
            for mine, other in zip(first, second, strict=True)
        )

    def _problem(self, match: Match, part: Part, way: Way | None) -> tuple[Problem, Numbers]:
        """Returns what is to be solved behind the way, and the shift as it is there."""
        kernel = part.weights()
        shape = kernel.shape[0], kernel.shape[2]
        gain = np.ones(shape) if way is None else way.gain.reshape(shape)
        before = kernel * gain[:, None]
        bias = part.bias_vector().reshape(shape) * gain
        support = part.support(self.mask)
        if support is not None:
            before = before * support
        movable = self._movable(match, part, way)
        return Problem(before, support, None if movable else bias), bias

    def _absorbers(self, match: Match, part: Part) -> list[Absorber] | None:
        """Returns the normalizations that take up a shift where there is no bias."""
        inner = part.name == "depthwise" or part.guided
        if part.bias is not None or inner or len(match.calls) != 1:
            return None
        return absorbers(self.graphs[0], match.calls[0].outputs[0])

    def _movable(self, match: Match, part: Part, way: Way | None) -> bool:
        """Tells whether something takes up a constant shift of the outputs."""
        import keras

        if part.bias is not None:
            return True
        if way is not None and isinstance(way.first, keras.layers.BatchNormalization):
            return True
        return self._absorbers(match, part) is not None


def _columns(match: Match) -> int:
    """Returns the number of inputs that an output of the layer is made of."""
    parts, _ = parts_of(match.layer, len(match.calls[0].inputs[0].shape))
    return parts[-1].columns


def _positions(part: Part, value: Value) -> int:
    shape = value.blank.shape
    made = value.blank if part.guided else part.blank_output(shape)
    return len(value.blank) * part.positions(made)


def _same(mine: Value, other: Value) -> bool:
    """Tells whether two values are equal, and no position of them is padding."""
    if mine.mask is not None or mine.blank.shape != other.blank.shape:
        return False
    return np.array_equal(mine.array, other.array)


def _equal(own: Any, theirs: Any) -> bool:
    """Tells whether two variables hold the same."""
    return tuple(own.shape) == tuple(theirs.shape) and np.array_equal(own.numpy(), theirs.numpy())


def _row_of(
    name: str, kind: str, way: Way | None, found: GridFit, rows: int, seconds: float
) -> LayerRepair:
    """Returns what is told of a kernel that was put on a grid."""
    before, after = (float(np.mean(side)) for side in (found.before, found.after))
    target = "sum" if way is not None and way.others else "own"
    if found.better:
        return LayerRepair(name, kind, REPAIRED, before, after, target, found.ridge, rows, seconds)
    why = _why(before, after)
    return LayerRepair(name, kind, KEPT, before, before, target, found.ridge, rows, seconds, why)


def _added(way: Way) -> list[Any]:
    """Returns the tensors that are added on a way, of both models."""
    return [tensor for other in way.others for tensor in (other.pruned, other.dense)]


def _invertible(way: Way) -> bool:
    """Tells whether gains can be divided by: nothing near zero among them."""
    size = np.abs(way.gain if way.first is None else way.rest)
    return bool(size.min() > 1e-4 * size.max())


def _why(before: float, after: float) -> str:
    if before == 0:
        return "nothing is broken in front of it"
    return f"solved, its error on examples held back would be {after:.3g} instead of {before:.3g}"
