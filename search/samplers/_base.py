"""What our samplers share: trials as losses, generators of a trial, the base class."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

NOTE_ATTR = "paretune:sampler"
"""System attribute of a trial: what its sampler has to say of its choices."""
FIXED = "fixed_params"
"""System attribute of a queued trial: its choices (Optuna's `enqueue_trial`)."""
HUGE = 1e300
"""Stands for infinity, with which distances cannot be computed."""
Losses = npt.NDArray[np.float64]


class StatelessSampler(BaseSampler):
    """A sampler whose draws follow from its seed, the trial's number and the history.

    Args:
        seed: Not negative.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns nothing: parameters are drawn one by one; see Optuna's `BaseSampler`."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns nothing; see Optuna's `BaseSampler`."""
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draws a value at random; see Optuna's `BaseSampler`."""
        rng = self._generator(trial, param_name)
        return draw(study, trial, param_name, param_distribution, rng)

    def _generator(self, trial: FrozenTrial, purpose: str = "") -> np.random.Generator:
        key = zlib.crc32(purpose.encode())  # hash() differs from process to process
        return np.random.default_rng([self._seed, trial.number, key])


def draw(
    study: optuna.Study,
    trial: FrozenTrial,
    name: str,
    distribution: BaseDistribution,
    rng: np.random.Generator,
) -> Any:
    """Draws a value of a distribution as Optuna's random sampler does."""
    sampler = RandomSampler(seed=int(rng.integers(2**31)))
    return sampler.sample_independent(study, trial, name, distribution)


def completed(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials that have values, in order; the lists are not to be changed."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def losses_of(study: optuna.Study, trials: Sequence[FrozenTrial]) -> Losses:
    """Returns the objectives of completed trials, lower is better, costs as logarithms.

    Costs span orders of magnitude: distances between them mean little before the logarithm
    is taken. The order within an objective stays what it is, and so does every front.

    Args:
        study: Gives the directions; what is to be minimised and always positive is a cost.
        trials: Completed trials.

    Returns:
        (trials, objectives).
    """
    values = np.array([trial.values for trial in trials], float)
    values = values.reshape(len(trials), len(study.directions))
    return Scales(study.directions, values).losses(values)


class Scales:
    """How the objectives of a study become losses: see `losses_of`.

    Args:
        directions: Of the objectives.
        values: Of completed trials, (trials, objectives): they say what is a cost.
    """

    def __init__(self, directions: Sequence[StudyDirection], values: Losses) -> None:
        self._falls = [direction is not StudyDirection.MAXIMIZE for direction in directions]
        self._costs = [
            falls and bool((column > 0).all())
            for falls, column in zip(self._falls, values.T, strict=True)
        ]

    def losses(self, values: npt.ArrayLike, first: int = 0) -> Losses:
        """Returns losses; NaN stays.

        Args:
            values: (n, objectives from the first on).
            first: Place of the objective of the first column.
        """
        found = np.array(values, np.float64)
        for column in range(found.shape[1]):
            if not self._falls[first + column]:
                found[:, column] *= -1
            elif self._costs[first + column]:
                found[:, column] = np.log(np.maximum(found[:, column], 1 / HUGE))
        return found.clip(-HUGE, HUGE)
