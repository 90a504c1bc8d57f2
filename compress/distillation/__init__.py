"""Distillation: `distill` trains a small model from a big one's outputs."""

from compress.distillation.hints import make_hints
from compress.distillation.trainer import DistillResult, distill

__all__ = [
    "DistillResult",
    "distill",
    "make_hints",
]
