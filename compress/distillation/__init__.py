"""Knowledge distillation: `distill` trains a student on the outputs of one or more teachers."""

from compress.distillation.hints import make_hints
from compress.distillation.trainer import DistillResult, distill

__all__ = [
    "DistillResult",
    "distill",
    "make_hints",
]
