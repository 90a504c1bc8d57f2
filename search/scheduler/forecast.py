"""Forecasts of the files that steps of a run lead to, learned from the steps before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from compress.core.pareto import measure_hypervolume
from compress.run.records import Record

LEAST_ERROR = 1e-3
"""Errors (1 - metric) below this count as this in ratios."""
TUNED_PRIOR = (-0.05, 0.08, 0.1)
"""Coefficients of the log of the error after fine-tuning over that of the original before anything
is known: a constant, per halving of the MACs, and per log of the same ratio before fine-tuning."""
REPAIRED_PRIOR = 0.7
"""Log of the ratio of errors before fine-tuning, per halving of the MACs, likewise."""
PRIOR_WEIGHT = 3.0
"""Number of observations that a prior counts as."""
TUNED_SPREAD, REPAIRED_SPREAD = 0.06, 0.15
"""Standard deviations of both logs before anything is known. Fine-tuned sizes were 0.04 to 0.05
from their forecasts in seven runs of benchmarks/run_front.py, on images and on a table."""
FORMAT_PRIOR = 0.05
"""Log of the error of a file of another format over that of the float file, likewise."""
OVERHEAD_PRIOR, LATENCY_WEIGHT = 0.3, 0.1
"""Share of a file's latency that does not depend on MACs, before more is known, and the weight of
that prior."""
QUADRATURE = ((-math.sqrt(3), 1 / 6), (0.0, 2 / 3), (math.sqrt(3), 1 / 6))
"""Nodes (in standard deviations) and weights of an expectation over a normal distribution."""

Point = tuple[float, float]
"""Error (1 - metric) and cost of a file; less is better in both."""


@dataclass(frozen=True)
class FileResult(Record):
    """One exported file.

    Attributes:
        format: Its format.
        quality: The selection metric on validation data.
        cost: The cost: milliseconds, or a count.
    """

    format: str
    quality: float
    cost: float


def compute_log_ratio(quality: float, reference: float) -> float:
    """Return the log of the ratio of two errors, that of the first above that of the second.

    Args:
        quality: Metric of a model, at most 1.
        reference: Metric of the model to compare with.

    Example:
        >>> round(compute_log_ratio(0.8, 0.9), 3)  # twice the error
        0.693
    """
    return math.log(max(1 - quality, LEAST_ERROR) / max(1 - reference, LEAST_ERROR))


@dataclass(eq=False)
class RidgeModel:
    """Linear regression that begins with prior coefficients.

    Args:
        prior: Prior coefficients.
        weights: Number of observations that each of them counts as.

    Attributes:
        rows, targets: The observations.
    """

    prior: Sequence[float]
    weights: Sequence[float]
    rows: list[Sequence[float]] = field(default_factory=list)
    targets: list[float] = field(default_factory=list)
    _fitted: npt.NDArray[np.float64] | None = None

    def observe(self, row: Sequence[float], target: float) -> None:
        """Add an observation."""
        self._fitted = None
        self.rows.append(row)
        self.targets.append(target)

    def fit(self) -> npt.NDArray[np.float64]:
        """Return the coefficients: least squares with a penalty on their distance to the prior."""
        if self._fitted is None:
            width = len(self.prior)
            penalty = np.diag(np.asarray(self.weights, np.float64))
            design = np.asarray(self.rows, np.float64).reshape(-1, width)
            left = design.T @ design + penalty
            right = design.T @ np.asarray(self.targets) + penalty @ np.asarray(self.prior)
            self._fitted = np.asarray(np.linalg.solve(left, right))
        return self._fitted

    def predict(self, row: Sequence[float]) -> float:
        """Return the prediction of a row."""
        return float(np.dot(row, self.fit()))

    def estimate_spread(self, prior: float) -> float:
        """Return the standard deviation of a prediction, which begins with a prior one."""
        squares = PRIOR_WEIGHT * prior**2
        if self.rows:
            rest = np.asarray(self.targets) - np.asarray(self.rows) @ self.fit()
            squares += float(rest @ rest)
        return math.sqrt(squares / (PRIOR_WEIGHT + len(self.rows)))


@dataclass(eq=False)
class Forecaster:
    """Forecasts of the files of models that are not exported, pruned or fine-tuned yet.

    Attributes:
        formats: The formats that are exported; the first is the float format.
        counts_macs: Whether the cost of a file is the number of its MACs, which is known exactly.
        tuned: Log of the error after fine-tuning over that of the original model, from a constant,
            the number of halvings of the MACs, and the same log before fine-tuning.
        repaired: The log before fine-tuning, from the number of halvings.
        latency: Cost of a float file, from a constant and the MACs, both relative to the first
            file's; errors are relative.
        overheads: By model, the part of its files' costs that pruning leaves: the share of the cost
            that a pruned file keeps, beyond that of the MACs, from the share of them that is gone.
            Models of other shapes and sizes say nothing about it.
    """

    formats: Sequence[str]
    counts_macs: bool = False
    tuned: RidgeModel = field(
        default_factory=lambda: RidgeModel(TUNED_PRIOR, (PRIOR_WEIGHT,) * len(TUNED_PRIOR))
    )
    repaired: RidgeModel = field(
        default_factory=lambda: RidgeModel((REPAIRED_PRIOR,), (PRIOR_WEIGHT,))
    )
    latency: RidgeModel = field(
        default_factory=lambda: RidgeModel(
            (OVERHEAD_PRIOR, 1 - OVERHEAD_PRIOR), (LATENCY_WEIGHT, LATENCY_WEIGHT)
        )
    )
    overheads: dict[str, RidgeModel] = field(default_factory=dict)
    _error_ratios: dict[str, list[float]] = field(default_factory=dict)
    _cost_ratios: dict[str, list[float]] = field(default_factory=dict)
    _first: Point | None = None

    def observe_files(self, files: Sequence[FileResult], macs: float) -> None:
        """Learn from the files of one model.

        Args:
            files: Its files; without one in the float format nothing is learned.
            macs: Its MACs.
        """
        by_format = {item.format: item for item in files}
        base = by_format.get(self.formats[0])
        if base is None:
            return
        if self._first is None:
            self._first = (macs, base.cost)
        cost = base.cost / self._first[1]
        self.latency.observe((1 / cost, macs / self._first[0] / cost), 1.0)
        for name, item in by_format.items():
            if item is not base:
                log_ratio = compute_log_ratio(item.quality, base.quality)
                self._error_ratios.setdefault(name, []).append(log_ratio)
                self._cost_ratios.setdefault(name, []).append(math.log(item.cost / base.cost))

    def predict_tuned(self, quality: float, halvings: float, repaired: float | None) -> Point:
        """Predict the error of a pruned model after fine-tuning.

        Args:
            quality: Metric of the original model.
            halvings: log2 of the original's MACs over the model's.
            repaired: Log of the ratio of the errors before fine-tuning; None: it is not pruned yet.

        Returns:
            The error (1 - metric), and the standard deviation of its log.
        """
        spread, limit = self.tuned.estimate_spread(TUNED_SPREAD), math.inf
        if repaired is not None:
            limit = max(repaired, 0.0)  # fine-tuning makes nothing worse
        else:
            repaired = self.repaired.predict((halvings,))
            slope = float(self.tuned.fit()[2])
            repaired_spread = self.repaired.estimate_spread(REPAIRED_SPREAD)
            spread = math.hypot(spread, slope * repaired_spread * halvings)
        log_ratio = min(limit, self.tuned.predict((1.0, halvings, repaired)))
        return max(1 - quality, LEAST_ERROR) * math.exp(log_ratio), spread

    def observe_pruning(
        self,
        model: str,
        originals: Sequence[FileResult],
        files: Sequence[FileResult],
        share: float,
    ) -> None:
        """Add the costs of a pruned model's files to the observations.

        Args:
            model: Name of the model that was pruned.
            originals: Files of the model that was pruned.
            files: Files of the pruned model.
            share: Share of the MACs that it keeps, below 1.
        """
        by_format = {item.format: item for item in originals}
        for item in files:
            if item.format in by_format:
                ratio = item.cost / by_format[item.format].cost
                self._get_overhead(model).observe((1 - share,), ratio - share)

    def predict_cost(self, macs: float) -> float:
        """Predict the cost of a float file from the MACs of its model.

        Args:
            macs: The MACs.

        Returns:
            The cost; 1 before any file is known.
        """
        if self.counts_macs:
            return macs
        if self._first is None:
            return 1.0
        first_macs, first_cost = self._first
        # a fit to few files may have a part below zero
        overhead, slope = np.maximum(self.latency.fit(), 1e-6)
        return float(first_cost * (overhead + slope * macs / first_macs))

    def predict_files(self, error: float, cost: float) -> list[Point]:
        """Predict the error and the cost of a model's files.

        Args:
            error: Error (1 - metric) of the float file.
            cost: Its cost.

        Returns:
            A point for each format.
        """
        points = [(error, cost)]
        for name in self.formats[1:]:
            cost_ratio = estimate_mean(self._cost_ratios.get(name, ()), 0.0)
            points.append((self._predict_error(name, error), cost * math.exp(cost_ratio)))
        return points

    def predict_pruned_files(
        self,
        model: str,
        originals: Sequence[FileResult],
        error: float,
        share: float,
        files: Sequence[FileResult] = (),
    ) -> list[Point]:
        """Predict the error and the cost of a pruned model's files.

        Args:
            model: Name of the model that is pruned.
            originals: Files of the model that is pruned.
            error: Error (1 - metric) of the pruned model's float file.
            share: Share of the MACs that it keeps.
            files: Its files before a fine-tuning, which changes no cost.

        Returns:
            A point for each of the originals.
        """
        kept = share
        if not self.counts_macs:
            overhead = self._get_overhead(model).predict((1.0,))
            kept += min(max(overhead, 0.0), 1.0) * (1 - share)
        known = {item.format: item.cost for item in files}
        return [
            (self._predict_error(item.format, error), known.get(item.format, item.cost * kept))
            for item in originals
        ]

    def _predict_error(self, name: str, error: float) -> float:
        """Predict the error of a file of a format from that of the float file."""
        if name == self.formats[0]:
            return error
        return error * math.exp(estimate_mean(self._error_ratios.get(name, ()), FORMAT_PRIOR))

    def _get_overhead(self, model: str) -> RidgeModel:
        return self.overheads.setdefault(model, RidgeModel((OVERHEAD_PRIOR,), (LATENCY_WEIGHT,)))


@dataclass(frozen=True)
class FrontScale:
    """The box in which the hypervolume of files is measured.

    Its corner is a quarter of the way from the best metric to that of guessing, at the largest
    cost. Costs count by their logarithm: a file twice as fast gains as much wherever it is.

    Attributes:
        largest_error: Error (1 - metric) of the corner.
        largest_cost: Cost of the corner.
    """

    largest_error: float
    largest_cost: float

    @classmethod
    def from_points(cls, points: Sequence[Point], guessing: float) -> FrontScale:
        """Return the box around some files.

        Args:
            points: The files, at least one.
            guessing: Metric of guessing, such as 0.1 for ten classes of equal size.
        """
        best = min(error for error, _ in points)
        corner = best + max(0.25 * (1 - guessing - best), LEAST_ERROR)
        return cls(corner, 2 * max(cost for _, cost in points))

    def scale(self, points: Sequence[Point]) -> npt.NDArray[np.float64]:
        """Return points as losses, (n, 2), of which the corner is (0, 0)."""
        return np.array(
            [((error - self.largest_error) / self.largest_error,
              math.log(max(cost, 1e-12) / self.largest_cost)) for error, cost in points]
        ).reshape(len(points), 2)  # fmt: skip

    def reduce(self, points: Sequence[Point]) -> list[Point]:
        """Return the points that are inside the box and not dominated."""
        front: list[Point] = []
        for error, cost in sorted(points, key=lambda point: (point[1], point[0])):
            if error < min(self.largest_error, front[-1][0] if front else math.inf):
                front.append((error, cost))
        return [point for point in front if point[1] < self.largest_cost]

    def measure(self, points: Sequence[Point]) -> float:
        """Return the hypervolume of some points."""
        return measure_hypervolume(self.scale(points), (0.0, 0.0))

    def measure_gain(
        self, front: Sequence[Point], files: Sequence[Point], spread: float = 0.0
    ) -> float:
        """Return the expected gain of a model's files over a front.

        Args:
            front: The files that exist, or will.
            files: Predicted points of the model's files.
            spread: Standard deviation of the log of their common factor of error.
        """
        before = self.measure(front)
        gain = 0.0
        for node, weight in QUADRATURE if spread else ((0.0, 1.0),):
            factor = math.exp(node * spread)
            moved = [(item_error * factor, cost) for item_error, cost in files]
            gain += weight * (self.measure([*front, *moved]) - before)
        return gain


def estimate_mean(values: Sequence[float], prior: float, weight: float = 1.0) -> float:
    """Return the mean of the last eight values and a prior one.

    Args:
        values: Observations in the order of time.
        prior: Value before any is known.
        weight: Number of observations that the prior counts as.

    Example:
        >>> estimate_mean([2.0, 4.0], 3.0)
        3.0
    """
    last = list(values)[-8:]
    return (sum(last) + weight * prior) / (len(last) + weight)


def compute_rank_correlation(predicted: Sequence[float], actual: Sequence[float]) -> float:
    """Return Spearman's rank correlation; NaN for fewer than three pairs or equal values.

    Args:
        predicted, actual: (n,) values in the same order.

    Example:
        >>> compute_rank_correlation([1.0, 2.0, 3.0], [2.0, 5.0, 9.0])
        1.0
    """
    if len(predicted) < 3 or len(set(predicted)) < 2 or len(set(actual)) < 2:
        return math.nan
    from scipy.stats import spearmanr  # takes a second to import

    return round(float(spearmanr(predicted, actual).statistic), 12)
