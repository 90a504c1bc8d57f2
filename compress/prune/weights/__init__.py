"""Weight pruning: `prune_weights` makes a model sparse; masks leave no trace."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.arguments import check_arguments
from compress.core.arrays import opened
from compress.core.atomic_files import replacing
from compress.core.errors import InputError
from compress.core.summary import Readable, Summary
from compress.data import Dataset, Unlabelled, drawn_inputs
from compress.model.copies import copy_model
from compress.model.internals import variable_paths
from compress.model.io import as_model
from compress.plan import Plan, TrainSettings, WeightOptions
from compress.plan.fields import from_nested, to_nested
from compress.plan.keywords import PRUNE_WEIGHTS
from compress.prune.recalibrate import recalibrate
from compress.prune.weights.pruner import WeightPruner
from compress.prune.weights.schedules import schedule_from, update_times
from compress.prune.weights.targets import (
    PrunedLayer,
    SkippedLayer,
    Target,
    WeightReport,
    find_targets,
)
from compress.reconstruction import repair as solve
from compress.reconstruction.repairing import repaired_on
from compress.train.given import as_examples, dataset_for

if TYPE_CHECKING:
    from typing import Unpack

    import keras

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
    "update_times",
]


MEMBER = "paretune_pruning.npz"
"""Name of the masks in a saved training."""
FEWEST_STEPS = 2
"""In which weights are zeroed where each step is repaired; three from 92 % zeros on."""


@dataclass(frozen=True, repr=False)
class PruneWeightsResult(Readable):
    """A pruned model, its report and its training (None: one-shot)."""

    model: keras.Model
    report: WeightReport
    training: TrainResult | None

    def screen(self) -> Summary:
        """Return a summary for the screen."""
        found = self.report.screen()
        told = () if self.training is None else (self.training.told(),)
        title = f"'{self.model.name}': {found.title}"
        return replace(found, title=title, lines=(*found.lines, *told))


@check_arguments(
    labels="options", number={"data": "sparsity", "options": "sparsity"}, options=PRUNE_WEIGHTS
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
    """Prune weights by magnitude, while training on labels or at once.

    For pruning in a training of your own (`fit`, a custom loop) see `WeightPruner.attach`.

    Args:
        model: A functional model or a built Sequential, or the path of a file; it stays as it is.
        data: (x, y), a stream, a `Dataset` or what `--data` takes, see `as_dataset`; None:
            one-shot, without training.
        options: Pattern, scope, sparsity in [0, 1) and its times; keywords go over it. Default:
            80 % of all kernels together, unstructured.
        val: The validation part beside arrays or a stream; default: split off by `seed`.
        groups: What is kept in one part, (n,): persons, recordings; see `as_dataset`.
        time: What parts are split by, (n,); see `as_dataset`.
        task: What labels mean, where they do not tell; see `as_dataset`.
        schedule: "polynomial" or "constant"; or tfmot's `ConstantSparsity` or `PolynomialDecay`
            in place of the plan's, whose first step is 1.
        repair: Prune at once, without training, and solve for the weights that are left on so
            many examples of `data` (x alone is enough), see `compress.reconstruction.repair`;
            True: 1,000. To train on from there, call it again on the model that is returned.
        finetune: How to train meanwhile; keywords go over it.
        device: "auto", "cpu", "gpu", or from `compress.core.device.setup`.
        seed: Seed of the batch order and of the split.
        **settings: Fields of `WeightOptions` (sparsity, pattern, scope, ...), of `TrainSettings`
            (epochs, optimizer, learning_rate, batch_size, ...), and how data by name or path are
            split and scaled (val_fraction, normalize).

    Shapes:
        x: (n, ...), as the model takes them; y: see `as_dataset`.

    Returns:
        A new, ordinary model with the same layer names, and the report.

    Raises:
        InputError: The model does not fit the data or is no graph, a block is larger than a
            weight, a pattern of names matches nothing, a schedule does not fit the training,
            or `recalibrate` or an option of training without data.
        TrainingDiverged: The loss became NaN or infinite.

    Example:
        >>> sparse = prune_weights(model, (x, y), sparsity=0.5, epochs=2, include=["ends"])
        >>> 0.49 < sparse.report.sparsity < 0.51
        True

    Reference:
        Zhu & Gupta 2017, "To prune, or not to prune"; N:M: Mishra et al. 2021, "Accelerating
        Sparse Deep Neural Networks".
    """
    options = PRUNE_WEIGHTS.section("weights", options, WeightOptions, settings)
    training_settings = PRUNE_WEIGHTS.section("finetune", finetune, TrainSettings, settings)
    training_settings.require_epochs()
    if isinstance(schedule, str):
        options, schedule = replace(options, schedule=schedule), None
    path = Path(model) if isinstance(model, (str, Path)) else None
    dense = as_model(model)
    parts = {"val": val, "groups": groups, "time": time}
    given = PRUNE_WEIGHTS.sorted(settings)
    of_training = [
        *given.get("finetune", {}),
        *["finetune"] * (finetune is not None),
        *(name for name, part in parts.items() if part is not None),
    ]
    if repair:
        of_training += ["prune_recalibrate"] * bool(options.recalibrate)
        if of_training:
            raise InputError(
                f"{of_training[0]} must come without repair, which prunes at once. To train on, "
                "call prune_weights again on the model that is returned."
            )
        if data is None:
            raise InputError("repair must have data to look at. Give data=.")
        examples = as_examples(data, model=dense, path=path, seed=seed)
        return PruneWeightsResult(*pruned_at_once(dense, examples, options, repair, seed), None)
    if data is not None:
        data = dataset_for(
            dense, data, path=path, task=task, seed=seed, **parts, **given.get("data", {})
        )
    student = copy_model(dense)
    pruner = WeightPruner(options, schedule=schedule)
    if data is None:
        if options.recalibrate:
            raise InputError("prune_recalibrate must have data to look at. Give data=.")
        if of_training or given.get("data"):
            raise InputError(
                f"{[*of_training, *given.get('data', {})][0]} must come with data to train on. "
                "Received: no data, which prunes at once. Give data=."
            )
        return PruneWeightsResult(student, pruner.once(student), None)
    from compress.core.device import as_device
    from compress.train import train

    device = as_device(device)
    try:
        training = train(student, data, training_settings, device=device, seed=seed, hooks=[pruner])
    finally:
        report = pruner.strip()
    if options.recalibrate:
        recalibrate(student, data, options.recalibrate, seed=seed)
    return PruneWeightsResult(student, report, training)


def pruned_at_once(
    dense: keras.Model,
    data: Dataset | Unlabelled,
    options: WeightOptions,
    repair: bool | int = True,
    seed: int = 0,
    on_progress: Callable[[str, float], None] | None = None,
) -> tuple[keras.Model, WeightReport]:
    """Prune a copy of a model without training and repairs it.

    Args:
        dense: It stays as it is.
        data: Training examples are looked at; labels are not.
        options: What is pruned.
        repair: Examples to solve on; True: 1,000; False or 0: none.
        seed: Of what is drawn.
        on_progress: Called with (text, share that is done).
    """
    count = repaired_on(repair, data)
    x = drawn_inputs(data, count, seed) if count else None
    student = copy_model(dense)
    report = WeightReport((), ())
    steps = _steps(options, bool(count))
    for step in steps:
        pruner = WeightPruner(step)
        report = pruner.once(student)
        if not count or not report.pruned:
            continue
        for target in pruner.targets:
            if not np.any(target.variable.numpy()):
                raise InputError(
                    "sparsity must leave each kernel at least one weight to be repaired. Received: "
                    f"{options.sparsity:g} ({options.ranking}), which leaves none in "
                    f"'{target.layer}'. Give scope='layer', or less."
                )
        pruned = {id(target.variable) for target in pruner.targets}
        masks = {
            path: variable.numpy() != 0
            for path, variable in variable_paths(student)
            if id(variable) in pruned and len(variable.shape) > 1
        }
        found = solve(
            student, dense, x, masks=masks, examples=count, seed=seed, on_progress=on_progress,
            joint=step is steps[-1],  # it takes as long again, and only the last one is kept
        )  # fmt: skip
        report = replace(report, repair=found)
    return student, report


def _steps(options: WeightOptions, repaired: bool) -> list[WeightOptions]:
    """Return the options of each step; after each one the model is repaired and ranked anew.

    Each keeps the same share, about 1/e, of what the one before left. An N:M pattern fixes the
    sparsity, and overrides grow with it: these take one step.
    """
    if not repaired or options.pattern.kind == "n:m" or options.overrides:
        return [options]
    left = 1 - options.sparsity
    count = max(FEWEST_STEPS, round(-math.log(left)))
    shares = [1 - left ** (step / count) for step in range(1, count)]
    return [*(replace(options, sparsity=share, initial_sparsity=0.0) for share in shares), options]


@check_arguments()
def save_pruning(model: keras.Model, pruner: WeightPruner, path: str | Path) -> None:
    """Save a training in the middle: an ordinary `.keras` file with the masks beside.

    Keras itself loads the file too, without the masks.

    Args:
        model: With the pruner attached; compiled, so that the optimizer's state is saved.
        pruner: Attached to it.
        path: Ends in `.keras`; written in one atomic step.

    Raises:
        InputError: The pruner is not attached, or the folder cannot be written to.

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
    with replacing(Path(path)) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(MEMBER, content.getvalue())


