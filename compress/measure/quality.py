"""Quality of an exported file: what it answers, and how far that is from its Keras model.

The artefact that ships is what is judged. What a file must reach to ship unasked is
`Task.least_agreement`: 90 % of equal classes, an R^2 of 0.9 where the task is of numbers, 95 % of
equal decisions between yes and no and of equal pixels, where always answering "no" or "background"
agrees well by itself.

Healthy files are above that by far (docs/measured.md: Fashion-MNIST, 2,000 validation examples):
int8 files of ResNet-20, MobileNetV2, ConvNeXt, ViT and a MobileNetV1 of 2,000 parameters agree on
98.7 to 99.6 %. A net that tells 200 classes apart with 29 % accuracy has
many answers that lie close together; its int8 file agrees on 94.7 %, the lowest of all. Decisions
between yes and no and pixels are equal in 99.8 % or more, R^2 of numbers is above 0.999. A net of
ten classes whose int8 kernels are all zero because a weight exploded agrees on 10 %.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.statistics import wilson
from compress.data.tasks import TASKS, Task
from compress.measure.runtimes import Session, session_for

REPORT_EVERY = 250
LARGE = 32_000_000
"""Bytes of a file from which on there is one session alone."""


def sessions_for(path: Path, threads: int) -> tuple[Session, ...]:
    """Prepare a file as often as there are threads to run it on, up to four times.

    Args:
        path: Of a kind that some runtime runs. A large file is prepared once: each session holds
            its weights.
        threads: That may be busy.

    Raises:
        InputError: No runtime can run it.
        MissingDependency: The runtime is not installed.
    """
    many = 1 if path.stat().st_size > LARGE else min(4, threads)
    return tuple(session_for(path) for _ in range(many))


def outputs_of(
    session: Session | Sequence[Session],
    inputs: Sequence[npt.NDArray[Any]],
    on_progress: Callable[[float], None] | None = None,
) -> list[npt.NDArray[np.float32]]:
    """Run every example through sessions of batch size 1.

    Args:
        session: From `Runtime.prepare`; several of one file share the examples, each in a thread
            of its own. What comes out is the same.
        inputs: Model inputs, an array (n, ...) each, in the model's order.
        on_progress: Called now and then with the share that is done.

    Returns:
        An array (n, ...) an output, in the model's order.
    """
    sessions = tuple(session) if isinstance(session, Sequence) else (session,)
    first, *others = sessions
    parts = np.array_split(np.arange(len(inputs[0])), len(sessions))
    stop = threading.Event()
    with ThreadPoolExecutor(max(1, len(others))) as pool:
        asked = [
            pool.submit(_answers, other, inputs, part, stop)
            for other, part in zip(others, parts[1:], strict=True)
        ]
        try:
            told = on_progress, max(1, REPORT_EVERY // len(sessions))
            found = [_answers(first, inputs, parts[0], stop, *told)]
            found += [future.result() for future in asked]
        finally:
            stop.set()  # Ctrl-C or an error: the others end too
    return [np.concatenate(made) for made in zip(*found, strict=True)]


def _answers(
    session: Session,
    inputs: Sequence[npt.NDArray[Any]],
    rows: npt.NDArray[np.int64],
    stop: threading.Event,
    on_progress: Callable[[float], None] | None = None,
    every: int = REPORT_EVERY,
) -> list[npt.NDArray[np.float32]]:
    """Return a session's outputs for some rows, an array (rows, ...) each."""
    found = [np.empty((0, *info.shape[1:]), np.float32) for info in session.outputs]
    for place, row in enumerate(rows):
        if stop.is_set():
            break
        session.set_inputs([values[row : row + 1] for values in inputs])
        session.invoke()
        results = session.results()
        if place == 0:
            found = [np.empty((len(rows), *result.shape[1:]), np.float32) for result in results]
        for made, result in zip(found, results, strict=True):
            made[place] = result[0]
        if on_progress and (place + 1) % every == 0:
            on_progress((place + 1) / len(rows))
    return found


