"""Weights to prune, skipped layers with reasons, and the report of weight pruning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from compress.core.errors import build_unknown_name_error
from compress.core.lazy_modules import keras, tf
from compress.core.summary import DisplayableResult, Summary
from compress.measure import formatting
from compress.model.keras_internals import (
    is_graph,
    list_direct_variables,
    list_layers,
    walk_named_calls,
)
from compress.model.layers import (
    BIAS,
    DEPTHWISE,
    EMBEDDING,
    KERNEL,
    NORMALIZATION,
    find_layer_class,
)
from compress.plan import LayerShare
from compress.reconstruction import RepairReport

ENDS = "ends"
_SKIP_REASONS = {
    BIAS: "biases are not pruned unless asked",
    NORMALIZATION: "normalization is not pruned unless asked",
    EMBEDDING: "embeddings are not pruned unless asked",
    DEPTHWISE: "depthwise kernels are small and not pruned unless asked",
}


@dataclass(frozen=True)
class MatrixView:
    """View of a kernel as matrices of inputs x outputs, one for each kernel position.

    Attributes:
        positions: Number of matrices.
        inputs: Number of rows.
        outputs: Number of columns.
        shape: Shape of the weight.
        swapped: Whether the weight's output axis is before its input axis (transposed
            convolutions).
    """

    positions: int
    inputs: int
    outputs: int
    shape: tuple[int, ...]
    swapped: bool = False

    def to_matrices(self, weight: Any) -> Any:
        """Return a tensor of the weight's shape as (positions, inputs, outputs)."""
        if self.swapped:
            stored = tf.reshape(weight, (self.positions, self.outputs, self.inputs))
            return tf.transpose(stored, (0, 2, 1))
        return tf.reshape(weight, (self.positions, self.inputs, self.outputs))

    def from_matrices(self, matrices: Any) -> Any:
        """Return a tensor (positions, inputs, outputs) in the weight's shape."""
        return tf.reshape(tf.transpose(matrices, (0, 2, 1)) if self.swapped else matrices,
                          self.shape)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Target:
    """A weight to prune.

    Attributes:
        layer: Name of the layer, with the names of the enclosing layers before it.
        kind: Class name of the layer.
        variable: The Keras variable.
        role: "kernels", "biases", ...
        view: View of the weight as matrices; None if it has none.
        sparsity: Sparsity set by an override; None: the plan's.
    """

    layer: str
    kind: str
    variable: Any
    role: str = KERNEL
    view: MatrixView | None = None
    sparsity: float | None = None

    @property
    def size(self) -> int:
        """The number of weights."""
        return int(np.prod(self.variable.shape))

    @property
    def matrix(self) -> MatrixView:
        """The view as matrices.

        Raises:
            ValueError: The weight has none.
        """
        if self.view is None:
            raise ValueError(f"the weight of layer '{self.layer}' must be a matrix")
        return self.view


@dataclass(frozen=True)
class SkippedLayer:
    """A layer with weights that is not pruned, with the reason."""

    layer: str
    kind: str
    reason: str


@dataclass(frozen=True)
class PrunedLayer:
    """One pruned weight tensor.

    Attributes:
        layer: Name of the layer.
        size: Number of weights.
        zeros: Number of weights that are zero.
        weight: "kernels", "biases", ...
    """

    layer: str
    size: int
    zeros: int
    weight: str = "kernels"


@dataclass(frozen=True, repr=False)
class WeightReport(DisplayableResult):
    """Report of weight pruning: pruned weights, and skipped layers with reasons.

    Attributes:
        pruned: The pruned weights, in the order of the model.
        kept: Layers with weights that were not pruned, with reasons.
        pattern: "unstructured", "2:4" or "1x4".
        scope: "layer", "global" or "erk".
        notes: Notes for the user.
        repair: Report of the weight reconstruction; None if there was none.
    """

    pruned: tuple[PrunedLayer, ...]
    kept: tuple[SkippedLayer, ...]
    pattern: str = "unstructured"
    scope: str = "layer"
    notes: tuple[str, ...] = ()
    repair: RepairReport | None = None

    @property
    def sparsity(self) -> float:
        """The share of zeros among all pruned weights; 0 if nothing was pruned."""
        total = sum(layer.size for layer in self.pruned)
        return sum(layer.zeros for layer in self.pruned) / total if total else 0.0

    def build_summary(self) -> Summary:
        """Return a summary for the screen: the share of zeros by layer, and the skipped layers."""
        total = sum(layer.size for layer in self.pruned)
        return Summary(
            f"{self.sparsity:.1%} zeros among {formatting.format_count(total)} pruned weights "
            f"({self.pattern}, {self.scope})",
            () if self.repair is None else (self.repair.summarize(),),
            ("Layer", "what", "weights", "zeros"),
            tuple(
                (row.layer, row.weight, f"{row.size:,}", f"{row.zeros / max(1, row.size):.1%}")
                for row in self.pruned
            ),
            (*self.notes, *(f"kept {item.layer}: {item.reason}" for item in self.kept)),
            "layers",
        )

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return {**asdict(self), "sparsity": self.sparsity}


