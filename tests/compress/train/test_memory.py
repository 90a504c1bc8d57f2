"""Predictions, criteria, repair, quantization and training under budgets of a few megabytes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import compress.train.predict
from compress.core import memory_budget
from compress.core.device import Device
from compress.core.errors import InputError
from compress.core.memory_budget import MemoryBudget
from compress.data import Dataset
from compress.model.activations import count_activation_bytes
from compress.plan import TrainSettings
from compress.train import train
from compress.train.loop import BACKWARD_FACTOR, WEIGHT_COPIES, count_batch_parts
from compress.train.predict import predict_logits

Budget = Callable[[int], None]


@pytest.fixture
def budget_of(monkeypatch: pytest.MonkeyPatch) -> Budget:
    """Sets the budget, of which nothing is occupied."""

    def use(size: int) -> None:
        monkeypatch.setattr(memory_budget, "_current", MemoryBudget(size, is_user_set=True))
        monkeypatch.setattr(MemoryBudget, "measure_free_bytes", lambda self: self.bytes)

    return use


def test_predictions_in_smaller_batches_are_the_same(
    digits: Dataset, small_cnn: Any, budget_of: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    padded = compress.train.predict._pad_batch

    def noted(size: int, part: Any) -> Any:
        sizes.append(size)
        return padded(size, part)

    monkeypatch.setattr(compress.train.predict, "_pad_batch", noted)
    model = small_cnn()
    budget_of(10**10)
    whole = predict_logits(model, digits, "val")
    assert set(sizes) == {len(digits.val)}
    sizes.clear()
    budget_of(2**18)
    found = predict_logits(model, digits, "val")
    # 1.5 x the bytes of an example, in half of the budget
    fitting = 2**17 // int(1.5 * count_activation_bytes(model).live)
    assert set(sizes) == {1 << (fitting.bit_length() - 1)}
    np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-5)


def test_answers_that_stand_for_labels_are_the_same(
    digits: Dataset, small_cnn: Any, budget_of: Budget
) -> None:
    from compress.model.activations import find_batch_size
    from compress.model.heads import PREDICTION_BATCH_SIZE, build_predictor

    model = small_cnn()
    answers = build_predictor(model)
    budget_of(10**10)
    whole = answers(digits.val.x, digits.preprocess)
    budget_of(2**18)
    assert find_batch_size(model, PREDICTION_BATCH_SIZE, input_shapes=[(8, 8, 1)]) < 20
    found = answers(digits.val.x, digits.preprocess)
    np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-6)


def test_a_forward_pass_takes_no_more_than_its_share_however_much_is_free(
    budget_of: Budget,
) -> None:
    import keras

    from compress.model.activations import find_batch_size

    budget_of(10**12)
    inputs = keras.Input((256, 256, 64))
    model = keras.Model(inputs, keras.layers.ReLU()(inputs))
    # input and output are live: 2 x 16 MiB, and half as much again for workspaces, in 512 MiB
    assert find_batch_size(model, 1024) == 8
    # what trains is not split by it: batch normalization would see other batches
    assert find_batch_size(model, 1024, keeps_all=True) == 1024


@pytest.mark.parametrize("criterion", ["taylor", "activation"])
def test_scores_are_the_same(
    criterion: str, digits: Dataset, small_cnn: Any, budget_of: Budget
) -> None:
    from compress.prune.channels.analysis import analyze_coupling
    from compress.prune.channels.criteria import CRITERIA, Context

    coupling = analyze_coupling(small_cnn())

    def scores() -> Any:
        context = Context(coupling, data=digits, seed=0)
        return np.concatenate([CRITERIA[criterion](group, context) for group in coupling.groups])

    budget_of(10**10)
    whole = scores()
    budget_of(2**20)
    # of batches of 128 examples 32 fit or fewer; the last batch of all weighs as much as others
    np.testing.assert_allclose(scores(), whole, rtol=1e-4 if criterion == "taylor" else 0.05)


def test_a_repair_is_the_same(digits: Dataset, small_cnn: Any, budget_of: Budget) -> None:
    from compress import prune_channels, repair

    model = small_cnn()
    x = digits.preprocess(digits.train.x)[:400]
    made = []
    for size in (10**10, 2**21):
        budget_of(size)
        pruned = prune_channels(model, macs=0.5, round_to=2, repair=False)
        report = repair(pruned.model, model, x, kept=pruned.kept, joint=False)
        made.append((np.asarray(pruned.model(x)), report.output_error[0][1]))
    (whole, error), (found, other) = made
    np.testing.assert_allclose(found, whole, atol=1e-3)
    assert other == pytest.approx(error, rel=0.05)


def test_quantization_is_the_same(digits: Dataset, small_cnn: Any, budget_of: Budget) -> None:
    from compress import quantize

    model, x = small_cnn(), digits.preprocess(digits.train.x)[:200]
    made = []
    for size in (10**10, 2**21):
        budget_of(size)
        found = quantize(model, x, epochs=0)
        made.append((np.asarray(found.quantized(x)), [item.total for item in found.errors]))
    (whole, errors), (found, others) = made
    np.testing.assert_allclose(found, whole, atol=0.02)  # a few steps of the output's grid
    assert others == pytest.approx(errors, rel=0.05, abs=1e-4)


def test_a_batch_that_does_not_fit_is_cut(small_cnn: Any, budget_of: Budget) -> None:
    model = small_cnn()
    each = int(BACKWARD_FACTOR * count_activation_bytes(model).total)
    weights = WEIGHT_COPIES * 4 * model.count_params()
    budget_of(10**9)
    assert count_batch_parts(model, 100) == 1
    budget_of(2 * (weights + 30 * each))  # 30 fit into the half: 16, so seven parts of 15
    assert count_batch_parts(model, 100) == 7
    budget_of(weights + 3 * each)  # batch normalization wants four
    with pytest.raises(InputError, match="for training model 'small_cnn'"):
        count_batch_parts(model, 100)


def test_parts_of_a_batch_make_its_step(blobs: Dataset, cpu: Device, budget_of: Budget) -> None:
    """Without batch normalization the mean of the parts' gradients is that of the batch."""
    import keras

    kernels = []
    for size in (10**9, 22_000):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((4,))
        hidden = keras.layers.Dense(16, activation="relu")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(3)(hidden))
        budget_of(size)
        settings = TrainSettings(
            epochs=1,
            batch_size=240,
            optimizer="sgd",
            learning_rate=0.1,
            learning_rate_schedule="constant",
        )
        result = train(model, blobs, settings, device=cpu)
        assert any("trained in" in note for note in result.notes) == (size < 10**9)
        kernels.append(model.weights[0].numpy())
    np.testing.assert_allclose(kernels[1], kernels[0], rtol=1e-4, atol=1e-6)


