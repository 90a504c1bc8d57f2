"""Scaling of raw inputs, learnt on training data and stored with every run and export."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import Columns, chunks, is_mapped
from compress.core.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Red, green, blue, of pixels in [0, 1]: what `keras.applications` calls "torch"."""
CAFFE_MEAN = (103.939, 116.779, 123.68)
"""Blue, green, red, of pixels in [0, 255]: what `keras.applications` calls "caffe"."""


@dataclass(frozen=True)
class Preprocessing:
    """The map `(x * scale - mean) / std` from stored values to model inputs.

    Attributes:
        scale: Factor on the raw values (1/255 for bytes).
        mean: After scaling, per channel (last axis) or a single value.
        std: Likewise, above 0.
        bgr: Whether the channels are reversed before all that; `mean` and `std` are of the
            reversed ones then.
        columns: Of examples of several arrays: the map of each by its name; others are fed as
            they are.
    """

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    # not in the text that fingerprints are made of, unless it is set: see `Dataset.fingerprint`
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
            own = dict(self.columns)
            return {name: own.get(name, _PLAIN)(values) for name, values in x.items()}
        gain, offset = self.affine()
        return (x[..., ::-1] if self.bgr else x).astype(np.float32) * gain + offset

    def affine(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return gain and offset, shape (C,) or (1,): the map is `x * gain + offset`."""
        std = np.asarray(self.std, np.float64)
        gain = self.scale / std
        offset = -np.asarray(self.mean, np.float64) / std
        return gain.astype(np.float32), offset.astype(np.float32)

    def in_graph(self) -> Callable[[Any], Any]:
        """Return the map as a function of TensorFlow tensors, of any number type."""
        import tensorflow as tf

        if self.columns:
            maps = {name: own.in_graph() for name, own in self.columns}
            plain = _PLAIN.in_graph()
            return lambda x: {name: maps.get(name, plain)(values) for name, values in x.items()}
        gain, offset = (tf.constant(part) for part in self.affine())

        def scaled(x: Any) -> Any:
            if isinstance(x, Mapping):
                return {name: tf.cast(values, tf.float32) for name, values in x.items()}
            turned = tf.cast(x, tf.float32)
            return (turned[..., ::-1] if self.bgr else turned) * gain + offset

        return scaled

    def from_inputs(self, other: Preprocessing) -> Preprocessing:
        """Return the map that makes inputs of this scaling from inputs of another one."""
        if self.columns or other.columns:
            mine, its = dict(self.columns), dict(other.columns)
            return Preprocessing(
                columns=tuple(
                    (name, mine.get(name, _PLAIN).from_inputs(its.get(name, _PLAIN)))
                    for name in dict.fromkeys((*mine, *its))
                )
            )
        own_std, its_std = np.asarray(self.std, np.float64), np.asarray(other.std, np.float64)
        its_mean = np.asarray(other.mean, np.float64)
        turned = self.bgr != other.bgr
        if turned:
            its_std, its_mean = its_std[::-1], its_mean[::-1]
        # raw = (input * its_std + its_mean) / other.scale, in the order of this scaling
        factor = self.scale / other.scale
        mean = np.asarray(self.mean, np.float64) - its_mean * factor
        mean, std = np.broadcast_arrays(mean / (its_std * factor), own_std / (its_std * factor))
        return Preprocessing(1.0, tuple(mean.tolist()), tuple(std.tolist()), turned)

    @property
    def identity(self) -> str:
        """A text that identifies the map in hashes of data and caches."""
        # plain maps keep the text that they had before there were others
        own = f"{self!r}" + ("bgr" if self.bgr else "")
        return own + "".join(f" {name}: {each.identity}" for name, each in self.columns)

    def same_as(self, other: Preprocessing) -> bool:
        """Return whether both give the same inputs, up to rounding."""
        if self.columns or other.columns:
            mine, its = dict(self.columns), dict(other.columns)
            return all(
                mine.get(name, _PLAIN).same_as(its.get(name, _PLAIN)) for name in (*mine, *its)
            )
        return self.bgr == other.bgr and all(
            np.allclose(own, its, rtol=1e-4, atol=1e-6)
            for own, its in zip(self.affine(), other.affine(), strict=True)
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
            record["columns"] = {name: own.to_json() for name, own in self.columns}
        if self.bgr:
            record["formula"] = "(x[..., ::-1] * scale - mean) / std: channels reversed, then each"
            record["bgr"] = True
        return record

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Preprocessing:
        """Read what `to_json` wrote.

        Raises:
            InputError: A part is missing or not a number.
        """
        try:
            return cls(
                float(record["scale"]),
                tuple(float(value) for value in record["mean"]),
                tuple(float(value) for value in record["std"]),
                bool(record.get("bgr", False)),
                tuple(
                    (name, cls.from_json(own)) for name, own in record.get("columns", {}).items()
                ),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"A preprocessing record must hold scale, mean and std. Received: {record} "
                f"({error!r})."
            ) from None


_PLAIN = Preprocessing()


def fit_preprocessing(x: Columns, max_value: float, normalize: str) -> Preprocessing:
    """Learn the scaling from training examples.

    Args:
        x: Raw training examples, shape (n, features) or (n, H, W, C), or several such arrays by
            name: each has a map of its own, and whole numbers other than bytes (indices) none.
        max_value: What is scaled to 1.
        normalize: "standardize" (zero mean, unit variance per channel or feature; a
            constant channel keeps variance 1), "center" (zero mean alone), "unit" (scaling
            only), "symmetric" (to [-1, 1]), "caffe" and "torch" (ImageNet's means, see
            `CAFFE_MEAN` and `IMAGENET_MEAN`; three channels) or "none".

    Returns:
        The map; it never sees validation or test data.

    Raises:
        InputError: ImageNet's means for other than images of three channels.
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
    full = full_scale(x, max_value)
    fixed = {
        "unit": Preprocessing(1.0 / full),
        "symmetric": Preprocessing(2.0 / full, (1.0,)),
        "caffe": Preprocessing(255.0 / full, CAFFE_MEAN, bgr=True),
        "torch": Preprocessing(1.0 / full, IMAGENET_MEAN, IMAGENET_STD),
    }
    if normalize in fixed:
        return fixed[normalize]
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axis=axes, dtype=np.float64)
    if normalize == "center":
        return Preprocessing(1.0, tuple(mean.tolist()))
    scale = 1.0 / max_value
    mean = mean * scale
    std = (_spread(x, mean / scale) if is_mapped(x) else x.std(axis=axes, dtype=np.float64)) * scale
    std = np.where(std > 1e-7, std, 1.0)
    return Preprocessing(scale, tuple(mean.tolist()), tuple(std.tolist()))


