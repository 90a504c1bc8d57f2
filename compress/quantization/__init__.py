"""Quantization: `quantize` trains, or calibrates, a model for a file of integers."""

from __future__ import annotations

from compress.quantization.quantizing import QuantizeResult, quantize
from compress.quantization.rules._base import register_quantization

__all__ = ["QuantizeResult", "quantize", "register_quantization"]