def test_a_training_that_goes_on_keeps_its_parts(
    blobs: Dataset, cpu: Device, budget_of: Budget, tmp_path: Path
) -> None:
    """The second half of it may find another amount of memory free."""
    import keras

    settings = TrainSettings(epochs=4, batch_size=240, learning_rate_schedule="cosine")
    kernels = []
    for sizes in ((22_000,), (22_000, 10**9)):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((4,))
        hidden = keras.layers.Dense(16, activation="relu")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(3)(hidden))
        for place, size in enumerate(sizes):
            budget_of(size)
            half = place == 0 and len(sizes) == 2

            def stops(record: Any, half: bool = half) -> bool:
                return half and record.epoch == 2

            result = train(
                model, blobs, settings, device=cpu, should_stop=stops,
                checkpoint=tmp_path / f"run{len(sizes)}",
            )  # fmt: skip
        assert len(result.history) == 4
        kernels.append(model.weights[0].numpy())
    np.testing.assert_array_equal(kernels[1], kernels[0])


def test_work_that_cannot_fit_is_refused_before_it_begins(
    digits: Dataset, small_cnn: Any, budget_of: Budget, tmp_path: Path
) -> None:
    from compress import compress_model

    budget_of(2 * 10**8)
    with pytest.raises(
        InputError, match="memory must be at least .* for work on model 'small_cnn'"
    ):
        compress_model(small_cnn(), digits, channels=0.5, out=tmp_path / "made")
    assert not (tmp_path / "made").exists()


def watched(folder: Path, model: Any, memory: str, *options: str) -> float:
    """Compresses a model with 300 images in a process of its own; returns its peak, bytes."""
    from benchmarks.memory_budget import MIB, watch_command

    model.save(folder / "m.keras")
    x = np.random.default_rng(0).integers(0, 256, (300, 96, 96, 3), dtype=np.uint8)
    np.savez(folder / "x.npz", x_train=x)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [
        sys.executable, "-m", "paretune", "compress", "m.keras", "--data", "x.npz", "--task",
        "unlabelled", "--normalize", "symmetric", "--channels", "0.5x",
        "--channel-criterion", "l2", "--repair", "100", "--formats", "float32",
        "--latency-budget", "0.5", "--memory", memory, "--out", "made", *options,
    ]  # fmt: skip
    found = watch_command(command, 5000, folder / "log", cwd=folder, env=environment)
    assert found["ended"] == "exit code 0", (folder / "log").read_text()[-2000:]
    return float(found["peak"]) * MIB


@pytest.mark.slow
def test_the_peak_of_a_process_stays_below_its_budget(tmp_path: Path) -> None:
    """Batches of 96 x 96 x 64 values and five layers: the peak is 3.0 GB with --memory 15GB."""
    import keras

    layers = keras.layers
    inputs = keras.Input((96, 96, 3))
    x = layers.Conv2D(64, 1, activation="relu")(inputs)
    for _ in range(4):
        x = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    outputs = layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    options = ("--finetune-epochs", "1", "--batch-size", "256", "--sparsity", "0")
    peak = watched(tmp_path, keras.Model(inputs, outputs), "2.2GB", *options)
    assert peak < 1.1 * 2.2e9


@pytest.mark.matrix
def test_the_peak_of_a_process_with_mobilenetv2(tmp_path: Path) -> None:
    import keras

    model = keras.applications.MobileNetV2((96, 96, 3), weights=None, classes=10)
    assert watched(tmp_path, model, "3GB", "--finetune-epochs", "0") < 1.1 * 3e9
