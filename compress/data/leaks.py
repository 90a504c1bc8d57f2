"""Data leakage between the parts of a data set: examples that more than one part holds."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import arrays, count
from compress.core.errors import InputError
from compress.data.keys import RowSketch, as_rows, is_among, is_identity

if TYPE_CHECKING:
    from compress.data.dataset import Dataset

Keys = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
TOLERATED = 0.01
"""Share of a part that may be in another part, or among what a model has learned: it moves an
accuracy by less than one percentage point."""
_PAIRS = (("val", "train"), ("test", "train"), ("test", "val"))
_NAMES = {"train": "training", "val": "validation", "test": "test"}
_ROWS, _COLUMNS = 2000, 64
"""Of a table that are looked at to find how likely equal rows are."""


@dataclass(frozen=True)
class Overlap:
    """Examples that were found where they must not be.

    Attributes:
        count: Those that were found, of `single`.
        single: Examples that occur once in the data: others are natural duplicates, and equal to
            what they were compared with for that reason.
        allowed: The largest count that is tolerated, or explained by natural duplicates.
    """

    count: int
    single: int
    allowed: float

    @property
    def is_leak(self) -> bool:
        """Whether more were found than duplicates explain."""
        return self.count > self.allowed


def is_single(keys: Keys) -> Mask:
    """Return which examples occur once, (n,)."""
    _, place, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.asarray(counts[place] == 1)


def compare_parts(part: Keys, other: Keys, known: Mask | None = None) -> Overlap:
    """Count the examples of a part that another part holds too.

    Natural duplicates of a data set that was split at random are within its parts as often as
    across them. So the share of examples with a twin in their own part, at most (three standard
    errors above what was counted), is the share that is expected in the other part. Both parts
    say it, and the smaller share counts: one of them may be oversampled.

    Args:
        part: Keys of the part that evaluates, at least one.
        other: Keys of the other one, at least one.
        known: Which examples of the part are in the other one in another scale.
    """
    single = is_single(part)
    shared = is_among(part, other)
    found = int((single & (shared if known is None else shared | known)).sum())
    in_other = min(1.0, _most_twins(other) / len(other))
    # seldom twins are half as often among half as many examples; frequent ones saturate
    twins, ratio = min(1.0, _most_twins(part) / len(part)), len(other) / len(part)
    rate = min(in_other, max(twins * ratio, 1 - (1 - twins) ** ratio))
    # what is found varies around what is expected, where there are duplicates at all
    noise = 3 * math.sqrt(single.sum() * min(rate, 1 - is_single(other).mean()) * (1 - rate))
    expected = math.ceil(single.sum() * rate + noise)
    allowed = max(TOLERATED * float(single.sum()), float(expected))
    return Overlap(found, int(single.sum()), allowed)


def _most_twins(keys: Keys) -> float:
    """Return how many examples have a twin in this part, three standard errors above the count."""
    twins = float((~is_single(keys)).sum())
    # twins come in pairs; of no pair the upper limit is three
    return twins + 3 * math.sqrt(2 * twins) + 6


def compare_with_learned(
    data: Dataset, part: str, learned: Keys, known: Mask | None = None, chance: float = 0.0
) -> Overlap:
    """Count the examples of a part that a model has learned.

    Only examples that occur once in all of the data count. Of tables with few different rows,
    such as columns of yes and no, rows are equal by chance: as often as the values of their
    columns are, and at most as often as in the data themselves.

    Args:
        data: With parts of its own.
        part: "val" or "test".
        learned: Keys of what the model has learned, each once.
        known: Which examples of the part it has learned in another scale.
        chance: How likely two different examples are taken for each other in another scale.
    """
    keys = data.keys
    pool = np.concatenate([keys["train"], keys["val"], keys["test"]])
    start = len(keys["train"]) + (len(keys["val"]) if part == "test" else 0)
    single = is_single(pool)[start : start + len(keys[part])]
    shared = is_among(keys[part], learned)
    if known is None or known.sum() <= shared.sum():
        chance = 0.0
    else:
        shared = shared | known
    found, allowed = int((single & shared).sum()), TOLERATED * single.sum()
    if found > allowed:
        # what was learned is known without copies, so the data are counted without them too
        by_count = _most_twins(pool) / len(pool) * len(learned) / len(np.unique(pool))
        by_value = len(learned) * collision_probability(data.train.x)
        by_chance = max(min(by_count, by_value), len(learned) * chance)
        expected = single.sum() * min(1.0, by_chance)
        allowed = max(allowed, expected + 3 * math.sqrt(expected))
    return Overlap(found, int(single.sum()), float(allowed))


def collision_probability(x: Any) -> float:
    """Return about how likely two different draws of an example are equal in all values.

    The product over columns of how likely two of their values are equal, over as few columns as
    tell the rows apart: others say nothing new. 0 of continuous values.

    Args:
        x: Examples (n, ...), or several arrays by name; some of them are looked at.
    """
    index = np.linspace(0, count(x) - 1, min(_ROWS, count(x))).astype(np.int64)
    rows = np.concatenate(
        [np.asarray(values[index]).reshape(len(index), -1) for values in arrays(x)], axis=1
    )
    chosen = np.linspace(0, rows.shape[1] - 1, min(_COLUMNS, rows.shape[1])).astype(np.int64)
    codes = [np.unique(rows[:, column], return_inverse=True)[1] for column in chosen]
    together, probability = np.zeros(len(rows), np.int64), 1.0
    different, pairs = 1, len(rows) * (len(rows) - 1)
    # copies are no draws; where most rows have equal ones these are no copies
    whole = np.unique(rows, axis=0, return_counts=True)[1].astype(np.float64)
    copied = float((whole * (whole - 1)).sum()) if len(whole) > 0.5 * len(rows) else 0.0
    for code in sorted(codes, key=lambda held: -int(held.max())):
        _, finer = np.unique(together * (int(code.max()) + 1) + code, return_inverse=True)
        if int(finer.max()) + 1 == different:
            continue
        together, different = finer.astype(np.int64), int(finer.max()) + 1
        counts = np.bincount(code).astype(np.float64)
        probability *= (float((counts * (counts - 1)).sum()) - copied) / max(1.0, pairs - copied)
        if not probability:
            break
    return probability


def check_parts(data: Dataset, handed_over: Collection[str]) -> Dataset:
    """Check that parts which were handed over do not share examples.

    Args:
        data: Any.
        handed_over: Names of the parts that were, "val" and "test" among them; others were split
            off from one pool, where copies of one example may be in both parts.

    Returns:
        The data, with a note of how many examples are in two parts.

    Raises:
        InputError: More examples of a part are in another one than duplicates explain.
    """
    notes = [note for note in _note_parts(data, handed_over) if note not in data.notes]
    return replace(data, notes=(*data.notes, *notes)) if notes else data


def _note_parts(data: Dataset, handed_over: Collection[str]) -> Iterator[str]:
    for part, other in _PAIRS:
        if not len(data.split(part)) or not len(data.split(other)):
            continue
        _check_groups(data, part, other)
        keys, others = data.keys[part], data.keys[other]
        shared = compare_parts(keys, others)
        known = None
        if not shared.is_leak:
            known = _recognize(data, part, other)
            shared = compare_parts(keys, others, known)
        name, of = _NAMES[part], _NAMES[other]
        is_handed = part in handed_over or (
            (part, other) == ("test", "val") and other in handed_over
        )
        if shared.is_leak and is_handed:
            raise InputError(
                f"The {name} part of '{data.name}' must hold examples that the {of} part does not "
                f"hold. Received: {shared.count:,} of the {shared.single:,} {name} examples that "
                f"occur once are in the {of} part too, where duplicates explain "
                f"{int(shared.allowed):,}. Remove them from one of the two, or give all examples "
                "in one part: others are split off from it."
            )
        copied = is_among(keys, others)
        copies = int((copied if known is None else copied | known).sum())
        if copies and other == "train":
            yield (
                f"{copies:,} of the {len(keys):,} {name} examples are in the {of} part too "
                "(duplicates): figures flatter a model that remembers them"
            )


def _recognize(data: Dataset, part: str, other: str) -> Mask | None:
    """Return which rows of a table are in another part in another scale; None: none is found.

    Parts that were standardized each by itself share no value.
    """
    rows, others = as_rows(data.split(part).x), as_rows(data.split(other).x)
    if rows is None or others is None:
        return None
    # the smaller part is searched for in the larger one: most of it may be there
    sketch = RowSketch.of(rows)
    scale = sketch.find_scale(others)
    if scale is None or is_identity(scale, sketch):
        return None
    if sketch.collision_probability() * len(others[0]) > TOLERATED:
        return None
    own, its = sketch.keys(rows), sketch.keys(others, scale)
    return is_among(own[0], its[0]) | is_among(own[1], its[1])


def _check_groups(data: Dataset, part: str, other: str) -> None:
    groups, others = data.split(part).groups, data.split(other).groups
    if groups is None or others is None:
        return
    shared = np.intersect1d(groups, others)
    if len(shared):
        raise InputError(
            f"Groups of '{data.name}' must be in one part each. Received: {len(shared):,} in both "
            f"the {_NAMES[other]} and the {_NAMES[part]} part ('{shared[0]}' among them). Move all "
            "examples of a group to one part, or give one part: others are split off by groups."
        )
