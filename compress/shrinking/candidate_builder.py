"""Builder of candidate models: pruned to a goal, reconstructed, trained and evaluated.

Candidates are trained in this process or by parallel worker processes.
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
from compress.core.lazy_modules import keras
from compress.core.statistics import Floats
from compress.measure.counting import count_macs
from compress.model.copies import convert_to_float32
from compress.model.io import load_model, save_model
from compress.plan.shrink import ShrinkPlan
from compress.prune.channels import prune_channels
from compress.run.compressed_model import read_example_values
from compress.run.directory import LOG
from compress.run.logs import append_epoch
from compress.shrinking.candidate import (
    REPAIRED,
    TRAINED,
    Candidate,
    OriginalFiles,
    ShrinkFolder,
    measure_original,
)
from compress.shrinking.compression_job import CompressionJob
from compress.shrinking.file_evaluation import EvaluatedFiles, export_and_validate
from compress.shrinking.fitting import GoalFitter
from compress.shrinking.goals import format_cost
from compress.shrinking.prune_and_train import FineTuner
from compress.shrinking.variations import RECIPE, Variation

if TYPE_CHECKING:
    from compress.measure import Analysis


def create_builder(
    job: CompressionJob,
    folder: ShrinkFolder,
    trainers: Trainers | None = None,
    *,
    is_exclusive: bool = True,
) -> CandidateBuilder:
    """Measure the files of the original model and return a builder of its candidates.

    Args:
        job: The model.
        folder: Folder of candidates and files.
        trainers: Worker processes that train candidates; None: this process.
        is_exclusive: Whether no other process trains candidates of the folder.

    Raises:
        RunFailed: There is no float file of the original model.
    """
    original_files = measure_original(job, folder)
    if (device := job.device_times) is not None:
        original_files = replace(
            original_files, times={name: device.own_ms(name) for name in original_files.val}
        )
    return CandidateBuilder(job, folder, original_files, trainers, is_exclusive)


@dataclass(eq=False)
class CandidateBuilder:
    """Builder of candidates of one model; steps whose results are on disk are not repeated.

    Attributes:
        job: Model, data, plan.
        folder: Folder of candidates and files.
        original_files: Files of the original model.
        trainers: Worker processes that train candidates; None: this process, one at a time.
        is_exclusive: Whether no other process trains candidates of the folder; the cached teacher
            outputs can then be shared by all trainings.
    """

    job: CompressionJob
    folder: ShrinkFolder
    original_files: OriginalFiles
    trainers: Trainers | None = None
    is_exclusive: bool = True

    @cached_property
    def fitter(self) -> GoalFitter:
        """Search for the pruning configuration that meets a goal."""
        return GoalFitter(self.job, self.original_files, self.folder.path)

    @cached_property
    def counted(self) -> Analysis:
        """MACs and parameters of the original model."""
        return count_macs(self.job.model, self.job.input_shape)

    def build(
        self, name: str, format: str, goals: Mapping[str, float], formats: tuple[str, ...],
        variation: Variation = RECIPE,
    ) -> Candidate:  # fmt: skip
        """Return a candidate that meets goals in one format: pruned, reconstructed, evaluated.

        Args:
            name: Name of the candidate, for file names.
            format: Format whose file must meet the goals.
            goals: Limit of each cost of the file, by name.
            formats: Export formats of the candidate.
            variation: Changes to the default recipe.

        Raises:
            FeasibleError: The goals are not feasible in this format.
            RunFailed: A pruned model could not be converted, or no file could be exported.
        """
        if (stored := self.folder.find_candidate(name)) is not None:
            return stored
        start_time = time.perf_counter()
        original_costs = self.original_files.collect_costs(format, self.counted)
        if all(original_costs[key] <= goal for key, goal in goals.items()):
            return self.build_original(name, formats, format, goals)
        fitted = self.fitter.fit(format, goals, variation)
        selection, cost = fitted.selection, fitted.estimates.combine_goals(goals)
        job, context, plan = self.job, self.job.context, self.job.plan
        share = min(
            1.0, selection.allocation.cost / float(cost(job.coupling.removable_counts, None))
        )
        context.on_progress(f"repairing {name}", 0.0)
        pruned = prune_channels(
            job.model,
            plan.channels,
            cost=cost,
            share=share,
            data=context.data,
            seed=plan.seed,
            repair=plan.repair,
            input_shape=job.input_shape,
            coupling=job.coupling,
            selection=selection,
            on_progress=context.on_progress,
        )
        save_model(convert_to_float32(pruned.model), self._get_model_path(name, REPAIRED))
        files = self._evaluate(pruned.model, name, formats)
        counted = count_macs(pruned.model, job.input_shape)
        candidate = Candidate(
            name=name,
            format=format,
            formats=formats,
            goals=dict(goals),
            costs=fitted.costs,
            macs=counted.macs,
            params=counted.params,
            share=counted.macs / max(1, self.counted.macs),
            whole=False,
            dropped=tuple(block.index for block in selection.removed_blocks),
            rounds=fitted.rounds,
            stage=REPAIRED,
            repaired=files.val,
            val=files.val,
            checks=files.checks,
            seconds=time.perf_counter() - start_time,
            notes=tuple(pruned.report.notes),
            channels=pruned.report.to_json(),
            device_ms=self.fitter.estimate_device_ms(selection, formats),
            variation={} if variation == RECIPE else variation.to_json(),
            layer_ms=self.fitter.estimate_layer_ms(selection, format),
        )
        return self._write(candidate)

    def reset_to_repaired(self, candidate: Candidate, name: str) -> Candidate:
        """Return a copy of a candidate in its reconstructed, untrained state.

        Args:
            candidate: A candidate at any stage.
            name: Name of the copy, for file names.
        """
        if (stored := self.folder.find_candidate(name)) is not None:
            return stored
        write_bytes(
            self._get_model_path(name, REPAIRED),
            read_file(self._get_model_path(candidate.name, REPAIRED)),
        )
        reset = replace(
            candidate,
            name=name,
            stage=REPAIRED,
            val=candidate.repaired,
            epochs=0,
            best_epoch=0,
            seconds=0.0,
        )
        return self._write(reset)

    @property
    def max_parallel(self) -> int:
        """Number of candidates that are trained in parallel."""
        return 1 if self.trainers is None else self.trainers.max_parallel

    def train_all(
        self, trainings: Sequence[tuple[Candidate, int]]
    ) -> list[Candidate | ParetuneError]:
        """Fine-tune candidates, in parallel if there are worker processes; see `train`.

        Args:
            trainings: Candidates and numbers of epochs.

        Returns:
            For each the trained candidate, or the error of its training, in the same order.
        """
        if self.trainers is None:
            results: list[Candidate | ParetuneError] = []
            for candidate, epochs in trainings:
                try:
                    results.append(self.train(candidate, epochs))
                except (RunFailed, TrainingDiverged) as error:
                    results.append(error)
            return results
        errors = self.trainers.train({candidate.name: epochs for candidate, epochs in trainings})
        return [
            errors.get(candidate.name) or self.folder.load_candidate(candidate.name)
            for candidate, _ in trainings
        ]

    def train(self, candidate: Candidate, epochs: int, seconds: float | None = None) -> Candidate:
        """Fine-tune a candidate with the plan's teachers and evaluate its files.

        Args:
            candidate: A reconstructed candidate; a trained one is returned unchanged.
            epochs: Number of epochs within the budget.
            seconds: Time limit of the training; default: none.

        Raises:
            RunFailed: No file could be exported.
            TrainingDiverged: The training failed.
        """
        if candidate.stage == TRAINED:
            return candidate
        start_time = time.perf_counter()
        context, plan, folder = self.job.context, self.job.plan, self.folder
        keras.utils.set_random_seed(plan.seed)
        student = self.read_model(candidate)
        rate = Variation.from_json(candidate.variation).learning_rate * plan.finetune.learning_rate
        finetune = replace(plan.finetune, epochs=epochs, learning_rate=rate)
        tuner = FineTuner(
            replace(context, plan=replace(plan, finetune=finetune)),
            self.job.teachers,
            folder.path / "unfinished"
            if self.is_exclusive
            else folder.get_unfinished_path(candidate.name),
            on_epoch=partial(append_epoch, folder.path, candidate.name),
            seconds=seconds,
        )
        training, _, notes = tuner.tune(student, f"fine-tuning {candidate.name}", [])
        save_model(convert_to_float32(student), self._get_model_path(candidate.name, TRAINED))
        files = self._evaluate(student, candidate.name, candidate.formats)
        candidate = replace(
            candidate,
            stage=TRAINED,
            val=files.val,
            checks=files.checks,
            epochs=len(training.history),
            best_epoch=training.best_epoch,
            seconds=candidate.seconds + time.perf_counter() - start_time,
            notes=(*candidate.notes, *notes, *training.notes),
        )
        return self._write(candidate)

    def read_model(self, candidate: Candidate) -> keras.Model:
        """Return the model of a candidate at its last stage.

        Args:
            candidate: The candidate.
        """
        return load_model(
            self._get_model_path(candidate.name, candidate.stage)
            if not candidate.whole
            else self.job.path
        )

    def read_values(self, candidate: Candidate, format: str) -> Floats | None:
        """Return the validation metric of a candidate's file per example, or None if not stored.

        Args:
            candidate: The candidate.
            format: Format of the file.
        """
        name = self.job.name if candidate.whole else candidate.name
        return read_example_values(self.folder, f"{name}.{format}", "val")

    def read_original_values(self) -> Floats | None:
        """Return the validation metric of the original float file per example, or None."""
        return read_example_values(
            self.folder, f"{self.job.name}.{self.original_files.first}", "val"
        )

    def _evaluate(self, model: keras.Model, name: str, formats: tuple[str, ...]) -> EvaluatedFiles:
        evaluated = export_and_validate(model, name, self.job.context, self.folder, formats)
        if not evaluated.val:
            reasons = "; ".join(f"{kind}: {reason}" for kind, reason in evaluated.refused.items())
            raise RunFailed(f"No file could be made of '{name}': {reasons}")
        return evaluated

    def build_original(
        self, name: str, formats: tuple[str, ...], format: str = "",
        goals: Mapping[str, float] | None = None,
    ) -> Candidate:  # fmt: skip
        """Return the original model as a candidate.

        Args:
            name: Name of the candidate, for file names.
            formats: Export formats.
            format: Format that meets the goals; default: the first one.
            goals: Limits that it meets, by cost.
        """
        original_files, format = self.original_files, format or formats[0]
        original_costs = original_files.collect_costs(format, self.counted) if goals else {}
        val = {key: dict(item) for key, item in original_files.val.items() if key in formats}
        candidate = Candidate(
            name,
            format,
            formats,
            dict(goals or {}),
            {key: original_costs[key] for key in goals or ()},
            self.counted.macs,
            self.counted.params,
            1.0,
            True,
            (),
            0,
            REPAIRED,
            val,
            val,
            device_ms={}
            if self.job.device_times is None
            else {key: original_files.times[key] for key in val},
        )
        return self._write(candidate)

    def copy_original(self, name: str) -> Candidate:
        """Return a copy of the original model as a candidate that can be fine-tuned.

        Args:
            name: Name of the candidate, for file names.
        """
        if (stored := self.folder.find_candidate(name)) is not None:
            return stored
        save_model(convert_to_float32(self.job.model), self._get_model_path(name, REPAIRED))
        whole = self.build_original(name, tuple(self.original_files.val))
        return self._write(replace(whole, whole=False))

    def _get_model_path(self, name: str, stage: str) -> Path:
        return self.folder.get_model_path(name if stage == TRAINED else f"{name}-repaired")

    def _write(self, candidate: Candidate) -> Candidate:
        write_json(self.folder.get_record_path(candidate.name), candidate.to_json())
        shown = ", ".join(
            # the machine's speed drifts: ratios of one session hold in the next, times do not
            f"latency {value / self.original_files.ms:.3g}x of the original's"
            if name == "latency"
            else f"{name.replace('_', ' ')} {format_cost(name, value)}"
            for name, value in candidate.costs.items()
        )
        stage = "unchanged" if candidate.whole and candidate.stage != TRAINED else candidate.stage
        LOG.info("candidate %s: %s", candidate.name, "; ".join(filter(None, (stage, shown))))
        return candidate


class Trainers(Protocol):
    """Worker processes that train the candidates of a folder."""

    @property
    def max_parallel(self) -> int:
        """Number of candidates that are trained in parallel, at least 1."""

    def train(self, epochs_by_name: Mapping[str, int]) -> Mapping[str, ParetuneError]:
        """Train candidates and update their records.

        Args:
            epochs_by_name: Number of epochs by candidate name; record and model are in the folder.

        Returns:
            Errors by name of each candidate that was not trained.
        """


class TrainerPool(Protocol):
    """Factory of trainers; `search.Workers` is one."""

    def check(self, plan: ShrinkPlan) -> None:
        """Check that trainers are available, before TensorFlow starts and anything is written.

        Args:
            plan: The plan.

        Raises:
            InputError: They are not available.
        """

    def open_trainers(
        self, job: CompressionJob, folder: ShrinkFolder, handed_over: bool
    ) -> AbstractContextManager[Trainers]:
        """Return a context with trainers for one model.

        Args:
            job: The model, with an existing file.
            folder: Folder of candidates, with the plan and the record of the data.
            handed_over: Whether the data were passed as arrays, which other processes cannot load.

        Raises:
            InputError: The trainers cannot load the data or the model.
        """
