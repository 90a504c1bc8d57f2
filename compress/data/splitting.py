"""Splits of data sets, and samples of examples that represent a part.

Both by seed alone, stratified where there are classes. Where groups are known, none is in two
parts, nor are copies of one example; where times are known, the latest examples leave.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import CHUNK, Growing, arrays, is_large, named, taken, unnamed
from compress.core.errors import InputError
from compress.data.leaks import TOLERATED, collision_probability, is_single
from compress.data.parts import Output, RawData, Split
from compress.data.tasks import has_classes

if TYPE_CHECKING:
    from compress.data.dataset import Dataset, Unlabelled

Indices = npt.NDArray[np.int64]
_FEW_GROUPS = 500
"""More groups are drawn as examples are: folds of equal classes take too long, and matter less."""
_FOLDS = 10
"""Most folds of groups, of which some are joined to a part: few large ones have equal classes."""


def split_rest(
    raw: RawData, name: str, *, val_fraction: float, test_fraction: float | None, seed: int
) -> RawData:
    """Split off the missing parts: the test part first, then the validation part.

    Args:
        raw: The parts that are there, and the kind of task.
        name: Of the data, for errors.
        val_fraction: Share of the training part, in (0, 1).
        test_fraction: Share of everything, in (0, 1); None: no test part is split off.
        seed: See `split_off`.

    Returns:
        All three parts, with a note where copies are kept together.
    """
    wanted = {"test": test_fraction} if test_fraction is not None and raw.test is None else {}
    if raw.val is None:
        wanted["val"] = val_fraction
    train, notes = raw.train, raw.notes
    is_marked = train.groups is not None or train.times is not None
    if wanted and not is_marked and (copies := find_copies(train)) is not None:
        notes += (
            f"{int((~is_single(copies)).sum()):,} of {len(train):,} examples have a copy among "
            "them (duplicates): all copies of one are in one part of those that are split off",
        )
    parts: dict[str, Any] = {"train": train}
    for part, fraction in wanted.items():
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
    """Split a part off.

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
    units = split.groups if split.groups is not None else find_copies(split)
    if split.groups is not None and len(names := np.unique(split.groups)) < 2:
        raise InputError(
            f"Groups of '{name}' must be two at least to split off a {part} part. Received: "
            f"{len(names)} ('{names[0]}'). Give parts of your own, or leave groups out."
        )
    try:
        if units is None:
            stay, leave = train_test_split(
                np.arange(len(split)), test_size=fraction, random_state=seed, stratify=alike
            )
        elif split.groups is not None and len(np.unique(units)) <= _FEW_GROUPS:
            stay, leave = _split_few_groups(units, fraction, seed, alike)
        else:
            _, first, place = np.unique(units, return_index=True, return_inverse=True)
            one, two = train_test_split(
                np.arange(len(first)), test_size=fraction, random_state=seed,
                stratify=None if alike is None else alike[first],
            )  # fmt: skip
            stay, leave = (np.flatnonzero(np.isin(place, chosen)) for chosen in (one, two))
    except ValueError as error:
        raise InputError(
            f"'{name}' must have enough examples of each class to split off a {part} "
            f"part of {fraction:.0%} ({error})."
        ) from None
    return split.take(np.sort(stay)), split.take(np.sort(leave))


