"""The file of whole numbers that a small model is trained for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from compress.core.errors import InputError
from compress.data import Dataset
from compress.pipeline.context import Work
from compress.pipeline.files import Variant, artifacts_of, made_files
from compress.pipeline.finetuning import Tuner
from compress.pipeline.teachers import Teacher
from compress.run.compressed import Artifact
from compress.run.directory import LOG, RunFolder
from compress.train.last import LastEpoch


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
        The file, and what is worth a note: what stays in floats and why, or why there is none.
    """
    from compress.quantization.quantizing import Quantizing
    from compress.quantization.report import reasons
    from compress.quantization.zeros import HeldZeros

    options, data = work.plan.quantize, work.data
    assert isinstance(data, Dataset)
    wanted = work.plan.trained_formats
    name = f"{variant.stem}.{wanted[0]}"
    try:
        made = Quantizing(variant.model, data, options, seed=work.seed, on_progress=work.progress)
    except InputError as error:
        LOG.warning("%s was not made: %s", name, error)
        return [], [f"{name} was not made: {error}"]
    if options.epochs:
        recipe = replace(
            work.plan.finetune, epochs=options.epochs, learning_rate=options.learning_rate,
            own_train_step=False,
        )  # fmt: skip
        own = replace(work, plan=replace(work.plan, finetune=recipe), own_step=None)
        last = [LastEpoch()] if val_learnt else []
        zeros = HeldZeros(made.student)
        try:
            Tuner(own, teachers, checkpoints, last).tune(
                made.twin.model, "training whole numbers", [zeros]
            )
        finally:
            zeros.release()
    notes = [f"{name}: {line}" for line in reasons(made.twin.placed)]
    files, refused = made_files(made.twin.served, variant.stem, work, folder, wanted)
    missing = [f"{variant.stem}.{kind} was not made: {why}" for kind, why in refused.items()]
    return artifacts_of(replace(variant, val={}), files, work, folder), [*notes, *missing]
