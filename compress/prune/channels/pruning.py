"""Entry points: `prune_channels` and `sensitivity_map`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from compress.core.arguments import check_arguments
from compress.core.errors import InputError
from compress.core.summary import DisplayableResult, Summary
from compress.model.io import as_model
from compress.model.keras_internals import list_named_weights
from compress.plan import ChannelOptions
from compress.plan.data import AUTO
from compress.plan.keywords import PRUNE_CHANNELS
from compress.prune.channels.analysis import analyze_coupling
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.criteria import (
    CRITERIA,
    NEEDS_DATA,
    WITHOUT_LABELS,
    Context,
    Criterion,
    resolve_criterion,
)
from compress.prune.channels.report import ChannelReport, make_report
from compress.prune.channels.selection.allowed_counts import Selection
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.selection.rank_selection import select_by_rank
from compress.prune.channels.selection.sensitivity import SensitivityMap, describe_origin
from compress.prune.channels.selection.target import (
    CostFunction,
    Goal,
    apply_target,
    build_unprunable_error,
    check_feasible,
)
from compress.prune.channels.surgery import (
    KeptIndices,
    PrunedModelBuilder,
    check_callable,
)

if TYPE_CHECKING:
    import keras

    from compress.data import Dataset, UnlabelledDataset
    from compress.plan.settings import PruneChannelsSettings


@dataclass(frozen=True, eq=False, repr=False)
class PruneResult(DisplayableResult):
    """A pruned model, its report and the kept indices.

    Attributes:
        model: An ordinary Keras model with the same layer names.
        report: Removed, kept and frozen channels, with reasons.
        kept: Path of each weight of the original -> kept indices of each of its axes (None: the
            whole axis is kept).
    """

    model: keras.Model
    report: ChannelReport
    kept: KeptIndices

    def build_summary(self) -> Summary:
        """Return a summary for the screen."""
        summary = self.report.build_summary()
        return replace(summary, title=f"'{self.model.name}': {summary.title}")


@check_arguments(keywords=("macs", "params"), options=PRUNE_CHANNELS)
def prune_channels(
    model: keras.Model | str | Path,
    options: ChannelOptions | None = None,
    *,
    macs: float | str | None = None,
    params: float | str | None = None,
    cost: CostFunction | None = None,
    share: float | None = None,
    criterion: str | Criterion | None = None,
    data: Any = None,
    sensitivity: SensitivityMap | None = None,
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
        model: Any Keras model, or the path of its file. It is not modified. Subclassed models and
            composite layers are opened if their `call` can be traced.
        options: Channel options of a plan; keywords override it.
        macs: Multiply-accumulates to keep: a share of the original in (0, 1], or a count
            (2_000_000, or "2M").
        params: Parameters to keep, as for `macs`.
        cost: Custom cost: a function of the removable units kept in each group, (..., groups), and
            of the present blocks, (..., blocks) of 0 and 1, or None if all are present; in the
            orders of `analyze_coupling(model)`. It returns (...). `channel_times` measures one:
            milliseconds on this machine.
        share: Share of `cost` to keep, in (0, 1].
        criterion: Name, or a function (group, context) -> (units,) scores, higher = keep. Default
            ("auto"), with data: three methods are compared (l2 over all layers, uniform channel
            counts, output error), each configuration is reconstructed and evaluated on held-back
            examples, and the best one is kept. Without data or reconstruction: l2 over all layers;
            so too with few examples, or if the comparison would take more than 5 minutes or half
            of the free memory, which is noted in the report.
        data: Calibration data: x alone, (x, y), a stream, a `Dataset`, or a value of `--data`; see
            `as_dataset`. Only the training part is read. It is used for weight reconstruction, the
            comparison of methods, the choice of channel counts by output error, the criteria
            "reconstruction", "activation" and "taylor" (which needs labels).
        sensitivity: Output errors measured by `sensitivity_map` with the same data, criterion and
            seed, for a choice by output error or a comparison of methods. Several targets then need
            only one measurement; the result is the same as without it.
        seed: Seed of the criterion "random" and of the drawn examples.
        repair: Number of calibration examples for weight reconstruction (layer-wise least squares),
            see `compress.reconstruction.repair`; True: 1,000; False or 0: no reconstruction.
            Default: True if there are enough examples.
        input_shape: Shape of one example, at which MACs are counted; needed only if the model's
            input has open sizes, which remain open in the pruned model. For a subclassed model that
            was never called, with the batch axis.
        on_choice: Callback invoked with the selection before it is applied.
        on_progress: Called with (text, completed share) while output errors are measured and layers
            are reconstructed.
        coupling: Coupling of this model at this `input_shape`; default: it is analyzed.
        selection: Selection for the same target and coupling, default: it is computed.
        **settings: Other fields of `ChannelOptions`: scope, round_to, exclude, ...

    Shapes:
        x: (n, ...), as the model expects; y: see `as_dataset`.

    Returns:
        The pruned model, the report, and the kept indices of every weight.

    Raises:
        FeasibleError: The target is below the feasible minimum or above the model's own cost, or
            the model has no removable channels.
        InputError: There is no target or more than one, an unknown criterion, missing data, NaN
            weights, a pattern that matches nothing, a sensitivity map that was measured
            differently, an open input size although MACs are counted, or a model that can be
            neither read nor traced.

    Example:
        >>> small = prune_channels(model, macs=0.5)
        >>> 0.4 < 1 / small.report.macs_ratio <= 0.5
        True

    Reference:
        Groups of coupled layers: Fang et al. 2023, "DepGraph", section 3.2. Here a unit is one
        connected component of channel slots, so concatenation, splitting and flattening need no
        index maps.
    """
    targets = {"macs": macs, "params": params, "cost": share}
    requested_targets = {name: value for name, value in targets.items() if value is not None}
    options = PRUNE_CHANNELS.build_section("channels", options, ChannelOptions, settings)
    if len(requested_targets) > 1 or not (requested_targets or options.target is not None):
        raise InputError(
            "A channel target must be one of macs=, params= or share= of a cost=. "
            f"Received: {', '.join(requested_targets) or 'none'}."
        )
    options = apply_target(options, requested_targets, cost)
    decided = selection is not None or criterion not in (None, AUTO)
    if decided or data is None or repair in (False, 0):
        options = options.select_single_method()
    by_output_error = options.scope == "output_error"
    if sensitivity is not None and not (by_output_error or options.should_compare):
        raise InputError(
            "sensitivity must go with scope output_error, or with scope auto, data, repair and no "
            f"criterion. Received: a choice by scope {options.scope}."
        )
    if by_output_error and data is None:
        raise InputError("Channel scope 'output_error' must have data to look at. Give data=.")
    chosen_criterion = (
        options.ranking_criterion if criterion is None or criterion == AUTO else criterion
    )
    name, score = resolve_criterion(chosen_criterion)
    if chosen_criterion in NEEDS_DATA and data is None:
        raise InputError(f"Criterion '{name}' must have data to look at. Give data=.")
    source = Path(model) if isinstance(model, (str, Path)) else None
    model = as_model(model)
    data = None if data is None else prepare_examples(data, chosen_criterion, model, source, seed)
    count = 0
    if data is not None or repair:
        from compress.data import sample_inputs
        from compress.reconstruction import repair as reconstruct
        from compress.reconstruction.repairing import MIN_EXAMPLES, count_repair_examples

        is_enough = data is not None and len(data.train) >= MIN_EXAMPLES
        count = count_repair_examples(is_enough if repair is None else repair, data)
    check_weights(model)
    if coupling is None:
        coupling = analyze_coupling(model, input_shape)
    if params is not None:
        cost = CostModel.from_coupling(coupling).params
    if selection is None:
        check_feasible(coupling, options, cost)
    goal = Goal.from_options(options, coupling, cost)
    context = Context(coupling, data=data, seed=seed)
    if sensitivity is not None:
        sensitivity.check(context, name, options.blocks)
    if selection is not None:
        chosen = selection
    elif by_output_error or options.should_compare:
        from compress.prune.channels.selection.selector import ChannelSelector

        selector = ChannelSelector.from_measurement(
            coupling, options, score, context, on_progress, sensitivity
        )
        chosen = selector.refine(goal.value, cost, on_progress).select(goal.value, cost)
    else:
        chosen = select_by_rank(coupling, options, score, context, goal.value, cost)
    if on_choice is not None:
        on_choice(chosen)
    builder = PrunedModelBuilder(coupling, chosen.mask, chosen.removed_blocks)
    pruned_model = builder.build(coupling.program)
    check_callable(pruned_model, coupling)
    kept, repair_report = _find_kept_indices(model, builder), None
    if count:
        x = sample_inputs(data, count, seed)
        repair_report = reconstruct(
            pruned_model, model, x, kept=kept, examples=count, seed=seed, on_progress=on_progress
        )
    notes = (*chosen.notes, *dict.fromkeys(context.notes), *_list_copy_notes(coupling))
    if data is not None and repair is None and not count:
        notes += (f"nothing was repaired: that takes at least {MIN_EXAMPLES} examples",)
    report = make_report(
        coupling,
        kept,
        options,
        goal,
        replace(chosen, notes=notes, method=chosen.method or name),
        repair_report,
    )
    return PruneResult(pruned_model, report, kept)


