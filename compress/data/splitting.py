"""Parts that a source lacks are split off: by seed alone, stratified where there are classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.data.parts import Split
from compress.data.several import Output
from compress.task import has_classes


def split_off(
    split: Split,
    fraction: float,
    seed: int,
    *,
    part: str,
    name: str,
    kind: str,
    outputs: Sequence[Output] = (),
) -> tuple[Split, Split]:
    """Splits a part off.

    Args:
        split: What there is; the order of both parts is that of its examples.
        fraction: Share that leaves, in (0, 1).
        seed: Of the choice.
        part: Name of the new part, for the error.
        name: Of the data, for the error.
        kind: Of the task.
        outputs: Of a task of several: examples are alike where all their classes are, or where
            some combination is of one example alone, those of the first output that has classes.

    Returns:
        What stays, and the new part.

    Raises:
        InputError: A class has too few examples.
    """
    from sklearn.model_selection import train_test_split

    alike = split.y if has_classes(kind) else None
    if outputs:
        alike = _several(split.y, outputs, fraction)
    try:
        stay, leave = train_test_split(
            np.arange(len(split)), test_size=fraction, random_state=seed, stratify=alike
        )
    except ValueError as error:
        raise InputError(
            f"'{name}' must have enough examples of each class to split off a {part} "
            f"part of {fraction:.0%} ({error})."
        ) from None
    return split.take(np.sort(stay)), split.take(np.sort(leave))


def _several(y: Any, outputs: Sequence[Output], fraction: float) -> npt.NDArray[Any] | None:
    """Returns what several outputs' labels are split by; None: by nothing."""
    labels = [y[item.name].reshape(-1) for item in outputs if has_classes(item.kind)]
    for chosen in (labels, labels[:1]):
        if chosen:
            _, strata, counts = np.unique(
                np.stack(chosen), axis=1, return_inverse=True, return_counts=True
            )
            total = counts.sum()
            least = min(round(fraction * total), round((1 - fraction) * total))
            if counts.min() > 1 and len(counts) <= least:
                return strata.reshape(-1)
    return None
