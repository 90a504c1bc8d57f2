"""Planner of candidates for a goal: limits of costs, a minimum metric, or a Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compress.core.errors import FeasibleError, ParetuneError, RunFailed
from compress.measure.footprint import measure_arena_bytes
from compress.measure.verdict import FileCandidate, is_within_limit
from compress.run.directory import LOG
from compress.shrinking.candidate import TRAINED, Candidate, ShrinkFolder
from compress.shrinking.candidate_builder import CandidateBuilder, Trainers, create_builder
from compress.shrinking.compression_job import CompressionJob
from compress.shrinking.estimates import read_device_error
from compress.shrinking.goals import FILES, MetricConstraint, compute_cost_limits, format_goals
from compress.shrinking.time_budget import TimeBudget
from compress.shrinking.variations import search_variations

FRONT = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.125, 0.1)
"""Latencies of the candidates of a Pareto front, as shares of the original's."""
SPREAD = 1.12
"""Ratio between the closest feasible and infeasible latency at which a bisection stops."""
MOST_TRIED = 5
"""Maximum number of candidates of a bisection."""
FAR, POINTS = 10.0, 5.0
"""Candidates are not trained if their drop after reconstruction exceeds this many times the allowed
drop plus this many percentage points: training reduces the drop to a fourth or less. The best
candidate that meets the costs is always trained, because one is needed."""
LONGER_TIMES = 4
"""Factor of the number of epochs, in each repetition."""
LONGER_NEAR, LONGER_POINTS = 4.0, 1.0
"""Candidates are not trained longer if their drop exceeds this many times the allowed drop plus
this many percentage points: four times as many epochs recover about half of the drop."""
LONGER_SECONDS = 600.0
"""Time limit of a longer training in seconds; beyond it the user must ask for it."""


def build_planner(
    job: CompressionJob,
    folder: ShrinkFolder,
    time_budget: TimeBudget,
    trainers: Trainers | None = None,
) -> Planner:
    """Measure the files of the original model and return a planner for its candidates.

    Args:
        job: The model.
        folder: Folder of candidates and files.
        time_budget: Time budget of the work.
        trainers: Worker processes that train candidates; None: this process.

    Raises:
        FeasibleError: The model is no better than chance, or below the requested minimum.
        InputError: Peak memory is a goal but cannot be determined for the model.
        RunFailed: There is no float file of the original model.
    """
    builder, plan = create_builder(job, folder, trainers), job.plan
    original_files = builder.original_files
    constraint = MetricConstraint.from_goal(plan.goal, original_files, job.context.data)
    if plan.goal.peak_memory is not None:
        measure_arena_bytes(folder.path / original_files.file)  # raises if it is unknown
    limits = compute_cost_limits(plan.goal, original_files, builder.counted, read_device_error(job))
    LOG.info("goal: %s", format_goals(plan.goal, limits, constraint))
    if plan.goal.budget is not None and not plan.goal.no_train:
        time_budget.measure_forward(job.model, job.context)
    return Planner(builder, limits, constraint, time_budget, [*job.notes, *original_files.notes])


