"""What the report says about a search, from its candidates' records alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from search.report.importance import Importance, importances
from search.report.searched import SearchReport
from search.study.front import Progress, epochs_trained, progress


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
