"""Which of the files that were made is the one to ship, and whether it meets the goal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compress.measure.latency_record import Latency
from compress.run.compressed import Artifact
from compress.shrinking.goals import TITLES, Bar, cost_text

SLACK = 0.03
"""A goal of time that is passed by less than this is met: times spread by as much."""
WITHIN = 1.0
"""Points that the file of a front may lose that is shipped: the fastest of them."""


@dataclass(frozen=True)
class Judgement:
    """The file to ship.

    Attributes:
        chosen: The file.
        met: Whether costs and quality are what was asked for.
        lines: What was asked for and what came of it, one a goal.
        used: The largest share of a goal of cost that the file uses; 1 where there is none.
    """

    chosen: Artifact
    met: bool
    lines: tuple[str, ...]
    used: float = 1.0


def costs_of(
    artifact: Artifact,
    times: Mapping[str, Latency],
    dense_ms: float,
    memory: Mapping[str, int] | None = None,
) -> dict[str, float]:
    """Returns what a file costs: measured time and bytes, counted MACs and parameters.

    Args:
        artifact: The file.
        times: Of all files, against the model's own float32 file.
        dense_ms: What that takes; times are told as its, by their paired ratios.
        memory: Bytes of arenas, by file.
    """
    found = {
        "size": float(artifact.size_bytes),
        "macs": float(artifact.macs),
        "params": float(artifact.params),
    }
    if memory and artifact.id in memory:
        found["peak_memory"] = float(memory[artifact.id])
    if artifact.id in times:
        found["latency"] = dense_ms / times[artifact.id].ratio
    return found


def chosen_file(
    files: Sequence[Artifact],
    times: Mapping[str, Latency],
    dense_ms: float,
    limits: Mapping[str, float],
    bar: Bar,
    memory: Mapping[str, int] | None = None,
) -> Judgement:
    """Chooses by validation quality and measured costs.

    With goals of cost: the best file that meets them; where none does the nearest. Without: the
    fastest that is good enough, for a front within a point of the model.

    Args:
        files: Of the model and of all nets.
        times: See `costs_of`.
        dense_ms: See `costs_of`.
        limits: What costs may come to.
        bar: How good a file must stay.
        memory: See `costs_of`.
    """
    metric = bar.metric
    costs = {item.id: costs_of(item, times, dense_ms, memory) for item in files}

    def used(item: Artifact) -> float:
        own = costs[item.id]
        return max(own.get(name, float("inf")) / limit for name, limit in limits.items())

    def within(item: Artifact) -> bool:
        own = costs[item.id]
        return all(
            own.get(name, float("inf")) <= limit * (1 + (SLACK if name == "latency" else 0.0))
            for name, limit in limits.items()
        )

    def speed(item: Artifact) -> float:
        return costs[item.id].get("latency", float("inf"))

    if limits:
        fitting = [item for item in files if within(item)]
        if fitting:
            chosen = max(fitting, key=lambda item: (item.val[metric], -used(item)))
        else:
            chosen = min(files, key=used)
    else:
        floor = bar.floor if bar.floor is not None else bar.dense - WITHIN * bar.point_of(metric)
        good = [item for item in files if item.val[metric] >= floor - 1e-9]
        chosen = min(good, key=speed) if good else max(files, key=lambda item: item.val[metric])
    lines = [
        f"{TITLES[name]}: {cost_text(name, costs[chosen.id][name])}, asked for at most "
        f"{cost_text(name, limit)}"
        for name, limit in limits.items()
    ]
    drop = bar.drop(chosen.val[metric])
    told = f"validation {metric}: {bar.dense:.4f} -> {chosen.val[metric]:.4f} ({-drop:+.2f} points)"
    if bar.floor is not None:
        told += f", asked for at least {bar.floor:.4f}"
    met = (not limits or within(chosen)) and bar.holds(chosen.val[metric])
    return Judgement(chosen, met, (*lines, told), used(chosen) if limits else 1.0)
