"""The networks that repair is judged on: what they are, that all can be pruned, where they lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import _small_nets, repair_nets, shrink_goals
from benchmarks.repair_nets import RECIPES, REPAIRED, Recipe, code, trained
from compress.core.errors import InputError
from compress.data import Dataset
from compress.plan import TrainSettings
from compress.prune.channels import coupled_groups


@pytest.mark.parametrize("name", REPAIRED)
def test_all_channels_but_the_outputs_can_leave(name: str) -> None:
    model = RECIPES[name].build()
    assert model.name == name
    assert model.input_shape == (None, 28, 28, 1)
    outputs = (10,) if RECIPES[name].labelled else (28, 28, 1)
    assert model.output_shape == (None, *outputs)
    found = coupled_groups(model)
    assert found.unknown == ()
    assert [(each.units, each.reason.split(" '")[0]) for each in found.frozen] == [
        (outputs[-1], "model output")
    ]
    assert len(found.groups) >= 3
    assert not any(group.reason for group in found.groups)
    assert found.macs is not None
    assert found.least is not None
    assert 1e6 < found.macs < 7e6
    assert found.least < 0.1 * found.macs


def test_mobilenet_has_the_weights_of_the_published_one() -> None:
    import keras

    published = keras.applications.MobileNetV2((32, 32, 1), alpha=0.5, weights=None, classes=10)
    own = _small_nets.mobilenet()
    assert [weight.shape for weight in own.weights] == [
        weight.shape for weight in published.weights
    ]
    # 28 -> 14 -> 7 -> 4 -> 2
    assert own.get_layer("pool").input.shape == (None, 2, 2, 1280)


def test_vit_cuts_patches_in_reading_order() -> None:
    import keras

    model = _small_nets.vit()
    image = np.arange(28 * 28, dtype=np.float32).reshape(1, 28, 28, 1)
    cut = keras.Model(model.input, model.get_layer("sequence").output)(image)
    patches = keras.ops.convert_to_numpy(cut)
    assert patches.shape == (1, 49, 16)
    # the first of the second row of patches, and the last of all
    assert patches[0, 7].tolist() == [(4 + row) * 28 + col for row in range(4) for col in range(4)]
    np.testing.assert_array_equal(patches[0, 48], image[0, 24:, 24:].ravel())


def test_vit_adds_learned_positions() -> None:
    """Two equal patches differ by their places alone: z = x E + E_pos."""
    import keras

    model = _small_nets.vit()
    embed = model.get_layer("embed")
    kernel, positions = (keras.ops.convert_to_numpy(weight) for weight in embed.weights)
    assert positions.shape == (49, 48)
    rows = np.random.default_rng(0).normal(size=(2, 49, 16)).astype(np.float32)
    found = keras.ops.convert_to_numpy(embed(rows))
    np.testing.assert_allclose(found, rows @ kernel + positions, atol=1e-5)


def test_a_name_of_a_file_is_made_of_code_that_counts() -> None:
    text = code(_small_nets.convnext)
    assert "EPSILON = 1e-06" in text
    assert "def _convnext_block(" in text
    assert "def _classifier(" in text
    assert "def _transformer_block(" not in text  # the other networks'
    assert '"""' not in text
    assert "no public name" not in text  # a comment


STORED = sorted(repair_nets.NETS.glob("*-*.keras"))


def test_there_are_stored_networks() -> None:
    assert len(STORED) >= 5


@pytest.mark.parametrize("file", STORED, ids=lambda file: file.stem)
def test_a_stored_network_is_that_of_its_recipe(file: Path) -> None:
    """Else each benchmark of it trains another one: rename the file where it is still the same."""
    name = file.stem.rpartition("-")[0]
    if name in shrink_goals.MOBILENETS:
        assert file.name == shrink_goals.name_file(name)
        return
    assert file.stem == f"{name}-{repair_nets._fingerprint(repair_nets.RECIPES[name], 0)}"


def tiny() -> Any:
    import keras

    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(8, 3, 2, activation="relu")(inputs)
    x = keras.layers.Dense(10, "softmax")(keras.layers.Flatten()(x))
    return keras.Model(inputs, x, name="tiny")


def tiny_autoencoder() -> Any:
    import keras

    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(8, 3, 2, "same", activation="relu")(inputs)
    outputs = keras.layers.Conv2DTranspose(1, 3, 2, "same")(x)
    return keras.Model(inputs, outputs, name="tiny_autoencoder")


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, digits: Dataset) -> dict[str, Recipe]:
    """Two networks that are trained in a moment, on digits."""
    recipes = {
        "tiny": Recipe(tiny, TrainSettings(epochs=3, learning_rate=1e-2)),
        "tiny_autoencoder": Recipe(
            tiny_autoencoder, TrainSettings(epochs=3, learning_rate=1e-2), labelled=False
        ),
    }
    monkeypatch.setattr(repair_nets, "RECIPES", recipes)
    monkeypatch.setattr(repair_nets, "ROOT", tmp_path)
    monkeypatch.setattr(repair_nets, "load_fashion", lambda: digits)
    return recipes


def right(model: Any, data: Dataset) -> float:
    return float((model.predict(data.inputs("val"), verbose=0).argmax(1) == data.val.y).mean())


def explained(model: Any, data: Dataset) -> float:
    x = data.inputs("val")
    error = np.square(model.predict(x, verbose=0) - x).mean()
    return 1 - float(error / x.var())


@pytest.mark.parametrize(
    ("name", "judged", "least"), [("tiny", right, 0.6), ("tiny_autoencoder", explained, 0.5)]
)
def test_a_network_is_trained_once(
    name: str,
    judged: Callable[[Any, Dataset], float],
    least: float,
    own: dict[str, Recipe],
    digits: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, file, sha256 = trained(name)
    assert judged(model, digits) > least
    assert judged(own[name].build(), digits) < least - 0.3
    assert file.parent == tmp_path / "runs" / "benchmarks"
    assert file.name.startswith(f"{name}-")

    def never() -> Dataset:
        raise AssertionError("the file is there: nothing is trained")

    monkeypatch.setattr(repair_nets, "load_fashion", never)
    again = trained(name)
    assert (again.file, again.sha256) == (file, sha256)
    for one, other in zip(model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(AssertionError, match="the file is there"):
        trained(name, seed=1)  # another one


def test_an_unknown_network_is_told() -> None:
    with pytest.raises(InputError, match=r"Unknown network 'resnet'.*autoencoder, convnext"):
        trained("resnet")
