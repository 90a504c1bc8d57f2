"""Rules of integer arithmetic, one file per family of layers.

Add rules of custom layers with `register_quantization`.
"""

from compress.quantization.rules import activations, arithmetic, kernels, shaping
from compress.quantization.rules._base import find_rule

__all__ = ["activations", "arithmetic", "kernels", "find_rule", "shaping"]
