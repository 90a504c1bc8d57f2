"""CMA-ES for several objectives: Optuna's, shown one objective made of all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState, create_trial

from search.plugins import SAMPLERS
from search.samplers._base import Losses, StatelessSampler, completed, losses_of
from search.samplers._optuna import STARTUP

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

RHO = 0.05
"""Weight of the sum beside the maximum, as in ParEGO."""
SPACE_ATTR = "paretune:cma_space"
OPTUNA_PREFIX = "cma:"
"""How the names of the attributes begin in which Optuna keeps the optimiser."""


class ParetoCmaEsSampler(StatelessSampler):
    """CMA-ES on the augmented Chebyshev sum of all objectives, its weights drawn anew.

    Optuna's `CmaEsSampler` has one objective. Each trial it gets a copy of the study in memory
    whose completed trials have one value: the scalarisation of their objectives with the
    weights of that trial. The optimiser takes values in only when a generation is full, so
    a generation has one set of weights. Its state stands in the attributes of the trials of
    the real study. CMA-ES moves the numbers that every trial has; categories and conditional
    parameters are drawn at random.

    Args:
        seed: Not negative.

    Raises:
        MissingDependency: The package `cmaes` is not installed.

    Reference:
        Hansen & Ostermeier 2001; the scalarisation: Knowles 2006, "ParEGO", equations 1 and
        2. Deviations: weights are uniform on the simplex instead of on a lattice in it, costs
        are logarithms.
    """

    def __init__(self, seed: int) -> None:
        SAMPLERS.require_installed("cmaes")
        super().__init__(seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns the numbers that every trial has; see Optuna's `BaseSampler`."""
        space = optuna.search_space.intersection_search_space(completed(study))
        return {
            name: distribution
            for name, distribution in space.items()
            if not distribution.single()
            and not isinstance(distribution, optuna.distributions.CategoricalDistribution)
        }

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Asks CMA-ES, and keeps what it wants to remember; see Optuna's `BaseSampler`."""
        rng = self._generator(trial)
        names = ",".join(sorted(search_space))
        view, own = scalarised(study, trial, rng, names)
        inner = optuna.samplers.CmaEsSampler(
            n_startup_trials=STARTUP,
            warn_independent_sampling=False,
            seed=int(rng.integers(2**31)),
        )
        choices = inner.sample_relative(view, own, search_space)
        told = {SPACE_ATTR: names, **view.trials[own.number].system_attrs}
        for key, value in told.items():
            if trial.system_attrs.get(key) != value:
                # as Optuna's own samplers do: a sampler has no public way to a trial's attributes
                study._storage.set_trial_system_attr(trial._trial_id, key, value)
        return choices


def scalarised(
    study: optuna.Study, trial: FrozenTrial, rng: np.random.Generator, names: str
) -> tuple[optuna.Study, FrozenTrial]:
    """Copies a study into memory with one objective, to be minimised.

    Args:
        study: Several objectives.
        trial: The running trial.
        rng: Draws the weights.
        names: The parameters of the optimiser. One of other parameters is left out of the
            copy, or CMA-ES would stay with it and never move again.

    Returns:
        The copy and the running trial's copy in it; numbers are the same.
    """
    done = completed(study)
    values = dict(
        zip(
            (item.number for item in done),
            augmented_chebyshev(
                losses_of(study, done), rng.dirichlet(np.ones(len(study.directions)))
            ),
            strict=True,
        )
    )
    view = optuna.create_study(direction="minimize")
    for item in study.get_trials(deepcopy=False):
        running = item.number == trial.number
        attrs = item.system_attrs
        if attrs.get(SPACE_ATTR) != names:
            attrs = {key: attrs[key] for key in attrs if not key.startswith(OPTUNA_PREFIX)}
        view.add_trial(
            create_trial(
                state=TrialState.RUNNING if running else item.state,
                value=values.get(item.number),
                params=item.params,
                distributions=item.distributions,
                system_attrs=dict(attrs),
            )
        )
    return view, view.trials[trial.number]


def augmented_chebyshev(losses: Losses, weights: Losses) -> list[float]:
    """Returns max_j(w_j f_j) + RHO sum_j(w_j f_j) of objectives scaled to [0, 1].

    Args:
        losses: (n, objectives), lower is better.
        weights: (objectives,), their sum is 1.

    Reference:
        Knowles 2006, equation 2.
    """
    if len(losses) == 0:
        return []
    low = losses.min(axis=0)
    spread = losses.max(axis=0) - low
    weighted = weights * (losses - low) / np.where(spread > 0, spread, 1.0)
    return [float(value) for value in weighted.max(axis=1) + RHO * weighted.sum(axis=1)]
