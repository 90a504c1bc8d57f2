"""What a forward pass costs, call by call and in all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from compress.core.summary import Readable, Summary
from compress.measure import formats


def peak_bytes(
    calls: Sequence[tuple[Mapping[int, int | None], int | None]], kept: Iterable[int]
) -> int | None:
    """Return the most bytes alive at one time, each tensor from its making to its last use.

    Args:
        calls: In their order; of each the bytes of what it reads and makes, by a key of the
            tensor, and what it needs beside. None: not known.
        kept: Keys of the tensors that are needed at the end.

    Returns:
        None where bytes are not known.
    """
    last = {key: place for place, (tensors, _) in enumerate(calls) for key in tensors}
    last |= dict.fromkeys(kept, len(calls))
    alive: dict[int, int] = {}
    peak = 0
    for place, (tensors, beside) in enumerate(calls):
        sizes = {key: size for key, size in tensors.items() if size is not None}
        if beside is None or len(sizes) < len(tensors):
            return None
        alive |= sizes
        peak = max(peak, sum(alive.values()) + beside)
        alive = {key: size for key, size in alive.items() if last[key] > place}
    return peak


@dataclass(frozen=True)
class LayerCost:
    """One call's cost.

    Attributes:
        name: Layer name, with the names of the models around it.
        kind: Class name.
        output_shape: Without the batch axis; None where a size is unknown.
        macs: Multiply-accumulates at batch 1; None: could not be counted (see `reason`).
        params: Parameters; of a shared layer only at its first call.
        nonzero: Parameters that are not zero.
        reason: Why `macs` is None.
        sparse_macs: MACs whose weight is not zero; `macs` where no weight is multiplied.
        other_ops: Elementwise operations, which are no MACs (see `compress.measure.rules`).
        bytes_moved: Bytes of inputs, weights and outputs, each once, in the layer's types.
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
class Analysis(Readable):
    """The costs of a model, call by call, with the calls that are not counted.

    Attributes:
        layers: In the order in which they run.
        peak_bytes: Most bytes of activations alive at one time, at batch 1, if each tensor
            lives from where it is made to its last use; None where a size is unknown.
    """

    layers: tuple[LayerCost, ...]
    peak_bytes: int | None = None

    @property
    def macs(self) -> int:
        """Counted multiply-accumulates; a lower bound where `unsupported` is not empty."""
        return sum(layer.macs or 0 for layer in self.layers)

    @property
    def sparse_macs(self) -> int:
        """Counted multiply-accumulates whose weight is not zero; ordinary runtimes do all."""
        return sum(layer.sparse_macs or 0 for layer in self.layers)

    @property
    def other_ops(self) -> int:
        """Elementwise operations beside the MACs."""
        return sum(layer.other_ops or 0 for layer in self.layers)

    @property
    def bytes_moved(self) -> int:
        """Bytes read and written by all calls, if nothing stays in a cache."""
        return sum(layer.bytes_moved or 0 for layer in self.layers)

    @property
    def params(self) -> int:
        """All parameters, trained or not."""
        return sum(layer.params for layer in self.layers)

    @property
    def nonzero(self) -> int:
        """Parameters that are not exactly zero."""
        return sum(layer.nonzero for layer in self.layers)

    @property
    def unsupported(self) -> tuple[str, ...]:
        """What could not be counted: "name (class): reason"."""
        return tuple(
            f"{layer.name} ({layer.kind}): {layer.reason}"
            for layer in self.layers
            if layer.macs is None
        )

    def screen(self) -> Summary:
        """Return the summary of one screen: the totals, and the costliest layers first."""
        macs, total = formats.count, max(1, self.macs)
        lines = [
            f"{macs(self.params)} parameters ({macs(self.nonzero)} not zero), "
            f"{formats.size(self.bytes_moved)} moved"
        ]
        if self.peak_bytes is not None:
            lines[0] += f", {formats.size(self.peak_bytes)} of activations at the peak"
        costly = sorted(
            (layer for layer in self.layers if layer.macs or layer.params),
            key=lambda layer: -(layer.macs or 0),
        )
        return Summary(
            f"{macs(self.macs)} MACs at batch 1 ({macs(2 * self.macs)} FLOPs)",
            tuple(lines),
            ("Layer", "class", "MACs", "share", "parameters"),
            tuple(
                (layer.name, layer.kind, macs(layer.macs), f"{(layer.macs or 0) / total:.1%}",
                 macs(layer.params))
                for layer in costly
            ),
            tuple(f"not counted: {text}" for text in self.unsupported),
            "layers",
        )  # fmt: skip

    def by_class(self) -> dict[str, int]:
        """Return the MACs of each class that has any, most first."""
        found: dict[str, int] = {}
        for layer in self.layers:
            if layer.macs:
                found[layer.kind] = found.get(layer.kind, 0) + layer.macs
        return dict(sorted(found.items(), key=lambda item: -item[1]))
