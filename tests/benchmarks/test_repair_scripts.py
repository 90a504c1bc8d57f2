"""What the benchmarks of repair compute themselves: a baseline, choices, tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks import real_size, repair_models, repair_resnet20, repair_vit, repair_weights
from benchmarks._repair import (
    WAYS,
    by_name,
    compensate,
    grams,
    points,
    pruned,
    reconstruction,
    span,
)

# -- GRAIL ---------------------------------------------------------------------------------


def test_what_left_is_told_by_what_stays() -> None:
    """The third channel is the first minus twice the second."""
    rows = np.random.default_rng(0).normal(size=(50, 2))
    rows = np.c_[rows, rows @ [1.0, -2.0]]
    found = reconstruction(rows.T @ rows, np.array([0, 1]), ridge=1e-12)
    np.testing.assert_allclose(found, [[1, 0], [0, 1], [1, -2]], atol=1e-8)


def test_the_ridge_is_relative_to_the_mean_of_the_diagonal() -> None:
    """G = diag(2, 4) with one shared product of 1: B = G[:, 0] / (2 + 0.5 * 2)."""
    found = reconstruction(np.array([[2.0, 1.0], [1.0, 4.0]]), np.array([0]), ridge=0.5)
    np.testing.assert_allclose(found, [[2 / 3], [1 / 3]])


def doubled(width: int = 4) -> Any:
    """A net whose second convolution reads two equal halves: channels 2, 3 repeat 0, 1."""
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(width, 3, activation="relu", name="first")(inputs)
    x = keras.layers.Conv2D(3, 3, activation="relu", name="second")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="last")(x))
    kernel, bias = model.get_layer("first").get_weights()
    halves = np.tile(kernel[..., :2], width // 2), np.tile(bias[:2], width // 2)
    model.get_layer("first").set_weights(halves)
    return model


def test_a_repeated_channel_is_made_up_for() -> None:
    model = doubled()
    x = np.random.default_rng(1).normal(size=(40, 6, 6, 1)).astype(np.float32)
    small = doubled(2)
    for layer, whole_layer in zip(small.layers, model.layers, strict=True):
        weights = whole_layer.get_weights()
        if layer.name == "first":
            weights = [weights[0][..., :2], weights[1][:2]]
        elif layer.name == "second":
            weights[0] = weights[0][:, :, :2]
        layer.set_weights(weights)
    whole: dict[str, Any] = {weight.path: (None,) * len(weight.shape) for weight in model.weights}
    half = np.array([0, 1])
    whole |= {
        "first/kernel": (None, None, None, half), "first/bias": (half,),
        "second/kernel": (None, None, half, None),
    }  # fmt: skip
    wanted, before = (np.asarray(each(x)) for each in (model, small))
    compensate(small, model, x, whole)
    after = np.asarray(small(x))
    assert np.abs(before - wanted).max() > 1e-2
    # the ridge, 1e-3 of the diagonal, leaves a little
    assert np.abs(after - wanted).max() < 0.01 * np.abs(before - wanted).max()


def test_rows_of_a_gram_matrix_are_all_positions() -> None:
    model = doubled()
    x = np.ones((3, 6, 6, 1), np.float32)
    found = grams(model, x)
    assert set(found) == {"first", "second", "last"}
    np.testing.assert_allclose(found["first"], [[3 * 36]])  # ones of three images of 36 pixels
    np.testing.assert_allclose(found["second"][:2, :2], found["second"][2:, 2:])


# -- CORP ----------------------------------------------------------------------------------


def repeated_attention() -> Any:
    """A block in which later columns follow from earlier ones: hidden 4 to 7, queries 2 and 3."""
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 6))
    attention = keras.layers.MultiHeadAttention(2, 4, name="b1_attention")
    x = keras.layers.Add()([inputs, attention(inputs, inputs)])
    x = keras.layers.Dense(8, "relu", name="b1_expand")(x)
    x = keras.layers.Dense(6, name="b1_project")(x)
    model = keras.Model(inputs, x)
    kernel, bias = model.get_layer("b1_expand").get_weights()
    bias = np.random.default_rng(1).normal(size=8)
    model.get_layer("b1_expand").set_weights([np.tile(kernel[:, :4], 2), np.tile(bias[:4], 2)])
    for number, layer in enumerate((attention.query_dense, attention.key_dense)):
        kernel, _ = layer.get_weights()
        bias = np.random.default_rng(number).normal(size=(2, 4))
        # an own combination in every head
        for head in range(2):
            combination = [[1.0, -0.5 * head], [0.3, 0.8 + number]]
            kernel[:, head, 2:] = kernel[:, head, :2] @ combination
            bias[head, 2:] = bias[head, :2] @ combination
        layer.set_weights([kernel, bias])
    return model


def test_columns_that_follow_from_others_are_folded_into_hidden_layers_and_scores() -> None:
    model = repeated_attention()
    x = np.random.default_rng(2).normal(size=(60, 5, 6)).astype(np.float32)
    given = repair_vit.record_inputs(model, x)
    columns = {"b1_attention": np.arange(2), "b1_expand": np.arange(4)}
    small, kept = repair_vit.cut(model, columns)
    assert small.get_layer("b1_expand").kernel.shape == (6, 4)
    assert small.get_layer("b1_attention").query_dense.kernel.shape == (6, 2, 2)
    assert [list(kept[name][1]) for name in kept if "b1_expand/kernel" in name] == [[0, 1, 2, 3]]
    before = np.abs(np.asarray(small(x)) - np.asarray(model(x))).max()
    repair_vit.compensate(small, model, given, columns, 1e-9)
    after = np.abs(np.asarray(small(x)) - np.asarray(model(x))).max()
    assert before > 0.1
    assert after < 1e-3 * before


def test_columns_that_contribute_most_are_kept() -> None:
    model = repeated_attention()
    kernel, bias = model.get_layer("b1_project").get_weights()
    kernel[[1, 5, 6]] = 0.0
    model.get_layer("b1_project").set_weights([kernel, bias])
    query, bias = model.get_layer("b1_attention").query_dense.get_weights()
    query[..., 2] = bias[:, 2] = 1e-6
    model.get_layer("b1_attention").query_dense.set_weights([query, bias])
    given = repair_vit.record_inputs(
        model, np.ones((3, 5, 6), np.float32) * [[[1], [2], [0], [1], [3]]]
    )
    found = repair_vit.choose_columns(model, given, 0.625)
    assert not {1, 5, 6} & set(found["b1_expand"])
    assert len(found["b1_expand"]) == 5
    assert 2 not in found["b1_attention"]


# -- what is shared ------------------------------------------------------------------------


def test_points_spans_and_names() -> None:
    # losses 1, 2, 3 points: standard error 1 / sqrt(3)
    assert points(0.9, [0.89, 0.88, 0.87]) == "2.00 +- 0.58"
    assert points(0.9, [0.91]) == "-1.00 (one seed)"
    assert span([3.2, 2.9]) == "3"
    assert span([1.0, 2.5], 1) == "1.0 to 2.5"
    runs = {"l2, 0.5, seed 0": {"test": 1}, "none, 0.5, seed 0": {"test": 3},
            "l2, 0.5, seed 1": {"test": 2}}  # fmt: skip
    assert by_name(runs, "test") == {"l2, 0.5": [1, 2], "none, 0.5": [3]}


@pytest.mark.parametrize("name", ["none", "l2"])
def test_a_way_prunes_a_model_and_leaves_the_dense_one(name: str, small_cnn: Any) -> None:
    dense = small_cnn()
    before = [weight.numpy() for weight in dense.weights]
    x = np.random.default_rng(0).normal(size=(40, 8, 8, 1)).astype(np.float32)
    model, seconds = pruned(dense, WAYS[name], 0.5, x, 0)
    assert model.count_params() < dense.count_params()
    assert list(seconds) == ["choice", "cut", "after"]
    assert all(value >= 0 for value in seconds.values())
    for weight, value in zip(dense.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


# -- models --------------------------------------------------------------------------------


def test_qualities_by_hand() -> None:
    y = np.array([0, 0, 1, 1])
    made = np.eye(2)[[0, 1, 1, 1]]
    assert repair_models.qualities(np.zeros((4, 1)), y, made, True) == (0.75, [0.5, 1.0])
    x = np.array([[0.0], [2.0], [4.0], [6.0]])
    # squares about the mean: 9 + 1 + 1 + 9 = 20, of each class 1 + 1; one error of 1
    quality, classes = repair_models.qualities(x, y, x + np.eye(4)[:, :1], False)
    assert quality == pytest.approx(1 - 1 / 20)
    assert classes == [pytest.approx(0.5), 1.0]


def test_a_class_that_drops_most_is_told() -> None:
    shifts = dict.fromkeys(("brightness", "blur", "noise"), 0.5)
    dense = {"quality": 0.9, "classes": [0.9, 0.8], "shifted": shifts, "macs": 2e6}
    low = {"quality": 0.7, "classes": [0.8, 0.3], "shifted": shifts}
    high = {"quality": 0.88, "classes": [0.9, 0.75], "shifted": shifts}
    record = {"before": low, "after": high, "seconds": {"repair": 2.0}}
    key = "vit, reconstruction, damage, 0.5, seed 0"
    result = {"dense": {"vit": dense}, "runs": {key: record}}
    assert "| vit | 50.0 (one seed) | 5.0 (one seed) |" in repair_models.worst(result)
    told = repair_models.losses(result)
    assert "| 20.00 (one seed) | 2.00 (one seed) |" in told
    result["runs"][key] = {"not run": "no channels"}
    assert "not run: no channels" in repair_models.losses(result)


# -- cost ----------------------------------------------------------------------------------


def test_images_have_the_spectrum_of_photographs() -> None:
    x = real_size.natural(4, 32)
    assert x.shape == (4, 32, 32, 3)
    np.testing.assert_allclose(x.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(x.std((1, 2)), 1, atol=1e-4)
    power = np.square(np.abs(np.fft.rfft2(x, axes=(1, 2)))).mean((0, 3))
    # amplitudes fall as 1/f: power at a fourth of the frequency is 16 times as large
    assert power[0, 2] + power[2, 0] > 4 * (power[0, 8] + power[8, 0])


def test_costs_of_both_versions_stand_in_rows_of_their_own() -> None:
    row = {
        "seconds": 12.0, "extra_peak_mib": 954.0, "accuracy": [0.9363, 0.93], "share": 0.4978,
        "method": "output error",
        "stages": {"neighbours": 6.0, "reconstruction": 5.8, "first": 0.2},
    }  # fmt: skip
    slow = {**row, "seconds": 20.0, "accuracy": [0.9363, 0.92]}
    rows = {"net auto 0.5 now 0": row, "net auto 0.5 now 1": slow, "net auto 0.5 before 0": slow}
    told = real_size.costs_table({"rows": rows})
    # of 93 and 92 %, the mean has a standard error of half a point
    assert (
        "| net | auto | 0.5x | now | 12 to 20 | 1.00 GB | output error | 0.498x | "
        "93.63 -> 92.50 +- 0.50 % | neighbours 50%, reconstruction 48% |"
    ) in told
    assert "| net | auto | 0.5x | before | 20 |" in told


# -- tables --------------------------------------------------------------------------------


def test_each_kind_of_result_has_its_own_table() -> None:
    seconds = {"choice": 1.0, "cut": 0.5, "after": 3.0}
    plain = {
        "dense": {"test": 0.92, "macs": 100},
        "runs": {f"l2, 0.25, seed {seed}": {"test": 0.9, "macs": 25, "seconds": seconds}
                 for seed in range(2)},
        "torch-pruning": {"not run": "gone"},
    }  # fmt: skip
    told = repair_resnet20.untrained(plain)
    assert "| the same, reconstructed | 2.00 +- 0.00 (0.250x) | 4.5 | 1.0 |" in told
    assert "not run: gone" in told
    zeros = {
        "dense": {"test": 0.92}, "trained": False,
        "runs": {"global repaired, 0.9, seed 0": {"test": 0.9, "seconds": 3.0}},
    }  # fmt: skip
    assert "| magnitude over all layers, reconstructed | 2.00 (one seed) | 3.0 |" in str(
        repair_weights.untrained(zeros)
    )
    assert repair_weights.trained(zeros) is None


def test_zeros_stay_zero_while_a_repaired_net_is_trained(small_cnn: Any) -> None:
    """`_one` relies on it: one update at the sparsity that is there."""
    from compress.plan import WeightOptions
    from compress.prune.weights import WeightPruner

    model = small_cnn()
    way = repair_weights.WAYS["global"]
    start, record = repair_weights.pruned(model, way, 0.75, None, 0)
    zero = {w.path: w.numpy() == 0 for w in start.weights if w.path.endswith("kernel")}
    pruner = WeightPruner(
        WeightOptions(sparsity=0.75, scope="global"), schedule=lambda step: (step == 1, 0.75)
    )
    start.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(32, *model.input_shape[1:])).astype(np.float32)
    y = np.random.default_rng(1).normal(size=(32, *model.output_shape[1:])).astype(np.float32)
    with pruner.attach(start, steps_per_epoch=4, epochs=2):
        start.fit(x, y, batch_size=8, epochs=2, verbose=0)
    assert 0.7 < record["sparsity"] < 0.8
    moved = 0
    for weight in start.weights:
        if weight.path in zero:
            assert not weight.numpy()[zero[weight.path]].any(), weight.path
            moved += int((weight.numpy() != 0).sum())
    assert moved > 0
