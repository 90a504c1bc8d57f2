"""Magnitude pruning during training: masks by tfmot's code, held by constraints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from compress import tfmot_bridge
from compress.errors import InputError
from compress.options import require
from compress.plan import WeightOptions
from compress.prune.weights.targets import Kept, Target, find_targets

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class PrunedLayer:
    """One pruned kernel: number of weights, and how many of them are zero."""

    layer: str
    size: int
    zeros: int


@dataclass(frozen=True)
class WeightReport:
    """What was pruned, what was kept and why.

    Attributes:
        pruned: The pruned kernels.
        kept: Layers with weights left alone, with the reason.
        sparsity: Zeros over all weights of the pruned kernels; 0 without any.
    """

    pruned: tuple[PrunedLayer, ...]
    kept: tuple[Kept, ...]

    @property
    def sparsity(self) -> float:
        """Zeros over weights, of the pruned kernels together."""
        total = sum(layer.size for layer in self.pruned)
        return sum(layer.zeros for layer in self.pruned) / total if total else 0.0

    def to_json(self) -> dict[str, Any]:
        """Returns the record as JSON."""
        return {**asdict(self), "sparsity": self.sparsity}


@dataclass(frozen=True)
class UpdateTimes:
    """When masks are updated, in steps from 0: first, last and the distance between."""

    begin: int
    end: int
    frequency: int


def update_times(options: WeightOptions, total_steps: int) -> UpdateTimes:
    """Turns shares of training into steps, such that the last update has full sparsity.

    tfmot updates when (step - begin) is a multiple of the frequency: the end is moved
    back to the last such step, else the final sparsity would never be reached.

    Args:
        options: Begin and end as shares of training, number of updates at most.
        total_steps: Steps of the training.

    Raises:
        InputError: Fewer than 2 steps: sparsity could not rise.
    """
    require(total_steps >= 2, "training steps", "be at least 2 to prune", total_steps)
    begin = min(round(options.begin * total_steps), total_steps - 2)
    end = min(max(round(options.end * total_steps), begin + 1), total_steps - 1)
    frequency = max(1, -(-(end - begin) // options.updates))
    return UpdateTimes(begin, begin + (end - begin) // frequency * frequency, frequency)


class WeightPruner:
    """A training hook that prunes kernels gradually to a sparsity and holds them there.

    Masks come from the current magnitudes at each update and are frozen after the last
    one. Between updates the optimizer holds them: it applies a variable's constraint
    after each step. A constraint that the user set acts first and is given back by
    `strip`.

    Args:
        options: Sparsity and schedule.

    Reference:
        Zhu & Gupta 2017, "To prune, or not to prune"; masks as tfmot 0.8.1 computes them.
    """

    def __init__(self, options: WeightOptions) -> None:
        self.options = options
        self.targets: list[Target] = []
        self.kept: list[Kept] = []
        self._masks: list[Any] = []
        self._own_constraints: list[tuple[Any, Callable[[Any], Any] | None]] = []
        self._last_update = 0

    def start(self, model: keras.Model, step: Any, total_steps: int) -> None:
        """Finds the kernels, makes the masks (all ones) and sets the constraints."""
        import tensorflow as tf

        if self.targets:
            raise InputError("A WeightPruner must be used for one training. Make a new one.")
        self.targets, self.kept = find_targets(model, ends=self.options.ends)
        times = update_times(self.options, total_steps)
        self._last_update = times.end
        self._schedule = tfmot_bridge.polynomial_schedule(
            self.options.initial_sparsity,
            self.options.sparsity,
            times.begin,
            times.end,
            times.frequency,
            self.options.power,
        )
        self._step = step
        self._masks = [
            tf.Variable(tf.ones(target.variable.shape), trainable=False) for target in self.targets
        ]
        self._pruning = tfmot_bridge.magnitude_pruning(
            lambda: step,
            [
                (target.variable.value, mask, tf.Variable(0.0, trainable=False))
                for target, mask in zip(self.targets, self._masks, strict=True)
            ],
            self._schedule,
        )
        for target, mask in zip(self.targets, self._masks, strict=True):
            self._own_constraints.append((target.variable, target.variable.constraint))
            target.variable.constraint = _masked(target.variable.constraint, mask)

    def before_step(self) -> None:
        """Updates masks and applies them where the schedule says so (graph code)."""
        import tensorflow as tf

        if not self.targets:
            return

        def update() -> Any:
            # control dependencies come from tf.function: masks first, then weights
            self._pruning.conditional_mask_update()
            for target, mask in zip(self.targets, self._masks, strict=True):
                target.variable.value.assign(target.variable.value * mask)
            return tf.constant(True)

        tf.cond(self._schedule(self._step)[0], update, lambda: tf.constant(False))

    def may_select(self, step: int) -> bool:
        """Allows weights only after the last mask update."""
        return not self.targets or step > self._last_update

    def strip(self) -> WeightReport:
        """Takes the constraints off, leaving an ordinary model with exact zeros.

        To be called after training, failed training too; a second call changes nothing.
        """
        for variable, constraint in self._own_constraints:
            variable.constraint = constraint
        self._own_constraints.clear()
        pruned = tuple(
            PrunedLayer(
                target.layer,
                int(np.prod(target.variable.shape)),
                int(np.count_nonzero(target.variable.numpy() == 0)),
            )
            for target in self.targets
        )
        return WeightReport(pruned, tuple(self.kept))


def _masked(inner: Callable[[Any], Any] | None, mask: Any) -> Callable[[Any], Any]:
    """Returns a constraint: the user's own first, then the mask."""

    def constraint(weight: Any) -> Any:
        value = weight if inner is None else inner(weight)
        return value * mask

    return constraint
