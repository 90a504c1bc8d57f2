"""Rules of integer arithmetic, one file per family of layers.

Add rules of custom layers with `register_quantization`.
"""

from compress.quantization.rules import activations, arithmetic, kernels, shaping
from compress.quantization.rules._base import find_rule, list_rule_names

__all__ = ["activations", "arithmetic", "kernels", "list_rule_names", "find_rule", "shaping"]
