"""Counts MACs and parameters of a model, layer by layer, by shapes at batch size 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from compress import graph
from compress.measure import macs

if TYPE_CHECKING:
    import keras

Shape = tuple[int, ...]

# Work without multiply-accumulates by the convention of measure/macs.py.
_ELEMENTWISE = """
Activation ReLU LeakyReLU PReLU ELU Softmax Dropout SpatialDropout1D SpatialDropout2D
SpatialDropout3D GaussianDropout GaussianNoise AlphaDropout ActivityRegularization
BatchNormalization LayerNormalization GroupNormalization RMSNormalization UnitNormalization
Normalization Rescaling Add Subtract Multiply Average Maximum Minimum Concatenate Flatten
Reshape Permute RepeatVector ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D
Cropping3D UpSampling1D UpSampling2D UpSampling3D MaxPooling1D MaxPooling2D MaxPooling3D
AveragePooling1D AveragePooling2D AveragePooling3D GlobalAveragePooling1D
GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D
GlobalMaxPooling3D Embedding Identity Masking Divide Negative Absolute Sqrt Square Exp Log Relu
Relu6 Sigmoid Silu Gelu Tanh HardSigmoid HardSilu Softplus Transpose Squeeze ExpandDims Mean
Sum Max Min Pad GetItem Split Stack Cast Clip
"""
ELEMENTWISE = frozenset(_ELEMENTWISE.split())


@dataclass(frozen=True)
class LayerCost:
    """One call's cost.

    Attributes:
        name: Layer name, with the names of the models around it.
        kind: Class name.
        output_shape: Without the batch axis; None where a size is unknown.
        macs: Multiply-accumulates at batch 1; None: could not be counted (see `reason`).
        params: Parameters; of a shared layer only at its first call.
        nonzero: Parameters that are not zero.
        reason: Why `macs` is None.
        sparse_macs: MACs whose weight is not zero; `macs` where no weight is multiplied.
    """

    name: str
    kind: str
    output_shape: tuple[int | None, ...]
    macs: int | None
    params: int
    nonzero: int
    reason: str = ""
    sparse_macs: int | None = None


@dataclass(frozen=True)
class Analysis:
    """The costs of a model, layer by layer; what could not be counted is named."""

    layers: tuple[LayerCost, ...]

    @property
    def macs(self) -> int:
        """Counted multiply-accumulates; a lower bound where `unsupported` is not empty."""
        return sum(layer.macs or 0 for layer in self.layers)

    @property
    def sparse_macs(self) -> int:
        """Counted multiply-accumulates whose weight is not zero; ordinary runtimes do all."""
        return sum(layer.sparse_macs or 0 for layer in self.layers)

    @property
    def params(self) -> int:
        """All parameters, trained or not."""
        return sum(layer.params for layer in self.layers)

    @property
    def nonzero(self) -> int:
        """Parameters that are not exactly zero."""
        return sum(layer.nonzero for layer in self.layers)

    @property
    def unsupported(self) -> tuple[str, ...]:
        """What could not be counted: "name (class): reason"."""
        return tuple(
            f"{layer.name} ({layer.kind}): {layer.reason}"
            for layer in self.layers
            if layer.macs is None
        )


def count_macs(model: keras.Model) -> Analysis:
    """Counts multiply-accumulates and parameters of one forward pass at batch size 1.

    Args:
        model: A functional model or a built Sequential; nested models are opened, shared
            layers counted at every call.

    Returns:
        The analysis: `.macs`, `.params`, `.layers`, and `.unsupported` by name.

    Raises:
        InputError: The model is not a graph.
    """
    seen: set[int] = set()
    rows = []
    for call in graph.calls(model):
        weights = [] if id(call.operation) in seen else getattr(call.operation, "weights", [])
        seen.add(id(call.operation))
        count, reason = _macs(call)
        rows.append(
            LayerCost(
                call.name,
                type(call.operation).__name__,
                call.outputs[0][1:],
                count,
                sum(int(np.prod(weight.shape)) for weight in weights),
                sum(int(np.count_nonzero(weight.numpy())) for weight in weights),
                reason,
                None if count is None else _sparse(call.operation, count),
            )
        )
    return Analysis(tuple(rows))


def _macs(call: graph.Call) -> tuple[int | None, str]:
    kind = type(call.operation).__name__
    if kind in ELEMENTWISE:
        return 0, ""
    if kind not in _COUNTERS:
        return None, "no counting rule for this class"
    source, target = _known(call.inputs[0][1:]), _known(call.outputs[0][1:])
    if source is None or target is None:
        return None, "an input size is unknown; build the model with a full input shape"
    try:
        return _COUNTERS[kind](call.operation, source, target), ""
    except ValueError as error:
        return None, str(error)


def _sparse(layer: Any, count: int) -> int:
    """Returns the MACs with non-zero weights: every weight of a kernel is used as often."""
    kernels = [getattr(layer, name, None) for name in ("depthwise_kernel", "pointwise_kernel")]
    if kernels[0] is None or kernels[1] is None:
        kernel = getattr(layer, "kernel", None) if count else None
        return count if kernel is None else round(count * _density(kernel))
    # the depthwise kernel meets as many positions as the pointwise one
    sizes = [int(np.prod(kernel.shape)) for kernel in kernels if kernel is not None]
    positions = count / sum(sizes)
    return round(
        sum(positions * size * _density(k) for size, k in zip(sizes, kernels, strict=True))
    )


def _density(kernel: Any) -> float:
    return float(np.count_nonzero(kernel.numpy())) / max(1, int(np.prod(kernel.shape)))


def _known(shape: tuple[int | None, ...]) -> Shape | None:
    sizes = tuple(size for size in shape if size is not None)
    return sizes if len(sizes) == len(shape) else None


def _spatial(layer: Any, shape: Shape) -> Shape:
    """Returns the spatial part of a shape without batch axis, in the layer's data format."""
    return shape[1:] if layer.data_format == "channels_first" else shape[:-1]


def _channels(layer: Any, shape: Shape) -> int:
    return shape[0] if layer.data_format == "channels_first" else shape[-1]


def _conv(layer: Any, source: Shape, target: Shape) -> int:
    return macs.convolution(
        _spatial(layer, target),
        layer.kernel_size,
        _channels(layer, source),
        layer.filters,
        layer.groups,
    )


def _conv_transpose(layer: Any, source: Shape, _target: Shape) -> int:
    return macs.transposed_convolution(
        _spatial(layer, source), layer.kernel_size, _channels(layer, source), layer.filters
    )


def _depthwise(layer: Any, source: Shape, target: Shape) -> int:
    return macs.depthwise_convolution(
        _spatial(layer, target),
        layer.kernel_size,
        _channels(layer, source),
        layer.depth_multiplier,
    )


def _separable(layer: Any, source: Shape, target: Shape) -> int:
    positions = _spatial(layer, target)
    inner = _channels(layer, source) * layer.depth_multiplier
    pointwise = macs.convolution(positions, (1,), inner, layer.filters)
    return _depthwise(layer, source, target) + pointwise


def _dense(layer: Any, source: Shape, _target: Shape) -> int:
    positions = int(np.prod(source[:-1], dtype=np.int64))
    return macs.dense(positions, source[-1], layer.units)


def _einsum_dense(layer: Any, source: Shape, _target: Shape) -> int:
    return macs.einsum(layer.equation, (1, *source), tuple(layer.kernel.shape))


_COUNTERS: dict[str, Callable[[Any, Shape, Shape], int]] = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), _conv),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _conv_transpose),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable),
    "Dense": _dense,
    "EinsumDense": _einsum_dense,
}
