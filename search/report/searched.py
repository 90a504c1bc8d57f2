"""The data of a search's report, from the run's folder alone, and figures of its course."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from compress.core.errors import InputError
from compress.core.summary import Summary
from compress.measure import formats
from compress.report.markup import Cell
from compress.report.rows import Report, read_report
from compress.report.words import files_screen
from search.report.importance import TREES, Importance, importances, rank_parameters
from search.study.directory import (
    COMPLETE,
    DUPLICATE,
    FAILED,
    REJECTED,
    STOPPED,
    Candidate,
    Final,
    SearchFolder,
)
from search.study.front import Progress, epochs_trained, front_of, progress

_NOUNS = {"macs": "MACs", "params": "parameters", "size_bytes": "of file", "latency_ms": "latency"}
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
        front: Ids of the candidates on the front, by rising first cost.
        finals: Trainings of the front after the search.
    """

    candidates: tuple[Candidate, ...] = ()
    front: tuple[str, ...] = ()
    finals: tuple[Final, ...] = ()

    def screen(self) -> Summary:
        """Return one row a file where there are files, else one a candidate of the front."""
        told = (self.summary(), f"report, with intervals: {self.folder / 'report.html'}")
        if self.rows:
            return replace(files_screen(self), lines=told)
        quality, *costs = self.objectives
        front = self.members()
        return Summary(
            f"a front of {len(front)} candidates in '{self.folder}'",
            told,
            ("Model", f"validation {quality}", "MACs", "parameters"),
            tuple(
                (
                    item.id,
                    formats.quality(quality, item.val[quality]),
                    formats.count(item.macs),
                    formats.count(item.params),
                )
                for item in front
            ),
            (f"traded against {', '.join(costs)}",),
            "candidates",
        )

    def members(self) -> list[Candidate]:
        """Return the candidates on the front, in its order."""
        by_id = {candidate.id: candidate for candidate in self.candidates}
        return [by_id[name] for name in self.front]

    @property
    def objectives(self) -> tuple[str, ...]:
        """Quality and costs that the search traded against each other."""
        search = self.record["plan"].get("search", {})
        return tuple(search.get("objectives", ("accuracy", "macs")))

    @property
    def epochs(self) -> int:
        """Epochs of a candidate's whole training; 0 where the plan does not say it."""
        return int(self.record["plan"].get("search", {}).get("epochs") or 0)

    @property
    def done(self) -> str:
        """The treatment of candidates: "trained", or "judged" where they were not trained."""
        return "judged" if self.record["plan"].get("search", {}).get("no_train") else "trained"

    def is_estimated(self, cost: str) -> bool:
        """Tell whether candidates' costs of a name are estimates."""
        return any(cost in candidate.estimated for candidate in self.candidates)

    def count(self, state: str) -> int:
        """Return the number of candidates that ended in `state`."""
        return sum(candidate.state == state for candidate in self.candidates)

    def summary(self) -> str:
        """Return one line on the search: how many trials ended how, and the front."""
        parts = [f"{self.count(COMPLETE)} candidates {self.done}"]
        if stopped := self.count(STOPPED):
            parts.append(f"{stopped} stopped early")
        parts.append(f"{self.count(REJECTED)} rejected untrained")
        if repeated := self.count(DUPLICATE):
            parts.append(f"{repeated} repeated others")
        return ", ".join(
            [*parts, f"{self.count(FAILED)} failed", f"{len(self.front)} on the front"]
        )


def read_search(folder: SearchFolder) -> SearchReport:
    """Read a run's search and compression for its report.

    Raises:
        InputError: It is no run's folder, or a record in it is damaged.
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
    )
    if len(report.objectives) < 2:
        raise InputError(
            f"'{folder.plan_path}' must name a quality and a cost as objectives. Received: "
            f"{', '.join(report.objectives) or 'none'}."
        )
    front = front_of(report.candidates, report.objectives)
    return replace(report, front=tuple(item.id for item in front))


@dataclass(frozen=True)
class SearchFacts:
    """Figures of how a search went.

    Attributes:
        progress: The front's hypervolume over the trials; None with fewer than two
            finished candidates.
        epochs_trained: Of the trials that were trained, in whole or in part.
        epochs_full: What full training of these would have taken; None where the plan does
            not say how long that is.
        importances: Of the parameters, for each objective.
    """

    progress: Progress | None
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


def search_facts(report: SearchReport) -> SearchFacts:
    """Compute the report's figures of the search."""
    trained, full = epochs_trained(report.candidates, report.epochs)
    return SearchFacts(
        progress(report.candidates, report.objectives),
        trained,
        full if report.epochs else None,
        tuple(importances(report.candidates, report.objectives)),
    )


def course_section(report: SearchReport, facts: SearchFacts) -> dict[str, Any]:
    """Return the course of the search for search.html.j2.

    Args:
        report: Of the search.
        facts: From `search_facts`.
    """
    return {"epochs": _epochs(facts), "volume": _volume(report, facts.progress)}


def _epochs(facts: SearchFacts) -> str:
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


def _volume(report: SearchReport, found: Progress | None) -> str:
    if found is None:
        return "Hypervolume needs two finished candidates: with fewer there is no scale."
    reference, best = (
        ", ".join(_amount(name, value) for name, value in point.items())
        for point in (found.reference, found.best)
    )
    costs = " and ".join(report.objectives[1:])
    return (
        f"Hypervolume is the space that the front dominates: here the share of the box between the "
        f"reference point ({reference}) and the best value of each objective ({best}), {costs} on "
        "a logarithmic scale. The reference lies a tenth of the range beyond the worst finished "
        "candidate in every objective. Both come from this run, so shares of different runs do "
        "not compare; 100 % would be one candidate that is best in everything."
    )


def _amount(name: str, value: float) -> str:
    if name in _NOUNS:
        return f"{formats.cost(name, value)} {_NOUNS[name]}"
    return f"{name} {formats.quality(name, value)}"


def importance_section(found: Sequence[Importance]) -> dict[str, Any]:
    """Return the importance of parameters for search.html.j2."""
    told = [item for item in found if item.shares]
    return {
        "said": [
            f"{item.target}: {item.trials} trials; on held-out ones the forest predicts "
            f"{(item.explained or 0) * 100:.0f} % of the variance."
            if item.shares
            else f"{item.target}: no importance ({item.missing})."
            for item in found
        ],
        "method": _METHOD,
        "heads": ["Parameter", *(head for item in told for head in (item.target, "asked for in"))],
        "rows": [
            [name, *(cell for item in told for cell in _share(item, name))]
            for name in rank_parameters(told)
        ],
    }


def _share(item: Importance, name: str) -> tuple[str | Cell, str]:
    share = item.shares.get(name)
    if share is None:
        return "-", "-"
    return (
        Cell(f"{share.value * 100:.1f} %", beside=f"±{share.spread * 100:.1f}"),
        f"{share.asked} of {item.trials}",
    )
