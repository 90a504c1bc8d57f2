"""Linear parts of the layers that can be reconstructed, one module per layer family."""

from compress.reconstruction.kernel_parts import convolution, recurrent
from compress.reconstruction.kernel_parts._base import (
    Array,
    KeptIndices,
    KernelPart,
    Positions,
    build_parts,
    has_parts,
)

__all__ = [
    "Array",
    "KeptIndices",
    "KernelPart",
    "Positions",
    "convolution",
    "has_parts",
    "build_parts",
    "recurrent",
]
