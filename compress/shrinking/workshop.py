"""Makes smaller nets: chosen, put right by their files, repaired, trained, judged.

Nets are trained by the process itself, or by others beside it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from compress.core.atomic_files import read_file, write_bytes, write_json
from compress.core.errors import ParetuneError, RunFailed, TrainingDiverged
from compress.core.statistics import Floats
from compress.measure.counting import count_macs
from compress.model.copies import float32_model
from compress.model.io import load_model, save_model
from compress.plan.shrink import ShrinkPlan
from compress.prune.channels import prune_channels
from compress.run.compressed import read_example_values
from compress.run.directory import LOG
from compress.run.logs import note_epoch
from compress.shrinking.case import Case
from compress.shrinking.files import Judged, judged
from compress.shrinking.fitting import Fitter
from compress.shrinking.goals import cost_text
from compress.shrinking.net import REPAIRED, TRAINED, DenseFiles, Net, ShrinkFolder, dense_files
from compress.shrinking.prune_and_train import Tuner
from compress.shrinking.variations import RECIPE, Variation

if TYPE_CHECKING:
    import keras

    from compress.measure import Analysis


def workshop_for(
    case: Case, folder: ShrinkFolder, trainers: Trainers | None = None, *, alone: bool = True
) -> Workshop:
    """Make and measures the model's own files, and returns what makes its nets.

    Args:
        case: The model.
        folder: Where nets and files go.
        trainers: Who trains nets; None: this process.
        alone: Whether no other process trains nets of the folder.

    Raises:
        RunFailed: There is no file without rounding.
    """
    dense = dense_files(case, folder)
    if (device := case.device) is not None:
        dense = replace(dense, times={name: device.own_ms(name) for name in dense.val})
    return Workshop(case, folder, dense, trainers, alone)


@dataclass(eq=False)
class Workshop:
    """Makes nets of one model, each step once: what is on disk is not done again.

    Attributes:
        case: Model, data, plan.
        folder: Where nets and files go.
        dense: The model's own files.
        trainers: Who trains nets; None: this process, one after another.
        alone: Whether no other process trains nets of the folder: the teachers' outputs are then
            kept there for all of them.
    """

    case: Case
    folder: ShrinkFolder
    dense: DenseFiles
    trainers: Trainers | None = None
    alone: bool = True

    @cached_property
    def fitter(self) -> Fitter:
        """Choose what stays for a goal."""
        return Fitter(self.case, self.dense, self.folder.path)

    @cached_property
    def counted(self) -> Analysis:
        """The model's own MACs and parameters."""
        return count_macs(self.case.model, self.case.input_shape)

    def net(
        self, name: str, format: str, goals: Mapping[str, float], formats: tuple[str, ...],
        variation: Variation = RECIPE,
    ) -> Net:  # fmt: skip
        """Return a net that was chosen for a format and goals, repaired and judged.

        Args:
            name: In names of files.
            format: Of the file that must meet the goals.
            goals: What its file must come to, by cost.
            formats: Of the files that are made of it.
            variation: How it departs from the fixed recipe.

        Raises:
            FeasibleError: The goals are below what is feasible in this format.
        """
        if (made := self.folder.read_net(name)) is not None:
            return made
        began = time.perf_counter()
        own = self.dense.costs(format, self.counted)
        if all(own[key] <= goal for key, goal in goals.items()):
            return self.whole(name, formats, format, goals)
        fitted = self.fitter.fitted(format, goals, variation)
        selection, cost = fitted.selection, fitted.estimates.share_of(goals)
        case, work, plan = self.case, self.case.work, self.case.plan
        share = min(1.0, selection.choice.cost / float(cost(case.coupling.whole, None)))
        work.progress(f"repairing {name}", 0.0)
        found = prune_channels(
            case.model,
            plan.channels,
            cost=cost,
            share=share,
            data=work.data,
            seed=plan.seed,
            repair=plan.repair,
            input_shape=case.input_shape,
            coupling=case.coupling,
            selection=selection,
            on_progress=work.progress,
        )
        save_model(float32_model(found.model), self._file(name, REPAIRED))
        files = self._judged(found.model, name, formats)
        counted = count_macs(found.model, case.input_shape)
        net = Net(
            name=name,
            format=format,
            formats=formats,
            goals=dict(goals),
            costs=fitted.costs,
            macs=counted.macs,
            params=counted.params,
            share=counted.macs / max(1, self.counted.macs),
            whole=False,
            dropped=tuple(block.index for block in selection.dropped),
            rounds=fitted.rounds,
            stage=REPAIRED,
            repaired=files.val,
            val=files.val,
            checks=files.checks,
            seconds=time.perf_counter() - began,
            notes=tuple(found.report.notes),
            channels=found.report.to_json(),
            device_ms=self.fitter.device_ms(selection, formats),
            variation={} if variation == RECIPE else variation.to_json(),
            layer_ms=self.fitter.layer_ms(selection, format),
        )
        return self._write(net)

    def repaired_again(self, net: Net, name: str) -> Net:
        """Return a net as repair left it, to be trained in another way.

        Args:
            net: At any stage.
            name: Of the new one, in names of files.
        """
        if (made := self.folder.read_net(name)) is not None:
            return made
        write_bytes(self._file(name, REPAIRED), read_file(self._file(net.name, REPAIRED)))
        again = replace(
            net, name=name, stage=REPAIRED, val=net.repaired, epochs=0, best_epoch=0, seconds=0.0
        )
        return self._write(again)

    @property
    def places(self) -> int:
        """How many nets are trained at the same time."""
        return 1 if self.trainers is None else self.trainers.places

    def all_trained(self, wanted: Sequence[tuple[Net, int]]) -> list[Net | ParetuneError]:
        """Fine-tune nets, beside each other where others do it; see `trained`.

        Args:
            wanted: Nets and epochs.

        Returns:
            For each the net, or why it could not be trained.
        """
        if self.trainers is None:
            found: list[Net | ParetuneError] = []
            for net, epochs in wanted:
                try:
                    found.append(self.trained(net, epochs))
                except (RunFailed, TrainingDiverged) as error:
                    found.append(error)
            return found
        errors = self.trainers.trained({net.name: epochs for net, epochs in wanted})
        return [errors.get(net.name) or self.folder.known_net(net.name) for net, _ in wanted]

    def trained(self, net: Net, epochs: int) -> Net:
        """Fine-tune a net with the plan's teachers, and judges its files.

        Args:
            net: Repaired.
            epochs: As far as the budget lets it.
        """
        import keras

        if net.stage == TRAINED:
            return net
        began = time.perf_counter()
        work, plan, folder = self.case.work, self.case.plan, self.folder
        keras.utils.set_random_seed(plan.seed)
        student = self.model_of(net)
        rate = Variation.from_json(net.variation).learning_rate * plan.finetune.learning_rate
        finetune = replace(plan.finetune, epochs=epochs, learning_rate=rate)
        tuner = Tuner(
            replace(work, plan=replace(plan, finetune=finetune)),
            self.case.teachers,
            folder.path / "unfinished" if self.alone else folder.unfinished(net.name),
            on_epoch=partial(note_epoch, folder.path, net.name),
        )
        training, _, notes = tuner.tune(student, f"fine-tuning {net.name}", [])
        save_model(float32_model(student), self._file(net.name, TRAINED))
        files = self._judged(student, net.name, net.formats)
        net = replace(
            net,
            stage=TRAINED,
            val=files.val,
            checks=files.checks,
            epochs=len(training.history),
            best_epoch=training.best_epoch,
            seconds=net.seconds + time.perf_counter() - began,
            notes=(*net.notes, *notes, *training.notes),
        )
        return self._write(net)

    def model_of(self, net: Net) -> keras.Model:
        """Return a net's model at its last stage."""
        return load_model(self._file(net.name, net.stage) if not net.whole else self.case.path)

    def example_values(self, net: Net, format: str) -> Floats | None:
        """Return the validation metric of a net's file by example; None: it was not kept."""
        name = self.case.name if net.whole else net.name
        return read_example_values(self.folder, f"{name}.{format}", "val")

    def original_values(self) -> Floats | None:
        """Return the same of the model's own file without rounding."""
        return read_example_values(self.folder, f"{self.case.name}.{self.dense.first}", "val")

    def _judged(self, model: keras.Model, name: str, formats: tuple[str, ...]) -> Judged:
        found = judged(model, name, self.case.work, self.folder, formats)
        if not found.val:
            reasons = "; ".join(f"{kind}: {why}" for kind, why in found.refused.items())
            raise RunFailed(f"No file could be made of '{name}': {reasons}")
        return found

    def whole(
        self, name: str, formats: tuple[str, ...], format: str = "",
        goals: Mapping[str, float] | None = None,
    ) -> Net:  # fmt: skip
        """Return the model itself as a net.

        Args:
            name: In names of files.
            formats: Of the files.
            format: The one that meets the goals; default: the first.
            goals: Which it meets, by cost.
        """
        dense, format = self.dense, format or formats[0]
        own = dense.costs(format, self.counted) if goals else {}
        val = {key: dict(item) for key, item in dense.val.items() if key in formats}
        net = Net(
            name, format, formats, dict(goals or {}), {key: own[key] for key in goals or ()},
            self.counted.macs, self.counted.params, 1.0, True, (), 0, REPAIRED, val, val,
            device_ms={} if self.case.device is None else {key: dense.times[key] for key in val},
        )  # fmt: skip
        return self._write(net)

    def _file(self, name: str, stage: str) -> Path:
        return self.folder.model_file(name if stage == TRAINED else f"{name}-repaired")

    def _write(self, net: Net) -> Net:
        write_json(self.folder.net_file(net.name), net.to_json())
        shown = ", ".join(
            f"{name.replace('_', ' ')} {cost_text(name, value)}"
            for name, value in net.costs.items()
        )
        LOG.info("net %s: %s; %s", net.name, net.stage, shown)
        return net


class Trainers(Protocol):
    """Processes that train nets of a folder."""

    @property
    def places(self) -> int:
        """How many nets are trained at the same time, at least 1."""

    def trained(self, wanted: Mapping[str, int]) -> Mapping[str, ParetuneError]:
        """Train nets; their records say so afterwards.

        Args:
            wanted: Epochs by the net's name; its record and its model are in the folder.

        Returns:
            By name why a net was not trained.
        """


class Crew(Protocol):
    """Opens trainers; `search.Workers` is one."""

    def check(self, plan: ShrinkPlan) -> None:
        """Check that they can be had; nothing has been written yet, TensorFlow has not started.

        Raises:
            InputError: They cannot.
        """

    def at_work(
        self, case: Case, folder: ShrinkFolder, handed_over: bool
    ) -> AbstractContextManager[Trainers]:
        """Return trainers for one model, which end with the context.

        Args:
            case: The model; its file is there.
            folder: Where nets lie; the plan and the data's record stand there.
            handed_over: The data have no name by which another process could load them.

        Raises:
            InputError: They cannot get the data or the model.
        """