def find_targets(
    model: keras.Model,
    *,
    include: Sequence[str] = (),
    overrides: Sequence[LayerShare] = (),
) -> tuple[list[Target], list[SkippedLayer]]:
    """Sort the layers with weights into those to prune and those to skip.

    Layers inside layers (cells, projections of attention, wrapped and composite layers) are sorted
    one by one. A custom layer can list its weights to prune in `get_prunable_weights()`, as with
    tfmot.

    Args:
        model: Any built model. Layers of a subclassed model are in the order of their creation.
        include: Weights to prune besides kernels: "biases", "normalization", "embeddings",
            "depthwise", and "ends" for the first and last layer.
        overrides: Sparsity by pattern of layer names; the last matching pattern applies. Sparsity 0
            skips a layer. Overrides also apply to the first and last layer.

    Returns:
        Targets in the order of the model, and the skipped layers with reasons.

    Raises:
        InputError: A pattern matches no layer that can be pruned.
    """
    targets: list[Target] = []
    kept: list[SkippedLayer] = []
    seen: set[int] = set()
    for name, layer in _iter_layers(model):
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        layer_targets, reason = _find_layer_targets(name, layer, include)
        targets += layer_targets
        if reason:
            kept.append(SkippedLayer(name, type(layer).__name__, reason))
    return _filter_targets(targets, kept, include, overrides)


def _iter_layers(model: keras.Model) -> Iterator[tuple[str, Any]]:
    if not is_graph(model):
        for layer in list_layers(model, include_self=False):
            yield layer.path.partition("/")[2] or layer.name, layer
        return
    for name, operation in walk_named_calls(model):
        if isinstance(operation, keras.layers.Layer):
            for layer in list_layers(operation):
                yield (name if layer is operation else f"{name}/{layer.name}"), layer


def _find_layer_targets(name: str, layer: Any, include: Sequence[str]) -> tuple[list[Target], str]:
    """Return the targets of a layer, and the reason if it has none."""
    kind = type(layer).__name__
    if not list_direct_variables(layer) or isinstance(layer, keras.Model):
        return [], ""
    if hasattr(layer, "get_prunable_weights"):
        targets = [Target(name, kind, variable) for variable in layer.get_prunable_weights()]
        return targets, "" if targets else "its get_prunable_weights() names none"
    weights = find_layer_class(layer).weights
    if not weights:
        return [], "no rule for this class"
    if not layer.trainable:
        return [], "frozen (trainable=False)"
    targets, reasons = [], []
    for attribute, role in weights:
        variable = getattr(layer, attribute, None)
        if variable is None:
            continue
        if role == KERNEL or role in include:
            targets.append(Target(name, kind, variable, role, _build_view(layer, variable, role)))
        elif role != BIAS:
            reasons.append(_SKIP_REASONS[role])
    return targets, "" if targets else next(iter(reasons), "")


def _build_view(layer: Any, variable: Any, role: str) -> MatrixView | None:
    """Return the view of a kernel as matrices, or None if it has no input and output axes."""
    shape, work = tuple(variable.shape), find_layer_class(layer).work
    if role not in (KERNEL, EMBEDDING) or len(shape) < 2:
        return None
    if work == "einsum_dense":
        source, kernel, target = layer.equation.replace("...", "").replace("->", ",").split(",")
        summed = [letter in source and letter not in target for letter in kernel]
        split = sum(summed)
        if not 0 < split < len(kernel) or not all(summed[:split]):
            return None
        return MatrixView(1, int(np.prod(shape[:split])), int(np.prod(shape[split:])), shape)
    positions = int(np.prod(shape[:-2]))
    if work == "transposed":
        return MatrixView(positions, shape[-1], shape[-2], shape, swapped=True)
    return MatrixView(positions, shape[-2], shape[-1], shape)


def _filter_targets(
    targets: list[Target],
    kept: list[SkippedLayer],
    include: Sequence[str],
    overrides: Sequence[LayerShare],
) -> tuple[list[Target], list[SkippedLayer]]:
    names = [target.layer for target in targets]
    for override in overrides:
        if not any(fnmatchcase(name, override.pattern) for name in names):
            raise build_unknown_name_error(
                "layer or pattern (no weights to prune)", override.pattern, names
            )
    kernels = [target for target in targets if target.role == KERNEL]
    ends: dict[int, str] = {}
    if ENDS not in include and kernels:
        first, last = id(kernels[0]), id(kernels[-1])
        ends = {first: "only"} if first == last else {last: "last", first: "first"}
    chosen = []
    for target in targets:
        override_shares = [
            item.share for item in overrides if fnmatchcase(target.layer, item.pattern)
        ]
        if override_shares and override_shares[-1] == 0:
            kept.append(SkippedLayer(target.layer, target.kind, "kept by an override"))
        elif override_shares:
            chosen.append(Target(target.layer, target.kind, target.variable, target.role,
                                 target.view, override_shares[-1]))  # fmt: skip
        elif id(target) in ends:
            reason = f"{ends[id(target)]} layer, not pruned unless asked ('{ENDS}')"
            kept.append(SkippedLayer(target.layer, target.kind, reason))
        else:
            chosen.append(target)
    return chosen, kept
