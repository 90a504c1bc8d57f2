"""The parameters of a search, and their importance for the metric and the costs.

Optuna's evaluators were considered: fANOVA leaves out parameters that some trials do not have,
and PED-ANOVA explains membership in the best tenth, which has two of 20 trials. Moreover, a report
has no study, only the candidates' records.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.pareto import compute_log_costs
from compress.measure import formatting
from search.study.directory import COMPLETE, DUPLICATE, Candidate
from search.study.front import is_finite

MIN_TRIALS = 10
"""Minimum number of trials; with fewer, a forest fits noise."""
MAX_TRIALS = 1000
"""Maximum number of trials; larger searches are sampled at random."""
MIN_EXPLAINED = 0.1
"""Minimum predicted share of the variance, below which shares may be noise.

On pure noise (16 parameters, 10 to 30 trials), 3 of 42 simulated searches were above 0, none
above 0.07.
"""
TREES, FOLDS, REPEATS, SHUFFLES = 50, 5, 4, 3
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Share:
    """The share of one parameter in a target.

    Attributes:
        value: Share of the target's variance; around 0 if the parameter has no influence.
        spread: Standard deviation over repetitions with other folds and permutations.
        asked: Number of trials in which the parameter was active.
    """

    value: float
    spread: float
    asked: int


@dataclass(frozen=True)
class Importance:
    """The shares of all parameters in one target.

    Attributes:
        target: Name of the metric or cost.
        trials: Number of trials for the computation.
        explained: Share of the variance that the forest predicts on held-out trials; None: not
            computed.
        shares: Shares by parameter, in descending order; empty if `missing` holds a reason.
        missing: Reason for missing shares; "": none.
    """

    target: str
    trials: int
    explained: float | None = None
    shares: dict[str, Share] = field(default_factory=dict)
    missing: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the record as dictionaries and numbers."""
        return {**vars(self), "shares": {name: vars(item) for name, item in self.shares.items()}}


def compute_importances(
    candidates: Sequence[Candidate], objectives: Sequence[str]
) -> list[Importance]:
    """Return the importance of all parameters for each objective.

    The metric is computed from complete trials as ranks, so that a few failures near chance do not
    outweigh all else. Costs are computed from every trial with a known cost, as logarithms. Of
    trials with the same choices, only the first is used.

    Args:
        candidates: Candidates in any state.
        objectives: Metric, then costs, by field name.
    """
    from scipy.stats import rankdata

    metric, *costs = objectives
    trained = _drop_duplicates(
        item for item in candidates if item.state == COMPLETE and is_finite(item.val.get(metric))
    )
    ranks = rankdata([item.val[metric] for item in trained]) if trained else np.zeros(0)
    computed = [_compute_importance(metric, trained, np.asarray(ranks, float))]
    for cost in costs:
        costed = _drop_duplicates(
            item
            for item in candidates
            if item.state != DUPLICATE and is_finite(getattr(item, cost, None))
        )
        logs = compute_log_costs([getattr(item, cost) for item in costed])
        computed.append(_compute_importance(cost, costed, logs))
    return computed


def rank_parameters(computed: Sequence[Importance]) -> list[str]:
    """Return the parameters in descending order of their largest share in any target."""
    shares = [pair for item in computed for pair in item.shares.items()]
    return list(dict.fromkeys(name for name, _ in sorted(shares, key=lambda pair: -pair[1].value)))


def measure_forest_shares(
    columns: Sequence[Parameter], target: Floats
) -> tuple[float, dict[str, Share]]:
    """Measure each parameter's share with a random forest on held-out trials.

    A forest is trained on four fifths of the trials and predicts the rest, for each fifth in turn.
    A parameter's share is the increase of the mean squared error when its values are permuted among
    the trials in which it was active, divided by twice the target's variance. Other trials stay
    unchanged, so that no impossible choices are evaluated, and a conditional parameter counts in
    proportion to its frequency.

    Args:
        columns: The parameters, (trials,) each.
        target: Values of the target, (trials,), not constant.

    Returns:
        The share of the variance that is predicted on held-out trials (negative: worse than
        predicting the mean), and the shares in descending order.

    Reference:
        Breiman 2001, "Random Forests", section 10 (permutation importance), with
        cross-validation in place of out-of-bag trials. For independent parameters the
        expectation is twice the total variance that goes through a parameter: Gregorutti,
        Michel & Saint-Pierre 2017, "Correlation and variable importance in random forests",
        proposition 1; hence the division by two, as in Jansen's estimator of total indices.
        Deviation: values are permuted among the trials that have one.
    """
    from sklearn.ensemble import RandomForestRegressor

    blocks = [_encode_parameter(column) for column in columns]
    ends = np.cumsum([block.shape[1] for block in blocks])
    spans = [slice(end - block.shape[1], end) for end, block in zip(ends, blocks, strict=True)]
    matrix = np.hstack(blocks)  # (trials, features)
    variance = float(target.var())
    random = np.random.default_rng(0)
    errors = np.zeros((REPEATS, 1 + len(columns)))
    for repeat in range(REPEATS):
        copies = [matrix]
        for column, span in zip(columns, spans, strict=True):
            asked_trials = np.flatnonzero(column.asked_mask)
            for _ in range(SHUFFLES):
                copy = matrix.copy()
                copy[asked_trials, span] = matrix[random.permutation(asked_trials), span]
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
        column.name: Share(float(mean), float(spread), int(column.asked_mask.sum()))
        for column, mean, spread in zip(
            columns, growth.mean(axis=0), growth.std(axis=0), strict=True
        )
    }
    ordered = dict(sorted(shares.items(), key=lambda item: -item[1].value))
    return 1 - float(errors[:, 0].mean()) / variance, ordered


