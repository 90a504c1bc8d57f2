"""Layers with kernels."""

from __future__ import annotations

from typing import Any

from compress.quantization.call import OPEN_SIZE, Call
from compress.quantization.kernels import (
    DepthwiseKernel,
    ImageKernel,
    MatrixKernel,
    PointwiseKernel,
    TransposedKernel,
)
from compress.quantization.rules._activation import activated
from compress.quantization.rules._base import layer_rule
from compress.quantization.values import Value

Made = Value | list[Value]
CHANNELS_FIRST = "channels come first: integer kernels want them last"


@layer_rule("Conv1D", "Conv2D")
def convolution(call: Call) -> Made:
    """A kernel by channel, then the activation."""
    layer = call.layer
    why = _not_plain(call)
    if why:
        return call.in_float(why)
    return activated(call, call.kernel(ImageKernel(layer), call.inputs[0]), layer.activation)


@layer_rule("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise(call: Call) -> Made:
    """A kernel a channel, then the activation."""
    why = _not_plain(call)
    if why:
        return call.in_float(why)
    made = call.kernel(DepthwiseKernel(call.layer), call.inputs[0])
    return activated(call, made, call.layer.activation)


@layer_rule("SeparableConv1D", "SeparableConv2D")
def separable(call: Call) -> Made:
    """Both of its kernels, with a range in between."""
    why = _not_plain(call)
    if why:
        return call.in_float(why)
    middle = call.kernel(DepthwiseKernel(call.layer, "depthwise_kernel"), call.inputs[0])
    middle.users = 1
    made = call.kernel(PointwiseKernel(call.layer), middle)
    return activated(call, made, call.layer.activation)


@layer_rule("Conv2DTranspose")
def transposed(call: Call) -> Made:
    """A kernel by channel, then the activation."""
    layer = call.layer
    why = _not_plain(call)
    if not why and (layer.output_padding is not None or max(layer.dilation_rate) > 1):
        why = "padding of its outputs and dilation have no integer kernel"
    if why:
        return call.in_float(why)
    return activated(call, call.kernel(TransposedKernel(layer), call.inputs[0]), layer.activation)


@layer_rule("Dense")
def dense(call: Call) -> Made:
    """A matrix as a 1 x 1 convolution, then the activation."""
    layer = call.layer
    why = _not_usual(call)
    if why:
        return call.in_float(why)
    return activated(call, call.kernel(MatrixKernel(layer), call.inputs[0]), layer.activation)


@layer_rule("EinsumDense")
def einsum(call: Call) -> Made:
    """A matrix, where its equation multiplies the last axes of the input."""
    import tensorflow as tf

    layer = call.layer
    summed = axes_summed(layer.equation, len(call.shape_of(0)))
    why = _not_usual(call)
    if not why and not summed:
        why = f"its equation ({layer.equation}) is no product of the last axes and a matrix"
    if why:
        return call.in_float(why)
    kernel = MatrixKernel(layer, summed)
    if not kernel.bias_by_position:
        return activated(call, call.kernel(kernel, call.inputs[0]), layer.activation)
    made = call.kernel(kernel, call.inputs[0])
    made.users = 1

    def bias() -> Any:
        return tf.convert_to_tensor(layer.bias.value)

    return activated(call, call.with_constant(tf.add, made, bias, layer), layer.activation)


def axes_summed(equation: str, rank: int) -> int:
    """Returns over how many axes an equation sums, the input's last and the kernel's first.

    Args:
        equation: Of an `EinsumDense`.
        rank: Of its input.

    Returns:
        0 where it is no such product.
    """
    left, _, made = equation.replace(" ", "").partition("->")
    x, _, kernel = left.partition(",")
    if x.startswith("...") and made.startswith("..."):
        x, made = x[3:], made[3:]
        if "." in x + made + kernel:
            return 0
        leading = ""
        if len(x) > rank:
            return 0
    else:
        leading = x[:1]
    for count in range(1, min(len(x), len(kernel)) + 1):
        kept = x[: len(x) - count]
        fits = x[-count:] == kernel[:count] and made == kept + kernel[count:]
        if fits and (not leading or kept.startswith(leading)):
            return count
    return 0


def _not_plain(call: Call) -> str:
    """Returns why a convolution cannot be computed in whole numbers; "": it can."""
    layer = call.layer
    if layer.data_format != "channels_last":
        return CHANNELS_FIRST
    if layer.rank > 2:
        return "convolutions of three axes have no integer kernel"
    strides = tuple(layer.strides)
    if type(layer).__name__.startswith(("Depthwise", "Separable")) and len(set(strides)) > 1:
        return "strides that differ by axis have no integer kernel"
    return _not_usual(call)


def _not_usual(call: Call) -> str:
    layer = call.layer
    if len(call.inputs) > 1:
        return "it is called with a mask"
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        return "LoRA and kernels that Keras has quantized are left as they are"
    call.settled(call.inputs[0])  # its size is known then
    if None in call.shape_of(0)[1:]:
        return OPEN_SIZE
    return ""
