"""Splits of data sets, and representative samples of a part.

Both depend only on the seed, and are stratified if there are classes. A group, or copies of one
example, are kept in one part; if times are known, the latest examples are split off.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import (
    CHUNK_BYTES,
    GrowingArray,
    is_large,
    list_arrays,
    list_named_arrays,
    take_examples,
    unwrap_columns,
)
from compress.core.errors import InputError
from compress.data.leakage import LEAK_TOLERANCE, estimate_collision_probability, is_unique
from compress.data.parts import Output, RawData, Split
from compress.data.tasks import has_classes

if TYPE_CHECKING:
    from compress.data.dataset import Dataset, UnlabelledDataset

Indices = npt.NDArray[np.int64]
_MAX_FOLDED_GROUPS = 500
"""Largest number of groups that is stratified by folds, which are slow for many groups."""
_MAX_FOLDS = 10
"""Largest number of folds of groups; few large folds have similar class frequencies."""


def split_missing_parts(
    raw: RawData, name: str, *, val_fraction: float, test_fraction: float | None, seed: int
) -> RawData:
    """Split off the missing parts: the test part first, then the validation part.

    Args:
        raw: The existing parts and the kind of task.
        name: Name of the data, for errors.
        val_fraction: Share of the training part, in (0, 1).
        test_fraction: Share of all examples, in (0, 1); None: no test part is split off.
        seed: Seed of the splits.

    Returns:
        All parts, with a note if copies are kept together.

    Raises:
        InputError: See `split_off`.
    """
    fractions = {"test": test_fraction} if test_fraction is not None and raw.test is None else {}
    if raw.val is None:
        fractions["val"] = val_fraction
    train, notes = raw.train, raw.notes
    is_marked = train.groups is not None or train.times is not None
    if fractions and not is_marked and (copies := find_duplicates(train)) is not None:
        notes += (
            f"{int((~is_unique(copies)).sum()):,} of {len(train):,} examples have a copy among "
            "them (duplicates): all copies of one are in one part of those that are split off",
        )
    parts: dict[str, Any] = {"train": train}
    for part, fraction in fractions.items():
        parts["train"], parts[part] = split_off(
            parts["train"], fraction, seed, part="validation" if part == "val" else part,
            name=name, kind=raw.kind, outputs=raw.outputs,
        )  # fmt: skip
    return replace(raw, **parts, notes=notes)


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
    """Split a part off and return the remaining examples and the new part.

    Args:
        split: The examples; both results keep their order.
        fraction: Share of the examples that is split off, in (0, 1).
        seed: Seed of the random split.
        part: Name of the new part, for errors.
        name: Name of the data, for errors.
        kind: Kind of task.
        outputs: Outputs of a task with several. Strata are the combinations of all classes; if a
            combination occurs only once, or there are too many for the fraction, the classes of the
            first output that has classes; if that fails too, none.

    Returns:
        The remaining part, and the new part.

    Raises:
        InputError: A class has too few examples, or all examples have one group or one time.
    """
    from sklearn.model_selection import train_test_split

    strata = split.y if has_classes(kind) else None
    if outputs:
        strata = _build_strata(split.y, outputs, fraction)
    if split.times is not None:
        return _split_by_time(split, split.times, fraction, part=part, name=name)
    units = split.groups if split.groups is not None else find_duplicates(split)
    if split.groups is not None and len(names := np.unique(split.groups)) < 2:
        raise InputError(
            f"Groups of '{name}' must be two at least to split off a {part} part. Received: "
            f"{len(names)} ('{names[0]}'). Give parts of your own, or leave groups out."
        )
    try:
        if units is None:
            rest_index, part_index = train_test_split(
                np.arange(len(split)), test_size=fraction, random_state=seed, stratify=strata
            )
        elif split.groups is not None and len(np.unique(units)) <= _MAX_FOLDED_GROUPS:
            rest_index, part_index = _split_few_groups(units, fraction, seed, strata)
        else:
            _, first, inverse = np.unique(units, return_index=True, return_inverse=True)
            rest_units, part_units = train_test_split(
                np.arange(len(first)), test_size=fraction, random_state=seed,
                stratify=None if strata is None else strata[first],
            )  # fmt: skip
            rest_index, part_index = (
                np.flatnonzero(np.isin(inverse, selected)) for selected in (rest_units, part_units)
            )
    except ValueError as error:
        raise InputError(
            f"'{name}' must have enough examples of each class to split off a {part} "
            f"part of {fraction:.0%} ({error})."
        ) from None
    return split.take(np.sort(rest_index)), split.take(np.sort(part_index))


def sample_stratified(split: Split, count: int, seed: int = 0) -> Indices:
    """Return the indices of a sample of a part, with each class in proportion.

    Data are often sorted, most often by class, so the first examples are not representative.
    Classes get shares of the sample by largest remainders, and at least one example each if the
    sample has at least as many examples as there are classes. Within a class, and if labels are not
    classes (numbers, several labels, labels at positions, several outputs, none), the examples are
    divided into stretches of equal length, and one example of each is drawn at random. So data
    sorted by other properties are covered evenly, too.

    Args:
        split: The part; labels are classes if they are one array of integers, (n,).
        count: Number of examples to draw, at least 1; all examples if the part has no more.
        seed: Seed of the random draw.

    Returns:
        (min(count, n),), in increasing order, without repetition.

    Example:
        >>> split = Split(np.zeros((90, 2)), np.repeat([0, 1, 2], [60, 20, 10]))
        >>> np.bincount(split.y[sample_stratified(split, 9)]).tolist()
        [6, 2, 1]

    Reference:
        Cochran 1977, "Sampling Techniques", sections 5.5 (proportional allocation) and 8.1 (one
        unit drawn of each stretch).
    """
    total = len(split)
    if count >= total:
        return np.arange(total)
    random = np.random.default_rng(seed)
    classes = split.y
    if not (isinstance(classes, np.ndarray) and classes.ndim == 1 and classes.dtype.kind in "iu"):
        return _sample_evenly(np.arange(total), count, random)
    order = np.argsort(classes, kind="stable")
    sizes = np.unique(classes, return_counts=True)[1]
    if len(sizes) > count:  # adjacent classes share a stretch
        return np.sort(_sample_evenly(order, count, random))
    members = np.split(order, np.cumsum(sizes)[:-1])
    sampled = [
        _sample_evenly(part, int(share), random)
        for part, share in zip(members, _allocate_counts(sizes, count), strict=True)
    ]
    return np.sort(np.concatenate(sampled))


def sample_inputs(data: Dataset | UnlabelledDataset, count: int, seed: int) -> Any:
    """Return model inputs of training examples drawn without replacement.

    Args:
        data: The data set; labels are ignored.
        count: Largest number of examples.
        seed: Seed of the random draw.

    Returns:
        (n, ...), or such arrays by name; see `Dataset.inputs`.
    """
    order = np.random.default_rng(seed).permutation(len(data.train))[:count]
    x = data.train.x
    example_bytes = sum(4 * int(np.prod(values.shape[1:])) for values in list_arrays(x))
    if not is_large(example_bytes * len(order)):
        return data.preprocess(take_examples(x, order))
    step = max(1, CHUNK_BYTES // example_bytes)
    builders: dict[str, GrowingArray] = {}
    for start in range(0, len(order), step):
        for name, values in list_named_arrays(
            data.preprocess(take_examples(x, order[start : start + step]))
        ):
            builders.setdefault(name, GrowingArray("examples that are drawn")).add(values)
    return unwrap_columns({name: column.to_array() for name, column in builders.items()})


def find_duplicates(split: Split) -> npt.NDArray[np.uint64] | None:
    """Return hashes of the examples if copies must be kept in one part.

    Returns:
        Hashes, (n,); None if at most `LEAK_TOLERANCE` of the examples have a copy, or if equal rows
        are different examples with few possible values, for which a random split is correct.
    """
    duplicate_rate = float(np.mean(~is_unique(split.keys)))
    if (
        duplicate_rate <= LEAK_TOLERANCE
        or len(split) * estimate_collision_probability(split.x) > LEAK_TOLERANCE
    ):
        return None
    return split.keys


def _split_few_groups(
    groups: npt.NDArray[Any], fraction: float, seed: int, strata: npt.NDArray[Any] | None
) -> tuple[Indices, Indices]:
    """Return the indices of both parts, with about the given share and similar classes.

    Reference:
        The folds are made by scikit-learn's StratifiedGroupKFold, and some of them are joined.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    max_folds = min(len(np.unique(groups)), _MAX_FOLDS)
    share = Fraction(fraction).limit_denominator(max_folds)
    num_joined, num_folds = max(1, share.numerator), share.denominator if share else max_folds
    if num_joined == num_folds:
        num_joined, num_folds = max_folds - 1, max_folds
    labels = np.zeros(len(groups), np.int64) if strata is None else strata
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # warnings for classes with fewer examples than folds
        warnings.simplefilter("ignore", UserWarning)
        # folds of few groups may be empty
        fold_indices = [
            part_index
            for _, part_index in splitter.split(labels, labels, groups)
            if len(part_index)
        ]
    part_index = np.concatenate(fold_indices[: min(num_joined, len(fold_indices) - 1)])
    return np.setdiff1d(np.arange(len(groups)), part_index), part_index


