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


@dataclass(frozen=True)
class Elsewhere:
    """Times on a device that is not at hand.

    Attributes:
        device: As the user calls it.
        own_ms: Of the model's own float32 file, measured there.
        ms: Of files by id: the model's own measured, the others estimated.
        own: Ids of those that were measured.
    """

    device: str
    own_ms: float
    ms: Mapping[str, float]
    own: frozenset[str]

    def told(self, file: str) -> str:
        """Returns the time of a file, and where it comes from."""
        how = "measured" if file in self.own else "estimated"
        return f"{cost_text('latency', self.ms[file])} on {self.device}, {how}"

    def text(self, file: str, limit: float, relative: bool) -> str:
        """Returns the time of a file beside what was asked for."""
        if relative:
            share = self.ms[file] / self.own_ms
            own = f"{share:.3g}x of the model's own ({self.told(file)})"
            return f"latency: {own}, asked for at most {limit:.3g}x"
        asked = cost_text("latency", limit)
        return f"latency: {self.told(file)}, asked for at most {asked}"


@dataclass(frozen=True)
class Measured:
    """What was measured on files, all of one session.

    Attributes:
        times: Of all files, against the model's own float32 file.
        memory: Bytes of LiteRT's arenas, by file, where they can be read off.
        relative: Whether a time is asked for as a share of that file's: then paired ratios
            decide, which the clock of the processor does not move.
        elsewhere: Times on the device that a latency is of; None: it is of this machine.
    """

    times: Mapping[str, Latency]
    memory: Mapping[str, int]
    relative: bool
    elsewhere: Elsewhere | None = None

    def costs(self, artifact: Artifact) -> dict[str, float]:
        """Returns what a file costs: milliseconds (or the share of them), bytes, counts."""
        found = {
            "size": float(artifact.size_bytes),
            "macs": float(artifact.macs),
            "params": float(artifact.params),
        }
        if artifact.id in self.memory:
            found["peak_memory"] = float(self.memory[artifact.id])
        if self.elsewhere is not None:
            if artifact.id in self.elsewhere.ms:
                ms = self.elsewhere.ms[artifact.id]
                found["latency"] = ms / self.elsewhere.own_ms if self.relative else ms
        elif artifact.id in self.times:
            time = self.times[artifact.id]
            found["latency"] = 1.0 / time.ratio if self.relative else time.median_ms
        return found

    def text(self, name: str, artifact: Artifact, limit: float) -> str:
        """Returns a cost beside what was asked for."""
        value = self.costs(artifact)[name]
        if name == "latency" and self.elsewhere is not None:
            return self.elsewhere.text(artifact.id, limit, self.relative)
        if name == "latency" and self.relative:
            ms = cost_text(name, self.times[artifact.id].median_ms)
            own, asked = f"{value:.3g}x of the model's own ({ms})", f"{limit:.3g}x"
        else:
            own, asked = cost_text(name, value), cost_text(name, limit)
        return f"{TITLES[name]}: {own}, asked for at most {asked}"


def chosen_file(
    files: Sequence[Artifact], measured: Measured, limits: Mapping[str, float], bar: Bar
) -> Judgement:
    """Chooses by validation quality and measured costs.

    With goals of cost: the best file that meets them; where none does the nearest. Without: the
    fastest that is good enough, for a front within a point of the model.

    Args:
        files: Of the model and of all nets.
        measured: On them.
        limits: What costs may come to; of a time that is asked for as a share, the share.
        bar: How good a file must stay.
    """
    metric = bar.metric
    costs = {item.id: measured.costs(item) for item in files}

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
    lines = [measured.text(name, chosen, limit) for name, limit in limits.items()]
    val = chosen.val[metric]
    gained = -bar.drop(val) + 0.0  # no minus before a zero
    told = f"validation {metric}: {bar.dense:.4f} -> {val:.4f} ({gained:+.2f} points)"
    if bar.floor is not None:
        told += f", asked for at least {bar.floor:.4f}"
    met = (not limits or within(chosen)) and bar.holds(val)
    return Judgement(chosen, met, (*lines, told), used(chosen) if limits else 1.0)
