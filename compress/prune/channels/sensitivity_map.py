"""`sensitivity_map`: output errors of thinner layers, measured once for any target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.arguments import check_arguments
from compress.model.io import as_model
from compress.plan.channels import AGGREGATES
from compress.plan.fields import require_choice
from compress.prune.channels.analysis import coupling_of
from compress.prune.channels.criteria import Context, Criterion, named
from compress.prune.channels.pruning import check_weights, examples_for
from compress.prune.channels.selection.allowed import nothing_removable
from compress.prune.channels.selection.damage import Judge, measure_sensitivity
from compress.prune.channels.selection.sensitivity import SensitivityMap, describe_origin

if TYPE_CHECKING:
    import keras


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
    judge = Judge(coupling, context)
    measured = measure_sensitivity(
        coupling, context, score, judge, blocks=blocks, on_progress=on_progress
    )
    notes = tuple(dict.fromkeys(context.notes))
    return replace(measured, notes=notes, origin=describe_origin(context, name, blocks))
