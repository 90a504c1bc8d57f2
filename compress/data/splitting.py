"""Parts that a source lacks are split off: by seed alone, stratified where there are classes."""

from __future__ import annotations

import numpy as np

from compress.core.errors import InputError
from compress.data.parts import Split
from compress.task import has_classes


def split_off(
    split: Split, fraction: float, seed: int, *, part: str, name: str, kind: str
) -> tuple[Split, Split]:
    """Splits a part off.

    Args:
        split: What there is; the order of both parts is that of its examples.
        fraction: Share that leaves, in (0, 1).
        seed: Of the choice.
        part: Name of the new part, for the error.
        name: Of the data, for the error.
        kind: Of the task.

    Returns:
        What stays, and the new part.

    Raises:
        InputError: A class has too few examples.
    """
    from sklearn.model_selection import train_test_split

    try:
        stay, leave = train_test_split(
            np.arange(len(split)),
            test_size=fraction,
            random_state=seed,
            stratify=split.y if has_classes(kind) else None,
        )
    except ValueError as error:
        raise InputError(
            f"'{name}' must have enough examples of each class to split off a {part} "
            f"part of {fraction:.0%} ({error})."
        ) from None
    return split.take(np.sort(stay)), split.take(np.sort(leave))
