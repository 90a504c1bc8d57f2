"""What the time of a call depends on: its class, its config and the shapes at batch 1."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.measure.call_shapes import Shape
from compress.run.records import Record

_NAMES = """
    name trainable dtype built build_config registered_name module batch_shape batch_input_shape
    momentum epsilon seed rate noise_shape stddev synchronized renorm ragged sparse optional
    supports_masking zero_output_for_mask
"""
TIMELESS = frozenset(_NAMES.split())
"""Entries of a layer's config that tell nothing of the time of its inference."""
_TIMELESS_ENDS = ("_initializer", "_regularizer", "_constraint")


@dataclass(frozen=True)
class CallKey(Record):
    """A call, or several that a runtime runs as one; equal keys take equal time.

    What is left out of it does not count for time: names, weights, how they were initialized
    and held in training. Whatever else a config holds is part of the key, so that calls whose
    times may differ have different keys.

    Attributes:
        kinds: Class names, in the order of the calls.
        inputs: Shapes of the inputs, the batch axis (1) first.
        outputs: Shapes of the outputs likewise.
        config: Their configs and fixed arguments, as JSON with sorted keys.
    """

    kinds: tuple[str, ...]
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    config: str

    def __str__(self) -> str:
        """Returns "Conv2D+ReLU 28x28x16 -> 28x28x32"."""
        given, made = (
            ", ".join("x".join(map(str, shape[1:])) or "1" for shape in shapes)
            for shapes in (self.inputs, self.outputs)
        )
        return f"{'+'.join(self.kinds)} {given} -> {made}"


def key_of(
    calls: Sequence[tuple[str, Mapping[str, Any]]],
    inputs: Sequence[Shape],
    outputs: Sequence[Shape],
) -> CallKey:
    """Returns the key of calls in a row.

    Args:
        calls: Class name and config of each; a config may hold anything, arguments of the call
            among it.
        inputs: Shapes of what comes from outside, the batch axis of size 1 first.
        outputs: Shapes of what they make.
    """
    return CallKey(
        tuple(kind for kind, _ in calls),
        tuple(tuple(map(int, shape)) for shape in inputs),
        tuple(tuple(map(int, shape)) for shape in outputs),
        json.dumps([_plain(config) for _, config in calls], sort_keys=True),
    )


def _plain(value: Any) -> Any:
    """Returns a value as JSON holds it, without what time does not depend on."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items() if not _timeless(str(name))}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, slice):
        return ["slice", _plain(value.start), _plain(value.stop), _plain(value.step)]
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return [*map(str, value.shape), str(value.dtype)]
    # functions and objects: an address would make equal calls differ
    return getattr(value, "__qualname__", type(value).__qualname__)


def _timeless(name: str) -> bool:
    return name in TIMELESS or name.endswith(_TIMELESS_ENDS)
