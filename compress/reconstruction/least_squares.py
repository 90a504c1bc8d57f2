"""Ridge regression towards the weights that are there: moments, rows, masks; NumPy and SciPy.

All arrays have a leading axis of systems that share no weights. With rows P, targets T, the
weights before W0 and the ridge L = r diag(P'P):

    W = W0 + (P'P + L)^-1 P'(T - P W0)                           P, T centred where a shift may stay

Masked weights are solved for on their support, output by output. Where rows are fewer than
columns the same is W0 + D P~'(P~ P~' + r I)^-1 (T - P W0) with P~ = P D, D = diag(P'P)^-1/2.

The ridge is chosen on examples held back, which tell too whether the solution is any better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.reconstruction.sums import Clip, Moments, Numbers, Rows, Sample, Sums, across

Flags = npt.NDArray[np.bool_]
RIDGES = tuple(10.0**-power for power in range(1, 9))
"""Tried ridges, relative to the diagonal of P'P."""
WARM, COLD = 30, 300
"""Steps of conjugate gradients: from a solution nearby, and from nothing."""
FIRST = 2
"""Where the search among them begins: 1e-3."""
DEAD = 1e-9
"""Norm of a column relative to the largest below which it is nothing: inputs of very different
scale, 1e4 beside 1e-2 say, are all worth something."""
ROUNDS = 20
"""Of freeing targets that an activation cuts off."""
EXACT = 1e-10
"""Relative error below which a layer is whole; float32 leaves about 1e-13."""
ENOUGH = 0.005
"""Relative gain below which a round is the last."""


@dataclass(frozen=True, eq=False)
class Problem:
    """What is solved: weights near those before, on a support, with or without a shift.

    Attributes:
        before: W0, (systems, columns, outputs).
        support: True where weights may differ from zero; None: everywhere.
        shift: The constant that is added to outputs and stays, (systems, outputs); None: it
            is solved for as well.
    """

    before: Numbers
    support: Flags | None = None
    shift: Numbers | None = None

    def solved(self, sums: Sums, ridge: float) -> tuple[Numbers, Numbers]:
        """Return weights and shift for a ridge relative to the diagonal."""
        if isinstance(sums, Rows):
            rows, targets = sums.stacked
            if self.shift is None:
                rows, targets = rows - rows.mean(1)[:, None], targets - targets.mean(1)[:, None]
            else:
                targets = targets - self.shift[:, None]
            left = targets - rows @ self.before
            noise = sums.count * sums.noise
            change = [
                _by_rows(p, t, ridge, noise, None if self.support is None else self.support[system])
                for system, (p, t) in enumerate(zip(rows, left, strict=True))
            ]
        else:
            a, b, _ = sums.centred() if self.shift is None else sums.raw(self.shift)
            left = b - a @ self.before + sums.count * sums.noise * self.before
            regular = _regular(a, ridge)
            if self.support is None:
                change = [*_solve(regular, left)]
            else:
                parts = zip(regular, left, self.support, strict=True)
                change = [_on_support(*system) for system in parts]
        weights = self.before + np.stack(change)
        return weights, self.shift_of(sums, weights)

    def shift_of(self, sums: Sums, weights: Numbers) -> Numbers:
        """Return the shift with which weights make the targets' means, or the one that stays."""
        if self.shift is not None:
            return self.shift
        p, t = sums.means
        return np.asarray(t - np.einsum("sd,sdm->sm", p, weights))


@dataclass(frozen=True, eq=False)
class Fit:
    """Weights and shift of a layer and what they are worth.

    Attributes:
        weights, shift: Solved on all rows, with the ridge that served best.
        ridge: Relative to the diagonal.
        before, after: Errors on the rows held back, relative to the targets' spread: one a
            call; `after` of the solution without these rows.
        sums: Over all rows that it was solved on; None: nothing is broken.
    """

    weights: Numbers
    shift: Numbers
    ridge: float
    before: tuple[float, ...]
    after: tuple[float, ...]
    sums: Sums | None = None

    @property
    def better(self) -> bool:
        """No call became worse, and one better."""
        worse = any(a > b for b, a in zip(self.before, self.after, strict=True))
        return not worse and sum(self.after) < sum(self.before)


