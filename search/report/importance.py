"""The parameters of a search, and how much each matters for quality and costs.

Optuna's evaluators were considered: fANOVA leaves out parameters that not every trial has,
and PED-ANOVA asks what leads into the best tenth, which of 20 trials are two. A report has
no study either, only the candidates' records.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.pareto import log_costs
from compress.measure import formats
from search.study.directory import COMPLETE, DUPLICATE, Candidate
from search.study.front import is_finite

MIN_TRIALS = 10
"""With fewer, a forest learns noise."""
MOST_TRIALS = 1000
"""Of more, so many at random."""
MIN_EXPLAINED = 0.1
"""With less predicted, shares may be noise with names: on pure noise (16 parameters, 10 to 30
trials) 3 of 42 simulated searches came above 0, none above 0.07."""
TREES, FOLDS, REPEATS, SHUFFLES = 50, 5, 4, 3
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Share:
    """The share of one parameter in a target.

    Attributes:
        value: Share of the target's variance; around 0 where it does not matter.
        spread: Standard deviation over repetitions with other folds and other exchanges.
        asked: Trials that were asked for it.
    """

    value: float
    spread: float
    asked: int


@dataclass(frozen=True)
class Importance:
    """The shares of all parameters in one target.

    Attributes:
        target: Name of the quality or cost.
        trials: On which it was computed.
        explained: Share of the variance that the forest predicts on held-out trials.
        shares: By parameter, the largest first; empty where `missing` says why.
        missing: Why there is none.
    """

    target: str
    trials: int
    explained: float | None = None
    shares: dict[str, Share] = field(default_factory=dict)
    missing: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the record as dictionaries and numbers."""
        shares = {name: vars(share) for name, share in self.shares.items()}
        return {**vars(self), "shares": shares}


def importances(candidates: Sequence[Candidate], objectives: Sequence[str]) -> list[Importance]:
    """Return the importance of all parameters for each objective.

    Quality: trials that were trained to the end; its ranks, so that a few failures near
    chance do not outweigh all else. Costs: every trial whose cost is known, trained or not;
    their logarithms. Of trials with the same choices the first counts.

    Args:
        candidates: Any.
        objectives: Quality, then costs, by field name.
    """
    from scipy.stats import rankdata

    quality, *costs = objectives
    trained = _distinct(
        item for item in candidates if item.state == COMPLETE and is_finite(item.val.get(quality))
    )
    ranks = rankdata([item.val[quality] for item in trained]) if trained else np.zeros(0)
    found = [_importance(quality, trained, np.asarray(ranks, float))]
    for cost in costs:
        known = _distinct(
            item
            for item in candidates
            if item.state != DUPLICATE and is_finite(getattr(item, cost, None))
        )
        logs = log_costs([getattr(item, cost) for item in known])
        found.append(_importance(cost, known, logs))
    return found


def rank_parameters(found: Sequence[Importance]) -> list[str]:
    """Return the parameters by their largest share in any target."""
    best: dict[str, float] = {}
    for item in found:
        for name, share in item.shares.items():
            best[name] = max(best.get(name, share.value), share.value)
    return sorted(best, key=lambda name: -best[name])


def forest_shares(
    columns: Sequence[Parameter], target: Floats, seed: int = 0
) -> tuple[float, dict[str, Share]]:
    """Measure each parameter's share by a random forest on held-out trials.

    A forest is trained on four fifths of the trials and predicts the rest, each fifth in
    turn. A parameter's share is by how much the mean squared error grows when its values
    are exchanged at random among the trials that were asked for it, over twice the target's
    variance. A trial that was not asked keeps its place, so no impossible choice is
    judged, and a conditional parameter counts by how often it is asked.

    Args:
        columns: The parameters, (trials,) each.
        target: (trials,), not constant.
        seed: Of forests, folds and exchanges.

    Returns:
        The share of the variance that is predicted on held-out trials (negative: worse than
        the mean would be), and the shares, the largest first.

    Reference:
        Breiman 2001, "Random Forests", section 10 (permutation importance), with
        cross-validation in place of out-of-bag trials. For independent parameters the
        expectation is twice the total variance that goes through a parameter: Gregorutti,
        Michel & Saint-Pierre 2017, "Correlation and variable importance in random forests",
        proposition 1; hence the division by two, as in Jansen's estimator of total indices.
        Deviation: values are exchanged among the trials that have one.
    """
    from sklearn.ensemble import RandomForestRegressor

    blocks = [_block(column) for column in columns]
    ends = np.cumsum([block.shape[1] for block in blocks])
    spans = [slice(end - block.shape[1], end) for end, block in zip(ends, blocks, strict=True)]
    matrix = np.hstack(blocks)  # (trials, features)
    variance = float(target.var())
    random = np.random.default_rng(seed)
    errors = np.zeros((REPEATS, 1 + len(columns)))
    for repeat in range(REPEATS):
        copies = [matrix]
        for column, span in zip(columns, spans, strict=True):
            asked = np.flatnonzero(column.asked)
            for _ in range(SHUFFLES):
                copy = matrix.copy()
                copy[asked, span] = matrix[random.permutation(asked), span]
                copies.append(copy)
        versions = np.stack(copies)  # (1 + parameters x shuffles, trials, features)
        predicted = np.zeros(versions.shape[:2])
        for fold in np.array_split(random.permutation(len(target)), FOLDS):
            rest = np.setdiff1d(np.arange(len(target)), fold)
            forest = RandomForestRegressor(TREES, random_state=int(random.integers(2**31)))
            forest.fit(matrix[rest], target[rest])
            held_out = versions[:, fold].reshape(-1, matrix.shape[1])
            predicted[:, fold] = forest.predict(held_out).reshape(len(versions), -1)
        squared = ((predicted - target) ** 2).mean(axis=1)
        errors[repeat, 0] = squared[0]
        errors[repeat, 1:] = squared[1:].reshape(-1, SHUFFLES).mean(axis=1)
    growth = (errors[:, 1:] - errors[:, :1]) / (2 * variance)  # (repeats, parameters)
    shares = {
        column.name: Share(float(mean), float(spread), int(column.asked.sum()))
        for column, mean, spread in zip(
            columns, growth.mean(axis=0), growth.std(axis=0), strict=True
        )
    }
    ordered = dict(sorted(shares.items(), key=lambda item: -item[1].value))
    return 1 - float(errors[:, 0].mean()) / variance, ordered


