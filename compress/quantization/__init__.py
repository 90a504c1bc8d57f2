"""Quantization: `quantize` trains or calibrates a model for integer arithmetic."""

from __future__ import annotations

from compress.quantization.quantizer import QuantizeResult, quantize
from compress.quantization.rules._base import register_quantization

__all__ = ["QuantizeResult", "quantize", "register_quantization"]
