"""The file of whole numbers that a small model is trained for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from compress.core.errors import InputError, TrainingDiverged
from compress.run.compressed import Artifact
from compress.run.directory import LOG, RunFolder
from compress.shrinking.context import Work
from compress.shrinking.files import Variant, artifacts_of, made_files
from compress.shrinking.finetuning import Tuner
from compress.shrinking.teachers import Teacher
from compress.train.kept_weights import LastEpoch


def quantized_files(
    variant: Variant,
    work: Work,
    folder: RunFolder,
    teachers: Sequence[Teacher],
    checkpoints: Path | None,
    *,
    val_learnt: bool = False,
) -> tuple[list[Artifact], list[str]]:
    """Trains a model as its file of whole numbers computes, and exports and judges that file.

    Args:
        variant: The model in floats; it stays as it is.
        work: Data, plan (sections quantize, finetune, distill), device.
        folder: The run's.
        teachers: Of the plan; none: labels alone.
        checkpoints: Of a training that can go on.
        val_learnt: The validation part selects nothing.

    Returns:
        The file, and what is worth a note: how it was trained, what stays in floats and why, or why
        there is none.
    """
    from compress.quantization.quantizing import Quantizing
    from compress.quantization.report import reasons, rows
    from compress.quantization.zeros import held_zeros

    plan, options = work.plan, work.plan.quantize
    wanted = plan.trained_formats
    names = " and ".join(f"{variant.stem}.{kind}" for kind in wanted)
    how = "was calibrated, not trained"
    try:
        made = Quantizing(
            variant.model, work.data, options,
            formats=wanted, seed=work.seed, on_progress=work.progress,
        )  # fmt: skip
        if options.epochs:
            own = replace(plan, finetune=options.recipe(plan.finetune))
            tuner = Tuner(
                replace(work, plan=own, own_step=None), teachers, checkpoints,
                [LastEpoch()] if val_learnt else [],
            )  # fmt: skip
            with held_zeros(made.student) as zeros:
                training, _, _ = tuner.tune(made.twin.model, "training whole numbers", [zeros])
            how = f"was trained for {len(training.history)} more epochs as the file computes"
    except (InputError, TrainingDiverged) as error:
        LOG.warning("%s was not made: %s", names, error)
        return [], [f"{names} was not made: {error}"]
    notes = [f"{names} {how}", *(f"{names}: {line}" for line in reasons(made.twin.placed))]
    files, refused = made_files(made.twin.served, variant.stem, work, folder, wanted)
    missing = [f"{variant.stem}.{kind} was not made: {why}" for kind, why in refused.items()]
    found = artifacts_of(replace(variant, val={}), files, work, folder)
    layers = rows(made.twin.placed, made.errors())
    return [replace(item, layers=layers) for item in found], [*notes, *missing]
