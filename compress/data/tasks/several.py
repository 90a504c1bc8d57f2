"""Several outputs, each with a task of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.data.tasks._base import Array, Task

MEAN = "mean_quality"
"""The mean over outputs of the quality that each is judged by, each at least 0."""


@dataclass(frozen=True)
class Several(Task):
    """A task for each output; labels, logits and scores are mappings by the outputs' names.

    Attributes:
        each: Names and tasks, in the order of the model's outputs.
        weights: Of the outputs' losses; (): each loss counts by what guessing costs, so that
            outputs of other units count alike.
        main: The quality that selects; "": `mean_quality`.
    """

    each: tuple[tuple[str, Task], ...]
    weights: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    main: str = ""

    name = "several"
    activation = ""
    noun = "outputs"

    @classmethod
    def for_labels(cls, names: int, labels: Array | None) -> Several:
        """Raises an error: labels do not tell the tasks of outputs.

        Raises:
            InputError: Always.
        """
        raise InputError(
            "Task 'several' must be of data that name an output each. Received: labels alone."
        )

    @property
    def parts(self) -> dict[str, Task]:
        """The task of each output, by its name."""
        return dict(self.each)

    @property
    def qualities(self) -> tuple[str, ...]:  # type: ignore[override]
        """The one that selects, `mean_quality`, those of each output behind its name: "box.r2"."""
        named = (f"{name}.{quality}" for name, task in self.each for quality in task.qualities)
        return tuple(dict.fromkeys((self.main or MEAN, MEAN, *named)))

    @property
    def outputs(self) -> int:
        """The widths of all heads together."""
        return sum(task.outputs for _, task in self.each)

    @property
    def loss_weights(self) -> dict[str, float]:
        """What each output's loss is multiplied by."""
        given = self.weights or tuple(1.0 / task.chance_loss() for _, task in self.each)
        return dict(zip(self.parts, given, strict=True))

    def loss(self, labels: Mapping[str, Any], logits: Mapping[str, Any]) -> Any:
        """Returns the weighted sum of the outputs' losses, (batch,)."""
        total = 0.0
        for name, task in self.each:
            smoothed: Any = replace(task, label_smoothing=self.label_smoothing)  # type: ignore[type-var]
            total += self.loss_weights[name] * smoothed.loss(labels[name], logits[name])
        return total

    def chance_loss(self) -> float:
        """Returns the weighted sum of what guessing costs."""
        return sum(self.loss_weights[name] * task.chance_loss() for name, task in self.each)

    def constants(self, labels: Any) -> Iterator[Any]:
        """Yield nothing: the best constant answer is found for each output, see `chance`."""
        yield from ()

    def chance(self, labels: Any) -> float:
        """Return what the best constant answer of each output reaches together."""
        chosen = self._chosen()
        if chosen is not None:
            return chosen[1].chance(labels[chosen[0]])
        return float(np.mean([
            task.share({task.qualities[0]: task.chance(labels[name]), "skill": 0.0})
            for name, task in self.each
        ]))  # fmt: skip

    def chance_error(self, labels: Any, quality: float) -> float:
        """Return the standard error of the chosen output, or of the mean over outputs."""
        chosen = self._chosen()
        if chosen is not None:
            return chosen[1].chance_error(labels[chosen[0]], quality)
        errors = [task.chance_error(labels[name], quality) for name, task in self.each]
        return math.sqrt(sum(error**2 for error in errors)) / len(errors)

    def _chosen(self) -> tuple[str, Task] | None:
        """Return the output whose quality selects, judged by that; None: the mean selects."""
        for name, task in self.each:
            metric = self.main.removeprefix(f"{name}.")
            if metric != self.main and metric in task.qualities:
                return name, task if metric == task.qualities[0] else task.judged_by(metric)
        return None

    def quality(self, labels: Any, scores: Any, *, threshold: Any = 0.0) -> dict[str, float]:
        """Returns `mean_quality` and the qualities of each output behind its name."""
        found = {
            name: task.quality(labels[name], scores[name], threshold=_of(threshold, name))
            for name, task in self.each
        }
        return self._together(found)

    def _together(self, found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        main = [task.share(dict(found[name])) for name, task in self.each]
        each = {f"{name}.{key}": value for name in found for key, value in found[name].items()}
        together = {MEAN: float(np.mean(main)), **each}
        first = self.main or MEAN
        return {first: together[first], **together}

    def tallies(
        self, labels: Any, scores: Any, *, threshold: Any = 0.0
    ) -> npt.NDArray[np.float64] | None:
        """Returns the tallies of all outputs side by side, (n, ...); None where one has none."""
        found = []
        for name, task in self.each:
            own = task.tallies(labels[name], scores[name], threshold=_of(threshold, name))
            if own is None:
                return None
            found.append(own.reshape(len(own), -1))
        return np.concatenate(found, 1)

    def of_tallies(self, sums: npt.NDArray[np.float64]) -> dict[str, float]:
        """Returns the qualities of sums over examples of `tallies`."""
        found, start = {}, 0
        for name, task in self.each:
            shape = task.tally_shape
            stop = start + int(np.prod(shape))
            found[name] = task.of_tallies(sums[start:stop].reshape(shape))
            start = stop
        return self._together(found)

    def agreement(self, scores: Any, reference: Any, *, threshold: Any = 0.0) -> float:
        """Returns the mean over outputs of how far they say the same."""
        found = [
            task.agreement(scores[name], reference[name], threshold=_of(threshold, name))
            for name, task in self.each
        ]
        return float(np.mean(found))

    def error(self, labels: Any, logits: Any) -> float:
        """Returns the weighted sum of the outputs' mean losses without label smoothing."""
        return sum(
            self.loss_weights[name] * task.error(labels[name], logits[name])
            for name, task in self.each
        )


def _of(threshold: Any, name: str) -> float:
    return float(threshold[name] if isinstance(threshold, Mapping) else threshold)
