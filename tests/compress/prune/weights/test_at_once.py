"""Weights pruned at once and repaired: masks hold, errors fall."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import compress
from compress.core.errors import InputError
from compress.prune.weights import prune_weights


@pytest.fixture(scope="module")
def model() -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            keras.layers.Conv2D(8, 3, activation="relu", name="first"),
            keras.layers.Conv2D(12, 3, use_bias=False, name="middle"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(16, activation="relu", name="hidden"),
            keras.layers.Dense(3, name="last"),
        ]
    )


@pytest.fixture(scope="module")
def x() -> Any:
    # neighbouring pixels depend on each other, so that weights can stand in for others
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(300, 10, 10, 2)).astype(np.float32)
    return sum(noise[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)) / 3


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
def test_zeros_stay_and_outputs_come_near(model: Any, x: Any, pattern: str) -> None:
    sparsity = 0.75 if pattern == "unstructured" else 0.5
    options = {"sparsity": sparsity, "pattern": pattern, "scope": "layer"}
    broken = prune_weights(model, **options)
    mended = prune_weights(model, x[:200], repair=200, **options)
    assert mended.report.sparsity == broken.report.sparsity == pytest.approx(sparsity, abs=0.01)
    for name in ("middle", "hidden"):
        one, two = (result.model.get_layer(name).kernel.numpy() for result in (broken, mended))
        assert np.sum(one == 0) == np.sum(two == 0)
        if pattern == "2:4":  # in one step; else what is left is ranked anew half-way
            np.testing.assert_array_equal(one == 0, two == 0)
        assert not np.allclose(one, two)
    wanted = model(x[200:]).numpy()
    errors = [
        float(((result.model(x[200:]).numpy() - wanted) ** 2).sum()) for result in (broken, mended)
    ]
    assert errors[1] < 0.5 * errors[0]
    assert mended.report.repair is not None
    assert mended.training is None
    assert "layers repaired on 200 examples" in str(mended)


def test_what_prunes_at_once_takes_no_options_of_training(model: Any, x: Any) -> None:
    with pytest.raises(InputError, match="epochs must come without repair, which prunes"):
        prune_weights(model, x, repair=True, epochs=2)
    with pytest.raises(InputError, match="must have data to look at"):
        prune_weights(model, repair=True)
    with pytest.raises(InputError, match="at least 20 examples. Received: 3"):
        prune_weights(model, x, repair=3)
    with pytest.raises(InputError, match="epochs must be at least 1 to train"):
        compress.prune_weights(model, (x, np.arange(len(x)) % 3), epochs=0)


@pytest.mark.parametrize(
    ("sparsity", "left"),
    [(0.75, [0.5, 0.25]), (0.91, [0.3, 0.09]), (0.936, [0.4, 0.16, 0.064])],
)
def test_steps_keep_one_share_each_and_kernels_in_a_row_come_last(
    small_cnn: Any, monkeypatch: pytest.MonkeyPatch, sparsity: float, left: list[float]
) -> None:
    """-ln 0.25 = 1.4, -ln 0.09 = 2.4 and -ln 0.064 = 2.7: two, two and three steps."""
    import compress.prune.weights as weights

    model, told = small_cnn(), []
    reconstruct = weights.reconstruct

    def seen(student: Any, *args: Any, masks: Any, joint: bool, **rest: Any) -> Any:
        count = sum(mask.sum() for mask in masks.values())
        told.append((count / sum(mask.size for mask in masks.values()), joint))
        return reconstruct(student, *args, masks=masks, joint=joint, **rest)

    monkeypatch.setattr(weights, "reconstruct", seen)
    x = np.random.default_rng(0).normal(size=(40, *model.input_shape[1:])).astype(np.float32)
    weights.prune_weights(model, x, sparsity=sparsity, scope="global", repair=40)
    shares, joint = zip(*told, strict=True)
    np.testing.assert_allclose(shares, left, atol=0.01)
    assert joint == (*(False,) * (len(left) - 1), True)
