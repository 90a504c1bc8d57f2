"""What a training is measured by before it counts as diverged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress import distill
from compress.core.device import Device
from compress.core.errors import TrainingDiverged
from compress.data import Dataset, Preprocessing, Split
from compress.data.tasks import Regression
from compress.plan import DistillOptions, TrainSettings
from compress.train import train
from compress.train.loop import Training

SETTINGS = TrainSettings(epochs=60, batch_size=25, learning_rate=0.1)


def line(offset: float, scale: float = 1.0) -> Dataset:
    """Two targets: scale * x + offset and -scale * x + offset."""
    rng = np.random.default_rng(0)

    def part(count: int) -> Split:
        x = rng.normal(size=(count, 1)).astype(np.float32)
        return Split(x, np.hstack([offset + scale * x, offset - scale * x]).astype(np.float32))

    names = ("up", "down")
    return Dataset(
        "line", part(500), part(200), part(200), names, Preprocessing(), (), "regression"
    )


def mlp(width: int = 16, outputs: int = 2, **last: Any) -> Any:
    import keras

    keras.utils.set_random_seed(1)
    inputs = keras.Input((1,))
    x = keras.layers.Dense(width, activation="relu", name="hidden")(inputs)
    return keras.Model(inputs, keras.layers.Dense(outputs, name="last", **last)(x))


@pytest.mark.parametrize(("offset", "rate"), [(5, 0.01), (20, 0.03), (200, 0.1), (-200, 0.1)])
def test_labels_that_are_not_centred_are_learnt(cpu: Device, offset: float, rate: float) -> None:
    result = train(mlp(), line(offset), replace(SETTINGS, learning_rate=rate), device=cpu)
    assert result.history[0].loss > 10.0, "the case must cost more than 10 variances at first"
    assert result.val["r2"] > 0.95
    assert result.val["mae"] < 0.3


def test_labels_of_a_large_scale_are_learnt(cpu: Device) -> None:
    result = train(
        mlp(), line(3e4, 1e4), replace(SETTINGS, learning_rate=3.0, epochs=100), device=cpu
    )
    assert result.val["r2"] > 0.95


def test_a_student_of_labels_that_are_not_centred_learns(cpu: Device) -> None:
    data = line(200.0)
    teacher, student = mlp(32), mlp(8)
    train(teacher, data, SETTINGS, device=cpu)
    result = distill(student, teacher, data, DistillOptions(), finetune=SETTINGS, device=cpu)
    assert result.training.val["r2"] > 0.9


def test_guessing_zero_by_hand() -> None:
    """Targets 1, 3 and 10, 10: means 2 and 10, variances 1 and 0."""
    labels = np.array([[1.0, 10.0], [3.0, 10.0]], np.float32)
    task = Regression.from_labels(labels)
    assert (task.num_targets, task.variance, task.means) == (2, 0.5, (2.0, 10.0))
    costs = task.loss(labels, np.zeros((2, 2), np.float32)).numpy()
    assert task.chance_loss() == pytest.approx(costs.mean()) == pytest.approx(0.5 + (4 + 100) / 2)
    # labels that are all the same leave a yardstick too
    assert Regression.from_labels(np.zeros((4, 1), np.float32)).chance_loss() == 1.0


def test_a_network_that_begins_far_off_is_given_time(cpu: Device) -> None:
    """Inputs of thousands: before training it costs more than ten times what zero does."""
    data = line(0.0)
    far = replace(data, train=replace(data.train, x=data.train.x * 3000.0))
    settings = replace(SETTINGS, optimizer="adam", learning_rate=0.01, epochs=2)
    result = train(mlp(), far, settings, device=cpu)
    assert result.history[0].loss > 10 * data.task.chance_loss()


def test_a_large_penalty_is_no_divergence(cpu: Device) -> None:
    import keras

    model = mlp(kernel_regularizer=keras.regularizers.L2(100.0))
    result = train(model, line(0.0), replace(SETTINGS, epochs=1), device=cpu)
    assert result.history[0].loss > 20.0


def test_an_explosion_is_found_and_measured(cpu: Device) -> None:
    data = line(5.0)
    exploding = replace(
        SETTINGS, optimizer="sgd", learning_rate=1e3, learning_rate_schedule="constant"
    )
    with pytest.raises(TrainingDiverged, match="NaN or infinite|above 10 times"):
        train(mlp(), data, exploding, device=cpu)


def test_the_yardstick_is_that_of_the_start_where_a_training_goes_on(
    cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beginning far off, interrupted when it is near: the later epochs may cost as much."""

    data = line(0.0)
    far = replace(data, train=replace(data.train, x=data.train.x * 3000.0))
    file = tmp_path / "training.npz"
    seen: list[float] = []
    settings = replace(SETTINGS, learning_rate=0.01, epochs=3)

    def stop(epoch: int, *_: Any) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    started: Callable[..., None] = Training.start

    def noted(self: Any, *given: Any) -> None:
        started(self, *given)
        seen.append(self.baseline_loss)

    monkeypatch.setattr(Training, "start", noted)
    with pytest.raises(KeyboardInterrupt):
        train(mlp(), far, settings, device=cpu, checkpoint=file, on_epoch=stop)
    train(mlp(), far, settings, device=cpu, checkpoint=file)
    assert seen[0] == seen[1] > 10 * data.task.chance_loss()
