"""Kernels of layers as those of convolutions; see `Kernel`."""

from compress.quantization.kernels._base import Affine, Kernel, normalization
from compress.quantization.kernels.images import (
    DepthwiseKernel,
    ImageKernel,
    PointwiseKernel,
    TransposedKernel,
)
from compress.quantization.kernels.matrices import AffineKernel, MatrixKernel

__all__ = [
    "Affine",
    "AffineKernel",
    "DepthwiseKernel",
    "ImageKernel",
    "Kernel",
    "MatrixKernel",
    "PointwiseKernel",
    "TransposedKernel",
    "normalization",
]
