"""Channels scaled so that none of them wastes the steps of a shared grid."""

from compress.quantization.equalizing.equalize import Equalized, equalize

__all__ = ["Equalized", "equalize"]
