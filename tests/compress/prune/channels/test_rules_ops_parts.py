"""The law for raw operations that take parts of axes, join them, move them, multiply them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from compress.prune.channels.selection.costs import CostModel
from tests.compress.prune.channels.law import SEEDS, check, compare, outputs_of, random_inputs
from tests.compress.prune.channels.test_rules_ops import (
    HEAD,
    NUMBERS,
    dense_net,
    image_net,
    reasons,
)

MATRIX = np.random.default_rng(8).normal(size=(8, 8)).astype(np.float32)


def halves(x: Any) -> Any:
    """The first half through a layer, then joined."""
    one, two = ops.split(x, [4], axis=-1)
    return ops.concatenate([layers.Dense(4)(one), two], axis=-1)


def shuffle(x: Any, groups: int = 2) -> Any:
    """The channel shuffle of ShuffleNet."""
    height, width, channels = x.shape[1:]
    x = ops.reshape(x, (-1, height, width, groups, channels // groups))
    return ops.reshape(ops.transpose(x, (0, 1, 2, 4, 3)), (-1, height, width, channels))


def shuffle_unit(x: Any) -> Any:
    """Splits channels, convolves one half, joins and shuffles."""
    kept, worked = ops.split(x, 2, axis=-1)
    worked = layers.Conv2D(4, 3, padding="same", activation="relu")(worked)
    return shuffle(ops.concatenate([kept, worked], axis=-1))


def option_a(x: Any) -> Any:
    """The shortcut of ResNet without weights."""
    short = ops.pad(x[:, ::2, ::2, :], [[0, 0], [0, 0], [0, 0], [2, 2]])
    return ops.relu(layers.Conv2D(short.shape[-1], 3, strides=2, padding="same")(x) + short)


def attention(x: Any, heads: int = 2) -> Any:
    """Attention by hand."""
    time, width = x.shape[1], 12

    def by_head(tensor: Any) -> Any:
        tensor = ops.reshape(tensor, (-1, time, heads, width // heads))
        return ops.transpose(tensor, (0, 2, 1, 3))

    q, k, v = (by_head(layers.Dense(width, name=name)(x)) for name in ("query", "key", "value"))
    scores = ops.softmax(ops.matmul(q, ops.swapaxes(k, -1, -2)) / np.sqrt(width / heads).item())
    mixed = ops.transpose(ops.matmul(scores, v), (0, 2, 1, 3))
    return x + layers.Dense(x.shape[-1])(ops.reshape(mixed, (-1, time, width)))


def einsum_attention(x: Any) -> Any:
    """Attention by einsum, with heads as an axis of the kernels."""
    q, k, v = (layers.EinsumDense("btc,chd->bthd", (6, 3, 4), bias_axes="hd")(x) for _ in range(3))
    scores = ops.softmax(ops.einsum("bthd,bshd->bhts", q, k) * 0.5)
    mixed = ops.einsum("bhts,bshd->bthd", scores, v)
    return layers.EinsumDense("bthd,hdc->btc", (6, 8), bias_axes="c")(mixed)


def fused_attention(x: Any, **kwargs: Any) -> Any:
    """`keras.ops.dot_product_attention`."""
    q, k, v = (layers.EinsumDense("btc,chd->bthd", (6, 3, 4), bias_axes="hd")(x) for _ in range(3))
    mixed = ops.dot_product_attention(q, k, v, **kwargs)
    return layers.EinsumDense("bthd,hdc->btc", (6, 8), bias_axes="c")(mixed)


def grouped_attention(x: Any) -> Any:
    """Four heads of queries, two of keys and values."""
    shapes = ((6, 4, 4), (6, 2, 4), (6, 2, 4))
    q, k, v = (layers.EinsumDense("btc,chd->bthd", shape)(x) for shape in shapes)
    mixed = ops.dot_product_attention(q, k, v, is_causal=True)
    return layers.EinsumDense("bthd,hdc->btc", (6, 8), bias_axes="c")(mixed)


BIAS = np.random.default_rng(9).normal(size=(1, 3, 6, 6)).astype(np.float32)
SEQUENCES: dict[str, Callable[[Any], Any]] = {
    "slices": lambda x: x[..., 2:-1] + x[:, ::-1, 3:] + x[..., :-3],
    "every second": lambda x: x[..., ::2] * x[:, :, 1::2] + x[..., 1:8:2],
    "every fourth": lambda x: layers.Dense(5)(x[..., 5::4]),
    "reversed": lambda x: ops.concatenate([x[:, :, ::-1], x[..., 6:1:-1]], axis=-1),
    "new axes": lambda x: x[:, None, ..., None][:, 0, :, :, 0] + x[:, -1][:, None],
    "keyword": lambda x: ops.get_item(x, key=[slice(None), slice(1, 4)]),
    "split by number": lambda x: ops.multiply(*ops.split(x, 2, axis=-1)),
    "split by positions": halves,
    "split of positions": lambda x: ops.add(*ops.split(x, 2, axis=1)),
    "array split of positions": lambda x: ops.array_split(x, 4, axis=1)[0],
    "joined": lambda x: ops.concatenate([x, ops.sigmoid(x), layers.Dense(3)(x)], axis=-1),
    "joined positions": lambda x: ops.append(x, layers.Dense(8)(x), axis=1),
    "stacked": lambda x: ops.sum(ops.stack([x, layers.Dense(8)(x)], axis=2), axis=2),
    "unstacked positions": lambda x: ops.maximum(*ops.unstack(x[:, :2], axis=1))[:, None],
    "padded": lambda x: ops.pad(x, [[0, 0], [1, 0], [2, 1]]),
    "padded with ones": lambda x: ops.pad(x, ((0, 0), (0, 0), (0, 3)), constant_values=1.0),
    "padded by reflection": lambda x: ops.pad(x, [[0, 0], [2, 1], [0, 0]], mode="reflect"),
    "taken": lambda x: ops.take(x, [7, 1, 1, -2], axis=-1) + ops.take(x, np.arange(4), axis=2),
    "taken positions": lambda x: ops.take(x, np.array([[0, 2], [1, 3]]), axis=1)[:, :, 0],
    "repeated": lambda x: ops.repeat(ops.repeat(x, 2, axis=-1), [2], axis=1),
    "tiled": lambda x: ops.tile(ops.tile(x, (1, 1, 3))[:, :, 4:], [2]),
    "flipped": lambda x: ops.flip(x, axis=-1) + ops.flip(x, axis=1),
    "rolled positions": lambda x: x + ops.roll(x, 2, axis=1),
    "broadcast": lambda x: ops.broadcast_to(ops.mean(x, axis=0, keepdims=True), (1, 6, 8)) + x,
    "flattened": lambda x: layers.Dense(9)(ops.reshape(x, (-1, 48)))[:, None],
    "by heads and back": lambda x: ops.reshape(ops.tanh(ops.reshape(x, [-1, 6, 2, 4])), (-1, 6, 8)),
    "by numpy numbers": lambda x: ops.reshape(x, (-1, np.int64(3), np.int64(16))),
    "unknown width": lambda x: layers.Dense(4)(ops.reshape(x, (-1, 6, 2, 4))[..., 0, :]),
    "transposed": lambda x: ops.transpose(ops.tanh(ops.transpose(x, (0, 2, 1))), [0, -1, 1]),
    "moved": lambda x: ops.moveaxis(ops.moveaxis(x[:, None], (1, -1), [2, 1]), 1, -1)[:, :, 0],
    "swapped": lambda x: ops.swapaxes(ops.swapaxes(x, 1, 2) * 2.0, -1, -2),
    "squeezed": lambda x: ops.squeeze(ops.expand_dims(x, (1, -1)), (1, -1)),
    "squeezed by size": lambda x: ops.squeeze(ops.expand_dims(x, 1))[:, :4],
    "attention by hand": attention,
    "attention by einsum": einsum_attention,
    "fused attention": fused_attention,
    "fused attention with bias": lambda x: fused_attention(x, bias=BIAS, scale=0.3),
    "fused attention with mask": lambda x: fused_attention(x, mask=BIAS > 0, is_causal=True),
    "matmul with a constant": lambda x: ops.matmul(x, MATRIX),
    "matmul, constant on the left": lambda x: ops.matmul(MATRIX[:4, :6], x),
    "matmul with a vector": lambda x: ops.matmul(x, NUMBERS)[..., None] * x,
    "dot": lambda x: ops.dot(x, MATRIX) + ops.tensordot(x, MATRIX, axes=1),
    "einsum of one": lambda x: (
        ops.einsum("btc->bct", x)[:, :, 0][:, None] + ops.einsum("btc->bc", x)[:, None]
    ),
    "einsum with ellipsis": lambda x: ops.einsum("...c,cd->...d", x, MATRIX),
    "gram matrix": lambda x: ops.einsum("...tc,...sc->...ts", x, layers.Dense(8)(x)),
    "outer product": lambda x: ops.sum(ops.einsum("btc,btd->btcd", x, layers.Dense(3)(x)), 2),
}


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("seed", SEEDS)
def test_sequences(name: str, seed: int) -> None:
    assert reasons(dense_net(SEQUENCES[name]), seed) == []


FROZEN: dict[str, tuple[Callable[[Any], Any], str, int]] = {
    "one channel": (lambda x: x * x[..., 3:4][..., 0][..., None], "it is read by its index", 1),
    "steps that do not fit": (lambda x: x[..., ::3], "slices with a step read it", 8),
    "array split": (
        lambda x: ops.array_split(x, 3, axis=-1)[0], "it is split into pieces of fixed sizes", 8,
    ),
    "reflected channels": (
        lambda x: ops.pad(x, [[0, 0], [0, 0], [1, 1]], mode="reflect"),
        "reflect padding repeats it", 8,
    ),
    "rolled channels": (lambda x: ops.roll(x, 1, axis=-1), "roll runs along it", 8),
    "unstacked": (
        lambda x: ops.stack(ops.unstack(x, axis=-1)[:2], -1), "its entries become tensors", 8,
    ),
    "unequal": (
        lambda x: ops.repeat(x, [1, 2] * 4, axis=-1), "its entries are repeated unequally", 8,
    ),
    "looked up": (
        lambda x: ops.take(x, np.array([[0, 1]]), axis=-1)[:, :, 0],
        "entries are looked up in it", 8,
    ),
    "grouped heads": (grouped_attention, "its heads serve several queries", 8),
    "not zero": (lambda x: ops.matmul(ops.sigmoid(x), MATRIX), "a product sums over it", 8),
}  # fmt: skip


@pytest.mark.parametrize("name", FROZEN)
def test_what_stays(name: str) -> None:
    function, reason, units = FROZEN[name]
    coupling, _, _ = check(dense_net(function))
    found: dict[str, int] = {}
    for frozen in coupling.list_frozen():
        found[frozen.reason] = found.get(frozen.reason, 0) + frozen.units
    assert found == {reason: units, HEAD: 3}


IMAGES: dict[str, Callable[[Any], Any]] = {
    "shuffle": shuffle,
    "shuffle unit": lambda x: shuffle_unit(shuffle_unit(x)),
    "option a": lambda x: option_a(option_a(x)),
    "flattened positions": lambda x: ops.reshape(
        layers.Dense(10)(ops.reshape(x, (-1, 64, 8))), (-1, 8, 8, 10)
    ),
    "patches": lambda x: layers.Dense(8)(
        ops.reshape(
            ops.transpose(ops.reshape(x, (-1, 4, 2, 4, 2, 8)), (0, 1, 3, 2, 4, 5)), (-1, 4, 4, 32)
        )
    ),
}


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("seed", SEEDS)
def test_images(name: str, seed: int) -> None:
    assert reasons(image_net(IMAGES[name]), seed) == []


def test_macs_of_attention() -> None:
    """q k^T and its product with v: 2 x time^2 x heads x width."""
    for function in (einsum_attention, fused_attention):
        coupling, _, _ = check(dense_net(function))
        whole = np.array([len(group.units) for group in coupling.groups])
        by_layer = CostModel.from_coupling(coupling).macs.compute_by_layer(whole)
        products = [
            macs
            for name, macs in by_layer.items()
            if name.startswith(("einsum", "dot_product")) and "dense" not in name
        ]
        assert sum(products) == 2 * 6 * 6 * 3 * 4


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = dense_net(lambda x: attention(halves(x)[..., ::2] + x[..., :4] * NUMBERS[:4]))
    coupling, sliced, _ = check(model)
    path = tmp_path / "sliced.keras"
    sliced.save(path)
    inputs = random_inputs(coupling.program, np.random.default_rng(3))
    again = keras.models.load_model(path)
    compare(outputs_of(sliced, inputs), outputs_of(again, inputs))


def test_operations_without_a_rule_are_named() -> None:
    coupling, _, _ = check(image_net(lambda x: ops.rot90(x, axes=(1, 2))))
    (name,) = coupling.graph.unknown
    assert coupling.graph.unknown[name] == ("Rot90", "no rule for this class")
    assert f"layer '{name}' (Rot90)" in coupling.list_frozen()[0].reason


def test_positions_folded_into_examples() -> None:
    """Costs follow the shapes: 6 positions of 5 -> 8 -> 7 -> 4 channels, whole."""
    inputs = keras.Input((6, 5))
    rows = layers.Dense(8, name="before")(ops.reshape(inputs, (-1, 5)))
    rows = layers.Dense(7, name="after")(ops.relu(rows))
    back = ops.reshape(rows, (-1, 6, 7))
    model = keras.Model(inputs, layers.Dense(4, name="head")(back))
    coupling, _, _ = check(model)
    assert CostModel.from_coupling(coupling).macs(coupling.removable_counts) == 6 * (
        5 * 8 + 8 * 7 + 7 * 4
    )