@check_arguments()
def resume_pruning(
    path: str | Path, *, schedule: Any = None, custom_objects: dict[str, Any] | None = None
) -> tuple[keras.Model, WeightPruner]:
    """Load a file of `save_pruning`, ready for `fit` to go on.

    Args:
        path: The file.
        schedule: In place of one that is no class of tfmot's, which no file can hold.
        custom_objects: As `keras.saving.load_model` takes them.

    Returns:
        The model, compiled as it was saved, and the pruner attached to it.

    Raises:
        InputError: The file holds no pruning, or its schedule is not given.

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
    import keras

    path = Path(path)
    if not path.is_file() or not zipfile.is_zipfile(path):
        raise InputError(f"A pruned training must be a .keras file. Received: '{path}'.")
    with zipfile.ZipFile(path) as archive:
        if MEMBER not in archive.namelist():
            raise InputError(
                f"A pruned training must be saved by save_pruning(). Received: '{path}', which "
                "holds no masks. Attach a new WeightPruner."
            )
        with opened(archive.read(MEMBER), f"{path}/{MEMBER}") as stored:
            state = stored.read(stored.names)
    about = json.loads(str(state.pop("about")))
    options = from_nested(Plan, {"weights": about["options"]}).weights
    if schedule is None:
        schedule = schedule_from(about["schedule"] or {})
    model = keras.saving.load_model(path, custom_objects=custom_objects)
    return model, WeightPruner(options, schedule=schedule).attach(model, state=state)
