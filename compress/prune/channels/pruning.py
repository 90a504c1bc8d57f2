"""`prune_channels` and `coupled_groups`: analysis, selection and surgery in one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.arguments import check_arguments
from compress.core.errors import InputError
from compress.core.summary import Readable, Summary
from compress.data import Dataset, Unlabelled, drawn_inputs
from compress.data.streams import is_stream
from compress.model.internals import variable_paths
from compress.model.io import as_model
from compress.plan import ChannelOptions
from compress.plan.data import AUTO
from compress.plan.keywords import PRUNE_CHANNELS
from compress.prune.channels.analysis import coupling_of
from compress.prune.channels.coupling.blocks import blocks_of
from compress.prune.channels.coupling.groups import Coupling, Mask
from compress.prune.channels.coupling.slots import Ids
from compress.prune.channels.criteria import (
    CRITERIA,
    NEEDS_DATA,
    WITHOUT_LABELS,
    Context,
    Criterion,
    named,
)
from compress.prune.channels.report import ChannelReport, row_of, unknown_layers
from compress.prune.channels.selection.allocation import Priced
from compress.prune.channels.selection.allowed import check_feasible, cost_of
from compress.prune.channels.selection.chooser import select
from compress.prune.channels.selection.chosen import Goal, Selection, aimed, of_widths
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.selection.sensitivity import SensitivityMap
from compress.prune.channels.surgery import (
    KeptIndices,
    call_once,
    indices_by_weight,
    sliced_with_weights,
)
from compress.reconstruction import RepairReport
from compress.reconstruction import repair as solve
from compress.reconstruction.repairing import FEWEST, repaired_on
from compress.train.given import as_examples, dataset_for

if TYPE_CHECKING:
    from typing import Unpack

    import keras

    from compress.plan.settings import PruneChannelsSettings

Finetune = Callable[[Any, int, int], None]


@dataclass(frozen=True, eq=False, repr=False)
class PruneResult(Readable):
    """A smaller model and how it came about.

    Attributes:
        model: An ordinary Keras model with the same layer names.
        report: What was removed, what stayed and why.
        kept: Path of each weight of the original -> kept indices for each of its axes
            (None: the axis is whole).
    """

    model: keras.Model
    report: ChannelReport
    kept: KeptIndices

    def screen(self) -> Summary:
        """Returns what is worth a screen."""
        found = self.report.screen()
        return replace(found, title=f"'{self.model.name}': {found.title}")


@check_arguments(keywords=("macs", "params", "amount"), options=PRUNE_CHANNELS)
def prune_channels(
    model: keras.Model | str | Path,
    options: ChannelOptions | None = None,
    *,
    macs: float | str | None = None,
    params: float | str | None = None,
    amount: float | None = None,
    cost: Priced | None = None,
    share: float | None = None,
    criterion: str | Criterion | None = None,
    data: Any = None,
    sensitivity: SensitivityMap | None = None,
    finetune: Finetune | None = None,
    seed: int = 0,
    repair: bool | int | None = None,
    input_shape: Any = None,
    on_choice: Callable[[Selection], None] | None = None,
    on_progress: Callable[[str, float], None] | None = None,
    coupling: Coupling | None = None,
    selection: Selection | None = None,
    **settings: Unpack[PruneChannelsSettings],
) -> PruneResult:
    """Removes whole channels, neurons and attention heads from a model.

    Args:
        model: Any Keras model, or the path of its file; it stays as it is. Subclassed models and
            layers made of layers are opened where their `call` can be traced.
        options: The plan's section; keywords go over it.
        macs: Multiply-accumulates to keep: a share of the original in (0, 1], or a count
            (2_000_000, or "2M").
        params: Parameters to keep, likewise.
        amount: Share of the channels of every layer to remove, in [0, 1).
        cost: What to save otherwise: a function of the removable units that groups keep,
            (..., groups), and of the blocks that stay, (..., blocks) of 0 and 1 or None where all
            do, in the orders of `coupling_of(model)`; it returns (...). `channel_times` measures
            one: milliseconds on this machine.
        share: Of `cost` to keep, in (0, 1].
        criterion: Name, or a function (group, context) -> (units,) scores, higher = keep. Default
            ("auto"), with data: three methods are compared (l2 over all layers, uniform channel
            counts, output error), each configuration is reconstructed and evaluated on held-back
            examples, and the best one is kept; l2 over all layers where that would take more than
            5 minutes or half of the free memory, which the report says, and without data.
        data: For repair, for the comparison of methods, for the scope damage, for the criteria
            reconstruction, activation and taylor (which needs labels), and for `recalibrate`: x
            alone, (x, y), a stream, a `Dataset`, or what `--data` takes; see `as_dataset`.
            Calibration examples are training examples.
        sensitivity: Output errors that `sensitivity_map` measured with the same data, criterion
            and seed, for scope damage or auto: several targets need one measurement, and the
            result is that of measuring anew. Of several steps the first one uses it.
        finetune: Called as `finetune(model, step, steps)` between steps; trains in place.
        repair: Examples on which the smaller model's layers are solved for, so that they compute
            what they did, see `compress.reconstruction.repair`; True: 1,000; False or 0: weights
            stay as they are. Default: True where data are given. After each step, before
            `finetune`.
        seed: Of the criterion random and of drawn examples.
        input_shape: Of one example, where the model's own has open sizes: MACs are counted at
            it, and the smaller model is as open as the original. Of a subclassed model that
            was never called, with the batch axis.
        on_choice: Called with each selection before any work is done on it.
        on_progress: Called with (text, share that is done) while damages are measured and layers
            are solved for.
        coupling: Of this model at this `input_shape`, where it is known; else it is analysed.
        selection: Chosen before, for the same target, on this coupling, in one step; default:
            it is chosen.
        **settings: Other fields of `ChannelOptions`: scope, round_to, exclude, ...

    Shapes:
        x: (n, ...), as the model takes them; y: see `as_dataset`.

    Returns:
        The smaller model, the report, and the kept indices of every weight.

    Raises:
        FeasibleError: A target below what is feasible or above what the model has, or a model
            without channels that can be removed.
        InputError: No target or several, an unknown criterion, missing data, NaN weights, a
            pattern that matches nothing, a sensitivity map of something else, an open input
            size and MACs to be counted, or a model that can neither be read nor traced.

    Example:
        >>> small = prune_channels(model, macs=0.5)
        >>> 0.4 < 1 / small.report.macs_ratio <= 0.5
        True

    Reference:
        Groups of coupled layers: Fang et al. 2023, "DepGraph", section 3.2; here one
        connected component of channel slots is one unit, so that concatenation, splitting
        and flattening need no index maps.
    """
    targets = {"macs": macs, "params": params, "amount": amount, "cost": share}
    given = {name: value for name, value in targets.items() if value is not None}
    options = PRUNE_CHANNELS.section("channels", options, ChannelOptions, settings)
    if len(given) > 1 or not (given or options.active):
        raise InputError(
            "A channel target must be one of macs=, params=, amount= or share= of a cost=. "
            f"Received: {', '.join(given) or 'none'}."
        )
    options = aimed(options, given, cost)
    if selection is not None and options.steps > 1:
        raise InputError(
            "selection must go with one step: it is of the model as it is. Received: "
            f"{options.steps} steps."
        )
    priced = of_widths(cost)
    decided = selection is not None or criterion not in (None, AUTO)
    if decided or data is None or repair in (False, 0):
        options = options.without_comparison()
    if sensitivity is not None and not (options.scope == "damage" or options.compares):
        raise InputError(
            "sensitivity must go with scope damage, or with scope auto, data, repair and no "
            f"criterion. Received: a choice by scope {options.scope}."
        )
    if options.scope == "damage" and data is None:
        raise InputError("Channel scope 'damage' must have data to look at. Give data=.")
    ranked_by = options.ranking if criterion is None or criterion == AUTO else criterion
    name, score = _criterion(ranked_by, data)
    source = Path(model) if isinstance(model, (str, Path)) else None
    model = as_model(model)
    data = None if data is None else examples_for(data, ranked_by, model, source, seed)
    asked = repair
    if repair is None:
        repair = data is not None and len(data.train) >= FEWEST
    count = repaired_on(repair, data)
    check_weights(model)
    original = coupling_of(model, input_shape) if coupling is None else coupling
    if selection is None:
        check_feasible(original, options, priced)  # not only when the last step comes to it
    goal = Goal.of_options(options, original, priced)
    place = dict(variable_paths(model))
    kept: KeptIndices = {path: (None,) * len(weight.shape) for path, weight in place.items()}
    current, coupling = model, original
    # what repairs aim at, its weights, and what is kept of them
    reference, anchors, since = model, place, dict(kept)
    for step in range(1, options.steps + 1):
        if step > 1:
            coupling = coupling_of(current, original.input_shape)
            coupling.continues(original)
            sensitivity = None  # it is of the whole model
        context = Context(coupling, data=data, seed=seed, aggregate=options.aggregate)
        if sensitivity is not None:
            sensitivity.check(context, name, options.blocks)
        chosen = selection or select(
            coupling,
            options,
            score,
            context,
            goal.at(step, options.steps),
            sensitivity,
            on_progress,
            cost,
        )
        if on_choice is not None:
            on_choice(chosen)
        indices = indices_by_weight(coupling, chosen.mask, chosen.dropped)
        current, new = sliced_with_weights(coupling, chosen.mask, chosen.dropped)
        call_once(current, coupling)
        for path, variable in place.items():
            kept[path] = _composed(kept[path], indices[id(variable)])
            since[path] = _composed(since[path], indices[id(variable)])
        place = {path: new[id(variable)] for path, variable in place.items() if id(variable) in new}
        gone = {path: _nothing(axes) for path, axes in kept.items() if path not in place}
        kept, since = kept | gone, since | {path: gone[path] for path in gone if path in since}
        names = {id(variable): path for path, variable in variable_paths(reference)}
        own = {names[id(anchors[path])]: axes for path, axes in since.items()}
        repaired = _repaired(current, reference, data, own, count, seed, on_progress)
        if finetune is not None and step < options.steps:
            finetune(current, step, options.steps)
            # what it learnt is not to be undone by the next repair
            reference, anchors = current, place
            since = {path: (None,) * len(weight.shape) for path, weight in place.items()}
    if options.recalibrate:
        _recalibrated(current, data, options, seed)
    few = data is not None and asked is None and not count
    notes = (*chosen.notes, *dict.fromkeys(context.notes), *_copied(original, coupling))
    if few:
        notes += (f"nothing was repaired: that takes at least {FEWEST} examples",)
    how = chosen.method or name
    report = _report(original, kept, options, goal, chosen, how, notes, priced is not None)
    return PruneResult(current, replace(report, repair=repaired), kept)


def _repaired(
    current: keras.Model,
    dense: keras.Model,
    data: Dataset | Unlabelled | None,
    kept: KeptIndices,
    count: int,
    seed: int,
    on_progress: Callable[[str, float], None] | None,
) -> RepairReport | None:
    if not count or data is None:
        return None
    x = drawn_inputs(data, count, seed)
    return solve(current, dense, x, kept=kept, examples=count, seed=seed, on_progress=on_progress)


def _nothing(axes: tuple[Ids | None, ...]) -> tuple[Ids | None, ...]:
    return tuple(np.zeros(0, np.int64) for _ in axes)


def _criterion(chosen: str | Criterion, data: Any) -> tuple[str, Criterion]:
    name, score = named(chosen)
    if chosen in NEEDS_DATA and data is None:
        raise InputError(f"Criterion '{name}' must have data to look at. Give data=.")
    return name, score


def examples_for(
    data: Any, criterion: str | Criterion, model: keras.Model, path: Path | None, seed: int
) -> Dataset | Unlabelled:
    """Returns what a criterion looks at: labels where it may need them, and they are there."""
    if criterion in WITHOUT_LABELS:
        return as_examples(data, model=model, path=path, seed=seed)
    if criterion in NEEDS_DATA or isinstance(data, tuple) or is_stream(data):
        return dataset_for(model, data, path=path, seed=seed)
    return as_examples(data, model=model, path=path, seed=seed)


def check_weights(model: keras.Model) -> None:
    """Check that weights are finite."""
    for path, variable in variable_paths(model):
        if "float" in str(variable.dtype) and not np.all(np.isfinite(variable.numpy())):
            raise InputError(
                f"The model's weights must be finite to be ranked. Received: NaN or infinity in "
                f"'{path}'. Load the weights of an earlier epoch."
            )


def _composed(
    first: tuple[Ids | None, ...], second: tuple[Ids | None, ...]
) -> tuple[Ids | None, ...]:
    """Indices into the original of what two slicings in a row keep."""
    return tuple(
        two if one is None else one if two is None else one[two]
        for one, two in zip(first, second, strict=True)
    )


def _recalibrated(
    model: keras.Model, data: Dataset | Unlabelled | None, options: ChannelOptions, seed: int
) -> None:
    from compress.prune.recalibrate import recalibrate

    if data is None:
        raise InputError("recalibrate must have data to look at. Give data=.")
    recalibrate(model, data, options.recalibrate, seed=seed)


def _copied(*couplings: Coupling) -> list[str]:
    """Says which layers are copies of objects, and what that means for the model's file."""
    found = {name: told for item in couplings for name, *told in item.graph.copied.values()}
    return [
        f"layer '{name}' ({kind}) was copied as it is, because its config does not make it again "
        f"({reason}): save_weights() keeps the model, a .keras file of it cannot be loaded"
        for name, (kind, reason) in found.items()
    ]


