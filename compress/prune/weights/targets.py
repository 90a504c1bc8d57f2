"""Weights to prune, kept layers with reasons, and the report of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from compress.core.errors import unknown_name
from compress.core.lazy_modules import keras, tf
from compress.core.summary import Readable, Summary
from compress.measure import formats
from compress.model.internals import calls, is_graph, layers_inside, own_variables
from compress.model.layers import BIAS, DEPTHWISE, EMBEDDING, KERNEL, NORMALIZATION, class_of
from compress.plan import LayerShare
from compress.reconstruction import RepairReport

ENDS = "ends"
_NOT_ASKED = {
    BIAS: "biases are not pruned unless asked",
    NORMALIZATION: "normalization is not pruned unless asked",
    EMBEDDING: "embeddings are not pruned unless asked",
    DEPTHWISE: "depthwise kernels are small and not pruned unless asked",
}


@dataclass(frozen=True)
class View:
    """A kernel as matrices of inputs x outputs, one a kernel position.

    Attributes:
        positions: Number of matrices.
        inputs: Their rows.
        outputs: Their columns.
        shape: Of the weight.
        swapped: The weight has its outputs before its inputs (transposed convolutions).
    """

    positions: int
    inputs: int
    outputs: int
    shape: tuple[int, ...]
    swapped: bool = False

    def matrices(self, weight: Any) -> Any:
        """Return a tensor of the weight's shape as (positions, inputs, outputs)."""
        if self.swapped:
            stored = tf.reshape(weight, (self.positions, self.outputs, self.inputs))
            return tf.transpose(stored, (0, 2, 1))
        return tf.reshape(weight, (self.positions, self.inputs, self.outputs))

    def weight(self, matrices: Any) -> Any:
        """Return (positions, inputs, outputs) in the weight's shape."""
        return tf.reshape(tf.transpose(matrices, (0, 2, 1)) if self.swapped else matrices,
                          self.shape)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Target:
    """A weight to prune.

    Attributes:
        layer: Name of the layer, behind those that it is inside of.
        kind: Class name.
        variable: The Keras variable.
        role: "kernels", "biases", ...
        view: As matrices; None where it is none.
        sparsity: Of its own, by an override; None: the plan's.
    """

    layer: str
    kind: str
    variable: Any
    role: str = KERNEL
    view: View | None = None
    sparsity: float | None = None

    @property
    def size(self) -> int:
        """Number of weights."""
        return int(np.prod(self.variable.shape))

    @property
    def matrix(self) -> View:
        """The view of a weight that has one."""
        if self.view is None:
            raise ValueError(f"the weight of layer '{self.layer}' must be a matrix")
        return self.view


