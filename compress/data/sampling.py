"""Examples drawn from a part of a data set so that a few of them stand for all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import CHUNK, Growing, arrays, is_large, named, taken

if TYPE_CHECKING:
    from compress.data._base import Dataset, Unlabelled
    from compress.data.parts import Split

Indices = npt.NDArray[np.int64]


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
    shares = _allocate(sizes, count)
    drawn = [
        _draw_evenly(part, int(share), random) for part, share in zip(members, shares, strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def drawn_inputs(data: Dataset | Unlabelled, count: int, seed: int) -> Any:
    """Returns what a model is fed of training examples drawn without replacement.

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
        part = data.preprocess(taken(x, order[start : start + step]))
        for name, values in named(part):
            grown.setdefault(name, Growing("examples that are drawn")).add(values)
    whole = {name: made.whole() for name, made in grown.items()}
    return whole if isinstance(x, Mapping) else next(iter(whole.values()))


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
    drawn: Indices = places[random.integers(edges[:-1], edges[1:])]
    return drawn
