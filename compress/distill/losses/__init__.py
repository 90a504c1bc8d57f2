"""Distillation losses, one file each; every one equals its closed form in NumPy."""

from compress.distill.losses.hinton import HintonKD

__all__ = ["HintonKD"]