@dataclass(frozen=True)
class SkippedLayer:
    """A layer with weights that is not pruned, and why."""

    layer: str
    kind: str
    reason: str


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
    """Report of a weight pruning: pruned weights, and kept layers with reasons.

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
        """Return a summary for the screen: the share of zeros by layer, and the kept layers."""
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
        """Return the record as JSON."""
        return {**asdict(self), "sparsity": self.sparsity}


def find_targets(
    model: keras.Model,
    *,
    include: Sequence[str] = (),
    overrides: Sequence[LayerShare] = (),
) -> tuple[list[Target], list[SkippedLayer]]:
    """Sort the layers that have weights into those to prune and those to keep.

    Layers inside layers (cells, attention's projections, wrapped and composite layers) are
    looked at one by one. A custom layer says what to prune by `get_prunable_weights()`, as
    with tfmot.

    Args:
        model: Any built model; of a subclassed one layers come in the order of their making.
        include: "biases", "normalization", "embeddings", "depthwise", "ends".
        overrides: Sparsity by pattern of layer names, the last that matches counts; sparsity
            0 keeps a layer. They reach the first and the last layer too.

    Returns:
        Targets in the order of the model, and the kept layers with their reasons.

    Raises:
        InputError: A pattern matches no layer that can be pruned.
    """
    targets: list[Target] = []
    kept: list[SkippedLayer] = []
    seen: set[int] = set()
    for name, layer in _layers(model):
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        found, reason = _of_layer(name, layer, include)
        targets += found
        if reason:
            kept.append(SkippedLayer(name, type(layer).__name__, reason))
    return _chosen(targets, kept, include, overrides)


def _layers(model: keras.Model) -> Iterator[tuple[str, Any]]:
    if not is_graph(model):
        for layer in layers_inside(model, include_self=False):
            yield layer.path.partition("/")[2] or layer.name, layer
        return
    for name, operation in calls(model):
        if isinstance(operation, keras.layers.Layer):
            for layer in layers_inside(operation):
                yield (name if layer is operation else f"{name}/{layer.name}"), layer


def _of_layer(name: str, layer: Any, include: Sequence[str]) -> tuple[list[Target], str]:
    """Return the targets of a layer, and why it has none."""
    kind = type(layer).__name__
    if not own_variables(layer) or isinstance(layer, keras.Model):
        return [], ""
    if hasattr(layer, "get_prunable_weights"):
        found = [Target(name, kind, variable) for variable in layer.get_prunable_weights()]
        return found, "" if found else "its get_prunable_weights() names none"
    weights = class_of(layer).weights
    if not weights:
        return [], "no rule for this class"
    if not layer.trainable:
        return [], "frozen (trainable=False)"
    found, reasons = [], []
    for attribute, role in weights:
        variable = getattr(layer, attribute, None)
        if variable is None:
            continue
        if role == KERNEL or role in include:
            found.append(Target(name, kind, variable, role, _view(layer, variable, role)))
        elif role != BIAS:
            reasons.append(_NOT_ASKED[role])
    return found, "" if found else next(iter(reasons), "")


def _view(layer: Any, variable: Any, role: str) -> View | None:
    """Return a kernel as matrices, or None where it has no input and output axes."""
    shape, work = tuple(variable.shape), class_of(layer).work
    if role not in (KERNEL, EMBEDDING) or len(shape) < 2:
        return None
    if work == "einsum_dense":
        source, kernel, target = layer.equation.replace("...", "").replace("->", ",").split(",")
        summed = [letter in source and letter not in target for letter in kernel]
        split = sum(summed)
        if not 0 < split < len(kernel) or not all(summed[:split]):
            return None
        return View(1, int(np.prod(shape[:split])), int(np.prod(shape[split:])), shape)
    positions = int(np.prod(shape[:-2]))
    if work == "transposed":
        return View(positions, shape[-1], shape[-2], shape, swapped=True)
    return View(positions, shape[-2], shape[-1], shape)


def _chosen(
    targets: list[Target],
    kept: list[SkippedLayer],
    include: Sequence[str],
    overrides: Sequence[LayerShare],
) -> tuple[list[Target], list[SkippedLayer]]:
    names = [target.layer for target in targets]
    for override in overrides:
        if not any(fnmatchcase(name, override.pattern) for name in names):
            raise unknown_name("layer or pattern (no weights to prune)", override.pattern, names)
    kernels = [target for target in targets if target.role == KERNEL]
    ends: dict[int, str] = {}
    if ENDS not in include and kernels:
        ends = {id(kernels[-1]): "last", id(kernels[0]): "first"}
        if len(kernels) == 1:
            ends = {id(kernels[0]): "only"}
    chosen = []
    for target in targets:
        own = [item.share for item in overrides if fnmatchcase(target.layer, item.pattern)]
        if own and own[-1] == 0:
            kept.append(SkippedLayer(target.layer, target.kind, "kept by an override"))
        elif own:
            chosen.append(Target(target.layer, target.kind, target.variable, target.role,
                                 target.view, own[-1]))  # fmt: skip
        elif id(target) in ends:
            reason = f"{ends[id(target)]} layer, not pruned unless asked ('{ENDS}')"
            kept.append(SkippedLayer(target.layer, target.kind, reason))
        else:
            chosen.append(target)
    return chosen, kept