def draw_stratified(split: Split, count: int, seed: int = 0) -> Indices:
    """Draw examples of a part, each class in proportion, and return their indices.

    Data are often sorted, by class above all, so the first examples stand for none but
    themselves. Classes have shares of the draw by largest remainders, and one example at least
    where there are no more classes than examples to draw. Within a class, and where labels are no
    classes (numbers, several labels, labels at positions, several outputs, none), the examples are
    cut into as many stretches of equal length as are to be drawn, and one of each is taken at
    random: what is sorted otherwise is covered evenly too.

    Args:
        split: The part; labels that are one array of whole numbers, (n,), are classes.
        count: Number of examples to draw, at least 1; all of the part where it has no more.
        seed: Seed of the draw.

    Returns:
        (min(count, n),), in rising order, each index once.

    Example:
        >>> split = Split(np.zeros((90, 2)), np.repeat([0, 1, 2], [60, 20, 10]))
        >>> np.bincount(split.y[draw_stratified(split, 9)]).tolist()
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
        return _draw_evenly(np.arange(total), count, random)
    order = np.argsort(classes, kind="stable")
    sizes = np.unique(classes, return_counts=True)[1]
    if len(sizes) > count:  # classes beside each other share a stretch
        return np.sort(_draw_evenly(order, count, random))
    members = np.split(order, np.cumsum(sizes)[:-1])
    drawn = [
        _draw_evenly(part, int(share), random)
        for part, share in zip(members, _allocate(sizes, count), strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def drawn_inputs(data: Dataset | Unlabelled, count: int, seed: int) -> Any:
    """Return model inputs of training examples drawn without replacement.

    Args:
        data: Labels are not looked at.
        count: Of examples, at most.
        seed: Of the draw.

    Returns:
        (n, ...), or such arrays by name; see `Dataset.inputs`.
    """
    order = np.random.default_rng(seed).permutation(len(data.train))[:count]
    x = data.train.x
    each = sum(4 * int(np.prod(values.shape[1:])) for values in arrays(x))
    if not is_large(each * len(order)):
        return data.preprocess(taken(x, order))
    step = max(1, CHUNK // each)
    grown: dict[str, Growing] = {}
    for start in range(0, len(order), step):
        for name, values in named(data.preprocess(taken(x, order[start : start + step]))):
            grown.setdefault(name, Growing("examples that are drawn")).add(values)
    return unnamed({name: made.whole() for name, made in grown.items()})


def find_copies(split: Split) -> npt.NDArray[np.uint64] | None:
    """Return keys of equal examples, where copies must be kept in one part.

    Returns:
        Keys, (n,); None where at most `TOLERATED` of the examples have a copy, or where equal rows
        are different examples, which have few values: a random split is right for these.
    """
    shared = float(np.mean(~is_single(split.keys)))
    if shared <= TOLERATED or len(split) * collision_probability(split.x) > TOLERATED:
        return None
    return split.keys


def _split_few_groups(
    groups: npt.NDArray[Any], fraction: float, seed: int, alike: npt.NDArray[Any] | None
) -> tuple[Indices, Indices]:
    """Return the indices of both parts: about that share, with about the same classes.

    Reference:
        scikit-learn's StratifiedGroupKFold makes the folds, of which some are joined.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    most = min(len(np.unique(groups)), _FOLDS)
    share = Fraction(fraction).limit_denominator(most)
    wanted, folds = max(1, share.numerator), share.denominator if share else most
    if wanted == folds:
        wanted, folds = most - 1, most
    labels = np.zeros(len(groups), np.int64) if alike is None else alike
    maker = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # of classes with fewer examples than folds
        warnings.simplefilter("ignore", UserWarning)
        made = [leave for _, leave in maker.split(labels, labels, groups)]
    made = [leave for leave in made if len(leave)]  # folds of few groups may be empty
    leave = np.concatenate(made[: min(wanted, len(made) - 1)])
    return np.setdiff1d(np.arange(len(groups)), leave), leave


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
    """Return the strata of several outputs' labels; None: there are none."""
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


def _allocate(sizes: Indices, count: int) -> Indices:
    """Return how many examples each class gets: proportional, one at least, `count` in all."""
    exact = sizes * (count / sizes.sum())
    shares = np.clip(np.floor(exact).astype(np.int64), 1, sizes)
    while (missing := count - int(shares.sum())) > 0:
        remainder = np.where(shares < sizes, exact - shares, -np.inf)
        shares[np.argsort(-remainder, kind="stable")[:missing]] += 1
        shares = np.minimum(shares, sizes)
    while shares.sum() > count:
        shares[np.argmax(np.where(shares > 1, shares - exact, -np.inf))] -= 1
    return np.asarray(shares)


def _draw_evenly(places: Indices, count: int, random: np.random.Generator) -> Indices:
    """Return one place at random of each of `count` stretches of equal length."""
    edges = np.arange(count + 1) * len(places) // count
    return np.asarray(places[random.integers(edges[:-1], edges[1:])])
