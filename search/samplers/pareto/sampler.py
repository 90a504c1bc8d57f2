"""Draws many candidates, knows their costs, and tries what promises most hypervolume."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.pareto import front_mask
from search.samplers._base import NOTE_ATTR, StatelessSampler
from search.samplers.pareto.history import FEWEST, Curves, History, Numbers, reported
from search.samplers.pareto.promise import promise
from search.samplers.pareto.questions import Choices, Question, Questions

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

Costs = Callable[[Choices], Sequence[float] | None]
"""Complete choices -> what they cost, by objective behind the first, NaN where that is not known
before training; None: they are not to be tried."""
STARTUP = 8
"""Trials that tell something before anything is predicted, spread over the costs."""
POOL = 1000
"""Candidates that a trial is chosen from, half of them near the front."""
_UNASKED = object()
CHANGES = 3
"""Choices at most by which those differ from a member of the front."""
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
        space: Iterable[Question] | Mapping[str, BaseDistribution] | None = None,
        costs: Costs | None = None,
        curves: Curves = reported,
    ) -> None:
        super().__init__(seed)
        self._space = space if isinstance(space, Mapping) else tuple(space or ())
        self._costs, self._curves = costs, curves
        self._read: tuple[int, History] | None = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns all parameters that the space or told trials have; see `BaseSampler`."""
        self._read = trial.number, History.of(study, trial, self._curves)
        found = Questions(self._space, self._read[1].distributions).distributions
        return {name: item for name, item in found.items() if not item.single()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Choices:
        """Returns the choices that promise most; see `BaseSampler`."""
        if not search_space:
            return {}
        # Optuna asks for both in a row: ten thousand trials are gone through once
        if self._read is None or self._read[0] != trial.number:
            self._read = trial.number, History.of(study, trial, self._curves)
        history, self._read = self._read[1], None
        questions = Questions(self._space, history.distributions)
        rng = self._generator(trial)
        told = len(history.ended) + len(history.stopped)
        if told < STARTUP or len(history.ended) < FEWEST:
            chosen = self._spread(questions, history, trial.number, rng)
        else:
            chosen, note = self._promising(questions, history, rng)
            if note:
                study._storage.set_trial_system_attr(trial._trial_id, NOTE_ATTR, note)
        return {name: value for name, value in chosen.items() if name in search_space}

    def _spread(
        self, questions: Questions, history: History, number: int, rng: np.random.Generator
    ) -> Choices:
        """Returns a candidate at a place of its own among the costs of random ones."""
        pool, costs = self._affordable([questions.drawn(rng) for _ in range(POOL // 4)], history)
        pool, costs = _new(pool, costs, history, questions)
        if not pool:
            return questions.drawn(rng)
        if costs.shape[1] == 0 or not np.isfinite(costs[:, 0]).all():
            return pool[0]
        order = np.argsort(costs[:, 0], kind="stable")
        place = order[min(len(order) - 1, int(_van_der_corput(number) * len(order)))]
        return pool[int(place)]

    def _promising(
        self, questions: Questions, history: History, rng: np.random.Generator
    ) -> tuple[Choices, str]:
        """Returns the candidate that promises most, and what is to be said of it."""
        losses = np.concatenate([-history.qualities[:, None], history.costs], 1)
        front = np.flatnonzero(front_mask(losses))
        pool, costs = self._affordable(self._drawn(questions, history, front, rng), history)
        pool, costs = _new(pool, costs, history, questions)
        if not pool:
            return questions.drawn(rng), ""
        found = promise(questions, history, front, pool, costs, self._costs_of, rng)
        if found.correlation < POOR:
            note = (
                "sampled at random: what was told does not foretell other trials (rank "
                f"correlation {found.correlation:.2f})"
            )
            return pool[int(rng.integers(len(pool)))], note
        note = "" if self._costs else "costs were predicted from told trials: none were given"
        return pool[int(np.argmax(found.gains))], note

    def _drawn(
        self, questions: Questions, history: History, front: Any, rng: np.random.Generator
    ) -> list[Choices]:
        found = [questions.drawn(rng) for _ in range(POOL // 2)]
        parents = front[rng.integers(len(front), size=POOL - len(found))]
        counts = rng.integers(1, CHANGES + 1, size=len(parents))
        return found + [
            questions.changed(history.ended[parent].params, rng, int(count))
            for parent, count in zip(parents, counts, strict=True)
        ]

    def _affordable(self, pool: list[Choices], history: History) -> tuple[list[Choices], Numbers]:
        """Returns the candidates that may be tried, and what they cost; NaN: not known."""
        count = len(history.directions) - 1
        if self._costs is None:
            return pool, np.full((len(pool), count), np.nan)
        told = [(chosen, self._costs(chosen)) for chosen in pool]
        kept = [(chosen, costs) for chosen, costs in told if costs is not None]
        values = np.array([costs for _, costs in kept], float).reshape(len(kept), count)
        return [chosen for chosen, _ in kept], values

    def _costs_of(self, many: Sequence[Choices], count: int) -> Numbers:
        """Returns what choices cost, (choices, costs), NaN where it is not known."""
        found = np.full((len(many), count), np.nan)
        for row, chosen in zip(found, many, strict=True):
            costs = None if self._costs is None else self._costs(chosen)
            if costs is not None:
                row[:] = costs
        return found


def _new(
    pool: list[Choices], costs: Numbers, history: History, questions: Questions
) -> tuple[list[Choices], Numbers]:
    """Returns the candidates that are not among the trials, each once."""
    names = tuple(questions.distributions)

    def key(chosen: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(chosen.get(name, _UNASKED) for name in names)

    seen = {key(trial.params) for trial in history.everything}
    kept = []
    for place, chosen in enumerate(pool):
        own = key(chosen)
        if own not in seen:
            seen.add(own)
            kept.append(place)
    return [pool[place] for place in kept], costs[kept]


def _van_der_corput(number: int) -> float:
    """Returns a share in [0, 1) that lies far from those of smaller numbers."""
    share, part = 0.0, 0.5
    while number:
        share += part * (number % 2)
        number, part = number // 2, part / 2
    return share
