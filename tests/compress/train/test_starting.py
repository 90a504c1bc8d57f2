"""A fine-tuning that makes a model no better leaves it as it came."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from compress import compress_model
from compress.data import Dataset
from compress.train import TrainResult
from compress.train.records import StartingPoint
from tests.same import same_arrays


def net(x: Any, y: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    hidden = keras.layers.Dense(32, activation="relu", name="hidden")(inputs)
    outputs = keras.layers.Dense(3, activation="softmax", name="head")(hidden)
    model = keras.Model(inputs, outputs, name="net")
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=30, verbose=0)
    return model


def test_the_better_weights_are_kept(small_cnn: Callable[..., Any], digits: Dataset) -> None:
    model = small_cnn()
    before = model.get_weights()
    start = StartingPoint(model, digits, "accuracy")
    model.set_weights([weight + 1 for weight in before])
    better = TrainResult((), 2, {"accuracy": 2.0}, 9, ("told",))
    assert start.keep_better(model, better).best_epoch == 2
    assert start.keep_better(model, better).notes[1:] == ("told",)
    worse = start.keep_better(model, TrainResult((), 2, {"accuracy": -1.0}, 9))
    assert worse.best_epoch == 0
    assert worse.notes[0].endswith(f"{worse.val['accuracy']:.4f}")
    same_arrays(model.get_weights(), before)


@pytest.mark.slow
def test_a_repaired_model_is_never_made_worse(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, 8)).astype("float32")
    y = (x @ rng.normal(size=(8, 3))).argmax(1)
    model = net(x[:600], y[:600])
    before = [weight.copy() for weight in model.get_weights()]
    how: dict[str, Any] = {
        "val": (x[600:750], y[600:750]), "test": (x[750:], y[750:]), "channels": 0.5,
        "sparsity": 0.0, "formats": ["float32"], "latency_budget": 0.2,
    }  # fmt: skip
    repaired = compress_model(
        model, (x[:600], y[:600]), finetune_epochs=0, out=tmp_path / "a", **how
    )
    (start,) = repaired.report.compressed
    first = start.val["pruned"]["accuracy"]
    for rate in (1e-3, 3.0):
        tuned = compress_model(
            model, (x[:600], y[:600]), finetune_epochs=2, learning_rate=rate,
            finetune_optimizer="sgd", out=tmp_path / str(rate), **how,
        )  # fmt: skip
        (end,) = tuned.report.compressed
        last = end.val["pruned"]["accuracy"]
        assert last >= first
        told = [note for note in end.notes if "before fine-tuning" in note]
        assert told == [f"validation accuracy before fine-tuning {first:.4f}"]
        kept = "fine-tuning made it no better: its weights are those before" in end.notes
        assert kept == (end.best_epoch == 0) == (rate > 1)
        if kept:
            assert last == first
        same_arrays(before, model.get_weights())
