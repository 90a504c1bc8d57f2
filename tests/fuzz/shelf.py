"""Whole things to damage: models of both kinds of file, and a run's folder without training."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from tests.fuzz.families import Shelf


def _models(folder: Path) -> dict[str, bytes]:
    import keras
    import numpy as np

    from compress.exporting.litert import export_litert

    keras.utils.set_random_seed(0)
    layers = keras.layers

    def net(shape: tuple[int | None, ...] = (8, 8, 1)) -> Any:
        inputs = keras.Input(shape)
        x = layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, padding="same")(inputs))
        x = layers.add([layers.ReLU()(x), layers.DepthwiseConv2D(3, padding="same")(x)])
        return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the old format, and of models without shapes
        net().save(folder / "small.keras")
        net().save(folder / "small.h5")
        net((None, None, 3)).save(folder / "open.keras")
        keras.Sequential([layers.Dense(3)]).save(folder / "odd-sequential.keras")
        net((0, 0, 3)).save(folder / "odd-nothing.keras")
        net((10**6, 10**6, 3)).save(folder / "odd-huge.keras")
        for name, weight, value in (
            ("variance", "moving_variance", -1.0),
            ("nan", "kernel", np.nan),
        ):
            model = net()
            variable = next(item for item in model.weights if item.name == weight)
            variable.assign(np.full(variable.shape, value))
            model.save(folder / f"odd-{name}.keras")
        x = layers.LSTM(3)(recurrent := keras.Input((5, 2)))
        keras.Model(recurrent, layers.Dense(2)(x)).save(folder / "lstm.keras")
        code = keras.Model(inputs := keras.Input((2,)), layers.Lambda(lambda t: t * 2)(inputs))
        code.save(folder / "odd-lambda.keras")
    export_litert(net(), folder / "small.tflite")
    export_litert(keras.models.load_model(folder / "lstm.keras"), folder / "lstm.tflite")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _run(folder: Path) -> dict[str, bytes]:
    from tests.compress.report.test_report import folder as made

    run = made.__wrapped__(folder) if hasattr(made, "__wrapped__") else made(folder)
    return {
        path.relative_to(run.path).as_posix(): path.read_bytes()
        for path in run.path.rglob("*")
        if path.is_file()
    }


def make(folder: Path) -> Shelf:
    """Makes the shelf in an empty folder."""
    (folder / "models").mkdir()
    (folder / "run").mkdir()
    return Shelf(_models(folder / "models"), _run(folder / "run"))


def make_apart(folder: Path) -> Shelf:
    """Makes the shelf in a process of its own: this one may still be forked with TensorFlow."""
    import pickle
    import subprocess

    from compress.core.module_loading import build_module_command, build_module_environment

    done = subprocess.run(
        build_module_command("tests.fuzz.shelf", str(folder)), env=build_module_environment(),
        capture_output=True, check=False, timeout=300,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr.decode()[-2000:])
    shelf: Shelf = pickle.loads((folder / "shelf.pickle").read_bytes())
    return shelf


if __name__ == "__main__":
    import pickle
    import sys

    place = Path(sys.argv[1])
    (place / "shelf.pickle").write_bytes(pickle.dumps(make(place)))