def has_low_agreement(kind: str, agreement: float, checked: int) -> bool:
    """Return whether a file disagrees with its Keras model too much to ship unasked.

    It does where the upper end of the 95 % interval of its agreement (Wilson's, of as many
    decisions as there are examples) is below `Task.least_agreement`: of 200 examples that is below
    85 % where 90 % are asked for, so that luck of the draw accuses no healthy file. R^2 is held
    against it as it is.

    Args:
        kind: Kind of the task, as `Task.name`; one that is not registered is held against the
            default of `Task`.
        agreement: `Task.agreement` of the file and the model, at most 1; NaN is low.
        checked: Number of examples that were compared; 0: nothing is known, and nothing is low.

    Example:
        >>> has_low_agreement("multiclass", 0.61, 200), has_low_agreement("multiclass", 0.87, 200)
        (True, False)
    """
    if checked < 1:
        return False
    if math.isnan(agreement):
        return True
    task = _task_class(kind)
    best = agreement
    if not task.agrees_by_r2:
        best = wilson(min(max(agreement, 0.0), 1.0), checked)[1]
    return best < task.least_agreement


def can_ship_unasked(kind: str, agreement: float, checked: int, formats: Sequence[str]) -> bool:
    """Return whether a file may be chosen to ship.

    One that disagrees with its Keras model may where its format alone was asked for.

    Args:
        kind, agreement, checked: See `has_low_agreement`.
        formats: That the plan asks for, `plan.export.formats`.
    """
    return len(formats) == 1 or not has_low_agreement(kind, agreement, checked)


def describe_low_agreement(name: str, kind: str, agreement: float, checked: int) -> str:
    """Return the warning that a file disagrees with its Keras model; "" where it does not.

    Args:
        name: Of the file, as the reader knows it ("model.int8").
        kind, agreement, checked: See `has_low_agreement`.

    Example:
        >>> describe_low_agreement("m.int8", "multiclass", 0.61, 200)[:60]
        'warning: m.int8 agrees with the Keras model on only 61.0 % of'
    """
    if not has_low_agreement(kind, agreement, checked):
        return ""
    task, examples = _task_class(kind), f"{checked:,} examples"
    least = task.least_agreement
    if task.agrees_by_r2:
        reached, wanted = f"with an R2 of only {agreement:.2f} on {examples}", f"{least:.2f}"
    else:
        of = examples if task.indices else f"all decisions on {examples}"
        reached, wanted = f"on only {100 * agreement:.1f} % of {of}", f"{100 * least:.0f} %"
    return f"warning: {name} agrees with the Keras model {reached} (at least {wanted} expected)"


def _task_class(kind: str) -> type[Task]:
    if kind not in TASKS:
        return Task
    found: type[Task] = TASKS[kind]
    return found


_TINY = 1e-9
"""What a probability counts as at least."""


def divergence(wanted: Sequence[Any], made: Sequence[Any]) -> float:
    """Return the distance between outputs and wanted ones, over all outputs.

    Of class probabilities it is their mean Kullback-Leibler divergence, of other outputs the
    squared error relative to their spread over the examples.

    Args:
        wanted: What was wanted, an array an output.
        made: The same, of the model that is judged.

    Shapes:
        wanted, made: (n, ...) each; probabilities (n, ..., classes) that sum to one.

    Returns:
        Nats an example (and position), or a share of the spread; 0: alike.

    Example:
        >>> divergence([np.array([[0.5, 0.5]])], [np.array([[0.5, 0.5]])])
        0.0

    Reference:
        Kullback and Leibler 1951, "On Information and Sufficiency", equation 2.4; ours:
        probabilities below 1e-9 count as that.
    """
    pairs = [(np.asarray(y), np.asarray(z)) for y, z in zip(wanted, made, strict=True)]
    unit = sum(spread(y) for y, _ in pairs)
    return sum(distance(y, z) for y, z in pairs) / max(unit, 1e-30)


def spread(y: npt.NDArray[Any]) -> float:
    """Return the divisor of distances: the examples, or the spread of numbers."""
    if _probabilities(y):
        return float(y.size // y.shape[-1])
    y = y.astype(np.float64)
    return float(((y - y.mean(0)) ** 2).sum())


def distance(wanted: npt.NDArray[Any], made: npt.NDArray[Any]) -> float:
    """Return the sum over examples that `divergence` divides by `spread`."""
    wanted, made = wanted.astype(np.float64), made.astype(np.float64)
    if _probabilities(wanted):
        ratio = np.log(np.maximum(wanted, _TINY)) - np.log(np.maximum(made, _TINY))
        return float((wanted * ratio).sum())
    return float(((wanted - made) ** 2).sum())


def _probabilities(y: npt.NDArray[Any]) -> bool:
    sums = y.sum(-1)
    return y.ndim > 1 and y.shape[-1] > 1 and bool(y.min() >= 0 and np.abs(sums - 1).max() < 1e-3)
