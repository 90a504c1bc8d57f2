"""Rules for layers with kernels or lookup tables."""

from __future__ import annotations

import tensorflow as tf

from compress.quantization.call import Call
from compress.quantization.kernels import (
    DepthwiseKernel,
    ImageKernel,
    Kernel,
    MatrixKernel,
    PointwiseKernel,
    TransposedKernel,
    to_tensor,
)
from compress.quantization.layers import WithConstant
from compress.quantization.rules._base import (
    OPEN_SIZE,
    KeptInFloats,
    layer_rule,
    refuse_channels_first,
    refuse_mask,
)
from compress.quantization.rules.activations import apply_activation
from compress.quantization.values import Value


@layer_rule("Conv1D", "Conv2D")
def quantize_convolution(call: Call) -> Value:
    """Quantize a convolution with per-channel scales, then its activation."""
    _check_convolution(call)
    return _apply_kernel(call, ImageKernel(call.layer), call.inputs[0])


@layer_rule("DepthwiseConv1D", "DepthwiseConv2D")
def quantize_depthwise(call: Call) -> Value:
    """Quantize a depthwise convolution, then its activation."""
    _check_convolution(call, one_stride=True)
    return _apply_kernel(call, DepthwiseKernel(call.layer), call.inputs[0])


@layer_rule("SeparableConv1D", "SeparableConv2D")
def quantize_separable(call: Call) -> Value:
    """Quantize both kernels of a separable convolution, with a range in between."""
    _check_convolution(call, one_stride=True)
    middle = call.apply_kernel(DepthwiseKernel(call.layer, "depthwise_kernel"), call.inputs[0])
    return _apply_kernel(call, PointwiseKernel(call.layer, "pointwise_kernel"), middle)


@layer_rule("Conv2DTranspose")
def quantize_transposed(call: Call) -> Value:
    """Quantize a transposed convolution with a single scale, then its activation."""
    _check_convolution(call)
    if call.layer.output_padding is not None or max(call.layer.dilation_rate) > 1:
        raise KeptInFloats("padding of its outputs and dilation have no integer kernel")
    return _apply_kernel(call, TransposedKernel(call.layer), call.inputs[0])


@layer_rule("Dense")
def quantize_dense(call: Call) -> Value:
    """Quantize a dense layer as a 1 x 1 convolution, then its activation."""
    _check(call)
    return _apply_kernel(call, MatrixKernel(call.layer), call.inputs[0])


@layer_rule("EinsumDense")
def quantize_einsum(call: Call) -> Value:
    """Quantize an `EinsumDense` as a matrix product, if it multiplies its input's last axes."""
    layer = call.layer
    _check(call)
    axis_count = count_summed_axes(layer.equation)
    if not axis_count:
        raise KeptInFloats(
            f"its equation ({layer.equation}) is no product of the last axes and a matrix"
        )
    kernel = MatrixKernel(layer, axis_count)
    output = call.apply_kernel(kernel, call.inputs[0])
    if kernel.bias_by_position:
        output = call.combine_with_constant(tf.add, output, lambda: to_tensor(layer.bias), layer)
    return apply_activation(call, output, layer.activation)


@layer_rule("Embedding")
def quantize_embedding(call: Call) -> Value:
    """Quantize an embedding: a lookup in an integer table."""
    if call.layer.mask_zero:
        raise KeptInFloats("it masks: what is masked is no integer")
    _refuse_changed_by_keras(call)
    layer, table = call.layer, call.builder.add_range(f"{call.path}_table")
    look_up = WithConstant(
        lambda indices, rows: tf.gather(rows, tf.cast(indices, tf.int32)),
        lambda: to_tensor(layer.embeddings), table, layer,
        shape=lambda shape: (*shape, layer.output_dim), name=call.builder.reserve_name(call.path),
    )  # fmt: skip
    return Value(call.path, look_up(call.inputs[0].tensor), table)


@layer_rule("LSTM", "GRU", "SimpleRNN", "Bidirectional", "RNN", "ConvLSTM1D", "ConvLSTM2D")
def keep_recurrent_in_float(call: Call) -> list[Value]:
    """Keep a recurrent layer in float, because its steps feed each other."""
    reason = "its steps feed each other: the converter has no integer kernel for it"
    if type(call.layer).__name__ == "LSTM":
        reason += " (where LiteRT has one operation for it, its weights have 8 bits in the file)"
    return call.keep_in_float(reason)


def count_summed_axes(equation: str) -> int:
    """Return the number of axes that an equation sums over: the input's last, the kernel's first.

    Args:
        equation: Equation of an `EinsumDense`: "abc,cde->abde" sums over one axis, "abcd,cde->abe"
            over two.

    Returns:
        The number of axes; 0 if the equation is no such product.
    """
    operands, _, output = equation.replace(" ", "").partition("->")
    x, _, kernel = operands.partition(",")
    for count in range(1, min(len(x), len(kernel) + 1)):
        # the kept axes of the input come first: at least the batch axis, or "..." for it
        if x[-count:] == kernel[:count] and output == x[:-count] + kernel[count:]:
            return count
    return 0


def _apply_kernel(call: Call, kernel: Kernel, value: Value) -> Value:
    """Apply a kernel to a value, then the layer's activation."""
    return apply_activation(call, call.apply_kernel(kernel, value), call.layer.activation)


def _check_convolution(call: Call, *, one_stride: bool = False) -> None:
    """Raise `KeptInFloats` for convolutions without an integer kernel.

    Args:
        call: Call of the layer.
        one_stride: Whether the stride must be the same on both axes.

    Raises:
        KeptInFloats: The convolution has no integer kernel.
    """
    refuse_channels_first(call)
    if one_stride and len(set(call.layer.strides)) > 1:
        raise KeptInFloats("strides that differ by axis have no integer kernel")
    _check(call)


def _check(call: Call) -> None:
    refuse_mask(call)
    _refuse_changed_by_keras(call)
    call.finish_sum(call.inputs[0])  # a finished value has a known size
    if None in call.get_input_shape(0)[1:]:
        raise KeptInFloats(OPEN_SIZE)


def _refuse_changed_by_keras(call: Call) -> None:
    layer = call.layer
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        raise KeptInFloats("LoRA and weights that Keras has quantized are left as they are")
