"""Scaling of raw inputs, fitted on training data and stored with every run and export."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import Columns
from compress.core.errors import InputError
from compress.core.memory_budget import get_current_budget

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Red, green, blue, for pixels in [0, 1]; called "torch" in `keras.applications`."""
CAFFE_MEAN = (103.939, 116.779, 123.68)
"""Blue, green, red, for pixels in [0, 255]; called "caffe" in `keras.applications`."""

WHOLE_VALUES, WHOLE_SHARE = 1 << 27, 0.5
"""Most values whose statistics are NumPy's to the last bit, as in version 0.1, and the share of the
free memory that its two float64 copies may take. The statistics are part of a data set's
fingerprint, by which a run resumes; no data set of `keras.datasets` has more values."""
CHUNK_VALUES = 1 << 18
"""Number of values of larger arrays that are added at a time: as float64 they fit into a cache."""


@dataclass(frozen=True)
class Preprocessing:
    """The map `(x * scale - mean) / std` from stored values to model inputs.

    Attributes:
        scale: Factor on the raw values (1/255 for bytes).
        mean: Mean after scaling, per channel (last axis) or a single value.
        std: Standard deviation after scaling, per channel or a single value, above 0.
        bgr: Whether the channels are reversed first; `mean` and `std` are then in the reversed
            order.
        columns: For examples of several arrays: pairs of name and map; arrays without a map are not
            scaled.
    """

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    # not in the repr, so that fingerprints of older data stay equal; see `identity`
    bgr: bool = field(default=False, repr=False)
    columns: tuple[tuple[str, Preprocessing], ...] = field(default=(), repr=False)

    def __call__(self, x: Any) -> Any:
        """Apply the map.

        Args:
            x: Raw examples, shape (n, ..., C), or several arrays by name.

        Returns:
            Model inputs of the same shape, float32.
        """
        if isinstance(x, Mapping):
            column_maps = dict(self.columns)
            return {name: column_maps.get(name, _IDENTITY)(values) for name, values in x.items()}
        gain, offset = self.compute_gain_offset()
        return (x[..., ::-1] if self.bgr else x).astype(np.float32) * gain + offset

    def compute_gain_offset(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return gain and offset, (C,) or (1,) each, such that the map is `x * gain + offset`.

        With `bgr` they apply to the reversed channels.
        """
        std = np.asarray(self.std, np.float64)
        gain = self.scale / std
        offset = -np.asarray(self.mean, np.float64) / std
        return gain.astype(np.float32), offset.astype(np.float32)

    def to_graph_function(self) -> Callable[[Any], Any]:
        """Return the map as a function of TensorFlow tensors of any number type."""
        import tensorflow as tf

        if self.columns:
            maps = {name: column_map.to_graph_function() for name, column_map in self.columns}
            identity_map = _IDENTITY.to_graph_function()
            return lambda x: {
                name: maps.get(name, identity_map)(values) for name, values in x.items()
            }
        gain, offset = (tf.constant(part) for part in self.compute_gain_offset())

        def scale_inputs(x: Any) -> Any:
            if isinstance(x, Mapping):
                return {name: tf.cast(values, tf.float32) for name, values in x.items()}
            values_float = tf.cast(x, tf.float32)
            return (values_float[..., ::-1] if self.bgr else values_float) * gain + offset

        return scale_inputs

    def from_inputs(self, other: Preprocessing) -> Preprocessing:
        """Return the map from inputs with another scaling to inputs with this scaling."""
        if self.columns or other.columns:
            target_maps, source_maps = dict(self.columns), dict(other.columns)
            return Preprocessing(
                columns=tuple(
                    (
                        name,
                        target_maps.get(name, _IDENTITY).from_inputs(
                            source_maps.get(name, _IDENTITY)
                        ),
                    )
                    for name in dict.fromkeys((*target_maps, *source_maps))
                )
            )
        target_std, source_std = np.asarray(self.std, np.float64), np.asarray(other.std, np.float64)
        source_mean = np.asarray(other.mean, np.float64)
        is_reversed = self.bgr != other.bgr
        if is_reversed:
            source_std, source_mean = source_std[::-1], source_mean[::-1]
        # raw = (input * source_std + source_mean) / other.scale, in the order of this scaling
        factor = self.scale / other.scale
        mean = np.asarray(self.mean, np.float64) - source_mean * factor
        mean, std = np.broadcast_arrays(
            mean / (source_std * factor), target_std / (source_std * factor)
        )
        return Preprocessing(1.0, tuple(mean.tolist()), tuple(std.tolist()), is_reversed)

    @property
    def identity(self) -> str:
        """The text that identifies the map in hashes of data and caches."""
        # the text of maps without `bgr` and `columns` must not change between versions
        text = f"{self!r}" + ("bgr" if self.bgr else "")
        return text + "".join(
            f" {name}: {column_map.identity}" for name, column_map in self.columns
        )

    def is_equivalent(self, other: Preprocessing) -> bool:
        """Return whether both maps give the same inputs, up to rounding."""
        if self.columns or other.columns:
            column_maps, other_maps = dict(self.columns), dict(other.columns)
            return all(
                column_maps.get(name, _IDENTITY).is_equivalent(other_maps.get(name, _IDENTITY))
                for name in (*column_maps, *other_maps)
            )
        return self.bgr == other.bgr and all(
            np.allclose(values, other_values, rtol=1e-4, atol=1e-6)
            for values, other_values in zip(
                self.compute_gain_offset(), other.compute_gain_offset(), strict=True
            )
        )

    def to_json(self) -> dict[str, Any]:
        """Return the record that is stored beside exports."""
        record: dict[str, Any] = {
            "formula": "(x * scale - mean) / std, per channel (last axis)",
            "scale": self.scale,
            "mean": list(self.mean),
            "std": list(self.std),
        }
        if self.columns:
            record["columns"] = {name: column_map.to_json() for name, column_map in self.columns}
        if self.bgr:
            record["formula"] = "(x[..., ::-1] * scale - mean) / std: channels reversed, then each"
            record["bgr"] = True
        return record

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Preprocessing:
        """Return the map stored in a record of `to_json`.

        Raises:
            InputError: A value is missing or not a number.
        """
        try:
            return cls(
                float(record["scale"]),
                tuple(float(value) for value in record["mean"]),
                tuple(float(value) for value in record["std"]),
                bool(record.get("bgr", False)),
                tuple(
                    (name, cls.from_json(column_record))
                    for name, column_record in record.get("columns", {}).items()
                ),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"A preprocessing record must hold scale, mean and std. Received: {record} "
                f"({error!r})."
            ) from None


_IDENTITY = Preprocessing()


def fit_preprocessing(x: Columns, max_value: float, normalize: str) -> Preprocessing:
    """Return the scaling fitted to training examples.

    Args:
        x: Raw training examples, shape (n, features) or (n, H, W, C), or several such arrays by
            name: each has its own map, except integers other than bytes (indices), which are not
            scaled.
        max_value: Value that is scaled to 1.
        normalize: "standardize" (zero mean, unit variance per channel or feature; a constant
            channel is only centred), "center" (zero mean only), "unit" (scaling only), "symmetric"
            (to [-1, 1]), "caffe" and "torch" (ImageNet's means, see `CAFFE_MEAN` and
            `IMAGENET_MEAN`; three channels) or "none".

    Returns:
        The map, which does not depend on validation or test data.

    Raises:
        InputError: ImageNet's means are requested for data other than images of three channels.
    """
    if normalize == "none":
        return Preprocessing()
    if isinstance(x, Mapping):
        fitted = (
            (name, fit_preprocessing(values, 255.0 if values.dtype == np.uint8 else 1.0, normalize))
            for name, values in x.items()
            if values.dtype == np.uint8 or values.dtype.kind == "f"
        )
        return Preprocessing(columns=tuple(fitted))
    if normalize in ("caffe", "torch") and (x.ndim != 4 or x.shape[-1] != 3):
        raise InputError(
            f"normalize '{normalize}' must have images of three channels. Received: examples of "
            f"shape {x.shape[1:]}."
        )
    full_scale_value = infer_full_scale(x, max_value)
    fixed = {
        "unit": Preprocessing(1.0 / full_scale_value),
        "symmetric": Preprocessing(2.0 / full_scale_value, (1.0,)),
        "caffe": Preprocessing(255.0 / full_scale_value, CAFFE_MEAN, bgr=True),
        "torch": Preprocessing(1.0 / full_scale_value, IMAGENET_MEAN, IMAGENET_STD),
    }
    if normalize in fixed:
        return fixed[normalize]
    axes = tuple(range(x.ndim - 1))
    copied_bytes = 2 * np.dtype(np.float64).itemsize * x.size
    is_small = x.size <= WHOLE_VALUES and get_current_budget().can_hold(copied_bytes, WHOLE_SHARE)
    mean = x.mean(axes, np.float64) if is_small else _average_rows(x, lambda rows: rows)
    if normalize == "center":
        return Preprocessing(1.0, tuple(mean.tolist()))
    scale = 1.0 / max_value
    std = scale * (x.std(axes, np.float64) if is_small else _compute_std(x, mean))
    std = np.where(std > 1e-7, std, 1.0)
    return Preprocessing(scale, tuple((mean * scale).tolist()), tuple(std.tolist()))


def _compute_std(x: npt.NDArray[Any], mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the standard deviation per entry of the last axis, computed in chunks of rows."""
    row_mean = np.tile(mean, x[0].size // len(mean))

    def square_deviations(rows: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        deviations = rows - row_mean
        return np.square(deviations, out=deviations)  # a second array takes ten times as long

    return np.sqrt(_average_rows(x, square_deviations))


def _average_rows(
    x: npt.NDArray[Any], transform: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
) -> npt.NDArray[np.float64]:
    """Return the mean per entry of the last axis, computed in chunks of rows.

    Args:
        x: Examples, (n, ..., columns).
        transform: Maps flat examples, (chunk, values), to values of which the mean is taken.
    """
    # sums over examples first: over the last axis of a few channels they would be slow
    total = np.zeros(x[0].size)
    step = max(1, CHUNK_VALUES // x[0].size)
    for start in range(0, len(x), step):
        rows = x[start : start + step]
        total += transform(rows.reshape(len(rows), -1)).sum(0, dtype=np.float64)
    return np.asarray(total.reshape(-1, x.shape[-1]).sum(0) / (x.size / x.shape[-1]))


def infer_full_scale(x: npt.NDArray[np.generic], max_value: float) -> float:
    """Return the full-scale value: `max_value`, or 255 if the pixel values imply it.

    Pixels in [0, 255] are often stored as float32 or int64, where only the values show the scale.

    Args:
        x: Raw training examples; only images, (n, H, W, C), are inspected.
        max_value: Full-scale value of the source; 1 if it is unknown.
    """
    if max_value != 1.0 or x.ndim != 4:
        return max_value
    return 255.0 if x.min() >= 0 and 2 < x.max() <= 255 else max_value


def list_scalings(x: npt.NDArray[np.generic], max_value: float) -> dict[str, Preprocessing]:
    """Return the scalings that a model for such examples may have been trained with.

    Args:
        x: Raw training examples.
        max_value: Value that is scaled to 1.

    Returns:
        Scalings by name, with the names of `fit_preprocessing`; of equivalent ones only the first.
    """
    names = ["none", "unit", "standardize"]
    if x.ndim == 4 or max_value != 1.0:
        names.insert(2, "symmetric")
    if x.ndim == 4 and x.shape[-1] == 3:
        names += ["center", "caffe", "torch"]
    candidates: dict[str, Preprocessing] = {}
    for name in names:
        scaling = fit_preprocessing(x, max_value, name)
        if not any(scaling.is_equivalent(other) for other in candidates.values()):
            candidates[name] = scaling
    return candidates