@check_arguments()
def sensitivity_map(
    model: keras.Model | str | Path,
    data: Any,
    *,
    criterion: str | Criterion = "reconstruction",
    blocks: bool = False,
    seed: int = 0,
    on_progress: Callable[[str, float], None] | None = None,
) -> SensitivityMap:
    """Measure the output error of each layer at several channel counts, for reuse with any target.

    One group of coupled layers is pruned at a time, the layers that read it are reconstructed, and
    the outputs are compared with those of the original. `prune_channels` makes the same measurement
    if no map is given. It accepts the map with the same data, criterion and seed.

    Args:
        model: Any Keras model, or the path of its file. It is not modified.
        data: Calibration examples, as for `prune_channels`; labels are not needed.
        criterion: Criterion that orders the channels of a group: a name, or a function as for
            `prune_channels`.
        blocks: Whether to measure the output error without each residual block too.
        seed: Seed of the drawn examples and of the criterion "random".
        on_progress: Called with (text, completed share).

    Shapes:
        x: (n, ...), as the model expects; y: see `as_dataset`.

    Returns:
        The map, which can be printed, saved, or passed to `prune_channels`.

    Raises:
        FeasibleError: The model has no removable channels.
        InputError: An unknown criterion, NaN weights, or data that does not fit the model.

    Example:
        >>> output_errors = sensitivity_map(model, x)
        >>> [(group.name, group.removed) for group in output_errors.groups]
        [('hidden', (4, 8, 10, 12, 14))]
        >>> small = prune_channels(model, macs=0.5, data=x, sensitivity=output_errors)
    """
    from compress.prune.channels.selection.output_error import ErrorEvaluator, measure_sensitivity

    name, score = resolve_criterion(criterion)
    path = Path(model) if isinstance(model, (str, Path)) else None
    model = as_model(model)
    data = prepare_examples(data, criterion, model, path, seed)
    check_weights(model)
    coupling = analyze_coupling(model)
    if not coupling.groups:
        raise build_unprunable_error(coupling)
    context = Context(coupling, data=data, seed=seed)
    measured = measure_sensitivity(
        coupling,
        context,
        score,
        ErrorEvaluator(coupling, context),
        blocks=blocks,
        on_progress=on_progress,
    )
    return replace(
        measured,
        notes=tuple(dict.fromkeys(context.notes)),
        origin=describe_origin(context, name, blocks),
    )


