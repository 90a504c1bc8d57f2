"""How the search went and what mattered: figures, and the page's section in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from compress.measure import formats
from compress.report.markup import Cell
from search.report.importance import TREES, Importance, importances, rank_parameters
from search.report.searched import SearchReport
from search.study.front import Progress, epochs_trained, progress

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


@dataclass(frozen=True)
class SearchFacts:
    """How a search went.

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
        """Returns the record as dictionaries, lists and numbers."""
        return {
            "epochs_trained": self.epochs_trained,
            "epochs_full": self.epochs_full,
            "hypervolume": self.progress.to_json() if self.progress else None,
            "importance": [item.to_json() for item in self.importances],
        }


def search_facts(report: SearchReport) -> SearchFacts:
    """Computes what the report says about the search."""
    trained, full = epochs_trained(report.candidates, report.epochs)
    return SearchFacts(
        progress(report.candidates, report.objectives),
        trained,
        full if report.epochs else None,
        tuple(importances(report.candidates, report.objectives)),
    )


def course_section(report: SearchReport, facts: SearchFacts) -> dict[str, Any]:
    """Return what search.html.j2 shows of how the search went.

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
    """Returns what search.html.j2 shows of the importance of parameters."""
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
