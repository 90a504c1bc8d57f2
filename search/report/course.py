"""The page's section on the search: how it went, and what mattered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from compress.measure import formats
from compress.report.cells import Cell
from search.folder.records import Candidate
from search.report.choices import Parameter
from search.report.facts import SearchFacts
from search.report.fewer import MOST, some_of
from search.report.importance import REPEATS, TREES, Importance
from search.report.parallel import drawable, parallel_coordinates, shown_parameters
from search.report.plots import (
    SHOWN,
    importance_bars,
    learning_curves,
    ranked,
    volume_by_time,
    volume_by_trial,
)
from search.report.searched import SearchReport
from search.study.hypervolume import Progress


@dataclass(frozen=True)
class Picture:
    """A picture with words.

    Attributes:
        svg: Nothing: it is left out.
        label: What it shows, for those who do not see it.
        caption: Below it.
    """

    svg: Markup
    label: str
    caption: str
    name: str


def course_section(report: SearchReport, facts: SearchFacts) -> dict[str, Any]:
    """Returns what search.html.j2 shows of how the search went.

    Args:
        report: Of the search.
        facts: From `search_facts`.
    """
    quality = report.objectives[0]
    found = facts.progress
    pictures = [
        Picture(
            learning_curves(report.candidates, report.front, quality),
            "Learning curves",
            f"Validation {quality} after each epoch. A cross marks where a trial was stopped "
            f"because others were better; thick lines are the front. At most {MOST} are drawn.",
            "curves",
        ),
        Picture(
            importance_bars(facts.importances),
            "Importance of parameters",
            _bars(facts.importances),
            "importance",
        ),
    ]
    if found:
        pictures = [
            Picture(
                volume_by_trial(found), "Hypervolume over trials", _growth(found), "volume-trials"
            ),
            Picture(
                volume_by_time(found),
                "Hypervolume over time",
                "The same over the time that building and training took, summed over all workers.",
                "volume-time",
            ),
            *pictures,
        ]
    return {
        "epochs": _epochs(facts),
        "volume": _volume(report, found),
        "pictures": pictures,
        "parallel": _parallel(report, facts),
    }


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


def _growth(found: Progress) -> str:
    trials = len(found.ids)
    unknown = " It is not on record when trials ended: they are ordered by number."
    order = "" if found.timed else unknown
    last = found.last_growth
    if last == trials:
        return f"The front was still growing with the last of {trials} trials.{order}"
    return (
        f"The front last grew with trial {last} ({found.ids[last - 1]}) of {trials}; it has not in "
        f"the {trials - last} after it.{order}"
    )


def lines_drawn(
    report: SearchReport, facts: SearchFacts
) -> tuple[list[Candidate], list[Parameter]]:
    """Returns the candidates and the parameters of which parallel coordinates are drawn."""
    finished = drawable(report.candidates, report.objectives)
    drawn = some_of(finished, set(report.front))
    return drawn, shown_parameters(drawn, ranked(facts.importances), SHOWN)


def _parallel(report: SearchReport, facts: SearchFacts) -> Picture:
    finished = drawable(report.candidates, report.objectives)
    order = ranked(facts.importances)
    every = shown_parameters(finished, order, limit=10**6)
    drawn, chosen = lines_drawn(report, facts)
    svg = parallel_coordinates(drawn, report.front, report.objectives, chosen)
    by = "most important" if order else "most often asked"
    which = (
        f"the {len(chosen)} {by} of {len(every)} parameters"
        if len(every) > len(chosen)
        else (f"all {len(chosen)} parameters that vary")
    )
    rest = (
        "; those that only some trials have stand to the right"
        if any(not item.common for item in chosen)
        else ""
    )
    of = f"{len(finished):,}"
    if len(drawn) < len(finished):
        of = f"{len(drawn)} (the front, and others at equal distances) of {of}"
    return Picture(
        svg,
        "Parallel coordinates",
        f"Each line is one of {of} finished candidates: its choices, then quality and "
        f"costs. The darker, the better in quality; the front is thick. Shown are {which}{rest}. "
        "Numbers that span a factor of 8 and all costs are on logarithmic scales; lines are "
        "shifted a little so that equal choices do not hide each other.",
        "parallel",
    )


def _bars(found: tuple[Importance, ...]) -> str:
    count = len(ranked(found))
    shown = f"The {SHOWN} most important of {count} parameters" if count > SHOWN else "Importance"
    targets = " and ".join(item.target for item in found if item.shares)
    return f"{shown} for {targets}; lines are the spread over {REPEATS} repetitions."


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
            [name, *(cell for item in told for cell in _share(item, name))] for name in ranked(told)
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