def check_channels(coupling: Coupling, options: ChannelOptions) -> None:
    """Check a model against the options before it is pruned or a file is written.

    Args:
        coupling: Coupling of the model.
        options: Criterion, floors and excluded layers; the target, if there is one.

    Raises:
        FeasibleError: The model cannot meet the target (the message contains the minimum and the
            reasons).
        InputError: An unknown criterion, NaN weights, or a pattern that matches nothing.
    """
    CRITERIA[options.ranking_criterion]
    check_weights(coupling.program.model)
    check_feasible(coupling, options)
    if options.target is not None:
        Goal.from_options(options, coupling)


def prepare_examples(
    data: Any, criterion: str | Criterion, model: keras.Model, path: Path | None, seed: int
) -> Dataset | UnlabelledDataset:
    """Return the examples for a criterion, with labels if available and possibly needed.

    Args:
        data: Data as for `prune_channels`.
        criterion: Name or function of the criterion.
        model: The model.
        path: Path of the model's file; None if there is none.
        seed: Seed of the split.
    """
    from compress.data.streams import is_stream
    from compress.train.dataset_loading import as_examples, prepare_dataset

    may_have_labels = criterion in NEEDS_DATA or isinstance(data, tuple) or is_stream(data)
    if may_have_labels and criterion not in WITHOUT_LABELS:
        return prepare_dataset(model, data, path=path, seed=seed)
    return as_examples(data, model=model, path=path, seed=seed)


def check_weights(model: keras.Model) -> None:
    """Check that all weights are finite.

    Raises:
        InputError: A weight is NaN or infinite.
    """
    for path, variable in list_named_weights(model):
        if "float" in str(variable.dtype) and not np.all(np.isfinite(variable.numpy())):
            raise InputError(
                f"The model's weights must be finite to be ranked. Received: NaN or infinity in "
                f"'{path}'. Load the weights of an earlier epoch."
            )


def _find_kept_indices(model: keras.Model, builder: PrunedModelBuilder) -> KeptIndices:
    """Return the kept indices of each weight's axes; empty for weights that were not built."""
    indices = builder.list_kept_indices()
    return {
        path: indices[id(weight)]
        if id(weight) in builder.new_weights
        else tuple(np.zeros(0, np.int64) for _ in weight.shape)
        for path, weight in list_named_weights(model)
    }


def _list_copy_notes(coupling: Coupling) -> list[str]:
    """Return a note for each layer that was copied, not rebuilt: no model file can be loaded."""
    copied_layers = {name: details for name, *details in coupling.graph.copied.values()}
    return [
        f"layer '{name}' ({kind}) was copied as it is, because its config does not make it again "
        f"({reason}): save_weights() keeps the model, a .keras file of it cannot be loaded"
        for name, (kind, reason) in copied_layers.items()
    ]
