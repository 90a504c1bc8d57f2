"""Parts that a source lacks are split off: by seed alone, stratified where there are classes.

Where groups are known, none is in two parts; where times are known, the latest examples leave.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.data.parts import Split
from compress.data.several import Output
from compress.task import has_classes

_FOLDS = 20
"""Of groups, of which some are joined to a part: its size is within a fortieth of all examples."""


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
    if split.times is not None:
        return _split_by_time(split, split.times, fraction, part=part, name=name)
    if split.groups is not None:
        return _split_by_group(split, split.groups, fraction, seed, alike, part=part, name=name)
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


def _split_by_group(
    split: Split,
    groups: npt.NDArray[Any],
    fraction: float,
    seed: int,
    alike: npt.NDArray[Any] | None,
    *,
    part: str,
    name: str,
) -> tuple[Split, Split]:
    """Split off whole groups: about that share of the examples, with about the same classes.

    Reference:
        scikit-learn's StratifiedGroupKFold makes the folds, of which some are joined.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    names = np.unique(groups)
    folds = min(len(names), _FOLDS)
    if folds < 2:
        raise InputError(
            f"Groups of '{name}' must be two at least to split off a {part} part. Received: "
            f"{len(names)} ('{names[0]}'). Give parts of your own, or leave groups out."
        )
    wanted = max(1, round(fraction * folds))
    labels = np.zeros(len(split), np.int64) if alike is None else alike
    maker = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    try:
        with warnings.catch_warnings():
            # of classes with fewer examples than folds
            warnings.simplefilter("ignore", UserWarning)
            made = [leave for _, leave in maker.split(labels, labels, groups)]
    except ValueError as error:
        raise InputError(
            f"'{name}' must have enough examples of each class to split off a {part} "
            f"part of {fraction:.0%} ({error})."
        ) from None
    made = [leave for leave in made if len(leave)]  # folds of few groups may be empty
    leave = np.concatenate(made[: min(wanted, len(made) - 1)])
    stay = np.setdiff1d(np.arange(len(split)), leave)
    return split.take(stay), split.take(np.sort(leave))


def _split_by_time(
    split: Split, times: npt.NDArray[Any], fraction: float, *, part: str, name: str
) -> tuple[Split, Split]:
    """Split off the latest examples; those of one time are in one part."""
    order = np.sort(times)
    first = order[min(len(order) - 1, len(order) - max(1, round(fraction * len(order))))]
    late = times >= first
    if late.all():
        late = times > first
    if not late.any():
        raise InputError(
            f"Times of '{name}' must differ to split off a {part} part. Received: one time alone. "
            "Give parts of your own, or leave the times out."
        )
    return split.take(np.flatnonzero(~late)), split.take(np.flatnonzero(late))


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
