"""Scales channels where they are made, and back where they are read; the outputs stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.model.activations import examples_at_once
from compress.model.program import Node, Program
from compress.model.recording import record
from compress.quantization.calibration import batches
from compress.quantization.equalizing import rules  # noqa: F401  (fills the table)
from compress.quantization.equalizing.call import TABLE, Call, width
from compress.quantization.equalizing.channels import Channels, Floats, Ids, Scaled, Settled
from compress.quantization.errors import made_by
from compress.reconstruction.matching import opens

if TYPE_CHECKING:
    import keras

MOST = 64.0
"""A scale goes no further, up or down: what differs more is next to dead."""
AT_ONCE = 256
"""Examples that are run at a time, where the memory budget allows."""


@dataclass(frozen=True)
class Equalized:
    """What was scaled.

    Attributes:
        scaled: Channels that kernels read and that were scaled.
        read: All channels that kernels read.
        left: Why channels were left as they are, by their number.
    """

    scaled: int
    read: int
    left: dict[str, int]

    def told(self) -> str:
        """Returns a line for a screen."""
        text = f"{self.scaled:,} of {self.read:,} channels were equalized"
        if not self.left:
            return text
        reason, count = max(self.left.items(), key=lambda item: item[1])
        return f"{text}; most of the others ({count:,}): {reason}"


def equalize(
    model: keras.Model,
    inputs: Sequence[npt.NDArray[Any]],
    on_progress: Callable[[float], None] | None = None,
) -> Equalized:
    """Scales a model's channels so that values and weights of each use their grids alike.

    All values of a tensor share one grid of 256 steps; a channel of small values has few of them.
    Where every step between a channel's maker and its readers is positively homogeneous
    (f(s x) = s f(x): sums, ReLUs, pooling), its weights can be divided by s where it is made and
    multiplied where it is read. With `a` its largest value and `w` the largest weight that reads
    it, s = sqrt(a / w) leaves sqrt(a w) to both. A channel that only depthwise kernels read,
    whose filters have grids of their own, takes s = a.

    Args:
        model: Functional or Sequential; its weights are changed, its outputs are not but for
            rounding of floats.
        inputs: Of the model (n, ...), one array an input, in its order.
        on_progress: Called with the share that is done.

    Returns:
        How many channels were scaled, and why others were not.

    Reference:
        Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
        Correction", section 4.1, equation 11, with the largest value in place of the largest
        weight that makes the channel: those have a grid each. So for one linear step: Xiao et al.
        2023, "SmoothQuant", equation 4, with alpha = 0.5.
    """
    program = record(model, opens)
    channels = Channels()
    _follow(program, channels)
    settled = channels.settled()
    values = _largest_values(program, channels, inputs, on_progress)
    scales = _scales(channels, settled, values)
    for weight in channels.weights.values():
        factor = scales[weight.everywhere]
        own = np.asarray(weight.variable)
        weight.variable.assign(own / factor if weight.made else own * factor)
    return _counted(channels, settled, scales)


def _follow(program: Program, channels: Channels) -> None:
    """Goes through the calls with channels in place of values."""

    def handler(node: Node, given: list[Ids]) -> list[Ids]:
        call = Call(node, given, channels)
        rule = TABLE.of(node.operation)
        made = call.fixed("no rule says how scales go through it") if rule is None else rule(call)
        return made if isinstance(made, list) else [made]

    given = [channels.new(width(tensor)) for tensor in program.inputs]
    for ids in given:
        channels.pin(ids, "they are inputs")
    for ids in program.interpret(handler, given):
        channels.pin(ids, "they are outputs")


def _largest_values(
    program: Program,
    channels: Channels,
    inputs: Sequence[npt.NDArray[Any]],
    on_progress: Callable[[float], None] | None,
) -> Floats:
    """Returns the largest absolute value of each channel where kernels read it; (channels,)."""
    import tensorflow as tf

    found = np.zeros(channels.count)

    def handler(node: Node, values: list[Any]) -> list[Any]:
        for place, ids in channels.reads.get(id(node), ()):
            rows = np.abs(np.asarray(values[place])).reshape(-1, len(ids))
            np.maximum.at(found, ids, rows.max(axis=0))
        return made_by(node, values)

    # the values that a kernel reads are looked at in a copy
    size = examples_at_once(program, AT_ONCE, copies=1.5)
    for share, batch in batches(inputs, size):
        program.interpret(handler, [tf.convert_to_tensor(part) for part in batch])
        if on_progress is not None:
            on_progress(share)
    return found


def _scales(channels: Channels, settled: Settled, values: Floats) -> Floats:
    """Returns the scale of each channel; 1 where it is pinned, or never anything but zero."""
    size = int(settled.component.max(initial=-1)) + 1
    largest, weights = np.zeros(size), np.zeros(size)
    np.maximum.at(largest, settled.component, values)
    for weight in channels.weights.values():
        if not weight.made and weight.shared:
            _raise_to_weights(weights, settled, weight)
    families = np.zeros(size, np.int64)
    families[settled.component] = settled.family
    pinned = np.zeros(size, bool)
    pinned[list(settled.pinned)] = True
    values, weights = (_about_one(part, families, pinned) for part in (largest, weights))
    root = np.sqrt(values / np.where(weights > 0, weights, 1.0))
    wanted = np.where(weights > 0, root, values).clip(1 / MOST, MOST)
    scales = np.where(pinned | (values == 0), 1.0, wanted)
    made: Floats = scales[settled.component]
    return made


def _raise_to_weights(largest: Floats, settled: Settled, weight: Scaled) -> None:
    size = np.abs(np.asarray(weight.variable))
    np.maximum.at(largest, settled.component[weight.everywhere].ravel(), size.ravel())


def _about_one(amounts: Floats, families: Ids, pinned: npt.NDArray[np.bool_]) -> Floats:
    """Divides amounts by their family's geometric mean: of the pinned ones, where there are any.

    What is pinned keeps its scale of 1, and the others join it.
    """
    size, there = int(families.max(initial=-1)) + 1, amounts > 0
    anchored = np.bincount(families, there & pinned, size) > 0
    measured = there & (pinned | ~anchored[families])
    logs = np.log(np.where(there, amounts, 1.0))
    count = np.bincount(families, measured, size)
    means = np.bincount(families, logs * measured, size) / np.maximum(count, 1)
    made: Floats = np.where(there, np.exp(logs - means[families]), 0.0)
    return made


def _counted(channels: Channels, settled: Settled, scales: Floats) -> Equalized:
    read = np.unique(
        np.concatenate(
            [ids for reads in channels.reads.values() for _, ids in reads]
            or [np.zeros(0, np.int64)]
        )
    )
    scaled = scales[read] != 1.0
    left = Counter(
        settled.pinned.get(int(settled.component[place]), "they are never anything but zero")
        for place in read[~scaled]
    )
    return Equalized(int(scaled.sum()), len(read), dict(left.most_common()))
