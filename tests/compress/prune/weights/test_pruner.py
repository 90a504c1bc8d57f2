"""Weight pruning: times, training, holding masks, leaving no trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from compress import prune_weights
from compress.core.device import Device
from compress.core.errors import InputError, TrainingDiverged
from compress.data import Dataset
from compress.plan import TrainSettings, WeightOptions
from compress.prune.weights import WeightPruner, compute_update_times, resume_pruning, save_pruning
from compress.prune.weights.schedules import build_schedule
from compress.train import train
from tests.same import same_arrays


def schedule(step: int, begin: int, end: int, final: float, power: float = 3.0) -> float:
    """Zhu & Gupta's equation 1, from zero."""
    share = min(1.0, max(0.0, (step - begin) / (end - begin)))
    return final - final * (1 - share) ** power


@pytest.mark.parametrize(
    ("options", "steps", "expected"),
    [
        (WeightOptions(), 1000, (501, 10)),
        (WeightOptions(), 40, (21, 1)),
        # 1 to 56 in at most 50 updates: every 2 steps, so the last one is at 55
        (WeightOptions(sparsity_end="55%"), 100, (55, 2)),
        (WeightOptions(), 2, (2, 1)),
        (WeightOptions(sparsity_end="60"), 100, (61, 2)),
        (WeightOptions(sparsity_end="2e"), 100, (51, 1)),
        (WeightOptions(sparsity_end="900"), 100, (99, 2)),
    ],
)
def test_update_times(options: WeightOptions, steps: int, expected: tuple[int, int]) -> None:
    times = compute_update_times(options, steps, steps_per_epoch=25)
    assert (times.end, times.frequency) == expected


def two_layers(width: int = 16) -> Any:
    inputs = keras.Input((4,))
    x = keras.layers.Dense(width, activation="relu", name="a")(inputs)
    x = keras.layers.Dense(width, activation="relu", name="b")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="c")(x))


def test_training_reaches_the_sparsity_and_holds_it(
    digits: Dataset, cpu: Device, small_cnn: Callable[..., Any]
) -> None:
    model = small_cnn()
    before = [w.copy() for w in model.get_weights()]
    options = WeightOptions(sparsity=0.8, scope="layer")
    result = prune_weights(
        model, digits, options, finetune=TrainSettings(epochs=6, batch_size=64), device=cpu
    )
    same_arrays(model.get_weights(), before)
    mid, hidden = result.model.get_layer("mid").kernel, result.model.get_layer("hidden").kernel
    assert (mid.numpy() == 0).sum() == 1152 - round(1152 * 0.2)
    assert (hidden.numpy() == 0).sum() == 512 - round(512 * 0.2)
    assert [layer.layer for layer in result.report.pruned] == ["mid", "hidden"]
    kept = {item.layer: item.reason for item in result.report.kept}
    assert kept == {
        "first": "first layer, not pruned unless asked ('ends')",
        "last": "last layer, not pruned unless asked ('ends')",
        "bn": "normalization is not pruned unless asked",
    }
    assert [layer.name for layer in result.model.layers] == [layer.name for layer in model.layers]
    # epochs 1 to 3 end before sparsity is reached: no weights of theirs may be chosen
    assert result.training is not None
    assert result.training.best_epoch > 3


def test_masks_follow_the_schedule_in_the_loop_of_ours(cpu: Device, blobs: Dataset) -> None:
    """After each epoch the zeros are as many as equation 1 says at the last update."""
    model = two_layers()
    pruner = WeightPruner(WeightOptions(sparsity=0.75, sparsity_end="20"))
    zeros: list[int] = []
    train(
        model, blobs, TrainSettings(epochs=5, batch_size=48), device=cpu, hooks=[pruner],
        on_epoch=lambda *_: zeros.append(int((model.get_layer("b").kernel.numpy() == 0).sum())),
    )  # fmt: skip
    # 5 steps an epoch; after step t the masks are those for step t + 1
    expected = [256 - round(256 * (1 - schedule(5 * e + 1, 1, 21, 0.75))) for e in range(1, 6)]
    assert zeros == expected


