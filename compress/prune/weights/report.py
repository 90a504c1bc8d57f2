"""What weight pruning did: the pruned weights, the kept layers and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from compress.core.summary import Readable, Summary
from compress.measure import formats
from compress.prune.weights.targets import SkippedLayer
from compress.reconstruction import RepairReport


@dataclass(frozen=True)
class PrunedLayer:
    """One pruned weight.

    Attributes:
        layer: The layer's name.
        size: Number of weights.
        zeros: How many of them are zero.
        weight: "kernels", "biases", ...
    """

    layer: str
    size: int
    zeros: int
    weight: str = "kernels"


@dataclass(frozen=True, repr=False)
class WeightReport(Readable):
    """What was pruned, what was kept and why.

    Attributes:
        pruned: The pruned weights, in the order of the model.
        kept: Layers with weights left alone, with the reason.
        pattern: "unstructured", "2:4", "1x4".
        scope: "layer", "global" or "erk".
        notes: What the user should know.
        repair: What was solved for afterwards; None: nothing was.
    """

    pruned: tuple[PrunedLayer, ...]
    kept: tuple[SkippedLayer, ...]
    pattern: str = "unstructured"
    scope: str = "layer"
    notes: tuple[str, ...] = ()
    repair: RepairReport | None = None

    @property
    def sparsity(self) -> float:
        """Zeros over all weights, of the pruned ones together; 0 without any."""
        total = sum(layer.size for layer in self.pruned)
        return sum(layer.zeros for layer in self.pruned) / total if total else 0.0

    def screen(self) -> Summary:
        """Returns what is worth a screen: the share of zeros, by layer, and what was kept."""
        total = sum(layer.size for layer in self.pruned)
        return Summary(
            f"{self.sparsity:.1%} zeros among {formats.count(total)} pruned weights "
            f"({self.pattern}, {self.scope})",
            () if self.repair is None else (self.repair.line(),),
            ("Layer", "what", "weights", "zeros"),
            tuple(
                (row.layer, row.weight, f"{row.size:,}", f"{row.zeros / max(1, row.size):.1%}")
                for row in self.pruned
            ),
            (*self.notes, *(f"kept {item.layer}: {item.reason}" for item in self.kept)),
            "layers",
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the record as JSON."""
        return {**asdict(self), "sparsity": self.sparsity}
