"""The data of a search's report, read from the run's folder, and figures of its progress."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from compress.core.errors import InputError
from compress.core.summary import Summary
from compress.measure import formatting
from compress.measure.verdict import is_worse
from compress.report.markup import Cell
from compress.report.report_data import Report, read_report
from compress.report.result_screen import build_result_screen
from compress.run.compressed_model import read_example_values
from search.plan.search import DEFAULT_OBJECTIVES, resolve_objectives
from search.report.importance import TREES, Importance, compute_importances, rank_parameters
from search.scheduler.log import EndedStep, ScheduleLog, describe_schedule
from search.study.directory import (
    COMPLETE,
    DUPLICATE,
    FAILED,
    REJECTED,
    STOPPED,
    Candidate,
    FinalTraining,
    SearchFolder,
)
from search.study.front import FrontProgress, count_epochs, measure_progress, select_front

_NOUNS = {"macs": "MACs", "params": "parameters", "size_bytes": "of file", "latency_ms": "latency"}
_MEASURED_HEADINGS = {"size_bytes": "File", "latency_ms": "Latency"}
"""Headings of costs that only some searches have."""
_METHOD = (
    f"A random forest of {TREES} trees learns the target from the choices of four fifths of the "
    "trials and predicts the rest, each fifth in turn. A parameter's share is by how much the "
    "squared error grows when its values are exchanged at random among the trials that were asked "
    "for it, over twice the variance (Breiman 2001; Gregorutti, Michel & Saint-Pierre 2017). "
    "Quality enters as ranks and costs as logarithms. Shares need not add up to 100 %: what the "
    "forest does not predict is missing, and what works together counts for each. Around zero, "
    "also below it, means no influence that these trials show. The spread is of the method "
    "alone; other trials would differ by more. A sampler that looks for good candidates tries few "
    "bad values, so this speaks of the trials of this search, not of the whole space."
)


@dataclass(frozen=True, repr=False)
class SearchReport(Report):
    """The data of a run's report.

    Attributes:
        candidates: All candidates that ended.
        front: Ids of the candidates on the front, in ascending order of the first cost.
        finals: Final trainings of the front.
        schedule: Steps of a run with a time budget, in the order of their ends.
    """

    candidates: tuple[Candidate, ...] = ()
    front: tuple[str, ...] = ()
    finals: tuple[FinalTraining, ...] = ()
    schedule: tuple[EndedStep, ...] = ()

    def build_summary(self) -> Summary:
        """Return the result screen; of a search alone with the candidates of its front."""
        trials = self.summarize_trials()
        if self.rows:
            screen = build_result_screen(self)
            if not self.candidates:
                return screen
            first, *others = screen.notes
            steps = describe_schedule(self.schedule)
            return replace(screen, notes=(first, trials, *steps, *others))
        metric, *costs = self.objectives
        front = self.list_front_candidates()
        page = ("Report", str(self.folder / "report.html"))
        models = "1 model" if len(front) == 1 else f"{len(front)} models"
        return Summary(
            f"Pareto front: {models}, validation {metric} against {', '.join(costs)}",
            (trials,),
            ("Model", f"validation {metric}", "MACs", "parameters", *self.list_measured_costs()),
            tuple(
                (
                    item.id,
                    formatting.format_metric(metric, item.val[metric]),
                    formatting.format_count(item.macs),
                    formatting.format_count(item.params),
                    *self.format_measured_costs(item),
                )
                for item in front
            ),
            row_noun="candidates",
            fields=(*self._list_next_steps(front), page),
        )

    def list_measured_costs(self) -> list[str]:
        """Return the headings of the measured costs that are objectives of the search."""
        return [
            f"{_MEASURED_HEADINGS[cost]}, estimated"
            if self.is_estimated(cost)
            else _MEASURED_HEADINGS[cost]
            for cost in self.objectives[1:]
            if cost in _MEASURED_HEADINGS
        ]

    def format_measured_costs(self, candidate: Candidate) -> list[str]:
        """Return a candidate's measured costs, in the order of `list_measured_costs`.

        Args:
            candidate: The candidate.
        """
        return [
            formatting.format_cost(cost, getattr(candidate, cost))
            for cost in self.objectives[1:]
            if cost in _MEASURED_HEADINGS
        ]

    def describe_pruned_files(self) -> list[str]:
        """Return how many pruned files no unpruned file equals, as text; empty: unknown.

        A run with a time budget that recorded no pruned file says so.

        An unpruned file equals a pruned one if it is neither worse on validation data nor slower,
        each beyond the 95 % interval: of the paired difference of accuracy, corrected for the
        number of pruned files, and of each latency.
        """
        if self.schedule and not any(row.artifact.variant == "pruned" for row in self.rows):
            return [
                "Pruned files on the front: none"
                if any(step.share < 1 for step, _, _ in self.schedule)
                else "Pruned files: none was fine-tuned within the budget"
            ]
        folder = SearchFolder(self.folder)
        files = [
            (row.artifact.variant == "pruned", row.latency, values)
            for row in self.rows
            if row.latency is not None
            and (values := read_example_values(folder, row.artifact.id, "val")) is not None
        ]
        unpruned = [(time, values) for is_pruned, time, values in files if not is_pruned]
        pruned = [(time, values) for is_pruned, time, values in files if is_pruned]
        if not pruned or not unpruned or not self.candidates:
            return []
        wins = sum(
            all(
                time.low_ms > latency.high_ms or is_worse(other, values, len(pruned))
                for time, other in unpruned
            )
            for latency, values in pruned
        )
        return [
            "Pruned files that no unpruned file of this run matches in validation "
            f"{self.main} and latency, beyond noise: {wins} of {len(pruned)}"
        ]

    def _list_next_steps(self, front: Sequence[Candidate]) -> list[tuple[str, str]]:
        """Return the best model's file, and the command that compresses it."""
        if not front:
            return []
        best = max(front, key=lambda item: item.val[self.objectives[0]])
        model = SearchFolder(self.folder).get_shipped_path(best.id)
        source = self.record["plan"].get("data", {}).get("source") or "DATA"
        command = f"paretune shrink {shlex.quote(str(model))} --data {shlex.quote(str(source))}"
        return [("Best", str(model)), ("Next", f"{command} --latency 0.5x")]

    def list_front_candidates(self) -> list[Candidate]:
        """Return the candidates on the front, in its order."""
        by_id = {candidate.id: candidate for candidate in self.candidates}
        return [by_id[name] for name in self.front]

    @property
    def objectives(self) -> tuple[str, ...]:
        """The metric and costs that were the objectives of the search."""
        search = self.record["plan"].get("search", {})
        return resolve_objectives(tuple(search.get("objectives", DEFAULT_OBJECTIVES)))

    @property
    def epochs(self) -> int:
        """Epochs of a candidate's full training; 0 if the plan does not define it."""
        return int(self.record["plan"].get("search", {}).get("epochs") or 0)

    @property
    def treatment(self) -> str:
        """Treatment of candidates: "trained", or in some runs of earlier versions "evaluated"."""
        return "evaluated" if self.record["plan"].get("search", {}).get("no_train") else "trained"

    def is_estimated(self, cost: str) -> bool:
        """Return whether a cost is an estimate, as in some runs of earlier versions."""
        return any(cost in candidate.estimated for candidate in self.candidates)

    def count_candidates(self, state: str) -> int:
        """Return the number of candidates that ended in `state`."""
        return sum(candidate.state == state for candidate in self.candidates)

    def summarize_trials(self) -> str:
        """Return one line with the number of trials by outcome and the size of the front."""
        parts = [f"{self.count_candidates(COMPLETE)} candidates {self.treatment}"]
        if stopped := self.count_candidates(STOPPED):
            parts.append(f"{stopped} stopped early")
        parts.append(f"{self.count_candidates(REJECTED)} rejected before training")
        if repeated := self.count_candidates(DUPLICATE):
            parts.append(f"{repeated} repeated others")
        return ", ".join(
            [*parts, f"{self.count_candidates(FAILED)} failed", f"{len(self.front)} on the front"]
        )


