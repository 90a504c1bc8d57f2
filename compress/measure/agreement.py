"""Whether an exported file agrees with its Keras model well enough to ship unasked.

What a file must reach is `Task.least_agreement`: 90 % of equal classes, an R^2 of 0.9 where the
task is of numbers, 95 % of equal decisions between yes and no and of equal pixels, where always
answering "no" or "background" agrees well by itself.

Healthy files are above that by far (`python -m benchmarks.file_agreement`, Fashion-MNIST, 2,000
validation examples): int8 files of ResNet-20, MobileNetV2, ConvNeXt, ViT and a MobileNetV1 of
2,000 parameters agree on 98.7 to 99.6 %. A net that tells 200 classes apart with 29 % accuracy has
many answers that lie close together; its int8 file agrees on 94.7 %, the lowest of all. Decisions
between yes and no and pixels are equal in 99.8 % or more, R^2 of numbers is above 0.999. A net of
ten classes whose int8 kernels are all zero because a weight exploded agrees on 10 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from compress.core.statistics import wilson
from compress.data.tasks import TASKS, Task


def has_low_agreement(kind: str, agreement: float, checked: int) -> bool:
    """Return whether a file disagrees with its Keras model too much to ship unasked.

    It does where the upper end of the 95 % interval of its agreement (Wilson's, of as many
    decisions as there are examples) is below `Task.least_agreement`: of 200 examples that is below
    85 % where 90 % are asked for, so that luck of the draw accuses no healthy file. R^2 is held
    against it as it is.

    Args:
        kind: Kind of the task, as `Task.name`; one that is not registered is held against the
            default of `Task`.
        agreement: `Task.agreement` of the file and the model, at most 1; NaN is low.
        checked: Number of examples that were compared; 0: nothing is known, and nothing is low.

    Example:
        >>> has_low_agreement("multiclass", 0.61, 200), has_low_agreement("multiclass", 0.87, 200)
        (True, False)
    """
    if checked < 1:
        return False
    if math.isnan(agreement):
        return True
    task = _task_class(kind)
    best = agreement
    if not task.agrees_by_r2:
        best = wilson(min(max(agreement, 0.0), 1.0), checked)[1]
    return best < task.least_agreement


def can_ship_unasked(kind: str, agreement: float, checked: int, formats: Sequence[str]) -> bool:
    """Return whether a file may be chosen to ship.

    One that disagrees with its Keras model may where its format alone was asked for.

    Args:
        kind, agreement, checked: See `has_low_agreement`.
        formats: That the plan asks for, `plan.export.formats`.
    """
    return len(formats) == 1 or not has_low_agreement(kind, agreement, checked)


def describe_low_agreement(name: str, kind: str, agreement: float, checked: int) -> str:
    """Return the warning that a file disagrees with its Keras model; "" where it does not.

    Args:
        name: Of the file, as the reader knows it ("model.int8").
        kind, agreement, checked: See `has_low_agreement`.

    Example:
        >>> describe_low_agreement("m.int8", "multiclass", 0.61, 200)[:60]
        'warning: m.int8 agrees with the Keras model on only 61.0 % of'
    """
    if not has_low_agreement(kind, agreement, checked):
        return ""
    task, examples = _task_class(kind), f"{checked:,} examples"
    least = task.least_agreement
    if task.agrees_by_r2:
        reached, wanted = f"with an R2 of only {agreement:.2f} on {examples}", f"{least:.2f}"
    else:
        of = examples if task.indices else f"all decisions on {examples}"
        reached, wanted = f"on only {100 * agreement:.1f} % of {of}", f"{100 * least:.0f} %"
    return f"warning: {name} agrees with the Keras model {reached} (at least {wanted} expected)"


def _task_class(kind: str) -> type[Task]:
    if kind not in TASKS:
        return Task
    found: type[Task] = TASKS[kind]
    return found
