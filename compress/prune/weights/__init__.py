"""Weight pruning: `prune_weights` makes a model sparse without lasting wrappers or masks."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from compress.core.arguments import check_arguments
from compress.core.arrays import open_npz
from compress.core.atomic_files import replace_file
from compress.core.errors import InputError
from compress.core.lazy_modules import keras
from compress.core.summary import DisplayableResult, Summary
from compress.data import Dataset, UnlabelledDataset, sample_inputs
from compress.model.copies import copy_model
from compress.model.io import as_model
from compress.model.keras_internals import list_named_weights
from compress.plan import Plan, TrainSettings, WeightOptions
from compress.plan.keywords import PRUNE_WEIGHTS
from compress.plan.nesting import from_nested, to_nested
from compress.prune.weights.pruner import WeightPruner
from compress.prune.weights.schedules import build_schedule, compute_update_times
from compress.prune.weights.targets import (
    PrunedLayer,
    SkippedLayer,
    Target,
    WeightReport,
    find_targets,
)
from compress.reconstruction import repair as reconstruct
from compress.reconstruction.repairing import count_repair_examples
from compress.train.dataset_loading import as_examples, prepare_dataset

if TYPE_CHECKING:
    from compress.core.device import Device
    from compress.plan.settings import PruneWeightsSettings
    from compress.train import TrainResult

__all__ = [
    "SkippedLayer",
    "PrunedLayer",
    "PruneWeightsResult",
    "Target",
    "WeightPruner",
    "WeightReport",
    "find_targets",
    "prune_weights",
    "resume_pruning",
    "save_pruning",
    "compute_update_times",
]


MEMBER = "paretune_pruning.npz"
"""Name of the file with the masks inside a saved training."""
FEWEST_STEPS = 2
"""Minimum number of steps of pruning with reconstruction; there are three from 92 % zeros on."""


@dataclass(frozen=True, repr=False)
class PruneWeightsResult(DisplayableResult):
    """A pruned model, its report, and the result of its training.

    Attributes:
        model: The pruned model.
        report: Pruned weights and skipped layers.
        training: Result of the training; None if the model was pruned without training.
    """

    model: keras.Model
    report: WeightReport
    training: TrainResult | None

    def build_summary(self) -> Summary:
        """Return a summary for the screen."""
        summary = self.report.build_summary()
        training_lines = () if self.training is None else (self.training.summarize(),)
        return replace(
            summary,
            title=f"'{self.model.name}': {summary.title}",
            lines=(*summary.lines, *training_lines),
        )


@check_arguments(
    label_argument="options",
    number_keywords={"data": "sparsity", "options": "sparsity"},
    options=PRUNE_WEIGHTS,
)
def prune_weights(
    model: keras.Model | str | Path,
    data: Any = None,
    options: WeightOptions | None = None,
    *,
    val: Any = None,
    groups: Any = None,
    time: Any = None,
    task: str | None = None,
    schedule: Any = None,
    repair: bool | int = False,
    finetune: TrainSettings | None = None,
    device: Device | str | None = None,
    seed: int = 0,
    **settings: Unpack[PruneWeightsSettings],
) -> PruneWeightsResult:
    """Prune weights by magnitude, during training or at once.

    To prune in a custom training (`fit` or a loop), see `WeightPruner.attach`.

    Args:
        model: A functional model or a built Sequential, or the path of a file. It is not modified.
        data: (x, y), a stream, a `Dataset` or a value of `--data`, see `as_dataset`; None: prune at
            once, without training.
        options: Pattern, scope, sparsity in [0, 1) and when it is reached; keywords override it.
            Default: unstructured, 80 % of all kernels together.
        val: Validation part, given with arrays or a stream; default: split off by `seed`.
        groups: Group of each example, (n,), such as persons or recordings: a group is never split
            between parts; see `as_dataset`.
        time: Time of each example, (n,), by which parts are split; see `as_dataset`.
        task: Task of the labels, if it cannot be inferred from them; see `as_dataset`.
        schedule: Schedule instead of the default one, see `WeightPruner`.
        repair: Number of calibration examples from `data` (x alone is enough) for weight
            reconstruction. The model is pruned at once, without training, and the remaining weights
            are reconstructed, see `compress.reconstruction.repair`; True: 1,000. To train it
            afterwards, call the function again on the returned model.
        finetune: Settings of the training; keywords override it.
        device: "auto", "cpu", "gpu", or the result of `compress.core.device.setup_device`.
        seed: Seed of the batch order and of the split.
        **settings: Fields of `WeightOptions` (sparsity, pattern, scope, ...), of `TrainSettings`
            (epochs, optimizer, learning_rate, batch_size, ...), and of the split and scaling of
            data given by name or path (val_fraction, normalize).

    Shapes:
        x: (n, ...), as the model expects; y: see `as_dataset`.

    Returns:
        A new, ordinary model with the same layer names, and the report.

    Raises:
        InputError: The model does not fit the data or is not a graph, a block is larger than a
            weight, a pattern of names matches nothing, a schedule does not fit the training, or a
            training option was given without data or together with `repair`.
        MissingDependency: tfmot is not installed, which training needs.
        TrainingDiverged: The loss became NaN or infinite.

    Example:
        >>> sparse = prune_weights(model, (x, y), sparsity=0.5, epochs=2, include=["ends"])
        >>> 0.49 < sparse.report.sparsity < 0.51
        True

    Reference:
        Zhu & Gupta 2017, "To prune, or not to prune"; N:M: Mishra et al. 2021, "Accelerating
        Sparse Deep Neural Networks".
    """
    options = PRUNE_WEIGHTS.build_section("weights", options, WeightOptions, settings)
    training_settings = PRUNE_WEIGHTS.build_section("finetune", finetune, TrainSettings, settings)
    training_settings.require_epochs()
    path = Path(model) if isinstance(model, (str, Path)) else None
    original = as_model(model)
    parts = {"val": val, "groups": groups, "time": time}
    settings_by_section = PRUNE_WEIGHTS.sort_by_section(settings)
    train_names = [
        *settings_by_section.get("finetune", {}),
        *["finetune"] * (finetune is not None),
        *(name for name, part in parts.items() if part is not None),
    ]
    if repair:
        if train_names:
            raise InputError(
                f"{train_names[0]} must come without repair, which prunes at once. To train on, "
                "call prune_weights again on the model that is returned."
            )
        if data is None:
            raise InputError("repair must have data to look at. Give data=.")
        examples = as_examples(data, model=original, path=path, seed=seed)
        return PruneWeightsResult(*prune_at_once(original, examples, options, repair, seed), None)
    if data is not None:
        data = prepare_dataset(
            original,
            data,
            path=path,
            task=task,
            seed=seed,
            **parts,
            **settings_by_section.get("data", {}),
        )
    pruned_model = copy_model(original)
    pruner = WeightPruner(options, schedule=schedule)
    if data is None:
        if train_names or settings_by_section.get("data"):
            raise InputError(
                f"{[*train_names, *settings_by_section.get('data', {})][0]} must come with data to "
                "train on. "
                "Received: no data, which prunes at once. Give data=."
            )
        return PruneWeightsResult(pruned_model, pruner.once(pruned_model), None)
    from compress.core.device import as_device
    from compress.train import train

    device = as_device(device)
    try:
        training = train(
            pruned_model, data, training_settings, device=device, seed=seed, hooks=[pruner]
        )
    finally:
        report = pruner.strip()
    return PruneWeightsResult(pruned_model, report, training)


def prune_at_once(
    original: keras.Model,
    data: Dataset | UnlabelledDataset,
    options: WeightOptions,
    repair: bool | int = True,
    seed: int = 0,
    on_progress: Callable[[str, float], None] | None = None,
) -> tuple[keras.Model, WeightReport]:
    """Prune a copy of a model without training, and reconstruct its weights.

    Args:
        original: The original model. It is not modified.
        data: Training examples for calibration; labels are not used.
        options: Pattern, scope and sparsity.
        repair: Number of calibration examples; True: 1,000; False or 0: no reconstruction.
        seed: Seed of the drawn examples.
        on_progress: Called with (text, completed share).

    Returns:
        The pruned model and its report.

    Raises:
        InputError: A kernel would have no nonzero weight to reconstruct.
    """
    count = count_repair_examples(repair, data)
    x = sample_inputs(data, count, seed) if count else None
    pruned_model = copy_model(original)
    report = WeightReport((), ())
    steps = _plan_steps(options, bool(count))
    for step in steps:
        pruner = WeightPruner(step)
        report = pruner.once(pruned_model)
        if not count or not report.pruned:
            continue
        for target in pruner.targets:
            if not np.any(target.variable.numpy()):
                raise InputError(
                    "sparsity must leave each kernel at least one weight to be repaired. Received: "
                    f"{options.sparsity:g} ({options.effective_scope}), which leaves none in "
                    f"'{target.layer}'. Give scope='layer', or less."
                )
        pruned = {id(target.variable) for target in pruner.targets}
        masks_by_path = {
            path: variable.numpy() != 0
            for path, variable in list_named_weights(pruned_model)
            if id(variable) in pruned and len(variable.shape) > 1
        }
        repair_report = reconstruct(
            pruned_model,
            original,
            x,
            masks=masks_by_path,
            examples=count,
            seed=seed,
            on_progress=on_progress,
            joint=step is steps[-1],  # it doubles the time; only the last weights are kept
        )
        report = replace(report, repair=repair_report)
    return pruned_model, report


def _plan_steps(options: WeightOptions, is_repaired: bool) -> list[WeightOptions]:
    """Return the options of each step; weights are reconstructed and ranked again after each.

    Each step keeps the same share of the remaining weights: about 1/e, or more at low sparsity. An
    N:M pattern fixes the sparsity, and the sparsity of overrides grows with the steps: both take
    one step.
    """
    if not is_repaired or options.pattern.kind == "n:m" or options.overrides:
        return [options]
    density = 1 - options.sparsity
    count = max(FEWEST_STEPS, round(-math.log(density)))
    shares = [1 - density ** (step / count) for step in range(1, count)]
    return [*(replace(options, sparsity=share) for share in shares), options]


@check_arguments()
def save_pruning(model: keras.Model, pruner: WeightPruner, path: str | Path) -> None:
    """Save a training in progress: an ordinary `.keras` file that also contains the masks.

    Keras can load the file too, without the masks.

    Args:
        model: Model with the pruner attached; compiled, so that the optimizer's state is saved.
        pruner: Pruner attached to the model.
        path: Path ending in `.keras`; the file is written atomically.

    Raises:
        InputError: The pruner is not attached.
        OSError: The file cannot be written.

    Example:
        >>> model.compile("adam", "sparse_categorical_crossentropy")
        >>> pruner = WeightPruner(sparsity=0.5, include=["ends"])
        >>> with pruner.attach(model, steps_per_epoch=4, epochs=4):
        ...     history = model.fit(x, y, batch_size=25, epochs=2, verbose=0)
        ...     save_pruning(model, pruner, folder / "half.keras")
        >>> (folder / "half.keras").is_file()
        True
    """
    if not pruner.attached:
        raise InputError(
            "pruner must be attached to the model whose training is saved. Received: one that is "
            "not. Save inside `with pruner.attach(...)` or a fit(callbacks=[pruner])."
        )
    schedule: Any = pruner.schedule
    config = schedule.get_config() if hasattr(schedule, "get_config") else None
    about = {"options": to_nested(pruner.options), "schedule": config}
    arrays: dict[str, Any] = {"about": np.array(json.dumps(about)), **pruner.state()}
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    with replace_file(Path(path)) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(MEMBER, content.getvalue())


@check_arguments()
def resume_pruning(
    path: str | Path, *, schedule: Any = None, custom_objects: dict[str, Any] | None = None
) -> tuple[keras.Model, WeightPruner]:
    """Load a file written by `save_pruning`, ready to resume training with `fit`.

    Args:
        path: The file.
        schedule: The schedule, if it is not one of tfmot's classes, which cannot be saved.
        custom_objects: As in `keras.saving.load_model`.

    Returns:
        The model, compiled as it was saved, and the pruner attached to it.

    Raises:
        InputError: The file is not a `.keras` file or contains no masks, or its schedule is
            missing.
        MissingDependency: tfmot is not installed, and no schedule was given.

    Example:
        >>> model.compile("adam", "sparse_categorical_crossentropy")
        >>> pruner = WeightPruner(sparsity=0.5, include=["ends"])
        >>> with pruner.attach(model, steps_per_epoch=4, epochs=2):
        ...     history = model.fit(x, y, batch_size=25, epochs=1, verbose=0)
        ...     save_pruning(model, pruner, folder / "half.keras")
        >>> model, pruner = resume_pruning(folder / "half.keras")
        >>> with pruner:  # attached already
        ...     history = model.fit(x, y, batch_size=25, epochs=1, verbose=0)
        >>> 0.49 < pruner.report.sparsity < 0.51
        True
    """
    path = Path(path)
    if not path.is_file() or not zipfile.is_zipfile(path):
        raise InputError(f"A pruned training must be a .keras file. Received: '{path}'.")
    with zipfile.ZipFile(path) as archive:
        if MEMBER not in archive.namelist():
            raise InputError(
                f"A pruned training must be saved by save_pruning(). Received: '{path}', which "
                "holds no masks. Attach a new WeightPruner."
            )
        with open_npz(archive.read(MEMBER), f"{path}/{MEMBER}") as stored:
            state = stored.read_arrays(stored.names)
    about = json.loads(str(state.pop("about")))
    options = from_nested(Plan, {"weights": about["options"]}).weights
    if schedule is None:
        schedule = build_schedule(about["schedule"] or {})
    model = keras.saving.load_model(path, custom_objects=custom_objects)
    return model, WeightPruner(options, schedule=schedule).attach(model, state=state)
