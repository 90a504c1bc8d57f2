"""Variations of the default recipe for a goal, sampled while the time budget lasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from compress.core.errors import FeasibleError, RunFailed
from compress.measure.verdict import compare_files
from compress.run.directory import LOG
from compress.run.records import Record, find_too_low
from compress.shrinking.candidate import TRAINED, Candidate

if TYPE_CHECKING:
    from optuna.trial import Trial

    from compress.shrinking.candidate_builder import CandidateBuilder
    from compress.shrinking.planner import Planner

CRITERIA = ("reconstruction", "l2", "taylor")
"""Criteria for the units to remove in a group; Taylor uses gradients, so it needs labels."""
TEMPERATURES = (0.5, 2.0)
"""Range of the exponent of the output errors that determine channel counts: above 1, insensitive
groups lose more channels."""
RATES = (0.3, 3.0)
"""Range of the factor of the learning rate of fine-tuning."""
FIRST = 4
"""Number of random variations before TPE starts."""
MOST = 50
"""Maximum number of variations."""
SLACK, FINISHING = 1.3, 60.0
"""A variation is started if the remaining time is this many times the longest so far, after
subtracting this many seconds, and those of the timing, for the final steps."""
BEHIND = 2.0
"""Candidates are trained if their metric before training is at most this many percentage points
below the best one's."""


@dataclass(frozen=True)
class Variation(Record):
    """Changes to the default recipe for one candidate.

    Attributes:
        criterion: The plan's criterion or one of `CRITERIA`; "": the plan's.
        temperature: Exponent of the output errors.
        learning_rate: Factor of the plan's learning rate.
        format: Format of the candidate's file; "": not sampled.
    """

    criterion: str = ""
    temperature: float = 1.0
    learning_rate: float = 1.0
    format: str = ""

    def find_violation(self) -> str:
        """Return a violated rule, or ""; see `Record.find_violation`."""
        return find_too_low(self, 0, "temperature", "learning_rate")

    def __str__(self) -> str:
        """Return a description of the variation."""
        return (
            f"criterion {self.criterion}, output errors to the power of {self.temperature:.2f}, "
            f"learning rate times {self.learning_rate:.2f}"
        )


RECIPE = Variation()
"""The default recipe, without changes."""


class VariationSampler:
    """Sampler of variations, based on Optuna's TPE.

    Args:
        formats: Formats to choose from.
        criterion: Criterion of the default recipe.
        has_training: Whether candidates are fine-tuned.
        seed: Seed of the sampler.
        max_parallel: Number of variations sampled before one is finished; if more than one,
            unfinished variations are kept apart (constant liar).
    """

    def __init__(
        self,
        formats: Sequence[str],
        criterion: str,
        has_training: bool,
        seed: int,
        max_parallel: int = 1,
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._formats, self._has_training = tuple(formats), has_training
        others = CRITERIA if has_training else CRITERIA[:-1]
        self._criteria = tuple(dict.fromkeys((criterion, *others)))
        self._study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=FIRST, constant_liar=max_parallel > 1
            ),
        )

    def tell_recipe(self, format: str, value: float) -> None:
        """Report the result of the default recipe in a format.

        Args:
            format: Format of the file.
            value: Validation metric.
        """
        self.tell(self.ask_for(Variation(self._criteria[0], format=format))[1], value)

    def ask_for(self, variation: Variation) -> tuple[Variation, Trial]:
        """Return a given variation, and the trial to report its result.

        Args:
            variation: The variation.
        """
        self._study.enqueue_trial(variation.to_json())
        return self.ask()

    def ask(self) -> tuple[Variation, Trial]:
        """Return the next variation, and the trial to report its result."""
        trial = self._study.ask()
        rate = trial.suggest_float("learning_rate", *RATES, log=True) if self._has_training else 1.0
        several = len(self._formats) > 1
        variation = Variation(
            trial.suggest_categorical("criterion", self._criteria),
            trial.suggest_float("temperature", *TEMPERATURES, log=True),
            rate,
            trial.suggest_categorical("format", self._formats) if several else self._formats[0],
        )
        return variation, trial

    def tell(self, trial: Trial, value: float | None, repaired_value: float | None = None) -> None:
        """Report the result of a variation.

        Args:
            trial: Trial of the variation.
            value: Validation metric at the last stage; None: the candidate was not trained, or no
                configuration meets the goal.
            repaired_value: Validation metric before training; None: there is no candidate.
        """
        import optuna

        if value is not None:
            self._study.tell(trial, value)
        elif repaired_value is not None:
            trial.report(repaired_value, 0)
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)


