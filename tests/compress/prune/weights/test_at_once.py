"""Weights pruned at once and repaired: masks hold, errors fall, saliencies are what they say."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import compress
from compress.core.errors import InputError
from compress.model.flattening import flat
from compress.model.recording import record
from compress.prune.weights import WeightPruner, prune_weights
from compress.prune.weights.saliency import saliencies
from compress.prune.weights.targets import find_targets
from compress.reconstruction.observing import observe


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
@pytest.mark.parametrize("saliency", ["magnitude", "wanda", "obs"])
def test_zeros_stay_and_outputs_come_near(model: Any, x: Any, pattern: str, saliency: str) -> None:
    sparsity = 0.75 if pattern == "unstructured" else 0.5
    options = {"sparsity": sparsity, "pattern": pattern, "scope": "layer"}
    if saliency == "magnitude":
        broken = prune_weights(model, **options)
    else:
        options["saliency"] = saliency
        broken = prune_weights(model, x[:200], **options)
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


def test_saliencies_are_what_they_say(model: Any, x: Any) -> None:
    targets, _ = find_targets(model)
    hidden = next(target for target in targets if target.layer == "hidden")
    (wanda,), _ = saliencies(model, [hidden], "wanda", x, 0)
    (obs,), _ = saliencies(model, [hidden], "obs", x, 0)
    before = keras.Model(model.inputs[0], model.get_layer("hidden").input)
    rows = before(x).numpy().astype(np.float64)
    kernel = model.get_layer("hidden").kernel.numpy().astype(np.float64)
    centred = rows - rows.mean(0)
    spread = np.sqrt((centred @ kernel).var(0).sum())
    norms = centred.std(0)
    np.testing.assert_allclose(wanda, np.abs(kernel) * norms[:, None] / spread, rtol=1e-3)
    covariance = centred.T @ centred / len(rows)
    alive = norms > 0
    regular = covariance + np.diag(1e-3 * norms**2 + 1e-9 * (norms**2).max())
    inverse = np.diag(np.linalg.inv(regular))
    expected = np.abs(kernel) / np.sqrt(inverse)[:, None] / spread
    np.testing.assert_allclose(obs[alive], expected[alive], rtol=1e-2, atol=1e-6)


def test_what_kernels_read_is_seen_once(model: Any, x: Any) -> None:
    seen = observe(flat(record(model)), [x], samples=10**6)
    middle = seen[id(model.get_layer("middle").kernel)]
    given = keras.Model(model.inputs[0], model.get_layer("first").output)(x).numpy()
    assert middle.moments.count == len(x) * 4 * 4
    # the centre of a 3 x 3 patch runs over all positions but the outer ones
    centre = given[:, 1:-1, 1:-1].reshape(-1, 8).astype(np.float64)
    columns = slice(4 * 8, 5 * 8)
    np.testing.assert_allclose(
        middle.covariance()[columns, columns], np.cov(centre.T, bias=True), rtol=1e-4, atol=1e-7
    )


def test_what_prunes_at_once_takes_no_options_of_training(model: Any, x: Any) -> None:
    with pytest.raises(InputError, match="epochs must come without repair and saliency"):
        prune_weights(model, x, repair=True, epochs=2)
    with pytest.raises(InputError, match="must have data to look at"):
        prune_weights(model, repair=True)
    with pytest.raises(InputError, match="at least 20 examples. Received: 3"):
        prune_weights(model, x, repair=3)
    with pytest.raises(InputError, match="saliency must be magnitude"):
        WeightPruner(saliency="obs").attach(model, steps_per_epoch=4, epochs=1).__enter__()
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
    solve = weights.solve

    def seen(student: Any, *args: Any, masks: Any, joint: bool, **rest: Any) -> Any:
        count = sum(mask.sum() for mask in masks.values())
        told.append((count / sum(mask.size for mask in masks.values()), joint))
        return solve(student, *args, masks=masks, joint=joint, **rest)

    monkeypatch.setattr(weights, "solve", seen)
    x = np.random.default_rng(0).normal(size=(40, *model.input_shape[1:])).astype(np.float32)
    weights.prune_weights(model, x, sparsity=sparsity, scope="global", repair=40)
    shares, joint = zip(*told, strict=True)
    np.testing.assert_allclose(shares, left, atol=0.01)
    assert joint == (*(False,) * (len(left) - 1), True)
