"""What stays for a goal: chosen by estimates, which are put right by the file of the choice."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.errors import MissingDependency, RunFailed
from compress.measure.counting import count_macs
from compress.measure.footprint import arena_bytes
from compress.measure.latency import Entry, time_entries
from compress.plan.output import ONNX_FORMATS
from compress.prune.channels.criteria import Context, named
from compress.prune.channels.selection.allowed import TOLERANCE, Selection
from compress.prune.channels.selection.chooser import Chooser
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.selection.measured_times import TimedCalls, timed_here
from compress.prune.channels.selection.times import TimeModel
from compress.prune.channels.surgery import sliced_model
from compress.run.directory import LOG
from compress.shrinking.estimates import (
    Choice,
    Estimates,
    choices_of,
    file_sizes_of,
    time_model,
    working_sets,
)
from compress.shrinking.goals import FILES, out_of_reach
from compress.shrinking.net import DenseFiles, convert_for, file_for
from compress.shrinking.variations import RECIPE, Variation

if TYPE_CHECKING:
    import keras

    from compress.shrinking.case import Case

NEAR = 0.03
"""A net whose file comes this close below its goal is near enough."""
AIM = 0.99
"""Share of a goal that a choice aims at once its estimate is known to be right: times spread."""
ROUNDS = 5
MORE_ROUNDS = 7
"""As long as no file has met the goal."""
OTHERS = ("float16", "dynamic", "int8")
"""Formats that are tried where one does not come to a size: those that are made in a second,"""
OTHERS_ONNX = ("onnx_int8",)
"""and those among ONNX files."""
PRECISION = 0.01
"""Relative half-width at which the timing of one file ends."""
SECONDS = 15.0
ONNX_SPREAD = 0.005
"""By which ONNX files of one net differ in size: their names hold counters."""


def _aim(missed: int) -> float:
    """Return the share of a goal that is aimed at after so many files above it.

    Estimates that are put right by a factor come near too slowly where much of a cost does not
    leave with the widths: each further miss asks for less.
    """
    return AIM * (1 - NEAR) ** max(0, missed - 1)


@dataclass(frozen=True)
class Fitted:
    """A choice whose file meets the goals.

    Attributes:
        selection: What stays.
        estimates: That led to it.
        costs: Of its file, measured and counted.
        used: The largest share of a goal that it uses.
        rounds: How many files were measured.
    """

    selection: Selection
    estimates: Estimates
    costs: dict[str, float]
    used: float
    rounds: int


@dataclass(eq=False)
class Fitter:
    """Chooses for any goal and format; what is measured for that is measured once.

    Attributes:
        case: The model.
        dense: Its own files: the file of a choice is timed against them.
        folder: In which these lie.
    """

    case: Case
    dense: DenseFiles
    folder: Path
    _estimates: dict[str, Estimates] = field(default_factory=dict)
    _choosers: dict[str, Chooser] = field(default_factory=dict)

    def estimates(self, format: str) -> Estimates:
        """Return what choices cost in files of a format; times and sizes are measured once."""
        if format not in self._estimates:
            case, plan, coupling = self.case, self.case.plan, self.case.coupling
            costs = CostModel.of(coupling)
            found: dict[str, Any] = {"params": costs.params}
            if costs.has_macs:
                found["macs"] = costs.macs
            goals = plan.goal
            allowed, blocks = choices_of(case)
            if goals.size is not None:
                found["size"] = file_sizes_of(
                    coupling, allowed, blocks, convert_for(format), format, self.dense, plan.seed
                )  # fmt: skip
            if goals.peak_memory is not None:
                found["peak_memory"] = working_sets(coupling, allowed, blocks)
            if case.device is not None:
                found["latency"] = time_model(case.device, case, format)
            elif goals.latency is not None or not goals.costs:
                case.work.progress(f"timing layers, {format}", 0.0)
                calls = TimedCalls(coupling, allowed, blocks)
                times = timed_here(
                    calls,
                    coupling,
                    allowed,
                    convert_for(format),
                    runtime=plan.runtime,
                    format=format,
                    threads=plan.latency.threads,
                    seed=plan.seed,
                    on_progress=case.work.progress,
                ).times(calls)
                for text in times.estimated:
                    LOG.info("note: time of %s", text)
                found["latency"] = times
            self._estimates[format] = Estimates(found)
        return self._estimates[format]

    def device_ms(self, selection: Selection, formats: Sequence[str]) -> dict[str, float]:
        """Return what a choice takes on the device of a table of times, by format; {}: none."""
        if self.case.device is None:
            return {}
        choice = self._choice(selection)
        return {name: self.estimates(name).at(choice)["latency"] for name in formats}

    def _choice(self, selection: Selection) -> Choice:
        return Choice.of(self.case.coupling, selection.mask, selection.dropped)

    def layer_ms(self, selection: Selection, format: str) -> dict[str, dict[str, float]]:
        """Return the milliseconds of each layer before and after; {} where none were timed."""
        times = self.estimates(format).of.get("latency")
        if not isinstance(times, TimeModel):
            return {}
        whole = np.array([len(group.units) for group in self.case.coupling.groups])
        each = {"before": Choice(whole, None), "after": self._choice(selection)}
        return {
            side: {name: float(ms) for name, ms in times.by_layer(item.kept, item.present).items()}
            for side, item in each.items()
        }

    def chooser(
        self, goals: Mapping[str, float], estimates: Estimates, variation: Variation
    ) -> Chooser:
        """Return what chooses; choices near the first one that is asked for are judged whole.

        A variation by another criterion takes its choice as it comes: its net tells its worth.
        """
        name = variation.criterion or self.case.plan.channels.ranking
        if name not in self._choosers:
            case, options = self.case, self.case.plan.channels
            context = Context(
                case.coupling, data=case.work.data, seed=case.plan.seed, aggregate=options.aggregate
            )
            first = Chooser.measured(
                case.coupling, options, named(name)[1], context, case.work.progress
            )
            if name == options.ranking:
                first = first.refined(1.0, estimates.share_of(goals), case.work.progress)
            self._choosers[name] = first
        if variation.temperature == 1.0:
            return self._choosers[name]
        return self._choosers[name].tempered(variation.temperature)

    def fitted(
        self, format: str, goals: Mapping[str, float], variation: Variation = RECIPE
    ) -> Fitted:
        """Choose widths and blocks, measures their file, and corrects until it is near the goal.

        Args:
            format: Of the file that must meet the goals.
            goals: What it must come to, by cost.
            variation: How the choice departs from the fixed recipe.

        Raises:
            OutOfReach: No choice comes to the goals.
            RunFailed: A thinner net could not be converted, or no call could be timed.
        """
        estimates = self.estimates(format)
        chooser = self.chooser(goals, estimates, variation)
        # of a device that is not at hand no file can be asked
        elsewhere = goals.keys() & (set() if self.case.device is None else {"latency"})
        best: Fitted | None = None
        least: dict[str, float] = {}
        measured: set[tuple[bytes, tuple[int, ...]]] = set()
        aim, missed, thinnest, nearest = 1.0, 0, False, np.inf
        for count in range(1, ROUNDS + MORE_ROUNDS + 1):
            if count > ROUNDS and best is not None:
                break
            self.case.work.progress(
                f"choosing for {format}, file {count}", min(1.0, count / ROUNDS)
            )
            share = estimates.share_of(goals)
            selection = chooser.choose(aim, share)
            # the nearest to the aim may lie above it where thinner ones are further below it
            thinnest = (
                selection.choice.cost > aim * (1 + TOLERANCE)
                and chooser.choose(aim / 2, share).key == selection.key
            )
            if selection.key in measured:
                if best is not None or thinnest:
                    break  # widths come in steps: no other choice is nearer
                missed += 1
                aim = _aim(missed)
                continue
            measured.add(selection.key)
            small = sliced_model(self.case.coupling, selection.mask, selection.dropped)
            choice = self._choice(selection)
            costs = self._file_costs(small, format, goals.keys() - elsewhere)
            costs |= {key: estimates.at(choice)[key] for key in elsewhere}
            used = max(costs[key] / goal for key, goal in goals.items())
            if used <= 1.0 and (best is None or used > best.used):
                best = Fitted(selection, estimates, costs, used, count)
            if 1 - NEAR <= used <= 1.0:
                break
            if used > 1.0:
                if used < nearest:
                    least, nearest, net = costs, used, small
                if thinnest:
                    break
                missed += 1
            estimates, aim = estimates.put_right(choice, costs), _aim(missed)
        if best is None:
            tried = None if thinnest else len(measured)
            raise out_of_reach(
                format,
                goals,
                least,
                self.case.plan.channels,
                tried,
                self._in_other_formats(net, format, goals, least),
            )
        return replace(best, rounds=len(measured))

    def _in_other_formats(
        self, net: Any, format: str, goals: Mapping[str, float], costs: Mapping[str, float]
    ) -> dict[str, dict[str, float]]:
        """Return what a net that misses the goals costs in files of other formats.

        Args:
            net: The nearest one.
            format: Of its file.
            goals: Which that missed.
            costs: Of its file.

        Returns:
            The missed costs by format; {} where a format makes no difference to one of them, or a
            time is among them, which would have to be measured.
        """
        missed = [key for key, goal in goals.items() if costs[key] > goal]
        if not set(missed) <= {"size", "peak_memory"}:
            return {}
        found = {}
        for other in OTHERS_ONNX if format in ONNX_FORMATS else OTHERS:
            if other != format:
                try:
                    found[other] = self._file_costs(net, other, missed)
                except (RunFailed, MissingDependency) as error:
                    LOG.info("note: no %s file of the nearest net: %s", other, error)
        return found

    def _file_costs(
        self, model: keras.Model, format: str, names: Collection[str]
    ) -> dict[str, float]:
        """Return costs of a net: counted, and measured on a file of a format.

        Args:
            model: Of any weights: they do not matter to costs.
            format: Of the file.
            names: Of "latency" (ms, by its ratio to the model's own file), "size" and
                "peak_memory" (bytes), "macs" and "params".

        Raises:
            RunFailed: The net could not be converted.
        """
        found: dict[str, float] = {}
        if {"macs", "params"} & set(names):
            counted = count_macs(model, self.case.input_shape)
            found = {"macs": float(counted.macs), "params": float(counted.params)}
        if FILES & set(names):
            with tempfile.TemporaryDirectory() as folder:
                file = file_for(model, format, Path(folder), shipped="size" in names)
                spread = ONNX_SPREAD if format in ONNX_FORMATS else 0.0
                found["size"] = (1 + spread) * file.stat().st_size
                if "peak_memory" in names:
                    found["peak_memory"] = float(arena_bytes(file))
                if "latency" in names:
                    found["latency"] = self.dense.ms / self._ratio(file)
        return {name: found[name] for name in names}

    def _ratio(self, file: Path) -> float:
        """Return the time of the model's own float32 file over that of a file."""
        plan = self.case.plan
        found = time_entries(
            {
                "dense": Entry(self.folder / self.dense.file, plan.runtime, plan.latency.threads),
                "small": Entry(file, plan.runtime, plan.latency.threads),
            },
            precision=PRECISION,
            budget=min(SECONDS, plan.latency.budget),
            seed=plan.seed,
        )
        return found["small"].ratio
