"""Layers with kernels, or tables."""

from __future__ import annotations

import tensorflow as tf

from compress.quantization.call import Call, Value
from compress.quantization.kernels import (
    DepthwiseKernel,
    ImageKernel,
    Kernel,
    MatrixKernel,
    PointwiseKernel,
    TransposedKernel,
    tensor_of,
)
from compress.quantization.layers import WithConstant
from compress.quantization.rules._base import (
    OPEN_SIZE,
    KeptInFloats,
    layer_rule,
    refuse_channels_first,
    refuse_mask,
)
from compress.quantization.rules.activations import activated


@layer_rule("Conv1D", "Conv2D")
def convolution(call: Call) -> Value:
    """Apply a kernel with a scale by channel, then the activation."""
    _check_convolution(call)
    return _apply_kernel(call, ImageKernel(call.layer), call.inputs[0])


@layer_rule("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise(call: Call) -> Value:
    """Apply a kernel for each channel, then the activation."""
    _check_convolution(call, one_stride=True)
    return _apply_kernel(call, DepthwiseKernel(call.layer), call.inputs[0])


@layer_rule("SeparableConv1D", "SeparableConv2D")
def separable(call: Call) -> Value:
    """Apply both kernels, with a range in between."""
    _check_convolution(call, one_stride=True)
    middle = call.kernel(DepthwiseKernel(call.layer, "depthwise_kernel"), call.inputs[0])
    return _apply_kernel(call, PointwiseKernel(call.layer, "pointwise_kernel"), middle)


@layer_rule("Conv2DTranspose")
def transposed(call: Call) -> Value:
    """Apply a kernel with one scale, then the activation."""
    _check_convolution(call)
    if call.layer.output_padding is not None or max(call.layer.dilation_rate) > 1:
        raise KeptInFloats("padding of its outputs and dilation have no integer kernel")
    return _apply_kernel(call, TransposedKernel(call.layer), call.inputs[0])


@layer_rule("Dense")
def dense(call: Call) -> Value:
    """Multiply by a matrix, as a 1 x 1 convolution, then apply the activation."""
    _check(call)
    return _apply_kernel(call, MatrixKernel(call.layer), call.inputs[0])


@layer_rule("EinsumDense")
def einsum(call: Call) -> Value:
    """Multiply by a matrix, if the equation multiplies the last axes of the input."""
    layer = call.layer
    _check(call)
    summed = axes_summed(layer.equation)
    if not summed:
        raise KeptInFloats(
            f"its equation ({layer.equation}) is no product of the last axes and a matrix"
        )
    kernel = MatrixKernel(layer, summed)
    made = call.kernel(kernel, call.inputs[0])
    if kernel.bias_by_position:
        made = call.with_constant(tf.add, made, lambda: tensor_of(layer.bias), layer)
    return activated(call, made, layer.activation)


@layer_rule("Embedding")
def embedding(call: Call) -> Value:
    """Look up a table of integers."""
    if call.layer.mask_zero:
        raise KeptInFloats("it masks: what is masked is no whole number")
    _refuse_changed_by_keras(call)
    layer, table = call.layer, call.building.range(f"{call.path}_table")
    look_up = WithConstant(
        lambda indices, rows: tf.gather(rows, tf.cast(indices, tf.int32)),
        lambda: tensor_of(layer.embeddings), table, layer,
        shape=lambda shape: (*shape, layer.output_dim), name=call.building.name(call.path),
    )  # fmt: skip
    return Value(call.path, look_up(call.inputs[0].tensor), table)


@layer_rule("LSTM", "GRU", "SimpleRNN", "Bidirectional", "RNN", "ConvLSTM1D", "ConvLSTM2D")
def recurrent(call: Call) -> list[Value]:
    """Keep a recurrent layer in floats: its steps feed each other."""
    why = "its steps feed each other: the converter has no integer kernel for it"
    if type(call.layer).__name__ == "LSTM":
        why += " (where LiteRT has one operation for it, its weights have 8 bits in the file)"
    return call.in_float(why)


def axes_summed(equation: str) -> int:
    """Return how many axes an equation sums over: the input's last, the kernel's first.

    Args:
        equation: Of an `EinsumDense`: "abc,cde->abde" sums over one, "abcd,cde->abe" over two.

    Returns:
        0 where it is no such product.
    """
    left, _, made = equation.replace(" ", "").partition("->")
    x, _, kernel = left.partition(",")
    for count in range(1, min(len(x), len(kernel) + 1)):
        # what is kept of the input comes first: the batch axis, or "..." for it, at least
        if x[-count:] == kernel[:count] and made == x[:-count] + kernel[count:]:
            return count
    return 0


def _apply_kernel(call: Call, kernel: Kernel, value: Value) -> Value:
    """Return the output of a kernel for a value, with the layer's activation behind it."""
    return activated(call, call.kernel(kernel, value), call.layer.activation)


def _check_convolution(call: Call, *, one_stride: bool = False) -> None:
    """Refuse convolutions that have no integer kernel.

    Args:
        call: Of the layer.
        one_stride: Of both axes it must be the same.

    Raises:
        KeptInFloats: It has none.
    """
    refuse_channels_first(call)
    if one_stride and len(set(call.layer.strides)) > 1:
        raise KeptInFloats("strides that differ by axis have no integer kernel")
    _check(call)


def _check(call: Call) -> None:
    refuse_mask(call)
    _refuse_changed_by_keras(call)
    call.settled(call.inputs[0])  # its size is known then
    if None in call.shape_of(0)[1:]:
        raise KeptInFloats(OPEN_SIZE)


def _refuse_changed_by_keras(call: Call) -> None:
    layer = call.layer
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        raise KeptInFloats("LoRA and weights that Keras has quantized are left as they are")