def read_search(folder: SearchFolder) -> SearchReport:
    """Return the report of a run's search and compression from its folder.

    Raises:
        InputError: The path is not the folder of a run, or a record in it is corrupt.
    """
    base = read_report(folder)
    report = SearchReport(
        base.folder,
        base.record,
        base.data,
        base.compressed,
        base.rows,
        base.others,
        base.sections,
        candidates=tuple(folder.read_candidates()),
        finals=tuple(folder.read_finals()),
        schedule=tuple(ScheduleLog(folder.path).list_ended()),
    )
    if len(report.objectives) < 2:
        raise InputError(
            f"'{folder.plan_path}' must name a quality and a cost as objectives. Received: "
            f"{', '.join(report.objectives) or 'none'}."
        )
    front = select_front(report.candidates, report.objectives)
    return replace(report, front=tuple(item.id for item in front))


@dataclass(frozen=True)
class SearchFacts:
    """Figures of a search's progress.

    Attributes:
        progress: Hypervolume of the front over the trials; None if fewer than two candidates have
            all objectives.
        epochs_trained: Epochs of complete and stopped trials.
        epochs_full: Epochs of full trainings of the same trials; None if the plan does not define
            the epochs of a training.
        importances: Importance of the parameters for each objective.
    """

    progress: FrontProgress | None
    epochs_trained: int
    epochs_full: int | None
    importances: tuple[Importance, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the record as dictionaries, lists and numbers."""
        return {
            "epochs_trained": self.epochs_trained,
            "epochs_full": self.epochs_full,
            "hypervolume": self.progress.to_json() if self.progress else None,
            "importance": [item.to_json() for item in self.importances],
        }


def compute_search_facts(report: SearchReport) -> SearchFacts:
    """Compute the report's figures of the search."""
    trained, full = count_epochs(report.candidates, report.epochs)
    return SearchFacts(
        measure_progress(report.candidates, report.objectives),
        trained,
        full if report.epochs else None,
        tuple(compute_importances(report.candidates, report.objectives)),
    )


def build_progress_section(report: SearchReport, facts: SearchFacts) -> dict[str, Any]:
    """Return the progress of the search for search.html.j2.

    Args:
        report: The report of the search.
        facts: Result of `compute_search_facts`.
    """
    return {
        "epochs": _describe_epochs(facts),
        "volume": _describe_hypervolume(report, facts.progress),
    }


def build_schedule_section(report: SearchReport) -> dict[str, Any]:
    """Return the steps of a run with a time budget for search.html.j2.

    Args:
        report: The report of the run.
    """
    return {
        "lines": describe_schedule(report.schedule),
        "heads": [
            "Step",
            "Begun, s",
            "Seconds",
            "Seconds expected",
            "Gain",
            "Gain expected",
            "Result",
        ],
        "rows": [
            [
                step.describe() if step.model else f"{step.describe()} {result.model}",
                f"{step.begun:.0f}",
                f"{result.seconds:.0f}",
                f"{step.seconds:.0f}",
                f"{gain:.4f}",
                f"{step.gain:.4f}",
                result.reason
                or ", ".join(
                    f"{formatting.format_metric(report.main, size.quality)} at {size.share:g}x"
                    for size in result.sizes
                ),
            ]
            for step, result, gain in report.schedule
        ],
    }


def _describe_epochs(facts: SearchFacts) -> str:
    """Return a sentence on the epochs trained and the share saved by early stopping."""
    trained, full = facts.epochs_trained, facts.epochs_full
    if not trained or not full:
        return "No epochs are on record."
    text = f"{trained:,} epochs were trained"
    if trained == full:
        return f"{text}, all that full training of every trained candidate takes."
    return (
        f"{text} of the {full:,} that full training of the same candidates would have taken "
        f"({trained / full * 100:.0f} %): the rest was saved by ending trials early. Trials that "
        "failed are not counted."
    )


def _describe_hypervolume(report: SearchReport, progress: FrontProgress | None) -> str:
    """Return the text that defines the hypervolume, with its reference point and best values."""
    if progress is None:
        return "Hypervolume needs two finished candidates: with fewer there is no scale."
    reference, best = (
        ", ".join(_format_amount(name, value) for name, value in point.items())
        for point in (progress.reference, progress.best)
    )
    costs = " and ".join(report.objectives[1:])
    return (
        f"Hypervolume is the space that the front dominates: here the share of the box between the "
        f"reference point ({reference}) and the best value of each objective ({best}), {costs} on "
        "a logarithmic scale. The reference lies a tenth of the range beyond the worst finished "
        "candidate in every objective. Both come from this run, so shares of different runs do "
        "not compare; 100 % would be one candidate that is best in everything."
    )


def _format_amount(name: str, value: float) -> str:
    if name in _NOUNS:
        return f"{formatting.format_cost(name, value)} {_NOUNS[name]}"
    return f"{name} {formatting.format_metric(name, value)}"


def build_importance_section(importances: Sequence[Importance]) -> dict[str, Any]:
    """Return the importance of parameters for search.html.j2."""
    explained = [item for item in importances if item.shares]
    return {
        "summaries": [
            f"{item.target}: {item.trials} trials; on held-out ones the forest predicts "
            f"{(item.explained or 0) * 100:.0f} % of the variance."
            if item.shares
            else f"{item.target}: no importance ({item.missing})."
            for item in importances
        ],
        "method": _METHOD,
        "heads": [
            "Parameter",
            *(head for item in explained for head in (item.target, "asked for in")),
        ],
        "rows": [
            [name, *(cell for item in explained for cell in _format_share(item, name))]
            for name in rank_parameters(explained)
        ],
    }


def _format_share(item: Importance, name: str) -> tuple[str | Cell, str]:
    share = item.shares.get(name)
    if share is None:
        return "-", "-"
    return (
        Cell(f"{share.value * 100:.1f} %", beside=f"±{share.spread * 100:.1f}"),
        f"{share.asked} of {item.trials}",
    )