@dataclass(eq=False)
class Planner:
    """Planner that builds candidates until a goal is met.

    Attributes:
        builder: Builder of candidates.
        limits: Limit of each cost, by name.
        constraint: Constraint on the selection metric.
        time_budget: Estimates of training times, and the remaining time.
        notes: Notes on the process.
    """

    builder: CandidateBuilder
    limits: Mapping[str, float]
    constraint: MetricConstraint
    time_budget: TimeBudget
    notes: list[str] = field(default_factory=list)

    @property
    def formats(self) -> tuple[str, ...]:
        """Export formats in which the original model has a file."""
        names = self.builder.job.plan.export.formats
        return tuple(name for name in names if name in self.builder.original_files.val)

    def run(self) -> list[Candidate]:
        """Build and train candidates for the goal and return them.

        Raises:
            FeasibleError: No format meets the goals.
        """
        if self.limits:
            return self.build_for_costs()
        if self.constraint.floor is not None:
            return self.build_for_metric()
        return self.build_front()

    def build_for_costs(self) -> list[Candidate]:
        """Build and train a candidate per format, or one for all if costs do not depend on it.

        Raises:
            FeasibleError: No format meets the goals.
            RunFailed: No format has a file that can be made and timed.
        """
        file_costs, targets = FILES & set(self.limits), self.builder.job.plan.goal.costs
        formats = self._select_formats()
        label = "-".join(f"{name.partition('_')[2] or name}{targets[name]}" for name in self.limits)
        candidates, errors = list[Candidate](), list[ParetuneError]()
        for file_formats in [(name,) for name in formats] if file_costs else [formats]:
            name = f"{label}-{file_formats[0]}" if file_costs and len(formats) > 1 else label
            try:
                candidates.append(
                    self.builder.build(
                        self.format_name(name), file_formats[0], self.limits, file_formats
                    )
                )
            except (FeasibleError, RunFailed) as error:
                errors.append(error)
                self.notes.append(str(error))
        if not candidates:
            # report the format that is closest to the goal
            raise min(errors, key=lambda error: getattr(error, "used", float("inf")))
        # the most promising first: there may not be time for all
        candidates.sort(key=lambda net: -net.get_best(self.constraint.metric))
        candidates = self.train(candidates, nearest=True)
        candidates += train_longer(self, candidates)
        return [
            *candidates,
            *search_variations(self, candidates, label, formats if file_costs else formats[:1]),
        ]

    def _select_formats(self) -> tuple[str, ...]:
        """Return the formats to try: for a latency goal, those that are not slower than float32.

        A format in which the original model is slower than in float32 would need more channels
        removed for the same latency, and rounding adds to the loss. With a goal of size or memory
        all formats are tried.
        """
        others = {"size", "peak_memory"} & set(self.limits)
        original_files = self.builder.original_files
        if "latency" not in self.limits or others or original_files.first not in self.formats:
            return self.formats
        slower = [name for name in self.formats if original_files.times[name] > original_files.ms]
        self.notes += [
            f"{name} was left out: the model's own {name} file takes "
            f"{original_files.times[name] / original_files.ms:.2f} times as long as its "
            f"{original_files.first} file (measured), so more channels would have to be removed "
            "for the same time"
            for name in slower
        ]
        return tuple(name for name in self.formats if name not in slower)

    def build_for_metric(self) -> list[Candidate]:
        """Search for the fastest candidate with a sufficient metric, down to 0.1x of the time."""
        low, high, candidates = FRONT[-1], 1.0, list[Candidate]()
        for _ in range(MOST_TRIED):
            share = (low * high) ** 0.5
            candidate = self._build_at_share(share)
            if candidate is not None:
                candidates += self.train([candidate])
            is_good = candidate is not None and self.is_good(candidates[-1])
            low, high = (low, share) if is_good else (share, high)
            if high / low < SPREAD:
                break
        return [*candidates, self._build_original()]

    def is_good(self, candidate: Candidate) -> bool:
        """Return whether a file of a candidate meets the constraint on the metric.

        The confidence interval on validation data must show it, as in the selection of the file. If
        there are too few examples to show it for any file, the point estimate decides.

        Args:
            candidate: The candidate.
        """
        limit, metric = self.constraint.limit, self.constraint.metric
        original = FileCandidate(
            "", self.constraint.original, values=self.builder.read_original_values()
        )
        if limit is None or not limit.can_be_proven(original.metric, original.values):
            return self.constraint.is_met(candidate.get_best(metric))
        files = (
            FileCandidate(
                kind,
                candidate.get_metric(kind, metric),
                {},
                self.builder.read_values(candidate, kind),
            )
            for kind in candidate.val
        )
        return any(is_within_limit(file, original, limit) for file in files)

    def build_front(self) -> list[Candidate]:
        """Build and train candidates from 1x to 0.1x of the original latency, if feasible."""
        smaller = [self._build_at_share(share) for share in FRONT if share < 1.0]
        return self.train(
            [self._build_original(), *(candidate for candidate in smaller if candidate is not None)]
        )

    def _build_original(self) -> Candidate:
        return self.builder.build_original(self.format_name("whole"), self.formats)

    def _build_at_share(self, share: float) -> Candidate | None:
        """Return a candidate with a share of the original's float latency, or None without a file.

        Its file in the first format has this latency.
        """
        limits = {"latency": share * self.builder.original_files.ms}
        name = self.format_name(f"latency{share:.3g}x")
        try:
            return self.builder.build(name, self.formats[0], limits, self.formats)
        except (FeasibleError, RunFailed) as error:
            self.notes.append(f"no model takes {share:.3g}x of the time: {error}")
            return None

    @property
    def epochs(self) -> int:
        """Number of epochs of a training without a budget; 0: candidates are not trained."""
        plan, data = self.builder.job.plan, self.builder.job.context.data
        steps = plan.finetune.count_steps(len(data.train))
        return 0 if plan.goal.no_train else plan.finetune.count_epochs(steps)

    def train(self, candidates: Sequence[Candidate], *, nearest: bool = False) -> list[Candidate]:
        """Train candidates that are worth it, within the time budget.

        Args:
            candidates: Reconstructed candidates.
            nearest: Whether to train the first candidate whatever its drop, because one file must
                meet the costs.

        Returns:
            The candidates at their last stage.

        Raises:
            ParetuneError: A training failed; all others are finished.
        """
        trained_candidates = []
        for item in self.try_training(candidates, nearest=nearest):
            if isinstance(item, ParetuneError):
                raise item
            trained_candidates.append(item)
        return trained_candidates

    def try_training(
        self, candidates: Sequence[Candidate], *, nearest: bool = False
    ) -> list[Candidate | ParetuneError]:
        """Train candidates in parallel, as far as there are workers.

        Args:
            candidates, nearest: See `train`.

        Returns:
            For each the candidate at its last stage, or the error of its training.
        """
        results: list[Candidate | ParetuneError] = list(candidates)
        indices = [
            index
            for index, candidate in enumerate(candidates)
            if self._is_worth_training(candidate, is_required=nearest and index == 0)
        ]
        # with a budget, the measured time of each batch limits the epochs of the next one
        step = (
            self.builder.max_parallel
            if self.time_budget.budget is not None
            else max(1, len(indices))
        )
        for start in range(0, len(indices), step):
            # the remaining time is divided equally among the remaining batches
            batches = -(-(len(indices) - start) // self.builder.max_parallel)
            trainings = [
                (index, candidates[index], epochs)
                for index in indices[start : start + step]
                if (epochs := self._limit_epochs(candidates[index], batches))
            ]
            outcomes = self.builder.train_all(
                [(candidate, epochs) for _, candidate, epochs in trainings]
            )
            for (index, repaired, _), item in zip(trainings, outcomes, strict=True):
                results[index] = item
                if isinstance(item, Candidate):
                    self.time_budget.update_estimate(
                        repaired.share, item.epochs, item.seconds - repaired.seconds
                    )
        return results

    def _is_worth_training(self, candidate: Candidate, is_required: bool) -> bool:
        if candidate.stage == TRAINED or self.epochs == 0 or candidate.whole:
            return False
        allowed, value = (
            self.constraint.allowed_drop,
            candidate.get_best(self.constraint.metric),
        )
        drop = self.constraint.compute_drop(value)
        if is_required or allowed is None or drop <= FAR * allowed + POINTS:
            return True
        self.notes.append(
            f"{candidate.name} was not trained: after reconstruction "
            f"{self.constraint.describe_change(value)}"
        )
        return False

    def _limit_epochs(self, candidate: Candidate, batches: int) -> int:
        """Return the number of epochs within the budget, and note a reduction."""
        wanted_epochs = self.epochs
        epochs = self.time_budget.limit_epochs(candidate.share, wanted_epochs, batches)
        if epochs == 0:
            epoch_seconds, seconds_left = (
                self.time_budget.estimate_epoch(candidate.share),
                max(0.0, self.time_budget.left),
            )
            self.notes.append(
                f"{candidate.name} was not trained: an epoch takes about {epoch_seconds:.0f} s "
                f"(estimated), and {seconds_left:.0f} s of the budget are left"
            )
        elif epochs < wanted_epochs:
            self.notes.append(
                f"{candidate.name} was trained {epochs} epochs of {wanted_epochs}: the budget"
            )
        return epochs

    def format_name(self, label: str) -> str:
        """Return the name of a candidate, for files.

        Args:
            label: Part of the name, after the model's name.
        """
        return f"{self.builder.job.name}-{label.replace('.', '_')}"


def train_longer(planner: Planner, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Train the best candidate longer, if none meets the constraint and it is close.

    The training restarts from the reconstructed model with more epochs, because the learning rate
    decays once over all epochs. This is repeated while it helps, the constraint is not met, and a
    training takes minutes. Nothing is done with a time budget, which is spent on variations
    instead, or if the user set the number of epochs.

    Args:
        planner: Planner that trains and evaluates candidates.
        candidates: Candidates of the default recipe, at their last stage.

    Returns:
        The candidate, if it is better than after the default number of epochs; else an empty list.
    """
    constraint, builder = planner.constraint, planner.builder
    trained = [candidate for candidate in candidates if candidate.stage == TRAINED]
    allowed, has_fixed_epochs = (
        constraint.allowed_drop,
        builder.job.plan.finetune.epochs is not None,
    )
    if allowed is None or planner.time_budget.budget is not None or has_fixed_epochs or not trained:
        return []
    if any(constraint.is_met(candidate.get_best(constraint.metric)) for candidate in candidates):
        return []
    first = best = max(trained, key=lambda net: net.get_best(constraint.metric))
    while not constraint.is_met(best.get_best(constraint.metric)):
        drop, epochs = (
            constraint.compute_drop(best.get_best(constraint.metric)),
            LONGER_TIMES * best.epochs,
        )
        # an upper bound: the time of the first includes its selection and reconstruction
        seconds = LONGER_TIMES * best.seconds
        description = (
            f"{best.name} after {best.epochs} epochs: "
            f"{constraint.describe_change(best.get_best(constraint.metric))}"
        )
        if drop > LONGER_NEAR * allowed + LONGER_POINTS:
            break
        if seconds > LONGER_SECONDS:
            planner.notes.append(
                f"{description}; {epochs} epochs may meet it and take about "
                f"{seconds / 60:.0f} min (estimated): --finetune-epochs {epochs}"
            )
            break
        restarted = builder.reset_to_repaired(first, f"{first.name}-{epochs}epochs")
        retrained = (
            restarted if restarted.stage == TRAINED else builder.train_all([(restarted, epochs)])[0]
        )
        if isinstance(retrained, ParetuneError):
            planner.notes.append(
                f"{first.name} could not be trained for {epochs} epochs: {retrained}"
            )
            break
        new_metric = retrained.get_best(constraint.metric)
        planner.notes.append(
            f"{description}; after {retrained.epochs} epochs: "
            f"{constraint.describe_change(new_metric)}"
        )
        if new_metric <= best.get_best(constraint.metric):
            break
        best = retrained
    return [] if best is first else [best]