def _split_by_time(
    split: Split, times: npt.NDArray[Any], fraction: float, *, part: str, name: str
) -> tuple[Split, Split]:
    """Split off the latest examples; examples of the same time are kept in one part."""
    order = np.sort(times)
    first = order[min(len(order) - 1, len(order) - max(1, round(fraction * len(order))))]
    is_late = times >= first
    if is_late.all():
        is_late = times > first
    if not is_late.any():
        raise InputError(
            f"Times of '{name}' must differ to split off a {part} part. Received: one time alone. "
            "Give parts of your own, or leave the times out."
        )
    return split.take(np.flatnonzero(~is_late)), split.take(np.flatnonzero(is_late))


def _build_strata(y: Any, outputs: Sequence[Output], fraction: float) -> npt.NDArray[Any] | None:
    """Return the strata of the labels of several outputs; None if there are none."""
    labels = [y[item.name].reshape(-1) for item in outputs if has_classes(item.kind)]
    for selected in (labels, labels[:1]):
        if selected:
            _, strata, counts = np.unique(
                np.stack(selected), axis=1, return_inverse=True, return_counts=True
            )
            total = counts.sum()
            least = min(round(fraction * total), round((1 - fraction) * total))
            if counts.min() > 1 and len(counts) <= least:
                return strata.reshape(-1)
    return None


def _allocate_counts(sizes: Indices, count: int) -> Indices:
    """Return the number of examples per class: proportional, at least one, `count` in total."""
    exact = sizes * (count / sizes.sum())
    shares = np.clip(np.floor(exact).astype(np.int64), 1, sizes)
    while (missing := count - int(shares.sum())) > 0:
        remainder = np.where(shares < sizes, exact - shares, -np.inf)
        shares[np.argsort(-remainder, kind="stable")[:missing]] += 1
        shares = np.minimum(shares, sizes)
    while shares.sum() > count:
        shares[np.argmax(np.where(shares > 1, shares - exact, -np.inf))] -= 1
    return np.asarray(shares)


def _sample_evenly(indices: Indices, count: int, random: np.random.Generator) -> Indices:
    """Return one random index from each of `count` stretches of equal length."""
    edges = np.arange(count + 1) * len(indices) // count
    return np.asarray(indices[random.integers(edges[:-1], edges[1:])])
