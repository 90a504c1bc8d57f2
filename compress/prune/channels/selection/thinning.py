"""Measures a sensitivity map: one group at a time is thinned, nothing is retrained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.arguments import check_arguments
from compress.data import Dataset, drawn_inputs
from compress.model.flattening import flat
from compress.model.io import as_model
from compress.model.ports import listed
from compress.model.recording import record
from compress.plan.fields import require
from compress.prune.channels.criteria import Context, Criterion, named
from compress.prune.channels.criteria.reconstruction import Reader, readers_of
from compress.prune.channels.selection.damage import changed, without
from compress.prune.channels.selection.sensitivity import (
    AMOUNTS,
    GroupSensitivity,
    MapOrigin,
    SensitivityMap,
)
from compress.reconstruction.matching import opens
from compress.reconstruction.observing import observe
from compress.train.given import dataset_for

if TYPE_CHECKING:
    import keras


@check_arguments()
def sensitivity_map(
    model: keras.Model | str | Path,
    data: Any,
    *,
    amounts: Sequence[float] = AMOUNTS,
    criterion: str | Criterion = "l2",
    aggregate: str = "mean",
    examples: int = 2000,
    repair: bool = False,
    seed: int = 0,
    on_progress: Callable[[str, float], None] | None = None,
) -> SensitivityMap:
    """Measures validation accuracy while one group at a time is thinned.

    Units are removed by setting what they own to zero, which the law of channel pruning
    makes equal to cutting them out (statistics over channels apart); nothing is retrained.
    The test part is not touched.

    Args:
        model: A classifier, or the path of its file; it stays as it is.
        data: Its validation part is read: (x, y), a stream, a `Dataset`, or what `--data` takes;
            see `as_dataset`.
        amounts: Shares of each group to remove, in (0, 1), rising.
        criterion: Chooses the units within a group: a name, or a function as
            `prune_channels` takes it.
        aggregate: How a unit's weights are put together: "mean", "sum", "max" or "norm".
        examples: Validation examples to use, at most.
        repair: Whether the kernels that read a thinned group are solved for on 1,000 training
            examples before it is judged; one pass more.
        seed: Of the choice of examples.
        on_progress: Called with a text and the share that is done.

    Shapes:
        x: (n, ...), as the model takes them; y: see `as_dataset`.

    Returns:
        The sensitivities of all groups; `prune_channels` takes them.

    Raises:
        InputError: Amounts out of range, an unknown criterion, or the model does not fit the
            data.

    Example:
        >>> found = sensitivity_map(model, (x, y))
        >>> [group.name for group in found.groups], found.groups[0].amounts
        (['hidden'], (0.25, 0.5, 0.75))
    """
    from compress.model.heads import check_head
    from compress.model.logits import logits_view
    from compress.prune.channels.analysis import coupling_of
    from compress.prune.channels.surgery import sliced_model
    from compress.train.predict import Predictor

    require(examples > 0, "examples", "be at least 1", examples)
    rising = all(a < b for a, b in pairwise(amounts))
    valid = bool(amounts) and rising and all(0 < amount < 1 for amount in amounts)
    require(valid, "amounts", "rise and be in (0, 1)", tuple(amounts))
    name, score = named(criterion)
    path = Path(model) if isinstance(model, (str, Path)) else None
    model = as_model(model)
    data = dataset_for(model, data, path=path, seed=seed)
    origin = MapOrigin.of(
        model,
        data,
        amounts=amounts,
        criterion=criterion,
        aggregate=aggregate,
        examples=examples,
        seed=seed,
        repair=repair,
    )
    source = coupling_of(model)
    copy = sliced_model(source, np.ones(source.units, bool))
    check_head(copy, data)
    coupling = coupling_of(copy)
    context = Context(coupling, data=data, seed=seed, aggregate=aggregate)
    order = np.random.default_rng(seed).permutation(len(data.val))[:examples]
    part = data.val.take(np.sort(order))
    readers = _readers(context, copy, data) if repair else [[] for _ in coupling.groups]
    program = flat(record(copy, opens))
    rows, labels = [], data.labels(part)
    with logits_view(copy, data.task) as view:
        predict = Predictor(view, data.preprocess, copy)

        def accuracy() -> float:
            found: float = data.task.quality(labels, predict(part.x))[data.task.qualities[0]]
            return found

        base = accuracy()
        for group, own in zip(coupling.groups, readers, strict=True):
            order = np.argsort(context.scored(score, group), kind="stable")
            counts = [round(amount * len(order)) for amount in amounts]
            found = []
            for trial in without(coupling, program, group, own, order, counts):
                with changed(trial.changes):
                    found.append(accuracy())
            rows.append(
                GroupSensitivity(group.name, len(group.units), tuple(amounts), tuple(found))
            )
            if on_progress is not None:
                on_progress(
                    f"sensitivity of {group.name}", (group.index + 1) / len(coupling.groups)
                )
    return SensitivityMap(base, len(part), name, tuple(rows), origin)


def _readers(context: Context, model: keras.Model, data: Dataset) -> list[list[Reader]]:
    """Returns what reads each group, from one pass over training examples."""
    x = listed(model, drawn_inputs(data, context.examples, context.seed))
    return readers_of(context, observe(flat(record(model, opens)), x, seed=context.seed))
