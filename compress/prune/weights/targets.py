"""Which weights of a model are pruned, and why the others are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress import graph

if TYPE_CHECKING:
    import keras

# The kernels that tfmot prunes too (its prune_registry), without embeddings.
KERNELS = {
    "Conv1D": "kernel",
    "Conv2D": "kernel",
    "Conv3D": "kernel",
    "Conv1DTranspose": "kernel",
    "Conv2DTranspose": "kernel",
    "Conv3DTranspose": "kernel",
    "Dense": "kernel",
    "EinsumDense": "kernel",
    "SeparableConv1D": "pointwise_kernel",
    "SeparableConv2D": "pointwise_kernel",
}
_REASONS = {
    "DepthwiseConv1D": "depthwise kernels are small and not pruned",
    "DepthwiseConv2D": "depthwise kernels are small and not pruned",
    "Embedding": "embeddings are not pruned",
    "BatchNormalization": "normalization is not pruned",
    "LayerNormalization": "normalization is not pruned",
    "GroupNormalization": "normalization is not pruned",
    "RMSNormalization": "normalization is not pruned",
}


@dataclass(frozen=True)
class Target:
    """A kernel to prune: the layer's name and class, and the Keras variable."""

    layer: str
    kind: str
    variable: Any


@dataclass(frozen=True)
class Kept:
    """A layer with weights that is not pruned, and why."""

    layer: str
    kind: str
    reason: str


def find_targets(model: keras.Model, *, ends: bool) -> tuple[list[Target], list[Kept]]:
    """Sorts the layers that have weights into those to prune and those to keep.

    Args:
        model: A functional model or a built Sequential.
        ends: Prune the first and the last kernel too.

    Returns:
        Targets in topological order, and the kept layers with their reasons.
    """
    targets: list[Target] = []
    kept: list[Kept] = []
    seen: set[int] = set()
    for call in graph.calls(model):
        layer, kind = call.operation, type(call.operation).__name__
        if id(layer) in seen or not getattr(layer, "weights", None):
            continue
        seen.add(id(layer))
        if kind not in KERNELS:
            kept.append(Kept(call.name, kind, _REASONS.get(kind, "no rule for this class")))
        elif not layer.trainable:
            kept.append(Kept(call.name, kind, "frozen (trainable=False)"))
        else:
            targets.append(Target(call.name, kind, getattr(layer, KERNELS[kind])))
    if not ends and targets:
        both = {"first": targets[0], "last": targets[-1]}
        for place, target in (both if len(targets) > 1 else {"only": targets[0]}).items():
            kept.append(Kept(target.layer, target.kind, f"{place} layer (ends=True prunes it)"))
        targets = targets[1:-1]
    return targets, kept
