"""Distillation: `distill` trains a small model from a big one's outputs."""

from __future__ import annotations

from compress.distillation.cache import Cached, cache_key, teacher_cache
from compress.distillation.hints import Hint, make_hints
from compress.distillation.trainer import DistillResult, distill

__all__ = [
    "Cached",
    "DistillResult",
    "Hint",
    "cache_key",
    "distill",
    "make_hints",
    "teacher_cache",
]
