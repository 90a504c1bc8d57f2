"""Whole numbers: `quantize` trains a model as its file of integers computes."""

from __future__ import annotations

from compress.quantization.quantizing import QuantizeResult, quantize
from compress.quantization.rules._base import register_quantization

__all__ = ["QuantizeResult", "quantize", "register_quantization"]
