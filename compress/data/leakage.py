"""Data leakage checks: examples that occur in more than one part of a data set."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import count_examples, list_arrays
from compress.core.errors import InputError
from compress.data.example_hashing import is_among

if TYPE_CHECKING:
    from compress.data.dataset import Dataset

Keys = npt.NDArray[np.uint64]
LEAK_TOLERANCE = 0.01
"""Largest share of leaked examples in a part that is tolerated.

It changes an accuracy by less than one percentage point.
"""
_PAIRS = (("val", "train"), ("test", "train"), ("test", "val"))
_PART_NAMES = {"train": "training", "val": "validation", "test": "test"}
_MAX_ROWS, _MAX_COLUMNS = 2000, 64
"""Largest number of rows and columns used to estimate the probability of equal rows."""


@dataclass(frozen=True)
class Overlap:
    """Overlap between two sets of examples that should be disjoint.

    Attributes:
        count: Number of examples in both sets, among `unique_count`.
        unique_count: Number of examples that occur once, in their part (`compare_parts`) or in all
            of the data (`compare_with_training`). Others are natural duplicates, which may be in
            both sets for that reason.
        allowed: Largest count that is tolerated or explained by natural duplicates.
    """

    count: int
    unique_count: int
    allowed: float

    @property
    def is_leak(self) -> bool:
        """Whether the overlap is larger than duplicates explain."""
        return self.count > self.allowed


def is_unique(keys: Keys) -> npt.NDArray[np.bool_]:
    """Return a mask of the examples that occur once, (n,)."""
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.asarray(counts[inverse] == 1)


def compare_parts(part: Keys, other: Keys) -> Overlap:
    """Count the examples of a part that also occur in another part.

    If a data set with natural duplicates is split at random, duplicates are as frequent within its
    parts as across them. So the expected share of duplicates in the other part is the share of
    examples with a duplicate in their own part, plus three standard errors. It is estimated from
    both parts, and the smaller estimate is used, since one part may be oversampled.

    Args:
        part: Hashes of the evaluation part, at least one.
        other: Hashes of the other part, at least one.
    """
    unique = is_unique(part)
    shared_count = int((unique & is_among(part, other)).sum())
    other_rate = min(1.0, _estimate_max_duplicates(other) / len(other))
    # rare duplicates scale with the number of examples; frequent ones saturate
    duplicate_rate, ratio = (
        min(1.0, _estimate_max_duplicates(part) / len(part)),
        len(other) / len(part),
    )
    rate = min(other_rate, max(duplicate_rate * ratio, 1 - (1 - duplicate_rate) ** ratio))
    # the count varies around its expectation, if there are duplicates
    noise = 3 * math.sqrt(unique.sum() * min(rate, 1 - is_unique(other).mean()) * (1 - rate))
    expected = math.ceil(unique.sum() * rate + noise)
    allowed = max(LEAK_TOLERANCE * float(unique.sum()), float(expected))
    return Overlap(shared_count, int(unique.sum()), allowed)


def _estimate_max_duplicates(keys: Keys) -> float:
    """Return the number of duplicates in a part plus three standard errors."""
    duplicates = float((~is_unique(keys)).sum())
    # duplicates come in pairs; the upper limit for no pair observed is three
    return duplicates + 3 * math.sqrt(2 * duplicates) + 6


def compare_with_training(data: Dataset, part: str, trained_keys: Keys) -> Overlap:
    """Count the examples of a part that a model was trained on.

    Only examples that occur once in all of the data are counted. Tables with few different rows,
    such as columns of yes and no, have equal rows by chance. Their expected number follows from the
    frequencies of the column values, and is at most the number of duplicates in the data.

    Args:
        data: The evaluation data, with all parts.
        part: "val" or "test".
        trained_keys: Hashes of the training examples of the model, without duplicates.
    """
    keys = data.keys
    pool = np.concatenate([keys["train"], keys["val"], keys["test"]])
    start = len(keys["train"]) + (len(keys["val"]) if part == "test" else 0)
    unique = is_unique(pool)[start : start + len(keys[part])]
    shared_count = int((unique & is_among(keys[part], trained_keys)).sum())
    allowed = LEAK_TOLERANCE * unique.sum()
    if shared_count > allowed:
        # trained_keys have no duplicates, so compare with the unique examples of the data
        by_count = (
            _estimate_max_duplicates(pool) / len(pool) * len(trained_keys) / len(np.unique(pool))
        )
        by_value = len(trained_keys) * estimate_collision_probability(data.train.x)
        expected = unique.sum() * min(1.0, by_count, by_value)
        allowed = max(allowed, expected + 3 * math.sqrt(expected))
    return Overlap(shared_count, int(unique.sum()), float(allowed))


def estimate_collision_probability(x: Any) -> float:
    """Return the approximate probability that two random examples are equal in all values.

    It is the product over columns of the probability that two values are equal, restricted to
    columns that separate further rows; other columns add no information. It is 0 for continuous
    values.

    Args:
        x: Examples (n, ...), or several arrays by name; only a sample of them is used.
    """
    index = np.linspace(0, count_examples(x) - 1, min(_MAX_ROWS, count_examples(x))).astype(
        np.int64
    )
    rows = np.concatenate(
        [np.asarray(values[index]).reshape(len(index), -1) for values in list_arrays(x)], axis=1
    )
    columns = np.linspace(0, rows.shape[1] - 1, min(_MAX_COLUMNS, rows.shape[1])).astype(np.int64)
    codes = [np.unique(rows[:, column], return_inverse=True)[1] for column in columns]
    groups, probability = np.zeros(len(rows), np.int64), 1.0
    num_groups, pairs = 1, len(rows) * (len(rows) - 1)
    # exclude copies, which are not random draws, unless most rows have duplicates
    row_counts = np.unique(rows, axis=0, return_counts=True)[1].astype(np.float64)
    duplicate_pairs = (
        float((row_counts * (row_counts - 1)).sum()) if len(row_counts) > 0.5 * len(rows) else 0.0
    )
    for code in sorted(codes, key=lambda column_code: -int(column_code.max())):
        _, finer_groups = np.unique(groups * (int(code.max()) + 1) + code, return_inverse=True)
        if int(finer_groups.max()) + 1 == num_groups:
            continue
        groups, num_groups = finer_groups.astype(np.int64), int(finer_groups.max()) + 1
        counts = np.bincount(code).astype(np.float64)
        probability *= (float((counts * (counts - 1)).sum()) - duplicate_pairs) / max(
            1.0, pairs - duplicate_pairs
        )
        if not probability:
            break
    return probability


def check_leakage(data: Dataset, provided_parts: Collection[str]) -> Dataset:
    """Check that parts provided by the user do not share examples.

    Args:
        data: The data set.
        provided_parts: Names of the provided parts among "val" and "test". Other parts were split
            off from one pool, where both parts may have copies of one example.

    Returns:
        The data set, with notes on the examples that also occur in the training part.

    Raises:
        InputError: A provided part shares more examples with another part than duplicates explain,
            or a group is in two parts.
    """
    notes = [note for note in _iter_duplicate_notes(data, provided_parts) if note not in data.notes]
    return replace(data, notes=(*data.notes, *notes)) if notes else data


def _iter_duplicate_notes(data: Dataset, provided_parts: Collection[str]) -> Iterator[str]:
    """Yield notes on copies of training examples; raise InputError for leaks or shared groups."""
    for part, other in _PAIRS:
        if not len(data.split(part)) or not len(data.split(other)):
            continue
        _check_groups(data, part, other)
        keys, others = data.keys[part], data.keys[other]
        overlap = compare_parts(keys, others)
        name, other_name = _PART_NAMES[part], _PART_NAMES[other]
        is_provided = part in provided_parts or (
            (part, other) == ("test", "val") and other in provided_parts
        )
        if overlap.is_leak and is_provided:
            raise InputError(
                f"The {name} part of '{data.name}' must hold examples that the {other_name} part "
                f"does not hold. Received: {overlap.count:,} of the {overlap.unique_count:,} "
                f"{name} examples that occur once are in the {other_name} part too, where "
                f"duplicates explain {int(overlap.allowed):,}. Remove them from one of the two, or "
                "give all examples in one part: others are split off from it."
            )
        copies = int(is_among(keys, others).sum())
        if copies and other == "train":
            yield (
                f"{copies:,} of the {len(keys):,} {name} examples are in the {other_name} part too "
                "(duplicates): figures flatter a model that remembers them"
            )


def _check_groups(data: Dataset, part: str, other: str) -> None:
    """Raise InputError if a group is in both parts; do nothing unless both parts have groups."""
    groups, others = data.split(part).groups, data.split(other).groups
    if groups is None or others is None:
        return
    shared = np.intersect1d(groups, others)
    if len(shared):
        raise InputError(
            f"Groups of '{data.name}' must be in one part each. Received: {len(shared):,} in both "
            f"the {_PART_NAMES[other]} and the {_PART_NAMES[part]} part ('{shared[0]}' among "
            "them). Move all examples of a group to one part, or give one part: others are split "
            "off by groups."
        )
