"""`repair`: refits a pruned model to the dense one on unlabelled examples."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.model.flattening import flat
from compress.model.io import as_model
from compress.model.program import Program
from compress.model.recording import record
from compress.model.walk import variable_paths
from compress.reconstruction.lockstep import SAMPLES, Batches, Lockstep
from compress.reconstruction.matching import Order, joined, matched, opens
from compress.reconstruction.report import RepairReport
from compress.reconstruction.values import CHUNK

if TYPE_CHECKING:
    import keras

Kept = Mapping[str, tuple[npt.NDArray[np.int64] | None, ...]]
Masks = Mapping[str, npt.NDArray[np.bool_]]
HELD = 0.2
"""Share of the examples that is held back: it chooses ridges and tells whether they help."""
FEWEST = 20
EXAMPLES = 1000
"""Of more, so many are drawn."""


def repair(
    pruned: keras.Model,
    dense: keras.Model | str | Path,
    x: Any,
    *,
    kept: Kept | None = None,
    masks: Masks | None = None,
    examples: int = EXAMPLES,
    samples: int = SAMPLES,
    seed: int = 0,
    on_progress: Callable[[str, float], None] | None = None,
) -> RepairReport:
    """Refits a pruned model's kernels so that its layers compute what the dense model's did.

    Both models run side by side on unlabelled examples. Before a layer of the pruned model is
    called, its kernel is solved for by ridge regression: its inputs are those that the pruned
    and so far repaired model makes, its targets what the dense layer makes of its own inputs. No
    labels and no gradients are needed. A layer whose solution is no better on examples held back
    keeps its weights.

    Args:
        pruned: The smaller model; its weights are changed in place.
        dense: What it was pruned from, or the path of its file; it stays as it is.
        x: Examples as the models take them: an array, or a list of arrays for several inputs.
        kept: Kept indices of the dense model's weights, as `prune_channels` returns them
            (`PruneResult.kept`); default: layers have the shapes that they had.
        masks: Path of a weight of the pruned model -> where it may differ from zero; weights
            that are not named may do so everywhere.
        examples: Of more, so many are drawn; at least 20.
        samples: Positions to look at, of all examples together, for each layer.
        seed: Of what is drawn, at least 0.
        on_progress: Called with (text, share that is done).

    Shapes:
        x: (n, ...), as the models take them.

    Returns:
        What was done, layer by layer.

    Raises:
        InputError: Fewer than 20 examples, NaN, shapes that do not fit, models that do not
            belong together, or a mask without any weight left.

    Example:
        >>> small = prune_channels(model, macs=0.5, repair=False)
        >>> report = repair(small.model, model, x, kept=small.kept)
        >>> report.output_error[0][1] < report.output_error[0][0]
        True

    Reference:
        He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks", eq. 1,
        solved in the order of the graph; towards the weights that are there instead of zero, with
        means moved, the ridge chosen on held-back examples, and the errors of shortcuts taken
        over. Masked weights: Frantar & Alistarh 2022, "Optimal Brain Compression", eq. 3.
    """
    began = time.perf_counter()
    dense = as_model(dense)
    programs = flat(record(pruned, opens)), flat(record(dense, opens))
    arrays = _checked(x, programs[1], examples, seed)
    matches, left_out = matched(*programs)
    order = Order(programs[0])
    dependent = joined(order, matches)
    kept_of, mask_of = _indices(dense, kept), _masks(pruned, masks)
    _check_shapes(matches.values(), kept_of)
    batches = _batches(arrays, programs)
    saved = [(weight, weight.numpy()) for weight in pruned.weights]
    before = _outputs_of(programs[0], batches)

    def told(name: str, share: float) -> None:
        if on_progress is not None:
            on_progress(f"repairing {name}", share)

    lockstep = Lockstep(
        *programs, matches, order, kept=kept_of, mask=mask_of, batches=batches, seed=seed,
        samples=samples, on_layer=told,
    )  # fmt: skip
    try:
        outputs, wanted = lockstep.run()
    except BaseException:
        for weight, value in saved:
            weight.assign(value)
        raise
    held = [index for index, hold in enumerate(batches.held) if hold]
    errors = []
    for place, (mine, theirs) in enumerate(zip(outputs, wanted, strict=True)):
        target = np.concatenate([theirs[index].array for index in held]).astype(np.float64)
        now = np.concatenate([mine[index].array for index in held])
        spread = float(((target - target.mean(0)) ** 2).sum()) or 1.0
        if now.shape != target.shape:
            continue
        errors.append(
            (
                float(((before[place] - target) ** 2).sum()) / spread,
                float(((now - target) ** 2).sum()) / spread,
            )
        )
    count = sum(stop - start for (start, stop), hold in zip(batches.bounds, batches.held,
                                                            strict=True) if hold)  # fmt: skip
    return RepairReport(
        (*lockstep.rows, *left_out, *dependent),
        batches.count,
        count,
        time.perf_counter() - began,
        tuple(errors),
    )


def _checked(x: Any, dense: Program, examples: int, seed: int) -> tuple[npt.NDArray[Any], ...]:
    """Returns arrays of a random selection of examples, in random order."""
    import keras

    arrays = tuple(np.asarray(part) for part in keras.tree.flatten(x))
    if len(arrays) != len(dense.inputs):
        raise InputError(
            f"Examples must be one array for each of the model's {len(dense.inputs)} inputs. "
            f"Received: {len(arrays)}."
        )
    counts = {len(part) for part in arrays}
    if len(counts) != 1 or min(counts) < FEWEST or examples < FEWEST:
        raise InputError(
            f"A repair must have at least {FEWEST} examples, as many for every input. Received: "
            f"{', '.join(map(str, sorted(counts)))}"
            + (f" (examples={examples})." if examples < FEWEST else ".")
        )
    for part, tensor in zip(arrays, dense.inputs, strict=True):
        wanted, given = tuple(tensor.shape)[1:], part.shape[1:]
        fits = len(wanted) == len(given) and all(
            size in (None, other) for size, other in zip(wanted, given, strict=True)
        )
        if not fits:
            raise InputError(
                f"Examples must have the model's input shape {wanted}. Received: {given}."
            )
        if part.dtype.kind == "f" and not np.isfinite(part).all():
            raise InputError("Examples must be finite. Received: NaN or infinity.")
    order = np.random.default_rng(seed).permutation(min(counts))[:examples]
    return tuple(part[order] for part in arrays)


def _indices(
    dense: keras.Model, kept: Kept | None
) -> Callable[[Any, int], npt.NDArray[np.int64] | None]:
    if kept is None:
        return lambda *_: None
    paths = {id(variable): path for path, variable in variable_paths(dense)}
    unknown = [path for path in kept if path not in paths.values()]
    if unknown:
        raise InputError(
            f"kept must name weights of the dense model. Received: '{unknown[0]}'. Give the "
            "model that was pruned, and its PruneResult.kept."
        )

    def found(variable: Any, axis: int) -> npt.NDArray[np.int64] | None:
        axes = kept.get(paths[id(variable)])
        return None if axes is None else axes[axis]

    return found


def _masks(
    pruned: keras.Model, masks: Masks | None
) -> Callable[[Any], npt.NDArray[np.bool_] | None]:
    if not masks:
        return lambda _: None
    by_path = dict(variable_paths(pruned))
    for path, mask in masks.items():
        if path not in by_path or tuple(by_path[path].shape) != np.shape(mask):
            raise InputError(
                f"A mask must name a weight of the pruned model and have its shape. Received: "
                f"'{path}', {np.shape(mask)}."
            )
        if not np.any(mask):
            raise InputError(f"A mask must leave at least one weight. Received: none for '{path}'.")
    by_id = {id(by_path[path]): np.asarray(mask, bool) for path, mask in masks.items()}
    return lambda variable: by_id.get(id(variable))


def _check_shapes(matches: Any, kept_of: Any) -> None:
    """Checks that every matched layer's kernels are what is kept of the dense one's.

    Raises:
        InputError: They are not.
    """
    from compress.reconstruction.kinds import parts_of

    for match in matches:
        rank = len(match.calls[0].inputs[0].shape)
        pairs = zip(parts_of(match.layer, rank)[0], parts_of(match.twin, rank)[0], strict=True)
        for part, twin in pairs:
            for own, theirs in zip(part.variables, twin.variables, strict=True):
                _check_shape(match.name, own, theirs, kept_of)


def _check_shape(name: str, own: Any, theirs: Any, kept_of: Any) -> None:
    wanted = []
    for axis, size in enumerate(theirs.shape):
        indices = kept_of(theirs, axis)
        wanted.append(size if indices is None else len(indices))
    shape = tuple(own.shape)
    if 0 in shape:
        raise InputError(f"Layer '{name}' must keep at least one channel. Received: {shape}.")
    if tuple(wanted) != shape:
        raise InputError(
            f"Layer '{name}' must have the kept part of the dense layer's kernel, "
            f"{tuple(wanted)}. Received: {shape}. Give kept= of the pruning that made it."
        )


def _batches(arrays: Sequence[npt.NDArray[Any]], programs: Sequence[Program]) -> Batches:
    """Cuts examples into chunks whose largest tensor stays small; the last part is held back."""
    count = len(arrays[0])
    largest = max(
        math.prod(size or 1 for size in tuple(tensor.shape)[1:]) * 4
        for program in programs
        for node in program.nodes
        for tensor in node.outputs
    )
    size = int(min(256, max(1, CHUNK // largest)))
    held = max(2, round(count * HELD))
    bounds, flags = [], []
    for start, stop, hold in ((0, count - held, False), (count - held, count, True)):
        for begin in range(start, stop, size):
            bounds.append((begin, min(begin + size, stop)))
            flags.append(hold)
    return Batches(tuple(arrays), tuple(bounds), tuple(flags))


def _outputs_of(program: Program, batches: Batches) -> list[npt.NDArray[Any]]:
    """Returns what a model makes of the examples held back, output by output."""
    parts = [
        program.run([x[start:stop] for x in batches.inputs])
        for (start, stop), hold in zip(batches.bounds, batches.held, strict=True)
        if hold
    ]
    return [np.concatenate([np.asarray(part) for part in out]) for out in zip(*parts, strict=True)]
