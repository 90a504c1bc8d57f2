"""The check of an exported file against its Keras model: on which examples, and what it says."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress import compress_model, export
from compress.core.device import Device
from compress.data import Dataset, Preprocessing, Split
from compress.report.file_selection import can_ship


def sorted_by_class() -> Dataset:
    """A hundred examples of each of ten classes, sorted: class c has one input, c, above zero.

    It is 1000 in the first five classes and 1 in the others, which 255 steps of 1000 / 255 do not
    tell from zero.
    """
    y = np.repeat(np.arange(10), 100)
    x = np.zeros((1000, 10), np.float32)
    x[np.arange(1000), y] = np.where(y < 5, 1000.0, 1.0)
    part = Split(x, y)
    return Dataset("sorted", part, part, part, tuple("abcdefghij"), Preprocessing())


def largest() -> Any:
    """A model that answers with the largest input."""
    import keras

    inputs = keras.Input((10,))
    logits = keras.layers.Dense(10, use_bias=False, kernel_initializer="identity")(inputs)
    return keras.Model(inputs, keras.layers.Softmax()(logits), name="largest")


def test_every_class_of_sorted_data_is_checked(tmp_path: Path) -> None:
    made = {item.format: item for item in export(largest(), tmp_path / "m", data=sorted_by_class())}
    assert made["float32"].agreement == 1.0
    assert made["float32"].warning == ""
    # 20 of each class; the last five have no input above zero in integers: a draw, which
    # the first class wins. The first 200 are of two classes that are right
    assert (made["int8"].checked, made["int8"].agreement) == (200, 0.5)


def test_what_is_printed_begins_with_the_warning(tmp_path: Path) -> None:
    data = sorted_by_class()
    files = export(largest(), tmp_path / "m.tflite", format="int8", data=data)
    warning = (
        "warning: m.tflite agrees with the Keras model on only 50.0 % of 200 examples (at least 90 "
        "% expected)"
    )
    assert " ".join(str(files).split()).startswith(f"{warning} 1 file, checked on 200 examples")
    assert repr(files) == f"<ExportedFiles: {warning}>"
    assert files._repr_html_().index(warning) < files._repr_html_().index("checked on 200")
    fine = export(largest(), tmp_path / "fine.tflite", format="float32", data=data)
    assert str(fine).startswith("1 file, checked")


def exploded(digits: Dataset, cpu: Device) -> Any:
    """A trained model whose hidden units have a weight of 316 on an input that is always zero.

    It answers as if that weight were not there. A unit's kernel has one scale in its int8 file:
    steps of 316 / 127, so that all its other weights become zero.
    """
    import keras

    from compress.plan import TrainSettings
    from compress.train import train

    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(16, 3, 2, "same", activation="relu")(inputs)
    x = keras.layers.Conv2D(32, 3, 2, "same", activation="relu", name="second")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(32, activation="relu", name="hidden")(x)
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x), name="exploded")
    kernel, bias = model.get_layer("second").get_weights()
    kernel[..., 0], bias[0] = 0.0, -1.0  # never above zero: nothing ever trains it
    model.get_layer("second").set_weights([kernel, bias])
    train(model, digits, TrainSettings(epochs=6, batch_size=32, learning_rate=5e-3), device=cpu)
    hidden, bias = model.get_layer("hidden").get_weights()
    hidden[0] = 316.0
    model.get_layer("hidden").set_weights([hidden, bias])
    return model


@pytest.mark.slow
def test_the_result_of_a_broken_file_begins_with_a_warning(
    digits: Dataset, cpu: Device, tmp_path: Path
) -> None:
    order = np.argsort(digits.val.y, kind="stable")
    data = replace(digits, val=digits.val.take(order))
    made = compress_model(
        exploded(digits, cpu), data, sparsity=0.5, finetune_epochs=0, formats=["float32", "int8"],
        latency_budget=0.5, out=tmp_path / "out",
    )  # fmt: skip
    rows = {row.artifact.id: row for row in made.report.rows}
    float32, int8 = rows["exploded.float32"], rows["exploded.int8"]
    assert float32.artifact.test["accuracy"] > 0.85
    assert int8.artifact.test["accuracy"] < 0.5
    assert int8.artifact.agreement < 0.5
    assert can_ship(made.report, float32)
    assert not can_ship(made.report, int8)
    begins = r"^warning: exploded(-p50)?\.int8 agrees with the Keras model on only \d+\.\d % of 200"
    assert re.match(begins, " ".join(str(made).split()))
    page = (made.folder / "report.html").read_text("utf-8")
    assert re.search(r'<p class="warning">warning: exploded(-p50)?\.int8 agrees', page)