def fit(model: Any, data: Dataset, epochs: int, **settings: Any) -> None:
    if settings or not model.compiled:
        optimizer = settings.pop("optimizer", None) or keras.optimizers.Adam(1e-2)
        model.compile(
            optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), **settings
        )
    model.fit(data.train.x, data.train.y, batch_size=24, epochs=epochs, shuffle=False, verbose=0)


class Shifted(keras.optimizers.SGD):
    """A custom optimizer that moves every weight, pruned ones too."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        super().update_step(gradient, variable, learning_rate)
        variable.assign(variable + 1e-4)


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "adamw": lambda: keras.optimizers.AdamW(1e-2, weight_decay=1e-2),
    "custom": lambda: Shifted(0.05),
    "accumulated": lambda: keras.optimizers.Adam(1e-2, gradient_accumulation_steps=3),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-2)),
    "averaged": lambda: keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.9),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_fit_holds_masks(name: str, blobs: Dataset) -> None:
    model = two_layers()
    pruner = WeightPruner(WeightOptions(sparsity=0.75)).attach(model, steps_per_epoch=10, epochs=3)
    during: list[float] = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            during.append(float((model.get_layer("b").kernel.numpy() == 0).mean()))

    model.compile(OPTIMIZERS[name](), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(blobs.train.x, blobs.train.y, batch_size=24, epochs=3, verbose=0, callbacks=[Look()])
    assert np.all(np.diff(during) >= 0)
    assert during[-1] == 0.75
    report = pruner.strip()
    kernel = model.get_layer("b").kernel
    assert (report.sparsity, kernel.constraint) == (0.75, None)
    assert float((kernel.numpy() == 0).mean()) == 0.75


@pytest.mark.parametrize(
    "settings",
    [{"run_eagerly": True}, pytest.param({"jit_compile": True}, marks=pytest.mark.slow), {}],
)
# 512 x 512 weights are ranked by their bits
@pytest.mark.parametrize("width", [16, pytest.param(512, marks=pytest.mark.slow)])
def test_eagerly_and_compiled(settings: dict[str, Any], width: int, blobs: Dataset) -> None:
    model = two_layers(width)
    pruner = WeightPruner(WeightOptions(sparsity=0.5)).attach(model, steps_per_epoch=10, epochs=1)
    fit(model, blobs, 1, **settings)
    assert pruner.strip().sparsity == 0.5


def test_mixed_precision(blobs: Dataset) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = two_layers()
    finally:
        keras.config.set_dtype_policy("float32")
    pruner = WeightPruner(WeightOptions(sparsity=0.5)).attach(model, steps_per_epoch=10, epochs=1)
    fit(model, blobs, 1)
    assert pruner.strip().sparsity == 0.5
    assert model.get_layer("b").kernel.dtype == "float32"


def test_a_loop_of_the_users_own(blobs: Dataset) -> None:
    model = two_layers()
    pruner = WeightPruner(WeightOptions(sparsity=0.5)).attach(model, steps_per_epoch=10, epochs=1)
    optimizer = keras.optimizers.Adam(1e-2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for start in range(0, 240, 24):
        with tf.GradientTape() as tape:
            value = loss(
                blobs.train.y[start : start + 24], model(blobs.train.x[start : start + 24])
            )
        weights = model.trainable_variables
        optimizer.apply(tape.gradient(value, [w.value for w in weights]), weights)
    assert pruner.strip().sparsity == 0.5


def test_the_users_constraint_acts_first_and_comes_back(cpu: Device, blobs: Dataset) -> None:
    own = keras.constraints.NonNeg()
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(16, activation="relu", kernel_constraint=own, name="h")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(hidden))
    pruner = WeightPruner(WeightOptions(sparsity=0.5, include=("ends",)))
    train(model, blobs, TrainSettings(epochs=4, batch_size=32), device=cpu, hooks=[pruner])
    pruner.strip()
    kernel = model.get_layer("h").kernel
    assert kernel.constraint is own
    assert (kernel.numpy() >= 0).all()
    assert (kernel.numpy() == 0).mean() >= 0.5


def test_a_failed_training_leaves_no_trace(cpu: Device, blobs: Dataset) -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    pruner = WeightPruner(WeightOptions(include=("ends",)))
    wild = TrainSettings(
        epochs=2, learning_rate=3e38, optimizer="sgd", learning_rate_schedule="constant"
    )
    with pytest.raises(TrainingDiverged):
        train(model, blobs, replace(wild, batch_size=60), device=cpu, hooks=[pruner])
    pruner.strip()
    assert model.layers[-1].kernel.constraint is None
    with pytest.raises(InputError, match="used for one training"):
        train(model, blobs, wild, device=cpu, hooks=[pruner])


def test_a_training_goes_on_from_its_file_as_if_never_interrupted(
    tmp_path: Path, blobs: Dataset
) -> None:
    """10 steps, saved, loaded, 10 more: the weights of 20 steps, bit for bit."""
    keras.utils.set_random_seed(3)
    model = two_layers()
    start = model.get_weights()
    options = WeightOptions(sparsity=0.75, sparsity_end="80%")
    pruner = WeightPruner(options).attach(model, steps_per_epoch=10, epochs=2)
    fit(model, blobs, 1)
    save_pruning(model, pruner, tmp_path / "half.keras")
    again, resumed = resume_pruning(tmp_path / "half.keras")
    fit(again, blobs, 1)
    # the same without a break
    whole = two_layers()
    whole.set_weights(start)
    straight = WeightPruner(options).attach(whole, steps_per_epoch=10, epochs=2)
    fit(whole, blobs, 2)
    assert resumed.strip().pruned == straight.strip().pruned
    assert resumed.notes == []  # its zeros are its own, not a start
    same_arrays(again.get_weights(), whole.get_weights())
    assert (again.get_layer("b").kernel.numpy() == 0).mean() == 0.75
    # Keras alone reads the file too
    plain = keras.saving.load_model(tmp_path / "half.keras")
    assert plain.get_layer("b").kernel.constraint is None


def test_files_that_hold_no_pruning(tmp_path: Path) -> None:
    model = two_layers()
    model.save(tmp_path / "plain.keras")
    with pytest.raises(InputError, match="holds no masks"):
        resume_pruning(tmp_path / "plain.keras")
    with pytest.raises(InputError, match="must be a .keras file"):
        resume_pruning(tmp_path / "none.keras")


def test_a_pruned_model_is_kept_as_a_start(blobs: Dataset) -> None:
    once = prune_weights(two_layers(), options=WeightOptions(sparsity=0.5)).model
    zeros = once.get_layer("b").kernel.numpy() == 0
    assert zeros.mean() == 0.5
    pruner = WeightPruner(WeightOptions(sparsity=0.75)).attach(once, steps_per_epoch=10, epochs=1)
    assert pruner.notes == ["layer 'b' begins with 50.0% zeros: kept as a start"]
    fit(once, blobs, 1)
    pruner.strip()
    after = once.get_layer("b").kernel.numpy() == 0
    assert after.mean() == 0.75
    assert np.all(after[zeros])


def test_no_training_at_all() -> None:
    model = two_layers()
    result = prune_weights(model, options=WeightOptions(sparsity=0.75))
    value = model.get_layer("b").kernel.numpy()
    threshold = np.sort(np.abs(value), axis=None)[::-1][63]
    np.testing.assert_array_equal(
        result.model.get_layer("b").kernel.numpy(), np.where(np.abs(value) >= threshold, value, 0)
    )
    assert result.training is None
    assert (model.get_layer("b").kernel.numpy() != 0).all()


@pytest.mark.parametrize("last_update", [1, 40])
def test_n_m_masks_follow_the_weights_at_each_update(last_update: int, blobs: Dataset) -> None:
    """With one update the first masks stay, as in tfmot."""
    keras.utils.set_random_seed(0)
    model = two_layers()
    pruner = WeightPruner(pattern="2:4", schedule=lambda step: (step <= last_update, 0.5))
    pruner.attach(model)
    first = pruner._masks[0].numpy()
    fit(model, blobs, 4, optimizer=keras.optimizers.SGD(0.3))
    assert np.array_equal(pruner._masks[0].numpy(), first) is (last_update == 1)
    pruner.strip()
    runs = model.get_layer("b").kernel.numpy().T.reshape(-1, 4)
    assert set((runs != 0).sum(1)) == {2}


TFMOT = {"target_sparsity": 0.5, "begin_step": 0, "end_step": 50, "frequency": 10}
ERRORS: list[tuple[Callable[[], Any], str]] = [
    (lambda: WeightOptions(sparsity=1.0), r"sparsity must be in \[0, 1\). Received: 1.0"),
    (lambda: WeightOptions(sparsity=-0.1), r"sparsity must be in \[0, 1\)"),
    (lambda: WeightOptions(pattern="4:2"), "N:M with N < M .*Received: 4:2"),
    (lambda: WeightOptions(pattern="0x4"), "ROWSxCOLUMNS"),
    (lambda: WeightOptions(pattern="often"), "weight_pattern must be unstructured"),
    (lambda: WeightOptions(pattern="2:4", scope="global"), "scope must be layer for an N:M"),
    (lambda: WeightOptions(sparsity_end="0%"), "sparsity_end must be above 0%"),
    (lambda: WeightOptions(sparsity_end="-1"), "sparsity_end must be a share of training"),
    (
        lambda: WeightOptions(sparsity_end="soon"),
        "sparsity_end must be .*steps .400.. Received: 'soon'",
    ),
    (lambda: WeightOptions(overrides=("a",)), "weight_overrides must be pattern=share"),
    (lambda: WeightOptions(overrides=("a=1.0",)), "weight_overrides must be pattern=sparsity"),
    (lambda: WeightOptions(sparsity=0.0, overrides=("a=0.5",)), "be above 0 where overrides"),
    (lambda: WeightOptions(include=("everything",)), "Unknown kind of weights to prune too"),
    (lambda: compute_update_times(WeightOptions(), 1), "at least 2 to prune"),
    (
        lambda: compute_update_times(WeightOptions(sparsity_end="2e"), 100),
        "Give steps_per_epoch=",
    ),
    (lambda: WeightPruner().attach(two_layers()), "must know the length of the training"),
    (
        lambda: WeightPruner().attach(two_layers(), steps_per_epoch=0, epochs=3),
        "must know the length of the training. Received: steps_per_epoch=0",
    ),
    (lambda: WeightPruner(schedule=3).attach(two_layers()), "Received: int"),
    (
        lambda: WeightPruner(schedule="constant").attach(two_layers()),
        "a function .* Received: str",
    ),
    (
        lambda: WeightPruner(
            schedule=build_schedule({"class_name": "ConstantSparsity", "config": TFMOT})
        ).attach(two_layers(), steps_per_epoch=10, epochs=2),
        "end_step 50, 20 training steps",
    ),
    (
        lambda: WeightPruner(WeightOptions(pattern="32x1")).once(two_layers()),
        "no larger than the weight. Received: 32x1 for the 16 x 16 kernel of layer 'b'",
    ),
    (
        lambda: WeightPruner(WeightOptions(overrides=("d*=0.5",))).once(two_layers()),
        r"Unknown layer or pattern \(no weights to prune\) 'd\*'",
    ),
]


@pytest.mark.parametrize(("act", "message"), ERRORS)
def test_bad_input(act: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        act()


def test_nan_weights() -> None:
    model = two_layers()
    kernel = model.get_layer("b").kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    with pytest.raises(InputError, match="NaN or infinity in layer 'b'"):
        WeightPruner().once(model)
