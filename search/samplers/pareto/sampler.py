"""The Pareto sampler: tries the candidate of most expected gain in hypervolume, among many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from scipy.stats import qmc

from compress.core.pareto import front_mask
from search.samplers._base import Choices, StatelessSampler
from search.samplers.pareto.history import (
    FEWEST,
    Curves,
    History,
    Questions,
    choices_of,
    claimed,
    reported,
    unseen,
)
from search.samplers.pareto.predictor import Encoding, Priced, promise

if TYPE_CHECKING:
    from search.spaces._base import Choice

Costs = Callable[[Choices], Sequence[float] | None]
"""Complete choices -> what they cost, by objective behind the first, NaN where that is not known
before training; None: they are not to be tried."""
STARTUP = 8
"""Trials that tell something before anything is predicted, spread over the costs."""
POOL = 1000
"""Candidates that a trial is chosen from, half of them near the front."""
CHANGES = 3
"""Choices at most by which those differ from a member of the front."""
MOST = 300
"""Told trials that are predicted from: the front, and others at random."""
RANKED = 32
"""So many of the best are kept: others may ask at the same time."""
POOR = 0.2
"""Rank correlation below which predictions say nothing, and the trial explores."""


class ParetoSampler(StatelessSampler):
    """Hypervolume improvement where costs are known before anything is trained.

    A thousand complete candidates are drawn, half of them at random, half as children of the
    front. Their costs are known exactly, and what has been told predicts their quality: a Gaussian
    process over the choices and the costs. The one is tried whose quality, as uncertain as it is,
    promises the front most hypervolume. Trials that run are taken to be as good as predicted, so
    that workers side by side try different things; stopped ones count with what was to be expected
    of them.

    Args:
        seed: Not negative.
        space: The choices of the space in the order in which they are asked, or distributions by
            name; default: what told trials were asked.
        costs: Of complete choices; default: they are predicted as the quality is.
        curves: What is known of trials on the way; default: what they report to Optuna.

    Attributes:
        note: What is to be said of the choices that were made last; "": nothing.

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
    """It takes `space`, `costs` and `curves` besides a seed."""

    def __init__(
        self,
        seed: int,
        space: Iterable[Choice] | Mapping[str, BaseDistribution] | None = None,
        costs: Costs | None = None,
        curves: Curves = reported,
    ) -> None:
        super().__init__(seed)
        self._space = space if isinstance(space, Mapping) else tuple(space or ())
        self._costs, self._curves = costs, curves
        self.note = ""
        self._read: tuple[int, History, Questions] | None = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return all parameters that the space or told trials have; see `BaseSampler`."""
        history = History(study, trial, self._curves)
        questions = Questions(
            self._space, history.distributions, [other.params for other in history.told]
        )
        # Optuna asks for both in a row: ten thousand trials are gone through once
        self._read = trial.number, history, questions
        return {name: item for name, item in questions.distributions.items() if not item.single()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Choices:
        """Return the choices of most expected gain in hypervolume; see `BaseSampler`."""
        if not search_space:
            return {}
        if self._read is None or self._read[0] != trial.number:
            self.infer_relative_search_space(study, trial)
        assert self._read is not None, "it was just read"
        (_, history, questions), self._read = self._read, None
        rng = self._generator(trial)
        if len(history.told) < STARTUP or len(history.ended) < FEWEST:
            ranked, self.note = self._spread(questions, history, trial.number, rng), ""
        else:
            ranked, self.note = self._promising(questions, history, rng)
        chosen = claimed(study, trial, ranked or [questions.drawn(rng)])
        return {name: value for name, value in chosen.items() if name in search_space}

    def _spread(
        self, questions: Questions, history: History, number: int, rng: np.random.Generator
    ) -> list[Choices]:
        """Return a candidate at a place of its own among the costs of random ones, then others."""
        drawn = [questions.drawn(rng) for _ in range(POOL // 4)]
        pool = self._priced(unseen(drawn, [*history.told, *history.running]), history)
        order = np.arange(len(pool.choices))
        if pool.costs.shape[1]:
            order = np.argsort(pool.costs[:, 0], kind="stable")  # NaN: as they were drawn
        # a share in [0, 1) that lies far from those of smaller numbers
        share = qmc.Halton(1, scramble=False).fast_forward(number).random()[0, 0]
        order = np.roll(order, -int(share * len(order)))
        return [pool.choices[place] for place in order[:RANKED]]

    def _promising(
        self, questions: Questions, history: History, rng: np.random.Generator
    ) -> tuple[list[Choices], str]:
        """Return the candidates of most expected gain in hypervolume, and a note on them."""
        on_front = front_mask(history.losses)
        front = np.flatnonzero(on_front)
        drawn = [questions.drawn(rng) for _ in range(POOL // 2)]
        parents = front[rng.integers(len(front), size=POOL - len(drawn))]
        counts = rng.integers(1, CHANGES + 1, size=len(parents))
        drawn += [
            questions.changed(history.ended[parent].params, rng, int(count))
            for parent, count in zip(parents, counts, strict=True)
        ]
        pool = self._priced(unseen(drawn, [*history.told, *history.running]), history)
        if not pool.choices:
            return [], ""
        kept = np.concatenate([front, rng.permutation(np.flatnonzero(~on_front))])[:MOST]
        losses = history.losses[kept]
        foretold = history.foretold(MOST // 2)
        stopped = self._priced([trial.params for trial, _, _ in foretold], history)
        expected = [foretold[place][1:] for place in stopped.places]
        gains, correlation = promise(
            Encoding(questions.distributions),
            pool,
            Priced([history.ended[place].params for place in kept], losses[:, 1:]),
            stopped,
            self._priced(filter(questions.answered, map(choices_of, history.running)), history),
            np.concatenate([-losses[:, 0], [quality for quality, _ in expected]]),
            np.concatenate([np.zeros(len(kept)), [variance for _, variance in expected]]),
            min(len(front), len(kept)),
            rng,
        )
        note, order = "", np.argsort(-gains, kind="stable")
        if correlation < POOR:
            note = (
                "sampled at random: what was told does not foretell other trials (rank "
                f"correlation {correlation:.2f})"
            )
            order = rng.permutation(len(pool.choices))
        elif np.isnan(pool.costs).any():
            note = "costs that nothing tells beforehand were predicted from other trials'"
        return [pool.choices[place] for place in order[:RANKED]], note

    def _priced(self, many: Iterable[Choices], history: History) -> Priced:
        """Return the choices that may be tried, and their costs."""
        count, choices = len(history.directions) - 1, list(many)
        unknown = (np.nan,) * count
        each = [unknown if self._costs is None else self._costs(chosen) for chosen in choices]
        places = [place for place, costs in enumerate(each) if costs is not None]
        costs = np.array([each[place] for place in places], float).reshape(len(places), count)
        return Priced(
            [choices[place] for place in places], history.to_losses(costs, first=1), places
        )
