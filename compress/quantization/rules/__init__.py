"""Rules of integer arithmetic for layers, one file a family; add yours by
`register_quantization`."""

from compress.quantization.rules import activations, arithmetic, kernels, shaping
from compress.quantization.rules._base import names, rule_for

__all__ = ["activations", "arithmetic", "kernels", "names", "rule_for", "shaping"]