def _compute_importance(target: str, trials: list[Candidate], values: Floats) -> Importance:
    """Return the parameters' shares in a target's variance; `missing` says why there are none."""
    if len(trials) < MIN_TRIALS:
        missing = f"too few: {len(trials)} trials with different choices, {MIN_TRIALS} are needed"
        return Importance(target, len(trials), missing=missing)
    if len(trials) > MAX_TRIALS:
        # more trials give the same result but take minutes
        sampled_indices = np.random.default_rng(0).permutation(len(trials))[:MAX_TRIALS]
        trials, values = [trials[index] for index in sampled_indices], values[sampled_indices]
    columns = [column for column in read_parameters(trials) if column.is_varying]
    if not columns or np.ptp(values) == 0:
        reason = "no parameter varies" if not columns else "all trials are alike"
        return Importance(target, len(trials), missing=reason)
    explained, shares = measure_forest_shares(columns, values)
    if explained < MIN_EXPLAINED:
        missing = (
            f"a forest predicts {max(0.0, explained) * 100:.0f} % of the variance on held-out "
            f"trials, and below {MIN_EXPLAINED * 100:.0f} % it may be noise"
        )
        return Importance(target, len(trials), explained, missing=missing)
    return Importance(target, len(trials), explained, shares)


def _drop_duplicates(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Drop later candidates with the same choices, which would leak into held-out parts."""
    first: dict[str, Candidate] = {}
    for item in candidates:
        first.setdefault(repr(sorted(item.choices.items())), item)
    return list(first.values())


def _encode_parameter(column: Parameter) -> Floats:
    """Return (trials, features) of one parameter: its number, or one column per category.

    Inactive parameters get their most frequent or median value. A special value would reveal the
    condition to the forest, which would attribute the influence of the parent parameter to this
    one.
    """
    asked_values = column.values[column.asked_mask]
    if not column.categories:
        return np.where(column.asked_mask, column.values, np.median(asked_values))[:, np.newaxis]
    usual = np.bincount(asked_values.astype(int)).argmax()
    category_indices = np.where(column.asked_mask, column.values, usual).astype(int)
    return np.asarray(np.eye(len(column.categories))[category_indices], np.float64)


@dataclass(frozen=True)
class Parameter:
    """One parameter over several candidates.

    Attributes:
        name: Name in the sampler ("stage2.width").
        values: (candidates,) its number, or the index of its category in `categories`; NaN if the
            parameter was inactive.
        categories: Sorted values, as text, of a parameter that is not a number; (): a number.
    """

    name: str
    values: Floats
    categories: tuple[str, ...] = ()

    @property
    def asked_mask(self) -> npt.NDArray[np.bool_]:
        """Mask of the candidates in which the parameter was active, (candidates,)."""
        return np.asarray(~np.isnan(self.values), np.bool_)

    @property
    def is_varying(self) -> bool:
        """Whether the parameter has more than one value."""
        return len(np.unique(self.values[self.asked_mask])) > 1


def read_parameters(candidates: Sequence[Candidate]) -> list[Parameter]:
    """Return the parameters of the candidates' choices, in order of first appearance.

    A parameter is a number if all its values are numbers. Otherwise all its values are categories.
    Booleans, texts and None are no numbers.

    Args:
        candidates: Candidates in any state; a parameter is inactive in candidates without it.
    """
    names = dict.fromkeys(name for item in candidates for name in item.choices)
    return [_read_parameter(name, candidates) for name in names]


def _read_parameter(name: str, candidates: Sequence[Candidate]) -> Parameter:
    """Return a parameter's number or category index per candidate, NaN if inactive."""
    chosen = [item.choices[name] for item in candidates if name in item.choices]
    if all(is_finite(value) and not isinstance(value, bool) for value in chosen):
        numbers = [float(item.choices.get(name, math.nan)) for item in candidates]
        return Parameter(name, np.array(numbers))
    categories = tuple(sorted({formatting.format_choice(value) for value in chosen}))
    category_index = {text: float(index) for index, text in enumerate(categories)}
    category_indices = [
        category_index[formatting.format_choice(item.choices[name])]
        if name in item.choices
        else math.nan
        for item in candidates
    ]
    return Parameter(name, np.array(category_indices), categories)