def fitted(
    problem: Problem, train: Sample, held: Sequence[Sample], now: Numbers, clip: Clip | None
) -> Fit:
    """Solve a problem with the ridge that is best on rows held back.

    Where an activation cuts off, targets are free: from the linear solution it goes on as long as
    the error behind the activation falls on rows held back.

    Args:
        problem: What is solved.
        train: Rows that are solved on, of all calls.
        held: Rows held back, call by call.
        now: The shift as it is, (systems, outputs).
        clip: The activation behind the layer, where it cuts off: what it hides is no error.
    """
    whole = clip or Clip(-np.inf, np.inf)
    if all(whole.error(replace(part, noise=0.0), problem.before, now) < EXACT for part in held):
        zeros = (0.0,) * len(held)
        return Fit(problem.before, now, 0.0, zeros, zeros)
    sums = train.sums()
    judges = Judges(held, sums, clip)
    ridge, after = best_ridge(problem, sums, judges)
    everything: Any = sums
    for part in judges.sums:
        everything = everything + part
    before, found = judges.behind(problem.before, now), problem.solved(everything, ridge)
    if clip is not None:
        trial, rounds = problem.solved(sums, ridge), 0
        after = judges.behind(*trial)
        if isinstance(sums, Moments):
            for further in islice(_freed(problem, train, sums, ridge, clip, trial), ROUNDS):
                errors = judges.behind(*further)
                if not sum(errors) < sum(after) * (1 - ENOUGH):
                    break
                after, rounds = errors, rounds + 1
        if rounds:
            sample = Sample.joined([train, *held])
            steps = _freed(problem, sample, everything, ridge, clip, found)
            *_, found = islice(steps, rounds)
    return Fit(*found, ridge, before, after, everything)


def best_ridge(problem: Problem, sums: Sums, judges: Judges) -> tuple[float, tuple[float, ...]]:
    """Return the ridge whose solution is best on rows held back, and its errors there."""
    tried: dict[int, tuple[float, ...]] = {}
    best = FIRST

    def total(index: int) -> float:
        if index not in tried:
            tried[index] = judges.errors(*problem.solved(sums, RIDGES[index]))
        found = sum(tried[index])
        return found if np.isfinite(found) else np.inf

    for step in (1, -1):
        while 0 <= best + step < len(RIDGES) and total(best + step) < total(best):
            best += step
    return RIDGES[best], tried[best]


class Judges:
    """Rows held back, which tell how good a solution is.

    Args:
        held: Call by call.
        like: Sums of the rows that are solved on.
        clip: The activation behind the layer, where it cuts off.

    Attributes:
        sums: Of the rows held back, call by call.
    """

    def __init__(self, held: Sequence[Sample], like: Sums, clip: Clip | None) -> None:
        self.held, self.clip = held, clip
        self.sums = [part.sums(like) for part in held]
        self._units = [float(part.spread().sum()) or 1.0 for part in self.sums]

    def errors(self, weights: Numbers, shift: Numbers) -> tuple[float, ...]:
        """Return squared errors relative to the targets' spread, one a call."""
        return tuple(
            float(part.errors(weights, shift).sum()) / unit
            for part, unit in zip(self.sums, self._units, strict=True)
        )

    def behind(self, weights: Numbers, shift: Numbers) -> tuple[float, ...]:
        """Return the same behind the activation."""
        if self.clip is None:
            return self.errors(weights, shift)
        return tuple(self.clip.error(part, weights, shift) for part in self.held)


class Factored:
    """Normal equations prepared once for many targets.

    Without a support they are factored; on supports each solution is come to by conjugate
    gradients from the one before, as targets change little.

    Args:
        rows: (systems, rows, columns).
        sums: Of these rows.
        problem: What is solved.
        ridge: Relative to the diagonal.
    """

    def __init__(
        self, rows: npt.NDArray[Any], sums: Moments, problem: Problem, ridge: float
    ) -> None:
        import scipy.linalg

        self.rows, self.problem = rows, problem
        self.means = sums.means[0]
        self.noise = sums.count * sums.noise
        free = problem.shift is None
        self.a = (sums.centred() if free else sums.raw(np.zeros_like(sums.sums[1])))[0]
        regular = _regular(self.a, ridge)
        self.scale = 1 / np.sqrt(np.einsum("sdd->sd", regular))
        self.scaled = regular * self.scale[:, :, None] * self.scale[:, None]
        if problem.support is None:
            self.factors = [scipy.linalg.cho_factor(part, lower=True) for part in self.scaled]

    def solved(self, targets: npt.NDArray[Any], current: Numbers) -> tuple[Numbers, Numbers]:
        """Return weights and shift.

        Args:
            targets: (rows, channels).
            current: Weights of the solution before, (systems, columns, outputs).
        """
        import scipy.linalg

        before, shift = self.problem.before, self.problem.shift
        systems, _, outputs = before.shape
        shaped = targets.reshape(len(targets), systems, outputs)
        mean = shaped.mean(0, dtype=np.float64) if shift is None else shift
        # sums of single precision: of what is about zero, or large means eat small spreads
        shaped = (shaped - mean).astype(targets.dtype)
        left = across(self.rows, shaped.reshape(targets.shape)) - self.a @ before
        left += self.noise * before
        if shift is None:
            rest = shaped.sum(0, dtype=np.float64)
            left -= self.means[:, :, None] * rest[:, None]
        left *= self.scale[:, :, None]
        support = self.problem.support
        if support is None:
            pairs = zip(self.factors, left, strict=True)
            found = [scipy.linalg.cho_solve(factor, part) for factor, part in pairs]
        else:
            start = (current - before) / self.scale[:, :, None]
            parts = zip(self.scaled, left, support, start, strict=True)
            found = [_descended(*system) for system in parts]
        weights = before + np.stack(found) * self.scale[:, :, None]
        if shift is not None:
            return weights, shift
        return weights, mean - np.einsum("sd,sdm->sm", self.means, weights)


