"""Runs a pruned and a dense model side by side and solves for layers before they are called."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.blas import one_blas_thread
from compress.model.internals import takes_training
from compress.model.program import Node, Program
from compress.reconstruction.attention import Scores, solved
from compress.reconstruction.kinds import Kept, Part, Places, parts_of
from compress.reconstruction.least_squares import Problem, Sums
from compress.reconstruction.matching import Match, Order, left
from compress.reconstruction.paths import Absorber, Graph, Way, absorbers, is_linear, way_from
from compress.reconstruction.report import KEPT, REPAIRED, LayerRepair
from compress.reconstruction.ridge import Fit, fitted
from compress.reconstruction.samples import Sample
from compress.reconstruction.settling import settle
from compress.reconstruction.values import Store, Value

Chunks = list[Value]
"""A tensor for all examples, chunk by chunk."""
OnLayer = Callable[[str, float], None]
SAMPLES = 20_000
BYTES = 512 * 2**20
"""Of the rows of one layer, at most."""


@dataclass(frozen=True, eq=False)
class Batches:
    """Examples in chunks; the last of them are held back.

    Attributes:
        inputs: One array an input, (examples, ...), in random order.
        bounds: First and behind-last example of each chunk.
        held: Whether a chunk is held back.
    """

    inputs: tuple[npt.NDArray[Any], ...]
    bounds: tuple[tuple[int, int], ...]
    held: tuple[bool, ...]

    @property
    def count(self) -> int:
        """Examples in all."""
        return self.bounds[-1][1]


class Lockstep:
    """Both models, side by side.

    Args:
        pruned, dense: Flat programs.
        matches: What is solved for, by id of the layer in the pruned program.
        order: Of the pruned program's calls; those of one layer that is solved for are in one
            step.
        kept: Kept indices of a dense kernel's axis.
        mask: Where a pruned kernel may differ from zero; None: everywhere.
        batches: Examples.
        seed: Of the positions that are looked at.
        samples: Positions to look at, for one layer.
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
        batches: Batches,
        seed: int,
        samples: int = SAMPLES,
        on_layer: OnLayer,
    ) -> None:
        self.graphs = Graph(pruned), Graph(dense)
        self.matches = matches
        self.order = order
        self.kept = kept
        self.mask = mask
        self.batches = batches
        self.rng = np.random.default_rng(seed)
        self.samples = samples
        self.on_layer = on_layer
        self.rows: list[LayerRepair] = []
        self.store = Store()
        self.seen: dict[int, Chunks] = {}  # values by tensor that are needed later
        self.wanted: Counter[int] = Counter()  # by how many
        self.given: dict[int, list[Chunks]] = {}  # inputs of dense calls by node
        self.made: dict[int, Chunks] = {}  # outputs of those that are linear up to there
        self.solved: set[int] = set()

    @one_blas_thread()
    def run(self) -> tuple[list[npt.NDArray[Any]], list[npt.NDArray[Any]]]:
        """Solves layer by layer; returns both models' outputs of what is held back."""
        try:
            mine, theirs = self._run()
            return [self._held(made) for made in mine], [self._held(made) for made in theirs]
        finally:
            self.store.close()

    def _held(self, made: Chunks) -> npt.NDArray[Any]:
        parts = zip(made, self.batches.held, strict=True)
        return np.concatenate([value.array for value, hold in parts if hold])

    def _run(self) -> tuple[list[Chunks], list[Chunks]]:
        pruned, dense = (graph.program for graph in self.graphs)
        inputs = [
            [self.store.keep(_tensor(x[start:stop])) for start, stop in self.batches.bounds]
            for x in self.batches.inputs
        ]
        self.ways = self._planned()
        self.wanted = Counter(id(tensor) for way in self.ways.values() for tensor in _added(way))
        wanted = set(self.wanted)
        ahead = _Ahead(self, dense, inputs, wanted)
        for tensor, value in zip(pruned.inputs, inputs, strict=True):
            if id(tensor) in wanted:
                self.seen[id(tensor)] = value
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
                self._solve(match, [given for _, given in asked])
                self._release(match)
            results = [self._called(node, given) for node, given in asked]
            for (node, _), made in zip(asked, results, strict=True):
                for tensor, value in zip(node.outputs, made, strict=True):
                    if id(tensor) in wanted:
                        self.seen[id(tensor)] = value
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

            def rows(y: npt.NDArray[Any], part: Part = part) -> npt.NDArray[Any]:
                where = np.arange(part.positions(y, y))
                return part.outputs(y, (np.zeros_like(where), where))

            def before(tensor: Any, node: Node = node) -> bool:
                return self.order.before(tensor, node)

            way = way_from(self.graphs, (node, twin), twins[-1].channels(self.kept), rows, before)
            ways[id(match.layer)] = way if _invertible(way) else _plain_way(part)
        return ways

    def _release(self, match: Match) -> None:
        """Lets go of what only this layer's solution needed."""
        for node in match.twin_calls:
            self.given.pop(id(node), None)
            self.made.pop(id(node), None)
        way = self.ways.get(id(match.layer))
        for tensor in _added(way) if way is not None else ():
            self.wanted[id(tensor)] -= 1
            if not self.wanted[id(tensor)]:
                self.seen.pop(id(tensor), None)

    def _called(self, node: Node, given: list[Chunks]) -> list[Chunks]:
        """Makes a call for every chunk."""
        import keras

        made: list[Chunks] = [[] for _ in node.outputs]
        for index in range(len(self.batches.bounds)):
            args, kwargs = node.arguments([value[index].tensor for value in given])
            if takes_training(node.operation):
                kwargs = {**kwargs, "training": False}
            results = keras.tree.flatten(node.operation(*args, **kwargs))
            for place, result in zip(made, results, strict=True):
                place.append(self.store.keep(result))
        return made

    def _solve(self, match: Match, given: list[list[Chunks]]) -> None:
        """Solves for a layer's kernels, one after the other."""
        if isinstance(match, Scores):
            theirs = [self.given[id(node)][0] for node in match.twin_calls]
            mine = [values[0] for values in given]
            row = solved(match, mine, theirs, self.batches.held, self.kept, self._drawn)
            self.rows.append(row)
            return
        parts, _ = parts_of(match.layer, len(match.calls[0].inputs[0].shape))
        twins, _ = parts_of(match.twin, len(match.twin_calls[0].inputs[0].shape))
        kind = type(match.layer).__name__
        for part, twin in zip(parts, twins, strict=True):
            began = time.perf_counter()
            name = f"{match.name}:{part.name}" if part.name else match.name
            way = self.ways.get(id(match.layer)) if part is parts[-1] else None
            train, held = self._samples(match, part, twin, given, way)
            if not train or not held:
                reason = "a mask leaves out all of its positions"
                self.rows.append(left(name, match.layer, reason))
                continue
            fit, sums = self._fit(match, part, Sample.joined(train), held, way)
            count = sum(map(len, (*train, *held)))
            seconds = time.perf_counter() - began
            before, after = (float(np.mean(side)) for side in (fit.before, fit.after))
            row = LayerRepair(
                name, kind, REPAIRED if fit.better else KEPT, before,
                after if fit.better else before,
                "sum" if way is not None and way.others else "own",
                fit.ridge, count, seconds,
                "" if fit.better else _why(before, after),
            )  # fmt: skip
            self.rows.append(row)
            if fit.better and sums is not None:
                plain = _plain_way(part) if way is None else way
                settle(part, plain, fit.weights, fit.shift, sums, self._absorbers(match, part))

    def _fit(
        self, match: Match, part: Part, train: Sample, held: list[Sample], way: Way | None
    ) -> tuple[Fit, Sums | None]:
        kernel = part.weights()
        shape = kernel.shape[0], kernel.shape[2]
        gain = np.ones(shape) if way is None else way.gain.reshape(shape)
        before = kernel * gain[:, None]
        bias = part.bias_vector().reshape(shape) * gain
        support = part.support(self.mask)
        if support is not None:
            before = before * support
        problem = Problem(before, support, None if self._movable(match, part, way) else bias)
        return fitted(problem, train, held, bias, None if way is None else way.clip)

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

    def _samples(
        self,
        match: Match,
        part: Part,
        twin: Part,
        given: list[list[Chunks]],
        way: Way | None,
    ) -> tuple[list[Sample], list[Sample]]:
        """Samples rows and targets of all calls; those held back call by call."""
        columns = part.weights().shape[:2]
        most = max(1, int(BYTES // (4 * columns[0] * columns[1])))
        kept = twin.channels(self.kept)
        train: list[Sample] = []
        held: list[Sample] = []
        for dense_node, values in zip(match.twin_calls, given, strict=True):
            own: list[Sample] = []
            for index, hold in enumerate(self.batches.held):
                x = _given(values, index) if part.guided else values[0][index]
                # of a recurrence positions are those of its input
                made = x.blank if part.guided else part.blank_output(x.blank.shape)
                places = self._places(part, x, made, most // len(match.calls))
                if len(places[0]):
                    if part.guided:
                        theirs = _given(self.given[id(dense_node)], index)
                        rows, targets = part.pairs(twin, x, theirs, places, self.kept)
                    else:
                        rows = part.rows(x.array, made, places)
                        targets = self._targets(part, twin, dense_node, index, places, kept)
                    rows = rows.astype(np.float32, copy=False)
                    targets = targets.astype(np.float32, copy=False)
                    base = None
                    if way is not None:
                        targets, base = self._folded(way, part, targets, index, places)
                    (own if hold else train).append(Sample(rows, targets, base))
            if own:
                held.append(Sample.joined(own))
        return train, held

    def _targets(
        self,
        part: Part,
        twin: Part,
        node: Node,
        index: int,
        places: Places,
        kept: npt.NDArray[np.int64],
    ) -> npt.NDArray[Any]:
        """Returns what the dense layer makes at places, (rows, kept channels)."""
        known = self.made.get(id(node))
        if known is not None and part.name != "depthwise" and not twin.adds_more:
            return twin.outputs(known[index].array, places)[:, kept]
        value = self.given[id(node)][0][index]
        rows = twin.rows(value.array, twin.blank_output(value.blank.shape), places)
        kernel = twin.matrix(np.asarray(twin.kernel.numpy()))
        found = (rows @ kernel).transpose(1, 0, 2).reshape(len(places[0]), -1)
        return np.asarray(found[:, kept] + twin.bias_vector()[kept].astype(np.float32))

    def _drawn(self, part: Part, x: Value, made: npt.NDArray[Any]) -> Places:
        """Draws as many positions as a layer of one system is looked at."""
        return self._places(part, x, made, max(1, BYTES // (4 * part.weights().shape[1])))

    def _places(self, part: Part, x: Value, made: npt.NDArray[Any], most: int) -> Places:
        """Draws positions of every example of a chunk; those that a mask leaves out are none."""
        positions = part.positions(x.blank, made)
        samples = min(self.samples, most)
        count, each = len(made), min(positions, max(1, -(-samples // self.batches.count)))
        examples = np.repeat(np.arange(count), each)
        if each == positions:
            drawn = np.tile(np.arange(positions), count)
        else:
            order = self.rng.random((count, positions), np.float32)
            drawn = np.argpartition(order, each, axis=1)[:, :each].ravel()
        if x.mask is not None:
            mask = np.asarray(x.mask).reshape(count, -1)
            if mask.shape[1] == positions:
                inside = mask[examples, drawn]
                return examples[inside], drawn[inside]
        return examples, drawn

    def _folded(
        self,
        way: Way,
        part: Part,
        targets: npt.NDArray[Any],
        index: int,
        places: Places,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Returns what is wanted behind a layer's way, and what is added there, by rows.

        The first is what the kernel is to make: offset and others are taken off.
        """
        wanted = targets * way.dense_gain + way.dense_offset
        base = np.broadcast_to(way.offset, wanted.shape)
        width = len(way.gain)
        for other in way.others:
            theirs = part.outputs(self.seen[id(other.dense)][index].array, places)
            mine = part.outputs(self.seen[id(other.pruned)][index].array, places)
            wanted = wanted + other.gains[1] * theirs[:, other.kept]
            base = base + other.gains[0] * mine[:, other.begin : other.begin + width]
        return (wanted - base).astype(np.float32), base.astype(np.float32)


class _Ahead:
    """Runs the dense model as far as the pruned one needs it."""

    def __init__(
        self, lockstep: Lockstep, program: Program, inputs: list[Chunks], wanted: set[int]
    ) -> None:
        self.lockstep = lockstep
        self.graph = lockstep.graphs[1]
        self.wanted = wanted
        self.calls = {
            id(node): match for match in lockstep.matches.values() for node in match.twin_calls
        }
        self.steps = program.stepwise(inputs)
        self.asked: Any = None
        self.outputs: list[Chunks] | None = None
        self.place = -1
        for tensor, value in zip(program.inputs, inputs, strict=True):
            if id(tensor) in wanted:
                lockstep.seen[id(tensor)] = value
        self._next(None)

    def _next(self, results: Any) -> None:
        try:
            self.asked = next(self.steps) if results is None else self.steps.send(results)
        except StopIteration as end:
            self.outputs, self.asked = list(end.value), None

    def _step(self) -> None:
        ((node, given),) = self.asked
        self.asked = None
        made = self.lockstep._called(node, given)
        if id(node) in self.calls:
            if is_linear(getattr(node.operation, "activation", None)):
                self.lockstep.made[id(node)] = made[0]
            self.lockstep.given[id(node)] = given
        for tensor, value in zip(node.outputs, made, strict=True):
            if id(tensor) in self.wanted:
                self.lockstep.seen[id(tensor)] = value
        self.place += 1
        del given
        self._next([made])

    def until(self, match: Match, way: Way | None) -> None:
        """Goes on until a layer's inputs and what is added behind it are known."""
        places = [self.graph.place[id(node)] for node in match.twin_calls]
        places += [self.graph.made[id(other.dense)] for other in (way.others if way else ())]
        while self.asked is not None and self.place < max(places):
            self._step()

    def finish(self) -> list[Chunks]:
        """Goes to the end and returns the outputs."""
        while self.asked is not None:
            self._step()
        assert self.outputs is not None
        return self.outputs


def _columns(match: Match) -> int:
    """Returns the number of inputs that an output of the layer is made of."""
    parts, _ = parts_of(match.layer, len(match.calls[0].inputs[0].shape))
    kernel = parts[-1].kernel
    outputs = math.prod(kernel.shape[axis] for axis in parts[-1].features)
    return int(math.prod(kernel.shape) // outputs)


def _added(way: Way) -> list[Any]:
    """Returns the tensors that are added on a way, of both models."""
    return [tensor for other in way.others for tensor in (other.pruned, other.dense)]


def _tensor(x: npt.NDArray[Any]) -> Any:
    import keras

    return keras.ops.convert_to_tensor(x)


def _given(values: list[Chunks], index: int) -> Value:
    """Returns the sequences that a recurrence is given, with the mask that it is given."""
    x = values[0][index]
    return x.masked(values[1][index].tensor) if len(values) > 1 else x


def _plain_way(part: Part) -> Way:
    width = len(part.bias_vector())
    one, zero = np.ones(width), np.zeros(width)
    return Way(one, zero, one, zero, rest=one, tail=zero)


def _invertible(way: Way) -> bool:
    """Tells whether gains can be divided by: nothing near zero among them."""
    size = np.abs(way.gain if way.first is None else way.rest)
    return bool(size.min() > 1e-4 * size.max())


def _why(before: float, after: float) -> str:
    if before == 0:
        return "nothing is broken in front of it"
    return f"solved, its error on examples held back would be {after:.3g} instead of {before:.3g}"
