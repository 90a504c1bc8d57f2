"""The Pareto sampler, which selects the candidate with the largest expected gain in hypervolume."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from scipy.stats import qmc

from compress.core.pareto import compute_front_mask
from search.samplers._base import Choices, StatelessSampler
from search.samplers.pareto.history import (
    MIN_ENDED,
    ConditionalSpace,
    Curves,
    History,
    claim_candidate,
    collect_choices,
    filter_unseen,
    read_reported_values,
)
from search.samplers.pareto.predictor import CostedChoices, Encoding, predict_improvement

if TYPE_CHECKING:
    from search.spaces._base import Choice

Costs = Callable[[Choices], Sequence[float] | None]
"""Function from complete choices to their costs, one per objective after the first.

NaN: unknown before training. None: the choices must not be tried.
"""
STARTUP = 8
"""Number of observed trials before predictions are used; these are spread over the costs."""
POOL_SIZE = 1000
"""Number of candidates for each trial, half of them near the front."""
MAX_CHANGES = 3
"""Maximum number of choices in which the candidates near the front differ from its members."""
MAX_OBSERVED = 300
"""Maximum number of ended trials for predictions: the front, and random other trials."""
MAX_RANKED = 32
"""Number of best candidates to keep, because other workers may claim the first ones."""
MIN_CORRELATION = 0.2
"""Rank correlation below which predictions are ignored and candidates are random."""


class ParetoSampler(StatelessSampler):
    """Sampler by expected hypervolume improvement with costs that are known before training.

    The study's first objective is the metric, the others, at least one, are costs.

    A thousand complete candidates are drawn, half of them at random, half as mutations of the
    front. Their costs are known exactly, and a Gaussian process over choices and costs predicts
    their metrics from the observed trials. The sampler selects the candidate with the largest
    expected gain in hypervolume, given the uncertainty of its metric. Running trials are assumed to
    be as good as predicted, so that parallel workers try different choices. Stopped trials count
    with their predicted final metrics.

    Args:
        seed: A non-negative integer.
        space: The choices of the space in sampling order, or distributions by name; default: the
            parameters of observed trials.
        costs: Returns the costs of complete choices; default: costs are predicted like the metric.
        curves: Returns the metrics of a trial during its training; default: the values reported to
            Optuna.

    Attributes:
        note: Note on the last choices; "": none.

    Example:
        >>> import optuna
        >>> kinds = {"kind": optuna.distributions.CategoricalDistribution(["a", "b", "c"])}
        >>> sampler = ParetoSampler(0, space=kinds, costs=lambda chosen: (ord(chosen["kind"]),))
        >>> study = optuna.create_study(sampler=sampler, directions=["maximize", "minimize"])
        >>> study.ask(kinds).params["kind"] in "abc"
        True

    Reference:
        Expected hypervolume improvement (Emmerich et al. 2011), of one unknown and any number of
        known objectives; with running trials as "kriging believer" (Ginsbourger et al. 2010).
    """

    KNOWS_SPACE = True
    """Marks samplers that take `space`, `costs` and `curves` besides a seed."""

    def __init__(
        self,
        seed: int,
        space: Iterable[Choice] | Mapping[str, BaseDistribution] | None = None,
        costs: Costs | None = None,
        curves: Curves = read_reported_values,
    ) -> None:
        super().__init__(seed)
        self._space = space if isinstance(space, Mapping) else tuple(space or ())
        self._costs, self._curves = costs, curves
        self.note = ""
        self._prepared: tuple[int, History, ConditionalSpace] | None = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the parameters of the space or of trials that have several values."""
        history = History(study, trial, self._curves)
        full_space = ConditionalSpace(
            self._space, history.distributions, [other.params for other in history.observed]
        )
        # Optuna calls `sample_relative` next, which reuses the history of up to ten thousand trials
        self._prepared = trial.number, history, full_space
        return {name: item for name, item in full_space.distributions.items() if not item.single()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Choices:
        """Return the choices with the largest expected gain in hypervolume; see `BaseSampler`."""
        if not search_space:
            return {}
        if self._prepared is None or self._prepared[0] != trial.number:
            self.infer_relative_search_space(study, trial)
        assert self._prepared is not None, "it was just read"
        (_, history, full_space), self._prepared = self._prepared, None
        rng = self._create_generator(trial)
        if len(history.observed) < STARTUP or len(history.ended) < MIN_ENDED:
            ranked, self.note = self._select_spread(full_space, history, trial.number, rng), ""
        else:
            ranked, self.note = self._select_promising(full_space, history, rng)
        chosen = claim_candidate(study, trial, ranked or [full_space.sample(rng)])
        return {name: value for name, value in chosen.items() if name in search_space}

    def _select_spread(
        self, full_space: ConditionalSpace, history: History, number: int, rng: np.random.Generator
    ) -> list[Choices]:
        """Return random candidates in order of cost, from another quantile on for each trial."""
        samples = [full_space.sample(rng) for _ in range(POOL_SIZE // 4)]
        pool = self._compute_costs(
            filter_unseen(samples, [*history.observed, *history.running]), history
        )
        order = np.argsort(pool.costs[:, 0], kind="stable")  # NaN: in the order of the draws
        # a quasi-random share in [0, 1), far from the shares of smaller trial numbers
        share = qmc.Halton(1, scramble=False).fast_forward(number).random()[0, 0]
        order = np.roll(order, -int(share * len(order)))
        return [pool.choices[index] for index in order[:MAX_RANKED]]

    def _select_promising(
        self, full_space: ConditionalSpace, history: History, rng: np.random.Generator
    ) -> tuple[list[Choices], str]:
        """Return the candidates with the largest expected gains in hypervolume, and a note."""
        is_member = compute_front_mask(history.losses)
        front = np.flatnonzero(is_member)
        samples = [full_space.sample(rng) for _ in range(POOL_SIZE // 2)]
        parents = front[rng.integers(len(front), size=POOL_SIZE - len(samples))]
        counts = rng.integers(1, MAX_CHANGES + 1, size=len(parents))
        samples += [
            full_space.mutate(history.ended[parent].params, rng, int(count))
            for parent, count in zip(parents, counts, strict=True)
        ]
        pool = self._compute_costs(
            filter_unseen(samples, [*history.observed, *history.running]), history
        )
        if not pool.choices:
            return [], ""
        kept_trials = np.concatenate([front, rng.permutation(np.flatnonzero(~is_member))])[
            :MAX_OBSERVED
        ]
        losses = history.losses[kept_trials]
        predictions = history.predict_stopped(MAX_OBSERVED // 2)
        stopped = self._compute_costs([trial.params for trial, _, _ in predictions], history)
        expected = [predictions[index][1:] for index in stopped.indices]
        gains, correlation = predict_improvement(
            Encoding(full_space.distributions),
            pool,
            CostedChoices([history.ended[index].params for index in kept_trials], losses[:, 1:]),
            stopped,
            self._compute_costs(
                filter(full_space.is_complete, map(collect_choices, history.running)), history
            ),
            np.concatenate([-losses[:, 0], [mean for mean, _ in expected]]),
            np.concatenate([np.zeros(len(kept_trials)), [variance for _, variance in expected]]),
            min(len(front), len(kept_trials)),
            rng,
        )
        note, order = "", np.argsort(-gains, kind="stable")
        if correlation < MIN_CORRELATION:
            note = (
                "sampled at random: what was told does not foretell other trials (rank "
                f"correlation {correlation:.2f})"
            )
            order = rng.permutation(len(pool.choices))
        elif np.isnan(pool.costs).any():
            note = "costs that nothing tells beforehand were predicted from other trials'"
        return [pool.choices[index] for index in order[:MAX_RANKED]], note

    def _compute_costs(self, candidates: Iterable[Choices], history: History) -> CostedChoices:
        """Return the choices that may be tried, and their costs."""
        count, choices = len(history.directions) - 1, list(candidates)
        unknown = (np.nan,) * count
        candidate_costs = [
            unknown if self._costs is None else self._costs(chosen) for chosen in choices
        ]
        indices = [index for index, costs in enumerate(candidate_costs) if costs is not None]
        costs = np.array([candidate_costs[index] for index in indices], float).reshape(
            len(indices), count
        )
        return CostedChoices(
            [choices[index] for index in indices], history.to_losses(costs, first=1), indices
        )
