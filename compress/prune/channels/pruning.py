"""`prune_channels` and `sensitivity_map`: analysis, selection, surgery and repair in one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.arguments import check_arguments
from compress.core.errors import InputError
from compress.core.summary import Readable, Summary
from compress.model.internals import variable_paths
from compress.model.io import as_model
from compress.plan import ChannelOptions
from compress.plan.channels import AGGREGATES
from compress.plan.data import AUTO
from compress.plan.fields import require_choice
from compress.plan.keywords import PRUNE_CHANNELS
from compress.prune.channels.analysis import coupling_of
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.criteria import (
    CRITERIA,
    NEEDS_DATA,
    WITHOUT_LABELS,
    Context,
    Criterion,
    named,
)
from compress.prune.channels.report import ChannelReport, make_report
from compress.prune.channels.selection.allowed import Selection
from compress.prune.channels.selection.by_rank import select_by_rank
from compress.prune.channels.selection.sensitivity import SensitivityMap, describe_origin
from compress.prune.channels.selection.target import (
    Goal,
    Priced,
    aimed,
    check_feasible,
    nothing_removable,
)
from compress.prune.channels.surgery import (
    KeptIndices,
    Surgeon,
    call_once,
)

if TYPE_CHECKING:
    from typing import Unpack

    import keras

    from compress.data import Dataset, Unlabelled
    from compress.plan.settings import PruneChannelsSettings


@dataclass(frozen=True, eq=False, repr=False)
class PruneResult(Readable):
    """A smaller model, its report and the kept indices.

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
        """Return a summary for the screen."""
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
    finetune: Callable[[Any, int, int], None] | None = None,
    seed: int = 0,
    repair: bool | int | None = None,
    input_shape: Any = None,
    on_choice: Callable[[Selection], None] | None = None,
    on_progress: Callable[[str, float], None] | None = None,
    coupling: Coupling | None = None,
    selection: Selection | None = None,
    **settings: Unpack[PruneChannelsSettings],
) -> PruneResult:
    """Remove whole channels, neurons and attention heads from a model.

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
    name, score = named(ranked_by)
    if ranked_by in NEEDS_DATA and data is None:
        raise InputError(f"Criterion '{name}' must have data to look at. Give data=.")
    source = Path(model) if isinstance(model, (str, Path)) else None
    model = as_model(model)
    data = None if data is None else examples_for(data, ranked_by, model, source, seed)
    count = 0
    if data is not None or repair:
        from compress.data import drawn_inputs
        from compress.reconstruction import repair as solve
        from compress.reconstruction.repairing import FEWEST, repaired_on

        enough = data is not None and len(data.train) >= FEWEST
        count = repaired_on(enough if repair is None else repair, data)
    check_weights(model)
    original = coupling_of(model, input_shape) if coupling is None else coupling
    if selection is None:
        check_feasible(original, options, cost)  # not only when the last step comes to it
    goal = Goal.of_options(options, original, cost)
    current, coupling, repaired = model, original, None
    # what repairs aim at, and what is left of it
    reference, whole, since = model, _Lineage(model), _Lineage(model)
    for step in range(1, options.steps + 1):
        if step > 1:
            coupling = coupling_of(current, original.input_shape)
            coupling.continues(original)
            sensitivity = None  # it is of the whole model
        context = Context(coupling, data=data, seed=seed, aggregate=options.aggregate)
        if sensitivity is not None:
            sensitivity.check(context, name, options.blocks)
        at = goal.at(step, options.steps)
        if selection is not None:
            chosen = selection
        elif options.scope == "damage" or options.compares:
            from compress.prune.channels.selection.chooser import Chooser

            chooser = Chooser.measured(coupling, options, score, context, on_progress, sensitivity)
            chosen = chooser.refined(at, cost, on_progress).choose(at, cost)
        else:
            chosen = select_by_rank(coupling, options, score, context, at, cost)
        if on_choice is not None:
            on_choice(chosen)
        surgeon = Surgeon(coupling, chosen.mask, chosen.dropped)
        current = surgeon.build(coupling.program)
        call_once(current, coupling)
        whole.follow(surgeon)
        since.follow(surgeon)
        if count:
            x, kept = drawn_inputs(data, count, seed), since.kept
            repaired = solve(
                current, reference, x, kept=kept, examples=count, seed=seed, on_progress=on_progress
            )
        if finetune is not None and step < options.steps:
            finetune(current, step, options.steps)
            # what it learnt is not to be undone by the next repair
            reference, since = current, _Lineage(current)
    if options.recalibrate:
        from compress.prune.recalibrate import recalibrate

        if data is None:
            raise InputError("recalibrate must have data to look at. Give data=.")
        recalibrate(current, data, options.recalibrate, seed=seed)
    notes = (*chosen.notes, *dict.fromkeys(context.notes), *_copied(original, coupling))
    if data is not None and repair is None and not count:
        notes += (f"nothing was repaired: that takes at least {FEWEST} examples",)
    report = make_report(
        original,
        whole.kept,
        options,
        goal,
        replace(chosen, notes=notes, method=chosen.method or name),
        repaired,
    )
    return PruneResult(current, report, whole.kept)


@check_arguments()
def sensitivity_map(
    model: keras.Model | str | Path,
    data: Any,
    *,
    criterion: str | Criterion = "reconstruction",
    aggregate: str = "mean",
    blocks: bool = False,
    seed: int = 0,
    on_progress: Callable[[str, float], None] | None = None,
) -> SensitivityMap:
    """Measure the output error of each layer at a few channel counts, once for any target.

    One group of coupled layers at a time is thinned, the layers that read it are reconstructed,
    and the outputs are compared with those of the whole model. `prune_channels` measures the same
    where no map is given. It takes the map with the same data, criterion, aggregation and seed.

    Args:
        model: Any Keras model, or the path of its file; it stays as it is.
        data: Calibration examples, as `prune_channels` takes them; labels are not needed.
        criterion: Orders the channels of a group: a name, or a function as `prune_channels`
            takes it.
        aggregate: How the scores of a channel's weights are combined: "mean", "sum", "max" or
            "norm".
        blocks: Whether output errors without each residual block are measured too.
        seed: Of drawn examples, and of the criterion random.
        on_progress: Called with (text, share that is done).

    Shapes:
        x: (n, ...), as the model takes them; y: see `as_dataset`.

    Returns:
        The map: print it, save it, or give it to `prune_channels`.

    Raises:
        FeasibleError: A model without channels that can be removed.
        InputError: An unknown criterion, NaN weights, or data that do not fit the model.

    Example:
        >>> found = sensitivity_map(model, x)
        >>> [(group.name, group.removed) for group in found.groups]
        [('hidden', (4, 8, 10, 12, 14))]
        >>> small = prune_channels(model, macs=0.5, data=x, sensitivity=found)
    """
    from compress.prune.channels.selection.damage import Judge, measure_sensitivity

    require_choice("channel aggregation", aggregate, AGGREGATES)
    name, score = named(criterion)
    path = Path(model) if isinstance(model, (str, Path)) else None
    model = as_model(model)
    data = examples_for(data, criterion, model, path, seed)
    check_weights(model)
    coupling = coupling_of(model)
    if not coupling.groups:
        raise nothing_removable(coupling)
    context = Context(coupling, data=data, seed=seed, aggregate=aggregate)
    measured = measure_sensitivity(
        coupling, context, score, Judge(coupling, context), blocks=blocks, on_progress=on_progress
    )
    return replace(
        measured,
        notes=tuple(dict.fromkeys(context.notes)),
        origin=describe_origin(context, name, blocks),
    )


def check_channels(coupling: Coupling, options: ChannelOptions) -> None:
    """Check a model against the options before any work is done or file is written.

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


