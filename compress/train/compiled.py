"""Data whose task is what a model was compiled with: loss, metrics, and what guessing costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.arrays import taken
from compress.core.errors import InputError, unknown_name
from compress.data import Dataset
from compress.data.tasks import Custom
from compress.model.compiled import CompiledOutput, less_is_better
from compress.model.heads import output_of
from compress.model.ports import answers_of, output_names
from compress.train.predict import Predictor

if TYPE_CHECKING:
    import keras

LOOKED_AT = 500
"""Training examples on which it is found what guessing costs."""


def with_compiled(
    data: Dataset, model: keras.Model, compiled: Mapping[str, CompiledOutput]
) -> Dataset:
    """Returns the data with what a model was compiled with: loss weights, and custom tasks.

    What a guess costs is what the model's answers to other examples do.

    Args:
        data: Some of whose outputs may have the kind "custom".
        model: That answers them.
        compiled: What it was compiled with, by the outputs' names.

    Raises:
        InputError: It was not compiled with a loss for one of them.
    """
    data = _weighted(data, compiled)
    kinds = {item.name: item.kind for item in data.outputs} or {"": data.kind}
    custom = [name for name, kind in kinds.items() if kind == Custom.name]
    if not custom:
        return data
    index = np.linspace(0, len(data.train) - 1, min(LOOKED_AT, len(data.train))).astype(np.int64)
    part = data.train.take(index)
    made = Predictor(partial(answers_of, model), data.preprocess, model)(part.x)
    tasks = {}
    for name in custom:
        own = name or output_names(model)[0]
        given = compiled.get(own)
        if given is None or given.loss is None:
            raise InputError(
                f"Output '{own}' must have a loss for a custom task: the model was compiled "
                "without one. Compile it (loss=, metrics=), or give --task."
            )
        labels, scores = (held[name] if name else held for held in (part.y, made))
        shape = tuple(size or scores.shape[place + 1] for place, size in
                      enumerate(output_of(model, name).shape[1:]))  # fmt: skip
        tasks[name] = _task(given, shape, labels, scores)
    return replace(data, compiled=tasks)


def _weighted(data: Dataset, compiled: Mapping[str, CompiledOutput]) -> Dataset:
    """Returns the data with the loss weights of several outputs, where `compile` was told some."""
    given = [compiled[item.name].weight for item in data.outputs if item.name in compiled]
    if all(weight is None for weight in given):
        return data
    found = {
        item.name: 1.0 if (weight := compiled[item.name].weight) is None else weight
        for item in data.outputs
    }
    told = ", ".join(f"{name} {weight:g}" for name, weight in found.items())
    note = f"losses are weighted as the model was compiled: {told}"
    return replace(data, loss_weights=tuple(found.values()), notes=(*data.notes, note))


def _task(given: CompiledOutput, shape: tuple[int, ...], labels: Any, scores: Any) -> Custom:
    """Returns the task of one output."""
    metrics = tuple((str(metric.name), metric) for metric in given.metrics)
    text = str(getattr(given.loss, "name", None) or getattr(given.loss, "__name__", "loss"))
    main = metrics[0][0] if metrics else ""
    spread = float(scores.reshape(-1, scores.shape[-1]).var(0, dtype=np.float64).mean()) or 1.0
    if main and less_is_better(given.metrics[0]):
        main = f"-{main}"
    task = Custom(shape, given.loss, text, metrics, main, spread=spread)
    order = np.random.default_rng(0).permutation(len(labels))
    other = np.empty_like(order)
    other[order] = np.roll(order, 1)  # of no example its own
    guess = task.error(labels, taken(scores, other))
    if not np.isfinite(guess) or guess <= 0:
        guess = max(1e-12, task.error(labels, scores)) if np.isfinite(guess) else 1.0
    task = replace(task, guess=float(guess))
    level = task.quality(labels, taken(scores, other))[task.qualities[0]]
    return replace(task, level=float(level))


def judged_by(data: Dataset, metric: str) -> Dataset:
    """Returns the data judged by another of their task's qualities.

    Args:
        data: Any.
        metric: Its name; of a compiled metric "-" before it where less is better.

    Raises:
        InputError: The task has no such quality.
    """
    if not metric:
        return data
    task = data.task
    if isinstance(task, Custom):
        names = [name for name, _ in task.metrics]
        if metric.lstrip("-") not in names:
            raise unknown_name("metric", metric.lstrip("-"), names)
        return replace(data, compiled={"": replace(task, main=metric, level=-np.inf)})
    if metric not in task.qualities:
        raise unknown_name("metric", metric, task.qualities)
    return replace(data, metric=metric)
