"""Trained networks of six families on Fashion-MNIST: what the benchmarks of repair prune.

`_small_nets` builds them. Training reads the training part, the validation part says which epoch is
kept, and the test part is left alone. The autoencoder reads no labels at all.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import _small_nets
from benchmarks._stored import ROOT
from benchmarks.resnet20 import Dense, build, load_fashion
from compress.core.device import Device, setup_device
from compress.core.errors import TrainingDiverged, build_unknown_name_error
from compress.data import Dataset
from compress.plan import TrainSettings

if TYPE_CHECKING:
    import keras

    from compress.train import EpochRecord


@dataclass(frozen=True)
class Recipe:
    """The builder of a network and the settings of its training.

    Attributes:
        build: Builds it, untrained.
        settings: Of its training. The autoencoder's, which our one loop cannot train (its output
            is an image), go to `fit`: optimizer, schedule, epochs and batch size.
        labelled: Whether labels train it; else it learns to give its input back.
    """

    build: Callable[[], keras.Model]
    settings: TrainSettings
    labelled: bool = True


def _adamw(epochs: int, learning_rate: float) -> TrainSettings:
    """Return AdamW over images that are flipped at random."""
    return TrainSettings(
        epochs=epochs, optimizer="adamw", learning_rate=learning_rate, weight_decay=0.05,
        augment=("flip",),
    )  # fmt: skip


NETS = ROOT / "benchmarks" / "nets"
"""Networks that are kept with the code: figures of different days are of one net."""

RECIPES = {
    "mobilenet": Recipe(
        _small_nets.mobilenet,
        TrainSettings(
            epochs=7, optimizer="momentum", learning_rate=0.1, weight_decay=5e-3, augment=("flip",)
        ),
    ),
    "convnext": Recipe(_small_nets.convnext, _adamw(9, 4e-3)),
    "vit": Recipe(_small_nets.vit, _adamw(12, 3e-3)),
    "densenet": Recipe(
        _small_nets.densenet,
        TrainSettings(
            epochs=9, optimizer="momentum", learning_rate=0.1, weight_decay=5e-3, augment=("flip",)
        ),
    ),
    "lstm": Recipe(_small_nets.lstm, _adamw(20, 3e-3)),
    "autoencoder": Recipe(
        _small_nets.autoencoder,
        TrainSettings(epochs=15, optimizer="adam", learning_rate=2e-3),
        labelled=False,
    ),
    "separable": Recipe(
        _small_nets.separable, TrainSettings(epochs=12, optimizer="adam", learning_rate=4e-3)
    ),
    "resnet20_adamw": Recipe(build, _adamw(6, 3e-3)),
    "resnet20_plain": Recipe(
        build,
        TrainSettings(epochs=6, optimizer="momentum", learning_rate=0.05, weight_decay=5e-4),
    ),
}
"""By name, which is the model's too; the ResNet-20s are all called resnet20."""
REPAIRED = ("mobilenet", "convnext", "vit", "densenet", "lstm", "autoencoder")
"""Those that the benchmarks of repair prune."""


def trained(name: str, seed: int = 0) -> Dense:
    """Return a trained network: from benchmarks/nets or runs/benchmarks, made where it is missing.

    The file's name tells the architecture and the recipe: where either changes, another file is
    looked for.

    Args:
        name: Of `RECIPES`.
        seed: Of the first weights and of the order of the batches; the data are split as ever.

    Returns:
        Model, file and its SHA-256, to be unpacked or read by name.

    Raises:
        InputError: There is no such network.
    """
    from compress.model.io import load_model, save_model

    if name not in RECIPES:
        raise build_unknown_name_error("network", name, tuple(RECIPES))
    recipe = RECIPES[name]
    stem = f"{name}-{_fingerprint(recipe, seed)}.keras"
    kept = NETS / stem
    file = kept if kept.exists() else ROOT / "runs" / "benchmarks" / stem
    if not file.exists():
        model = _trained(recipe, seed, load_fashion(), setup_device("cpu"))
        file.parent.mkdir(parents=True, exist_ok=True)
        save_model(model, file)
    return Dense(load_model(file), file, hashlib.sha256(file.read_bytes()).hexdigest())


def _trained(recipe: Recipe, seed: int, data: Dataset, device: Device) -> keras.Model:
    """Build and train a network; print the quality after each epoch."""
    import keras

    from compress.train import train

    keras.utils.set_random_seed(seed)
    model = recipe.build()
    if not recipe.labelled:
        _reconstruct(model, recipe.settings, data)
        return model

    def told(epoch: int, epochs: int, record: EpochRecord) -> None:
        quality = record.val[data.task.qualities[0]]
        print(
            f"{model.name}: epoch {epoch} of {epochs}, {record.seconds:.0f} s: "
            f"{100 * quality:.2f} % of the validation part",
            flush=True,
        )

    train(model, data, recipe.settings, device=device, seed=seed, on_epoch=told)
    return model


def _reconstruct(model: keras.Model, settings: TrainSettings, data: Dataset) -> None:
    """Train an image -> image network to give its input back; the last epoch's weights stay."""
    import keras

    from compress.train.objective import build_optimizer

    x, val = data.inputs("train"), data.inputs("val")
    assert settings.epochs is not None, "every recipe says how long"
    steps = settings.epochs * -(-len(x) // settings.batch_size)

    def told(epoch: int, logs: dict[str, float]) -> None:
        print(
            f"{model.name}: epoch {epoch + 1} of {settings.epochs}: mean squared error "
            f"{logs['val_loss']:.4f} on the validation part",
            flush=True,
        )

    # a second model of the same layers: the file holds no optimizer
    fitted = keras.Model(model.inputs, model.outputs)
    fitted.compile(build_optimizer(settings, steps, fitted.trainable_variables), "mse")
    history = fitted.fit(
        x, x, settings.batch_size, settings.epochs, verbose=0, validation_data=(val, val),
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=told)],
    )  # fmt: skip
    last = history.history["val_loss"][-1]
    if not math.isfinite(last):
        raise TrainingDiverged(f"the mean squared error of {model.name} is {last} in the end")


def _fingerprint(recipe: Recipe, seed: int) -> str:
    """Return ten hex digits of a network's code, settings and seed."""
    # the names of the options when the stored networks were trained
    settings = repr(recipe.settings).replace("learning_rate_schedule=", "schedule=")
    settings = settings.replace("epoch_examples=None, ", "")
    text = "\n".join([code(recipe.build), settings, str(seed)])
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def code(function: Callable[..., object]) -> str:
    """Return the code of a function and of all that it uses of its module, by name.

    Comments, docstrings and the breaks of lines are left out.
    """
    module = ast.parse(Path(inspect.getfile(function)).read_text("utf-8"))
    parts: dict[str, ast.stmt] = {}
    for part in module.body:
        if isinstance(part, ast.FunctionDef):
            if ast.get_docstring(part) is not None:
                part.body = part.body[1:]
            parts[part.name] = part
        elif isinstance(part, ast.Assign):
            parts |= {each.id: part for each in part.targets if isinstance(each, ast.Name)}
    wanted = [function.__name__]
    for name in wanted:  # grows on the way
        used = {each.id for each in ast.walk(parts[name]) if isinstance(each, ast.Name)}
        wanted += sorted(used & parts.keys() - set(wanted))
    return "\n".join(ast.unparse(parts[name]) for name in sorted(wanted))
