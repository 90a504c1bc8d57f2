"""A pruner around somebody's own `fit`: stripped where the block ends, whatever happens."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from compress import WeightPruner
from compress.core.errors import InputError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(128, 8)).astype(np.float32)
Y = (X[:, :4] @ RNG.normal(size=(4, 3))).argmax(axis=1)
KERNELS = 8 * 16 + 16 * 16 + 16 * 3


def network() -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, activation="relu", name="first"),
            keras.layers.Dense(16, activation="relu", name="middle", kernel_constraint="max_norm"),
            keras.layers.Dense(3, name="last"),
        ]
    )


def compiled(**how: Any) -> Any:
    model = network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, **how)
    return model


def zeros(layer: Any) -> int:
    return int(np.count_nonzero(np.asarray(layer.kernel) == 0))


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.matrix)])
def test_fit_within_a_block(jit: bool) -> None:
    model = compiled(jit_compile=jit)
    model.fit(X, Y, batch_size=32, epochs=1, verbose=0)  # its step is traced by now
    before = [variable.constraint for variable in model.trainable_variables]
    begun = model.evaluate(X, Y, verbose=0)
    with WeightPruner(sparsity=0.75, scope="layer", include=["ends"]).attach(
        model, steps_per_epoch=4, epochs=8
    ) as pruner:
        model.fit(X, Y, batch_size=32, epochs=8, verbose=0)
    # a quarter of each kernel stays, rounded as tfmot does
    assert [zeros(layer) for layer in model.layers] == [96, 192, 36]
    assert pruner.report.sparsity == (96 + 192 + 36) / KERNELS
    # an ordinary model again: the user's constraint is back, nothing holds zeros
    assert [variable.constraint for variable in model.trainable_variables] == before
    assert before[2] is not None
    assert model.evaluate(X, Y, verbose=0) < begun
    model.fit(X, Y, batch_size=32, epochs=1, verbose=0)
    assert zeros(model.layers[1]) < 192


def test_a_block_strips_on_an_error_too() -> None:
    model = compiled()

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            raise KeyboardInterrupt

    pruner = WeightPruner(sparsity=0.5, sparsity_end="25%")
    with pytest.raises(KeyboardInterrupt), pruner.attach(model, steps_per_epoch=4, epochs=2):
        model.fit(X, Y, batch_size=32, epochs=2, verbose=0, callbacks=[Stop()])
    assert model.layers[1].kernel.constraint is not None  # the user's own
    assert type(model.layers[1].kernel.constraint).__name__ == "MaxNorm"
    assert model.layers[0].kernel.constraint is None


def test_without_a_block() -> None:
    model = compiled()
    pruner = WeightPruner(schedule=lambda step: (step == 1, 0.5), sparsity=0.5).attach(
        model, steps_per_epoch=4, epochs=1
    )
    model.fit(X, Y, batch_size=32, epochs=1, verbose=0)
    report = pruner.strip()
    assert report.sparsity == 0.5
    assert pruner.strip() == report
    assert zeros(model.layers[1]) == 128


def test_refusals() -> None:
    with pytest.raises(InputError, match="must be attached to a model"), WeightPruner():
        pass
    with pytest.raises(
        InputError, match=r"Unknown option of WeightPruner\(\) 'sparcity'.*'sparsity'"
    ):
        WeightPruner(sparcity=0.5)  # type: ignore[call-arg]
    with pytest.raises(InputError, match=r"'epochs', which prune_weights\(\) or distill\(\)"):
        WeightPruner(epochs=3)  # type: ignore[call-arg]