def examples_for(
    data: Any, criterion: str | Criterion, model: keras.Model, path: Path | None, seed: int
) -> Dataset | Unlabelled:
    """Return the examples for a criterion, with labels where there are any and it may need them."""
    from compress.data.streams import is_stream
    from compress.train.given import as_examples, dataset_for

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


class _Lineage:
    """Kept indices of a model's weights over several surgeries.

    Attributes:
        kept: Path of each weight -> kept indices for each of its axes (None: the axis is whole).
    """

    def __init__(self, model: keras.Model) -> None:
        self._now = dict(variable_paths(model))
        self.kept: KeptIndices = {
            path: (None,) * len(weight.shape) for path, weight in self._now.items()
        }

    def follow(self, surgeon: Surgeon) -> None:
        """Note the weights that a surgery kept."""
        indices, new = surgeon.list_kept_indices(), surgeon.weights
        for path, variable in list(self._now.items()):
            if id(variable) in new:
                self._now[path] = new[id(variable)]
                self.kept[path] = tuple(
                    two if one is None else one if two is None else one[two]
                    for one, two in zip(self.kept[path], indices[id(variable)], strict=True)
                )
            else:
                del self._now[path]
                self.kept[path] = tuple(np.zeros(0, np.int64) for _ in variable.shape)


def _copied(*couplings: Coupling) -> list[str]:
    """Return a note for each layer that is a copy of an object: the model's file lacks it."""
    found = {name: told for item in couplings for name, *told in item.graph.copied.values()}
    return [
        f"layer '{name}' ({kind}) was copied as it is, because its config does not make it again "
        f"({reason}): save_weights() keeps the model, a .keras file of it cannot be loaded"
        for name, (kind, reason) in found.items()
    ]