def _importance(target: str, trials: list[Candidate], values: Floats) -> Importance:
    if len(trials) < MIN_TRIALS:
        missing = f"too few: {len(trials)} trials with different choices, {MIN_TRIALS} are needed"
        return Importance(target, len(trials), missing=missing)
    if len(trials) > MOST_TRIALS:
        # forests of more say the same, in minutes
        some = np.random.default_rng(0).permutation(len(trials))[:MOST_TRIALS]
        trials, values = [trials[place] for place in some], values[some]
    columns = [column for column in parameters(trials) if column.varies]
    if not columns or np.ptp(values) == 0:
        what = "no parameter varies" if not columns else "all trials are alike"
        return Importance(target, len(trials), missing=what)
    explained, shares = forest_shares(columns, values)
    if explained < MIN_EXPLAINED:
        missing = (
            f"a forest predicts {max(0.0, explained) * 100:.0f} % of the variance on held-out "
            f"trials, and below {MIN_EXPLAINED * 100:.0f} % it may be noise"
        )
        return Importance(target, len(trials), explained, missing=missing)
    return Importance(target, len(trials), explained, shares)


def _distinct(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Drop later candidates with the same choices: the held-out part must be new."""
    first: dict[str, Candidate] = {}
    for item in candidates:
        first.setdefault(repr(sorted(item.choices.items())), item)
    return list(first.values())


def _block(column: Parameter) -> Floats:
    """Return (trials, features) of one parameter: its number, or one column a category.

    Where it was not asked stands its most usual value: a mark for "not asked" would tell the
    forest about the condition, and take the credit of the parameter that it depends on.
    """
    asked = column.values[column.asked]
    if not column.categories:
        return np.where(column.asked, column.values, np.median(asked))[:, np.newaxis]
    usual = np.bincount(asked.astype(int)).argmax()
    places = np.where(column.asked, column.values, usual).astype(int)
    return np.asarray(np.eye(len(column.categories))[places], np.float64)


@dataclass(frozen=True)
class Parameter:
    """One parameter over several candidates.

    Attributes:
        name: As the sampler knows it ("stage2.width").
        values: (candidates,) its number, or the place of its category in `categories`; NaN
            where it was not asked, because a condition did not hold.
        categories: Of a parameter that is no number: its values as text, sorted.
    """

    name: str
    values: Floats
    categories: tuple[str, ...] = ()

    @property
    def asked(self) -> npt.NDArray[np.bool_]:
        """Mark the candidates that were asked for it."""
        return np.asarray(~np.isnan(self.values), np.bool_)

    @property
    def common(self) -> bool:
        """Tell whether every candidate was asked for it."""
        return bool(self.asked.all())

    @property
    def varies(self) -> bool:
        """Tell whether those that were asked differ."""
        return len(np.unique(self.values[self.asked])) > 1


def parameters(candidates: Sequence[Candidate]) -> list[Parameter]:
    """Read the parameters from the candidates' choices, in order of first appearance.

    A parameter is a number if all its values are; booleans, texts and None are categories,
    and so are numbers among them.

    Args:
        candidates: Any; a choice that one lacks was not asked there.
    """
    names = dict.fromkeys(name for item in candidates for name in item.choices)
    return [_parameter(name, candidates) for name in names]


def _parameter(name: str, candidates: Sequence[Candidate]) -> Parameter:
    chosen = [item.choices[name] for item in candidates if name in item.choices]
    if all(is_finite(value) and not isinstance(value, bool) for value in chosen):
        numbers = [float(item.choices.get(name, math.nan)) for item in candidates]
        return Parameter(name, np.array(numbers))
    categories = tuple(sorted({formats.plain(value) for value in chosen}))
    place = {text: float(index) for index, text in enumerate(categories)}
    places = [
        place[formats.plain(item.choices[name])] if name in item.choices else math.nan
        for item in candidates
    ]
    return Parameter(name, np.array(places), categories)
