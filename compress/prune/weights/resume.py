"""A training that is pruned, in one file: model, optimizer, masks and schedule."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.arguments import check_arguments
from compress.core.arrays import opened
from compress.core.atomic_files import replacing
from compress.core.errors import InputError
from compress.plan import Plan
from compress.plan.fields import from_nested, to_nested
from compress.prune.weights import tfmot_bridge
from compress.prune.weights.pruner import WeightPruner

if TYPE_CHECKING:
    import keras

MEMBER = "paretune_pruning.npz"


@check_arguments()
def save_pruning(model: keras.Model, pruner: WeightPruner, path: str | Path) -> None:
    """Saves a training in the middle: an ordinary `.keras` file with the masks beside.

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
    """Loads what `save_pruning` wrote, ready for `fit` to go on.

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
        schedule = tfmot_bridge.schedule_from(about["schedule"] or {})
    model = keras.saving.load_model(path, custom_objects=custom_objects)
    pruner = WeightPruner(options, schedule=schedule).attach(model, state=state)
    return model, pruner
