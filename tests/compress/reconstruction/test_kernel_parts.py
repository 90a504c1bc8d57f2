"""Rows times the kernel, plus the bias, are what Keras's layer computes: for every kind."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from compress.reconstruction.kernel_parts import build_parts

# ruff: noqa: E501 - a table

L = keras.layers


def layers() -> list[tuple[str, Any, tuple[int, ...]]]:
    return [
        ("dense", lambda: L.Dense(5), (6,)),
        ("dense on sequences", lambda: L.Dense(5, use_bias=False), (4, 6)),
        ("conv1d same", lambda: L.Conv1D(5, 3, padding="same"), (9, 4)),
        ("conv1d causal dilated", lambda: L.Conv1D(5, 3, padding="causal", dilation_rate=2), (9, 4)),
        ("conv2d valid strided", lambda: L.Conv2D(5, (3, 2), (2, 1)), (8, 7, 4)),
        ("conv2d same strided even", lambda: L.Conv2D(5, 4, 2, padding="same"), (7, 8, 4)),
        ("conv2d dilated", lambda: L.Conv2D(5, 3, padding="same", dilation_rate=(2, 3)), (9, 8, 4)),
        ("conv2d grouped", lambda: L.Conv2D(6, 3, padding="same", groups=2), (6, 5, 4)),
        ("conv3d", lambda: L.Conv3D(5, 2, (1, 2, 1), padding="same"), (4, 5, 6, 3)),
        ("transposed same", lambda: L.Conv2DTranspose(5, 3, 2, padding="same"), (4, 5, 3)),
        ("transposed valid", lambda: L.Conv2DTranspose(5, (2, 4), (3, 1)), (4, 5, 3)),
        ("transposed wide", lambda: L.Conv2DTranspose(5, 4, 2, padding="same"), (4, 5, 3)),
        ("transposed padded", lambda: L.Conv2DTranspose(
            5, 3, 2, padding="same", output_padding=1), (4, 5, 3)),
        ("transposed 1d", lambda: L.Conv1DTranspose(5, 3, 2, padding="same"), (6, 3)),
        ("transposed 3d", lambda: L.Conv3DTranspose(4, 2, 2, padding="same"), (3, 4, 2, 3)),
        ("depthwise", lambda: L.DepthwiseConv2D(3, 2, padding="same", depth_multiplier=2), (7, 6, 4)),
        ("depthwise dilated", lambda: L.DepthwiseConv2D(3, dilation_rate=2), (9, 8, 4)),
        ("depthwise 1d", lambda: L.DepthwiseConv1D(3, padding="same"), (7, 4)),
        ("separable", lambda: L.SeparableConv2D(5, 3, 2, padding="same", depth_multiplier=2), (7, 6, 4)),
        ("separable 1d", lambda: L.SeparableConv1D(5, 3, dilation_rate=2), (9, 4)),
        ("einsum heads", lambda: L.EinsumDense("abc,cde->abde", (None, 3, 2), bias_axes="de"), (5, 4)),
        ("einsum back", lambda: L.EinsumDense("abde,dec->abc", (None, 6), bias_axes="c"), (5, 3, 4)),
        ("einsum dots", lambda: L.EinsumDense("...x,xy->...y", (3, 6), bias_axes="y"), (3, 4)),
        ("einsum shared", lambda: L.EinsumDense("abcd,cde->abce", (None, 3, 6)), (5, 3, 4)),
        ("einsum turned", lambda: L.EinsumDense("abc,cd->adb", (6, None)), (5, 4)),
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "make", "shape"), layers(), ids=[row[0] for row in layers()])
def test_rows_times_kernel(name: str, make: Any, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    layer = make()
    x = rng.normal(size=(3, *shape)).astype(np.float32)
    layer(x)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    y = np.asarray(layer(x))
    parts, reason = build_parts(layer, x.ndim)
    assert not reason
    part = parts[-1]
    positions = part.count_positions(y)
    places = np.repeat(np.arange(3), positions), np.tile(np.arange(positions), 3)
    rows = part.extract_rows(x, y, places)
    kernel = part.to_matrix(part.kernel.numpy())
    made = (rows @ kernel).transpose(1, 0, 2).reshape(len(places[0]), -1) + part.read_bias()
    wanted = part.extract_outputs(y, places)
    np.testing.assert_allclose(made, wanted, rtol=1e-4, atol=1e-4)
    assert wanted.size == y.size
    np.testing.assert_array_equal(part.from_matrix(kernel), part.kernel.numpy())


def test_channels_first_is_seen_as_channels_last() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 7, 6)).astype(np.float32)
    first = L.Conv2D(5, 3, 2, padding="same", data_format="channels_first")
    first.build(x.shape)
    last = L.Conv2D(5, 3, 2, padding="same")
    y = np.asarray(last(x.transpose(0, 2, 3, 1)))
    ((part,), _), ((twin,), _) = build_parts(first, 4), build_parts(last, 4)
    places = np.array([0, 1, 1]), np.array([0, 5, 11])
    shape = np.broadcast_to(np.float32(0), (2, 5, 4, 3))
    np.testing.assert_array_equal(
        part.extract_rows(x, shape, places), twin.extract_rows(x.transpose(0, 2, 3, 1), y, places)
    )


def test_what_is_not_solved_for_says_why() -> None:
    class Own(keras.layers.Dense):
        pass

    layer = Own(3)
    layer.build((None, 4))
    assert build_parts(layer, 2) == ([], "there is no way to solve for the weights of Own")
    odd = L.EinsumDense("ab,bc->ca", (None,))
    odd.build((5, 4))
    assert build_parts(odd, 2)[1] == "its equation is not a product of rows and a matrix"