def _freed(
    problem: Problem, sample: Sample, sums: Moments, ridge: float, clip: Clip,
    found: tuple[Numbers, Numbers],
) -> Iterator[tuple[Numbers, Numbers]]:  # fmt: skip
    """Yield solutions, each for the targets that the one before leaves free."""
    factored = Factored(sample.rows, sums, problem, ridge)
    while True:
        found = factored.solved(clip.targets(sample, *found), found[0])
        yield found


def _descended(a: Numbers, b: Numbers, support: Flags, start: Numbers) -> Numbers:
    """Solve a x = b on supports, all outputs at once, by conjugate gradients from a start."""

    def product(x: Numbers) -> Numbers:
        return np.asarray((a @ x) * support)

    return _conjugate(product, (b - a @ start) * support, WARM) + start


def _regular(a: Numbers, ridge: float) -> Numbers:
    """Add the ridge; columns that never differ from zero get 1 and keep their weights."""
    diagonal = np.einsum("sdd->sd", a)
    dead = diagonal <= DEAD**2 * np.maximum(diagonal.max(1, keepdims=True), 1e-280)
    regular = a.copy()
    np.einsum("sdd->sd", regular)[:] = np.where(dead, 1.0, diagonal * (1 + ridge))
    alive = ~dead
    regular *= alive[:, :, None] & alive[:, None]
    np.einsum("sdd->sd", regular)[:] += dead
    return regular


def _solve(regular: Numbers, left: Numbers) -> Numbers:
    """Solve positive definite systems; by Cholesky, of badly conditioned ones by eigenvalues."""
    import scipy.linalg

    # scaled to a unit diagonal, inputs of mixed scale lose no digits
    scale = 1 / np.sqrt(np.einsum("sdd->sd", regular))
    scaled = regular * scale[:, :, None] * scale[:, None]
    right = left * scale[:, :, None]
    if len(scaled) > 1:
        try:
            return np.asarray(np.linalg.solve(scaled, right) * scale[:, :, None])
        except np.linalg.LinAlgError:
            pass
    found = np.empty_like(right)
    for system, (matrix, values) in enumerate(zip(scaled, right, strict=True)):
        try:
            factor = scipy.linalg.cho_factor(matrix, lower=True, check_finite=False)
            found[system] = scipy.linalg.cho_solve(factor, values, check_finite=False)
        except scipy.linalg.LinAlgError:
            found[system] = scipy.linalg.lstsq(matrix, values, check_finite=False)[0]
    return np.asarray(found * scale[:, :, None])


def _on_support(regular: Numbers, left: Numbers, support: Flags) -> Numbers:
    """Solve each output on its own support; outputs of one support share the factor."""
    found = np.zeros_like(left)
    patterns, which = np.unique(support.T, axis=0, return_inverse=True)
    order = np.argsort(which.ravel(), kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(which.ravel()))[:-1])
    for pattern, outputs in zip(patterns, groups, strict=True):
        inside = np.flatnonzero(pattern)
        if len(inside):
            part = _solve(
                regular[np.ix_(inside, inside)][None], left[np.ix_(inside, outputs)][None]
            )
            found[np.ix_(inside, outputs)] = part[0]
    return found


def _by_rows(
    p: Numbers, left: Numbers, ridge: float, noise: float, support: Flags | None
) -> Numbers:
    """Return the change of one system's weights, by the rows' own products."""
    squares = (p**2).sum(0)
    alive = squares > DEAD**2 * max(float(squares.max()), 1e-280)
    scale = alive / np.sqrt(np.where(alive, squares + noise / ridge, 1))
    scaled = p * scale
    if support is None:
        products = scaled @ scaled.T
        products[np.diag_indices_from(products)] += ridge
        return np.asarray(scale[:, None] * (scaled.T @ _solve(products[None], left[None])[0]))

    # a factor for each of thousands of supports would cost far more than conjugate gradients
    def product(x: Numbers) -> Numbers:
        return np.asarray((scaled.T @ (scaled @ x)) * support + ridge * x)

    return np.asarray(scale[:, None] * _conjugate(product, (scaled.T @ left) * support, COLD))


def _conjugate(product: Callable[[Numbers], Numbers], residual: Numbers, most: int) -> Numbers:
    """Solve product(x) = residual for all outputs at once, by conjugate gradients from zero."""
    found = np.zeros_like(residual)
    direction = residual.copy()
    size = (residual**2).sum(0)
    stop = 1e-12 * size
    for _ in range(most):
        moved = product(direction)
        curve = (direction * moved).sum(0)
        step = np.where(curve > 0, size / np.where(curve > 0, curve, 1), 0)
        found += step * direction
        residual -= step * moved
        new = (residual**2).sum(0)
        if np.all(new <= stop):
            break
        direction = residual + np.where(size > 0, new / np.where(size > 0, size, 1), 0) * direction
        size = new
    return found
