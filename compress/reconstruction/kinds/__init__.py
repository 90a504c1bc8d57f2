"""Layers that are solved for, a file each family: what of them is linear in their kernels."""

from compress.reconstruction.kinds import convolution, recurrent
from compress.reconstruction.kinds._base import Array, Kept, Part, Places, has_parts, parts_of

__all__ = [
    "Array", "Kept", "Part", "Places", "convolution", "has_parts", "parts_of", "recurrent",
]  # fmt: skip
