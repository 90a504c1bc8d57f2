"""Compression of one model: channel pruning, then weight pruning with fine-tuning.

`FineTuner` fine-tunes after these steps, and for `shrink`. `quantize_and_evaluate` adds
quantization-aware training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from compress.core.errors import FeasibleError, InputError, TrainingDiverged
from compress.core.lazy_modules import keras
from compress.distillation import distill
from compress.distillation.trainer import DISTILLING
from compress.model.copies import copy_model
from compress.plan import Plan
from compress.prune.channels import ChannelReport, prune_channels
from compress.prune.weights import WeightPruner, WeightReport, prune_at_once
from compress.run.compressed_model import Artifact
from compress.run.directory import LOG, RunFolder
from compress.shrinking.compression_job import CompressionJob, RunContext, Teacher
from compress.shrinking.file_evaluation import Variant, evaluate_artifacts, export_files
from compress.train import EpochRecord, Hook, TrainResult, train
from compress.train.predict import evaluate_model
from compress.train.records import StartingPoint


def prune_and_train(job: CompressionJob, tuner: FineTuner) -> PrunedModel:
    """Remove channels, then prune weights and distil, on a copy of the original model.

    Args:
        job: The model with its coupling groups (for channel pruning), data, and plan (sections
            channels and weights).
        tuner: Fine-tuner.

    Returns:
        The pruned model and its records.

    Raises:
        TrainingDiverged: Fine-tuning failed.
    """
    data, plan = job.context.data, job.context.plan
    student, channels, notes = _remove_channels(job)
    weights = WeightReport((), ())
    if plan.finetune.epochs == 0:
        # without training, weights are set to zero at once and the remaining ones reconstructed
        if plan.weights.sparsity > 0:
            student, weights = prune_at_once(
                student, data, plan.weights, plan.repair, plan.seed, job.context.on_progress
            )
        notes += [*weights.notes, "nothing was fine-tuned (0 epochs)"]
        return PrunedModel(
            student, channels, weights, evaluate_model(student, data, "val"), tuple(notes)
        )
    pruner = WeightPruner(plan.weights) if plan.weights.sparsity > 0 else None
    try:
        training, teacher_val, tuning_notes = tuner.tune(
            student, "fine-tuning", [pruner] if pruner else []
        )
    finally:
        if pruner:
            weights = pruner.strip()
    notes += [*tuning_notes, *weights.notes]
    if pruner and not weights.pruned:
        notes.append("no layer was pruned: see the kept layers and their reasons")
    as_long = None
    if plan.finetune.as_long:
        as_long = copy_model(job.model)
        tuner.tune(as_long, "training the original for as long", [])
    return PrunedModel(
        student, channels, weights, training.val, (*notes, *training.notes), teacher_val,
        training.best_epoch, len(training.history), as_long,
    )  # fmt: skip


@dataclass(frozen=True)
class PrunedModel:
    """Pruned and fine-tuned model, with records of the process.

    Attributes:
        model: A plain Keras model.
        channels: Report on removed channels; None if none were requested or could be removed.
        weights: Report on pruned weights.
        val: Validation metrics of the model.
        notes: Skipped or changed steps, with reasons.
        teacher_val: Selection metric of the teachers on validation data; 0 without teachers.
        best_epoch, epochs: Best epoch and number of epochs of the fine-tuning.
        as_long: The original model after the same number of extra epochs; None if not requested.
    """

    model: keras.Model
    channels: ChannelReport | None
    weights: WeightReport
    val: dict[str, float]
    notes: tuple[str, ...]
    teacher_val: float = 0.0
    best_epoch: int = 0
    epochs: int = 0
    as_long: keras.Model | None = None

    def format_label(self, plan: Plan) -> str:
        """Return a label of the actual pruning, for file names.

        "c0_5x-p80" stands for half of the MACs and 80 % sparsity, "p0" for no pruning.

        Args:
            plan: Plan of the pruning.
        """
        parts = [] if self.channels is None else [f"c{self.channels.label}"]
        if plan.weights.sparsity > 0 or self.channels is None:
            parts.append(plan.weights.label if self.weights.pruned else "p0")
        return "-".join(parts).replace(".", "_")


def _remove_channels(
    job: CompressionJob,
) -> tuple[keras.Model, ChannelReport | None, list[str]]:
    model, context, plan = job.model, job.context, job.context.plan
    if not plan.channels.is_active:
        return copy_model(model), None, []

    context.on_progress("removing channels", 0.0)
    try:
        result = prune_channels(
            model,
            plan.channels,
            data=context.data,
            seed=plan.seed,
            repair=plan.repair,
            input_shape=job.input_shape,
            on_choice=lambda selection: LOG.info("channels: %s", selection.summarize()),
            on_progress=context.on_progress,
            coupling=job.coupling,
        )
    except FeasibleError as error:
        # in a run over several models, one may be too small for the common target
        return copy_model(model), None, [f"no channels were removed: {error}"]
    return result.model, result.report, list(result.report.notes)


@dataclass(frozen=True)
class FineTuner:
    """Fine-tuner of a student, on labels or with teachers.

    Attributes:
        context: Data, plan (sections distill and finetune), device.
        teachers: Teachers; empty: labels only.
        checkpoints: Folder of checkpoints and of the teachers' outputs. The caller removes it when
            the model is finished.
        on_epoch: Callback invoked with (training, record of the epoch as JSON) after each epoch.
        seconds: Time limit of a training; see `compress.train.train`.
    """

    context: RunContext
    teachers: Sequence[Teacher]
    checkpoints: Path | None = None
    on_epoch: Callable[[str, dict[str, Any]], None] | None = None
    seconds: float | None = None

    def tune(
        self, student: keras.Model, text: str, hooks: Sequence[Hook]
    ) -> tuple[TrainResult, float, list[str]]:
        """Fine-tune a student in place.

        If no epoch is better than the initial student, its weights are restored, except with hooks,
        which change the student during training.

        Args:
            student: The model to fine-tune.
            text: Name of the training, for progress, checkpoint and records.
            hooks: Hooks of the training.

        Returns:
            The training, the selection metric of the teachers on validation data (0 without
            teachers), and notes.

        Raises:
            TrainingDiverged: The training failed.
        """
        data, plan = self.context.data, self.context.plan
        main = data.task.qualities[0]

        label = text

        def on_share(share: float) -> None:
            self.context.on_progress(label, share)

        def on_progress(step: str, share: float) -> None:
            self.context.on_progress(label if step == DISTILLING else step, share)

        def on_epoch(epoch: int, epochs: int, record: EpochRecord) -> None:
            nonlocal label
            label = f"{text}, validation {main} {record.val[main]:.3f}"
            on_share(epoch / epochs)
            if self.on_epoch is not None:
                self.on_epoch(text, asdict(record))

        self.context.on_progress(text, 0.0)
        start = None if hooks else StartingPoint(student, data, main)
        folder = self.checkpoints
        checkpoint = folder / f"{text.replace(' ', '-').replace(',', '')}.npz" if folder else None
        common: dict[str, Any] = {
            "device": self.context.device,
            "seed": plan.seed,
            "hooks": hooks,
            "checkpoint": checkpoint,
            "on_epoch": on_epoch,
            "seconds": self.seconds,
        }
        notes: list[str] = []
        teacher_val = 0.0
        if self.teachers:
            result = distill(
                student,
                [teacher.model for teacher in self.teachers],
                data,
                plan.distill,
                finetune=plan.finetune,
                teacher_classes=[teacher.class_names for teacher in self.teachers],
                teacher_scalings=[teacher.preprocess for teacher in self.teachers],
                cache_folder=folder / "teacher" if folder else None,
                on_progress=on_progress,
                **common,
            )
            training, teacher_val = result.training, result.teacher_val[main]
            notes = [*result.notes, *(f"feature loss {hint}" for hint in result.hints)]
            if result.hints or result.cache != "memory":
                teacher_source = (
                    "ran at every step" if result.cache == "off" else f"cached in {result.cache}"
                )
                notes.append(f"the teacher {teacher_source}")
        else:
            training = train(
                student, data, plan.finetune, objective=self.context.own_step, on_share=on_share,
                **common,
            )  # fmt: skip
        return start.keep_better(student, training) if start else training, teacher_val, notes


def quantize_and_evaluate(
    variant: Variant, tuner: FineTuner, folder: RunFolder
) -> tuple[list[Artifact], list[str]]:
    """Train a model with quantization-aware training, export it and evaluate its file.

    Args:
        variant: The float model; it is not changed.
        tuner: Fine-tuner with data and plan (sections quantize, finetune, distill).
        folder: Folder of the run.

    Returns:
        The files, and notes: the training, operations in float with reasons, or the reason why
        there is no file.
    """
    from compress.quantization.fake_quantization import build_layer_rows, describe_float_layers
    from compress.quantization.quantizer import Quantizer, SparsityHook

    context, plan, options = tuner.context, tuner.context.plan, tuner.context.plan.quantize
    formats = plan.qat_formats
    names = " and ".join(f"{variant.stem}.{kind}" for kind in formats)
    training_text = "was calibrated, not trained"
    try:
        quantizer = Quantizer(
            variant.model, context.data, options,
            formats=formats, seed=plan.seed, on_progress=context.on_progress,
        )  # fmt: skip
        if options.epochs:
            qat_plan = replace(plan, finetune=options.build_train_settings(plan.finetune))
            tuner = replace(tuner, context=replace(context, plan=qat_plan, own_step=None))
            with SparsityHook(quantizer.student) as zeros:
                training, _, _ = tuner.tune(
                    quantizer.fake_quantized.model, "training integers", [zeros]
                )
            training_text = (
                f"was trained for {len(training.history)} more epochs as the file computes"
            )
    except (InputError, TrainingDiverged) as error:
        LOG.warning("%s was not made: %s", names, error)
        return [], [f"{names} was not made: {error}"]
    notes = [
        f"{names} {training_text}",
        *(f"{names}: {line}" for line in describe_float_layers(quantizer.fake_quantized.placed)),
    ]
    files, refused = export_files(
        quantizer.fake_quantized.served, variant.stem, context, folder, formats
    )
    missing = [f"{variant.stem}.{kind} was not made: {reason}" for kind, reason in refused.items()]
    artifacts = evaluate_artifacts(replace(variant, val={}), files, context, folder)
    layers = build_layer_rows(quantizer.fake_quantized.placed, quantizer.measure_errors())
    return [replace(item, layers=layers) for item in artifacts], [*notes, *missing]