def _spread(x: npt.NDArray[Any], mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the standard deviation of the last axis's entries, some rows at a time."""
    total = np.zeros(x.shape[-1])
    for part in chunks(x):
        total += np.square(x[part].reshape(-1, x.shape[-1]) - mean).sum(0)
    return np.asarray(np.sqrt(total / (x.size / x.shape[-1])))


def full_scale(x: npt.NDArray[np.generic], max_value: float) -> float:
    """Return the value of full scale: `max_value`, or 255 where pixels show it.

    Pixels in [0, 255] are often kept as float32 or int64; nothing but the values tells.
    """
    if max_value != 1.0 or x.ndim != 4:
        return max_value
    return 255.0 if x.min() >= 0 and 2 < x.max() <= 255 else max_value


def scalings(x: npt.NDArray[np.generic], max_value: float) -> dict[str, Preprocessing]:
    """Return the scalings that a model for such examples may have been trained with.

    Args:
        x: Raw training examples.
        max_value: What is scaled to 1.

    Returns:
        By name, as `fit_preprocessing` takes them; of equal ones the first.
    """
    names = ["none", "unit", "standardize"]
    if x.ndim == 4 or max_value != 1.0:
        names.insert(2, "symmetric")
    if x.ndim == 4 and x.shape[-1] == 3:
        names += ["center", "caffe", "torch"]
    found: dict[str, Preprocessing] = {}
    for name in names:
        made = fit_preprocessing(x, max_value, name)
        if not any(made.same_as(other) for other in found.values()):
            found[name] = made
    return found