def _mask_of(coupling: Coupling, kept: KeptIndices) -> Mask:
    """Returns the kept units of the original from the kept indices of its weights."""
    mask = np.ones(coupling.units, bool)
    paths = {id(variable): path for path, variable in variable_paths(coupling.program.model)}
    for binding in coupling.bindings:
        indices = kept[paths[id(binding.variable)]][binding.axis]
        # a weight that left whole says nothing of channels that others still have
        if indices is not None and len(indices):
            mask[coupling.unit[np.delete(binding.ids, indices)]] = False
    return mask


def _report(
    coupling: Coupling,
    kept: KeptIndices,
    options: ChannelOptions,
    goal: Goal,
    selection: Selection,
    criterion: str,
    notes: tuple[str, ...],
    priced: bool = False,
) -> ChannelReport:
    mask = _mask_of(coupling, kept)
    counts = np.array([np.count_nonzero(mask[group.units]) for group in coupling.groups])
    full, costs = coupling.whole, CostModel.of(coupling)
    if any(len(axis) == 0 for axes in kept.values() for axis in axes if axis is not None):
        present = _present(coupling, kept)
        macs = costs.macs(counts, present) if costs.has_macs else None
        params = costs.params(counts, present)
        reached = float(params if macs is None or options.target_metric == "params" else macs)
    else:
        macs = costs.macs(counts) if costs.has_macs else None
        params = costs.params(counts)
        reached = float(cost_of(coupling, options)(counts))
    if priced:
        reached = selection.choice.cost
    return ChannelReport(
        tuple(
            row_of(coupling, group, int(count) + group.fixed)
            for group, count in zip(coupling.groups, counts, strict=True)
        ),
        coupling.frozen_report(),
        unknown_layers(coupling),
        tuple(coupling.program.opened),
        None if macs is None else (int(costs.macs(full)), int(macs)),
        (int(costs.params(full)), int(params)),
        f"{'cost' if priced else options.target_metric} {options.target}",
        0.0 if options.target_metric == "amount" else reached / goal.value - 1.0,
        criterion,
        selection.round_to,
        notes,
    )


def _present(coupling: Coupling, kept: KeptIndices) -> Ids:
    """Returns 1 for blocks of which a weight is left, (blocks,)."""
    paths = {id(variable): path for path, variable in variable_paths(coupling.program.model)}
    gone = {
        path
        for path, axes in kept.items()
        if any(axis is not None and len(axis) == 0 for axis in axes)
    }
    found = []
    for block in blocks_of(coupling):
        weights = [
            paths[id(weight)]
            for node in block.nodes
            for weight in getattr(node.operation, "weights", ())
        ]
        found.append(int(not set(weights) <= gone))
    return np.array(found, np.int64)


def check_channels(coupling: Coupling, options: ChannelOptions) -> None:
    """Checks a model against the options before any work is done or file is written.

    Args:
        coupling: Of the model to be pruned.
        options: How.

    Raises:
        FeasibleError: A target that the model cannot meet (the message says the minimum and
            what holds it).
        InputError: An unknown criterion, NaN weights, or a pattern that matches nothing.
    """
    CRITERIA[options.ranking]
    check_weights(coupling.program.model)
    check_feasible(coupling, options)
    Goal.of_options(options, coupling)
