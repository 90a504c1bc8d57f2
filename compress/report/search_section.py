"""The page's section on the search: how it went, and what mattered."""

from __future__ import annotations

from compress.measure import formats
from compress.report.importance import REPEATS, TREES, Importance
from compress.report.markup import (
    Html,
    element,
    folded,
    items,
    joined,
    paragraph,
    picture,
    row,
    table,
)
from compress.report.parallel import drawable, parallel_coordinates, shown_parameters
from compress.report.progress import Progress
from compress.report.rows import Report
from compress.report.search_facts import SearchFacts
from compress.report.search_plots import (
    SHOWN,
    importance_bars,
    learning_curves,
    ranked,
    volume_by_time,
    volume_by_trial,
)


def search_section(report: Report, facts: SearchFacts) -> Html:
    """Returns the section.

    Args:
        report: From `load_report`.
        facts: From `search_facts`.
    """
    quality = report.objectives[0]
    found = facts.progress
    pictures = [
        picture(volume_by_trial(found), "Hypervolume over trials", _growth(found))
        if found
        else Html(""),
        picture(
            volume_by_time(found),
            "Hypervolume over time",
            "The same over the time that building and training took, summed over all workers.",
        )
        if found
        else Html(""),
        picture(
            learning_curves(report.candidates, report.front, quality),
            "Learning curves",
            f"Validation {quality} after each epoch. A cross is where a trial was stopped, since "
            "others were better; thick lines are the front.",
        ),
        picture(
            importance_bars(facts.importances), "Importance of parameters", _bars(facts.importances)
        ),
    ]
    return joined(
        [
            element("h2", "The search"),
            paragraph(_epochs(facts)),
            paragraph(_volume(report, found)),
            element("div", *pictures, class_="plots"),
            _parallel(report, facts),
            _importance(facts.importances),
        ]
    )


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


def _volume(report: Report, found: Progress | None) -> str:
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
    return f"{name} {formats.share(value)}"


def _growth(found: Progress) -> str:
    trials = len(found.ids)
    order = "" if found.timed else " When trials ended is not on record: they stand by number."
    last = found.last_growth
    if last == trials:
        return f"The front was still growing with the last of {trials} trials.{order}"
    return (
        f"The front last grew with trial {last} ({found.ids[last - 1]}) of {trials}; it has not in "
        f"the {trials - last} after it.{order}"
    )


def _parallel(report: Report, facts: SearchFacts) -> Html:
    finished = drawable(report.candidates, report.objectives)
    order = ranked(facts.importances)
    every = shown_parameters(finished, order, limit=10**6)
    chosen = shown_parameters(finished, order, SHOWN)
    svg = parallel_coordinates(finished, report.front, report.objectives, chosen)
    by = "most important" if order else "most often asked"
    which = (
        f"the {len(chosen)} {by} of {len(every)} parameters"
        if len(every) > len(chosen)
        else (f"all {len(chosen)} parameters that vary")
    )
    rest = (
        "; those that only some were asked for stand to the right"
        if any(not item.common for item in chosen)
        else ""
    )
    return picture(
        svg,
        "Parallel coordinates",
        f"Each line is one of {len(finished)} finished candidates: its choices, then quality and "
        f"costs. The darker, the better in quality; the front is thick. Shown are {which}{rest}. "
        "Numbers that span a factor of 8 and all costs are on logarithmic scales; lines are "
        "shifted a little so that equal choices do not hide each other.",
        "wide",
    )


def _bars(found: tuple[Importance, ...]) -> str:
    count = len(ranked(found))
    shown = f"The {SHOWN} most important of {count} parameters" if count > SHOWN else "Importance"
    targets = " and ".join(item.target for item in found if item.shares)
    return f"{shown} for {targets}; lines are the spread over {REPEATS} repetitions."


def _importance(found: tuple[Importance, ...]) -> Html:
    told = [item for item in found if item.shares]
    said = [
        f"{item.target}: {item.trials} trials; on held-out ones the forest predicts "
        f"{(item.explained or 0) * 100:.0f} % of the variance."
        if item.shares
        else f"{item.target}: no importance ({item.missing})."
        for item in found
    ]
    text = joined([element("h3", "What mattered"), items(said)])
    if not told:
        return text
    rows = []
    for name in ranked(found):
        cells: list[Html | str] = [name]
        for item in told:
            share = item.shares.get(name)
            cells += (
                [joined([f"{share.value * 100:.1f} % ",
                         element("small", f"±{share.spread * 100:.1f}")]),
                 f"{share.asked} of {item.trials}"] if share else ["-", "-"]
            )  # fmt: skip
        rows.append(row(cells))
    heads = ["Parameter", *(head for item in told for head in (item.target, "asked for in"))]
    return joined(
        [text, folded("All parameters, and the method", paragraph(_METHOD), table(heads, rows))]
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
