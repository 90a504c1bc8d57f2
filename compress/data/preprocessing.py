"""Scaling of raw inputs, learnt on training data and stored with every run and export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.errors import InputError


@dataclass(frozen=True)
class Preprocessing:
    """The map `(x * scale - mean) / std` from stored values to model inputs.

    Attributes:
        scale: Factor on the raw values (1/255 for bytes).
        mean: After scaling, per channel (last axis) or a single value.
        std: Likewise, above 0.
    """

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __call__(self, x: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """Applies the map.

        Args:
            x: Raw examples, shape (n, ..., C).

        Returns:
            Model inputs of the same shape, float32.
        """
        gain, offset = self.affine()
        result: npt.NDArray[np.float32] = x.astype(np.float32) * gain + offset
        return result

    def affine(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Returns gain and offset, shape (C,) or (1,): the map is `x * gain + offset`."""
        std = np.asarray(self.std, np.float64)
        gain = self.scale / std
        offset = -np.asarray(self.mean, np.float64) / std
        return gain.astype(np.float32), offset.astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Returns the record that is stored beside exports."""
        return {
            "formula": "(x * scale - mean) / std, per channel (last axis)",
            "scale": self.scale,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Preprocessing:
        """Reads what `to_json` wrote.

        Raises:
            InputError: A part is missing or not a number.
        """
        try:
            return cls(
                float(record["scale"]),
                tuple(float(value) for value in record["mean"]),
                tuple(float(value) for value in record["std"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"A preprocessing record must hold scale, mean and std. Received: {record} "
                f"({error!r})."
            ) from None


def fit_preprocessing(
    x: npt.NDArray[np.generic], max_value: float, normalize: str
) -> Preprocessing:
    """Learns the scaling from training examples.

    Args:
        x: Raw training examples, shape (n, features) or (n, H, W, C).
        max_value: What is scaled to 1.
        normalize: "standardize" (zero mean, unit variance per channel or feature; a
            constant channel keeps variance 1), "unit" (scaling only) or "none".

    Returns:
        The map; it never sees validation or test data.
    """
    if normalize == "none":
        return Preprocessing()
    scale = 1.0 / max_value
    if normalize == "unit":
        return Preprocessing(scale)
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axis=axes, dtype=np.float64) * scale
    std = x.std(axis=axes, dtype=np.float64) * scale
    std = np.where(std > 1e-7, std, 1.0)
    return Preprocessing(scale, tuple(mean.tolist()), tuple(std.tolist()))
