"""What the report of a search shows, read from the run's folder alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from compress.core.errors import InputError
from compress.core.summary import Summary
from compress.measure import formats
from compress.report.rows import Report, read_report
from compress.report.words import files_screen
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
from search.study.front import front_of


@dataclass(frozen=True, repr=False)
class SearchReport(Report):
    """Everything that the report of a run shows.

    Attributes:
        candidates: All candidates that ended.
        front: Ids of the candidates on the front, by rising first cost.
        finals: Trainings of the front after the search.
    """

    candidates: tuple[Candidate, ...] = ()
    front: tuple[str, ...] = ()
    finals: tuple[Final, ...] = ()

    def screen(self) -> Summary:
        """Returns one row a file where there are files, else one a candidate of the front."""
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
        """Returns the candidates on the front, in its order."""
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
        """What was done to candidates: "trained", or "judged" where they were not trained."""
        return "judged" if self.record["plan"].get("search", {}).get("no_train") else "trained"

    def is_estimated(self, cost: str) -> bool:
        """Tells whether candidates' costs of a name are estimates."""
        return any(cost in candidate.estimated for candidate in self.candidates)

    def count(self, state: str) -> int:
        """Returns the number of candidates that ended in `state`."""
        return sum(candidate.state == state for candidate in self.candidates)

    def summary(self) -> str:
        """Returns one line on the search: how many trials ended how, and the front."""
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
    """Reads what the report of a run says about its search and its compression.

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