def search_variations(
    planner: Planner, candidates: Sequence[Candidate], label: str, formats: Sequence[str]
) -> list[Candidate]:
    """Build candidates with variations of the recipe for the same costs, while the budget lasts.

    Optuna's TPE samples the pruning criterion, the exponent of the output errors, the learning rate
    and, if the costs depend on it, the format. A candidate whose reconstructed model is far worse
    than the best one is not trained. Because the best of many candidates is partly selected by
    chance, it is kept only if validation data show a significant difference from the recipe's.
    Without a budget nothing is done. When a run is resumed, existing candidates are loaded in the
    same order, so that it continues as if it had not been interrupted.

    Args:
        planner: Planner that builds, trains and evaluates candidates.
        candidates: Candidates of the default recipe.
        label: Part of their names, after the model's name.
        formats: Formats of the files to choose from.

    Returns:
        The best new candidate, if it is significantly better than the recipe's best one, by a
        paired test corrected for the number of variations; else an empty list.

    Reference:
        Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization", section 4 (TPE).
    """
    builder, metric = planner.builder, planner.constraint.metric
    smaller = [candidate for candidate in candidates if not candidate.whole]
    if planner.time_budget.budget is None or not smaller:
        return []
    formats = [name for name in formats if name in {candidate.format for candidate in smaller}]
    sampler = VariationSampler(
        formats,
        builder.job.plan.channels.ranking_criterion,
        planner.epochs > 0,
        builder.job.plan.seed,
        builder.max_parallel,
    )
    for candidate in smaller:
        sampler.tell_recipe(candidate.format, candidate.get_best(metric))
    series = _VariationSearch(planner, sampler, smaller, label, len(formats) > 1)
    while series.run_next():
        pass
    count = len(series.candidates)
    if count == 0:
        return []
    best, recipe = (
        max(group, key=lambda net: net.get_best(metric))
        for group in (series.candidates, candidates)
    )
    is_better = _is_better(builder, best, recipe, metric, count)
    outcome = (
        f" ({Variation.from_json(best.variation)})"
        if is_better
        else f", which chance may do (the best of {count} is compared): the recipe's stay"
    )
    planner.notes.append(
        f"the budget left time for {count} variation(s) of the recipe: the best one's validation "
        f"{metric} is {best.get_best(metric):.4f}, the recipe's "
        f"{recipe.get_best(metric):.4f}{outcome}"
    )
    return [best] if is_better else []


