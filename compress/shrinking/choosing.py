"""Which of the files that were made is the one to ship, and whether it meets the goals of cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compress.core.statistics import Floats
from compress.data.tasks import in_units
from compress.measure import formats
from compress.measure.latency_record import Latency
from compress.measure.verdict import (
    MET,
    MISSED,
    WITHIN_NOISE,
    FileCandidate,
    select_file,
    worst_state,
)
from compress.run.compressed import Artifact
from compress.shrinking.goals import TITLES, Bar, cost_text

SLACK = 0.03
"""By which a latency may exceed a target that is a share of the original's: ratios spread by as
much. A target in milliseconds has none."""


@dataclass(frozen=True)
class Judgement:
    """The file to ship.

    Attributes:
        chosen: The file.
        state: Whether its costs are what was asked for, see `compress.measure.verdict`.
        lines: What was asked for and what came of it, one a goal of cost.
        used: The largest share of a goal of cost that the file uses; 1 where there is none.
    """

    chosen: Artifact
    state: str
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
        error: Mean relative error of estimates on whole models that the table had not seen; None:
            it was compared with none.
    """

    device: str
    own_ms: float
    ms: Mapping[str, float]
    own: frozenset[str]
    error: float | None = None

    def describe_time(self, file: str) -> str:
        """Return the time of a file, and where it comes from."""
        how = "estimated, not compared with whole models"
        if file in self.own:
            how = "measured"
        elif self.error is not None:
            how = f"estimated, {100 * self.error:.1f} % off on held-out models"
        return f"{cost_text('latency', self.ms[file])} on {self.device} ({how})"

    def worst_ms(self, file: str) -> float:
        """Return what a file may take there: an estimate and its error; infinity: not known."""
        if file in self.own:
            return self.ms[file]
        return math.inf if self.error is None else self.ms[file] * (1 + self.error)


@dataclass(frozen=True)
class Measured:
    """What was measured on files, all of one session.

    Attributes:
        times: Of all files, against the model's own float32 file.
        memory: Bytes of LiteRT's arenas, by file, where they can be read off.
        relative: Whether a time is asked for as a share of that file's: then paired ratios
            decide, which the clock of the processor does not move.
        elsewhere: Times on the device that a latency is of; None: it is of this machine.
        values: The validation metric of files by example, those that are known.
    """

    times: Mapping[str, Latency]
    memory: Mapping[str, int]
    relative: bool
    elsewhere: Elsewhere | None = None
    values: Mapping[str, Floats] = field(default_factory=dict)

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

    def cost_state(self, name: str, artifact: Artifact, limit: float) -> str:
        """Return whether a cost is "met", "met within noise" or "missed".

        Args:
            name: Of the cost.
            artifact: The file.
            limit: What was asked for: of a time a share or milliseconds, bytes, counts.
        """
        value = self.costs(artifact).get(name, math.inf)
        if name != "latency":
            return MET if value <= limit else MISSED
        if self.relative:
            return MET if value <= limit * (1 + SLACK) else MISSED
        if value > limit:
            return MISSED
        where = self.elsewhere
        worst = self.times[artifact.id].high_ms if where is None else where.worst_ms(artifact.id)
        return MET if worst <= limit else WITHIN_NOISE

    def cost_line(self, name: str, artifact: Artifact, limit: float) -> str:
        """Return a cost beside what was asked for, and whether that was met."""
        value = self.costs(artifact).get(name)
        if value is None:
            return f"{TITLES[name]}: not known, {MISSED}"
        asked = cost_text(name, limit)
        shown = cost_text(name, value)
        if name == "latency":
            if self.elsewhere is not None:
                shown = self.elsewhere.describe_time(artifact.id)
            else:
                shown = formats.latency(self.times[artifact.id])
            if self.relative:
                shown, asked = f"{value:.3g}x of the original's ({shown})", f"{limit:.3g}x"
        state = self.cost_state(name, artifact, limit)
        return f"{TITLES[name]}: {shown}, limit {asked}: {state}"


def choose_file(
    files: Sequence[Artifact],
    original: Artifact,
    measured: Measured,
    limits: Mapping[str, float],
    bar: Bar,
) -> Judgement:
    """Choose the file to ship by validation data and measured costs.

    Among the files that meet the goals of cost (where none does, the one that comes nearest) the
    rule of `compress.measure.verdict.select_file` decides.

    Args:
        files: Of the model and of all nets.
        original: The file that drops are measured from.
        measured: On them.
        limits: What costs may come to; of a time that is asked for as a share, the share.
        bar: How good a file must stay.
    """
    metric = bar.metric
    order = tuple(dict.fromkeys((*limits, "latency", "size")))

    def candidate(item: Artifact) -> FileCandidate:
        costs = measured.costs(item)
        known = {name: costs.get(name, math.inf) for name in order}
        return FileCandidate(item.id, item.val[metric], known, measured.values.get(item.id))

    def used(item: Artifact) -> float:
        costs = measured.costs(item)
        return max(costs.get(name, math.inf) / limit for name, limit in limits.items())

    states = {
        item.id: worst_state(
            [measured.cost_state(name, item, limit) for name, limit in limits.items()]
        )
        for item in files
    }
    for wanted in (MET, WITHIN_NOISE):
        fitting = [item for item in files if states[item.id] == wanted]
        if fitting:
            break
    else:
        fitting = [min(files, key=used)]
    found = select_file(
        [candidate(item) for item in fitting],
        original=candidate(original),
        limit=bar.limit,
        unit=math.inf if in_units(metric) else 1.0,
    )
    (chosen,) = (item for item in fitting if item.id == found.id)
    lines = [measured.cost_line(name, chosen, limit) for name, limit in limits.items()]
    return Judgement(chosen, states[chosen.id], tuple(lines), used(chosen) if limits else 1.0)
