"""Quasi-random points (Sobol) from samplers that are made anew for each trial."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import ExperimentalWarning

from search.samplers._base import StatelessSampler

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

SEED_ATTR = "paretune:qmc_seed"


class QMCSampler(StatelessSampler):
    """Optuna's scrambled Sobol sequence over the parameters of the study's first trial.

    All points of a sequence must come from one scrambling, while our samplers get a new seed
    for each trial: the seed of the study's first trial is kept in the study. Parameters that
    the first trial does not have are drawn at random.

    Reference:
        Bergstra & Bengio 2012, "Random Search for Hyper-Parameter Optimization"; the sequence
        and its place in the storage are Optuna's `QMCSampler`'s.
    """

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Keeps the scrambling's seed if none is kept yet; see Optuna's `BaseSampler`."""
        if SEED_ATTR not in study.user_attrs:
            study.set_user_attr(SEED_ATTR, self._seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """See Optuna's `BaseSampler`."""
        space = self._sobol(study).infer_relative_search_space(study, trial)
        # a coordinate spent on what has no alternatives would be wasted
        return {name: space[name] for name in space if not space[name].single()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See Optuna's `BaseSampler`."""
        return self._sobol(study).sample_relative(study, trial, search_space)

    def _sobol(self, study: optuna.Study) -> optuna.samplers.QMCSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return optuna.samplers.QMCSampler(
                scramble=True,
                seed=int(study.user_attrs.get(SEED_ATTR, self._seed)),
                warn_independent_sampling=False,
            )
