"""Makes smaller nets: chosen, put right by their files, repaired, trained, judged."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.atomic_files import write_json
from compress.core.errors import FeasibleError, RunFailed
from compress.exporting.side_by_side import litert_files
from compress.measure.counting import count_macs
from compress.measure.latency_table.cache import keep_table, kept_table
from compress.model.copies import float32_model
from compress.model.io import load_model, save_model
from compress.pipeline.finetuning import Tuner
from compress.plan.shrink import ShrinkPlan
from compress.prune.channels import prune_channels
from compress.prune.channels.coupling.blocks import blocks_of
from compress.prune.channels.criteria import Context, named
from compress.prune.channels.selection.allowed import allowed_for, ladder
from compress.prune.channels.selection.chooser import Chooser
from compress.prune.channels.selection.chosen import Selection
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.selection.measured_times import measured_times
from compress.prune.channels.selection.solver import TOLERANCE
from compress.prune.channels.surgery import sliced_model
from compress.run.directory import LOG
from compress.shrinking.estimates import Choice, Estimates
from compress.shrinking.goals import cost_text
from compress.shrinking.judging import judged
from compress.shrinking.meter import Meter
from compress.shrinking.net import REPAIRED, TRAINED, Net
from compress.shrinking.sizes import file_sizes_of
from compress.train.last import LastEpoch

if TYPE_CHECKING:
    import keras

    from compress.measure import Analysis
    from compress.pipeline.opening import Opened
    from compress.prune.channels.coupling.groups import Coupling
    from compress.shrinking.folder import ShrinkFolder

NEAR = 0.03
"""A net whose file comes this close below its goal is near enough."""
AIM = 0.99
"""Share of a goal that a choice aims at once its estimate is known to be right: times spread."""
ROUNDS = 5
CALL_ERROR, CALL_SECONDS = 0.05, 60.0
"""Timing of calls ends at this relative error, or after so long: files put estimates right."""


@dataclass(eq=False)
class Workshop:
    """Makes nets of one model, each step once: what is on disk is not done again.

    Attributes:
        opened: Model, data, plan.
        folder: Where nets and files go.
        meter: Measures files.
    """

    opened: Opened
    folder: ShrinkFolder
    meter: Meter
    _estimates: dict[str, Estimates] = field(default_factory=dict)
    _chooser: Chooser | None = None

    @property
    def plan(self) -> ShrinkPlan:
        """What is to be done."""
        plan = self.opened.work.plan
        assert isinstance(plan, ShrinkPlan)
        return plan

    @property
    def model(self) -> keras.Model:
        """The model that is shrunk."""
        return self.opened.dense.model

    @cached_property
    def coupling(self) -> Coupling:
        """Of the model."""
        return self.opened.dense.subject.coupling

    @cached_property
    def counted(self) -> Analysis:
        """The model's own MACs and parameters."""
        return count_macs(self.model, self.meter.input_shape)

    @cached_property
    def tuner(self) -> Tuner:
        """Trains nets; the teachers' outputs are kept for all of them."""
        last = [LastEpoch()] if self.opened.val_learnt else []
        return Tuner(
            self.opened.work, self.opened.dense.teachers.each, self.folder.path / "unfinished", last
        )

    def estimates(self, format: str) -> Estimates:
        """Returns what choices cost in files of a format; times and sizes are measured once."""
        if format not in self._estimates:
            costs = CostModel.of(self.coupling)
            found: dict[str, Any] = {"params": costs.params}
            if costs.has_macs:
                found["macs"] = costs.macs
            options, seed = self.plan.channels, self.plan.seed
            allowed = allowed_for(self.coupling, options, ladder(options)[-1])
            goals = self.plan.goal
            if goals.size is not None:
                found["size"] = file_sizes_of(
                    self.coupling, allowed, litert_files, format,
                    self.meter.dense.sizes[format], seed,
                )  # fmt: skip
            if goals.latency is not None or not goals.costs:
                self.opened.work.progress(f"timing layers, {format}", 0.0)
                threads = self.plan.latency.threads
                times, table = measured_times(
                    self.coupling,
                    allowed,
                    litert_files,
                    blocks_of(self.coupling) if options.blocks else (),
                    format=format,
                    threads=threads,
                    known=kept_table("litert", format, threads),
                    error=CALL_ERROR,
                    budget=CALL_SECONDS,
                    seed=seed,
                    on_progress=self.opened.work.progress,
                )
                keep_table(table)
                for text in times.estimated:
                    LOG.info("note: time of %s", text)
                found["latency"] = times
            self._estimates[format] = Estimates(found)
        return self._estimates[format]

    def chooser(self, goals: Mapping[str, float], estimates: Estimates) -> Chooser:
        """Returns what chooses; choices near the first one that is asked for are judged whole."""
        if self._chooser is None:
            work, options = self.opened.work, self.plan.channels
            context = Context(
                self.coupling, data=work.data, seed=self.plan.seed, aggregate=options.aggregate
            )
            criterion = named(options.criterion)[1]
            first = Chooser.measured(self.coupling, options, criterion, context, work.progress)
            self._chooser = first.refined(1.0, estimates.share_of(goals), work.progress)
        return self._chooser

    def net(
        self, name: str, format: str, goals: Mapping[str, float], formats: tuple[str, ...]
    ) -> Net:
        """Returns a net that was chosen for a format and goals, repaired and judged.

        Args:
            name: In names of files.
            format: Of the file that must meet the goals.
            goals: What its file must come to, by cost.
            formats: Of the files that are made of it.

        Raises:
            FeasibleError: The goals are below what is feasible in this format.
        """
        path = self.folder.net_file(name)
        if path.exists():
            return next(item for item in self.folder.read_nets() if item.name == name)
        began = time.perf_counter()
        whole = self._as_it_is(name, format, goals, formats)
        if whole is not None:
            self._write(whole)
            return whole
        estimates = self.estimates(format)
        selection, estimates, costs, rounds = self._chosen(format, goals, estimates)
        own = estimates.share_of(goals)
        share = min(1.0, selection.choice.cost / float(own(self.coupling.whole, None)))
        work = self.opened.work
        work.progress(f"repairing {name}", 0.0)
        found = prune_channels(
            self.model,
            self.plan.channels,
            cost=own,
            share=share,
            data=work.data,
            seed=self.plan.seed,
            repair=self.plan.repair,
            input_shape=self.meter.input_shape,
            coupling=self.coupling,
            selection=selection,
            on_progress=work.progress,
        )
        save_model(float32_model(found.model), self._file(name, REPAIRED))
        val = self._judged(found.model, name, formats)
        counted = count_macs(found.model, self.meter.input_shape)
        net = Net(
            name, format, formats, dict(goals), costs, counted.macs, counted.params,
            counted.macs / max(1, self.counted.macs), False,
            tuple(block.index for block in selection.dropped), rounds, REPAIRED, val, val,
            seconds=time.perf_counter() - began, notes=tuple(found.report.notes),
            channels=found.report.to_json(),
        )  # fmt: skip
        self._write(net)
        return net

    def trained(self, net: Net, epochs: int | None = None) -> Net:
        """Fine-tunes a net with the plan's teachers, and judges its files.

        Args:
            net: Repaired.
            epochs: Default: the plan's.
        """
        import keras

        if net.stage == TRAINED:
            return net
        began = time.perf_counter()
        keras.utils.set_random_seed(self.plan.seed)
        student = self.model_of(net)
        tuner = self.tuner
        if epochs is not None:
            finetune = replace(self.plan.finetune, epochs=epochs)
            work = replace(self.opened.work, plan=replace(self.plan, finetune=finetune))
            tuner = replace(tuner, work=work)
        training, _, notes = tuner.tune(student, f"fine-tuning {net.name}", [])
        save_model(float32_model(student), self._file(net.name, TRAINED))
        net = replace(
            net,
            stage=TRAINED,
            val=self._judged(student, net.name, net.formats),
            epochs=len(training.history),
            seconds=net.seconds + time.perf_counter() - began,
            notes=(*net.notes, *notes, *training.notes),
        )
        self._write(net)
        return net

    def model_of(self, net: Net) -> keras.Model:
        """Returns a net's model at its last stage."""
        return load_model(
            self._file(net.name, net.stage) if not net.whole else self.opened.given.file
        )

    def _judged(
        self, model: keras.Model, name: str, formats: tuple[str, ...]
    ) -> dict[str, dict[str, float]]:
        """Returns the validation quality of a net's files, by format and name.

        Raises:
            RunFailed: None could be made.
        """
        options = replace(self.plan.export, formats=formats)
        found = judged(model, name, self.opened.work, self.folder, options)
        if not found.val:
            reasons = "; ".join(f"{kind}: {why}" for kind, why in found.refused.items())
            raise RunFailed(f"No file could be made of '{name}': {reasons}")
        return found.val

    def _as_it_is(
        self, name: str, format: str, goals: Mapping[str, float], formats: tuple[str, ...]
    ) -> Net | None:
        """Returns the net of which nothing leaves, where the format alone meets the goals."""
        costs = self.meter.costs(self.model, format, goals.keys())
        if any(costs[key] > goal for key, goal in goals.items()):
            return None
        return self._kept(name, format, goals, costs, formats)

    def whole(self, name: str, formats: tuple[str, ...]) -> Net:
        """Returns the model itself as a net."""
        net = self._kept(name, formats[0], {}, {}, formats)
        self._write(net)
        return net

    def _kept(
        self,
        name: str,
        format: str,
        goals: Mapping[str, float],
        costs: dict[str, float],
        formats: tuple[str, ...],
    ) -> Net:
        val = {key: dict(item) for key, item in self.meter.dense.val.items() if key in formats}
        return Net(
            name, format, formats, dict(goals), costs, self.counted.macs, self.counted.params, 1.0,
            True, (), 0, REPAIRED, val, val,
        )  # fmt: skip

    def _chosen(
        self, format: str, goals: Mapping[str, float], estimates: Estimates
    ) -> tuple[Selection, Estimates, dict[str, float], int]:
        """Chooses widths and blocks, measures their file, and corrects until it is near the goal.

        Returns:
            The choice, the estimates that led to it, what its file costs, and how many files were
            measured.

        Raises:
            FeasibleError: No choice comes to the goal.
        """
        chooser = self.chooser(goals, estimates)
        best: tuple[float, Selection, Estimates, dict[str, float]] | None = None
        least: dict[str, float] | None = None
        aim, count = 1.0, 0
        while count < ROUNDS:
            count += 1
            self.opened.work.progress(f"choosing for {format}, file {count}", count / ROUNDS)
            selection = chooser.choose(aim, estimates.share_of(goals))
            small = sliced_model(self.coupling, selection.mask, selection.dropped)
            costs = self.meter.costs(small, format, goals.keys())
            used = max(costs[key] / goal for key, goal in goals.items())
            if used <= 1.0 and (best is None or used > best[0]):
                best = used, selection, estimates, costs
            if 1 - NEAR <= used <= 1.0:
                break
            if used > 1.0:
                least = costs
            choice = Choice.of(self.coupling, selection.mask, selection.dropped)
            right = estimates.put_right(choice, costs)
            if used > 1.0 and selection.choice.cost > aim * (1 + TOLERANCE):
                break  # nothing thinner is allowed
            estimates, aim = right, AIM
        if best is None:
            assert least is not None
            raise self._infeasible(format, goals, least)
        return (*best[1:], count)

    def _infeasible(
        self, format: str, goals: Mapping[str, float], costs: Mapping[str, float]
    ) -> FeasibleError:
        missed = [key for key, goal in goals.items() if costs[key] > goal]
        each = ", ".join(
            f"{cost_text(key, costs[key])} (asked for {cost_text(key, goals[key])})"
            for key in missed
        )
        options = self.plan.channels
        return FeasibleError(
            f"A {format} file must be able to meet the goal. Received: at least {each}, where "
            f"every layer is thinned as far as min_kept={options.min_kept:g} and multiples of "
            f"{ladder(options)[-1]} let it. Ask for more, lower min_kept or round_to, or name "
            "other formats."
        )

    def _file(self, name: str, stage: str) -> Path:
        return self.folder.model_file(name if stage == TRAINED else f"{name}-repaired")

    def _write(self, net: Net) -> None:
        write_json(self.folder.net_file(net.name), net.to_json())
        shown = ", ".join(f"{key} {value:.4g}" for key, value in net.costs.items())
        LOG.info("net %s: %s; %s", net.name, net.stage, shown)
