"""Costs of a forward pass: per call and in total."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from compress.core.summary import DisplayableResult, Summary
from compress.measure import formatting

_BITS = {"bool": 8, "string": 8, "bfloat16": 16, "float8_e4m3fn": 8, "float8_e5m2": 8}
"""Bits of an element, where digits of the dtype's name do not say it."""


def count_bytes(shape: Sequence[int], dtype: str) -> int:
    """Return the bytes of a tensor; elements below a byte are packed.

    Args:
        shape: All sizes.
        dtype: Name of the dtype; 32 bits if the name has no digits.
    """
    digits = "".join(filter(str.isdigit, dtype))
    bits = _BITS.get(dtype) or int(digits or 32)
    return math.ceil(math.prod(shape) * bits / 8)


def compute_peak_bytes(
    calls: Sequence[tuple[Mapping[int, int | None], int | None]], output_keys: Iterable[int]
) -> int | None:
    """Return the peak bytes of live tensors; each lives from its creation to its last use.

    Args:
        calls: Calls in execution order. For each: bytes of the tensors that it reads and creates,
            by tensor key, and the extra bytes that it needs while it runs. None marks an unknown
            size.
        output_keys: Keys of the tensors that stay alive until the end.

    Returns:
        Peak in bytes; None if a size is unknown.
    """
    last_use = {key: index for index, (tensors, _) in enumerate(calls) for key in tensors}
    last_use |= dict.fromkeys(output_keys, len(calls))
    alive: dict[int, int] = {}
    peak = 0
    for index, (tensors, extra_bytes) in enumerate(calls):
        sizes = {key: size for key, size in tensors.items() if size is not None}
        if extra_bytes is None or len(sizes) < len(tensors):
            return None
        alive |= sizes
        peak = max(peak, sum(alive.values()) + extra_bytes)
        alive = {key: size for key, size in alive.items() if last_use[key] > index}
    return peak


@dataclass(frozen=True)
class LayerCost:
    """Costs of one call.

    Attributes:
        name: Layer name, prefixed with the names of the models that contain it.
        kind: Class name.
        output_shape: Output shape without the batch axis; None for an unknown size.
        macs: Multiply-accumulates at batch 1; None if they could not be counted (see `reason`).
        params: Number of parameters; those of a shared layer are counted at its first call only.
        nonzero: Number of parameters that are not zero.
        reason: Why `macs` is None.
        sparse_macs: MACs with a non-zero weight; equal to `macs` if the call has no weights.
        other_ops: Elementwise operations, which are not MACs (see `compress.measure.rules`).
        bytes_moved: Bytes of inputs, weights and outputs, each counted once, in the layer's dtypes.
    """

    name: str
    kind: str
    output_shape: tuple[int | None, ...]
    macs: int | None
    params: int
    nonzero: int
    reason: str = ""
    sparse_macs: int | None = None
    other_ops: int | None = None
    bytes_moved: int | None = None


@dataclass(frozen=True, repr=False)
class Analysis(DisplayableResult):
    """Costs of a model per call, including the calls that could not be counted.

    Attributes:
        layers: Calls in execution order.
        peak_bytes: Peak bytes of live activations at batch 1, if each tensor lives from its
            creation to its last use; None if a size is unknown.
    """

    layers: tuple[LayerCost, ...]
    peak_bytes: int | None = None

    @property
    def macs(self) -> int:
        """Counted multiply-accumulates; a lower bound if `unsupported` is not empty."""
        return sum(layer.macs or 0 for layer in self.layers)

    @property
    def sparse_macs(self) -> int:
        """Counted multiply-accumulates with a non-zero weight; most runtimes do not skip zeros."""
        return sum(layer.sparse_macs or 0 for layer in self.layers)

    @property
    def other_ops(self) -> int:
        """Elementwise operations, which are not MACs."""
        return sum(layer.other_ops or 0 for layer in self.layers)

    @property
    def bytes_moved(self) -> int:
        """Bytes read and written by all calls, assuming that nothing stays in a cache."""
        return sum(layer.bytes_moved or 0 for layer in self.layers)

    @property
    def params(self) -> int:
        """All parameters, trainable or not."""
        return sum(layer.params for layer in self.layers)

    @property
    def nonzero(self) -> int:
        """Parameters that are not exactly zero."""
        return sum(layer.nonzero for layer in self.layers)

    @property
    def unsupported(self) -> tuple[str, ...]:
        """Calls that could not be counted: "name (class): reason"."""
        return tuple(
            f"{layer.name} ({layer.kind}): {layer.reason}"
            for layer in self.layers
            if layer.macs is None
        )

    def build_summary(self) -> Summary:
        """Return a summary for one screen: totals, then layers by falling MACs."""
        format_count, total = formatting.format_count, max(1, self.macs)
        lines = [
            f"{format_count(self.params)} parameters ({format_count(self.nonzero)} not zero), "
            f"{formatting.format_size(self.bytes_moved)} moved"
        ]
        if self.peak_bytes is not None:
            lines[0] += f", {formatting.format_size(self.peak_bytes)} of activations at the peak"
        costly = sorted(
            (layer for layer in self.layers if layer.macs or layer.params),
            key=lambda layer: -(layer.macs or 0),
        )
        return Summary(
            f"{format_count(self.macs)} MACs at batch 1 ({format_count(2 * self.macs)} FLOPs)",
            tuple(lines),
            ("Layer", "class", "MACs", "share", "parameters"),
            tuple(
                (
                    layer.name,
                    layer.kind,
                    format_count(layer.macs),
                    f"{(layer.macs or 0) / total:.1%}",
                    format_count(layer.params),
                )
                for layer in costly
            ),
            tuple(f"not counted: {text}" for text in self.unsupported),
            "layers",
        )

    def by_class(self) -> dict[str, int]:
        """Return the MACs of each class that has any, largest first."""
        macs_by_class: dict[str, int] = {}
        for layer in self.layers:
            if layer.macs:
                macs_by_class[layer.kind] = macs_by_class.get(layer.kind, 0) + layer.macs
        return dict(sorted(macs_by_class.items(), key=lambda item: -item[1]))
