"""From options to a kept set: targets, steps, floors and exclusions on a coupling."""

from __future__ import annotations

from compress.core.progress import OnProgress
from compress.plan import ChannelOptions
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.criteria import Context, Criterion
from compress.prune.channels.selection.allocation import Priced
from compress.prune.channels.selection.chooser import Chooser
from compress.prune.channels.selection.chosen import Selection
from compress.prune.channels.selection.feasible import nothing_removable
from compress.prune.channels.selection.ranked import select_by_rank
from compress.prune.channels.selection.sensitivity import SensitivityMap


def select(
    coupling: Coupling,
    options: ChannelOptions,
    criterion: Criterion,
    context: Context,
    target: float,
    sensitivity: SensitivityMap | None = None,
    on_progress: OnProgress | None = None,
    own: Priced | None = None,
) -> Selection:
    """Select what to keep.

    Args:
        coupling: Of the model.
        options: Scope, rounding, floors, limits.
        criterion: Scores units.
        context: What it sees.
        target: MACs or parameters to come to; with `target_metric="amount"` the share removed.
        sensitivity: Ranks groups against each other by predicted loss of quality.
        on_progress: Called with (text, share) while damages are measured.
        own: What a kept set and present blocks cost, in place of what `options` name.

    Raises:
        FeasibleError: The target is below what is feasible, or nothing can be removed.
        InputError: A pattern matches nothing, or the criterion returned something else than
            one finite number a unit.
    """
    if not coupling.groups:
        raise nothing_removable(coupling)
    if options.scope == "damage" or options.compares:
        chooser = Chooser.measured(coupling, options, criterion, context, on_progress)
        return chooser.refined(target, own, on_progress).choose(target, own)
    return select_by_rank(coupling, options, criterion, context, target, sensitivity, own)
