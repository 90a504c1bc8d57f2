"""The scaling of a stranger's model is found by its answers, or asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from compress.core.errors import InputError
from compress.data import Dataset, Preprocessing, Split, load_data
from compress.data.preprocessing import fit_preprocessing, infer_full_scale, list_scalings
from compress.train.predict import find_scaling

NAMES = ("none", "unit", "symmetric", "standardize", "center", "caffe", "torch")


@pytest.fixture(scope="module")
def images() -> Dataset:
    """Noisy images of four patterns of different brightness and colour, bytes."""
    rng = np.random.default_rng(0)
    patterns = rng.uniform(0, 60, (4, 6, 6, 3)) + rng.uniform(10, 90, (4, 1, 1, 3))

    def part(count: int) -> Split:
        y = np.arange(count) % 4
        x = patterns[y] + rng.normal(0, 50, (count, 6, 6, 3))
        return Split(np.clip(x, 0, 255).astype(np.uint8), y)

    names = ("a", "b", "c", "d")
    return Dataset("made", part(400), part(200), part(40), names, Preprocessing(), max_value=255.0)


def nearest_mean(data: Dataset, scaling: Preprocessing, softmax: bool = False) -> Any:
    """The classifier by the nearest class mean: x c - |c|^2 / 2, of inputs in one scaling."""
    import keras

    x, y = scaling(data.train.x), data.train.y
    x = x.reshape(len(x), -1)
    means = np.stack([x[y == label].mean(0) for label in range(data.num_classes)])
    # the spread makes logits those of a Gaussian: neither bold nor shy
    spread = float(((x - means[y]) ** 2).mean())
    inputs = keras.Input(data.input_shape)
    head = keras.layers.Dense(data.num_classes, activation="softmax" if softmax else None)
    model = keras.Model(inputs, head(keras.layers.Flatten()(inputs)))
    head.set_weights([means.T / spread, -(means**2).sum(1) / 2 / spread])
    return model


@pytest.mark.parametrize("name", NAMES)
def test_each_scaling_is_found(name: str, images: Dataset) -> None:
    scaling = fit_preprocessing(images.train.x, 255.0, name)
    model = nearest_mean(images, scaling, softmax=name == "unit")
    found = find_scaling(model, images, "Model 'm'")
    assert (found.name, found.preprocess) == (name, scaling)
    # by hand: what the model makes of these inputs, and of those of the next
    x, y, which = images.val.x, images.val.y, "200 validation"
    if "training examples" in found.note:
        x, y = np.concatenate([x, images.train.x]), np.concatenate([y, images.train.y])
        which = "200 validation and 400 training"
    second = found.note.split("before ")[1].split(" ")[0]
    right, behind = (
        (model.predict(fit_preprocessing(images.train.x, 255.0, of)(x), verbose=0).argmax(-1) == y)
        .mean() for of in (name, second)
    )  # fmt: skip
    assert found.note.startswith(
        f"inputs of model 'm' are scaled by {name} (accuracy {right:.4f}), before {second} "
        f"(accuracy {behind:.4f})"
    )
    assert f": found on {which} examples" in found.note
    assert ("times too large or too small" in found.note) == (behind > right)


def test_scalings_by_hand(images: Dataset) -> None:
    pixel = np.array([[[[0.0, 127.5, 255.0]]]])
    train = np.concatenate([pixel, pixel / 3])
    expected = {
        "none": [0, 127.5, 255],
        "unit": [0, 0.5, 1],
        "symmetric": [-1, 0, 1],
        "center": [0, 42.5, 85],
        "standardize": [0, 1, 1],
        "caffe": [255 - 103.939, 127.5 - 116.779, -123.68],
        "torch": [-0.485 / 0.229, 0.044 / 0.224, 0.594 / 0.225],
    }
    assert set(expected) == set(NAMES)
    for name, values in expected.items():
        made = fit_preprocessing(train, 255.0, name)
        np.testing.assert_allclose(made(pixel)[0, 0, 0], values, atol=1e-4, err_msg=name)
    # floats of pixels: nothing but their values says that 255 is full
    floats = images.train.x.astype(np.float32)
    assert infer_full_scale(floats, 1.0) == 255
    assert infer_full_scale(floats / 255, 1.0) == 1
    assert infer_full_scale(floats - 100, 1.0) == 1
    assert infer_full_scale(floats[:, 0, 0], 1.0) == 1
    assert fit_preprocessing(floats, 1.0, "unit").scale == pytest.approx(1 / 255)
    assert fit_preprocessing(floats / 255, 1.0, "caffe")(pixel / 255)[0, 0, 0] == pytest.approx(
        expected["caffe"], abs=1e-3
    )
    assert list(list_scalings(images.train.x, 255.0)) == [
        "none", "unit", "symmetric", "standardize", "center", "caffe", "torch"
    ]  # fmt: skip
    grey = images.train.x[..., :1]
    assert list(list_scalings(grey, 255.0)) == ["none", "unit", "symmetric", "standardize"]
    table = np.random.default_rng(0).normal(3, 2, (50, 4))
    assert list(list_scalings(table, 1.0)) == ["none", "standardize"]
    # what is the same is tried once
    whole = np.concatenate([table, -table])
    whole /= whole.std(axis=0)
    assert list(list_scalings(whole, 1.0)) == ["none"]
    for name in ("caffe", "torch"):
        with pytest.raises(InputError, match=f"normalize '{name}' must have images of three"):
            fit_preprocessing(table, 1.0, name)


def test_inputs_are_made_from_inputs_of_another_scaling(images: Dataset) -> None:
    x = images.val.x[:9]
    for one in NAMES:
        for two in NAMES:
            ours, theirs = (fit_preprocessing(images.train.x, 255.0, n) for n in (one, two))
            made = ours.from_inputs(theirs)(theirs(x))
            np.testing.assert_allclose(made, ours(x), rtol=1e-3, atol=2e-3)
            np.testing.assert_array_equal(ours.to_graph_function()(x).numpy(), ours(x))


def test_no_better_than_guessing(images: Dataset) -> None:
    """A model that knows nothing of these data, and one that always says the same."""
    import keras

    rng = np.random.default_rng(1)
    model = nearest_mean(images, Preprocessing())
    shuffled = replace(images, val=replace(images.val, y=rng.permutation(images.val.y)))
    with pytest.raises(InputError, match=r"Model 'm' must answer .* better than guessing") as got:
        find_scaling(model, shuffled, "Model 'm'")
    assert "examples. Pass --normalize with what it was trained with" in str(got.value)
    constant = keras.models.clone_model(model)
    constant.layers[-1].set_weights([np.zeros((108, 4)), np.array([3.0, 0, 0, 0])])
    with pytest.raises(InputError, match=r"better than guessing.* \(accuracy 0.2500\) at best"):
        find_scaling(constant, images, "Model 'm'")


def test_rare_classes_are_no_guessing(images: Dataset) -> None:
    """One class of 90 %: saying it always is right as often as a model that finds the others."""
    keep = np.sort(np.concatenate([np.flatnonzero(images.train.y == 0)[:90],
                                   np.flatnonzero(images.train.y == 1)[:10]]))  # fmt: skip
    two = Split(images.train.x[keep], images.train.y[keep])
    rare = replace(images, train=two, val=two, test=two, class_names=("a", "b"))
    found = find_scaling(nearest_mean(rare, Preprocessing()), rare, "Model 'm'")
    assert found.name == "none"


def test_within_noise_stops(images: Dataset) -> None:
    """Bytes are answered with the first two classes, [0, 1] with the others: half right each."""
    import keras

    donor = nearest_mean(images, fit_preprocessing(images.train.x, 255.0, "unit"))
    inputs = keras.Input((6, 6, 3))
    low, high = (made(inputs, axis=(1, 2, 3))[:, None] for made in (keras.ops.min, keras.ops.max))
    pixels = keras.ops.where(high[..., None, None] > 3, inputs / 255.0, inputs)
    bonus = keras.ops.where(high > 3, np.float32([[99, 99, 0, 0]]), np.float32([[0, 0, 99, 99]]))
    # what is neither gets no answer
    known = keras.ops.logical_and(low >= 0, keras.ops.logical_or(high > 3, high <= 1))
    model = keras.Model(inputs, (donor(pixels) + bonus) * keras.ops.cast(known, "float32"))
    by_bytes = model.predict(images.val.x.astype(np.float32), verbose=0).argmax(-1)
    assert set(by_bytes) == {0, 1}
    message = r"Model 'm' must show by its answers .* (none|unit) .* (none|unit) .*within noise"
    with pytest.raises(InputError, match=message) as caught:
        find_scaling(model, images, "Model 'm'")
    assert "Pass --normalize with what it was trained with" in str(caught.value)


def test_a_model_that_scales_itself_needs_no_choice(images: Dataset) -> None:
    """Standardized by itself, example by example: every scaling without offset is right."""
    import keras

    grey = replace(
        images,
        **{
            part: replace(images.split(part), x=images.split(part).x[..., :1])
            for part in ("train", "val", "test")
        },
    )
    x = grey.train.x.astype(np.float64).reshape(400, -1)
    x = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    means = np.stack([x[grey.train.y == label].mean(0) for label in range(4)])
    inputs = keras.Input((6, 6, 1))
    flat = keras.layers.Flatten()(inputs)
    centred = flat - keras.ops.mean(flat, axis=1, keepdims=True)
    unit = centred / keras.ops.std(flat, axis=1, keepdims=True)
    head = keras.layers.Dense(4)
    model = keras.Model(inputs, head(unit))
    head.set_weights([means.T, -(means**2).sum(1) / 2])
    found = find_scaling(model, grey, "Model 'm'")
    assert "it answers alike" in found.note


def test_numbers_are_judged_by_their_errors() -> None:
    rng = np.random.default_rng(0)

    def part(count: int) -> Split:
        x = rng.normal(40, 7, (count, 3)).astype(np.float32)
        y = (x @ np.array([1.0, -2.0, 0.5])[:, None] + 100).astype(np.float32)
        return Split(x, y + rng.normal(0, 1, y.shape).astype(np.float32))

    data = Dataset("n", part(300), part(80), part(9), ("t",), Preprocessing(), kind="regression",
                   max_value=1.0)  # fmt: skip
    import keras

    for name in ("none", "standardize"):
        scaling = fit_preprocessing(data.train.x, 1.0, name)
        x = np.column_stack([scaling(data.train.x), np.ones(300)])
        solved = np.linalg.lstsq(x, data.train.y, rcond=None)[0]
        inputs = keras.Input((3,))
        head = keras.layers.Dense(1)
        model = keras.Model(inputs, head(inputs))
        head.set_weights([solved[:3], solved[3]])
        found = find_scaling(model, data, "Model 'm'")
        assert found.name == name
        assert "(r2 0.9" in found.note
    # the mean of the training labels, whatever comes in
    head.set_weights([np.zeros((3, 1)), data.train.y.mean(axis=0)])
    with pytest.raises(InputError, match="better than guessing"):
        find_scaling(model, data, "Model 'm'")


def test_what_is_in_memory_is_fed_as_it_is(digits: Dataset, blobs: Dataset) -> None:
    assert digits.max_value == 16
    assert blobs.max_value is None
    assert load_data("digits", normalize="symmetric").inputs("train").min() == -1


def test_answers_that_are_all_right_are_not_too_shy() -> None:
    """Where nothing is wrong the loss falls with every bolder answer: that is no evidence."""
    import keras

    rng = np.random.default_rng(0)
    y = (np.arange(900) % 10 < 3).astype(np.int64)
    # the line between both is 0; the mean, which standardizing moves there, is -0.4
    x = (rng.normal(0, 0.28, 900) + np.where(y, 1.0, -1.0))[:, None].astype(np.float32)
    x = np.where(y[:, None] == 1, np.maximum(x, 0.1), np.minimum(x, -0.1))
    parts = [Split(x[part], y[part]) for part in (slice(500), slice(500, 700), slice(700, 900))]
    data = Dataset("made", *parts, ("a", "b"), Preprocessing(), max_value=1.0)
    inputs = keras.Input((1,))
    head = keras.layers.Dense(2, activation="softmax")
    model = keras.Model(inputs, head(inputs))
    head.set_weights([np.array([[-1.0, 1.0]]), np.zeros(2)])
    moved = list_scalings(x[:500], 1.0)["standardize"](data.val.x)
    wrong = int((np.asarray(model(moved)).argmax(-1) != data.val.y).sum())
    assert 1 <= wrong <= 4
    assert (np.asarray(model(data.val.x)).argmax(-1) == data.val.y).all()
    assert find_scaling(model, data, "Model 'm'").name == "none"