@dataclass(eq=False)
class _VariationSearch:
    """Search over variations, in batches of as many candidates as are trained in parallel.

    Attributes:
        planner: Planner that builds, trains and evaluates candidates.
        sampler: Sampler with the results of the default recipe.
        recipe: Candidates of the default recipe.
        label: Part of names, after the model's name.
        is_per_format: Whether each format has its own candidates.
        candidates: Candidates built so far.
    """

    planner: Planner
    sampler: VariationSampler
    recipe: Sequence[Candidate]
    label: str
    is_per_format: bool
    candidates: list[Candidate] = field(default_factory=list)
    _count: int = 0

    def run_next(self) -> bool:
        """Build and train the next batch; return False after `MOST` or if no time is left."""
        new_trials: list[tuple[Trial, Candidate]] = []
        is_over = False
        for _ in range(self.planner.builder.max_parallel):
            name = self.planner.format_name(f"{self.label}-try{self._count + 1}")
            is_over = self._count >= MOST or not self._has_time(name)
            if is_over:
                break
            self._count += 1
            new_trials += self._build(name, *self.sampler.ask())
        self._train(new_trials)
        return not is_over

    def _has_time(self, name: str) -> bool:
        """Return whether the budget has time for a candidate, or it exists already."""
        builder, time_budget = self.planner.builder, self.planner.time_budget
        stored = builder.folder.find_candidate(name)
        if stored is not None and not self._is_unfinished(stored):
            return True
        longest = max(candidate.seconds for candidate in (*self.recipe, *self.candidates))
        return time_budget.left - FINISHING - builder.job.plan.latency.budget >= SLACK * longest

    def _build(
        self, name: str, variation: Variation, trial: Trial
    ) -> list[tuple[Trial, Candidate]]:
        """Build a candidate; return an empty list on a failure or for a candidate of another order.

        The latter is trained at once.
        """
        planner = self.planner
        formats = (variation.format,) if self.is_per_format else planner.formats
        try:
            candidate = planner.builder.build(
                name, variation.format, planner.limits, formats, variation
            )
        except (FeasibleError, RunFailed) as error:
            self._record_failure(name, variation, trial, error)
            return []
        # an existing candidate of a run with another number of parallel trainings, so another order
        stored_variation = Variation.from_json(candidate.variation)
        if stored_variation == variation:
            return [(trial, candidate)]
        self.sampler.tell(trial, None)
        self._train([(self.sampler.ask_for(stored_variation)[1], candidate)])
        return []

    def _train(self, new_trials: Sequence[tuple[Trial, Candidate]]) -> None:
        """Train the promising candidates and report the results of all."""
        planner, metric = self.planner, self.planner.constraint.metric
        all_candidates = [
            *self.recipe,
            *self.candidates,
            *(candidate for _, candidate in new_trials),
        ]
        nearest = max(
            (candidate.get_best_repaired(metric) for candidate in all_candidates), default=0.0
        )
        bound = planner.constraint.compute_drop(nearest) + BEHIND
        promising = [
            candidate
            for _, candidate in new_trials
            if self._is_unfinished(candidate)
            and planner.constraint.compute_drop(candidate.get_best_repaired(metric)) <= bound
        ]
        results = dict(
            zip(
                (candidate.name for candidate in promising),
                planner.try_training(promising),
                strict=True,
            )
        )
        for trial, candidate in new_trials:
            result = results.get(candidate.name, candidate)
            if isinstance(result, Candidate):
                self.candidates.append(result)
                value = None if self._is_unfinished(result) else result.get_best(metric)
                self.sampler.tell(trial, value, result.get_best_repaired(metric))
            else:
                self._record_failure(
                    candidate.name, Variation.from_json(candidate.variation), trial, result
                )

    def _record_failure(
        self, name: str, variation: Variation, trial: Trial, error: Exception
    ) -> None:
        """Log and report a failed variation; the search continues with the others."""
        LOG.info("note: %s (%s): %s", name, variation, error)
        self.sampler.tell(trial, None)

    def _is_unfinished(self, candidate: Candidate) -> bool:
        return self.planner.epochs > 0 and candidate.stage != TRAINED


def _is_better(
    builder: CandidateBuilder, best: Candidate, recipe: Candidate, metric: str, comparisons: int
) -> bool:
    """Return whether the best of several candidates is significantly better than the recipe's."""
    best_values, recipe_values = (
        builder.read_values(
            candidate, max(candidate.val, key=lambda kind: candidate.get_metric(kind, metric))
        )
        for candidate in (best, recipe)
    )
    difference = compare_files(best_values, recipe_values, comparisons)
    return difference is not None and difference.low > 0
